//! The audit compares the kernel's objects and routes with those that are desired, a part per turn.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    time::Duration,
};

use tokio::{task::yield_now, time::Instant};
use tracing::{debug, warn};

use super::{AUDIT_INTERVAL, AUDIT_MIN_INTERVAL, Audit, Task};
use crate::{
    fib::{diff::content, io::netlink, route::SeenRoute, wire},
    net::Family,
    netlink::{decode::Message, dump::Progress, io::Channel},
};

impl Task {
    pub(super) async fn sweep(&mut self) {
        if self.fib.is_sweeping() {
            self.fib.converged(self.convergence.clone(), self.stale_timer.grace());
            self.fib.finish();
            self.write().await;
        }
        // After the routes that replace them are written.
        if self.left.is_some() && self.fib.all_converged(self.convergence.clone(), self.stale_timer.grace()) {
            self.remove_former();
            self.fib.finish();
            self.write().await;
        }
    }

    pub(super) fn audit_soon(&mut self) {
        self.audit_due = self.audit_due.min((self.audited + AUDIT_MIN_INTERVAL).max(Instant::now()));
    }

    pub(super) async fn audit_begin(&mut self) {
        self.audited = Instant::now();
        let sixth = AUDIT_INTERVAL.as_millis() as u64 / 3;
        let jitter = Duration::from_millis(RandomState::new().hash_one(0) % sixth);
        self.audit_due = self.audited + AUDIT_INTERVAL - Duration::from_millis(sixth / 2) + jitter;
        if !self.settings.install {
            return;
        }
        let objects = self.audit_objects();
        self.write().await;
        let channel = objects.and_then(|()| self.writer.another());
        match channel.and_then(|channel| self.audit_family(channel, &Family::ALL, true)) {
            Ok(audit) => {
                self.fib.audit_begin();
                self.audit = Some(audit);
            }
            Err(e) => self.audit_failed(&e),
        }
    }

    /// Tries again after a while: what a failed audit would have repaired is not repaired yet.
    fn audit_failed(&mut self, error: &io::Error) {
        self.audit = None;
        let wait = AUDIT_MIN_INTERVAL * 2u32.pow(self.audit_failures.min(6));
        self.audit_due = self.audit_due.min(Instant::now() + wait.min(AUDIT_INTERVAL));
        self.audit_failures += 1;
        match self.audit_failures {
            1 => warn!(%error, "cannot audit the kernel's routes; retrying"),
            _ => debug!(%error, "cannot audit the kernel's routes; retrying"),
        }
    }

    /// The audit compares routes by object id; the objects themselves are compared here.
    fn audit_objects(&mut self) -> io::Result<()> {
        if !self.fib.has_objects() {
            return Ok(());
        }
        let objects = netlink::objects(&mut self.writer)?;
        let before = self.fib.repairs;
        self.fib.host(self.resolver.clone(), objects.as_ref());
        self.fib.rescan();
        self.fib.finish();
        self.note_repairs(before, "another program changed our nexthop objects");
        Ok(())
    }

    fn audit_family(
        &self,
        mut channel: Channel,
        families: &'static [Family],
        consistent: bool,
    ) -> io::Result<Audit> {
        let ours = self.settings.ours();
        if let Some(family) = families.first() {
            channel.dump_begin(|encoder| {
                wire::dump_routes(encoder, *family, Some(ours.table), Some(ours.protocol));
            })?;
        }
        Ok(Audit { channel, families, consistent })
    }

    pub(super) async fn audit_step(&mut self) {
        let Some(mut audit) = self.audit.take() else { return };
        let (ours, before) = (self.settings.ours(), self.fib.repairs);
        let fib = &mut self.fib;
        let step = audit.channel.dump_step(|message| {
            if let Some(route) = own_route(message, ours) {
                let leads_to = content(route.kind, &route.seen.hops);
                let seen = &route.seen;
                fib.audit(seen.prefix, seen.metric, seen.object, leads_to.clone());
                fib.audit_source(seen.prefix, seen.metric, &leads_to, seen.source);
            }
        });
        match step {
            Ok(Progress::More) => {
                self.audit = Some(audit);
                yield_now().await;
            }
            Ok(Progress::Done { consistent }) => {
                let consistent = consistent && audit.consistent;
                let rest = audit.families.get(1..).unwrap_or_default();
                if rest.is_empty() {
                    self.audit_end(consistent).await;
                } else {
                    match self.audit_family(audit.channel, rest, consistent) {
                        Ok(audit) => self.audit = Some(audit),
                        Err(e) => self.audit_failed(&e),
                    }
                }
            }
            Err(e) => self.audit_failed(&e),
        }
        self.note_repairs(before, "the audit found them missing or changed");
    }

    async fn audit_end(&mut self, consistent: bool) {
        self.audit_failures = 0;
        // A route missing from an inconsistent dump is not necessarily lost.
        if consistent {
            self.fib.audit_end();
        } else {
            self.audit_soon();
        }
        self.fib.finish();
        self.write().await;
        self.sweep().await;
    }
}

/// A route of ours in a dump.
pub(super) struct OwnRoute {
    pub(super) seen: SeenRoute,
    pub(super) kind: crate::net::RouteKind,
}

/// Checks table and protocol again, since a kernel without strict checking dumps everything.
pub(super) fn own_route(message: &Message<'_>, ours: wire::Ours) -> Option<OwnRoute> {
    if message.kind != wire::kind::NEW_ROUTE {
        return None;
    }
    let seen = wire::route(message.body)?;
    let kind = seen.kind?.kind()?;
    (seen.table == ours.table && seen.protocol == ours.protocol && !seen.cloned)
        .then_some(OwnRoute { seen, kind })
}
