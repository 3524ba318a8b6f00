//! The fib against a model of the kernel, including its unnotified changes.

mod faults;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    diff::{Fib, Settings},
    host::{
        ForeignHop, Host, Link,
        testing::{host, link},
    },
    resolve::{Hop, Resolver},
    route::{Content, GroupKind, Held, Leads, OWN_METRIC, Object, ObjectId, Op, SeenObject, Target},
    sweep::{Grace, StaleTimer},
    walk::Walk,
};
use crate::net::{Assigned, Convergence, Gateway, NextHops, Phase, Prefix};

const METRIC: u32 = 179;
pub(super) const SETTINGS: Settings = Settings {
    install: true,
    table: 254,
    protocol: 179,
    metric: METRIC,
    nexthop_objects: true,
    resilient: false,
};

#[derive(Clone, Debug, PartialEq)]
enum Route {
    On(ObjectId),
    Inline(Vec<Hop>),
    Unreachable,
    Blackhole,
    Foreign,
}

/// How the kernel processes our messages (docs/kernel.md, sections 1 to 4).
#[derive(Clone, Debug, Default)]
struct Kernel {
    objects: BTreeMap<ObjectId, Object>,
    routes: BTreeMap<(Prefix, u32), Route>,
    log: Vec<Op>,
}

impl Kernel {
    /// The error is the name of the errno, as far as it matters.
    fn apply(&mut self, op: &Op, target: Option<Target<'_>>) -> Result<(), &'static str> {
        self.log.push(op.clone());
        match op {
            Op::NewNexthop { id, object, replace } => {
                if self.objects.contains_key(id) != *replace {
                    return Err(if *replace { "ENOENT" } else { "EEXIST" });
                }
                if let Object::Group(members) | Object::ResilientGroup(members) = object
                    && (members.is_empty()
                        || !members.iter().all(|m| matches!(self.objects.get(m), Some(Object::Hop(_)))))
                {
                    return Err("EINVAL");
                }
                let same_kind = |o: &Object| std::mem::discriminant(o) == std::mem::discriminant(object);
                if !self.objects.get(id).is_none_or(same_kind) {
                    return Err("EINVAL");
                }
                self.objects.insert(*id, object.clone());
            }
            Op::DelNexthop { id } => {
                self.objects.remove(id).ok_or("ENOENT")?;
                self.settle(|dead| dead == *id);
            }
            Op::NewRoute { prefix, metric, replace, .. } => {
                let key = (*prefix, *metric);
                if self.routes.contains_key(&key) && !replace {
                    return Err("EEXIST");
                }
                assert_ne!(self.routes.get(&key), Some(&Route::Foreign), "replaced what is not ours: {op:?}");
                let route = match target.ok_or("EINVAL")? {
                    Target::Object(id) if self.objects.contains_key(&id) => Route::On(id),
                    Target::Object(_) => return Err("EINVAL"),
                    Target::Hops(hops) => Route::Inline(hops.to_vec()),
                    Target::Unreachable => Route::Unreachable,
                    Target::Blackhole => Route::Blackhole,
                };
                self.routes.insert(key, route);
            }
            Op::DelRoute { prefix, metric } => {
                let key = (*prefix, *metric);
                if self.routes.get(&key).is_none_or(|r| *r == Route::Foreign) {
                    return Err("ESRCH");
                }
                self.routes.remove(&key);
            }
        }
        Ok(())
    }

    /// Deleted members leave their groups; empty groups are deleted, and routes with their object.
    fn settle(&mut self, mut dead: impl FnMut(ObjectId) -> bool) {
        for object in self.objects.values_mut() {
            if let Object::Group(members) | Object::ResilientGroup(members) = object {
                members.retain(|m| !dead(*m));
            }
        }
        self.objects
            .retain(|_, o| !matches!(o, Object::Group(m) | Object::ResilientGroup(m) if m.is_empty()));
        let objects = &self.objects;
        self.routes.retain(|_, r| !matches!(r, Route::On(id) if !objects.contains_key(id)));
    }

    /// A link loses carrier: its objects are deleted without a notification.
    fn lose(&mut self, ifindex: u32) {
        let gone: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, o)| matches!(o, Object::Hop(h) if h.ifindex == ifindex))
            .map(|(id, _)| *id)
            .collect();
        self.objects.retain(|id, _| !gone.contains(id));
        self.settle(|m| gone.contains(&m));
    }

    fn seen(&self) -> BTreeMap<ObjectId, SeenObject> {
        let seen = |(id, object): (&ObjectId, &Object)| {
            let leads = match object {
                Object::Hop(Hop { ifindex, gateway, onlink }) => {
                    Leads::Hop(ForeignHop { ifindex: *ifindex, gateway: Some(*gateway), onlink: *onlink })
                }
                Object::Group(members) => Leads::Group { members: members.clone(), kind: GroupKind::Plain },
                Object::ResilientGroup(members) => {
                    Leads::Group { members: members.clone(), kind: GroupKind::Resilient }
                }
            };
            (*id, SeenObject { id: *id, protocol: 179, leads })
        };
        self.objects.iter().map(seen).collect()
    }

    /// The hops of a route, through its object.
    fn hops(&self, prefix: Prefix) -> Option<Vec<Hop>> {
        let mut hops = match self.routes.get(&(prefix, METRIC))? {
            Route::On(id) => match self.objects.get(id)? {
                Object::Hop(hop) => vec![*hop],
                Object::Group(members) | Object::ResilientGroup(members) => members
                    .iter()
                    .filter_map(|m| match self.objects.get(m) {
                        Some(Object::Hop(hop)) => Some(*hop),
                        _ => None,
                    })
                    .collect(),
            },
            Route::Inline(hops) => hops.clone(),
            Route::Unreachable | Route::Blackhole => Vec::new(),
            Route::Foreign => return None,
        };
        hops.sort_unstable();
        Some(hops)
    }

    fn content(&self, route: &Route) -> (ObjectId, Content) {
        match route {
            Route::On(id) => (*id, Content::Hops(Box::default())),
            Route::Inline(hops) => (0, Content::Hops(hops.clone().into())),
            Route::Blackhole => (0, Content::Blackhole),
            Route::Unreachable | Route::Foreign => (0, Content::Unreachable),
        }
    }
}

