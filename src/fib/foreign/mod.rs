//! Other daemons' routes in the kernel, read by a dump and kept up to date by notifications.
//!
//! Several routes may have the same prefix and metric. IPv4 keeps them in a list: `append` adds at
//! its end, `prepend` at its beginning, and `replace` replaces the first. IPv6 joins those with a
//! gateway into one multipath route, and each notification about it lists all next hops. A route
//! that came by router advertisement, uses a nexthop object or has no gateway is never joined, so
//! two routers that advertise themselves are two routes of the same metric.
//!
//! A route over a nexthop object is stored with the object's id and takes its next hops from the
//! object: the object may be replaced, or deleted with the route, without a notification about the
//! route (docs/kernel.md, section 2).

mod uses;

use std::collections::{BTreeMap, BTreeSet};

pub use self::uses::Loss;
use self::uses::Uses;
use crate::{
    fib::{
        host::{ForeignHop, ForeignRoute, RouteType, Routes},
        route::{Leads, ObjectId, SeenObject, SeenRoute},
    },
    net::{Family, Prefix},
};

/// Limit of stored routes. A next hop that only a route beyond the limit resolves stays unresolved.
const MAX_ROUTES: usize = 20_000;
/// Additional room for default routes, which locate neighbors, and connected subnets.
const MAX_ESSENTIAL: usize = 20_000;

const RTPROT_KERNEL: u8 = 2;
const RTPROT_RA: u8 = 9;

/// How the kernel reported a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// In a dump, which lists the routes of one key in the kernel's order.
    Dumped,
    /// Added after or before the others of its key.
    Appended,
    Prepended,
    /// Replaced another route.
    Replaced,
}

/// The kernel's key of a route: prefix, table and metric.
type Place = (Prefix, u32, u32);

/// Other daemons' routes. Bounded, since another daemon may install a full table.
#[derive(Debug, Default)]
pub struct Foreign {
    routes: BTreeMap<Place, Vec<SeenRoute>>,
    objects: BTreeMap<ObjectId, SeenObject>,
    /// Number of routes that use each object.
    users: BTreeMap<ObjectId, usize>,
    uses: Uses,
    count: usize,
    /// The last result of [`Foreign::routes`], until something changes.
    listed: Option<Routes>,
    /// Whether routes were dropped because of the limit.
    pub overflowed: bool,
}

impl Foreign {
    /// Starts with the nexthop objects of a dump.
    pub fn new(objects: BTreeMap<ObjectId, SeenObject>) -> Self {
        Self { objects, ..Self::default() }
    }

    /// Keeps routes that a dump omits: those between the hops of an IPv6 multipath route, which may
    /// be a router advertisement's. They are taken from `before`; their removal is always notified.
    pub fn keep_hidden(&mut self, before: &Self) {
        let is_hiding = |routes: &[SeenRoute]| routes.iter().any(|r| is_joined(r) && r.hops.len() > 1);
        let six = |place: &Place| place.0.family() == Family::Ipv6Unicast;
        let hiding = self.routes.iter().filter(|(place, routes)| six(place) && is_hiding(routes));
        for place in hiding.map(|(place, _)| *place).collect::<Vec<_>>() {
            let known = before.routes.get(&place).map(Vec::as_slice).unwrap_or_default();
            for route in known.iter().filter(|r| r.object == 0 && !is_joined(r)) {
                self.change(place, |routes| add_v6(routes, route.clone(), Arrival::Dumped));
            }
        }
    }

    /// Adds a route. Returns whether it is certain which routes it replaced; if not, a dump is due.
    pub fn add(&mut self, seen: SeenRoute, arrival: Arrival) -> bool {
        if self.is_full(&seen) && arrival != Arrival::Replaced {
            self.overflowed = true;
            return true;
        }
        let place = place(&seen);
        if self.is_full(&seen) && !self.routes.contains_key(&place) {
            self.overflowed = true;
            return true;
        }
        self.change(place, |routes| match place.0.family() {
            Family::Ipv4Unicast => add_v4(routes, seen, arrival),
            Family::Ipv6Unicast => add_v6(routes, seen, arrival),
        })
    }

    fn is_full(&self, seen: &SeenRoute) -> bool {
        let on_link = seen.protocol == RTPROT_KERNEL && seen.hops.iter().all(|h| h.gateway.is_none());
        let room = if seen.prefix.len() == 0 || on_link { MAX_ESSENTIAL } else { 0 };
        self.count >= MAX_ROUTES + room
    }

