//! The pods' bridge: detects what is missing, and computes the steps that repair it.
//!
//! The `bridge` plugin creates the bridge for the first pod and adds the gateway address of each
//! range. After that nothing maintains it: if an address is flushed, or the bridge is set down or
//! deleted, every pod of the node is disconnected until the next pod is created, or permanently if
//! the bridge is gone. We therefore keep it as the plugin left it while pods are attached. Without
//! pods, the plugin creates it again when needed.
//!
//! Pods are identified by their ports, as in [`super::former`]. Deleting a bridge leaves its ports
//! without a master; they are attached again, to a replacement, or to the bridge that the plugin
//! has created meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::conflist;
use crate::net::{Diagnostic, Prefix, Reason, Subject};

/// The bridge in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeState {
    pub link: Option<Link>,
    /// Interfaces attached to it.
    pub ports: BTreeSet<u32>,
    /// Interfaces attached to no bridge.
    pub loose: BTreeSet<u32>,
}

/// The interface of the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    /// Whether it is a bridge, rather than another kind of interface with this name.
    pub is_bridge: bool,
    pub up: bool,
    pub mtu: u32,
    pub mac: Vec<u8>,
    pub addresses: BTreeSet<(IpAddr, u8)>,
}

/// The bridge as a snapshot of the host shows it. It is only compared with the previous one: on a
/// change the bridge itself is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeSnapshot {
    /// Index of the interface, and whether it is up.
    pub link: Option<(u32, bool)>,
    pub addresses: BTreeSet<(IpAddr, u8)>,
    pub ports: BTreeSet<u32>,
}

/// State that is kept across restarts, for one boot of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub boot: String,
    pub bridge: String,
    pub index: u32,
    pub mtu: u32,
    pub mac: Vec<u8>,
    pub ports: BTreeSet<u32>,
}

/// A repair, in the order of execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairStep {
    Create { mtu: u32, mac: Vec<u8> },
    Up,
    Attach(u32),
    Address(IpAddr, u8),
}

/// The result of comparing the bridge with its wanted state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    pub steps: Vec<RepairStep>,
    /// When to check again even if nothing has changed.
    pub check_at: Option<Instant>,
    /// What cannot be repaired, or must be repaired repeatedly.
    pub problem: Option<Diagnostic>,
}

/// Tracks the bridge.
#[derive(Clone, Debug)]
pub struct BridgeMonitor {
    record: Record,
    /// Ports that were detached recently: a bridge loses its ports before it is deleted.
    detached: BTreeMap<u32, Instant>,
    /// Gateway addresses that the bridge had at some time.
    had: BTreeSet<IpAddr>,
    /// Since when a bridge with ports has lacked an address that it never had; the plugin may be
    /// about to add it.
    lacking: Option<Instant>,
    /// Times of recent repairs.
    repairs: VecDeque<Instant>,
}

