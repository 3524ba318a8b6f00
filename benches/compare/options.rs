//! Command line options.

use std::path::PathBuf;

use super::{config::Kind, plan::FIGURES};

pub struct Options {
    pub rounds: u32,
    /// After this many minutes no measurement starts.
    pub minutes: u64,
    /// Factor for time limits.
    pub patience: u64,
    pub figures: Vec<&'static str>,
    pub kinds: Vec<Kind>,
    pub out: PathBuf,
}

pub fn help() -> String {
    let figures: Vec<_> = FIGURES.iter().map(|f| f.name).collect();
    let kinds: Vec<_> = Kind::ALL.iter().map(|k| k.name()).collect();
    format!(
        "benches/compare/run [--rounds N] [--only FIGURE,...] [--daemons NAME,...] [--minutes N] [--patience N] [--out DIR]\n\
         --rounds: 5 by default; slow daemons have fewer\n\
         --only: {}\n--daemons: {}; all packaged ones by default\n\
         --minutes: 30 by default; no measurement starts after that\n\
         --patience: 1 by default; factor for time limits, for slow or busy machines\n\
         --out: target/compare by default",
        figures.join(","),
        kinds.join(",")
    )
}

/// `None` if help is requested.
pub fn read(args: &[&str]) -> Result<Option<Options>, String> {
    let mut options = Options {
        rounds: 5,
        minutes: 30,
        patience: 1,
        figures: FIGURES.iter().map(|f| f.name).collect(),
        kinds: Kind::ALL.into_iter().filter(|k| !k.is_newest()).collect(),
        out: "target/compare".into(),
    };
    let mut args = args.iter();
    while let Some(key) = args.next() {
        if matches!(*key, "--help" | "-h") {
            return Ok(None);
        }
        let value = args.next().ok_or_else(|| format!("{key}: no value, or not known\n{}", help()))?;
        match *key {
            "--rounds" => options.rounds = value.parse().map_err(|e| format!("--rounds {value}: {e}"))?,
            "--minutes" => options.minutes = value.parse().map_err(|e| format!("--minutes {value}: {e}"))?,
            "--patience" => {
                options.patience = value.parse().map_err(|e| format!("--patience {value}: {e}"))?
            }
            "--only" => options.figures = named(value, FIGURES.iter().map(|f| (f.name, f.name)))?,
            "--daemons" => options.kinds = named(value, Kind::ALL.iter().map(|k| (k.name(), *k)))?,
            "--out" => options.out = value.into(),
            _ => return Err(format!("{key}: not known\n{}", help())),
        }
    }
    Ok(Some(options))
}

/// The entries of `all` that a list contains, in the order of `all`.
fn named<T>(list: &str, all: impl Iterator<Item = (&'static str, T)>) -> Result<Vec<T>, String> {
    let mut wanted: Vec<&str> = list.split(',').collect();
    let mut found = Vec::new();
    for (name, item) in all {
        if let Some(at) = wanted.iter().position(|w| w.eq_ignore_ascii_case(name)) {
            wanted.remove(at);
            found.push(item);
        }
    }
    wanted.is_empty().then_some(found).ok_or_else(|| format!("{}: not known\n{}", wanted.join(","), help()))
}
