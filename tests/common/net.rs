//! Network namespaces of one test: made with names of their own, removed when the test ends.

use std::{
    fmt::{Display, Write as _},
    fs::{self, File},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use super::{guard, run};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The namespaces and files of one test. Dropped last: declare it first.
pub struct Net {
    tag: String,
    names: Vec<String>,
    links: u32,
    dir: TempDir,
}

/// One namespace, as cheap to copy as its name.
#[derive(Clone, Debug)]
pub struct Ns {
    pub name: String,
}

impl Net {
    pub fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        let tag = format!("{}{number}", guard::tag());
        Self { tag, names: Vec::new(), links: 0, dir: guard::folder(&number) }
    }

    /// A folder for this test's files.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A new namespace with `lo` up.
    pub fn ns(&mut self, name: &str) -> Ns {
        let ns = Ns { name: format!("{}-{name}", self.tag) };
        run(Command::new("ip").args(["netns", "add", &ns.name]));
        self.names.push(ns.name.clone());
        ns.ip("link set lo up");
        ns
    }

    /// A veth pair between two namespaces, both ends up. The ends get different interface indices: with equal
    /// ones the kernel may hold back the word of a lost carrier.
    pub fn link(&mut self, a: (&Ns, &str), b: (&Ns, &str)) {
        self.links += 1;
        a.0.ip(&format!(
            "link add {} index {} type veth peer name rtpeer{}",
            a.1,
            500 + 2 * self.links,
            self.links
        ));
        a.0.ip(&format!("link set rtpeer{} netns {}", self.links, b.0.name));
        b.0.ip(&format!("link set rtpeer{} name {}", self.links, b.1));
        a.0.ip(&format!("link set {} up", a.1));
        b.0.ip(&format!("link set {} up", b.1));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

impl Ns {
    /// `program`, to be run inside. The mount namespace stays the caller's, so files are where they were.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// `ip` with these words inside.
    pub fn ip(&self, args: &str) -> String {
        run(Command::new("ip").args(["-n", &self.name]).args(args.split_whitespace()))
    }

    /// Adds permanent neighbor entries for these addresses of `other`, at the other end of a link.
    /// All namespaces share the table, which has room for 1,024 other entries (`gc_thresh3`).
    pub fn permanent_neighbors(
        &self,
        dev: &str,
        (other, end): (&Self, &str),
        addresses: impl IntoIterator<Item = impl Display>,
    ) {
        let link = other.ip(&format!("-br link show {end}"));
        let mac = link.split_whitespace().nth(2).expect("name, state, address");
        let mut batch = String::new();
        for address in addresses {
            let _ = writeln!(batch, "neigh replace {address} lladdr {mac} nud permanent dev {dev}");
        }
        let file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
        fs::write(&file, batch).expect("a writable file");
        run(Command::new("ip").args(["-n", &self.name, "-batch"]).arg(file.path()));
    }

    /// Words separated by blanks, run inside; what it printed.
    pub fn sh(&self, line: &str) -> String {
        run(self.command("sh").args(["-c", line]))
    }

    pub fn sysctl(&self, key: &str, value: &str) {
        run(self.command("sysctl").args(["-qw", &format!("{key}={value}")]));
    }

    /// Whether one ICMP echo is answered.
    pub fn pings(&self, address: &str) -> bool {
        self.command("ping").args(["-n", "-c1", "-W1", address]).output().is_ok_and(|o| o.status.success())
    }

    /// Runs `f` on a thread of its own inside the namespace; sockets made there stay there.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("our namespace");
        thread::scope(|s| {
            s.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).expect("root");
                f()
            })
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e))
        })
    }
}
