use serde_json::Value;

use super::{
    layout::Layout,
    listed, or_dash, span,
    table::{Columns, Row},
    yes_no,
};
use crate::{
    control::{FibView, RouteView},
    fib::view::FibHop,
};

/// The columns of `show routes`.
const ROUTES: [&str; 8] = ["", "PREFIX", "NEXT HOP", "FROM", "AS PATH", "KERNEL", "AGE", "REASON"];
/// The same with `-o wide`.
const WIDE_ROUTES: [&str; 11] =
    ["", "PREFIX", "NEXT HOP", "FROM", "PREF", "MED", "AS PATH", "ORIGIN", "KERNEL", "AGE", "REASON"];

/// The table of `show routes` as it arrives in pages.
#[derive(Clone, Debug)]
pub(super) enum Routes {
    Usual(Columns<8>),
    Wide(Columns<11>),
}

impl Routes {
    pub(super) fn new(layout: Layout) -> Self {
        match layout.is_wide() {
            true => Self::Wide(Columns::new(layout, WIDE_ROUTES)),
            false => Self::Usual(Columns::new(layout, ROUTES)),
        }
    }

    pub(super) fn lines(&mut self, list: &[RouteView]) -> String {
        match self {
            Self::Usual(columns) => columns.lines(&list.iter().map(|r| usual(r).into()).collect::<Vec<_>>()),
            Self::Wide(columns) => columns.lines(&list.iter().map(|r| wide(r).into()).collect::<Vec<_>>()),
        }
    }

    pub(super) fn end(self) -> String {
        match self {
            Self::Usual(columns) => columns.end(),
            Self::Wide(columns) => columns.end(),
        }
    }
}

/// The meaning of the marks of [`usual`].
pub(super) const LEGEND: &str =
    "marks: > best, = shares its traffic, S stale; -o wide has PREF, MED, ORIGIN\n";

fn usual(r: &RouteView) -> [String; 8] {
    let origin = match r.origin.as_str() {
        "igp" => "i",
        "egp" => "e",
        _ => "?",
    };
    let path = match as_path(&r.as_path) {
        path if path.is_empty() => origin.to_owned(),
        path => format!("{path} {origin}"),
    };
    // The marks show the rest of the reason.
    let reason = ["best: ", "multipath: "].iter().find_map(|mark| r.reason.strip_prefix(mark));
    let [kernel, age, reason] = [kernel(r), span(r.age), reason.unwrap_or(&r.reason).to_owned()];
    [marks(r), r.prefix.to_string(), or_dash(r.next_hop), from(r), path, kernel, age, reason]
}

fn wide(r: &RouteView) -> [String; 11] {
    let path = as_path(&r.as_path);
    [
        marks(r),
        r.prefix.to_string(),
        or_dash(r.next_hop),
        from(r),
        or_dash(r.local_pref),
        or_dash(r.med),
        if path.is_empty() { "-".into() } else { path },
        r.origin.clone(),
        kernel(r),
        span(r.age),
        r.reason.clone(),
    ]
}

/// The neighbor, or the source of an own route.
fn from(r: &RouteView) -> String {
    r.neighbor.clone().unwrap_or_else(|| r.source.clone())
}

/// Whether it is in the kernel; own routes need not be.
fn kernel(r: &RouteView) -> String {
    match (r.installed, &r.neighbor) {
        (false, None) => "-".into(),
        (installed, _) => yes_no(installed).into(),
    }
}

/// `>` marks the best path, `=` one that shares its traffic, `S` a stale one.
fn marks(r: &RouteView) -> String {
    let best = if r.best {
        ">"
    } else if r.multipath {
        "="
    } else {
        " "
    };
    format!("{best}{}", if r.stale { "S" } else { "" })
}

/// AS numbers separated by spaces, a set as `{1,2}`; empty for a locally originated route.
pub(in crate::control) fn as_path(path: &Value) -> String {
    let numbers = path.as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |n: &Value| match n.as_array() {
        Some(set) => format!("{{{}}}", set.iter().map(Value::to_string).collect::<Vec<_>>().join(",")),
        None => n.to_string(),
    };
    numbers.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The columns of `show fib`.
pub(super) const FIB: [&str; 5] = ["PREFIX", "TABLE", "METRIC", "KERNEL", "NEXT HOPS"];

pub(super) fn fib(r: &FibView) -> Row<5> {
    let hops =
        if r.next_hops.is_empty() { "unreachable".into() } else { listed(r.next_hops.iter().map(hop)) };
    let row = Row::from([
        r.prefix.to_string(),
        r.table.to_string(),
        r.metric.to_string(),
        yes_no(r.in_kernel).to_owned(),
        hops,
    ]);
    match &r.problem {
        Some(problem) => row.note(format!("! {problem}")),
        None => row,
    }
}

/// The obvious `ip route flush proto 179` fails on each route over a nexthop object if
/// `nexthop_compat_mode` is 1, the kernel's default: the kernel rejects the hops that it reported
/// beside the object's id.
pub(super) fn removal(protocol: u8) -> String {
    format!(
        "\nTo remove them, stop routelet, then `routelet cleanup`; or by hand\n  ip nexthop flush proto {protocol}\n  \
         ip -4 route flush proto {protocol}; ip -6 route flush proto {protocol}\n"
    )
}

fn hop(hop: &FibHop) -> String {
    let weight = if hop.weight > 1 { format!(" weight {}", hop.weight) } else { String::new() };
    match hop.address {
        Some(address) => format!("{address} {}{weight}", hop.interface),
        None => format!("{}{weight}", hop.interface),
    }
}
