//! Prefixes against the route guard, judged by a model that looks up each protected address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    Dice, WITNESS, Witness, alone,
    bed::{Bed, EXTERNAL, HOST, Report, at, holds, passive},
    common::wait_for,
    words::{nlri, nlri6, origin, path, reach, update},
};

/// Address and length; the address as a number, left-aligned in 128 bits whatever the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Net {
    six: bool,
    bits: u128,
    len: u8,
}

impl Net {
    fn new(addr: IpAddr, len: u8) -> Self {
        let (six, bits) = match addr {
            IpAddr::V4(a) => (false, u128::from(a.to_bits()) << 96),
            IpAddr::V6(a) => (true, a.to_bits()),
        };
        Self { six, bits: bits & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0), len }
    }

    fn parse(text: &str) -> Self {
        let (addr, len) = text.split_once('/').unwrap();
        Self::new(addr.parse().unwrap(), len.parse().unwrap())
    }

    fn host(text: &str) -> Self {
        let addr: IpAddr = text.parse().unwrap();
        Self::new(addr, if addr.is_ipv6() { 128 } else { 32 })
    }

    fn covers(self, other: Self) -> bool {
        self.six == other.six
            && self.len <= other.len
            && Self { len: self.len, ..other.cut(self.len) } == self
    }

    fn cut(self, len: u8) -> Self {
        Self { bits: self.bits & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0), len, ..self }
    }

    fn is_host(self) -> bool {
        self.len == if self.six { 128 } else { 32 }
    }

    fn addr(self) -> IpAddr {
        if self.six {
            Ipv6Addr::from_bits(self.bits).into()
        } else {
            Ipv4Addr::from_bits((self.bits >> 96) as u32).into()
        }
    }

    fn text(self) -> String {
        format!("{}/{}", self.addr(), self.len)
    }
}

const RESOLVERS: [&str; 2] = ["198.51.100.53", "2001:db8:53::53"];
const CONNECTED: [&str; 2] = ["10.2.0.0/16", "fd02::/64"];
/// Routes of others: default routes, and a static one of each family.
const ROUTES: [&str; 4] = ["0.0.0.0/0", "::/0", "198.51.100.0/24", "2001:db8:53::/48"];
const OWN: [&str; 2] = ["10.2.255.254", "fd02::fffe"];
const GATEWAYS: [&str; 2] = ["10.2.255.253", "fd02::1"];
const MARTIANS: [&str; 10] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "fe80::/10",
    "ff00::/8",
];

/// Whether the guard must refuse it.
fn refused(net: Net, neighbors: &[Ipv4Addr]) -> bool {
    let shortest = if net.six { 16 } else { 8 };
    let overlaps = |m: &str| Net::parse(m).covers(net) || net.covers(Net::parse(m));
    if net.len < shortest || MARTIANS.iter().any(|m| overlaps(m)) {
        return true;
    }
    if CONNECTED.iter().map(|c| Net::parse(c)).any(|c| net == c) {
        return true;
    }
    let nobodys = ["10.2.0.0", "10.2.255.255", "fd02::"];
    if nobodys.iter().any(|a| net == Net::host(a)) {
        return true;
    }
    let always = OWN.iter().chain(&GATEWAYS).map(|a| (Net::host(a), true));
    let others = RESOLVERS.iter().map(|a| (Net::host(a), false));
    let neighbors = neighbors.iter().map(|a| (Net::new((*a).into(), 32), false));
    always.chain(others).chain(neighbors).filter(|(a, _)| net.covers(*a)).any(|(addr, always)| {
        // The longest match of all there is without us.
        let routes = ROUTES.iter().chain(&CONNECTED).map(|r| Net::parse(r));
        let way = routes.filter(|r| r.covers(addr)).map(|r| r.len).max();
        way.is_some_and(|len| net.len > len) || always && net.is_host()
    })
}

/// Prefixes around everything that is protected, and some elsewhere.
fn prefixes(dice: &mut Dice, neighbors: &[Ipv4Addr]) -> Vec<Net> {
    let mut centers: Vec<Net> = OWN.iter().chain(&GATEWAYS).chain(&RESOLVERS).map(|a| Net::host(a)).collect();
    centers.extend(neighbors.iter().map(|a| Net::new((*a).into(), 32)));
    centers.extend(MARTIANS.iter().chain(&CONNECTED).chain(&ROUTES).map(|p| Net::parse(p)));
    centers.extend(["20.1.2.3", "10.2.77.7", "fd02::77", "2400::7"].map(Net::host));
    let mut all = Vec::new();
    while all.len() < 400 {
        let center = centers[dice.next() % centers.len()];
        let (bits, longest) = if center.six { (128, 128) } else { (32, 32) };
        // A neighbor of it: one bit changed, at any place.
        let flipped = center.bits ^ [0, 1u128 << (127 - dice.next() % bits)][dice.next() % 2];
        let len = u8::try_from(1 + dice.next() % longest).unwrap();
        let net = Net { bits: flipped, len: 128, ..center }.cut(len);
        if !all.contains(&net) {
            all.push(net);
        }
    }
    all
}

