//! Metrics and probes.

use std::{collections::BTreeMap, fs, sync::atomic::Ordering::Relaxed};

use nix::{
    sys::{
        resource::{Resource, UsageWho, getrlimit, getrusage},
        time::TimeVal,
    },
    unistd::{SysconfVar, sysconf},
};

use super::{QueryHandler, page::event_stream};
use crate::{
    bfd::view::BfdView,
    cni::view::ConflistState,
    control::io::http::{Page, Reply},
    fib::io::{BUCKETS, Counters, Outcome},
    metrics::{self, Cluster, Latency, Process, Snapshot},
    net::{Diagnostic, Family, Reason, Severity},
};

impl QueryHandler {
    /// `/metrics` and the probes.
    pub(in crate::daemon) async fn page(self, page: Page) -> Reply {
        match page {
            // Any response shows that the process is alive.
            Page::Livez => Reply::Text { ok: true, text: "alive\n".into() },
            Page::Startupz => Reply::Text { ok: true, text: "started\n".into() },
            Page::Readyz => {
                let ok = *self.ready.borrow();
                let missing = if ok { None } else { self.missing(&self.neighbors().await) };
                let text = missing.map_or_else(|| "ready\n".into(), |what| format!("not ready: {what}\n"));
                Reply::Text { ok, text }
            }
            Page::Status { .. } | Page::Events { .. } if !self.has_status_page() => Reply::Absent,
            Page::Status { search } => Reply::Text { ok: true, text: self.status_page(&search).await },
            Page::Events { after } => Reply::Stream(event_stream(after)),
            Page::Metrics(format) => {
                Reply::Text { ok: true, text: metrics::text(self.snapshot().await, format) }
            }
        }
    }

    async fn snapshot(&self) -> Snapshot {
        let neighbors = self.neighbors().await;
        let mut snapshot = Snapshot {
            problems: by_reason(&self.diagnostics(&neighbors)),
            neighbors,
            counts: self.counts().await,
            operations: operations(&self.counters),
            repairs: self.counters.repairs.load(Relaxed),
            convergence: convergence(&self.counters),
            bfd: self.bfd_metrics().await,
            reload: self.last_reload(),
            ready: *self.ready.borrow(),
            drained: self.drainer.is_drained(),
            process: self.process(),
            ..Snapshot::default()
        };
        let installed = self.fib.counts().await;
        for family in Family::ALL {
            snapshot.fib_routes.insert(family, installed[family] as u64);
        }
        if let Some(kubernetes) = &self.kubernetes {
            let nodes = kubernetes.nodes.borrow();
            let known = nodes.others.len() + usize::from(nodes.own.is_some());
            snapshot.kubernetes =
                Some(Cluster { connected: kubernetes.api.borrow().connected, nodes: known as u64 });
            let conflist = kubernetes.conflist.borrow();
            snapshot.conflist = conflist.path.clone().filter(|_| conflist.state == ConflistState::Written);
        }
        snapshot
    }

    fn last_reload(&self) -> metrics::Reload {
        let report = self.reloaded.borrow();
        metrics::Reload { successful: report.successful, at: report.at }
    }

    /// The kernel's counters of this process.
    fn process(&self) -> Process {
        let started = self.started.parse::<jiff::Timestamp>().ok();
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let times = usage.map(|usage| [usage.user_time(), usage.system_time()]);
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let process = Process {
            cpu_seconds: times.map(|times| times.into_iter().map(seconds).sum()),
            // One of the entries is the open folder itself.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| (files.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            started: started.map(|at| at.as_microsecond() as f64 / 1e6),
            ..Process::default()
        };
        let page =
            sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|octets| u64::try_from(octets).ok());
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        process.with_memory(&statm, page.unwrap_or(4096))
    }

    async fn bfd_metrics(&self) -> metrics::Bfd {
        let status = self.bfd.status().await;
        let name = |view: &BfdView| match &view.interface {
            Some(interface) if view.neighbor.starts_with("fe80:") => format!("{}%{interface}", view.neighbor),
            _ => view.neighbor.clone(),
        };
        metrics::Bfd {
            sessions: status.sessions.into_iter().map(|view| (name(&view), view)).collect(),
            discarded: status.totals.discarded,
        }
    }
}

/// The number of problems of each kind.
fn by_reason(problems: &[Diagnostic]) -> BTreeMap<(Reason, Severity), u64> {
    let mut counts = BTreeMap::new();
    for problem in problems {
        *counts.entry((problem.reason, problem.severity)).or_default() += 1;
    }
    counts
}

/// Counters by operation and result.
fn operations(counters: &Counters) -> Vec<(&'static str, &'static str, u64)> {
    let all = [("replace", &counters.put), ("delete", &counters.del), ("nexthop", &counters.nexthop)];
    let both = |(name, outcome): (&'static str, &Outcome)| {
        [(name, "ok", outcome.ok.load(Relaxed)), (name, "error", outcome.error.load(Relaxed))]
    };
    all.into_iter().flat_map(both).collect()
}

fn convergence(counters: &Counters) -> Latency {
    let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
    Latency {
        sum: counters.convergence_sum_micros.load(Relaxed) as f64 / 1e6,
        buckets: bounds.zip(&counters.convergence).map(|(le, n)| (le, n.load(Relaxed))).collect(),
    }
}
