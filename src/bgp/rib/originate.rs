//! The prefixes that this node originates.

use std::{collections::BTreeMap, mem, sync::Arc, time::Instant};

use super::{
    Rib,
    table::{OWN, Path},
    update_group::rank::Rank,
};
use crate::{
    bgp::wire::attr::{AsPath, Attrs, ExtraAttrs, Origin, PathNextHop},
    net::{Family, Origination, Prefix},
};

impl Rib {
    pub(super) fn originate(&mut self, now: Instant, new: Arc<BTreeMap<Prefix, Origination>>) {
        let since = self.clock(now);
        let old = mem::replace(&mut self.originated, new.clone());
        for prefix in old.keys().filter(|p| !new.contains_key(p)) {
            if let Some(route) = self.tables[prefix.family()].find(*prefix) {
                self.remove_paths(prefix.family(), route, |p| p.peer == OWN);
            }
        }
        let mut changed: Vec<_> = new.iter().filter(|(p, o)| old.get(p) != Some(o)).collect();
        changed.sort_by_key(|(_, o)| Rank::of(o.source));
        for (prefix, origination) in changed {
            let id = self.attrs.intern(&Arc::new(own_attrs(*prefix, origination)), 0, OWN);
            let family = prefix.family();
            let route = self.tables[family].entry(*prefix);
            self.remove_paths(prefix.family(), route, |p| p.peer == OWN);
            self.attrs.acquire(id);
            let path =
                Path { peer: OWN, bits: 0, refused: 0, path_id: 0, received: id, effective: id, since };
            self.tables[family].push(route, path);
            self.mark_dirty(prefix.family(), route);
        }
    }
}

/// The attributes of an originated route before export.
pub(super) fn own_attrs(prefix: Prefix, origination: &Origination) -> Attrs {
    let addr = match prefix.family() {
        Family::Ipv4Unicast => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6Unicast => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let extra = ExtraAttrs {
        ext_communities: origination.ext_communities.clone(),
        large_communities: origination.large_communities.clone(),
        ..ExtraAttrs::default()
    };
    Attrs {
        origin: Origin::Igp,
        as_path: AsPath::empty(),
        next_hop: PathNextHop { addr, link_local: None },
        med: origination.med,
        local_pref: None,
        communities: origination.communities.clone().into(),
        extra: (extra != ExtraAttrs::default()).then(|| Box::new(extra)),
    }
}
