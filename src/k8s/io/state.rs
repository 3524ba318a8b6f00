//! Saves the last known cluster in the state folder, for a start without the API server.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::sleep};
use tracing::info;

use crate::{k8s::node::Nodes, state::io as state};

/// Minimum time between writes of the file: changes of a busy cluster are saved together.
pub(super) const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// `cluster.json`.
#[derive(Serialize, Deserialize)]
struct Saved<N> {
    version: u32,
    node: String,
    nodes: N,
}

/// The Nodes of the previous run, if they are of the same node. An unreadable file is ignored.
pub(super) fn load(dir: &Path, node: &str) -> Option<Nodes> {
    let file = file(dir);
    let saved: Saved<Nodes> = serde_json::from_slice(&state::read(&file)?).ok()?;
    let known = (saved.version == VERSION && saved.node == node).then_some(saved.nodes)?;
    let age_seconds = state::age(&file).map(|age| age.as_secs());
    info!(path = %file.display(), age_seconds, "cluster loaded from the state folder");
    Some(known)
}

/// Saves each published state until the watch ends.
pub(super) async fn keep(dir: PathBuf, node: String, mut nodes: watch::Receiver<Arc<Nodes>>) {
    while nodes.changed().await.is_ok() {
        let now = nodes.borrow_and_update().clone();
        let (dir, node) = (dir.clone(), node.clone());
        // Serialising a large cluster takes long.
        let _ = tokio::task::spawn_blocking(move || save(&dir, &node, &now)).await;
        sleep(SAVE_INTERVAL).await;
    }
}

fn save(dir: &Path, node: &str, nodes: &Nodes) {
    let saved = Saved { version: VERSION, node: node.to_owned(), nodes };
    // Writing to memory cannot fail.
    state::keep(&file(dir), serde_json::to_vec(&saved).unwrap_or_default(), 0o600);
}

fn file(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::k8s::node::NodeView;

    #[test]
    fn the_saved_cluster_is_loaded_by_the_same_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let nodes =
            Nodes { own: Some(NodeView { name: "n1".into(), ..NodeView::default() }), ..Nodes::default() };
        save(dir.path(), "n1", &nodes);
        state::flush(Duration::from_secs(10));
        assert_eq!(load(dir.path(), "n1"), Some(nodes));
        assert_eq!(load(dir.path(), "n2"), None, "a copied state folder");
        let mode = std::fs::metadata(file(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(file(dir.path()), "{").unwrap();
        assert_eq!(load(dir.path(), "n1"), None);
    }
}
