//! Finds the CNI plugins on this host and the versions of CNI that they support.
//!
//! With a conflist in a version that a plugin does not support no pod can start, and only the
//! plugin itself can report its versions. Each plugin in our file is therefore run once with
//! `CNI_COMMAND=VERSION` (CNI specification, "Operations"), and again when its file has changed. It
//! gets no other variable, and its time and output are bounded. The container runtime runs the same
//! program as root for each pod, so running it adds no privilege for whoever can change it; a
//! program that everybody can write to is not run nevertheless.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info};

use crate::{
    cni::{
        conflist::{self, Plugins},
        plugin_file::{self, NotRunnable},
    },
    mailbox::publish,
};

/// What to scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginQuery {
    /// `cni.bin-dir`.
    pub bin_dir: PathBuf,
    /// The conflist, into which other programs may have chained plugins.
    pub conflist: PathBuf,
    /// Types of the plugins that we write.
    pub names: BTreeSet<String>,
}

/// How often to scan the folder; an installation of plugins may just have finished.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum run time of a plugin; usually milliseconds, and seconds while a machine starts.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum octets of output to read; usually some hundred.
const MAX_OUTPUT: u64 = 64 * 1024;
/// Time to the next query of an unchanged plugin that failed: the machine may have been short of
/// memory.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of plugins to query.
const MAX_PLUGINS: usize = 32;

/// Scans until all receivers are dropped; starts once there is a query.
pub(super) async fn run(mut query: watch::Receiver<Option<PluginQuery>>, found: watch::Sender<Arc<Plugins>>) {
    let mut known = BTreeMap::new();
    loop {
        let now = query.borrow_and_update().clone();
        if let Some(query) = now {
            let plugins = scan(&query, &mut known).await;
            publish(&found, Arc::new(plugins));
        }
        // Each arm is cancel safe.
        tokio::select! {
            () = sleep(SCAN_INTERVAL) => {}
            r = query.changed() => if r.is_err() { return },
            () = found.closed() => return,
        }
    }
}

