//! The state folder, and the machine to which its content belongs.
//!
//! Machines are cloned with their state folder: two hosts with the same router ID cannot peer with
//! the same neighbors, and a clone of a drained machine must not start drained. The folder
//! therefore has a [`Mark`] of the machine, and under Kubernetes of the Node; state of another
//! machine is removed.
//!
//! A machine is identified by its machine ID and the hardware addresses of its network cards: it is
//! the same while the ID is the same and at least one card remains. Neither suffices alone: clones
//! often share the ID, and cards are replaced.
//!
//! A folder without a mark was written by an older version, or by hand. It is used if something in
//! it matches this host: the router ID is an address of the host, or the saved cluster is of this
//! Node.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{drain::DRAIN_FILE, events, forwarding, planner::ROUTER_ID_FILE, reload, unnumbered};
use crate::{
    cni::io::{BRIDGE_FILE, LEASES_FILE, former},
    docker,
    fib::{
        former::Record,
        io::{FORMER_FILE, machine::Interfaces},
    },
    state::io as kept,
};

/// The machine and Node to which a state folder belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Empty if there is none.
    machine_id: String,
    hardware: BTreeSet<String>,
    /// The Node, under Kubernetes.
    node: Option<String>,
}

pub(super) const MARK_FILE: &str = "machine.json";

/// Our files in the state folder; other files are preserved.
pub(super) const FILES: [&str; 15] = [
    "cluster.json",
    "services.json",
    "objects.json",
    former::FILE,
    BRIDGE_FILE,
    LEASES_FILE,
    docker::io::FILE,
    ROUTER_ID_FILE,
    DRAIN_FILE,
    forwarding::FILE,
    FORMER_FILE,
    unnumbered::FILE,
    reload::FILE,
    events::FILE,
    MARK_FILE,
];

impl Mark {
    pub(super) fn new(interfaces: &Interfaces, node: Option<&str>) -> Self {
        let files = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
        let id = files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let hardware = interfaces.hardware.clone();
        Self { machine_id: id.trim().to_owned(), hardware, node: node.map(str::to_owned) }
    }

    /// Whether both are of the same machine. Unknown values are not compared.
    fn is_same(&self, now: &Self) -> bool {
        let id = self.machine_id == now.machine_id || self.machine_id.is_empty() || now.machine_id.is_empty();
        let cards = self.hardware.is_empty() || now.hardware.is_empty();
        let node = self.node == now.node || self.node.is_none() || now.node.is_none();
        id && node && (cards || !self.hardware.is_disjoint(&now.hardware))
    }

    /// The mark of the same machine at a later time; values that are unknown now are kept.
    fn followed_by(&self, now: &Self) -> Self {
        let machine_id = if now.machine_id.is_empty() { &self.machine_id } else { &now.machine_id };
        let hardware = if now.hardware.is_empty() { &self.hardware } else { &now.hardware };
        let node = now.node.as_ref().or(self.node.as_ref()).cloned();
        Self { machine_id: machine_id.clone(), hardware: hardware.clone(), node }
    }
}

/// Creates the folder, and removes the state of another machine or Node. Returns the folder to use:
/// if the state cannot be removed, a subfolder that does not exist, so that it is ignored.
pub(super) fn claim(dir: &Path, now: &Mark, addresses: &BTreeSet<IpAddr>) -> PathBuf {
    if let Err(error) = fs::create_dir_all(dir) {
        tracing::warn!(path = %dir.display(), %error, "cannot create the state folder, state will be lost at a restart");
    }
    let known = known(dir);
    let is_ours = match &known {
        Some(mark) => mark.is_same(now),
        None => is_empty(dir) || fits(dir, now, addresses),
    };
    if !is_ours {
        tracing::warn!(
            path = %dir.display(),
            "state folder belongs to another machine or Node, ignoring its router ID, drain step and other state"
        );
        if let Err(error) = clear(dir) {
            tracing::warn!(path = %dir.display(), %error, "cannot clear the state folder, so no state is saved; make state-dir writable");
            return dir.join("of-another-machine");
        }
    }
    if let Some(bytes) = outdated(dir, known.as_ref().filter(|_| is_ours), now) {
        // If that fails, `mark` tries again.
        let _ = kept::write(&dir.join(MARK_FILE), &bytes, 0o644);
    }
    dir.to_owned()
}

