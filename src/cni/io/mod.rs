//! The tasks that write the conflist and repair the pods' network, with files and netlink.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod bridge;
mod conflist;
pub mod former;
mod leases;
mod maintain;
mod plugins;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use tokio::{
    sync::watch::{Receiver, Sender, channel},
    task::JoinHandle,
};

pub use self::{
    leases::{FILE as LEASES_FILE, FOLDER as LEASES},
    maintain::FILE as BRIDGE_FILE,
    plugins::PluginQuery,
};
use super::{
    bridge::BridgeSnapshot,
    conflist::{Conflist, Plugins},
    gate::GateInputs,
    view::{ConflistState, ConflistStatus},
};
use crate::net::{Diagnostic, Prefix};

/// Location of the conflist.
#[derive(Clone, Debug)]
pub struct ConflistOptions {
    /// `cni.enabled`.
    pub enabled: bool,
    pub conf_dir: PathBuf,
    pub file: String,
    /// State folder, with `kept.json`: former pod CIDRs in which pods still run.
    pub state_dir: PathBuf,
}

/// The task that maintains the conflist.
#[derive(Debug)]
pub struct ConflistTask {
    pub status: Receiver<ConflistStatus>,
    /// Ranges in which pods may have addresses: those of the file, and former ones. Input of the
    /// plan.
    pub held: Receiver<Arc<BTreeSet<Prefix>>>,
    pub task: JoinHandle<()>,
}

/// Further inputs of the conflist's task, and the outlet for its problems.
#[derive(Debug)]
pub struct ConflistContext {
    /// Changes whenever the pods' bridge changes.
    pub bridge: Receiver<BridgeSnapshot>,
    /// Why no conflist is wanted, if so.
    pub no_conflist: Receiver<String>,
    pub problems: Sender<Vec<Diagnostic>>,
    /// Folder of `host-local`'s leases; `None` to leave them alone.
    pub leases: Option<PathBuf>,
}

/// What the container runtime reads in place of our conflist, if anything.
pub fn conflist_in_front(options: &ConflistOptions) -> Option<Diagnostic> {
    conflist::in_front(options, &[])
}

/// Starts the task that writes the conflist `want`, once the gate's inputs `ready` allow it.
pub fn spawn_conflist(
    options: ConflistOptions,
    want: Receiver<Option<Arc<Conflist>>>,
    ready: Receiver<GateInputs>,
) -> ConflistTask {
    let unknown = "the Node's pod CIDRs are unknown or unusable".to_owned();
    let context = ConflistContext {
        bridge: channel(BridgeSnapshot::default()).1,
        no_conflist: channel(unknown).1,
        problems: channel(Vec::new()).0,
        leases: None,
    };
    spawn_conflist_in(options, want, ready, context)
}

/// The same; also repairs the pods' bridge as soon as it changes.
pub fn spawn_conflist_in(
    options: ConflistOptions,
    want: Receiver<Option<Arc<Conflist>>>,
    ready: Receiver<GateInputs>,
    context: ConflistContext,
) -> ConflistTask {
    let first = match options.enabled {
        true => ConflistStatus {
            path: Some(options.path().display().to_string()),
            state: ConflistState::Waiting,
            ..ConflistStatus::default()
        },
        false => ConflistStatus::default(),
    };
    let (status, seen) = channel(first);
    let (held_tx, held) = channel(Arc::default());
    let former = former::Former::new(&options, held_tx);
    let task = tokio::spawn(async move {
        match options.enabled {
            true => conflist::run(options, want, ready, context, status, former).await,
            false => tokio::join!(status.closed(), former.closed()).0,
        }
    });
    ConflistTask { status: seen, held, task }
}

/// Starts the task that scans for the CNI plugins in `query` at intervals. It ends when the
/// receiver is dropped.
pub fn spawn_plugins(query: Receiver<Option<PluginQuery>>) -> Receiver<Arc<Plugins>> {
    let (tx, rx) = channel(Arc::new(Plugins { pending: true, ..Plugins::default() }));
    tokio::spawn(plugins::run(query, tx));
    rx
}
