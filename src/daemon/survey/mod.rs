//! Checks the host at intervals for problems that no event reports: other BGP daemons, programs
//! that remove routes and addresses of others, and tables of the kernel that are nearly full.

mod network_manager;
mod networkd;
mod tables;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::planner::publish;
use crate::net::{Diagnostic, Reason, Subject};

/// Time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Names of the processes of other BGP daemons.
const DAEMONS: [&str; 9] =
    ["bird", "bird6", "bgpd", "gobgpd", "exabgp", "holod", "rustbgpd", "openbgpd", "kube-router"];

/// `systemd-networkd` as the kernel truncates it.
const NETWORKD: &str = "systemd-network";
const NETWORK_MANAGER: &str = "NetworkManager";

/// Maximum octets of a file that are read.
const MAX_OCTETS: u64 = 64 * 1024;

/// A process of this network namespace.
#[derive(Clone, Debug)]
struct Process {
    name: String,
    pid: u32,
}

/// What is checked.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    /// `/`, or the root of a test.
    root: PathBuf,
    processes: Vec<Process>,
    /// Tables that were nearly full at the last check.
    near: BTreeSet<Reason>,
}

impl Survey {
    /// Finds the processes of this network namespace, which cannot be seen from inside of the
    /// sandbox. Those that start later are not found.
    pub(super) fn new() -> Self {
        let namespace = fs::read_link("/proc/self/ns/net").ok();
        let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let of_interest = pids.filter_map(|pid| {
            let name = name_of(Path::new("/"), pid)?;
            let is_one =
                [NETWORKD, NETWORK_MANAGER].contains(&name.as_str()) || DAEMONS.contains(&name.as_str());
            let is_here = is_one && fs::read_link(format!("/proc/{pid}/ns/net")).ok() == namespace;
            is_here.then_some(Process { name, pid })
        });
        Self { root: "/".into(), processes: of_interest.collect(), near: BTreeSet::new() }
    }

    /// The present problems.
    pub(super) fn check(&mut self) -> Vec<Diagnostic> {
        let alive = |p: &&Process| name_of(&self.root, p.pid).as_ref() == Some(&p.name);
        let alive: Vec<_> = self.processes.iter().filter(alive).collect();
        let mut found: Vec<_> =
            alive.iter().filter(|p| DAEMONS.contains(&p.name.as_str())).map(|p| other_daemon(p)).collect();
        if alive.iter().any(|p| p.name == NETWORKD) {
            found.extend(networkd::problem(&self.root));
        }
        if alive.iter().any(|p| p.name == NETWORK_MANAGER) {
            found.extend(network_manager::problem(&self.root));
        }
        let full = tables::problems(&self.root, &self.near);
        self.near = full.iter().map(|d| d.reason).collect();
        found.extend(full);
        found
    }
}

/// Checks the host at intervals until the receiver is dropped.
pub(super) fn follow(mut survey: Survey) -> watch::Receiver<Vec<Diagnostic>> {
    let (problems, found) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Both arms are cancel safe.
            tokio::select! {
                _ = ticks.tick() => {}
                () = problems.closed() => return,
            }
            let check = spawn_blocking(move || {
                let found = survey.check();
                (survey, found)
            });
            let Ok((same, found)) = check.await else { return };
            survey = same;
            publish(&problems, found);
        }
    });
    found
}

/// The beginning of a file, up to [`MAX_OCTETS`].
fn read_start(path: &Path) -> Option<String> {
    let mut octets = Vec::new();
    File::open(path).ok()?.take(MAX_OCTETS).read_to_end(&mut octets).ok()?;
    Some(String::from_utf8_lossy(&octets).into_owned())
}

fn name_of(root: &Path, pid: u32) -> Option<String> {
    let name = fs::read_to_string(root.join(format!("proc/{pid}/comm"))).ok()?;
    Some(name.trim().to_owned())
}

fn other_daemon(Process { name, pid }: &Process) -> Diagnostic {
    Diagnostic::new(
        Reason::OtherBgpDaemon,
        Subject::program(name),
        format!("{name} (pid {pid}), another BGP daemon, runs on this host"),
        "stop it, or see that the two have neither neighbors nor routes in common",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_a_problem_while_it_runs() {
        let root = tempfile::tempdir().unwrap();
        let comm = root.path().join("proc/812/comm");
        fs::create_dir_all(comm.parent().unwrap()).unwrap();
        fs::write(&comm, "bgpd\n").unwrap();
        let processes = vec![Process { name: "bgpd".into(), pid: 812 }];
        let mut survey = Survey { root: root.path().into(), processes, near: BTreeSet::new() };
        let found = survey.check();
        assert!(found.len() == 1 && found[0].contains("bgpd (pid 812)"), "{found:?}");
        // Another process has got its number.
        fs::write(&comm, "sh\n").unwrap();
        assert_eq!(survey.check(), []);
    }
}
