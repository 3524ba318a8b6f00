//! The process that removes a lab, however the lab ends.

use std::{
    env, fs,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use super::{super::topology::PREFIX, Error, dir, docker, failed, netns};

/// Environment variable of the guard: the id of the process whose lab it removes.
const VARIABLE: &str = "ROUTELET_LAB_GUARD";
/// Message that makes the guard keep the lab.
const KEEP: &[u8] = b"keep";

/// The lab's handle of its guard.
pub(super) struct CleanupGuard(Child);

impl CleanupGuard {
    pub(super) fn spawn() -> Result<Self, Error> {
        Command::new("/proc/self/exe")
            .arg("lab")
            .env(VARIABLE, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // In a process group of its own, so that Ctrl-C reaches only the lab.
            .process_group(0)
            .spawn()
            .map(Self)
            .map_err(failed("cannot start the process that cleans up after the lab"))
    }

    /// Removes the lab.
    pub(super) fn clean_up(mut self) -> Result<(), Error> {
        drop(self.0.stdin.take());
        match self.0.wait() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(Error::Runtime("the lab was not removed entirely: run `routelet lab --remove`".into())),
        }
    }

    /// Keeps the lab.
    pub(super) fn dismiss(mut self) -> Result<(), Error> {
        if let Some(mut pipe) = self.0.stdin.take() {
            pipe.write_all(KEEP).map_err(failed("cannot keep the lab"))?;
        }
        self.0.wait().map(drop).map_err(failed("cannot keep the lab"))
    }
}

/// Whether this process was started as a guard, and for which lab.
pub(super) fn guarded_lab() -> Option<u32> {
    env::var(VARIABLE).ok()?.parse().ok()
}

/// Runs the guard.
pub(super) fn run(pid: u32) -> Result<(), Error> {
    let mut message = Vec::new();
    // A broken pipe is an end like any other.
    let _ = io::stdin().read_to_end(&mut message);
    if message == KEEP { Ok(()) } else { remove(pid) }
}

/// Removes labs whose process is gone and which were not meant to be kept, or (`kept`) those too.
/// Returns the number.
pub(super) fn remove_leftovers(kept: bool) -> Result<usize, Error> {
    let mut pids: Vec<u32> = netns::named(PREFIX).iter().filter_map(|name| owner(name)).collect();
    let folders = fs::read_dir(super::DIR).into_iter().flatten().flatten();
    pids.extend(folders.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()));
    pids.sort_unstable();
    pids.dedup();
    pids.retain(|pid| !runs(*pid) && (kept || !dir(*pid).join("keep").exists()));
    for pid in &pids {
        remove(*pid)?;
    }
    Ok(pids.len())
}

fn remove(pid: u32) -> Result<(), Error> {
    netns::remove(&netns::named(&format!("{PREFIX}{pid}-")))?;
    docker::remove_cgroups(pid);
    match fs::remove_dir_all(dir(pid)) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => {
            Err(failed("cannot remove the lab's directory")(why))
        }
        _ => {
            // The common directory is removed with the last lab.
            let _ = fs::remove_dir(super::DIR);
            Ok(())
        }
    }
}

/// `rlab-PID-host1` → PID.
fn owner(namespace: &str) -> Option<u32> {
    namespace.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Whether the lab of this process id is running.
fn runs(pid: u32) -> bool {
    pid != std::process::id()
        && fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|b| *b == 0).any(|argument| argument == b"lab"))
}
