//! Routes: written, adopted, repaired, left alone.

use std::{
    process::Command,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use routelet::{
    fib::io::{Counters, Settings, cleanup},
    net::{NextHops, Phase},
};

use crate::{
    common::{
        Process,
        net::{Net, Ns},
        run, wait_for, within,
    },
    node::{Node, hops, many, ours, p, settings, two_links, wait_gone, wait_route},
};

/// `ip monitor` of routes and nexthops until the end of the test.
pub(crate) fn monitor(net: &Net, ns: &Ns) -> Process {
    let log = net.dir().join("monitor");
    let mut command = Command::new("ip");
    let process = Process::start(command.args(["-n", &ns.name, "monitor", "route", "nexthop"]), &log);
    // It listens once it shows a change that we make.
    wait_for("ip monitor", 5.0, || {
        ns.ip("route add 203.0.113.0/24 dev lo");
        ns.ip("route del 203.0.113.0/24 dev lo");
        process.printed().contains("203.0.113.0").then_some(())
    });
    process
}

pub(crate) fn seen(monitor: &Process) -> Vec<String> {
    // Whatever was caused before is printed by now.
    thread::sleep(Duration::from_millis(200));
    monitor.printed().lines().filter(|l| !l.contains("203.0.113.0")).map(str::to_owned).collect()
}

fn each_form(settings: Settings) {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings);
        let eth1 = node.host.borrow().link("eth1").unwrap().index;
        node.want("10.10.0.0/16", &["10.0.1.2"]);
        node.want("10.11.0.0/16", &["10.0.1.2", "10.0.2.2"]);
        node.want("fd10::/48", &["fd00:1::2"]);
        node.want("fd11::/48", &["fd00:1::2", "fd00:2::2"]);
        node.want("10.12.0.0/16", &["fd00:1::2"]);
        node.want("10.13.0.0/16", &[&format!("fe80::1%{eth1}")]);
        node.want("10.14.0.0/16", &[&format!("169.254.7.7%{eth1}")]);
        node.want("10.15.0.0/16", &["fd00:1::2", "10.0.2.2"]);
        node.want_many(&[p("10.16.0.0/16"), p("fd16::/48")], Some(NextHops::blackhole()));
        node.own(&["10.244.1.0/24", "fd24::/64"]);
        #[rustfmt::skip]
        let cases: &[(&str, &[&str])] = &[
            ("10.10.0.0/16", &["via 10.0.1.2 dev eth1", "metric 179"]),
            ("10.11.0.0/16", &["via 10.0.1.2 dev eth1", "via 10.0.2.2 dev eth2"]),
            ("fd10::/48",    &["via fd00:1::2 dev eth1", "metric 179"]),
            ("fd11::/48",    &["via fd00:1::2 dev eth1", "via fd00:2::2 dev eth2"]),
            ("10.12.0.0/16", &["via inet6 fd00:1::2 dev eth1"]),
            ("10.13.0.0/16", &["via inet6 fe80::1 dev eth1"]),
            ("10.14.0.0/16", &["via 169.254.7.7 dev eth1", "onlink"]),
            ("10.15.0.0/16", &["via inet6 fd00:1::2 dev eth1", "via 10.0.2.2 dev eth2"]),
            ("10.16.0.0/16", &["blackhole", "metric 179"]),
            ("fd16::/48",    &["blackhole", "metric 179"]),
            ("10.244.1.0/24", &["unreachable", "metric 4294967295"]),
            ("fd24::/64",    &["unreachable", "metric 4294967295"]),
        ];
        for (prefix, words) in cases {
            wait_route(&host, prefix, words);
        }
        for view in node.list() {
            assert!(view.in_kernel && view.problem.is_none(), "{view:?}");
        }
        // A change replaces, and what is no longer wanted goes.
        node.want("10.10.0.0/16", &["10.0.2.2"]);
        node.want("10.11.0.0/16", &["10.0.2.2"]);
        node.want("fd11::/48", &["fd00:2::2"]);
        node.drop_route("fd10::/48");
        node.own(&["fd24::/64"]);
        wait_route(&host, "10.10.0.0/16", &["via 10.0.2.2 dev eth2"]);
        wait_route(&host, "fd11::/48", &["via fd00:2::2 dev eth2"]);
        wait_gone(&host, "fd10::/48");
        wait_gone(&host, "10.244.1.0/24");
        assert!(!ours(&host).lines().any(|l| l.starts_with("10.11.0.0/16") && l.contains("10.0.1.2")));
        node.stop(true);
        assert_eq!((ours(&host), host.ip("nexthop show")), (String::new(), String::new()));
    });
}