/// Writes the mark if [`claim`] could not.
pub(super) fn mark(dir: &Path, now: &Mark) {
    if let Some(bytes) = outdated(dir, known(dir).as_ref(), now) {
        kept::keep(&dir.join(MARK_FILE), bytes, 0o644);
    }
}

fn known(dir: &Path) -> Option<Mark> {
    serde_json::from_str(&read(dir, MARK_FILE)?).ok()
}

/// The content to write to the mark's file; `None` if it is up to date.
fn outdated(dir: &Path, known: Option<&Mark>, now: &Mark) -> Option<Vec<u8>> {
    let next = known.map_or_else(|| now.clone(), |k| k.followed_by(now));
    let bytes = serde_json::to_vec(&next).unwrap_or_default();
    (fs::read(dir.join(MARK_FILE)).ok().as_ref() != Some(&bytes)).then_some(bytes)
}

/// Reads a file of the previous run, or its last content if it could not be written. Does not start
/// the writer thread, which would be outside of the sandbox.
pub(super) fn read(dir: &Path, name: &str) -> Option<String> {
    let path = dir.join(name);
    fs::read_to_string(&path).or_else(|_| fs::read_to_string(kept::stale(&path))).ok()
}

fn is_empty(dir: &Path) -> bool {
    FILES.iter().map(|name| dir.join(name)).all(|path| !path.exists() && !kept::stale(&path).exists())
}

/// Whether a folder without a mark may belong to this host.
fn fits(dir: &Path, now: &Mark, addresses: &BTreeSet<IpAddr>) -> bool {
    let router_id = read(dir, ROUTER_ID_FILE).and_then(|t| t.trim().parse().ok());
    let node = || {
        let cluster: serde_json::Value = serde_json::from_str(&read(dir, "cluster.json")?).ok()?;
        cluster["node"].as_str().map(str::to_owned)
    };
    router_id.is_some_and(|id| addresses.contains(&id)) || now.node.is_some() && node() == now.node
}

