//! Maintains the file for the container runtime: writes it when the gate opens and our part of it
//! differs, and checks it at intervals, since other programs change it as well.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep_until};
use tracing::{info, warn};

use super::{
    ConflistContext, ConflistOptions,
    former::Former,
    maintain::{BridgeTask, Checked},
};
use crate::{
    cni::{
        conflist::{self, Conflist, InFront},
        gate::{self, GateDecision, GateInputs},
        view::{ConflistState, ConflistStatus},
    },
    mailbox::publish,
    net::{Diagnostic, Reason, Subject, text::untrusted},
    state::io as state,
};

/// How often to check whether another program changed the file.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Minimum time between writes of the same content, while another program keeps changing the file.
const OVERWRITE_INTERVAL: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// How long a change by another program is reported.
const REPORT_OVERWRITE: Duration = Duration::from_secs(600);

impl ConflistOptions {
    /// Path of the file.
    pub fn path(&self) -> PathBuf {
        self.conf_dir.join(&self.file)
    }
}

/// Never ends.
pub(super) async fn run(
    options: ConflistOptions,
    mut want: watch::Receiver<Option<Arc<Conflist>>>,
    mut ready: watch::Receiver<GateInputs>,
    mut context: ConflistContext,
    status: watch::Sender<ConflistStatus>,
    former: Former,
) {
    let bridge_task = BridgeTask::new(&options, context.leases.take());
    let mut keeper = ConflistKeeper {
        options,
        former,
        bridge_task,
        since: None,
        written: None,
        seen: None,
        overwritten: None,
    };
    let mut bridge_changed = true;
    loop {
        let now_wanted = want.borrow_and_update().clone();
        let readiness = ready.borrow_and_update().clone();
        let missing = context.no_conflist.borrow_and_update().clone();
        bridge_changed |= context.bridge.has_changed().unwrap_or(false);
        context.bridge.mark_unchanged();
        let mut until = Instant::now() + CHECK_INTERVAL;
        let checked = keeper.maintain_bridge(std::mem::take(&mut bridge_changed)).await;
        until = checked.until.map_or(until, |at| at.min(until));
        let outcome = match now_wanted {
            None => Outcome::waiting(&missing),
            Some(conflist) => keeper.reconcile(conflist, &readiness, checked.is_broken, &mut until).await,
        };
        outcome.publish(&keeper.options, &status);
        publish(&context.problems, checked.problems);
        // Each arm is cancel safe.
        tokio::select! {
            () = sleep_until(until.into()) => {}
            () = changed(&mut want) => {}
            () = changed(&mut ready) => {}
            () = changed(&mut context.no_conflist) => {}
            () = changed(&mut context.bridge) => bridge_changed = true,
        }
    }
}

/// State of the task.
struct ConflistKeeper {
    options: ConflistOptions,
    former: Former,
    bridge_task: BridgeTask,
    /// Since when a conflist is wanted.
    since: Option<Instant>,
    written: Option<(Arc<Conflist>, Instant)>,
    /// The last correct content of the file, including plugins chained by other programs.
    seen: Option<Vec<u8>>,
    /// The content that another program left, and when it was last seen.
    overwritten: Option<(String, Instant)>,
}

impl ConflistKeeper {
    /// Maintains the bridge of the conflist in the folder.
    async fn maintain_bridge(&mut self, changed: bool) -> Checked {
        let bridge = self.former.bridge().to_owned();
        if bridge.is_empty() {
            return Checked::default();
        }
        let (ranges, held) = (self.former.on_bridge(), self.former.ranges());
        self.bridge_task.maintain(&bridge, &ranges, &held, changed).await
    }

    /// Compares the file with the wanted conflist and writes it if allowed; `until` is the time of
    /// the next check.
    async fn reconcile(
        &mut self,
        conflist: Arc<Conflist>,
        ready: &GateInputs,
        is_broken: bool,
        until: &mut Instant,
    ) -> Outcome {
        self.former.maintain(&conflist, is_broken).await;
        let now = Instant::now();
        let differs = match compare(&self.options, &conflist, self.seen.as_deref()) {
            Comparison::Same(bytes) => {
                self.seen = Some(bytes);
                return self.in_place(now);
            }
            Comparison::Failed(error) => return Outcome::failed(&self.options, &error),
            Comparison::Differs(differs) => differs,
        };
        let ours = self.written.as_ref().filter(|(c, _)| *c == conflist).map(|(_, at)| *at);
        match gate::decide(now, *self.since.get_or_insert(now), ready, &conflist.pod_cidrs) {
            GateDecision::Wait { until: due, missing } => {
                *until = due.map_or(*until, |due| due.min(*until));
                Outcome::waiting(missing)
            }
            GateDecision::Write if ours.is_some_and(|at| now < at + OVERWRITE_INTERVAL) => {
                self.note_overwritten(now, &differs);
                Outcome::waiting(
                    "another program keeps changing this file; it will be written again within 30 s",
                )
            }
            GateDecision::Write => {
                if ours.is_some() {
                    self.note_overwritten(now, &differs);
                }
                match write(&self.options, &conflist, &differs, &mut self.former).await {
                    Ok(()) => {
                        self.written = Some((conflist, now));
                        self.seen = Some(differs.bytes);
                        self.in_place(now)
                    }
                    Err(outcome) => outcome,
                }
            }
        }
    }

