//! The task that keeps the table, the one that keeps our chain in iptables' FORWARD, and the socket to nf_tables.

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

use super::socket::{Kernel, Sets};
use crate::{
    mailbox,
    net::{Family, Prefix},
    nft::ranges::{Range, ranges},
};

/// Changes are gathered for so long: a table that is being learned comes in many pieces.
const GATHER: Duration = Duration::from_millis(200);
/// How often we look whether somebody removed the table (`nft flush ruleset` is in many firewalls' start scripts).
const LOOK: Duration = Duration::from_secs(10);
/// More ranges than this take too long in the kernel: every change of the set holds up the others.
const MOST: usize = 200_000;

/// What the kernel is to hold, but for what is learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Where pods have their addresses; none: no table.
    pub pods: BTreeSet<Prefix>,
    pub keep: BTreeSet<Prefix>,
}

/// What the task listens to.
pub struct Inputs {
    /// `None` until there is a plan.
    pub want: watch::Receiver<Option<Arc<Want>>>,
    /// Prefixes that were learned, or are gone again.
    pub learned: mailbox::Receiver<Prefix, bool>,
    /// The first exchange with the neighbors is over. Until then what the last run left stays as it is: it knows more.
    pub ready: watch::Receiver<bool>,
}

/// Starts it. Never ends while its inputs live.
pub fn spawn(inputs: Inputs) -> JoinHandle<()> {
    tokio::spawn(run(inputs))
}

/// Removes the table; whether there was one.
///
/// # Errors
///
/// When the kernel refuses. A kernel without nf_tables has no table.
pub fn cleanup() -> io::Result<bool> {
    let Ok(mut kernel) = Kernel::open() else { return Ok(false) };
    if !kernel.is_there().unwrap_or(false) {
        return Ok(false);
    }
    kernel.remove().map(|()| true)
}

async fn run(mut inputs: Inputs) {
    let mut learned = BTreeSet::new();
    let mut table = Table::default();
    let mut early = !*inputs.ready.borrow_and_update();
    loop {
        let want = inputs.want.borrow_and_update().clone();
        if let (Some(want), false) = (want, early) {
            table.turn(&want, &learned).await;
        }
        let look = Instant::now() + LOOK;
        // Cancel safe, each.
        let alive = tokio::select! {
            changes = inputs.learned.take() => {
                for (prefix, there) in changes {
                    if there { learned.insert(prefix) } else { learned.remove(&prefix) };
                }
                true
            }
            r = inputs.want.changed() => r.is_ok(),
            r = inputs.ready.changed(), if early => {
                early = !*inputs.ready.borrow();
                r.is_ok()
            }
            () = sleep_until(look.into()) => {
                table.look().await;
                true
            }
        };
        if !alive {
            return;
        }
        sleep(GATHER).await;
    }
}

/// What we know of the kernel.
#[derive(Default)]
struct Table {
    kernel: Option<Kernel>,
    /// What it holds; `None`: not known, or not ours.
    have: Option<Sets>,
    /// What the log was told last.
    said: Option<String>,
}

impl Table {
    async fn turn(&mut self, want: &Want, learned: &BTreeSet<Prefix>) {
        let sets = Family::ALL.map(|family| {
            let pods = ranges(family, &want.pods);
            // A default route says nothing about who knows the pods.
            let keep = || want.keep.iter().chain(learned.iter().filter(|p| p.len() > 0));
            let keep = if pods.is_empty() { BTreeSet::new() } else { ranges(family, keep()) };
            [pods, keep]
        });
        if self.have.as_ref() == Some(&sets) {
            return;
        }
        let count: usize = sets.iter().flatten().map(BTreeSet::len).sum();
        if count > MOST {
            self.say(format!(
                "{count} ranges would not be masqueraded to, more than {MOST}: the table stays as it was"
            ));
            return;
        }
        let (was, mut kernel) = (self.have.take(), self.kernel.take());
        let off = sets.iter().all(|[pods, _]| pods.is_empty());
        let done = spawn_blocking(move || {
            let mut open = match kernel.take() {
                Some(kernel) => kernel,
                None => Kernel::open()?,
            };
            open.apply(was.as_ref(), &sets)?;
            Ok::<_, io::Error>((open, sets))
        });
        match done.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok((kernel, sets)) => {
                let on = Family::ALL.map(|f| !sets[f.index()][0].is_empty());
                let before = self.said.take();
                let state = format!("masquerade for IPv4 {}, for IPv6 {}", word(on[0]), word(on[1]));
                if before.as_ref() != Some(&state) {
                    info!("{state}");
                }
                self.said = Some(state);
                (self.kernel, self.have) = (Some(kernel), Some(sets));
            }
            // Nothing is wanted: a kernel without nf_tables has nothing.
            Err(_) if off => self.have = Some(Sets::default()),
            Err(error) => self.say(format!("the nftables table cannot be written: {error}")),
        }
    }

    /// Forgets a table that somebody removed: the next turn makes it again.
    async fn look(&mut self) {
        let expected = self.have.as_ref().is_some_and(|sets| sets.iter().any(|[pods, _]| !pods.is_empty()));
        let Some(mut kernel) = self.kernel.take().filter(|_| expected) else { return };
        let seen = spawn_blocking(move || (kernel.is_there(), kernel)).await;
        let Ok((there, kernel)) = seen else { return };
        self.kernel = Some(kernel);
        if matches!(there, Ok(false)) {
            warn!("somebody removed the nftables table of masquerade, it is made again");
            self.have = None;
        }
    }

    fn say(&mut self, problem: String) {
        if self.said.as_ref() != Some(&problem) {
            warn!(
                %problem,
                "pods may not reach what is outside of the cluster; routelet needs nf_tables in the kernel and NET_ADMIN, or set masquerade.enabled = false"
            );
        }
        self.said = Some(problem);
    }
}

fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// What is in `a` and not in `b`.
pub(super) fn without(a: &BTreeSet<Range>, b: &BTreeSet<Range>) -> BTreeSet<Range> {
    a.difference(b).copied().collect()
}
