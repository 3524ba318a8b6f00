//! The process that takes a lab away, however the lab ended.

use std::{
    env, fs,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use super::{super::topology::PREFIX, Error, dir, failed, netns};

/// Set in the guardian's environment: the process whose lab it guards.
const VARIABLE: &str = "ROUTELET_LAB_GUARDIAN";
/// What tells it to leave the lab standing.
const DISMISSED: &[u8] = b"keep";

/// Held by the lab.
pub(super) struct Guardian(Child);

impl Guardian {
    pub(super) fn hire() -> Result<Self, Error> {
        Command::new("/proc/self/exe")
            .arg("lab")
            .env(VARIABLE, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Not of our group: Ctrl-C is meant for the lab.
            .process_group(0)
            .spawn()
            .map(Self)
            .map_err(failed("cannot start the process that cleans up after the lab"))
    }

    /// Has everything removed.
    pub(super) fn clean_up(mut self) -> Result<(), Error> {
        drop(self.0.stdin.take());
        match self.0.wait() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(Error::Runtime("the lab was not removed entirely: run `routelet lab --remove`".into())),
        }
    }

    /// Leaves the lab standing.
    pub(super) fn dismiss(mut self) -> Result<(), Error> {
        if let Some(mut pipe) = self.0.stdin.take() {
            pipe.write_all(DISMISSED).map_err(failed("cannot keep the lab"))?;
        }
        self.0.wait().map(drop).map_err(failed("cannot keep the lab"))
    }
}

/// Whether this process was started as a guardian, and for whom.
pub(super) fn asked_for() -> Option<u32> {
    env::var(VARIABLE).ok()?.parse().ok()
}

/// The guardian's life.
pub(super) fn stand(pid: u32) -> Result<(), Error> {
    let mut said = Vec::new();
    // A broken pipe is an end like any other.
    let _ = io::stdin().read_to_end(&mut said);
    if said == DISMISSED { Ok(()) } else { remove(pid) }
}

/// Takes away labs whose process is gone and which were not meant to stay, or (`kept`) those too. Says how many.
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
    match fs::remove_dir_all(dir(pid)) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => {
            Err(failed("cannot remove the lab's folder")(why))
        }
        _ => {
            // The common folder goes with the last lab.
            let _ = fs::remove_dir(super::DIR);
            Ok(())
        }
    }
}

/// `rlab-PID-host1` → PID.
fn owner(namespace: &str) -> Option<u32> {
    namespace.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Whether a lab of this process id is being shown now.
fn runs(pid: u32) -> bool {
    pid != std::process::id()
        && fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|b| *b == 0).any(|word| word == b"lab"))
}
