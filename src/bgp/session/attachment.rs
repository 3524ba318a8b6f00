//! What a connection depends on at this end: the link to its neighbor, and the local address.
//!
//! An [`Attachment`] compares snapshots of the host and detects the [`Loss`] of either. A link
//! counts as lost at once, however short the interruption: packets in flight are lost, and the
//! neighbor may have seen it too. Programs that configure interfaces may remove an address and add
//! it again, so an address counts as lost after [`ADDRESS_GRACE`], or at once if another address
//! has replaced it or it moved to another interface.
//!
//! What was never seen is never lost: connections may be older or newer than the snapshot.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Endpoints;
use crate::net::Links;

/// How long a local address may be missing.
pub(super) const ADDRESS_GRACE: Duration = Duration::from_millis(1500);
/// An address that appeared within this time before another one was removed has replaced it.
const REPLACEMENT_WINDOW: Duration = Duration::from_secs(5);

/// What a connection has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Link { ifindex: u32, what: String },
    Address { what: String },
}

impl Loss {
    /// Name of the counter.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Link { .. } => "link-down",
            Self::Address { .. } => "address-removed",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { what, .. } | Self::Address { what } => f.write_str(what),
        }
    }
}

/// The link and the address of one connection.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    local: IpAddr,
    remote: IpAddr,
    /// The link that `Endpoints` names: that of a link-local connection.
    scope: u32,
    link: Option<On>,
    /// Interfaces that had the local address when it was last seen.
    homes: Vec<u32>,
    /// Addresses of these interfaces, and since when.
    known: Vec<(IpAddr, Option<Instant>)>,
    /// Since when the local address is missing.
    away: Option<Instant>,
}

/// The link towards the neighbor.
#[derive(Clone, Debug)]
struct On {
    ifindex: u32,
    name: String,
    /// The link's generation when it was last seen up.
    generation: Option<u32>,
}

impl Attachment {
    pub(super) fn new(ends: Endpoints) -> Self {
        let (local, remote) = (ends.local.ip().to_canonical(), ends.remote.ip().to_canonical());
        Self {
            local,
            remote,
            scope: ends.ifindex,
            link: None,
            homes: Vec::new(),
            known: Vec::new(),
            away: None,
        }
    }

    pub(super) fn local(&self) -> IpAddr {
        self.local
    }

    pub(super) fn remote(&self) -> IpAddr {
        self.remote
    }

    /// The interface towards the neighbor, once it is known.
    pub(super) fn ifindex(&self) -> Option<u32> {
        self.link.as_ref().map(|on| on.ifindex)
    }

    /// Whether both ends are this host: there is no link to lose.
    fn is_on_host(&self) -> bool {
        self.local == self.remote || self.remote.is_loopback()
    }

    /// Compares with a new snapshot: the loss of the link, and that of the address.
    pub(super) fn look(&mut self, now: Instant, links: &Links) -> (Option<Loss>, Option<Loss>) {
        if self.is_on_host() {
            return (None, None);
        }
        (self.look_at_link(links), self.look_at_address(now, links))
    }

    /// When to call [`Attachment::expired`].
    pub(super) fn due(&self) -> Option<Instant> {
        self.away.map(|since| since + ADDRESS_GRACE)
    }

    /// The address is missing for too long.
    pub(super) fn expired(&self, now: Instant) -> Option<Loss> {
        let over = self.due().is_some_and(|due| due <= now);
        over.then(|| self.address_lost("removed"))
    }

    fn look_at_link(&mut self, links: &Links) -> Option<Loss> {
        if self.link.is_none() {
            let towards = || links.towards(self.local, self.remote);
            let ifindex = if self.scope == 0 { towards()? } else { self.scope };
            let name = links.links.get(&ifindex)?.name.clone();
            self.link = Some(On { ifindex, name, generation: None });
        }
        let on = self.link.as_mut()?;
        let state = links.links.get(&on.ifindex);
        let Some(generation) = on.generation else {
            on.generation = state.filter(|l| l.can_send()).map(|l| l.generation);
            return None;
        };
        let what = match state {
            None => "was deleted",
            Some(l) if !l.up => "was set down",
            Some(l) if !l.carrier => "lost carrier",
            Some(l) if l.generation != generation => "lost carrier for a moment",
            Some(_) => return None,
        };
        on.generation = None;
        Some(Loss::Link { ifindex: on.ifindex, what: format!("link {} {what}", on.name) })
    }

    fn look_at_address(&mut self, now: Instant, links: &Links) -> Option<Loss> {
        let here: Vec<u32> = links.with_address(self.local).collect();
        let home = here.iter().any(|i| self.homes.contains(i)) || self.homes.is_empty() && !here.is_empty();
        if home {
            self.away = None;
            self.learn(now, links, here);
            return None;
        }
        if self.homes.is_empty() {
            return None;
        }
        if let Some(link) = here.first().and_then(|i| links.links.get(i)) {
            return Some(self.address_lost(&format!("moved to {}", link.name)));
        }
        if let Some(other) = self.successor(now, links) {
            return Some(self.address_lost(&format!("removed, {other} has taken its place")));
        }
        self.away.get_or_insert(now);
        None
    }

