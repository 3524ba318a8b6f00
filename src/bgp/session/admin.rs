//! Administrative actions on a session: stop, reset, changed settings, limits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Conn, End, Input, NextStep, Running, Session, Stop,
    connection::Connection,
    negotiate::{self, Circumstances},
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
            let notify = (!silent).then(|| self.final_notification(conn, Notification::cease(subcode, text)));
            self.administrative(now, conn, notify, why.into(), NextStep::StayDown);
        }
        self.drop_pending_closes();
        self.after(now, NextStep::StayDown, false);
        self.gtsm.forget();
        self.damping.forget();
        self.running = if matches!(stop, Stop::Disabled(_)) { Running::Disabled } else { Running::Stopped };
    }

    pub(super) fn reset(&mut self, now: Instant, text: Option<&str>) {
        if self.running != Running::Yes {
            return;
        }
        self.without_capabilities = false;
        self.gtsm.forget();
        self.damping.forget();
        self.reconnect(now, cease::RESET, text, "reset by the operator");
    }

    /// Closes every connection and connects at once.
    pub(super) fn reconnect(&mut self, now: Instant, subcode: u8, text: Option<&str>, why: &str) {
        for conn in self.all() {
            let notify = self.final_notification(conn, Notification::cease(subcode, text));
            self.administrative(now, conn, Some(notify), why.into(), NextStep::StayDown);
        }
        self.after(now, NextStep::StayDown, false);
        self.record.forget_verdict();
        self.connect_backoff.reset();
        self.begin(now);
    }

    pub(super) fn configure(&mut self, now: Instant, config: Arc<PeerConfig>, global: Global) {
        let change = reset_reason(&self.config, &self.global, &config, &global);
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
            self.without_capabilities = false;
            self.gtsm.forget();
            self.damping.forget();
            self.reconnect(now, cease::CONFIG_CHANGE, None, &format!("configuration changed: {what}"));
        } else if was_passive != self.config.passive && self.connections.is_empty() {
            self.reconnect(now, cease::CONFIG_CHANGE, None, "configuration changed: passive");
        } else if self.over_limit && other_limit && self.connections.is_empty() {
            // Idle because of the former limit: try again with the new one.
            self.connect_backoff.reset();
            self.begin(now);
        } else {
            self.follow_local_address(now);
        }
    }

    /// The neighbor's address is one of this host now: closes connections to its former holder.
    fn leave_former_holder(&mut self, now: Instant) {
        let elsewhere = |c: &&Connection| c.ends.local.ip() != c.ends.remote.ip();
        for conn in self.connections.iter().filter(elsewhere).map(|c| c.id).collect::<Vec<_>>() {
            let why = format!("{} is an address of this host now", self.config.key);
            self.administrative(now, conn, None, why, NextStep::Retry);
        }
    }

    /// RFC 4486 §4: the NOTIFICATION contains the family and the limit.
    pub(super) fn max_prefixes(&mut self, now: Instant, family: Family) {
        let limit = self.config.max_prefixes;
        let mut data = BytesMut::new();
        data.put_u16(family.afi());
        data.put_u8(family.safi());
        data.put_u32(limit);
        self.limit_exceeded(
            now,
            data.freeze(),
            format!("more than {limit} prefixes of {family} (max-prefixes)"),
        );
    }

    /// The limit is in octets, for which RFC 4486 §4 has no data field.
    pub(super) fn memory_limit(&mut self, now: Instant, octets: u64, budget: u64) {
        let mib = |octets: u64| octets.div_ceil(1024 * 1024);
        let why = format!(
            "its routes took {} MiB when all routes reached the budget of {} MiB (memory limit)",
            mib(octets),
            mib(budget)
        );
        self.limit_exceeded(now, Bytes::new(), why);
    }

    fn limit_exceeded(&mut self, now: Instant, data: Bytes, why: String) {
        let notification = Notification { code: Code::Cease as u8, subcode: cease::MAX_PREFIXES, data };
        let Some(conn) = self.established().map(|c| c.id) else { return };
        let notify = self.final_notification(conn, notification);
        for other in self.all().into_iter().filter(|id| *id != conn) {
            self.administrative(now, other, None, "max-prefixes".into(), NextStep::StayDown);
        }
        let end = End {
            notify: Some(notify),
            cause: DownCause::Sent { hard: true },
            reason: "max-prefixes",
            why,
            after: NextStep::Idle(self.config.max_prefixes_restart),
        };
        self.end(now, conn, end);
        self.over_limit = true;
    }

    /// Idle until the other neighbor's session is closed, or an operator resets this one.
    pub(super) fn yield_to_another(&mut self, now: Instant, why: String) {
        if self.running != Running::Yes || self.established().is_some() {
            return;
        }
        for conn in self.all() {
            let notify = Notification::cease(cease::REJECTED, None);
            self.administrative(now, conn, Some(notify), why.clone(), NextStep::StayDown);
        }
        self.after(now, NextStep::StayDown, false);
        self.report_failure(why.clone());
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
        after: NextStep,
    ) {
        let cause = DownCause::Administrative;
        self.end(now, conn, End { notify, cause, reason: "administrative", why, after });
    }

    /// A NOTIFICATION that ends the session for good: a Hard Reset if the neighbor would otherwise
    /// keep our routes (RFC 8538 §4).
    pub(super) fn final_notification(&self, conn: Conn, notification: Notification) -> Notification {
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

/// The key of the first change that needs a new session. Policies, limits and next hops do not: the
/// rib applies them.
pub fn reset_reason(a: &PeerConfig, ag: &Global, b: &PeerConfig, bg: &Global) -> Option<&'static str> {
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

/// The settings that Idle after too many prefixes depends on.
fn limits(config: &PeerConfig) -> (u32, MaxPrefixesAction, Duration) {
    (config.max_prefixes, config.max_prefixes_action, config.max_prefixes_restart)
}

/// Our OPEN without what may change by itself: a new address is no reason to close a session.
fn announced(config: &PeerConfig, global: &Global) -> Open {
    let mut open = negotiate::open(config, global, Circumstances::default());
    open.capabilities.retain(|c| !matches!(c, Capability::ExtendedNextHop(_)));
    open
}
