//! Which problems are logged, and when: each when it appears, not each time the plan is made again.
//!
//! The text of a problem of an object can be a tenant's, who may change it ten times a second. Such a
//! problem is logged once per object and minute, whatever its text.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Between two log lines of one object.
const OBJECT_INTERVAL: Duration = Duration::from_secs(60);

/// What is remembered of the problems logged so far.
#[derive(Debug, Default)]
pub(super) struct ProblemLog {
    standing: BTreeSet<String>,
    /// Object → when it was last logged.
    objects: BTreeMap<String, Instant>,
}

impl ProblemLog {
    /// The texts to log now, of all problems that stand.
    pub(super) fn handle<'a>(&mut self, problems: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
        let problems: Vec<_> = problems.collect();
        let new = problems.iter().filter(|p| !self.standing.contains(**p)).map(|p| p.as_str()).collect();
        self.standing = problems.into_iter().cloned().collect();
        new
    }

    /// The same for problems of objects: the object's name, and the text.
    pub(super) fn handle_objects<'a>(
        &mut self,
        now: Instant,
        problems: impl Iterator<Item = (String, &'a str)>,
    ) -> Vec<&'a str> {
        self.objects.retain(|_, logged| now.duration_since(*logged) < OBJECT_INTERVAL);
        let (objects, standing) = (&mut self.objects, &self.standing);
        let mut still = BTreeSet::new();
        let mut new = Vec::new();
        for (object, text) in problems {
            let is_new = !standing.contains(&object) && !objects.contains_key(&object);
            if is_new && still.insert(object.clone()) {
                objects.insert(object, now);
                new.push(text);
            } else {
                still.insert(object);
            }
        }
        self.standing = still;
        new
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_logged_when_it_appears_and_when_it_is_back() {
        let mut log = ProblemLog::default();
        let (a, b) = ("a".to_owned(), "b".to_owned());
        assert_eq!(log.handle([&a].into_iter()), ["a"]);
        assert_eq!(log.handle([&a, &b].into_iter()), ["b"]);
        assert!(log.handle([&b].into_iter()).is_empty());
        assert_eq!(log.handle([&a, &b].into_iter()), ["a"]);
    }

    #[test]
    fn an_object_is_logged_once_a_minute_whatever_its_text() {
        let mut log = ProblemLog::default();
        let start = Instant::now();
        let mut lines = 0;
        // Ten changes a second for three minutes; every other time the object is in order.
        for n in 0..1800_u32 {
            let now = start + Duration::from_millis(100) * n;
            let text = format!("text {n}");
            let standing = (n % 2 == 0).then(|| ("Service a/b".to_owned(), text.as_str()));
            lines += log.handle_objects(now, standing.into_iter()).len();
        }
        assert_eq!(lines, 3);
        let stays = || [("Service c/d".to_owned(), "x")].into_iter();
        assert_eq!(log.handle_objects(start + Duration::from_secs(600), stays()).len(), 1);
        assert_eq!(log.handle_objects(start + Duration::from_secs(900), stays()).len(), 0, "it still stands");
    }
}