#[test]
fn routes_of_each_form_come_change_and_go() {
    each_form(settings());
}

#[test]
fn without_nexthop_objects_the_same_routes_are_written() {
    each_form(Settings { nexthop_objects: false, ..settings() });
}

#[test]
fn resilient_groups_take_the_same_routes() {
    each_form(Settings { resilient: true, ..settings() });
}

/// Which next hop each bucket of the only group has.
fn buckets(host: &Ns) -> Vec<String> {
    let groups = host.ip("nexthop show");
    let group = groups.lines().find(|l| l.contains("type resilient")).expect("a resilient group");
    let id = group.split_whitespace().nth(1).unwrap();
    let list = host.ip(&format!("nexthop bucket show id {id}"));
    list.lines().map(|l| l.split_once("nhid ").expect("a next hop").1.trim().to_owned()).collect()
}

#[test]
fn flows_of_the_other_uplinks_stay_where_they_are_when_one_is_lost() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(Settings { resilient: true, ..settings() });
        node.want("10.11.0.0/16", &["10.0.1.2", "10.0.1.3", "10.0.2.2"]);
        wait_route(&host, "10.11.0.0/16", &["via 10.0.1.2 dev eth1", "via 10.0.2.2 dev eth2"]);
        let before = buckets(&host);
        assert_eq!(before.len(), 256);
        host.ip("link set eth2 down");
        wait_for("the lost uplink has no bucket", 5.0, || {
            let after = buckets(&host);
            let left: std::collections::BTreeSet<_> = after.iter().collect();
            let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count();
            let of_lost = before.iter().filter(|b| !left.contains(b)).count();
            (left.len() == 2 && of_lost > 0).then(|| assert_eq!(moved, of_lost, "only its own flows move"))
        });
        node.stop(true);
    });
}

#[test]
fn groups_of_the_other_kind_are_replaced_after_a_restart() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        for resilient in [false, true, false] {
            let node = Node::start(Settings { resilient, ..settings() });
            node.want("10.11.0.0/16", &["10.0.1.2", "10.0.2.2"]);
            wait_for(format!("resilient: {resilient}"), 10.0, || {
                let groups = host.ip("nexthop show");
                let group = groups.lines().filter(|l| l.contains("group")).collect::<Vec<_>>();
                (group.len() == 1 && group[0].contains("resilient") == resilient).then_some(())
            });
            wait_route(&host, "10.11.0.0/16", &["via 10.0.1.2 dev eth1", "via 10.0.2.2 dev eth2"]);
            node.stop(false);
        }
    });
}

#[test]
fn another_table_is_left_to_others() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(Settings { table: 1000, ..settings() });
        node.want("10.10.0.0/16", &["10.0.1.2"]);
        wait_for("the route in table 1000", 5.0, || {
            let table = host.sh("ip route show table 1000 2>/dev/null || true");
            table.contains("10.10.0.0/16").then_some(())
        });
        assert_eq!(ours(&host), "");
        node.stop(true);
        assert_eq!(host.ip("route show table 1000"), "");
    });
}