    /// Removes a route. Returns whether it was known; if not, a dump is due.
    pub fn remove(&mut self, gone: &SeenRoute) -> bool {
        let place = place(gone);
        if !self.routes.contains_key(&place) {
            return self.overflowed;
        }
        self.change(place, |routes| match place.0.family() {
            Family::Ipv4Unicast => remove_v4(routes, gone),
            Family::Ipv6Unicast => remove_v6(routes, gone),
        })
    }

    /// Adds or changes a nexthop object. Returns whether another daemon's route depends on it.
    pub fn set_object(&mut self, object: SeenObject) -> bool {
        let id = object.id;
        let known = self.objects.get(&id) == Some(&object);
        if !known && (self.objects.contains_key(&id) || self.objects.len() < MAX_ROUTES) {
            self.objects.insert(id, object);
        }
        let used = !known && self.is_used(id);
        if used {
            self.listed = None;
        }
        used
    }

    /// Removes an object with the routes that use it, whose removal the kernel may not notify.
    /// Returns whether there were any, or whether others depend on it through a group.
    pub fn remove_object(&mut self, id: ObjectId) -> bool {
        let used = self.is_used(id);
        if used {
            self.listed = None;
        }
        self.objects.remove(&id);
        if self.users.contains_key(&id) {
            let places: Vec<_> =
                self.routes.iter().filter(|(_, r)| r.iter().any(|r| r.object == id)).collect();
            for place in places.into_iter().map(|(place, _)| *place).collect::<Vec<_>>() {
                self.change(place, |routes| {
                    routes.retain(|r| r.object != id);
                    true
                });
            }
        }
        used
    }

    /// Whether a route uses this object, directly or through a group.
    fn is_used(&self, id: ObjectId) -> bool {
        let holds = |group: &ObjectId| match self.objects.get(group).map(|o| &o.leads) {
            Some(Leads::Group { members, .. }) => members.contains(&id),
            _ => false,
        };
        self.users.contains_key(&id) || self.users.keys().any(holds)
    }

    /// All routes, sorted by prefix, with next hops filled in from their objects.
    pub fn list(&self) -> Vec<ForeignRoute> {
        self.routes.values().flatten().filter_map(|r| self.resolved(r)).collect()
    }

    /// The same, shared by all who get it until something changes.
    pub fn routes(&mut self) -> Routes {
        let listed = self.listed.take().unwrap_or_else(|| self.list().into());
        self.listed.insert(listed).clone()
    }

    /// The route with the hops of its object; `None` if the object does not exist, since then the
    /// kernel has no such route either.
    fn resolved(&self, route: &SeenRoute) -> Option<ForeignRoute> {
        let (kind, hops) = match self.objects.get(&route.object) {
            Some(object) => self.follow(object)?,
            None if route.object != 0 && route.hops.is_empty() => return None,
            None => (route.kind?, route.hops.clone()),
        };
        let hops: BTreeSet<_> = hops.into_iter().collect();
        Some(ForeignRoute {
            prefix: route.prefix,
            table: route.table,
            metric: route.metric,
            protocol: route.protocol,
            kind,
            preference: route.preference,
            object: route.object,
            hops: if kind == RouteType::Unicast { hops.into_iter().collect() } else { Vec::new() },
        })
    }

    fn follow(&self, object: &SeenObject) -> Option<(RouteType, Vec<ForeignHop>)> {
        match &object.leads {
            Leads::Hop(hop) => Some((RouteType::Unicast, vec![*hop])),
            Leads::Blackhole => Some((RouteType::Blackhole, Vec::new())),
            Leads::Nowhere => None,
            Leads::Group { members, .. } => {
                let members: Vec<_> = members.iter().filter_map(|id| self.objects.get(id)).collect();
                let hops: Vec<_> = members
                    .iter()
                    .filter_map(|m| if let Leads::Hop(hop) = m.leads { Some(hop) } else { None })
                    .collect();
                match hops.is_empty() {
                    false => Some((RouteType::Unicast, hops)),
                    // The kernel allows a blackhole only as the sole member of a group.
                    true if members.iter().any(|m| m.leads == Leads::Blackhole) => {
                        Some((RouteType::Blackhole, hops))
                    }
                    true => None,
                }
            }
        }
    }

