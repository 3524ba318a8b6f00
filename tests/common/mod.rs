//! What tests on real parts share: network namespaces, processes that end with the test, and the daemons
//! that routelet talks to. A missing part panics with a sentence that says what to run.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world"
)]

pub mod browser;
pub mod cramped;
pub mod daemons;
pub mod guard;
pub mod net;
pub mod probe;
pub mod shim;
pub mod speaker;
pub mod traffic;

use std::{
    fmt::Display,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The least seconds to wait for what must come. It comes at once where nothing else runs; a machine that is loaded,
/// or stands still for a moment, takes its time.
pub const PATIENCE: f64 = 30.0;

/// Polls until `check` gives something; panics with `what` when `seconds`, and those of [`PATIENCE`], are over.
pub fn wait_for<T>(what: impl Display, seconds: f64, mut check: impl FnMut() -> Option<T>) -> T {
    let seconds = seconds.max(PATIENCE);
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(start.elapsed().as_secs_f64() < seconds, "not within {seconds} s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// What `attempt` measures is to be below `limit`. A machine that is loaded, or stands still for a moment, spoils one
/// attempt or two: it has ten.
pub fn within(what: impl Display, limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    for _ in 0..10 {
        let time = attempt();
        println!("{what}: {time:?}");
        if time < limit {
            return;
        }
        took.push(time);
    }
    panic!("{what}: never within {limit:?}: {took:?}");
}

/// For how long in all this process did not run when it should have, since this was first called: the machine stood
/// still, or belonged to others. Who measures time asks before and after.
pub fn stood_still() -> Duration {
    const TICK: Duration = Duration::from_millis(20);
    static WATCH: Once = Once::new();
    static MILLIS: AtomicU64 = AtomicU64::new(0);
    WATCH.call_once(|| {
        thread::spawn(|| {
            loop {
                let asleep = Instant::now();
                thread::sleep(TICK);
                let late = asleep.elapsed().saturating_sub(TICK);
                if late > 5 * TICK {
                    MILLIS.fetch_add(u64::try_from(late.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
            }
        });
    });
    // The moment that is just over is counted, too.
    thread::sleep(2 * TICK);
    Duration::from_millis(MILLIS.load(Ordering::Relaxed))
}

/// Runs to its end and gives what it printed; panics with its errors.
pub fn run(command: &mut Command) -> String {
    let out = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}: run tests/run once, it installs what tests need"));
    assert!(
        out.status.success(),
        "{command:?}: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("programs print text")
}

/// The folder of `$ROUTELET_SPEAKERS`: BGP speakers of another release, as `tests/kit/releases.sh` unpacked them.
pub fn speakers() -> Option<PathBuf> {
    std::env::var_os("ROUTELET_SPEAKERS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// A BGP speaker or its client, of [`speakers`] or of this machine.
pub fn speaker_program(name: &str) -> PathBuf {
    let path = speakers().map_or_else(|| packaged_program(name), |folder| folder.join(name));
    assert!(path.is_relative() || path.exists(), "no {}: run tests/run once, it installs it", path.display());
    path
}

/// A BGP speaker or its client, of this machine.
pub fn packaged_program(name: &str) -> PathBuf {
    match name {
        "zebra" | "bgpd" | "bfdd" => Path::new("/usr/lib/frr").join(name),
        "openbgpd" => PathBuf::from("/usr/sbin/bgpd"),
        _ => PathBuf::from(name),
    }
}

/// A program that ends with the test: killed by its process id and waited for.
pub struct Process {
    child: Child,
    pub log: PathBuf,
}

impl Process {
    /// Starts it with both outputs going to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a writable log");
        let child = command
            .env(guard::VARIABLE, guard::tag())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file descriptor"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}: run tests/run once, it installs what tests need"));
        Self { child, log: log.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Sends a signal by name, as kill(1).
    pub fn signal(&self, name: &str) {
        run(Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]));
    }

    /// SIGTERM, then waits; the exit status.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        if self.alive() {
            self.signal("TERM");
        }
        let start = Instant::now();
        while self.alive() && start.elapsed().as_secs_f64() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        self.kill()
    }

    /// SIGKILL, and waits.
    pub fn kill(&mut self) -> std::process::ExitStatus {
        let _ = self.child.kill();
        self.child.wait().expect("our own child")
    }

    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let text = self.printed();
            let tail: Vec<_> = text.lines().rev().take(40).collect();
            eprintln!("--- {}", self.log.display());
            tail.iter().rev().for_each(|l| eprintln!("    {l}"));
        }
    }
}
