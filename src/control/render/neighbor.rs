use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;

use super::{Table, ago, listed, or_dash, span};
use crate::{
    control::{NeighborView, SessionState},
    net::Family,
};

pub(super) fn table(list: &[NeighborView], now: Timestamp) -> String {
    let heading =
        ["NEIGHBOR", "AS", "STATE", "FOR", "RECEIVED", "ACCEPTED", "ADVERTISED", "DESCRIPTION", "LAST ERROR"];
    let mut table = Table::with_heading(heading);
    for n in list {
        table.row([
            name(n),
            or_dash(n.remote_as),
            state(n.state).to_owned(),
            ago(&n.since, now),
            sum(&n.received),
            sum(&n.accepted),
            sum(&n.advertised),
            or_dash(n.description.as_ref()),
            // An error from before the session was established is not of interest.
            or_dash(n.last_error.as_ref().filter(|_| n.state != SessionState::Established)),
        ]);
    }
    table.to_string()
}

pub(super) fn detail(n: &NeighborView, now: Timestamp) -> String {
    let mut table = Table::plain();
    table.pair("neighbor", name(n));
    if let Some(description) = &n.description {
        table.pair("description", description);
    }
    table.pair("state", format!("{} for {}", state(n.state), ago(&n.since, now)));
    table.pair("as", format!("{} (local {})", or_dash(n.remote_as), n.local_as));
    table.pair("router id", or_dash(n.router_id));
    table.pair("local address", or_dash(n.local_address));
    table.pair("source", &n.source);
    table.pair("hold time", if n.hold_time == 0 { "off".into() } else { format!("{}s", n.hold_time) });
    if let Some(ttl_security) = &n.ttl_security {
        table.pair("ttl security", ttl_security);
    }
    if n.refused_by_ttl > 0 {
        table.pair("refused by ttl", n.refused_by_ttl.to_string());
    }
    table.pair("timers", listed(n.timers.iter().map(|(name, due)| format!("{name} in {}", span(*due)))));
    if let Some(bfd) = &n.bfd {
        table.pair("bfd", bfd);
    }
    table.pair("capabilities sent", listed(&n.capabilities_sent));
    table.pair("capabilities received", listed(&n.capabilities_received));
    table
        .pair("messages sent", listed(n.messages_sent.iter().map(|(kind, count)| format!("{kind} {count}"))));
    table.pair(
        "messages received",
        listed(n.messages_received.iter().map(|(kind, count)| format!("{kind} {count}"))),
    );
    table.pair("malformed attributes", n.flaws.to_string());
    table.pair("session drops", listed(n.drops.iter().map(|(reason, count)| format!("{reason} {count}"))));
    table.pair("last error", or_dash(n.last_error.as_ref()));
    table.pair("last notification sent", or_dash(n.last_notification_sent.as_ref()));
    table.pair("last notification received", or_dash(n.last_notification_received.as_ref()));
    let mut text = format!("{table}\n{}", families(n));
    for note in &n.notes {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "! {note}");
    }
    text
}

fn families(n: &NeighborView) -> String {
    let mut table = Table::with_heading(["FAMILY", "RECEIVED", "ACCEPTED", "ADVERTISED"]);
    for family in &n.families {
        let count = |counts: &BTreeMap<Family, u64>| counts.get(family).copied().unwrap_or(0).to_string();
        table.row([family.to_string(), count(&n.received), count(&n.accepted), count(&n.advertised)]);
    }
    table.to_string()
}

fn name(n: &NeighborView) -> String {
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

pub(super) fn state(state: SessionState) -> &'static str {
    match state {
        SessionState::Idle => "idle",
        SessionState::Connect => "connect",
        SessionState::Active => "active",
        SessionState::OpenSent => "open-sent",
        SessionState::OpenConfirm => "open-confirm",
        SessionState::Established => "established",
        SessionState::Disabled => "disabled",
    }
}
