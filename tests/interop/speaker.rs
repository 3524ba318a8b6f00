//! Our end: peer manager, sessions and sockets in a namespace, with the test in place of the rib.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use routelet::{
    bgp::{
        io::{
            self, Act, Leaving, ToPeers, Wanted,
            rib::{OutboxSender, ToPeer, ToRib},
        },
        peer::{DownCause, Global, Negotiated, OwnAddresses, PeerConfig, PeerKey, RemoteAs},
        view::NeighborView,
        wire::{
            attr::{Attrs, PathNextHop},
            pack::Packer,
            update::{Nlri, NlriBlock},
        },
    },
    net::{Asn, Family, Prefix},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};

use crate::common::{PATIENCE, net::Ns};

pub const OURS: Asn = 65001;
pub const THEIRS: Asn = 65002;

/// An eBGP neighbor at `addr`, spoken to from `own`.
pub fn neighbor(addr: &str, own: &str) -> PeerConfig {
    let key = PeerKey::Address(addr.parse().unwrap());
    PeerConfig {
        local_address: Some(own.parse().unwrap()),
        hold_time: 9,
        connect_retry_time: Duration::from_secs(1),
        idle_hold_time: Duration::from_secs(1),
        max_prefixes: 1000,
        own: OwnAddresses { v4: None, v6: Some("2001:db8:1::1".parse().unwrap()), link_local: None },
        ..PeerConfig::new(key, RemoteAs::External, OURS)
    }
}

/// The sessions of one namespace.
pub struct Speaker {
    handle: io::Handle,
    rib: mpsc::Receiver<ToRib>,
    /// Of the session that is up.
    outbox: Option<(Arc<Negotiated>, OutboxSender)>,
    pub prefixes: BTreeSet<Prefix>,
    pub end_of_rib: BTreeSet<Family>,
    pub refreshes: usize,
    pub down: Option<DownCause>,
    _wanted: watch::Sender<Arc<Wanted>>,
}

/// Runs `test` with a speaker that has this one neighbor, in `ns`.
pub fn with_speaker(ns: &Ns, config: PeerConfig, test: impl AsyncFnOnce(Speaker) + Send) {
    ns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Speaker::start(config)).await });
    });
}

impl Speaker {
    fn start(config: PeerConfig) -> Self {
        let router_id = [10, 0, 0, 1].into();
        let global = Global {
            asn: OURS,
            router_id,
            cluster_id: router_id,
            max_paths: 64,
            multipath_relax: true,
            restarting: false,
        };
        let wanted = Wanted {
            global,
            listen: ["0.0.0.0:179", "[::]:179"].map(|a| a.parse().unwrap()).to_vec(),
            peers: BTreeMap::from([(config.key.clone(), Arc::new(config))]),
            ranges: vec![],
            unnumbered: Default::default(),
        };
        let (sender, rib) = mpsc::channel(io::rib::RIB_QUEUE_LENGTH);
        let (wanted, watch) = watch::channel(Arc::new(wanted));
        Self {
            handle: io::spawn(
                watch,
                watch::channel(Arc::default()).1,
                watch::channel(Arc::default()).1,
                sender,
                routelet::liveness::channel().0,
                io::Owners::new(),
            ),
            rib,
            outbox: None,
            prefixes: BTreeSet::new(),
            end_of_rib: BTreeSet::new(),
            refreshes: 0,
            down: None,
            _wanted: wanted,
        }
    }

    /// Plays the rib until `done`.
    pub async fn until(&mut self, what: &str, seconds: u64, mut done: impl FnMut(&Self) -> bool) {
        let deadline = time::Instant::now() + Duration::from_secs(seconds.max(30));
        while !done(self) {
            match time::timeout_at(deadline, self.rib.recv()).await {
                Ok(Some(message)) => self.take(message),
                _ => panic!("not within {seconds} s: {what}: {:#?}", self.view().await),
            }
        }
    }

    fn take(&mut self, message: ToRib) {
        match message {
            ToRib::Up { negotiated, outbox, .. } => self.outbox = Some((negotiated, outbox)),
            ToRib::Updates { updates, .. } => {
                for update in updates {
                    assert_eq!(update.flaws, []);
                    let nlri = |block: &NlriBlock| block.iter().map(|n| n.prefix).collect::<Vec<_>>();
                    for prefix in update.withdrawn.iter().flat_map(nlri) {
                        self.prefixes.remove(&prefix);
                    }
                    self.prefixes.extend(update.advertised.iter().flat_map(|(_, b)| nlri(b)));
                    self.end_of_rib.extend(update.end_of_rib);
                }
            }
            ToRib::Refresh { .. } => self.refreshes += 1,
            ToRib::Down { cause, .. } => (self.down, self.outbox) = (Some(cause), None),
            _ => {}
        }
    }

    /// Waits for these prefixes and the End-of-RIB of both families. (FRR also sends us our own back.)
    pub async fn table(&mut self, prefixes: &[&str]) {
        let wanted: BTreeSet<Prefix> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        self.until("their table", 15, |s| s.prefixes.is_superset(&wanted) && s.end_of_rib.len() == 2).await;
    }

    pub async fn up(&mut self) -> Arc<Negotiated> {
        self.until("the session is up", 15, |s| s.outbox.is_some()).await;
        self.outbox.as_ref().unwrap().0.clone()
    }

    /// Announces prefixes with `next_hop`, then End-of-RIB.
    pub fn announce(&self, next_hop: &str, prefixes: &[&str]) {
        let (negotiated, outbox) = self.outbox.as_ref().unwrap();
        let (shape, mut out) = (negotiated.shape(), BytesMut::new());
        let mut attrs = Attrs::new(PathNextHop { addr: next_hop.parse().unwrap(), link_local: None });
        attrs.as_path = attrs.as_path.prepended(OURS, 1);
        let mut packer = Packer::new(&shape, &mut out);
        for text in prefixes {
            let prefix: Prefix = text.parse().unwrap();
            packer.advertise(&attrs, prefix.family(), [Nlri { path_id: 0, prefix }]).unwrap();
        }
        for family in &negotiated.families {
            packer.end_of_rib(*family);
        }
        let messages = packer.messages();
        outbox.push(ToPeer::Transmit { bytes: out.freeze(), messages });
    }

    pub async fn view(&self) -> NeighborView {
        let (reply, answer) = oneshot::channel();
        self.handle.requests.send(ToPeers::Status { reply }).await.unwrap();
        answer.await.unwrap().pop().unwrap()
    }

    pub async fn act(&self, neighbor: &str, act: Act) {
        let (reply, answer) = oneshot::channel();
        let neighbor = PeerKey::Address(neighbor.parse().unwrap());
        self.handle.requests.send(ToPeers::Act { neighbor, act, reply }).await.unwrap();
        answer.await.unwrap().unwrap();
    }

    /// Waits for something outside while the sessions go on.
    pub async fn wait_for(&mut self, what: &str, seconds: f64, mut check: impl FnMut() -> bool) {
        let seconds = seconds.max(PATIENCE);
        let start = Instant::now();
        while !check() {
            assert!(start.elapsed().as_secs_f64() < seconds, "not within {seconds} s: {what}");
            time::sleep(Duration::from_millis(50)).await;
        }
        while let Ok(message) = self.rib.try_recv() {
            self.take(message);
        }
    }

    pub async fn leave(self) {
        self.handle.shutdown(Leaving::Daemon).await;
    }
}
