//! Hostile and unlucky neighbors: afterwards another session still stands, the daemon lives, memory is bounded.

use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{
    bed::{Bed, EXTERNAL, Peer, Report, at, holds, passive, same},
    common::wait_for,
    words::{KEEPALIVE, Open, UPDATE, attr, communities, end_of_rib, message, nlri, nlri6, reach, update},
};

/// Resident KiB.
fn memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("in status");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Small numbers without a pattern, the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).expect("48 bits")
    }

    fn octet(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// The neighbor that must come through, with a hold time that its silence would end.
struct Witness {
    peer: Peer,
    began: Instant,
}

impl Witness {
    fn new(bed: &Bed) -> Self {
        let mut peer = bed.session(at(9, 1), &Open::new(EXTERNAL, at(9, 1)).hold(30));
        peer.announce(1, &["21.0.0.0/24"]);
        Self { peer, began: Instant::now() }
    }

    fn alive(&mut self, bed: &mut Bed) -> Result<(), String> {
        holds(bed.routelet.process.alive(), "the daemon ended")?;
        holds(self.began.elapsed() < Duration::from_secs(25), "too slow for the witness")?;
        self.peer.keepalive();
        bed.settled(&mut self.peer);
        same(bed.state(at(9, 1)), "established".into())?;
        holds(bed.kernel().contains("21.0.0.0/24"), "its route is not in the kernel")
    }
}

fn bed() -> Bed {
    Bed::start(
        "",
        &(passive(1, 5, "remote-as = 65001\nidle-hold-time = 1\ntransit = true")
            + &passive(9, 1, "remote-as = 65001")),
    )
}

/// UPDATEs of many kinds to begin from.
fn seeds(peer: &Peer) -> Vec<Vec<u8>> {
    let prefixes = nlri(&[(Ipv4Addr::new(22, 1, 0, 0), 16), (Ipv4Addr::new(22, 2, 3, 0), 24)]);
    let mut rich = peer.good(1);
    rich.extend([
        communities(&[1, 2, 3]),
        attr(0xc0, 7, &[0, 0, 0, 9, 1, 1, 1, 1]),
        attr(0xc0, 16, &[0, 2, 0, 9, 0, 0, 0, 7]),
        attr(0xc0, 32, &[7; 12]),
        attr(0xc0, 99, &[1, 2, 3]),
    ]);
    let hop = [0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut six = peer.good(1);
    six.push(reach(2, &hop, &nlri6("fd80::/48")));
    vec![
        update(&[], &peer.good(1), &prefixes),
        update(&[], &rich, &prefixes),
        update(&prefixes, &[], &[]),
        update(&[], &six, &[]),
        end_of_rib(),
    ]
}

#[test]
fn mutated_updates() {
    let mut bed = bed();
    let mut witness = Witness::new(&bed);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let before = memory(bed.routelet.process.pid());
    let (mut sent, mut sessions) = (0, 0);
    // What resets the session is over; a fresh address begins the next one at once.
    let mut report = Report::default();
    report.case("7606 20,000 mutated UPDATEs", || {
        let mut slot = 0_u8;
        let start = Instant::now();
        while sent < 20_000 && start.elapsed() < Duration::from_secs(20) {
            slot = slot % 5 + 1;
            let Ok(mut peer) = bed.try_dial(at(1, slot)) else { continue };
            if !peer.try_establish(&Open::new(EXTERNAL, at(1, slot))) {
                continue;
            }
            sessions += 1;
            let seeds = seeds(&peer);
            for _ in 0..4000 {
                let mut m = seeds[dice.next() % seeds.len()].clone();
                for _ in 0..=dice.next() % 3 {
                    // Inside the attributes: lengths of the message stay right, so that most sessions live long.
                    let from = 23.min(m.len() - 1);
                    let at = from + dice.next() % (m.len() - from);
                    m[at] = dice.octet();
                }
                if peer.stream.write_all(&m).is_err() {
                    break;
                }
                sent += 1;
            }
            let _ = peer.next(0.02);
        }
        println!("{sent} UPDATEs in {sessions} sessions");
        holds(sent >= 20_000, &format!("only {sent} sent"))
    });
    report.case("after it: the daemon lives, the other neighbor too", || witness.alive(&mut bed));
    let after = memory(bed.routelet.process.pid());
    report.case("after it: memory", || holds(after < before + 100_000, &format!("{before} to {after} KiB")));
    report.finish();
}

#[test]
fn floods_and_garbage() {
    let mut bed = bed();
    let mut witness = Witness::new(&bed);
    let mut report = Report::default();
    let before = memory(bed.routelet.process.pid());
    report.case("500 connections at once of a configured neighbor and of strangers", || {
        let mut open = Vec::new();
        for n in 0..500_u32 {
            let from =
                if n % 2 == 0 { at(1, 1) } else { Ipv4Addr::new(10, 2, 100, (n % 250).to_le_bytes()[0] + 1) };
            open.extend(bed.try_dial(from));
        }
        holds(open.len() > 400, &format!("{} connections", open.len()))
    });
    report.case("after it: the other neighbor", || witness.alive(&mut bed));
    report.case("garbage of many kinds", || {
        let mut dice = Dice(77);
        for n in 0..100 {
            let Ok(mut peer) = bed.try_dial(at(1, 2 + n % 4)) else { continue };
            let garbage: Vec<u8> = match n % 5 {
                0 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                1 => (0..4096).map(|_| dice.octet()).collect(),
                2 => vec![0xff; 70_000],
                3 => [vec![0xff; 16], (0..200).map(|_| dice.octet()).collect()].concat(),
                _ => message(1, &(0..60).map(|_| dice.octet()).collect::<Vec<_>>()),
            };
            let _ = peer.stream.write_all(&garbage);
        }
        Ok(())
    });
    report.case("after it: the other neighbor, again", || witness.alive(&mut bed));
    report.case("a neighbor that flaps 200 times", || {
        let start = Instant::now();
        let mut count = 0;
        while count < 200 && start.elapsed() < Duration::from_secs(15) {
            let Ok(mut peer) = bed.try_dial(at(1, 5)) else { continue };
            if peer.try_establish(&Open::new(EXTERNAL, at(1, 5))) {
                peer.announce(count, &["22.9.0.0/24"]);
                count += 1;
            }
        }
        same(count, 200)?;
        wait_for("its route is gone", 3.0, || (!bed.kernel().contains("22.9.0.0/24")).then_some(()));
        Ok(())
    });
    report.case("after it: the other neighbor, once more", || witness.alive(&mut bed));
    let after = memory(bed.routelet.process.pid());
    report.case("after it: memory", || holds(after < before + 50_000, &format!("{before} to {after} KiB")));
    report.finish();
}

#[test]
fn a_neighbor_that_never_reads() {
    let mut bed = bed();
    let mut deaf = bed.dial(at(1, 1));
    deaf.say(&Open::new(EXTERNAL, at(1, 1)).encode());
    deaf.say(&message(KEEPALIVE, &[]));
    let mut source = bed.peer(at(1, 2), EXTERNAL);
    let mut listens = bed.peer(at(1, 3), EXTERNAL);
    let before = memory(bed.routelet.process.pid());
    let mut report = Report::default();
    report.case("routes change 20 times for a neighbor that never reads", || {
        for round in 0..20_u32 {
            for block in 0..10_u32 {
                let list: Vec<_> = (0..900_u32)
                    .map(|n| (Ipv4Addr::from(0x1600_0000 + ((block * 900 + n) << 8)), 24))
                    .collect();
                let mut all = source.good(round);
                all.push(communities(&[round, block]));
                source.say(&update(&[], &all, &nlri(&list)));
                if let Some((UPDATE, body)) = listens.next(0.0) {
                    listens.heard.take(&body);
                }
            }
        }
        bed.settled(&mut source);
        listens.hears(10.0, |h| {
            let last = h.routes.get("22.0.0.0/24")?.get(&8)?;
            (last.1[..4] == [0, 0, 0, 19]).then_some(())
        })
    });
    let after = memory(bed.routelet.process.pid());
    report.case("after it: memory", || holds(after < before + 60_000, &format!("{before} to {after} KiB")));
    report.case("after it: others", || {
        let mut witness = Witness::new(&bed);
        witness.alive(&mut bed)
    });
    report.finish();
}

#[test]
fn a_large_table_does_not_cost_others_their_hold_time() {
    let bed = Bed::start(
        "",
        &(passive(1, 2, "remote-as = 65001\ntransit = true")
            + &passive(9, 1, "remote-as = 65001\nhold-time = 3")),
    );
    let mut source = bed.peer(at(1, 1), EXTERNAL);
    let mut fragile = bed.session(at(9, 1), &Open::new(EXTERNAL, at(9, 1)).hold(3));
    let good = source.good(0);
    let mut octets = Vec::new();
    let mut dice = Dice(1);
    for set in 0..20_000_u32 {
        let mut all = good.clone();
        all.push(communities(&[set]));
        let list: Vec<_> = (0..5).map(|n| (Ipv4Addr::from(0x1600_0000 + ((set * 5 + n) << 8)), 24)).collect();
        octets.extend(update(&[], &all, &nlri(&list)));
        if dice.next().is_multiple_of(50) {
            octets.extend(message(KEEPALIVE, &[]));
        }
    }
    let mut report = Report::default();
    report.case("100,000 routes come and go twice beside a session with a hold time of 3 s", || {
        let mut longest = Duration::ZERO;
        let mut heard = Instant::now();
        let mut listen = |seconds: f64, fragile: &mut Peer| -> Result<(), String> {
            let end = Instant::now() + Duration::from_secs_f64(seconds);
            while Instant::now() < end {
                if let Some((kind, body)) = fragile.next(0.05) {
                    holds(kind != 3, &format!("NOTIFICATION {body:?}"))?;
                    longest = longest.max(heard.elapsed());
                    heard = Instant::now();
                }
                holds(!fragile.closed, "closed")?;
                fragile.keepalive();
            }
            Ok(())
        };
        for _ in 0..2 {
            for part in octets.chunks(400_000) {
                source.say(part);
                listen(0.05, &mut fragile)?;
            }
            listen(1.5, &mut fragile)?;
            for block in 0..100_u32 {
                let list: Vec<_> = (0..1000_u32)
                    .map(|n| (Ipv4Addr::from(0x1600_0000 + ((block * 1000 + n) << 8)), 24))
                    .collect();
                source.say(&update(&nlri(&list), &[], &[]));
            }
            listen(1.0, &mut fragile)?;
        }
        println!("longest silence {longest:?}");
        holds(longest < Duration::from_millis(2500), &format!("silent for {longest:?}"))?;
        same(bed.state(at(9, 1)), "established".into())
    });
    report.finish();
}
