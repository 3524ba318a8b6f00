//! The daemon's end of the control socket.

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
    task::{spawn_blocking, yield_now},
    time::timeout,
};

use super::connections::Connections;
use crate::{
    control::{Answer, Query, Request},
    supervise::supervise,
};

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
    listener: Arc<UnixListener>,
    path: PathBuf,
}

/// Longest question, in octets.
const MAX_REQUEST: u64 = 8 * 1024;

/// Connections at the same time. One more closes the oldest that has sent no request.
const MAX_CLIENTS: usize = 128;

/// How long a client may take to ask: ours asks at once, and one that does not keeps others waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a client may take to read 64 KiB; one that takes longer is dropped. Who pages through a long answer stops
/// reading now and then.
const STALL: Duration = Duration::from_secs(30);

/// Large answers at the same time.
const LARGE: usize = 4;

/// How long one more waits until one of them is over.
const QUEUE: Duration = Duration::from_secs(5);

/// What a question gets.
pub enum Reply {
    Whole(Answer),
    Pages {
        /// Whether it may be about the whole table: of these only a few are given at a time.
        large: bool,
        /// Each is asked for when the one before was read: one that nobody reads costs nothing. The last may be a
        /// refusal.
        pages: BoxStream<'static, Answer>,
    },
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Whole(answer)
    }
}

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
        F: Future<Output = Reply> + Send + 'static,
    {
        let answer = Arc::new(answer);
        let large = Arc::new(Semaphore::new(LARGE));
        let start = || accept(self.listener.clone(), answer.clone(), large.clone());
        supervise("control socket", start).await;
    }
}

async fn accept<H, F>(listener: Arc<UnixListener>, answer: Arc<H>, large: Arc<Semaphore>)
where
    H: Fn(Query) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let mut connections = Connections::new(MAX_CLIENTS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (answer, large) = (answer.clone(), large.clone());
                connections.add(|has_asked| async move {
                    if let Err(error) = converse(stream, &*answer, &large, &has_asked).await {
                        tracing::debug!(%error, "control connection ended early");
                    }
                });
                // Its request is read before the next connection can take its place.
                yield_now().await;
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

async fn converse<H, F>(
    stream: UnixStream,
    answer: &H,
    large: &Semaphore,
    has_asked: &AtomicBool,
) -> io::Result<()>
where
    H: Fn(Query) -> F,
    F: Future<Output = Reply>,
{
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = BufReader::with_capacity(1024, read.take(MAX_REQUEST));
    timeout(PATIENCE, read.read_until(b'\n', &mut line)).await??;
    has_asked.store(true, Ordering::Relaxed);
    let reply = match Request::read(&line) {
        Ok(query) => answer(query).await,
        Err(refused) => refused.into(),
    };
    match reply {
        Reply::Whole(answer) => {
            // A long list takes its time: others go on meanwhile.
            let text = spawn_blocking(move || serde_json::to_vec(&answer)).await??;
            send(&mut write, text).await?;
        }
        Reply::Pages { large: is_large, pages } => {
            let place = match is_large {
                true => timeout(QUEUE, large.acquire()).await.map(Some),
                false => Ok(None),
            };
            match place {
                Ok(_place) => give(&mut write, pages).await?,
                Err(_) => {
                    let busy = Answer::Refused(format!(
                        "{LARGE} other long answers are being given, and no more at a time; try again in a moment, or ask \
                         for less (a prefix)"
                    ));
                    send(&mut write, serde_json::to_vec(&busy)?).await?;
                }
            }
        }
    }
    write.shutdown().await
}

/// Gives one page after the other, and says that they were all.
async fn give(write: &mut OwnedWriteHalf, mut pages: BoxStream<'static, Answer>) -> io::Result<()> {
    while let Some(page) = pages.next().await {
        let last = matches!(page, Answer::Refused(_));
        send(write, serde_json::to_vec(&page)?).await?;
        if last {
            return Ok(());
        }
    }
    send(write, serde_json::to_vec(&Answer::End)?).await
}

async fn send(write: &mut OwnedWriteHalf, mut line: Vec<u8>) -> io::Result<()> {
    line.push(b'\n');
    for part in line.chunks(1 << 16) {
        timeout(STALL, write.write_all(part)).await??;
    }
    Ok(())
}
