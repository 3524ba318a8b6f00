//! The thread of BFD: packets, timers and requests, in one loop with a runtime of its own.

use std::{
    collections::HashMap,
    future::poll_fn,
    time::{Duration, Instant},
};

use nix::net::if_::if_indextoname;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ScheduleParams, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time,
};

use super::{Lost, PriorityError, Request, Status, receive::Receivers, send::Sender};
use crate::{
    bfd::{Change, ClientId, Engine, Output, Watch, view::BfdView},
    liveness::{WatchRequest, WatchRequests},
    mailbox::Changes,
    net::{BfdPath, BfdReport, Diagnostic, Reason, Subject},
};

/// Above all threads of normal priority, below the kernel's own.
const PRIORITY: i32 = 10;
/// When nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) struct Outputs {
    pub(super) lost: watch::Sender<Lost>,
    pub(super) problems: watch::Sender<Vec<Diagnostic>>,
    pub(super) changes: broadcast::Sender<Change>,
}

struct Thread {
    engine: Engine,
    receivers: Receivers,
    senders: HashMap<u32, Sender, foldhash::fast::RandomState>,
    clients: HashMap<ClientId, watch::Sender<BfdReport>, foldhash::fast::RandomState>,
    /// Clients for which there is no session left.
    refused: Vec<(ClientId, WatchRequest)>,
    outputs: Outputs,
    out: Vec<Output>,
    realtime: Result<(), PriorityError>,
}

pub(super) fn run(
    first: Changes<ClientId, Option<WatchRequest>>,
    watch_requests: WatchRequests,
    requests: mpsc::Receiver<Request>,
    outputs: Outputs,
    seed: u64,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let text = format!("BFD does not run: {error}");
            let remedy = "raise the limit of open files and start routelet again";
            outputs.problems.send_replace(vec![super::not_running(text, remedy)]);
            return;
        }
    };
    runtime.block_on(async {
        let mut thread = Thread {
            engine: Engine::new(seed),
            receivers: Receivers::new(),
            senders: HashMap::default(),
            clients: HashMap::default(),
            refused: Vec::new(),
            outputs,
            out: Vec::new(),
            realtime: real_time(),
        };
        thread.watch_requests(first);
        thread.turn(watch_requests, requests).await;
    });
}

/// Needs CAP_SYS_NICE, or a limit of the service manager (`LimitRTPRIO`).
fn real_time() -> Result<(), PriorityError> {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::from_posix(ScheduleParams { sched_priority: PRIORITY });
    Ok(set_thread_priority_and_policy(thread_native_id(), priority, policy)?)
}

impl Thread {
    async fn turn(&mut self, mut watch_requests: WatchRequests, mut requests: mpsc::Receiver<Request>) {
        let mut held = false;
        loop {
            let now = Instant::now();
            let due = self.engine.poll_timeout().into_iter().chain(self.receivers.retry_at()).min();
            let due = due.unwrap_or(now + IDLE);
            // Cancel safe, each.
            tokio::select! {
                () = poll_fn(|cx| self.receivers.poll_ready(cx)) => {}
                () = time::sleep_until(due.into()) => {}
                changes = watch_requests.take(), if !held => self.watch_requests(changes),
                request = requests.recv() => match request {
                    Some(Request::Status(reply)) => drop(reply.send(self.status())),
                    Some(Request::Hold(reply)) => {
                        held = true;
                        let _ = reply.send(!self.senders.is_empty());
                    }
                    Some(Request::Stop(reply)) => {
                        // The clients are gone: each session informs its neighbor.
                        self.watch_requests(watch_requests.take_now());
                        let _ = reply.send(());
                        return;
                    }
                    None => return,
                },
            }
            self.packets();
            self.timers();
        }
    }

    /// Handles received packets before timers: if this thread was stopped, the neighbors' packets
    /// arrived in time nevertheless.
    fn packets(&mut self) {
        let Self { receivers, engine, out, .. } = self;
        receivers.drain(|arrival, octets| engine.receive(Instant::now(), arrival, octets, out));
        self.carry_out();
    }

