//! The file for the container runtime: written when the gate opens and what we own in it differs, and looked at again now
//! and then, since others write there too.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep_until};
use tracing::{info, warn};

use super::{ConflistOptions, former::Former, state};
use crate::k8s::{
    cni::{self, Conflist},
    gate::{self, Ready, Verdict},
    view::{ConflistState, ConflistStatus},
};

/// How often we look whether somebody else changed the file.
const LOOK: Duration = Duration::from_secs(2);
/// Somebody who keeps overwriting our file is overwritten at most so often.
const QUARREL: Duration = Duration::from_secs(30);

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
    status: watch::Sender<ConflistStatus>,
    mut former: Former,
) {
    // Since when a conflist is wanted.
    let mut since: Option<Instant> = None;
    let mut written: Option<(Arc<Conflist>, Instant)> = None;
    loop {
        let now_wanted = want.borrow_and_update().clone();
        let readiness = ready.borrow_and_update().clone();
        let now = Instant::now();
        let mut until = now + LOOK;
        if let Some(conflist) = &now_wanted {
            former.tend(conflist).await;
        }
        let said = match now_wanted {
            None => Said::waiting("the Node's pod CIDRs are not known, or cannot be used"),
            Some(conflist) => match look(&options, &conflist) {
                Look::Same(problem) => Said { state: ConflistState::Written, problem },
                Look::Failed(error) => Said::failed(&error),
                Look::Differs(differs) => {
                    let again = written.as_ref().filter(|(c, _)| *c == conflist).map(|(_, at)| *at + QUARREL);
                    match gate::verdict(now, *since.get_or_insert(now), &readiness, &conflist.pod_cidrs) {
                        Verdict::Wait { until: due, missing } => {
                            until = due.map_or(until, |due| due.min(until));
                            Said::waiting(missing)
                        }
                        Verdict::Write if again.is_some_and(|due| now < due) => Said::waiting(
                            "another program keeps changing this file; it is written again in a while",
                        ),
                        Verdict::Write => {
                            if written.as_ref().is_some_and(|(c, _)| *c == conflist) {
                                warn!(
                                    path = %options.path().display(),
                                    found = %cni::describe(differs.existing.as_deref()),
                                    "another program changed or removed the conflist, it is written again; find out which, and stop it"
                                );
                            }
                            let said = write(&options, &conflist, &differs, &mut former).await;
                            if said.state == ConflistState::Written {
                                written = Some((conflist, now));
                            }
                            said
                        }
                    }
                }
            },
        };
        said.publish(&options, &status);
        tokio::select! {
            () = sleep_until(until.into()) => {}
            () = changed(&mut want) => {}
            () = changed(&mut ready) => {}
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
    /// As wanted.
    Same(Option<String>),
    Differs(Differs),
    Failed(io::Error),
}

/// What is to be written, and over what.
struct Differs {
    bytes: Vec<u8>,
    existing: Option<Vec<u8>>,
}

fn look(options: &ConflistOptions, conflist: &Conflist) -> Look {
    let existing = match std::fs::read(options.path()) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Look::Failed(e),
    };
    match cni::merge(&conflist.bytes, existing.as_deref()) {
        None => Look::Same(in_front(options)),
        Some(bytes) => Look::Differs(Differs { bytes, existing }),
    }
}

/// Another agent's file that the runtime reads instead of ours.
fn in_front(options: &ConflistOptions) -> Option<String> {
    let names = others(options);
    let all = names.iter().map(String::as_str).chain([options.file.as_str()]);
    let first = cni::first_read(all).filter(|f| *f != options.file)?;
    Some(format!(
        "the container runtime reads {first} first, which is another agent's; remove it, or set cni.file to a name before it"
    ))
}

/// Files of other agents that a runtime would read, in its order.
fn others(options: &ConflistOptions) -> Vec<String> {
    let entries = std::fs::read_dir(&options.conf_dir).into_iter().flatten();
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|n| cni::read_by_runtimes(n) && *n != options.file).collect();
    names.sort_unstable();
    names
}

