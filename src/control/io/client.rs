//! The command line's end of the control socket. Blocking: it asks one question and ends.

use std::{
    io::{self, BufRead, BufReader, Write},
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
    #[error(
        "{path}: the answer is not complete, the daemon closed the connection{}; see its log, and read long answers \
         without a pause (it waits for half a minute)", why(.source)
    )]
    Incomplete { path: PathBuf, source: Option<io::Error> },
    #[error("{path}: the answer is not understood ({source}); use the same routelet for daemon and command")]
    Unknown { path: PathBuf, source: serde_json::Error },
}

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn why(source: &Option<io::Error>) -> String {
    source.as_ref().map(|e| format!(" ({e})")).unwrap_or_default()
}

/// Asks one question that has one answer.
///
/// # Errors
///
/// When no daemon can be reached, or its answer makes no sense.
pub fn ask(path: &Path, query: Query) -> Result<Answer, AskError> {
    let mut answers = open(path, query)?;
    answers.read()?.ok_or_else(|| AskError::Silent(path.to_owned()))
}

/// Asks a question whose answer may come in pages.
///
/// # Errors
///
/// When no daemon can be reached.
pub fn open(path: &Path, query: Query) -> Result<Answers, AskError> {
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
    Ok(Answers { path: path.to_owned(), stream: BufReader::with_capacity(1 << 16, stream), line: Vec::new() })
}

/// What comes back.
#[derive(Debug)]
pub struct Answers {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Answers {
    /// The next answer; `None` when the daemon has closed the connection behind one.
    ///
    /// # Errors
    ///
    /// When it stops in the middle, or makes no sense.
    pub fn read(&mut self) -> Result<Option<Answer>, AskError> {
        let incomplete = |source| AskError::Incomplete { path: self.path.clone(), source };
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line).map_err(|e| incomplete(Some(e)))?;
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => serde_json::from_slice(&self.line)
                .map(Some)
                .map_err(|source| AskError::Unknown { path: self.path.clone(), source }),
            Some(_) => Err(incomplete(None)),
        }
    }
}
