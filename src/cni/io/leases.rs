//! Reads the folder of `host-local`'s leases of our network, and removes those that [`Record`]
//! finds stale.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};
use tracing::info;

use super::{bridge, former};
use crate::{
    cni::leases::{self, Lease, Record},
    net::{Diagnostic, Prefix, Reason, Subject},
    state::io as state,
};

/// Default folder of the plugin for leases of the network `routelet`; our conflist does not change
/// it.
pub const FOLDER: &str = "/var/lib/cni/networks/routelet";
/// File in the state folder.
pub const FILE: &str = "leases.json";
/// How often to read the folder.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of files to read.
const MAX_FILES: usize = 70_000;
/// Maximum octets to read of each.
const MAX_LEASE: u64 = 1024;

/// Inputs besides the files.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) boot: String,
    pub(super) bridge: String,
    /// Pods attached to the bridge, or left without it after it was deleted.
    pub(super) pods: usize,
    pub(super) ranges: Vec<Prefix>,
}

/// Maintains the folder.
#[derive(Debug)]
pub(super) struct Leases {
    dir: PathBuf,
    file: PathBuf,
    /// `None` while a check is running.
    record: Option<Record>,
    problems: Vec<Diagnostic>,
    due: Option<Instant>,
}

impl Leases {
    pub(super) fn new(dir: &Path, state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let record = state::read(&file).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self {
            dir: dir.to_owned(),
            file,
            record: Some(record.unwrap_or_default()),
            problems: Vec::new(),
            due: None,
        }
    }

    /// Checks the folder if a check is due. Returns the problems.
    pub(super) async fn maintain(&mut self, facts: Facts) -> &[Diagnostic] {
        let now = Instant::now();
        if self.due.is_none_or(|due| now >= due) {
            self.due = Some(now + CHECK_INTERVAL);
            let (dir, file, mut record) =
                (self.dir.clone(), self.file.clone(), self.record.take().unwrap_or_default());
            let work = tokio::task::spawn_blocking(move || {
                let before = record.clone();
                let problems = check(&dir, &facts, &mut record);
                if record != before {
                    save(&file, &record);
                }
                (record, problems)
            });
            if let Ok((record, problems)) = work.await {
                (self.record, self.problems) = (Some(record), problems);
            }
        }
        &self.problems
    }
}

fn save(file: &Path, record: &Record) {
    state::keep(file, serde_json::to_vec(record).unwrap_or_default(), 0o600);
}

fn check(dir: &Path, facts: &Facts, record: &mut Record) -> Vec<Diagnostic> {
    record.begin(&facts.boot, &facts.bridge);
    // No folder: no pod was created yet, or it is not mounted.
    let Ok(mut found) = read(dir) else { return Vec::new() };
    let mut problems = Vec::new();
    let idle = facts.pods == 0;
    if !record.stale(&found, &facts.ranges, idle).is_empty() {
        match remove_stale(dir, facts, record) {
            Ok(left) => found = left,
            Err(error) => problems.push(Diagnostic::new(
                Reason::LeasesNotCleared,
                Subject::file(dir.display()),
                format!("cannot remove leases of deleted pods in {}: {error}", dir.display()),
                "mount the folder read-write",
            )),
        }
    }
    record.seen(&found);
    let name = dir.display().to_string();
    problems.extend(facts.ranges.iter().filter_map(|r| leases::full(*r, &found, facts.pods, &name)));
    problems
}

/// Removes stale leases while holding the plugin's own lock, so that no address is allocated
/// meanwhile; whether the bridges are idle is checked again under the lock. Returns the remaining
/// leases.
fn remove_stale(dir: &Path, facts: &Facts, record: &Record) -> io::Result<Vec<Lease>> {
    let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else { return read(dir) };
    let found = read(dir)?;
    let ports = |name: &String| former::block_on(bridge::has_ports(name)).unwrap_or(true);
    let idle = facts.pods == 0 && !record.bridges.iter().any(ports);
    let stale = record.stale(&found, &facts.ranges, idle);
    for lease in &stale {
        fs::remove_file(dir.join(lease.address.to_string()))?;
    }
    if !stale.is_empty() {
        info!(path = %dir.display(), leases = stale.len(), "leases of deleted pods removed");
    }
    let gone: Vec<_> = stale.iter().map(|l| l.address).collect();
    Ok(found.into_iter().filter(|l| !gone.contains(&l.address)).collect())
}

fn read(dir: &Path) -> io::Result<Vec<Lease>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)?.take(MAX_FILES) {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.parse::<std::net::IpAddr>().is_err() || !entry.file_type()?.is_file() {
            continue;
        }
        let mut content = Vec::new();
        // It may have been deleted meanwhile.
        let Ok(file) = File::open(entry.path()) else { continue };
        file.take(MAX_LEASE).read_to_end(&mut content)?;
        found.extend(leases::read(&name, &content));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(boot: &str, pods: usize) -> Facts {
        let ranges = vec!["10.244.1.0/29".parse().unwrap()];
        Facts { boot: boot.into(), bridge: "rl-unit-none".into(), pods, ranges }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn kube_router_383_leases_are_removed_once_no_pod_can_have_them() {
        let dir = tempfile::tempdir().unwrap();
        let lease =
            |address: &str, id: &str| fs::write(dir.path().join(address), format!("{id}\r\neth0")).unwrap();
        (2..7).for_each(|n| lease(&format!("10.244.1.{n}"), &format!("c{n}")));
        lease("10.9.9.9", "other-range");
        fs::write(dir.path().join("last_reserved_ip.0"), "10.244.1.6").unwrap();
        let mut record = Record::default();
        let problems = check(dir.path(), &facts("one", 5), &mut record);
        assert!(problems.len() == 1 && problems[0].contains("10.244.1.0/29 is full"), "{problems:?}");
        assert_eq!(names(dir.path()).len(), 7, "pods run");

        // After a reboot one pod exists before us. While the plugin holds its lock nothing is
        // removed.
        fs::remove_file(dir.path().join("10.244.1.6")).unwrap();
        lease("10.244.1.6", "new");
        let lock = File::create(dir.path().join("lock")).unwrap();
        let held = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        assert_eq!(check(dir.path(), &facts("two", 1), &mut record).len(), 1, "full");
        assert_eq!(names(dir.path()).len(), 8);
        drop(held);
        let again: Record = serde_json::from_slice(&serde_json::to_vec(&record).unwrap()).unwrap();
        record = again;
        assert!(check(dir.path(), &facts("two", 1), &mut record).is_empty());
        assert_eq!(names(dir.path()), ["10.244.1.6", "10.9.9.9", "last_reserved_ip.0", "lock"]);
        // The pod was deleted without a call of the plugin.
        assert!(check(dir.path(), &facts("two", 0), &mut record).is_empty());
        assert_eq!(names(dir.path()), ["10.9.9.9", "last_reserved_ip.0", "lock"]);
        assert!(check(&dir.path().join("none"), &facts("two", 0), &mut record).is_empty(), "not mounted");
    }
}
