//! The command line's end of the control socket. Blocking: it asks one question and ends.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::control::{Answer, Query, Request, VERSION};

/// Why there is no answer: one line with its remedy. Exit status 3.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no daemon answers on {0}: no such socket; start it with `routelet run`, or give --socket PATH")]
    Absent(PathBuf),
    #[error("no daemon answers on {0}: nobody listens; start it with `routelet run`")]
    Refused(PathBuf),
    #[error("{0}: permission denied; run as root, or as a member of the group in control.group")]
    Denied(PathBuf),
    #[error("{path}: {source}; is the daemon well? See its log")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}: the daemon closed the connection without an answer; see its log")]
    Silent(PathBuf),
    #[error("{path}: the answer is not understood ({source}); use the same routelet for daemon and command")]
    Unknown { path: PathBuf, source: serde_json::Error },
}

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks one question.
///
/// # Errors
///
/// When no daemon can be reached, or its answer makes no sense.
pub fn ask(path: &Path, query: Query) -> Result<Answer, AskError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => AskError::Absent(path.to_owned()),
        io::ErrorKind::ConnectionRefused => AskError::Refused(path.to_owned()),
        io::ErrorKind::PermissionDenied => AskError::Denied(path.to_owned()),
        _ => AskError::Io { path: path.to_owned(), source },
    };
    let unknown = |source| AskError::Unknown { path: path.to_owned(), source };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_vec(&Request { version: VERSION, query }).map_err(unknown)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    if answer.is_empty() {
        return Err(AskError::Silent(path.to_owned()));
    }
    serde_json::from_slice(&answer).map_err(unknown)
}
