//! Fault injection: a fabric of two switches and four hosts under probes, faults drawn by seed, and
//! what must hold after each of them.
//!
//! The short form runs the seeds that draw every kind of fault once. The long form runs further
//! seeds, with every pair of faults, for the time in `ROUTELET_CHAOS_SECONDS`.
//! `ROUTELET_CHAOS_SEEDS=7` (or `3,7`, or `1-20`) runs these seeds, and `ROUTELET_CHAOS_RATE` sets
//! the probes per second for every pair and direction.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world"
)]

#[path = "../common/mod.rs"]
mod common;

mod draw;
mod fabric;
mod faults;
mod invariants;
mod losses;
mod planted;
mod run;
mod summary;
mod upgrade;

use std::{
    env,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use summary::Summary;

/// Seeds of the short form.
const SHORT: u64 = 5;
/// Probes per second from each container to each other one: 6000 packets per second in all.
const RATE: u32 = 500;

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn rate() -> u32 {
    variable("ROUTELET_CHAOS_RATE")
        .map_or(RATE, |text| text.parse().expect("ROUTELET_CHAOS_RATE is a number"))
}

/// `7`, `3,7` or `1-20`.
fn seeds(text: &str) -> Vec<u64> {
    let number =
        |text: &str| -> u64 { text.trim().parse().expect("ROUTELET_CHAOS_SEEDS: 7, or 3,7, or 1-20") };
    let parts = text.split(',').map(|part| match part.split_once('-') {
        Some((first, last)) => (number(first)..=number(last)).collect(),
        None => vec![number(part)],
    });
    parts.collect::<Vec<_>>().concat()
}

/// One fabric at a time: what is measured is not to be disturbed by another.
fn alone() -> MutexGuard<'static, ()> {
    static FABRIC: Mutex<()> = Mutex::new(());
    FABRIC.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn whatever_happens_packets_that_can_flow_do() {
    let _alone = alone();
    let given = variable("ROUTELET_CHAOS_SEEDS").map(|text| seeds(&text));
    let long = variable("ROUTELET_CHAOS_SECONDS")
        .map(|text| Duration::from_secs(text.parse().expect("ROUTELET_CHAOS_SECONDS is a number")));
    let start = Instant::now();
    let mut summary = Summary::default();
    let mut run = |seed| run::seed(seed, rate(), &mut summary);
    match (given, long) {
        (Some(seeds), _) => seeds.into_iter().for_each(run),
        (None, Some(long)) => {
            (1..).take_while(|_| start.elapsed() < long).for_each(&mut run);
            println!("every pair of faults takes {} seeds", draw::seeds_for_all_pairs());
        }
        (None, None) => (1..=SHORT).for_each(run),
    }
    println!("{summary}");
}

#[test]
fn seeds_are_numbers_lists_and_ranges() {
    assert_eq!(seeds("7"), [7]);
    assert_eq!(seeds("3,7, 9-11"), [3, 7, 9, 10, 11]);
}
