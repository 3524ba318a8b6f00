//! The task that keeps the table against BGP sessions of containers.

use std::{io, sync::Arc, time::Duration};

use nix::errno::Errno;
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};
use tracing::{info, warn};

use super::socket::{Kernel, Torn};
use crate::{
    net::{Diagnostic, Reason, Subject},
    nft::{
        pod_bgp::{self, TABLE, Wanted},
        wire::Batch,
    },
};

/// Neighbors and bridges change in groups.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Between two looks at whether the table is there, and at its counters.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Starts it. `wanted` is `None` until there is a plan; what only the operator can mend goes to `problems`, and what
/// was dropped to `notes`.
pub fn spawn(
    wanted: watch::Receiver<Option<Arc<Wanted>>>,
    problems: watch::Sender<Vec<Diagnostic>>,
    notes: watch::Sender<Vec<Diagnostic>>,
) -> JoinHandle<()> {
    tokio::spawn(run(wanted, problems, notes))
}

/// Removes the table; whether there was one.
///
/// # Errors
///
/// When the kernel refuses. A kernel without nf_tables has no table.
pub fn cleanup() -> io::Result<bool> {
    let Ok(mut kernel) = Kernel::open() else { return Ok(false) };
    if !kernel.has_table(TABLE).unwrap_or(false) {
        return Ok(false);
    }
    kernel.transact(Batch::remove_bgp).map(|()| true)
}

async fn run(
    mut wanted: watch::Receiver<Option<Arc<Wanted>>>,
    problems: watch::Sender<Vec<Diagnostic>>,
    notes: watch::Sender<Vec<Diagnostic>>,
) {
    let mut table = Table::default();
    loop {
        let now = wanted.borrow_and_update().clone();
        if let Some(now) = now {
            let off = now.is_empty();
            let turn = spawn_blocking(move || {
                let problem = table.turn(&now).err();
                (table, problem)
            });
            let Ok((back, error)) = turn.await else { return };
            table = back;
            publish(&problems, error.and_then(|e| table.failed(&e)).filter(|_| !off).into_iter().collect());
            publish(&notes, table.note().into_iter().collect());
        }
        // Cancel safe, each.
        let alive = tokio::select! {
            r = wanted.changed() => r.is_ok(),
            () = sleep(CHECK_INTERVAL) => true,
        };
        if !alive {
            return;
        }
        sleep(DEBOUNCE).await;
    }
}

fn publish(sender: &watch::Sender<Vec<Diagnostic>>, now: Vec<Diagnostic>) {
    sender.send_if_modified(|old| {
        let changed = *old != now;
        *old = now;
        changed
    });
}

/// What is known of the kernel.
#[derive(Default)]
struct Table {
    kernel: Option<Kernel>,
    /// What it holds; `None`: not known.
    have: Option<Wanted>,
    /// Packets dropped by tables that were replaced, and by the one there is.
    before: u64,
    dropped: u64,
    /// What the log has already.
    failure: Option<String>,
}

impl Table {
    fn turn(&mut self, wanted: &Wanted) -> io::Result<()> {
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::open()?,
        };
        if self.have.as_ref().is_some_and(|have| !have.is_empty()) {
            self.count(&mut kernel)?;
        }
        if self.have.as_ref() != Some(wanted) {
            if wanted.is_empty() {
                kernel.transact(Batch::remove_bgp)?;
            } else {
                kernel.transact(|batch| batch.write_bgp(wanted))?;
                let (bridges, pods) = (wanted.bridges.len(), wanted.pods.len());
                let neighbors = wanted.neighbors.len();
                info!(table = TABLE, bridges, pods, neighbors, "forwarded BGP of containers is dropped");
            }
            self.before += std::mem::take(&mut self.dropped);
            self.have = Some(wanted.clone());
        }
        self.kernel = Some(kernel);
        Ok(())
    }

    /// Reads the counters; forgets a table that somebody removed.
    fn count(&mut self, kernel: &mut Kernel) -> io::Result<()> {
        if !kernel.has_table(TABLE)? {
            warn!(table = TABLE, "nftables table was removed by others and is written again");
            self.have = None;
            return Ok(());
        }
        let question = pod_bgp::ask_rules(kernel.next());
        let rules = match kernel.ask(&question) {
            Err(e) if e.get_ref().is_some_and(|e| e.is::<Torn>()) => return Ok(()),
            rules => rules?,
        };
        let dropped = rules.iter().filter(|r| pod_bgp::is_ours(r)).map(|r| pod_bgp::packets(r)).sum();
        if dropped > self.dropped {
            let packets = dropped - self.dropped;
            warn!(
                packets,
                "packets of containers to TCP port 179 of neighbors dropped (guard.block-pod-bgp)"
            );
        }
        self.dropped = dropped;
        Ok(())
    }

    /// A kernel without nf_tables has nothing to be written to.
    fn failed(&mut self, error: &io::Error) -> Option<Diagnostic> {
        self.have = None;
        let absent = [Errno::EPROTONOSUPPORT, Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT];
        let absent = absent.iter().any(|e| error.raw_os_error() == Some(*e as i32));
        let text = error.to_string();
        if self.failure.as_ref() != Some(&text) {
            info!(%error, table = TABLE, "cannot write nftables table");
        }
        self.failure = Some(text);
        (!absent).then(|| {
            Diagnostic::new(
                Reason::PodBgpNotBlocked,
                Subject::key("guard.block-pod-bgp"),
                format!(
                    "guard.block-pod-bgp: the nftables table {TABLE} cannot be written ({error}), so containers \
                     may open BGP sessions in this host's name"
                ),
                "routelet needs nf_tables in the kernel and NET_ADMIN, or set it to false",
            )
        })
    }

    fn note(&self) -> Option<Diagnostic> {
        (self.before + self.dropped > 0).then(|| {
            Diagnostic::new(
                Reason::PodBgpDropped,
                Subject::key("guard.block-pod-bgp"),
                "containers tried to reach TCP port 179 of BGP neighbors, and their packets were dropped \
                 (guard.block-pod-bgp)",
                "find the container: `nft list table inet routelet-bgp` has the counters",
            )
        })
    }
}
