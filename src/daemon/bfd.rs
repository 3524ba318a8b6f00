//! Logs the events of BFD sessions, whose own thread does not log.

use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, info, warn};

use crate::{
    bfd::{
        Change, State,
        io::{Handle, PriorityError},
    },
    net::{BfdPath, bfd_diagnostic},
};

/// Runs until BFD ends.
pub(super) async fn report(bfd: Handle) {
    let mut changes = bfd.changes.subscribe();
    let mut first = true;
    loop {
        match changes.recv().await {
            Ok(change) => {
                if std::mem::take(&mut first) {
                    log_priority(&bfd.status().await.realtime);
                }
                log(&change);
            }
            Err(RecvError::Lagged(missed)) => {
                warn!(target: "routelet::bfd", missed, "BFD changes not logged");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn log(change: &Change) {
    let Change { path, from, to, diagnostic } = *change;
    let (neighbor, diagnostic) = (name(&path), bfd_diagnostic(diagnostic));
    match (from, to) {
        (_, State::Up) => info!(target: "routelet::bfd", %neighbor, "BFD session up"),
        (State::Up, State::AdminDown) => {
            info!(target: "routelet::bfd", %neighbor, diagnostic, "BFD session closed");
        }
        (State::Up, _) => warn!(target: "routelet::bfd", %neighbor, diagnostic, "BFD session down"),
        _ => debug!(target: "routelet::bfd", %neighbor, from = from.as_str(), to = to.as_str(), "BFD state"),
    }
}

fn log_priority(realtime: &Option<Result<(), PriorityError>>) {
    match realtime {
        Some(Ok(())) => debug!(target: "routelet::bfd", "BFD runs with real-time priority"),
        Some(Err(error)) => info!(
            target: "routelet::bfd",
            %error,
            "BFD runs without real-time priority; CAP_SYS_NICE (LimitRTPRIO of systemd) permits it"
        ),
        None => {}
    }
}

/// The name of the neighbor as in other logs.
fn name(path: &BfdPath) -> String {
    match path.remote {
        std::net::IpAddr::V6(addr) if addr.is_unicast_link_local() => {
            let interface = nix::net::if_::if_indextoname(path.ifindex).ok();
            let interface =
                interface.map_or_else(|| path.ifindex.to_string(), |n| n.to_string_lossy().into());
            format!("{addr}%{interface}")
        }
        addr => addr.to_string(),
    }
}
