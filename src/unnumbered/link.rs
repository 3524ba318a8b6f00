//! One interface: when to send on it, and who was found there.

use std::{
    collections::BTreeSet,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use super::{
    Interface,
    advertise::{Advertiser, Send},
    neighbors::{Neighbors, Seen},
    packet::Packet,
};
use crate::net::OnLink;

/// How long nobody may be found before this is a problem.
const OVERDUE: Duration = Duration::from_secs(30);
/// Between two log lines about packets that are ignored.
const IGNORED: Duration = Duration::from_secs(60);
/// How long the kernel has to give the interface a link-local address of its own.
const ADDRESS: Duration = Duration::from_secs(2);
/// Between two attempts to add one.
const ADDRESS_AGAIN: Duration = Duration::from_secs(30);

/// The state of one interface.
#[derive(Clone, Debug)]
pub struct Link {
    interface: Interface,
    /// While packets can be sent.
    advertiser: Option<Advertiser>,
    /// Packets could be sent once, and then no longer.
    was_lost: bool,
    neighbors: Neighbors,
    /// Those that were found and can be connected to: none before the interface has a usable
    /// address.
    reachable: BTreeSet<Ipv6Addr>,
    /// Since when there is nobody.
    alone_since: Option<Instant>,
    ignored: u64,
    ignored_logged: Option<Instant>,
    /// When an address is added, unless there is one by then.
    add_address_at: Option<Instant>,
    seed: u64,
}

/// What is to be done on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// From this address.
    Send(Ipv6Addr, Send),
    /// The kernel makes no link-local address here (`addr_gen_mode` none).
    AddAddress,
}

/// What came to pass on an interface.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The interface is this now.
    Interface(&'a Interface),
    /// A packet that passed the checks; the source of a solicitation may be any address.
    Packet {
        from: Ipv6Addr,
        packet: Packet,
    },
    /// A TCP connection to the BGP port came from a link-local address that is no neighbor.
    Connection(Ipv6Addr),
    /// Which link-local addresses on this interface have an established session.
    Sessions(&'a BTreeSet<Ipv6Addr>),
    Timeout,
}

/// What is worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Found(Ipv6Addr),
    Replaced { gone: Ipv6Addr, by: Ipv6Addr },
    Gone(Ipv6Addr),
}

impl Link {
    pub fn new(now: Instant, interface: &Interface, seed: u64) -> Self {
        let mut link = Self {
            interface: Interface { link_local: None, ..interface.clone() },
            advertiser: None,
            was_lost: false,
            neighbors: Neighbors::default(),
            reachable: BTreeSet::new(),
            alone_since: Some(now),
            ignored: 0,
            ignored_logged: None,
            add_address_at: None,
            seed,
        };
        link.configure(now, interface);
        link
    }

    /// Takes one input. `own`: the link-local addresses of this host, which are nobody's on any
    /// link: two interfaces may well be on one.
    pub fn handle(&mut self, now: Instant, own: &BTreeSet<Ipv6Addr>, input: Input<'_>) -> Vec<Change> {
        let mut changes = Vec::new();
        match input {
            Input::Interface(interface) => self.configure(now, interface),
            Input::Packet { from, .. } if own.contains(&from) => {}
            Input::Packet { packet: Packet::Solicitation, .. } => {
                if let Some(advertiser) = &mut self.advertiser {
                    advertiser.solicited(now);
                }
            }
            Input::Packet { from, packet: Packet::Advertisement } => changes.extend(self.seen(now, from)),
            Input::Connection(from) if !own.contains(&from) => changes.extend(self.seen(now, from)),
            Input::Connection(_) => {}
            Input::Sessions(established) => self.neighbors.sessions(now, established),
            Input::Timeout => {}
        }
        changes.extend(self.neighbors.expire(now, self.interface.limit).into_iter().map(Change::Gone));
        let addresses = self.neighbors.addresses();
        if self.interface.link_local.is_none() {
            self.reachable.retain(|addr| addresses.contains(addr));
        } else {
            self.reachable.clone_from(&addresses);
        }
        self.alone_since = addresses.is_empty().then(|| self.alone_since.unwrap_or(now));
        let seeks = self.neighbors.seeks();
        if let Some(advertiser) = &mut self.advertiser {
            advertiser.seek(now, seeks);
        }
        changes
    }

