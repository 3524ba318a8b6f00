//! Client of the control socket, for the command line. Blocking: it sends one request and ends.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::control::{Query, Request, Response, VERSION};

/// Why there is no response, in one line with the remedy. Exit status 3.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon at {0}: no such socket; start it with `routelet run`, or give --socket PATH")]
    Absent(PathBuf),
    #[error("no daemon at {0}: nothing listens there; start it with `routelet run`")]
    Refused(PathBuf),
    #[error("{0}: permission denied; run as root, or as a member of the group in control.group")]
    Denied(PathBuf),
    #[error("{path}: {source}; see the log of the daemon")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}: the daemon closed the connection without a response; see its log")]
    Silent(PathBuf),
    #[error(
        "{path}: the response is incomplete, as the daemon closed the connection{}; see its log, and read long responses \
         without a pause (it waits for half a minute)", why(.source)
    )]
    Incomplete { path: PathBuf, source: Option<io::Error> },
    #[error("{path}: the response cannot be parsed ({source}); use the same routelet for daemon and command")]
    Unknown { path: PathBuf, source: serde_json::Error },
}

/// How long the daemon may take to respond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

fn why(source: &Option<io::Error>) -> String {
    source.as_ref().map(|e| format!(" ({e})")).unwrap_or_default()
}

/// Sends a request that has a single response.
///
/// # Errors
///
/// If no daemon can be reached, or its response is malformed.
pub fn request(path: &Path, query: Query) -> Result<Response, ClientError> {
    let mut responses = open(path, query)?;
    responses.read()?.ok_or_else(|| ClientError::Silent(path.to_owned()))
}

/// Sends a request whose response may come in pages.
///
/// # Errors
///
/// If no daemon can be reached.
pub fn open(path: &Path, query: Query) -> Result<Responses, ClientError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ClientError::Absent(path.to_owned()),
        io::ErrorKind::ConnectionRefused => ClientError::Refused(path.to_owned()),
        io::ErrorKind::PermissionDenied => ClientError::Denied(path.to_owned()),
        _ => ClientError::Io { path: path.to_owned(), source },
    };
    let unknown = |source| ClientError::Unknown { path: path.to_owned(), source };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).map_err(failed)?;
    let mut line = serde_json::to_vec(&Request { version: VERSION, query }).map_err(unknown)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    Ok(Responses {
        path: path.to_owned(),
        stream: BufReader::with_capacity(1 << 16, stream),
        line: Vec::new(),
    })
}

/// Reads the responses to a request.
#[derive(Debug)]
pub struct Responses {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Responses {
    /// The next response; `None` once the daemon has closed the connection after a complete one.
    ///
    /// # Errors
    ///
    /// If the response is incomplete or malformed.
    pub fn read(&mut self) -> Result<Option<Response>, ClientError> {
        let incomplete = |source| ClientError::Incomplete { path: self.path.clone(), source };
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line).map_err(|e| incomplete(Some(e)))?;
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => serde_json::from_slice(&self.line)
                .map(Some)
                .map_err(|source| ClientError::Unknown { path: self.path.clone(), source }),
            Some(_) => Err(incomplete(None)),
        }
    }
}
