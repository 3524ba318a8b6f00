//! The task that maintains the masquerading table.

use std::{
    collections::BTreeSet,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{sleep, sleep_until},
};
use tracing::{info, warn};

use super::socket::NftSocket;
use crate::{
    mailbox,
    net::{Family, PerFamily, Prefix},
    nft::{
        masquerade::{self, Sets, Want},
        ranges::Range,
        wire,
    },
};

/// Changes are collected for this long: learned routes arrive in many pieces.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How often to check whether the table was deleted (many firewall scripts start with
/// `nft flush ruleset`).
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Inputs of the task.
pub struct Inputs {
    /// `None` until there is a plan.
    pub want: watch::Receiver<Option<Arc<Want>>>,
    /// Prefixes that were learned (`true`) or withdrawn (`false`).
    pub learned: mailbox::Receiver<Prefix, bool>,
    /// Whether initial routes of all neighbors were received. Until then the table of the previous
    /// run stays unchanged: it is more complete.
    pub ready: watch::Receiver<bool>,
}

/// Starts the task. It ends when its inputs are closed.
pub fn spawn(inputs: Inputs) -> JoinHandle<()> {
    tokio::spawn(run(inputs))
}

/// Deletes the table. Returns whether it existed.
///
/// # Errors
///
/// If the kernel rejects the request. A kernel without nf_tables has no table.
pub fn cleanup() -> io::Result<bool> {
    let Ok(mut socket) = NftSocket::open() else { return Ok(false) };
    if !socket.exists().unwrap_or(false) {
        return Ok(false);
    }
    socket.remove().map(|()| true)
}

async fn run(mut inputs: Inputs) {
    let mut learned = BTreeSet::new();
    let mut table = Table::default();
    let mut waiting = !*inputs.ready.borrow_and_update();
    loop {
        let want = inputs.want.borrow_and_update().clone();
        if let (Some(want), false) = (want, waiting) {
            table.reconcile(&want, &learned).await;
        }
        let check_at = Instant::now() + CHECK_INTERVAL;
        // Cancel safe, each.
        let alive = tokio::select! {
            changes = inputs.learned.take() => {
                for (prefix, is_learned) in changes {
                    if is_learned { learned.insert(prefix) } else { learned.remove(&prefix) };
                }
                true
            }
            r = inputs.want.changed() => r.is_ok(),
            r = inputs.ready.changed(), if waiting => {
                waiting = !*inputs.ready.borrow();
                r.is_ok()
            }
            () = sleep_until(check_at.into()) => {
                table.check().await;
                true
            }
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
    /// Its contents; `None` if unknown or not written by us.
    have: Option<Sets>,
    /// The state that was logged last.
    logged: Option<Logged>,
}

impl Table {
    async fn reconcile(&mut self, want: &Want, learned: &BTreeSet<Prefix>) {
        let sets = match masquerade::sets(want, learned) {
            Ok(sets) => sets,
            Err(error) => return self.failed(error.to_string()),
        };
        if self.have.as_ref() == Some(&sets) {
            return;
        }
        let (was, mut socket) = (self.have.take(), self.socket.take());
        let off = sets.iter().all(|[pods, _]| pods.is_empty());
        let done = spawn_blocking(move || {
            let mut open = match socket.take() {
                Some(socket) => socket,
                None => NftSocket::open()?,
            };
            open.apply(was.as_ref(), &sets)?;
            Ok::<_, io::Error>((open, sets))
        });
        match done.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok((socket, sets)) => {
                self.configured(PerFamily::of(|f| !sets[f][0].is_empty()));
                (self.socket, self.have) = (Some(socket), Some(sets));
            }
            // A kernel without nf_tables has no table to delete.
            Err(_) if off => self.have = Some(Sets::default()),
            Err(error) => self.failed(format!("cannot write the nftables table: {error}")),
        }
    }

    /// Detects that another program deleted the table; it is then created again.
    async fn check(&mut self) {
        let expected = self.have.as_ref().is_some_and(|sets| sets.iter().any(|[pods, _]| !pods.is_empty()));
        let Some(mut socket) = self.socket.take().filter(|_| expected) else { return };
        let seen = spawn_blocking(move || (socket.exists(), socket)).await;
        let Ok((exists, socket)) = seen else { return };
        self.socket = Some(socket);
        if matches!(exists, Ok(false)) {
            warn!(table = wire::TABLE, "nftables table deleted by another program, creating it again");
            self.have = None;
        }
    }

    fn configured(&mut self, enabled: PerFamily<bool>) {
        let state = Logged::Enabled(enabled);
        if self.logged.as_ref() != Some(&state) {
            let (ipv4, ipv6) = (enabled[Family::Ipv4Unicast], enabled[Family::Ipv6Unicast]);
            info!(ipv4, ipv6, "masquerading configured");
        }
        self.logged = Some(state);
    }

    fn failed(&mut self, error: String) {
        let state = Logged::Failed(error);
        if self.logged.as_ref() != Some(&state)
            && let Logged::Failed(error) = &state
        {
            warn!(
                error,
                "masquerading not configured, pods may not reach destinations outside the cluster; routelet needs \
                 nf_tables in the kernel and NET_ADMIN, or set masquerade.enabled = false"
            );
        }
        self.logged = Some(state);
    }
}

/// What was logged about the table last, so that each change is logged once.
#[derive(PartialEq, Eq)]
enum Logged {
    Enabled(PerFamily<bool>),
    Failed(String),
}

/// The ranges in `a` that are not in `b`.
pub(super) fn without(a: &BTreeSet<Range>, b: &BTreeSet<Range>) -> BTreeSet<Range> {
    a.difference(b).copied().collect()
}
