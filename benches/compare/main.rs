//! Compares routelet with BIRD, FRR, GoBGP, OpenBGPD and with baseline programs: whole daemons, the
//! real kernel, one run.
//!
//! `benches/compare/run --rounds 5 --out docs/performance`; see `--help`. Needs root and the
//! daemons. Figures differ between machines; only their ratios in one run are meaningful. In each
//! round every daemon is measured in turn, so that other load on the machine affects all of them.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measures the real testbed"
)]

mod baseline;
#[path = "../../tests/common/mod.rs"]
mod common;
mod config;
mod daemon;
mod failover;
mod kernel;
mod load;
mod mesh;
mod messages;
mod neighbor;
mod netlink;
mod options;
mod peers;
mod plan;
mod plot;
mod propagation;
mod report;
mod restart;
mod runner;
mod testbed;
mod writer;

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use config::{Case, Kind};
use nix::sys::{
    prctl::{set_child_subreaper, set_pdeathsig},
    signal::Signal,
};
use options::Options;
use plan::FIGURES;
use report::Report;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    // `cargo test --benches` only checks that it starts.
    if !args.iter().any(|a| a == "--bench") {
        return ExitCode::SUCCESS;
    }
    let args: Vec<&str> = args.iter().map(String::as_str).filter(|a| *a != "--bench").collect();
    if let ["--worker", figure, kind] = args[..] {
        return work(figure, kind);
    }
    match options::read(&args) {
        Ok(Some(options)) => {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("threads");
            runtime.block_on(run(&options))
        }
        Ok(None) => {
            println!("{}", options::help());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// One measurement; this process ends with the runner.
fn work(figure: &str, kind: &str) -> ExitCode {
    let _ = set_pdeathsig(Signal::SIGKILL);
    let figure = FIGURES.iter().find(|f| f.name == figure).expect("the runner knows them");
    let kind = Kind::ALL.into_iter().find(|k| k.name() == kind).expect("the runner knows them");
    (figure.run)(kind);
    ExitCode::SUCCESS
}

async fn run(options: &Options) -> ExitCode {
    // If cargo is ended, everything ends and is cleaned up.
    let _ = set_pdeathsig(Signal::SIGTERM);
    // This process waits for everything that a measurement leaves behind.
    let _ = set_child_subreaper(true);
    let (mut ctrl_c, mut term) = (
        signal(SignalKind::interrupt()).expect("a signal"),
        signal(SignalKind::terminate()).expect("a signal"),
    );
    let (mut report, mut about) = (Report::default(), about(options));
    let start = Instant::now();
    let whole = tokio::select! {
        () = rounds(options, &mut report, &mut about) => true,
        _ = ctrl_c.recv() => false,
        _ = term.recv() => false,
    };
    about["conditions"]["load after"] = json!(machine());
    about["conditions"]["seconds"] = json!(start.elapsed().as_secs());
    if !whole {
        about["conditions"]["interrupted"] = json!(true);
    }
    println!("{}", report.table(&options.kinds));
    println!("{:#}", about["conditions"]);
    report.write(&options.out, &options.kinds, &about).expect("--out is writable");
    println!("written: table.md, results.json and *.svg in {}", options.out.display());
    if whole { ExitCode::SUCCESS } else { ExitCode::from(130) }
}

async fn rounds(options: &Options, report: &mut Report, about: &mut Value) {
    let mut spent: BTreeMap<String, f64> = BTreeMap::new();
    let mut failed = Vec::new();
    let start = Instant::now();
    for round in 1..=options.rounds {
        for figure in FIGURES.iter().filter(|f| options.figures.contains(&f.name)) {
            for kind in options.kinds.iter().copied().filter(|k| round <= figure.rounds(*k)) {
                let what = format!("{}, {}", figure.name, kind.name());
                if failed.contains(&what) {
                    continue;
                }
                if start.elapsed().as_secs() > options.minutes * 60 {
                    about["conditions"]["stopped by the clock"] = json!(format!("round {round}, at {what}"));
                    return;
                }
                let outcome = runner::measure(figure, kind, options.patience).await;
                eprintln!("round {round}: {what} ({:.1} s)", outcome.seconds);
                *spent.entry(what.clone()).or_default() += outcome.seconds;
                about["seconds"] = json!(spent);
                for (row, unit, value) in outcome.seen {
                    eprintln!("    {row}: {} {unit}", report::number(value));
                    report.add(figure.name, row, unit, kind, value);
                }
                if let Some(error) = outcome.failure {
                    eprintln!("    {error}");
                    report.fail(format!("round {round}: {what}: {error}"));
                    if kind != Kind::Routelet {
                        failed.push(what);
                    }
                }
            }
        }
        report.write(&options.out, &options.kinds, about).expect("--out is writable");
    }
}

/// What the figures depend on.
fn about(options: &Options) -> Value {
    let daemons: Vec<_> = options
        .kinds
        .iter()
        .map(|kind| {
            let config = kind.config(&Case::of(2), Path::new("DIR"));
            json!({ "name": kind.name(), "version": kind.version(), "configuration for two neighbors": config })
        })
        .collect();
    // The directory of cargo's output is named after the profile.
    let binary = Path::new(env!("CARGO_BIN_EXE_routelet"));
    let profile = binary.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
    let versions: Vec<_> = options.kinds.iter().map(|k| format!("{} ({})", k.name(), k.version())).collect();
    json!({
        "conditions": {
            "rounds": options.rounds,
            "routelet's profile": profile,
            "routelet's binary, octets": fs::metadata(binary).map_or(0, |m| m.len()),
            "CPUs": thread::available_parallelism().map_or(0, usize::from),
            "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            "versions": versions.join(", "),
            "load before": machine(),
        },
        "daemons": daemons,
    })
}

/// How busy the machine is: the load average, and the CPUs' share over a second.
fn machine() -> String {
    let times = || {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let all: Vec<f64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // The fourth and the fifth are idle.
        (all.iter().sum::<f64>(), all.iter().skip(3).take(2).sum::<f64>())
    };
    let (all, idle) = times();
    thread::sleep(Duration::from_secs(1));
    let (all, idle) = (times().0 - all, times().1 - idle);
    let average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load average {}, CPUs busy {:.0} %", average.trim(), 100.0 * (1.0 - idle / all.max(1.0)))
}
