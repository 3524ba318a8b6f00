//! A node's table: the real `Rib`, with what the daemon's task would do around it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use routelet::{
    bgp::{
        peer::{DownCause, Global, Negotiated, PeerConfig, PeerId},
        rib::{Event, Input, Rib},
        session,
        wire::update::Update,
    },
    net::{Family, Guard, NextHops, Origination, Prefix, Reach, Reachable, Source},
};

/// One node's table.
pub struct Router {
    pub rib: Rib,
    global: Global,
    peers: BTreeMap<usize, Arc<PeerConfig>>,
    pub own: BTreeSet<Prefix>,
    guard: Arc<Guard>,
    /// What the kernel would hold.
    pub fib: BTreeMap<Prefix, Arc<NextHops>>,
    /// What the kernel lost since the start.
    pub losses: Vec<Prefix>,
    awake: bool,
    alarm: Option<Instant>,
}

fn peer(them: usize) -> PeerId {
    PeerId(them as u32 + 1)
}

/// Everybody is on one link.
pub fn link() -> Reachable {
    let connected = |addr: IpAddr, len| (Prefix::new(addr, len).unwrap(), Reach::Connected { ifindex: 2 });
    Reachable::new(vec![
        connected(Ipv4Addr::new(10, 0, 0, 0).into(), 16),
        connected(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0).into(), 64),
    ])
}

impl Router {
    pub fn new(
        now: Instant,
        global: Global,
        peers: BTreeMap<usize, Arc<PeerConfig>>,
        own: BTreeSet<Prefix>,
    ) -> Self {
        let rib = Rib::new(now, global.clone());
        let mut this = Self {
            rib,
            global,
            peers,
            own,
            guard: Arc::default(),
            fib: BTreeMap::new(),
            losses: vec![],
            awake: false,
            alarm: None,
        };
        this.reborn(now, false);
        this
    }

    /// A new process: it knows its settings and nothing else.
    pub fn reborn(&mut self, now: Instant, restarting: bool) {
        self.rib = Rib::new(now, Global { restarting, ..self.global.clone() });
        self.fib.clear();
        (self.awake, self.alarm) = (false, None);
        self.rib.handle(now, Input::Reachable(Arc::new(link())));
        self.rib.handle(now, Input::Guard(self.guard.clone()));
        for (them, config) in &self.peers {
            self.rib.handle(now, Input::Peer { peer: peer(*them), config: config.clone() });
        }
        self.originate(now);
    }

    /// Tells the table what `own` holds.
    pub fn originate(&mut self, now: Instant) {
        let origination = Origination {
            source: Source::PodCidr,
            med: None,
            communities: vec![],
            large_communities: vec![],
            ext_communities: vec![],
        };
        let own = self.own.iter().map(|p| (*p, origination.clone())).collect();
        self.rib.handle(now, Input::Originated(Arc::new(own)));
    }

    /// What must not be accepted from now on.
    pub fn guard(&mut self, now: Instant, guard: Arc<Guard>) {
        self.guard = guard;
        self.rib.handle(now, Input::Guard(self.guard.clone()));
    }

    pub fn configure(&mut self, now: Instant, them: usize, config: Arc<PeerConfig>) {
        self.peers.insert(them, config.clone());
        self.rib.handle(now, Input::Peer { peer: peer(them), config });
    }

    pub fn forget(&mut self, now: Instant, them: usize) {
        self.peers.remove(&them);
        self.rib.handle(now, Input::Gone { peer: peer(them) });
    }

    pub fn up(&mut self, now: Instant, them: usize, negotiated: Arc<Negotiated>) {
        self.rib.handle(now, Input::Up { peer: peer(them), negotiated });
    }

    pub fn down(&mut self, now: Instant, them: usize, cause: DownCause) {
        self.rib.handle(now, Input::Down { peer: peer(them), cause });
    }

    pub fn updates(&mut self, now: Instant, them: usize, updates: &[Update]) {
        for update in updates {
            self.rib.handle(now, Input::Update { peer: peer(them), update });
        }
    }

    pub fn refresh(&mut self, now: Instant, them: usize, family: Family, subtype: u8) {
        self.rib.handle(now, Input::Refresh { peer: peer(them), family, subtype });
    }

    /// Whether a turn must be arranged: there is none yet.
    pub fn awakened(&mut self) -> bool {
        !std::mem::replace(&mut self.awake, true)
    }

    /// Decides; the answer is for the sessions.
    pub fn turn(&mut self, now: Instant) -> Vec<(usize, session::Input<'static>)> {
        self.awake = false;
        if self.rib.poll_timeout().is_some_and(|due| due <= now) {
            self.rib.handle(now, Input::Timeout);
        }
        self.rib.run_decision_process();
        for (prefix, hops) in self.rib.take_fib() {
            match hops {
                Some(hops) => {
                    self.fib.insert(prefix, hops);
                }
                None => {
                    assert!(self.fib.remove(&prefix).is_some(), "{prefix} is removed twice");
                    self.losses.push(prefix);
                }
            }
        }
        let said = self.rib.take_events().into_iter().map(|(id, event)| {
            let input = match event {
                Event::RequestRefresh { family } => session::Input::RequestRefresh(family),
                Event::MaxPrefixes { family } => session::Input::MaxPrefixes(family),
                Event::MemoryLimit { octets, budget } => session::Input::MemoryLimit { octets, budget },
            };
            (id.0 as usize - 1, input)
        });
        said.collect()
    }

    pub fn behind(&self) -> Vec<usize> {
        self.rib.behind().into_iter().map(|id| id.0 as usize - 1).collect()
    }

    pub fn next_for(&mut self, them: usize) -> Option<(Bytes, u32)> {
        self.rib.next_for(peer(them))
    }

    /// The end of a turn; when to come back, if that is news.
    pub fn rest(&mut self) -> Option<Instant> {
        self.rib.trim();
        let due = self.rib.poll_timeout();
        (std::mem::replace(&mut self.alarm, due) != due).then_some(due).flatten()
    }
}
