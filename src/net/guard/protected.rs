//! Protected addresses, and which learned prefixes would change the path of packets to them.

use std::{cmp::Reverse, net::IpAddr};

use crate::net::{Family, PerFamily, Prefix};

/// The role of a protected address. If there are several, the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressRole {
    OwnAddress,
    DefaultGateway,
    /// Was one since the daemon started. If its address were learned meanwhile, the kernel would
    /// not accept the default route again.
    FormerGateway,
    /// A neighbor on a connected link.
    Neighbor,
    ApiServer,
    /// InternalIP of a Node.
    Node,
    Resolver,
    /// 169.254.169.254, the metadata service of cloud providers.
    Metadata,
}

impl AddressRole {
    pub const ALL: [Self; 8] = [
        Self::OwnAddress,
        Self::DefaultGateway,
        Self::FormerGateway,
        Self::Neighbor,
        Self::ApiServer,
        Self::Node,
        Self::Resolver,
        Self::Metadata,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnAddress => "own address",
            Self::DefaultGateway => "default gateway",
            Self::FormerGateway => "former default gateway",
            Self::Neighbor => "neighbor",
            Self::ApiServer => "API server",
            Self::Node => "Node",
            Self::Resolver => "resolver",
            Self::Metadata => "metadata service",
        }
    }

    /// Whether a host route to it is rejected even if no other route leads there.
    fn is_never_learned(self) -> bool {
        matches!(self, Self::OwnAddress | Self::DefaultGateway | Self::FormerGateway)
    }

    /// Whether only connected subnets count as the path to it. The kernel keeps own addresses in
    /// its local table, which precedes learned routes, and a former gateway matters where it may
    /// become one again.
    fn is_protected_on_link_only(self) -> bool {
        matches!(self, Self::OwnAddress | Self::FormerGateway)
    }
}

/// A route of the host that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    pub prefix: Prefix,
    pub metric: u32,
    /// False if packets end here: unreachable, blackhole, prohibit.
    pub leads_on: bool,
}

/// A protected address with the host's route to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) addr: IpAddr,
    pub(super) role: AddressRole,
    /// `None` if there is no route but the kernel's own local one.
    pub(super) way: Option<Prefix>,
    /// The longest prefix that may contain it; [`ANY`] if no other route leads there.
    limit: u8,
}

/// No prefix is longer.
const ANY: u8 = u8::MAX;

/// All protected addresses, prepared for comparison with each prefix of a full table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Protected {
    families: PerFamily<Set>,
}

/// Those of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Set {
    /// Addresses as numbers, sorted.
    keys: Vec<u128>,
    /// In the same order.
    entries: Vec<Entry>,
    /// A tree over the entries, root first and leaves last; each node has the entry with the lowest
    /// limit.
    lowest: Vec<u32>,
}

/// The host's routes, as far as they determine the paths to protected addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ways<'a> {
    /// Routes that are not ours. Connected subnets may be included.
    pub(super) routes: &'a [HostRoute],
    /// Subnets of the host's addresses on links that are up.
    pub(super) subnets: &'a [Prefix],
    /// Metric of the routes that we install: among equal prefixes the lower one is used.
    pub(super) metric: u32,
}

impl Protected {
    /// Determines the path to each address as the kernel does: the longest match among the host's
    /// routes.
    pub(super) fn new(ways: Ways<'_>, addresses: &[(IpAddr, AddressRole)]) -> Self {
        Self { families: PerFamily::of(|family| Set::new(family, ways, addresses)) }
    }

    /// The protected address whose packets would take another path if `prefix` were installed.
    pub(super) fn endangered_by(&self, prefix: Prefix) -> Option<&Entry> {
        let set = &self.families[prefix.family()];
        let (first, last) = span(prefix);
        let from = set.keys.partition_point(|key| *key < first);
        if set.keys.get(from).is_none_or(|key| *key > last) {
            return None;
        }
        let to = set.keys.partition_point(|key| *key <= last);
        let weakest = &set.entries[set.lowest_of(from, to)?];
        (weakest.limit < prefix.len()).then_some(weakest)
    }

