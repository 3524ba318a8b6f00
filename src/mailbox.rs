//! Channel that keeps the latest value per key, between a task that must never wait and one that
//! may be slow.
//!
//! It cannot fill up: it holds at most one entry per key. A slow reader gets fewer and fresher
//! values, in the order in which their keys were first posted.
#![allow(clippy::disallowed_types, reason = "the one lock of the crate, held for a map operation")]

use std::{
    future::poll_fn,
    hash::Hash,
    mem,
    sync::{Arc, Mutex},
    task::Poll,
};

use futures::task::AtomicWaker;
use indexmap::IndexMap;
use tokio::sync::watch;

/// Pending changes by key.
pub type Changes<K, V> = IndexMap<K, V, foldhash::fast::RandomState>;

/// A connected pair.
pub fn mailbox<K: Eq + Hash, V>() -> (Sender<K, V>, Receiver<K, V>) {
    let inner = Arc::new(Inner { pending: Mutex::new(Changes::default()), reader: AtomicWaker::new() });
    (Sender(inner.clone()), Receiver(inner))
}

/// Replaces the value of a `watch` if it differs, so that its readers wake for changes only.
pub fn publish<T: PartialEq>(to: &watch::Sender<T>, value: T) {
    to.send_if_modified(|old| {
        let differs = *old != value;
        if differs {
            *old = value;
        }
        differs
    });
}

struct Inner<K, V> {
    pending: Mutex<Changes<K, V>>,
    reader: AtomicWaker,
}

/// The side that never waits.
pub struct Sender<K, V>(Arc<Inner<K, V>>);

impl<K, V> std::fmt::Debug for Sender<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

/// The side that takes all that changed.
pub struct Receiver<K, V>(Arc<Inner<K, V>>);

impl<K: Eq + Hash, V> Sender<K, V> {
    /// Replaces pending values of these keys, with one wake-up for all; the reader takes them as
    /// one batch. Never blocks.
    pub fn post_all(&self, changes: impl IntoIterator<Item = (K, V)>) {
        self.0.pending.lock().expect("no panic under this lock").extend(changes);
        self.0.reader.wake();
    }
}

impl<K: Eq + Hash, V> Receiver<K, V> {
    /// Waits for a change, then takes all pending changes. Cancel safe.
    pub async fn take(&mut self) -> Changes<K, V> {
        poll_fn(|cx| {
            // Registered first, so that anything posted after the check wakes the task.
            self.0.reader.register(cx.waker());
            let batch = self.take_now();
            if batch.is_empty() { Poll::Pending } else { Poll::Ready(batch) }
        })
        .await
    }

    /// Takes the pending changes, which may be none.
    pub fn take_now(&mut self) -> Changes<K, V> {
        mem::take(&mut *self.0.pending.lock().expect("no panic under this lock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_sees_only_the_last_word() {
        let (tx, mut rx) = mailbox();
        for n in 0..1000 {
            tx.post_all([("10.0.0.0/24", n)]);
        }
        assert_eq!(rx.take().await.into_iter().collect::<Vec<_>>(), [("10.0.0.0/24", 999)]);
    }
}