    /// Remembers which addresses there are beside the local one.
    fn learn(&mut self, now: Instant, links: &Links, homes: Vec<u32>) {
        let first = self.homes.is_empty();
        let beside = homes.iter().filter_map(|i| links.links.get(i)).flat_map(|l| &l.addresses);
        let since = |addr: &IpAddr| match self.known.iter().find(|(a, _)| a == addr) {
            Some((_, since)) => *since,
            None => (!first).then_some(now),
        };
        let known = beside.map(|(addr, _)| (*addr, since(addr))).collect();
        (self.known, self.homes) = (known, homes);
    }

    /// A new address of the same kind where the local one was.
    fn successor(&self, now: Instant, links: &Links) -> Option<IpAddr> {
        let is_new = |addr: &IpAddr| match self.known.iter().find(|(a, _)| a == addr) {
            Some((_, since)) => since.is_some_and(|at| now.duration_since(at) <= REPLACEMENT_WINDOW),
            None => true,
        };
        let there = self.homes.iter().filter_map(|i| links.links.get(i)).flat_map(|l| &l.addresses);
        there.map(|(addr, _)| *addr).find(|addr| kind(*addr) == kind(self.local) && is_new(addr))
    }

    fn address_lost(&self, what: &str) -> Loss {
        Loss::Address { what: format!("local address {} {what}", self.local) }
    }
}

