//! What the operator can do about a session that is down, as far as its cause is known, and what is
//! worth a remark on one that is up.

use std::time::{Duration, Instant};

use super::{Running, Session};
use crate::{
    bgp::{
        peer::{Negotiated, PeerSource},
        view::SessionState,
        wire::{
            Code,
            notification::{Notification, cease},
        },
    },
    net::{Diagnostic, Reason, Subject},
};

/// The default of `hold-time`, which nobody chose.
const DEFAULT_HOLD_TIME: u16 = 90;

/// What ended the last session, or the last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Sent(Notification),
    Received(Notification),
    /// Closed by the neighbor before its OPEN.
    BeforeOpen,
    /// Nothing listens there.
    Refused,
    /// No packet came back.
    NoReply,
    /// Our hold timer expired, and the neighbor's TCP acknowledges nothing: no packet arrives.
    Deaf,
    /// Our hold timer expired, and the neighbor's TCP acknowledges what we send.
    Idle,
    /// A hold timer expired, and the neighbor acknowledges nothing although its packets arrive:
    /// ours do not.
    Unheard,
}

impl Cause {
    /// Whether one of the ends gave a reason.
    pub(super) fn has_reason(&self) -> bool {
        matches!(self, Self::Sent(_) | Self::Received(_) | Self::Deaf | Self::Idle | Self::Unheard)
    }
}

/// An error whose cause is known.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) at: Instant,
    pub(super) cause: Cause,
    pub(super) why: String,
}

/// How long a verdict explains errors without a reason: longer than a neighbor waits after an
/// error.
const VERDICT_TIME: Duration = Duration::from_secs(300);

/// Why there is no session, and what to do about it.
pub(super) fn diagnosis(s: &Session, now: Instant) -> Option<(String, String)> {
    if s.running != Running::Yes || s.established().is_some() {
        return None;
    }
    // A neighbor that refuses or closes a connection is reached now, whatever was before.
    let is_reached = matches!(s.record.cause(), Some(Cause::Refused | Cause::BeforeOpen));
    let is_overtaken =
        |cause: &Cause| is_reached && matches!(cause, Cause::Deaf | Cause::Unheard | Cause::Idle);
    let is_recent = |v: &&Verdict| now.saturating_duration_since(v.at) < VERDICT_TIME;
    let verdict = s.record.verdict().filter(is_recent).filter(|v| !is_overtaken(&v.cause));
    if let Some(verdict) = verdict
        && let Some(advice) = advice(s, &verdict.cause)
    {
        return Some((verdict.why.clone(), advice));
    }
    let Some(error) = s.record.last_error() else {
        // The first attempt goes on: a closed port or an absent host would have ended it by now.
        let remedy = (s.state() == SessionState::Connect).then(|| advice(s, &Cause::NoReply))??;
        return Some((format!("no reply from {} yet", s.config.key), remedy));
    };
    Some((error.to_owned(), advice(s, s.record.cause()?)?))
}

fn advice(s: &Session, cause: &Cause) -> Option<String> {
    let (key, own_as) = (&s.config.key, s.config.local_as);
    let local = s.record.local_address();
    let this_host = local.map_or_else(|| "this host".into(), |a| format!("this host ({a})"));
    match cause {
        Cause::Sent(n) => sent(n, key),
        Cause::Received(n) => received(n, &this_host, own_as),
        Cause::BeforeOpen => Some(format!(
            "configure {this_host} as a neighbor with AS {own_as} there; where it is, compare multihop and TTL \
             security at both ends"
        )),
        Cause::Refused => Some(format!(
            "start the BGP daemon at {key}, and see that it listens on TCP port {} and that no firewall rejects \
             this host",
            s.config.port
        )),
        Cause::Deaf => Some(format!(
            "no packet arrives from {key}: see that it runs and is reachable (`ping {key}`), and that no firewall \
             drops TCP port {} on the way to this host (`nft list ruleset`)",
            s.config.port
        )),
        Cause::Idle => Some(format!(
            "see the BGP daemon at {key}, which may hang, and whether large packets from there arrive (`ping -M do \
             -s 1472` from there)"
        )),
        Cause::Unheard => Some(format!(
            "no packet of this host arrives at {key}: see that no firewall drops TCP port {} on the way there \
             (`nft list ruleset` here, the access lists there)",
            s.config.port
        )),
        Cause::NoReply => Some(format!(
            "see that {key} is the right address (`ping {key}`), and that no firewall on either end drops TCP \
             port {}",
            s.config.port
        )),
    }
}