/// A fib, its kernel, and the host of both.
struct World {
    fib: Fib,
    kernel: Kernel,
    up: [bool; 4],
}

impl World {
    fn new(settings: Settings) -> Self {
        let mut world = Self { fib: Fib::new(settings), kernel: Kernel::default(), up: [true; 4] };
        world.fib.host(world.resolver(), None);
        world
    }

    /// Links 1 to 4, with the subnets 10.0.LINK.0/24.
    fn host(&self) -> Host {
        let one = |i: u32| -> Link {
            let link = link(i, &format!("eth{i}")).with(&format!("10.0.{i}.1/24"));
            if self.up[i as usize - 1] { link } else { link.no_carrier() }
        };
        host((1..=4).map(one), [])
    }

    fn resolver(&self) -> Resolver {
        Resolver::new(&self.host(), false)
    }

    fn write(&mut self) {
        self.fib.finish();
        for _ in 0..100 {
            let ops = self.fib.take(7);
            if ops.is_empty() {
                return;
            }
            let results: Vec<_> = ops
                .iter()
                .map(|op| {
                    let target = match op {
                        Op::NewRoute { entry, .. } => self.fib.target(*entry),
                        _ => None,
                    };
                    self.kernel.apply(op, target)
                })
                .collect();
            for (op, result) in ops.iter().zip(results) {
                if let Err(why) = result {
                    self.fib.refused(op, why == "EEXIST", matches!(why, "ENOENT" | "ESRCH"), &why.into());
                }
            }
        }
        assert!(!self.fib.is_dirty(), "never done");
    }

    fn want(&mut self, prefix: u8, links: u8) {
        self.fib.set_desired(pfx(prefix), set(links).as_ref());
    }

    fn carrier(&mut self, link: u8, up: bool) {
        let index = usize::from(link % 4);
        self.up[index] = up;
        if !up {
            self.kernel.lose(u32::from(link % 4) + 1);
        }
        self.fib.host(self.resolver(), Some(&self.kernel.seen()));
        self.write();
    }

    fn audit(&mut self) {
        self.fib.audit_begin();
        for ((prefix, metric), route) in self.kernel.routes.clone() {
            if route != Route::Foreign {
                let (object, content) = self.kernel.content(&route);
                self.fib.audit(prefix, metric, object, content);
            }
        }
        self.fib.audit_end();
        self.write();
    }

