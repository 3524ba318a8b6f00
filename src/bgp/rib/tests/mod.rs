//! What the rib's tests share, and tests of the whole.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use super::{table::OWN, *};
use crate::{
    bgp::{
        peer::{MaxPrefixesAction, OwnAddresses, PeerKey, PeerSource, RemoteAs},
        wire::{
            attr::{AsPath, Attrs, Origin, PathNextHop},
            update::Nlri,
        },
    },
    net::{Asn, PerFamily, RouterId},
};

pub(crate) fn attrs(med: u32) -> Attrs {
    Attrs {
        origin: Origin::Igp,
        as_path: AsPath::empty(),
        next_hop: PathNextHop { addr: "10.0.0.9".parse().unwrap(), link_local: None },
        med: (med > 0).then_some(med),
        local_pref: None,
        communities: Box::default(),
        extra: None,
    }
}

pub(crate) fn global() -> Global {
    Global {
        asn: 65000,
        router_id: RouterId::new(10, 0, 0, 1),
        cluster_id: RouterId::new(10, 0, 0, 1),
        max_paths: 64,
        multipath_relax: true,
        restarting: false,
    }
}

/// The address of neighbor `n`.
pub(crate) fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + 10 + n)
}

pub(crate) fn config(n: u32) -> Arc<PeerConfig> {
    Arc::new(PeerConfig {
        own: OwnAddresses { v4: Some(Ipv4Addr::new(10, 0, 0, 1)), v6: None, link_local: None },
        ..PeerConfig::new(PeerKey::Address(address(n).into()), RemoteAs::Any, 65000)
    })
}

pub(crate) fn negotiated(n: u32, remote_as: Asn) -> Negotiated {
    Negotiated {
        remote_as,
        remote_id: address(n),
        local_as: 65000,
        local_addr: Ipv4Addr::new(10, 0, 0, 1).into(),
        remote_addr: address(n).into(),
        ifindex: 0,
        hold_time: 90,
        four_octet_as: true,
        extended_messages: false,
        families: Family::ALL.to_vec(),
        extended_next_hop: false,
        add_path_receive: PerFamily::both(false),
        add_path_send: PerFamily::both(false),
        route_refresh: true,
        enhanced_refresh: false,
        graceful: None,
        kept_over_restart: false,
        role: None,
    }
}

mod behaviour;
mod duplicate;
mod exchange;
mod explain;
mod field;
mod guard;
mod memory;
mod model;
mod neighbor;
mod nodes;
mod order;
mod policy;
mod recursion;
mod relink;
mod walk;

/// A rib with a virtual clock and neighbors whose received octets are decoded again.
pub(crate) struct Bench {
    pub(crate) rib: Rib,
    pub(crate) now: Instant,
    pub(crate) fib: BTreeMap<Prefix, Arc<NextHops>>,
    /// What each neighbor holds, from the octets it was sent.
    pub(crate) sent: BTreeMap<u32, BTreeMap<Prefix, Attrs>>,
    /// The same path by path, for neighbors with ADD-PATH.
    pub(crate) paths: BTreeMap<u32, BTreeMap<(Prefix, u32), Attrs>>,
    pub(crate) end_of_ribs: BTreeMap<u32, usize>,
    pub(crate) sessions: BTreeMap<u32, Negotiated>,
    pub(crate) withdrawals: usize,
    /// Prefixes in the order in which they were sent.
    pub(crate) order: BTreeMap<u32, Vec<Prefix>>,
    /// Subtypes of the ROUTE-REFRESH messages that were sent.
    pub(crate) marks: Vec<u8>,
}

pub(crate) fn prefix(n: u32) -> Prefix {
    Prefix::v4(Ipv4Addr::from_bits(0x1400_0000 + (n << 8)), 24)
}

/// A path as neighbor `n` with this number would send it.
pub(crate) fn path(n: u32, remote_as: Asn) -> Attrs {
    let mut path = Attrs::new(std::net::IpAddr::from(address(n)).into());
    if remote_as == 65000 {
        path.local_pref = Some(100);
    } else {
        path.as_path = AsPath::sequence(&[remote_as]);
    }
    path
}

