use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    ago,
    layout::Layout,
    listed, or_dash, span,
    table::{Pairs, Row, Table},
    to_the_second, yes_no,
};
use crate::{
    bgp::rib::view::{Limits, NeighborDetails, PolicyHits, Security},
    control::{NeighborReport, NeighborView, SessionState},
    net::Family,
};

pub(super) fn table(list: &[NeighborView], now: Timestamp, layout: Layout) -> String {
    let heading = ["NEIGHBOR", "AS", "STATE", "SINCE", "FLAPS", "RCVD", "ACPT", "ADV", "DESCRIPTION"];
    let mut table = Table::new(layout, heading);
    for n in list {
        let row = Row::from([
            name(n),
            or_dash(n.remote_as),
            up_or_down(n.state).to_owned(),
            ago(up_down_since(n), now),
            n.history.flaps.to_string(),
            sum(&n.received),
            sum(&n.accepted),
            sum(&n.advertised),
            or_dash(n.description.as_ref()),
        ]);
        // An error from before the session was established is not of interest.
        let error = n.last_error.as_ref().filter(|_| n.state != SessionState::Established);
        table.row(error.iter().fold(row, |row, error| row.note(error.as_str())));
    }
    table.to_string()
}

/// Since when the session has been established, or not.
fn up_down_since(n: &NeighborView) -> &str {
    n.history.up_down_since.as_deref().unwrap_or(&n.since)
}

pub(super) fn detail(report: &NeighborReport, now: Timestamp, layout: Layout) -> String {
    let (n, details) = (&report.session, report.details.as_deref());
    let mut text = session(n, now, layout, details).to_string();
    text += &format!("\n{}", families(n, layout));
    if let Some(details) = details {
        text += &end_of_ribs(details, layout);
        text += &policies(details, layout);
    }
    let capabilities = capabilities(n);
    if !capabilities.is_empty() {
        let mut table = Table::new(layout, ["CAPABILITY", "SENT", "RECEIVED"]);
        capabilities.into_iter().for_each(|row| table.row(row));
        text += &format!("\n{table}");
    }
    text += &format!("\n{}", messages(n, layout));
    if !n.history.closings.is_empty() {
        let mut table = Table::new(layout, ["LAST CLOSINGS", "REASON", "TEXT"]);
        for c in &n.history.closings {
            table.row([to_the_second(&c.at), c.reason.clone(), c.text.clone()]);
        }
        text += &format!("\n{table}");
    }
    for note in &n.notes {
        text += &layout.mark(note);
    }
    text
}

/// The neighbor's identity, and its session.
fn session(n: &NeighborView, now: Timestamp, layout: Layout, details: Option<&NeighborDetails>) -> Pairs {
    let mut pairs = Pairs::new(layout);
    pairs.add("neighbor", name(n));
    pairs.add_some("description", n.description.as_ref());
    let for_long = match n.state {
        SessionState::Established | SessionState::Disabled => String::new(),
        _ => format!(", down for {}", ago(up_down_since(n), now)),
    };
    pairs.add("state", format!("{} for {}{for_long}", n.state.as_str(), ago(&n.since, now)));
    pairs.add("as", format!("{} (local {})", or_dash(n.remote_as), n.local_as));
    pairs.add("router id", or_dash(n.router_id));
    pairs.add("local address", or_dash(n.local_address));
    pairs.add("source", &n.source);
    pairs.add("hold time", if n.hold_time == 0 { "off".into() } else { format!("{}s", n.hold_time) });
    pairs.add("timers", listed(n.timers.iter().map(|(name, due)| format!("{name} in {}", span(*due)))));
    if let Some(details) = details {
        pairs.add("security", security(&details.security));
        pairs.add("limits", limits(&details.limits));
    }
    pairs.add_some("ttl security", n.ttl_security.as_ref());
    pairs.add_some("refused by ttl", Some(n.refused_by_ttl).filter(|count| *count > 0));
    pairs.add_some("bfd", n.bfd.as_ref());
    let past =
        |seconds: Option<u64>| seconds.map_or_else(|| "never".to_owned(), |s| format!("{} ago", span(s)));
    let (read, written) = (past(n.history.last_read), past(n.history.last_written));
    pairs.add("last message", format!("received {read}, sent {written}"));
    pairs.add("send queue", send_queue(n));
    pairs.add("receive queue", receive_queue(n));
    pairs.add("malformed attributes", n.flaws.to_string());
    pairs.add("session drops", listed(n.drops.iter().map(|(reason, count)| format!("{reason} {count}"))));
    pairs.add("last error", or_dash(n.last_error.as_ref()));
    pairs.add("last notification sent", or_dash(n.last_notification_sent.as_ref()));
    pairs.add("last notification received", or_dash(n.last_notification_received.as_ref()));
    pairs
}

