//! A real Docker engine beside routelet on each node. Docker was there first: it has switched forwarding on, and set the
//! policy of FORWARD to DROP.

use crate::{
    common::{
        net::{Net, Ns},
        probe::Probe,
        wait_for,
    },
    engine::Docker,
    firewall::saved,
    world::{Segment, all_reach_all, nothing_is_rewritten, reaches},
};

#[test]
fn pods_are_forwarded_where_docker_drops_and_nothing_else_is() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut nodes: Vec<_> = (1..=2).map(|n| segment.node(&mut net, n)).collect();
    let mut engines = Vec::new();
    for (n, node) in (1..).zip(&nodes) {
        node.ns.sysctl("net.ipv4.ip_forward", "0");
        engines.push(Docker::start(&net, &node.ns, &format!("172.30.{n}.1/24")));
        assert!(node.ns.sh("iptables -S FORWARD").contains("-P FORWARD DROP"), "this Docker sets no policy");
        // As a Docker with ip6tables does.
        node.ns.sh("ip6tables -P FORWARD DROP");
    }
    let before = saved(&nodes[0].ns);

    for node in &mut nodes {
        node.start(&net, &segment.plane, "");
        node.register(&segment.plane);
    }
    let cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    for (node, (own, other)) in nodes.iter().zip(cidrs.iter().zip(cidrs.iter().rev())) {
        node.wait_conflist(own);
        other.iter().for_each(|prefix| node.wait_route(prefix));
    }
    let pods: Vec<_> = nodes.iter().map(|n| n.pod(&mut net, &format!("{}p", n.name))).collect();
    all_reach_all(&pods);
    nothing_is_rewritten(&pods[0], &pods[1]);
    let (n1, far) = (nodes[0].ns.clone(), pods[1].addresses[0].clone());
    assert_eq!(jumps(&n1), (1, true), "{}", n1.sh("iptables -S FORWARD"));
    let ours = n1.sh("iptables -S ROUTELET-FORWARD");
    assert!(
        ours.contains(&format!("-s {} -j ACCEPT", cidrs[0][0])) && ours.contains("-o docker0 -j RETURN"),
        "{ours}"
    );
    let ours6 = n1.sh("ip6tables -S ROUTELET-FORWARD");
    assert!(ours6.contains(&format!("-d {} -j ACCEPT", cidrs[0][1])), "{ours6}");
    assert_eq!(saved(&n1), before, "no rule of Docker's was touched");

    // Who is no pod stays outside, and Docker's unpublished ports stay shut.
    let stranger = stranger(&mut net, &n1, &nodes[1].ns);
    engines[0].run("quiet");
    let container = engines[0].address("quiet");
    assert!(!stranger.pings("10.99.0.12") && !stranger.pings(&far), "no pod, no way through");
    assert!(!pods[0].ns.pings(&container), "what Docker has not published");

    // Docker comes and goes, and makes networks.
    let probe = Probe::start(&net, &pods[0].ns, &far);
    engines[0].restart();
    engines[0].network("more");
    probe.goes_on();
    wait_for("the jump is last", 10.0, || (jumps(&n1) == (1, true)).then_some(()));
    wait_for("the new network's bridge stays shut", 10.0, || {
        n1.sh("iptables -S ROUTELET-FORWARD").contains("-o br-").then_some(())
    });
    // So does routelet.
    let daemon = nodes[0].routelet.as_mut().unwrap();
    daemon.process.kill();
    probe.goes_on();
    daemon.restart();
    probe.goes_on();
    assert!(daemon.process.stop().success());
    probe.goes_on();
    daemon.restart();
    println!("{} probes, none lost", probe.lost_nothing());

    // Somebody denies, behind us.
    n1.sh(&format!("iptables -A FORWARD -d {far} -j DROP"));
    wait_for("what is denied is denied", 10.0, || (!pods[0].ns.pings(&far)).then_some(()));
    n1.sh(&format!("iptables -D FORWARD -d {far} -j DROP"));
    reaches(&pods[0].ns, &far);
    // Somebody flushes.
    n1.sh("iptables -F FORWARD");
    reaches(&pods[0].ns, &far);
    assert!(!stranger.pings("10.99.0.12"));

    // The engine's restart has ended its containers.
    engines[0].run("another");
    let container = engines[0].address("another");
    assert!(!pods[0].ns.pings(&container));

    // Without the policy there is nothing for us to do, and the tests above are seen to be able to fail.
    n1.sh("iptables -P FORWARD ACCEPT");
    wait_for("our chain goes", 10.0, || (!n1.sh("iptables -S").contains("ROUTELET")).then_some(()));
    reaches(&pods[0].ns, &far);
    reaches(&stranger, "10.99.0.12");
    reaches(&stranger, &far);
    reaches(&pods[0].ns, &container);
    n1.sh("iptables -P FORWARD DROP");
    wait_for("our chain is back", 10.0, || (jumps(&n1) == (1, true)).then_some(()));
    reaches(&pods[0].ns, &far);

    // Of iptables-legacy there is only a word, to all who may look.
    nodes[1].ns.sh("iptables-legacy -P FORWARD DROP");
    let remedy = format!("iptables-legacy -A FORWARD -s {} -j ACCEPT", cidrs[1][0]);
    wait_for("show node has the remedy", 60.0, || {
        let shown = nodes[1].daemon().json(&["show", "node"]);
        shown["problems"].to_string().contains(&remedy).then_some(())
    });
    wait_for("an Event has it", 60.0, || {
        let events = ["get", "events.events.k8s.io", "-n", "default", "-o", "json"];
        segment.plane.kubectl(&events).contains(&remedy).then_some(())
    });

    let removed = nodes[0].clean_up();
    assert!(removed.contains("ROUTELET-FORWARD"), "{removed}");
    let left = [n1.sh("iptables-save"), n1.sh("ip6tables-save")].concat();
    assert!(!left.contains("ROUTELET") && left.contains(":FORWARD DROP"), "{left}");
}

/// How many rules of FORWARD jump to our chain, and whether the last rule does.
fn jumps(ns: &Ns) -> (usize, bool) {
    let listed = ns.sh("iptables -S FORWARD");
    let ours = |l: &str| l == "-A FORWARD -j ROUTELET-FORWARD";
    (listed.lines().filter(|l| ours(l)).count(), listed.lines().last().is_some_and(ours))
}

/// A machine behind node 1 whose packets node 2 would answer.
fn stranger(net: &mut Net, n1: &Ns, n2: &Ns) -> Ns {
    let stranger = net.ns("stranger");
    net.link((n1, "side"), (&stranger, "eth0"));
    n1.ip("addr add 10.50.0.1/24 dev side");
    stranger.ip("addr add 10.50.0.2/24 dev eth0");
    stranger.ip("route add default via 10.50.0.1");
    n2.ip("route add 10.50.0.0/24 via 10.99.0.11");
    stranger
}
