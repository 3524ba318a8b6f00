//! Keeps former pod CIDRs working while they have pods, as recorded in [`FormerCidrs`], across
//! restarts.

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
        former::{self, FormerCidrs},
    },
    mailbox::publish,
    net::Prefix,
    state::io as state,
};

/// The former pod CIDRs, and the file in which they are saved.
pub(super) struct Former {
    file: PathBuf,
    boot: String,
    kept: FormerCidrs,
    /// Bridge and ranges of the conflist in the folder.
    bridge: String,
    in_file: Vec<Prefix>,
    held: watch::Sender<Arc<BTreeSet<Prefix>>>,
    /// Whether the present failure was logged.
    failure_logged: bool,
    /// Whether the bridge did not exist at the last check.
    missed: bool,
}

impl Former {
    /// Loads the state of the previous run and publishes it at once: the first plan needs it.
    pub(super) fn new(options: &ConflistOptions, held: watch::Sender<Arc<BTreeSet<Prefix>>>) -> Self {
        let boot = boot_id();
        let file = options.state_dir.join(FILE);
        let in_file = std::fs::read(options.path()).ok().and_then(|bytes| conflist::written_for(&bytes));
        let (bridge, in_file) = in_file.unwrap_or_default();
        let kept = read(&file).filter(|k| k.is_of(&boot)).unwrap_or_else(|| FormerCidrs::new(&boot, &bridge));
        let restored = Self { file, boot, kept, bridge, in_file, held, failure_logged: false, missed: false };
        if options.enabled {
            restored.publish();
        }
        restored
    }

    /// Waits until all receivers are dropped.
    pub(super) async fn closed(&self) {
        self.held.closed().await;
    }

    /// Called before the conflist is written with other ranges: these become former ones unless
    /// they are among the `next`.
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
            self.kept = FormerCidrs::new(&self.boot, &next.bridge);
        }
        let seen = bridge::keep_former(&next.bridge, &gone, &next.pod_cidrs, &next.pod_cidrs).await?;
        // Read again after the address was moved: a pod that was being created with the old
        // conflist has its port by now.
        let ports = bridge::keep_former(&next.bridge, &[], &[], &[]).await?.ports;
        let pods = seen.ports.union(&ports).copied().collect();
        gone.iter().for_each(|range| self.kept.keep(*range, &pods));
        info!(bridge = next.bridge, former = ?gone, pods = pods.len(), "pod CIDR changed, keeping the former one until its last pod is gone");
        self.save();
        Ok(())
    }

    /// Records that the file was written for this bridge and these ranges.
    pub(super) fn written(&mut self, bridge: &str, ranges: &[Prefix]) {
        bridge.clone_into(&mut self.bridge);
        self.in_file = ranges.to_vec();
        self.publish();
    }

    /// The bridge for new pods; empty before the first conflist.
    pub(super) fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Ranges whose gateway addresses belong on the bridge: those of the file, and former ones that
    /// do not conflict with them.
    pub(super) fn on_bridge(&self) -> Vec<Prefix> {
        let former =
            self.kept.ranges().filter(|r| self.kept.bridge == self.bridge && !self.in_file.contains(r));
        let compatible = former.filter(|r| !former::conflicts_with(*r, &self.in_file));
        self.in_file.iter().copied().chain(compatible).collect()
    }

    /// Ranges in which pods may have addresses.
    pub(super) fn ranges(&self) -> Vec<Prefix> {
        self.held.borrow().iter().copied().collect()
    }

    /// Repairs what other programs changed, and removes ranges without pods.
    ///
    /// `is_broken`: the bridge is missing although its ports exist, so nothing is known about pods.
    pub(super) async fn maintain(&mut self, wanted: &Conflist, is_broken: bool) {
        if self.kept.is_empty() || is_broken {
            return;
        }
        match self.reconcile(wanted).await {
            Ok(()) => self.failure_logged = false,
            Err(error) if !self.failure_logged => {
                warn!(%error, "cannot maintain former pod CIDRs, retrying; routelet needs NET_ADMIN");
                self.failure_logged = true;
            }
            Err(_) => {}
        }
    }

    async fn reconcile(&mut self, wanted: &Conflist) -> Result<(), rtnetlink::Error> {
        let before = self.kept.clone();
        let bridge = before.bridge.clone();
        let former: Vec<_> = before.ranges().collect();
        // Until the file is rewritten, new pods use its ranges.
        let served: Vec<_> = wanted.pod_cidrs.iter().chain(&self.in_file).copied().collect();
        let seen = bridge::keep_former(&bridge, &former, &served, &self.in_file).await?;
        seen.late.iter().for_each(|range| self.kept.keep(*range, &seen.ports));
        for range in seen.back {
            bridge::release(&bridge, range, false).await?;
            self.kept.forget(range);
            info!(%range, "former pod CIDR is in use again");
        }
        // A deleted bridge may leave ports behind, which are attached again before the next check.
        let first_miss = !std::mem::replace(&mut self.missed, !seen.exists) && !seen.exists;
        let over = if first_miss { Vec::new() } else { self.kept.remove_unused(&seen.ports) };
        for range in over {
            bridge::release(&bridge, range, !served.contains(&range)).await?;
            info!(%range, "former pod CIDR removed, its last pod is gone");
        }
        if self.kept != before {
            self.save();
            self.publish();
        }
        Ok(())
    }

    fn publish(&self) {
        let now: BTreeSet<_> = self.in_file.iter().copied().chain(self.kept.ranges()).collect();
        publish(&self.held, Arc::new(now));
    }

    fn save(&self) {
        state::keep(&self.file, serde_json::to_vec(&self.kept).unwrap_or_default(), 0o600);
    }
}

/// A request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Runtime(#[from] std::io::Error),
    #[error(transparent)]
    Netlink(#[from] rtnetlink::Error),
}

/// Removes addresses and routes of former pod CIDRs, for `routelet cleanup`. Returns the ranges.
///
/// # Errors
///
/// If the kernel rejects a request.
pub fn cleanup(state_dir: &Path) -> Result<Vec<Prefix>, KernelError> {
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

/// Deletes the bridge that the plugin created for these ranges, for `routelet cleanup`, unless pods
/// are attached to it or it has other addresses. Returns whether it was deleted.
///
/// # Errors
///
/// If the kernel rejects a request.
pub fn cleanup_bridge(bridge: &str, ranges: &[Prefix]) -> Result<bool, KernelError> {
    block_on(bridge::remove_idle(bridge, ranges))
}

/// Runs a future to completion, outside of the daemon's runtime.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T, KernelError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work)?)
}

/// File in the state folder.
pub const FILE: &str = "kept.json";

fn read(file: &Path) -> Option<FormerCidrs> {
    serde_json::from_slice(&state::read(file)?).ok()
}

/// ID of this boot, which changes at each reboot.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
