//! Sockets, timers and addresses of unnumbered neighbors. Decides nothing.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod address;
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    io,
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle},
    time,
};
use tracing::{debug, info, warn};

use super::{
    Act, Change, Input, Interface, Interfaces, Link, Send,
    packet::{self, Invalid, Packet},
};
use crate::net::OnLink;
pub use address::remove;
use socket::{IcmpSocket, MESSAGE, link_layer};

/// What discovery follows.
pub struct Inputs {
    /// Where neighbors are looked for.
    pub interfaces: watch::Receiver<Arc<Interfaces>>,
    /// Link-local neighbors with an established session, each with the name of its interface.
    pub established: watch::Receiver<Arc<BTreeSet<(String, Ipv6Addr)>>>,
    /// Link-local addresses that connected to the BGP port and are no neighbors, with the index of
    /// the interface.
    pub connections: mpsc::Receiver<(u32, Ipv6Addr)>,
    /// Is called for each address that was added to an interface.
    pub on_added: Box<dyn Fn(&str, Ipv6Addr) + std::marker::Send>,
}

/// Who was found, by the name of the interface.
pub type Found = BTreeMap<String, OnLink>;

/// Messages of one interface that are looked at in [`WINDOW`]; the kernel drops the rest of a
/// flood.
const BURST: u32 = 50;
const WINDOW: Duration = Duration::from_millis(100);
/// Messages of all interfaces that may wait.
const WAITING: usize = 64;
/// After an error in reading: the interface is down.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts discovery: it runs for as long as `interfaces` has a sender.
pub fn spawn(inputs: Inputs, found: watch::Sender<Arc<Found>>) -> JoinHandle<()> {
    let (messages, received) = mpsc::channel(WAITING);
    let task =
        Task { ports: BTreeMap::new(), own: BTreeSet::new(), messages, on_added: inputs.on_added, found };
    tokio::spawn(task.run(inputs.interfaces, inputs.established, inputs.connections, received))
}

type Message = (u32, Ipv6Addr, Result<Packet, Invalid>);

/// One interface.
struct Port {
    interface: Interface,
    link: Link,
    socket: Option<(Arc<IcmpSocket>, AbortHandle)>,
    trouble: Option<String>,
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some((_, reader)) = &self.socket {
            reader.abort();
        }
    }
}

struct Task {
    ports: BTreeMap<u32, Port>,
    own: BTreeSet<Ipv6Addr>,
    messages: mpsc::Sender<Message>,
    on_added: Box<dyn Fn(&str, Ipv6Addr) + std::marker::Send>,
    found: watch::Sender<Arc<Found>>,
}

