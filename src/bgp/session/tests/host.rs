//! Sessions whose link or local address is lost.

use super::*;
use crate::{
    bgp::peer::Hops,
    net::{LinkState, Links, Prefix},
};

/// eth0 with these addresses.
fn host(addresses: &[&str]) -> Links {
    changed(addresses, |_| {})
}

fn changed(addresses: &[&str], change: impl FnOnce(&mut LinkState)) -> Links {
    let address = |text: &&str| {
        let (addr, len) = text.split_once('/').unwrap();
        let addr = addr.parse().unwrap();
        (addr, Prefix::new(addr, len.parse().unwrap()).unwrap())
    };
    let addresses: Vec<_> = addresses.iter().map(address).collect();
    let on_link = addresses.iter().map(|(_, p)| (*p, 2)).collect();
    let mut eth0 = LinkState { name: "eth0".into(), up: true, carrier: true, generation: 1, addresses };
    change(&mut eth0);
    Links::new([(2, eth0)].into(), on_link)
}

fn down() -> Links {
    changed(&[LOCAL], |l| l.carrier = false)
}

const LOCAL: &str = "10.0.0.1/24";

fn graceful_open(asn: Asn) -> Vec<u8> {
    let mut list = families();
    let family = |f: Family| GracefulFamily { afi: f.afi(), safi: f.safi(), forwarding: true };
    list.push(Capability::GracefulRestart(GracefulRestart {
        restarting: false,
        notification: true,
        restart_time: 120,
        families: Family::ALL.map(family).to_vec(),
    }));
    open(asn, 90, THEM, list)
}

impl Peer {
    fn host(&mut self, links: Links) -> &mut Self {
        self.feed(Input::Host(Arc::new(links)))
    }

    /// Established on eth0; the neighbor's AS number makes it eBGP or iBGP.
    fn on_eth0(change: impl FnOnce(&mut PeerConfig), asn: Asn) -> Self {
        let mut config = PeerConfig { remote_as: RemoteAs::Any, ..config() };
        change(&mut config);
        let mut p = Self::with(config, global());
        p.host(host(&[LOCAL])).feed(Input::Start).feed(Input::Connected(OUT, ends()));
        p.receive(OUT, &graceful_open(asn)).receive(OUT, &keepalive());
        assert_eq!(p.s.state(), SessionState::Established, "{:?}", p.out);
        p.out.clear();
        p
    }

    fn held(&self) -> Vec<Option<u32>> {
        let held = |o: &Output| if let Output::Held { ifindex } = o { Some(*ifindex) } else { None };
        self.out.iter().filter_map(held).collect()
    }

    fn drops(&self) -> Vec<(String, u64)> {
        self.s.view(self.now).drops.into_iter().collect()
    }
}

#[test]
fn another_lease_ends_the_session_at_once_and_dials_from_the_new_address() {
    let mut p = Peer::on_eth0(|_| {}, 65002);
    p.host(host(&["10.0.0.12/24"]));
    assert_eq!(p.down(), Some(DownCause::Closed), "the neighbor's routes may stay: it forwards as before");
    assert_eq!(p.last_error(), "local address 10.0.0.1 removed, 10.0.0.12 has taken its place");
    assert_eq!(p.drops(), [("address-removed".to_owned(), 1)]);
    // The neighbor must not keep ours, whose next hop is gone: a Hard Reset from the former
    // address.
    let order: Vec<_> =
        p.out.iter().filter(|o| !matches!(o, Output::Event(_) | Output::Down { .. })).collect();
    assert!(
        matches!(
            order[..],
            [Output::KeepSource(OUT), Output::Transmit(OUT, _), Output::Close(OUT), Output::Connect]
        ),
        "{order:?}"
    );
    assert_eq!(p.notification(OUT).map(|n| (n.code, n.is_hard())), Some((6, true)));
}

#[test]
fn an_address_that_is_back_within_a_second_ends_nothing() {
    for way in [0, 50, 1000] {
        let mut p = Peer::on_eth0(|_| {}, 65002);
        p.host(host(&[])).pass(Duration::from_millis(way)).host(host(&[LOCAL])).pass(seconds(5));
        assert_eq!((p.down(), p.s.state()), (None, SessionState::Established), "{way} ms");
    }
}

#[test]
fn a_lost_address_without_a_successor_is_given_up_after_a_moment() {
    let mut p = Peer::on_eth0(|_| {}, 65002);
    p.host(host(&[])).pass(seconds(2));
    assert_eq!(p.last_error(), "local address 10.0.0.1 removed");
    assert!(p.kinds(OUT).is_empty() && !p.closed(OUT), "no way to the neighbor yet: {:?}", p.out);
    p.pass(seconds(3)).host(host(&["10.0.0.12/24"]));
    assert_eq!(p.kinds(OUT), [Kind::Notification], "sent as soon as there is a link");
    assert!(p.closed(OUT));
}

