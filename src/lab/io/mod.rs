//! Namespaces, processes and pings of the lab.
//!
//! A guardian process takes the lab away: it sits at the other end of a pipe and begins when the lab closes it, which
//! the kernel does for a lab that crashed, too.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod build;
mod daemons;
mod guardian;
mod netns;
mod ping;
mod story;

use std::{
    fmt::Display,
    fs,
    io::{Write, stdout},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use tokio::signal::unix::{SignalKind, signal};

use super::{Error, LabOptions, topology::Topology};
use guardian::Guardian;

/// Configurations, sockets, state and logs of all labs, in a folder per lab and node.
const DIR: &str = "/run/routelet-lab";

pub(super) fn run(options: LabOptions) -> Result<(), Error> {
    if let Some(pid) = guardian::asked_for() {
        return guardian::stand(pid);
    }
    if !geteuid().is_root() {
        return Err(Error::Runtime(
            "a lab makes network namespaces: run it as root (sudo routelet lab)".into(),
        ));
    }
    let Some(hosts) = u8::try_from(options.nodes).ok().filter(|nodes| (2..=50).contains(nodes)) else {
        return Err(Error::Usage(format!("--nodes {}: a lab has 2 to 50 hosts", options.nodes)));
    };
    let removed = guardian::remove_leftovers(options.remove)?;
    if options.remove {
        let _ = writeln!(stdout(), "{removed} lab{} removed", if removed == 1 { "" } else { "s" });
        return Ok(());
    }
    daemons::present(options.peer)?;

    let lab = Topology { pid: std::process::id(), hosts };
    let guardian = Guardian::hire()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("cannot start the event loop"))?;
    let mut interrupted = false;
    let told = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed("cannot wait for SIGTERM"))?;
        tokio::select! {
            told = story::tell(lab, options) => return told,
            _ = tokio::signal::ctrl_c() => interrupted = true,
            _ = terminate.recv() => interrupted = true,
        }
        Err(Error::Runtime("interrupted".into()))
    });
    // One that failed is worth a look, too.
    if options.keep && !interrupted && dir(lab.pid).exists() {
        fs::write(dir(lab.pid).join("keep"), "").map_err(failed("cannot mark the lab as kept"))?;
        guardian.dismiss()?;
        return told;
    }
    let _ = writeln!(stdout());
    guardian.clean_up()?;
    let _ = writeln!(stdout(), "everything that the lab made is removed");
    told
}

/// The folder of the lab that process `pid` made.
fn dir(pid: u32) -> PathBuf {
    Path::new(DIR).join(pid.to_string())
}

/// Turns any error into ours: `what: why`.
fn failed<E: Display>(what: impl Display) -> impl FnOnce(E) -> Error {
    move |why| Error::Runtime(format!("{what}: {why}"))
}