#[test]
fn a_restart_touches_no_route_that_is_right() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let wanted = |node: &Node| {
            node.want("10.10.0.0/16", &["10.0.1.2"]);
            node.want("10.11.0.0/16", &["10.0.1.2", "10.0.2.2"]);
            node.want("fd11::/48", &["fd00:1::2", "fd00:2::2"]);
            node.own(&["10.244.1.0/24"]);
        };
        let node = Node::start(settings());
        wanted(&node);
        node.want("10.99.0.0/16", &["10.0.1.2"]);
        node.want("10.98.0.0/16", &["10.0.2.2"]);
        node.want("10.97.0.0/16", &["10.0.2.3"]);
        let up = |node: &Node, n| wait_for("all routes", 5.0, || (node.count() == n).then_some(()));
        up(&node, 6);
        node.kill();

        let monitor = monitor(&net, &host);
        let before = ours(&host);
        let node = Node::start(settings());
        node.neighbors(&[("10.0.1.2", Phase::Waiting), ("10.0.2.2", Phase::Waiting)]);
        up(&node, 6);
        // One of two neighbors of a route speaks first: it does not lose its other hop.
        node.neighbors(&[("10.0.1.2", Phase::Up), ("10.0.2.2", Phase::Waiting)]);
        node.want("10.11.0.0/16", &["10.0.1.2"]);
        wanted(&node);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(ours(&host), before, "nothing is swept before its neighbor has spoken");
        node.neighbors(&[("10.0.1.2", Phase::Converged), ("10.0.2.2", Phase::Waiting)]);
        wait_gone(&host, "10.99.0.0/16");
        thread::sleep(Duration::from_millis(100));
        assert!(ours(&host).contains("10.98.0.0/16"), "its neighbor is still awaited");
        assert!(ours(&host).contains("10.97.0.0/16"), "nobody's gateway waits for all");
        node.neighbors(&[("10.0.1.2", Phase::Converged), ("10.0.2.2", Phase::Converged)]);
        wait_gone(&host, "10.98.0.0/16");
        wait_gone(&host, "10.97.0.0/16");
        up(&node, 3);
        let shown = seen(&monitor);
        // The kernel's own routes of addresses that have just left duplicate detection are not ours.
        let ours_only = |l: &&String| !l.starts_with("Deleted") && !l.contains("proto kernel");
        let touched: Vec<_> = shown.iter().filter(ours_only).collect();
        assert!(touched.is_empty(), "re-added although right: {touched:#?}");
        for prefix in ["10.10.", "10.11.", "fd11::", "10.244."] {
            assert!(!shown.iter().any(|l| l.contains(prefix)), "{prefix} touched: {shown:#?}");
        }
        node.stop(false);
        assert!(ours(&host).contains("10.10.0.0/16"), "routes stay on exit");
    });
}

#[test]
fn a_node_that_hears_nobody_keeps_what_it_has() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings());
        node.want("10.10.0.0/16", &["10.0.1.2"]);
        node.want("10.20.0.0/16", &["10.0.2.2"]);
        wait_for("both", 5.0, || (node.count() == 2).then_some(()));
        node.kill();
        let node = Node::start(Settings { restart_time: Duration::from_millis(100), ..settings() });
        node.neighbors(&[("10.0.1.2", Phase::Waiting), ("10.0.2.2", Phase::Waiting)]);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(ours(&host).lines().count(), 2, "the time is over and nobody came: all is kept");
        node.neighbors(&[("10.0.1.2", Phase::Up), ("10.0.2.2", Phase::Waiting)]);
        node.want("10.10.0.0/16", &["10.0.1.2"]);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(
            ours(&host).lines().count(),
            2,
            "that neighbor is just speaking, for others as well perhaps"
        );
        node.neighbors(&[("10.0.1.2", Phase::Converged), ("10.0.2.2", Phase::Waiting)]);
        wait_gone(&host, "10.20.0.0/16");
        assert!(ours(&host).contains("10.10.0.0/16"));
        node.stop(false);
    });
}

