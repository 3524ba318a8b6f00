//! The route guard: which received prefixes a node must never accept from any neighbor.
//!
//! A snapshot of plain data, built by `fib::guard` from the host and the originated prefixes, and
//! applied by the rib on import, so that `bgp` does not depend on links. Rejected are
//!
//! - martians, and prefixes that cover one;
//! - prefixes that are too short, without `accept-default`;
//! - what this node originates, and everything inside it;
//! - whatever would change the path of packets to a [protected] address;
//! - connected subnets, with their network and broadcast addresses;
//! - from a neighbor that is a Node of the cluster, what that [Node](nodes) may not advertise.
//!
//! Each check is a binary search, so that a full table costs no more with 10,000 Nodes than with
//! none.

mod nodes;
mod protected;

use std::{net::IpAddr, sync::Arc};

use self::protected::{Protected, Ways};
pub use self::{
    nodes::{NodeInput, NodePrefixes, Sender, ServiceInput},
    protected::{AddressRole, HostRoute},
};
use super::{Cover, Family, Prefix};

/// Never routed in any form (RFC 6890, RFC 4291 §2.5).
const MARTIANS: [Prefix; 10] = [
    v4([0, 0, 0, 0], 8),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
    v6(0, 128),
    v6(1, 128),
    v6(0xffff << 32, 96),
    v6(0xfe80 << 112, 10),
    v6(0xff00 << 112, 8),
];

const fn v4(octets: [u8; 4], len: u8) -> Prefix {
    Prefix::V4 { addr: std::net::Ipv4Addr::from_octets(octets), len }
}

const fn v6(bits: u128, len: u8) -> Prefix {
    Prefix::V6 { addr: std::net::Ipv6Addr::from_bits(bits), len }
}

/// Shorter prefixes are equivalent to a default route: /8, for IPv6 /16.
pub fn shortest(family: Family) -> u8 {
    match family {
        Family::Ipv4Unicast => 8,
        Family::Ipv6Unicast => 16,
    }
}

/// Whether the prefix is a martian.
pub fn is_martian(prefix: Prefix) -> bool {
    MARTIANS.iter().any(|m| m.covers(prefix))
}

/// Inputs of a guard.
#[derive(Clone, Debug, Default)]
pub struct GuardInputs {
    /// Prefixes that this node originates.
    pub own: Vec<Prefix>,
    /// Subnets of the host's addresses on links that are up.
    pub subnets: Vec<Subnet>,
    /// `guard.connected` is "inside": everything inside a connected subnet is rejected too.
    pub inside_connected: bool,
    /// The host's routes that are not ours. Connected ones may be included.
    pub routes: Vec<HostRoute>,
    pub protected: Vec<(IpAddr, AddressRole)>,
    /// Metric of the routes that we install.
    pub metric: u32,
    /// What Nodes may advertise to one another.
    pub nodes: Arc<NodePrefixes>,
}

/// A connected subnet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    pub prefix: Prefix,
    pub interface: String,
}

/// Decides which received prefixes are rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    own: Cover,
    /// Default routes that this node originates. They reject only themselves, as everything is
    /// inside them.
    own_defaults: Vec<Prefix>,
    subnets: Vec<Subnet>,
    /// Connected subnets with their network and broadcast addresses, sorted.
    connected: Vec<(Prefix, Connected)>,
    /// All connected subnets if `guard.connected` is "inside".
    inside: Cover,
    protected: Protected,
    nodes: Arc<NodePrefixes>,
}

/// Relation of a prefix to a connected subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Connected {
    Subnet,
    Network,
    Broadcast,
}

/// Why the guard rejected a prefix. [`Guard::reason`] has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Martian,
    TooShort,
    /// Very short prefixes of one neighbor cover too much of the address space.
    TooMuch,
    Own,
    Protected(AddressRole),
    Connected,
}