    pub(super) fn contains(&self, addr: IpAddr) -> bool {
        self.families[Family::of(addr)].keys.binary_search(&number(addr)).is_ok()
    }

    /// The set with neighbors that were not known when it was built, each with its connected
    /// subnet.
    pub(super) fn with_neighbors(&self, neighbors: &[(IpAddr, Prefix)]) -> Self {
        let mut families = self.families.clone();
        for (addr, subnet) in neighbors {
            let set = &mut families[Family::of(*addr)];
            let limit = subnet.len();
            set.entries.push(Entry { addr: *addr, role: AddressRole::Neighbor, way: Some(*subnet), limit });
        }
        Self { families: families.map(|set| Set::indexed(set.entries)) }
    }

    /// Addresses for which the other set permits other prefixes, or has another role.
    pub(super) fn differences(&self, other: &Self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for (a, b) in self.families.iter().zip(other.families.iter()) {
            let missing = |a: &Set, b: &Set| -> Vec<IpAddr> {
                let same =
                    |e: &&Entry| b.find(e.addr).is_some_and(|o| (o.limit, o.role) == (e.limit, e.role));
                a.entries.iter().filter(|e| e.limit != ANY).filter(|e| !same(e)).map(|e| e.addr).collect()
            };
            found.extend(missing(a, b));
            found.extend(missing(b, a));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Set {
    fn new(family: Family, ways: Ways<'_>, addresses: &[(IpAddr, AddressRole)]) -> Self {
        let mut sorted: Vec<(IpAddr, AddressRole)> =
            addresses.iter().filter(|(addr, _)| Family::of(*addr) == family).copied().collect();
        sorted.sort_unstable();
        sorted.dedup_by_key(|(addr, _)| *addr);
        let keys: Vec<u128> = sorted.iter().map(|(addr, _)| number(*addr)).collect();
        let subnets = ways.subnets.iter().filter(|p| p.family() == family);
        let connected = subnets.map(|p| HostRoute { prefix: *p, metric: 0, leads_on: true });
        let others = ways.routes.iter().filter(|r| r.prefix.family() == family).copied();
        let around = longest_matches(&keys, connected.clone().filter(|r| !r.prefix.is_host()));
        let way = longest_matches(&keys, others.chain(connected));
        let ways_to = sorted.into_iter().zip(way.into_iter().zip(around));
        let entries = ways_to.map(|((addr, role), (way, around))| {
            let way = if role.is_protected_on_link_only() { around } else { way.filter(|r| r.leads_on) };
            let limit = limit(role, way, ways.metric, family.max_len());
            Entry { addr, role, way: way.map(|r| r.prefix), limit }
        });
        Self::indexed(entries.collect())
    }

    fn indexed(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by_key(|e| (e.addr, e.role));
        entries.dedup_by_key(|e| e.addr);
        let keys = entries.iter().map(|e| number(e.addr)).collect();
        let n = entries.len();
        let mut lowest = vec![0; n];
        lowest.extend(0..n as u32);
        for at in (1..n).rev() {
            let (left, right) = (lowest[2 * at], lowest[2 * at + 1]);
            lowest[at] =
                if entries[right as usize].limit < entries[left as usize].limit { right } else { left };
        }
        Self { keys, entries, lowest }
    }

    /// The entry with the lowest limit in `from..to`.
    fn lowest_of(&self, from: usize, to: usize) -> Option<usize> {
        let n = self.entries.len();
        let (mut left, mut right) = (from + n, to + n);
        let mut best: Option<usize> = None;
        let mut consider = |at: usize| {
            let entry = self.lowest[at] as usize;
            let key = |e: usize| (self.entries[e].limit, e);
            if best.is_none_or(|b| key(entry) < key(b)) {
                best = Some(entry);
            }
        };
        while left < right {
            if left % 2 == 1 {
                consider(left);
                left += 1;
            }
            if right % 2 == 1 {
                right -= 1;
                consider(right);
            }
            (left, right) = (left / 2, right / 2);
        }
        best
    }

    fn find(&self, addr: IpAddr) -> Option<&Entry> {
        self.entries.get(self.keys.binary_search(&number(addr)).ok()?)
    }
}

/// The route that the kernel uses for each address: the longest match, and among equal ones the
/// lowest metric.
fn longest_matches(keys: &[u128], routes: impl Iterator<Item = HostRoute>) -> Vec<Option<HostRoute>> {
    let inside = |prefix: Prefix| {
        let (first, last) = span(prefix);
        keys.partition_point(|key| *key < first)..keys.partition_point(|key| *key <= last)
    };
    let mut routes: Vec<_> =
        routes.map(|r| (r, inside(r.prefix))).filter(|(_, range)| !range.is_empty()).collect();
    // The last one written is kept.
    routes.sort_by_key(|(r, _)| (r.prefix.len(), Reverse(r.metric), r.leads_on));
    let mut found = vec![None; keys.len()];
    for (route, range) in routes {
        found[range].fill(Some(route));
    }
    found
}

/// The longest prefix that may contain an address whose path is `way`.
fn limit(role: AddressRole, way: Option<HostRoute>, metric: u32, host: u8) -> u8 {
    let by_route = match way {
        // Our route to the same prefix would replace it. Whether ours may exist beside a default
        // route is decided by `accept-default`.
        Some(r) if r.metric > metric && r.prefix.len() > 0 => r.prefix.len() - 1,
        Some(r) => r.prefix.len(),
        None => ANY,
    };
    if role.is_never_learned() { by_route.min(host - 1) } else { by_route }
}

/// First and last address, as numbers.
fn span(prefix: Prefix) -> (u128, u128) {
    let first = number(prefix.addr());
    let rest = match prefix {
        Prefix::V4 { len, .. } => u32::MAX.checked_shr(len.into()).unwrap_or(0).into(),
        Prefix::V6 { len, .. } => u128::MAX.checked_shr(len.into()).unwrap_or(0),
    };
    (first, first | rest)
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => a.to_bits().into(),
        IpAddr::V6(a) => a.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Metric of learned routes.
    const OURS: u32 = 179;

    /// Address `n` of a space of 256 addresses.
    fn address(family: Family, n: u8) -> IpAddr {
        match family {
            Family::Ipv4Unicast => [10, 0, 0, n].into(),
            Family::Ipv6Unicast => std::net::Ipv6Addr::from_bits(0xfd << 120 | u128::from(n)).into(),
        }
    }

    /// A prefix inside this space, or the default route.
    fn prefix(family: Family, n: u8, bits: Option<u8>) -> Prefix {
        let len = bits.map_or(0, |bits| family.max_len() - 8 + bits);
        Prefix::new(address(family, n), len).unwrap()
    }

    fn some_prefix(family: Family) -> impl Strategy<Value = Prefix> {
        let bits = prop_oneof![1 => Just(None), 9 => (0..=8u8).prop_map(Some)];
        (any::<u8>(), bits).prop_map(move |(n, bits)| prefix(family, n, bits))
    }

    fn some_route(family: Family) -> impl Strategy<Value = HostRoute> {
        let metric = prop_oneof![Just(0), Just(100), Just(OURS), Just(1024)];
        (some_prefix(family), metric, prop::bool::weighted(0.8))
            .prop_map(|(prefix, metric, leads_on)| HostRoute { prefix, metric, leads_on })
    }

    #[derive(Clone, Debug)]
    struct World {
        routes: Vec<HostRoute>,
        subnets: Vec<Prefix>,
        addresses: Vec<(IpAddr, AddressRole)>,
        learned: Vec<Prefix>,
    }

    fn some_world(family: Family) -> impl Strategy<Value = World> {
        let addresses = (any::<u8>(), prop::sample::select(&AddressRole::ALL[..]));
        let subnet = (any::<u8>(), 0..=8u8).prop_map(move |(n, bits)| prefix(family, n, Some(bits)));
        (
            prop::collection::vec(some_route(family), 0..8),
            prop::collection::vec(subnet, 0..3),
            prop::collection::vec(addresses, 1..12),
            prop::collection::vec(some_prefix(family), 1..24),
        )
            .prop_map(move |(routes, subnets, addresses, learned)| {
                let addresses = addresses.into_iter().map(|(n, role)| (address(family, n), role)).collect();
                World { routes, subnets, addresses, learned }
            })
    }

    /// The route that the kernel uses for an address: the longest match, then the lowest metric.
    fn lookup(table: &[HostRoute], addr: IpAddr) -> Option<HostRoute> {
        let matching = table.iter().filter(|r| r.prefix.contains(addr));
        matching.min_by_key(|r| (Reverse(r.prefix.len()), r.metric, !r.leads_on)).copied()
    }

    impl World {
        /// Looks up each protected address before and after the route is installed.
        fn refuses(&self, learned: Prefix) -> bool {
            let ours = HostRoute { prefix: learned, metric: OURS, leads_on: true };
            let connected = self.subnets.iter().map(|p| HostRoute { prefix: *p, metric: 0, leads_on: true });
            let subnets: Vec<_> = connected.clone().filter(|r| !r.prefix.is_host()).collect();
            let all: Vec<_> = self.routes.iter().copied().chain(connected).collect();
            let changes = |table: &[HostRoute], addr| {
                let Some(before) = lookup(table, addr).filter(|r| r.leads_on) else { return false };
                // Ours last: among equal routes the existing one is kept.
                let after = lookup(&[table, &[ours]].concat(), addr);
                after != Some(before) && learned.len() > 0
            };
            let strongest = |addr| self.addresses.iter().filter(|(a, _)| *a == addr).map(|(_, r)| *r).min();
            (0..=255).map(|n| address(learned.family(), n)).filter(|a| learned.contains(*a)).any(|addr| {
                match strongest(addr) {
                    None => false,
                    Some(AddressRole::OwnAddress | AddressRole::FormerGateway) => {
                        learned.is_host() || changes(&subnets, addr)
                    }
                    Some(AddressRole::DefaultGateway) => learned.is_host() || changes(&all, addr),
                    Some(_) => changes(&all, addr),
                }
            })
        }

        fn protected(&self) -> Protected {
            let ways = Ways { routes: &self.routes, subnets: &self.subnets, metric: OURS };
            Protected::new(ways, &self.addresses)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Against longest-prefix matching, address by address, in both families.
        #[test]
        fn exactly_those_prefixes_are_refused_that_change_the_way_to_a_protected_address(
            world in prop::sample::select(&Family::ALL[..]).prop_flat_map(some_world),
        ) {
            let protected = world.protected();
            for learned in &world.learned {
                let endangered = protected.endangered_by(*learned);
                prop_assert_eq!(endangered.is_some(), world.refuses(*learned), "{} {:?}", learned, endangered);
                if let Some(entry) = endangered {
                    prop_assert!(learned.contains(entry.addr), "{} {:?}", learned, entry);
                }
            }
        }

        /// Two sets agree about everything outside their differences.
        #[test]
        fn a_prefix_that_holds_none_of_the_differences_is_judged_as_before(
            (a, b) in prop::sample::select(&Family::ALL[..]).prop_flat_map(|f| (some_world(f), some_world(f))),
        ) {
            let (before, after) = (a.protected(), b.protected());
            let differences = before.differences(&after);
            for learned in a.learned.iter().chain(&b.learned) {
                if !differences.iter().any(|addr| learned.contains(*addr)) {
                    let role = |p: &Protected| p.endangered_by(*learned).map(|e| e.role);
                    prop_assert_eq!(role(&before).is_some(), role(&after).is_some(), "{}", learned);
                }
            }
        }
    }
}
