//! Counters and history of a session, for `show neighbor` and metrics.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Running, Session,
    advice::{self, Cause, Verdict},
    hints,
    negotiate::Endpoints,
};
use crate::{
    bgp::{
        peer::{Negotiated, PeerKey, PeerSource, RemoteAs},
        view::{Closing, DROP_REASONS, History, NeighborView, Queues, SessionState},
        wire::{framing::Kind, notification::Notification, open::Open},
    },
    net::{
        Diagnostic, Reason, RouterId, Subject,
        text::{UNTRUSTED_MAX, cut},
    },
};

/// Octets kept of one reason or NOTIFICATION. A message may contain 65,000.
const MAX_TEXT: usize = 1024;
/// Capabilities of an OPEN that are shown. An OPEN may contain two thousand.
const MAX_CAPABILITIES: usize = 64;
/// Sessions that ended that are shown.
const MAX_CLOSINGS: usize = 5;

/// Counters, and the last errors and NOTIFICATIONs.
#[derive(Debug)]
pub(super) struct Record {
    shown: SessionState,
    since: Instant,
    messages_sent: [u64; 5],
    messages_received: [u64; 5],
    drops: BTreeMap<&'static str, u64>,
    flaws: u64,
    last_error: Option<String>,
    /// `last_error` belongs to a failed attempt. When one succeeds, the reason why the last session
    /// was closed is shown again.
    only_an_attempt: bool,
    last_drop: Option<String>,
    /// What `last_error` is about, where it is known.
    cause: Option<Cause>,
    /// The last error of which the neighbor or this host gave the reason, since the last
    /// session or change of settings.
    verdict: Option<Verdict>,
    notification_sent: Option<String>,
    notification_received: Option<String>,
    capabilities_sent: Vec<String>,
    capabilities_received: Vec<String>,
    ends: Option<Endpoints>,
    remote_id: Option<RouterId>,
    remote_as: Option<u32>,
    open_received_at: Option<Instant>,
    /// When the session was established last, or ended.
    changed: Instant,
    read: Option<Instant>,
    written: Option<Instant>,
    /// Latest first.
    closings: VecDeque<Ended>,
}

/// A session that ended.
#[derive(Debug)]
struct Ended {
    at: Instant,
    reason: &'static str,
    text: String,
}

impl Record {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            shown: SessionState::Idle,
            since: now,
            messages_sent: [0; 5],
            messages_received: [0; 5],
            drops: BTreeMap::new(),
            flaws: 0,
            last_error: None,
            only_an_attempt: false,
            last_drop: None,
            cause: None,
            verdict: None,
            notification_sent: None,
            notification_received: None,
            capabilities_sent: Vec::new(),
            capabilities_received: Vec::new(),
            ends: None,
            remote_id: None,
            remote_as: None,
            open_received_at: None,
            changed: now,
            read: None,
            written: None,
            closings: VecDeque::new(),
        }
    }

    pub(super) fn state(&mut self, now: Instant, state: SessionState) {
        if self.shown != state {
            if (self.shown == SessionState::Established) != (state == SessionState::Established) {
                self.changed = now;
            }
            self.shown = state;
            self.since = now;
        }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn sent(&mut self, now: Instant, kind: Kind, messages: u64) {
        self.written = Some(now);
        self.messages_sent[index(kind)] += messages;
    }

    pub(super) fn received(&mut self, now: Instant, kind: Kind) {
        self.read = Some(now);
        self.messages_received[index(kind)] += 1;
    }

    pub(super) fn open_sent(&mut self, open: &Open, ends: Endpoints) {
        self.capabilities_sent = names(open);
        self.ends = Some(ends);
    }

    pub(super) fn open_received(&mut self, now: Instant, open: &Open) {
        self.open_received_at = Some(now);
        self.capabilities_received = names(open);
        self.remote_id = Some(open.router_id);
        self.remote_as = Some(open.asn());
    }

    pub(super) fn notification_sent(&mut self, n: &Notification) {
        self.notification_sent = Some(short(n.to_string()));
    }

    pub(super) fn notification_received(&mut self, n: &Notification) {
        self.notification_received = Some(short(n.to_string()));
    }

    pub(super) fn flaws(&mut self, n: usize) {
        self.flaws += n as u64;
    }

    /// The cause of the error that is recorded next.
    pub(super) fn caused(&mut self, cause: Option<Cause>) {
        self.cause = cause;
    }

    pub(super) fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// An error with a reason. What follows may be its effect: a neighbor that waits after an error
    /// closes connections without one.
    pub(super) fn judged(&mut self, now: Instant, cause: Cause, why: &str) {
        self.verdict = Some(Verdict { at: now, cause, why: short(why.to_owned()) });
    }

    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The session is up, or begins anew: former errors have no meaning any more.
    pub(super) fn forget_verdict(&mut self) {
        (self.cause, self.verdict) = (None, None);
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Our address of the last connection.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        self.ends.map(|e| e.local.ip())
    }

    /// Records the reason; `true` if it is the same as before.
    pub(super) fn attempt_failed(&mut self, why: &str) -> bool {
        let why = short(why.to_owned());
        let known = self.last_error.as_ref() == Some(&why);
        self.last_error = Some(why);
        self.only_an_attempt = true;
        known
    }

    pub(super) fn is_last_error(&self, why: &str) -> bool {
        self.last_error.as_deref() == Some(why)
    }

    /// Appends a reason to the last error.
    pub(super) fn also(&mut self, why: &str) {
        self.last_error = Some(short(match self.last_error.take() {
            Some(first) => format!("{first}; {why}"),
            None => why.to_owned(),
        }));
    }

    pub(super) fn established(&mut self) {
        self.forget_verdict();
        if self.only_an_attempt {
            self.last_error.clone_from(&self.last_drop);
            self.only_an_attempt = false;
        }
    }

    pub(super) fn dropped(&mut self, now: Instant, reason: &'static str, why: &str) {
        debug_assert!(DROP_REASONS.contains(&reason), "{reason} is not in DROP_REASONS");
        *self.drops.entry(reason).or_default() += 1;
        let why = short(why.to_owned());
        self.closings.truncate(MAX_CLOSINGS - 1);
        self.closings.push_front(Ended { at: now, reason, text: why.clone() });
        self.last_error = Some(why.clone());
        self.last_drop = Some(why);
        self.only_an_attempt = false;
    }

    /// Times are left to the driver: see [`History::date`].
    fn history(&self, now: Instant) -> History {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let closing = |end: &Ended| Closing {
            at: String::new(),
            reason: end.reason.to_owned(),
            text: end.text.clone(),
            ago: ago(end.at),
        };
        History {
            up_down_since: None,
            flaps: self.drops.values().sum(),
            last_read: self.read.map(|at| ago(at).as_secs()),
            last_written: self.written.map(|at| ago(at).as_secs()),
            closings: self.closings.iter().map(closing).collect(),
            up_down_for: ago(self.changed),
        }
    }
}