fn send_queue(n: &NeighborView) -> String {
    format!("{} octets, {} more not acknowledged", n.queues.unsent, n.queues.unacknowledged)
}

fn receive_queue(n: &NeighborView) -> String {
    format!("{} octets in the socket, {} of an incomplete message", n.queues.unread, n.queues.partial)
}

fn security(security: &Security) -> String {
    let signature = if security.tcp_md5 { "TCP MD5 (RFC 2385)" } else { "no TCP MD5" };
    let hops = match security.max_hops {
        Some(1) => "directly connected".to_owned(),
        Some(hops) => format!("at most {hops} hops away"),
        None => "any distance".to_owned(),
    };
    let missing = match security.missing_policies.as_slice() {
        [] => String::new(),
        missing => {
            format!(", no route passes without a policy (RFC 8212): {} is missing", missing.join(" and "))
        }
    };
    format!("{signature}, {hops}{missing}")
}

fn limits(limits: &Limits) -> String {
    let action = match (limits.is_exceeded, limits.restart_after) {
        (true, _) => ", exceeded".to_owned(),
        (false, Some(seconds)) => format!(" (then the session restarts after {})", span(seconds)),
        (false, None) => " (then a warning)".to_owned(),
    };
    format!(
        "max-prefixes {}{action}, max-prefixes-out {}",
        limits.max_prefixes,
        match limits.max_prefixes_out {
            Some(max) => max.to_string(),
            None => "none".to_owned(),
        }
    )
}

/// End-of-RIB and stale routes, if there is a session or anything is stale.
fn end_of_ribs(details: &NeighborDetails, layout: Layout) -> String {
    let heading = ["END-OF-RIB", "SENT", "RECEIVED", "STALE ROUTES", "REMOVED IN"];
    let mut table = Table::new(layout, heading);
    let families: BTreeSet<_> = details.end_of_rib.keys().chain(details.stale.keys()).collect();
    for family in &families {
        let [sent, received] = match details.end_of_rib.get(family) {
            Some(ends) => [ends.sent, ends.received].map(|is| yes_no(is).to_owned()),
            None => ["-".to_owned(), "-".to_owned()],
        };
        let [stale, removed] = match details.stale.get(family) {
            Some(s) if s.long_lived => [format!("{} (long-lived)", s.routes), span(s.seconds)],
            Some(s) => [s.routes.to_string(), span(s.seconds)],
            None => ["0".to_owned(), "-".to_owned()],
        };
        table.row([family.to_string(), sent, received, stale, removed]);
    }
    if families.is_empty() { String::new() } else { format!("\n{table}") }
}

