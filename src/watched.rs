//! Values that rarely change, awaited next to frequent events.
//!
//! A `select!` polls each of its branches on each turn. A task with a busy source (routes, octets)
//! and many others that change once an hour would spend most of a turn on the latter. Here each of
//! these is polled only after it has woken the task.

use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll, unfold},
};
use tokio::sync::watch;

/// A set of watched values, each known by a name.
pub struct Watched<T>(SelectAll<BoxStream<'static, T>>);

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl<T> Default for Watched<T> {
    fn default() -> Self {
        Self(SelectAll::new())
    }
}

impl<T: Copy + Send + 'static> Watched<T> {
    /// Adds a value. A change is reported if this receiver has not seen it yet. The task reads the
    /// value with a receiver of its own.
    #[must_use]
    pub fn with<V: Send + Sync + 'static>(mut self, name: T, value: &watch::Receiver<V>) -> Self {
        let changes = unfold(value.clone(), move |mut value| async move {
            value.changed().await.ok()?;
            Some((name, value))
        });
        self.0.push(changes.boxed());
        self
    }

    /// The name of a value that changed. Never resolves once all senders are gone. Cancel safe.
    pub async fn next(&mut self) -> T {
        match self.0.next().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Wake};

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_change_after_what_was_seen_is_reported_once() {
        let (one, mut seen) = watch::channel(1);
        let (two, other) = watch::channel("a");
        one.send_replace(2);
        seen.mark_unchanged();
        let mut watched = Watched::default().with(1, &seen).with(2, &other);
        assert_eq!(watched.next().now_or_never(), None, "the first value was seen");
        two.send_replace("b");
        assert_eq!(watched.next().now_or_never(), Some(2));
        assert_eq!(watched.next().now_or_never(), None);
        one.send_replace(3);
        one.send_replace(4);
        assert_eq!(watched.next().now_or_never(), Some(1), "two changes, one report");
        assert_eq!(watched.next().now_or_never(), None);
        drop((one, two));
        assert_eq!(watched.next().now_or_never(), None, "nothing changes any more");
    }

    #[tokio::test]
    async fn a_change_while_another_future_was_polled_is_not_lost() {
        let (tx, rx) = watch::channel(0);
        let mut watched = Watched::default().with((), &rx);
        for n in 1..50 {
            // Polled and dropped, as a `select!` does with branches that do not complete.
            assert_eq!(watched.next().now_or_never(), None);
            tx.send_replace(n);
            assert_eq!(watched.next().now_or_never(), Some(()));
        }
    }

    #[test]
    fn a_change_wakes_the_task() {
        struct Flag(std::sync::atomic::AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let flag = Arc::new(Flag(false.into()));
        let waker = flag.clone().into();
        let (tx, rx) = watch::channel(0);
        let mut watched = Watched::default().with((), &rx);
        assert!(watched.next().boxed().poll_unpin(&mut std::task::Context::from_waker(&waker)).is_pending());
        tx.send_replace(1);
        assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
    }
}