/// Family, and whether it is link-local.
fn kind(addr: IpAddr) -> (bool, bool) {
    match addr {
        IpAddr::V4(a) => (false, a.is_link_local()),
        IpAddr::V6(a) => (true, a.is_unicast_link_local()),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick the epoch")]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::net::{LinkState, Prefix};

    const LOCAL: &str = "10.0.0.11/24";

    struct Host(Links);

    impl Host {
        /// eth0 (2) with the given addresses, and eth1 (3) without any.
        fn new(addresses: &[&str]) -> Self {
            Self(Links::new([(2, state("eth0", addresses)), (3, state("eth1", &[]))].into(), Vec::new()))
        }

        fn eth1(mut self, addresses: &[&str]) -> Self {
            self.0.links.insert(3, state("eth1", addresses));
            self
        }

        fn with(mut self, change: impl FnOnce(&mut LinkState)) -> Self {
            change(self.0.links.get_mut(&2).unwrap());
            self
        }

        fn without(mut self) -> Self {
            self.0.links.remove(&2);
            self
        }
    }

    fn state(name: &str, addresses: &[&str]) -> LinkState {
        let address = |text: &&str| {
            let (addr, len) = text.split_once('/').unwrap();
            let addr = addr.parse().unwrap();
            (addr, Prefix::new(addr, len.parse().unwrap()).unwrap())
        };
        let addresses = addresses.iter().map(address).collect();
        LinkState { name: name.into(), up: true, carrier: true, generation: 1, addresses }
    }

    fn attached(now: Instant, host: &Host, local: &str) -> Attachment {
        let local = SocketAddr::new(local.split_once('/').unwrap().0.parse().unwrap(), 179);
        let remote: SocketAddr =
            if local.is_ipv4() { "10.0.0.1:179" } else { "[fe80::1]:179" }.parse().unwrap();
        let ifindex = if local.is_ipv4() { 0 } else { 2 };
        let mut attachment = Attachment::new(Endpoints { local, remote, ifindex, ttl: None });
        assert_eq!(attachment.look(now, &host.0), (None, None), "nothing is lost at first");
        attachment
    }

    fn either(attachment: &mut Attachment, now: Instant, host: &Host) -> Option<Loss> {
        let (link, address) = attachment.look(now, &host.0);
        link.or(address)
    }

    fn after(local: &str, before: Host, now: Host) -> Option<String> {
        let t0 = Instant::now();
        either(&mut attached(t0, &before, local), t0, &now).map(|loss| loss.to_string())
    }

    #[test]
    fn a_link_is_lost_at_once_by_name() {
        let host = || Host::new(&[LOCAL]);
        #[rustfmt::skip]
        let cases = [
            ("nothing changed",          host(),                             None),
            ("another address appears",  Host::new(&[LOCAL, "10.0.0.12/24"]), None),
            ("set down",                 host().with(|l| l.up = false),      Some("link eth0 was set down")),
            ("cable out",                host().with(|l| l.carrier = false), Some("link eth0 lost carrier")),
            ("out and in again",         host().with(|l| l.generation = 2),  Some("link eth0 lost carrier for a moment")),
            ("deleted",                  host().without(),                   Some("link eth0 was deleted")),
            ("a port of eth1 now",       Host::new(&[]).eth1(&[LOCAL]),      Some("local address 10.0.0.11 moved to eth1")),
            ("another lease",            Host::new(&["10.0.0.12/24"]),       Some("local address 10.0.0.11 removed, 10.0.0.12 has taken its place")),
            ("another subnet",           Host::new(&["10.9.0.11/24"]),       Some("local address 10.0.0.11 removed, 10.9.0.11 has taken its place")),
            ("only removed",             Host::new(&[]),                     None),
            ("an IPv6 address is none",  Host::new(&["2001:db8::1/64"]),     None),
        ];
        for (name, now, want) in cases {
            assert_eq!(after(LOCAL, host(), now).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn a_link_local_address_is_followed_on_its_link() {
        let fe80 = "fe80::11/64";
        let lost = after(fe80, Host::new(&[fe80]), Host::new(&["fe80::12/64"]));
        assert_eq!(lost.as_deref(), Some("local address fe80::11 removed, fe80::12 has taken its place"));
        let global = after(fe80, Host::new(&[fe80]), Host::new(&["2001:db8::12/64"]));
        assert_eq!(global, None, "an address of another kind takes no link-local one's place");
    }

    #[test]
    fn an_address_that_is_back_in_time_was_never_lost() {
        let t0 = Instant::now();
        let mut attachment = attached(t0, &Host::new(&[LOCAL]), LOCAL);
        assert_eq!(either(&mut attachment, t0, &Host::new(&[])), None);
        assert_eq!(
            (attachment.due(), attachment.expired(t0 + ADDRESS_GRACE / 2)),
            (Some(t0 + ADDRESS_GRACE), None)
        );
        assert_eq!(either(&mut attachment, t0 + ADDRESS_GRACE / 2, &Host::new(&[LOCAL])), None);
        assert_eq!((attachment.due(), attachment.expired(t0 + ADDRESS_GRACE * 2)), (None, None));

        either(&mut attachment, t0, &Host::new(&[]));
        let lost = attachment.expired(t0 + ADDRESS_GRACE).unwrap();
        assert_eq!(
            (lost.to_string().as_str(), lost.reason()),
            ("local address 10.0.0.11 removed", "address-removed")
        );
    }

    /// Some DHCP clients add the new address before they remove the old one.
    #[test]
    fn an_address_that_appeared_just_before_has_taken_the_place() {
        let (t0, both) = (Instant::now(), Host::new(&[LOCAL, "10.0.0.12/24"]));
        for (age, lost) in [(REPLACEMENT_WINDOW / 2, true), (REPLACEMENT_WINDOW * 2, false)] {
            let mut attachment = attached(t0, &Host::new(&[LOCAL]), LOCAL);
            assert_eq!(either(&mut attachment, t0, &both), None);
            let loss = either(&mut attachment, t0 + age, &Host::new(&["10.0.0.12/24"]));
            assert_eq!(loss.is_some(), lost, "{age:?} later");
        }
        let mut always = attached(t0, &both, LOCAL);
        assert_eq!(either(&mut always, t0, &Host::new(&["10.0.0.12/24"])), None, "it was there before");
    }

    #[test]
    fn what_was_never_seen_is_never_lost() {
        let (t0, nothing) = (Instant::now(), Links::default());
        let local: SocketAddr = "10.0.0.11:179".parse().unwrap();
        let remote: SocketAddr = "10.0.0.1:179".parse().unwrap();
        let mut young = Attachment::new(Endpoints { local, remote, ifindex: 0, ttl: None });
        for host in [Host(nothing), Host::new(&[]), Host::new(&[LOCAL]).with(|l| l.carrier = false)] {
            assert_eq!(either(&mut young, t0, &host), None);
        }
        assert_eq!(either(&mut young, t0, &Host::new(&[LOCAL])), None, "seen to work for the first time");
        assert!(either(&mut young, t0, &Host::new(&[LOCAL]).without()).is_some());

        let same: SocketAddr = "10.0.0.11:40000".parse().unwrap();
        let mut second = Attachment::new(Endpoints { local, remote: same, ifindex: 0, ttl: None });
        either(&mut second, t0, &Host::new(&[LOCAL]));
        assert_eq!(either(&mut second, t0, &Host::new(&[]).without()), None, "a second speaker on this host");
    }

    #[test]
    fn the_link_and_the_address_are_judged_apart() {
        let t0 = Instant::now();
        let mut far = attached(t0, &Host::new(&[LOCAL]), LOCAL);
        let (link, address) = far.look(t0, &Host::new(&["10.0.0.12/24"]).with(|l| l.carrier = false).0);
        assert_eq!(link.map(|l| l.reason()), Some("link-down"));
        assert_eq!(address.map(|l| l.reason()), Some("address-removed"));
    }
}
