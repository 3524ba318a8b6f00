use super::{
    layout::Layout,
    span,
    table::{Row, Table},
};
use crate::control::BfdView;

pub(super) fn table(list: &[BfdView], layout: Layout) -> String {
    if list.is_empty() {
        return "no neighbor has BFD: `bfd = true` below [[bgp.neighbor]] turns it on\n".into();
    }
    let heading = ["NEIGHBOR", "INTERFACE", "STATE", "FOR", "TX", "DETECT", "FAILURES", "DIAGNOSTIC"];
    let mut table = Table::new(layout, heading);
    for session in list {
        let row = Row::from([
            session.neighbor.clone(),
            session.interface.clone().unwrap_or_else(|| "multihop".into()),
            state(session),
            span(session.for_seconds),
            session.tx_interval.map_or_else(|| "-".into(), |ms| format!("{ms}ms")),
            if session.detection_time == 0 { "-".into() } else { format!("{}ms", session.detection_time) },
            session.failures.to_string(),
            diagnostic(session),
        ]);
        table.row(match &session.problem {
            Some(problem) => row.note(format!("! {problem}")),
            None => row,
        });
    }
    table.to_string()
}

fn state(session: &BfdView) -> String {
    if session.dampened { "dampened".into() } else { session.state.clone() }
}

/// The neighbor's diagnostic, if ours only shows that the neighbor signaled one.
fn diagnostic(session: &BfdView) -> String {
    let signaled = session.diagnostic.starts_with("neighbor signaled");
    let one = if signaled && !session.remote_diagnostic.starts_with("no ") {
        &session.remote_diagnostic
    } else {
        &session.diagnostic
    };
    if one.starts_with("no ") { "-".into() } else { one.clone() }
}
