//! Masquerading: packets from pods leave the cluster with the node's address as source, as long as
//! the network outside has no route to the pods.
//!
//! The nftables table `inet routelet` has one rule per family: packets from a pod range to any
//! destination outside the set of excluded prefixes. That set contains connected subnets, the
//! cluster's own ranges (nodes, pods, Services), prefixes learned by BGP (whose origin is expected
//! to have a route back to the pods) and the operator's exclusions. A default route is not added:
//! its origin need not have a route to the pods.
//!
//! Tables of other programs are not read. A packet traverses all of them; the first one that
//! rewrites the source of a connection wins, and ours only rewrites what leaves the cluster.
//!
//! Accepting forwarded packets of pods is a separate feature: [`super::forward`].
//!
//! In `auto` mode masquerading ends for a family once an external neighbor has had the pod CIDRs
//! for [`AUTO_OFF_DELAY`], see [`Auto`].

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::ranges::{Range, ranges};
use crate::net::{Family, PerFamily, Prefix};

/// Maximum ranges in the sets. With more, each change takes too long in the kernel.
const MAX_RANGES: usize = 200_000;

/// The configuration of masquerading, as computed by the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub mode: Mode,
    /// Ranges of pod addresses: sources to masquerade.
    pub pods: BTreeSet<Prefix>,
    /// Destinations that are never masqueraded, in addition to learned prefixes.
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

/// Wanted contents of the table, apart from learned prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Ranges of pod addresses; without any there is no table.
    pub pods: BTreeSet<Prefix>,
    pub keep: BTreeSet<Prefix>,
}

/// The pod ranges, and the destinations that are never masqueraded.
pub type Sets = PerFamily<[BTreeSet<Range>; 2]>;

/// The sets would have more ranges than the kernel can change in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} ranges excluded from masquerading, more than {MAX_RANGES}: the table is not changed")]
pub struct TooManyRanges(usize);

/// The contents of the table's sets.
///
/// # Errors
///
/// If there are more than [`MAX_RANGES`].
pub fn sets(want: &Want, learned: &BTreeSet<Prefix>) -> Result<Sets, TooManyRanges> {
    let sets = PerFamily::of(|family| {
        let pods = ranges(family, &want.pods);
        // The origin of a default route need not have a route to the pods.
        let keep = || want.keep.iter().chain(learned.iter().filter(|p| p.len() > 0));
        let keep = if pods.is_empty() { BTreeSet::new() } else { ranges(family, keep()) };
        [pods, keep]
    });
    let count = sets.iter().flatten().map(BTreeSet::len).sum();
    if count > MAX_RANGES { Err(TooManyRanges(count)) } else { Ok(sets) }
}

/// The pod ranges whose packets are masqueraded now, of both families; empty if none are.
pub fn pods(wanted: &Wanted, auto: &Auto) -> BTreeSet<Prefix> {
    let on = |p: &&Prefix| match wanted.mode {
        Mode::Off => false,
        Mode::On => true,
        Mode::Auto => !auto.is_over(p.family()),
    };
    wanted.pods.iter().filter(on).copied().collect()
}

/// Multicast and broadcast destinations, which are never masqueraded.
pub fn multicast() -> [Prefix; 2] {
    [Prefix::v4(Ipv4Addr::new(224, 0, 0, 0), 4), Prefix::v4(Ipv4Addr::BROADCAST, 32)]
}

/// How long an external neighbor must have had the pod CIDRs before `auto` ends masquerading.
pub const AUTO_OFF_DELAY: Duration = Duration::from_secs(60);

/// For how long external neighbors have had the pod CIDRs, by family. Once masquerading has ended
/// it stays off even if sessions close: otherwise each flap would change the source address of new
/// connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auto {
    families: PerFamily<Advertised>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Advertised {
    #[default]
    No,
    Since(Instant),
    Stable,
}

