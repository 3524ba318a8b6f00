//! The file for the container runtime: written when the gate opens and what we own in it differs, and looked at again now
//! and then, since others write there too.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep_until};
use tracing::{info, warn};

use super::{
    ConflistOptions, Surroundings,
    former::Former,
    tend::{Looked, Tender},
};
use crate::{
    cni::{
        conflist::{self, Conflist, InFront},
        gate::{self, Ready, Verdict},
        view::{ConflistState, ConflistStatus},
    },
    net::text::untrusted,
    state::io as state,
};

/// How often we look whether somebody else changed the file.
const LOOK: Duration = Duration::from_secs(2);
/// Somebody who keeps overwriting our file is overwritten at most so often.
const QUARREL: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// For how long it is told that somebody did.
const TOLD: Duration = Duration::from_secs(600);

impl ConflistOptions {
    /// The whole path of the file.
    pub fn path(&self) -> PathBuf {
        self.conf_dir.join(&self.file)
    }
}

/// Never ends.
pub(super) async fn run(
    options: ConflistOptions,
    mut want: watch::Receiver<Option<Arc<Conflist>>>,
    mut ready: watch::Receiver<Ready>,
    mut around: Surroundings,
    status: watch::Sender<ConflistStatus>,
    former: Former,
) {
    let tender = Tender::new(&options, around.leases.take());
    let mut keeper =
        Keeper { options, former, tender, since: None, written: None, seen: None, quarrel: None };
    let mut happened = true;
    loop {
        let now_wanted = want.borrow_and_update().clone();
        let readiness = ready.borrow_and_update().clone();
        let missing = around.no_conflist.borrow_and_update().clone();
        happened |= around.bridge.has_changed().unwrap_or(false);
        around.bridge.mark_unchanged();
        let mut until = Instant::now() + LOOK;
        let looked = keeper.tend(std::mem::take(&mut happened)).await;
        until = looked.until.map_or(until, |at| at.min(until));
        let said = match now_wanted {
            None => Said::waiting(&missing),
            Some(conflist) => keeper.turn(conflist, &readiness, looked.in_pieces, &mut until).await,
        };
        said.publish(&keeper.options, &status);
        around.problems.send_if_modified(|last| {
            let news = *last != looked.problems;
            *last = looked.problems;
            news
        });
        // Cancel safe, each.
        tokio::select! {
            () = sleep_until(until.into()) => {}
            () = changed(&mut want) => {}
            () = changed(&mut ready) => {}
            () = changed(&mut around.no_conflist) => {}
            () = changed(&mut around.bridge) => happened = true,
        }
    }
}

/// What is remembered from look to look.
struct Keeper {
    options: ConflistOptions,
    former: Former,
    tender: Tender,
    /// Since when a conflist is wanted.
    since: Option<Instant>,
    written: Option<(Arc<Conflist>, Instant)>,
    /// The file as it was right last, with what others had chained into it.
    seen: Option<Vec<u8>>,
    /// What another program made of the file, and when it was last seen to.
    quarrel: Option<(String, Instant)>,
}

impl Keeper {
    /// Looks after the bridge of the pods that the file in the folder makes.
    async fn tend(&mut self, changed: bool) -> Looked {
        let bridge = self.former.bridge().to_owned();
        if bridge.is_empty() {
            return Looked::default();
        }
        let (ranges, held) = (self.former.on_bridge(), self.former.ranges());
        self.tender.turn(&bridge, &ranges, &held, changed).await
    }

