//! The task that reads the networks from the engine, and again with each of its events.
//!
//! While the engine does not respond, the last list is used, also after a restart (`docker.json` in
//! the state folder). The kernel shows whether a bridge still exists.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod engine;

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Network, Selected, Wanted, select};
use crate::{
    mailbox::publish,
    net::{Diagnostic, Reason, Subject},
    state::io as kept,
};
use engine::Events;

/// Events are collected for this long.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Time to the next attempt.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long the engine may be unreachable, for example while it restarts, before this is a problem.
const RESTART_TIMEOUT: Duration = Duration::from_secs(60);

/// File in the state folder.
pub const FILE: &str = "docker.json";

/// Starts the task. Returns the networks that are selected.
pub fn spawn(wanted: watch::Receiver<Wanted>, state_dir: &Path) -> watch::Receiver<Arc<Selected>> {
    let (selected, receiver) = watch::channel(Arc::default());
    let follower =
        Follower { known: None, was_read: false, file: state_dir.join(FILE), lost: None, selected };
    tokio::spawn(follower.run(wanted));
    receiver
}

struct Follower {
    /// The last list, of this run or of an earlier one.
    known: Option<Vec<Network>>,
    /// Whether it was read from the engine in this run.
    was_read: bool,
    file: PathBuf,
    /// Since when the engine does not respond.
    lost: Option<Instant>,
    selected: watch::Sender<Arc<Selected>>,
}

impl Follower {
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>) {
        loop {
            let now = wanted.borrow_and_update().clone();
            if now.selectors.is_empty() {
                (self.known, self.was_read, self.lost) = (None, false, None);
                self.publish(Selected::default());
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            // Cancel safe: an interrupted read is started again.
            let alive = tokio::select! {
                error = self.follow(&now) => {
                    self.failed(&now, &error);
                    tokio::select! {
                        r = wanted.changed() => r.is_ok(),
                        () = sleep(RETRY_INTERVAL) => true,
                    }
                }
                r = wanted.changed() => r.is_ok(),
            };
            if !alive {
                return;
            }
        }
    }

    /// Reads the list while the engine responds. The stream of events is opened before the list is
    /// read, so that no change in between is missed.
    async fn follow(&mut self, wanted: &Wanted) -> io::Error {
        let mut events = match Events::open(&wanted.socket).await {
            Ok(events) => events,
            Err(error) => return error,
        };
        loop {
            match engine::list(&wanted.socket).await {
                Ok(networks) => self.read(wanted, networks),
                Err(error) => return error,
            }
            if let Err(error) = events.next().await {
                return error;
            }
            sleep(DEBOUNCE).await;
        }
    }

    fn read(&mut self, wanted: &Wanted, networks: Vec<Network>) {
        if !self.was_read || self.lost.is_some() {
            tracing::info!(socket = %wanted.socket.display(), networks = networks.len(), "networks of the Docker engine read");
        }
        (self.was_read, self.lost) = (true, None);
        self.publish(select(&wanted.selectors, &networks));
        if self.known.as_ref() != Some(&networks) {
            kept::keep(&self.file, serde_json::to_vec(&networks).unwrap_or_default(), 0o600);
            self.known = Some(networks);
        }
    }

    /// Continues with the last list.
    fn failed(&mut self, wanted: &Wanted, error: &io::Error) {
        if self.lost.is_none() {
            tracing::info!(socket = %wanted.socket.display(), %error, "Docker engine does not respond");
        }
        let since = *self.lost.get_or_insert_with(Instant::now);
        if self.known.is_none() {
            self.known = kept::read(&self.file).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        }
        let mut selected = select(&wanted.selectors, self.known.as_deref().unwrap_or_default());
        if self.known.is_none() {
            // It is unknown whether a network is missing.
            selected.problems.clear();
        }
        if !self.was_read || since.elapsed() >= RESTART_TIMEOUT {
            selected.problems.push(unreachable(&wanted.socket, error));
        }
        self.publish(selected);
    }

    fn publish(&self, selected: Selected) {
        publish(&self.selected, Arc::new(selected));
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> Diagnostic {
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => {
            "let routelet's user read it: SupplementaryGroups=docker in a drop-in of routelet.service"
        }
        ErrorKind::NotFound => "start Docker, or set docker.socket to the path of its socket",
        _ => "check whether `docker network ls` works",
    };
    Diagnostic::new(
        Reason::DockerUnreachable,
        Subject::file(socket.display()),
        format!(
            "docker.networks: the engine's socket {} cannot be read: {error}; until then networks that are \
             new are not advertised",
            socket.display()
        ),
        remedy,
    )
}

#[cfg(test)]
mod tests;
