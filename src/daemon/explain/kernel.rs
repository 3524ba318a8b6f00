//! Determines what the kernel does with the packets. Everything here blocks for a moment.

use std::net::IpAddr;

use crate::{
    control::NeighborView,
    explain::{Facts, Firewall, Flow, Kernel, Link, Neighbor, Place, Reached, Rule, Used},
    fib::{
        host::{Host, RouteType},
        io::{lookup::Lookups, sysctl as io_sysctl},
        lookup::{Drop, Looked, Packet},
        route::protocol_name,
        sysctl::{escaped, forwarding_key, interface_key},
    },
    net::{Family, Prefix},
    nft::{
        io::verdict::Filters,
        verdict::{Forwarded, Verdict},
    },
    plan::first_of_others,
};

use super::MAX_SOURCES;

/// Maximum number of neighbors from which packets to containers are followed.
const MAX_NEIGHBORS: usize = 4;

/// Adds the kernel's decisions to the facts.
pub(super) fn look(mut facts: Facts, host: &Host, protocol: u8) -> Facts {
    let lookups = match Lookups::open() {
        Ok(lookups) => lookups,
        Err(error) => {
            facts.kernel = Kernel::Unknown(error.to_string());
            return facts;
        }
    };
    let mut look = Look { lookups, host, protocol, table: facts.table, filters: None };
    look.route(&mut facts);
    look.exit(&mut facts);
    facts.flows = look.flows(&facts);
    look.firewall(&mut facts);
    facts
}

/// The state of one query.
struct Look<'a> {
    lookups: Lookups,
    host: &'a Host,
    protocol: u8,
    table: u32,
    filters: Option<Filters>,
}

