//! Runs one measurement in a process of its own with a time limit, and removes everything it leaves
//! behind.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout_at,
};

use super::{config::Kind, plan::Figure};

/// Results of a measurement: row, unit, value.
pub type Seen = Vec<(String, String, f64)>;

pub struct Outcome {
    pub seen: Seen,
    pub failure: Option<String>,
    pub seconds: f64,
}

/// The processes, namespaces and files of one measurement; dropping it removes them.
struct Worker {
    id: i32,
    _files: TempDir,
}

/// Measures a daemon once. Dropping the future ends the worker too.
pub async fn measure(figure: &Figure, kind: Kind, patience: u64) -> Outcome {
    let (start, limit) = (Instant::now(), figure.limit * patience);
    let dir = TempDir::new().expect("a folder");
    // Daemons that drop root privileges need access.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our folder");
    let log = dir.path().join("log");
    let mut command = Command::new(env::current_exe().expect("this program"));
    if !kind.is_newest() {
        command.env_remove("ROUTELET_SPEAKERS");
    }
    let mut child = command
        .args(["--bench", "--worker", figure.name, kind.name()])
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&log).expect("a file"))
        .process_group(0)
        .spawn()
        .expect("this program again");
    let worker = Worker { id: child.id().and_then(|id| id.try_into().ok()).expect("it runs"), _files: dir };
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut seen = Seen::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(limit);
    let failure = loop {
        match timeout_at(deadline, lines.next_line()).await {
            Err(_) => break Some(format!("not within {limit} s")),
            Ok(Ok(Some(line))) => seen.extend(parse(&line)),
            Ok(_) => break None,
        }
    };
    let failure = match failure {
        None => match child.wait().await {
            Ok(status) if status.success() => None,
            Ok(status) => Some(complaint(&log).unwrap_or_else(|| status.to_string())),
            Err(e) => Some(e.to_string()),
        },
        late => late,
    };
    drop(worker);
    Outcome { seen, failure, seconds: start.elapsed().as_secs_f64() }
}

fn parse(line: &str) -> Option<(String, String, f64)> {
    let value: Value = serde_json::from_str(line).ok()?;
    Some((value["row"].as_str()?.into(), value["unit"].as_str()?.into(), value["value"].as_f64()?))
}

/// The line after the first "panicked at".
fn complaint(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let mut lines = text.lines();
    lines.find(|l| l.contains("panicked at")).and_then(|_| lines.next()).map(Into::into)
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its process group: the worker and unattended children. It may be gone already.
        let _ = killpg(Pid::from_raw(self.id), Signal::SIGKILL);
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("rt{}x", self.id)) {
                sweep(&name);
            }
        }
    }
}

/// Ends all processes in a namespace, waits for them and removes it.
fn sweep(name: &str) {
    let ip = |args: &[&str]| {
        let out = std::process::Command::new("ip").arg("netns").args(args).output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
    };
    for _ in 0..200 {
        let pids: Vec<i32> = ip(&["pids", name]).split_whitespace().filter_map(|p| p.parse().ok()).collect();
        if pids.is_empty() {
            break;
        }
        for pid in pids.into_iter().map(Pid::from_raw) {
            let _ = kill(pid, Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(10));
            // It is our child since the worker is gone.
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
    }
    ip(&["del", name]);
}
