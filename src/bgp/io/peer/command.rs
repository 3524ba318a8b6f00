//! Carries out the commands of the manager.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, sync::oneshot};
use tracing::debug;

use super::{Task, ends, link::Link};
use crate::{
    bgp::{
        io::{
            Act,
            rib::{Outbox, ToRib},
            tcp,
        },
        peer::{DownCause, Global, PeerConfig},
        session::{Endpoints, Input, Stop},
        view::{NeighborView, Queues},
    },
    net::{BfdStatus, Family},
};

/// Commands of the manager to a neighbor's task.
#[derive(Debug)]
pub(in crate::bgp::io) enum ToTask {
    Configure(Arc<PeerConfig>, Global),
    Accepted(TcpStream),
    Act(Act),
    RetryNow,
    /// A likely reason why the neighbor does not reply.
    Hint(String),
    /// Do not connect while another neighbor, which is the same router, has a session.
    Yield(String),
    /// That session is over.
    Resume,
    /// The listen-range of this neighbor is full: end the task if it is evictable.
    MakeRoom,
    /// Another neighbor replaces this one: end the task if there is nothing to hand over.
    HandOver,
    Status(oneshot::Sender<NeighborView>),
    /// Stop the session and end the task.
    Stop(Stop),
}

impl Task {
    /// Returns `true` after the last command.
    pub(super) fn command(&mut self, command: ToTask) -> bool {
        match command {
            ToTask::Configure(config, global) => {
                self.config = config.clone();
                self.feed(Input::Configure(config, global));
                self.follow_bfd();
            }
            ToTask::Accepted(stream) => self.accepted(stream),
            ToTask::RetryNow => self.feed(Input::RetryNow),
            ToTask::Hint(text) => self.feed(Input::Hint(text)),
            ToTask::Yield(why) => self.feed(Input::Yield(why)),
            ToTask::Resume => self.feed(Input::Resume),
            ToTask::MakeRoom if self.retention().is_evictable(Instant::now()) => {
                self.feed(Input::Stop(Stop::Removed));
                return true;
            }
            ToTask::HandOver if !self.retention().has_routes(Instant::now()) => {
                self.feed(Input::Stop(Stop::Moved));
                return true;
            }
            ToTask::MakeRoom | ToTask::HandOver => {}
            ToTask::Act(act) => {
                self.act(act);
                self.follow_bfd();
            }
            ToTask::Status(reply) => {
                self.sample_transport();
                let _ = reply.send(self.view());
            }
            ToTask::Stop(stop) => {
                self.leaving = matches!(stop, Stop::Leaving | Stop::Halting);
                self.feed(Input::Stop(stop));
                return true;
            }
        }
        false
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Reset { message } => self.feed(Input::Reset(message)),
            Act::Disable { message } => {
                self.feed(Input::Stop(Stop::Disabled(message)));
                // Stale routes are removed as well.
                self.to_rib.push_back(ToRib::Down { peer: self.id, cause: DownCause::Administrative });
            }
            Act::Enable => self.feed(Input::Start),
            Act::Refresh => {
                for family in Family::ALL {
                    self.feed(Input::RequestRefresh(family));
                }
            }
        }
    }

    fn view(&self) -> NeighborView {
        let mut view = self.session.view(Instant::now());
        let bfd = self.bfd.status();
        view.bfd = bfd.map(|status| status.as_str().to_owned());
        view.bfd_missing = matches!(bfd, Some(BfdStatus::Starting | BfdStatus::Down));
        view.queues = self.queues();
        view.since = time_before_now(self.session.since().elapsed());
        view.history.date(time_before_now);
        view
    }

    /// Of all connections: while two collide there is more than one.
    fn queues(&self) -> Queues {
        let octets = |of: fn(&Link) -> usize| self.links.iter().map(of).sum::<usize>() as u64;
        Queues {
            unsent: octets(|l| l.unsent) + self.outbox.as_ref().map_or(0, Outbox::octets) as u64,
            unacknowledged: octets(|l| tcp::unacknowledged(&l.stream).unwrap_or(0)),
            unread: octets(|l| tcp::unread(&l.stream).unwrap_or(0)),
            partial: octets(|l| l.rx.len()),
        }
    }

    fn accepted(&mut self, stream: TcpStream) {
        let ifindex = match stream.peer_addr() {
            Ok(std::net::SocketAddr::V6(a)) => a.scope_id(),
            _ => 0,
        };
        let ttl = tcp::first_ttl(&stream);
        if !self.config.hops.admits(ttl) {
            // Only the first such connection is logged as a warning.
            let key = &self.config.key;
            let text = format!(
                "connection from {key} refused, it is farther away than `ttl-security` allows: set it at both ends, or \
                 remove it here"
            );
            self.feed(Input::Hint(text));
            return;
        }
        let ready = tcp::configure_accepted(&stream, &self.config);
        match ready.and_then(|()| ends(&stream, ifindex)).map(|ends| Endpoints { ttl, ..ends }) {
            Ok(ends) => {
                let conn = self.link(stream);
                self.feed(Input::Accepted(conn, ends));
            }
            Err(error) => {
                debug!(neighbor = %self.config.key, %error, "accepted connection was closed already")
            }
        }
    }
}

/// RFC 3339, UTC.
fn time_before_now(elapsed: Duration) -> String {
    let elapsed = jiff::SignedDuration::try_from(elapsed).unwrap_or_default();
    format!("{:.0}", jiff::Timestamp::now() - elapsed)
}
