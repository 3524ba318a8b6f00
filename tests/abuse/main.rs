//! Hostile, unlucky and very large neighbors: afterwards another session still stands, the daemon lives, and its
//! memory is bounded and given back. One test at a time: what a daemon is to withstand here is its neighbors, not
//! the load of other tests.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests of the real world")]

#[allow(dead_code, reason = "shared with tests/conformance")]
#[path = "../common/bed.rs"]
mod bed;
#[path = "../common/mod.rs"]
mod common;
mod doors;
mod flapping;
mod guard;
mod limits;
mod questions;
mod stand_in;
mod stolen;
mod tenant;
mod unnumbered;
#[allow(dead_code, reason = "shared with tests/conformance")]
#[path = "../common/words.rs"]
mod words;

use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    bed::{Bed, EXTERNAL, Peer, Report, at, holds, passive, same},
    common::{PATIENCE, wait_for},
    words::{
        KEEPALIVE, NOTIFICATION, Open, UPDATE, attr, communities, end_of_rib, message, nlri, nlri6, reach,
        update,
    },
};

/// What a process holds: resident KiB, and open files.
fn holdings(bed: &Bed) -> (u64, usize) {
    let proc = format!("/proc/{}", bed.routelet.process.pid());
    let text = fs::read_to_string(format!("{proc}/status")).expect("it runs");
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("in status");
    let kib = line.trim().trim_end_matches(" kB").parse().expect("a number");
    (kib, fs::read_dir(format!("{proc}/fd")).expect("it runs").count())
}

/// The same once the daemon has begun: then it opens its last sockets, those to nf_tables.
fn at_rest(bed: &Bed) -> (u64, usize) {
    let ready = || bed.routelet.json(&["show", "summary"])["ready"] == true;
    wait_for("routelet is ready", 30.0, || ready().then_some(()));
    let mut last = holdings(bed);
    wait_for("as many files as a second ago", 30.0, || {
        thread::sleep(Duration::from_secs(1));
        let before = std::mem::replace(&mut last, holdings(bed));
        (before.1 == last.1).then_some(())
    });
    last
}

/// Waits until the daemon has given back what it took since `before`, but for `kib`.
fn gives_back(bed: &Bed, before: (u64, usize), kib: u64) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let now = holdings(bed);
        if now.0 < before.0 + kib && now.1 <= before.1 {
            println!("{} KiB more than before", now.0.saturating_sub(before.0));
            return Ok(());
        }
        holds(
            start.elapsed() < Duration::from_secs(30),
            &format!("{before:?} KiB and files before, {now:?} after"),
        )?;
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whether this one prefix is in the kernel, however many are.
fn in_kernel(bed: &Bed, prefix: &str) -> bool {
    bed.host.ip(&format!("-4 route show {prefix} proto 179")).contains(prefix)
}

/// Held by the test that runs.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The neighbor that must come through: with a short hold time, and on a thread of its own, so that nothing that
/// the test does meanwhile keeps it from its KEEPALIVEs.
struct Witness {
    heart: Arc<Mutex<Heart>>,
    /// Its thread ends with it.
    _over: mpsc::Sender<()>,
}

/// What a witness went through.
#[derive(Clone, Default)]
struct Heart {
    /// For how long it heard nothing at most.
    silence: Duration,
    /// How much its own thread was late at most.
    late: Duration,
    lost: Option<String>,
}

/// Unoptimised code takes ten times as long for each route.
const HOLD: u16 = if cfg!(debug_assertions) { 9 } else { 3 };
/// A thread that comes so late tells of a machine that stood still, and of nothing else.
const LATE: Duration = Duration::from_millis(700);

