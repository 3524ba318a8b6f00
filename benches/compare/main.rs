//! routelet beside BIRD, FRR, GoBGP, OpenBGPD and beside a program that only writes routes: whole daemons, real
//! kernel, one run.
//!
//! `benches/compare/run --rounds 3 --figures load,latency --daemons routelet,bird --out target/compare`. Needs
//! root and the daemons. Figures differ from machine to machine; what is worth something is their ratio in one
//! run. In each round every daemon has its turn, so that a busy minute of the machine meets all of them.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measures the real world"
)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod figures;
mod kernel;
mod neighbor;
mod report;
mod subject;

use std::{env, fs, panic, path::PathBuf};

use figures::Seen;
use neighbor::Mode;
use report::Report;
use serde_json::json;
use subject::Kind;

type Figure = (&'static str, fn(Kind) -> Seen, &'static [Kind]);

const FIB: &[Kind] = &[Kind::Routelet, Kind::Bird, Kind::Frr];

/// By the names that `--figures` takes; without it, those of a short run.
#[rustfmt::skip]
const FIGURES: &[Figure] = &[
    ("load",     |k| figures::load(k, Mode::Table, 100_000), FIB),
    ("pods",     |k| figures::load(k, Mode::Pods, 100_000), FIB),
    ("ipv6",     |k| figures::load(k, Mode::Ipv6, 100_000), FIB),
    ("idle",     figures::idle, &Kind::ALL),
    ("latency",  |k| [figures::latency(k, 0), figures::latency(k, 100_000)].concat(), &Kind::ALL),
    ("to1",      |k| figures::propagation(k, 1, 100_000), &Kind::ALL),
    ("to10",     |k| figures::propagation(k, 10, 100_000), &Kind::ALL),
    ("mesh100",  |k| figures::mesh(k, 100), &Kind::ALL),
    ("to50",     |k| figures::propagation(k, 50, 100_000), &Kind::ALL),
    ("mesh500",  |k| figures::mesh(k, 500), &Kind::ALL),
    ("million",  |k| figures::load(k, Mode::Pods, 1_000_000), FIB),
];
const SHORT: &str = "load,pods,ipv6,idle,latency,to1,to10,mesh100";

struct Options {
    rounds: u32,
    figures: Vec<String>,
    daemons: Vec<Kind>,
    out: PathBuf,
}

fn options() -> Options {
    let mut options = Options {
        rounds: 1,
        figures: SHORT.split(',').map(Into::into).collect(),
        daemons: Kind::ALL.to_vec(),
        out: "target/compare".into(),
    };
    let mut args = env::args().skip(1).filter(|a| a != "--bench");
    while let Some(key) = args.next() {
        let value = args.next().unwrap_or_default();
        match key.as_str() {
            "--rounds" => options.rounds = value.parse().expect("--rounds takes a number"),
            "--figures" if value == "all" => options.figures = FIGURES.iter().map(|f| f.0.into()).collect(),
            "--figures" => options.figures = value.split(',').map(Into::into).collect(),
            "--daemons" => {
                let named = |k: &Kind| value.split(',').any(|v| v.eq_ignore_ascii_case(k.name()));
                options.daemons = Kind::ALL.into_iter().filter(named).collect();
            }
            "--out" => options.out = value.into(),
            _ => panic!(
                "unknown option {key}: --rounds N, --figures all or some of {}, --daemons A,B, --out DIR",
                FIGURES.iter().map(|f| f.0).collect::<Vec<_>>().join(",")
            ),
        }
    }
    options
}

fn main() {
    // `cargo test --benches` only wants to know whether it starts.
    if !env::args().any(|a| a == "--bench") {
        return;
    }
    let options = options();
    let load = || fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned();
    let (before, mut report) = (load(), Report::default());
    for round in 1..=options.rounds {
        if options.figures.iter().any(|f| f == "load") {
            figures::bare(100_000).into_iter().for_each(|(row, unit, v)| report.add(row, unit, "bare", v));
        }
        for (name, figure, kinds) in FIGURES.iter().filter(|f| options.figures.iter().any(|n| n == f.0)) {
            for kind in kinds.iter().filter(|k| options.daemons.contains(k)) {
                // A figure that a daemon does not reach is left out of its column, and said.
                let seen = panic::catch_unwind(|| figure(*kind)).unwrap_or_default();
                if seen.is_empty() {
                    eprintln!("round {round}: {name} not reached by {}", kind.name());
                }
                for (row, unit, value) in seen {
                    eprintln!("round {round}: {}: {row}: {value:.4} {unit}", kind.name());
                    report.add(row, unit, kind.name(), value);
                }
            }
        }
    }
    let columns: Vec<_> = options.daemons.iter().map(|k| k.name()).chain(["bare"]).collect();
    let versions: Vec<_> = options
        .daemons
        .iter()
        .map(|k| json!({ "name": k.name(), "version": k.version(), "config": k.config(1, "DIR") }))
        .collect();
    let about = json!({
        "rounds": options.rounds,
        "load average before": before,
        "load average after": load(),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "daemons": versions,
    });
    println!("{}", report.table(&columns));
    println!("rounds: {}; load average before {before}, after {}", options.rounds, load());
    report.write(&options.out, &columns, about).expect("--out is writable");
    println!("written: {}/table.md, results.json, plot.svg", options.out.display());
}
