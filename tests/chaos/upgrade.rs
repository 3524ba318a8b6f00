//! An upgrade from a former version and the way back, host by host, under probes.

use std::{path::PathBuf, thread, time::Instant};

use crate::{
    alone,
    fabric::{Fabric, HOSTS},
    run::{self, Totals, UNDER_WAY},
    variable,
};

/// Probes per second from each container to each other one.
const RATE: u32 = 1000;

/// Every host goes back to the former version, and then to this one. Neighbors keep its routes and
/// it keeps its own, so that no packet is lost; afterwards nothing is left of the other version.
#[test]
#[ignore = "needs the binary of a former version: `scripts/upgrade` builds it and runs this"]
fn an_upgrade_and_the_way_back_cost_no_packet() {
    let _alone = alone();
    let former = variable("ROUTELET_FORMER").map(PathBuf::from);
    let former = former.expect("ROUTELET_FORMER names the binary of the former version: run scripts/upgrade");
    assert!(former.exists(), "no {}", former.display());
    let mut fabric = Fabric::new(RATE);
    let present = fabric.hosts[0].routelet.binary.clone();
    let mut totals = Totals::default();
    run::begin(&mut fabric);
    for (what, binary) in [("the way back", former), ("the upgrade", present)] {
        for h in 0..HOSTS {
            let routelet = &mut fabric.hosts[h].routelet;
            routelet.process.stop();
            routelet.binary.clone_from(&binary);
            routelet.restart();
            run::settled(&mut fabric, &format!("{what} of h{}", h + 1));
        }
        let end = Instant::now();
        thread::sleep(UNDER_WAY);
        run::judge(&mut fabric, &mut totals, end);
        println!("{what}: {} of {} probes lost so far", totals.lost.len(), totals.sent);
    }
    assert!(totals.sent > 10_000, "{} probes", totals.sent);
}
