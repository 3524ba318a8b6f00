//! Runs one task per neighbor and one per listening socket, and assigns incoming connections to
//! neighbors.

mod incoming;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::{self, AbortHandle, JoinError, JoinSet},
    time,
};
use tracing::error;

use self::incoming::like;
use super::{
    Act, Leaving, PeerEvent, ToPeers, UnknownNeighbor, Wanted,
    listener::{self, Call, Device, Passwords, Ports, Terms},
    peer::{self, News, Start, ToTask},
    rib::{RibSender, ToRib},
};
use crate::{
    bgp::{
        contest::{Contest, Ruling},
        md5::{Dropped, Suspect, accuse},
        peer::{DownCause, PeerConfig, PeerId, PeerKey, PeerSource, Secret},
        session::{Handover, Stop},
        view::NeighborView,
    },
    liveness,
    net::{Convergence, Links, Prefix},
    supervise::pause_after,
};

/// Commands queued for one neighbor's task, which reads them without long delays.
const MAX_QUEUED_COMMANDS: usize = 32;
/// How long to wait for the status of a neighbor, which is left out afterwards.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long closing all sessions may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of log messages about connections from unknown addresses.
const STRANGER_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Queued reports of neighbors' tasks.
const MAX_QUEUED_NEWS: usize = 256;
/// How long a connection waits for room in its listen-range, until an evictable neighbor is found.
const PLACE_TIMEOUT: Duration = Duration::from_millis(300);
/// Connections that may wait for room.
const MAX_WAITING_CONNECTIONS: usize = 64;
const FULL: &str = "the limit of its listen-range is reached";
const ON_LINK: &str = "the limit of unnumbered neighbors on its interface is reached";

/// One neighbor's task.
struct Running {
    id: PeerId,
    config: Arc<PeerConfig>,
    commands: mpsc::Sender<ToTask>,
    /// A stop was requested: the neighbor is no longer configured, or needs a new task.
    ending: bool,
    panics: u32,
}

struct Manager {
    wanted: Arc<Wanted>,
    rib: RibSender,
    host: watch::Receiver<Arc<Links>>,
    liveness: liveness::Client,
    /// Removed neighbors that stay until their successors have a session.
    handover: Handover,
    events: broadcast::Sender<PeerEvent>,
    peers: BTreeMap<PeerKey, Running>,
    /// `neighbor disable`, for as long as the daemon runs.
    disabled: BTreeSet<PeerKey>,
    tasks: JoinSet<PeerKey>,
    keys: HashMap<task::Id, PeerKey>,
    next_id: u32,
    listeners: BTreeMap<(SocketAddr, Option<Device>), AbortHandle>,
    ports: Ports,
    terms: watch::Sender<Arc<Terms>>,
    calls: mpsc::Sender<Call>,
    news: mpsc::Sender<(PeerKey, News)>,
    /// Neighbors whose attempts fail otherwise than by a timeout.
    reachable: BTreeSet<PeerKey>,
    contest: Contest,
    /// Connections that wait for room in their listen-range.
    waiting: VecDeque<(Call, time::Instant)>,
    strangers: u64,
    /// Receives unknown addresses that connected, for the choice of neighbors.
    to_planner: mpsc::Sender<IpAddr>,
    /// Receives unknown link-local addresses that connected, for the discovery of unnumbered
    /// neighbors.
    on_link: mpsc::Sender<(u32, Ipv6Addr)>,
    strangers_logged: Option<Instant>,
    leaving: Option<Leaving>,
}

type Inputs = (watch::Receiver<Arc<Links>>, watch::Receiver<Arc<Convergence>>, liveness::Client, Ports);

