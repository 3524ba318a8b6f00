//! A link on which somebody floods router advertisements: sessions on other links stand, memory and CPU are bounded, and
//! the true neighbor is found afterwards.

use std::net::{Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

use super::*;
use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
};

/// Advertisements with any source address and hop limit, on one interface.
struct Flood {
    socket: Socket,
    to: SocketAddrV6,
}

impl Flood {
    fn on(ns: &Ns, interface: &str) -> Self {
        ns.enter(|| {
            let index = nix::net::if_::if_nametoindex(interface).expect("the interface");
            // IPPROTO_RAW: what is sent begins with its IPv6 header.
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(255))).expect("root");
            socket.set_multicast_if_v6(index).unwrap();
            Self { socket, to: SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index) }
        })
    }

    fn send(&self, from: Ipv6Addr, hop_limit: u8) {
        let mut ra = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let sum = checksum(from, *self.to.ip(), &ra);
        ra[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x60, 0, 0, 0, 0, 16, 58, hop_limit];
        packet.extend(from.octets());
        packet.extend(self.to.ip().octets());
        packet.extend(ra);
        // A full queue loses it, as any link does.
        let _ = self.socket.send_to(&packet, &self.to.into());
    }
}

/// RFC 4443 §2.3.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let mut all = [from.octets(), to.octets()].concat();
    all.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    all.extend([0, 0, 0, 58]);
    all.extend(message);
    let sum: u32 = all.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

fn config(n: u8) -> String {
    format!("[bgp]\nas = 6500{n}\nrouter-id = \"192.0.2.{n}\"\n[[bgp.neighbor]]\ninterface = \"eth*\"\n")
}

fn row(routelet: &Routelet, interface: &str) -> serde_json::Value {
    let all = routelet.json(&["show", "neighbors"]);
    all.as_array().unwrap().iter().find(|n| n["interface"] == interface).cloned().unwrap_or_default()
}

/// Resident KiB, and CPU time in hundredths of a second.
fn cost(routelet: &Routelet) -> (u64, u64) {
    let proc = format!("/proc/{}", routelet.process.pid());
    let status = fs::read_to_string(format!("{proc}/status")).expect("it runs");
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("in status");
    let stat = fs::read_to_string(format!("{proc}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |n: usize| fields[n].parse::<u64>().expect("a number");
    (rss.trim().trim_end_matches(" kB").parse().expect("a number"), ticks(11) + ticks(12))
}

/// A host with an established session on `eth1`, and somebody on the link of `eth0` who floods it.
struct Stage {
    net: Net,
    bad: Ns,
    routelet: Routelet,
    other: Routelet,
    /// Since when there is the session on `eth1`.
    since: serde_json::Value,
    flood: Flood,
    /// What the daemon costs without a flood.
    before: (u64, u64),
}

impl Stage {
    /// `prepare`: each end of the link that is flooded.
    fn new(prepare: impl Fn(&Ns)) -> Self {
        let mut net = Net::new();
        let (host, good, bad) = (net.ns("host"), net.ns("good"), net.ns("bad"));
        net.link((&host, "eth0"), (&bad, "eth0"));
        net.link((&host, "eth1"), (&good, "eth0"));
        [&host, &bad].into_iter().for_each(prepare);
        let routelet = Routelet::start(&net, &host, &config(1), &[]);
        let other = Routelet::start(&net, &good, &config(2), &[]);
        wait_for("the session on the other link", 30.0, || {
            (row(&routelet, "eth1")["state"] == "established").then_some(())
        });
        thread::sleep(Duration::from_secs(1));
        let since = row(&routelet, "eth1")["since"].clone();
        let flood = Flood::on(&bad, "eth0");
        let before = cost(&routelet);
        Self { net, bad, routelet, other, since, flood, before }
    }
}

#[test]
fn a_flood_of_router_advertisements_costs_bounded_memory_and_cpu_and_no_session() {
    let _alone = alone();
    // What the daemon withstands is measured: with `accept_ra` each kernel adds a default route for
    // each sender, and is the bottleneck.
    let Stage { net, bad, routelet, other: _other, since, flood, before } =
        Stage::new(|ns| ns.sysctl("net.ipv6.conf.eth0.accept_ra", "0"));
    let start = Instant::now();
    let (mut sent, mut slowest) = (0u32, Duration::ZERO);
    // As many in all where the machine has no time for the rate.
    while sent < 100_000 {
        // 10,000 in a second, from as many sources; a third has been forwarded.
        for _ in 0..100 {
            let from = Ipv6Addr::from((0xfe80_u128 << 112) | (u128::from(sent) + 1));
            flood.send(from, if sent.is_multiple_of(3) { 64 } else { 255 });
            sent += 1;
        }
        if sent.is_multiple_of(10_000) {
            let began = Instant::now();
            let _ = row(&routelet, "eth1");
            slowest = slowest.max(began.elapsed());
        }
        let due = start + Duration::from_millis(u64::from(sent) / 10);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let (rate, after) = (f64::from(sent) / start.elapsed().as_secs_f64(), cost(&routelet));
    println!(
        "{sent} advertisements, {rate:.0}/s: {} KiB more, {} ms of CPU, slowest response {slowest:?}",
        after.0.saturating_sub(before.0),
        (after.1 - before.1) * 10
    );
    let rows = routelet.json(&["show", "neighbors"]);
    assert!(rows.as_array().unwrap().len() <= 2, "one neighbor on each interface: {rows}");
    let witness = row(&routelet, "eth1");
    assert_eq!((witness["state"].as_str(), &witness["since"]), (Some("established"), &since), "{witness}");
    assert!(after.0 < before.0 + 8 * 1024, "{before:?} {after:?}");
    assert!(after.1 < before.1 + 500, "less than 50 µs for each: {before:?} {after:?}");
    let log = fs::metadata(&routelet.process.log).expect("a log").len();
    assert!(log < 64 * 1024, "{log} octets of log");

    // A BGP speaker there is found, although the place was taken.
    let _true = Routelet::start(&net, &bad, &config(3), &[]);
    wait_for("the true neighbor", 60.0, || (row(&routelet, "eth0")["state"] == "established").then_some(()));
}

#[test]
fn a_neighbor_that_changes_its_link_local_address_each_second_harms_nobody_else() {
    let _alone = alone();
    let Stage { net: _net, bad: _bad, routelet, other: _other, since, flood, before } = Stage::new(|_| ());
    let mut seen = std::collections::BTreeSet::new();
    for n in 1..=60 {
        flood.send(Ipv6Addr::from((0xfe80_u128 << 112) | n), 255);
        thread::sleep(Duration::from_secs(1));
        seen.insert(row(&routelet, "eth0")["address"].to_string());
    }
    let after = cost(&routelet);
    println!(
        "{} neighbors in a minute, {} KiB more, {} ms of CPU",
        seen.len(),
        after.0.saturating_sub(before.0),
        (after.1 - before.1) * 10
    );
    assert!((5..=8).contains(&seen.len()), "one in ten seconds: {seen:?}");
    let witness = row(&routelet, "eth1");
    assert_eq!((witness["state"].as_str(), &witness["since"]), (Some("established"), &since), "{witness}");
    assert!(after.0 < before.0 + 8 * 1024, "{before:?} {after:?}");
    assert!(after.1 < before.1 + 600, "less than a tenth of a CPU: {before:?} {after:?}");
}
