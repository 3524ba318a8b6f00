use std::fmt::Write;

use super::{Table, listed};
use crate::control::{HostStatus, host::InterfaceStatus};

pub(super) fn text(host: &HostStatus) -> String {
    let mut table =
        Table::with_heading(["INTERFACE", "KIND", "STATE", "NEIGHBORS", "SUBNET", "ADVERTISED TO", "REASON"]);
    for interface in &host.interfaces {
        rows(&mut table, interface);
    }
    let mut text = format!("{}\n\n{table}", host.configuration);
    for problem in &host.problems {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "! {problem}");
    }
    text
}

/// A row for each subnet, and at least one.
fn rows(table: &mut Table, i: &InterfaceStatus) {
    let state = match (i.up, i.carrier) {
        (false, _) => "down",
        (true, false) => "no carrier",
        (true, true) => "up",
    };
    let neighbors =
        listed(i.neighbors.iter().map(|n| format!("{} {}", n.address, super::neighbor::state(n.state))));
    let dash = || "-".to_owned();
    let first = [i.name.clone(), i.kind.clone(), state.to_owned(), neighbors];
    if i.subnets.is_empty() {
        let [name, kind, state, neighbors] = first;
        return table.row([
            name,
            kind,
            state,
            neighbors,
            dash(),
            dash(),
            i.reason.clone().unwrap_or_else(dash),
        ]);
    }
    for (n, subnet) in i.subnets.iter().enumerate() {
        let [name, kind, state, neighbors] = if n == 0 { first.clone() } else { Default::default() };
        let (to, reason) = (listed(&subnet.advertised_to), subnet.reason.clone().unwrap_or_else(dash));
        table.row([name, kind, state, neighbors, subnet.prefix.to_string(), to, reason]);
    }
}
