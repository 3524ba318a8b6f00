//! The figures: how often each daemon is measured, its time limit, and the goal for routelet.

use super::{
    config::Kind,
    failover::{Loss, failover},
    load, mesh,
    messages::Mode,
    propagation, restart,
};

/// As many rounds as requested.
const ALL: u32 = u32::MAX;

pub struct Figure {
    pub name: &'static str,
    pub run: fn(Kind),
    /// Seconds after which a daemon counts as not having reached the figure.
    pub limit: u64,
    /// Limit of rounds, in the order of [`PACKAGED`]. Slow daemons other than the best rival get
    /// few, so that a run of five rounds ends within half an hour. 0: does not apply.
    rounds: [u32; 6],
}

impl Figure {
    pub fn rounds(&self, kind: Kind) -> u32 {
        let column = PACKAGED.iter().position(|k| *k == kind.packaged());
        let rounds = column.map_or(0, |at| self.rounds[at]);
        // Newer releases may reach what the packaged one does not.
        if kind.is_newest() && kind.packaged() == Kind::Bird && self.name.starts_with("mesh") {
            rounds.max(1)
        } else {
            rounds
        }
    }
}

/// The columns of [`FIGURES`]. A newer release has the rounds of its packaged one.
const PACKAGED: [Kind; 6] = [Kind::Routelet, Kind::Bird, Kind::Frr, Kind::Gobgp, Kind::Openbgpd, Kind::Bare];

const fn figure(name: &'static str, run: fn(Kind), limit: u64, rounds: [u32; 6]) -> Figure {
    Figure { name, run, limit, rounds }
}

/// GoBGP and OpenBGPD do not fill a Linux table by themselves. GoBGP sends each route in a message
/// of its own and takes a minute where others take seconds, and half a minute for a mesh of 1,000.
/// Simultaneous connections overflow BIRD's backlog of 8, so that it does not establish a mesh of
/// 500 or more within a minute, nor OpenBGPD one of 100. FRR needs a minute for the million; in
/// the silent loss its bgpd receives no report from bfdd, for a reason that is not known.
#[rustfmt::skip]
pub const FIGURES: &[Figure] = &[
    //                                                                 routelet BIRD FRR GoBGP OpenBGPD bare
    figure("load",        |k| load::load(k, Mode::Table, 100_000),   60, [ALL, ALL, 2, 0, 0, ALL]),
    figure("pods",        |k| load::load(k, Mode::Pods, 100_000),    60, [ALL, ALL, 1, 0, 0, 0]),
    figure("ipv6",        |k| load::load(k, Mode::Ipv6, 100_000),    60, [ALL, ALL, 1, 0, 0, ALL]),
    figure("latency",     |k| propagation::latency(k, 0),                 60, [ALL, ALL, 1, 2, 2, ALL]),
    figure("latency100k", |k| propagation::latency(k, 100_000),           60, [ALL, ALL, 1, 1, 2, 0]),
    figure("to1",         |k| propagation::propagation(k, 1, 100_000),    60, [ALL, ALL, 2, 1, 3, ALL]),
    figure("to10",        |k| propagation::propagation(k, 10, 100_000),   60, [ALL, ALL, 3, 0, 2, ALL]),
    figure("to50",        |k| propagation::propagation(k, 50, 100_000),   60, [ALL, 2, ALL, 0, 1, 2]),
    figure("restart",     |k| restart::restart(k, 100_000),          60, [ALL, ALL, 1, 0, 0, 0]),
    figure("failover1k",  |k| failover(k, 1_000, Loss::Carrier),               60, [ALL, 2, ALL, 0, 0, 2]),
    figure("failover",    |k| failover(k, 100_000, Loss::Carrier),             60, [ALL, 2, ALL, 0, 0, 2]),
    figure("failover1m",  |k| failover(k, 1_000_000, Loss::Carrier),           60, [ALL, 0, 1, 0, 0, 1]),
    figure("silent100",   |k| failover(k, 100, Loss::Silent),        60, [ALL, ALL, 0, 0, 0, 0]),
    figure("silent",      |k| failover(k, 100_000, Loss::Silent),    60, [ALL, 2, 0, 0, 0, 0]),
    figure("idle",        load::idle,                                30, [ALL, ALL, 1, 1, 1, 0]),
    figure("million",     |k| load::load(k, Mode::Table, 1_000_000), 60, [ALL, ALL, 0, 0, 0, ALL]),
    figure("millionpods", |k| load::load(k, Mode::Pods, 1_000_000),  60, [3, 3, 0, 0, 0, 0]),
    figure("mesh100",     |k| mesh::storm(k, 100),                   20, [ALL, 3, 3, 2, 0, 0]),
    figure("mesh500",     |k| mesh::storm(k, 500),                   30, [2, 0, 1, 0, 0, 0]),
    figure("mesh1000",    |k| mesh::storm(k, 1_000),                 45, [ALL, 0, 2, 0, 0, 0]),
    figure("meshrest",    |k| mesh::rest(k, 1_000),                  60, [1, 1, 1, 0, 1, 0]),
];

