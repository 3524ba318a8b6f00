//! Carries out what the session decides: connections, messages, routes for the RIB, log.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{News, PROBE_POLL_INTERVAL, Task, link::linger};
use crate::bgp::{
    contest::Router,
    io::{
        PeerEvent,
        rib::{ToRib, outbox},
        tcp,
    },
    peer::{DownCause, Negotiated},
    session::{Conn, Event, Input, Output, Severity},
};

impl Task {
    pub(super) fn apply_output(&mut self, output: Output) {
        match output {
            Output::Connect => self.connect(),
            Output::AbortConnect { timed_out } => {
                self.dial = None;
                if timed_out {
                    self.report_no_reply();
                }
            }
            Output::Transmit(conn, bytes) => {
                if let Some(link) = self.links.iter_mut().find(|l| l.conn == conn) {
                    link.unsent += bytes.len();
                    link.tx.push_back(bytes);
                }
            }
            Output::Close(conn) => self.close(conn),
            Output::KeepSource(conn) => {
                if let Some(link) = self.links.iter_mut().find(|l| l.conn == conn) {
                    link.source_gone = true;
                    if let Err(error) = tcp::keep_source(&link.stream) {
                        debug!(neighbor = %self.config.key, %error, "cannot send from the removed local address");
                    }
                }
            }
            Output::Probe(conn) => self.probe = Some((conn, Instant::now() + PROBE_POLL_INTERVAL)),
            Output::LeastTtl(conn, least) => {
                if let Some(link) = self.links.iter().find(|l| l.conn == conn)
                    && let Err(error) = tcp::limit_ttl(&link.stream, least)
                {
                    debug!(neighbor = %self.config.key, %error, "cannot set the minimum TTL of a connection");
                }
            }
            Output::Held { ifindex } => self.to_rib.push_back(ToRib::Held { peer: self.id, ifindex }),
            Output::Up(negotiated) => self.on_up(negotiated),
            Output::Updates(updates) => {
                let (read_at, room) = (self.read_at, self.room.take());
                self.to_rib.push_back(ToRib::Updates { peer: self.id, updates, read_at, room });
            }
            Output::Refresh { family, subtype } => {
                self.to_rib.push_back(ToRib::Refresh { peer: self.id, family, subtype });
            }
            Output::Down { cause, .. } => self.on_down(cause),
            Output::Event(event) => self.log(event),
        }
    }

    fn on_up(&mut self, negotiated: Arc<Negotiated>) {
        let (sender, receiver) = outbox();
        self.outbox = Some(receiver);
        self.agreed = Some(negotiated.clone());
        self.kept_until = None;
        self.bfd.session_began();
        self.report(News::Up(Router {
            id: negotiated.remote_id,
            asn: negotiated.remote_as,
            local: negotiated.local_addr,
            ifindex: negotiated.ifindex,
        }));
        self.to_rib.push_back(ToRib::Up { peer: self.id, negotiated, outbox: sender });
    }

    fn on_down(&mut self, cause: DownCause) {
        self.outbox = None;
        let kept = self.agreed.as_ref().and_then(|agreed| agreed.routes_stay(&self.config, cause));
        self.kept_until = kept.map(|time| Instant::now() + time);
        self.report(News::Lost);
        if !self.leaving {
            self.to_rib.push_back(ToRib::Down { peer: self.id, cause });
        }
    }

    /// Closes a connection once everything is sent.
    fn close(&mut self, conn: Conn) {
        if let Some(at) = self.links.iter().position(|l| l.conn == conn) {
            let link = self.links.swap_remove(at);
            if !link.tx.is_empty() {
                self.lingering.spawn(linger(link));
            }
        }
    }

    pub(super) fn connect(&mut self) {
        let config = self.config.clone();
        self.md5_dropped = tcp::md5_dropped();
        self.dial = Some(Box::pin(async move {
            let place = tcp::place(&config)?;
            Ok((tcp::connect(&config, place).await?, place))
        }));
    }

    /// A connection attempt timed out. The kernel's counters may show why, and the manager knows to
    /// which neighbor they belong.
    fn report_no_reply(&mut self) {
        self.report(News::Silent(tcp::md5_dropped().since(self.md5_dropped)));
    }

    pub(super) fn report(&self, news: News) {
        // If the queue is full, the manager is about to read it.
        let _ = self.news.try_send((self.config.key.clone(), news));
    }

    fn log(&mut self, event: Event) {
        let (neighbor, message) = (&self.config.key, event.message);
        // Absent fields are left out.
        let reason = event.reason.as_ref().map(tracing::field::display);
        if event.severity == Severity::Debug {
            return debug!(%neighbor, reason, "{message}");
        }
        let negotiated = event.negotiated.as_deref();
        let remote_as = negotiated.map(|n| n.remote_as);
        let router_id = negotiated.map(|n| tracing::field::display(n.remote_id));
        let hold_time = negotiated.map(|n| n.hold_time);
        let admitted = self.event_limit.admit(Instant::now());
        let suppressed = admitted.filter(|n| *n > 0);
        match (admitted, event.severity) {
            (None, _) => debug!(%neighbor, reason, remote_as, router_id, hold_time, "{message}"),
            (Some(_), Severity::Warn) => warn!(%neighbor, suppressed, reason, "{message}"),
            (Some(_), Severity::Info | Severity::Debug) => {
                info!(%neighbor, suppressed, reason, remote_as, router_id, hold_time, "{message}");
            }
        }
        let _ = self.events.send(PeerEvent { neighbor: neighbor.clone(), event });
    }

    /// Sends queued messages to the rib as long as its channel has room; updates whether to read
    /// on.
    pub(super) fn flush_to_rib(&mut self) {
        while let Some(message) = self.to_rib.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(message)) = self.rib.try_send(message) {
                self.to_rib.push_front(message);
                break;
            }
        }
        if self.room.is_none() {
            self.room = self.under_way.clone().try_acquire_owned().ok();
        }
        let stalled = !self.to_rib.is_empty() || self.room.is_none();
        if stalled != self.stalled {
            self.stalled = stalled;
            self.feed(Input::Stalled(stalled));
        }
    }
}
