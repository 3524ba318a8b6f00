//! Routes of the rib's table for a client, page by page: a large table is never copied, and between
//! two steps everybody else has a turn.

use tokio::{sync::oneshot, task::yield_now};

use super::rib::{RibSender, ToRib};
use crate::bgp::rib::{RouteFilter, RouteView, Walk};

/// State of one output.
#[derive(Debug)]
pub struct Pages {
    rib: RibSender,
    walk: Option<Box<Walk>>,
}

/// The rib's task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl Pages {
    pub fn new(rib: RibSender, filter: RouteFilter) -> Self {
        Self { rib, walk: Some(Box::new(Walk::new(filter))) }
    }

    /// The next paths in order, some dozens; none when all were given.
    ///
    /// # Errors
    ///
    /// When the daemon stops.
    pub async fn next(&mut self) -> Result<Vec<RouteView>, Stopped> {
        while let Some(walk) = self.walk.take() {
            let (reply, result) = oneshot::channel();
            self.rib.send(ToRib::Routes { walk, reply }).await.map_err(|_| Stopped)?;
            let (walk, rows) = result.await.map_err(|_| Stopped)?;
            self.walk = (!walk.is_over()).then_some(walk);
            // The runtime looks at its sockets and timers before the next step.
            yield_now().await;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }
}