fn clear(dir: &Path) -> io::Result<()> {
    let paths = FILES.iter().map(|name| dir.join(name));
    for path in paths.flat_map(|path| [kept::stale(&path), path]) {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Where the kernel may have routes of ours, unless the host was rebooted.
pub(super) fn former(dir: &Path) -> Record {
    let boot = boot_id();
    let known =
        kept::read(&dir.join(FORMER_FILE)).and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    known.filter(|r| r.is_of(&boot)).unwrap_or_else(|| Record::new(&boot))
}

pub(super) fn keep_former(dir: &Path, record: &Record) {
    let bytes = serde_json::to_vec(record).unwrap_or_default();
    // Failures are logged and retried.
    let _ = kept::keep_now(&dir.join(FORMER_FILE), bytes, 0o644);
}

/// ID of this boot.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(id: &str, hardware: &[&str], node: Option<&str>) -> Mark {
        let hardware = hardware.iter().map(|h| (*h).to_owned()).collect();
        Mark { machine_id: id.into(), hardware, node: node.map(str::to_owned) }
    }

    #[test]
    fn a_machine_is_identified_by_its_id_and_a_card() {
        let made = mark("a", &["02:01", "02:02"], None);
        #[rustfmt::skip]
        let cases = [
            ("itself",                          mark("a", &["02:01", "02:02"], None),      true),
            ("a card was replaced",             mark("a", &["02:02", "02:09"], None),      true),
            ("a clone with its own id",         mark("b", &["02:01", "02:02"], None),      false),
            ("a clone with the same id",        mark("a", &["02:07"], None),               false),
            ("a clone without an id",           mark("",  &["02:07"], None),               false),
            ("no id, the same card",            mark("",  &["02:01"], None),               true),
            ("no card is there yet",            mark("a", &[], None),                      true),
            ("it has become a Node",            mark("a", &["02:01"], Some("n1")),         true),
        ];
        for (name, now, expected) in cases {
            assert_eq!(made.is_same(&now), expected, "{name}");
        }
        let of_node = mark("a", &["02:01"], Some("n1"));
        assert!(!of_node.is_same(&mark("a", &["02:01"], Some("n2"))), "another Node");
        assert!(of_node.is_same(&of_node.clone()));
    }

    #[test]
    fn state_of_another_machine_is_removed_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (mark("a", &["02:01"], None), mark("b", &["02:02"], None));
        let none = BTreeSet::new();
        assert_eq!(claim(dir.path(), &there, &none), dir.path());
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let names = || {
            let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
            names.map(|n| n.into_string().unwrap()).collect::<BTreeSet<_>>()
        };
        let set = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
        write(ROUTER_ID_FILE, "10.0.7.9\n");
        write(DRAIN_FILE, "all\n");
        write(docker::io::FILE, "[]");
        write("notes.txt", "the operator's");
        claim(dir.path(), &there, &none);
        let own = set(&[DRAIN_FILE, MARK_FILE, docker::io::FILE, "notes.txt", ROUTER_ID_FILE]);
        assert_eq!(names(), own, "its own stays");
        claim(dir.path(), &here, &none);
        assert_eq!(names(), set(&[MARK_FILE, "notes.txt"]));
    }

    #[test]
    fn a_mark_that_could_not_be_replaced_counts_and_keeps_unknown_values() {
        let dir = tempfile::tempdir().unwrap();
        let (path, none) = (dir.path().join(MARK_FILE), BTreeSet::new());
        let drained = dir.path().join(DRAIN_FILE);
        claim(dir.path(), &mark("a", &["02:01"], None), &none);
        fs::write(&drained, "all\n").unwrap();
        fs::rename(&path, kept::stale(&path)).unwrap();
        // The temporary file cannot be created.
        let blocked = dir.path().join(".machine.json.tmp");
        fs::create_dir(&blocked).unwrap();
        fs::write(blocked.join("x"), "").unwrap();
        let now = mark("a", &[], None);
        claim(dir.path(), &now, &none);
        assert!(drained.exists() && !path.exists());
        fs::remove_dir_all(&blocked).unwrap();
        super::mark(dir.path(), &now);
        kept::flush(std::time::Duration::from_secs(10));
        assert_eq!(known(dir.path()), Some(mark("a", &["02:01"], None)));
        assert!(path.exists() && !kept::stale(&path).exists());
        claim(dir.path(), &mark("b", &["02:02"], None), &none);
        assert!(!drained.exists());
    }

    #[test]
    fn a_folder_without_a_mark_is_used_if_something_in_it_matches() {
        let here = mark("a", &["02:01"], None);
        let node = mark("a", &["02:01"], Some("n1"));
        let ours = BTreeSet::from(["10.0.1.2".parse().unwrap()]);
        #[rustfmt::skip]
        let cases: &[(&str, &Mark, &str, &str, bool)] = &[
            ("an address of this host",   &here, "10.0.1.2\n", "{}",                        true),
            ("an address of another",     &here, "10.0.7.9\n", "{}",                        false),
            ("the cluster of this Node",  &node, "10.0.7.9\n", "{\"node\": \"n1\"}",        true),
            ("the cluster of another",    &node, "10.0.7.9\n", "{\"node\": \"n2\"}",        false),
            ("a Node's, on a bare host",  &here, "10.0.7.9\n", "{\"node\": \"n1\"}",        false),
        ];
        for (name, mark, router_id, cluster, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(ROUTER_ID_FILE), router_id).unwrap();
            fs::write(dir.path().join("cluster.json"), cluster).unwrap();
            claim(dir.path(), mark, &ours);
            assert_eq!(dir.path().join(ROUTER_ID_FILE).exists(), *expected, "{name}");
        }
    }
}
