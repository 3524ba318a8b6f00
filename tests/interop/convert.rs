//! `routelet convert`: another daemon and routelet start on the same file, one after the other, and
//! the neighbors learn the same from both, and the kernel the same from the neighbors.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{
    daemons::{Bird, Frr, Routelet},
    net::{Net, Ns},
    wait_for,
};

/// What a neighbor has learned: attributes by prefix.
type Learned = BTreeMap<String, BTreeSet<String>>;

/// A host with two switches and interfaces like those of containers.
struct Bed {
    host: Ns,
    switches: Vec<Bird>,
    net: Net,
}

/// What can be seen of the host from outside, and in its kernel.
#[derive(Debug, PartialEq)]
struct Seen {
    by_switches: Vec<Learned>,
    kernel: BTreeMap<String, BTreeSet<String>>,
}

impl Bed {
    fn new(more: &str) -> Self {
        let mut net = Net::new();
        let host = net.ns("host");
        let mut switches = Vec::new();
        for n in 1..=2 {
            let switch = net.ns(&format!("switch{n}"));
            net.link((&host, &format!("eth{}", n - 1)), (&switch, "eth0"));
            for (ns, interface, end) in [(&host, format!("eth{}", n - 1), 1), (&switch, "eth0".to_owned(), 2)]
            {
                ns.ip(&format!("addr add 10.{n}.0.{end}/24 dev {interface}"));
                ns.ip(&format!("addr add 2001:db8:{n}::{end}/64 dev {interface} nodad"));
            }
            switches.push(Bird::start(&net, &switch, &switch_config(n, more)));
        }
        let containers = net.ns("containers");
        net.link((&host, "containers0"), (&containers, "eth0"));
        for address in ["172.17.0.1/24", "172.17.9.1/24", "172.18.0.1/24", "192.168.7.1/24"] {
            host.ip(&format!("addr add {address} dev containers0"));
        }
        host.ip("addr add 2001:db8:17::1/64 dev containers0 nodad");
        Self { host, switches, net }
    }

    fn seen(&self) -> Seen {
        Seen { by_switches: self.switches.iter().map(learned).collect(), kernel: self.kernel() }
    }

    /// Learned routes: interfaces by prefix.
    fn kernel(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for options in [["-4", "-j"], ["-6", "-j"]] {
            let text =
                crate::common::run(self.host.command("ip").args(options).args(["-d", "route", "show"]));
            let routes: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
            for route in routes {
                let is_learned = ["bgp", "bird", "179", "routelet"].iter().any(|p| route["protocol"] == *p);
                let is_unicast = route["type"].as_str().is_none_or(|t| t == "unicast");
                if !is_learned || !is_unicast {
                    continue;
                }
                // FRR installs link-local gateways where a neighbor has one.
                let way = |hop: &Value| {
                    hop.get("gateway").or(hop.get("via")).and(hop["dev"].as_str()).map(str::to_owned)
                };
                let several = route["nexthops"].as_array().into_iter().flatten().filter_map(way);
                let hops: BTreeSet<String> = several.chain(way(&route)).collect();
                // BIRD's `export all` copies connected routes.
                if !hops.is_empty() {
                    found.insert(route["dst"].as_str().unwrap().to_owned(), hops);
                }
            }
        }
        found
    }

    /// Once the sessions of the first `neighbors` switches are up and nothing has changed for a
    /// while.
    fn settled(&self, neighbors: usize) -> Seen {
        for switch in &self.switches[..neighbors] {
            wait_for("the session is up", 60.0, || {
                switch.birdc("show protocols host").contains("Established").then_some(())
            });
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut last, mut since) = (self.seen(), Instant::now());
        while since.elapsed() < Duration::from_secs(6) {
            assert!(Instant::now() < deadline, "nothing settles: {last:#?}");
            thread::sleep(Duration::from_millis(300));
            let seen = self.seen();
            if seen != last {
                (last, since) = (seen, Instant::now());
            }
        }
        last
    }

