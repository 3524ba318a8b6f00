//! The pods' bridge: what it lacks, and what mends it.
//!
//! The `bridge` plugin makes the bridge for the first pod and gives it the gateway address of each range. Nobody looks after it
//! from then on: an address that is flushed, a bridge that is set down or deleted cuts off every pod of the node, until the next
//! pod is made or, where the bridge is gone, for good. So while pods hang on it, it is kept as the plugin left it; while there
//! are none, the plugin makes it anew whenever it needs it.
//!
//! Pods are known by their ports, as in [`super::former`]. A bridge that is deleted leaves them behind without a master; they are
//! attached again, to a bridge that takes its place, or to the one that the plugin has made meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::conflist;
use crate::net::{Diagnostic, Prefix, Reason, Subject};

/// The bridge as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub link: Option<Link>,
    /// Interfaces that hang on it.
    pub ports: BTreeSet<u32>,
    /// Interfaces that hang on no bridge at all.
    pub loose: BTreeSet<u32>,
}

/// The interface itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    /// A bridge, not something else of this name.
    pub is_bridge: bool,
    pub up: bool,
    pub mtu: u32,
    pub mac: Vec<u8>,
    pub addresses: BTreeSet<(IpAddr, u8)>,
}

/// The bridge as a snapshot of the host shows it: only whether it is another than before matters, the bridge itself is looked
/// at then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// Index of the interface, and whether it is up.
    pub link: Option<(u32, bool)>,
    pub addresses: BTreeSet<(IpAddr, u8)>,
    pub ports: BTreeSet<u32>,
}

/// What is remembered of it over a restart, for one run of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub boot: String,
    pub bridge: String,
    pub index: u32,
    pub mtu: u32,
    pub mac: Vec<u8>,
    pub ports: BTreeSet<u32>,
}

/// One thing to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Make { mtu: u32, mac: Vec<u8> },
    Up,
    Attach(u32),
    Address(IpAddr, u8),
}

/// What follows from a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    pub steps: Vec<Step>,
    /// When to look again, although nothing has changed.
    pub again: Option<Instant>,
    /// What cannot be mended, or must be mended again and again.
    pub problem: Option<Diagnostic>,
}

/// Follows the bridge.
#[derive(Clone, Debug)]
pub struct Keeper {
    record: Record,
    /// Ports that were detached a moment ago: a bridge that is deleted loses them first.
    detached: BTreeMap<u32, Instant>,
    /// Gateway addresses that the bridge has had.
    had: BTreeSet<IpAddr>,
    /// Since when a bridge with ports has lacked an address that it never had: the plugin may be about to add it.
    lacking: Option<Instant>,
    /// When something was mended.
    mended: VecDeque<Instant>,
}

impl Keeper {
    /// With what the last run has written down, if it was in this run of the host.
    pub fn new(boot: &str, bridge: &str, last: Option<Record>) -> Self {
        let fits = |r: &Record| r.boot == boot && r.bridge == bridge;
        let record = last.filter(fits).unwrap_or_else(|| Record {
            boot: boot.into(),
            bridge: bridge.into(),
            ..Record::default()
        });
        Self {
            record,
            detached: BTreeMap::new(),
            had: BTreeSet::new(),
            lacking: None,
            mended: VecDeque::new(),
        }
    }

    /// To be written down.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether a pod of this run of the host may be there.
    pub fn has_pods(&self, seen: &Seen) -> bool {
        !seen.ports.is_empty() || self.orphans(seen).next().is_some()
    }

    /// Ports of a former bridge that nothing holds now.
    fn orphans<'a>(&'a self, seen: &'a Seen) -> impl Iterator<Item = u32> + 'a {
        self.record.ports.iter().chain(self.detached.keys()).copied().filter(|p| seen.loose.contains(p))
    }

