//! The CNI plugins on this host: which there are, and which versions of CNI they know.
//!
//! A conflist in a version that a plugin does not know starts no pod, and nothing but the plugin itself knows: so each program
//! that our file names is run once with `CNI_COMMAND=VERSION` (CNI specification, "Operations"), and again when it has changed.
//! It gets no other variable, a bounded time and a bounded answer. The container runtime runs the same file as root for each
//! pod, so nobody who can change it gains anything by us; one that everybody may write to is left alone all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
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

use crate::cni::conflist::{self, Plugins};

/// What is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginQuery {
    /// `cni.bin-dir`.
    pub bin_dir: PathBuf,
    /// The conflist, into which others may have chained plugins of theirs.
    pub conflist: PathBuf,
    /// Types of the plugins that we write.
    pub names: BTreeSet<String>,
}

/// How often the folder is looked at: somebody may be waiting for the plugins that he just installed.
const LOOK: Duration = Duration::from_secs(2);
/// A plugin answers within milliseconds, on a machine that starts within seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of an answer so much is read, some hundred octets in fact.
const ANSWER: u64 = 64 * 1024;
/// One that did not answer is asked again after so long, although it has not changed: the machine may have been short of memory.
const AGAIN: Duration = Duration::from_secs(60);
/// So many plugins are asked.
const PLUGINS: usize = 32;

/// Looks for as long as somebody listens; nothing is looked at before there is a query.
pub(super) async fn run(mut query: watch::Receiver<Option<PluginQuery>>, found: watch::Sender<Arc<Plugins>>) {
    let mut known = BTreeMap::new();
    loop {
        let now = query.borrow_and_update().clone();
        if let Some(query) = now {
            let plugins = look(&query, &mut known).await;
            found.send_if_modified(|last| {
                let news = **last != plugins;
                if news {
                    *last = Arc::new(plugins);
                }
                news
            });
        }
        // Cancel safe, each.
        tokio::select! {
            () = sleep(LOOK) => {}
            r = query.changed() => if r.is_err() { return },
            () = found.closed() => return,
        }
    }
}

/// A file as it was when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a file answered, and when.
#[derive(Clone, Debug)]
struct Asked {
    identity: Identity,
    at: Instant,
    answer: Result<BTreeSet<String>, String>,
}

async fn look(query: &PluginQuery, known: &mut BTreeMap<PathBuf, Asked>) -> Plugins {
    let file = std::fs::read(&query.conflist).unwrap_or_default();
    let chained: BTreeSet<_> = conflist::chained_by_others(&file).into_iter().collect();
    let programs = programs(&query.bin_dir);
    let mut plugins = Plugins { programs, chained, ..Plugins::default() };
    let wanted = query.names.iter().chain(&plugins.chained);
    let there = |name: &&String| plugins.programs.as_ref().is_some_and(|p| p.contains(*name));
    let names: BTreeSet<_> = wanted.filter(there).take(PLUGINS).cloned().collect();
    known.retain(|path, _| path.parent() == Some(query.bin_dir.as_path()));
    for name in names {
        match ask(query.bin_dir.join(&name), known).await {
            // Linked to libraries that are not in our image, or forbidden to us alone: the runtime may well run it.
            Ok(versions) if versions.is_empty() => None,
            Ok(versions) => plugins.versions.insert(name, versions).map(drop),
            Err(why) => plugins.unusable.insert(name, why).map(drop),
        };
    }
    plugins
}

