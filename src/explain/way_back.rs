//! The path of replies: whether the neighbor that leads to the address has a route to the source.

use super::{Facts, Outcome, Place, Source, StepName, Walk, listed, origin, routes};
use crate::{
    bgp::{rib::view::Advertised, view::SessionState},
    net::Prefix,
};

pub(super) fn step(facts: &Facts, walk: &mut Walk) {
    if facts.stays_here() || !matches!(facts.place, Place::Remote | Place::OnLink { .. }) {
        return;
    }
    match &facts.from {
        None | Some(Place::Host { .. }) if facts.sources.is_empty() => of_host(facts, walk),
        Some(Place::Remote | Place::OnLink { .. }) => {}
        _ => of_sources(facts, walk),
    }
}

/// The source is an address of this host in the network of the next hop, or it has to be
/// advertised.
fn of_host(facts: &Facts, walk: &mut Walk) {
    let Some(source) = facts.question.from.or_else(|| facts.used()?.source) else { return };
    let subnets = facts.exit.as_ref().map_or(&[][..], |l| &l.subnets);
    if let Some(subnet) = subnets.iter().find(|s| s.contains(source)) {
        return walk.ok(StepName::Return, format!("{source} is in {subnet}, the network of the next hop"));
    }
    walk.warn(
        StepName::Return,
        format!("{source} is in no network of the next hop, and no prefix with it is advertised"),
        "advertise it with advertise.networks, or choose another source with fib.prefer-source",
    );
}

/// Neighbors that lead to the address: those of the selected paths, else the gateway itself.
fn leading<'a>(facts: &'a Facts) -> Vec<&'a str> {
    let senders = routes::senders(facts);
    if !senders.is_empty() {
        return senders;
    }
    let gateway = facts.used().and_then(|used| used.gateway).unwrap_or(facts.question.address);
    let is_it = |n: &&'a super::Neighbor| n.address == Some(gateway) && n.state == SessionState::Established;
    facts.neighbors.iter().filter(is_it).map(|n| n.name.as_str()).collect()
}

fn of_sources(facts: &Facts, walk: &mut Walk) {
    let leading = leading(facts);
    if facts.sources.is_empty() {
        return unknown_source(facts, walk);
    }
    if leading.is_empty() {
        let text = "the next hop is no BGP neighbor: whether it has a route back is not known here";
        return walk.note(StepName::Return, text);
    }
    let of_source = |s: &Source| -> Vec<&Advertised> {
        let all = facts.rib.advertised.iter();
        all.filter(|a| a.prefix == s.prefix && leading.contains(&a.neighbor.as_str())).collect()
    };
    // The longest advertised prefix that covers the one of the source: an aggregate suffices.
    let held = |s: &Source| -> Option<Prefix> {
        let has_it = |a: &&Advertised| {
            a.why_not.is_none() && a.prefix.covers(s.prefix) && leading.contains(&a.neighbor.as_str())
        };
        facts.rib.advertised.iter().filter(has_it).map(|a| a.prefix).max_by_key(|p| p.len())
    };
    let mut known: Vec<_> = facts.sources.iter().filter_map(held).collect();
    known.sort_unstable();
    known.dedup();
    let lacking: Vec<_> = facts.sources.iter().filter(|s| held(s).is_none()).collect();
    let details = |list: &[&Source]| -> Vec<String> {
        let all = list.iter().flat_map(|s| of_source(s));
        all.map(|a| format!("{} to {}: {}", a.prefix, a.neighbor, origin::line(facts, a))).collect()
    };
    let to = listed(&leading);
    if lacking.is_empty() {
        let text = format!("{} advertised to {to}", are(&known));
        return walk.add(StepName::Return, Outcome::Ok, text, Vec::new(), None);
    }
    let cause = lacking.iter().flat_map(|s| of_source(s)).find_map(|a| Some((a, a.why_not.as_ref()?)));
    let remedy = cause.map(|(a, why)| origin::remedy(why, &a.neighbor));
    let prefixes: Vec<_> = lacking.iter().map(|s| s.prefix).collect();
    let text = format!("{} not advertised to {to}, which leads there: replies get lost", are(&prefixes));
    let result = match () {
        () if facts.masqueraded => Outcome::Note,
        () if known.is_empty() => Outcome::Stop,
        () => Outcome::Warning,
    };
    let text = match facts.masqueraded {
        true => {
            format!("{} not advertised to {to}; packets leave with an address of this host", are(&prefixes))
        }
        false => text,
    };
    walk.add(StepName::Return, result, text, details(&lacking), remedy);
}

/// A container in a subnet that is not originated.
fn unknown_source(facts: &Facts, walk: &mut Walk) {
    let Some(Place::Container { subnet, interface }) = &facts.from else { return };
    if facts.masqueraded {
        return walk.note(
            StepName::Return,
            format!("{subnet} is not advertised; packets leave with an address of this host"),
        );
    }
    walk.stop(
        StepName::Return,
        format!("{subnet} of {interface} is not originated: no neighbor has a route back"),
        format!("add {interface} to advertise.interfaces; `routelet show host` lists the subnets"),
    );
}

/// `172.20.0.0/16 is`, `172.20.0.0/16 and 172.21.0.0/16 are`.
fn are(prefixes: &[Prefix]) -> String {
    let verb = if prefixes.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", listed(prefixes))
}
