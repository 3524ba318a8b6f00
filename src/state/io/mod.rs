//! Reads and writes the files of the state folder.
//!
//! One thread writes all files: older content therefore never replaces newer content, and callers
//! only wait for a slow disk if they choose to.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod write;

use std::{
    fs, io,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{File, News, Pending, WriteError};
use crate::net::Diagnostic;
pub use write::write;
#[cfg(test)]
pub(crate) use write::write_by_steps;

/// Requests to the thread.
enum Order {
    /// Write a file. The result is sent if a caller waits for it.
    Keep(File, Option<mpsc::SyncSender<Result<(), WriteError>>>),
    /// A former run could not replace this file, which has this age.
    Stale(PathBuf, Duration),
    /// Sends once all previous requests are done.
    Flush(mpsc::SyncSender<()>),
}

struct Writer {
    orders: mpsc::Sender<Order>,
    problems: watch::Receiver<Vec<Diagnostic>>,
}

/// The writer of this process: there is one state folder. Its thread starts at the first use, which
/// is after the sandbox was entered.
fn writer() -> &'static Writer {
    static WRITER: OnceLock<Writer> = OnceLock::new();
    WRITER.get_or_init(|| {
        let (orders, received) = mpsc::channel();
        let (changed, problems) = watch::channel(Vec::new());
        let thread = thread::Builder::new().name("state".into()).stack_size(256 * 1024);
        if let Err(error) = thread.spawn(move || run(&received, &changed)) {
            tracing::error!(%error, "cannot start the thread that writes the state folder; is the process limit too low?");
        }
        Writer { orders, problems }
    })
}

/// Writes the file soon, and retries until it succeeds.
pub fn keep(path: &Path, bytes: Vec<u8>, mode: u32) {
    let file = File { path: path.to_owned(), bytes: bytes.into(), mode };
    let _ = writer().orders.send(Order::Keep(file, None));
}

/// The same, and waits for the first attempt.
///
/// # Errors
///
/// The error of the first attempt. The write is retried nevertheless.
pub fn keep_now(path: &Path, bytes: Vec<u8>, mode: u32) -> Result<(), WriteError> {
    let file = File { path: path.to_owned(), bytes: bytes.into(), mode };
    let (done, result) = mpsc::sync_channel(1);
    let _ = writer().orders.send(Order::Keep(file, Some(done)));
    let gone = "the thread that writes the state folder is gone";
    result.recv().unwrap_or_else(|_| Err(io::Error::other(gone).into()))
}

/// Files that cannot be written or are out of date, each with the remedy.
pub fn problems() -> watch::Receiver<Vec<Diagnostic>> {
    writer().problems.clone()
}

/// Waits until all files were written or attempted, but not longer than `patience`.
pub fn flush(patience: Duration) {
    let (done, result) = mpsc::sync_channel(1);
    let _ = writer().orders.send(Order::Flush(done));
    let _ = result.recv_timeout(patience);
}

/// The content that a former run saved; `None` if there is none. If a file could not be replaced,
/// its old content is returned, with a warning.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => return Some(bytes),
        Err(e) if e.kind() != ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), error = %e, "saved state cannot be read, ignoring it");
        }
        Err(_) => {}
    }
    let old = stale(path);
    let bytes = fs::read(&old).ok()?;
    let age = age(&old).unwrap_or_default();
    tracing::warn!(path = %path.display(), age_seconds = age.as_secs(), "saved state is outdated: the previous run could not write it");
    let _ = writer().orders.send(Order::Stale(path.to_owned(), age));
    Some(bytes)
}

/// How long ago the file was written.
pub fn age(path: &Path) -> Option<Duration> {
    fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

/// The name of a file whose content could not be replaced.
pub fn stale(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".stale");
    path.with_file_name(name)
}

fn run(orders: &mpsc::Receiver<Order>, problems: &watch::Sender<Vec<Diagnostic>>) {
    let mut pending = Pending::default();
    loop {
        let order = match pending.due() {
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => orders.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match order {
            Ok(Order::Keep(file, waits)) => {
                if pending.want(&file, waits.is_some()) {
                    let result = attempt(&mut pending, file);
                    if let Some(waits) = waits {
                        let _ = waits.send(result);
                    }
                }
            }
            Ok(Order::Stale(path, age)) => pending.found_stale(path, age),
            Ok(Order::Flush(done)) => {
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {
                for file in pending.retry(Instant::now()) {
                    let _ = attempt(&mut pending, file);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = pending.problems();
        problems.send_if_modified(|old| {
            let differs = *old != now;
            *old = now;
            differs
        });
    }
}

fn attempt(pending: &mut Pending, file: File) -> Result<(), WriteError> {
    let path = file.path.clone();
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = made.and_then(|()| write(&path, &file.bytes, file.mode));
    let result = written.map_err(WriteError::from);
    match &result {
        Ok(()) => drop(fs::remove_file(stale(&path))),
        // Renaming needs no space, so it succeeds on a full disk.
        Err(_) => drop(fs::rename(&path, stale(&path))),
    }
    match pending.tried(Instant::now(), file, result.clone()) {
        Some(News::Failing { path, error }) => {
            tracing::warn!(path = %path.display(), %error, "state cannot be written, trying again; free space, or make state-dir writable");
        }
        Some(News::Recovered { after }) => {
            tracing::info!(after_seconds = after.as_secs(), "all state is written again");
        }
        None => {}
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_replaced_is_marked_and_comes_when_it_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.json");
        keep_now(&path, b"old".to_vec(), 0o600).unwrap();
        // The name of the temporary file is taken, so that no file can be created, even by root.
        let blocked = dir.path().join(".cluster.json.tmp");
        fs::create_dir(&blocked).unwrap();
        fs::write(blocked.join("x"), "").unwrap();
        assert!(keep_now(&path, b"new".to_vec(), 0o600).is_err());
        assert!(!path.exists() && stale(&path).exists());
        assert_eq!(read(&path).unwrap(), b"old");
        let of_this = |p: &Diagnostic| p.contains(&dir.path().display().to_string());
        let mut seen = problems();
        flush(Duration::from_secs(10));
        let now = seen.borrow_and_update().clone();
        assert!(
            now.iter().any(|p| p.reason == crate::net::Reason::StateNotWritable && of_this(p)),
            "{now:?}"
        );
        fs::remove_dir_all(&blocked).unwrap();
        let start = Instant::now();
        while !path.exists() && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(fs::read(&path).unwrap(), b"new");
        flush(Duration::from_secs(10));
        assert!(!stale(&path).exists() && !problems().borrow().iter().any(of_this));
    }
}