    fn restart(&mut self, settings: Settings) {
        self.fib = Fib::new(settings);
        self.fib.adopt_objects(&self.kernel.seen(), 179);
        for ((prefix, metric), route) in self.kernel.routes.clone() {
            let (object, content) = self.kernel.content(&route);
            match route {
                Route::Foreign => self.fib.observe(prefix, metric, Held::Other { protocol: 12 }),
                _ => self.fib.adopt_route(prefix, metric, object, content),
            }
        }
        self.fib.host(self.resolver(), None);
        self.kernel.log.clear();
    }
}

fn pfx(n: u8) -> Prefix {
    Prefix::v4([20, n, 0, 0].into(), 16)
}

/// A set with one gateway per bit; `None` without bits.
fn set(links: u8) -> Option<Arc<NextHops>> {
    let gateways: Vec<_> = (1..=4u8)
        .filter(|i| links & (1 << (i - 1)) != 0)
        .map(|i| Gateway { addr: [10, 0, i, 2].into(), ifindex: 0 })
        .collect();
    (!gateways.is_empty()).then(|| Arc::new(NextHops::unicast(gateways)))
}

fn hops_of(links: u8, up: [bool; 4]) -> Option<Vec<Hop>> {
    let hops: Vec<_> = (1..=4u8)
        .filter(|i| links & (1 << (i - 1)) != 0 && up[usize::from(*i) - 1])
        .map(|i| Hop { ifindex: i.into(), gateway: [10, 0, i, 2].into(), onlink: false })
        .collect();
    (!hops.is_empty()).then_some(hops)
}

#[derive(Clone, Debug)]
enum Act {
    Want(u8, u8),
    WantMany(u8),
    Write,
    Carrier(u8, bool),
    /// Another program deletes one of our routes, with a notification.
    Deleted(u8),
    /// The same without a notification.
    Vanished(u8),
    Foreign(u8),
    ForeignGone(u8),
    ObjectsFlushed,
    /// The idle time of objects without routes is over.
    ExpireIdle,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0u8..30, 0u8..16).prop_map(|(p, s)| Act::Want(p, s)),
        2 => (0u8..16).prop_map(Act::WantMany),
        4 => Just(Act::Write),
        3 => (0u8..4, any::<bool>()).prop_map(|(l, up)| Act::Carrier(l, up)),
        2 => (0u8..30).prop_map(Act::Deleted),
        1 => (0u8..30).prop_map(Act::Vanished),
        1 => (0u8..30).prop_map(Act::Foreign),
        1 => (0u8..30).prop_map(Act::ForeignGone),
        1 => Just(Act::ObjectsFlushed),
        1 => Just(Act::ExpireIdle),
        1 => Just(Act::Restart),
    ]
}

fn play(settings: Settings, acts: Vec<Act>) {
    let mut world = World::new(settings);
    let mut wanted = BTreeMap::new();
    let mut foreign = BTreeMap::new();
    for act in acts {
        match act {
            Act::Want(p, s) => {
                wanted.insert(p, s);
                world.want(p, s);
            }
            Act::WantMany(s) => {
                for p in 0..30 {
                    wanted.insert(p, s);
                    world.want(p, s);
                }
            }
            Act::Write => world.write(),
            Act::Carrier(l, up) => world.carrier(l, up),
            Act::Deleted(p) => {
                world.write();
                if world.kernel.hops(pfx(p)).is_some() {
                    world.kernel.routes.remove(&(pfx(p), METRIC));
                    world.fib.observe(pfx(p), METRIC, Held::Nobody);
                }
            }
            Act::Vanished(p) => {
                world.write();
                if world.kernel.hops(pfx(p)).is_some() {
                    world.kernel.routes.remove(&(pfx(p), METRIC));
                }
            }
            Act::Foreign(p) => {
                world.write();
                world.kernel.routes.insert((pfx(p), METRIC), Route::Foreign);
                world.fib.observe(pfx(p), METRIC, Held::Other { protocol: 12 });
                foreign.insert(p, ());
            }
            Act::ForeignGone(p) => {
                if foreign.remove(&p).is_some() {
                    world.kernel.routes.remove(&(pfx(p), METRIC));
                    world.fib.observe(pfx(p), METRIC, Held::Nobody);
                }
            }
            Act::ObjectsFlushed => {
                world.write();
                (1..=4).for_each(|l| world.kernel.lose(l));
                world.fib.host(world.resolver(), Some(&world.kernel.seen()));
            }
            Act::ExpireIdle => world.fib.expire_idle(),
            Act::Restart => {
                world.write();
                world.restart(settings);
                wanted.iter().for_each(|(p, s)| world.want(*p, *s));
                let all = (1..=4u8).map(|i| ([10, 0, i, 2].into(), Phase::Converged)).collect();
                world.fib.converged(Arc::new(Convergence { neighbors: all }), Grace::Usual);
            }
        }
    }
    world.write();
    world.audit();
    world.fib.retry();
    world.write();
    world.fib.expire_idle();
    world.write();
    check_end(&mut world, &wanted, &foreign);
}