fn index(kind: Kind) -> usize {
    kind as usize - 1
}

fn names(open: &Open) -> Vec<String> {
    let mut names: Vec<_> =
        open.capabilities.iter().take(MAX_CAPABILITIES).map(ToString::to_string).collect();
    names.iter_mut().for_each(|name| cut(name, UNTRUSTED_MAX));
    let more = open.capabilities.len().saturating_sub(MAX_CAPABILITIES);
    names.extend((more > 0).then(|| format!("{more} more")));
    names
}

fn short(mut text: String) -> String {
    cut(&mut text, MAX_TEXT);
    text
}

fn by_type(counters: [u64; 5]) -> BTreeMap<String, u64> {
    Kind::ALL.into_iter().map(|k| (k.as_str().to_owned(), counters[index(k)])).collect()
}

/// The view of a session; `since` and the prefix counters are left empty.
pub(super) fn view(s: &Session, now: Instant) -> NeighborView {
    let (config, record) = (&s.config, &s.record);
    let negotiated = s.connections.iter().find_map(|c| c.negotiated());
    let timers = s.connections.iter().map(|c| &c.timers).chain([&s.timers]);
    NeighborView {
        address: config.key.to_string(),
        interface: match &config.key {
            PeerKey::Address(_) => None,
            PeerKey::LinkLocal(_, interface) | PeerKey::Interface(interface) => Some(interface.clone()),
        },
        remote_as: match config.remote_as {
            RemoteAs::Number(n) => Some(n),
            RemoteAs::Internal => Some(config.local_as),
            RemoteAs::External | RemoteAs::Any => record.remote_as,
        },
        local_as: config.local_as,
        state: s.state(),
        since: String::new(),
        families: negotiated.map_or_else(|| config.families.clone(), |n| n.families.clone()),
        received: BTreeMap::new(),
        accepted: BTreeMap::new(),
        advertised: BTreeMap::new(),
        withheld: BTreeMap::new(),
        hold_time: negotiated.map_or(config.hold_time, |n| n.hold_time),
        last_error: record.last_error.clone(),
        description: config.description.clone(),
        source: source(config.source).into(),
        router_id: record.remote_id,
        local_address: record.ends.map(|e| e.local.ip()),
        capabilities_sent: record.capabilities_sent.clone(),
        capabilities_received: record.capabilities_received.clone(),
        messages_sent: by_type(record.messages_sent),
        messages_received: by_type(record.messages_received),
        drops: record.drops.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect(),
        flaws: record.flaws,
        timers: timers
            .flat_map(|t| t.running(now))
            .map(|(timer, left)| (timer.as_str().to_owned(), round(left)))
            .collect(),
        last_notification_sent: record.notification_sent.clone(),
        last_notification_received: record.notification_received.clone(),
        ttl_security: s.ttl_security().map(str::to_owned),
        refused_by_ttl: s.gtsm.refused(),
        bfd: None,
        bfd_missing: false,
        queues: Queues::default(),
        history: record.history(now),
        notes: notes(s, negotiated.map(AsRef::as_ref), now),
        needs: needs(s, now),
        diagnosis: advice::diagnosis(s, now),
        open_age: record.open_received_at.map(|at| now.saturating_duration_since(at).as_secs()),
    }
}

