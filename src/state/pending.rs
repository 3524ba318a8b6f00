//! Files of the state folder that could not be written, and when to try again.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::net::{Diagnostic, Reason, Subject};

/// A file, and the content that it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: PathBuf,
    pub bytes: Arc<[u8]>,
    pub mode: u32,
}

/// Why the system did not write a file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct WriteError(Arc<io::Error>);

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl PartialEq for WriteError {
    /// Compares the kind only: the texts are the system's.
    fn eq(&self, other: &Self) -> bool {
        self.0.kind() == other.0.kind()
    }
}

impl Eq for WriteError {}

/// A change to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Failing { path: PathBuf, error: WriteError },
    Recovered { after: Duration },
}

/// The first pause after a failure; each further one is twice as long, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Files that could not be written, and those that a former run could not write.
#[derive(Debug, Default)]
pub struct Pending {
    files: BTreeMap<PathBuf, (File, WriteError)>,
    /// Files that a former run could not write, until they are written again.
    stale: BTreeMap<PathBuf, Duration>,
    failing: Option<Failing>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    pause: Duration,
    due: Instant,
}

impl Pending {
    /// A former run could not replace this file, whose age is given.
    pub fn found_stale(&mut self, path: PathBuf, age: Duration) {
        self.stale.insert(path, age);
    }

    /// Whether to write `file` now. While other files fail it is retried together with them, unless
    /// a caller waits for the result.
    pub fn want(&mut self, file: &File, is_urgent: bool) -> bool {
        if self.failing.is_none() || is_urgent {
            return true;
        }
        let why = self.files.get(&file.path).or_else(|| self.files.values().next());
        let Some((_, error)) = why else { return true };
        let error = error.clone();
        self.files.insert(file.path.clone(), (file.clone(), error));
        false
    }

    /// When to call [`Self::retry`].
    pub fn due(&self) -> Option<Instant> {
        self.failing.map(|f| f.due)
    }

    /// The files to write again, if it is time.
    pub fn retry(&mut self, now: Instant) -> Vec<File> {
        let Some(failing) = self.failing.as_mut().filter(|f| now >= f.due) else { return Vec::new() };
        failing.pause = (failing.pause * 2).min(LONGEST);
        failing.due = now + failing.pause;
        self.files.values().map(|(file, _)| file.clone()).collect()
    }

    /// Records the result of writing `file`.
    pub fn tried(&mut self, now: Instant, file: File, result: Result<(), WriteError>) -> Option<News> {
        let path = file.path.clone();
        match result {
            Ok(()) => {
                self.files.remove(&path);
                self.stale.remove(&path);
                let over = self.failing.filter(|_| self.files.is_empty())?;
                self.failing = None;
                Some(News::Recovered { after: now.duration_since(over.since) })
            }
            Err(error) => {
                self.files.insert(path.clone(), (file, error.clone()));
                let news = self.failing.is_none().then_some(News::Failing { path, error });
                self.failing.get_or_insert(Failing { since: now, pause: FIRST, due: now + FIRST });
                news
            }
        }
    }

    /// Problems for the operator, each with the remedy.
    pub fn problems(&self) -> Vec<Diagnostic> {
        let failing = self.files.values().next().map(|(file, error)| {
            let more = match self.files.len() - 1 {
                0 => String::new(),
                n => format!(" (and {n} more)"),
            };
            Diagnostic::new(
                Reason::StateNotWritable,
                Subject::file(file.path.display()),
                format!(
                    "{}{more} cannot be written: {error}; a restart would know only what was there before",
                    file.path.display()
                ),
                "free space, or make state-dir writable; it is tried again by itself",
            )
        });
        let stale = self.stale.iter().map(|(path, age)| {
            Diagnostic::new(
                Reason::StateOutOfDate,
                Subject::file(path.display()),
                format!(
                    "{} was last written {} ago, and the former run could not write it after that",
                    path.display(),
                    words(*age)
                ),
                "what is in it counts until it is written again; see that state-dir is writable",
            )
        });
        failing.into_iter().chain(stale).collect()
    }
}

fn words(age: Duration) -> String {
    match age.as_secs() {
        n if n < 120 => format!("{n} s"),
        n if n < 7200 => format!("{} min", n / 60),
        n if n < 172_800 => format!("{} h", n / 3600),
        n => format!("{} d", n / 86_400),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    fn file(name: &str, content: &str) -> File {
        File { path: name.into(), bytes: content.as_bytes().into(), mode: 0o600 }
    }

    fn full() -> Result<(), WriteError> {
        Err(io::Error::from(io::ErrorKind::StorageFull).into())
    }

    #[test]
    fn what_fails_is_tried_again_with_its_latest_content_until_it_is_there() {
        let mut pending = Pending::default();
        let mut now = Instant::now();
        let start = now;
        assert!(pending.want(&file("a", "1"), false));
        let news = pending.tried(now, file("a", "1"), full());
        assert!(matches!(news, Some(News::Failing { .. })), "{news:?}");
        // Changes in between are not attempts of their own.
        for n in 0..1000 {
            assert!(!pending.want(&file("a", &format!("x{n}")), false));
            assert!(!pending.want(&file("b", "2"), false));
        }
        let mut tries = 0;
        while now < start + Duration::from_secs(600) {
            now = pending.due().expect("a next attempt");
            for file in pending.retry(now) {
                tries += 1;
                assert_eq!(pending.tried(now, file, full()), None, "one log line");
            }
        }
        assert!(tries < 40, "{tries} attempts in ten minutes");
        assert!(pending.problems()[0].contains("a (and 1 more) cannot be written: no storage space"));

        now = pending.due().unwrap();
        let files = pending.retry(now);
        assert_eq!(files, [file("a", "x999"), file("b", "2")]);
        assert_eq!(pending.tried(now, files[0].clone(), Ok(())), None);
        let news = pending.tried(now, files[1].clone(), Ok(()));
        assert_eq!(news, Some(News::Recovered { after: now - start }));
        assert_eq!((pending.due(), pending.problems()), (None, Vec::new()));
        assert!(pending.want(&file("a", "3"), false), "at once again");
    }

    #[test]
    fn who_waits_for_the_result_gets_it_at_once() {
        let mut pending = Pending::default();
        let now = Instant::now();
        let _ = pending.tried(now, file("a", "1"), full());
        assert!(pending.want(&file("b", "2"), true));
        assert_eq!(pending.tried(now, file("b", "2"), Ok(())), None, "a still fails");
        assert!(pending.due().is_some());
        assert!(pending.tried(now, file("a", "1"), Ok(())).is_some());
        assert_eq!(pending.due(), None);
    }

    #[test]
    fn what_a_former_run_could_not_write_is_a_problem_until_it_is_written() {
        let mut pending = Pending::default();
        pending.found_stale("cluster.json".into(), Duration::from_secs(7300));
        assert!(pending.problems()[0].contains("cluster.json was last written 2 h ago"));
        assert_eq!(pending.tried(Instant::now(), file("cluster.json", "1"), Ok(())), None);
        assert_eq!(pending.problems(), []);
    }
}