    /// Starts routelet on what is made of the file, and waits until the same is seen.
    fn compare(&self, name: &str, text: &str, more: &[&str], expected: &Seen) {
        let input = self.net.dir().join(name);
        std::fs::write(&input, text).unwrap();
        let mut convert = Command::new(env!("CARGO_BIN_EXE_routelet"));
        let out = convert.arg("convert").args(more).arg(&input).output().unwrap();
        assert!(matches!(out.status.code(), Some(0 | 4)), "{}", String::from_utf8_lossy(&out.stderr));
        let config = String::from_utf8(out.stdout).unwrap();
        let routelet = Routelet::start(&self.net, &self.host, &config, &[]);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let seen = self.seen();
            if seen == *expected {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{name}: expected {expected:#?}\nseen {seen:#?}\n{config}\n{}",
                routelet.cli(&["show", "summary"])
            );
            thread::sleep(Duration::from_millis(300));
        }
    }
}

fn switch_config(n: usize, more: &str) -> String {
    let asn = 65001 + n;
    format!(
        "router id 10.0.0.{};\n\
         protocol device {{ scan time 1; }}\n\
         protocol static {{ ipv4;\n\
           route 0.0.0.0/0 unreachable; route 10.200.{n}.0/24 unreachable; route 10.66.{n}.0/24 unreachable;\n\
           route 203.0.113.{}/32 unreachable; route 10.200.66.0/24 unreachable; route 10.210.0.0/16 unreachable;\n\
           route 10.220.{n}.0/24 unreachable {{ bgp_community.add((65002,1)); }};\n\
           route 10.230.{n}.0/24 unreachable {{ bgp_community.add((65002,7)); }};\n\
         }}\n\
         protocol static {{ ipv6; route 2001:db8:200:{n}::/64 unreachable; }}\n\
         protocol bgp host {{\n\
           local 10.{n}.0.2 as {asn}; neighbor 10.{n}.0.1 as 65001; hold time 9; connect retry time 1;\n\
           connect delay time 1; error wait time 1, 2; {more}\n\
           ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};\n\
           ipv6 {{ import all; export where source = RTS_STATIC; next hop address 2001:db8:{n}::2; }};\n\
         }}\n",
        n + 1,
        n
    )
}

/// What a switch has from the host.
fn learned(bird: &Bird) -> Learned {
    let mut found = Learned::new();
    let mut prefix = String::new();
    for line in bird.birdc("show route all protocol host").lines() {
        if line.contains('/') && line.chars().next().is_some_and(|c| c.is_ascii_hexdigit()) {
            prefix = line.split_whitespace().next().unwrap_or_default().to_owned();
            found.entry(prefix.clone()).or_default();
        }
        let line = line.trim();
        for name in ["BGP.as_path", "BGP.med", "BGP.community", "BGP.large_community"] {
            if let Some(value) = line.strip_prefix(&format!("{name}:")) {
                let mut parts: Vec<_> = value.split_whitespace().collect();
                // Communities are a set.
                if !name.ends_with("path") {
                    parts.sort_unstable();
                }
                found.entry(prefix.clone()).or_default().insert(format!("{name} {}", parts.join(" ")));
            }
        }
        if let Some(hops) = line.strip_prefix("BGP.next_hop: ") {
            let global = hops.split_whitespace().next().unwrap_or_default();
            found.entry(prefix.clone()).or_default().insert(format!("next hop {global}"));
        }
    }
    found
}

fn frr_round_trip(name: &str, text: &str, neighbors: usize, switch: &str) -> Seen {
    let bed = Bed::new(switch);
    // In place of staticd, which no other test needs.
    let discarded = text.lines().filter_map(|l| l.strip_prefix("ip route ")?.strip_suffix(" Null0"));
    for prefix in discarded.clone() {
        bed.host.ip(&format!("route add blackhole {prefix}"));
    }
    let mut frr = Frr::start(&bed.net, &bed.host, text);
    let expected = bed.settled(neighbors);
    frr.stop();
    for family in ["-4", "-6"] {
        bed.host.ip(&format!("{family} route flush proto bgp"));
    }
    for prefix in discarded {
        bed.host.ip(&format!("route del blackhole {prefix}"));
    }
    bed.compare(name, text, &[], &expected);
    expected
}

#[test]
fn neighbors_of_a_host_learn_the_same_from_frr_and_from_routelet() {
    let text = include_str!("convert/frr-1-host.conf");
    let seen = frr_round_trip("frr-1-host.conf", text, 1, "");
    assert_eq!(seen.by_switches[0].keys().collect::<Vec<_>>(), ["172.17.0.0/24"]);
    assert!(seen.kernel.contains_key("default") && seen.kernel.contains_key("10.200.1.0/24"), "{seen:#?}");
}

