//! Decides which problems become Events of the cluster, and when they are repeated.
//!
//! The log and `show` have everything immediately. Events cost resources of the API server and
//! attention of their readers, so only problems that persist for a while become Events, each at
//! most once an hour, and in limited bursts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::net::{Diagnostic, Reason, Subject};

/// What an Event is about: the same reason for the same subject is one Event, whatever the text.
pub type Key = (Reason, Subject);

pub fn key(problem: &Diagnostic) -> Key {
    (problem.reason, problem.subject.clone())
}

/// Namespace of the Event: that of the object, or `default` if the object has none.
pub fn namespace(problem: &Diagnostic) -> &str {
    problem.subject.namespace.as_deref().unwrap_or("default")
}

/// Name of the Event. The same problem has the same name, so a restart creates no Event again, and
/// nodes that find the same fault in one object create one Event.
pub fn event_name(problem: &Diagnostic, node: &str) -> String {
    let about = if problem.subject.is_object() { &problem.subject.name } else { node };
    let key = format!("{} {}", problem.reason, problem.subject);
    let hash =
        key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, o| (h ^ u64::from(o)).wrapping_mul(0x0100_0000_01b3));
    // An object's name has 253 characters at most.
    let about: String = about.chars().take(230).collect();
    format!("{about}.{hash:016x}")
}

/// How long a problem must persist before it becomes an Event.
const MIN_DURATION: Duration = Duration::from_secs(10);
/// Events are repeated after this time, when the API server has deleted them (`--event-ttl`).
const REPEAT_INTERVAL: Duration = Duration::from_secs(3600);
/// Maximum Events at once; afterwards one in each [`BURST_INTERVAL`].
const BURST: u32 = 10;
const BURST_INTERVAL: Duration = Duration::from_secs(30);

/// Tracks which notices were recorded as Events.
#[derive(Clone, Debug, Default)]
pub struct EventRecorder {
    known: BTreeMap<Key, Known>,
    /// When the burst is available again in full: each Event adds one [`BURST_INTERVAL`].
    full_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Known {
    /// With its latest text.
    problem: Diagnostic,
    /// Since when it is present; `None` if it no longer is.
    since: Option<Instant>,
    recorded: Option<Instant>,
}

impl EventRecorder {
    /// The Events that are due for the present problems.
    pub fn due(&mut self, now: Instant, standing: &BTreeSet<Diagnostic>) -> Vec<Diagnostic> {
        let keys: BTreeSet<Key> = standing.iter().map(key).collect();
        for problem in standing {
            let new = || Known { problem: problem.clone(), since: None, recorded: None };
            let known = self.known.entry(key(problem)).or_insert_with(new);
            known.problem.clone_from(problem);
            known.since.get_or_insert(now);
        }
        let fresh = |recorded: Option<Instant>| recorded.is_some_and(|at| now < at + REPEAT_INTERVAL);
        self.known.retain(|key, known| {
            if !keys.contains(key) {
                known.since = None;
            }
            known.since.is_some() || fresh(known.recorded)
        });
        let room = self.room(now);
        let due = self
            .known
            .values()
            .filter(|k| k.since.is_some_and(|since| now >= since + MIN_DURATION) && !fresh(k.recorded));
        due.map(|known| known.problem.clone()).take(room).collect()
    }

    /// Notes that an Event was created.
    pub fn recorded(&mut self, now: Instant, problem: &Diagnostic) {
        if let Some(known) = self.known.get_mut(&key(problem)) {
            known.recorded = Some(now);
        }
        self.full_at = Some(self.full_at.unwrap_or(now).max(now) + BURST_INTERVAL);
    }

    fn room(&self, now: Instant) -> usize {
        let debt = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let used = debt.as_secs().div_ceil(BURST_INTERVAL.as_secs());
        u64::from(BURST).saturating_sub(used) as usize
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;
    use crate::net::SubjectKind;

    fn notice(text: &str) -> Diagnostic {
        Diagnostic::new(Reason::InterfaceMissing, Subject::interface(text), text, "")
    }

    fn record(recorder: &mut EventRecorder, now: Instant, standing: &BTreeSet<Diagnostic>) -> usize {
        let due = recorder.due(now, standing);
        due.iter().for_each(|n| recorder.recorded(now, n));
        due.len()
    }

    #[test]
    fn a_persistent_notice_is_recorded_once_an_hour_and_a_short_one_is_not() {
        let (mut recorder, t) = (EventRecorder::default(), Instant::now());
        let standing: BTreeSet<_> = [notice("a")].into();
        assert_eq!(record(&mut recorder, t, &standing), 0);
        assert_eq!(record(&mut recorder, t + MIN_DURATION, &standing), 1);
        assert_eq!(record(&mut recorder, t + MIN_DURATION * 2, &standing), 0);
        assert_eq!(record(&mut recorder, t + MIN_DURATION * 3, &BTreeSet::new()), 0);
        assert_eq!(record(&mut recorder, t + MIN_DURATION * 4, &standing), 0, "recorded before");
        assert_eq!(record(&mut recorder, t + MIN_DURATION * 5, &standing), 0);
        assert_eq!(record(&mut recorder, t + MIN_DURATION + REPEAT_INTERVAL, &standing), 1);

        let short: BTreeSet<_> = [notice("b")].into();
        assert_eq!(record(&mut recorder, t, &short), 0);
        record(&mut recorder, t + MIN_DURATION / 2, &BTreeSet::new());
        assert_eq!(
            record(&mut recorder, t + MIN_DURATION, &short),
            0,
            "it must persist without interruption"
        );
    }

    #[test]
    fn a_flood_is_recorded_slowly_and_completely() {
        let (mut recorder, t) = (EventRecorder::default(), Instant::now());
        let standing: BTreeSet<_> = (0..30).map(|n| notice(&format!("{n}"))).collect();
        record(&mut recorder, t, &standing);
        assert_eq!(record(&mut recorder, t + MIN_DURATION, &standing), BURST as usize);
        let mut all = BURST as usize;
        for n in 1..=20 {
            let more = record(&mut recorder, t + MIN_DURATION + BURST_INTERVAL * n, &standing);
            assert!(more <= 1);
            all += more;
        }
        assert_eq!(all, 30);
        assert_eq!(recorder.known.len(), 30);
        record(&mut recorder, t + REPEAT_INTERVAL * 2, &BTreeSet::new());
        assert!(recorder.known.is_empty(), "nothing accumulates");
    }

    #[test]
    fn the_name_is_that_of_the_subject_whatever_the_text() {
        let of = |subject: Subject, text: &str| Diagnostic::new(Reason::Invalid, subject, text, "");
        let object = |name: &str| of(Subject::object(SubjectKind::BgpPeer, None, name, "u"), "a");
        let host = |text: &str| of(Subject::neighbor("10.0.0.1"), text);
        assert_eq!(event_name(&host("a"), "n1"), event_name(&host("b"), "n1"));
        assert_ne!(event_name(&host("a"), "n1"), event_name(&host("a"), "n2"));
        assert_ne!(event_name(&host("a"), "n1"), event_name(&notice("a"), "n1"));
        let (n1, n2) = (event_name(&object("tor"), "n1"), event_name(&object("tor"), "n2"));
        assert_eq!(n1, n2, "one Event of all nodes");
        assert!(event_name(&object(&"x".repeat(253)), "n1").len() <= 253);
    }
}