impl BridgeMonitor {
    /// Starts with the record of the previous run if it is of this boot of the host.
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
            repairs: VecDeque::new(),
        }
    }

    /// The state to save.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether a pod of this boot of the host may exist.
    pub fn has_pods(&self, seen: &BridgeState) -> bool {
        !seen.ports.is_empty() || self.orphans(seen).next().is_some()
    }

    /// Ports of a former bridge that have no master now.
    fn orphans<'a>(&'a self, seen: &'a BridgeState) -> impl Iterator<Item = u32> + 'a {
        self.record.ports.iter().chain(self.detached.keys()).copied().filter(|p| seen.loose.contains(p))
    }

    /// Compares the bridge with its wanted state; `ranges` are those whose gateway addresses belong
    /// on it.
    pub fn reconcile(&mut self, now: Instant, seen: &BridgeState, ranges: &[Prefix]) -> Reaction {
        self.detached.retain(|_, at| now < *at + DETACHED_MAX_AGE);
        let Some(link) = &seen.link else { return self.gone(now, seen, ranges) };
        if !link.is_bridge {
            let problem = Diagnostic::new(
                Reason::PodBridgeBroken,
                Subject::interface(&self.record.bridge),
                format!("interface {} is no bridge: no pod can start", self.record.bridge),
                "remove it, or set cni.bridge to another name",
            );
            return Reaction { problem: Some(problem), ..Reaction::default() };
        }
        let is_new = link.index != self.record.index;
        let orphans: BTreeSet<_> = if is_new { self.orphans(seen).collect() } else { BTreeSet::new() };
        if is_new {
            (self.had, self.lacking) = (BTreeSet::new(), None);
        } else {
            let left = self.record.ports.difference(&seen.ports).map(|p| (*p, now));
            self.detached.extend(left);
        }
        self.record.index = link.index;
        (self.record.mtu, self.record.mac) = (link.mtu, link.mac.clone());
        self.record.ports = seen.ports.union(&orphans).copied().collect();
        let mut reaction = Reaction::default();
        if self.record.ports.is_empty() {
            self.lacking = None;
            return reaction;
        }
        reaction.steps.extend((!link.up).then_some(RepairStep::Up));
        reaction.steps.extend(orphans.into_iter().map(RepairStep::Attach));
        reaction.steps.extend(self.addresses(now, link, ranges, &mut reaction.check_at));
        self.limit(now, reaction)
    }

    /// Steps that restore lost gateway addresses. An address that the bridge never had is left to
    /// the plugin for a while: the plugin fails if the address appears between attaching its first
    /// port and adding it.
    fn addresses(
        &mut self,
        now: Instant,
        link: &Link,
        ranges: &[Prefix],
        check_at: &mut Option<Instant>,
    ) -> Vec<RepairStep> {
        let gateways = || ranges.iter().filter_map(|r| Some((conflist::gateway(*r)?, r.len())));
        let (present, missing): (BTreeSet<_>, BTreeSet<_>) =
            gateways().partition(|address| link.addresses.contains(address));
        self.had.extend(present.iter().map(|(addr, _)| addr));
        let (lost, new): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|(addr, _)| self.had.contains(addr));
        let mut due = lost;
        if new.is_empty() {
            self.lacking = None;
        } else {
            let until = *self.lacking.get_or_insert(now) + PLUGIN_TIMEOUT;
            if now < until {
                *check_at = Some(until);
            } else {
                due.extend(new);
            }
        }
        due.into_iter().map(|(addr, len)| RepairStep::Address(addr, len)).collect()
    }

    /// The bridge does not exist: it is created again if ports have no master.
    fn gone(&mut self, now: Instant, seen: &BridgeState, ranges: &[Prefix]) -> Reaction {
        let orphans: BTreeSet<_> = self.orphans(seen).collect();
        if orphans.is_empty() {
            self.record.ports = BTreeSet::new();
            return Reaction::default();
        }
        self.record.ports.clone_from(&orphans);
        let create = RepairStep::Create { mtu: self.record.mtu, mac: self.record.mac.clone() };
        let gateways =
            ranges.iter().filter_map(|r| Some(RepairStep::Address(conflist::gateway(*r)?, r.len())));
        let steps = [create, RepairStep::Up]
            .into_iter()
            .chain(orphans.into_iter().map(RepairStep::Attach))
            .chain(gateways);
        self.limit(now, Reaction { steps: steps.collect(), ..Reaction::default() })
    }

    /// Repairs at once, unless another program keeps reverting it.
    fn limit(&mut self, now: Instant, mut reaction: Reaction) -> Reaction {
        self.repairs.retain(|at| now < *at + REPAIR_WINDOW);
        if self.repairs.len() >= MAX_REPAIRS {
            reaction.problem = Some(Diagnostic::new(
                Reason::PodBridgeConflict,
                Subject::interface(&self.record.bridge),
                format!(
                    "another program keeps changing the pods' bridge {} or its addresses, and routelet restores \
                     them",
                    self.record.bridge
                ),
                "find out which program, and stop it",
            ));
            let until = self.repairs.back().map_or(now, |last| *last + REPAIR_INTERVAL);
            if !reaction.steps.is_empty() && now < until {
                reaction.steps.clear();
                reaction.check_at = Some(reaction.check_at.map_or(until, |at| at.min(until)));
            }
        }
        if !reaction.steps.is_empty() {
            self.repairs.push_back(now);
        }
        reaction
    }
}