/// Identity of a program file, to detect changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a plugin cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
enum PluginError {
    #[error(transparent)]
    NotRunnable(#[from] NotRunnable),
    #[error("{}", plain(.0))]
    Io(Arc<io::Error>),
    #[error("no output within {} s", VERSION_TIMEOUT.as_secs())]
    Silent,
    #[error("{what}")]
    Output { what: &'static str },
    #[error("{what}, {status}")]
    Failed { what: &'static str, status: ExitStatus },
}

impl From<io::Error> for PluginError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Result of querying a plugin.
#[derive(Clone, Debug)]
struct Queried {
    identity: Identity,
    at: Instant,
    result: Result<BTreeSet<String>, PluginError>,
}

async fn scan(query: &PluginQuery, known: &mut BTreeMap<PathBuf, Queried>) -> Plugins {
    let file = std::fs::read(&query.conflist).unwrap_or_default();
    let chained: BTreeSet<_> = conflist::chained_by_others(&file).into_iter().collect();
    let programs = programs(&query.bin_dir);
    let mut plugins = Plugins { programs, chained, ..Plugins::default() };
    let wanted = query.names.iter().chain(&plugins.chained);
    let exists = |name: &&String| plugins.programs.as_ref().is_some_and(|p| p.contains(*name));
    let names: BTreeSet<_> = wanted.filter(exists).take(MAX_PLUGINS).cloned().collect();
    known.retain(|path, _| path.parent() == Some(query.bin_dir.as_path()));
    for name in names {
        match supported_versions(query.bin_dir.join(&name), known).await {
            // Linked to libraries that are not in our image, or not executable for us: the runtime
            // may still be able to run it.
            Ok(versions) if versions.is_empty() => None,
            Ok(versions) => plugins.versions.insert(name, versions).map(drop),
            Err(error) => plugins.unusable.insert(name, error.to_string()).map(drop),
        };
    }
    plugins
}

/// Names of the files in the folder; `None` if it cannot be read (for example because it is not
/// mounted).
fn programs(bin_dir: &Path) -> Option<BTreeSet<String>> {
    let entries = std::fs::read_dir(bin_dir).ok()?;
    Some(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
}

/// The versions that a plugin supports; empty if they are unknown.
async fn supported_versions(
    path: PathBuf,
    known: &mut BTreeMap<PathBuf, Queried>,
) -> Result<BTreeSet<String>, PluginError> {
    let identity = identity(&path)?;
    if let Some(queried) = known.get(&path)
        && queried.identity == identity
        && (queried.result.is_ok() || queried.at.elapsed() < RETRY_INTERVAL)
    {
        return queried.result.clone();
    }
    let result = query_version(&path).await;
    match &result {
        Ok(versions) => debug!(path = %path.display(), ?versions, "CNI plugin queried"),
        Err(error) => info!(path = %path.display(), %error, "CNI plugin query failed"),
    }
    known.insert(path, Queried { identity, at: Instant::now(), result: result.clone() });
    result
}

fn identity(path: &Path) -> Result<Identity, PluginError> {
    let meta = std::fs::metadata(path)?;
    plugin_file::check(meta.is_file(), meta.mode())?;
    Ok(Identity {
        place: (meta.dev(), meta.ino()),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

/// Runs the plugin with `CNI_COMMAND=VERSION`.
async fn query_version(path: &Path) -> Result<BTreeSet<String>, PluginError> {
    let child = Command::new(path)
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            info!(path = %path.display(), error = %e, "cannot run CNI plugin, its versions are unknown");
            return Ok(BTreeSet::new());
        }
        Err(e) => return Err(e.into()),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let exchange = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that does not read it has closed it.
            let _ = stdin.write_all(INPUT).await;
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
        }
        Ok::<_, io::Error>((output, child.wait().await?))
    };
    let result = timeout(VERSION_TIMEOUT, exchange).await;
    if result.is_err()
        && let Some(group) = group
    {
        // Also ends processes that it started.
        let _ = killpg(group, Signal::SIGKILL);
    }
    match result {
        Err(_) => Err(PluginError::Silent),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok((output, status))) => conflist::read_versions(&output).map_err(|what| match status.success() {
            true => PluginError::Output { what },
            false => PluginError::Failed { what, status },
        }),
    }
}

/// Early plugins expect a configuration even for `VERSION`.
const INPUT: &[u8] = br#"{"cniVersion":"0.4.0"}"#;

/// The text of an error without its number, as in "permission denied".
fn plain(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn script(dir: &Path, name: &str, body: &str) {
        let path = dir.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn prints(versions: &[&str]) -> String {
        let list = serde_json::json!({ "cniVersion": "0.4.0", "supportedVersions": versions });
        format!("[ \"$CNI_COMMAND\" = VERSION ] && echo run >> \"$(dirname \"$0\")/.runs\" && echo '{list}'")
    }

    fn query(dir: &Path, names: &[&str]) -> PluginQuery {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        PluginQuery { bin_dir: dir.into(), conflist: dir.join("10-routelet.conflist"), names }
    }

    #[tokio::test]
    async fn each_plugin_is_queried_once_per_change_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "bridge", &prints(&["0.3.1", "0.4.0"]));
        script(dir.path(), "unused", "touch \"$(dirname \"$0\")/.ran\"");
        fs::write(
            dir.path().join("10-routelet.conflist"),
            r#"{"name": "routelet", "routelet.io/plugins": ["bridge"], "plugins": [{"type": "bridge"}, {"type": "mesh-cni"}]}"#,
        )
        .unwrap();
        script(dir.path(), "mesh-cni", &prints(&["0.3.1"]));
        let (query, mut known) = (query(dir.path(), &["bridge", "absent"]), BTreeMap::new());
        let runs = || fs::read_to_string(dir.path().join(".runs")).unwrap_or_default().lines().count();

        let plugins = scan(&query, &mut known).await;
        assert_eq!(plugins.versions["bridge"], ["0.3.1", "0.4.0"].map(str::to_owned).into());
        assert_eq!(
            plugins.versions["mesh-cni"],
            ["0.3.1".to_owned()].into(),
            "chained into our file by another program"
        );
        assert!(plugins.unusable.is_empty() && plugins.versions.len() == 2, "{plugins:?}");
        assert_eq!(scan(&query, &mut known).await.versions, plugins.versions);
        assert_eq!(runs(), 2, "each once");
        script(dir.path(), "bridge", &prints(&["0.4.0", "1.0.0", "1.1.0"]));
        let plugins = scan(&query, &mut known).await;
        assert!(plugins.versions["bridge"].contains("1.1.0"), "another file");
        assert_eq!(runs(), 3);
        assert!(!dir.path().join(".ran").exists(), "what the file does not name is not run");
    }

    #[tokio::test]
    async fn a_plugin_that_hangs_floods_or_fails_takes_bounded_time_and_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["flood", "garbage", "fails", "no-program", "not-executable", "writable"];
        script(dir.path(), "flood", "exec cat /dev/zero");
        script(dir.path(), "garbage", "echo '[1, 2]'");
        script(dir.path(), "fails", "exit 3");
        fs::write(dir.path().join("no-program"), [0_u8, 1, 2, 3]).unwrap();
        fs::set_permissions(dir.path().join("no-program"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("not-executable"), "").unwrap();
        script(dir.path(), "writable", &prints(&["1.0.0"]));
        fs::set_permissions(dir.path().join("writable"), fs::Permissions::from_mode(0o777)).unwrap();
        let plugins = scan(&query(dir.path(), &names), &mut BTreeMap::new()).await;
        let errors: Vec<_> = names.iter().map(|n| plugins.unusable[*n].as_str()).collect();
        assert_eq!(errors[1], "its output is not a JSON object");
        assert!(errors[2].contains("exit status: 3"), "{errors:?}");
        assert!(errors[3].contains("exec format error"), "{errors:?}");
        assert_eq!(errors[4], "it is not executable");
        assert!(errors[5].contains("writable by everybody"), "{errors:?}");

        // Its interpreter is missing in our image, but may exist on the host.
        script(dir.path(), "dynamic", "");
        fs::write(dir.path().join("dynamic"), "#!/no/such/interpreter\n").unwrap();
        let plugins = scan(&query(dir.path(), &["dynamic"]), &mut BTreeMap::new()).await;
        assert!(plugins.unusable.is_empty() && plugins.versions.is_empty(), "{plugins:?}");

        let started = Instant::now();
        script(dir.path(), "hangs", "sleep 1000 & echo $! > \"$(dirname \"$0\")/.child\"; wait");
        let plugins = scan(&query(dir.path(), &["hangs"]), &mut BTreeMap::new()).await;
        assert!(plugins.unusable["hangs"].contains("no output"), "{plugins:?}");
        assert!(started.elapsed() < Duration::from_secs(30));
        let child = fs::read_to_string(dir.path().join(".child")).unwrap();
        let gone = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        for _ in 0..500 {
            if gone() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("a process that it started still runs");
    }
}
