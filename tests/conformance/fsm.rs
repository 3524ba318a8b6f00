//! RFC 4271 §8 with 6608, 4486, 9003 and 9687: states, timers, collisions, and how a session is ended.

use std::{
    net::{Ipv4Addr, TcpListener},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    bed::{Bed, EXTERNAL, HOST, Peer, Report, at, holds, passive, same},
    common::{PATIENCE, wait_for},
    words::{KEEPALIVE, NOTIFICATION, OPEN, Open, REFRESH, UPDATE, attr, end_of_rib, message, nlri, update},
};

fn open(n: u8) -> Open {
    Open::new(EXTERNAL, at(1, n))
}

#[test]
fn messages_in_the_wrong_state() {
    let bed = Bed::start("", &passive(1, 40, "remote-as = 65001"));
    let mut report = Report::default();
    let refresh = message(REFRESH, &[0, 1, 0, 1]);
    #[rustfmt::skip]
    let first: [(&str, Vec<u8>, [u8; 3]); 3] = [
        ("6608 §3 KEEPALIVE before the OPEN",     message(KEEPALIVE, &[]), [5, 1, 4]),
        ("6608 §3 UPDATE before the OPEN",        end_of_rib(),            [5, 1, 2]),
        ("6608 §3 ROUTE-REFRESH before the OPEN", refresh.clone(),         [5, 1, 5]),
    ];
    let mut n = 0;
    for (name, octets, want) in first {
        n += 1;
        report.case(name, || {
            let mut peer = bed.dial(at(1, n));
            peer.send(&octets);
            same(peer.ends()?, want.to_vec())
        });
    }
    #[rustfmt::skip]
    let second: [(&str, Vec<u8>, [u8; 3]); 3] = [
        ("6608 §3 OPEN in OpenConfirm",          open(n).encode(), [5, 2, 1]),
        ("6608 §3 UPDATE in OpenConfirm",        end_of_rib(),     [5, 2, 2]),
        ("6608 §3 ROUTE-REFRESH in OpenConfirm", refresh,          [5, 2, 5]),
    ];
    for (name, octets, want) in second {
        n += 1;
        report.case(name, || {
            let mut peer = bed.dial(at(1, n));
            peer.send(&open(n).encode());
            peer.expect(KEEPALIVE, PATIENCE).ok_or("no KEEPALIVE")?;
            peer.send(&octets);
            same(peer.ends()?, want.to_vec())
        });
    }
    n += 1;
    report.case("6608 §3 OPEN in Established", || {
        let mut peer = bed.peer(at(1, n), EXTERNAL);
        peer.send(&open(n).encode());
        same(peer.ends()?, vec![5, 3, 1])
    });
    n += 1;
    report.case("4271 §6.4 NOTIFICATION is not answered, the connection is closed", || {
        let mut peer = bed.peer(at(1, n), EXTERNAL);
        peer.send(&message(NOTIFICATION, &[6, 4]));
        same(peer.ends(), Err("closed without a NOTIFICATION".into()))
    });
    n += 1;
    report.case("4271 §6.4 NOTIFICATION of unknown codes is not answered", || {
        let mut peer = bed.peer(at(1, n), EXTERNAL);
        peer.send(&message(NOTIFICATION, &[77, 200, 1, 2, 3]));
        same(peer.ends(), Err("closed without a NOTIFICATION".into()))
    });
    n += 1;
    report.case("4271 §8.2.2 NOTIFICATION before the OPEN", || {
        let mut peer = bed.dial(at(1, n));
        peer.send(&message(NOTIFICATION, &[2, 1, 0, 4]));
        same(peer.ends(), Err("closed without a NOTIFICATION".into()))
    });
    n += 1;
    report.case("9003 §2 texts of the neighbor are shown", || {
        let mut peer = bed.peer(at(1, n), EXTERNAL);
        let text = "maintenance für heute";
        let mut body = vec![6, 2, u8::try_from(text.len()).unwrap()];
        body.extend(text.as_bytes());
        peer.send(&message(NOTIFICATION, &body));
        let _ = peer.ends();
        let shown = bed.neighbor(at(1, n))["last_notification_received"].to_string();
        holds(shown.contains(text), &shown)
    });
    n += 1;
    report.case("9003 §2 texts that are no UTF-8, or longer than the message, are survived", || {
        let mut peer = bed.peer(at(1, n), EXTERNAL);
        peer.send(&message(NOTIFICATION, &[6, 2, 250, 0xff, 0xfe, 0x1b]));
        let _ = peer.ends();
        wait_for("closed", 3.0, || (bed.state(at(1, n)) != "established").then_some(()));
        Ok(())
    });
    n += 1;
    report.case("4271 §8.2.2 the connection closed in every state", || {
        drop(bed.dial(at(1, n)));
        let mut peer = bed.dial(at(1, n));
        peer.send(&open(n).encode());
        peer.expect(KEEPALIVE, PATIENCE).ok_or("no KEEPALIVE")?;
        drop(peer);
        drop(bed.peer(at(1, n), EXTERNAL));
        drop(bed.peer(at(1, n), EXTERNAL));
        Ok(())
    });
    n += 1;
    report.case("4271 §6.6 OPEN and KEEPALIVE in one segment", || {
        let mut peer = bed.dial(at(1, n));
        let route = update(&[], &peer.good(1), &nlri(&[crate::words::net("20.0.7.0/24")]));
        peer.send(&[open(n).encode(), message(KEEPALIVE, &[]), route, end_of_rib()].concat());
        wait_for("the route", 3.0, || (bed.paths("20.0.7.0/24").len() == 1).then_some(()));
        Ok(())
    });
    report.finish();
}

