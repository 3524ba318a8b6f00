//! A neighbor that establishes a session and ends it at once, as fast as it can.

use super::*;

/// Octets of log that ten seconds of it may cost. Without damping it was a megabyte a second.
const LOG: u64 = 16 * 1024;

fn logged(bed: &Bed) -> u64 {
    fs::metadata(bed.routelet.dir.join("log")).expect("of the test").len()
}

#[test]
fn a_flapping_neighbor_costs_little_log_and_no_events_of_others() {
    let _alone = alone();
    let mut bed = bed();
    let mut witness = Witness::new(&bed);
    let before = logged(&bed);
    let (start, mut sessions, mut dials) = (Instant::now(), 0, 0);
    while start.elapsed() < Duration::from_secs(10) {
        dials += 1;
        if let Ok(mut peer) = bed.try_dial(at(1, 1)) {
            sessions += u32::from(peer.establishes_within(1.0, &Open::new(EXTERNAL, at(1, 1))));
        }
    }
    let grown = logged(&bed) - before;
    println!("{sessions} sessions in {dials} dials, {grown} octets of log");
    assert!((1..=12).contains(&sessions), "{sessions} sessions");
    assert!(grown < LOG, "{grown} octets of log");
    witness.alive(&mut bed).unwrap();
    let events = bed.routelet.cli(&["show", "events", "-o", "wide"]);
    let of_witness =
        events.lines().any(|l| l.contains(&Witness::ADDR.to_string()) && l.contains("session established"));
    assert!(of_witness, "{events}");
    // A neighbor that behaves again is back after its time in Idle.
    let mut peer = bed.session(at(1, 1), &Open::new(EXTERNAL, at(1, 1)));
    peer.announce(1, &["21.0.1.0/24"]);
    wait_for("its route is in the kernel", 10.0, || in_kernel(&bed, "21.0.1.0/24").then_some(()));
}