impl Bench {
    pub(crate) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "an epoch")]
        let now = Instant::now();
        let mut rib = Rib::new(now, global());
        let connected = vec![("10.0.0.0/24".parse().unwrap(), Reach::Connected { ifindex: 2 })];
        rib.handle(now, Input::Reachable(Arc::new(Reachable::new(connected))));
        Self {
            rib,
            now,
            fib: BTreeMap::new(),
            sent: BTreeMap::new(),
            paths: BTreeMap::new(),
            end_of_ribs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            withdrawals: 0,
            order: BTreeMap::new(),
            marks: vec![],
        }
    }

    pub(crate) fn configure(&mut self, n: u32, config: Arc<PeerConfig>) {
        self.rib.handle(self.now, Input::Peer { peer: PeerId(n), config });
    }

    pub(crate) fn up(&mut self, n: u32, session: Negotiated) {
        self.sent.insert(n, BTreeMap::new());
        self.paths.insert(n, BTreeMap::new());
        self.end_of_ribs.insert(n, 0);
        self.sessions.insert(n, session.clone());
        self.rib.handle(self.now, Input::Up { peer: PeerId(n), negotiated: Arc::new(session) });
    }

    /// A configured neighbor that is up.
    pub(crate) fn neighbor(&mut self, n: u32, remote_as: Asn, change: impl FnOnce(&mut PeerConfig)) {
        let mut config = (*config(n)).clone();
        change(&mut config);
        self.configure(n, Arc::new(config));
        self.up(n, negotiated(n, remote_as));
    }

    pub(crate) fn down(&mut self, n: u32, cause: DownCause) {
        self.sent.remove(&n);
        self.rib.handle(self.now, Input::Down { peer: PeerId(n), cause });
    }

    /// Through the codec, as a session would.
    pub(crate) fn announce(&mut self, n: u32, attrs: &Attrs, prefixes: &[Prefix]) {
        self.announce_path(n, 0, attrs, prefixes);
    }

    pub(crate) fn announce_path(&mut self, n: u32, path_id: u32, attrs: &Attrs, prefixes: &[Prefix]) {
        self.feed(n, |packer| {
            let nlri = prefixes.iter().map(|p| Nlri { path_id, prefix: *p });
            packer.advertise(attrs, prefixes[0].family(), nlri).unwrap();
        });
    }

    pub(crate) fn withdraw(&mut self, n: u32, prefixes: &[Prefix]) {
        self.withdraw_path(n, 0, prefixes);
    }

    pub(crate) fn withdraw_path(&mut self, n: u32, path_id: u32, prefixes: &[Prefix]) {
        self.feed(n, |packer| {
            let nlri = prefixes.iter().map(|p| Nlri { path_id, prefix: *p });
            packer.withdraw(prefixes[0].family(), nlri);
        });
    }

    pub(crate) fn end_of_rib(&mut self, n: u32, family: Family) {
        self.feed(n, |packer| packer.end_of_rib(family));
    }

    /// As the neighbor sees the session: it sends with path identifiers what we receive with them.
    fn shape(&self, n: u32) -> crate::bgp::wire::Shape {
        let session = &self.sessions[&n];
        let (add_path_send, add_path_receive) = (session.add_path_receive, session.add_path_send);
        crate::bgp::wire::Shape { first_as: None, add_path_receive, add_path_send, ..session.shape() }
    }

    fn feed(&mut self, n: u32, write: impl FnOnce(&mut crate::bgp::wire::pack::Packer<'_>)) {
        let shape = self.shape(n);
        let mut octets = bytes::BytesMut::new();
        write(&mut crate::bgp::wire::pack::Packer::new(&shape, &mut octets));
        let ours = crate::bgp::wire::Shape { first_as: None, ..self.sessions[&n].shape() };
        let mut decoder = crate::bgp::wire::update::Decoder::new(ours);
        while let Some(frame) = crate::bgp::wire::framing::split(&mut octets, false).unwrap() {
            let update = decoder.decode(&frame.body).unwrap();
            assert!(update.flaws.is_empty(), "{:?}", update.flaws);
            self.rib.handle(self.now, Input::Update { peer: PeerId(n), update: &update });
        }
    }

    pub(crate) fn originate(&mut self, prefixes: &[Prefix]) {
        self.originate_as(&prefixes.iter().map(|p| (*p, crate::net::Source::PodCidr)).collect::<Vec<_>>());
    }

    pub(crate) fn originate_as(&mut self, prefixes: &[(Prefix, crate::net::Source)]) {
        let origination = |source| Origination {
            source,
            med: None,
            communities: vec![],
            large_communities: vec![],
            ext_communities: vec![],
        };
        let own = prefixes.iter().map(|(p, source)| (*p, origination(*source))).collect();
        self.rib.handle(self.now, Input::Originated(Arc::new(own)));
    }

    /// Decides; what follows reaches the fib, but no neighbor yet.
    pub(crate) fn decide(&mut self) {
        self.rib.run_decision_process();
        for (prefix, hops) in self.rib.take_fib() {
            match hops {
                Some(hops) => self.fib.insert(prefix, hops),
                None => self.fib.remove(&prefix),
            };
        }
    }

    /// Gives one neighbor one batch, if it is up.
    pub(crate) fn pull(&mut self, n: u32) -> bool {
        let Some((octets, messages)) = self.rib.next_for(PeerId(n)) else { return false };
        let mut decoder = crate::bgp::wire::update::Decoder::new(self.shape(n));
        let (Some(sent), Some(paths)) = (self.sent.get_mut(&n), self.paths.get_mut(&n)) else { return true };
        let mut octets = bytes::BytesMut::from(&octets[..]);
        let mut count = 0;
        while let Some(frame) = crate::bgp::wire::framing::split(&mut octets, false).unwrap() {
            count += 1;
            if frame.kind == crate::bgp::wire::framing::Kind::RouteRefresh {
                self.marks.push(frame.body[2]);
                continue;
            }
            let update = decoder.decode(&frame.body).unwrap();
            assert!(update.flaws.is_empty(), "{:?}", update.flaws);
            for nlri in update.withdrawn.iter().flat_map(|b| b.iter()) {
                self.withdrawals += 1;
                sent.remove(&nlri.prefix);
                paths.remove(&(nlri.prefix, nlri.path_id));
            }
            for (attrs, block) in &update.advertised {
                for nlri in block.iter() {
                    sent.insert(nlri.prefix, (**attrs).clone());
                    self.order.entry(n).or_default().push(nlri.prefix);
                    paths.insert((nlri.prefix, nlri.path_id), (**attrs).clone());
                }
            }
            *self.end_of_ribs.entry(n).or_default() += usize::from(update.end_of_rib.is_some());
        }
        assert_eq!(count, messages, "messages are counted");
        true
    }

    /// Until nothing is left to send.
    pub(crate) fn run(&mut self) {
        self.decide();
        for n in self.sent.keys().copied().collect::<Vec<_>>() {
            while self.pull(n) {}
        }
        self.rib.trim();
        assert_eq!(self.rib.behind(), []);
    }

    pub(crate) fn hops(&self, prefix: Prefix) -> Vec<String> {
        self.fib.get(&prefix).map_or(vec![], |h| h.gateways().iter().map(|g| g.addr.to_string()).collect())
    }

    /// Reasons of `show routes` for a prefix, by neighbor.
    pub(crate) fn reasons(&mut self, prefix: Prefix) -> BTreeMap<String, String> {
        let filter = RouteFilter { prefix: Some(prefix), ..RouteFilter::default() };
        let views = self.rib.routes(self.now, &filter);
        views.into_iter().map(|v| (v.neighbor.unwrap_or("own".into()), v.reason)).collect()
    }
}
