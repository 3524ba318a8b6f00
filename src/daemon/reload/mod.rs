//! `reload` and SIGHUP: a valid file is put into force, an invalid one changes nothing.
//!
//! `changes` compares two configurations, `trial` handles one that must be confirmed, `restart` has
//! the keys that only take effect at a start, and `problems` reports on the file. This module
//! reads, writes and waits.

mod changes;
mod problems;
mod restart;
mod start;
mod trial;

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::spawn_blocking,
    time::sleep,
};

use super::{
    listeners::Move,
    planner::{Basis, publish},
    room::Limit,
    sandbox, state,
};
use crate::{
    bgp::io::ToPeers,
    cli::log::LogLevel,
    config::{self, Config, Control, io::Loaded},
    control::{Changes, Reload, Response},
    net::Diagnostic,
    pace::tick,
    plan::NoPlan,
};
use changes::{Sessions, Side};
pub(super) use start::{Started, at_start};
use trial::{Moment, Record};

/// File in the state folder.
pub(super) const FILE: &str = "reload.json";

/// How often the file on disk is checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is checked during a trial, which may time out.
const TRIAL_INTERVAL: Duration = Duration::from_secs(1);

/// Re-reads the file that the daemon was started with.
#[derive(Clone)]
pub(super) struct Reloader(Arc<Inner>);

/// The settings and channels of the reloader.
pub(super) struct Connections {
    pub(super) file: Option<PathBuf>,
    /// Whether the daemon runs under Kubernetes unless the file determines it.
    pub(super) kubernetes: bool,
    pub(super) state_dir: PathBuf,
    pub(super) config: watch::Sender<Arc<Config>>,
    /// Octets that routes may use: the memory limit may have changed as well.
    pub(super) budget: watch::Sender<u64>,
    pub(super) log: LogLevel,
    /// The inputs of the last plan.
    pub(super) basis: watch::Receiver<Option<Arc<Basis>>>,
    pub(super) peers: mpsc::Sender<ToPeers>,
    /// Requests to move the control socket.
    pub(super) moves: mpsc::Sender<Move>,
    pub(super) problems: watch::Sender<Vec<Diagnostic>>,
}

/// The result of reloads, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Whether the last reload put the file into force.
    pub(super) successful: bool,
    /// Time of the last successful reload, in seconds since 1970.
    pub(super) at: i64,
}

struct Inner {
    to: Connections,
    /// The configuration at the start: some of its keys stay in force until the daemon ends.
    started: Config,
    state: Mutex<State>,
    report: watch::Sender<Report>,
}

struct State {
    /// The configuration in force, as it was read.
    in_force: Loaded,
    trial: Option<Trial>,
    /// The present location of the control socket.
    control: Control,
    /// Fingerprints of the files when they were last read.
    seen: Option<Vec<Option<Fingerprint>>>,
    differs: Option<Diagnostic>,
}

/// A configuration that is not confirmed yet.
pub(super) struct Trial {
    record: Record,
    former: Loaded,
    /// Whether the time is over, so that `former` is in force.
    returned: bool,
}

/// Device, inode, size, and times of the last changes.
type Fingerprint = (u64, u64, u64, [i64; 4]);

type Outcome = Result<Changes, Response>;

impl Reloader {
    pub(super) fn new(to: Connections, started: Started) -> (Self, watch::Receiver<Report>) {
        let Started { in_force, trial, config, .. } = started;
        let successful = trial.as_ref().is_none_or(|t| !t.returned);
        let (report, seen) = watch::channel(Report { successful, at: now() });
        let control = config.control.clone();
        let state = State { in_force, trial, control, seen: None, differs: None };
        (Self(Arc::new(Inner { to, started: config, state: Mutex::new(state), report })), seen)
    }

