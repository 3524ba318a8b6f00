//! Carries out what [`Keeper`] finds the pods' bridge to lack, and looks after the leases of its pods.

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
    cni::bridge::{Keeper, Record, Seen, Step},
    net::{Diagnostic, Prefix, Reason, Subject},
    state::io as state,
};

/// Of the state folder.
pub const FILE: &str = "pods.json";
/// Without a word of a change the bridge is looked at so often.
const LOOK: Duration = Duration::from_secs(10);
/// What could not be mended is tried again after so long.
const AGAIN: Duration = Duration::from_secs(2);

/// What came of a look.
#[derive(Clone, Debug, Default)]
pub(super) struct Looked {
    /// What the operator should know.
    pub(super) problems: Vec<Diagnostic>,
    /// When to look again.
    pub(super) until: Option<Instant>,
    /// There is no bridge now, although pods hang loose: nothing is known of their ranges.
    pub(super) in_pieces: bool,
}

/// Looks after the bridge of the conflist that is in the folder.
pub(super) struct Tender {
    file: PathBuf,
    boot: String,
    keeper: Keeper,
    saved: Option<Record>,
    leases: Option<Leases>,
    due: Option<Instant>,
    last: Looked,
    pods: usize,
}

impl Tender {
    pub(super) fn new(options: &ConflistOptions, leases: Option<PathBuf>) -> Self {
        let file = options.state_dir.join(FILE);
        let boot = former::boot_id();
        let saved: Option<Record> = state::read(&file).and_then(|b| serde_json::from_slice(&b).ok());
        let bridge = saved.as_ref().map(|r| r.bridge.clone()).unwrap_or_default();
        Self {
            keeper: Keeper::new(&boot, &bridge, saved.clone()),
            leases: leases.map(|dir| Leases::new(&dir, &options.state_dir)),
            file,
            boot,
            saved,
            due: None,
            last: Looked::default(),
            pods: 0,
        }
    }

    /// `ranges` are those whose gateway addresses belong on the bridge, `held` all in which pods may be. `changed`: something
    /// happened to the bridge.
    pub(super) async fn turn(
        &mut self,
        bridge: &str,
        ranges: &[Prefix],
        held: &[Prefix],
        changed: bool,
    ) -> Looked {
        let now = Instant::now();
        if bridge != self.keeper.record().bridge {
            self.keeper = Keeper::new(&self.boot, bridge, self.saved.clone());
            self.due = None;
        }
        if changed || self.due.is_none_or(|due| now >= due) {
            self.last = self.look(now, bridge, ranges).await;
            self.due = Some(self.last.until.map_or(now + LOOK, |at| at.min(now + LOOK)));
        }
        let facts = Facts {
            boot: self.boot.clone(),
            bridge: bridge.to_owned(),
            pods: self.pods,
            ranges: held.to_vec(),
        };
        let mut looked = self.last.clone();
        if let Some(leases) = &mut self.leases {
            looked.problems.extend(leases.turn(facts).await.iter().cloned());
        }
        looked.until = self.due;
        looked
    }

    async fn look(&mut self, now: Instant, bridge: &str, ranges: &[Prefix]) -> Looked {
        let seen = match bridge::look(bridge).await {
            Ok(seen) => seen,
            Err(error) => {
                warn!(%error, bridge, "cannot look at the pods' bridge, trying again");
                // Nobody knows: no lease is cleared.
                self.pods = self.pods.max(1);
                return Looked { until: Some(now + AGAIN), in_pieces: true, ..Looked::default() };
            }
        };
        self.pods = seen.ports.len() + usize::from(seen.ports.is_empty() && self.keeper.has_pods(&seen));
        let turn = self.keeper.turn(now, &seen, ranges);
        let mut looked =
            Looked { problems: turn.problem.into_iter().collect(), until: turn.again, in_pieces: false };
        if !turn.steps.is_empty() {
            let failed = bridge::mend(bridge, &turn.steps).await;
            match failed {
                Ok(()) => info!(bridge, mended = ?turn.steps, "pods' bridge mended"),
                Err((step, error)) => {
                    looked.problems.push(cannot(bridge, &step, &error));
                    looked.until = Some(now + AGAIN);
                    looked.in_pieces = seen.link.is_none();
                }
            }
        } else if seen.link.is_none() && self.keeper.has_pods(&seen) {
            looked.in_pieces = true;
        }
        self.save(&seen);
        looked
    }

    fn save(&mut self, seen: &Seen) {
        let record = self.keeper.record();
        // Of a bridge that nobody ever made there is nothing to remember.
        if self.saved.as_ref() == Some(record) || self.saved.is_none() && seen.link.is_none() {
            return;
        }
        self.saved = Some(record.clone());
        state::keep(&self.file, serde_json::to_vec(record).unwrap_or_default(), 0o600);
    }
}

fn cannot(bridge: &str, step: &Step, error: &rtnetlink::Error) -> Diagnostic {
    let (text, remedy) = match step {
        Step::Address(addr, len) if addr.is_ipv6() => (
            format!(
                "the pods' bridge {bridge} has lost {addr}/{len}, and it cannot be put back: {error}; pods are \
                 not reached over IPv6"
            ),
            format!("is net.ipv6.conf.{bridge}.disable_ipv6 set to 1? Set it to 0"),
        ),
        Step::Address(addr, len) => (
            format!(
                "the pods' bridge {bridge} has lost {addr}/{len}, and it cannot be put back: {error}; pods are \
                 not reached"
            ),
            format!("add it with `ip addr add {addr}/{len} dev {bridge}`"),
        ),
        Step::Up => (
            format!("the pods' bridge {bridge} is down, and cannot be set up: {error}; pods are not reached"),
            format!("run `ip link set {bridge} up`"),
        ),
        Step::Make { .. } | Step::Attach(_) => (
            format!(
                "the pods' bridge {bridge} is gone while pods run, and cannot be made again: {error}; these \
                 pods are not reached"
            ),
            "delete them, and the CNI plugin makes the bridge for the next".to_owned(),
        ),
    };
    Diagnostic::new(Reason::PodBridgeBroken, Subject::interface(bridge), text, remedy)
}
