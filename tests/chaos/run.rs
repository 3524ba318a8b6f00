//! A run: the faults of a seed, one step after the other, and what must hold after each.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use crate::{
    common::traffic::Lost,
    draw::{self, Step},
    fabric::{Fabric, HOSTS, SETTLE},
    faults::{Exposure, Fault, wait_out},
    invariants::Usage,
    losses::{Pairs, Report, Window},
    summary::Summary,
};

/// Probes that a queue holds up, or a kernel that resolves an address, are still under way for so
/// long.
pub const UNDER_WAY: Duration = Duration::from_millis(1500);
/// Between the beginnings, and between the ends, of two faults that overlap.
const APART: Duration = Duration::from_millis(300);

/// What a run has counted.
#[derive(Default)]
pub struct Totals {
    pub steps: usize,
    pub sent: usize,
    pub lost: Vec<Lost>,
}

/// Prints which seed failed, and how it is run again.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("seed {0} failed; it runs again with ROUTELET_CHAOS_SEEDS={0}", self.0);
        }
    }
}

/// All steps of a seed, on a fabric of its own. Panics where an invariant is broken.
pub fn seed(seed: u64, per_second: u32, summary: &mut Summary) {
    let _seed = Seed(seed);
    let began = Instant::now();
    let drawn = draw::steps(seed);
    let (fabric, totals) = steps(&drawn, per_second);
    println!(
        "seed {seed}: {} steps in {:.0} s, {} of {} probes lost, {} pauses of the machine",
        totals.steps,
        began.elapsed().as_secs_f64(),
        totals.lost.len(),
        totals.sent,
        fabric.traffic.pauses().len()
    );
    let lost = fabric.ledger.by_fault(&totals.lost);
    for (fault, count) in &lost {
        println!("  {count:6} by {fault}");
    }
    summary.sent(totals.sent);
    for step in drawn {
        let cost = lost.iter().find(|(fault, _)| *fault == name(&step)).map_or(0, |(_, count)| *count);
        let kinds: Vec<_> = step.iter().map(|fault| format!("{:?}", fault.kind)).collect();
        summary.step(&kinds.join(" with "), cost);
    }
}

/// These steps on a new fabric.
pub fn steps(steps: &[Step], per_second: u32) -> (Fabric, Totals) {
    let mut fabric = Fabric::new(per_second);
    let mut totals = Totals::default();
    begin(&mut fabric);
    for step in steps {
        one(&mut fabric, &mut totals, step);
    }
    let end = Instant::now();
    thread::sleep(UNDER_WAY);
    judge(&mut fabric, &mut totals, end);
    (fabric, totals)
}

/// Waits until the new fabric has settled; what was sent before is not judged.
pub fn begin(fabric: &mut Fabric) {
    settled(fabric, "the new fabric");
    let from = Instant::now();
    until("all pairs reach each other", || fabric.traffic.all_arrive_since(from));
    thread::sleep(UNDER_WAY);
    fabric.traffic.lost(Instant::now());
}

fn name(step: &[Fault]) -> String {
    step.iter().map(ToString::to_string).collect::<Vec<_>>().join(" with ")
}

fn one(fabric: &mut Fabric, totals: &mut Totals, step: &[Fault]) {
    let name = name(step);
    let start = Instant::now();
    println!("{:7.1} s: {name}", fabric.second(start));
    let mut windows = Vec::new();
    for fault in step {
        let from = Instant::now();
        fault.inject(fabric);
        windows.push((fault.exposure(), from, Instant::now()));
        thread::sleep(if step.len() > 1 { APART } else { Duration::ZERO });
    }
    if let [fault] = step
        && fault.settles()
    {
        until(&format!("{name}: the kernels follow"), || fabric.kernels());
    }
    fabric.foreign_unchanged().unwrap_or_else(|e| panic!("{name}: {e}"));
    wait_out(start, step.iter().map(Fault::lasts).max().unwrap_or_default());
    let mut ends = Vec::new();
    for fault in step {
        let from = Instant::now();
        fault.recover(fabric);
        ends.push((from, Instant::now()));
        thread::sleep(if step.len() > 1 { APART } else { Duration::ZERO });
    }
    thread::sleep(step.iter().map(Fault::reported_later).max().unwrap_or_default());
    settled(fabric, &name);
    let settled_at = Instant::now();
    let overlap = step.len() > 1;
    for ((exposure, from, injected), end) in windows.into_iter().zip(ends) {
        for window in permitted(&exposure, (from, injected), end, settled_at, overlap) {
            fabric.ledger.allow(Window { fault: name.clone(), pairs: exposure.pairs, sent: window });
        }
    }
    totals.steps += 1;
    judge(fabric, totals, settled_at.checked_sub(UNDER_WAY).unwrap_or(start));
}

type Span = (Instant, Instant);

/// When packets may be lost. Where two faults overlap, the repair of one may need what the other
/// took away.
fn permitted(
    exposure: &Exposure,
    (from, injected): Span,
    (begin, ended): Span,
    settled: Instant,
    overlap: bool,
) -> Vec<std::ops::RangeInclusive<Instant>> {
    if exposure.pairs == Pairs::None {
        return Vec::new();
    }
    if overlap {
        return vec![from..=settled];
    }
    let first = exposure.after_injection.map_or(ended, |d| injected + d);
    let second = exposure.after_recovery.map_or(settled, |d| ended + d);
    vec![from..=first, begin..=second]
}

/// Fails where packets sent up to `until` were lost without a fault that explains it.
pub fn judge(fabric: &mut Fabric, totals: &mut Totals, until: Instant) {
    fabric.ledger.pauses(fabric.traffic.pauses());
    let (lost, sent) = fabric.traffic.lost(until);
    let unexplained = fabric.ledger.unexplained(&lost);
    totals.sent += sent;
    totals.lost.extend(lost);
    assert!(unexplained.is_empty(), "packets were lost:{}", Report(&unexplained, fabric.began));
}

/// Waits until every table is right and nothing is left over.
pub fn settled(fabric: &mut Fabric, what: &str) {
    until(&format!("{what}: tables"), || fabric.tables());
    until(&format!("{what}: leftovers"), || fabric.nothing_leaked());
    fabric.foreign_unchanged().unwrap_or_else(|e| panic!("{what}: {e}"));
    for h in 0..HOSTS {
        let host = &mut fabric.hosts[h];
        let pid = host.routelet.process.pid();
        if host.usage.is_none_or(|usage| usage.pid != pid) {
            host.usage = Usage::at_rest(pid);
        }
    }
}

/// Polls until `check` succeeds, and panics with its last error.
pub fn until(what: &str, check: impl Fn() -> Result<(), String>) {
    within(what, SETTLE, check).unwrap_or_else(|e| panic!("{e}"));
}

pub fn within(
    what: impl Display,
    limit: Duration,
    check: impl Fn() -> Result<(), String>,
) -> Result<(), String> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(()) => return Ok(()),
            Err(e) if start.elapsed() > limit => return Err(format!("{what}: not within {limit:?}: {e}")),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}
