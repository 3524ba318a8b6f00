//! Named network namespaces, as `ip netns` shows them.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Error, failed};
use crate::netlink::io::Connection;

const DIR: &str = "/run/netns";
/// How long processes have to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// A namespace and a netlink socket in it.
pub(super) struct Namespace {
    pub(super) name: String,
    file: File,
    pub(super) netlink: Connection,
}

impl Namespace {
    /// Creates it; must be called inside a tokio runtime.
    pub(super) fn create(name: String) -> Result<Self, Error> {
        let wrong = || failed(format!("cannot make the network namespace {name}"));
        fs::create_dir_all(DIR).map_err(wrong())?;
        let path = Path::new(DIR).join(&name);
        File::create_new(&path).map_err(wrong())?;
        let runtime = tokio::runtime::Handle::current();
        let made = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            let _inside = runtime.enter();
            Connection::open()
        });
        let netlink = made.inspect_err(|_| drop(fs::remove_file(&path))).map_err(wrong())?;
        let file = File::open(&path).map_err(wrong())?;
        Ok(Self { name, file, netlink })
    }

    /// Runs `work` in a thread inside the namespace.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        in_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// Runs `work` in a thread inside the namespace, in the background.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<thread::JoinHandle<io::Result<T>>> {
        let file = self.file.try_clone()?;
        Ok(thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            work()
        }))
    }

    /// Writes below `/proc/sys/net`.
    pub(super) fn sysctl(&self, keys: &[(&str, &str)]) -> Result<(), Error> {
        for (key, value) in keys {
            self.within(|| fs::write(Path::new("/proc/sys/net").join(key), value))
                .map_err(failed(format!("cannot set net/{key} in {}", self.name)))?;
        }
        Ok(())
    }

    /// File descriptor for messages that move an interface here.
    pub(super) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

/// Changes the namespace of a new thread only, so that the caller stays in its own.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

/// Names of all namespaces with this prefix.
pub(super) fn named(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(DIR) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Ends every process inside, then removes the namespaces and with them their links.
pub(super) fn remove(names: &[String]) -> Result<(), Error> {
    let paths: Vec<PathBuf> = names.iter().map(|name| Path::new(DIR).join(name)).collect();
    let inodes: Vec<u64> = paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|m| m.ino()).collect();
    let began = Instant::now();
    for pid in inside(&inodes) {
        // It may have ended already.
        let _ = kill(pid, Signal::SIGTERM);
    }
    loop {
        let left = inside(&inodes);
        if left.is_empty() {
            break;
        }
        if began.elapsed() > GRACE {
            for pid in left {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    for path in paths {
        // Not mounted if its creation was interrupted.
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        fs::remove_file(&path).map_err(failed(format!("cannot remove {}", path.display())))?;
    }
    Ok(())
}

/// Processes in one of these namespaces. Zombies are in none.
fn inside(inodes: &[u64]) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| inodes.contains(&m.ino())))
        .collect()
}
