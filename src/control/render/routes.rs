use serde_json::Value;

use super::{listed, or_dash, span, yes_no};
use crate::{
    control::{FibView, RouteView},
    fib::view::FibHop,
};

/// The columns of `show routes`.
pub(super) const ROUTES: [&str; 11] =
    ["", "PREFIX", "NEXT HOP", "FROM", "PREF", "MED", "AS PATH", "ORIGIN", "KERNEL", "AGE", "REASON"];

/// `>` marks the best path, `=` one that shares its traffic, `S` a stale one.
pub(super) fn route(r: &RouteView) -> [String; 11] {
    [
        marks(r),
        r.prefix.to_string(),
        or_dash(r.next_hop),
        r.neighbor.clone().unwrap_or_else(|| r.source.clone()),
        or_dash(r.local_pref),
        or_dash(r.med),
        as_path(&r.as_path),
        r.origin.clone(),
        yes_no(r.installed).to_owned(),
        span(r.age),
        r.reason.clone(),
    ]
}

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
fn as_path(path: &Value) -> String {
    let numbers = path.as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |n: &Value| match n.as_array() {
        Some(set) => format!("{{{}}}", set.iter().map(Value::to_string).collect::<Vec<_>>().join(",")),
        None => n.to_string(),
    };
    let text = numbers.iter().map(one).collect::<Vec<_>>().join(" ");
    if text.is_empty() { "-".into() } else { text }
}

/// The columns of `show fib`.
pub(super) const FIB: [&str; 6] = ["PREFIX", "TABLE", "METRIC", "NEXT HOPS", "KERNEL", "PROBLEM"];

pub(super) fn fib(r: &FibView) -> [String; 6] {
    let hops =
        if r.next_hops.is_empty() { "unreachable".into() } else { listed(r.next_hops.iter().map(hop)) };
    [
        r.prefix.to_string(),
        r.table.to_string(),
        r.metric.to_string(),
        hops,
        yes_no(r.in_kernel).to_owned(),
        or_dash(r.problem.as_ref()),
    ]
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