/// The kernel has what is wanted, nothing is left over, and running twice changes nothing.
fn check_end(world: &mut World, wanted: &BTreeMap<u8, u8>, foreign: &BTreeMap<u8, ()>) {
    for p in 0..30 {
        let expected = match foreign.contains_key(&p) {
            true => None,
            false => hops_of(wanted.get(&p).copied().unwrap_or(0), world.up),
        };
        assert_eq!(world.kernel.hops(pfx(p)), expected, "{} wanted {:?}", pfx(p), wanted.get(&p));
    }
    assert!(world.fib.routes.iter().all(|(_, s)| !s.is_empty()), "an empty slot was left behind");
    // Nothing unused is left, and running twice changes nothing.
    let used = |id: &ObjectId| {
        let by_route = world.kernel.routes.values().any(|r| *r == Route::On(*id));
        by_route
            || world
                .kernel
                .objects
                .values()
                .any(|o| matches!(o, Object::Group(m) | Object::ResilientGroup(m) if m.contains(id)))
    };
    let unused: Vec<_> = world.kernel.objects.keys().filter(|id| !used(id)).collect();
    assert!(unused.is_empty(), "unused objects {unused:?}");
    world.kernel.log.clear();
    world.fib.host(world.resolver(), Some(&world.kernel.seen()));
    world.write();
    world.audit();
    assert_eq!(world.kernel.log, [], "running twice changes nothing");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn the_kernel_ends_up_with_what_is_wanted(acts in proptest::collection::vec(act(), 0..60)) {
        play(SETTINGS, acts);
    }

    #[test]
    fn with_resilient_groups_too(acts in proptest::collection::vec(act(), 0..60)) {
        play(Settings { resilient: true, ..SETTINGS }, acts);
    }

    #[test]
    fn without_objects_too(acts in proptest::collection::vec(act(), 0..60)) {
        play(Settings { nexthop_objects: false, ..SETTINGS }, acts);
    }
}

#[test]
fn a_lost_neighbor_costs_one_message() {
    let mut world = World::new(SETTINGS);
    (0..30).for_each(|p| world.want(p, 1));
    world.write();
    world.kernel.log.clear();
    (0..30).for_each(|p| world.want(p, 0));
    world.write();
    assert!(matches!(world.kernel.log[..], [Op::DelNexthop { .. }]), "{:?}", world.kernel.log);
    assert!(world.kernel.routes.is_empty());
}

#[test]
fn a_few_routes_are_deleted_one_by_one_so_that_others_are_notified() {
    let mut world = World::new(SETTINGS);
    (0..3).for_each(|p| world.want(p, 1));
    world.write();
    world.kernel.log.clear();
    (0..3).for_each(|p| world.want(p, 0));
    world.write();
    assert_eq!(world.kernel.log.iter().filter(|op| matches!(op, Op::DelRoute { .. })).count(), 3);
}

#[test]
fn a_route_that_comes_and_goes_costs_one_message_each_time() {
    for links in [1, 3] {
        let mut world = World::new(SETTINGS);
        world.want(1, links);
        world.write();
        world.kernel.log.clear();
        for wanted in [0, links, 0, links, 0] {
            world.want(1, wanted);
            world.write();
        }
        let written =
            world.kernel.log.iter().map(|op| matches!(op, Op::NewRoute { .. } | Op::DelRoute { .. }));
        assert_eq!(written.collect::<Vec<_>>(), [true; 5], "{:?}", world.kernel.log);
        world.fib.expire_idle();
        world.write();
        assert!(
            world.kernel.objects.is_empty(),
            "what no route came back to goes: {:?}",
            world.kernel.objects
        );
        assert!(!world.fib.has_idle());
    }
}

