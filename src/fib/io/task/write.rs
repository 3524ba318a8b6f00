//! Takes changes of routes, and writes them to the kernel in batches.

use std::sync::Arc;

use nix::errno::Errno;
use tokio::{
    task::{spawn_blocking, yield_now},
    time::Instant,
};
use tracing::{debug, error, warn};

use super::{REPORT_DELAY, RETRY_INITIAL, Task};
use crate::{
    fib::{
        io::batch::{self, BATCH},
        order::coarse_first,
        route::Op,
        wire,
    },
    mailbox::{self, Changes},
    net::{NextHops, Prefix},
    netlink::io::is_transient,
};

impl Task {
    /// Applies changes. A few are written at once, as a thread hand-over would take longer than
    /// they do. Many are written in another thread, so that the neighbors are read meanwhile.
    pub(super) async fn apply_routes(
        mut self: Box<Self>,
        changes: Changes<Prefix, Option<Arc<NextHops>>>,
    ) -> Box<Self> {
        let mut changes: Vec<_> = changes.into_iter().collect();
        if changes.len() <= BATCH {
            let order = 0..changes.len();
            self.write_in_order(changes, order);
            return self;
        }
        let written = spawn_blocking(move || {
            changes.sort_unstable_by_key(|(prefix, _)| *prefix);
            let order = coarse_first(changes.len());
            self.write_in_order(changes, order);
            self
        });
        written.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    fn write_in_order(
        &mut self,
        changes: Vec<(Prefix, Option<Arc<NextHops>>)>,
        mut order: impl Iterator<Item = usize>,
    ) {
        let since = self.counters.taken();
        loop {
            let part: Vec<_> = order.by_ref().take(BATCH).filter_map(|at| changes.get(at)).collect();
            if part.is_empty() {
                break;
            }
            if part.len() > 1 {
                self.fib.prefetch(part.iter().map(|(prefix, _)| prefix));
            }
            for (prefix, hops) in part {
                self.fib.set_desired(*prefix, hops.as_ref());
            }
            while self.write_batch() {}
            // A lost neighbor does not wait for the rest.
            if self.lost.has_changed().unwrap_or(false) {
                self.lost_changed();
                while self.write_batch() {}
            }
        }
        drop(changes);
        self.fib.finish();
        while self.write_batch() {}
        self.publish_own();
        self.counters.acknowledged(since, std::time::Instant::now());
    }

    /// Writes all pending changes, and yields now and then.
    pub(in crate::fib::io) async fn write(&mut self) {
        let mut batches = 0;
        while self.write_batch() {
            batches += 1;
            if batches % 4 == 0 {
                yield_now().await;
            }
        }
        self.publish_own();
    }

    /// Publishes which originated prefixes are installed. Valid when everything is written.
    fn publish_own(&mut self) {
        if self.fib.take_own_changed() {
            let there = match self.settings.install {
                true => self.fib.own_there(),
                false => self.fib.own_wanted(),
            };
            mailbox::publish(&self.own_there, Arc::new(there));
        }
        // Every change of routes ends here.
        self.report.get_or_insert_with(|| Instant::now() + REPORT_DELAY);
    }

    /// Writes one batch; returns whether there was anything to write.
    fn write_batch(&mut self) -> bool {
        let ops = self.fib.take(BATCH);
        if !ops.is_empty() {
            self.execute(&ops);
        }
        !ops.is_empty()
    }

    fn execute(&mut self, ops: &[Op]) {
        let ours = wire::Ours { sources: self.fib.sources(), ..self.settings.ours() };
        let refused = match batch::write(&mut self.writer, &self.fib, ours, ops) {
            Ok(refused) => refused,
            Err(e) => {
                error!(error = %e, "no reply from the kernel to a batch; auditing all routes");
                self.fib.unacknowledged(ops);
                return self.audit_soon();
            }
        };
        let (mut puts, mut dels, mut objects) = ([0, 0], [0, 0], [0, 0]);
        for op in ops {
            match op {
                Op::NewRoute { .. } => puts[0] += 1,
                Op::DelRoute { .. } => dels[0] += 1,
                Op::NewNexthop { .. } | Op::DelNexthop { .. } => objects[0] += 1,
            }
        }
        let (mut bad, mut transient) = (0, false);
        for one in &refused {
            let Some(op) = ops.get(one.index) else { continue };
            let gone = matches!(one.errno, Errno::ESRCH | Errno::ENOENT | Errno::ENODEV);
            if self.fib.refused(op, one.errno == Errno::EEXIST, gone, &one.why) {
                self.audit_soon();
            }
            let tally = match op {
                Op::NewRoute { .. } => &mut puts,
                Op::DelRoute { .. } => &mut dels,
                Op::NewNexthop { .. } | Op::DelNexthop { .. } => &mut objects,
            };
            if !(gone && matches!(op, Op::DelRoute { .. } | Op::DelNexthop { .. })) {
                tally[1] += 1;
                bad += 1;
                transient |= is_transient(&one.errno.into());
                self.log_refused(op, &one.why);
            }
        }
        for (outcome, [all, bad]) in
            [(&self.counters.put, puts), (&self.counters.del, dels), (&self.counters.nexthop, objects)]
        {
            outcome.add(all - bad, bad);
        }
        self.schedule_retry(bad > 0, transient);
    }

    /// What the kernel refuses for long is retried less and less often. What it may accept a moment
    /// later does not wait for that.
    fn schedule_retry(&mut self, refused: bool, transient: bool) {
        let first = Instant::now() + RETRY_INITIAL;
        let later = self.retry.is_none_or(|(at, _)| transient && first < at);
        if refused && later {
            self.retry = Some((first, RETRY_INITIAL));
        }
    }

    /// Logs each reason once; `show fib` has the details.
    fn log_refused(&mut self, op: &Op, why: &Arc<str>) {
        if self.last_refusal.as_ref() == Some(why) {
            return debug!(?op, why = %why, "the kernel refused a change");
        }
        self.last_refusal = Some(why.clone());
        warn!(?op, why = %why, "the kernel refused a change; retrying, see `routelet show fib`");
    }
}
