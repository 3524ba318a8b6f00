//! `drain` and `undrain`: takes the node out of traffic step by step. Neighbors are asked to look for other ways first; what
//! others can take over goes next; pod CIDRs stay for as long as pods need them. A step that was reached is kept in the state
//! folder, so that a restart changes nothing.

use std::{io, path::Path, path::PathBuf, time::Duration};

use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use crate::{k8s, plan::Drain};

pub(super) const DRAIN_FILE: &str = "drained";
/// RFC 8326 §4.1: time for the neighbors to find other paths before the first are withdrawn.
const OTHER_PATHS: Duration = Duration::from_secs(10);
/// How often the API server is asked for pods.
const PODS: Duration = Duration::from_secs(5);

/// How far the node is drained, with its place on disk.
#[derive(Clone)]
pub(super) struct Drainer {
    path: PathBuf,
    step: watch::Sender<Option<Drain>>,
}

impl Drainer {
    /// As the last run left it.
    pub(super) fn new(state_dir: &Path) -> (Self, watch::Receiver<Option<Drain>>) {
        let path = state_dir.join(DRAIN_FILE);
        let known = std::fs::read_to_string(&path).ok();
        let (step, seen) = watch::channel(known.and_then(|text| Drain::named(text.trim())));
        (Self { path, step }, seen)
    }

    /// What there is to say about it, or why it could not be done.
    pub(super) fn drain(&self, now: bool) -> Result<String, String> {
        let step = match (*self.step.borrow(), now) {
            (_, true) => Drain::All,
            (Some(step), false) => step,
            (None, false) => Drain::Asking,
        };
        self.set(Some(step))?;
        Ok(match step {
            Drain::All => "everything is withdrawn; `routelet undrain` brings it back".into(),
            _ => format!(
                "neighbors are asked to look for other ways; Services are withdrawn in {} s, pod CIDRs once no pod but those of \
                 DaemonSets is left (`kubectl drain`); `routelet undrain` takes it back",
                OTHER_PATHS.as_secs()
            ),
        })
    }

    pub(super) fn undrain(&self) -> Result<(), String> {
        self.set(None)
    }

    fn set(&self, step: Option<Drain>) -> Result<(), String> {
        let old = *self.step.borrow();
        if old == step {
            return Ok(());
        }
        self.keep(step).map_err(|e| {
            format!(
                "{}: {e}; without it a restart would forget: make state-dir writable",
                self.path.display()
            )
        })?;
        info!(step = step.map_or("none", Drain::as_str), "drain");
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

    /// Takes the steps that time and pods allow. Without a cluster nothing says when the last container is gone.
    pub(super) async fn run(self, cluster: Option<k8s::io::Options>) {
        let mut seen = self.step.subscribe();
        let mut refused = false;
        loop {
            let step = *seen.borrow_and_update();
            let next = match (step, &cluster) {
                (Some(Drain::Asking), _) => {
                    // Cancel safe, both.
                    tokio::select! {
                        _ = seen.changed() => continue,
                        () = sleep(OTHER_PATHS) => Drain::Services,
                    }
                }
                (Some(Drain::Services), Some(cluster)) => match k8s::io::pods_left(cluster).await {
                    Ok(0) => Drain::All,
                    Ok(_) => Drain::Services,
                    Err(error) => {
                        if !std::mem::replace(&mut refused, true) {
                            warn!(%error, "cannot tell whether pods are left, so the pod CIDRs stay announced; allow our ServiceAccount to list pods, or `routelet drain --now`");
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
            // An order that came meanwhile counts.
            if *self.step.borrow() != step {
                continue;
            }
            if let Err(error) = self.set(Some(next)) {
                warn!(%error, "cannot drain further");
            }
            if Some(next) == step {
                // Cancel safe, both.
                tokio::select! {
                    _ = seen.changed() => {}
                    () = sleep(PODS) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_kept_for_the_next_start() {
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
        assert!(nowhere.drain(false).unwrap_err().contains("state-dir") && seen.borrow().is_none());
    }
}
