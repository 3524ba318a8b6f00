//! A running daemon and its use of CPU and memory.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::config::{Case, Kind};
use crate::common::{
    Process,
    daemons::{Bird, Frr, Routelet},
    net::{Net, Ns},
    speaker_program, wait_for,
};

enum Handle {
    Routelet(Routelet),
    Bird(Bird),
    Frr(Frr),
    Other(Process),
}

pub struct Daemon {
    handle: Handle,
    pids: Vec<u32>,
}

impl Daemon {
    /// Starts a daemon and waits until it listens and is idle.
    pub fn start(kind: Kind, net: &Net, ns: &Ns, case: &Case) -> Self {
        let this = Self::launch(kind, net, ns, case);
        wait_for(format!("{} listens", kind.name()), 50.0, || this.listens().then_some(()));
        this.settle();
        this
    }

    /// Starts a daemon.
    pub fn launch(kind: Kind, net: &Net, ns: &Ns, case: &Case) -> Self {
        let dir: PathBuf = net.dir().join("daemon");
        fs::create_dir_all(&dir).expect("a folder");
        let text = kind.config(case, &dir);
        let plain = |program: &str, args: &[&str]| {
            let file = dir.join("conf");
            fs::write(&file, &text).expect("a writable folder");
            let program = speaker_program(program).display().to_string();
            Process::start(ns.command(&program).args(args).arg(&file), &dir.join("log"))
        };
        // Options that make them adopt the kernel's routes.
        let (bird, zebra): (&[&str], &[&str]) =
            if case.restarts { (&["-R"], &["-K", "120"]) } else { (&[], &[]) };
        let handle = match kind.packaged() {
            Kind::Routelet => Handle::Routelet(Routelet::start(net, ns, &text, &[])),
            Kind::Bird => {
                let programs = if kind == Kind::Bird3 { ("bird3", "bird3c") } else { ("bird", "birdc") };
                Handle::Bird(Bird::start_program(programs, net, ns, &text, bird))
            }
            Kind::Frr => Handle::Frr(Frr::start_with(net, ns, &text, zebra)),
            Kind::Gobgp => Handle::Other(plain("gobgpd", &["-l", "error", "--pprof-disable", "-f"])),
            Kind::Openbgpd => Handle::Other(plain("openbgpd", &["-d", "-f"])),
            _ => unreachable!("figures that run bare start no daemon"),
        };
        let pids = match &handle {
            Handle::Routelet(r) => vec![r.process.pid()],
            Handle::Bird(b) => vec![b.process.pid()],
            Handle::Frr(f) => f.pids(),
            Handle::Other(p) => vec![p.pid()],
        };
        Self { handle, pids }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        match &mut self.handle {
            Handle::Routelet(r) => drop(r.process.kill()),
            Handle::Bird(b) => drop(b.process.kill()),
            Handle::Frr(f) => f.kill(),
            Handle::Other(p) => drop(p.kill()),
        }
    }

    pub fn pid(&self) -> u32 {
        self.pids[0]
    }

    /// Whether something listens on port 179 in its namespace.
    fn listens(&self) -> bool {
        ["tcp", "tcp6"].iter().any(|file| {
            let text = fs::read_to_string(format!("/proc/{}/net/{file}", self.pid())).unwrap_or_default();
            text.lines().any(|line| {
                let mut fields = line.split_whitespace();
                fields.nth(1).is_some_and(|local| local.ends_with(":00B3")) && fields.nth(1) == Some("0A")
            })
        })
    }

    /// Waits until it is nearly idle for a quarter of a second, at most ten seconds.
    pub fn settle(&self) {
        let start = Instant::now();
        let mut last = self.cpu();
        while start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(250));
            let now = self.cpu();
            if now - last < 0.002 {
                return;
            }
            last = now;
        }
    }

    /// Its processes including children.
    fn all(&self) -> Vec<u32> {
        let mut all = self.pids.clone();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent =
                stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(1)?.parse::<u32>().ok());
            if parent.is_some_and(|p| self.pids.contains(&p)) {
                all.push(pid);
            }
        }
        all
    }

    /// CPU seconds of all live threads.
    pub fn cpu(&self) -> f64 {
        let mut nanoseconds = 0.0;
        for pid in self.all() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                nanoseconds +=
                    text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
            }
        }
        nanoseconds / 1e9
    }

    /// Proportional set size in KiB.
    pub fn pss(&self) -> f64 {
        let one = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or_default().trim();
            line.trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0)
        };
        self.all().into_iter().map(one).sum()
    }
}
