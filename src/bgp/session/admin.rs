//! What operators and settings do to a session: stop, reset, change; and what the rib orders.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    After, Conn, End, Input, Running, Session, Stop,
    negotiate::{self, Circumstances},
    state::Connection,
};
use crate::{
    bgp::{
        peer::{DownCause, Global, MaxPrefixesAction, PeerConfig},
        wire::{
            Code,
            capability::Capability,
            notification::{Notification, cease},
            open::Open,
        },
    },
    net::Family,
};

impl Session {
    pub(super) fn stop(&mut self, now: Instant, stop: Stop) {
        let (subcode, text, why) = match &stop {
            Stop::Disabled(text) => (cease::SHUTDOWN, text.as_deref(), "disabled by the operator"),
            Stop::Removed => (cease::DECONFIGURED, None, "no longer configured"),
            Stop::Moved => (cease::DECONFIGURED, None, "the neighbor moved to another address"),
            Stop::Leaving => (cease::SHUTDOWN, Some("routelet stops"), "routelet stops"),
            Stop::Halting => (cease::SHUTDOWN, Some("the machine stops"), "the machine stops"),
        };
        for conn in self.all() {
            let silent = matches!(stop, Stop::Leaving | Stop::Moved) && self.keeps_our_routes(conn);
            let notify = (!silent).then(|| self.last_word(conn, Notification::cease(subcode, text)));
            self.administrative(now, conn, notify, why.into(), After::Off);
        }
        self.part_from_all();
        self.after(now, After::Off, false);
        self.gtsm.forget();
        self.damping.forget();
        self.running = if matches!(stop, Stop::Disabled(_)) { Running::Disabled } else { Running::Stopped };
    }

    pub(super) fn reset(&mut self, now: Instant, text: Option<&str>) {
        if self.running != Running::Yes {
            return;
        }
        self.plain = false;
        self.gtsm.forget();
        self.damping.forget();
        self.begin_again(now, cease::RESET, text, "reset by the operator");
    }

    /// Ends every connection and dials at once.
    pub(super) fn begin_again(&mut self, now: Instant, subcode: u8, text: Option<&str>, why: &str) {
        for conn in self.all() {
            let notify = self.last_word(conn, Notification::cease(subcode, text));
            self.administrative(now, conn, Some(notify), why.into(), After::Off);
        }
        self.after(now, After::Off, false);
        self.connect_backoff.reset();
        self.begin(now);
    }

    pub(super) fn configure(&mut self, now: Instant, config: Arc<PeerConfig>, global: Global) {
        let change = difference(&self.config, &self.global, &config, &global);
        let (was_disabled, was_passive) = (self.config.disabled, self.config.passive);
        let other_limit = limits(&self.config) != limits(&config);
        let moved_here = !self.config.is_here && config.is_here;
        self.config = config;
        self.global = global;
        match (was_disabled, self.config.disabled) {
            (false, true) => return self.handle(now, Input::Stop(Stop::Disabled(None))),
            (true, false) if self.running == Running::Disabled => return self.start(now),
            _ => {}
        }
        if self.running != Running::Yes {
            return;
        }
        if moved_here {
            self.leave_former_holder(now);
        }
        if let Some(what) = change {
            self.plain = false;
            self.gtsm.forget();
            self.damping.forget();
            self.begin_again(now, cease::CONFIG_CHANGE, None, &format!("configuration changed: {what}"));
        } else if was_passive != self.config.passive && self.connections.is_empty() {
            self.begin_again(now, cease::CONFIG_CHANGE, None, "configuration changed: passive");
        } else if self.over_limit && other_limit && self.connections.is_empty() {
            // The pause was for the former limit: whether the new one fits is seen by trying.
            self.connect_backoff.reset();
            self.begin(now);
        } else {
            self.follow_local_address(now);
        }
    }

    /// The neighbor's address is one of this host from now on: whoever had it before hears nothing more.
    fn leave_former_holder(&mut self, now: Instant) {
        let elsewhere = |c: &&Connection| c.ends.local.ip() != c.ends.remote.ip();
        for conn in self.connections.iter().filter(elsewhere).map(|c| c.id).collect::<Vec<_>>() {
            let why = format!("{} is an address of this host now", self.config.key);
            self.administrative(now, conn, None, why, After::Retry);
        }
    }

    /// RFC 4486 §4: the family and the limit go along.
    pub(super) fn max_prefixes(&mut self, now: Instant, family: Family) {
        let limit = self.config.max_prefixes;
        let mut data = BytesMut::new();
        data.put_u16(family.afi());
        data.put_u8(family.safi());
        data.put_u32(limit);
        self.too_much(now, data.freeze(), format!("more than {limit} prefixes of {family} (max-prefixes)"));
    }

