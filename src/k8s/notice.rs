//! What the operator should know, as Events of the cluster: which of them are due, and when they are said again.
//!
//! The log and `show` have everything at once. An Event costs every API server and everybody who reads them, so only what has
//! stood for a while becomes one, each once an hour at most, and a few in a row at most.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// One thing that needs somebody, in plain words with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    pub about: About,
    /// One word for machines, as `MissingSecret`.
    pub reason: &'static str,
    pub text: String,
}

/// Which object an Event is shown at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Our own Node.
    Node,
    /// The same on all nodes, and said by the first of them alone, in its namespace.
    Service { namespace: String, name: String, uid: String },
    /// One of our own kinds, or a Node, cluster-wide: the same on all nodes, so it is said by the first of them alone.
    Object { kind: &'static str, name: String, uid: String },
}

impl Notice {
    /// Where the Event is: beside the object; for one that is in no namespace, in `default`.
    pub fn namespace(&self) -> &str {
        match &self.about {
            About::Node | About::Object { .. } => "default",
            About::Service { namespace, .. } => namespace,
        }
    }

    /// Of the Event: the same for the same words about the same thing, so that a restart says nothing twice, and nodes that
    /// find the same fault in one object say it once.
    pub fn event_name(&self, node: &str) -> String {
        let about = match &self.about {
            About::Node => node,
            About::Object { name, .. } | About::Service { name, .. } => name,
        };
        let words = self.reason.bytes().chain(self.text.bytes());
        let hash =
            words.fold(0xcbf2_9ce4_8422_2325_u64, |h, o| (h ^ u64::from(o)).wrapping_mul(0x0100_0000_01b3));
        // An object's name has 253 characters at most.
        let about: String = about.chars().take(230).collect();
        format!("{about}.{hash:016x}")
    }
}

/// What passes by sooner is no Event.
const STANDS: Duration = Duration::from_secs(10);
/// The API server forgets Events after an hour (`--event-ttl`): what still stands then is said again.
const AGAIN: Duration = Duration::from_secs(3600);
/// So many at once, and then one in each [`PAUSE`].
const BURST: u32 = 10;
const PAUSE: Duration = Duration::from_secs(30);

/// Remembers what was said.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    known: BTreeMap<Notice, Known>,
    /// When what was said last will have been paid for, by one [`PAUSE`] each.
    paid: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// `None`: it has passed.
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Notices {
    /// These stand now: what to say.
    pub fn due(&mut self, now: Instant, standing: &BTreeSet<Notice>) -> Vec<Notice> {
        for notice in standing {
            let known = self.known.entry(notice.clone()).or_insert(Known { since: None, said: None });
            known.since.get_or_insert(now);
        }
        let fresh = |said: Option<Instant>| said.is_some_and(|at| now < at + AGAIN);
        self.known.retain(|notice, known| {
            if !standing.contains(notice) {
                known.since = None;
            }
            known.since.is_some() || fresh(known.said)
        });
        let room = self.room(now);
        let due = self
            .known
            .iter()
            .filter(|(_, k)| k.since.is_some_and(|since| now >= since + STANDS) && !fresh(k.said));
        due.map(|(notice, _)| notice.clone()).take(room).collect()
    }

    /// It was said.
    pub fn said(&mut self, now: Instant, notice: &Notice) {
        if let Some(known) = self.known.get_mut(notice) {
            known.said = Some(now);
        }
        self.paid = Some(self.paid.unwrap_or(now).max(now) + PAUSE);
    }

    fn room(&self, now: Instant) -> usize {
        let debt = self.paid.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now));
        let used = debt.as_secs().div_ceil(PAUSE.as_secs());
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

    fn say(notices: &mut Notices, now: Instant, standing: &BTreeSet<Notice>) -> usize {
        let due = notices.due(now, standing);
        due.iter().for_each(|n| notices.said(now, n));
        due.len()
    }

    #[test]
    fn what_stands_is_said_once_an_hour_and_what_passes_is_not() {
        let (mut notices, t) = (Notices::default(), Instant::now());
        let standing: BTreeSet<_> = [notice("a")].into();
        assert_eq!(say(&mut notices, t, &standing), 0);
        assert_eq!(say(&mut notices, t + STANDS, &standing), 1);
        assert_eq!(say(&mut notices, t + STANDS * 2, &standing), 0);
        assert_eq!(say(&mut notices, t + STANDS * 3, &BTreeSet::new()), 0);
        assert_eq!(say(&mut notices, t + STANDS * 4, &standing), 0, "back: known already");
        assert_eq!(say(&mut notices, t + STANDS * 5, &standing), 0);
        assert_eq!(say(&mut notices, t + STANDS + AGAIN, &standing), 1);

        let short: BTreeSet<_> = [notice("b")].into();
        assert_eq!(say(&mut notices, t, &short), 0);
        say(&mut notices, t + STANDS / 2, &BTreeSet::new());
        assert_eq!(say(&mut notices, t + STANDS, &short), 0, "it must stand without a break");
    }

    #[test]
    fn a_flood_is_said_slowly_and_whole() {
        let (mut notices, t) = (Notices::default(), Instant::now());
        let standing: BTreeSet<_> = (0..30).map(|n| notice(&format!("{n}"))).collect();
        say(&mut notices, t, &standing);
        assert_eq!(say(&mut notices, t + STANDS, &standing), BURST as usize);
        let mut all = BURST as usize;
        for n in 1..=20 {
            let more = say(&mut notices, t + STANDS + PAUSE * n, &standing);
            assert!(more <= 1);
            all += more;
        }
        assert_eq!(all, 30);
        assert_eq!(notices.known.len(), 30);
        say(&mut notices, t + AGAIN * 2, &BTreeSet::new());
        assert!(notices.known.is_empty(), "nothing piles up");
    }

    #[test]
    fn the_name_tells_words_and_objects_apart() {
        let object = |name: &str| Notice {
            about: About::Object { kind: "BGPPeer", name: name.into(), uid: "u".into() },
            ..notice("a")
        };
        assert_eq!(notice("a").event_name("n1"), notice("a").event_name("n1"));
        assert_ne!(notice("a").event_name("n1"), notice("b").event_name("n1"));
        assert_ne!(notice("a").event_name("n1"), notice("a").event_name("n2"));
        assert_eq!(object("tor").event_name("n1"), object("tor").event_name("n2"), "said once for all nodes");
        assert!(object(&"x".repeat(253)).event_name("n1").len() <= 253);
    }
}
