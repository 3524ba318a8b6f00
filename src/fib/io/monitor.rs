//! Turns the kernel's notifications into [`Host`] snapshots, and reports changes that other
//! programs make to keys we use.
//!
//! A link that goes down is published at once. Other changes are published at most every few
//! milliseconds, so that a burst of them makes one snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use socket2::{SockFilter, SockRef};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{Place, Settings, change::Switch, netlink};
use crate::{
    fib::{
        foreign::{Arrival, Foreign, Loss},
        former::Location,
        host::{Host, Link, RouteType},
        nexthop,
        route::{Held, OWN_METRIC, SeenObject, SeenRoute},
        wire::{self, kind},
    },
    mailbox::{self, publish},
    net::Prefix,
    netlink::{
        decode::{Message, messages},
        flag,
        io::{self as sockets, Channel, Protocol},
    },
};

/// RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE, _NEXTHOP.
const GROUPS: [u32; 6] = [1, 5, 7, 9, 11, 32];
const RECEIVE_BUFFER: usize = 16 << 20;
/// Octets; room for one notification.
const DATAGRAM: usize = 32 << 10;
const MAIN_TABLE: u32 = 254;
const LOCAL_TABLE: u32 = 255;
const RTPROT_KERNEL: u8 = 2;

/// Time between snapshots for changes that can wait.
const COALESCE: Duration = Duration::from_millis(10);
/// Time between complete dumps after notifications were lost or routes may have been removed
/// without one.
const RESYNC: Duration = Duration::from_millis(200);

/// State of the task.
pub(super) struct Monitor {
    socket: sockets::Monitor,
    /// For dumps; none after one has failed.
    reader: Option<Channel>,
    settings: Settings,
    /// Locations of former configurations.
    former: Vec<Location>,
    /// Port of the socket we write with; notifications of our own changes are ignored.
    own_port: u32,
    links: BTreeMap<u32, Link>,
    foreign: Foreign,
    holders: BTreeSet<Place>,
    drops: u32,
    lost_addresses: u32,
    overruns: u32,
    publish: watch::Sender<Arc<Host>>,
    observations: mailbox::Sender<Place, Held>,
    /// Whether something changed since the last snapshot; `urgent`: a link in use went down.
    changed: bool,
    urgent: bool,
    resync: Option<Resync>,
    /// Whether the last attempt to read everything again failed.
    failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Resync {
    Routes,
    All,
}

impl Monitor {
    /// Opens the socket and reads everything once.
    pub(super) async fn start(
        settings: Settings,
        former: Vec<Location>,
        own_port: u32,
        observations: mailbox::Sender<Place, Held>,
    ) -> io::Result<(Self, watch::Receiver<Arc<Host>>)> {
        let (publish, host) = watch::channel(Arc::default());
        let mut monitor = Self {
            socket: subscribe(own_port, settings.protocol)?,
            reader: Some(Channel::open(Protocol::ROUTE)?),
            settings,
            former,
            own_port,
            links: BTreeMap::new(),
            foreign: Foreign::default(),
            holders: BTreeSet::new(),
            drops: 0,
            lost_addresses: 0,
            overruns: 0,
            publish,
            observations,
            changed: true,
            urgent: true,
            resync: None,
            failed: false,
        };
        monitor.read_all().await?;
        monitor.publish();
        Ok((monitor, host))
    }

