//! Whose connections a listener serves.
//!
//! Places are bounded, and so are the descriptors of the process. Where one more does not fit, the
//! oldest connection that has sent no request yields, else the oldest: a client that sends its
//! request at once is served whatever others hold open. A few descriptors are kept in reserve for
//! these listeners, so that they can be reached when sessions use up all others.
//!
//! Each connection has its place for [`LEAST`], so that a request that follows at once is read even
//! while others connect without end; until then the next client waits in the kernel's queue.
//!
//! `accept` fails for want of a descriptor even when no client waits. So a lack of descriptors
//! closes only connections that had [`GRACE`] to send a request and did not.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::libc;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::sleep,
};

/// Descriptors in reserve, by listener.
const RESERVE: usize = 4;
/// Until a connection that was closed has let go of its descriptor.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a connection has its descriptor for certain.
const GRACE: Duration = Duration::from_millis(200);
/// How long a connection has its place for certain.
const LEAST: Duration = Duration::from_millis(30);
/// Between two warnings.
const QUIET: Duration = Duration::from_secs(60);

/// The connections of one listener. Numbers rise, so the first in the map is the oldest.
pub(super) struct Connections {
    most: usize,
    tasks: JoinSet<u64>,
    open: BTreeMap<u64, Connection>,
    next: u64,
    reserve: Vec<File>,
    warned: Option<Instant>,
}

struct Connection {
    task: AbortHandle,
    since: Instant,
    /// A request has been read from it.
    has_request: Arc<AtomicBool>,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        let (tasks, open) = (JoinSet::new(), BTreeMap::new());
        let mut this = Self { most, tasks, open, next: 0, reserve: Vec::new(), warned: None };
        this.refill();
        this
    }

    /// Serves one more, as soon as it has a place. `serve` sets the flag when it has read a
    /// request.
    pub(super) async fn add<F>(&mut self, serve: impl FnOnce(Arc<AtomicBool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.make_place().await;
        let (number, has_request) = (self.next, Arc::new(AtomicBool::new(false)));
        self.next += 1;
        let serve = serve(has_request.clone());
        let task = self.tasks.spawn(async move {
            serve.await;
            number
        });
        self.open.insert(number, Connection { task, since: Instant::now(), has_request });
        self.refill();
    }

    async fn make_place(&mut self) {
        loop {
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.forget(ended);
            }
            if self.open.len() < self.most {
                return;
            }
            let victim = self.oldest_silent(Duration::ZERO).or_else(|| self.open.keys().next().copied());
            let age = victim.and_then(|number| self.open.get(&number)).map_or(LEAST, |c| c.since.elapsed());
            if age >= LEAST {
                self.close(victim);
                return;
            }
            tokio::select! {
                () = sleep(LEAST.saturating_sub(age)) => {}
                Some(ended) = self.tasks.join_next_with_id() => self.forget(ended),
            }
        }
    }

    /// The listener could not accept: most likely the descriptors of the process are used up.
    /// Returns when it is worth another attempt.
    pub(super) async fn make_room(&mut self, error: &io::Error) {
        let is_full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        if self.warned.is_none_or(|at| at.elapsed() > QUIET) {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, "cannot accept connections for show, metrics or probes; raise the limit of open files");
        }
        if is_full && self.reserve.pop().is_some() {
            return;
        }
        if is_full {
            self.close(self.oldest_silent(GRACE));
        }
        sleep(PAUSE).await;
    }

    /// The oldest connection that has sent no request for so long.
    fn oldest_silent(&self, least: Duration) -> Option<u64> {
        let silent = |c: &Connection| !c.has_request.load(Ordering::Relaxed) && c.since.elapsed() >= least;
        self.open.iter().find(|(_, c)| silent(c)).map(|(number, _)| *number)
    }

    fn close(&mut self, victim: Option<u64>) {
        if let Some(closed) = victim.and_then(|number| self.open.remove(&number)) {
            closed.task.abort();
        }
    }

    /// A task that panicked has no number: it is found by its handle.
    fn forget(&mut self, ended: Result<(tokio::task::Id, u64), tokio::task::JoinError>) {
        match ended {
            Ok((_, number)) => drop(self.open.remove(&number)),
            Err(error) => self.open.retain(|_, c| c.task.id() != error.id()),
        }
    }

    fn refill(&mut self) {
        while self.reserve.len() < RESERVE
            && let Ok(file) = File::open("/dev/null")
        {
            self.reserve.push(file);
        }
    }
}