/// The goal of routelet.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At most this many times the best rival.
    Times(f64),
    /// At most this much more than BIRD.
    BirdPlus(f64),
    /// None at all.
    None,
}

/// By prefix of the row's name; the first match applies. Reasons are in `docs/performance.md`.
#[rustfmt::skip]
pub const GOALS: &[(&str, Goal)] = &[
    ("load, 1,000,000 table",        Goal::Times(0.35)),
    ("load, 1,000,000",              Goal::Times(0.7)),
    ("load, 100,000 table",          Goal::Times(0.6)),
    ("load, 100,000",                Goal::Times(0.7)),
    ("CPU of load",                  Goal::Times(1.0)),
    ("memory per route",             Goal::Times(1.0)),
    ("withdraw by message",          Goal::Times(0.7)),
    ("neighbor lost",                Goal::Times(0.2)),
    ("idle with one neighbor, PSS",  Goal::BirdPlus(3072.0)),
    ("one route",                    Goal::Times(1.0)),
    ("propagation, 100,000 to 10",   Goal::Times(0.5)),
    ("propagation, 100,000 to 50",   Goal::Times(0.5)),
    ("propagation, 100,000 to 1",    Goal::Times(0.8)),
    ("failover",                     Goal::Times(1.0)),
    // Nearly all of it is the time of detection, 100 to 150 ms.
    ("silent loss with 100,000",     Goal::Times(1.0)),
    ("silent loss with 100,",        Goal::Times(1.5)),
    ("restart with 100,000, routes", Goal::None),
    ("restart with 100,000, until whole", Goal::Times(1.0)),
    ("mesh of 1,000, complete",      Goal::Times(1.0)),
    ("mesh of 1,000 at rest",        Goal::Times(1.0)),
];

/// Load of 100,000 routes: at most this many times the kernel's limit.
pub const OF_BARE: (&str, f64) = ("load, 100,000 table", 1.5);

impl Goal {
    pub fn of(row: &str) -> Option<Self> {
        GOALS.iter().find(|(start, _)| row.starts_with(start)).map(|(_, goal)| *goal)
    }

    pub fn text(self) -> String {
        match self {
            Self::Times(1.0) => "best".into(),
            Self::Times(n) => format!("{n} × best"),
            Self::BirdPlus(n) => format!("BIRD + {n}"),
            Self::None => "0".into(),
        }
    }

    /// `None` if the rival was not measured.
    pub fn reached(self, ours: f64, best: Option<f64>, bird: Option<f64>) -> Option<bool> {
        Some(match self {
            Self::Times(n) => ours <= best? * n,
            Self::BirdPlus(n) => ours <= bird? + n,
            Self::None => ours == 0.0,
        })
    }
}