    pub(super) async fn run(mut self, mut switches: mpsc::Receiver<Switch>) {
        let mut published = Instant::now();
        let mut resynced = Instant::now();
        let mut buf = Vec::with_capacity(DATAGRAM);
        loop {
            buf.reserve(DATAGRAM);
            if self.urgent || self.changed && published.elapsed() >= COALESCE {
                self.publish();
                published = Instant::now();
            }
            let publish_at = self.changed.then(|| published + COALESCE);
            let resync_at = self.resync.map(|_| resynced + RESYNC);
            let due = publish_at.into_iter().chain(resync_at).min();
            // Cancel safe: a datagram is read completely or not at all, and a sleep has no state.
            tokio::select! {
                first = self.socket.receive(&mut buf) => {
                    self.received(first, &buf);
                    buf.clear();
                    self.drain(&mut buf).await;
                    buf.clear();
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                Some(switch) = switches.recv() => self.switch(switch).await,
            }
            if self.resync.is_some() && resynced.elapsed() >= RESYNC {
                if self.urgent {
                    // A dump takes long if there are many routes; the other tasks can act on what
                    // is known.
                    self.publish();
                    published = Instant::now();
                }
                tokio::task::yield_now().await;
                self.resynchronize().await;
                resynced = Instant::now();
            }
        }
    }

    /// Other routes are ours from now on. Notifications that come meanwhile are lost, so
    /// everything is read again.
    async fn switch(&mut self, switch: Switch) {
        let Switch { settings, former, done } = switch;
        match subscribe(self.own_port, settings.protocol) {
            Ok(socket) => self.socket = socket,
            Err(error) => {
                warn!(%error, "cannot open another socket for notifications; the former one is used")
            }
        }
        (self.settings, self.former) = (settings, former);
        self.overrun();
        if let Err(error) = self.read_all().await {
            debug!(%error, "cannot read the kernel's tables; retrying");
        }
        self.publish();
        let _ = done.send(());
    }

    fn publish(&mut self) {
        (self.changed, self.urgent) = (false, false);
        let host = Host {
            links: self.links.clone(),
            routes: self.foreign.routes(),
            drops: self.drops,
            lost_addresses: self.lost_addresses,
            overruns: self.overruns,
        };
        publish(&self.publish, Arc::new(host));
    }

    /// Reads the notifications that are available, and yields now and then.
    async fn drain(&mut self, buf: &mut Vec<u8>) {
        for turn in 1u32.. {
            buf.clear();
            buf.reserve(DATAGRAM);
            match self.socket.try_receive(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                result => self.received(result, buf),
            }
            if self.urgent {
                self.publish();
            }
            if turn.is_multiple_of(256) {
                tokio::task::yield_now().await;
            }
        }
    }

    fn received(&mut self, result: io::Result<()>, datagram: &[u8]) {
        match result {
            Ok(()) => messages(datagram).for_each(|m| self.message(&m)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                debug!(error = %e, "netlink notifications lost");
                self.overrun();
            }
        }
    }

    fn overrun(&mut self) {
        self.overruns = self.overruns.wrapping_add(1);
        self.resync = Some(Resync::All);
        self.changed = true;
    }

    fn message(&mut self, message: &Message<'_>) {
        match message.kind {
            kind::NEW_ROUTE | kind::DEL_ROUTE => {
                if let Some(route) = wire::route(message.body) {
                    self.route(route, message);
                }
            }
            kind::DEL_NEXTHOP | kind::NEW_NEXTHOP if message.port != self.own_port => {
                if let Some(object) = wire::object(message.body) {
                    self.object(object, message.kind == kind::NEW_NEXTHOP);
                }
            }
            _ => self.link_or_address(message.whole),
        }
    }

    /// An object is ours by its id: `ip nexthop replace` may give it another protocol number.
    fn object(&mut self, object: SeenObject, is_there: bool) {
        let protocol = self.settings.protocol;
        if object.protocol == protocol || nexthop::is_ours(object.id, protocol) {
            // Not urgent: a program that changes them in a loop triggers no more than a snapshot
            // per interval.
            self.drops = self.drops.wrapping_add(1);
            self.changed = true;
        }
        let used = match is_there {
            true => self.foreign.set_object(object),
            // The kernel may not notify of the routes that are deleted with it (docs/kernel.md,
            // section 2).
            false => self.foreign.remove_object(object.id),
        };
        if used {
            self.changed = true;
            if !is_there {
                self.resync = self.resync.max(Some(Resync::Routes));
            }
        }
    }

    /// Records that nexthop objects may have been deleted.
    fn dropped(&mut self) {
        self.drops = self.drops.wrapping_add(1);
        (self.changed, self.urgent) = (true, true);
    }

    fn link_or_address(&mut self, whole: &[u8]) {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(whole) else {
            return debug!("malformed link or address notification");
        };
        let NetlinkPayload::InnerMessage(message) = message.payload else { return };
        match message {
            RouteNetlinkMessage::NewLink(m) => self.new_link(netlink::link(&m)),
            RouteNetlinkMessage::DelLink(m) => {
                // A port that leaves its bridge is reported as deleted in the bridge family.
                let gone = u8::from(m.header.interface_family) == 0;
                if gone && let Some(link) = self.links.remove(&m.header.index) {
                    self.changed = true;
                    if self.is_used(&link) {
                        self.dropped();
                        self.lost(Loss::Link(link.index));
                    }
                }
            }
            RouteNetlinkMessage::NewAddress(m) => {
                let (link, address) = (self.links.get_mut(&m.header.index), netlink::address(&m));
                if let (Some(link), Some(address)) = (link, address) {
                    link.addresses
                        .retain(|a| (a.addr, a.len, a.peer) != (address.addr, address.len, address.peer));
                    link.addresses.push(address);
                    link.addresses.sort_unstable();
                    self.changed = true;
                }
            }
            RouteNetlinkMessage::DelAddress(m) => {
                let (link, address) = (self.links.get_mut(&m.header.index), netlink::address(&m));
                if let (Some(link), Some(address)) = (link, address) {
                    link.addresses
                        .retain(|a| (a.addr, a.len, a.peer) != (address.addr, address.len, address.peer));
                    self.lost_address(m.header.index, address.addr);
                }
            }
            _ => {}
        }
    }

    fn lost_address(&mut self, ifindex: u32, address: IpAddr) {
        self.changed = true;
        if !is_link_local(address) {
            self.lost_addresses = self.lost_addresses.wrapping_add(1);
        } else if self.is_bridge_port(ifindex) {
            return;
        }
        self.dropped();
        let mut left = self.links.get(&ifindex).into_iter().flat_map(|link| &link.addresses);
        let last = !left.any(|a| a.addr.is_ipv4());
        self.lost(Loss::Address { ifindex, addr: address, last });
    }

    /// Reads the routes again if some may be gone without a notification, ours or others'.
    fn lost(&mut self, loss: Loss) {
        if self.foreign.lose(loss) || !self.holders.is_empty() {
            self.resync = self.resync.max(Some(Resync::Routes));
        }
    }

    /// Whether routes or nexthop objects, ours or others', may go with a link. The ports of a
    /// bridge, such as those of pods, have no address but a link-local one, and no packet of this
    /// host leaves over them. Any other link that is up may be that of a next hop, even without an
    /// address.
    fn is_used(&self, link: &Link) -> bool {
        let used = match self.is_port_of_bridge(link) {
            true => link.addresses.iter().any(|a| !is_link_local(a.addr)),
            false => link.up || !link.addresses.is_empty(),
        };
        used || self.foreign.uses_link(link.index)
    }

    fn is_bridge_port(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(|link| self.is_port_of_bridge(link))
    }

    fn is_port_of_bridge(&self, link: &Link) -> bool {
        link.master.and_then(|master| self.links.get(&master)).is_some_and(|master| master.kind == "bridge")
    }

    fn new_link(&mut self, mut link: Link) {
        let old = self.links.remove(&link.index);
        let could_send = old.as_ref().is_some_and(|l| l.up && l.lower_up);
        let was_up = old.as_ref().is_some_and(|l| l.up);
        let used = old.as_ref().is_some_and(|l| self.is_used(l));
        if let Some(old) = old {
            if link.kind.is_empty() {
                link.kind = old.kind;
            }
            link.addresses = old.addresses;
            link.generation = old.generation;
        } else {
            link.generation = self.drops;
        }
        let can_send = link.up && link.lower_up;
        if could_send && !can_send && used {
            self.dropped();
            link.generation = self.drops;
        }
        if used && was_up && !link.up {
            self.lost(Loss::Link(link.index));
        } else if used && could_send && !can_send {
            self.lost(Loss::Carrier(link.index));
        } else if used && can_send && !could_send {
            self.urgent = true;
        }
        self.links.insert(link.index, link);
        self.changed = true;
    }

    fn route(&mut self, route: SeenRoute, message: &Message<'_>) {
        let added = message.kind == kind::NEW_ROUTE;
        let ours = route.protocol == self.settings.protocol;
        if let Some(place) = self.place(&route).filter(|_| message.port != self.own_port) {
            let held = match (added, ours) {
                (true, true) => Held::Ours { object: route.object },
                (true, false) => Held::Other { protocol: route.protocol },
                (false, _) => Held::Nobody,
            };
            self.hold(place, held);
        }
        if !self.is_ours(&route) && self.resolves(&route) {
            self.changed = true;
            let certain = match added {
                true => self.foreign.add(route, arrival(message.flags)),
                false => self.foreign.remove(&route),
            };
            if !certain {
                self.resync = self.resync.max(Some(Resync::Routes));
            }
        }
    }

    /// Whether the route is of this configuration or a former one, so that nothing may depend on
    /// it.
    fn is_ours(&self, route: &SeenRoute) -> bool {
        route.protocol == self.settings.protocol || self.former.iter().any(|p| p.holds(route))
    }

    /// The key of a route, if it is one that we write to.
    fn place(&self, route: &SeenRoute) -> Option<Place> {
        let ours = route.table == self.settings.table
            && (route.metric == self.settings.metric || route.metric == OWN_METRIC)
            && !route.cloned;
        // For IPv6 the kernel shows its own unreachable routes at the last metric.
        let kernels = route.protocol == RTPROT_KERNEL && route.kind != Some(RouteType::Unicast);
        (ours && !kernels).then_some((route.prefix, route.metric))
    }

    fn hold(&mut self, place: Place, held: Held) {
        match held {
            Held::Other { .. } => drop(self.holders.insert(place)),
            Held::Ours { .. } | Held::Nobody => drop(self.holders.remove(&place)),
        }
        self.observations.post_all([(place, held)]);
    }

    /// Whether the route may resolve next hops.
    fn resolves(&self, route: &SeenRoute) -> bool {
        let table = match route.kind {
            // Those of single addresses are known from the links.
            Some(RouteType::Local) => {
                let address = route.prefix == Prefix::host(route.prefix.addr());
                route.table == LOCAL_TABLE && !(address && route.protocol == RTPROT_KERNEL)
            }
            Some(_) => route.table == self.settings.table || route.table == MAIN_TABLE,
            None => false,
        };
        table && route.tos == 0 && !route.cloned && !is_link_local(route.prefix.addr())
    }

    async fn resynchronize(&mut self) {
        let what = self.resync.take();
        match self.reread(what).await {
            Ok(()) => self.failed = false,
            Err(error) => {
                if !self.failed {
                    warn!(%error, "cannot read the kernel's tables; retrying");
                }
                (self.failed, self.resync) = (true, self.resync.max(what));
            }
        }
    }

    async fn reread(&mut self, what: Option<Resync>) -> io::Result<()> {
        match what {
            Some(Resync::All) => self.read_all().await?,
            Some(Resync::Routes) => self.read_routes(true)?,
            None => return Ok(()),
        }
        self.changed = true;
        Ok(())
    }

    async fn read_all(&mut self) -> io::Result<()> {
        let old = std::mem::replace(&mut self.links, netlink::links().await?);
        self.recount(&old);
        self.read_routes(false)
    }

    /// Counts links that a complete dump shows to be lost or created again without a notification.
    fn recount(&mut self, old: &BTreeMap<u32, Link>) {
        let can_send = |l: &Link| l.up && l.lower_up;
        for link in self.links.values_mut() {
            let known = old.get(&link.index);
            let kept = known.filter(|o| !can_send(o) || can_send(link));
            link.generation = kept.map_or(self.drops.wrapping_add(1), |o| o.generation);
        }
        if self.links.values().any(|l| l.generation == self.drops.wrapping_add(1)) {
            self.drops = self.drops.wrapping_add(1);
        }
    }

    /// `complete`: no notification was lost before.
    fn read_routes(&mut self, complete: bool) -> io::Result<()> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => Channel::open(Protocol::ROUTE)?,
        };
        // Objects first: one that is added meanwhile is notified, and so are its routes.
        let mut foreign = Foreign::new(netlink::objects(&mut reader)?.unwrap_or_default());
        let mut holders = Vec::new();
        netlink::routes(&mut reader, |route| {
            if self.is_ours(&route) {
                return;
            }
            holders.extend(self.place(&route).map(|place| (place, route.protocol)));
            if self.resolves(&route) {
                foreign.add(route, Arrival::Dumped);
            }
        })?;
        self.reader = Some(reader);
        if foreign.overflowed && !self.foreign.overflowed {
            warn!("too many routes of other daemons; next hops over the excess ones do not resolve");
        }
        if complete {
            foreign.keep_hidden(&self.foreign);
        }
        self.foreign = foreign;
        let gone: Vec<_> =
            self.holders.iter().filter(|p| !holders.iter().any(|(h, _)| h == *p)).copied().collect();
        gone.into_iter().for_each(|place| self.hold(place, Held::Nobody));
        holders.into_iter().for_each(|(place, protocol)| self.hold(place, Held::Other { protocol }));
        Ok(())
    }
}

