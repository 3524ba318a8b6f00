//! Limits of the process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Below this many descriptors a large mesh, the listeners and the control socket compete for them.
const ENOUGH_DESCRIPTORS: u64 = 1024;

/// Raises the soft limit of open files to the hard one: container runtimes start programs with a soft
/// limit of 1,024, which a reflector with as many clients reaches.
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
