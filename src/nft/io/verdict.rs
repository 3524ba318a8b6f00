//! Reads the packet filters of nf_tables, and the policy of iptables-legacy, for `explain`.

use std::io;

use super::{iptables_legacy, socket::NftSocket};
use crate::{
    net::Family,
    nft::verdict::{Chains, Forwarded, Verdict, list_chains, list_rules, protocols, tables},
};

/// The packet filters of one family.
pub struct Filters {
    chains: Vec<Chains>,
    legacy_drops: bool,
}

impl Filters {
    /// Reads them. It blocks for a moment: use it in a thread of its own.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, for want of rights. A kernel without nf_tables has no filters there.
    pub fn read(family: Family) -> io::Result<Self> {
        let mut socket = NftSocket::open()?;
        let mut chains = Vec::new();
        for protocol in protocols(family) {
            let bases = socket.list(|encoder| list_chains(encoder, protocol))?;
            let mut rules = Vec::new();
            for table in tables(&bases) {
                rules.extend(socket.list(|encoder| list_rules(encoder, protocol, &table))?);
            }
            chains.push(Chains::new(&bases, rules));
        }
        Ok(Self { chains, legacy_drops: iptables_legacy::forward_drops(family) })
    }

    /// What becomes of a packet.
    pub fn verdict(&self, packet: &Forwarded) -> Verdict {
        let dropped = self.chains.iter().map(|c| c.verdict(packet)).find(|v| *v != Verdict::Accepted);
        dropped.unwrap_or_else(|| match self.legacy_drops {
            true => {
                Verdict::Dropped { by: "the policy of FORWARD in iptables-legacy".into(), certain: false }
            }
            false => Verdict::Accepted,
        })
    }
}