/// `None`: the folder cannot be read (not mounted, for instance).
fn programs(bin_dir: &Path) -> Option<BTreeSet<String>> {
    let entries = std::fs::read_dir(bin_dir).ok()?;
    Some(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
}

/// Empty: nothing is known.
async fn ask(path: PathBuf, known: &mut BTreeMap<PathBuf, Asked>) -> Result<BTreeSet<String>, String> {
    let identity = identity(&path)?;
    if let Some(asked) = known.get(&path)
        && asked.identity == identity
        && (asked.answer.is_ok() || asked.at.elapsed() < AGAIN)
    {
        return asked.answer.clone();
    }
    let answer = version(&path).await;
    match &answer {
        Ok(versions) => debug!(path = %path.display(), ?versions, "CNI plugin asked for its versions"),
        Err(error) => info!(path = %path.display(), %error, "CNI plugin does not answer VERSION"),
    }
    known.insert(path, Asked { identity, at: Instant::now(), answer: answer.clone() });
    answer
}

fn identity(path: &Path) -> Result<Identity, String> {
    let meta = std::fs::metadata(path).map_err(|e| plain(&e))?;
    if !meta.is_file() {
        return Err("it is no file".into());
    }
    if meta.mode() & 0o111 == 0 {
        return Err("it may not be executed".into());
    }
    // Its owner says nothing: the archives of the releases are unpacked with that of their builder.
    if meta.mode() & 0o002 != 0 {
        return Err("it is not run, since everybody may write to it".into());
    }
    Ok(Identity {
        place: (meta.dev(), meta.ino()),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

/// Runs it.
async fn version(path: &Path) -> Result<BTreeSet<String>, String> {
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
            info!(path = %path.display(), error = %e, "CNI plugin cannot be run here, its versions are not known");
            return Ok(BTreeSet::new());
        }
        Err(e) => return Err(plain(&e)),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever does not read it has closed it.
            let _ = stdin.write_all(QUESTION).await;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(ANSWER).read_to_end(&mut answer).await?;
        }
        Ok::<_, io::Error>((answer, child.wait().await?))
    };
    let result = timeout(PATIENCE, talk).await;
    if result.is_err()
        && let Some(group) = group
    {
        // What it has started goes, too.
        let _ = killpg(group, Signal::SIGKILL);
    }
    match result {
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => Err(plain(&error)),
        Ok(Ok((answer, status))) => conflist::read_versions(&answer).map_err(|what| match status.success() {
            true => what.to_owned(),
            false => format!("{what}, {status}"),
        }),
    }
}

/// Early plugins read a configuration even for this.
const QUESTION: &[u8] = br#"{"cniVersion":"0.4.0"}"#;

/// Without the number: "permission denied".
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

    fn answers(versions: &[&str]) -> String {
        let list = serde_json::json!({ "cniVersion": "0.4.0", "supportedVersions": versions });
        format!("[ \"$CNI_COMMAND\" = VERSION ] && echo run >> \"$(dirname \"$0\")/.runs\" && echo '{list}'")
    }

    fn query(dir: &Path, names: &[&str]) -> PluginQuery {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        PluginQuery { bin_dir: dir.into(), conflist: dir.join("10-routelet.conflist"), names }
    }

    #[tokio::test]
    async fn each_plugin_is_asked_once_per_change_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "bridge", &answers(&["0.3.1", "0.4.0"]));
        script(dir.path(), "unused", "touch \"$(dirname \"$0\")/.ran\"");
        fs::write(
            dir.path().join("10-routelet.conflist"),
            r#"{"name": "routelet", "routelet.io/plugins": ["bridge"], "plugins": [{"type": "bridge"}, {"type": "mesh-cni"}]}"#,
        )
        .unwrap();
        script(dir.path(), "mesh-cni", &answers(&["0.3.1"]));
        let (query, mut known) = (query(dir.path(), &["bridge", "absent"]), BTreeMap::new());
        let runs = || fs::read_to_string(dir.path().join(".runs")).unwrap_or_default().lines().count();

        let plugins = look(&query, &mut known).await;
        assert_eq!(plugins.versions["bridge"], ["0.3.1", "0.4.0"].map(str::to_owned).into());
        assert_eq!(
            plugins.versions["mesh-cni"],
            ["0.3.1".to_owned()].into(),
            "of others, chained into our file"
        );
        assert!(plugins.unusable.is_empty() && plugins.versions.len() == 2, "{plugins:?}");
        assert_eq!(look(&query, &mut known).await.versions, plugins.versions);
        assert_eq!(runs(), 2, "each once");
        script(dir.path(), "bridge", &answers(&["0.4.0", "1.0.0", "1.1.0"]));
        let plugins = look(&query, &mut known).await;
        assert!(plugins.versions["bridge"].contains("1.1.0"), "another file");
        assert_eq!(runs(), 3);
        assert!(!dir.path().join(".ran").exists(), "what the file does not name is not run");
    }

    #[tokio::test]
    async fn a_program_that_hangs_floods_or_fails_costs_bounded_time_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["flood", "garbage", "fails", "no-program", "not-executable", "writable"];
        script(dir.path(), "flood", "exec cat /dev/zero");
        script(dir.path(), "garbage", "echo '[1, 2]'");
        script(dir.path(), "fails", "exit 3");
        fs::write(dir.path().join("no-program"), [0_u8, 1, 2, 3]).unwrap();
        fs::set_permissions(dir.path().join("no-program"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("not-executable"), "").unwrap();
        script(dir.path(), "writable", &answers(&["1.0.0"]));
        fs::set_permissions(dir.path().join("writable"), fs::Permissions::from_mode(0o777)).unwrap();
        let plugins = look(&query(dir.path(), &names), &mut BTreeMap::new()).await;
        let said: Vec<_> = names.iter().map(|n| plugins.unusable[*n].as_str()).collect();
        assert_eq!(said[1], "its answer is no JSON object");
        assert!(said[2].contains("exit status: 3"), "{said:?}");
        assert!(said[3].contains("exec format error"), "{said:?}");
        assert_eq!(said[4], "it may not be executed");
        assert!(said[5].contains("everybody may write"), "{said:?}");

        // Its interpreter is not in our image, but may be on the host.
        script(dir.path(), "dynamic", "");
        fs::write(dir.path().join("dynamic"), "#!/no/such/interpreter\n").unwrap();
        let plugins = look(&query(dir.path(), &["dynamic"]), &mut BTreeMap::new()).await;
        assert!(plugins.unusable.is_empty() && plugins.versions.is_empty(), "{plugins:?}");

        let started = Instant::now();
        script(dir.path(), "hangs", "sleep 1000 & echo $! > \"$(dirname \"$0\")/.child\"; wait");
        let plugins = look(&query(dir.path(), &["hangs"]), &mut BTreeMap::new()).await;
        assert!(plugins.unusable["hangs"].contains("no answer"), "{plugins:?}");
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
        panic!("what it had started still runs");
    }
}