impl Heart {
    fn beat(mut peer: Peer, heart: &Mutex<Self>, over: &mpsc::Receiver<()>) {
        let (mut tick, mut heard, mut said) = (Instant::now(), Instant::now(), Instant::now());
        while over.try_recv() != Err(TryRecvError::Disconnected) {
            let got = peer.next(0.05);
            let now = Instant::now();
            let late = now - tick;
            tick = now;
            if late > LATE {
                heard = now;
            }
            let mut heart = heart.lock().expect("nobody panics with it");
            heart.late = heart.late.max(late);
            heart.silence = heart.silence.max(now - heard);
            match got {
                Some((NOTIFICATION, body)) => heart.lost = Some(format!("NOTIFICATION {body:?}")),
                Some(_) => heard = now,
                None if peer.closed => heart.lost = Some("closed".into()),
                None => {}
            }
            if heart.lost.is_some() {
                return;
            }
            drop(heart);
            if now - said > Duration::from_millis(500) {
                peer.keepalive();
                said = now;
            }
        }
    }
}

impl Witness {
    const ADDR: Ipv4Addr = Ipv4Addr::new(10, 2, 9, 1);

    fn new(bed: &Bed) -> Self {
        let mut peer = bed.session(Self::ADDR, &Open::new(EXTERNAL, Self::ADDR).hold(HOLD));
        peer.announce(1, &["21.0.0.0/24"]);
        let heart = Arc::<Mutex<Heart>>::default();
        let (_over, over) = mpsc::channel();
        thread::spawn({
            let heart = heart.clone();
            move || Heart::beat(peer, &heart, &over)
        });
        Self { heart, _over }
    }

    /// Whether its session stands and it was never left waiting for a KEEPALIVE. While the machine stood still
    /// nobody could keep to any time: a session lost in such a moment is no verdict, and another one begins.
    fn alive(&mut self, bed: &mut Bed) -> Result<(), String> {
        holds(bed.routelet.process.alive(), "the daemon ended")?;
        let Heart { silence, late, lost } = self.heart.lock().expect("nobody panics with it").clone();
        println!(
            "the witness heard nothing for {silence:?} at most; its own thread was {late:?} late at most"
        );
        if late > LATE {
            println!("the machine stood still");
            if lost.is_some() {
                *self = Self::new(bed);
            }
        } else {
            holds(lost.is_none(), &format!("the session was lost: {lost:?}"))?;
            holds(silence < Duration::from_secs(HOLD.into()), &format!("silent for {silence:?}"))?;
        }
        same(bed.state(Self::ADDR), "established".into())?;
        wait_for("its route is in the kernel", 5.0, || in_kernel(bed, "21.0.0.0/24").then_some(()));
        Ok(())
    }
}

fn bed() -> Bed {
    Bed::start(
        "",
        &(passive(1, 5, "remote-as = 65001\nidle-hold-time = 1\ntransit = true") + &passive(9, 1, WITNESS)),
    )
}

