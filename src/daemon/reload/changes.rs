//! Computes what another configuration would change: the difference of two plans. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    bgp::{
        peer::{PeerConfig, PeerKey, PeerSource},
        session::reset_reason,
        view::{NeighborView, SessionState},
    },
    config::{Config, effective},
    control::{
        Changes,
        changes::{RouteChanges, SessionChanges, SessionReset},
    },
    plan::{NoPlan, Plan},
};

/// A configuration, and the plan that it gives on this host at this moment.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) config: &'a Config,
    pub(super) plan: &'a Result<Plan, NoPlan>,
}

/// The present sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    established: BTreeSet<String>,
    /// Neighbors from listen ranges, which are in no plan.
    dynamic: Vec<PeerKey>,
}

impl Sessions {
    pub(super) fn new(views: &[NeighborView]) -> Self {
        let up = views.iter().filter(|v| v.state == SessionState::Established);
        let dynamic = views.iter().filter(|v| v.source == "range");
        Self {
            established: up.map(|v| v.address.clone()).collect(),
            dynamic: dynamic.filter_map(|v| v.address.parse().ok()).collect(),
        }
    }
}

/// Compares two configurations.
pub(super) fn changes(old: Side<'_>, new: Side<'_>, sessions: &Sessions) -> Changes {
    let mut changes = Changes { keys: keys(old.config, new.config), ..Changes::default() };
    match (old.plan, new.plan) {
        // The last plan stays in force until there is a new one.
        (_, Err(missing)) => changes.missing = Some(missing.to_string()),
        (Err(_), Ok(new)) => {
            changes.sessions.added = new.peers.keys().map(ToString::to_string).collect();
            changes.routes.added = new.originated.keys().copied().collect();
        }
        (Ok(old), Ok(new)) => {
            changes.sessions = session_changes(old, new, sessions);
            changes.routes = route_changes(old, new);
            changes.force = why_force(old, &changes, sessions);
        }
    }
    changes
}

fn session_changes(old: &Plan, new: &Plan, sessions: &Sessions) -> SessionChanges {
    let mut changes = SessionChanges::default();
    let keys: BTreeSet<_> = old.peers.keys().chain(new.peers.keys()).chain(&sessions.dynamic).collect();
    for key in keys {
        let name = key.to_string();
        match (settings(old, key), settings(new, key)) {
            (None, None) => {}
            (None, Some(_)) => changes.added.push(name),
            (Some(_), None) => changes.removed.push(name),
            (Some(a), Some(b)) => match reset_reason(&a, &old.global, &b, &new.global) {
                Some(reason) if sessions.established.contains(&name) => {
                    changes.reset.push(SessionReset { neighbor: name, reason: reason.to_owned() });
                }
                Some(_) => changes.changed.push(name),
                None if a != b => changes.changed.push(name),
                None => {}
            },
        }
    }
    changes
}

/// The settings of a neighbor: its own, or those of the listen range that contains its address.
fn settings(plan: &Plan, key: &PeerKey) -> Option<PeerConfig> {
    if let Some(own) = plan.peers.get(key) {
        return Some(PeerConfig::clone(own));
    }
    let addr = key.addr()?;
    let range = plan.ranges.iter().filter(|r| r.prefix.contains(addr)).max_by_key(|r| r.prefix.len())?;
    let key = key.clone();
    Some(PeerConfig { key, source: PeerSource::Range, passive: true, ..PeerConfig::clone(&range.template) })
}

fn route_changes(old: &Plan, new: &Plan) -> RouteChanges {
    let (old, new) = (&old.originated, &new.originated);
    RouteChanges {
        added: new.keys().filter(|p| !old.contains_key(p)).copied().collect(),
        withdrawn: old.keys().filter(|p| !new.contains_key(p)).copied().collect(),
        changed: new
            .iter()
            .filter(|(p, o)| old.get(p).is_some_and(|was| was != *o))
            .map(|(p, _)| *p)
            .collect(),
    }
}

/// Why the change needs to be forced, if so.
fn why_force(old: &Plan, changes: &Changes, sessions: &Sessions) -> Option<String> {
    let up = &sessions.established;
    let reset = changes.sessions.reset.iter().map(|s| &s.neighbor);
    let lost: BTreeSet<_> = reset.chain(&changes.sessions.removed).cloned().collect();
    let all = match up.len() {
        1 => "the only established session".to_owned(),
        n => format!("all {n} established sessions"),
    };
    let sessions = (!up.is_empty() && up.is_subset(&lost)).then(|| format!("{all} would end"));
    let own = old.originated.len();
    let every = !old.originated.is_empty() && changes.routes.withdrawn.count == own as u64;
    let routes = every.then(|| match own {
        1 => "the only own route would be withdrawn".to_owned(),
        n => format!("all {n} own routes would be withdrawn"),
    });
    let both: Vec<_> = sessions.into_iter().chain(routes).collect();
    (!both.is_empty()).then(|| both.join(", and "))
}