/// How long a detached port counts as belonging to the bridge: when a bridge is deleted, its ports
/// are seen without it before.
const DETACHED_MAX_AGE: Duration = Duration::from_secs(5);
/// How long the plugin may take from attaching its first port to adding the address.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(2);
/// More repairs than this within [`REPAIR_WINDOW`] mean that another program interferes.
const MAX_REPAIRS: usize = 4;
const REPAIR_WINDOW: Duration = Duration::from_secs(60);
/// Interval between repairs while another program interferes.
const REPAIR_INTERVAL: Duration = Duration::from_secs(5);

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

    /// A bridge with both gateway addresses.
    fn whole(index: u32, ports: &[u32]) -> BridgeState {
        let link = Link {
            index,
            is_bridge: true,
            up: true,
            mtu: 1400,
            mac: vec![2, 0, 0, 0, 0, 7],
            addresses: ["10.244.1.1/24", "fd00:244:1::1/64"].map(address).into(),
        };
        BridgeState { link: Some(link), ports: ports.iter().copied().collect(), loose: BTreeSet::new() }
    }

    fn without(mut seen: BridgeState, addr: &str) -> BridgeState {
        seen.link.as_mut().unwrap().addresses.remove(&address(addr));
        seen
    }

    #[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
    fn start() -> (Instant, BridgeMonitor) {
        (Instant::now(), BridgeMonitor::new("boot", "routelet0", None))
    }

    #[test]
    fn kubernetes_67183_what_the_bridge_loses_while_pods_are_attached_is_restored_at_once() {
        let (now, mut monitor) = start();
        assert_eq!(monitor.reconcile(now, &whole(7, &[8]), &ranges()), Reaction::default());
        for (lost, len) in [("10.244.1.1", 24), ("fd00:244:1::1", 64)] {
            let seen = without(whole(7, &[8]), &format!("{lost}/{len}"));
            let mut one = monitor.clone();
            let reaction = one.reconcile(now, &seen, &ranges());
            assert_eq!(reaction.steps, [RepairStep::Address(lost.parse().unwrap(), len)]);
        }
        let mut down = whole(7, &[8]);
        down.link.as_mut().unwrap().up = false;
        // The kernel removes the IPv6 addresses of an interface that is set down.
        let down = without(down, "fd00:244:1::1/64");
        let reaction = monitor.reconcile(now, &down, &ranges());
        assert_eq!(
            reaction.steps,
            [RepairStep::Up, RepairStep::Address("fd00:244:1::1".parse().unwrap(), 64)]
        );
        // Without pods nothing is repaired.
        let (_, mut idle) = start();
        idle.reconcile(now, &whole(7, &[]), &ranges());
        let bare = without(without(whole(7, &[]), "10.244.1.1/24"), "fd00:244:1::1/64");
        assert_eq!(idle.reconcile(now, &bare, &ranges()), Reaction::default());
    }

    #[test]
    fn an_address_that_was_never_there_is_left_to_the_plugin_for_a_while() {
        let (now, mut monitor) = start();
        let bare = without(without(whole(7, &[8]), "10.244.1.1/24"), "fd00:244:1::1/64");
        let reaction = monitor.reconcile(now, &bare, &ranges());
        assert_eq!((reaction.steps, reaction.check_at), (vec![], Some(now + PLUGIN_TIMEOUT)));
        // The plugin adds the address.
        assert_eq!(
            monitor.reconcile(now + PLUGIN_TIMEOUT / 2, &whole(7, &[8]), &ranges()),
            Reaction::default()
        );
        let (now, mut monitor) = start();
        monitor.reconcile(now, &bare, &ranges());
        assert_eq!(
            monitor.reconcile(now + PLUGIN_TIMEOUT, &bare, &ranges()).steps.len(),
            2,
            "the plugin did not add it"
        );
    }

    #[test]
    fn a_deleted_bridge_is_created_again_for_its_pods() {
        let (now, mut monitor) = start();
        monitor.reconcile(now, &whole(7, &[8, 9]), &ranges());
        // It loses its ports before it is deleted.
        monitor.reconcile(now, &BridgeState { loose: [8, 9].into(), ..whole(7, &[]) }, &ranges());
        let gone = BridgeState { loose: [2, 8, 9].into(), ..BridgeState::default() };
        assert!(monitor.has_pods(&gone));
        let mut restarted = BridgeMonitor::new("boot", "routelet0", Some(monitor.record().clone()));
        let reaction = monitor.reconcile(now, &gone, &ranges());
        let made = [
            RepairStep::Create { mtu: 1400, mac: vec![2, 0, 0, 0, 0, 7] },
            RepairStep::Up,
            RepairStep::Attach(8),
            RepairStep::Attach(9),
            RepairStep::Address("10.244.1.1".parse().unwrap(), 24),
            RepairStep::Address("fd00:244:1::1".parse().unwrap(), 64),
        ];
        assert_eq!(reaction.steps, made);
        assert_eq!(monitor.reconcile(now, &whole(11, &[8, 9]), &ranges()), Reaction::default());
        // After a restart the record leads to the same steps.
        restarted.record.ports = [8, 9].into();
        assert_eq!(restarted.reconcile(now, &gone, &ranges()).steps, made);

        // The plugin was faster: ports are attached to its bridge, which keeps its addresses.
        let (now, mut monitor) = start();
        monitor.reconcile(now, &whole(7, &[8, 9]), &ranges());
        let replaced = BridgeState { loose: [8, 9].into(), ..whole(11, &[12]) };
        assert_eq!(
            monitor.reconcile(now, &replaced, &ranges()).steps,
            [RepairStep::Attach(8), RepairStep::Attach(9)]
        );
        assert_eq!(monitor.record().ports, [8, 9, 12].into());
    }

    #[test]
    fn nothing_is_created_for_deleted_pods_nor_taken_from_other_bridges() {
        let (now, mut monitor) = start();
        monitor.reconcile(now, &whole(7, &[8]), &ranges());
        // The pod was deleted, then the bridge.
        assert_eq!(
            monitor.reconcile(now, &BridgeState { loose: [2].into(), ..BridgeState::default() }, &ranges()),
            Reaction::default()
        );
        // Ports of another boot, or of another bridge, are not ours.
        let record = Record { ports: [8].into(), index: 7, ..monitor.record().clone() };
        let loose = BridgeState { loose: [8].into(), ..BridgeState::default() };
        for (boot, bridge) in [("another", "routelet0"), ("boot", "br1")] {
            let mut fresh = BridgeMonitor::new(boot, bridge, Some(record.clone()));
            assert_eq!(fresh.reconcile(now, &loose, &ranges()), Reaction::default(), "{boot} {bridge}");
        }
        // A port that was detached on purpose stays detached.
        let (now, mut monitor) = start();
        monitor.reconcile(now, &whole(7, &[8, 9]), &ranges());
        let off = BridgeState { loose: [9].into(), ..whole(7, &[8]) };
        assert_eq!(monitor.reconcile(now, &off, &ranges()), Reaction::default());
        assert_eq!(monitor.reconcile(now + DETACHED_MAX_AGE * 2, &off, &ranges()), Reaction::default());
        let replaced = BridgeState { loose: [9].into(), ..whole(11, &[8]) };
        assert_eq!(monitor.reconcile(now + DETACHED_MAX_AGE * 2, &replaced, &ranges()), Reaction::default());
    }

    #[test]
    fn repeated_repairs_are_reported_and_slowed_down_until_they_stop() {
        let (start, mut monitor) = start();
        monitor.reconcile(start, &whole(7, &[8]), &ranges());
        let lost = without(whole(7, &[8]), "10.244.1.1/24");
        let mut repairs = 0;
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            let reaction = monitor.reconcile(now, &lost, &ranges());
            repairs += reaction.steps.len();
            assert_eq!(reaction.problem.is_some(), second >= MAX_REPAIRS as u64, "{second}");
        }
        assert!((10..=MAX_REPAIRS + 12).contains(&repairs), "{repairs}");
        let later = start + Duration::from_secs(60) + REPAIR_WINDOW;
        assert_eq!(monitor.reconcile(later, &whole(7, &[8]), &ranges()), Reaction::default());
    }

    #[test]
    fn an_interface_of_another_kind_is_reported() {
        let (now, mut monitor) = start();
        let mut seen = whole(7, &[]);
        seen.link.as_mut().unwrap().is_bridge = false;
        assert!(monitor.reconcile(now, &seen, &ranges()).problem.unwrap().contains("cni.bridge"));
    }
}