    fn note_overwritten(&mut self, now: Instant, differs: &Differs) {
        let found = conflist::describe(differs.existing.as_deref());
        if self
            .overwritten
            .as_ref()
            .is_none_or(|(known, at)| *known != found || now >= *at + REPORT_OVERWRITE)
        {
            warn!(
                path = %self.options.path().display(),
                %found,
                "conflist changed or removed by another program, writing it again; find out which program, and stop it"
            );
        }
        self.overwritten = Some((found, now));
    }

    /// The file is as wanted. A change by another program is reported for a while, long enough for
    /// an Event.
    fn in_place(&self, now: Instant) -> Outcome {
        let overwritten = self.overwritten.as_ref().filter(|(_, at)| now < *at + REPORT_OVERWRITE).map(|(found, _)| {
            Diagnostic::new(
                Reason::ConflistChanged,
                Subject::file(self.options.path().display()),
                format!(
                    "another program changed or removed the conflist (found: {found}), and it was written again"
                ),
                "find out which program, and stop it",
            )
        });
        Outcome {
            state: ConflistState::Written,
            waiting_for: None,
            problem: in_front(&self.options, self.seen.as_deref().unwrap_or_default()).or(overwritten),
        }
    }
}

/// Waits for a change; forever if the sender is gone. Cancel safe.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Result of a check, for the status and the log.
struct Outcome {
    state: ConflistState,
    /// Why it is not written yet.
    waiting_for: Option<String>,
    problem: Option<Diagnostic>,
}

impl Outcome {
    fn waiting(what: &str) -> Self {
        Self { state: ConflistState::Waiting, waiting_for: Some(what.into()), problem: None }
    }

    fn failed(options: &ConflistOptions, error: &io::Error) -> Self {
        Self::not_written(options, error.to_string(), "mount the folder read-write, or set cni.conf-dir")
    }

    fn not_written(options: &ConflistOptions, why: String, remedy: &str) -> Self {
        let path = options.path().display().to_string();
        let text = format!("the conflist cannot be written: {why}");
        let problem = Diagnostic::new(Reason::ConflistNotWritten, Subject::file(path), text, remedy);
        Self { state: ConflistState::Failed, waiting_for: None, problem: Some(problem) }
    }

    /// Updates the status for `show node`, and logs each change.
    fn publish(self, options: &ConflistOptions, status: &watch::Sender<ConflistStatus>) {
        let path = options.path().display().to_string();
        let Self { state, waiting_for, problem: diagnostic } = self;
        let problem = diagnostic.as_ref().map(Diagnostic::line).or(waiting_for);
        let others = others(options);
        let new = ConflistStatus { path: Some(path.clone()), state, problem, diagnostic, others };
        status.send_if_modified(|last| {
            if *last == new {
                return false;
            }
            let problem = new.problem.as_deref().unwrap_or_default();
            match new.state {
                ConflistState::Waiting => info!(path, waiting_for = problem, "waiting to write conflist"),
                ConflistState::Failed => {
                    warn!(path, error = problem, "cannot write conflist, retrying")
                }
                _ => info!(path, "conflist up to date"),
            }
            *last = new;
            true
        });
    }
}

/// Comparison of the file with the wanted content.
enum Comparison {
    /// As wanted; the content of the file.
    Same(Vec<u8>),
    Differs(Differs),
    Failed(io::Error),
}

/// The content to write, and the content to replace.
struct Differs {
    bytes: Vec<u8>,
    existing: Option<Vec<u8>>,
}

/// `seen` is the last correct content of the file: if the file is deleted, plugins that other
/// programs had chained into it are restored together with ours.
fn compare(options: &ConflistOptions, conflist: &Conflist, seen: Option<&[u8]>) -> Comparison {
    let existing = match std::fs::read(options.path()) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Comparison::Failed(e),
    };
    let usable = existing.as_deref().filter(|bytes| conflist::is_of_our_network(bytes));
    match (usable, seen) {
        (None, Some(seen)) => {
            let bytes = conflist::merge(&conflist.bytes, Some(seen)).unwrap_or_else(|| seen.to_vec());
            Comparison::Differs(Differs { bytes, existing })
        }
        _ => match conflist::merge(&conflist.bytes, existing.as_deref()) {
            None => Comparison::Same(existing.unwrap_or_default()),
            Some(bytes) => Comparison::Differs(Differs { bytes, existing }),
        },
    }
}