impl Task {
    async fn run(
        mut self,
        mut interfaces: watch::Receiver<Arc<Interfaces>>,
        mut established: watch::Receiver<Arc<BTreeSet<(String, Ipv6Addr)>>>,
        mut connections: mpsc::Receiver<(u32, Ipv6Addr)>,
        mut received: mpsc::Receiver<Message>,
    ) {
        let (mut followed, mut open) = (true, true);
        loop {
            let now = Instant::now();
            let due = self.ports.values().filter_map(|p| p.link.poll_timeout(now)).min();
            // Cancel safe, each.
            tokio::select! {
                changed = interfaces.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = interfaces.borrow_and_update().clone();
                    self.configure(&wanted);
                    self.sessions(&established.borrow().clone());
                }
                changed = established.changed(), if followed => {
                    followed = changed.is_ok();
                    let now = established.borrow_and_update().clone();
                    self.sessions(&now);
                }
                connection = connections.recv(), if open => match connection {
                    Some((ifindex, from)) => self.handle(ifindex, Input::Connection(from)),
                    None => open = false,
                },
                Some((ifindex, from, message)) = received.recv() => self.message(ifindex, from, message),
                () = time::sleep_until(due.unwrap_or(now).into()), if due.is_some() => {
                    for ifindex in self.ports.keys().copied().collect::<Vec<_>>() {
                        self.handle(ifindex, Input::Timeout);
                        self.open(ifindex);
                    }
                }
            }
            self.act().await;
            self.publish();
        }
    }

    /// Brings sockets to what is wanted.
    fn configure(&mut self, wanted: &Interfaces) {
        self.own.clone_from(&wanted.own);
        self.ports.retain(|ifindex, _| wanted.links.contains_key(ifindex));
        for (ifindex, interface) in &wanted.links {
            if let Some(port) = self.ports.get_mut(ifindex) {
                port.interface = interface.clone();
                // With a socket only an address was missing.
                if port.socket.is_some() && !interface.lacks_address {
                    port.trouble = None;
                }
                self.handle(*ifindex, Input::Interface(interface));
            } else {
                let seed = RandomState::new().hash_one(ifindex);
                let link = Link::new(Instant::now(), interface, seed);
                let port = Port { interface: interface.clone(), link, socket: None, trouble: None };
                self.ports.insert(*ifindex, port);
            }
            self.open(*ifindex);
        }
    }

    fn open(&mut self, ifindex: u32) {
        let Some(port) = self.ports.get_mut(&ifindex).filter(|p| p.socket.is_none()) else { return };
        let name = &port.interface.name;
        match IcmpSocket::open(ifindex) {
            Ok(socket) => {
                let socket = Arc::new(socket);
                let reader = tokio::spawn(read(socket.clone(), ifindex, self.messages.clone()));
                port.socket = Some((socket, reader.abort_handle()));
                port.trouble = None;
            }
            Err(error) => {
                let trouble = format!(
                    "no ICMPv6 socket on {name} ({error}): run routelet with the capability NET_RAW, or write the \
                     neighbor's address, as address = \"fe80::1%{name}\""
                );
                if port.trouble.as_ref() != Some(&trouble) {
                    warn!(interface = %name, %error, "cannot open an ICMPv6 socket");
                }
                port.trouble = Some(trouble);
            }
        }
    }

    fn sessions(&mut self, established: &BTreeSet<(String, Ipv6Addr)>) {
        for (ifindex, port) in
            &self.ports.iter().map(|(i, p)| (*i, p.interface.name.clone())).collect::<Vec<_>>()
        {
            let here = established.iter().filter(|(name, _)| name == port).map(|(_, addr)| *addr).collect();
            self.handle(*ifindex, Input::Sessions(&here));
        }
    }

    fn message(&mut self, ifindex: u32, from: Ipv6Addr, message: Result<Packet, Invalid>) {
        match message {
            Ok(packet) => self.handle(ifindex, Input::Packet { from, packet }),
            Err(error) => {
                let Some(port) = self.ports.get_mut(&ifindex) else { return };
                if let Some(total) = port.link.ignored(Instant::now()) {
                    warn!(interface = %port.interface.name, source = %from, %error, total, "router discovery message ignored");
                }
            }
        }
    }

    fn handle(&mut self, ifindex: u32, input: Input<'_>) {
        let Some(port) = self.ports.get_mut(&ifindex) else { return };
        let interface = &port.interface.name;
        for change in port.link.handle(Instant::now(), &self.own, input) {
            match change {
                Change::Found(neighbor) => info!(%neighbor, %interface, "unnumbered neighbor discovered"),
                Change::Replaced { gone, by } => {
                    info!(neighbor = %by, %interface, former = %gone, "unnumbered neighbor replaced");
                }
                Change::Gone(neighbor) => info!(%neighbor, %interface, "unnumbered neighbor is gone"),
            }
        }
    }

    /// Carries out what is due.
    async fn act(&mut self) {
        for (ifindex, port) in &mut self.ports {
            while let Some(act) = port.link.poll(Instant::now()) {
                match act {
                    Act::Send(source, what) => port.send(source, what),
                    Act::AddAddress => {
                        if let Some(addr) = port.add_address(*ifindex).await {
                            (self.on_added)(&port.interface.name, addr);
                        }
                    }
                }
            }
        }
    }

    fn publish(&self) {
        let now = Instant::now();
        let found: Found = self.ports.values().map(|p| (p.interface.name.clone(), p.on_link(now))).collect();
        self.found.send_if_modified(|old| {
            let differs = **old != found;
            if differs {
                *old = Arc::new(found);
            }
            differs
        });
    }
}

impl Port {
    fn send(&self, source: Ipv6Addr, what: Send) {
        let Some((socket, _)) = &self.socket else { return };
        let link_layer = link_layer(&self.interface.name);
        let sent = match what {
            Send::Advertisement => socket.send(source, &packet::advertisement(link_layer), false),
            Send::Solicitation => socket.send(source, &packet::solicitation(link_layer), true),
        };
        if let Err(error) = sent {
            debug!(interface = %self.interface.name, ?what, %error, "cannot send");
        }
    }

    async fn add_address(&mut self, ifindex: u32) -> Option<Ipv6Addr> {
        let name = &self.interface.name;
        let random = RandomState::new().hash_one(name);
        match address::add(ifindex, name, random).await {
            Ok(addr) => {
                info!(interface = %name, address = %addr, "link-local address added, as the kernel made none");
                self.trouble = None;
                Some(addr)
            }
            Err(error) => {
                if self.trouble.is_none() {
                    warn!(interface = %name, %error, "cannot add a link-local address");
                }
                self.trouble = Some(format!(
                    "{name} has no IPv6 link-local address, and none can be added ({error}): set \
                     net.ipv6.conf.{}.disable_ipv6 to 0",
                    // As sysctl(8) writes a name with a dot.
                    name.replace('.', "/")
                ));
                None
            }
        }
    }

    fn on_link(&self, now: Instant) -> OnLink {
        OnLink { trouble: self.trouble.clone(), ..self.link.on_link(now) }
    }
}

/// Reads the messages of one interface, a bounded number at a time.
async fn read(socket: Arc<IcmpSocket>, ifindex: u32, to: mpsc::Sender<Message>) {
    let mut buf = vec![0; MESSAGE];
    let (mut window, mut count) = (Instant::now(), 0);
    loop {
        match socket.receive(&mut buf).await {
            Ok(received) => {
                let octets = buf.get(..received.length).unwrap_or_default();
                let message = packet::decode(octets, received.from, received.hop_limit);
                if to.send((ifindex, received.from, message)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    debug!(ifindex, %error, "cannot read ICMPv6");
                    time::sleep(PAUSE).await;
                }
            }
        }
        if window.elapsed() >= WINDOW {
            (window, count) = (Instant::now(), 0);
        }
        count += 1;
        if count >= BURST {
            time::sleep_until((window + WINDOW).into()).await;
        }
    }
}
