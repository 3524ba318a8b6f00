//! Two peer managers over real sockets on the loopback; the ribs are channels that the test reads.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use super::{rib::ToPeer, *};
use crate::{
    bgp::{
        io::rib::ToRib,
        peer::{Bfd, DownCause, Hops, RemoteAs, Secret},
        view::SessionState,
    },
    net::{Asn, BfdReport, BfdStatus, Family},
};

/// One speaker: a manager and the far end of its rib channel.
struct Speaker {
    handle: Handle,
    rib: mpsc::Receiver<ToRib>,
    wanted: watch::Sender<Arc<Wanted>>,
}

fn neighbor(addr: IpAddr, port: u16, own: IpAddr, asn: Asn) -> PeerConfig {
    PeerConfig {
        local_address: Some(own),
        port,
        hold_time: 9,
        connect_retry_time: Duration::from_secs(1),
        idle_hold_time: Duration::from_secs(1),
        graceful_restart: false,
        max_prefixes: 1000,
        ..PeerConfig::new(PeerKey::Address(addr), RemoteAs::External, asn)
    }
}

fn wanted(id: u8, own: SocketAddr, asn: Asn, peers: Vec<PeerConfig>) -> Wanted {
    let router_id = [10, 0, 0, id].into();
    Wanted {
        global: Global {
            asn,
            router_id,
            cluster_id: router_id,
            max_paths: 64,
            multipath_relax: true,
            restarting: false,
        },
        listen: vec![own],
        peers: peers.into_iter().map(|c| (c.key.clone(), Arc::new(c))).collect(),
        ranges: vec![],
        unnumbered: Default::default(),
    }
}

fn speaker(wanted: Wanted) -> Speaker {
    speaker_with(wanted, liveness::channel().0)
}

fn speaker_with(wanted: Wanted, liveness: liveness::Client) -> Speaker {
    let (sender, rib) = mpsc::channel(16);
    let (wanted, watch) = watch::channel(Arc::new(wanted));
    Speaker {
        handle: spawn(
            watch,
            watch::channel(Arc::default()).1,
            watch::channel(Arc::default()).1,
            sender,
            liveness,
            Owners::new(),
        ),
        rib,
        wanted,
    }
}

impl Speaker {
    async fn next(&mut self) -> ToRib {
        timeout(Duration::from_secs(20), self.rib.recv()).await.expect("in time").expect("the manager lives")
    }

    /// Waits for the session, and returns the way back from the rib.
    async fn up(&mut self) -> rib::OutboxSender {
        loop {
            if let ToRib::Up { outbox, .. } = self.next().await {
                return outbox;
            }
        }
    }

    async fn down(&mut self) -> DownCause {
        loop {
            if let ToRib::Down { cause, .. } = self.next().await {
                return cause;
            }
        }
    }

    async fn views(&self) -> Vec<NeighborView> {
        let (reply, result) = oneshot::channel();
        self.handle.requests.send(ToPeers::Status { reply }).await.unwrap();
        result.await.unwrap()
    }

    async fn act(&self, key: &PeerKey, act: Act) -> Result<(), UnknownNeighbor> {
        let (reply, result) = oneshot::channel();
        self.handle.requests.send(ToPeers::Act { neighbor: key.clone(), act, reply }).await.unwrap();
        result.await.unwrap()
    }