    /// Changes the routes of one key and updates the counts.
    fn change(&mut self, place: Place, act: impl FnOnce(&mut Vec<SeenRoute>) -> bool) -> bool {
        self.listed = None;
        let routes = self.routes.entry(place).or_default();
        let before: Vec<_> = routes.iter().map(|r| r.object).collect();
        let former = Uses::of(routes);
        let done = act(routes);
        self.uses.change(former, routes);
        for id in routes.iter().map(|r| r.object).filter(|id| *id != 0) {
            *self.users.entry(id).or_default() += 1;
        }
        self.count = self.count + routes.len() - before.len();
        if routes.is_empty() {
            self.routes.remove(&place);
        }
        for id in before.into_iter().filter(|id| *id != 0) {
            one_less(&mut self.users, id);
        }
        done
    }
}

/// Counts one less, and removes what is left without any.
fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(n) = counts.get_mut(&key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(&key);
        }
    }
}

fn place(seen: &SeenRoute) -> Place {
    (seen.prefix, seen.table, seen.metric)
}

fn add_v4(routes: &mut Vec<SeenRoute>, seen: SeenRoute, arrival: Arrival) -> bool {
    // Its nexthop object was replaced, or a dump repeats what a notification reported.
    if let Some(same) = routes.iter_mut().find(|r| is_same(r, &seen)) {
        *same = seen;
        return true;
    }
    match arrival {
        Arrival::Dumped | Arrival::Appended => routes.push(seen),
        Arrival::Prepended => routes.insert(0, seen),
        Arrival::Replaced => match &mut routes[..] {
            [] => routes.push(seen),
            [first] => *first = seen,
            [first, ..] => {
                *first = seen;
                return false;
            }
        },
    }
    true
}

fn remove_v4(routes: &mut Vec<SeenRoute>, gone: &SeenRoute) -> bool {
    let Some(at) = routes.iter().position(|r| is_same(r, gone)) else {
        // Its next hops may have changed with its object, or be reported in another form.
        if routes.len() == 1 {
            routes.clear();
        }
        return false;
    };
    routes.remove(at);
    true
}

fn add_v6(routes: &mut Vec<SeenRoute>, mut seen: SeenRoute, arrival: Arrival) -> bool {
    // Also a multipath route that `append` extended: its former hops are among the new ones.
    let grown =
        |r: &SeenRoute| is_same(r, &seen) || r.object == 0 && seen.object == 0 && is_part_of(r, &seen);
    let mut at = routes.iter().position(&grown);
    let known = at.is_some();
    let first = at.filter(|_| arrival != Arrival::Replaced).map(|at| routes[at].protocol);
    routes.retain(|r| !grown(r));
    // A dump shows a multipath route with the protocol number of its first hop.
    seen.protocol = first.unwrap_or(seen.protocol);
    let mut certain = true;
    if arrival == Arrival::Replaced && !(known && seen.object != 0) {
        // A multipath route replaces multipath routes, any other route the first of the others.
        let alike = |r: &SeenRoute| is_joined(r) == is_joined(&seen);
        if is_joined(&seen) {
            at = at.or(routes.iter().position(alike));
            routes.retain(|r| !alike(r));
            // One that a program added with the protocol number of advertisements may be among
            // those that were replaced.
            certain = !routes.iter().any(|r| r.protocol == RTPROT_RA);
        } else if !known && routes.iter().filter(|r| alike(r)).count() == 1 {
            at = routes.iter().position(alike);
            routes.retain(|r| !alike(r));
        } else {
            // Until the dump, one route too many is better than a missing one.
            certain = !routes.iter().any(alike);
        }
    }
    let at = at.unwrap_or(routes.len()).min(routes.len());
    routes.insert(at, seen);
    certain
}

fn remove_v6(routes: &mut Vec<SeenRoute>, gone: &SeenRoute) -> bool {
    let before = routes.len();
    if gone.object != 0 || gone.hops.is_empty() {
        routes.retain(|r| !is_same(r, gone));
        return routes.len() < before;
    }
    // A hop belongs to one route only. The hops of a multipath route are removed one by one or all
    // together.
    let mut found = false;
    for route in routes.iter_mut().filter(|r| r.object == 0) {
        let hops = route.hops.len();
        route.hops.retain(|h| !gone.hops.contains(h));
        found |= route.hops.len() < hops;
    }
    routes.retain(|r| r.object != 0 || r.kind != Some(RouteType::Unicast) || !r.hops.is_empty());
    found
}

/// Whether two reports are about the same route.
fn is_same(a: &SeenRoute, b: &SeenRoute) -> bool {
    let alike = a.protocol == b.protocol && a.object == b.object;
    // A route over an object is reported with or without its hops; they follow the object.
    alike && (a.object != 0 || a.kind == b.kind && hops(a) == hops(b))
}