    /// One look, and what follows from it; `until` is when to look again.
    async fn turn(
        &mut self,
        conflist: Arc<Conflist>,
        ready: &Ready,
        in_pieces: bool,
        until: &mut Instant,
    ) -> Said {
        self.former.tend(&conflist, in_pieces).await;
        let now = Instant::now();
        let differs = match look(&self.options, &conflist, self.seen.as_deref()) {
            Look::Same(bytes) => {
                self.seen = Some(bytes);
                return self.in_place(now);
            }
            Look::Failed(error) => return Said::failed(&error),
            Look::Differs(differs) => differs,
        };
        let ours = self.written.as_ref().filter(|(c, _)| *c == conflist).map(|(_, at)| *at);
        match gate::verdict(now, *self.since.get_or_insert(now), ready, &conflist.pod_cidrs) {
            Verdict::Wait { until: due, missing } => {
                *until = due.map_or(*until, |due| due.min(*until));
                Said::waiting(missing)
            }
            Verdict::Write if ours.is_some_and(|at| now < at + QUARREL) => {
                self.note_quarrel(now, &differs);
                Said::waiting("another program keeps changing this file; it is written again in a while")
            }
            Verdict::Write => {
                if ours.is_some() {
                    self.note_quarrel(now, &differs);
                }
                match write(&self.options, &conflist, &differs, &mut self.former).await {
                    Ok(()) => {
                        self.written = Some((conflist, now));
                        self.seen = Some(differs.bytes);
                        self.in_place(now)
                    }
                    Err(said) => said,
                }
            }
        }
    }

    fn note_quarrel(&mut self, now: Instant, differs: &Differs) {
        let found = conflist::describe(differs.existing.as_deref());
        if self.quarrel.as_ref().is_none_or(|(known, at)| *known != found || now >= *at + TOLD) {
            warn!(
                path = %self.options.path().display(),
                %found,
                "another program changed or removed the conflist, it is written again; find out which, and stop it"
            );
        }
        self.quarrel = Some((found, now));
    }

    /// As wanted. A quarrel is told for a while: long enough for an Event.
    fn in_place(&self, now: Instant) -> Said {
        let quarrel = self.quarrel.as_ref().filter(|(_, at)| now < *at + TOLD).map(|(found, _)| {
            format!(
                "another program changed or removed the conflist (found was {found}), and it was written again; find out which, \
                 and stop it"
            )
        });
        Said {
            state: ConflistState::Written,
            problem: in_front(&self.options, self.seen.as_deref().unwrap_or_default()).or(quarrel),
        }
    }
}

/// Waits for news; for ever once nobody is left to bring some. Cancel safe.
async fn changed<T>(news: &mut watch::Receiver<T>) {
    if news.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What there is to say.
struct Said {
    state: ConflistState,
    problem: Option<String>,
}

impl Said {
    fn waiting(what: &str) -> Self {
        Self { state: ConflistState::Waiting, problem: Some(what.into()) }
    }

    fn failed(error: &io::Error) -> Self {
        let problem = format!("{error}; mount the folder read-write, or set cni.conf-dir");
        Self { state: ConflistState::Failed, problem: Some(problem) }
    }

    /// To `show node` at each change, to the log likewise.
    fn publish(self, options: &ConflistOptions, status: &watch::Sender<ConflistStatus>) {
        let path = options.path().display().to_string();
        let Self { state, problem } = self;
        let new = ConflistStatus { path: Some(path.clone()), state, problem, others: others(options) };
        status.send_if_modified(|last| {
            if *last == new {
                return false;
            }
            let problem = new.problem.as_deref().unwrap_or_default();
            match new.state {
                ConflistState::Waiting => info!(path, waiting_for = problem, "conflist not written yet"),
                ConflistState::Failed => {
                    warn!(path, error = problem, "conflist cannot be written, trying again")
                }
                _ if new.problem.is_some() => warn!(path, problem, "conflist is in place, but"),
                _ => info!(path, "conflist is in place"),
            }
            *last = new;
            true
        });
    }
}

/// What a look at the folder found.
enum Look {
    /// As wanted: what the file holds.
    Same(Vec<u8>),
    Differs(Differs),
    Failed(io::Error),
}

/// What is to be written, and over what.
struct Differs {
    bytes: Vec<u8>,
    existing: Option<Vec<u8>>,
}

/// `seen` is what the file held when it was right last: whoever takes the file away takes along what others had
/// chained into it, and that comes back with ours.
fn look(options: &ConflistOptions, conflist: &Conflist, seen: Option<&[u8]>) -> Look {
    let existing = match std::fs::read(options.path()) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Look::Failed(e),
    };
    let usable = existing.as_deref().filter(|bytes| conflist::is_of_our_network(bytes));
    match (usable, seen) {
        (None, Some(seen)) => {
            let bytes = conflist::merge(&conflist.bytes, Some(seen)).unwrap_or_else(|| seen.to_vec());
            Look::Differs(Differs { bytes, existing })
        }
        _ => match conflist::merge(&conflist.bytes, existing.as_deref()) {
            None => Look::Same(existing.unwrap_or_default()),
            Some(bytes) => Look::Differs(Differs { bytes, existing }),
        },
    }
}