#[test]
fn a_lost_link_ends_an_ebgp_session_at_once_by_name() {
    let gone = || Links::new([].into(), Vec::new());
    #[rustfmt::skip]
    let cases = [
        ("cable out",     down(),                                         "link eth0 lost carrier"),
        ("set down",      changed(&[LOCAL], |l| l.up = false),            "link eth0 was set down"),
        ("deleted",       gone(),                                         "link eth0 was deleted"),
        ("out and in",    changed(&[LOCAL], |l| l.generation = 2),        "link eth0 lost carrier for a moment"),
    ];
    for (name, links, why) in cases {
        let mut p = Peer::on_eth0(|_| {}, 65002);
        p.host(links);
        assert_eq!(p.down(), Some(DownCause::LinkLost { ifindex: 2 }), "{name}");
        assert_eq!((p.last_error().as_str(), p.drops()), (why, vec![("link-down".to_owned(), 1)]), "{name}");
    }
}

#[test]
fn nothing_is_sent_over_a_lost_link_and_a_pending_notification_is_kept() {
    let mut p = Peer::on_eth0(|_| {}, 65002);
    p.host(down());
    assert!(p.kinds(OUT).is_empty() && !p.closed(OUT) && p.dials() == 0, "{:?}", p.out);
    p.pass(seconds(20)).out.clear();
    p.host(host(&[LOCAL]));
    let soft = p.notification(OUT).map(|n| (n.code, n.subcode));
    assert_eq!(soft, Some((6, cease::CONFIG_CHANGE)), "the way works again: its stale routes may stay");
    assert!(p.closed(OUT));

    let mut p = Peer::on_eth0(|_| {}, 65002);
    p.host(down()).pass(seconds(100));
    assert!(p.kinds(OUT).is_empty() && p.closed(OUT), "by now its hold timer has expired");
    let mut p = Peer::on_eth0(|_| {}, 65002);
    p.host(down()).feed(Input::Stop(Stop::Removed));
    assert!(p.closed(OUT), "nothing waits when the session is not to be any more");
}

#[test]
fn an_ibgp_session_is_probed_and_its_routes_are_held_meanwhile() {
    for (hops, asn) in [(Hops::Direct, 65001), (Hops::Multihop(3), 65002)] {
        let probed = || Peer::on_eth0(|c| c.hops = hops, asn);
        let mut p = probed();
        p.host(down()).pass(seconds(1));
        assert_eq!((p.down(), p.held(), p.kinds(OUT)), (None, vec![Some(2)], vec![Kind::Keepalive]));
        assert!(p.out.iter().any(|o| matches!(o, Output::Probe(OUT))));

        p.host(host(&[LOCAL])).feed(Input::Acknowledged(OUT)).pass(seconds(20));
        assert_eq!((p.down(), p.held()), (None, vec![Some(2), None]));

        let mut p = probed();
        p.host(down()).host(host(&[LOCAL])).pass(seconds(10));
        assert_eq!(p.down(), Some(DownCause::LinkLost { ifindex: 2 }), "nobody acknowledged");
        assert_eq!(p.last_error(), "link eth0 lost carrier");
    }
}

#[test]
fn an_ibgp_session_ends_with_its_address() {
    let mut p = Peer::on_eth0(|_| {}, 65001);
    p.host(host(&["10.0.0.12/24"]));
    assert_eq!((p.down(), p.drops()), (Some(DownCause::Closed), vec![("address-removed".to_owned(), 1)]));
}

#[test]
fn fast_failover_decides_for_whom() {
    #[rustfmt::skip]
    let cases = [
        ("iBGP, configured",    Some(true),  65001, true),
        ("eBGP, not wanted",    Some(false), 65002, false),
        ("iBGP, not wanted",    Some(false), 65001, false),
        ("eBGP",                None,        65002, true),
    ];
    for (name, fast_failover, asn, ends) in cases {
        let lost = |links: Links| {
            let mut p = Peer::on_eth0(|c| c.fast_failover = fast_failover, asn);
            p.host(links).pass(seconds(20));
            p.down().is_some()
        };
        assert_eq!((lost(down()), lost(host(&["10.0.0.12/24"]))), (ends, ends), "{name}");
        let mut p = Peer::on_eth0(|c| c.fast_failover = fast_failover, asn);
        p.host(down()).pass(seconds(1));
        assert!(p.held().is_empty() && p.kinds(OUT).is_empty(), "{name}: not probed");
    }
}

#[test]
fn an_attempt_over_a_lost_link_is_given_up_quietly() {
    let mut p = Peer::new();
    p.host(host(&[LOCAL])).feed(Input::Start).feed(Input::Connected(OUT, ends())).host(down());
    assert!(p.closed(OUT) && p.down().is_none() && p.notification(OUT).is_none(), "{:?}", p.out);
    assert_eq!(p.last_error(), "link eth0 lost carrier");
}

