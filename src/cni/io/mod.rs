//! The tasks that write the conflist and repair the pods' network, with files and netlink.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod bridge;
mod conflist;
pub mod former;
mod leases;
mod plugins;
mod tend;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use tokio::{
    sync::watch::{Receiver, Sender, channel},
    task::JoinHandle,
};

pub use self::{
    leases::{FILE as LEASES_FILE, FOLDER as LEASES},
    plugins::PluginQuery,
    tend::FILE as BRIDGE_FILE,
};
use super::{
    bridge::Glance,
    conflist::{Conflist, Plugins},
    gate::Ready,
    view::{ConflistState, ConflistStatus},
};
use crate::net::{Diagnostic, Prefix};

/// Where the conflist goes.
#[derive(Clone, Debug)]
pub struct ConflistOptions {
    /// `cni.enabled`.
    pub enabled: bool,
    pub conf_dir: PathBuf,
    pub file: String,
    /// `kept.json` lives here: ranges of former pod CIDRs in which pods still run.
    pub state_dir: PathBuf,
}

/// The task that keeps the file.
#[derive(Debug)]
pub struct ConflistTask {
    pub status: Receiver<ConflistStatus>,
    /// Ranges in which pods may have addresses: those of the file, and former ones. For `plan::Extra`.
    pub held: Receiver<Arc<BTreeSet<Prefix>>>,
    pub task: JoinHandle<()>,
}

/// What the conflist's task is told beside the file that is wanted, and where it puts what the operator should know.
#[derive(Debug)]
pub struct Surroundings {
    /// Changes whenever something happens to the pods' bridge.
    pub bridge: Receiver<Glance>,
    /// Why no conflist is wanted, while none is.
    pub no_conflist: Receiver<String>,
    pub problems: Sender<Vec<Diagnostic>>,
    /// Folder of `host-local`'s leases; `None`: they are not looked after.
    pub leases: Option<PathBuf>,
}

/// Keeps the conflist file as `Plan::conflist` wants it, once `ready` allows.
pub fn spawn_conflist(
    options: ConflistOptions,
    want: Receiver<Option<Arc<Conflist>>>,
    ready: Receiver<Ready>,
) -> ConflistTask {
    let unknown = "the Node's pod CIDRs are not known, or cannot be used".to_owned();
    let around = Surroundings {
        bridge: channel(Glance::default()).1,
        no_conflist: channel(unknown).1,
        problems: channel(Vec::new()).0,
        leases: None,
    };
    spawn_conflist_in(options, want, ready, around)
}

/// The same, and looks after the bridge of the pods at once when something happens to it.
pub fn spawn_conflist_in(
    options: ConflistOptions,
    want: Receiver<Option<Arc<Conflist>>>,
    ready: Receiver<Ready>,
    around: Surroundings,
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
            true => conflist::run(options, want, ready, around, status, former).await,
            false => tokio::join!(status.closed(), former.closed()).0,
        }
    });
    ConflistTask { status: seen, held, task }
}

/// Looks at the CNI plugins that `query` names, again and again, for `plan::Extra`. Ends when nobody listens.
pub fn spawn_plugins(query: Receiver<Option<PluginQuery>>) -> Receiver<Arc<Plugins>> {
    let (tx, rx) = channel(Arc::new(Plugins { pending: true, ..Plugins::default() }));
    tokio::spawn(plugins::run(query, tx));
    rx
}
