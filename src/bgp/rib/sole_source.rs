//! Which neighbors are the only source of some route. Checked before a session is closed whose
//! routes should also be learned from others.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Rib,
    table::{Path, PeerNo},
};
use crate::bgp::peer::PeerKey;

impl Rib {
    /// Returns the neighbors in `leaving` that are the only source of some prefix. Stale paths
    /// (RFC 4724 §4.2) do not count.
    pub fn sole_sources(&self, leaving: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let leaves = |no: PeerNo| match &self.peer(no)?.config.key {
            PeerKey::Address(addr) => leaving.get(addr).copied(),
            PeerKey::LinkLocal(..) | PeerKey::Interface(_) => None,
        };
        let stays = |p: &Path| p.is_usable() && !p.has(Path::STALE) && leaves(p.peer).is_none();
        let mut sole = BTreeSet::new();
        for table in self.tables.iter() {
            for paths in table.numbers().map(|n| table.get(n).paths()) {
                if !paths.iter().any(stays) {
                    sole.extend(paths.iter().filter(|p| p.is_usable()).filter_map(|p| leaves(p.peer)));
                }
            }
        }
        sole
    }
}