/// A file that the runtime reads instead of ours, unless it leads to ours.
fn in_front(options: &ConflistOptions, ours: &[u8]) -> Option<String> {
    let mut names = others(options);
    names.retain(|name| *name < options.file);
    let content = read_whole(&options.conf_dir.join(names.first()?)).unwrap_or_default();
    let first = untrusted(names.first()?);
    let second = names.get(1).map(|name| untrusted(name));
    match (conflist::in_front(&content, &options.file, ours), second) {
        (InFront::Other, _) => Some(format!(
            "the container runtime reads {first} first, which is another agent's; remove it, or set cni.file to a name before it"
        )),
        (InFront::DelegatesElsewhere(network), _) => Some(format!(
            "{first} is Multus's and delegates to {}, not to routelet: pods are not connected by routelet; set its \
             clusterNetwork to \"routelet\"",
            untrusted(&network)
        )),
        (InFront::OldCopy, _) => Some(format!(
            "{first} is Multus's and holds a copy of {} for former pod CIDRs: new pods get addresses that are not this node's; \
             restart Multus on this node, or set its clusterNetwork to \"routelet\"",
            options.file
        )),
        (InFront::Delegates, Some(second)) if is_unnamed(&content, options) => Some(format!(
            "{first} is Multus's and delegates to the first file beside its own, which is {second}, another agent's; remove it, \
             or set Multus's clusterNetwork to \"routelet\""
        )),
        (InFront::Delegates, _) => None,
    }
}

/// Whether Multus finds its default network by the order of the files.
fn is_unnamed(multus: &[u8], options: &ConflistOptions) -> bool {
    let text = String::from_utf8_lossy(multus);
    !text.contains(&options.file) && !text.contains("\"routelet\"")
}

/// Files of other agents that a runtime would read, in its order.
fn others(options: &ConflistOptions) -> Vec<String> {
    let entries = std::fs::read_dir(&options.conf_dir).into_iter().flatten();
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|n| conflist::read_by_runtimes(n) && *n != options.file).collect();
    names.sort_unstable();
    names.truncate(MAX_OTHERS);
    names
}

/// A file of another agent; one that is longer than any conflist is read in part, and means nothing then.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(MAX_CONFLIST).read_to_end(&mut content)?;
    Ok(content)
}

/// Files of others that are looked at, the first in the order of the runtime.
const MAX_OTHERS: usize = 64;
/// Octets of one.
const MAX_CONFLIST: u64 = 1 << 20;

async fn write(
    options: &ConflistOptions,
    conflist: &Arc<Conflist>,
    differs: &Differs,
    former: &mut Former,
) -> Result<(), Said> {
    let others = others(options);
    if differs.existing.is_none() && !others.is_empty() {
        warn!(files = ?others, "files of other agents are in the folder; they are left alone, and the first in lexical order is read");
    }
    if let Some((bridge, ranges)) = differs.existing.as_deref().and_then(conflist::written_for)
        && bridge == conflist.bridge
        && let Err(error) = former.retire(&ranges, conflist).await
    {
        return Err(Said {
            state: ConflistState::Failed,
            problem: Some(format!(
                "cannot move the gateway addresses of the former pod CIDRs off {bridge}: {error}; without that the bridge \
                 plugin refuses the new range"
            )),
        });
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
        Ok(Err(error)) => Err(Said::failed(&error)),
        Err(error) => Err(Said::failed(&io::Error::other(error))),
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
