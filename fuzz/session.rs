//! A neighbor that sends arbitrary octets to a whole session with its table.

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use routelet::{
    bgp::{
        peer::{AddPaths, AsSets, Global, OwnAddresses, PeerConfig, PeerId, PeerKey, RemoteAs},
        rib::{self, Rib},
        session::{Conn, Endpoints, Input, Output, Session},
        wire::framing,
    },
    net::{Reach, Reachable},
};

const PEER: PeerId = PeerId(1);
const CONN: Conn = Conn(1);

fn config(choice: u8) -> PeerConfig {
    PeerConfig {
        local_as: if choice & 2 == 0 { 65001 } else { 65002 },
        graceful_restart: choice & 4 == 0,
        transit: true,
        max_prefixes: 1000,
        add_paths: AddPaths { send: choice & 8 == 0, receive: choice & 8 == 0 },
        accept_default: true,
        allow_own_as: 1,
        as_sets: if choice & 16 == 0 { AsSets::Withdraw } else { AsSets::Accept },
        own: OwnAddresses { v4: Some([10, 0, 0, 1].into()), v6: None, link_local: None },
        ..PeerConfig::new(PeerKey::Address([10, 0, 0, 2].into()), RemoteAs::Any, 65001)
    }
}

/// A valid OPEN of AS 65002, and the KEEPALIVE that confirms ours.
fn greeting() -> Vec<u8> {
    let capabilities: &[u8] = &[
        1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 70, 0, 6, 0, 65, 4, 0, 0, 0xfd, 0xea, 69, 8, 0, 1, 1, 3, 0,
        2, 1, 3, 64, 10, 0, 120, 0, 1, 1, 0x80, 0, 2, 1, 0x80,
    ];
    let len = capabilities.len() as u8;
    let mut body = vec![4, 0xfd, 0xea, 0, 90, 10, 0, 0, 2, len + 2, 2, len];
    body.extend(capabilities);
    let mut out = vec![0xff; 16];
    out.extend([0, 19 + body.len() as u8, 1]);
    out.extend(body);
    out.extend([0xff; 16]);
    out.extend([0, 19, 4]);
    out
}

/// The session, its table, and their invariants.
struct World {
    now: std::time::Instant,
    session: Session,
    rib: Rib,
    up: bool,
    open: bool,
}

impl World {
    fn feed(&mut self, input: Input<'_>) {
        self.session.handle(self.now, input);
        self.obey();
        self.rib.run_decision_process();
        while self.up
            && let Some((bytes, messages)) = self.rib.next_for(PEER)
        {
            self.session.handle(self.now, Input::Send { bytes, messages });
            self.obey();
        }
        self.rib.trim();
    }

    fn obey(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Transmit(conn, bytes) => {
                    assert!(self.open && conn == CONN, "speaks on a closed connection");
                    self.session.handle(self.now, Input::Sent(conn, bytes.len()));
                }
                Output::Close(_) => self.open = false,
                Output::Up(negotiated) => {
                    assert!(!std::mem::replace(&mut self.up, true), "two Ups without a Down");
                    self.rib.handle(self.now, rib::Input::Up { peer: PEER, negotiated });
                }
                Output::Down { cause, .. } => {
                    assert!(std::mem::replace(&mut self.up, false), "a Down without an Up");
                    self.rib.handle(self.now, rib::Input::Down { peer: PEER, cause });
                }
                Output::Updates(list) => {
                    assert!(self.up, "UPDATEs before Up");
                    for update in &list {
                        self.rib.handle(self.now, rib::Input::Update { peer: PEER, update });
                    }
                }
                Output::Refresh { family, subtype } => {
                    self.rib.handle(self.now, rib::Input::Refresh { peer: PEER, family, subtype });
                }
                Output::Connect
                | Output::AbortConnect { .. }
                | Output::KeepSource(_)
                | Output::Probe(_)
                | Output::LeastTtl(..)
                | Output::Held { .. }
                | Output::Event(_) => {}
            }
        }
    }
}

/// The first octet chooses settings and how the rest, the stream, is split.
#[allow(clippy::disallowed_methods, reason = "an epoch")]
pub(crate) fn session(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else { return };
    let now = std::time::Instant::now();
    let config = Arc::new(config(*choice));
    let router_id = [10, 0, 0, 1].into();
    let global = Global {
        asn: 65001,
        router_id,
        cluster_id: router_id,
        max_paths: 64,
        multipath_relax: true,
        restarting: false,
    };
    let mut rib = Rib::new(now, global.clone());
    let link = ("10.0.0.0/8".parse().expect("a prefix"), Reach::Connected { ifindex: 2 });
    rib.handle(now, rib::Input::Reachable(Arc::new(Reachable::new(vec![link]))));
    rib.handle(now, rib::Input::Peer { peer: PEER, config: config.clone() });
    let session = Session::new(now, config, global, 7);
    let mut world = World { now, session, rib, up: false, open: true };
    world.feed(Input::Start);
    let address = |n| SocketAddr::from(([10, 0, 0, n], 179));
    world.feed(Input::Connected(
        CONN,
        Endpoints { local: address(1), remote: address(2), ifindex: 0, ttl: None },
    ));
    // In most cases the session is established when the stream starts.
    let mut buffer = BytesMut::new();
    if choice & 1 == 0 {
        buffer.extend_from_slice(&greeting());
        world.feed(Input::Received(CONN, &mut buffer));
        assert!(world.up, "a good OPEN and a KEEPALIVE");
    }
    let piece = if choice & 32 == 0 { stream.len().max(1) } else { 1 + usize::from(choice >> 6) * 20 };
    for piece in stream.chunks(piece) {
        if !world.open {
            break;
        }
        buffer.extend_from_slice(piece);
        world.feed(Input::Received(CONN, &mut buffer));
        assert!(!world.open || buffer.len() <= framing::MAX_EXTENDED, "a message is never kept waiting");
    }
    // Whatever was sent, nothing is left of it in the end.
    if world.open {
        world.open = false;
        world.feed(Input::Closed(CONN, None));
    }
    assert!(!world.up);
    world.rib.handle(now, rib::Input::Gone { peer: PEER });
    world.rib.run_decision_process();
    assert!(world.rib.routes(now, &rib::RouteFilter::default()).is_empty(), "routes of nobody");
}
