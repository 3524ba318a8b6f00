//! How losses of links and addresses of this host affect a session: `fast-failover`.
//!
//! | neighbor | its link is lost | the local address is lost |
//! | --- | --- | --- |
//! | directly connected eBGP | session closed at once | session closed |
//! | iBGP, multihop | [probed](Probe): there may be another path to it | session closed |
//! | `fast-failover = false` | nothing, until the hold timer expires | nothing |
//!
//! The neighbor uses our routes until it receives a NOTIFICATION. If none can be sent now, the
//! connection is kept as a [`PendingClose`] until one can. The loss of the local address does not
//! prevent it: the driver can send from an address that the host no longer has, although replies do
//! not arrive.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Conn, End, NextStep, Output, Phase, Session, Severity, attachment::Loss, connection::Connection,
    handover::MAX_HANDOVER_TIME, state, timer::Timer,
};
use crate::{
    bgp::{
        peer::{DownCause, Hops, RemoteAs},
        wire::notification::{Notification, cease},
    },
    net::{LinkState, Links},
};

/// How long a neighbor has to acknowledge a KEEPALIVE after its link was lost.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a NOTIFICATION waits for a path to the neighbor, whose hold timer mostly expires
/// earlier.
const PENDING_CLOSE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long the connection at the former address stays open after a session has moved.
const MOVED_LINGER_TIME: Duration = Duration::from_secs(3);
/// Most closed connections with a NOTIFICATION to send.
const MAX_PENDING_CLOSES: usize = 4;
/// Quick connection attempts after a loss: the neighbor may still be closing the last session.
const MAX_QUICK_RETRIES: u8 = 3;

/// How the loss of a link or an address affects a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failover {
    AtOnce,
    Probe,
    Off,
}

/// An established session whose link was lost: unless the neighbor acknowledges a KEEPALIVE in
/// time, the session is closed.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    until: Instant,
    loss: Loss,
}

/// A closed connection on which a NOTIFICATION is still to be sent.
#[derive(Debug)]
pub(super) struct PendingClose {
    pub(super) conn: Conn,
    local: IpAddr,
    remote: IpAddr,
    /// The link that leads to the neighbor, if it was directly connected.
    ifindex: Option<u32>,
    octets: Bytes,
    /// Not before.
    from: Option<Instant>,
    until: Instant,
}

impl Session {
    /// Links or addresses of the host changed.
    pub(super) fn host_changed(&mut self, now: Instant, links: Arc<Links>) {
        self.links = links;
        self.check_pinned_link();
        for conn in self.connections.iter().map(|c| c.id).collect::<Vec<_>>() {
            self.check_attachment(now, conn);
        }
        self.part(now);
    }

    /// Compares what a connection depends on with the host.
    pub(super) fn check_attachment(&mut self, now: Instant, conn: Conn) {
        let (links, failover) = (self.links.clone(), self.failover(conn));
        let Some(c) = self.connection(conn) else { return };
        let (link, address) = c.attachment.look(now, &links);
        match (failover, link, address) {
            (Failover::AtOnce, Some(loss), _) | (Failover::AtOnce | Failover::Probe, _, Some(loss)) => {
                self.lose(now, conn, loss);
            }
            (Failover::Probe, Some(loss), None) => self.probe(now, conn, loss),
            (Failover::Off, ..) | (_, None, None) => {}
        }
    }

    /// The next timer of this file.
    pub(super) fn host_timeout(&self) -> Option<Instant> {
        let connections = self.connections.iter();
        let of_connections =
            connections.flat_map(|c| [c.attachment.due(), c.probe.as_ref().map(|p| p.until)]).flatten();
        let of_partings = self.pending_closes.iter().map(|p| p.from.unwrap_or(p.until));
        of_connections.chain(of_partings).chain(self.moving).min()
    }