    /// Puts the file into force, or reports everything that is wrong with it.
    pub(super) async fn reload(&self, order: Reload) -> Response {
        let mut state = self.0.state.lock().await;
        let outcome = self.0.reload(&mut state, order).await;
        if !order.dry_run {
            let successful = outcome.is_ok();
            self.0.report.send_modify(|report| {
                report.successful = successful;
                report.at = if successful { now() } else { report.at };
            });
        }
        self.0.look(&mut state).await;
        outcome.map_or_else(|response| response, |changes| Response::Changes(Box::new(changes)))
    }

    /// Confirms the configuration on trial.
    pub(super) async fn confirm(&self) -> Response {
        let mut state = self.0.state.lock().await;
        let refused = match &state.trial {
            None => "no reload waits for a confirmation; `routelet reload --confirm SECONDS` begins one",
            Some(trial) if trial.returned => {
                "the time is over, and the former configuration is in force again; `routelet reload --confirm SECONDS` \
                 tries the file once more"
            }
            Some(_) => {
                if let Err(why) = self.0.forget().await {
                    return Response::Refused(format!("the configuration stays on trial: {why}"));
                }
                state.trial = None;
                tracing::info!("configuration confirmed");
                self.0.look(&mut state).await;
                return Response::Done(None);
            }
        };
        Response::Refused(refused.to_owned())
    }

    /// Ends a trial in time, and detects a file on disk that differs from the configuration in
    /// force.
    pub(super) async fn follow(self) {
        loop {
            let left = {
                let mut state = self.0.state.lock().await;
                self.0.end_trial(&mut state).await;
                self.0.look(&mut state).await;
                let on_trial = state.trial.as_ref().filter(|t| !t.returned);
                on_trial.map(|t| Duration::from_secs_f64(t.record.left(&moment())))
            };
            match left {
                Some(left) => sleep(left.min(TRIAL_INTERVAL)).await,
                None => tick(LOOK_INTERVAL).await,
            }
        }
    }
}

impl Inner {
    async fn reload(&self, state: &mut State, order: Reload) -> Outcome {
        let loaded = self.read().await?;
        let mut config = loaded.config.clone();
        let limit = Limit::read();
        limit.complete(&mut config);
        let mut changes = self.compare(&config).await;
        if order.dry_run {
            return Ok(changes);
        }
        if let Some(why) = changes.force.take()
            && !order.force
            && order.confirm.is_none()
        {
            tracing::warn!(%why, "configuration not applied; the old one stays in force");
            return Err(Response::Refused(format!(
                "the old configuration stays in force: {why}; if that is meant, add `--force`, or `--confirm SECONDS` to \
                 have it back unless `routelet reload confirm` comes"
            )));
        }
        let kept = self.keep_trial(state, &loaded, order.confirm).await;
        kept.map_err(|why| Response::Refused(format!("the old configuration stays in force: {why}")))?;
        publish(&self.to.budget, limit.budget());
        self.put_in_force(config);
        (state.in_force, state.seen) = (loaded, None);
        if !self.move_control(state).await {
            changes.restart.push("control".to_owned());
        }
        changes.applied = true;
        changes.returns_at = state.trial.as_ref().map(|t| wall_time(&t.record.until));
        tracing::info!("configuration applied");
        if !changes.restart.is_empty() {
            tracing::warn!(keys = %changes.restart.join(", "), "these keys take effect at the next start");
        }
        Ok(changes)
    }