const WITNESS: &str = "remote-as = 65001\nidle-hold-time = 1\ntransit = true";

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
    let _alone = alone();
    let mut bed = bed();
    let mut witness = Witness::new(&bed);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let before = at_rest(&bed);
    let (mut sent, mut sessions) = (0, 0);
    // What resets the session is over; a fresh address begins the next one at once.
    let mut report = Report::default();
    report.case("7606 20,000 mutated UPDATEs", || {
        let mut slot = 0_u8;
        let start = Instant::now();
        while sent < 20_000 && start.elapsed() < Duration::from_secs(120) {
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
    report.case("after it: memory and files", || gives_back(&bed, before, 16_000));
    report.finish();
}

#[test]
fn floods_and_garbage() {
    let _alone = alone();
    let mut bed = bed();
    let mut witness = Witness::new(&bed);
    let mut report = Report::default();
    let before = at_rest(&bed);
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
    report.case("a neighbor that flaps as fast as it is let", || {
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < Duration::from_secs(20) {
            let Ok(mut peer) = bed.try_dial(at(1, 5)) else { continue };
            if peer.try_establish(&Open::new(EXTERNAL, at(1, 5))) {
                peer.announce(count, &["22.9.0.0/24"]);
                count += 1;
            }
        }
        // Five sessions that it ends early are free, then it waits longer each time.
        holds((5..=30).contains(&count), &format!("{count} sessions in 20 s"))?;
        wait_for("its route is gone", 3.0, || (!in_kernel(&bed, "22.9.0.0/24")).then_some(()));
        Ok(())
    });
    report.case("after it: the other neighbor, once more", || witness.alive(&mut bed));
    report.case("after it: memory and files", || gives_back(&bed, before, 16_000));
    report.finish();
}

/// Connections that never become sessions: of configured addresses, and of ranges, where each holds a place.
#[test]
fn sessions_that_are_only_ever_half_open() {
    let _alone = alone();
    let range = "[bgp.group.pods]\nremote-as = 65001\nidle-hold-time = 1\n\
        [[bgp.listen-range]]\nprefix = \"10.2.3.0/24\"\ngroup = \"pods\"\nlimit = 20\n";
    let neighbors = passive(1, 5, "remote-as = 65001\nidle-hold-time = 1") + &passive(9, 1, WITNESS) + range;
    let mut bed = Bed::start("", &neighbors);
    let mut witness = Witness::new(&bed);
    let mut report = Report::default();
    let before = at_rest(&bed);
    let half = |from: Ipv4Addr| Open::new(EXTERNAL, from).encode()[..25].to_vec();
    report.case(
        "200 connections with half an OPEN from each configured address: one is kept of each",
        || {
            let mut open = Vec::new();
            for _ in 0..200 {
                for n in 1..=5 {
                    let Ok(mut peer) = bed.try_dial(at(1, n)) else { continue };
                    peer.send(&half(peer.addr));
                    open.push(peer);
                }
            }
            witness.alive(&mut bed)?;
            wait_for("one file each", 10.0, || (holdings(&bed).1 <= before.1 + 5).then_some(()));
            Ok(())
        },
    );
    report.case("a session is had as soon as they are gone", || {
        bed.peer(at(1, 1), EXTERNAL);
        Ok(())
    });
    report.case("each address of a range: as many are kept as it has room for", || {
        let mut open = Vec::new();
        for n in 1..=250 {
            let mut peer = bed.dial(at(3, n));
            peer.send(&half(peer.addr));
            open.push(peer);
        }
        witness.alive(&mut bed)?;
        wait_for("one file each", 10.0, || (holdings(&bed).1 <= before.1 + 20).then_some(()));
        // Who goes on saying nothing gives way, too.
        wait_for("a session", 30.0, || {
            bed.try_dial(at(3, 251)).ok()?.try_establish(&Open::new(EXTERNAL, at(3, 251))).then_some(())
        });
        witness.alive(&mut bed)
    });
    report.case("a place in a range is free as soon as the caller is gone that never had a session", || {
        bed.peer(at(3, 252), EXTERNAL);
        Ok(())
    });
    report.case("after it: the other neighbor", || witness.alive(&mut bed));
    report.case("after it: memory and files", || gives_back(&bed, before, 16_000));
    report.finish();
}

#[test]
fn a_neighbor_that_never_reads() {
    let _alone = alone();
    let mut bed = bed();
    let mut witness = Witness::new(&bed);
    let mut source = bed.peer(at(1, 2), EXTERNAL);
    let mut listens = bed.peer(at(1, 3), EXTERNAL);
    let before = at_rest(&bed);
    let mut deaf = bed.dial(at(1, 1));
    deaf.send(&Open::new(EXTERNAL, at(1, 1)).encode());
    deaf.send(&message(KEEPALIVE, &[]));
    let blocks: Vec<Vec<_>> = (0..10_u32)
        .map(|block| (0..900).map(|n| (Ipv4Addr::from(0x1600_0000 + ((block * 900 + n) << 8)), 24)).collect())
        .collect();
    let mut report = Report::default();
    report.case("routes change 20 times for a neighbor that never reads", || {
        for round in 0..20_u32 {
            for (n, list) in (0..).zip(&blocks) {
                let mut all = source.good(round);
                all.push(communities(&[round, n]));
                source.send(&update(&[], &all, &nlri(list)));
                if let Some((UPDATE, body)) = listens.next(0.0) {
                    listens.received.take(&body);
                }
            }
        }
        bed.settled(&mut source);
        listens.receives(PATIENCE, |h| {
            let last = h.routes.get("22.0.0.0/24")?.get(&8)?;
            (last.1[..4] == [0, 0, 0, 19]).then_some(())
        })
    });
    report.case("after it: the other neighbor", || witness.alive(&mut bed));
    report.case("meanwhile: memory", || {
        let now = holdings(&bed);
        holds(now.0 < before.0 + 60_000, &format!("{before:?} to {now:?}"))
    });
    report.case("after it: memory and files", || {
        for list in &blocks {
            source.send(&update(&nlri(list), &[], &[]));
        }
        drop(deaf);
        gives_back(&bed, before, 16_000)
    });
    report.finish();
}

/// So many octets of memory a route may cost, five of them to an attribute set, with a neighbor that is told all.
const PER_ROUTE: u64 = 400;

/// Prefix number `n` of a large table.
fn nth(n: u32) -> (Ipv4Addr, u8) {
    (Ipv4Addr::from(0x1600_0000 + (n << 6)), 26)
}

/// UPDATEs with so many routes, five to an attribute set.
fn large_table(source: &Peer, routes: u32) -> Vec<u8> {
    let good = source.good(0);
    let mut octets = Vec::new();
    for set in 0..routes / 5 {
        let mut all = good.clone();
        all.push(communities(&[set]));
        octets.extend(update(&[], &all, &nlri(&(set * 5..set * 5 + 5).map(nth).collect::<Vec<_>>())));
    }
    octets
}

#[test]
fn a_very_large_table_does_not_cost_others_their_hold_time() {
    let _alone = alone();
    let routes: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut bed = Bed::start(
        "",
        &(passive(1, 1, "remote-as = 65001\nmax-prefixes = 1000000") + &passive(9, 1, WITNESS)),
    );
    let mut witness = Witness::new(&bed);
    let mut source = bed.peer(at(1, 1), EXTERNAL);
    let come = large_table(&source, routes);
    let go: Vec<u8> = (0..routes / 500)
        .flat_map(|n| update(&nlri(&(n * 500..n * 500 + 500).map(nth).collect::<Vec<_>>()), &[], &[]))
        .collect();
    // KiB that may stay, of some 210,000 for a million routes.
    let kept = 32_000;
    let before = at_rest(&bed);
    let mut report = Report::default();
    for name in ["a million routes from one neighbor", "and again"] {
        let told = |bed: &Bed, many: u32| {
            // The witness is told what it did not say itself.
            let all = Some(u64::from(many));
            wait_for(format!("{many} routes at the witness"), 120.0, || {
                thread::sleep(Duration::from_millis(50));
                (bed.neighbor(Witness::ADDR)["advertised"]["ipv4-unicast"].as_u64() == all).then_some(())
            });
        };
        report.case(name, || {
            let start = Instant::now();
            source.send(&come);
            told(&bed, routes);
            println!("{routes} routes after {:?}", start.elapsed());
            witness.alive(&mut bed)?;
            let now = holdings(&bed).0.saturating_sub(before.0) * 1024 / u64::from(routes);
            println!("{now} octets each");
            holds(now < PER_ROUTE, &format!("{now} octets for a route"))
        });
        report.case("they go", || {
            let start = Instant::now();
            source.send(&go);
            told(&bed, 0);
            println!("gone after {:?}", start.elapsed());
            witness.alive(&mut bed)
        });
        report.case("after it: memory and files", || gives_back(&bed, before, kept));
    }
    report.finish();
}