fn sent(n: &Notification, key: &impl std::fmt::Display) -> Option<String> {
    Some(match (n.code, n.subcode) {
        (OPEN, 2) => "set `remote-as` to the AS number of the neighbor, or correct its number there".into(),
        (OPEN, 3) => "give each router an id of its own (bgp.router-id)".into(),
        (OPEN, 6) => "set a hold time of 0 or of at least 3 s at the neighbor".into(),
        (OPEN, 11) => "set `role` to the counterpart of the neighbor's, or remove it".into(),
        (CEASE, cease::MAX_PREFIXES) => format!(
            "let the neighbor send fewer prefixes, or raise `max-prefixes`; `routelet neighbor reset {key}` tries \
             again at once"
        ),
        _ => return None,
    })
}

fn received(n: &Notification, this_host: &str, own_as: u32) -> Option<String> {
    let inner = n.inner();
    let n = inner.as_ref().unwrap_or(n);
    Some(match (n.code, n.subcode) {
        (OPEN, 2) => {
            format!("configure {this_host} with AS {own_as} there, or correct bgp.as or local-as here")
        }
        (OPEN, 3) => "give each router an id of its own (bgp.router-id)".into(),
        (OPEN, 6) => "raise `hold-time` here, or lower what the neighbor requires".into(),
        (OPEN, 11) => "set `role` to the counterpart of the neighbor's, or remove it".into(),
        (CEASE, cease::MAX_PREFIXES) => {
            "raise the prefix limit for this host there, or advertise less (`export`, `max-prefixes-out`)"
                .into()
        }
        (CEASE, cease::SHUTDOWN) => {
            format!("the operator of the neighbor shut the session down: enable {this_host} there")
        }
        (CEASE, cease::DECONFIGURED | cease::REJECTED) => {
            format!("configure {this_host} as a neighbor with AS {own_as} there")
        }
        (CEASE, cease::OUT_OF_RESOURCES) => {
            "the neighbor lacks memory or has too many sessions: see there".into()
        }
        _ => return None,
    })
}

const OPEN: u8 = Code::Open as u8;
const CEASE: u8 = Code::Cease as u8;

/// What the operator may want to know of an established session with a configured neighbor.
pub(super) fn remarks(s: &Session) -> Vec<Diagnostic> {
    let configured = matches!(s.config.source, PeerSource::Configured | PeerSource::Object);
    let Some(negotiated) = s.negotiated().filter(|n| configured && !n.is_on_host()) else {
        return Vec::new();
    };
    [hold_time(s, negotiated), graceful_restart(s, negotiated), router_id(s, negotiated)]
        .into_iter()
        .flatten()
        .collect()
}

fn hold_time(s: &Session, negotiated: &Negotiated) -> Option<Diagnostic> {
    let (key, own, agreed) = (&s.config.key, s.config.hold_time, negotiated.hold_time);
    let (text, remedy) = match agreed {
        0 if own > 0 => (
            format!("neighbor {key} has hold time 0: without keepalives its loss is not noticed"),
            "set a hold time there, or use `bfd`",
        ),
        0 => return None,
        agreed if own != DEFAULT_HOLD_TIME && agreed < own => (
            format!(
                "neighbor {key} has hold time {agreed} s, which is in force instead of `hold-time = {own}`"
            ),
            "set the same hold time at both ends",
        ),
        _ => return None,
    };
    Some(Diagnostic::new(Reason::HoldTimeDiffers, Subject::neighbor(key), text, remedy))
}

fn graceful_restart(s: &Session, negotiated: &Negotiated) -> Option<Diagnostic> {
    let key = &s.config.key;
    (s.config.graceful_restart && negotiated.graceful.is_none()).then(|| {
        Diagnostic::new(
            Reason::GracefulRestartOff,
            Subject::neighbor(key),
            format!(
                "neighbor {key} does not announce graceful restart (RFC 4724): it removes this host's routes \
                 whenever routelet restarts"
            ),
            "switch graceful restart (at least its helper mode) on there, or set `graceful-restart = false` here",
        )
    })
}

fn router_id(s: &Session, negotiated: &Negotiated) -> Option<Diagnostic> {
    let (key, own) = (&s.config.key, s.global.router_id);
    (negotiated.remote_id == own).then(|| {
        Diagnostic::new(
            Reason::RouterIdShared,
            Subject::neighbor(key),
            format!("neighbor {key} has this host's router id, {own}"),
            "give each router an id of its own (bgp.router-id)",
        )
    })
}
