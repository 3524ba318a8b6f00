//! Prefixes originated here, as unreachable routes against forwarding loops.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
};

use super::{Fib, UNREACHABLE};
use crate::{
    fib::{
        route::{OWN_METRIC, Op},
        table::Mark,
    },
    net::{Cover, Prefix},
};

/// State of one originated prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::fib) struct Own {
    pub(in crate::fib) wanted: bool,
    pub(in crate::fib) there: bool,
    pub(in crate::fib) seen: bool,
}

/// All originated prefixes.
#[derive(Debug)]
pub(in crate::fib) struct OwnPrefixes {
    states: BTreeMap<Prefix, Own>,
    /// A state may have changed.
    changed: bool,
}

impl OwnPrefixes {
    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}

/// Nobody knows the prefixes of a new table, even if there are none.
impl Default for OwnPrefixes {
    fn default() -> Self {
        Self { states: BTreeMap::new(), changed: true }
    }
}

impl Deref for OwnPrefixes {
    type Target = BTreeMap<Prefix, Own>;

    fn deref(&self) -> &BTreeMap<Prefix, Own> {
        &self.states
    }
}

/// Whoever can change a state counts as having changed it.
impl DerefMut for OwnPrefixes {
    fn deref_mut(&mut self) -> &mut BTreeMap<Prefix, Own> {
        self.changed = true;
        &mut self.states
    }
}

impl Fib {
    /// Sets the prefixes that shall be unreachable, replacing those of the last call.
    pub fn set_own(&mut self, prefixes: &[Prefix]) {
        let wanted: BTreeSet<_> = prefixes.iter().copied().collect();
        for prefix in &wanted {
            self.own.entry(*prefix).or_default();
        }
        let all: Vec<_> = self.own.keys().copied().collect();
        for prefix in all {
            let Some(own) = self.own.get_mut(&prefix) else { continue };
            let was = std::mem::replace(&mut own.wanted, wanted.contains(&prefix));
            match (own.wanted, own.there) {
                (true, false) => self.put_own(prefix, false),
                // One that was adopted and never desired is left to the sweep.
                (false, true) if was => self.delete_own(prefix),
                (false, false) => drop(self.own.remove(&prefix)),
                _ => {}
            }
        }
        self.delete_stale_inside_own();
    }

    /// A stale route inside a range that has since been assigned to this node would attract its own
    /// pods' packets, as a connected IPv6 route has a higher metric. No neighbor may claim it
    /// either.
    fn delete_stale_inside_own(&mut self) {
        if self.sweep.stale == 0 {
            return;
        }
        let own: Cover = self.own.iter().filter(|(_, o)| o.wanted).map(|(p, _)| *p).collect();
        let stale = self.routes.iter().filter(|(_, s)| s.is(Mark::Stale) && s.want == 0);
        let inside: Vec<_> = stale.map(|(p, _)| p).filter(|p| own.of(*p).is_some()).collect();
        inside.into_iter().for_each(|prefix| self.delete(prefix));
    }

    pub(super) fn put_own(&mut self, prefix: Prefix, replace: bool) {
        if !self.settings.install || self.foreign.contains_key(&(prefix, OWN_METRIC)) {
            return;
        }
        if let Some(own) = self.own.get_mut(&prefix) {
            (own.there, own.seen) = (true, true);
            self.ops.push_back(Op::NewRoute { prefix, metric: OWN_METRIC, entry: UNREACHABLE, replace });
        }
    }

    pub(in crate::fib) fn delete_own(&mut self, prefix: Prefix) {
        self.own.remove(&prefix);
        self.ops.push_back(Op::DelRoute { prefix, metric: OWN_METRIC });
    }

    /// Originated prefixes whose unreachable route the kernel has accepted. Valid when nothing is
    /// left to write.
    pub fn own_there(&self) -> BTreeSet<Prefix> {
        self.own.iter().filter(|(_, o)| o.wanted && o.there).map(|(p, _)| *p).collect()
    }

    /// All originated prefixes, installed or not.
    pub fn own_wanted(&self) -> BTreeSet<Prefix> {
        self.own.iter().filter(|(_, o)| o.wanted).map(|(p, _)| *p).collect()
    }

    /// Whether originated prefixes, or which of them are installed, may have changed since the last
    /// call: after a batch of learned routes none has to be read.
    pub fn take_own_changed(&mut self) -> bool {
        self.own.take_changed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        fib::{
            host::testing::{host, link},
            resolve::Resolver,
            tests::SETTINGS,
        },
        net::{Gateway, NextHops},
    };

    #[test]
    fn learned_routes_leave_the_originated_prefixes_unread() {
        let mut fib = Fib::new(SETTINGS);
        fib.host(Resolver::new(&host([link(2, "eth0").with("10.0.0.1/24")], []), false), None);
        assert!(fib.take_own_changed(), "before the first report");
        let own: Vec<Prefix> = (0..100u8).map(|n| format!("10.9.{n}.0/24").parse().unwrap()).collect();
        fib.set_own(&own);
        assert_eq!(fib.take(1000).len(), 100);
        assert!(fib.take_own_changed() && !fib.take_own_changed());
        let gateway = Gateway { addr: "10.0.0.2".parse().unwrap(), ifindex: 0 };
        let hops = Arc::new(NextHops::unicast(vec![gateway]));
        for (route, hops) in
            [("20.0.0.0/24", Some(&hops)), ("20.0.1.0/24", Some(&hops)), ("20.0.0.0/24", None)]
        {
            fib.set_desired(route.parse().unwrap(), hops);
            fib.finish();
            assert!(!fib.take(1000).is_empty(), "{route} changes the kernel");
            assert!(!fib.take_own_changed(), "{route}");
        }
        let refused = Op::NewRoute { prefix: own[7], metric: OWN_METRIC, entry: UNREACHABLE, replace: false };
        fib.refused(&refused, false, false, &"no".into());
        assert!(fib.take_own_changed() && fib.own_there().len() == 99);
    }
}
