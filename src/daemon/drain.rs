//! `drain` and `undrain`: removes the node from traffic step by step. First, routes are advertised
//! with GRACEFUL_SHUTDOWN, so that neighbors prefer other paths; then Services are withdrawn, which
//! other nodes take over; pod CIDRs stay advertised as long as pods need them. The step is saved in
//! the state folder, so that a restart changes nothing.

use std::{io, path::Path, path::PathBuf, time::Duration};

use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use crate::{k8s, plan::Drain};

pub(super) const DRAIN_FILE: &str = "drained";
/// Time for the neighbors to select other paths before the first routes are withdrawn (RFC 8326
/// §4.1).
const GRACEFUL_SHUTDOWN_TIME: Duration = Duration::from_secs(10);
/// How often pods are listed at the API server.
const POD_INTERVAL: Duration = Duration::from_secs(5);

/// The drain step of the node, and the file in which it is saved.
#[derive(Clone)]
pub(super) struct Drainer {
    path: PathBuf,
    step: watch::Sender<Option<Drain>>,
}

/// The step of a drain cannot be saved.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}; the drain would not survive a restart: make state-dir writable", .path.display())]
pub(super) struct DrainError {
    path: PathBuf,
    error: io::Error,
}

impl Drainer {
    /// Loads the step of the previous run.
    pub(super) fn new(state_dir: &Path) -> (Self, watch::Receiver<Option<Drain>>) {
        let path = state_dir.join(DRAIN_FILE);
        let known = std::fs::read_to_string(&path).ok();
        let (step, seen) = watch::channel(known.and_then(|text| Drain::named(text.trim())));
        (Self { path, step }, seen)
    }

    /// Starts a drain, or completes it at once if `now`. Returns a description of the next steps.
    ///
    /// # Errors
    ///
    /// If the step cannot be saved.
    pub(super) fn drain(&self, now: bool) -> Result<String, DrainError> {
        let step = match (*self.step.borrow(), now) {
            (_, true) => Drain::All,
            (Some(step), false) => step,
            (None, false) => Drain::Asking,
        };
        self.set(Some(step))?;
        Ok(match step {
            Drain::All => "all routes are withdrawn; cancel with `routelet undrain`".into(),
            _ => format!(
                "draining: GRACEFUL_SHUTDOWN is sent; Services will be withdrawn in {} s, pod CIDRs once only pods of \
                 DaemonSets are left (`kubectl drain`); cancel with `routelet undrain`",
                GRACEFUL_SHUTDOWN_TIME.as_secs()
            ),
        })
    }

    /// Whether a drain has begun.
    pub(super) fn is_drained(&self) -> bool {
        self.step.borrow().is_some()
    }

    pub(super) fn undrain(&self) -> Result<(), DrainError> {
        self.set(None)
    }

    fn set(&self, step: Option<Drain>) -> Result<(), DrainError> {
        let old = *self.step.borrow();
        if old == step {
            return Ok(());
        }
        self.keep(step).map_err(|error| DrainError { path: self.path.clone(), error })?;
        info!(step = step.map_or("none", Drain::as_str), "drain step changed");
        self.step.send_replace(step);
        Ok(())
    }

    fn keep(&self, step: Option<Drain>) -> io::Result<()> {
        let Some(step) = step else {
            return match std::fs::remove_file(&self.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        };
        crate::state::io::write(&self.path, format!("{}\n", step.as_str()).as_bytes(), 0o644)
    }

    /// Advances the step as soon as time and pods allow. Without a cluster the pod CIDRs stay
    /// advertised, since it is unknown when the last container is gone.
    pub(super) async fn run(self, cluster: Option<k8s::io::Options>) {
        let mut seen = self.step.subscribe();
        let mut refused = false;
        loop {
            let step = *seen.borrow_and_update();
            let next = match (step, &cluster) {
                (Some(Drain::Asking), _) => {
                    // Both arms are cancel safe.
                    tokio::select! {
                        _ = seen.changed() => continue,
                        () = sleep(GRACEFUL_SHUTDOWN_TIME) => Drain::Services,
                    }
                }
                (Some(Drain::Services), Some(cluster)) => match k8s::io::pods_left(cluster).await {
                    Ok(0) => Drain::All,
                    Ok(_) => Drain::Services,
                    Err(error) => {
                        if !std::mem::replace(&mut refused, true) {
                            warn!(%error, "cannot list pods, pod CIDRs stay advertised; allow our ServiceAccount to list pods, or run `routelet drain --now`");
                        }
                        Drain::Services
                    }
                },
                _ => {
                    if seen.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            // A command that arrived meanwhile has precedence.
            if *self.step.borrow() != step {
                continue;
            }
            if let Err(error) = self.set(Some(next)) {
                warn!(%error, "cannot save the next drain step");
            }
            if Some(next) == step {
                // Both arms are cancel safe.
                tokio::select! {
                    _ = seen.changed() => {}
                    () = sleep(POD_INTERVAL) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_is_saved_for_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (drainer, seen) = Drainer::new(dir.path());
        assert_eq!(*seen.borrow(), None);
        drainer.drain(false).unwrap();
        assert_eq!(
            (*seen.borrow(), *Drainer::new(dir.path()).1.borrow()),
            (Some(Drain::Asking), Some(Drain::Asking))
        );
        drainer.drain(true).unwrap();
        assert_eq!(*Drainer::new(dir.path()).1.borrow(), Some(Drain::All));
        drainer.drain(false).unwrap();
        assert_eq!(*seen.borrow(), Some(Drain::All), "no step back");
        drainer.undrain().unwrap();
        drainer.undrain().unwrap();
        assert_eq!(*Drainer::new(dir.path()).1.borrow(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let (nowhere, seen) = Drainer::new(&dir.path().join("missing"));
        assert!(
            nowhere.drain(false).unwrap_err().to_string().contains("state-dir") && seen.borrow().is_none()
        );
    }
}
