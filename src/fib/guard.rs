//! Which routes a node must never take from a neighbor: the "route guard" of the interface page.

use std::net::IpAddr;

use crate::{
    fib::{host::Host, resolve::is_link_local},
    net::{Family, Guard, GuardRule, Prefix, Refusal},
};

/// Never routed, in whatever form (RFC 6890, RFC 4291 §2.5): shown as `guard: martian`.
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

/// Whether no network routes it.
pub fn is_martian(prefix: Prefix) -> bool {
    MARTIANS.iter().any(|m| m.parse::<Prefix>().is_ok_and(|m| m.covers(prefix)))
}

/// Builds the guard from the host, the prefixes that this node originates, its neighbors and the addresses of
/// the API server.
///
/// Own addresses, gateways, neighbors and the API server are refused as host routes only: the subnet that one
/// of them lies in may well be learned.
pub fn guard(
    host: &Host,
    own: impl Iterator<Item = Prefix>,
    neighbors: impl Iterator<Item = IpAddr>,
    api: impl Iterator<Item = IpAddr>,
) -> Guard {
    let martians = MARTIANS.iter().map(|s| s.parse().expect("a prefix of ours"));
    let mut rules: Vec<_> = martians.map(|p| GuardRule::Inside(p, Refusal::Martian)).collect();
    rules.push(GuardRule::Shorter(Family::Ipv4Unicast, 8));
    rules.push(GuardRule::Shorter(Family::Ipv6Unicast, 16));
    // Inside a default route lies everything: who originates one means only itself.
    rules.extend(own.map(|p| match p.len() {
        0 => GuardRule::Exact(p, Refusal::Own),
        _ => GuardRule::Inside(p, Refusal::Own),
    }));

    let mut refuse_host = |addr, why| rules.push(GuardRule::Exact(Prefix::host(addr), why));
    // Each pod's interface has a link-local one, which is refused anyway: a new guard is a new look at all paths.
    let own = host.links.values().flat_map(|l| &l.addresses);
    for address in own.filter(|a| !is_link_local(a.addr)) {
        refuse_host(address.addr, Refusal::OwnAddress);
    }
    for (gateway, _) in Family::ALL.into_iter().flat_map(|f| host.default_gateways(f)) {
        refuse_host(gateway, Refusal::DefaultGateway);
    }
    neighbors.for_each(|n| refuse_host(n, Refusal::Neighbor));
    api.for_each(|a| refuse_host(a, Refusal::ApiServer));

    // A link that is set down has no connected subnet; one that merely lost its carrier has.
    let up = host.links.values().filter(|l| l.up && !l.loopback);
    rules.extend(up.flat_map(|l| l.subnets()).map(|p| GuardRule::Exact(p, Refusal::Connected)));
    Guard::new(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::host::testing::{gateway, host, link};

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    #[test]
    fn refusals_name_their_reason_and_the_rest_passes() {
        let host = host(
            [
                link(2, "eth0").with("10.1.1.2/24").with("2001:db8:1::2/64"),
                link(3, "eth1").with("10.2.0.1/16").down(),
            ],
            [gateway("0.0.0.0/0", "10.1.1.1", 2), gateway("::/0", "fe80::1", 2)],
        );
        let guard = guard(
            &host,
            [p("10.244.1.0/24"), p("0.0.0.0/0")].into_iter(),
            ["10.9.9.9".parse().unwrap()].into_iter(),
            ["10.7.7.7".parse().unwrap()].into_iter(),
        );
        #[rustfmt::skip]
        let cases: &[(&str, Option<Refusal>)] = &[
            ("0.0.0.0/0",          Some(Refusal::TooShort)),
            ("::/0",               Some(Refusal::TooShort)),
            ("8.0.0.0/7",          Some(Refusal::TooShort)),
            ("8.0.0.0/8",          None),
            ("2000::/15",          Some(Refusal::TooShort)),
            ("2000::/16",          None),
            ("0.0.0.0/8",          Some(Refusal::Martian)),
            ("127.1.0.0/16",       Some(Refusal::Martian)),
            ("169.254.1.0/24",     Some(Refusal::Martian)),
            ("224.0.0.0/8",        Some(Refusal::Martian)),
            ("255.255.255.255/32", Some(Refusal::Martian)),
            ("::1/128",            Some(Refusal::Martian)),
            ("::ffff:0:0/96",      Some(Refusal::Martian)),
            ("fe80::/64",          Some(Refusal::Martian)),
            ("ff02::/16",          Some(Refusal::Martian)),
            ("10.244.1.0/24",      Some(Refusal::Own)),
            ("10.244.1.5/32",      Some(Refusal::Own)),
            ("10.244.0.0/16",      None),
            ("10.1.1.0/24",        Some(Refusal::Connected)),
            ("2001:db8:1::/64",    Some(Refusal::Connected)),
            ("10.1.1.128/25",      None),
            ("10.1.0.0/16",        None),
            ("10.2.0.0/16",        None),
            ("10.1.1.2/32",        Some(Refusal::OwnAddress)),
            ("10.2.0.1/32",        Some(Refusal::OwnAddress)),
            ("10.1.1.1/32",        Some(Refusal::DefaultGateway)),
            ("10.9.9.9/32",        Some(Refusal::Neighbor)),
            ("10.9.9.8/31",        None),
            ("10.7.7.7/32",        Some(Refusal::ApiServer)),
            ("192.0.2.0/24",       None),
            ("100.64.0.0/10",      None),
        ];
        for (prefix, refusal) in cases {
            assert_eq!(guard.refuses(p(prefix), false), *refusal, "{prefix}");
        }
        assert_eq!(guard.refuses(p("0.0.0.0/0"), true), Some(Refusal::Own), "it originates one itself");
    }

    #[test]
    fn accept_default_opens_the_way_for_short_prefixes_only() {
        let guard = guard(&Host::default(), [].into_iter(), [].into_iter(), [].into_iter());
        assert_eq!(guard.refuses(p("0.0.0.0/0"), true), None);
        assert_eq!(guard.refuses(p("::/0"), true), None);
        assert_eq!(guard.refuses(p("127.0.0.0/8"), true), Some(Refusal::Martian));
    }
}