/// The dotted keys of the file whose values differ.
fn keys(old: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    differing(&mut keys, "", &effective(old, None, []), &effective(new, None, []));
    if old.bgp.neighbors != new.bgp.neighbors {
        keys.push("bgp.neighbor".to_owned());
    }
    if old.policies != new.policies && !keys.iter().any(|k| k.starts_with("policy")) {
        keys.push("policy".to_owned());
    }
    keys.sort();
    keys
}

fn differing(keys: &mut Vec<String>, at: &str, old: &Value, new: &Value) {
    let (Value::Object(a), Value::Object(b)) = (old, new) else {
        if old != new {
            keys.push(at.to_owned());
        }
        return;
    };
    let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for name in names {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        differing(keys, &path, a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{ParseContext, parse},
        fib::host::Host,
        plan::{PlanInputs, plan},
    };

    const FILE: &str = "
        [bgp]
        as = 1000
        router-id = \"10.0.0.1\"
        [[bgp.neighbor]]
        address = \"10.1.1.1\"
        remote-as = 2000
        [[bgp.neighbor]]
        address = \"10.1.1.2\"
        remote-as = 2000
        [[bgp.listen-range]]
        prefix = \"10.9.0.0/16\"
        remote-as = 3000
        [advertise]
        networks = [\"10.5.0.0/24\", \"10.5.1.0/24\"]
    ";

    fn config(text: &str) -> Config {
        let around = ParseContext { kubernetes: false, read_password: &|_| Ok("secret".into()) };
        parse(text, &around).unwrap_or_else(|e| panic!("{e:?}")).0
    }

    fn sessions() -> Sessions {
        let established = ["10.1.1.1", "10.1.1.2", "10.9.0.7"].map(str::to_owned).into();
        Sessions { established, dynamic: vec!["10.9.0.7".parse().unwrap()] }
    }

    /// What a change of the file's text would change.
    fn between(from: &str, to: &str, sessions: &Sessions) -> Changes {
        assert!(from.is_empty() || FILE.contains(from), "{from}");
        let (old, new) = (config(FILE), config(&FILE.replacen(from, to, 1)));
        let of = |config: &Config| plan(config, None, &Host::default(), &PlanInputs::default());
        let (a, b) = (of(&old), of(&new));
        changes(Side { config: &old, plan: &a }, Side { config: &new, plan: &b }, sessions)
    }

    #[test]
    fn only_what_has_to_change_does() {
        let first = "address = \"10.1.1.1\"";
        let second = "[[bgp.neighbor]]\n        address = \"10.1.1.2\"\n        remote-as = 2000\n";
        #[rustfmt::skip]
        let cases: [(&str, &str, &str, &str); 16] = [
            ("nothing",          "",                 "",                                       ""),
            ("a comment",        "[bgp]",            "# a comment\n[bgp]",                     ""),
            ("a description",    first,              "address = \"10.1.1.1\"\ndescription = \"tor\"", "changed 10.1.1.1"),
            ("a policy",         first,              "address = \"10.1.1.1\"\nmax-prefixes = 7", "changed 10.1.1.1"),
            ("a hold time",      first,              "address = \"10.1.1.1\"\nhold-time = 30", "reset 10.1.1.1 hold-time"),
            ("a password",       first,              "address = \"10.1.1.1\"\npassword = \"x\"", "reset 10.1.1.1 password"),
            ("a family less",    first,              "address = \"10.1.1.1\"\nfamilies = [\"ipv4-unicast\"]", "reset 10.1.1.1 families, roles or restart times"),
            ("the AS number",    "as = 1000",        "as = 1001",                              "reset 10.1.1.1 as, reset 10.1.1.2 as, reset 10.9.0.7 as"),
            ("the router id",    "10.0.0.1",         "10.0.0.2",                               "reset 10.1.1.1 router-id, reset 10.1.1.2 router-id, reset 10.9.0.7 router-id"),
            ("a neighbor less",  second,             "",                                       "removed 10.1.1.2"),
            ("a neighbor moved", "10.1.1.2",         "10.1.1.3",                               "added 10.1.1.3, removed 10.1.1.2"),
            ("another range",    "10.9.0.0/16",      "10.8.0.0/16",                            "removed 10.9.0.7"),
            ("a network more",   "\"10.5.0.0/24\"",  "\"10.5.0.0/24\", \"10.6.0.0/24\"",       "+10.6.0.0/24"),
            ("a network less",   "\"10.5.0.0/24\",", "",                                       "-10.5.0.0/24"),
            ("a MED",            "[advertise]",      "[advertise]\nmed = 5",                   "~10.5.0.0/24, ~10.5.1.0/24"),
            ("listen addresses", "as = 1000",        "as = 1000\nlisten = []",                 ""),
        ];
        for (name, from, to, expected) in cases {
            let c = between(from, to, &sessions());
            let reset = c.sessions.reset.iter().map(|s| format!("reset {} {}", s.neighbor, s.reason));
            let named = |what: &'static str, list: &[String]| {
                list.iter().map(|n| format!("{what} {n}")).collect::<Vec<_>>()
            };
            let routes = |sign: &str, all: &[crate::net::Prefix]| {
                all.iter().map(|p| format!("{sign}{p}")).collect::<Vec<_>>()
            };
            let mut all: Vec<_> = reset.collect();
            all.extend(named("added", &c.sessions.added));
            all.extend(named("removed", &c.sessions.removed));
            all.extend(named("changed", &c.sessions.changed));
            all.extend(routes("+", &c.routes.added.first));
            all.extend(routes("-", &c.routes.withdrawn.first));
            all.extend(routes("~", &c.routes.changed.first));
            assert_eq!(all.join(", "), expected, "{name}");
        }
    }

    #[test]
    fn a_session_that_is_not_up_is_not_reset() {
        let c = between("as = 1000", "as = 1001", &Sessions::default());
        assert_eq!(
            (c.sessions.reset, c.sessions.changed),
            (Vec::new(), vec!["10.1.1.1".into(), "10.1.1.2".into()])
        );
        assert_eq!(c.force, None, "nothing is lost");
    }

    #[test]
    fn the_loss_of_every_session_or_own_route_needs_force() {
        let both = "\"10.5.0.0/24\", \"10.5.1.0/24\"";
        let one = || Sessions { established: ["10.1.1.1".to_owned()].into(), ..Sessions::default() };
        #[rustfmt::skip]
        let cases: [(&str, &str, Sessions, Option<&str>); 7] = [
            ("as = 1000", "as = 1001", sessions(), Some("all 3 established sessions would end")),
            ("as = 1000", "as = 1001", one(),      Some("the only established session would end")),
            ("10.1.1.1",  "10.1.1.9",  one(),      Some("the only established session would end")),
            ("10.1.1.1",  "10.1.1.9",  sessions(), None),
            (both,        "",          sessions(), Some("all 2 own routes would be withdrawn")),
            (both,        "\"10.7.0.0/24\"", sessions(), Some("all 2 own routes would be withdrawn")),
            ("\"10.5.0.0/24\", ", "",  sessions(), None),
        ];
        for (from, to, sessions, expected) in cases {
            assert_eq!(between(from, to, &sessions).force.as_deref(), expected, "{from} -> {to}");
        }
    }

    #[test]
    fn keys_are_named_as_in_the_file() {
        let c = between(
            "[advertise]",
            "[fib]\nmetric = 20\n[log]\nlevel = \"debug\"\n[advertise]\nmed = 5",
            &sessions(),
        );
        assert_eq!(c.keys, ["advertise.med", "fib.metric", "log.level"]);
        assert_eq!(between("remote-as = 2000", "remote-as = 2001", &sessions()).keys, ["bgp.neighbor"]);
    }

    #[test]
    fn without_a_plan_nothing_changes_yet() {
        let (old, new) = (config(FILE), config(&FILE.replace("router-id", "cluster-id")));
        let (a, b) = (
            plan(&old, None, &Host::default(), &PlanInputs::default()),
            plan(&new, None, &Host::default(), &PlanInputs::default()),
        );
        assert!(b.is_err());
        let c = changes(Side { config: &old, plan: &a }, Side { config: &new, plan: &b }, &sessions());
        assert!(c.missing.is_some() && c.sessions == SessionChanges::default() && c.force.is_none());
        let back =
            changes(Side { config: &new, plan: &b }, Side { config: &old, plan: &a }, &Sessions::default());
        assert_eq!(back.sessions.added, ["10.1.1.1", "10.1.1.2"]);
        assert_eq!(back.routes.added.count, 2);
    }
}
