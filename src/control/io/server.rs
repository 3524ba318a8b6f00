//! The daemon's end of the control socket.

use std::{
    fs,
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::control::{Answer, Query, Request, VERSION};

/// Why the socket cannot be had: one line with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another routelet listens on {0}; stop it first, or give this one its own control.socket")]
    Taken(PathBuf),
    #[error("{0} exists and is no socket; remove it, or set control.socket to another path")]
    NoSocket(PathBuf),
    #[error("control socket {path}: group `{group}` does not exist; create it or change control.group")]
    NoGroup { path: PathBuf, group: String },
    #[error("control socket {path}: {what}: {source}; is its folder writable?")]
    Io { path: PathBuf, what: &'static str, source: io::Error },
}

/// A bound control socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Longest question, in octets.
const MAX_REQUEST: u64 = 64 * 1024;

/// Questions answered at the same time; more wait.
const MAX_CLIENTS: usize = 16;

/// How long a client may take to ask, and how long it may stop reading.
const PATIENCE: Duration = Duration::from_secs(10);

/// Binds the socket with mode 0660, for `group` where one is given. A file left by a daemon that is gone is
/// replaced.
///
/// # Errors
///
/// When another daemon listens there, or the path cannot be used.
pub async fn bind(path: &Path, group: Option<&str>) -> Result<ControlSocket, BindError> {
    let failed = |what| move |source| BindError::Io { path: path.to_owned(), what, source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("creating its folder"))?;
    }
    refuse_if_in_use(path).await?;
    // Bound under another name first, so that nobody connects before the mode is right, and an old file is
    // replaced in one step.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(failed("binding"))?;
    let placed = set_access(&fresh, path, group)
        .and_then(|()| fs::rename(&fresh, path).map_err(failed("moving it into place")));
    if let Err(e) = placed {
        let _ = fs::remove_file(&fresh);
        return Err(e);
    }
    Ok(ControlSocket { listener, path: path.to_owned() })
}

async fn refuse_if_in_use(path: &Path) -> Result<(), BindError> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(BindError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(BindError::Taken(path.to_owned())),
        Err(_) => Ok(()),
    }
}

fn set_access(file: &Path, path: &Path, group: Option<&str>) -> Result<(), BindError> {
    let failed = |what| move |source| BindError::Io { path: path.to_owned(), what, source };
    if let Some(name) = group {
        let missing = || BindError::NoGroup { path: path.to_owned(), group: name.to_owned() };
        let gid = nix::unistd::Group::from_name(name).ok().flatten().ok_or_else(missing)?.gid;
        std::os::unix::fs::chown(file, None, Some(gid.as_raw())).map_err(failed("setting its group"))?;
    }
    fs::set_permissions(file, fs::Permissions::from_mode(0o660)).map_err(failed("setting its mode"))
}

impl ControlSocket {
    /// Answers until dropped. `answer` is called once per question; a client that hangs up early costs nothing,
    /// one that does not read is dropped.
    pub async fn serve<H, F>(self, answer: H)
    where
        H: Fn(Query) -> F + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let answer = Arc::new(answer);
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answer = answer.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &*answer).await {
                            tracing::debug!(%error, "control connection ended early");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of file descriptors: give others time to close theirs.
                    tracing::warn!(%error, "control socket cannot accept; trying again");
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn converse<H, F>(stream: UnixStream, answer: &H) -> io::Result<()>
where
    H: Fn(Query) -> F,
    F: Future<Output = Answer>,
{
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = BufReader::new(read.take(MAX_REQUEST));
    timeout(PATIENCE, read.read_until(b'\n', &mut line)).await??;
    let answer = match serde_json::from_slice::<Request>(&line) {
        Ok(Request { version: VERSION, query }) => answer(query).await,
        _ => Answer::Refused(not_understood(&line)),
    };
    // A whole table takes its time: others go on meanwhile.
    let mut text = spawn_blocking(move || serde_json::to_vec(&answer)).await??;
    text.push(b'\n');
    for part in text.chunks(1 << 16) {
        timeout(PATIENCE, write.write_all(part)).await??;
    }
    write.shutdown().await
}

/// Why a request makes no sense to us.
fn not_understood(line: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    match serde_json::from_slice::<Versioned>(line) {
        Ok(Versioned { version }) if version != VERSION => format!(
            "the daemon speaks version {VERSION} of the control protocol, this command version {version}; use \
             the same routelet for both"
        ),
        _ => "the daemon does not know this request; use the same routelet for both".into(),
    }
}