    /// The upper bound is one of octets, which RFC 4486 §4 has no data for.
    pub(super) fn memory_limit(&mut self, now: Instant, octets: u64, budget: u64) {
        let mib = |octets: u64| octets.div_ceil(1024 * 1024);
        let why = format!(
            "its routes took {} MiB when all took the {} MiB that there is for them (memory limit)",
            mib(octets),
            mib(budget)
        );
        self.too_much(now, Bytes::new(), why);
    }

    fn too_much(&mut self, now: Instant, data: Bytes, why: String) {
        let notification = Notification { code: Code::Cease as u8, subcode: cease::MAX_PREFIXES, data };
        let Some(conn) = self.established().map(|c| c.id) else { return };
        let notify = self.last_word(conn, notification);
        for other in self.all().into_iter().filter(|id| *id != conn) {
            self.administrative(now, other, None, "max-prefixes".into(), After::Off);
        }
        let end = End {
            notify: Some(notify),
            cause: DownCause::Sent { hard: true },
            reason: "max-prefixes",
            why,
            after: After::Idle(self.config.max_prefixes_restart),
        };
        self.end(now, conn, end);
        self.over_limit = true;
    }

    /// Idle until the other neighbor's session is over, or an operator resets this one.
    pub(super) fn yield_to_another(&mut self, now: Instant, why: String) {
        if self.running != Running::Yes || self.established().is_some() {
            return;
        }
        for conn in self.all() {
            let notify = Notification::cease(cease::REJECTED, None);
            self.administrative(now, conn, Some(notify), why.clone(), After::Off);
        }
        self.after(now, After::Off, false);
        self.complain(why.clone());
        self.yielding = Some(why);
    }

    pub(super) fn resume(&mut self, now: Instant) {
        if self.yielding.is_some() {
            self.connect_backoff.reset();
            self.begin(now);
        }
    }

    pub(super) fn administrative(
        &mut self,
        now: Instant,
        conn: Conn,
        notify: Option<Notification>,
        why: String,
        after: After,
    ) {
        let cause = DownCause::Administrative;
        self.end(now, conn, End { notify, cause, reason: "administrative", why, after });
    }

    /// An end that is meant to be one is a Hard Reset where the neighbor would keep our routes otherwise
    /// (RFC 8538 §4).
    pub(super) fn last_word(&self, conn: Conn, notification: Notification) -> Notification {
        let keeps =
            |c: &Connection| c.negotiated().and_then(|n| n.graceful.as_ref()).is_some_and(|g| g.notification);
        if self.connections.iter().any(|c| c.id == conn && c.is_established() && keeps(c)) {
            notification.hard()
        } else {
            notification
        }
    }

    fn keeps_our_routes(&self, conn: Conn) -> bool {
        let kept = |c: &Connection| c.negotiated().is_some_and(|n| n.kept_over_restart);
        self.connections.iter().any(|c| c.id == conn && c.is_established() && kept(c))
    }

    pub(super) fn all(&self) -> Vec<Conn> {
        self.connections.iter().map(|c| c.id).collect()
    }
}

/// The first change that no running session can take over, by the name of its key. Policies, limits and
/// next hops are soft: they are the rib's.
fn difference(a: &PeerConfig, ag: &Global, b: &PeerConfig, bg: &Global) -> Option<&'static str> {
    #[rustfmt::skip]
    let changes = [
        ("remote-as",      a.remote_as != b.remote_as),
        ("as",             a.local_as != b.local_as || a.global_as != b.global_as),
        ("router-id",      ag.router_id != bg.router_id),
        ("password",       a.password != b.password),
        ("port",           a.port != b.port),
        ("multihop or ttl-security", a.hops != b.hops),
        ("hold-time",      a.hold_time != b.hold_time),
        ("families, roles or restart times", announced(a, ag) != announced(b, bg)),
    ];
    changes.into_iter().find_map(|(key, changed)| changed.then_some(key))
}

/// What a pause for too many prefixes depends on.
fn limits(config: &PeerConfig) -> (u32, MaxPrefixesAction, Duration) {
    (config.max_prefixes, config.max_prefixes_action, config.max_prefixes_restart)
}

/// Our OPEN without what changes by itself: an address that appears is no reason to end a session.
fn announced(config: &PeerConfig, global: &Global) -> Open {
    let mut open = negotiate::open(config, global, Circumstances::default());
    open.capabilities.retain(|c| !matches!(c, Capability::ExtendedNextHop(_)));
    open
}