#[test]
fn all_routes_of_a_group_move_by_one_message() {
    let mut world = World::new(SETTINGS);
    (0..30).for_each(|p| world.want(p, 3));
    world.write();
    world.kernel.log.clear();
    (0..30).for_each(|p| world.want(p, 2));
    world.write();
    let sets = world.kernel.log.iter().filter(|op| matches!(op, Op::NewNexthop { .. })).count();
    let puts = world.kernel.log.iter().filter(|op| matches!(op, Op::NewRoute { .. })).count();
    assert_eq!((sets, puts), (1, 0), "{:?}", world.kernel.log);
}

/// BFD: the group is changed below its routes, and those that have nowhere else to go are left to
/// the table.
#[test]
fn groups_go_on_without_a_gateway_that_is_lost() {
    let mut world = World::new(SETTINGS);
    (0..30).for_each(|p| world.want(p, 3));
    world.want(30, 1);
    world.write();
    let gateway = set(1).unwrap().gateways()[0].addr;
    let members = |world: &World| {
        let groups = world.kernel.objects.values().filter_map(|o| match o {
            Object::Group(members) | Object::ResilientGroup(members) => Some(members.len()),
            Object::Hop(_) => None,
        });
        groups.collect::<Vec<_>>()
    };
    for (lost, expected) in
        [(vec![(gateway, 1)], 1), (vec![], 2), (vec![(gateway, 0)], 1), (vec![(gateway, 2)], 2)]
    {
        world.kernel.log.clear();
        world.fib.lose(&lost.iter().copied().collect());
        world.write();
        assert_eq!(members(&world), [expected], "{lost:?}");
        let of_routes =
            world.kernel.log.iter().any(|op| matches!(op, Op::NewRoute { .. } | Op::DelRoute { .. }));
        assert!(!of_routes, "{lost:?}: {:?}", world.kernel.log);
        assert_eq!(world.kernel.routes.len(), 31, "{lost:?}");
    }
}

#[test]
fn a_lost_carrier_needs_no_message_and_its_return_one_for_the_group() {
    let mut world = World::new(SETTINGS);
    (0..30).for_each(|p| world.want(p, 3));
    world.write();
    world.kernel.log.clear();
    world.carrier(0, false);
    assert_eq!(world.kernel.log, [], "the kernel has shrunk the group itself");
    world.carrier(0, true);
    assert_eq!(world.kernel.log.len(), 2, "the member, the group: {:?}", world.kernel.log);
}

#[test]
fn replacements_come_before_deletions() {
    let mut world = World::new(SETTINGS);
    (0..4).for_each(|p| world.want(p, 1));
    world.write();
    world.kernel.log.clear();
    world.want(0, 0);
    world.want(1, 2);
    world.want(9, 2);
    world.write();
    let kinds: Vec<_> = world
        .kernel
        .log
        .iter()
        .filter_map(|op| match op {
            Op::NewRoute { .. } => Some("put"),
            Op::DelRoute { .. } => Some("del"),
            _ => None,
        })
        .collect();
    assert_eq!(kinds.iter().position(|k| *k == "del"), Some(2), "{kinds:?}");
}

#[test]
fn own_prefixes_follow_the_plan_and_wait_for_the_sweep_after_a_start() {
    let own = [pfx(200), pfx(201)];
    let mut world = World::new(SETTINGS);
    world.fib.set_own(&own);
    world.write();
    assert_eq!(world.fib.own_there().into_iter().collect::<Vec<_>>(), own);
    world.restart(SETTINGS);
    // The plan is not complete yet.
    world.fib.set_own(&own[..1]);
    world.write();
    assert_eq!(world.kernel.log, [], "nothing is touched before the neighbors have spoken");
    let neighbors = |phase| Arc::new(Convergence { neighbors: [([10, 0, 1, 2].into(), phase)].into() });
    world.fib.converged(neighbors(Phase::Up), Grace::Usual);
    world.write();
    assert!(world.kernel.routes.contains_key(&(own[1], OWN_METRIC)));
    world.fib.converged(neighbors(Phase::Converged), Grace::Usual);
    world.write();
    assert_eq!(world.kernel.log, [Op::DelRoute { prefix: own[1], metric: OWN_METRIC }]);
    // A prefix that the plan drops later is removed at once.
    world.fib.set_own(&[]);
    world.write();
    assert!(world.kernel.routes.is_empty());
}

