//! What other daemons' routes depend on, and whether the kernel deletes some with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Foreign, RTPROT_KERNEL};
use crate::fib::{
    foreign::one_less,
    route::{Leads, ObjectId, SeenObject, SeenRoute},
};

/// What a route depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// A link, by its index.
    Link(u32),
    /// A preferred source. The routes of connected subnets do not count: the kernel notifies when
    /// they go with their address.
    Source(IpAddr),
}

/// What all routes depend on, each with the number of those that do.
#[derive(Debug, Default)]
pub(super) struct Uses(BTreeMap<Use, usize>);

/// What some routes depended on before a change.
pub(super) struct Former(Vec<Use>);

/// What the host lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A link has no carrier any more.
    Carrier(u32),
    /// A link was set down or deleted.
    Link(u32),
    /// An address was removed; `last`: the link has no other IPv4 address.
    Address { ifindex: u32, addr: IpAddr, last: bool },
}

impl Uses {
    pub(super) fn of(routes: &[SeenRoute]) -> Former {
        Former(uses(routes).collect())
    }

    /// Counts routes as they are, instead of as they were.
    pub(super) fn change(&mut self, former: Former, routes: &[SeenRoute]) {
        for one in uses(routes) {
            *self.0.entry(one).or_default() += 1;
        }
        for one in former.0 {
            one_less(&mut self.0, one);
        }
    }
}

fn uses(routes: &[SeenRoute]) -> impl Iterator<Item = Use> + '_ {
    routes.iter().flat_map(|route| {
        let source = route.source.filter(|_| route.protocol != RTPROT_KERNEL);
        route.hops.iter().map(|hop| Use::Link(hop.ifindex)).chain(source.map(Use::Source))
    })
}

impl Foreign {
    /// Whether a route leads over this link, directly or through a nexthop object.
    pub fn uses_link(&self, ifindex: u32) -> bool {
        self.uses.0.contains_key(&Use::Link(ifindex)) || self.uses_objects_on(ifindex)
    }

    fn uses_objects_on(&self, ifindex: u32) -> bool {
        !self.users.is_empty() && self.objects_on(ifindex).any(|object| self.is_used(object.id))
    }

    fn objects_on(&self, ifindex: u32) -> impl Iterator<Item = &SeenObject> {
        let over = move |o: &&SeenObject| matches!(o.leads, Leads::Hop(hop) if hop.ifindex == ifindex);
        self.objects.values().filter(over)
    }

    /// Whether the kernel may have deleted routes without a notification (docs/kernel.md, section
    /// 2). If not, no dump is due, and what is known is up to date.
    pub fn lose(&mut self, loss: Loss) -> bool {
        let due = self.overflowed || self.loses_routes(loss);
        if let (false, Loss::Carrier(ifindex) | Loss::Link(ifindex)) = (due, loss) {
            self.forget_objects_on(ifindex);
        }
        due
    }

    /// Removes objects of a link that no route uses, which the kernel deletes with it.
    fn forget_objects_on(&mut self, ifindex: u32) {
        let gone: BTreeSet<ObjectId> = self.objects_on(ifindex).map(|object| object.id).collect();
        if gone.is_empty() {
            return;
        }
        self.objects.retain(|id, _| !gone.contains(id));
        for object in self.objects.values_mut() {
            if let Leads::Group { members, .. } = &mut object.leads {
                members.retain(|id| !gone.contains(id));
            }
        }
    }

    fn loses_routes(&self, loss: Loss) -> bool {
        match loss {
            Loss::Carrier(ifindex) => self.uses_objects_on(ifindex),
            Loss::Link(ifindex) => self.uses_link(ifindex),
            Loss::Address { ifindex, addr, last } => {
                let source = self.uses.0.contains_key(&Use::Source(addr));
                addr.is_ipv4() && (source || last && self.uses_link(ifindex))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::{
        foreign::Arrival,
        host::{ForeignHop, Preference, RouteType},
        route::GroupKind,
    };

    fn route(prefix: &str, ifindex: u32, protocol: u8, source: Option<&str>, object: u32) -> SeenRoute {
        let hop = ForeignHop { ifindex, gateway: None, onlink: false };
        SeenRoute {
            prefix: prefix.parse().unwrap(),
            table: 254,
            metric: 0,
            protocol,
            kind: Some(RouteType::Unicast),
            tos: 0,
            preference: Preference::Medium,
            cloned: false,
            object,
            source: source.map(|s| s.parse().unwrap()),
            hops: if object == 0 { vec![hop] } else { Vec::new() },
        }
    }

    #[test]
    fn a_dump_is_due_only_for_what_goes_without_a_notification() {
        let mut foreign = Foreign::default();
        let hop = ForeignHop { ifindex: 4, gateway: None, onlink: false };
        foreign.set_object(SeenObject { id: 9, protocol: 16, leads: Leads::Hop(hop) });
        for seen in [
            route("10.2.0.0/24", 2, RTPROT_KERNEL, Some("10.2.0.1"), 0),
            route("0.0.0.0/0", 2, 16, Some("10.2.0.2"), 0),
            route("10.3.0.0/24", 3, 4, None, 0),
            route("10.4.0.0/24", 4, 4, None, 9),
        ] {
            foreign.add(seen, Arrival::Appended);
        }
        let address =
            |addr: &str, ifindex, last| Loss::Address { ifindex, addr: addr.parse().unwrap(), last };
        #[rustfmt::skip]
        let cases = [
            ("carrier: routes stay",                 Loss::Carrier(2), false),
            ("carrier: objects go",                  Loss::Carrier(4), true),
            ("down: routes go",                      Loss::Link(2), true),
            ("down: objects go",                     Loss::Link(4), true),
            ("down: no route uses it",               Loss::Link(7), false),
            ("address of a connected subnet",        address("10.2.0.1", 2, false), false),
            ("preferred source of a route",          address("10.2.0.2", 2, false), true),
            ("the last address, with all routes",    address("10.3.0.1", 3, true), true),
            ("the last address of an unused link",   address("10.7.0.1", 7, true), false),
            ("IPv6: notified",                       address("fd00::1", 2, true), false),
        ];
        for (name, loss, expected) in cases {
            assert_eq!(foreign.lose(loss), expected, "{name}");
        }
        foreign.remove(&route("0.0.0.0/0", 2, 16, Some("10.2.0.2"), 0));
        assert!(!foreign.lose(address("10.2.0.2", 2, false)), "no route has it any more");
        foreign.overflowed = true;
        assert!(foreign.lose(Loss::Carrier(7)), "there are routes that are not known");
    }

    #[test]
    fn objects_without_routes_go_with_their_link() {
        let mut foreign = Foreign::default();
        let single = |id, ifindex| {
            let hop = ForeignHop { ifindex, gateway: None, onlink: false };
            SeenObject { id, protocol: 16, leads: Leads::Hop(hop) }
        };
        foreign.set_object(single(5, 2));
        foreign.set_object(single(6, 3));
        let group = Leads::Group { members: vec![5, 6], kind: GroupKind::Plain };
        foreign.set_object(SeenObject { id: 7, protocol: 16, leads: group });
        assert!(!foreign.lose(Loss::Carrier(2)));
        foreign.add(route("10.4.0.0/24", 0, 4, None, 7), Arrival::Appended);
        let list = foreign.list();
        let links: Vec<_> = list[0].hops.iter().map(|hop| hop.ifindex).collect();
        assert_eq!(links, [3], "the group shrank");
        assert!(foreign.lose(Loss::Carrier(3)), "a route uses the rest");
    }
}
