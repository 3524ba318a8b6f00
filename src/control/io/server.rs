//! Server of the control socket, for the daemon.

use std::{
    fs,
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::Semaphore,
    task::spawn_blocking,
    time::timeout,
};

use super::connections::Connections;
use crate::{
    control::{Query, Request, Response},
    supervise::supervise,
};

/// Why the socket cannot be bound, in one line with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another routelet listens on {0}; stop it first, or give this one its own control.socket")]
    Taken(PathBuf),
    #[error("{0} exists and is not a socket; remove it, or set control.socket to another path")]
    NoSocket(PathBuf),
    #[error("control socket {path}: group `{group}` does not exist; create it or change control.group")]
    NoGroup { path: PathBuf, group: String },
    #[error("control socket {path}: {what}: {source}; is its directory writable?")]
    Io { path: PathBuf, what: &'static str, source: io::Error },
}

/// A bound control socket; dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Arc<UnixListener>,
    path: PathBuf,
}

/// Limit of a request, in octets.
const MAX_REQUEST: u64 = 8 * 1024;

/// Limit of concurrent connections. One more closes the oldest that has sent no request.
const MAX_CLIENTS: usize = 128;

/// How long a client may take to send its request. The command line sends it at once; a client that
/// does not keeps others waiting.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a client may take to read 64 KiB before it is disconnected. A user who pages through a
/// long response stops reading now and then.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit of concurrent large responses.
const MAX_LARGE: usize = 4;

/// How long another large response waits for one of them to end.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Response of the daemon to a request.
pub enum Reply {
    Whole(Response),
    Pages {
        /// Whether it may cover the whole table: only a few of these are served concurrently.
        large: bool,
        /// Each page is produced when the one before was read, so that an unread response costs
        /// nothing. The last may be a refusal.
        pages: BoxStream<'static, Response>,
    },
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Whole(response)
    }
}

/// Binds the socket with mode 0660, for `group` if one is given. A file left by a daemon that is
/// gone is replaced.
///
/// # Errors
///
/// If another daemon listens on the path, or the path cannot be used.
pub async fn bind(path: &Path, group: Option<&str>) -> Result<ControlSocket, BindError> {
    let failed = |what| move |source| BindError::Io { path: path.to_owned(), what, source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("creating its directory"))?;
    }
    refuse_if_in_use(path).await?;
    // Bound under another name first, so that no client connects before the mode is set, and an old
    // file is replaced atomically.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(failed("binding"))?;
    let placed = set_access(&fresh, path, group)
        .and_then(|()| fs::rename(&fresh, path).map_err(failed("moving it into place")));
    if let Err(e) = placed {
        let _ = fs::remove_file(&fresh);
        return Err(e);
    }
    Ok(ControlSocket { listener: Arc::new(listener), path: path.to_owned() })
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

/// Gives a bound socket to another group; `None`: to that of the daemon.
///
/// # Errors
///
/// If the group does not exist, or the daemon may not do so while it runs.
pub fn set_group(path: &Path, group: Option<&str>) -> Result<(), BindError> {
    let gid = match group {
        Some(name) => gid(path, name)?,
        None => nix::unistd::getegid().as_raw(),
    };
    chown(path, path, gid)
}

fn gid(path: &Path, name: &str) -> Result<u32, BindError> {
    let missing = || BindError::NoGroup { path: path.to_owned(), group: name.to_owned() };
    Ok(nix::unistd::Group::from_name(name).ok().flatten().ok_or_else(missing)?.gid.as_raw())
}

fn chown(file: &Path, path: &Path, gid: u32) -> Result<(), BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), what: "setting its group", source };
    std::os::unix::fs::chown(file, None, Some(gid)).map_err(failed)
}

fn set_access(file: &Path, path: &Path, group: Option<&str>) -> Result<(), BindError> {
    let failed = |what| move |source| BindError::Io { path: path.to_owned(), what, source };
    if let Some(name) = group {
        chown(file, path, gid(path, name)?)?;
    }
    fs::set_permissions(file, fs::Permissions::from_mode(0o660)).map_err(failed("setting its mode"))
}

impl ControlSocket {
    /// Serves clients until dropped. `handler` is called once per request. A client that
    /// disconnects early costs nothing, one that does not read is disconnected.
    pub async fn serve<H, F>(self, handler: H)
    where
        H: Fn(Query) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let large = Arc::new(Semaphore::new(MAX_LARGE));
        let start = || accept(self.listener.clone(), handler.clone(), large.clone());
        supervise("control socket", start).await;
    }
}

async fn accept<H, F>(listener: Arc<UnixListener>, handler: Arc<H>, large: Arc<Semaphore>)
where
    H: Fn(Query) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let mut connections = Connections::new(MAX_CLIENTS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (handler, large) = (handler.clone(), large.clone());
                let serve = |has_request: Arc<AtomicBool>| async move {
                    if let Err(error) = serve_client(stream, &*handler, &large, &has_request).await {
                        tracing::debug!(%error, "control connection ended early");
                    }
                };
                connections.add(serve).await;
            }
            Err(error) => connections.make_room(&error).await,
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve_client<H, F>(
    stream: UnixStream,
    handler: &H,
    large: &Semaphore,
    has_request: &AtomicBool,
) -> io::Result<()>
where
    H: Fn(Query) -> F,
    F: Future<Output = Reply>,
{
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = BufReader::with_capacity(1024, read.take(MAX_REQUEST));
    timeout(REQUEST_TIMEOUT, read.read_until(b'\n', &mut line)).await??;
    has_request.store(true, Ordering::Relaxed);
    let reply = match Request::read(&line) {
        Ok(query) => handler(query).await,
        Err(refused) => refused.into(),
    };
    match reply {
        Reply::Whole(response) => {
            // Encoding a long list takes time, during which other tasks continue.
            let text = spawn_blocking(move || serde_json::to_vec(&response)).await??;
            send(&mut write, text).await?;
        }
        Reply::Pages { large: is_large, pages } => {
            let place = match is_large {
                true => timeout(QUEUE_TIMEOUT, large.acquire()).await.map(Some),
                false => Ok(None),
            };
            match place {
                Ok(_place) => send_pages(&mut write, pages).await?,
                Err(_) => {
                    let busy = Response::Refused(format!(
                        "{MAX_LARGE} other long responses are being sent, which is the limit; try again in a moment, or request \
                         less (a prefix)"
                    ));
                    send(&mut write, serde_json::to_vec(&busy)?).await?;
                }
            }
        }
    }
    write.shutdown().await
}

/// Sends all pages, and the end marker after the last.
async fn send_pages(write: &mut OwnedWriteHalf, mut pages: BoxStream<'static, Response>) -> io::Result<()> {
    while let Some(page) = pages.next().await {
        let last = matches!(page, Response::Refused(_));
        send(write, serde_json::to_vec(&page)?).await?;
        if last {
            return Ok(());
        }
    }
    send(write, serde_json::to_vec(&Response::End)?).await
}

async fn send(write: &mut OwnedWriteHalf, mut line: Vec<u8>) -> io::Result<()> {
    line.push(b'\n');
    for part in line.chunks(1 << 16) {
        timeout(WRITE_TIMEOUT, write.write_all(part)).await??;
    }
    Ok(())
}
