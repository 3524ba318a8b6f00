use super::{
    layout::Layout,
    table::{Row, Table},
};
use crate::control::{
    HostStatus,
    host::{InterfaceStatus, SubnetStatus},
};

/// The table of interfaces alone.
pub(super) fn interfaces(list: &[InterfaceStatus], layout: Layout) -> String {
    let mut table = Table::new(layout, ["INTERFACE", "KIND", "STATE", "SUBNET", "ADVERTISED"]);
    list.iter().for_each(|interface| rows(&mut table, interface));
    table.to_string()
}

pub(super) fn text(host: &HostStatus, layout: Layout) -> String {
    let table = interfaces(&host.interfaces, layout);
    let mut text = layout.wrap(&host.configuration, "", "") + &format!("\n{table}");
    for problem in &host.problems {
        text += &layout.mark(problem);
    }
    text
}

/// A row for each subnet, and at least one; its neighbors below the first.
fn rows(table: &mut Table<5>, i: &InterfaceStatus) {
    let state = match (i.up, i.carrier) {
        (false, _) => "down",
        (true, false) => "no carrier",
        (true, true) => "up",
    };
    let first = [i.name.clone(), i.kind.clone(), state.to_owned()];
    let neighbors: Vec<_> =
        i.neighbors.iter().map(|n| format!("neighbor {} {}", n.address, n.state.as_str())).collect();
    let with_neighbors = |row| neighbors.iter().fold(row, |row: Row<5>, n| row.note(n.clone()));
    if i.subnets.is_empty() {
        let [name, kind, state] = first;
        let why = i.reason.as_ref().map_or_else(|| "-".to_owned(), |why| format!("no: {why}"));
        return table.row(with_neighbors([name, kind, state, "-".into(), why].into()));
    }
    for (n, subnet) in i.subnets.iter().enumerate() {
        let [name, kind, state] = if n == 0 { first.clone() } else { Default::default() };
        let row = Row::from([name, kind, state, subnet.prefix.to_string(), advertised(subnet)]);
        table.row(if n == 0 { with_neighbors(row) } else { row });
    }
}

/// The neighbors that have it, or the reason why none has.
pub(super) fn advertised(subnet: &SubnetStatus) -> String {
    match (&subnet.advertised_to[..], &subnet.reason) {
        ([], Some(why)) => format!("no: {why}"),
        ([], None) => "no".into(),
        (neighbors, _) => format!("to {}", neighbors.join(", ")),
    }
}
