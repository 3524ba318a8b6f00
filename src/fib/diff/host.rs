//! Changes of links, addresses and lost neighbors, which move routes to other next hops.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Fib;
use crate::fib::{
    nexthop::NexthopEntryId,
    resolve::Resolver,
    route::{OWN_METRIC, ObjectId, SeenObject},
    table::Mark,
};

impl Fib {
    /// Takes a new snapshot of the host, and the kernel's present nexthop objects.
    pub fn host(&mut self, resolver: Resolver, seen: Option<&BTreeMap<ObjectId, SeenObject>>) {
        if let Some(seen) = seen {
            let before = self.objects.repaired;
            let lost = self.objects.observe(seen);
            self.repairs += self.objects.repaired - before;
            self.lose_routes_of(&lost, false);
        }
        self.objects.resolve(resolver);
        // For learned routes the table itself shows that they are missing.
        let problems = self.problems.len();
        self.problems.retain(|(_, metric), _| *metric == OWN_METRIC);
        if self.objects.take_moved() || self.problems.len() < problems {
            self.rescan();
        }
    }

    /// Takes the gateways that BFD has lost: groups continue without them, with one message for all
    /// routes of each.
    pub fn lose(&mut self, lost: &BTreeSet<(IpAddr, u32)>) {
        self.objects.lose(lost);
        if !self.objects.enabled() && self.objects.take_moved() {
            self.rescan();
        }
    }

    /// Records that these entries are gone with all their routes. `decided`: the decision about
    /// these routes was to delete them.
    pub(super) fn lose_routes_of(&mut self, entries: &BTreeSet<NexthopEntryId>, decided: bool) {
        if entries.is_empty() {
            return;
        }
        let (objects, sweep) = (&mut self.objects, &mut self.sweep);
        self.routes.change_all(|state| {
            let have = state.have();
            if entries.contains(&have) {
                objects.drop_refs(have, 1);
                sweep.stale -= usize::from(state.is(Mark::Stale));
                state.set_have(0);
                state.set(Mark::Stale, false);
                state.set(Mark::Queued, state.is(Mark::Queued) && !decided);
            }
        });
    }

    /// Decides again about all routes.
    pub(in crate::fib) fn rescan(&mut self) {
        self.rescans += 1;
        let all: Vec<_> = self
            .routes
            .iter()
            .filter(|(_, s)| {
                let entry = self.objects.entry(s.have());
                entry.is_none_or(|t| t.owner != s.want || !t.alive) || self.objects.path(s.want).is_err()
            })
            .map(|(p, _)| p)
            .collect();
        for prefix in all {
            // If a route went with its object, its key is free or ours, as `observe` has found.
            self.settle(prefix, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        fib::{
            host::{
                Host,
                testing::{host, link},
            },
            route::Op,
            tests::SETTINGS,
        },
        net::{Gateway, NextHops, Prefix},
    };

    fn see(fib: &mut Fib, host: &Host) -> (u64, usize) {
        let before = fib.rescans;
        fib.host(Resolver::new(host, false), None);
        let ops = write(fib);
        (fib.rescans - before, ops)
    }

    fn write(fib: &mut Fib) -> usize {
        take_all(fib).len()
    }

    fn take_all(fib: &mut Fib) -> Vec<Op> {
        fib.finish();
        std::iter::from_fn(|| Some(fib.take(128)).filter(|ops| !ops.is_empty())).flatten().collect()
    }

    #[test]
    fn a_link_that_no_route_uses_visits_no_route() {
        let links = [link(2, "eth0").with("10.0.2.1/24"), link(3, "eth1").with("10.0.3.1/24")];
        let mut host = host(links, []);
        let mut fib = Fib::new(SETTINGS);
        see(&mut fib, &host);
        let gateway = Gateway { addr: "10.0.2.9".parse().unwrap(), ifindex: 0 };
        let hops = Arc::new(NextHops::unicast(vec![gateway]));
        for n in 0..100u8 {
            fib.set_desired(Prefix::v4([20, 0, n, 0].into(), 24), Some(&hops));
        }
        assert!(write(&mut fib) > 100);
        let mut set = |fib: &mut Fib, index: u32, up: bool| {
            host.links.get_mut(&index).unwrap().lower_up = up;
            see(fib, &host)
        };
        for up in [false, true] {
            assert_eq!(set(&mut fib, 3, up), (0, 0), "a link that none uses: {up}");
        }
        let (rescans, ops) = set(&mut fib, 2, false);
        assert!(rescans == 1 && ops > 0, "the link of all routes: {ops}");
        let (rescans, ops) = set(&mut fib, 2, true);
        assert!(rescans == 1 && ops >= 100, "which is back: {ops}");
        assert_eq!(set(&mut fib, 3, false), (0, 0));
    }

    #[test]
    fn what_the_kernel_refused_is_written_again_after_a_change_of_the_host() {
        let mut host = host([link(2, "eth0").with("10.0.2.1/24"), link(3, "eth1")], []);
        let mut fib = Fib::new(SETTINGS);
        see(&mut fib, &host);
        let gateway = Gateway { addr: "10.0.2.9".parse().unwrap(), ifindex: 0 };
        fib.set_desired("20.0.0.0/24".parse().unwrap(), Some(&Arc::new(NextHops::unicast(vec![gateway]))));
        let ops = take_all(&mut fib);
        fib.refused(ops.last().unwrap(), false, false, &"no".into());
        host.links.get_mut(&3).unwrap().lower_up = false;
        assert_eq!(see(&mut fib, &host), (1, 1));
    }
}
