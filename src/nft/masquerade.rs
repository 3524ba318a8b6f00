//! Masquerade: what pods send out of the cluster leaves with the node's address, while nobody out there knows the pods'.
//!
//! One nftables table of our own, `inet routelet`, with one rule per family: from a pod range, to anything that is not in
//! the set of prefixes kept as they are. That set holds what is near (connected subnets), what is the cluster's (nodes, pods,
//! services), what was learned by BGP (whoever announces a prefix to us can answer) and what the operator excludes. A default route
//! counts as learned by nobody: it says nothing about who knows the pods.
//!
//! Tables of others are never looked at. All of them see a packet; the first that rewrites a connection's source decides,
//! and ours rewrites only what leaves the cluster.
//!
//! Pods below a firewall that drops what nobody accepts are [`super::forward`]'s.
//!
//! In `auto` it ends for a family once a neighbor of another AS has had the pod CIDRs for [`KNOWN`], see [`Auto`].

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::net::{Family, Prefix};

/// What the plan wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub mode: Mode,
    /// Where pods have their addresses.
    pub pods: BTreeSet<Prefix>,
    /// What is never masqueraded, but for what is learned.
    pub keep: BTreeSet<Prefix>,
}

/// `masquerade.enabled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Off,
    On,
    Auto,
}

/// What the kernel is to hold: for each family, by its index, the pods' ranges; without any nothing is rewritten.
pub fn pods(wanted: &Wanted, auto: &Auto) -> BTreeSet<Prefix> {
    let on = |p: &&Prefix| match wanted.mode {
        Mode::Off => false,
        Mode::On => true,
        Mode::Auto => !auto.is_over(p.family()),
    };
    wanted.pods.iter().filter(on).copied().collect()
}

/// Packets to many: never masqueraded.
pub fn multicast() -> [Prefix; 2] {
    [Prefix::v4(Ipv4Addr::new(224, 0, 0, 0), 4), Prefix::v4(Ipv4Addr::BROADCAST, 32)]
}

/// How long a neighbor must have had the pod CIDRs.
pub const KNOWN: Duration = Duration::from_secs(60);

/// Remembers for how long the pods have been known outside. Once that is long enough it stays so, whatever sessions do: masquerade
/// that comes back with a flap would change the source of every new connection back and forth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auto {
    families: [Known; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    No,
    Since(Instant),
    ForGood,
}

impl Auto {
    /// Whether a neighbor outside has the pod CIDRs of a family now.
    pub fn told(&mut self, now: Instant, family: Family, has: bool) {
        let known = &mut self.families[family.index()];
        *known = match *known {
            Known::ForGood => Known::ForGood,
            _ if !has => Known::No,
            Known::No => Known::Since(now),
            Known::Since(since) if now >= since + KNOWN => Known::ForGood,
            Known::Since(since) => Known::Since(since),
        };
    }

    pub fn is_over(&self, family: Family) -> bool {
        self.families[family.index()] == Known::ForGood
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    const V4: Family = Family::Ipv4Unicast;
    const V6: Family = Family::Ipv6Unicast;

    #[test]
    fn it_ends_after_a_minute_of_being_known_and_never_comes_back() {
        let (mut auto, t) = (Auto::default(), Instant::now());
        auto.told(t, V4, true);
        auto.told(t + KNOWN / 2, V4, false);
        auto.told(t + KNOWN / 2, V4, true);
        auto.told(t + KNOWN, V4, true);
        assert!(!auto.is_over(V4), "a flap begins the minute anew");
        auto.told(t + KNOWN * 3 / 2, V4, true);
        assert!(auto.is_over(V4) && !auto.is_over(V6), "each family for itself");
        auto.told(t + KNOWN * 2, V4, false);
        assert!(auto.is_over(V4), "the session went, masquerade stays off");
    }

    #[test]
    fn the_mode_has_the_last_word() {
        let (mut auto, t) = (Auto::default(), Instant::now());
        auto.told(t, V4, true);
        auto.told(t + KNOWN, V4, true);
        let ranges = ["10.244.1.0/24", "fd00:244:1::/64"].map(|p| p.parse().unwrap());
        let wanted = |mode| Wanted { mode, pods: ranges.into(), keep: BTreeSet::new() };
        assert_eq!(pods(&wanted(Mode::Off), &auto), [].into());
        assert_eq!(pods(&wanted(Mode::On), &auto), ranges.into());
        assert_eq!(pods(&wanted(Mode::Auto), &auto), [ranges[1]].into());
    }
}