fn elapsed(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// For a while the daemon does not run; what was said meanwhile lies in its sockets.
#[test]
fn a_daemon_that_stood_still_for_longer_than_the_hold_time_loses_no_session() {
    let bed = Bed::start("hold-time = 3", &passive(1, 8, "remote-as = 65001"));
    let mut peers: Vec<_> = (1..=8).map(|n| bed.session(at(1, n), &open(n).hold(3))).collect();
    bed.routelet.process.signal("STOP");
    for _ in 0..8 {
        sleep(Duration::from_millis(500));
        peers.iter_mut().for_each(Peer::keepalive);
    }
    bed.routelet.process.signal("CONT");
    peers.iter_mut().for_each(Peer::keepalive);
    for peer in &mut peers {
        bed.settled(peer);
        assert_eq!(bed.neighbor(peer.addr)["last_error"].as_str(), None, "{}", peer.addr);
    }
}

fn between(what: f64, least: f64, most: f64) -> Result<(), String> {
    holds((least..most).contains(&what), &format!("{what:.2} s, not {least} to {most} s"))
}

#[test]
fn timers() {
    let bed = Bed::start("hold-time = 3", &passive(1, 20, "remote-as = 65001"));
    let mut report = Report::default();
    let bed = &bed;
    report.together(vec![
        (
            "4271 §6.5 hold time of 3 s, to the second, with its data",
            Box::new(move || {
                let mut peer = bed.session(at(1, 1), &open(1).hold(3));
                let start = Instant::now();
                same(peer.ends()?, vec![4, 0])?;
                between(elapsed(start), 2.8, 3.7)
            }),
        ),
        (
            "4271 §4.4 KEEPALIVEs every third of the hold time",
            Box::new(move || {
                let mut peer = bed.session(at(1, 2), &open(2).hold(3));
                let start = Instant::now();
                for _ in 0..5 {
                    peer.expect(KEEPALIVE, 1.4).ok_or("no KEEPALIVE in time")?;
                    peer.keepalive();
                }
                between(elapsed(start), 3.0, 5.5)
            }),
        ),
        (
            "4271 §8.2.2 an UPDATE restarts the hold timer",
            Box::new(move || {
                let mut peer = bed.session(at(1, 3), &open(3).hold(3));
                for _ in 0..8 {
                    sleep(Duration::from_millis(600));
                    peer.send(&end_of_rib());
                }
                same(bed.state(at(1, 3)), "established".into())
            }),
        ),
        (
            "4271 §8.2.2 half a message restarts no hold timer",
            Box::new(move || {
                let mut peer = bed.session(at(1, 4), &open(4).hold(3));
                let start = Instant::now();
                for octet in [0xff; 10] {
                    peer.send(&[octet]);
                    sleep(Duration::from_millis(250));
                }
                same(peer.ends()?, vec![4, 0])?;
                between(elapsed(start), 2.8, 3.7)
            }),
        ),
        (
            "4271 §4.2 hold time 0: no KEEPALIVEs, no expiry",
            Box::new(move || {
                let mut peer = bed.session(at(1, 5), &open(5).hold(0));
                while let Some((kind, _)) = peer.next(4.5) {
                    holds(kind == UPDATE, &format!("message of type {kind}"))?;
                }
                holds(!peer.closed, "closed")?;
                same(bed.state(at(1, 5)), "established".into())
            }),
        ),
        (
            "4271 §8.2.2 hold timer in OpenConfirm",
            Box::new(move || {
                let mut peer = bed.dial(at(1, 6));
                peer.send(&open(6).hold(3).encode());
                let start = Instant::now();
                same(peer.ends()?, vec![4, 0])?;
                between(elapsed(start), 2.8, 3.7)
            }),
        ),
        (
            "4271 §8.2.2 OpenSent waits for minutes, not for the hold time",
            Box::new(move || {
                let mut peer = bed.dial(at(1, 7));
                peer.expect(OPEN, PATIENCE).ok_or("no OPEN")?;
                same(peer.next(4.0), None)?;
                holds(!peer.closed, "closed")
            }),
        ),
        (
            "4271 §4.4 the neighbor's shorter hold time counts",
            Box::new(move || {
                let mut peer = bed.session(at(1, 8), &open(8).hold(90));
                let start = Instant::now();
                same(peer.ends()?, vec![4, 0])?;
                between(elapsed(start), 2.8, 3.7)
            }),
        ),
        (
            "4271 §6.5 ROUTE-REFRESH and KEEPALIVE count as life",
            Box::new(move || {
                let mut peer = bed.session(at(1, 9), &open(9).hold(3));
                for _ in 0..4 {
                    sleep(Duration::from_millis(1000));
                    peer.send(&message(REFRESH, &[0, 1, 0, 1]));
                }
                same(bed.state(at(1, 9)), "established".into())
            }),
        ),
    ]);
    report.finish();
}

/// Waits for the next call on the listener.
fn call(listener: &TcpListener, seconds: f64) -> Option<Peer> {
    let start = Instant::now();
    while elapsed(start) < seconds {
        if let Ok((stream, from)) = listener.accept() {
            stream.set_nonblocking(false).ok()?;
            let std::net::SocketAddr::V4(_) = from else { return None };
            let local = stream.local_addr().ok()?.ip().to_string().parse().ok()?;
            return Some(Peer::over(stream, local));
        }
        sleep(Duration::from_millis(5));
    }
    None
}

fn active(n: u8, keys: &str) -> String {
    format!("[[bgp.neighbor]]\naddress = \"{}\"\nremote-as = 65001\n{keys}\n", at(1, n))
}

#[test]
fn collisions_and_attempts() {
    let retry = "connect-retry-time = 1\nidle-hold-time = 1\n";
    let neighbors: String = (1..=12).map(|n| active(n, retry)).collect();
    let mut net_up = Vec::new();
    let bed = Bed::start("", &neighbors);
    for n in 1..=12 {
        net_up.push(bed.listen(at(1, n)));
    }
    let mut report = Report::default();
    let (bed, net_up) = (&bed, &net_up);
    let low = Ipv4Addr::new(1, 1, 1, 1);
    let high = Ipv4Addr::new(250, 1, 1, 1);
    let both = move |n: u8| -> Result<(Peer, Peer), String> {
        let theirs = call(&net_up[usize::from(n) - 1], PATIENCE).ok_or("routelet does not call")?;
        Ok((theirs, bed.dial(at(1, n))))
    };
    // The loser may go as soon as its OPEN is there (the identifier is known by then), or when the other's is.
    let collide = move |n: u8, id: Ipv4Addr, ours_wins: bool, ours_first: bool| -> Result<(), String> {
        let (mut dialled, mut accepted) = both(n)?;
        let mut order = [&mut dialled, &mut accepted];
        if !ours_first {
            order.reverse();
        }
        for peer in &mut order {
            peer.send(&Open::new(EXTERNAL, id).encode());
            sleep(Duration::from_millis(100));
        }
        let (winner, loser) = if ours_wins { (dialled, accepted) } else { (accepted, dialled) };
        let (mut winner, mut loser) = (winner, loser);
        same(loser.ends()?, vec![6, 7])?;
        let mut seen = Vec::new();
        while let Some((kind, body)) = winner.next(PATIENCE) {
            if kind == KEEPALIVE {
                break;
            }
            seen.push((kind, body));
        }
        holds(!winner.closed, &format!("the winner closed after {seen:?}"))?;
        winner.keepalive();
        wait_for("up", 3.0, || (bed.state(at(1, n)) == "established").then_some(()));
        Ok(())
    };
    report.together(vec![
        (
            "4271 §6.8 our id is higher: the connection that we dialled survives",
            Box::new(move || collide(1, low, true, true)),
        ),
        (
            "4271 §6.8 our id is higher, OPENs in the other order",
            Box::new(move || collide(2, low, true, false)),
        ),
        (
            "4271 §6.8 their id is higher: the connection that they dialled survives",
            Box::new(move || collide(3, high, false, true)),
        ),
        (
            "4271 §6.8 their id is higher, OPENs in the other order",
            Box::new(move || collide(4, high, false, false)),
        ),
        // Theirs is 65001, ours 65000.
        (
            "6286 §2.3 equal ids: the larger AS number decides",
            Box::new(move || collide(12, HOST, false, true)),
        ),
        (
            "4271 §6.8 a second connection of an established session is refused",
            Box::new(move || {
                let mut first = call(&net_up[4], PATIENCE).ok_or("routelet does not call")?;
                holds(first.try_establish(&Open::new(EXTERNAL, high)), "no session")?;
                bed.established(at(1, 5));
                let mut second = bed.dial(at(1, 5));
                second.send(&Open::new(EXTERNAL, high).encode());
                same(second.ends()?, vec![6, 7])?;
                same(bed.state(at(1, 5)), "established".into())
            }),
        ),
        (
            "4724 §4.2 with graceful restart a second connection replaces the first",
            Box::new(move || {
                let mut first = call(&net_up[5], PATIENCE).ok_or("routelet does not call")?;
                let graceful = Open::new(EXTERNAL, low).graceful(0, 120, 0x80);
                holds(first.try_establish(&graceful), "no session")?;
                first.addr = at(1, 6);
                first.announce(1, &["20.0.6.0/24"]);
                bed.settled(&mut first);
                // A call within a tenth of a second of the first OPEN may have crossed ours, and is a collision.
                sleep(Duration::from_millis(200));
                let mut second = bed.dial(at(1, 6));
                holds(second.try_establish(&graceful), "no second session")?;
                same(first.ends(), Err("closed without a NOTIFICATION".into()))?;
                let route = bed.received_prefix(at(1, 6), "20.0.6.0/24").ok_or("not kept")?;
                same(route["stale"].as_bool(), Some(true))
            }),
        ),
        (
            "4271 §8.2.2 silent second connection does not stop the first",
            Box::new(move || {
                let (mut dialled, accepted) = both(7)?;
                holds(dialled.try_establish(&Open::new(EXTERNAL, low)), "no session")?;
                bed.established(at(1, 7));
                sleep(Duration::from_millis(300));
                drop(accepted);
                sleep(Duration::from_millis(300));
                same(bed.state(at(1, 7)), "established".into())
            }),
        ),
        (
            "4271 §8.1.1 after an error no storm of attempts",
            Box::new(move || {
                let listener = &net_up[7];
                let mut count = 0;
                let start = Instant::now();
                while elapsed(start) < 8.0 {
                    let Some(mut peer) = call(listener, 8.0 - elapsed(start)) else { break };
                    count += 1;
                    peer.send(&message(9, &[]));
                    let _ = peer.ends();
                }
                holds((2..=5).contains(&count), &format!("{count} attempts in 8 s with idle-hold-time 1"))
            }),
        ),
        (
            "4271 §8.2.2 an attempt that is closed is tried again, not at once",
            Box::new(move || {
                let listener = &net_up[8];
                let mut count = 0;
                let start = Instant::now();
                while elapsed(start) < 8.0 {
                    if call(listener, 8.0 - elapsed(start)).is_some() {
                        count += 1;
                    }
                }
                holds((2..=8).contains(&count), &format!("{count} attempts in 8 s with connect-retry-time 1"))
            }),
        ),
        (
            "4271 §8.2.2 a session that was lost is dialled again",
            Box::new(move || {
                let mut first = call(&net_up[9], PATIENCE).ok_or("routelet does not call")?;
                holds(first.try_establish(&Open::new(EXTERNAL, low)), "no session")?;
                drop(first);
                let mut again = call(&net_up[9], PATIENCE).ok_or("routelet does not call again")?;
                holds(again.try_establish(&Open::new(EXTERNAL, low)), "no second session")
            }),
        ),
        (
            "5492 §3 OPEN again without capabilities after 2/4",
            Box::new(move || {
                let mut first = call(&net_up[10], PATIENCE).ok_or("routelet does not call")?;
                first.expect(OPEN, PATIENCE).ok_or("no OPEN")?;
                first.send(&message(NOTIFICATION, &[2, 4]));
                drop(first);
                let mut again = call(&net_up[10], PATIENCE).ok_or("routelet does not call again")?;
                let open = again.expect(OPEN, PATIENCE).ok_or("no OPEN")?;
                same(open[9], 0)
            }),
        ),
    ]);
    report.finish();
}

#[test]
fn operators_end_sessions() {
    let keys = "remote-as = 65001\ngraceful-restart = false\nmax-prefixes = 3\nmax-prefixes-restart = 2";
    let bed = Bed::start("", &passive(1, 10, keys));
    let mut report = Report::default();
    let command = |args: &[&str]| bed.routelet.cli(args);
    let addr = |n: u8| at(1, n).to_string();
    report.case("4486 §4, 9003 §2 disable with a text", || {
        let mut peer = bed.peer(at(1, 1), EXTERNAL);
        command(&["neighbor", "disable", &addr(1), "--message", "für später"]);
        let mut want = vec![6, 2, 13];
        want.extend("für später".as_bytes());
        want[2] = u8::try_from("für später".len()).unwrap();
        same(peer.ends()?, want)?;
        same(bed.state(at(1, 1)), "disabled".into())?;
        let mut again = bed.dial(at(1, 1));
        same(again.ends()?, vec![6, 5])?;
        command(&["neighbor", "enable", &addr(1)]);
        bed.peer(at(1, 1), EXTERNAL);
        Ok(())
    });
    report.case("4486 §4 reset", || {
        let mut peer = bed.peer(at(1, 2), EXTERNAL);
        command(&["neighbor", "reset", &addr(2)]);
        let body = peer.ends()?;
        same(body[..2].to_vec(), vec![6, 4])?;
        bed.peer(at(1, 2), EXTERNAL);
        Ok(())
    });
    report.case("8538 §4 a reset is a Hard Reset where the N bit was seen", || {
        let mut peer = bed.session(at(1, 3), &open(3).graceful(4, 60, 0));
        command(&["neighbor", "reset", &addr(3), "--message", "x"]);
        let body = peer.ends()?;
        // Without graceful restart on our side the plain one is right as well.
        holds(body[..2] == [6, 9] || body[..2] == [6, 4], &format!("{body:?}"))
    });
    report.case("4271 §6.7, 4486 §4 too many prefixes: family and limit go along", || {
        let mut peer = bed.peer(at(1, 4), EXTERNAL);
        peer.announce(1, &["20.4.0.0/24", "20.4.1.0/24", "20.4.2.0/24"]);
        bed_still(&bed, 4)?;
        peer.announce(1, &["20.4.0.0/24"]);
        bed_still(&bed, 4)?;
        peer.announce(1, &["20.4.3.0/24"]);
        same(peer.ends()?, vec![6, 1, 0, 1, 1, 0, 0, 0, 3])?;
        wait_for("routes gone", 3.0, || bed.paths("20.4.0.0/24").is_empty().then_some(()));
        let start = Instant::now();
        bed.session(at(1, 4), &open(4));
        between(elapsed(start), 1.0, PATIENCE)
    });
    report.case("2918 §3 refresh is asked for", || {
        let mut peer = bed.peer(at(1, 5), EXTERNAL);
        command(&["neighbor", "refresh", &addr(5)]);
        let body = peer.expect(REFRESH, PATIENCE).ok_or("no ROUTE-REFRESH")?;
        same(body[2], 0)
    });
    report.case("4271 §6 attribute errors name the attribute", || {
        let mut peer = bed.peer(at(1, 6), EXTERNAL);
        let mut all = peer.good(1);
        all.push(attr(0x40, 99, &[1]));
        peer.announce_with(&all, &["20.6.0.0/24"]);
        same(peer.ends()?, vec![3, 2, 0x40, 99, 1, 1])
    });
    report.finish();
}

fn bed_still(bed: &Bed, n: u8) -> Result<(), String> {
    sleep(Duration::from_millis(100));
    same(bed.state(at(1, n)), "established".into())
}

#[test]
fn a_neighbor_that_is_removed_is_told() {
    let bed = Bed::start("", &passive(1, 2, "remote-as = 65001\ngraceful-restart = false"));
    let mut gone = bed.peer(at(1, 2), EXTERNAL);
    let mut stays = bed.peer(at(1, 1), EXTERNAL);
    let one = passive(1, 1, "remote-as = 65001\ngraceful-restart = false");
    bed.routelet.configure(&format!("[bgp]\nas = 65000\nrouter-id = \"{HOST}\"\n{one}"));
    bed.routelet.cli(&["reload"]);
    assert_eq!(gone.ends().map(|b| b[..2].to_vec()), Ok(vec![6, 3]), "4486 §4 Peer De-configured");
    bed.settled(&mut stays);
    let mut routelet = bed.routelet;
    assert!(routelet.process.stop().success());
    assert_eq!(stays.ends().map(|b| b[..2].to_vec()), Ok(vec![6, 2]), "4486 §4 Administrative Shutdown");
}
