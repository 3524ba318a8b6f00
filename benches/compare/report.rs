//! Medians as a table, JSON and plots.

use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::Path};

use serde_json::json;

/// Rounds by row (in the order in which rows came) and column.
#[derive(Default)]
pub struct Report {
    rows: Vec<(String, &'static str)>,
    cells: BTreeMap<(usize, String), Vec<f64>>,
}

impl Report {
    pub fn add(&mut self, row: String, unit: &'static str, column: &str, value: f64) {
        let at = self.rows.iter().position(|(name, _)| *name == row).unwrap_or_else(|| {
            self.rows.push((row, unit));
            self.rows.len() - 1
        });
        self.cells.entry((at, column.to_owned())).or_default().push(value);
    }

    fn median(&self, row: usize, column: &str) -> Option<f64> {
        let mut all = self.cells.get(&(row, column.to_owned()))?.clone();
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        if all.len() % 2 == 1 { Some(all[middle]) } else { Some((all[middle - 1] + all[middle]) / 2.0) }
    }

    /// A table in Markdown: the medians, and the first column beside the best of the others.
    pub fn table(&self, columns: &[&str]) -> String {
        let mut out = format!(
            "| what | unit | {} | routelet ÷ best |\n|---|---|{}---|\n",
            columns.join(" | "),
            "---|".repeat(columns.len())
        );
        for (at, (row, unit)) in self.rows.iter().enumerate() {
            let medians: Vec<_> = columns.iter().map(|c| (*c, self.median(at, c))).collect();
            let cells: Vec<_> = medians.iter().map(|(_, m)| m.map_or("–".into(), figure)).collect();
            let best = medians
                .iter()
                .filter(|(c, _)| !matches!(*c, "routelet" | "bare"))
                .filter_map(|(_, m)| *m)
                .min_by(f64::total_cmp);
            let ratio = medians.iter().find(|(c, _)| *c == "routelet").and_then(|(_, m)| Some((*m)? / best?));
            let ratio = ratio.map_or("–".into(), |r| format!("{r:.2}"));
            let _ = writeln!(out, "| {row} | {unit} | {} | {ratio} |", cells.join(" | "));
        }
        out
    }

    pub fn write(&self, dir: &Path, columns: &[&str], about: serde_json::Value) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("table.md"), self.table(columns))?;
        let rows: Vec<_> = self
            .rows
            .iter()
            .enumerate()
            .map(|(at, (row, unit))| {
                let rounds: BTreeMap<_, _> = columns
                    .iter()
                    .filter_map(|c| Some((*c, self.cells.get(&(at, (*c).to_owned()))?)))
                    .collect();
                json!({ "what": row, "unit": unit, "rounds": rounds })
            })
            .collect();
        let all = json!({ "about": about, "figures": rows });
        fs::write(dir.join("results.json"), serde_json::to_string_pretty(&all)?)?;
        fs::write(dir.join("plot.svg"), self.plot(columns))
    }

    /// Bars side by side; each row has its own scale.
    fn plot(&self, columns: &[&str]) -> String {
        const COLOURS: [&str; 6] = ["#0a7", "#36c", "#c63", "#93c", "#aa3", "#888"];
        let (line, left, wide) = (14, 330, 420.0);
        let height = self.rows.len() * (columns.len() + 1) * line + 20;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let mut y = line;
        for (at, (row, unit)) in self.rows.iter().enumerate() {
            let medians: Vec<_> = columns.iter().map(|c| self.median(at, c)).collect();
            let most = medians.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
            let _ = writeln!(out, "<text x=\"4\" y=\"{}\" font-weight=\"bold\">{row}</text>", y + line - 3);
            for ((column, median), colour) in columns.iter().zip(medians).zip(COLOURS) {
                let Some(value) = median else { continue };
                let width = (value / most * wide).max(1.0);
                let _ = writeln!(
                    out,
                    "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.0}\" height=\"{}\" fill=\"{colour}\"/>\
                     <text x=\"{:.0}\" y=\"{}\">{column} {} {unit}</text>",
                    line - 2,
                    f64::from(left) + width + 5.0,
                    y + line - 4,
                    figure(value)
                );
                y += line;
            }
            y += line;
        }
        out + "</svg>\n"
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