    fn configure(&mut self, now: Instant, interface: &Interface) {
        let before = std::mem::replace(&mut self.interface, interface.clone());
        if before.generation != interface.generation || !interface.can_send {
            self.neighbors.link_lost(now);
        }
        let lacks = interface.can_send && interface.lacks_address;
        self.add_address_at = lacks.then(|| self.add_address_at.unwrap_or(now + ADDRESS));
        let able = interface.can_send && interface.link_local.is_some();
        let anew = before.generation != interface.generation || before.link_local != interface.link_local;
        if !able || before.generation != interface.generation {
            self.was_lost |= self.advertiser.is_some();
        }
        if !able {
            self.advertiser = None;
        } else if anew || self.advertiser.is_none() {
            self.seed = self.seed.wrapping_add(1);
            self.advertiser = Some(Advertiser::new(now, self.was_lost, self.seed));
        }
    }

    fn seen(&mut self, now: Instant, from: Ipv6Addr) -> Option<Change> {
        let change = match self.neighbors.seen(now, from, self.interface.limit) {
            Seen::Known | Seen::NoRoom => return None,
            Seen::New => Change::Found(from),
            Seen::Replaced(gone) => Change::Replaced { gone, by: from },
        };
        // It finds us by an advertisement, too.
        if let Some(advertiser) = &mut self.advertiser {
            advertiser.solicited(now);
        }
        Some(change)
    }

    /// A packet failed the checks. Returns how many there were, when it is time to log that.
    pub fn ignored(&mut self, now: Instant) -> Option<u64> {
        self.ignored += 1;
        let due = self.ignored_logged.is_none_or(|at| now >= at + IGNORED);
        due.then(|| {
            self.ignored_logged = Some(now);
            self.ignored
        })
    }

    /// What is to be done now. Call again until there is nothing.
    pub fn poll(&mut self, now: Instant) -> Option<Act> {
        if self.add_address_at.is_some_and(|at| at <= now) {
            self.add_address_at = Some(now + ADDRESS_AGAIN);
            return Some(Act::AddAddress);
        }
        let source = self.interface.link_local?;
        Some(Act::Send(source, self.advertiser.as_mut()?.poll(now)?))
    }

    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let sends = self.advertiser.as_ref().map(Advertiser::poll_timeout);
        let overdue = self.alone_since.map(|since| since + OVERDUE).filter(|at| *at > now);
        [sends, overdue, self.neighbors.poll_timeout(), self.add_address_at].into_iter().flatten().min()
    }

    pub fn on_link(&self, now: Instant) -> OnLink {
        OnLink {
            neighbors: self.reachable.clone(),
            is_overdue: self.alone_since.is_some_and(|since| now >= since + OVERDUE),
            trouble: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "an epoch")]
mod tests {
    use super::*;

    fn addr(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    fn eth0() -> Interface {
        Interface {
            name: "eth0".into(),
            limit: 1,
            link_local: Some(addr(0xa)),
            lacks_address: false,
            can_send: true,
            generation: 0,
        }
    }

    fn sent(link: &mut Link, now: Instant) -> Vec<Send> {
        let acts = std::iter::from_fn(|| link.poll(now));
        acts.map(|act| if let Act::Send(_, what) = act { what } else { panic!("{act:?}") }).collect()
    }

    fn advertised(from: u16) -> Input<'static> {
        Input::Packet { from: addr(from), packet: Packet::Advertisement }
    }

    #[test]
    fn nothing_is_sent_without_carrier_or_address_and_all_begins_anew_with_them() {
        let (t0, own) = (Instant::now(), BTreeSet::new());
        let mut link = Link::new(t0, &Interface { link_local: None, ..eth0() }, 1);
        assert!(sent(&mut link, t0).is_empty());
        link.handle(t0, &own, Input::Interface(&Interface { can_send: false, ..eth0() }));
        assert!(sent(&mut link, t0).is_empty());
        link.handle(t0, &own, Input::Interface(&eth0()));
        let both = [Send::Advertisement, Send::Solicitation];
        assert_eq!(sent(&mut link, t0), both);
        link.handle(t0, &own, Input::Interface(&eth0()));
        assert!(sent(&mut link, t0).is_empty(), "nothing changed");
        link.handle(t0, &own, Input::Interface(&Interface { link_local: Some(addr(0xb)), ..eth0() }));
        assert_eq!(sent(&mut link, t0), both, "another address");
    }

    #[test]
    fn on_a_link_that_was_lost_the_advertisement_waits_until_the_neighbor_has_seen_it_return() {
        let (t0, own) = (Instant::now(), BTreeSet::new());
        for lost in [
            Interface { generation: 1, ..eth0() },
            Interface { can_send: false, ..eth0() },
            Interface { link_local: None, ..eth0() },
        ] {
            let mut link = Link::new(t0, &eth0(), 1);
            assert_eq!(sent(&mut link, t0), [Send::Advertisement, Send::Solicitation]);
            link.handle(t0, &own, Input::Interface(&lost));
            let back = Interface { generation: lost.generation, ..eth0() };
            link.handle(t0, &own, Input::Interface(&back));
            assert_eq!(sent(&mut link, t0), [Send::Solicitation], "{lost:?}");
            assert_eq!(link.poll_timeout(t0), Some(t0 + Duration::from_secs(1)), "{lost:?}");
            // Who shows itself has seen the link.
            link.handle(t0, &own, advertised(1));
            assert!(link.poll_timeout(t0) < Some(t0 + Duration::from_millis(501)), "{lost:?}");
        }
    }