impl Refusal {
    /// In plain text, without the details.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Martian => "guard: martian",
            Self::TooShort => "guard: too short without accept-default",
            Self::TooMuch => "guard: too much of the address space without accept-default",
            Self::Own => "guard: overlaps what this host advertises",
            Self::Protected(AddressRole::OwnAddress) => "guard: holds an own address",
            Self::Protected(AddressRole::DefaultGateway) => "guard: holds a default gateway",
            Self::Protected(AddressRole::FormerGateway) => "guard: holds a former default gateway",
            Self::Protected(AddressRole::Neighbor) => "guard: holds a neighbor",
            Self::Protected(AddressRole::ApiServer) => "guard: holds the API server",
            Self::Protected(AddressRole::Node) => "guard: holds the address of a Node",
            Self::Protected(AddressRole::Resolver) => "guard: holds a resolver",
            Self::Protected(AddressRole::Metadata) => "guard: holds the metadata service",
            Self::Connected => "guard: equal to a connected subnet",
        }
    }
}

/// The prefixes about which two guards may differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardChanges {
    /// Prefixes that contain one of these addresses.
    pub holding: Vec<IpAddr>,
    /// These prefixes.
    pub exactly: Vec<Prefix>,
    /// These prefixes and everything inside them.
    pub inside: Vec<Prefix>,
    /// These prefixes, but only paths that lead to one of `senders`.
    pub shared: Vec<Prefix>,
    pub senders: Vec<IpAddr>,
}

impl Guard {
    pub fn new(inputs: GuardInputs) -> Self {
        let GuardInputs { own, mut subnets, inside_connected, routes, protected, metric, nodes } = inputs;
        subnets.sort_unstable();
        subnets.dedup();
        let prefixes: Vec<Prefix> = subnets.iter().map(|s| s.prefix).collect();
        let mut connected: Vec<_> = prefixes.iter().flat_map(|p| connected(*p)).collect();
        connected.sort_unstable();
        connected.dedup_by_key(|(prefix, _)| *prefix);
        let (own_defaults, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|p| p.len() == 0);
        Self {
            own: own.into_iter().collect(),
            own_defaults,
            inside: prefixes.iter().filter(|_| inside_connected).copied().collect(),
            protected: Protected::new(Ways { routes: &routes, subnets: &prefixes, metric }, &protected),
            subnets,
            connected,
            nodes,
        }
    }

    /// What Nodes may advertise to one another.
    pub fn nodes(&self) -> &NodePrefixes {
        &self.nodes
    }

    /// Why `prefix` must be rejected, if so. `accept_default` is the neighbor's setting: it permits
    /// prefixes that are too short and nothing else.
    pub fn refuses(&self, prefix: Prefix, accept_default: bool) -> Option<Refusal> {
        let martian = martian(prefix);
        if martian.is_some_and(|m| m.covers(prefix)) {
            return Some(Refusal::Martian);
        }
        let short = prefix.len() < shortest(prefix.family());
        if short && !accept_default {
            return Some(Refusal::TooShort);
        }
        // A prefix that is as short as a default route covers martians as well.
        if martian.is_some() && !short {
            return Some(Refusal::Martian);
        }
        if self.own.of(prefix).is_some() || self.own_defaults.contains(&prefix) {
            return Some(Refusal::Own);
        }
        if let Some(entry) = self.protected.endangered_by(prefix) {
            return Some(Refusal::Protected(entry.role));
        }
        let connected = self.connection(prefix).is_some() || self.inside.of(prefix).is_some();
        connected.then_some(Refusal::Connected)
    }