#[test]
fn what_others_delete_is_back_within_a_tenth_of_a_second() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings());
        let prefixes = many(1000);
        node.want_many(&prefixes, Some(hops(&["10.0.1.2", "10.0.2.2"])));
        node.own(&["10.244.1.0/24"]);
        wait_for("all routes", 5.0, || (ours(&host).lines().count() == 1001).then_some(()));

        for prefix in ["20.0.7.0/24", "10.244.1.0/24"] {
            let kind = if prefix.starts_with("10.") { "unreachable " } else { "" };
            within(prefix, Duration::from_millis(100), || {
                host.ip(&format!("route del {kind}{prefix} proto 179"));
                wait_route(&host, prefix, &[])
            });
        }
        // With this off, a dump names the object only, and `ip route flush` can send back what it read.
        host.sysctl("net.ipv4.nexthop_compat_mode", "0");
        let all_back = |loss: &str| {
            host.ip(loss);
            let start = Instant::now();
            wait_for("all routes again", 5.0, || (ours(&host).lines().count() == 1001).then_some(()));
            start.elapsed()
        };
        within("1001 routes after a flush", Duration::from_millis(100), || all_back("route flush proto 179"));

        host.sysctl("net.ipv4.nexthop_compat_mode", "1");
        // A nexthop object takes all its routes with it, without a word.
        within("1000 routes after the loss of their object", Duration::from_millis(200), || {
            all_back("nexthop flush")
        });
        // Changed by others, under our own protocol number.
        host.ip("route replace 20.0.9.0/24 via 10.0.2.3 metric 179 proto 179");
        wait_route(&host, "20.0.9.0/24", &["via 10.0.1.2", "via 10.0.2.2"]);
        node.stop(true);
    });
}

/// kube-router's sync was quadratic, and its first error ended it: here each route has its own fate, and is written once.
#[test]
fn kube_router_one_refused_route_holds_up_no_other_and_no_route_is_written_twice() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let all = many(10_000);
        // Places that are taken: the kernel's answer to these is no.
        for n in [0, 5000, 9999] {
            host.ip(&format!("route add {} via 10.0.2.3 metric 179 proto static", all[n]));
        }
        let node = Node::start(settings());
        node.want_many(&all, Some(hops(&["10.0.1.2"])));
        wait_for("all but three", 30.0, || (node.count() == 9_997).then_some(()));
        let written = || node.fib.counters().put.ok.load(Relaxed);
        assert_eq!(written(), 9_997);
        assert!(node.view(&all[5000].to_string()).problem.unwrap().contains("static"));
        // One more costs one more, and what was refused comes when it can.
        node.want("10.10.0.0/16", &["10.0.1.2"]);
        host.ip(&format!("route del {} metric 179 proto static", all[5000]));
        wait_route(&host, &all[5000].to_string(), &["via 10.0.1.2"]);
        wait_route(&host, "10.10.0.0/16", &["via 10.0.1.2"]);
        assert_eq!(written(), 9_999);
        node.stop(true);
    });
}

#[test]
fn another_owners_route_is_left_alone_and_named() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        host.ip("route add 10.10.0.0/16 via 10.0.2.3 metric 179 proto bird");
        host.ip("-6 route add fd10::/48 via fd00:2::3 metric 179 proto bird");
        let node = Node::start(settings());
        for (prefix, gateway) in [("10.10.0.0/16", "10.0.1.2"), ("fd10::/48", "fd00:1::2")] {
            node.want(prefix, &[gateway]);
        }
        node.want("10.11.0.0/16", &["10.0.1.2"]);
        wait_route(&host, "10.11.0.0/16", &["via 10.0.1.2"]);
        let problem = node.view("10.10.0.0/16").problem.unwrap();
        assert!(problem.contains("protocol bird (12)"), "{problem}");
        assert!(node.view("fd10::/48").problem.unwrap().contains("bird"));
        assert!(host.ip("route show 10.10.0.0/16").contains("via 10.0.2.3"), "untouched");
        assert!(host.ip("-6 route show fd10::/48").contains("via fd00:2::3"), "untouched");
        node.drop_route("fd10::/48");
        // When it goes, ours comes.
        host.ip("route del 10.10.0.0/16 metric 179 proto bird");
        wait_route(&host, "10.10.0.0/16", &["via 10.0.1.2"]);
        // One that takes our place while we run is not fought.
        host.ip("route replace 10.11.0.0/16 via 10.0.2.3 metric 179 proto static");
        wait_for("the new owner is named", 5.0, || {
            node.view("10.11.0.0/16").problem.is_some_and(|p| p.contains("static")).then_some(())
        });
        node.drop_route("10.11.0.0/16");
        node.stop(true);
        assert!(host.ip("route show 10.11.0.0/16").contains("proto static"), "never deleted");
        assert!(host.ip("-6 route show fd10::/48").contains("proto bird"), "never deleted");
    });
}