    /// Handles timers that have expired.
    pub(super) fn host_expired(&mut self, now: Instant) {
        for conn in self.connections.iter().map(|c| c.id).collect::<Vec<_>>() {
            let off = self.failover(conn) == Failover::Off;
            let Some(c) = self.connection(conn) else { continue };
            let probed = c.probe.take_if(|p| p.until <= now).map(|p| p.loss);
            if let Some(loss) = c.attachment.expired(now).filter(|_| !off).or(probed) {
                self.lose(now, conn, loss);
            }
        }
        self.part(now);
        if self.moving.is_some_and(|until| until <= now) {
            let waits = self.connections.iter().any(|c| c.is_established() && self.leaves(c));
            self.moving = None;
            if waits {
                self.reconnect(now, cease::CONFIG_CHANGE, None, "configuration changed: local-address");
            }
        }
    }

    fn failover(&self, conn: Conn) -> Failover {
        let near = matches!(self.config.hops, Hops::Direct | Hops::Security(1) | Hops::SecurityWhereOffered);
        let negotiated = self.connections.iter().find(|c| c.id == conn).and_then(Connection::negotiated);
        let internal = match (negotiated, self.config.remote_as) {
            (Some(negotiated), _) => negotiated.is_ibgp(),
            (None, RemoteAs::Number(asn)) => asn == self.config.local_as,
            (None, RemoteAs::Internal) => true,
            (None, RemoteAs::External | RemoteAs::Any) => false,
        };
        match self.config.fast_failover {
            Some(false) => Failover::Off,
            Some(true) => Failover::AtOnce,
            None if near && !internal => Failover::AtOnce,
            None => Failover::Probe,
        }
    }

    /// Closes a connection whose link or address is lost, and connects again if that may succeed.
    fn lose(&mut self, now: Instant, conn: Conn, loss: Loss) {
        let links = self.links.clone();
        let Some(c) = self.connection(conn) else { return };
        let up = c.is_established();
        let cause = match &loss {
            Loss::Link { ifindex, .. } => DownCause::LinkLost { ifindex: *ifindex },
            // The neighbor keeps forwarding: this end moved.
            Loss::Address { .. } => DownCause::Closed,
        };
        let (remote, ifindex) = (c.attachment.remote(), c.attachment.ifindex());
        if up {
            let cease = Notification::cease(cease::CONFIG_CHANGE, None);
            // Our routes point to a removed address, so the neighbor must not keep them as stale
            // (RFC 8538 §4).
            let hard = matches!(loss, Loss::Address { .. });
            let notification = if hard { self.final_notification(conn, cease) } else { cease };
            self.record.notification_sent(&notification);
            self.close_later(now, conn, &notification, None);
        }
        let why = loss.to_string();
        let end = End { notify: None, cause, reason: loss.reason(), why, after: NextStep::Retry };
        self.end(now, conn, end);
        self.part(now);
        self.quick_retries = MAX_QUICK_RETRIES;
        if self.connections.is_empty() && !self.config.passive && leads(&links, ifindex, remote) {
            self.abort_connect(false);
            self.connect(now);
        }
    }

    /// Sends this NOTIFICATION and closes the connection once both can be done, from `from` on.
    fn close_later(&mut self, now: Instant, conn: Conn, notification: &Notification, from: Option<Instant>) {
        let Some(c) = self.connection(conn) else { return };
        let (local, remote, ifindex) = (c.attachment.local(), c.attachment.remote(), c.attachment.ifindex());
        let (octets, until) = (state::notification(notification), now + PENDING_CLOSE_TIMEOUT);
        self.pending_closes.push(PendingClose { conn, local, remote, ifindex, octets, from, until });
    }

    /// Checks whether the neighbor is still reachable (RFC 4271 only has the hold timer for this).
    fn probe(&mut self, now: Instant, conn: Conn, loss: Loss) {
        let Loss::Link { ifindex, .. } = loss else { return };
        let reason =
            format!("{loss}: the neighbor has {} s to acknowledge a KEEPALIVE", PROBE_TIMEOUT.as_secs());
        // Without a hold time there are no KEEPALIVEs (RFC 4271 §4.4).
        let Some(c) = self.connection(conn).filter(|c| c.is_established() && c.hold().is_some()) else {
            return;
        };
        let first = c.probe.replace(Probe { until: now + PROBE_TIMEOUT, loss }).is_none();
        c.timers.set(Timer::Keepalive, now);
        self.out.push_back(Output::Held { ifindex: Some(ifindex) });
        if first {
            self.event(Severity::Info, "link lost, probing the neighbor", Some(reason));
        }
    }