/// kube-router#2164, kind#2941: a range of another node is now assigned to this node. The other
/// node's stale route would be preferred to the connected IPv6 route.
#[test]
fn kube_router_2164_a_stale_route_never_stays_in_what_is_now_our_own_range() {
    let mut world = World::new(SETTINGS);
    world.want(1, 1);
    world.want(2, 1);
    world.write();
    world.restart(SETTINGS);
    // Before any neighbor has converged.
    world.fib.set_own(&[pfx(1)]);
    world.write();
    assert_eq!((world.kernel.hops(pfx(1)), world.kernel.hops(pfx(2)).is_some()), (None, true));
    assert_eq!(world.fib.own_there().into_iter().collect::<Vec<_>>(), [pfx(1)]);
}

#[test]
fn stale_routes_go_neighbor_by_neighbor() {
    use Phase::{Converged, Up, Waiting};
    #[rustfmt::skip]
    let cases: &[(&str, [Option<Phase>; 2], bool, &[u8])] = &[
        // (name, phases of the neighbors on links 1 and 2, time over, routes left: 1 on link 1, 2
        // on link 2, 3 on both, 4 on link 3)
        ("nobody yet",            [Some(Waiting), Some(Waiting)],     false, &[1, 2, 3, 4]),
        ("one speaks",            [Some(Up), Some(Waiting)],          false, &[1, 2, 3, 4]),
        ("one is done",           [Some(Converged), Some(Waiting)],   false, &[2, 3, 4]),
        ("both are done",         [Some(Converged), Some(Converged)], false, &[]),
        ("one is done, late",     [Some(Converged), Some(Waiting)],   true,  &[]),
        ("one speaks, late",      [Some(Up), Some(Waiting)],          true,  &[1, 2, 3, 4]),
        ("nobody came, late",     [Some(Waiting), Some(Waiting)],     true,  &[1, 2, 3, 4]),
        ("one left the plan",     [Some(Converged), None],            false, &[]),
        ("no neighbor at all",    [None, None],                       true,  &[1, 2, 3, 4]),
    ];
    for (name, phases, expired, stays) in cases {
        let mut world = World::new(SETTINGS);
        for (prefix, links) in [(1, 1), (2, 2), (3, 3), (4, 4)] {
            world.want(prefix, links);
        }
        world.write();
        world.restart(SETTINGS);
        let neighbor = |i: usize| Some(([10, 0, u8::try_from(i).unwrap() + 1, 2].into(), phases[i]?));
        let neighbors = (0..2).filter_map(neighbor).collect();
        let grace = if *expired { Grace::Over } else { Grace::Usual };
        world.fib.converged(Arc::new(Convergence { neighbors }), grace);
        world.write();
        let left: Vec<_> = (1..=4).filter(|p| world.kernel.hops(pfx(*p)).is_some()).collect();
        assert_eq!(left, *stays, "{name}");
    }
}

/// calico#9259: a restart while other nodes are silent. Routes to prefixes that the cluster assigns
/// to them stay until they have converged, or their Node is gone.
#[test]
fn calico_9259_routes_to_pods_of_silent_nodes_outlive_the_wait_after_a_restart() {
    use Phase::{Converged, Up, Waiting};
    // Prefixes 1 and 2 belong to the neighbors on links 1 and 2, 3 to a node on link 3 that is no
    // neighbor.
    let assigned = |nodes: &[u8]| {
        let mut assigned = Assigned::default();
        nodes.iter().for_each(|n| assigned.add([10, 0, *n, 2].into(), pfx(*n)));
        Arc::new(assigned)
    };
    #[rustfmt::skip]
    let cases: &[(&str, [Phase; 2], &[u8], &[u8])] = &[
        // (name, phases of the neighbors on links 1 and 2, existing Nodes, prefixes left)
        ("the second is silent",              [Converged, Waiting],   &[1, 2, 3], &[2, 3]),
        ("its Node is deleted",               [Converged, Waiting],   &[1, 3],    &[3]),
        ("the one that is no neighbor is",    [Converged, Waiting],   &[1, 2],    &[2]),
        ("it is converging",  [Converged, Up],        &[1, 2, 3], &[2, 3]),
        ("all have converged",                    [Converged, Converged], &[1, 2, 3], &[]),
    ];
    for (name, phases, nodes, stays) in cases {
        let mut world = World::new(SETTINGS);
        (1..=4).for_each(|n| world.want(n, 1 << (n - 1).min(2)));
        world.write();
        world.restart(SETTINGS);
        world.fib.assigned(assigned(nodes));
        let neighbors = [([10, 0, 1, 2].into(), phases[0]), ([10, 0, 2, 2].into(), phases[1])].into();
        world.fib.converged(Arc::new(Convergence { neighbors }), Grace::Over);
        world.write();
        let left: Vec<_> = (1..=3).filter(|p| world.kernel.hops(pfx(*p)).is_some()).collect();
        assert_eq!(left, *stays, "{name}");
        let any_up = phases.contains(&Up);
        assert_eq!(world.kernel.hops(pfx(4)).is_some(), any_up, "{name}: nothing is assigned there");
    }
}

