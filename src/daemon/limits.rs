//! Resource limits of the process: open files and real-time priority.

use std::{fs, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;

use super::planner::publish;
use crate::{
    bgp::io::reserved_files,
    net::{Diagnostic, Reason, Subject},
    pace::tick,
};

/// With fewer descriptors than this, a large mesh, the listeners and the control socket compete for
/// them.
const ENOUGH_DESCRIPTORS: u64 = 1024;
/// `LimitRTPRIO=` of the unit.
const REAL_TIME: u64 = 10;
/// How often to check.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Raises the soft limit of open files to the hard one: container runtimes start programs with a
/// soft limit of 1,024, which a reflector with as many clients reaches.
pub(super) fn raise_descriptors() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let raised = soft >= hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let limit = if raised { hard.max(soft) } else { soft };
    if limit < ENOUGH_DESCRIPTORS {
        tracing::warn!(
            limit,
            wanted = ENOUGH_DESCRIPTORS,
            "few open files allowed; each session takes one; raise the limit (LimitNOFILE= of the unit)"
        );
    }
}

/// Allows the real-time priority of BFD's thread. If the limit cannot be raised, the priority
/// requires CAP_SYS_NICE; without that BFD reports that it runs without priority.
pub(super) fn allow_real_time() {
    if !real_time_is_allowed()
        && let Err(error) = setrlimit(Resource::RLIMIT_RTPRIO, REAL_TIME, REAL_TIME)
    {
        tracing::debug!(%error, "cannot raise the limit of real-time priorities");
    }
}

/// Whether the limit alone permits the priority.
pub(super) fn real_time_is_allowed() -> bool {
    getrlimit(Resource::RLIMIT_RTPRIO).is_ok_and(|(soft, _)| soft >= REAL_TIME)
}

/// Watches the number of free descriptors, and publishes a problem while few are left.
pub(super) fn follow() -> watch::Receiver<Vec<Diagnostic>> {
    let (problems, seen) = watch::channel(Vec::new());
    tokio::spawn(async move {
        loop {
            let now = getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(limit, _)| problem(in_use(), limit));
            publish(&problems, now.into_iter().collect());
            tokio::select! {
                () = tick(CHECK_INTERVAL) => {}
                () = problems.closed() => return,
            }
        }
    });
    seen
}

/// The number of open files; `None` if not even the folder can be opened.
fn in_use() -> Option<u64> {
    // One of the entries is the open folder itself.
    fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

fn problem(in_use: Option<u64>, limit: u64) -> Option<Diagnostic> {
    let left = limit.saturating_sub(in_use.unwrap_or(limit));
    (left <= reserved_files(limit)).then(|| {
        Diagnostic::new(
            Reason::OpenFilesExhausted,
            Subject::program("routelet"),
            format!(
                "{left} of {limit} open files are left, and sessions, which take one each, leave {} to \
                 everything else: neighbors wait",
                reserved_files(limit)
            ),
            "raise the limit (LimitNOFILE= of the unit, or that of the container runtime)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_left_are_a_problem() {
        assert_eq!(problem(Some(30), 1024), None);
        assert_eq!(problem(Some(767), 1024), None);
        assert!(problem(Some(768), 1024).unwrap().contains("256 of 1024 open files are left"));
        assert!(problem(Some(1009), 1024).unwrap().contains("15 of 1024 open files are left"));
        assert!(problem(None, 64).unwrap().contains("0 of 64"), "none for the look itself");
        assert!(in_use().is_some_and(|n| n > 2));
    }
}
