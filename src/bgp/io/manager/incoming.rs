//! Incoming connections: to which neighbor they belong, whether there is room for a dynamic one.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use tokio::{net::TcpStream, time};
use tracing::info;

use super::{FULL, MAX_WAITING_CONNECTIONS, Manager, ON_LINK, PLACE_TIMEOUT, Running, STRANGER_LOG_INTERVAL};
use crate::bgp::{
    io::{
        Range,
        listener::{self, Call},
        peer::ToTask,
    },
    peer::{PeerConfig, PeerKey, PeerSource},
    wire::notification::{Notification, cease},
};

impl Manager {
    pub(super) async fn admit_waiting(&mut self) {
        for (call, until) in std::mem::take(&mut self.waiting) {
            if let Some(call) = self.admit(call).await {
                self.waiting.push_back((call, until));
            }
        }
    }

    /// A connection was accepted: passes it to its neighbor's task, or rejects it.
    pub(super) async fn on_connection(&mut self, call: Call) {
        let Some(call) = self.admit(call).await else { return };
        if self.waiting.len() < MAX_WAITING_CONNECTIONS {
            self.waiting.push_back((call, time::Instant::now() + PLACE_TIMEOUT));
        } else {
            self.reject(&call.0, listener::plain(call.1), FULL);
        }
    }

    /// The same; returns the connection if there may be room for it soon.
    async fn admit(&mut self, (stream, from): Call) -> Option<Call> {
        let addr = listener::plain(from);
        let caller = caller(from);
        if let Some(running) = caller.as_ref().and_then(|k| self.peers.get(k)) {
            if running.ending && running.config.source == PeerSource::Range {
                return Some((stream, from));
            }
            // If the task is busy, the neighbor will connect again.
            let _ = running.commands.try_send(ToTask::Accepted(stream));
            return None;
        }
        let range = self.range(addr).map(|range| (range.prefix, self.room(range)));
        match (range, self.range(addr)) {
            (Some((prefix, true)), Some(range)) => {
                let key = caller.unwrap_or(PeerKey::Address(addr));
                let config = Arc::new(like(range, key.clone()));
                info!(neighbor = %key, range = %prefix, "dynamic neighbor added");
                self.keep(&key, config).await;
                if let Some(running) = self.peers.get(&key) {
                    let _ = running.commands.try_send(ToTask::Accepted(stream));
                }
                None
            }
            (_, Some(range)) => {
                for (_, running) in self.callers(range) {
                    let _ = running.commands.try_send(ToTask::MakeRoom);
                }
                Some((stream, from))
            }
            (_, None) => {
                if let Some(place) = self.unnumbered(from) {
                    let _ = self.on_link.try_send(place);
                    return Some((stream, from));
                }
                let _ = self.to_planner.try_send(addr);
                self.reject(&stream, addr, "not a configured neighbor");
                None
            }
        }
    }

    pub(super) fn reject_first_waiting(&mut self) {
        if let Some(((stream, from), _)) = self.waiting.pop_front() {
            let why = if self.unnumbered(from).is_some() { ON_LINK } else { FULL };
            self.reject(&stream, listener::plain(from), why);
        }
    }

    /// Whether a connection from a link-local address may be that of an unnumbered neighbor that is
    /// discovered soon.
    pub(super) fn unnumbered(&self, from: SocketAddr) -> Option<(u32, Ipv6Addr)> {
        let PeerKey::LinkLocal(addr, interface) = caller(from)? else { return None };
        let ifindex = match from {
            SocketAddr::V6(scoped) => scoped.scope_id(),
            SocketAddr::V4(_) => return None,
        };
        self.wanted.unnumbered.contains(&interface).then_some((ifindex, addr))
    }

    /// The longest range with this address.
    pub(super) fn range(&self, addr: IpAddr) -> Option<&Range> {
        self.wanted.ranges.iter().filter(|r| r.prefix.contains(addr)).max_by_key(|r| r.prefix.len())
    }

    /// The dynamic neighbors of a listen-range.
    fn callers(&self, range: &Range) -> impl Iterator<Item = (&PeerKey, &Running)> {
        let inside = |key: &PeerKey| key.addr().is_some_and(|addr| range.prefix.contains(addr));
        self.peers.iter().filter(move |(k, p)| p.config.source == PeerSource::Range && !p.ending && inside(k))
    }

    fn room(&self, range: &Range) -> bool {
        self.callers(range).count() < range.limit
    }

    /// Rejects a connection with CEASE/5 (RFC 4486 §4), if the socket accepts it at once.
    fn reject(&mut self, stream: &TcpStream, addr: IpAddr, why: &str) {
        let mut octets = BytesMut::new();
        Notification::cease(cease::REJECTED, None).encode(&mut octets);
        let _ = stream.try_write(&octets);
        self.strangers += 1;
        if self.strangers_logged.is_none_or(|at| at.elapsed() >= STRANGER_LOG_INTERVAL) {
            self.strangers_logged = Some(Instant::now());
            info!(neighbor = %addr, reason = why, total = self.strangers, "connection rejected");
        }
    }
}

/// The key of a neighbor that connects from this address; `None` if its link no longer exists.
fn caller(from: SocketAddr) -> Option<PeerKey> {
    match (listener::plain(from), from) {
        (IpAddr::V6(addr), SocketAddr::V6(scoped)) if addr.is_unicast_link_local() => {
            let interface = nix::net::if_::if_indextoname(scoped.scope_id()).ok()?.into_string().ok()?;
            Some(PeerKey::LinkLocal(addr, interface))
        }
        (addr, _) => Some(PeerKey::Address(addr)),
    }
}

/// The settings of a dynamic neighbor of a listen-range.
pub(super) fn like(range: &Range, key: PeerKey) -> PeerConfig {
    PeerConfig { key, source: PeerSource::Range, passive: true, ..PeerConfig::clone(&range.template) }
}
