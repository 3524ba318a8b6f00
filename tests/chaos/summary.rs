//! How many packets each kind of fault costs: what a run prints at its end.

use std::{collections::BTreeMap, fmt};

/// Losses by fault, or by pair of faults, over all steps.
#[derive(Default)]
pub struct Summary {
    rows: BTreeMap<String, Row>,
    sent: usize,
}

#[derive(Default)]
struct Row {
    steps: usize,
    lost: usize,
    most: usize,
}

impl Summary {
    /// A step with these faults, which cost so many packets.
    pub fn step(&mut self, faults: &str, lost: usize) {
        let row = self.rows.entry(faults.to_owned()).or_default();
        row.steps += 1;
        row.lost += lost;
        row.most = row.most.max(lost);
    }

    pub fn sent(&mut self, packets: usize) {
        self.sent += packets;
    }
}

/// The costly ones first.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost: usize = self.rows.values().map(|row| row.lost).sum();
        writeln!(f, "{lost} of {} packets lost, by fault:", self.sent)?;
        writeln!(f, "{:>6}  {:>8}  {:>8}  fault", "steps", "lost", "most")?;
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.lost));
        for (faults, Row { steps, lost, most }) in rows {
            writeln!(f, "{steps:>6}  {lost:>8}  {most:>8}  {faults}")?;
        }
        Ok(())
    }
}

#[test]
fn losses_are_summed_by_fault_and_the_costly_ones_come_first() {
    let mut summary = Summary::default();
    for (faults, lost) in [("Killed", 0), ("SilentLoss", 30), ("Killed", 2), ("SilentLoss", 10)] {
        summary.step(faults, lost);
    }
    summary.sent(1000);
    let text = summary.to_string();
    let lines: Vec<_> = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0].join(" "), "42 of 1000 packets lost, by fault:");
    assert_eq!(lines[2..], [vec!["2", "40", "30", "SilentLoss"], vec!["2", "2", "2", "Killed"]]);
}