impl Look<'_> {
    /// The route of the packets. If packets are forwarded and something other than routing drops
    /// them, the route of this host's own packets: the flow has the reason.
    fn route(&mut self, facts: &mut Facts) {
        let address = facts.question.address;
        let is_own = matches!(facts.from, Some(Place::Host { .. }));
        let own =
            Packet { destination: address, source: facts.question.from.filter(|_| is_own), arrives_on: None };
        facts.kernel = match facts.question.from.filter(|_| !is_own) {
            None => self.kernel(&own),
            Some(from) => {
                let arrives_on = self.arrival(facts, from);
                let packet = Packet { destination: address, source: Some(from), arrives_on };
                match self.kernel(&packet) {
                    Kernel::Dropped(Drop::ReversePath) => self.kernel(&own),
                    Kernel::Dropped(_) if self.forwarding_off(address, arrives_on).is_some() => {
                        self.kernel(&own)
                    }
                    kernel => kernel,
                }
            }
        };
        let Kernel::Used(used) = &facts.kernel else { return };
        let rules = self.lookups.rules(Family::of(address)).unwrap_or_default();
        let rule = rules.into_iter().find(|r| r.table == used.table);
        facts.rule = rule.map(|r| Rule { priority: r.priority, table: r.table, selects: r.selects });
    }

    /// The interface on which packets from an address arrive: the given one, or else the one
    /// towards that address.
    fn arrival(&mut self, facts: &Facts, from: IpAddr) -> Option<u32> {
        if let Some(name) = &facts.question.interface {
            return self.host.link(name).map(|l| l.index);
        }
        match self.kernel(&Packet { destination: from, source: None, arrives_on: None }) {
            Kernel::Used(used) => self.host.link(&used.interface).map(|l| l.index),
            _ => None,
        }
    }

    fn kernel(&mut self, packet: &Packet) -> Kernel {
        let used = match self.lookups.route(packet) {
            Looked::Route(used) => used,
            Looked::Dropped(Drop::Invalid) => return Kernel::Dropped(self.cause(packet)),
            Looked::Dropped(why) => return Kernel::Dropped(why),
            Looked::Unknown(error) => return Kernel::Unknown(error),
        };
        let (route, selected) = (&used.route, &used.selected);
        let hops: Vec<_> = route.hops.iter().map(|h| (h.gateway, self.name(h.ifindex))).collect();
        let hop = selected.hops.first().or(route.hops.first());
        let dead_end = match route.kind {
            Some(RouteType::Unicast | RouteType::Local) => None,
            Some(RouteType::Blackhole) => Some("blackhole"),
            Some(RouteType::Unreachable) => Some("unreachable"),
            Some(RouteType::Throw) => Some("throw"),
            None => Some("broadcast or multicast"),
        };
        let is_local = route.kind == Some(RouteType::Local);
        let to = packet.destination;
        let interface = match hop {
            Some(hop) => self.name(hop.ifindex),
            None => own_interface(self.host, to).unwrap_or_else(|| "lo".into()),
        };
        Kernel::Used(Box::new(Used {
            prefix: route.prefix,
            table: route.table,
            metric: route.metric,
            protocol: protocol_name(route.protocol),
            is_ours: route.protocol == self.protocol && route.table == self.table,
            is_local,
            dead_end,
            hops,
            gateway: hop.and_then(|h| h.gateway),
            interface,
            source: selected.source.or(route.source),
            mtu: used.mtu,
        }))
    }

    /// Newer kernels return the same error whatever drops an arriving packet (docs/kernel.md,
    /// section 12). The cause is therefore determined with the kernel's own checks, in its order.
    fn cause(&mut self, packet: &Packet) -> Drop {
        let (Some(source), Some(index)) = (packet.source, packet.arrives_on) else { return Drop::Invalid };
        let sent = |destination| Packet { destination, source: None, arrives_on: None };
        let filter = if source.is_ipv4() { rp_filter(&self.name(index)) } else { 0 };
        let is_back = match self.lookups.route(&sent(source)) {
            Looked::Route(used) if used.route.kind == Some(RouteType::Local) => return Drop::Invalid,
            Looked::Route(used) => {
                let mut hops = used.route.hops.iter().chain(&used.selected.hops);
                filter != STRICT || hops.any(|h| h.ifindex == index)
            }
            _ => false,
        };
        if filter > 0 && !is_back {
            return Drop::ReversePath;
        }
        match self.lookups.route(&sent(packet.destination)) {
            Looked::Dropped(why) => why,
            _ => Drop::Invalid,
        }
    }

    fn name(&self, index: u32) -> String {
        self.host.links.get(&index).map_or_else(|| format!("interface {index}"), |l| l.name.clone())
    }

    /// The interface by which the packets leave, and the neighbor entry there.
    fn exit(&mut self, facts: &mut Facts) {
        let Kernel::Used(used) = &facts.kernel else { return };
        let Some(link) = self.host.link(&used.interface).filter(|_| !used.is_local) else { return };
        facts.exit = Some(self::link(self.host, link));
        if link.loopback || used.dead_end.is_some() || !self.host.can_send(link) {
            return;
        }
        let address = used.gateway.unwrap_or(facts.question.address);
        facts.reached =
            self.lookups.neighbor(link.index, address).ok().map(|entry| Reached { address, entry });
    }

    /// Packets that are forwarded, in both directions, and replies to this host.
    fn flows(&mut self, facts: &Facts) -> Vec<Flow> {
        let Kernel::Used(used) = &facts.kernel else { return Vec::new() };
        if used.dead_end.is_some() {
            return Vec::new();
        }
        let (address, exit) = (facts.question.address, used.interface.clone());
        let senders = self.senders(facts);
        let mut flows = Vec::new();
        for Sender { name, source, interface } in senders {
            let there = Leg { name: format!("{name} to {address}"), source, destination: address };
            flows.extend(self.flow(&there, &interface, used.is_local, false));
            if !used.is_local {
                let back = Leg { name: format!("{address} to {name}"), source: address, destination: source };
                flows.extend(self.flow(&back, &exit, false, true));
            }
        }
        // Replies to this host itself.
        let is_remote = matches!(facts.place, Place::Remote | Place::OnLink { .. });
        let own = match (&facts.from, facts.question.from) {
            (Some(Place::Host { .. }), from) => from,
            (None, _) => used.source,
            _ => None,
        };
        if let Some(own) = own.filter(|_| is_remote && !used.is_local) {
            let back = Leg { name: format!("{address} to this host"), source: address, destination: own };
            flows.extend(self.flow(&back, &exit, true, true));
        }
        flows
    }

    /// The senders of packets that this node forwards.
    fn senders(&mut self, facts: &Facts) -> Vec<Sender> {
        let to_containers = matches!(facts.place, Place::Container { .. });
        if let Some(from) = facts.question.from {
            if matches!(facts.from, Some(Place::Host { .. })) {
                return Vec::new();
            }
            let interface = self.arrival(facts, from).map(|index| self.name(index));
            let sender = |interface| Sender { name: from.to_string(), source: from, interface };
            return interface.into_iter().map(sender).collect();
        }
        if matches!(facts.place, Place::Host { .. } | Place::Originated { .. }) {
            return Vec::new();
        }
        if to_containers {
            let family = Family::of(facts.question.address);
            let links = facts.neighbors.iter().filter_map(|n| Some((n.address?, n.link.as_ref()?)));
            let usable = links.filter(|(a, l)| Family::of(*a) == family && l.up && l.carrier);
            let sender = |(source, link): (IpAddr, &Link)| Sender {
                name: source.to_string(),
                source,
                interface: link.name.clone(),
            };
            return usable.map(sender).take(MAX_NEIGHBORS).collect();
        }
        let links = facts.sources.iter().filter_map(|s| Some((s.prefix, s.link.as_ref()?)));
        let sender = |(prefix, (name, _)): (Prefix, &(String, u32))| Sender {
            name: prefix.to_string(),
            source: first_of_others(self.host, prefix),
            interface: name.clone(),
        };
        links.map(sender).take(MAX_SOURCES).collect()
    }

    fn flow(&mut self, leg: &Leg, arrives_on: &str, to_host: bool, is_back: bool) -> Option<Flow> {
        let link = self.host.link(arrives_on).filter(|l| !l.loopback)?;
        let packet =
            Packet { destination: leg.destination, source: Some(leg.source), arrives_on: Some(link.index) };
        let kernel = self.kernel(&packet);
        let forwarding_off =
            if to_host { None } else { self.forwarding_off(leg.destination, Some(link.index)) };
        let firewall = match &kernel {
            Kernel::Used(used) if !to_host => self.verdict(leg, arrives_on, &used.interface, is_back),
            _ => Firewall::Unknown,
        };
        Some(Flow {
            name: leg.name.clone(),
            is_back,
            to_host,
            arrives_on: arrives_on.to_owned(),
            forwarding_off,
            rp_filter: if leg.destination.is_ipv4() { rp_filter(arrives_on) } else { 0 },
            kernel,
            firewall,
        })
    }

    /// The sysctl whose value 0 keeps packets that arrive on an interface from being forwarded. For
    /// IPv6, one sysctl covers all interfaces.
    fn forwarding_off(&self, destination: IpAddr, arrives_on: Option<u32>) -> Option<String> {
        let family = Family::of(destination);
        let all = forwarding_key(family).to_owned();
        let is_off = |key: &String| io_sysctl::value(key).is_some_and(|v| v == "0");
        if is_off(&all) {
            return Some(all);
        }
        let link = arrives_on.and_then(|index| self.host.links.get(&index));
        let of_link = link.filter(|_| family == Family::Ipv4Unicast);
        of_link.map(|l| interface_key(family, &escaped(&l.name), "forwarding")).filter(is_off)
    }

    fn verdict(&mut self, leg: &Leg, arrives_on: &str, leaves_by: &str, is_reply: bool) -> Firewall {
        if self.filters.is_none() {
            self.filters = Filters::read(Family::of(leg.destination)).ok();
        }
        let packet = Forwarded {
            source: leg.source,
            destination: leg.destination,
            arrives_on: arrives_on.to_owned(),
            leaves_by: leaves_by.to_owned(),
            is_reply,
        };
        match self.filters.as_ref().map(|f| f.verdict(&packet)) {
            None => Firewall::Unknown,
            Some(Verdict::Accepted) => Firewall::Accepted,
            Some(Verdict::Dropped { by, certain }) => Firewall::Dropped { by: by.to_string(), certain },
        }
    }

    /// Records why packet filters could not be read.
    fn firewall(&mut self, facts: &mut Facts) {
        let is_forwarded = facts.flows.iter().any(|f| !f.to_host);
        if is_forwarded && self.filters.is_none() {
            let read = Filters::read(Family::of(facts.question.address));
            facts.filters_unread = read.err().map(|e| e.to_string());
        }
    }
}