/// A neighbor that is still busy with the end of the last session is called again within a second.
#[test]
fn the_first_dials_after_a_loss_follow_quickly() {
    let mut p = Peer::on_eth0(|_| {}, 65002);
    p.host(down()).host(host(&[LOCAL])).feed(Input::RetryNow);
    assert_eq!(p.dials(), 1);
    p.feed(Input::Connected(IN, ends())).feed(Input::Closed(IN, None)).pass(seconds(1));
    assert_eq!(p.dials(), 2, "{:?}", p.out);
    assert_eq!(
        p.last_error(),
        "the neighbor closed the connection before its OPEN: is this host configured there?"
    );
    p.feed(Input::Connected(Conn(9), ends()))
        .receive(Conn(9), &graceful_open(65002))
        .receive(Conn(9), &keepalive());
    assert_eq!(p.last_error(), "link eth0 lost carrier", "why the last session ended is not forgotten");
}

// The session moves to another address of this host: make before break.

const OTHER: &str = "10.0.0.3";

fn at_other() -> Endpoints {
    Endpoints { local: SocketAddr::new(OTHER.parse().unwrap(), 40000), ..ends() }
}

/// Established at 10.0.0.1, with 10.0.0.3 as `local-address` from now on.
fn moving() -> Peer {
    let mut p = Peer::on_eth0(|c| c.local_address = Some([10, 0, 0, 1].into()), 65002);
    p.host(host(&[LOCAL, "10.0.0.3/24"]));
    let config = PeerConfig { remote_as: RemoteAs::Any, local_address: OTHER.parse().ok(), ..config() };
    p.feed(Input::Configure(Arc::new(config), global()));
    assert_eq!((p.down(), p.dials(), p.closed(OUT)), (None, 1, false), "the old session stays");
    p
}

#[test]
fn another_local_address_is_dialled_from_before_the_old_session_ends() {
    let mut p = moving();
    p.feed(Input::Connected(IN, at_other())).receive(IN, &graceful_open(65002));
    assert_eq!((p.down(), p.s.state()), (None, SessionState::Established));
    p.receive(IN, &keepalive());
    let news = p.out.iter().filter(|o| matches!(o, Output::Up(_) | Output::Down { .. }));
    assert!(
        matches!(news.collect::<Vec<_>>()[..], [Output::Down { cause: DownCause::Moved, .. }, Output::Up(_)]),
        "{:?}",
        p.out
    );
    assert_eq!(p.s.negotiated().unwrap().local_addr, OTHER.parse::<std::net::IpAddr>().unwrap());
    assert!(!p.closed(OUT), "the neighbor keeps the old routes until it has the new ones");
    p.receive(OUT, &keepalive()).pass(seconds(5));
    assert_eq!(p.notification(OUT).map(|n| (n.code, n.is_hard())), Some((6, true)));
    assert!(p.closed(OUT) && p.s.state() == SessionState::Established);
}

#[test]
fn a_neighbor_that_calls_the_new_address_first_moves_the_session_too() {
    let mut p = moving();
    p.feed(Input::Accepted(IN, at_other())).receive(IN, &graceful_open(65002)).receive(IN, &keepalive());
    assert_eq!(p.down(), Some(DownCause::Moved));
    assert_eq!(p.s.state(), SessionState::Established);
}

#[test]
fn a_neighbor_that_does_not_know_the_new_address_yet_is_called_again_and_keeps_the_old_session() {
    let mut p = moving();
    let rejected = notify(&Notification::cease(cease::REJECTED, None));
    for n in 10..14 {
        p.feed(Input::Connected(Conn(n), at_other())).receive(Conn(n), &rejected).pass(seconds(1));
        assert_eq!((p.down(), p.s.state()), (None, SessionState::Established));
        assert_eq!(p.dials(), n as usize - 8, "again within a second");
    }
    // Not for ever: then the new address is used.
    p.pass(seconds(10));
    assert_eq!(p.down(), Some(DownCause::Administrative));
    assert_eq!(p.last_error(), "configuration changed: local-address");
}

#[test]
fn an_address_that_is_no_longer_preferred_or_is_the_one_in_use_ends_nothing() {
    for local_address in [None, Some([10, 0, 0, 1].into())] {
        let mut p = Peer::on_eth0(|c| c.local_address = Some([10, 0, 0, 1].into()), 65002);
        let config = PeerConfig { remote_as: RemoteAs::Any, local_address, ..config() };
        p.feed(Input::Configure(Arc::new(config), global())).pass(seconds(20));
        assert_eq!((p.down(), p.dials()), (None, 0));
    }
    let mut p = moving();
    let back = PeerConfig { remote_as: RemoteAs::Any, local_address: Some([10, 0, 0, 1].into()), ..config() };
    p.feed(Input::Configure(Arc::new(back), global())).feed(Input::Connected(IN, at_other()));
    assert!(p.closed(IN), "changed back meanwhile");
    p.pass(seconds(20));
    assert_eq!((p.down(), p.s.state()), (None, SessionState::Established));
}
