//! What remains of a run of tests that is ended by a signal: nothing. A process of its own
//! (`guard.sh`) waits for the end of this one and removes all that has its tag.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "not every suite makes everything"
)]

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// Environment variable with the tag of the tests that started a process.
pub const VARIABLE: &str = "ROUTELET_TEST";

const SCRIPT: &str = include_str!("guard.sh");

/// Beginning of the name of everything that the tests of this process make, for example `rt4711x`.
/// The first call starts the guard.
pub fn tag() -> String {
    static GUARD: OnceLock<Child> = OnceLock::new();
    GUARD.get_or_init(start);
    format!("rt{}x", std::process::id())
}

/// A folder for files, removed when the value is dropped or this process ends.
pub fn folder(name: &str) -> TempDir {
    let prefix = format!("{}{name}-", tag());
    tempfile::Builder::new().prefix(&prefix).tempdir().expect("a folder for the test")
}

/// The child keeps the writing end of its pipe, so that the pipe ends with this process.
fn start() -> Child {
    Command::new("bash")
        .args(["-c", SCRIPT, "guard.sh"])
        .arg(std::process::id().to_string())
        .arg(env::temp_dir())
        .env_remove(VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C does not reach it.
        .process_group(0)
        .spawn()
        .expect("bash, which removes what ended tests leave")
}