/// Value of rp_filter: packets must arrive on the interface by which replies leave.
const STRICT: u32 = 1;

/// A sender, and the interface on which its packets arrive.
struct Sender {
    name: String,
    source: IpAddr,
    interface: String,
}

/// One direction of a flow.
struct Leg {
    name: String,
    source: IpAddr,
    destination: IpAddr,
}

/// The larger of the values for all interfaces and for this one is in force.
fn rp_filter(interface: &str) -> u32 {
    let values = ["all", &escaped(interface)].map(|i| interface_key(Family::Ipv4Unicast, i, "rp_filter"));
    let numbers = values.iter().filter_map(|key| io_sysctl::value(key)?.parse().ok());
    numbers.max().unwrap_or(0)
}

fn own_interface(host: &Host, address: IpAddr) -> Option<String> {
    super::own_link(host, address).map(|l| l.name.clone())
}

fn link(host: &Host, link: &crate::fib::host::Link) -> Link {
    Link {
        name: link.name.clone(),
        kind: link.kind.clone(),
        up: link.up,
        carrier: host.has_carrier(link),
        mtu: link.mtu,
        subnets: link.subnets().collect(),
    }
}

/// A neighbor, with the interface to it.
pub(super) fn neighbor(host: &Host, view: &NeighborView) -> Neighbor {
    let text = view.address.split('%').next().unwrap_or_default();
    let address: Option<IpAddr> = text.parse().ok();
    let by_name = view.interface.as_deref().and_then(|name| host.link(name));
    let found = by_name.or_else(|| address.and_then(|a| host.connected_link(a)));
    Neighbor {
        name: view.address.clone(),
        state: view.state,
        last_error: view.last_error.clone(),
        address,
        link: found.map(|l| link(host, l)),
    }
}
