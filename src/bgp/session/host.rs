//! What the links and addresses of this host do to a session: `fast-failover`.
//!
//! | neighbor | its link is lost | the local address is lost |
//! | --- | --- | --- |
//! | directly connected eBGP | the session ends at once | the session ends |
//! | iBGP, multihop | [probed](Probe): it may be reached another way | the session ends |
//! | `fast-failover = false` | nothing: the hold timer decides | nothing |
//!
//! A session that ended so owes its neighbor a NOTIFICATION, and the neighbor may go on with our routes until it has
//! it. Where nothing can be sent now, the connection is kept aside as a [`Parting`] until something can. The local
//! address being lost is no obstacle: the driver may send from an address that the host no longer has, while the
//! neighbor's answers go nowhere.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    After, Conn, End, Output, Phase, Session, Severity,
    attachment::Loss,
    handover::LONGEST,
    state::{self, Connection},
    timer::Timer,
};
use crate::{
    bgp::{
        peer::{DownCause, Hops, RemoteAs},
        wire::notification::{Notification, cease},
    },
    net::{LinkState, Links},
};

/// How long a neighbor that may still be there has to acknowledge a KEEPALIVE.
pub(super) const PROBE: Duration = Duration::from_secs(10);
/// How long a last word waits for a way to the neighbor: by then its hold timer has mostly expired.
const PARTING: Duration = Duration::from_secs(90);
/// How long the connection at the former address stays open after a session has moved.
const MOVED: Duration = Duration::from_secs(3);
/// Last words that may wait.
const PARTINGS: usize = 4;
/// Dials in quick succession after a loss: a neighbor may still be busy with the end of the last session.
const BRISK: u8 = 3;

/// What the loss of a link or an address means to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failover {
    AtOnce,
    Probe,
    Off,
}

/// An established session whose link was lost: a KEEPALIVE is out, and if it is not acknowledged in time, the session
/// ends.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    until: Instant,
    loss: Loss,
}

/// A connection that is over for us, and whose neighbor is still to be told.
#[derive(Debug)]
pub(super) struct Parting {
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
    /// The host changed.
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

    /// Deadlines of this file.
    pub(super) fn host_timeout(&self) -> Option<Instant> {
        let connections = self.connections.iter();
        let of_connections =
            connections.flat_map(|c| [c.attachment.due(), c.probe.as_ref().map(|p| p.until)]).flatten();
        let of_partings = self.partings.iter().map(|p| p.from.unwrap_or(p.until));
        of_connections.chain(of_partings).chain(self.moving).min()
    }

    /// What is due by now.
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
                self.begin_again(now, cease::CONFIG_CHANGE, None, "configuration changed: local-address");
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

    /// Ends a connection whose link or address is lost, and dials again where that can work.
    fn lose(&mut self, now: Instant, conn: Conn, loss: Loss) {
        let links = self.links.clone();
        let Some(c) = self.connection(conn) else { return };
        let up = c.is_established();
        let cause = match &loss {
            Loss::Link { ifindex, .. } => DownCause::LinkLost { ifindex: *ifindex },
            // The neighbor forwards as before: it is this end that moved.
            Loss::Address { .. } => DownCause::Closed,
        };
        let (local, remote, ifindex) = (c.attachment.local(), c.attachment.remote(), c.attachment.ifindex());
        if up {
            let cease = Notification::cease(cease::CONFIG_CHANGE, None);
            // Our routes lead to an address that is no longer there: they must not stay as stale (RFC 8538 §4).
            let hard = matches!(loss, Loss::Address { .. });
            let notification = if hard { self.last_word(conn, cease) } else { cease };
            self.record.notification_sent(&notification);
            let octets = state::notification(&notification);
            self.partings.push(Parting {
                conn,
                local,
                remote,
                ifindex,
                octets,
                from: None,
                until: now + PARTING,
            });
        }
        let why = loss.to_string();
        let end = End { notify: None, cause, reason: loss.reason(), why, after: After::Retry };
        self.end(now, conn, end);
        self.part(now);
        self.brisk = BRISK;
        if self.connections.is_empty() && !self.config.passive && leads(&links, ifindex, remote) {
            self.abort_dial(false);
            self.dial(now);
        }
    }