    fn timers(&mut self) {
        let now = Instant::now();
        self.engine.timeout(now, &mut self.out);
        self.carry_out();
        if self.receivers.retry_at().is_some_and(|at| at <= now) {
            self.receivers.retry(now);
            self.publish_problems();
        }
    }

    fn watch_requests(&mut self, changes: Changes<ClientId, Option<WatchRequest>>) {
        let now = Instant::now();
        let again = std::mem::take(&mut self.refused);
        let again = again.into_iter().filter(|(client, _)| !changes.contains_key(client));
        let again: Vec<_> = again.map(|(client, request)| (client, Some(request))).collect();
        for (client, request) in changes.into_iter().chain(again) {
            let watch = request.as_ref().map(|w| Watch {
                path: w.path,
                params: w.params.clone(),
                proceed: w.proceed,
            });
            match &request {
                Some(request) => drop(self.clients.insert(client, request.reports.clone())),
                None => drop(self.clients.remove(&client)),
            }
            if let (Err(_), Some(request)) = (self.engine.watch(now, client, watch, &mut self.out), request) {
                self.refused.push((client, request));
            }
        }
        self.carry_out();
        self.publish_lost(now);
        self.publish_problems();
    }

    fn carry_out(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        let mut ports = false;
        // The task of the kernel's routes first: the sessions keep the RIB busy.
        if out.iter().any(|o| matches!(o, Output::Report { .. } | Output::Close { .. })) {
            self.publish_lost(Instant::now());
        }
        for output in out.drain(..) {
            match output {
                Output::Send { session, packet } => {
                    if let Some(sender) = self.senders.get_mut(&session) {
                        sender.send(packet.as_slice());
                    }
                }
                Output::Report { client, report } => {
                    if let Some(client) = self.clients.get(&client) {
                        client.send_if_modified(|last| std::mem::replace(last, report) != report);
                    }
                }
                Output::Changed(change) => drop(self.outputs.changes.send(change)),
                Output::Open { session, path } => {
                    self.receivers.hold(&path);
                    self.senders.insert(session, Sender::new(path, session));
                    ports = true;
                }
                Output::Close { session } => {
                    if let Some(sender) = self.senders.remove(&session) {
                        self.receivers.release(sender.path());
                    }
                    ports = true;
                }
            }
        }
        self.out = out;
        if ports {
            self.publish_problems();
        }
    }

    fn publish_lost(&self, now: Instant) {
        let lost = self.engine.lost(now);
        self.outputs.lost.send_if_modified(|last| {
            let changed = **last != lost;
            if changed {
                *last = lost.into();
            }
            changed
        });
    }

    fn publish_problems(&self) {
        let mut problems: Vec<_> = self.receivers.problems().cloned().collect();
        if !self.refused.is_empty() {
            problems.push(Diagnostic::new(
                Reason::BfdSessionLimit,
                Subject::host(),
                format!(
                    "{} neighbors have no BFD: there are {} sessions at most",
                    self.refused.len(),
                    crate::bfd::MAX_SESSIONS
                ),
                "remove `bfd` from some neighbors",
            ));
        }
        self.outputs.problems.send_if_modified(|last| {
            let changed = *last != problems;
            *last = problems;
            changed
        });
    }

    fn status(&self) -> Status {
        let views = self.engine.views(Instant::now());
        Status {
            sessions: views.into_iter().map(|(id, path, view)| self.described(id, &path, view)).collect(),
            totals: self.engine.totals(),
            realtime: Some(self.realtime.clone()),
        }
    }

    fn described(&self, id: u32, path: &BfdPath, view: BfdView) -> BfdView {
        let name = |ifindex| Some(if_indextoname(ifindex).ok()?.to_string_lossy().into_owned());
        let sending = || self.senders.get(&id)?.problem.clone();
        let interface = (!path.is_multihop()).then(|| name(path.ifindex)).flatten();
        BfdView {
            interface,
            problem: self.receivers.problem(path).map(Diagnostic::line).or_else(sending),
            ..view
        }
    }
}
