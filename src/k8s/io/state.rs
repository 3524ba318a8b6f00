//! The last known cluster in the state folder, for a start without the API server.

use std::{
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::sleep};
use tracing::warn;

use crate::k8s::node::Nodes;

/// The file is written at once, and then not again for so long: changes of a busy cluster are gathered.
pub(super) const GATHER: Duration = Duration::from_secs(1);

/// `cluster.json`.
#[derive(Serialize, Deserialize)]
struct Saved<N> {
    version: u32,
    node: String,
    nodes: N,
}

/// What the last run knew, if it was the same node. Anything unreadable counts as nothing.
pub(super) fn load(dir: &Path, node: &str) -> Option<Nodes> {
    let bytes = std::fs::read(file(dir)).ok()?;
    let saved: Saved<Nodes> = serde_json::from_slice(&bytes).ok()?;
    (saved.version == VERSION && saved.node == node).then_some(saved.nodes)
}

/// Writes each state that is published, until the watch ends.
pub(super) async fn keep(dir: PathBuf, node: String, mut nodes: watch::Receiver<Arc<Nodes>>) {
    let mut failed = false;
    while nodes.changed().await.is_ok() {
        let now = nodes.borrow_and_update().clone();
        let (dir, node) = (dir.clone(), node.clone());
        let written = tokio::task::spawn_blocking(move || save(&dir, &node, &now)).await;
        match written {
            Ok(Err(error)) if !failed => {
                warn!(%error, "cannot keep the last known cluster; a start without the API server will have to wait");
                failed = true;
            }
            Ok(Ok(())) => failed = false,
            _ => {}
        }
        sleep(GATHER).await;
    }
}

fn save(dir: &Path, node: &str, nodes: &Nodes) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let saved = Saved { version: VERSION, node: node.to_owned(), nodes };
    write(&file(dir), &serde_json::to_vec(&saved)?, 0o600)
}

/// Replaces a file so that a reader sees the old or the new one, whole, whatever happens: temporary file beside it (its
/// name begins with a dot and ends in `.tmp`, which no container runtime reads), fsync, rename, fsync of the folder.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_by_steps(path, bytes, mode, &mut || {})
}

/// The same; `step` is called before each step and after the last, for the test that ends there.
pub(super) fn write_by_steps(path: &Path, bytes: &[u8], mode: u32, step: &mut dyn FnMut()) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of a file"));
    };
    let temporary = dir.join(format!(".{name}.tmp"));
    let written = (|| {
        step();
        let _ = std::fs::remove_file(&temporary);
        step();
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        step();
        file.write_all(bytes)?;
        step();
        file.sync_all()?;
        step();
        std::fs::rename(&temporary, path)?;
        step();
        std::fs::File::open(dir)?.sync_all()?;
        step();
        Ok(())
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
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
    fn what_was_known_is_read_back_by_the_same_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let nodes =
            Nodes { own: Some(NodeView { name: "n1".into(), ..NodeView::default() }), ..Nodes::default() };
        save(dir.path(), "n1", &nodes).unwrap();
        assert_eq!(load(dir.path(), "n1"), Some(nodes));
        assert_eq!(load(dir.path(), "n2"), None, "a copied state folder");
        let mode = std::fs::metadata(file(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(file(dir.path()), "{").unwrap();
        assert_eq!(load(dir.path(), "n1"), None);
    }

    #[test]
    fn a_left_over_temporary_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-routelet.conflist");
        std::fs::write(dir.path().join(".10-routelet.conflist.tmp"), "half").unwrap();
        write(&path, b"whole", 0o644).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