/// Its policies with the number of routes that each statement has matched.
fn policies(details: &NeighborDetails, layout: Layout) -> String {
    let mut table = Table::new(layout, ["POLICY", "DIRECTION", "ROUTES MATCHED BY STATEMENT"]);
    let lists = [("import", &details.import), ("export", &details.export)];
    for (direction, hits) in lists.into_iter().flat_map(|(d, list)| list.iter().map(move |hits| (d, hits))) {
        table.row([hits.policy.clone(), direction.to_owned(), matched(hits)]);
    }
    let shared = match details.export_shared_by {
        others @ 2.. if !details.export.is_empty() => layout.wrap(
            &format!("export is counted for all {others} neighbors with the same policies together"),
            "",
            "",
        ),
        _ => String::new(),
    };
    match details.import.is_empty() && details.export.is_empty() {
        true => String::new(),
        false => format!("\n{table}{shared}"),
    }
}

/// `1: 12, 2: 0, otherwise: 3`.
fn matched(hits: &PolicyHits) -> String {
    let numbered = (1..).zip(&hits.counts.statements).map(|(n, count): (usize, _)| format!("{n}: {count}"));
    listed(numbered.chain([format!("otherwise: {}", hits.counts.otherwise)]))
}

fn families(n: &NeighborView, layout: Layout) -> Table<5> {
    let mut table = Table::new(layout, ["FAMILY", "RECEIVED", "ACCEPTED", "ADVERTISED", "WITHHELD"]);
    for family in &n.families {
        let count = |counts: &BTreeMap<Family, u64>| counts.get(family).copied().unwrap_or(0).to_string();
        let counts = [&n.received, &n.accepted, &n.advertised, &n.withheld].map(count);
        let [received, accepted, advertised, withheld] = counts;
        table.row([family.to_string(), received, accepted, advertised, withheld]);
    }
    table
}

/// A row for each capability that one end or both have sent.
fn capabilities(n: &NeighborView) -> Vec<[String; 3]> {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for (column, list) in [(1, &n.capabilities_sent), (2, &n.capabilities_received)] {
        for text in list {
            let (name, value) = capability(text);
            let free = |row: &&mut [String; 3]| row[0] == name && row[column].is_empty();
            match rows.iter_mut().find(free) {
                Some(row) => row[column] = value,
                None => {
                    let mut row = [name, String::new(), String::new()];
                    row[column] = value;
                    rows.push(row);
                }
            }
        }
    }
    rows.iter_mut().flatten().filter(|cell| cell.is_empty()).for_each(|cell| "-".clone_into(cell));
    rows
}

/// The name of a capability, and its content.
fn capability(text: &str) -> (String, String) {
    let words = match text.split_whitespace().next() {
        Some("multiprotocol" | "capability") => 2,
        _ => 1,
    };
    let at = text.match_indices(' ').nth(words - 1).map_or(text.len(), |(at, _)| at);
    let (name, value) = text.split_at(at);
    let value = value.trim();
    (name.to_owned(), if value.is_empty() { "yes".into() } else { value.to_owned() })
}

fn messages(n: &NeighborView, layout: Layout) -> Table<3> {
    let mut table = Table::new(layout, ["MESSAGES", "SENT", "RECEIVED"]);
    let kinds = ["open", "update", "notification", "keepalive", "route-refresh"];
    let known =
        |kind: &&&str| n.messages_sent.contains_key(**kind) || n.messages_received.contains_key(**kind);
    for kind in kinds.iter().filter(known) {
        let count = |counts: &BTreeMap<String, u64>| counts.get(*kind).copied().unwrap_or(0).to_string();
        table.row([(*kind).to_owned(), count(&n.messages_sent), count(&n.messages_received)]);
    }
    table
}

pub(super) fn name(n: &NeighborView) -> String {
    match &n.interface {
        Some(interface) if !n.address.contains('%') && n.address != *interface => {
            format!("{}%{interface}", n.address)
        }
        _ => n.address.clone(),
    }
}

fn sum(counts: &BTreeMap<Family, u64>) -> String {
    counts.values().sum::<u64>().to_string()
}

/// For tables: attempts alternate between the first three states.
fn up_or_down(of: SessionState) -> &'static str {
    match of {
        SessionState::Idle | SessionState::Connect | SessionState::Active => "down",
        other => other.as_str(),
    }
}