/// Runs until shutdown.
pub(super) async fn run(
    mut wanted: watch::Receiver<Arc<Wanted>>,
    (host, mut convergence, liveness, ports): Inputs,
    rib: RibSender,
    events: broadcast::Sender<PeerEvent>,
    (to_planner, on_link): (mpsc::Sender<IpAddr>, mpsc::Sender<(u32, Ipv6Addr)>),
    mut requests: mpsc::Receiver<ToPeers>,
    mut leave: oneshot::Receiver<Leaving>,
) {
    let (calls, mut called) = mpsc::channel(64);
    let (news, mut reports) = mpsc::channel(MAX_QUEUED_NEWS);
    let first = wanted.borrow_and_update().clone();
    let mut manager = Manager {
        wanted: first,
        rib,
        host,
        liveness,
        handover: Handover::default(),
        events,
        peers: BTreeMap::new(),
        disabled: BTreeSet::new(),
        tasks: JoinSet::new(),
        keys: HashMap::new(),
        next_id: 1,
        listeners: BTreeMap::new(),
        ports,
        terms: watch::Sender::new(Arc::default()),
        calls,
        news,
        reachable: BTreeSet::new(),
        contest: Contest::default(),
        waiting: VecDeque::new(),
        strangers: 0,
        to_planner,
        on_link,
        strangers_logged: None,
        leaving: None,
    };
    manager.apply().await;
    let (mut open, mut counted) = (true, true);
    loop {
        let due = manager.handover.poll_timeout();
        let until = manager.waiting.front().map(|(_, until)| *until);
        tokio::select! {
            left = &mut leave => return manager.leave(left.unwrap_or(Leaving::Daemon)).await,
            changed = wanted.changed(), if open => {
                open = changed.is_ok();
                manager.wanted = wanted.borrow_and_update().clone();
                manager.apply().await;
            }
            changed = convergence.changed(), if counted => {
                counted = changed.is_ok();
                manager.handover.converged(Instant::now(), &convergence.borrow_and_update());
            }
            () = time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                for key in manager.handover.due(Instant::now()) {
                    manager.stop(&key, Stop::Moved).await;
                }
            }
            Some(call) = called.recv() => manager.on_connection(call).await,
            Some(request) = requests.recv() => manager.request(request).await,
            Some(ended) = manager.tasks.join_next_with_id() => manager.ended(ended).await,
            Some((key, news)) = reports.recv() => manager.on_news(&key, news),
            () = passed(until) => manager.reject_first_waiting(),
        }
    }
}