    /// The reason with the details an operator needs: which address it protects, and how that is
    /// reached.
    pub fn reason(&self, prefix: Prefix, accept_default: bool) -> Option<String> {
        let refusal = self.refuses(prefix, accept_default)?;
        let text = match refusal {
            Refusal::Martian => martian(prefix).map(|m| {
                let how = if m.covers(prefix) { "inside" } else { "covers" };
                format!("guard: martian: {how} {m}")
            }),
            Refusal::TooShort if prefix.len() == 0 => {
                Some("guard: default route without accept-default".into())
            }
            Refusal::TooShort => {
                Some(format!("guard: shorter than /{} without accept-default", shortest(prefix.family())))
            }
            Refusal::TooMuch => None,
            Refusal::Own => {
                let own = self.own.of(prefix).unwrap_or(prefix);
                Some(format!("guard: overlaps {own}, advertised by this host"))
            }
            Refusal::Protected(_) => self.protected.endangered_by(prefix).map(|entry| {
                let (addr, role) = (entry.addr, entry.role.as_str());
                format!("guard: {addr} ({role}) is {}", self.way(entry.way))
            }),
            Refusal::Connected => self.connected_reason(prefix),
        };
        Some(text.unwrap_or_else(|| refusal.as_str().into()))
    }

    /// Describes how a protected address is reached.
    fn way(&self, way: Option<Prefix>) -> String {
        match way {
            None => "on this host or link".into(),
            Some(way) if way.len() == 0 => "reached by the default route".into(),
            Some(way) => match self.subnets.iter().find(|s| s.prefix == way) {
                Some(subnet) => format!("reached by {way}, connected on {}", subnet.interface),
                None => format!("reached by {way}"),
            },
        }
    }

    fn connected_reason(&self, prefix: Prefix) -> Option<String> {
        let (what, holds): (_, fn(Prefix, Prefix) -> bool) = match self.connection(prefix) {
            Some(Connected::Subnet) => ("equal to", |subnet, p| subnet == p),
            Some(Connected::Network) => ("network address of", |subnet, p| subnet.addr() == p.addr()),
            Some(Connected::Broadcast) => ("broadcast address of", Prefix::covers),
            None => ("inside", Prefix::covers),
        };
        let subnet = self.subnets.iter().find(|s| holds(s.prefix, prefix))?;
        let key = if what == "inside" { "; guard.connected = \"inside\"" } else { "" };
        Some(format!("guard: {what} a connected subnet ({} on {}{key})", subnet.prefix, subnet.interface))
    }

    fn connection(&self, prefix: Prefix) -> Option<Connected> {
        let at = self.connected.binary_search_by_key(&prefix, |(p, _)| *p).ok()?;
        Some(self.connected[at].1)
    }

    /// The guard with neighbors that were not known when it was built. Those not on a connected
    /// subnet need no protection: they are reached by routes of ours only, or either route may be
    /// used. `None` if they change nothing.
    pub fn with_neighbors(&self, neighbors: impl Iterator<Item = IpAddr>) -> Option<Self> {
        let added: Vec<_> = neighbors
            .filter(|addr| !self.protected.contains(*addr))
            .filter_map(|addr| Some((addr, self.subnet_of(addr)?)))
            .collect();
        if added.is_empty() {
            return None;
        }
        Some(Self { protected: self.protected.with_neighbors(&added), ..self.clone() })
    }

    /// The longest connected subnet that contains an address.
    fn subnet_of(&self, addr: IpAddr) -> Option<Prefix> {
        let around = self.subnets.iter().map(|s| s.prefix).filter(|p| p.contains(addr));
        around.max_by_key(|p| p.len())
    }

    /// The prefixes about which `new` may differ.
    pub fn changes(&self, new: &Self) -> GuardChanges {
        let lacks =
            |list: &[(Prefix, Connected)], entry: &(Prefix, Connected)| list.binary_search(entry).is_err();
        let gone = self.connected.iter().filter(|c| lacks(&new.connected, c));
        let come = new.connected.iter().filter(|c| lacks(&self.connected, c));
        let defaults = self.own_defaults.iter().chain(&new.own_defaults);
        let (hosts, inside): (Vec<_>, Vec<_>) = self
            .own
            .differences(&new.own)
            .chain(self.inside.differences(&new.inside))
            .partition(|p| p.is_host());
        let mut exactly: Vec<Prefix> = gone.chain(come).map(|(p, _)| *p).chain(hosts).collect();
        if self.own_defaults != new.own_defaults {
            exactly.extend(defaults);
        }
        let mut changes = GuardChanges {
            holding: self.protected.differences(&new.protected),
            exactly,
            inside,
            ..GuardChanges::default()
        };
        let of_nodes = self.nodes.changes(&new.nodes);
        changes.exactly.extend(of_nodes.exactly);
        changes.inside.extend(of_nodes.inside);
        if !of_nodes.senders.is_empty() {
            changes.shared.extend(new.nodes.services());
            changes.senders = of_nodes.senders;
        }
        changes
    }
}