    /// Waits until the view of the only neighbor is as it should be.
    async fn until(&self, what: &str, is: impl Fn(&NeighborView) -> bool) -> NeighborView {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let views = self.views().await;
            if let Some(view) = views.iter().find(|v| is(v)) {
                return view.clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "never saw {what}: {views:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A free port on an address of this test.
fn place(addr: [u8; 4]) -> SocketAddr {
    std::net::TcpListener::bind((IpAddr::from(addr), 0)).unwrap().local_addr().unwrap()
}

fn pair(a: SocketAddr, b: SocketAddr, change: impl Fn(&mut PeerConfig)) -> (Wanted, Wanted) {
    let mut to_b = neighbor(b.ip(), b.port(), a.ip(), 65001);
    let mut to_a = neighbor(a.ip(), a.port(), b.ip(), 65002);
    change(&mut to_b);
    change(&mut to_a);
    (wanted(1, a, 65001, vec![to_b]), wanted(2, b, 65002, vec![to_a]))
}

const END_OF_RIB: &[u8] =
    &[255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 23, 2, 0, 0, 0, 0];

#[tokio::test]
async fn two_speakers_exchange_updates_and_take_their_leave() {
    let (a, b) = (place([127, 0, 1, 1]), place([127, 0, 1, 2]));
    let (for_a, for_b) = pair(a, b, |_| {});
    let (mut a, mut b) = (speaker(for_a), speaker(for_b));
    let outbox = a.up().await;
    b.up().await;
    // More than the sockets, the channel and the outbox hold: the reader stops, and nothing is
    // lost.
    let (chunk, chunks) = (Bytes::from(END_OF_RIB.repeat(1000)), 400);
    let writer = async {
        for _ in 0..chunks {
            while !outbox.has_room() {
                while !matches!(a.next().await, ToRib::Drained { .. }) {}
            }
            outbox.push(ToPeer::Transmit { bytes: chunk.clone(), messages: 1000 });
        }
    };
    let reader = async {
        let (mut seen, mut held, mut waited) = (0, Vec::new(), false);
        while seen < 1000 * chunks {
            if let ToRib::Updates { updates, room, .. } = b.next().await {
                assert!(updates.iter().all(|u| u.end_of_rib == Some(Family::Ipv4Unicast)));
                seen += updates.len();
                held.push(room);
            }
            if held.len() == peer::MAX_READS_IN_FLIGHT {
                if !waited {
                    let third = timeout(Duration::from_millis(300), b.rib.recv()).await;
                    assert!(third.is_err(), "more than {} reads under way", held.len());
                }
                waited = true;
                held.clear();
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(writer, reader);
    assert_eq!(seen, 400_000);
    let view = &b.views().await[0];
    assert_eq!((view.state, view.messages_received["update"]), (SessionState::Established, 400_000));
    assert!(view.since.ends_with('Z'), "{}", view.since);

    let key = PeerKey::Address([127, 0, 1, 2].into());
    a.act(&key, Act::Disable { message: Some("maintenance".into()) }).await.unwrap();
    assert_eq!(b.down().await, DownCause::Received { hard: false });
    let view =
        b.until("the text", |v| v.last_error.as_ref().is_some_and(|e| e.contains("maintenance"))).await;
    assert_eq!(view.drops["notification-received"], 1);
    assert_eq!(a.views().await[0].state, SessionState::Disabled);
    a.act(&key, Act::Enable).await.unwrap();
    a.up().await;
    b.up().await;
    a.handle.shutdown(Leaving::Daemon).await;
    b.until("the farewell", |v| v.last_error.as_ref().is_some_and(|e| e.contains("routelet stops"))).await;
    let unknown = b.act(&key, Act::Enable).await;
    assert_eq!(unknown, Err(UnknownNeighbor("127.0.1.2".into())));
}

#[tokio::test]
async fn a_neighbor_that_is_disabled_while_away_takes_its_routes_along() {
    let (a, b) = (place([127, 0, 7, 1]), place([127, 0, 7, 2]));
    let (for_a, _) = pair(a, b, |_| {});
    let mut a = speaker(for_a);
    a.until("a refusal", |v| v.last_error.is_some()).await;
    a.act(&PeerKey::Address([127, 0, 7, 2].into()), Act::Disable { message: None }).await.unwrap();
    assert_eq!(a.down().await, DownCause::Administrative);
}

/// RFC 5882 §4.3.2: by the neighbor's C bit.
#[tokio::test]
async fn a_loss_during_a_restart_counts_if_bfd_is_independent() {
    let (a, b) = (place([127, 0, 8, 1]), place([127, 0, 8, 2]));
    let (for_a, for_b) = pair(a, b, |c| {
        c.graceful_restart = true;
        c.hops = Hops::Multihop(2);
        c.bfd = Some(Bfd::default());
    });
    let (client, mut requests) = liveness::channel();
    let (mut a, mut b) = (speaker_with(for_a, client), speaker(for_b));
    a.up().await;
    b.up().await;
    let (_, request) = requests.take().await.into_iter().next().unwrap();
    let reports = request.expect("the neighbor is watched").reports;
    let report = |status, failures, independent| {
        reports.send_replace(BfdReport { status, failures, diagnostic: 1, independent });
    };
    report(BfdStatus::Up, 0, false);
    a.until("BFD is up", |v| v.bfd.as_deref() == Some("up")).await;
    b.handle.shutdown(Leaving::Daemon).await;
    assert_eq!(a.down().await, DownCause::Closed);
    report(BfdStatus::Down, 1, false);
    a.until("BFD is down", |v| v.bfd.as_deref() == Some("down")).await;
    let mut news = Vec::new();
    while let Ok(message) = a.rib.try_recv() {
        news.push(format!("{message:?}"));
    }
    assert!(!news.iter().any(|n| n.starts_with("Down")), "its BFD restarts with it: {news:?}");
    report(BfdStatus::Down, 2, true);
    assert_eq!(a.down().await, DownCause::Administrative);
}

#[tokio::test]
async fn passwords_must_match() {
    let (a, b) = (place([127, 0, 2, 1]), place([127, 0, 2, 2]));
    let (for_a, for_b) = pair(a, b, |c| c.password = Some(Secret("right".into())));
    let mut wrong = for_b.clone();
    for config in wrong.peers.values_mut() {
        Arc::make_mut(config).password = Some(Secret("wrong".into()));
    }
    let (mut a, mut b) = (speaker(for_a), speaker(wrong));
    let seen = a.until("a suspicion", |v| v.last_error.as_ref().is_some_and(|e| e.contains("MD5"))).await;
    assert_ne!(seen.state, SessionState::Established);
    b.wanted.send_replace(Arc::new(for_b));
    a.up().await;
    b.up().await;
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_named() {
    let (a, b) = (place([127, 0, 3, 1]), place([127, 0, 3, 2]));
    let (for_a, _) = pair(a, b, |_| {});
    let a = speaker(for_a);
    let refused = format!("connection refused: nothing listens on {b}");
    a.until("the refusal", |v| v.last_error.as_deref() == Some(&refused)).await;
}

#[tokio::test]
async fn callers_of_a_range_become_neighbors_up_to_its_limit_and_strangers_none() {
    let (leaf, one, two) = (place([127, 0, 4, 1]), place([127, 0, 4, 2]), place([127, 0, 4, 3]));
    let stranger = place([127, 0, 5, 1]);
    let mut for_leaf = wanted(1, leaf, 65001, vec![]);
    let template = neighbor(leaf.ip(), 179, leaf.ip(), 65001);
    for_leaf.ranges = vec![Range {
        prefix: "127.0.4.0/24".parse().unwrap(),
        limit: 1,
        template: Arc::new(PeerConfig { password: None, ..template }),
    }];
    let mut leaf_speaker = speaker(for_leaf);
    let host = |id, own: SocketAddr| {
        speaker(wanted(id, own, 65002, vec![neighbor(leaf.ip(), leaf.port(), own.ip(), 65002)]))
    };
    let mut first = host(2, one);
    first.up().await;
    leaf_speaker.up().await;
    for (id, own) in [(3, two), (4, stranger)] {
        host(id, own)
            .until("the refusal", |v| {
                v.last_notification_received.as_ref().is_some_and(|n| n.contains("connection rejected"))
            })
            .await;
    }
    let views = leaf_speaker.views().await;
    assert_eq!(
        views.iter().map(|v| (v.address.as_str(), v.source.as_str())).collect::<Vec<_>>(),
        [("127.0.4.2", "range")]
    );
}

#[tokio::test]
async fn a_removed_neighbor_gets_a_cease_and_is_forgotten() {
    let (a, b) = (place([127, 0, 6, 1]), place([127, 0, 6, 2]));
    let (for_a, for_b) = pair(a, b, |_| {});
    let (mut a, mut b) = (speaker(for_a.clone()), speaker(for_b));
    a.up().await;
    b.up().await;
    a.wanted.send_replace(Arc::new(Wanted { peers: BTreeMap::new(), ..for_a.clone() }));
    assert_eq!(a.down().await, DownCause::Administrative);
    assert!(matches!(a.next().await, ToRib::Gone { .. }));
    b.until("the reason", |v| v.last_error.as_ref().is_some_and(|e| e.contains("de-configured"))).await;
    assert!(a.views().await.is_empty());
    a.wanted.send_replace(Arc::new(for_a));
    a.up().await;
}

#[tokio::test]
async fn a_neighbor_at_a_new_address_replaces_at_once_one_that_has_no_routes() {
    let (a, b, other) = (place([127, 0, 9, 1]), place([127, 0, 9, 2]), place([127, 0, 9, 3]));
    let (for_a, for_b) = pair(a, b, |c| c.graceful_restart = true);
    let (for_other, _) = pair(a, other, |c| c.graceful_restart = true);
    let mut a = speaker(for_other.clone());
    a.until("an attempt", |v| v.last_error.is_some()).await;
    a.wanted.send_replace(Arc::new(for_a));
    a.until("the new one", |v| v.address == "127.0.9.2").await;
    assert_eq!(a.views().await.len(), 1);

    let b = speaker(for_b);
    a.up().await;
    a.wanted.send_replace(Arc::new(for_other.clone()));
    a.until("the other one", |v| v.address == "127.0.9.3").await;
    assert_eq!(a.views().await.len(), 2, "it has a session");
    b.handle.shutdown(Leaving::Daemon).await;
    assert_eq!(a.down().await, DownCause::Closed);
    a.wanted.send_replace(Arc::new(Wanted { unnumbered: ["eth0".into()].into(), ..for_other }));
    a.until("the other one", |v| v.address == "127.0.9.3").await;
    assert_eq!(a.views().await.len(), 2, "the table keeps its routes");
}