    /// One look: `ranges` are those whose gateway addresses belong on the bridge.
    pub fn turn(&mut self, now: Instant, seen: &Seen, ranges: &[Prefix]) -> Turn {
        self.detached.retain(|_, at| now < *at + DETACHED);
        let Some(link) = &seen.link else { return self.gone(now, seen, ranges) };
        if !link.is_bridge {
            let problem = Diagnostic::new(
                Reason::PodBridgeBroken,
                Subject::interface(&self.record.bridge),
                format!("interface {} is no bridge: no pod can start", self.record.bridge),
                "remove it, or set cni.bridge to another name",
            );
            return Turn { problem: Some(problem), ..Turn::default() };
        }
        let anew = link.index != self.record.index;
        let orphans: BTreeSet<_> = if anew { self.orphans(seen).collect() } else { BTreeSet::new() };
        if anew {
            (self.had, self.lacking) = (BTreeSet::new(), None);
        } else {
            let left = self.record.ports.difference(&seen.ports).map(|p| (*p, now));
            self.detached.extend(left);
        }
        self.record.index = link.index;
        (self.record.mtu, self.record.mac) = (link.mtu, link.mac.clone());
        self.record.ports = seen.ports.union(&orphans).copied().collect();
        let mut turn = Turn::default();
        if self.record.ports.is_empty() {
            self.lacking = None;
            return turn;
        }
        turn.steps.extend((!link.up).then_some(Step::Up));
        turn.steps.extend(orphans.into_iter().map(Step::Attach));
        turn.steps.extend(self.addresses(now, link, ranges, &mut turn.again));
        self.limit(now, turn)
    }

    /// The gateway addresses that the bridge has lost. One that it never had is left to the plugin for a while: between
    /// attaching its first port and adding the address it would fail over one that is there.
    fn addresses(
        &mut self,
        now: Instant,
        link: &Link,
        ranges: &[Prefix],
        again: &mut Option<Instant>,
    ) -> Vec<Step> {
        let gateways = || ranges.iter().filter_map(|r| Some((conflist::gateway(*r)?, r.len())));
        let (there, missing): (BTreeSet<_>, BTreeSet<_>) =
            gateways().partition(|address| link.addresses.contains(address));
        self.had.extend(there.iter().map(|(addr, _)| addr));
        let (lost, new): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|(addr, _)| self.had.contains(addr));
        let mut due = lost;
        if new.is_empty() {
            self.lacking = None;
        } else {
            let until = *self.lacking.get_or_insert(now) + PLUGIN;
            if now < until {
                *again = Some(until);
            } else {
                due.extend(new);
            }
        }
        due.into_iter().map(|(addr, len)| Step::Address(addr, len)).collect()
    }

    /// There is no bridge: one is made where pods hang loose.
    fn gone(&mut self, now: Instant, seen: &Seen, ranges: &[Prefix]) -> Turn {
        let orphans: BTreeSet<_> = self.orphans(seen).collect();
        if orphans.is_empty() {
            self.record.ports = BTreeSet::new();
            return Turn::default();
        }
        self.record.ports.clone_from(&orphans);
        let make = Step::Make { mtu: self.record.mtu, mac: self.record.mac.clone() };
        let gateways = ranges.iter().filter_map(|r| Some(Step::Address(conflist::gateway(*r)?, r.len())));
        let steps = [make, Step::Up].into_iter().chain(orphans.into_iter().map(Step::Attach)).chain(gateways);
        self.limit(now, Turn { steps: steps.collect(), ..Turn::default() })
    }

    /// Mends at once, unless somebody undoes it again and again.
    fn limit(&mut self, now: Instant, mut turn: Turn) -> Turn {
        self.mended.retain(|at| now < *at + FIGHT);
        let fights = self.mended.len() >= MENDED;
        if fights {
            turn.problem = Some(Diagnostic::new(
                Reason::PodBridgeConflict,
                Subject::interface(&self.record.bridge),
                format!(
                    "something keeps taking down the pods' bridge {} or its addresses; each time they are put \
                     back",
                    self.record.bridge
                ),
                "find out which program, and stop it",
            ));
            let until = self.mended.back().map_or(now, |last| *last + PAUSE);
            if !turn.steps.is_empty() && now < until {
                turn.steps.clear();
                turn.again = Some(turn.again.map_or(until, |at| at.min(until)));
            }
        }
        if !turn.steps.is_empty() {
            self.mended.push_back(now);
        }
        turn
    }
}