async fn write(
    options: &ConflistOptions,
    conflist: &Arc<Conflist>,
    differs: &Differs,
    former: &mut Former,
) -> Said {
    let others = others(options);
    if differs.existing.is_none() && !others.is_empty() {
        warn!(files = ?others, "files of other agents are in the folder; they are left alone, and the first in lexical order is read");
    }
    if let Some((bridge, ranges)) = differs.existing.as_deref().and_then(cni::written_for)
        && bridge == conflist.bridge
        && let Err(error) = former.retire(&ranges, conflist).await
    {
        return Said {
            state: ConflistState::Failed,
            problem: Some(format!(
                "cannot move the gateway addresses of the former pod CIDRs off {bridge}: {error}; without that the bridge \
                 plugin refuses the new range"
            )),
        };
    }
    let (path, bytes) = (options.path(), differs.bytes.clone());
    let result = tokio::task::spawn_blocking(move || replace(&path, &bytes)).await;
    match result {
        Ok(Ok(())) => {
            former.written(&conflist.pod_cidrs);
            let chained = cni::chained_by_others(&differs.bytes);
            info!(path = %options.path().display(), pod_cidrs = ?conflist.pod_cidrs, kept = ?chained, "conflist written");
            Said { state: ConflistState::Written, problem: in_front(options) }
        }
        Ok(Err(error)) => Said::failed(&error),
        Err(error) => Said::failed(&io::Error::other(error)),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    state::write(path, bytes, 0o644)
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::k8s::cni::Spec;

    fn conflist(cidr: &str) -> Arc<Conflist> {
        let pod_cidrs = [cidr.parse().unwrap()];
        let chained = vec![cni::plugin("portmap")];
        Arc::new(Conflist::new(Spec {
            pod_cidrs: &pod_cidrs,
            bridge: "rl-unit-none",
            mtu: Some(1500),
            chained,
        }))
    }

    fn open(cidr: &str) -> Ready {
        Ready { unreachable: vec![cidr.parse().unwrap()], forwarding: true, routes: gate::FirstRoutes::Done }
    }

    struct Room {
        dir: tempfile::TempDir,
        want: watch::Sender<Option<Arc<Conflist>>>,
        ready: watch::Sender<Ready>,
        status: watch::Receiver<ConflistStatus>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Room {
        fn new(prepare: impl FnOnce(&Path)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            let (want, want_rx) = watch::channel(None);
            let (ready, ready_rx) = watch::channel(Ready::default());
            let options = ConflistOptions {
                enabled: true,
                conf_dir: dir.path().into(),
                file: "10-routelet.conflist".into(),
                state_dir: dir.path().join("state"),
            };
            let super::super::ConflistTask { status, task, .. } =
                super::super::spawn_conflist(options, want_rx, ready_rx);
            Self { dir, want, ready, status, task }
        }

        fn file(&self) -> PathBuf {
            self.dir.path().join("10-routelet.conflist")
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.file()).unwrap()
        }

        async fn until(&mut self, state: ConflistState, problem: &str) -> ConflistStatus {
            let fits = |s: &ConflistStatus| {
                s.state == state && s.problem.as_deref().unwrap_or_default().contains(problem)
            };
            let wait = self.status.wait_for(fits);
            tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time").unwrap().clone()
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    #[tokio::test]
    async fn it_is_written_when_the_gate_opens_and_follows_the_pod_cidr() {
        let mut room = Room::new(|_| {});
        room.until(ConflistState::Waiting, "not known").await;
        room.want.send_replace(Some(conflist("10.244.1.0/24")));
        room.until(ConflistState::Waiting, "unreachable").await;
        assert!(!room.file().exists());
        room.ready.send_replace(open("10.244.1.0/24"));
        room.until(ConflistState::Written, "").await;
        assert!(room.text().contains("10.244.1.0/24"));

        room.want.send_replace(Some(conflist("10.244.7.0/24")));
        room.until(ConflistState::Waiting, "unreachable").await;
        assert!(room.text().contains("10.244.1.0/24"), "the old one stays until the new range is guarded");
        room.ready.send_replace(open("10.244.7.0/24"));
        room.until(ConflistState::Written, "").await;
        assert!(room.text().contains("10.244.7.0/24") && !room.text().contains("10.244.1.0/24"));
    }

    #[tokio::test]
    async fn a_file_that_is_right_is_not_touched_and_waits_for_nothing() {
        let wanted = conflist("10.244.1.0/24");
        let bytes = wanted.bytes.clone();
        let mut room = Room::new(|dir| std::fs::write(dir.join("10-routelet.conflist"), &bytes).unwrap());
        let before = std::fs::metadata(room.file()).unwrap().modified().unwrap();
        room.want.send_replace(Some(wanted));
        room.until(ConflistState::Written, "").await;
        assert_eq!(std::fs::metadata(room.file()).unwrap().modified().unwrap(), before);
    }

    #[tokio::test]
    async fn files_of_others_stay_and_one_that_is_read_before_ours_is_named() {
        let mut room = Room::new(|dir| std::fs::write(dir.join("05-other.conflist"), "{}").unwrap());
        room.ready.send_replace(open("10.244.1.0/24"));
        room.want.send_replace(Some(conflist("10.244.1.0/24")));
        room.until(ConflistState::Written, "05-other.conflist").await;
        assert_eq!(std::fs::read_to_string(room.dir.path().join("05-other.conflist")).unwrap(), "{}");
        assert_eq!(room.status.borrow().others, ["05-other.conflist"]);
    }

    #[tokio::test]
    async fn what_others_chain_stays_and_what_they_break_is_mended_in_time() {
        let mut room = Room::new(|_| {});
        room.ready.send_replace(open("10.244.1.0/24"));
        room.want.send_replace(Some(conflist("10.244.1.0/24")));
        room.until(ConflistState::Written, "").await;
        std::fs::write(room.file(), "{}").unwrap();
        room.until(ConflistState::Waiting, "another program").await;
        assert_eq!(room.text(), "{}", "no quarrel");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_said() {
        let mut room = Room::new(|dir| std::fs::create_dir(dir.join("10-routelet.conflist")).unwrap());
        room.ready.send_replace(open("10.244.1.0/24"));
        room.want.send_replace(Some(conflist("10.244.1.0/24")));
        room.until(ConflistState::Failed, "cni.conf-dir").await;
    }

    /// Two conflists that differ in length, so that a half of either is neither.
    fn two() -> [Vec<u8>; 2] {
        let chained = vec![cni::plugin("portmap"), cni::plugin("bandwidth")];
        let pod_cidrs = ["10.244.7.0/24".parse().unwrap(), "fd00:244:7::/64".parse().unwrap()];
        let long = Conflist::new(Spec { pod_cidrs: &pod_cidrs, bridge: "routelet0", mtu: None, chained });
        [conflist("10.244.1.0/24").bytes.clone(), long.bytes]
    }

    /// Reads as a runtime does, until told to stop; returns how often.
    fn read_on(dir: &Path, stop: &std::sync::atomic::AtomicBool) -> usize {
        let whole = two();
        let mut reads = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let entries = std::fs::read_dir(dir).unwrap();
            let names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            let seen = cni::first_read(names.iter().map(String::as_str));
            assert!(seen.is_none_or(|name| name == "10-routelet.conflist"), "{names:?}");
            // A folder that changes while it is listed may show the name twice or not at all; the file is there.
            let bytes = std::fs::read(dir.join("10-routelet.conflist")).unwrap();
            assert!(whole.contains(&bytes), "half a file: {}", String::from_utf8_lossy(&bytes));
            reads += 1;
        }
        reads
    }

    #[test]
    fn no_reader_sees_half_a_file_in_10000_rewrites_nor_when_the_writer_is_killed() {
        const NAME: &str = "k8s::io::conflist::tests::no_reader_sees_half_a_file_in_10000_rewrites_nor_when_the_writer_is_killed";
        let rewrite = |path: &Path, times: usize| {
            for bytes in two().iter().cycle().take(times) {
                replace(path, bytes).unwrap();
            }
        };
        if let Some(path) = std::env::var_os("ROUTELET_TEST_WRITES") {
            return rewrite(Path::new(&path), usize::MAX);
        }
        // In memory: the point is the order of the steps, not the speed of a disk.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("10-routelet.conflist");
        rewrite(&path, 1);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            let reader = s.spawn(|| read_on(dir.path(), &stop));
            rewrite(&path, 10_000);
            for round in 0..40 {
                let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", NAME])
                    .env("ROUTELET_TEST_WRITES", &path)
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap();
                std::thread::sleep(Duration::from_micros(20_000 + round * 137));
                writer.kill().unwrap();
                writer.wait().unwrap();
                let bytes = std::fs::read(&path).unwrap();
                assert!(two().contains(&bytes), "after kill -9");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(reader.join().unwrap() > 1000);
        });
        rewrite(&path, 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "what a killed writer left is gone");
    }
}