fn notes(s: &Session, negotiated: Option<&Negotiated>, now: Instant) -> Vec<String> {
    let missing = |n: &Negotiated| {
        let families = s.config.families.iter().filter(|f| !n.has(**f));
        families.map(|f| format!("{f} is not used: the neighbor does not announce it")).collect::<Vec<_>>()
    };
    let mut notes = negotiated.map(missing).unwrap_or_default();
    if s.without_capabilities {
        notes.push("the neighbor refuses capabilities: only ipv4-unicast with two-octet AS numbers".into());
    }
    let external = negotiated.map_or(s.config.is_surely_external(), |n| !n.is_ibgp());
    let lacks_policy = s.config.lacks_policy.explain(&s.config.key).filter(|_| external);
    notes.extend(lacks_policy.map(|d| d.line()));
    notes.extend(s.ttl_note());
    notes.extend(needs(s, now).iter().map(Diagnostic::line));
    if s.running == Running::Disabled {
        notes.push("disabled: `routelet neighbor enable` brings it back".into());
    }
    notes
}

/// What prevents the session until the operator changes something, and remarks on one that is up.
fn needs(s: &Session, now: Instant) -> Vec<Diagnostic> {
    let lost = s.lost_segments(now).filter(|_| s.running == Running::Yes);
    if s.running != Running::Yes || s.established().is_some() {
        return lost.into_iter().chain(advice::remarks(s)).collect();
    }
    let subject = || Subject::neighbor(&s.config.key);
    let yielding = s.yielding.clone().map(|why| {
        let remedy = "remove one of the two neighbors";
        Diagnostic::new(Reason::NeighborNotUsed, subject(), why, remedy)
    });
    let behind = hints::behind(&s.config)
        .map(|(why, remedy)| Diagnostic::new(Reason::MultihopMissing, subject(), why, remedy));
    yielding.into_iter().chain(behind).chain(lost).collect()
}

fn source(source: PeerSource) -> &'static str {
    match source {
        PeerSource::Configured => "configured",
        PeerSource::Object => "object",
        PeerSource::Gateway => "gateway",
        PeerSource::Mesh => "mesh",
        PeerSource::Reflector => "reflector",
        PeerSource::Range => "range",
    }
}

fn round(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000) as u64
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bgp::wire::capability::Capability;

    #[test]
    fn what_a_neighbor_sends_is_remembered_within_bounds() {
        let now = Instant::now();
        let mut record = Record::new(now);
        let long = "x".repeat(60_000);
        for _ in 0..100 {
            record.attempt_failed(&long);
            record.also(&long);
            record.dropped(now, "notification-received", &long);
        }
        let closings = record.history(now).closings;
        assert!(closings.len() == MAX_CLOSINGS && closings.iter().all(|c| c.text.len() <= MAX_TEXT + 3));
        assert!(record.attempt_failed(&long), "the same as before, however much of it is remembered");
        let data = Bytes::from(vec![0xff; 4000]);
        let notification = Notification { code: 3, subcode: 9, data };
        record.notification_received(&notification);
        record.notification_sent(&notification);
        for text in
            [&record.last_error, &record.last_drop, &record.notification_received, &record.notification_sent]
        {
            assert!(text.as_ref().is_some_and(|t| t.len() <= MAX_TEXT + 3));
        }
    }

    #[test]
    fn down_since_holds_over_attempts_and_the_latest_closing_is_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut record = Record::new(start);
        record.state(at(5), SessionState::Established);
        record.received(at(6), Kind::Keepalive);
        record.dropped(at(9), "hold-timer", "hold timer expired");
        record.state(at(9), SessionState::Idle);
        record.state(at(12), SessionState::Connect);
        let history = record.history(at(20));
        assert_eq!((history.up_down_for, history.flaps), (Duration::from_secs(11), 1));
        assert_eq!((history.last_read, history.last_written), (Some(14), None));
        record.state(at(21), SessionState::Established);
        record.dropped(at(22), "notification-received", "cease");
        let reasons: Vec<_> =
            record.history(at(30)).closings.into_iter().map(|c| (c.reason, c.ago.as_secs())).collect();
        assert_eq!(reasons, [("notification-received".to_owned(), 8), ("hold-timer".to_owned(), 21)]);
    }

    #[test]
    fn an_open_full_of_capabilities_is_shown_in_part() {
        let unknown = Capability::Unknown { code: 200, value: Bytes::from(vec![0; 255]) };
        let router_id = RouterId::new(10, 0, 0, 1);
        let open = Open { my_as: 1, hold_time: 90, router_id, capabilities: vec![unknown; 2000] };
        let shown = names(&open);
        assert_eq!(
            (shown.len(), shown.last().map(String::as_str)),
            (MAX_CAPABILITIES + 1, Some("1936 more"))
        );
        assert!(shown.iter().all(|name| name.len() <= UNTRUSTED_MAX + 3));
    }
}