    /// The neighbor acknowledged the KEEPALIVE.
    pub(super) fn acknowledged(&mut self, conn: Conn) {
        if self.connection(conn).is_some_and(|c| c.probe.take().is_some()) {
            self.out.push_back(Output::Held { ifindex: None });
            self.event(Severity::Info, "neighbor still reachable", None);
        }
    }

    /// Sends the pending NOTIFICATIONs that can be sent now, and drops those that are too old.
    fn part(&mut self, now: Instant) {
        for at in (0..self.pending_closes.len()).rev() {
            let too_many = self.pending_closes.len() - at > MAX_PENDING_CLOSES;
            let parting = &mut self.pending_closes[at];
            if parting.from.is_some_and(|from| from > now) && !too_many {
                continue;
            }
            parting.from = None;
            let can = leads(&self.links, parting.ifindex, parting.remote);
            if !can && parting.until > now && !too_many {
                continue;
            }
            let parting = self.pending_closes.remove(at);
            if can {
                if self.links.with_address(parting.local).next().is_none() {
                    self.out.push_back(Output::KeepSource(parting.conn));
                }
                self.out.push_back(Output::Transmit(parting.conn, parting.octets));
                self.quick_retries = MAX_QUICK_RETRIES;
            }
            self.out.push_back(Output::Close(parting.conn));
        }
    }

    /// Follows a change of `local-address`. A session at another address of this host stays until
    /// one at the new address is established, or until [`MAX_HANDOVER_TIME`] has passed.
    pub(super) fn follow_local_address(&mut self, now: Instant) {
        let Some(wanted) = self.config.local_address else {
            self.moving = None;
            return;
        };
        let is_elsewhere = |c: &Connection| c.ends.local.ip().to_canonical() != wanted;
        if !self.connections.iter().any(is_elsewhere) {
            self.moving = None;
        } else if !self.connections.iter().any(Connection::is_established) {
            self.reconnect(now, cease::CONFIG_CHANGE, None, "configuration changed: local-address");
        } else if self.moving.is_none() {
            self.moving = Some(now + MAX_HANDOVER_TIME);
            self.quick_retries = MAX_HANDOVER_TIME.as_secs() as u8;
            if !self.config.passive {
                self.abort_connect(false);
                self.connect(now);
            }
        }
    }

    /// Whether a connection is replaced by one at `local-address`.
    pub(super) fn leaves(&self, c: &Connection) -> bool {
        self.moving.is_some() && Some(c.ends.local.ip().to_canonical()) != self.config.local_address
    }

    /// Retries after an attempt at the new address failed; the session at the old one stays.
    pub(super) fn move_again(&mut self, now: Instant) {
        if self.phase != Phase::Connect && !self.config.passive {
            self.retry_later(now);
        }
    }

    /// The session is at the new address now. The neighbor has another neighbor entry for it, and
    /// gets some time to learn our routes there before those of the old session are removed.
    pub(super) fn moved(&mut self, now: Instant, conn: Conn) {
        let Some(c) = self.connection(conn) else { return };
        let local = c.attachment.local();
        if c.is_established() {
            let notification = self.final_notification(conn, Notification::cease(cease::CONFIG_CHANGE, None));
            self.close_later(now, conn, &notification, Some(now + MOVED_LINGER_TIME));
        }
        let why = format!("the session moved from {local}: local-address changed");
        let end =
            End { notify: None, cause: DownCause::Moved, reason: "moved", why, after: NextStep::RetrySoon };
        self.end(now, conn, end);
    }

    /// Drops pending NOTIFICATIONs when the neighbor is stopped.
    pub(super) fn drop_pending_closes(&mut self) {
        for parting in self.pending_closes.drain(..) {
            self.out.push_back(Output::Close(parting.conn));
        }
    }
}

/// Whether packets to a neighbor can be sent: over its link if it is directly connected.
fn leads(links: &Links, ifindex: Option<u32>, remote: IpAddr) -> bool {
    let Some(ifindex) = ifindex else { return true };
    let link_local = matches!(remote, IpAddr::V6(a) if a.is_unicast_link_local());
    if link_local {
        links.links.get(&ifindex).is_some_and(LinkState::can_send)
    } else {
        links.leads_to(remote)
    }
}
