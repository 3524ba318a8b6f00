//! Namespaces, processes and pings of the lab.
//!
//! A guard process removes the lab: it waits at a pipe until the lab closes it, which the kernel
//! does even for a lab that crashed.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

/// Prints a line; a closed pipe does not end the lab.
macro_rules! outln {
    ($($text:tt)*) => {{
        let _ = writeln!(stdout(), $($text)*);
    }};
}

mod build;
mod cleanup_guard;
mod daemons;
mod demo;
mod docker;
mod netns;
mod ping;
mod scenes;

use std::{
    fmt::Display,
    fs,
    io::{Write, stdout},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use tokio::signal::unix::{SignalKind, signal};

use super::{Error, Fabric, LabOptions, Leaf, Scene, topology::Topology};
use cleanup_guard::CleanupGuard;

/// Configurations, sockets, state and logs of all labs, in a directory per lab and node.
const DIR: &str = "/run/routelet-lab";

pub(super) fn run(options: LabOptions) -> Result<(), Error> {
    if let Some(pid) = cleanup_guard::guarded_lab() {
        return cleanup_guard::run(pid);
    }
    if !geteuid().is_root() {
        return Err(Error::Runtime(
            "a lab creates network namespaces: run it as root (sudo routelet lab)".into(),
        ));
    }
    let Some(hosts) = u8::try_from(options.nodes).ok().filter(|nodes| (2..=50).contains(nodes)) else {
        return Err(Error::Usage(format!("--nodes {}: a lab has 2 to 50 hosts", options.nodes)));
    };
    let removed = cleanup_guard::remove_leftovers(options.remove)?;
    if options.remove {
        let _ = writeln!(stdout(), "{removed} lab{} removed", if removed == 1 { "" } else { "s" });
        return Ok(());
    }
    if options.fabric == Fabric::Unnumbered && options.peer != Leaf::Routelet {
        return Err(Error::Usage(format!("--peer {}: leaves without addresses run routelet", options.peer)));
    }
    daemons::present(options.peer)?;

    let plays = |scene| options.scene == Some(scene);
    let (bfd, docker) = (plays(Scene::Bfd), plays(Scene::Docker));
    if docker {
        docker::present()?;
    }
    let lab = Topology { pid: std::process::id(), hosts, fabric: options.fabric, bfd, docker };
    let guard = CleanupGuard::spawn()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("cannot start the event loop"))?;
    let mut interrupted = false;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed("cannot wait for SIGTERM"))?;
        tokio::select! {
            result = demo::run(lab, options) => return result,
            _ = tokio::signal::ctrl_c() => interrupted = true,
            _ = terminate.recv() => interrupted = true,
        }
        Err(Error::Runtime("interrupted".into()))
    });
    // A failed lab is worth inspecting as well.
    if options.keep && !interrupted && dir(lab.pid).exists() {
        fs::write(dir(lab.pid).join("keep"), "").map_err(failed("cannot mark the lab as kept"))?;
        guard.dismiss()?;
        return result;
    }
    let _ = writeln!(stdout());
    guard.clean_up()?;
    let _ = writeln!(stdout(), "the lab is removed");
    result
}

/// The directory of the lab that process `pid` created.
fn dir(pid: u32) -> PathBuf {
    Path::new(DIR).join(pid.to_string())
}

/// Converts any error to ours: `what: why`.
fn failed<E: Display>(what: impl Display) -> impl FnOnce(E) -> Error {
    move |why| Error::Runtime(format!("{what}: {why}"))
}