#[test]
fn neighbors_of_redistributed_subnets_learn_the_same_from_frr_and_from_routelet() {
    let text = include_str!("convert/frr-2-connected.conf");
    let seen = frr_round_trip("frr-2-connected.conf", text, 1, "password \"sesame\";");
    assert_eq!(seen.by_switches[0].keys().collect::<Vec<_>>(), ["172.17.0.0/24", "172.18.0.0/24"]);
    assert!(
        seen.kernel.contains_key("10.200.1.0/24") && !seen.kernel.contains_key("10.66.1.0/24"),
        "{seen:#?}"
    );
}

#[test]
fn two_leaves_learn_the_same_from_frr_and_from_routelet() {
    let text = include_str!("convert/frr-3-two-leaves.conf");
    let seen = frr_round_trip("frr-3-two-leaves.conf", text, 2, "");
    for switch in &seen.by_switches {
        assert!(switch.contains_key("2001:db8:17::/64") && switch["172.18.0.0/24"].len() > 3, "{seen:#?}");
    }
    assert!(!seen.kernel.contains_key("default") && seen.kernel["10.210.0.0/16"].len() == 2, "{seen:#?}");
}

#[test]
fn neighbors_of_a_transit_host_learn_the_same_from_frr_and_from_routelet() {
    let text = include_str!("convert/frr-4-transit.conf");
    let seen = frr_round_trip("frr-4-transit.conf", text, 2, "ttl security on;");
    assert!(seen.by_switches[1].contains_key("10.200.1.0/24"), "{seen:#?}");
    // The second neighbor has a route map of its own, which does not deny it.
    assert_eq!(seen.kernel["10.200.66.0/24"], ["eth1".to_owned()].into(), "{seen:#?}");
}

fn bird_round_trip(name: &str, text: &str, neighbors: usize, switch: &str) -> Seen {
    let bed = Bed::new(switch);
    let bird = Bird::start(&bed.net, &bed.host, text);
    let expected = bed.settled(neighbors);
    drop(bird);
    for family in ["-4", "-6"] {
        bed.host.ip(&format!("{family} route flush proto bird"));
    }
    bed.compare(name, text, &[], &expected);
    expected
}

#[test]
fn neighbors_of_a_host_learn_the_same_from_bird_and_from_routelet() {
    let text = include_str!("convert/bird-1-host.conf");
    let seen = bird_round_trip("bird-1-host.conf", text, 1, "");
    assert!(seen.by_switches[0].contains_key("172.17.0.0/24") && seen.by_switches[0].len() == 4, "{seen:#?}");
    assert!(seen.kernel.contains_key("default") && seen.kernel.contains_key("10.200.1.0/24"), "{seen:#?}");
}

#[test]
fn neighbors_behind_filters_learn_the_same_from_bird_and_from_routelet() {
    let text = include_str!("convert/bird-2-filters.conf");
    let seen = bird_round_trip("bird-2-filters.conf", text, 1, "password \"sesame\";");
    let prefixes = ["172.17.0.0/24", "172.17.9.0/24", "172.18.0.0/24", "172.20.1.0/24"];
    assert_eq!(seen.by_switches[0].keys().collect::<Vec<_>>(), prefixes);
    assert!(
        seen.kernel.contains_key("10.200.1.0/24") && !seen.kernel.contains_key("10.66.1.0/24"),
        "{seen:#?}"
    );
}

#[test]
fn two_leaves_learn_the_same_from_bird_and_from_routelet() {
    let text = include_str!("convert/bird-3-two-leaves.conf");
    let seen = bird_round_trip("bird-3-two-leaves.conf", text, 2, "");
    for switch in &seen.by_switches {
        assert!(switch.contains_key("2001:db8:17::/64") && switch["172.18.0.0/24"].len() > 3, "{seen:#?}");
    }
    assert!(!seen.kernel.contains_key("default") && seen.kernel["10.210.0.0/16"].len() == 2, "{seen:#?}");
}

#[test]
fn neighbors_of_a_transit_host_learn_the_same_from_bird_and_from_routelet() {
    let text = include_str!("convert/bird-4-transit.conf");
    let seen = bird_round_trip("bird-4-transit.conf", text, 2, "ttl security on;");
    assert!(seen.by_switches[1].contains_key("10.200.1.0/24"), "{seen:#?}");
    assert!(!seen.kernel.contains_key("10.200.66.0/24"), "{seen:#?}");
}
