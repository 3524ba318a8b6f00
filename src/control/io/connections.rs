//! The connections of a listener. [`Places`] decides which of them yields to another.
//!
//! A few descriptors are kept in reserve for these listeners, so that they can be reached when
//! sessions use up all others.

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
    task::{AbortHandle, JoinSet, yield_now},
    time::sleep,
};

use crate::control::places::{Place, Places};

/// Descriptors that each listener keeps in reserve.
const RESERVE: usize = 4;
/// Time for a closed connection to release its descriptor.
const PAUSE: Duration = Duration::from_millis(20);

/// The connections of one listener, by number.
pub(super) struct Connections {
    places: Places,
    tasks: JoinSet<u64>,
    open: BTreeMap<u64, Connection>,
    reserve: Vec<File>,
}

struct Connection {
    task: AbortHandle,
    /// Whether a request has been read from it.
    has_request: Arc<AtomicBool>,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        let (tasks, open) = (JoinSet::new(), BTreeMap::new());
        let mut this = Self { places: Places::new(most), tasks, open, reserve: Vec::new() };
        this.refill();
        this
    }

    /// Serves one more connection as soon as it has a place. `serve` sets the flag when it has read
    /// a request.
    pub(super) async fn add<F>(&mut self, serve: impl FnOnce(Arc<AtomicBool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.make_place().await;
        let (number, has_request) = (self.places.take(Instant::now()), Arc::new(AtomicBool::new(false)));
        let serve = serve(has_request.clone());
        let task = self.tasks.spawn(async move {
            serve.await;
            number
        });
        self.open.insert(number, Connection { task, has_request });
        self.refill();
    }

    async fn make_place(&mut self) {
        let mut had_a_turn = false;
        loop {
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.forget(ended);
            }
            match self.places.find(Instant::now(), |n| self.is_silent(n)) {
                Place::Free => return,
                Place::Close(number) if had_a_turn => return self.close(number),
                // The daemon may have stood still: the requests that came meanwhile are read first.
                Place::Close(_) => {
                    yield_now().await;
                    had_a_turn = true;
                }
                Place::Wait(time) => tokio::select! {
                    () = sleep(time) => {}
                    Some(ended) = self.tasks.join_next_with_id() => self.forget(ended),
                },
            }
        }
    }

    /// Called when the listener could not accept, most likely because the process has no
    /// descriptors left. Returns when another attempt is worthwhile.
    pub(super) async fn make_room(&mut self, error: &io::Error) {
        let is_full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        if self.places.warns(Instant::now()) {
            tracing::warn!(%error, "cannot accept connections for show, metrics or probes; raise the limit of open files");
        }
        if is_full && self.reserve.pop().is_some() {
            return;
        }
        if is_full && let Some(number) = self.places.without_request(Instant::now(), |n| self.is_silent(n)) {
            self.close(number);
        }
        sleep(PAUSE).await;
    }

    fn is_silent(&self, number: u64) -> bool {
        self.open.get(&number).is_some_and(|c| !c.has_request.load(Ordering::Relaxed))
    }

    fn close(&mut self, number: u64) {
        self.places.leave(number);
        if let Some(closed) = self.open.remove(&number) {
            closed.task.abort();
        }
    }

    /// The number of a task that panicked is unknown: it is found by its handle.
    fn forget(&mut self, ended: Result<(tokio::task::Id, u64), tokio::task::JoinError>) {
        let number = match ended {
            Ok((_, number)) => Some(number),
            Err(error) => self.open.iter().find(|(_, c)| c.task.id() == error.id()).map(|(n, _)| *n),
        };
        if let Some(number) = number {
            self.open.remove(&number);
            self.places.leave(number);
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
