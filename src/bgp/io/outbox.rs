//! Messages queued for one neighbor: a bounded queue between the rib task, which never waits, and
//! the neighbor's own task, which may be slow.
//!
//! The bound is in octets. If the queue is full, the rib keeps the neighbor's position in the
//! journal and goes on with others. The neighbor's task sends
//! [`ToRib::Drained`](super::rib::ToRib::Drained) once there is room again.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll,
};

use bytes::Bytes;
use futures::task::AtomicWaker;

use crate::net::Family;

/// Most queued octets. One chunk may exceed it, so that any chunk fits.
pub const MAX_OUTBOX_OCTETS: usize = 256 * 1024;

/// Messages of the rib to one peer's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToPeer {
    /// Whole encoded messages, shared by all peers of a group; `messages` for the counters.
    Transmit { bytes: Bytes, messages: u32 },
    /// Send ROUTE-REFRESH.
    RequestRefresh { family: Family },
    /// `max-prefixes` was passed: CEASE/1, idle for `max-prefixes-restart`.
    MaxPrefixes { family: Family },
    /// All routes take more than they may, and the neighbor's are those that grew: CEASE/1, too.
    MemoryLimit { octets: u64, budget: u64 },
}

/// A connected pair, made by the neighbor's task for each session.
pub fn outbox() -> (OutboxSender, Outbox) {
    let shared = Arc::new(Shared::default());
    (OutboxSender(shared.clone()), Outbox(shared))
}

/// The rib's end.
#[derive(Debug)]
pub struct OutboxSender(Arc<Shared>);

/// The neighbor's end.
#[derive(Debug)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<ToPeer>,
    octets: usize,
    /// The rib found the queue full, and has to be notified when there is room.
    full: bool,
}

impl ToPeer {
    fn octets(&self) -> usize {
        match self {
            Self::Transmit { bytes, .. } => bytes.len(),
            Self::RequestRefresh { .. } | Self::MaxPrefixes { .. } | Self::MemoryLimit { .. } => 0,
        }
    }
}

impl OutboxSender {
    /// Whether another chunk may be pushed. After `false` the neighbor's task will send `Drained`.
    pub fn has_room(&self) -> bool {
        let mut queue = self.0.queue.lock().expect("no panic under this lock");
        queue.full = queue.octets >= MAX_OUTBOX_OCTETS;
        !queue.full
    }

    /// Never waits, never refuses.
    pub fn push(&self, item: ToPeer) {
        let mut queue = self.0.queue.lock().expect("no panic under this lock");
        queue.octets += item.octets();
        queue.waiting.push_back(item);
        drop(queue);
        self.0.reader.wake();
    }
}

impl Outbox {
    /// The next item. Cancel safe: an item is taken only when it is returned.
    pub async fn next(&mut self) -> ToPeer {
        poll_fn(|cx| {
            // Before the look: what is pushed after it wakes the task.
            self.0.reader.register(cx.waker());
            self.try_next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The next item, if one waits.
    pub fn try_next(&mut self) -> Option<ToPeer> {
        let mut queue = self.0.queue.lock().expect("no panic under this lock");
        let item = queue.waiting.pop_front()?;
        queue.octets -= item.octets();
        Some(item)
    }

    /// Octets of the messages that wait.
    pub fn octets(&self) -> usize {
        self.0.queue.lock().expect("no panic under this lock").octets
    }

    /// Whether the rib waits for room and half of it is free again. `true` once: call after each
    /// item taken, and send `ToRib::Drained` on `true`.
    pub fn drained(&mut self) -> bool {
        let mut queue = self.0.queue.lock().expect("no panic under this lock");
        let drained = queue.full && queue.octets <= MAX_OUTBOX_OCTETS / 2;
        queue.full &= !drained;
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(len: usize) -> ToPeer {
        ToPeer::Transmit { bytes: Bytes::from(vec![0; len]), messages: 1 }
    }

    #[tokio::test]
    async fn a_full_outbox_refuses_once_and_reports_when_it_is_drained() {
        let (tx, mut rx) = outbox();
        assert!(tx.has_room());
        tx.push(chunk(MAX_OUTBOX_OCTETS / 2));
        tx.push(chunk(MAX_OUTBOX_OCTETS / 2));
        assert!(!rx.drained(), "nobody was turned away yet");
        assert!(!tx.has_room());
        assert!(!rx.drained());
        rx.next().await;
        assert!(rx.drained());
        assert!(!rx.drained(), "reported once");
        assert!(tx.has_room());
        rx.next().await;
        assert_eq!(rx.try_next(), None);
    }
}
