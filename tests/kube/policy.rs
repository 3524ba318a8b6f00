//! NetworkPolicy engines beside routelet: rules in the shapes that they write stand in a node's firewall while routelet
//! starts, is killed, stopped, reloaded, masquerades and accepts below a policy of DROP. What they deny stays denied, what they
//! allow flows, and not one of their rules changes.
//!
//! The shapes: kube-router's (chains of iptables, sets of ipset, marks, NFLOG, REJECT), Trireme's (mangle, connmarks, NFQUEUE),
//! and a table of its own with a forward hook, as kube-network-policies and Antrea have. nftables' own `queue` is not in
//! every kernel and is left out; NFQUEUE of iptables stands for it, with nobody behind it and `--queue-bypass`.

use crate::{
    common::{
        net::{Net, Ns},
        probe::Probe,
        wait_for,
    },
    firewall::saved,
    pods::Pod,
    world::{Segment, reaches, seen},
};

struct Engine {
    name: &'static str,
    /// Only this pod may reach the other. Loading it again, or for another pod, is what the engine does when it syncs.
    load: fn(web: &Pod, allowed: &Pod) -> String,
    unload: &'static str,
}

const ENGINES: [Engine; 3] = [
    Engine {
        name: "kube-router",
        load: kube_router,
        unload: "for t in iptables ip6tables; do $t -F KUBE-ROUTER-FORWARD; $t -F KUBE-POD-FW-WEB; \
                 $t -D FORWARD -m comment --comment 'kube-router netpol' -j KUBE-ROUTER-FORWARD; \
                 $t -X KUBE-ROUTER-FORWARD; $t -X KUBE-POD-FW-WEB; done; ipset_gone KUBE-SRC4; ipset_gone KUBE-SRC6",
    },
    Engine {
        name: "Trireme",
        load: trireme,
        unload: "for t in iptables ip6tables; do $t -t mangle -F; $t -t mangle -X; done; ipset_gone TRI-4; ipset_gone TRI-6",
    },
    Engine {
        name: "a table of its own",
        load: nftables,
        unload: "nft delete table inet kube-network-policies",
    },
];

/// A set stays in use for a moment after the last rule that names it.
const DESTROY: &str = "ipset_gone() { for i in $(seq 100); do ipset destroy $1 2>/dev/null && return; sleep 0.1; done; return 1; }\n";

fn families(web: &Pod, allowed: &Pod, each: impl Fn(&str, &str, usize, &str, &str) -> String) -> String {
    let of =
        |program, family, at: usize| each(program, family, at, &web.addresses[at], &allowed.addresses[at]);
    [of("iptables", "inet", 0), of("ip6tables", "inet6", 1)].concat()
}

/// A set that is filled beside the one in use and takes its place.
fn swapped(set: &str, kind: &str, family: &str, member: &str) -> String {
    format!(
        "ipset create {set} {kind} family {family} -exist\nipset create TMP {kind} family {family}\n\
         ipset add TMP {member}\nipset swap TMP {set}\nipset destroy TMP\n"
    )
}

fn kube_router(web: &Pod, allowed: &Pod) -> String {
    families(web, allowed, |program, family, at, web, allowed| {
        let set = ["KUBE-SRC4", "KUBE-SRC6"][at];
        let reject = ["icmp-port-unreachable", "icmp6-port-unreachable"][at];
        let jump = "FORWARD -m comment --comment 'kube-router netpol' -j KUBE-ROUTER-FORWARD";
        let sets = swapped(set, "hash:ip", family, allowed);
        format!(
            "{sets}{program}-restore --noflush <<EOF\n*filter\n:KUBE-ROUTER-FORWARD - [0:0]\n:KUBE-POD-FW-WEB - [0:0]\n\
             -A KUBE-ROUTER-FORWARD -d {web} -m comment --comment \"to pod web\" -j KUBE-POD-FW-WEB\n\
             -A KUBE-ROUTER-FORWARD -d {web} -m physdev --physdev-is-bridged -j KUBE-POD-FW-WEB\n\
             -A KUBE-POD-FW-WEB -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A KUBE-POD-FW-WEB -m set --match-set {set} src -j MARK --set-xmark 0x10000/0x10000\n\
             -A KUBE-POD-FW-WEB -m mark --mark 0x10000/0x10000 -j RETURN\n\
             -A KUBE-POD-FW-WEB -m limit --limit 10/min -j NFLOG --nflog-group 100\n\
             -A KUBE-POD-FW-WEB -j REJECT --reject-with {reject}\nCOMMIT\nEOF\n\
             {program} -C {jump} 2>/dev/null || {program} -I {jump}\n"
        )
    })
}