#[test]
fn four_hundred_prefixes_against_the_guard_by_model() {
    let _alone = alone();
    let neighbors = passive(1, 5, "remote-as = 65001\nidle-hold-time = 1")
        + &passive(9, 1, WITNESS)
        + "[fib]\nmetric = 179\n";
    let mut bed = Bed::start("", &neighbors);
    let hosts: Vec<Ipv4Addr> = (1..=5).map(|n| at(1, n)).chain([Witness::ADDR]).collect();
    bed.routelet.set_resolvers(&RESOLVERS);
    bed.host.ip("route add default via 10.2.255.253");
    bed.host.ip("-6 route add default via fd02::1");
    bed.host.ip("route add 198.51.100.0/24 via 10.2.255.253");
    bed.host.ip("-6 route add 2001:db8:53::/48 via fd02::1 metric 100");
    let mut witness = Witness::new(&bed);
    let mut peer = bed.peer(at(1, 1), EXTERNAL);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let all = prefixes(&mut dice, &hosts);
    let hop = "fd02::2".parse::<Ipv6Addr>().unwrap().octets();
    let mut report = Report::default();
    let announce = |peer: &mut crate::bed::Peer, version: u32| {
        let four: Vec<_> = all.iter().filter(|n| !n.six).map(|n| (n.addr(), n.len)).collect();
        let four: Vec<_> = four
            .into_iter()
            .filter_map(|(a, len)| if let IpAddr::V4(a) = a { Some((a, len)) } else { None })
            .collect();
        peer.send(&update(&[], &peer.good(version), &nlri(&four)));
        for six in all.iter().filter(|n| n.six).collect::<Vec<_>>().chunks(100) {
            let octets: Vec<u8> = six.iter().flat_map(|n| nlri6(&n.text())).collect();
            peer.send(&update(&[], &[reach(2, &hop, &octets), origin(0), path(&[EXTERNAL])], &[]));
        }
    };
    announce(&mut peer, 1);
    bed.settled(&mut peer);
    let probe = "198.51.100.52/31";
    peer.announce(1, &[probe]);
    wait_for("the resolvers are known", 30.0, || {
        let reason = bed.received_prefix(at(1, 1), probe)?["reason"].as_str()?.to_owned();
        reason.starts_with("guard: 198.51.100.53 (resolver)").then_some(())
    });
    let judge = |bed: &Bed, report: &mut Report| {
        let shown = bed.received(at(1, 1));
        let reason = |net: Net| {
            let row = shown.iter().find(|r| r["prefix"] == net.text())?;
            Some(row["reason"].as_str()?.to_owned())
        };
        let mut count = 0;
        for net in &all {
            let wanted = refused(*net, &hosts);
            count += usize::from(wanted);
            report.case(&format!("guard by model: {}", net.text()), || {
                let reason = reason(*net).ok_or("not in the table")?;
                holds(reason.starts_with("guard") == wanted, &format!("refused: {wanted}; shown: {reason}"))
            });
        }
        println!("{count} of {} refused", all.len());
        report.case("both kinds are many", || holds((60..340).contains(&count), &count.to_string()));
        let in_kernel = |net: &Net| {
            let family = if net.six { "-6" } else { "-4" };
            !bed.host.ip(&format!("{family} route show exact {} proto 179", net.text())).is_empty()
        };
        report.case("the kernel has exactly the others", || {
            for net in &all {
                let wanted = !refused(*net, &hosts);
                wait_for(format!("{} in the kernel: {wanted}", net.text()), 30.0, || {
                    (in_kernel(net) == wanted).then_some(())
                });
            }
            Ok(())
        });
    };
    judge(&bed, &mut report);
    report.case("routes of the host come and go under a storm of updates", || {
        for round in 0..60 {
            announce(&mut peer, round);
            let change = if round % 2 == 0 { "del" } else { "add" };
            bed.host.ip(&format!("route {change} default via 10.2.255.253"));
            bed.host.ip(&format!("route {change} 198.51.100.0/24 via 10.2.255.253"));
        }
        bed.settled(&mut peer);
        holds(bed.host.pings("10.2.255.253"), "the gateway answers")
    });
    report.case("after it: the other neighbor", || witness.alive(&mut bed));
    wait_for("the last change is taken in", 30.0, || {
        let reason = bed.received_prefix(at(1, 1), probe)?["reason"].as_str()?.to_owned();
        reason.ends_with("198.51.100.0/24").then_some(())
    });
    judge(&bed, &mut report);
    report.case("own address and neighbors are where they were", || {
        holds(bed.host.ip("route get 10.2.1.2").contains("10.2.1.2 dev eth0"), "a neighbor on its link")?;
        holds(bed.host.ip(&format!("route get {HOST}")).starts_with("local"), "an own address")
    });
    report.finish();
}