/// The martian block that contains `prefix` or is covered by it.
fn martian(prefix: Prefix) -> Option<Prefix> {
    MARTIANS.iter().find(|m| m.covers(prefix) || prefix.covers(**m)).copied()
}

/// A connected subnet and the addresses in it that no host has: its network address (for IPv6 the
/// subnet-router anycast address, RFC 4291 §2.6.1) and its broadcast address. Subnets of one or two
/// addresses have none (RFC 3021, RFC 6164).
fn connected(subnet: Prefix) -> Vec<(Prefix, Connected)> {
    let mut all = vec![(subnet, Connected::Subnet)];
    if subnet.len() + 2 > subnet.family().max_len() {
        return all;
    }
    all.push((Prefix::host(subnet.addr()), Connected::Network));
    if let Prefix::V4 { addr, len } = subnet {
        let broadcast = addr.to_bits() | u32::MAX.checked_shr(len.into()).unwrap_or(0);
        all.push((Prefix::host(IpAddr::V4(broadcast.into())), Connected::Broadcast));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    fn subnet(prefix: &str, interface: &str) -> Subnet {
        Subnet { prefix: p(prefix), interface: interface.into() }
    }

    fn route(prefix: &str, metric: u32) -> HostRoute {
        HostRoute { prefix: p(prefix), metric, leads_on: true }
    }

    fn protect(list: &[(&str, AddressRole)]) -> Vec<(IpAddr, AddressRole)> {
        list.iter().map(|(addr, role)| (addr.parse().unwrap(), *role)).collect()
    }

    /// A host below a switch, with a management network and a resolver behind it.
    fn inputs() -> GuardInputs {
        use AddressRole::*;
        GuardInputs {
            own: vec![p("10.244.1.0/24"), p("fd00:244:1::/64"), p("172.17.0.0/16")],
            subnets: vec![
                subnet("10.9.0.0/16", "eth0"),
                subnet("10.8.0.0/31", "eth1"),
                subnet("2001:db8:9::/64", "eth0"),
            ],
            routes: vec![
                route("0.0.0.0/0", 100),
                route("::/0", 1024),
                route("192.0.2.0/24", 0),
                route("198.51.100.0/24", 1024),
                HostRoute { leads_on: false, ..route("203.0.113.0/24", 0) },
            ],
            protected: protect(&[
                ("10.9.0.2", OwnAddress),
                ("10.255.0.1", OwnAddress),
                ("2001:db8:9::2", OwnAddress),
                ("10.9.0.1", DefaultGateway),
                ("10.8.0.1", Neighbor),
                ("2001:db8:9::1", Neighbor),
                ("192.0.2.10", ApiServer),
                ("198.51.100.10", ApiServer),
                ("203.0.113.10", Node),
                ("10.0.0.53", Resolver),
                ("2001:db8:53::53", Resolver),
                ("169.254.169.254", Metadata),
            ]),
            metric: 179,
            ..GuardInputs::default()
        }
    }

    #[test]
    fn each_reason_names_what_it_protects() {
        let guard = Guard::new(inputs());
        #[rustfmt::skip]
        let cases: &[(&str, Option<&str>)] = &[
            ("0.0.0.0/0",           Some("guard: default route without accept-default")),
            ("::/0",                Some("guard: default route without accept-default")),
            ("8.0.0.0/7",           Some("guard: shorter than /8 without accept-default")),
            ("2000::/15",           Some("guard: shorter than /16 without accept-default")),
            ("8.0.0.0/8",           None),
            ("2000::/16",           None),
            ("2001::/16",           Some("guard: 2001:db8:53::53 (resolver) is reached by the default route")),
            ("169.254.7.0/24",      Some("guard: martian: inside 169.254.0.0/16")),
            ("169.254.0.0/15",      Some("guard: martian: covers 169.254.0.0/16")),
            ("169.0.0.0/8",         Some("guard: martian: covers 169.254.0.0/16")),
            ("::/80",               Some("guard: martian: covers ::/128")),
            ("::/96",               Some("guard: martian: covers ::/128")),
            ("::fffe:0:0/95",       Some("guard: martian: covers ::ffff:0.0.0.0/96")),
            ("::ffff:10.9.0.2/128", Some("guard: martian: inside ::ffff:0.0.0.0/96")),
            ("64:ff9b::/96",        None),
            ("10.244.1.0/24",       Some("guard: overlaps 10.244.1.0/24, advertised by this host")),
            ("172.17.3.0/24",       Some("guard: overlaps 172.17.0.0/16, advertised by this host")),
            ("10.244.0.0/16",       None),
            ("10.9.0.0/16",         Some("guard: equal to a connected subnet (10.9.0.0/16 on eth0)")),
            ("10.9.0.0/32",         Some("guard: network address of a connected subnet (10.9.0.0/16 on eth0)")),
            ("10.9.255.255/32",     Some("guard: broadcast address of a connected subnet (10.9.0.0/16 on eth0)")),
            ("2001:db8:9::/128",    Some("guard: network address of a connected subnet (2001:db8:9::/64 on eth0)")),
            ("10.9.0.0/17",         Some("guard: 10.9.0.1 (default gateway) is reached by 10.9.0.0/16, connected on eth0")),
            ("10.9.0.0/30",         Some("guard: 10.9.0.1 (default gateway) is reached by 10.9.0.0/16, connected on eth0")),
            ("10.9.0.2/31",         Some("guard: 10.9.0.2 (own address) is reached by 10.9.0.0/16, connected on eth0")),
            ("10.9.128.0/17",       None),
            ("10.8.0.0/15",         None),
            ("10.9.0.2/32",         Some("guard: 10.9.0.2 (own address) is reached by 10.9.0.0/16, connected on eth0")),
            ("10.255.0.1/32",       Some("guard: 10.255.0.1 (own address) is on this host or link")),
            ("10.255.0.0/24",       None),
            ("10.8.0.1/32",         Some("guard: 10.8.0.1 (neighbor) is reached by 10.8.0.0/31, connected on eth1")),
            ("10.8.0.0/31",         Some("guard: equal to a connected subnet (10.8.0.0/31 on eth1)")),
            ("2001:db8:9::/127",    Some("guard: 2001:db8:9::1 (neighbor) is reached by 2001:db8:9::/64, connected on eth0")),
            ("192.0.2.8/29",        Some("guard: 192.0.2.10 (API server) is reached by 192.0.2.0/24")),
            ("192.0.2.0/24",        None),
            ("192.0.0.0/16",        None),
            ("198.51.100.0/24",     Some("guard: 198.51.100.10 (API server) is reached by 198.51.100.0/24")),
            ("203.0.113.10/32",     None),
            ("10.0.0.53/32",        Some("guard: 10.0.0.53 (resolver) is reached by the default route")),
            ("10.0.0.0/8",          Some("guard: 10.0.0.53 (resolver) is reached by the default route")),
            ("100.64.0.0/10",       None),
        ];
        for (prefix, reason) in cases {
            assert_eq!(guard.reason(p(prefix), false).as_deref(), *reason, "{prefix}");
            assert_eq!(guard.refuses(p(prefix), false).is_some(), reason.is_some(), "{prefix}");
        }
    }

    #[test]
    fn accept_default_opens_the_way_for_short_prefixes_only() {
        let guard = Guard::default();
        for taken in ["0.0.0.0/0", "::/0", "128.0.0.0/1", "168.0.0.0/7", "::/1", "2000::/3"] {
            assert_eq!(guard.refuses(p(taken), true), None, "{taken}");
            assert_eq!(guard.refuses(p(taken), false), Some(Refusal::TooShort), "{taken}");
        }
        // Everything in these is a martian.
        for refused in
            ["127.0.0.0/8", "224.0.0.0/5", "240.0.0.0/4", "fe80::/12", "ff00::/9", "169.254.0.0/15"]
        {
            assert_eq!(guard.refuses(p(refused), true), Some(Refusal::Martian), "{refused}");
        }
        // A default route changes no longer match; two halves of one do.
        let guard = Guard::new(inputs());
        assert_eq!(guard.refuses(p("0.0.0.0/0"), true), None);
        assert_eq!(guard.refuses(p("0.0.0.0/1"), true), Some(Refusal::Protected(AddressRole::Resolver)));
        let own = Guard::new(GuardInputs { own: vec![p("0.0.0.0/0")], ..GuardInputs::default() });
        assert_eq!(own.refuses(p("0.0.0.0/0"), true), Some(Refusal::Own), "this node originates one itself");
        assert_eq!(own.refuses(p("10.0.0.0/8"), true), None);
    }

    #[test]
    fn connected_inside_refuses_all_that_lies_in_a_connected_subnet() {
        let guard = Guard::new(GuardInputs { inside_connected: true, ..inputs() });
        let reason = |s: &str| guard.reason(p(s), false);
        let inside = "guard: inside a connected subnet (10.9.0.0/16 on eth0; guard.connected = \"inside\")";
        assert_eq!(reason("10.9.128.0/17").as_deref(), Some(inside));
        assert_eq!(reason("10.9.200.7/32").as_deref(), Some(inside));
        assert_eq!(reason("10.8.0.0/15"), None);
    }

    #[test]
    fn a_neighbor_that_is_found_later_is_protected_on_its_link() {
        let guard = Guard::new(inputs());
        let later = ["10.9.200.7", "10.77.0.1", "10.9.0.1"].map(|a| a.parse().unwrap());
        let with = guard.with_neighbors(later.into_iter()).unwrap();
        let neighbor = Some(Refusal::Protected(AddressRole::Neighbor));
        assert_eq!(
            (guard.refuses(p("10.9.200.6/31"), false), with.refuses(p("10.9.200.6/31"), false)),
            (None, neighbor)
        );
        assert_eq!(with.refuses(p("10.77.0.1/32"), false), None, "not on link");
        assert_eq!(
            with.refuses(p("10.9.0.0/31"), false),
            Some(Refusal::Protected(AddressRole::DefaultGateway))
        );
        assert_eq!(guard.changes(&with).holding, [later[0]]);
        assert_eq!(with.with_neighbors(later.into_iter()), None);
    }

    #[test]
    fn changes_are_named_where_two_guards_differ() {
        let old = inputs();
        let mut new = inputs();
        new.own = vec![p("10.244.1.0/24"), p("fd00:244:1::/64"), p("10.96.0.9/32"), p("0.0.0.0/0")];
        new.subnets.push(subnet("10.7.0.0/30", "eth2"));
        new.routes.retain(|r| r.prefix != p("192.0.2.0/24"));
        new.protected.retain(|(a, _)| *a != "10.0.0.53".parse::<IpAddr>().unwrap());
        let changes = Guard::new(old.clone()).changes(&Guard::new(new));
        assert_eq!(changes.holding, ["10.0.0.53", "192.0.2.10"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!(changes.inside, [p("172.17.0.0/16")]);
        let mut exactly = changes.exactly;
        exactly.sort();
        let expected = ["0.0.0.0/0", "10.7.0.0/30", "10.7.0.0/32", "10.7.0.3/32", "10.96.0.9/32"].map(p);
        let mut sorted = expected.to_vec();
        sorted.sort();
        assert_eq!(exactly, sorted);
        assert_eq!(Guard::new(old.clone()).changes(&Guard::new(old)), GuardChanges::default());
    }
}
