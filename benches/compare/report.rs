//! Medians as a table in Markdown, and everything as JSON.

use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::Path};

use serde_json::json;

use super::{
    config::Kind,
    plan::{Goal, OF_BARE},
    plot,
};

/// Reports a figure to the runner.
pub fn record(row: String, unit: &str, value: f64) {
    println!("{}", json!({ "row": row, "unit": unit, "value": value }));
}

/// 100000 as "100,000".
pub fn many(n: u32) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", many(n / 1000), n % 1000) }
}

pub struct Row {
    pub figure: &'static str,
    pub what: String,
    pub unit: String,
    rounds: BTreeMap<Kind, Vec<f64>>,
}

impl Row {
    pub fn median(&self, kind: Kind) -> Option<f64> {
        let mut all = self.rounds.get(&kind)?.clone();
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        if all.len() % 2 == 1 { Some(all[middle]) } else { Some((all[middle - 1] + all[middle]) / 2.0) }
    }

    /// The best of the rivals.
    fn best(&self) -> Option<f64> {
        let rivals = Kind::ALL.into_iter().filter(|k| !matches!(k, Kind::Routelet | Kind::Bare));
        rivals.filter_map(|k| self.median(k)).min_by(f64::total_cmp)
    }

    /// The median, and its number of rounds if another daemon had more.
    fn cell(&self, kind: Kind) -> String {
        let most = self.rounds.values().map(Vec::len).max().unwrap_or(0);
        match (self.median(kind), self.rounds.get(&kind).map_or(0, Vec::len)) {
            (None, _) => "–".into(),
            (Some(value), n) if n == most => number(value),
            (Some(value), n) => format!("{} ({n})", number(value)),
        }
    }

    /// Goal, ratio to the best rival, and whether the goal is reached.
    fn verdict(&self) -> [String; 3] {
        let none = || "–".to_owned();
        let (ours, best) = (self.median(Kind::Routelet), self.best());
        let goal = Goal::of(&self.what);
        let ratio = match (ours, best) {
            (Some(ours), Some(best)) if best > 0.0 => format!("{:.2}", ours / best),
            _ => none(),
        };
        let mut text = goal.map_or_else(none, Goal::text);
        let mut reached = goal.and_then(|g| g.reached(ours?, best, self.median(Kind::Bird)));
        if self.what == OF_BARE.0
            && let (Some(ours), Some(bare)) = (ours, self.median(Kind::Bare))
        {
            let _ = write!(text, ", {} × bare (is {:.2})", OF_BARE.1, ours / bare);
            reached = reached.map(|r| r && ours <= bare * OF_BARE.1);
        }
        let reached = reached.map_or_else(none, |r| if r { "yes" } else { "**no**" }.into());
        [text, ratio, reached]
    }
}

#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
    failures: Vec<String>,
}

impl Report {
    pub fn add(&mut self, figure: &'static str, what: String, unit: String, kind: Kind, value: f64) {
        let at = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            // A row that appears late, because a daemon failed at first, is kept with its figure.
            let end =
                self.rows.iter().rposition(|row| row.figure == figure).map_or(self.rows.len(), |at| at + 1);
            self.rows.insert(end, Row { figure, what, unit, rounds: BTreeMap::new() });
            end
        });
        self.rows[at].rounds.entry(kind).or_default().push(value);
    }

    pub fn fail(&mut self, text: String) {
        self.failures.push(text);
    }

    pub fn table(&self, kinds: &[Kind]) -> String {
        let names: Vec<_> = kinds.iter().map(|k| k.name()).collect();
        let mut out = format!(
            "| what | unit | {} | goal | routelet ÷ best | reached |\n|---|---|{}---|---|---|\n",
            names.join(" | "),
            "---|".repeat(names.len())
        );
        for row in &self.rows {
            let cells: Vec<_> = kinds.iter().map(|k| row.cell(*k)).collect();
            let verdict = row.verdict().join(" | ");
            let _ = writeln!(out, "| {} | {} | {} | {verdict} |", row.what, row.unit, cells.join(" | "));
        }
        out += "\nMedians; in brackets of how many rounds, where others had more. \"best\" is the best rival's \
                median. A rival that failed once was not tried again.\n";
        if !self.failures.is_empty() {
            out += "\nNot reached:\n\n";
            self.failures.iter().for_each(|text| out += &format!("- {text}\n"));
        }
        out
    }

    /// `table.md`, `results.json`, and one plot per figure.
    pub fn write(&self, dir: &Path, kinds: &[Kind], about: &serde_json::Value) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let conditions = about["conditions"].as_object().into_iter().flatten();
        let conditions: String = conditions.map(|(k, v)| format!("- {k}: {v}\n")).collect();
        fs::write(dir.join("table.md"), format!("{}\n{}", conditions.replace('"', ""), self.table(kinds)))?;
        let figures: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let rounds: BTreeMap<_, _> = row.rounds.iter().map(|(k, all)| (k.name(), all)).collect();
                json!({ "figure": row.figure, "what": row.what, "unit": row.unit, "rounds": rounds })
            })
            .collect();
        let all = json!({ "about": about, "figures": figures, "not reached": self.failures });
        fs::write(dir.join("results.json"), serde_json::to_string_pretty(&all)? + "\n")?;
        let mut done = Vec::new();
        for row in &self.rows {
            if !done.contains(&row.figure) {
                done.push(row.figure);
                let rows: Vec<_> = self.rows.iter().filter(|r| r.figure == row.figure).collect();
                fs::write(dir.join(format!("{}.svg", row.figure)), plot::bars(&rows, kinds))?;
            }
        }
        Ok(())
    }
}

pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == v.trunc() => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
