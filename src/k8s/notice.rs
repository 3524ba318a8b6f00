//! Decides which problems become Events of the cluster, and when they are repeated.
//!
//! The log and `show` have everything immediately. Events cost resources of the API server and
//! attention of their readers, so only problems that persist for a while become Events, each at
//! most once an hour, and in limited bursts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// A problem for the operator, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    pub about: About,
    /// Machine-readable reason in CamelCase, such as `MissingSecret`.
    pub reason: &'static str,
    pub text: String,
}

/// The object that an Event regards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Our own Node.
    Node,
    /// A Service: the problem is the same on all nodes, and only the first node creates the Event.
    Service { namespace: String, name: String, uid: String },
    /// A cluster-wide object of our own kinds, or a Node: likewise the same on all nodes.
    Object { kind: &'static str, name: String, uid: String },
}

impl Notice {
    /// Namespace of the Event: that of the object, or `default` for a cluster-wide object.
    pub fn namespace(&self) -> &str {
        match &self.about {
            About::Node | About::Object { .. } => "default",
            About::Service { namespace, .. } => namespace,
        }
    }

    /// Name of the Event: the same for the same text about the same object, so that neither a
    /// restart nor several nodes with the same problem create it twice.
    pub fn event_name(&self, node: &str) -> String {
        let about = match &self.about {
            About::Node => node,
            About::Object { name, .. } | About::Service { name, .. } => name,
        };
        let text = self.reason.bytes().chain(self.text.bytes());
        let hash =
            text.fold(0xcbf2_9ce4_8422_2325_u64, |h, o| (h ^ u64::from(o)).wrapping_mul(0x0100_0000_01b3));
        // The name of an object is limited to 253 characters.
        let about: String = about.chars().take(230).collect();
        format!("{about}.{hash:016x}")
    }
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
    known: BTreeMap<Notice, Known>,
    /// When the burst is available again in full: each Event adds one [`BURST_INTERVAL`].
    full_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Since when it is present; `None` if it no longer is.
    since: Option<Instant>,
    recorded: Option<Instant>,
}

impl EventRecorder {
    /// Returns the notices to record as Events now, given those that are present.
    pub fn due(&mut self, now: Instant, standing: &BTreeSet<Notice>) -> Vec<Notice> {
        for notice in standing {
            let known = self.known.entry(notice.clone()).or_insert(Known { since: None, recorded: None });
            known.since.get_or_insert(now);
        }
        let fresh = |recorded: Option<Instant>| recorded.is_some_and(|at| now < at + REPEAT_INTERVAL);
        self.known.retain(|notice, known| {
            if !standing.contains(notice) {
                known.since = None;
            }
            known.since.is_some() || fresh(known.recorded)
        });
        let room = self.room(now);
        let due = self
            .known
            .iter()
            .filter(|(_, k)| k.since.is_some_and(|since| now >= since + MIN_DURATION) && !fresh(k.recorded));
        due.map(|(notice, _)| notice.clone()).take(room).collect()
    }

    /// Notes that an Event was created.
    pub fn recorded(&mut self, now: Instant, notice: &Notice) {
        if let Some(known) = self.known.get_mut(notice) {
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

    fn notice(text: &str) -> Notice {
        Notice { about: About::Node, reason: "NeedsAttention", text: text.into() }
    }

    fn record(recorder: &mut EventRecorder, now: Instant, standing: &BTreeSet<Notice>) -> usize {
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
    fn the_name_distinguishes_texts_and_objects() {
        let object = |name: &str| Notice {
            about: About::Object { kind: "BGPPeer", name: name.into(), uid: "u".into() },
            ..notice("a")
        };
        assert_eq!(notice("a").event_name("n1"), notice("a").event_name("n1"));
        assert_ne!(notice("a").event_name("n1"), notice("b").event_name("n1"));
        assert_ne!(notice("a").event_name("n1"), notice("a").event_name("n2"));
        assert_eq!(object("tor").event_name("n1"), object("tor").event_name("n2"), "one Event for all nodes");
        assert!(object(&"x".repeat(253)).event_name("n1").len() <= 253);
    }
}
