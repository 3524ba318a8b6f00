//! The task that maintains the table that drops BGP packets of containers.

use std::{io, sync::Arc, time::Duration};

use nix::errno::Errno;
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};
use tracing::{info, warn};

use super::socket::NftSocket;
use crate::{
    mailbox::publish,
    net::{Diagnostic, Reason, Subject},
    nft::pod_bgp::{self, TABLE, Wanted},
    pace::tick,
};

/// Changes of neighbors and bridges are collected for this long.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How often to check whether the table exists, and to read its counters.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Starts the task. `wanted` is `None` until there is a plan. `problems` gets what the operator
/// must resolve, `notes` whether packets were dropped.
pub fn spawn(
    wanted: watch::Receiver<Option<Arc<Wanted>>>,
    problems: watch::Sender<Vec<Diagnostic>>,
    notes: watch::Sender<Vec<Diagnostic>>,
) -> JoinHandle<()> {
    tokio::spawn(run(wanted, problems, notes))
}

/// Deletes the table. Returns whether it existed.
///
/// # Errors
///
/// If the kernel rejects the request. A kernel without nf_tables has no table.
pub fn cleanup() -> io::Result<bool> {
    let Ok(mut socket) = NftSocket::open() else { return Ok(false) };
    if !socket.has_table(TABLE).unwrap_or(false) {
        return Ok(false);
    }
    socket.transact(|batch| batch.remove_bgp()).map(|()| true)
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
                let problem = table.reconcile(&now).err();
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
            () = tick(CHECK_INTERVAL) => true,
        };
        if !alive {
            return;
        }
        sleep(DEBOUNCE).await;
    }
}

/// State of the table in the kernel.
#[derive(Default)]
struct Table {
    socket: Option<NftSocket>,
    /// Its contents; `None` if unknown.
    have: Option<Wanted>,
    /// Packets dropped by replaced tables, and by the present one.
    before: u64,
    dropped: u64,
    /// The failure that was logged last.
    failure: Option<String>,
}

impl Table {
    fn reconcile(&mut self, wanted: &Wanted) -> io::Result<()> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => NftSocket::open()?,
        };
        if self.have.as_ref().is_some_and(|have| !have.is_empty()) {
            self.count(&mut socket)?;
        }
        if self.have.as_ref() != Some(wanted) {
            if wanted.is_empty() {
                socket.transact(|batch| batch.remove_bgp())?;
            } else {
                socket.transact(|batch| batch.write_bgp(wanted))?;
                let (bridges, pods) = (wanted.bridges.len(), wanted.pods.len());
                let neighbors = wanted.neighbors.len();
                info!(
                    table = TABLE,
                    bridges, pods, neighbors, "dropping forwarded BGP packets of containers"
                );
            }
            self.before += std::mem::take(&mut self.dropped);
            self.have = Some(wanted.clone());
        }
        self.socket = Some(socket);
        Ok(())
    }

    /// Reads the counters; detects that another program deleted the table.
    fn count(&mut self, socket: &mut NftSocket) -> io::Result<()> {
        if !socket.has_table(TABLE)? {
            warn!(table = TABLE, "nftables table deleted by another program, creating it again");
            self.have = None;
            return Ok(());
        }
        let rules = match socket.list(pod_bgp::list_rules) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            rules => rules?,
        };
        let dropped = rules.iter().filter(|r| pod_bgp::is_ours(r)).map(|r| pod_bgp::packets(r)).sum();
        if dropped > self.dropped {
            let packets = dropped - self.dropped;
            warn!(
                packets,
                "dropped packets of containers to TCP port 179 of neighbors (guard.block-pod-bgp)"
            );
        }
        self.dropped = dropped;
        Ok(())
    }

    /// Logs a failure and returns the problem; a kernel without nf_tables is no problem.
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
