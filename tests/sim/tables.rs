//! Sessions and tables together: whatever happened, in the end every node holds what the oracle says.

use std::time::Duration;

use routelet::bgp::session::{Input, Stop};

use crate::{
    MINUTE,
    net::Net,
    seeds,
    world::{Export, PATIENCE, World},
};

/// All cables in, all nodes up, all neighbors enabled: everybody is there soon, and when all patience is over the
/// tables are right and nobody says anything any more.
fn ends_in_peace(world: &World, net: &mut Net, seed: u64) {
    for n in 0..world.nodes {
        if net.is_dead(n) {
            net.revive(n, true);
        }
    }
    for &(a, b) in &world.links {
        net.heal(a, b);
        net.feed((a, b), Input::Start);
        net.feed((b, a), Input::Start);
    }
    let limit = net.now + 10 * MINUTE;
    assert!(net.run_until(limit, Net::all_established), "seed {seed}, {}:\n{}", world.name, net.trace);
    net.run(PATIENCE);
    assert!(net.all_established(), "seed {seed}, {}:\n{}", world.name, net.trace);
    world.check(net, seed);
    let (said, unsent) = (net.messages, net.ends().iter().map(|e| net.session(*e).unsent()).sum::<usize>());
    net.run(5 * MINUTE);
    assert_eq!((net.messages, unsent), (said, 0), "seed {seed}: somebody still talks\n{}", net.trace);
}

/// One thing that happens to a network.
fn mishap(world: &mut World, net: &mut Net) {
    let (a, b) = world.links[net.random(world.links.len() as u64) as usize];
    let (a, b) = if net.random(2) == 0 { (a, b) } else { (b, a) };
    match net.random(14) {
        0 | 1 => net.cut(a, b),
        2 => net.heal(a, b),
        3 => net.break_wires(a, b),
        4 => net.feed_living((a, b), Input::Reset(None)),
        5 => net.feed_living((a, b), Input::Stop(Stop::Disabled(None))),
        6 => net.feed_living((a, b), Input::Start),
        7 if net.is_dead(a) => net.revive(a, true),
        7 => net.kill(a),
        8 if net.is_dead(a) => net.revive(a, false),
        8 => net.leave(a, Stop::Leaving),
        9 if net.is_dead(a) => net.revive(a, true),
        9 => net.leave(a, Stop::Halting),
        10 => {
            let family = routelet::net::Family::ALL[net.random(2) as usize];
            net.feed_living((a, b), Input::RequestRefresh(family));
        }
        11 => {
            let longer = world.end(a, b).local_as != world.end(b, a).local_as;
            let export = match net.random(3) {
                0 => Export::All,
                1 if longer => Export::Longer,
                _ => Export::Half,
            };
            world.set_policy(net, (a, b), export);
        }
        _ => {
            let at = net.random(world.prefixes.len() as u64) as usize;
            let prefix = world.prefixes[at];
            world.toggle(net, a, prefix);
        }
    }
}

#[test]
fn tables_converge_whatever_happens() {
    for seed in seeds(1) {
        let mut world = World::drawn(seed);
        let mut net = world.build(seed);
        net.latency = Duration::from_millis([1, 20, 300, 2000][(seed / 15 % 4) as usize]);
        for _ in 0..4 + net.random(12) {
            // Mostly all at once, sometimes with hours between.
            let pause = [1, 50, 1000, 20_000, 200_000][net.random(5) as usize];
            let pause = 1 + net.random(pause);
            net.run(Duration::from_millis(pause));
            mishap(&mut world, &mut net);
        }
        ends_in_peace(&world, &mut net, seed);
    }
}

/// RFC 4724: while a node is away for less than its restart time, nobody's kernel loses a route by it.
#[test]
fn a_graceful_restart_costs_no_route() {
    for seed in seeds(4) {
        let mut world = World::drawn(seed / 7 * 7 + 1 + seed % 6);
        world.restart_gracefully();
        let mut net = world.build(seed);
        net.run(MINUTE);
        world.check(&mut net, seed);
        let n = net.random(world.nodes as u64) as usize;
        let losses = |net: &Net| -> Vec<_> {
            let others = net.routers.iter().filter(|(m, _)| **m != n);
            others.flat_map(|(m, r)| r.losses.iter().map(|p| (*m, *p))).collect()
        };
        let before = losses(&net);
        let pause = net.random(60_000);
        if net.random(2) == 0 {
            net.kill(n)
        } else {
            net.leave(n, Stop::Leaving)
        }
        net.run(Duration::from_millis(pause));
        net.revive(n, true);
        let limit = net.now + MINUTE;
        assert!(net.run_until(limit, Net::all_established), "seed {seed}:\n{}", net.trace);
        net.run(MINUTE);
        assert_eq!(losses(&net), before, "seed {seed}, {}: {n} restarted\n{}", world.name, net.trace);
        net.run(PATIENCE);
        world.check(&mut net, seed);
    }
}