    async fn read(&self) -> Result<Loaded, Response> {
        let (file, kubernetes) = (self.to.file.clone(), self.to.kubernetes);
        let read = spawn_blocking(move || config::io::load(file.as_deref(), kubernetes)).await;
        let loaded = match read {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(problems)) => {
                let mut text = problems.to_string();
                if self.started.security.sandbox && text.contains("Permission denied") {
                    text += OUT_OF_REACH;
                }
                for problem in text.lines() {
                    tracing::error!(%problem, "configuration not applied; the old one stays in force");
                }
                return Err(Response::Misconfigured(format!(
                    "the old configuration stays in force:\n{text}"
                )));
            }
            Err(_) => return Err(Response::Refused("the daemon is stopping".into())),
        };
        if let Some(warnings) = &loaded.warnings {
            tracing::warn!(%warnings, "configuration");
        }
        Ok(loaded)
    }

    /// What the new configuration would change now. Both plans are computed for the same host and
    /// cluster.
    async fn compare(&self, new: &Config) -> Changes {
        let (reply, response) = oneshot::channel();
        let views = match self.to.peers.send(ToPeers::Status { reply }).await {
            Ok(()) => response.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let (old, basis) = (self.to.config.borrow().clone(), self.to.basis.borrow().clone());
        let plan = |config: &Config| match &basis {
            Some(basis) => basis.plan(config),
            None => Err(NoPlan::Pending),
        };
        let (before, after) = (plan(&old), plan(new));
        let (before, after) = (Side { config: &old, plan: &before }, Side { config: new, plan: &after });
        let restart = restart::keys(&self.started, new, self.to.kubernetes);
        let restart = restart.into_iter().map(str::to_owned).collect();
        Changes { restart, ..changes::changes(before, after, &Sessions::new(&views)) }
    }

    /// Saves the configuration to return to, before anything changes.
    async fn keep_trial(
        &self,
        state: &mut State,
        new: &Loaded,
        confirm: Option<u32>,
    ) -> Result<(), TrialError> {
        let running = state.trial.as_ref().filter(|t| !t.returned);
        let former = running.map_or(&state.in_force, |t| &t.former).clone();
        let record = match (confirm, running) {
            (Some(_), _) if new.config.state_dir != self.started.state_dir => {
                return Err(TrialError::StateDir);
            }
            (Some(seconds), _) => {
                let file = self.path().display().to_string();
                Record::new(&file, former.text.as_ref(), new.text.as_ref(), seconds, &moment())
            }
            // A further reload neither confirms the trial nor extends it.
            (None, Some(running)) if !running.record.is_former(new.text.as_ref()) => {
                running.record.with(new.text.as_ref())
            }
            (None, _) => {
                self.forget().await?;
                state.trial = None;
                return Ok(());
            }
        };
        self.write(&record).await?;
        state.trial = Some(Trial { record, former, returned: false });
        Ok(())
    }

    async fn write(&self, record: &Record) -> Result<(), TrialError> {
        let (path, bytes) = (self.record(), serde_json::to_vec(record).unwrap_or_default());
        let to = path.clone();
        let written = spawn_blocking(move || crate::state::io::write(&to, &bytes, 0o600)).await;
        let written = written.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        written.map_err(|error| TrialError::NotWritten { path, error })
    }

    /// Removes the record of the trial.
    async fn forget(&self) -> Result<(), TrialError> {
        let path = self.record();
        let to = path.clone();
        let removed = spawn_blocking(move || match fs::remove_file(to) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        });
        let removed = removed.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        removed.map_err(|error| TrialError::NotRemoved { path, error })
    }

    fn put_in_force(&self, config: Config) {
        if self.to.config.borrow().log.level != config.log.level {
            self.to.log.set(&config.log.level);
        }
        self.to.config.send_replace(Arc::new(config));
    }

    /// Moves the control socket to its configured location. Returns whether it is there.
    async fn move_control(&self, state: &mut State) -> bool {
        let to = state.in_force.config.control.clone();
        if to == state.control {
            return true;
        }
        let (reply, response) = oneshot::channel();
        let moved = match self.to.moves.send(Move { to: to.clone(), reply }).await {
            Ok(()) => response.await.ok(),
            Err(_) => None,
        };
        match moved {
            Some(Ok(())) => state.control = to,
            Some(Err(reason)) => tracing::warn!(%reason, "control socket not moved"),
            None => {
                tracing::warn!(reason = "the daemon is stopping", "control socket not moved");
            }
        }
        state.control == state.in_force.config.control
    }

    /// Returns to the former configuration if its time has come.
    async fn end_trial(&self, state: &mut State) {
        let Some(trial) = state.trial.as_mut().filter(|t| !t.returned && t.record.left(&moment()) <= 0.0)
        else {
            return;
        };
        trial.returned = true;
        state.in_force = trial.former.clone();
        tracing::warn!(
            seconds = trial.record.seconds,
            "configuration not confirmed in time; the former one is in force again"
        );
        let mut config = state.in_force.config.clone();
        Limit::read().complete(&mut config);
        self.put_in_force(config);
        self.move_control(state).await;
        self.report.send_modify(|report| report.successful = false);
        state.seen = None;
    }

    /// If the file on disk changed, compares it with the configuration in force. Reports the
    /// problems.
    async fn look(&self, state: &mut State) {
        let path = self.path();
        let folder = path.parent().unwrap_or(Path::new("/"));
        let secrets = sandbox::passwords(&state.in_force.config, folder);
        let now: Vec<_> = std::iter::once(path.clone()).chain(secrets).map(|p| fingerprint(&p)).collect();
        if state.seen.as_ref() != Some(&now) {
            state.seen = Some(now);
            let (file, kubernetes) = (self.to.file.clone(), self.to.kubernetes);
            let read = spawn_blocking(move || config::io::load(file.as_deref(), kubernetes)).await;
            state.differs = read.ok().and_then(|read| {
                problems::of_file(&path, read.as_ref().ok(), &state.in_force.config, state.trial.as_ref())
            });
        }
        let mut late = restart::keys(&self.started, &state.in_force.config, self.to.kubernetes);
        late.extend((state.control != state.in_force.config.control).then_some("control"));
        publish(&self.to.problems, state.problems(&path, &late));
    }

    fn path(&self) -> PathBuf {
        path(self.to.file.as_deref())
    }

    fn record(&self) -> PathBuf {
        self.to.state_dir.join(FILE)
    }
}