/// calico#9259: after all neighbors were away, the first to return advertises only its own routes,
/// and the others follow within a second.
#[test]
fn calico_9259_after_all_were_away_the_others_have_some_time_with_the_first_that_is_back() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut wait = StaleTimer::new(start, Duration::from_secs(100));
    assert!(!wait.timeout(at(9)));
    assert!(wait.timeout(at(10)) && wait.grace() == Grace::Usual);
    wait.converged(at(20), false);
    assert!(wait.timeout(at(300)) && wait.grace() == Grace::Over);
    assert_eq!(wait.due(), None);
    wait.converged(at(1000), true);
    assert_eq!((wait.grace(), wait.due()), (Grace::Usual, Some(at(1100))));
    // A second neighbor that returns changes nothing.
    wait.converged(at(1050), true);
    assert!(!wait.timeout(at(1099)));
    assert!(wait.timeout(at(1100)) && wait.grace() == Grace::Over);
}

#[test]
fn a_short_restart_time_ends_the_first_patience_too() {
    let start = Instant::now();
    let mut wait = StaleTimer::new(start, Duration::from_secs(2));
    wait.converged(start, true);
    assert_eq!((wait.grace(), wait.due()), (Grace::Fresh, Some(start + Duration::from_secs(6))));
    assert!(wait.timeout(start + Duration::from_secs(6)) && wait.grace() == Grace::Over);
}

#[test]
fn an_adopted_route_moves_only_when_its_neighbor_has_not_claimed_it() {
    use Grace::{Fresh, Over, Usual};
    use Phase::{Converged, Up, Waiting};
    #[rustfmt::skip]
    let cases: &[(&str, u8, u8, Phase, Grace, bool)] = &[
        // (name, links before, links desired now, phase of the neighbor on link 1, grace, whether
        // it moves)
        ("it may come up at any moment",        1, 2, Waiting,   Fresh, false),
        ("it is gone, and there is another way", 1, 2, Waiting,  Usual, true),
        ("it speaks",                           1, 2, Up,        Usual, false),
        ("it has spoken",                       1, 2, Converged, Fresh, true),
        ("one of two ways, not yet up",         3, 2, Waiting,   Usual, false),
        ("one of two ways, speaking",           3, 2, Up,        Fresh, false),
        ("one of two ways, has spoken",         3, 2, Converged, Fresh, true),
        ("one of two ways, never came",         3, 2, Waiting,   Over,  true),
        ("one way more",                        2, 3, Up,        Fresh, true),
    ];
    for (name, before, now, phase, grace, moves) in cases {
        let mut world = World::new(SETTINGS);
        world.want(1, *before);
        world.write();
        world.restart(SETTINGS);
        let neighbors = [([10, 0, 1, 2].into(), *phase), ([10, 0, 2, 2].into(), Converged)].into();
        world.want(1, *now);
        world.fib.converged(Arc::new(Convergence { neighbors }), *grace);
        world.write();
        assert_eq!(!world.kernel.log.is_empty(), *moves, "{name}: {:?}", world.kernel.log);
        let neighbors = [([10, 0, 1, 2].into(), Converged), ([10, 0, 2, 2].into(), Converged)].into();
        world.fib.converged(Arc::new(Convergence { neighbors }), *grace);
        world.write();
        assert_eq!(world.kernel.hops(pfx(1)).map(|h| h.len()), Some(now.count_ones() as usize), "{name}");
    }
}