/// RFC 4724 §4.1 has a speaker that has restarted wait with its selection for the End-of-RIB of all neighbors. Here routes
/// go out as they come: whoever restarts, no kernel loses a route by it, not even for a moment.
#[test]
fn routes_that_go_out_as_they_come_after_a_restart_lose_no_route_anywhere() {
    let worlds = [World::mesh(5), World::reflectors(2, 4), World::fabric(2), World::gateway(3)];
    for mut world in worlds {
        world.give_prefixes(3);
        world.restart_gracefully();
        for n in 0..world.nodes {
            let mut net = world.build(n as u64);
            net.run(MINUTE);
            world.check(&mut net, n as u64);
            let losses =
                |net: &Net| net.routers.iter().map(|(m, r)| (*m, r.losses.clone())).collect::<Vec<_>>();
            let before = losses(&net);
            net.kill(n);
            net.run(Duration::from_secs(5));
            net.revive(n, true);
            let limit = net.now + MINUTE;
            assert!(net.run_until(limit, Net::all_established), "{}, {n}:\n{}", world.name, net.trace);
            net.run(MINUTE);
            assert_eq!(losses(&net), before, "{}: {n} restarted\n{}", world.name, net.trace);
        }
    }
}

/// RFC 7911: a host hears of another host each way that its leaf knows, and of itself those over the spines.
#[test]
fn hosts_hear_all_paths_of_their_leaves() {
    let mut world = World::fabric(2);
    world.give_prefixes(1);
    world.advertise_all_paths();
    let mut net = world.build(1);
    net.run(MINUTE);
    world.check(&mut net, 1);
    let paths = |net: &mut Net, n: usize, prefix| {
        let now = net.now;
        let views = net.routers.get_mut(&n).unwrap().rib.routes(now, &Default::default());
        views.into_iter().filter(|v| v.prefix == prefix).count()
    };
    let of = |n: usize| *world.own[n].first().unwrap();
    // Both spines prefer the first leaf, so the second one has two ways more to tell.
    assert_eq!((paths(&mut net, 4, of(5)), paths(&mut net, 4, of(4))), (1 + 3, 1 + 2));
    assert_eq!((paths(&mut net, 3, of(5)), paths(&mut net, 0, of(5))), (3, 2), "others hear the best");
}

/// A neighbor that never reads costs nobody else anything, and is cut off (RFC 9687).
#[test]
fn a_neighbor_that_never_reads_is_left_behind() {
    let mut world = World::mesh(4);
    world.give_prefixes(3000);
    let mut net = world.build(1);
    net.deafen((0, 1));
    net.run(MINUTE);
    assert!(net.all_established(), "{}", net.trace);
    let routes = |net: &Net| [0, 1, 2, 3].map(|n| net.routers[&n].fib.len());
    assert_eq!(routes(&net), [9000, 6000, 9000, 9000]);
    // Not a keepalive reaches it, so it is the neighbor's patience that ends first.
    net.run(2 * MINUTE);
    assert_eq!((net.ups((1, 0)), net.ups((1, 2)), net.ups((2, 3))), (2, 1, 1), "{}", net.trace);
    net.run(PATIENCE);
    assert_eq!(routes(&net), [9000; 4]);
    world.check(&mut net, 1);
}

#[test]
fn a_hundred_nodes_in_full_mesh_converge() {
    let mut world = World::mesh(100);
    world.give_prefixes(2);
    let mut net = world.build(3);
    let limit = net.now + MINUTE;
    assert!(net.run_until(limit, Net::all_established), "{}", net.trace);
    net.run(Duration::from_secs(10));
    world.check(&mut net, 3);
    net.kill(7);
    net.run(5 * MINUTE);
    net.revive(7, false);
    assert!(net.run_until(net.now + 2 * MINUTE, Net::all_established), "{}", net.trace);
    net.run(Duration::from_secs(10));
    world.check(&mut net, 3);
}

#[test]
fn five_hundred_nodes_below_reflectors_converge() {
    let mut world = World::reflectors(2, 500);
    world.give_prefixes(1);
    let mut net = world.build(5);
    let limit = net.now + MINUTE;
    assert!(net.run_until(limit, Net::all_established), "{}", net.trace);
    net.run(Duration::from_secs(10));
    world.check(&mut net, 5);
}