fn trireme(web: &Pod, allowed: &Pod) -> String {
    families(web, allowed, |program, family, at, web, allowed| {
        let set = ["TRI-4", "TRI-6"][at];
        let sets = swapped(set, "hash:net", family, allowed);
        format!(
            "{sets}{program}-restore --noflush <<EOF\n*mangle\n:POSTROUTING ACCEPT [0:0]\n:PREROUTING ACCEPT [0:0]\n\
             :TRI-App - [0:0]\n:TRI-Net - [0:0]\n\
             -F PREROUTING\n-F POSTROUTING\n-A PREROUTING -s {web} -j TRI-App\n-A POSTROUTING -d {web} -j TRI-Net\n\
             -A TRI-App -m connmark --mark 61167 -j ACCEPT\n\
             -A TRI-App -p tcp -m tcp --tcp-flags SYN,ACK SYN -j NFQUEUE --queue-balance 0:3 --queue-bypass\n\
             -A TRI-App -j CONNMARK --set-mark 61167\n\
             -A TRI-Net -m state --state ESTABLISHED -j ACCEPT\n\
             -A TRI-Net -p tcp -m set --match-set {set} src -m tcp --tcp-flags SYN,ACK SYN -j NFQUEUE --queue-balance 4:7 --queue-bypass\n\
             -A TRI-Net -m set --match-set {set} src -m state --state NEW -j ACCEPT\n\
             -A TRI-Net -j NFLOG --nflog-group 11\n-A TRI-Net -j DROP\nCOMMIT\nEOF\n"
        )
    })
}

fn nftables(web: &Pod, allowed: &Pod) -> String {
    let [w4, w6] = [&web.addresses[0], &web.addresses[1]];
    let [a4, a6] = [&allowed.addresses[0], &allowed.addresses[1]];
    let table = "table inet kube-network-policies";
    // Made, deleted and made in one transaction: it replaces itself.
    format!(
        "nft -f - <<EOF\n{table} {{}}\ndelete {table}\n{table} {{\n\
         set web4 {{ type ipv4_addr; elements = {{ {w4} }}; }}\nset web6 {{ type ipv6_addr; elements = {{ {w6} }}; }}\n\
         set allowed4 {{ type ipv4_addr; flags interval; elements = {{ {a4} }}; }}\n\
         set allowed6 {{ type ipv6_addr; flags interval; elements = {{ {a6} }}; }}\n\
         chain forward {{ type filter hook forward priority filter - 5; policy accept;\nct state established,related accept\n\
         ip daddr @web4 jump web\nip6 daddr @web6 jump web\n}}\n\
         chain web {{ ip saddr @allowed4 ct mark set 0x5 accept\nip6 saddr @allowed6 ct mark set 0x5 accept\n\
         counter drop\n}}\n}}\nEOF\n"
    )
}

/// To both addresses of `web`.
fn probes(net: &Net, from: &Pod, web: &Pod) -> Vec<Probe> {
    web.addresses.iter().map(|a| Probe::start(net, &from.ns, a)).collect()
}

fn is_denied(from: &Ns, to: &Pod) {
    for address in &to.addresses {
        wait_for(format!("{} is kept from {address}", from.name), 10.0, || {
            (!from.pings(address)).then_some(())
        });
    }
}

fn is_allowed(from: &Ns, to: &Pod) {
    to.addresses.iter().for_each(|address| reaches(from, address));
}