impl Auto {
    /// Records whether an external neighbor has all pod CIDRs of a family now.
    pub fn observe(&mut self, now: Instant, family: Family, has: bool) {
        let state = &mut self.families[family];
        *state = match *state {
            Advertised::Stable => Advertised::Stable,
            _ if !has => Advertised::No,
            Advertised::No => Advertised::Since(now),
            Advertised::Since(since) if now >= since + AUTO_OFF_DELAY => Advertised::Stable,
            Advertised::Since(since) => Advertised::Since(since),
        };
    }

    /// Whether masquerading has ended for a family.
    pub fn is_over(&self, family: Family) -> bool {
        self.families[family] == Advertised::Stable
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    const V4: Family = Family::Ipv4Unicast;
    const V6: Family = Family::Ipv6Unicast;

    #[test]
    fn it_ends_after_a_minute_of_being_advertised_and_does_not_resume() {
        let (mut auto, t) = (Auto::default(), Instant::now());
        auto.observe(t, V4, true);
        auto.observe(t + AUTO_OFF_DELAY / 2, V4, false);
        auto.observe(t + AUTO_OFF_DELAY / 2, V4, true);
        auto.observe(t + AUTO_OFF_DELAY, V4, true);
        assert!(!auto.is_over(V4), "a flap restarts the minute");
        auto.observe(t + AUTO_OFF_DELAY * 3 / 2, V4, true);
        assert!(auto.is_over(V4) && !auto.is_over(V6), "families are independent");
        auto.observe(t + AUTO_OFF_DELAY * 2, V4, false);
        assert!(auto.is_over(V4), "the session is closed, masquerading stays off");
    }

    #[test]
    fn the_mode_overrides_the_observation() {
        let (mut auto, t) = (Auto::default(), Instant::now());
        auto.observe(t, V4, true);
        auto.observe(t + AUTO_OFF_DELAY, V4, true);
        let ranges = ["10.244.1.0/24", "fd00:244:1::/64"].map(|p| p.parse().unwrap());
        let wanted = |mode| Wanted { mode, pods: ranges.into(), keep: BTreeSet::new() };
        assert_eq!(pods(&wanted(Mode::Off), &auto), [].into());
        assert_eq!(pods(&wanted(Mode::On), &auto), ranges.into());
        assert_eq!(pods(&wanted(Mode::Auto), &auto), [ranges[1]].into());
    }

    #[test]
    fn sets_have_learned_prefixes_of_families_with_pods_and_no_default_route() {
        let prefixes = |all: &[&str]| all.iter().map(|p| p.parse().unwrap()).collect::<BTreeSet<Prefix>>();
        let want = Want { pods: prefixes(&["10.244.1.0/24"]), keep: prefixes(&["10.0.0.0/16", "fd00::/8"]) };
        let learned = prefixes(&["0.0.0.0/0", "10.1.0.0/16", "2001:db8::/32"]);
        let sets = sets(&want, &learned).unwrap();
        let ipv4 = |all: &[&str]| ranges(Family::Ipv4Unicast, &prefixes(all));
        assert_eq!(
            sets[Family::Ipv4Unicast],
            [ipv4(&["10.244.1.0/24"]), ipv4(&["10.0.0.0/16", "10.1.0.0/16"])]
        );
        assert_eq!(sets[Family::Ipv6Unicast], [BTreeSet::new(), BTreeSet::new()], "no pods of this family");
    }

    #[test]
    fn more_ranges_than_the_kernel_can_change_in_time_are_refused() {
        // Every second /32: adjacent ones would be merged.
        let every_second =
            |many: u32| (0..many).map(|n| Prefix::v4((0x0a00_0000 + 2 * n).into(), 32)).collect();
        let want = Want { pods: ["192.0.2.0/24".parse().unwrap()].into(), keep: BTreeSet::new() };
        assert!(sets(&want, &every_second(MAX_RANGES as u32 - 1)).is_ok());
        assert_eq!(sets(&want, &every_second(MAX_RANGES as u32)), Err(TooManyRanges(MAX_RANGES + 1)));
    }
}