    #[test]
    fn who_is_found_while_the_own_address_is_checked_is_a_neighbor_once_it_can_be_used() {
        let (t0, own) = (Instant::now(), BTreeSet::new());
        let tentative = Interface { link_local: None, ..eth0() };
        let mut link = Link::new(t0, &tentative, 1);
        assert_eq!(link.handle(t0, &own, advertised(1)), [Change::Found(addr(1))]);
        assert!(link.on_link(t0).neighbors.is_empty());
        link.handle(t0, &own, Input::Interface(&eth0()));
        assert_eq!(link.on_link(t0).neighbors, [addr(1)].into());
        link.handle(t0, &own, Input::Interface(&tentative));
        assert_eq!(link.on_link(t0).neighbors, [addr(1)].into(), "it stays a neighbor");
    }

    #[test]
    fn an_address_is_added_where_the_kernel_makes_none_within_two_seconds() {
        let (t0, own, s) = (Instant::now(), BTreeSet::new(), Duration::from_secs);
        let bare = Interface { link_local: None, lacks_address: true, ..eth0() };
        let mut link = Link::new(t0, &bare, 1);
        assert_eq!(link.poll(t0 + s(1)), None);
        link.handle(t0 + s(1), &own, Input::Interface(&bare));
        assert_eq!(link.poll_timeout(t0), Some(t0 + s(2)));
        assert_eq!(link.poll(t0 + s(2)), Some(Act::AddAddress));
        assert_eq!((link.poll(t0 + s(2)), link.poll(t0 + s(32))), (None, Some(Act::AddAddress)));
        // Under duplicate address detection.
        link.handle(t0 + s(33), &own, Input::Interface(&Interface { link_local: None, ..eth0() }));
        assert_eq!(link.poll(t0 + s(100)), None);
    }

    #[test]
    fn an_own_address_on_another_interface_of_the_same_link_is_no_neighbor() {
        let (t0, own) = (Instant::now(), [addr(0xa), addr(0xb)].into());
        let mut link = Link::new(t0, &eth0(), 1);
        for input in [advertised(0xb), Input::Connection(addr(0xb))] {
            assert!(link.handle(t0, &own, input).is_empty());
        }
        assert!(link.on_link(t0).neighbors.is_empty());
        assert_eq!(link.handle(t0, &own, Input::Connection(addr(1))), [Change::Found(addr(1))]);
    }

    #[test]
    fn nobody_for_thirty_seconds_is_overdue_and_again_after_the_last_one_is_gone() {
        let (t0, own, s) = (Instant::now(), BTreeSet::new(), Duration::from_secs);
        let mut link = Link::new(t0, &eth0(), 1);
        assert!(!link.on_link(t0 + s(29)).is_overdue && link.on_link(t0 + s(30)).is_overdue);
        link.handle(t0 + s(40), &own, advertised(1));
        assert!(!link.on_link(t0 + s(100)).is_overdue);
        let gone = link.handle(t0 + s(300), &own, Input::Timeout);
        assert_eq!(gone, [Change::Gone(addr(1))]);
        assert!(!link.on_link(t0 + s(329)).is_overdue && link.on_link(t0 + s(330)).is_overdue);
    }

    #[test]
    fn a_neighbor_that_changes_its_address_each_second_is_replaced_once_in_ten_seconds() {
        let (t0, own) = (Instant::now(), BTreeSet::new());
        let mut link = Link::new(t0, &eth0(), 1);
        let changes: usize = (0..60)
            .map(|i| {
                link.handle(t0 + Duration::from_secs(i), &own, advertised(u16::try_from(i).unwrap() + 1))
                    .len()
            })
            .sum();
        assert_eq!(changes, 6);
        assert_eq!(link.on_link(t0).neighbors.len(), 1);
    }

    #[test]
    fn packets_that_are_ignored_are_logged_once_a_minute() {
        let t0 = Instant::now();
        let mut link = Link::new(t0, &eth0(), 1);
        let logged: Vec<_> =
            (0..120_000).filter_map(|ms| link.ignored(t0 + Duration::from_millis(ms))).collect();
        assert_eq!(logged, [1, 60_001]);
    }
}