#[test]
fn what_an_engine_denies_stays_denied_and_what_it_allows_flows() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let outside = segment.ns.clone();
    outside.ip("addr add 198.51.100.1/32 dev lo");
    let mut nodes: Vec<_> = (1..=2).map(|n| segment.node(&mut net, n)).collect();
    let n1 = nodes[0].ns.clone();
    n1.ip("route add default via 10.99.0.1");
    for program in ["iptables", "ip6tables"] {
        // Pods of one node too, and what nobody accepts is dropped.
        n1.sysctl(&format!("net.bridge.bridge-nf-call-{program}"), "1");
        n1.sh(&format!("{program} -P FORWARD DROP"));
    }
    for node in &mut nodes {
        node.start(&net, &segment.plane, "");
        node.register(&segment.plane);
    }
    for n in 0..2 {
        let cidrs = segment.plane.pod_cidrs(&nodes[n].name);
        // The world can answer a pod, so that its address alone is what masquerade changes.
        outside.ip(&format!("route add {} via {}", cidrs[0], nodes[n].addresses[0]));
        nodes[n].wait_conflist(&cidrs);
        cidrs.iter().for_each(|prefix| nodes[1 - n].wait_route(prefix));
    }
    let (web, near) = (nodes[0].pod(&mut net, "web"), nodes[0].pod(&mut net, "near"));
    let (good, bad) = (nodes[1].pod(&mut net, "good"), nodes[1].pod(&mut net, "bad"));
    let others = saved(&n1);

    for engine in &ENGINES {
        println!("{}", engine.name);
        [&near, &good, &bad].iter().for_each(|pod| is_allowed(&pod.ns, &web));
        n1.sh(&(engine.load)(&web, &good));
        is_allowed(&good.ns, &web);
        [&near, &bad].iter().for_each(|pod| is_denied(&pod.ns, &web));
        let before = saved(&n1);
        let denied = [&bad, &near].map(|pod| probes(&net, pod, &web));
        let allowed = probes(&net, &good, &web);

        let go_on = || allowed.iter().for_each(Probe::goes_on);
        let spared = nodes[0].config("[masquerade]\nexclude = [\"192.0.2.0/24\"]");
        let daemon = nodes[0].routelet.as_mut().unwrap();
        daemon.process.kill();
        go_on();
        daemon.restart();
        go_on();
        assert!(daemon.process.stop().success());
        go_on();
        daemon.restart();
        daemon.configure(&spared);
        daemon.cli(&["reload"]);
        go_on();
        wait_for("pods leave with the node's address", 10.0, || {
            (seen(&web.ns, &outside, "198.51.100.1") == "10.99.0.11").then_some(())
        });
        n1.sh(&(engine.load)(&web, &good));
        go_on();
        assert_eq!(saved(&n1), before, "{}", engine.name);
        denied.into_iter().flatten().for_each(Probe::expect_no_reply);
        for probe in allowed {
            println!("{} probes, none lost", probe.lost_nothing());
        }

        n1.sh(&(engine.load)(&web, &bad));
        is_allowed(&bad.ns, &web);
        is_denied(&good.ns, &web);
        n1.sh(&format!("{DESTROY}{}", engine.unload));
    }
    // Mangle's own chains stay when they are empty.
    assert_eq!(without_mangle(&saved(&n1)), without_mangle(&others));

    n1.sh(&kube_router(&web, &good));
    let before = saved(&n1);
    nodes[0].clean_up();
    assert_eq!(saved(&n1), before, "cleanup");
    assert!(!n1.sh("iptables-save; ip6tables-save; nft list tables").to_lowercase().contains("routelet"));
}

fn without_mangle(saved: &str) -> String {
    let mut inside = false;
    let keep = |line: &&str| {
        inside |= line.starts_with("*mangle");
        let keep = !inside;
        inside &= *line != "COMMIT";
        keep
    };
    saved.lines().filter(keep).collect::<Vec<_>>().join("\n")
}