#[test]
fn what_has_our_id_and_leads_elsewhere_is_written_again() {
    let mut world = World::new(SETTINGS);
    world.want(1, 0b0001);
    world.want(2, 0b0011);
    world.write();
    let good = world.kernel.objects.clone();
    assert_eq!(good.len(), 4, "a single hop, a group and its two members");
    let elsewhere = Leads::Hop(ForeignHop { ifindex: 4, gateway: "10.0.4.9".parse().ok(), onlink: false });
    for (id, right) in world.kernel.seen() {
        let others = match &right.leads {
            Leads::Group { members, .. } => vec![
                Leads::Group { members: vec![99], kind: GroupKind::Plain },
                Leads::Group { members: [&members[..], &[99]].concat(), kind: GroupKind::Plain },
                Leads::Group { members: members.clone(), kind: GroupKind::Other },
            ],
            _ => vec![elsewhere.clone(), Leads::Blackhole],
        };
        let changed = others.into_iter().map(|leads| SeenObject { leads, ..right.clone() });
        let taken = SeenObject { protocol: 4, ..right.clone() };
        for change in changed.chain([taken]) {
            world.kernel.log.clear();
            let mut seen = world.kernel.seen();
            seen.insert(id, change.clone());
            let before = world.fib.repairs;
            world.fib.host(world.resolver(), Some(&seen));
            world.write();
            let again = Op::NewNexthop { id, object: good[&id].clone(), replace: true };
            assert_eq!((&world.kernel.log[..], world.fib.repairs), (&[again][..], before + 1), "{change:?}");
        }
    }
    assert_eq!(world.kernel.objects, good);
}

#[test]
fn what_is_in_the_way_is_named() {
    let mut world = World::new(SETTINGS);
    world.kernel.routes.insert((pfx(1), METRIC), Route::Foreign);
    world.fib.observe(pfx(1), METRIC, Held::Other { protocol: 11 });
    world.want(1, 1);
    world.up[1] = false;
    world.want(2, 2);
    world.want(3, 1);
    world.carrier(1, false);
    let problems: Vec<_> = world.fib.list(|i| format!("eth{i}")).into_iter().map(|v| v.problem).collect();
    assert_eq!(
        problems,
        [
            Some("a route of protocol zebra (11) holds this prefix with metric 179; it is left alone".into()),
            Some("next hop on a link that is down".into()),
            None,
        ]
    );
}

/// `show fib` in pages: in order, each route once, originated ones among the learned.
#[test]
fn a_large_fib_is_shown_in_order_in_small_pages() {
    let mut world = World::new(SETTINGS);
    let nth = |n: u32| Prefix::v4((0x1400_0000 + (n << 8)).into(), 24);
    let many = 20_000;
    (0..many).for_each(|n| world.fib.set_desired(nth(n * 7919 % many), set(1).as_ref()));
    world.fib.set_own(&[nth(100_000), nth(3)]);
    world.fib.finish();
    while !world.fib.take(1000).is_empty() {}
    let (mut walk, mut shown, mut pages) = (Walk::default(), Vec::new(), 0);
    while !walk.is_over() {
        if walk.is_searching() {
            world.fib.search(&mut walk);
        }
        let page = world.fib.page(&mut walk, |i| i.to_string());
        assert!(page.len() <= 128);
        shown.extend(page.into_iter().map(|v| (v.prefix, v.metric)));
        // A removed route is not listed, and a new one does not disturb the listing.
        pages += 1;
        if pages == 2 {
            world.fib.set_desired(nth(many - 1), None);
            world.fib.set_desired(nth(many + 5), set(1).as_ref());
            world.fib.finish();
        }
    }
    let learned = (0..many - 1).chain([many + 5]).map(|n| (nth(n), METRIC));
    let mut expected: Vec<_> = learned.chain([nth(100_000), nth(3)].map(|p| (p, OWN_METRIC))).collect();
    expected.sort_unstable();
    assert!(shown == expected, "{} of {}", shown.len(), expected.len());
    assert_eq!(world.fib.counts()[crate::net::Family::Ipv4Unicast], expected.len());
    assert!(world.fib.is_in_kernel(nth(7)) && !world.fib.is_in_kernel(nth(many - 1)));
}