impl Manager {
    /// Applies the wanted configuration to tasks, listeners and passwords.
    async fn apply(&mut self) {
        let wanted = self.wanted.clone();
        self.set_terms();
        self.listen(&wanted.listen);
        let strangers: Vec<_> =
            self.peers.iter().filter(|(k, p)| !self.is_wanted(k, p)).map(|(k, _)| k.clone()).collect();
        self.handover.wanted(&wanted.peers);
        for key in strangers {
            let Some(config) = self.peers.get(&key).filter(|r| !r.ending).map(|r| r.config.clone()) else {
                continue;
            };
            let known = |key: &PeerKey| self.peers.contains_key(key);
            if !self.handover.stays(Instant::now(), &config, &wanted.peers, known) {
                self.stop(&key, Stop::Removed).await;
            } else if let Some(running) = self.peers.get(&key) {
                let _ = running.commands.send(ToTask::HandOver).await;
            }
        }
        for (key, config) in &wanted.peers {
            self.keep(key, config.clone()).await;
        }
        let dynamic: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, p)| p.config.source == PeerSource::Range)
            .map(|(k, _)| k.clone())
            .collect();
        for key in dynamic {
            if let Some(range) = key.addr().and_then(|addr| self.range(addr)) {
                let config = Arc::new(like(range, key.clone()));
                self.keep(&key, config).await;
            }
        }
        // Waiting connections may be admitted now.
        self.admit_waiting().await;
    }

    fn is_wanted(&self, key: &PeerKey, peer: &Running) -> bool {
        let in_range = || key.addr().is_some_and(|addr| self.range(addr).is_some());
        self.wanted.peers.contains_key(key) || peer.config.source == PeerSource::Range && in_range()
    }

    /// Starts a neighbor's task, or passes changed settings to it.
    async fn keep(&mut self, key: &PeerKey, config: Arc<PeerConfig>) {
        let global = self.wanted.global.clone();
        match self.peers.get_mut(key) {
            // This is called again when the task has ended.
            Some(running) if running.ending => {}
            Some(running) => {
                let changed = running.config != config;
                running.config = config.clone();
                if changed {
                    let _ = self.rib.send(ToRib::Peer { peer: running.id, config: config.clone() }).await;
                }
                let _ = running.commands.send(ToTask::Configure(config, global)).await;
            }
            None => {
                let id = PeerId(self.next_id);
                self.next_id += 1;
                let _ = self.rib.send(ToRib::Peer { peer: id, config: config.clone() }).await;
                self.begin(id, config, 0);
            }
        }
    }

    fn begin(&mut self, id: PeerId, config: Arc<PeerConfig>, panics: u32) {
        let key = config.key.clone();
        let (commands, inbox) = mpsc::channel(MAX_QUEUED_COMMANDS);
        let start = Start {
            id,
            config: config.clone(),
            global: self.wanted.global.clone(),
            disabled: self.disabled.contains(&key),
            rib: self.rib.clone(),
            host: self.host.clone(),
            liveness: self.liveness.clone(),
            events: self.events.clone(),
            news: self.news.clone(),
            commands: inbox,
            seed: RandomState::new().hash_one(id.0),
        };
        let name = key.clone();
        let task = self.tasks.spawn(async move {
            if panics > 0 {
                time::sleep(pause_after(panics)).await;
            }
            peer::run(start).await;
            name
        });
        self.keys.insert(task.id(), key.clone());
        self.peers.insert(key, Running { id, config, commands, ending: false, panics });
    }

    async fn stop(&mut self, key: &PeerKey, stop: Stop) {
        if let Some(running) = self.peers.get_mut(key).filter(|r| !r.ending) {
            running.ending = true;
            let _ = running.commands.send(ToTask::Stop(stop)).await;
        }
    }

    /// A task ended: as requested, because its dynamic neighbor was forgotten, or by a panic.
    async fn ended(&mut self, ended: Result<(task::Id, PeerKey), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(running) = self.keys.remove(&id).and_then(|key| self.peers.remove(&key)) else { return };
        if self.leaving.is_some() {
            return;
        }
        self.reachable.remove(&running.config.key);
        let rulings = self.contest.gone(&running.config.key);
        self.carry_out(rulings);
        let (peer, key) = (running.id, running.config.key.clone());
        match ended {
            Err(e) if e.is_panic() && !running.ending => {
                error!(neighbor = %key, "neighbor task panicked, restarting it; please report this bug");
                let _ = self.rib.send(ToRib::Down { peer, cause: DownCause::Closed }).await;
                self.begin(peer, running.config, running.panics + 1);
            }
            _ => {
                let _ = self.rib.send(ToRib::Gone { peer }).await;
                if let Some(config) = self.wanted.peers.get(&key).cloned() {
                    self.keep(&key, config).await;
                }
            }
        }
        // A waiting connection may get this place.
        self.admit_waiting().await;
    }

    fn carry_out(&self, rulings: impl IntoIterator<Item = Ruling>) {
        for ruling in rulings {
            let (who, command) = match ruling {
                Ruling::Yield { who, to } => {
                    let why = format!(
                        "no connection to {who} while {to} has a session: they are one router, which closes one \
                         session for the other"
                    );
                    (who, ToTask::Yield(why))
                }
                Ruling::Resume(who) => (who, ToTask::Resume),
            };
            if let Some(running) = self.peers.get(&who) {
                let _ = running.commands.try_send(command);
            }
        }
    }

    /// Handles a report of a neighbor's task. To which neighbor dropped MD5 signatures belong is
    /// found out from all reports together.
    fn on_news(&mut self, key: &PeerKey, news: News) {
        let dropped = match news {
            News::Reachable => {
                self.reachable.insert(key.clone());
                return;
            }
            News::Up(router) => {
                self.reachable.insert(key.clone());
                let ruling = self.contest.began(Instant::now(), key, router);
                return self.carry_out(ruling);
            }
            News::Silent(dropped) => dropped,
            News::Lost => {
                let rulings = self.contest.ended(Instant::now(), key);
                self.carry_out(rulings);
                Dropped::default()
            }
        };
        self.reachable.remove(key);
        let suspect =
            |config: &PeerConfig, replies| Suspect { has_password: config.password.is_some(), replies };
        let ranges = self.wanted.ranges.iter();
        let mut all: BTreeMap<String, Suspect> =
            ranges.map(|r| (format!("a neighbor in {}", r.prefix), suspect(&r.template, false))).collect();
        let neighbors = self.peers.iter();
        all.extend(neighbors.map(|(k, p)| (k.to_string(), suspect(&p.config, self.reachable.contains(k)))));
        if let Some(text) = accuse(&key.to_string(), dropped, &all)
            && let Some(running) = self.peers.get(key)
        {
            let _ = running.commands.try_send(ToTask::Hint(text));
        }
    }

    /// One socket for each address, and one for each link whose passwords differ from those of
    /// other links.
    fn listen(&mut self, addrs: &[SocketAddr]) {
        let apart = self.terms.borrow().apart.clone();
        let all = |a: &&SocketAddr| matches!(a, SocketAddr::V6(a) if a.ip().is_unspecified());
        let single = addrs.iter().filter(all).flat_map(|a| apart.iter().map(move |d| (*a, Some(d.clone()))));
        let wanted: BTreeSet<_> = addrs.iter().map(|a| (*a, None)).chain(single).collect();
        self.listeners.retain(|place, task| {
            let keep = wanted.contains(place);
            if !keep {
                task.abort();
            }
            keep
        });
        self.ports.retain(addrs);
        for (addr, device) in wanted {
            self.listeners.entry((addr, device.clone())).or_insert_with(|| {
                let listener = listener::run(
                    addr,
                    device,
                    self.terms.subscribe(),
                    self.calls.clone(),
                    self.ports.clone(),
                );
                tokio::spawn(listener).abort_handle()
            });
        }
    }

    fn set_terms(&self) {
        let mut passwords = Passwords::new();
        for range in &self.wanted.ranges {
            if let Some(password) = &range.template.password {
                passwords.insert((range.prefix, None), password.clone());
            }
        }
        for (key, config) in &self.wanted.peers {
            let who = match key {
                PeerKey::Address(addr) => Some((Prefix::host(*addr), None)),
                PeerKey::LinkLocal(addr, interface) => {
                    Some((Prefix::host((*addr).into()), Some(interface.clone())))
                }
                PeerKey::Interface(_) => None,
            };
            if let (Some(who), Some(password)) = (who, &config.password) {
                passwords.insert(who, password.clone());
            }
        }
        let templates = self.wanted.ranges.iter().map(|r| &*r.template);
        let configs = templates.chain(self.wanted.peers.values().map(|c| &**c));
        let least_ttl = configs.map(|c| c.hops.least_ttl().unwrap_or(0)).min().unwrap_or(0);
        let terms = Terms { passwords, apart: self.apart(), least_ttl };
        self.terms.send_if_modified(|now| {
            let changed = **now != terms;
            *now = Arc::new(terms);
            changed
        });
    }

    /// Links with a neighbor whose link-local address has another password, or none, on another
    /// link.
    fn apart(&self) -> BTreeSet<Device> {
        let mut by_address: BTreeMap<Ipv6Addr, Vec<(&String, &Option<Secret>)>> = BTreeMap::new();
        for (key, config) in &self.wanted.peers {
            if let PeerKey::LinkLocal(addr, interface) = key {
                by_address.entry(*addr).or_default().push((interface, &config.password));
            }
        }
        let differ = |list: &&Vec<(&String, &Option<Secret>)>| list.iter().any(|(_, p)| **p != *list[0].1);
        let links = by_address.values().filter(differ).flatten();
        let number = |name: &String| nix::net::if_::if_nametoindex(name.as_str()).ok();
        links.filter_map(|(name, _)| Some(((*name).clone(), number(name)?))).collect()
    }

    async fn request(&mut self, request: ToPeers) {
        match request {
            ToPeers::Status { reply } => self.status(reply).await,
            ToPeers::Act { neighbor, act, reply } => {
                let _ = reply.send(self.act(&neighbor, act).await);
            }
            ToPeers::RetryNow => {
                for running in self.peers.values() {
                    let _ = running.commands.try_send(ToTask::RetryNow);
                }
            }
        }
    }

    async fn act(&mut self, neighbor: &PeerKey, act: Act) -> Result<(), UnknownNeighbor> {
        let unknown = || UnknownNeighbor(neighbor.to_string());
        let running = self.peers.get(neighbor).filter(|r| !r.ending).ok_or_else(unknown)?;
        match act {
            Act::Disable { .. } => drop(self.disabled.insert(neighbor.clone())),
            Act::Enable => drop(self.disabled.remove(neighbor)),
            Act::Reset { .. } | Act::Refresh => {}
        }
        running.commands.send(ToTask::Act(act)).await.map_err(|_| unknown())
    }

    /// Requests the views of all tasks; they are collected in a task of their own, so that the
    /// manager goes on.
    async fn status(&self, reply: oneshot::Sender<Vec<NeighborView>>) {
        let mut replies = Vec::with_capacity(self.peers.len());
        for running in self.peers.values() {
            let (tx, rx) = oneshot::channel();
            let _ = running.commands.try_send(ToTask::Status(tx));
            replies.push(rx);
        }
        tokio::spawn(async move {
            let deadline = time::Instant::now() + STATUS_TIMEOUT;
            let mut views = Vec::with_capacity(replies.len());
            for view in replies {
                if let Ok(Ok(view)) = time::timeout_at(deadline, view).await {
                    views.push(view);
                }
            }
            let _ = reply.send(views);
        });
    }

    /// Listeners first, then the sessions.
    async fn leave(mut self, leaving: Leaving) {
        self.leaving = Some(leaving);
        self.listeners.values().for_each(AbortHandle::abort);
        let stop = match leaving {
            Leaving::Daemon => Stop::Leaving,
            Leaving::Machine => Stop::Halting,
        };
        for key in self.peers.keys().cloned().collect::<Vec<_>>() {
            self.stop(&key, stop.clone()).await;
        }
        let _ = time::timeout(STOP_TIMEOUT, async { while self.tasks.join_next().await.is_some() {} }).await;
    }
}

/// Waits until then, or for ever if there is no deadline. Cancel safe.
async fn passed(until: Option<time::Instant>) {
    match until {
        Some(until) => time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