impl State {
    fn problems(&self, path: &Path, late: &[&str]) -> Vec<Diagnostic> {
        let on_trial = self.trial.as_ref().filter(|t| !t.returned);
        let on_trial = on_trial.map(|t| problems::on_trial(path, &wall_time(&t.record.until)));
        on_trial.into_iter().chain(self.differs.clone()).chain(problems::late(late)).collect()
    }
}

/// The sandbox only permits the folders that were configured at the start.
const OUT_OF_REACH: &str = "\na file in a folder that the configuration did not name at the start is out of reach; \
                            restart routelet";

/// Why the record of the former configuration cannot be written or removed.
#[derive(Debug, thiserror::Error)]
enum TrialError {
    #[error(
        "state-dir cannot be changed on trial, since the former configuration is saved there; change it without --confirm and restart \
         routelet"
    )]
    StateDir,
    #[error("{}: {error}; without it a restart would not return in time: make state-dir writable", .path.display())]
    NotWritten { path: PathBuf, error: std::io::Error },
    #[error(
        "{}: {error}; with it a restart would return to the former configuration: make state-dir writable",
        .path.display()
    )]
    NotRemoved { path: PathBuf, error: std::io::Error },
}

/// The file that is read; absolute, so that it is the same for each start.
fn path(file: Option<&Path>) -> PathBuf {
    let file = file.unwrap_or(Path::new(config::io::DEFAULT_PATH));
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let meta = fs::metadata(path).ok()?;
    let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
    Some((meta.dev(), meta.ino(), meta.size(), times))
}

/// The present time. The clock since boot includes the time while the machine is suspended.
fn moment() -> Moment {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let since_boot = uptime.split_whitespace().next().and_then(|s| s.parse().ok()).unwrap_or_default();
    Moment { boot: state::boot_id(), since_boot, wall: jiff::Timestamp::now().as_duration().as_secs_f64() }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The wall-clock time of a moment, to the second.
fn wall_time(until: &Moment) -> String {
    let at = jiff::Timestamp::from_second(until.wall as i64).unwrap_or_default();
    at.to_string()
}
