//! Repairs the pods' bridge as [`BridgeMonitor`] decides, and removes stale leases of pods.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    ConflistOptions, bridge, former,
    leases::{Facts, Leases},
};
use crate::{
    cni::bridge::{BridgeMonitor, BridgeState, Record, RepairStep},
    net::{Diagnostic, Prefix, Reason, Subject},
    state::io as state,
};

/// File in the state folder.
pub const FILE: &str = "pods.json";
/// How often to check the bridge without a notification.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Time to the next attempt after a failed repair.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Result of a check.
#[derive(Clone, Debug, Default)]
pub(super) struct Checked {
    /// Problems for the operator.
    pub(super) problems: Vec<Diagnostic>,
    /// When to check again.
    pub(super) until: Option<Instant>,
    /// Whether the bridge is missing although its ports exist: their ranges are then unknown.
    pub(super) is_broken: bool,
}

/// Maintains the bridge of the conflist in the folder.
pub(super) struct BridgeTask {
    file: PathBuf,
    boot: String,
    monitor: BridgeMonitor,
    saved: Option<Record>,
    leases: Option<Leases>,
    due: Option<Instant>,
    last: Checked,
    pods: usize,
}

impl BridgeTask {
    pub(super) fn new(options: &ConflistOptions, leases: Option<PathBuf>) -> Self {
        let file = options.state_dir.join(FILE);
        let boot = former::boot_id();
        let saved: Option<Record> = state::read(&file).and_then(|b| serde_json::from_slice(&b).ok());
        let bridge = saved.as_ref().map(|r| r.bridge.clone()).unwrap_or_default();
        Self {
            monitor: BridgeMonitor::new(&boot, &bridge, saved.clone()),
            leases: leases.map(|dir| Leases::new(&dir, &options.state_dir)),
            file,
            boot,
            saved,
            due: None,
            last: Checked::default(),
            pods: 0,
        }
    }

    /// Checks the bridge if it `changed` or a check is due. `ranges` are those whose gateway
    /// addresses belong on it, `held` all ranges in which pods may have addresses.
    pub(super) async fn maintain(
        &mut self,
        bridge: &str,
        ranges: &[Prefix],
        held: &[Prefix],
        changed: bool,
    ) -> Checked {
        let now = Instant::now();
        if bridge != self.monitor.record().bridge {
            self.monitor = BridgeMonitor::new(&self.boot, bridge, self.saved.clone());
            self.due = None;
        }
        if changed || self.due.is_none_or(|due| now >= due) {
            self.last = self.check(now, bridge, ranges).await;
            self.due = Some(self.last.until.map_or(now + CHECK_INTERVAL, |at| at.min(now + CHECK_INTERVAL)));
        }
        let facts = Facts {
            boot: self.boot.clone(),
            bridge: bridge.to_owned(),
            pods: self.pods,
            ranges: held.to_vec(),
        };
        let mut result = self.last.clone();
        if let Some(leases) = &mut self.leases {
            result.problems.extend(leases.maintain(facts).await.iter().cloned());
        }
        result.until = self.due;
        result
    }

    async fn check(&mut self, now: Instant, bridge: &str, ranges: &[Prefix]) -> Checked {
        let seen = match bridge::read(bridge).await {
            Ok(seen) => seen,
            Err(error) => {
                warn!(%error, bridge, "cannot read the pods' bridge, retrying");
                // The number of pods is unknown: no lease is removed.
                self.pods = self.pods.max(1);
                return Checked { until: Some(now + RETRY_INTERVAL), is_broken: true, ..Checked::default() };
            }
        };
        self.pods = seen.ports.len() + usize::from(seen.ports.is_empty() && self.monitor.has_pods(&seen));
        let reaction = self.monitor.reconcile(now, &seen, ranges);
        let mut result = Checked {
            problems: reaction.problem.into_iter().collect(),
            until: reaction.check_at,
            is_broken: false,
        };
        if !reaction.steps.is_empty() {
            match bridge::repair(bridge, &reaction.steps).await {
                Ok(()) => info!(bridge, steps = ?reaction.steps, "pods' bridge repaired"),
                Err((step, error)) => {
                    result.problems.push(repair_problem(bridge, &step, &error));
                    result.until = Some(now + RETRY_INTERVAL);
                    result.is_broken = seen.link.is_none();
                }
            }
        } else if seen.link.is_none() && self.monitor.has_pods(&seen) {
            result.is_broken = true;
        }
        self.save(&seen);
        result
    }

    fn save(&mut self, seen: &BridgeState) {
        let record = self.monitor.record();
        // There is nothing to save for a bridge that never existed.
        if self.saved.as_ref() == Some(record) || self.saved.is_none() && seen.link.is_none() {
            return;
        }
        self.saved = Some(record.clone());
        state::keep(&self.file, serde_json::to_vec(record).unwrap_or_default(), 0o600);
    }
}

fn repair_problem(bridge: &str, step: &RepairStep, error: &rtnetlink::Error) -> Diagnostic {
    let (text, remedy) = match step {
        RepairStep::Address(addr, len) if addr.is_ipv6() => (
            format!(
                "the pods' bridge {bridge} has lost {addr}/{len}, which cannot be restored: {error}; pods are \
                 unreachable over IPv6"
            ),
            format!("is net.ipv6.conf.{bridge}.disable_ipv6 set to 1? Set it to 0"),
        ),
        RepairStep::Address(addr, len) => (
            format!(
                "the pods' bridge {bridge} has lost {addr}/{len}, which cannot be restored: {error}; pods are \
                 not reached"
            ),
            format!("add it with `ip addr add {addr}/{len} dev {bridge}`"),
        ),
        RepairStep::Up => (
            format!("the pods' bridge {bridge} is down, and cannot be set up: {error}; pods are unreachable"),
            format!("run `ip link set {bridge} up`"),
        ),
        RepairStep::Create { .. } | RepairStep::Attach(_) => (
            format!(
                "the pods' bridge {bridge} was deleted while pods run, and cannot be created again: {error}; these \
                 pods are unreachable"
            ),
            "delete them, and the CNI plugin makes the bridge for the next".to_owned(),
        ),
    };
    Diagnostic::new(Reason::PodBridgeBroken, Subject::interface(bridge), text, remedy)
}