    /// Finds out whether the neighbor is still there (RFC 4271 has nothing but the hold timer for this).
    fn probe(&mut self, now: Instant, conn: Conn, loss: Loss) {
        let Loss::Link { ifindex, .. } = loss else { return };
        let text = format!("{loss}: the neighbor has {} s to show that it is there", PROBE.as_secs());
        // Without a hold time there are no KEEPALIVEs (RFC 4271 §4.4).
        let Some(c) = self.connection(conn).filter(|c| c.is_established() && c.hold().is_some()) else {
            return;
        };
        let first = c.probe.replace(Probe { until: now + PROBE, loss }).is_none();
        c.timers.set(Timer::Keepalive, now);
        self.out.push_back(Output::Held { ifindex: Some(ifindex) });
        if first {
            self.event(Severity::Info, text);
        }
    }

    /// The neighbor acknowledged the KEEPALIVE.
    pub(super) fn acknowledged(&mut self, conn: Conn) {
        if self.connection(conn).is_some_and(|c| c.probe.take().is_some()) {
            self.out.push_back(Output::Held { ifindex: None });
            self.event(Severity::Info, "the neighbor is still there".into());
        }
    }

    /// Sends the last words that can be sent now, and gives up those that have waited for too long.
    fn part(&mut self, now: Instant) {
        for at in (0..self.partings.len()).rev() {
            let too_many = self.partings.len() - at > PARTINGS;
            let parting = &mut self.partings[at];
            if parting.from.is_some_and(|from| from > now) && !too_many {
                continue;
            }
            parting.from = None;
            let can = leads(&self.links, parting.ifindex, parting.remote);
            if !can && parting.until > now && !too_many {
                continue;
            }
            let parting = self.partings.remove(at);
            if can {
                if self.links.with_address(parting.local).next().is_none() {
                    self.out.push_back(Output::KeepSource(parting.conn));
                }
                self.out.push_back(Output::Transmit(parting.conn, parting.octets));
                self.brisk = BRISK;
            }
            self.out.push_back(Output::Close(parting.conn));
        }
    }

    /// `local-address` may have changed. A session at another address of this host stays until there is one at the new,
    /// which ends it, or until [`LONGEST`] has passed.
    pub(super) fn follow_local_address(&mut self, now: Instant) {
        let Some(wanted) = self.config.local_address else {
            self.moving = None;
            return;
        };
        let is_elsewhere = |c: &Connection| c.ends.local.ip().to_canonical() != wanted;
        if !self.connections.iter().any(is_elsewhere) {
            self.moving = None;
        } else if !self.connections.iter().any(Connection::is_established) {
            self.begin_again(now, cease::CONFIG_CHANGE, None, "configuration changed: local-address");
        } else if self.moving.is_none() {
            self.moving = Some(now + LONGEST);
            self.brisk = LONGEST.as_secs() as u8;
            if !self.config.passive {
                self.abort_dial(false);
                self.dial(now);
            }
        }
    }

    /// Whether a connection gives way to one at `local-address`.
    pub(super) fn leaves(&self, c: &Connection) -> bool {
        self.moving.is_some() && Some(c.ends.local.ip().to_canonical()) != self.config.local_address
    }

    /// An attempt at the new address failed: the session at the old one goes on meanwhile.
    pub(super) fn move_again(&mut self, now: Instant) {
        if self.phase != Phase::Connect && !self.config.passive {
            self.retry_later(now);
        }
    }

    /// The session is at the new address now. The neighbor knows it by another key there, and is left some time to take
    /// our routes from the new session before those of the old one go.
    pub(super) fn moved(&mut self, now: Instant, conn: Conn) {
        let Some(c) = self.connection(conn) else { return };
        let (local, remote, ifindex) = (c.attachment.local(), c.attachment.remote(), c.attachment.ifindex());
        if c.is_established() {
            let notification = self.last_word(conn, Notification::cease(cease::CONFIG_CHANGE, None));
            let (octets, from) = (state::notification(&notification), Some(now + MOVED));
            self.partings.push(Parting { conn, local, remote, ifindex, octets, from, until: now + PARTING });
        }
        let why = format!("the session moved from {local}: local-address changed");
        let end = End { notify: None, cause: DownCause::Moved, reason: "moved", why, after: After::Soon };
        self.end(now, conn, end);
    }

    /// The session is not to be any more: nothing waits.
    pub(super) fn part_from_all(&mut self) {
        for parting in self.partings.drain(..) {
            self.out.push_back(Output::Close(parting.conn));
        }
    }
}

/// Whether packets to a neighbor can leave: over its link, or, where it is farther away, at all.
fn leads(links: &Links, ifindex: Option<u32>, remote: IpAddr) -> bool {
    let Some(ifindex) = ifindex else { return true };
    let link_local = matches!(remote, IpAddr::V6(a) if a.is_unicast_link_local());
    if link_local {
        links.links.get(&ifindex).is_some_and(LinkState::can_send)
    } else {
        links.leads_to(remote)
    }
}