fn is_part_of(part: &SeenRoute, whole: &SeenRoute) -> bool {
    !part.hops.is_empty() && part.hops.iter().all(|h| whole.hops.contains(h))
}

fn hops(route: &SeenRoute) -> BTreeSet<&ForeignHop> {
    route.hops.iter().collect()
}

/// Whether IPv6 joins this route with others of its metric. The kernel does not show which routes
/// it added for a router advertisement itself, and programs that process advertisements use the
/// same protocol number.
fn is_joined(route: &SeenRoute) -> bool {
    let gateways = !route.hops.is_empty() && route.hops.iter().all(|h| h.gateway.is_some());
    route.object == 0 && gateways && (route.protocol != RTPROT_RA || route.hops.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::{
        host::Preference,
        route::{GroupKind, Leads},
    };

    fn seen(prefix: &str, protocol: u8, hops: &[&str]) -> SeenRoute {
        SeenRoute {
            prefix: prefix.parse().unwrap(),
            table: 254,
            metric: 1024,
            protocol,
            kind: Some(RouteType::Unicast),
            tos: 0,
            preference: Preference::Medium,
            cloned: false,
            object: 0,
            source: None,
            hops: hops.iter().map(|h| hop(h)).collect(),
        }
    }

    /// Parses `fe80::1%2`, or `%2` for a hop without a gateway.
    fn hop(text: &str) -> ForeignHop {
        let (gateway, ifindex) = text.split_once('%').unwrap();
        let gateway = (!gateway.is_empty()).then(|| gateway.parse().unwrap());
        ForeignHop { ifindex: ifindex.parse().unwrap(), gateway, onlink: false }
    }

    fn over(prefix: &str, object: ObjectId) -> SeenRoute {
        SeenRoute { object, ..seen(prefix, 4, &[]) }
    }

    fn object(id: ObjectId, leads: Leads) -> SeenObject {
        SeenObject { id, protocol: 16, leads }
    }

    fn single(id: ObjectId, text: &str) -> SeenObject {
        object(id, Leads::Hop(hop(text)))
    }

    fn group(id: ObjectId, members: &[ObjectId]) -> SeenObject {
        object(id, Leads::Group { members: members.to_vec(), kind: GroupKind::Plain })
    }

    fn shown(foreign: &Foreign) -> Vec<String> {
        let one = |r: ForeignRoute| {
            let hops = r.hops.iter().map(|h| match h.gateway {
                Some(gateway) => format!("{gateway}%{}", h.ifindex),
                None => format!("%{}", h.ifindex),
            });
            format!("{} {}", r.protocol, hops.collect::<Vec<_>>().join(" "))
        };
        foreign.list().into_iter().map(one).collect()
    }

    /// Applies events as the kernel reports them, and returns the resulting routes.
    fn after(events: Vec<(SeenRoute, Option<Arrival>)>) -> (Vec<String>, bool) {
        let mut foreign = Foreign::default();
        let mut certain = true;
        for (route, arrival) in events {
            certain &= match arrival {
                Some(arrival) => foreign.add(route, arrival),
                None => foreign.remove(&route),
            };
        }
        assert_eq!(foreign.count, foreign.list().len());
        for link in 1..10 {
            let over = |r: &ForeignRoute| r.hops.iter().any(|h| h.ifindex == link);
            assert_eq!(foreign.uses_link(link), foreign.list().iter().any(over), "link {link}");
        }
        (shown(&foreign), certain)
    }

    #[test]
    fn a_list_is_shared_until_a_route_or_its_object_changes() {
        let mut foreign = Foreign::default();
        assert!(!foreign.uses_link(7));
        foreign.set_object(single(5, "10.0.0.1%7"));
        foreign.add(over("10.1.0.0/24", 5), Arrival::Appended);
        let shared = |foreign: &mut Foreign| {
            let (first, again) = (foreign.routes(), foreign.routes());
            assert_eq!(*first, foreign.list());
            std::ptr::eq(&*first, &*again).then_some(first).expect("one list")
        };
        let first = shared(&mut foreign);
        assert!(foreign.uses_link(7) && !foreign.uses_link(8));
        foreign.set_object(single(6, "10.0.0.1%8"));
        assert!(std::ptr::eq(&*first, &*foreign.routes()), "no route has this object");
        assert!(!foreign.uses_link(8));
        foreign.set_object(single(5, "10.0.0.1%9"));
        assert_eq!(shared(&mut foreign)[0].hops, [hop("10.0.0.1%9")]);
        assert!(foreign.uses_link(9) && !foreign.uses_link(7));
        foreign.remove_object(5);
        assert!(shared(&mut foreign).is_empty() && !foreign.uses_link(9));
    }

    #[test]
    fn systemd_33470_two_ipv6_default_routes_of_one_metric_are_two_routes() {
        use Arrival::*;
        let ra = |n: u8| seen("::/0", 9, &[&format!("fe80::{n}%2")]);
        let both = ["9 fe80::1%2", "9 fe80::2%2"];
        let cases: Vec<(&str, Vec<(SeenRoute, Option<Arrival>)>, Vec<&str>)> = vec![
            ("two routers", vec![(ra(1), Some(Appended)), (ra(2), Some(Appended))], both.to_vec()),
            ("a dump", vec![(ra(1), Some(Dumped)), (ra(2), Some(Dumped))], both.to_vec()),
            (
                "the first goes and comes back",
                vec![
                    (ra(1), Some(Appended)),
                    (ra(2), Some(Appended)),
                    (ra(1), None),
                    (ra(1), Some(Appended)),
                ],
                vec!["9 fe80::2%2", "9 fe80::1%2"],
            ),
            (
                "reported twice",
                vec![(ra(1), Some(Dumped)), (ra(2), Some(Dumped)), (ra(2), Some(Appended))],
                both.to_vec(),
            ),
            (
                "beside a static route of this metric",
                vec![(ra(1), Some(Appended)), (seen("::/0", 4, &["fe80::9%2"]), Some(Appended))],
                vec!["9 fe80::1%2", "4 fe80::9%2"],
            ),
            (
                "the static route is replaced, the advertised one stays",
                vec![
                    (ra(1), Some(Appended)),
                    (seen("::/0", 4, &["fe80::9%2"]), Some(Appended)),
                    (seen("::/0", 4, &["fe80::8%2"]), Some(Replaced)),
                ],
                vec!["9 fe80::1%2", "4 fe80::8%2"],
            ),
            (
                "one gateway address on two links",
                vec![
                    (seen("::/0", 9, &["fe80::1%2"]), Some(Appended)),
                    (seen("::/0", 9, &["fe80::1%3"]), Some(Appended)),
                    (seen("::/0", 9, &["fe80::1%2"]), None),
                ],
                vec!["9 fe80::1%3"],
            ),
            (
                "a route without a gateway beside one with",
                vec![
                    (seen("2001:db8::/64", 2, &["%2"]), Some(Appended)),
                    (seen("2001:db8::/64", 4, &["fe80::1%3"]), Some(Appended)),
                ],
                vec!["2 %2", "4 fe80::1%3"],
            ),
        ];
        for (name, events, expected) in cases {
            assert_eq!(after(events).0, expected, "{name}");
        }
    }

    #[test]
    fn multipath_routes_are_replaced_as_the_kernel_reports_them() {
        use Arrival::*;
        let path = |hops: &[&str]| seen("2001:db8::/32", 4, hops);
        let grown =
            vec![(path(&["fe80::1%2"]), Some(Appended)), (path(&["fe80::1%2", "fe80::2%2"]), Some(Appended))];
        assert_eq!(after(grown.clone()), (vec!["4 fe80::1%2 fe80::2%2".into()], true));
        let one_less = [grown.clone(), vec![(path(&["fe80::1%2"]), None)]].concat();
        assert_eq!(after(one_less), (vec!["4 fe80::2%2".into()], true));
        let replaced = [grown.clone(), vec![(path(&["fe80::3%3"]), Some(Replaced))]].concat();
        assert_eq!(after(replaced), (vec!["4 fe80::3%3".into()], true));
        let gone = [grown, vec![(path(&["fe80::1%2", "fe80::2%2"]), None)]].concat();
        assert_eq!(after(gone), (vec![], true));
    }

    #[test]
    fn what_a_dump_hides_between_the_hops_of_a_multipath_route_is_kept() {
        let advertised = seen("::/0", 9, &["fe80::1%2"]);
        let both = seen("::/0", 4, &["fe80::8%2", "fe80::9%2"]);
        let mut before = Foreign::default();
        before.add(advertised.clone(), Arrival::Appended);
        before.add(both.clone(), Arrival::Appended);
        let mut dump = Foreign::default();
        dump.add(both.clone(), Arrival::Dumped);
        dump.keep_hidden(&before);
        assert_eq!(shown(&dump), ["4 fe80::8%2 fe80::9%2", "9 fe80::1%2"]);
        assert!(dump.remove(&advertised));
        assert_eq!(shown(&dump), ["4 fe80::8%2 fe80::9%2"]);
        // Without such a route a dump is complete.
        let mut dump = Foreign::default();
        dump.add(seen("::/0", 4, &["fe80::8%2"]), Arrival::Dumped);
        dump.keep_hidden(&before);
        assert_eq!(shown(&dump), ["4 fe80::8%2"]);
    }

    #[test]
    fn of_ipv4_the_order_of_one_metric_is_the_kernels() {
        use Arrival::*;
        let on = |n: u8| seen("10.5.0.0/24", 2, &[&format!("%{n}")]);
        let three = vec![(on(3), Some(Appended)), (on(2), Some(Appended)), (on(4), Some(Prepended))];
        assert_eq!(after(three.clone()), (vec!["2 %4".into(), "2 %3".into(), "2 %2".into()], true));
        let replaced = [three.clone(), vec![(on(9), Some(Replaced))]].concat();
        assert_eq!(after(replaced), (vec!["2 %9".into(), "2 %3".into(), "2 %2".into()], false));
        let unknown = [three, vec![(on(8), None)]].concat();
        assert!(!after(unknown).1, "what is not known makes the kernel be read again");
    }

    #[test]
    fn a_route_leads_where_its_nexthop_object_does() {
        let mut foreign = Foreign::default();
        foreign.set_object(single(1, "10.0.0.1%2"));
        foreign.set_object(single(2, "10.0.1.1%3"));
        foreign.set_object(group(10, &[1, 2]));
        foreign.add(over("0.0.0.0/0", 10), Arrival::Appended);
        foreign.add(over("10.9.0.0/16", 1), Arrival::Appended);
        assert_eq!(shown(&foreign), ["4 10.0.0.1%2 10.0.1.1%3", "4 10.0.0.1%2"]);
        // In the other compatibility mode the same routes are reported with their hops.
        let reported = SeenRoute { hops: vec![hop("10.0.0.1%2")], ..over("10.9.0.0/16", 1) };
        assert!(foreign.add(reported, Arrival::Replaced));
        assert!(foreign.set_object(single(1, "10.0.0.7%2")), "replaced: routes depend on it");
        assert_eq!(shown(&foreign), ["4 10.0.0.7%2 10.0.1.1%3", "4 10.0.0.7%2"]);
        assert!(!foreign.set_object(single(77, "10.0.0.9%2")), "no route depends on this one");
        // When a member is deleted, the kernel notifies of the group but not of the member's
        // routes.
        assert!(foreign.remove_object(1));
        assert!(foreign.set_object(group(10, &[2])));
        assert_eq!(shown(&foreign), ["4 10.0.1.1%3"]);
        assert!(foreign.remove_object(10));
        assert!(shown(&foreign).is_empty());
        assert_eq!((foreign.count, foreign.users.len()), (0, 0));
        // A blackhole object, and an unknown one.
        foreign.set_object(object(5, Leads::Blackhole));
        foreign.add(over("10.1.0.0/16", 5), Arrival::Appended);
        foreign.add(over("10.2.0.0/16", 6), Arrival::Appended);
        let list = foreign.list();
        assert_eq!((list.len(), list[0].kind), (1, RouteType::Blackhole));
    }

    #[test]
    fn a_full_table_of_others_leaves_room_for_default_routes_and_subnets() {
        let mut foreign = Foreign::default();
        for n in 0..=u32::try_from(MAX_ROUTES).unwrap() {
            let prefix = Prefix::v4((0x1400_0000 + (n << 8)).into(), 24);
            foreign.add(SeenRoute { prefix, ..seen("10.0.0.0/8", 4, &["10.0.0.1%2"]) }, Arrival::Appended);
        }
        assert_eq!((foreign.list().len(), foreign.overflowed), (MAX_ROUTES, true));
        foreign.add(seen("0.0.0.0/0", 4, &["10.0.0.1%2"]), Arrival::Appended);
        foreign.add(seen("10.7.0.0/24", 2, &["%7"]), Arrival::Appended);
        assert_eq!(foreign.list().len(), MAX_ROUTES + 2);
        // A removed route need not have been known.
        assert!(foreign.remove(&seen("192.0.2.0/24", 4, &["10.0.0.1%2"])));
    }
}