/// Whether it is an IPv6 address of one link, as each link has one.
fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// The kernel's flags show the position of an added route. One without others counts as appended.
fn arrival(flags: u16) -> Arrival {
    match flags {
        f if f & flag::REPLACE != 0 => Arrival::Replaced,
        f if f & (flag::APPEND | flag::EXCL) != 0 => Arrival::Appended,
        _ => Arrival::Prepended,
    }
}

fn subscribe(own_port: u32, protocol: u8) -> io::Result<sockets::Monitor> {
    sockets::Monitor::open(Protocol::ROUTE, &GROUPS, Some(RECEIVE_BUFFER), |socket| {
        if let Err(e) = SockRef::from(socket).attach_filter(&without_echo(own_port, protocol)) {
            debug!(error = %e, "cannot filter notifications of our own changes");
        }
    })
}

/// Filters out notifications that we caused ourselves, since 100,000 routes would be 100,000
/// messages: those about our own requests, and those about unicast routes of ours that the kernel
/// deletes. The latter are deleted with their object or link (IPv6; for IPv4 there are none), which
/// is notified. Fields are in host order, while the filter reads in network order.
fn without_echo(port: u32, protocol: u8) -> [SockFilter; 11] {
    const LD_W_ABS: u16 = 0x20;
    const LD_H_ABS: u16 = 0x28;
    const LD_B_ABS: u16 = 0x30;
    const JEQ_K: u16 = 0x15;
    const RET_K: u16 = 0x06;
    const RTN_UNICAST: u32 = 1;
    let del_route = u32::from(kind::DEL_ROUTE.to_be());
    [
        // nlmsg_pid: ours, the kernel's (0), or another's.
        SockFilter::new(LD_W_ABS, 0, 0, 12),
        SockFilter::new(JEQ_K, 7, 0, port.to_be()),
        SockFilter::new(JEQ_K, 0, 7, 0),
        // nlmsg_type, rtm_protocol, rtm_type.
        SockFilter::new(LD_H_ABS, 0, 0, 4),
        SockFilter::new(JEQ_K, 0, 5, del_route),
        SockFilter::new(LD_B_ABS, 0, 0, 21),
        SockFilter::new(JEQ_K, 0, 3, protocol.into()),
        SockFilter::new(LD_B_ABS, 0, 0, 23),
        SockFilter::new(JEQ_K, 0, 1, RTN_UNICAST),
        SockFilter::new(RET_K, 0, 0, 0),
        SockFilter::new(RET_K, 0, 0, u32::MAX),
    ]
}