#[test]
fn cleanup_removes_ours_and_nothing_else() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        host.ip("nexthop add id 7 via 10.0.1.3 dev eth1");
        host.ip("route add 10.30.0.0/16 nhid 7");
        let node = Node::start(settings());
        node.want("10.10.0.0/16", &["10.0.1.2", "10.0.2.2"]);
        node.want("fd10::/48", &["fd00:1::2"]);
        node.own(&["10.244.1.0/24"]);
        wait_route(&host, "fd10::/48", &[]);
        wait_route(&host, "10.244.1.0/24", &[]);
        wait_route(&host, "10.10.0.0/16", &[]);
        node.kill();
        let removed = cleanup(254, 179).unwrap();
        assert_eq!((removed.routes, removed.nexthops), (3, 4));
        assert_eq!(ours(&host), "");
        assert_eq!(host.ip("nexthop show").lines().count(), 1);
        assert!(host.ip("route show").contains("10.30.0.0/16"));
    });
}

#[test]
fn nothing_is_written_without_install() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(Settings { install: false, ..settings() });
        node.want("10.10.0.0/16", &["10.0.1.2"]);
        node.own(&["10.244.1.0/24"]);
        wait_for("the own prefix does not wait for the kernel", 5.0, || {
            (node.fib.own_there().borrow().len() == 1).then_some(())
        });
        wait_for("the view", 5.0, || (node.list().len() == 2).then_some(()));
        assert!(node.list().iter().all(|v| !v.in_kernel));
        assert_eq!(ours(&host), "");
        node.stop(true);
    });
}

/// Prints what the kernel path can do.
#[test]
fn a_hundred_thousand_routes_come_and_go() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings());
        let prefixes = many(100_000);
        let timed = |what: &str, n: usize, act: &dyn Fn()| {
            let start = Instant::now();
            act();
            wait_for(what, 30.0, || (node.count() == n).then_some(()));
            println!("{what}: {:?}", start.elapsed());
        };
        timed("100,000 routes in", 100_000, &|| node.want_many(&prefixes, Some(hops(&["10.0.1.2"]))));
        assert_eq!(run(host.command("sh").args(["-c", "ip route show proto 179 | wc -l"])).trim(), "100000");
        let start = Instant::now();
        node.want_many(&prefixes, Some(hops(&["10.0.2.2"])));
        wait_route_of(&host, "20.1.134.0/24", "10.0.2.2");
        println!("100,000 routes to another neighbor: {:?}", start.elapsed());
        let written = |c: &Counters| (c.put.ok.load(Relaxed), c.del.ok.load(Relaxed));
        assert_eq!(written(&node.fib.counters()), (100_000, 0), "moved by one change of the object");
        timed("neighbor lost, 100,000 routes out", 0, &|| node.want_many(&prefixes, None));
        assert_eq!(written(&node.fib.counters()), (100_000, 0), "gone with their object");
        wait_for("no route", 5.0, || (host.ip("route show proto 179").is_empty()).then_some(()));
        assert_eq!(host.ip("nexthop show"), "");
        node.stop(true);
    });
}

fn wait_route_of(ns: &Ns, prefix: &str, gateway: &str) {
    wait_for(prefix, 30.0, || ns.ip(&format!("route show {prefix}")).contains(gateway).then_some(()));
}

/// Latency of one route: from the rib's post to the kernel's notification.
#[test]
fn one_route_is_written_at_once() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings());
        node.want("20.0.0.0/24", &["10.0.1.2"]);
        wait_route(&host, "20.0.0.0/24", &[]);
        let counters = node.fib.counters();
        let micros = || counters.convergence_sum_micros.load(Relaxed);
        let mut took = Vec::new();
        for prefix in many(200).into_iter().skip(1) {
            let (before, start) = (micros(), Instant::now());
            counters.update_read(start);
            node.want_many(&[prefix], Some(hops(&["10.0.1.2"])));
            while micros() == before && start.elapsed() < Duration::from_secs(1) {
                thread::yield_now();
            }
            took.push(micros() - before);
        }
        took.sort_unstable();
        println!("one route: p50 {} µs, p99 {} µs", took[took.len() / 2], took[took.len() * 99 / 100]);
        assert!(took[took.len() / 2] < 20_000);
        node.stop(true);
    });
}
