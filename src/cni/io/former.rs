//! Former pod CIDRs with pods in them: carries out what [`Kept`] says, and remembers it over a restart.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{ConflistOptions, bridge};
use crate::{
    cni::{
        conflist::{self, Conflist},
        former::{self, Kept},
    },
    net::Prefix,
    state::io as state,
};

/// What is kept and where it is written down.
pub(super) struct Former {
    file: PathBuf,
    boot: String,
    kept: Kept,
    /// Bridge and ranges of the conflist in the folder.
    bridge: String,
    in_file: Vec<Prefix>,
    held: watch::Sender<Arc<BTreeSet<Prefix>>>,
    /// Whether the log knows that it fails.
    said: bool,
    /// There was no bridge at the last look.
    missed: bool,
}

impl Former {
    /// With what the last run left, which is published at once: the first plan needs it.
    pub(super) fn new(options: &ConflistOptions, held: watch::Sender<Arc<BTreeSet<Prefix>>>) -> Self {
        let boot = boot_id();
        let file = options.state_dir.join(FILE);
        let in_file = std::fs::read(options.path()).ok().and_then(|bytes| conflist::written_for(&bytes));
        let (bridge, in_file) = in_file.unwrap_or_default();
        let kept = read(&file).filter(|k| k.is_of(&boot)).unwrap_or_else(|| Kept::new(&boot, &bridge));
        let restored = Self { file, boot, kept, bridge, in_file, held, said: false, missed: false };
        if options.enabled {
            restored.publish();
        }
        restored
    }

    /// For as long as somebody listens.
    pub(super) async fn closed(&self) {
        self.held.closed().await;
    }

    /// The conflist is about to be written for other ranges than these.
    pub(super) async fn retire(
        &mut self,
        ranges: &[Prefix],
        next: &Conflist,
    ) -> Result<(), rtnetlink::Error> {
        let gone: Vec<_> = ranges.iter().copied().filter(|r| !next.pod_cidrs.contains(r)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        if self.kept.bridge != next.bridge {
            self.kept = Kept::new(&self.boot, &next.bridge);
        }
        let seen = bridge::uphold(&next.bridge, &gone, &next.pod_cidrs, &next.pod_cidrs).await?;
        // After the address went: a pod that is just being made by the old conflist has its port by now.
        let ports = bridge::uphold(&next.bridge, &[], &[], &[]).await?.ports;
        let pods = seen.ports.union(&ports).copied().collect();
        gone.iter().for_each(|range| self.kept.keep(*range, &pods));
        info!(bridge = next.bridge, former = ?gone, pods = pods.len(), "pod CIDR changed: the former one is served until its last pod is gone");
        self.save();
        Ok(())
    }

    /// The file is written for this bridge and these ranges.
    pub(super) fn written(&mut self, bridge: &str, ranges: &[Prefix]) {
        bridge.clone_into(&mut self.bridge);
        self.in_file = ranges.to_vec();
        self.publish();
    }

    /// The bridge on which pods are made now; empty before the first conflist.
    pub(super) fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Ranges whose gateway addresses belong on it: those of the file, and former ones that need not step aside.
    pub(super) fn on_bridge(&self) -> Vec<Prefix> {
        let former =
            self.kept.ranges().filter(|r| self.kept.bridge == self.bridge && !self.in_file.contains(r));
        let beside = former.filter(|r| !former::must_step_aside(*r, &self.in_file));
        self.in_file.iter().copied().chain(beside).collect()
    }

    /// Ranges in which pods may have addresses.
    pub(super) fn ranges(&self) -> Vec<Prefix> {
        self.held.borrow().iter().copied().collect()
    }

    /// Mends what others changed, and lets go of what has no pod left.
    ///
    /// `in_pieces`: pods hang loose, since their bridge is gone; who is there cannot be said.
    pub(super) async fn tend(&mut self, wanted: &Conflist, in_pieces: bool) {
        if self.kept.is_empty() || in_pieces {
            return;
        }
        match self.turn(wanted).await {
            Ok(()) => self.said = false,
            Err(error) if !self.said => {
                warn!(%error, "cannot look after former pod CIDRs, trying again; is there the capability NET_ADMIN?");
                self.said = true;
            }
            Err(_) => {}
        }
    }

    async fn turn(&mut self, wanted: &Conflist) -> Result<(), rtnetlink::Error> {
        let before = self.kept.clone();
        let bridge = before.bridge.clone();
        let former: Vec<_> = before.ranges().collect();
        // Until the file is rewritten its ranges are the ones that pods are made with.
        let served: Vec<_> = wanted.pod_cidrs.iter().chain(&self.in_file).copied().collect();
        let seen = bridge::uphold(&bridge, &former, &served, &self.in_file).await?;
        seen.late.iter().for_each(|range| self.kept.keep(*range, &seen.ports));
        for range in seen.back {
            bridge::release(&bridge, range, false).await?;
            self.kept.forget(range);
            info!(%range, "former pod CIDR is the Node's again");
        }
        // A bridge that goes may leave its pods behind, to be attached again: that is found out by the next look.
        let first_miss = !std::mem::replace(&mut self.missed, !seen.there) && !seen.there;
        let over = if first_miss { Vec::new() } else { self.kept.settle(&seen.ports) };
        for range in over {
            bridge::release(&bridge, range, !served.contains(&range)).await?;
            info!(%range, "the last pod of the former pod CIDR is gone, it is given up");
        }
        if self.kept != before {
            self.save();
            self.publish();
        }
        Ok(())
    }

    fn publish(&self) {
        let now: BTreeSet<_> = self.in_file.iter().copied().chain(self.kept.ranges()).collect();
        self.held.send_if_modified(|last| {
            let changed = **last != now;
            if changed {
                *last = Arc::new(now);
            }
            changed
        });
    }

    fn save(&self) {
        state::keep(&self.file, serde_json::to_vec(&self.kept).unwrap_or_default(), 0o600);
    }
}

/// Removes from the kernel what is kept there, for `routelet cleanup`. Returns the ranges.
///
/// # Errors
///
/// When the kernel refuses.
pub fn cleanup(state_dir: &Path) -> Result<Vec<Prefix>, String> {
    let Some(kept) = read(&state_dir.join(FILE)).filter(|k| k.is_of(&boot_id())) else {
        return Ok(Vec::new());
    };
    let ranges: Vec<_> = kept.ranges().collect();
    block_on(async {
        for range in &ranges {
            bridge::release(&kept.bridge, *range, true).await?;
        }
        Ok(ranges)
    })
}

/// Removes the bridge that the conflist's plugin made for these ranges, for `routelet cleanup`: where pods are attached to it, or it
/// has addresses of others, it stays. Returns whether it went.
///
/// # Errors
///
/// When the kernel refuses.
pub fn cleanup_bridge(bridge: &str, ranges: &[Prefix]) -> Result<bool, String> {
    block_on(bridge::remove_idle(bridge, ranges))
}

/// For commands, not for the daemon.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| e.to_string())?.block_on(work).map_err(|e| e.to_string())
}

/// Of the state folder.
pub const FILE: &str = "kept.json";

fn read(file: &Path) -> Option<Kept> {
    serde_json::from_slice(&state::read(file)?).ok()
}

/// Differs after each reboot.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