/// The port of a bridge that is deleted is seen without it a moment before the bridge goes.
const DETACHED: Duration = Duration::from_secs(5);
/// Longer than the plugin takes from the first port to the address.
const PLUGIN: Duration = Duration::from_secs(2);
/// So often within this time is no accident.
const MENDED: usize = 4;
const FIGHT: Duration = Duration::from_secs(60);
/// Then it is mended at most so often.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Vec<Prefix> {
        ["10.244.1.0/24", "fd00:244:1::/64"].map(|p| p.parse().unwrap()).into()
    }

    fn address(text: &str) -> (IpAddr, u8) {
        let (addr, len) = text.split_once('/').unwrap();
        (addr.parse().unwrap(), len.parse().unwrap())
    }

    /// With both gateway addresses.
    fn whole(index: u32, ports: &[u32]) -> Seen {
        let link = Link {
            index,
            is_bridge: true,
            up: true,
            mtu: 1400,
            mac: vec![2, 0, 0, 0, 0, 7],
            addresses: ["10.244.1.1/24", "fd00:244:1::1/64"].map(address).into(),
        };
        Seen { link: Some(link), ports: ports.iter().copied().collect(), loose: BTreeSet::new() }
    }

    fn without(mut seen: Seen, addr: &str) -> Seen {
        seen.link.as_mut().unwrap().addresses.remove(&address(addr));
        seen
    }

    #[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
    fn start() -> (Instant, Keeper) {
        (Instant::now(), Keeper::new("boot", "routelet0", None))
    }

    #[test]
    fn kubernetes_67183_what_the_bridge_loses_while_pods_hang_on_it_is_put_back_at_once() {
        let (now, mut keeper) = start();
        assert_eq!(keeper.turn(now, &whole(7, &[8]), &ranges()), Turn::default());
        for (lost, len) in [("10.244.1.1", 24), ("fd00:244:1::1", 64)] {
            let seen = without(whole(7, &[8]), &format!("{lost}/{len}"));
            let mut one = keeper.clone();
            let turn = one.turn(now, &seen, &ranges());
            assert_eq!(turn.steps, [Step::Address(lost.parse().unwrap(), len)]);
        }
        let mut down = whole(7, &[8]);
        down.link.as_mut().unwrap().up = false;
        // The kernel takes the IPv6 addresses of an interface that goes down.
        let down = without(down, "fd00:244:1::1/64");
        let turn = keeper.turn(now, &down, &ranges());
        assert_eq!(turn.steps, [Step::Up, Step::Address("fd00:244:1::1".parse().unwrap(), 64)]);
        // Without pods it is the plugin's.
        let (_, mut idle) = start();
        idle.turn(now, &whole(7, &[]), &ranges());
        let bare = without(without(whole(7, &[]), "10.244.1.1/24"), "fd00:244:1::1/64");
        assert_eq!(idle.turn(now, &bare, &ranges()), Turn::default());
    }

    #[test]
    fn an_address_that_was_never_there_is_left_to_the_plugin_for_a_while() {
        let (now, mut keeper) = start();
        let bare = without(without(whole(7, &[8]), "10.244.1.1/24"), "fd00:244:1::1/64");
        let turn = keeper.turn(now, &bare, &ranges());
        assert_eq!((turn.steps, turn.again), (vec![], Some(now + PLUGIN)));
        // The plugin does its work.
        assert_eq!(keeper.turn(now + PLUGIN / 2, &whole(7, &[8]), &ranges()), Turn::default());
        let (now, mut keeper) = start();
        keeper.turn(now, &bare, &ranges());
        assert_eq!(keeper.turn(now + PLUGIN, &bare, &ranges()).steps.len(), 2, "or it does not");
    }

    #[test]
    fn a_bridge_that_is_deleted_is_made_again_for_the_pods_that_hung_on_it() {
        let (now, mut keeper) = start();
        keeper.turn(now, &whole(7, &[8, 9]), &ranges());
        // It loses its ports before it goes.
        keeper.turn(now, &Seen { loose: [8, 9].into(), ..whole(7, &[]) }, &ranges());
        let gone = Seen { loose: [2, 8, 9].into(), ..Seen::default() };
        assert!(keeper.has_pods(&gone));
        let mut restarted = Keeper::new("boot", "routelet0", Some(keeper.record().clone()));
        let turn = keeper.turn(now, &gone, &ranges());
        let made = [
            Step::Make { mtu: 1400, mac: vec![2, 0, 0, 0, 0, 7] },
            Step::Up,
            Step::Attach(8),
            Step::Attach(9),
            Step::Address("10.244.1.1".parse().unwrap(), 24),
            Step::Address("fd00:244:1::1".parse().unwrap(), 64),
        ];
        assert_eq!(turn.steps, made);
        assert_eq!(keeper.turn(now, &whole(11, &[8, 9]), &ranges()), Turn::default());
        // One that had not seen the ports go does the same from its record, if they were in it.
        restarted.record.ports = [8, 9].into();
        assert_eq!(restarted.turn(now, &gone, &ranges()).steps, made);

        // The plugin was faster: the others are attached to its bridge, which keeps its addresses.
        let (now, mut keeper) = start();
        keeper.turn(now, &whole(7, &[8, 9]), &ranges());
        let anew = Seen { loose: [8, 9].into(), ..whole(11, &[12]) };
        assert_eq!(keeper.turn(now, &anew, &ranges()).steps, [Step::Attach(8), Step::Attach(9)]);
        assert_eq!(keeper.record().ports, [8, 9, 12].into());
    }

    #[test]
    fn nothing_is_made_for_pods_that_are_gone_nor_taken_from_whom_it_belongs_to() {
        let (now, mut keeper) = start();
        keeper.turn(now, &whole(7, &[8]), &ranges());
        // The pod went, then the bridge; and one that another agent has taken over.
        assert_eq!(
            keeper.turn(now, &Seen { loose: [2].into(), ..Seen::default() }, &ranges()),
            Turn::default()
        );
        // Another run of the host, another bridge: their ports are no ports of ours.
        let record = Record { ports: [8].into(), index: 7, ..keeper.record().clone() };
        let loose = Seen { loose: [8].into(), ..Seen::default() };
        for (boot, bridge) in [("another", "routelet0"), ("boot", "br1")] {
            let mut fresh = Keeper::new(boot, bridge, Some(record.clone()));
            assert_eq!(fresh.turn(now, &loose, &ranges()), Turn::default(), "{boot} {bridge}");
        }
        // A port that somebody takes off the bridge stays off.
        let (now, mut keeper) = start();
        keeper.turn(now, &whole(7, &[8, 9]), &ranges());
        let off = Seen { loose: [9].into(), ..whole(7, &[8]) };
        assert_eq!(keeper.turn(now, &off, &ranges()), Turn::default());
        assert_eq!(keeper.turn(now + DETACHED * 2, &off, &ranges()), Turn::default());
        let anew = Seen { loose: [9].into(), ..whole(11, &[8]) };
        assert_eq!(keeper.turn(now + DETACHED * 2, &anew, &ranges()), Turn::default());
    }

    #[test]
    fn a_fight_is_named_and_slowed_down_and_peace_ends_it() {
        let (start, mut keeper) = start();
        keeper.turn(start, &whole(7, &[8]), &ranges());
        let lost = without(whole(7, &[8]), "10.244.1.1/24");
        let mut mends = 0;
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            let turn = keeper.turn(now, &lost, &ranges());
            mends += turn.steps.len();
            assert_eq!(turn.problem.is_some(), second >= MENDED as u64, "{second}");
        }
        assert!((10..=MENDED + 12).contains(&mends), "{mends}");
        let later = start + Duration::from_secs(60) + FIGHT;
        assert_eq!(keeper.turn(later, &whole(7, &[8]), &ranges()), Turn::default());
    }

    #[test]
    fn another_kind_of_interface_is_named() {
        let (now, mut keeper) = start();
        let mut seen = whole(7, &[]);
        seen.link.as_mut().unwrap().is_bridge = false;
        assert!(keeper.turn(now, &seen, &ranges()).problem.unwrap().contains("cni.bridge"));
    }
}
