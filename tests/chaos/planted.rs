//! Violations made on purpose: each invariant notices its own on the real fabric.

use std::{
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use crate::{alone, fabric::Fabric, run};

fn error(check: Result<(), String>) -> String {
    check.expect_err("the violation is noticed")
}

/// With a routelet that is stopped nobody repairs what is broken.
#[test]
fn planted_violations_are_noticed() {
    let _alone = alone();
    let mut fabric = Fabric::new(100);
    run::begin(&mut fabric);
    let host = fabric.hosts[2].ns.clone();

    fabric.hosts[2].routelet.process.signal("STOP");
    host.ip("route del 172.20.1.0/24 proto 179");
    let text = error(fabric.kernels());
    assert!(text.contains("kernel of h3") && text.contains("172.20.1.0/24 is {}"), "{text}");
    thread::sleep(Duration::from_secs(1));
    fabric.hosts[2].routelet.process.signal("CONT");
    run::until("the repair", || fabric.tables());
    let repaired = Instant::now();
    thread::sleep(Duration::from_secs(1));
    let (lost, sent) = fabric.traffic.lost(repaired);
    fabric.ledger.pauses(fabric.traffic.pauses());
    let unexplained = fabric.ledger.unexplained(&lost);
    assert!(sent > lost.len() && unexplained.iter().all(|l| l.pair == (2, 0)), "{unexplained:?}");
    assert!(unexplained.len() > 20 || !fabric.traffic.pauses().is_empty(), "{} lost", lost.len());

    host.ip("route del 198.18.0.0/15 proto static");
    assert!(error(fabric.foreign_unchanged()).contains("198.18.0.0/15"));
    host.ip("route add blackhole 198.18.0.0/15 proto static metric 500");
    assert_eq!(fabric.foreign_unchanged(), Ok(()));

    assert_eq!(fabric.nothing_leaked(), Ok(()));
    let client = UnixStream::connect(fabric.hosts[2].routelet.socket()).expect("the control socket");
    run::until("a descriptor more is noticed", || match fabric.nothing_leaked() {
        Err(e) if e.contains("leaked") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(client);
    run::until("it is given back", || fabric.nothing_leaked());
    for id in 90001..=90003 {
        host.ip(&format!("nexthop add id {id} blackhole proto 179"));
    }
    let objects = error(fabric.nothing_leaked());
    assert!(objects.contains("h3") && objects.contains("nexthop objects"), "{objects}");
}
