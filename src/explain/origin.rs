//! Packets to this host or to its containers: whether a prefix with the address is originated, and
//! to which neighbors it is advertised.

use super::{Drain, Facts, Outcome, Place, Source, StepName, Walk, listed};
use crate::{
    bgp::{
        rib::view::{Advertised, NotAdvertised},
        view::SessionState,
    },
    net::Prefix,
};

pub(super) fn steps(facts: &Facts, walk: &mut Walk) {
    if facts.stays_here() {
        return;
    }
    // A policy may advertise an aggregate only.
    let is_advertised = |s: &&Source| {
        let mut all = facts.rib.advertised.iter();
        all.any(|a| a.prefix == s.prefix && a.why_not.is_none())
    };
    let Some(own) = facts.own.iter().find(is_advertised).or(facts.own.first()) else {
        return not_originated(facts, walk);
    };
    walk.ok(StepName::Origin, format!("{} is originated: {}", own.prefix, own.by));
    advertised(facts, own.prefix, walk);
}

fn not_originated(facts: &Facts, walk: &mut Walk) {
    let why = facts.not_originated.clone();
    match (&facts.place, facts.drain) {
        (Place::Container { subnet, .. }, Drain::Drained) => walk.stop(
            StepName::Origin,
            format!("{subnet} is not originated: this node is drained"),
            "run `routelet undrain`",
        ),
        (Place::Container { subnet, interface }, Drain::No) => {
            let why = why.unwrap_or_else(|| format!("{interface} is not in advertise.interfaces"));
            walk.stop(
                StepName::Origin,
                format!("{subnet} is not originated, so that no neighbor learns it: {why}"),
                format!(
                    "`routelet show host` lists the subnets; see that {interface} is in advertise.interfaces, and \
                     that it is up with a container attached"
                ),
            );
        }
        _ => walk.note(
            StepName::Origin,
            "not originated by this node: others reach it as part of the network that it is in",
        ),
    }
}

/// To which neighbors a prefix is advertised. Stops the packets if no neighbor has it.
fn advertised(facts: &Facts, prefix: Prefix, walk: &mut Walk) {
    let all: Vec<_> = facts.rib.advertised.iter().filter(|a| a.prefix == prefix).collect();
    let to: Vec<_> = all.iter().filter(|a| a.why_not.is_none()).map(|a| &a.neighbor).collect();
    let details = || all.iter().map(|a| format!("{}: {}", a.neighbor, line(facts, a))).collect::<Vec<_>>();
    if all.is_empty() {
        return walk.stop(
            StepName::Advertised,
            format!("{prefix} is advertised to nobody: there is no BGP neighbor"),
            "add one with [[bgp.neighbor]]; `routelet show neighbors` lists them",
        );
    }
    if !to.is_empty() {
        let result = if to.len() == all.len() { Outcome::Ok } else { Outcome::Note };
        let text = format!("{prefix} is advertised to {}", listed(&to));
        return walk.add(StepName::Advertised, result, text, details(), None);
    }
    let remedy = all.iter().find_map(|a| Some(remedy(a.why_not.as_ref()?, &a.neighbor)));
    let text = format!("{prefix} is advertised to none of {} neighbors", all.len());
    let text = match &all[..] {
        [one] => format!("{prefix} is not advertised to {}: {}", one.neighbor, line(facts, one)),
        _ => text,
    };
    walk.add(StepName::Advertised, Outcome::Stop, text, details(), remedy);
}

/// Why a neighbor does not have a prefix.
pub(super) fn line(facts: &Facts, advertised: &Advertised) -> String {
    match &advertised.why_not {
        None => "advertised".into(),
        Some(NotAdvertised::NoSession) => no_session(facts, &advertised.neighbor),
        Some(why) => why.text(advertised.prefix.family()),
    }
}

fn no_session(facts: &Facts, name: &str) -> String {
    let Some(neighbor) = facts.neighbor(name) else { return "no session".into() };
    let state = neighbor.state.as_str();
    match &neighbor.last_error {
        Some(error) if neighbor.state != SessionState::Disabled => format!("no session ({state}: {error})"),
        _ => format!("no session ({state})"),
    }
}

/// What to do about it.
pub(super) fn remedy(why: &NotAdvertised, neighbor: &str) -> String {
    match why {
        NotAdvertised::NoSession => {
            format!("`routelet show neighbor {neighbor}` shows why there is no session")
        }
        NotAdvertised::NoFamily => {
            format!("add the family to `families` of {neighbor}, at both ends of the session")
        }
        NotAdvertised::NoPolicy => format!("set `export` of neighbor {neighbor}"),
        NotAdvertised::ServiceToNode => "advertise it to a neighbor outside of the cluster".into(),
        NotAdvertised::Policy { policy, statement } => {
            format!("change statement {statement} of [[policy.{policy}]], or `export` of neighbor {neighbor}")
        }
        NotAdvertised::NoNextHop => {
            format!("add an own address of the family on the interface of neighbor {neighbor}")
        }
        NotAdvertised::Withheld => format!("raise max-prefixes-out of neighbor {neighbor}"),
        NotAdvertised::Pending => {
            format!(
                "try again in a moment; `routelet show routes --advertised {neighbor}` lists what was sent"
            )
        }
    }
}