/// The problem of a file that the runtime reads before ours, unless it delegates to ours.
pub(super) fn in_front(options: &ConflistOptions, ours: &[u8]) -> Option<Diagnostic> {
    let mut names = others(options);
    names.retain(|name| *name < options.file);
    let content = read_bounded(&options.conf_dir.join(names.first()?)).unwrap_or_default();
    let first = untrusted(names.first()?);
    let second = names.get(1).map(|name| untrusted(name));
    let (text, remedy) = match (conflist::in_front(&content, &options.file, ours), second) {
        (InFront::Other, _) => (
            format!("the container runtime reads {first} first, which belongs to another network agent"),
            "remove it, or set cni.file to a name that sorts before it",
        ),
        (InFront::DelegatesElsewhere(network), _) => (
            format!(
                "{first} of Multus delegates to {}, not to routelet, so pods are not connected by routelet",
                untrusted(&network)
            ),
            "set its clusterNetwork to \"routelet\"",
        ),
        (InFront::OldCopy, _) => (
            format!(
                "{first} of Multus contains a copy of {} with former pod CIDRs, so new pods get addresses of \
                 another node",
                options.file
            ),
            "restart Multus on this node, or set its clusterNetwork to \"routelet\"",
        ),
        (InFront::Delegates, Some(second)) if is_unnamed(&content, options) => (
            format!(
                "{first} of Multus delegates to the first other file, which is {second} of another network agent"
            ),
            "remove it, or set clusterNetwork of Multus to \"routelet\"",
        ),
        (InFront::Delegates, _) => return None,
    };
    Some(Diagnostic::new(Reason::ConflistNotUsed, Subject::file(first), text, remedy))
}

/// Whether Multus determines its default network by the order of the files.
fn is_unnamed(multus: &[u8], options: &ConflistOptions) -> bool {
    let text = String::from_utf8_lossy(multus);
    !text.contains(&options.file) && !text.contains("\"routelet\"")
}

/// Files of other network agents that a runtime would read, in its order.
fn others(options: &ConflistOptions) -> Vec<String> {
    let entries = std::fs::read_dir(&options.conf_dir).into_iter().flatten();
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|n| conflist::read_by_runtimes(n) && *n != options.file).collect();
    names.sort_unstable();
    names.truncate(MAX_OTHERS);
    names
}

/// Reads a file of another agent; a file longer than any conflist is truncated, and so is invalid.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(MAX_CONFLIST).read_to_end(&mut content)?;
    Ok(content)
}

/// Maximum number of files of other agents to consider, the first in the runtime's order.
const MAX_OTHERS: usize = 64;
/// Maximum octets of one.
const MAX_CONFLIST: u64 = 1 << 20;

async fn write(
    options: &ConflistOptions,
    conflist: &Arc<Conflist>,
    differs: &Differs,
    former: &mut Former,
) -> Result<(), Outcome> {
    let others = others(options);
    if differs.existing.is_none() && !others.is_empty() {
        warn!(files = ?others, "other network agents have files in the folder; the container runtime reads the first in lexical order");
    }
    if let Some((bridge, ranges)) = differs.existing.as_deref().and_then(conflist::written_for)
        && bridge == conflist.bridge
        && let Err(error) = former.retire(&ranges, conflist).await
    {
        let why =
            format!("the gateway addresses of the former pod CIDRs cannot be moved from {bridge}: {error}");
        let remedy = "remove them with `ip addr del`: until then the bridge plugin rejects the new range";
        return Err(Outcome::not_written(options, why, remedy));
    }
    let (path, bytes) = (options.path(), differs.bytes.clone());
    let result = tokio::task::spawn_blocking(move || replace(&path, &bytes)).await;
    match result {
        Ok(Ok(())) => {
            former.written(&conflist.bridge, &conflist.pod_cidrs);
            let chained = conflist::chained_by_others(&differs.bytes);
            info!(path = %options.path().display(), pod_cidrs = ?conflist.pod_cidrs, kept = ?chained, "conflist written");
            Ok(())
        }
        Ok(Err(error)) => Err(Outcome::failed(options, &error)),
        Err(error) => Err(Outcome::failed(options, &io::Error::other(error))),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    state::write(path, bytes, 0o644)
}

#[cfg(test)]
mod tests;
