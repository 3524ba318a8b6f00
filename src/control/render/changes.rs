use std::fmt::Write;

use super::layout::{Layout, padded};
use crate::control::{Changes, changes::Prefixes};

/// Width of the column of names.
const NAME: usize = 18;

pub(super) fn text(changes: &Changes, layout: Layout) -> String {
    let mut out = String::new();
    let sessions = &changes.sessions;
    let reset: Vec<_> = sessions.reset.iter().map(|s| format!("{} ({})", s.neighbor, s.reason)).collect();
    lines(&mut out, layout, "sessions reset", &reset);
    lines(&mut out, layout, "sessions added", &sessions.added);
    lines(&mut out, layout, "sessions removed", &sessions.removed);
    lines(&mut out, layout, "sessions changed", &sessions.changed);
    lines(&mut out, layout, "routes added", &prefixes(&changes.routes.added));
    lines(&mut out, layout, "routes withdrawn", &prefixes(&changes.routes.withdrawn));
    lines(&mut out, layout, "routes changed", &prefixes(&changes.routes.changed));
    lines(&mut out, layout, "keys changed", &changes.keys);
    lines(&mut out, layout, "needs a restart", &changes.restart);
    if changes.is_none() {
        out.push_str("the configuration in force is that of the file\n");
    }
    if let Some(missing) = &changes.missing {
        out += &layout.mark(&format!("sessions and routes stay as they are for now: {missing}"));
    }
    if let Some(why) = &changes.force {
        out += &layout.mark(&format!("needs --force: {why}"));
    }
    if let Some(at) = &changes.returns_at {
        let at = super::to_the_second(at);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "the former configuration returns at {at}\nunless `routelet reload confirm` is run"
        );
    }
    out
}

/// The number of prefixes, then the first of them.
fn prefixes(all: &Prefixes) -> Vec<String> {
    let mut list: Vec<_> = all.first.iter().map(ToString::to_string).collect();
    if let Some(first) = list.first_mut() {
        *first = format!("{}: {first}", all.count);
    }
    match all.count.saturating_sub(all.first.len() as u64) {
        0 => {}
        more => list.push(format!("and {more} more")),
    }
    list
}

/// A name and its values, on as many lines as they need; nothing without values.
fn lines(out: &mut String, layout: Layout, name: &str, values: &[String]) {
    if !values.is_empty() {
        *out += &layout.wrap(&values.join(", "), &padded(name, NAME), &" ".repeat(NAME));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::changes::{RouteChanges, SessionChanges, SessionReset};

    #[test]
    fn a_reload_is_listed_within_80_columns_with_the_number_of_routes_and_the_first_ten() {
        let reset = SessionReset { neighbor: "10.1.1.1".into(), reason: "hold-time".into() };
        let withdrawn = (0..12u8).map(|n| format!("10.200.{n}.0/24").parse().unwrap()).collect();
        let changes = Changes {
            sessions: SessionChanges { reset: vec![reset], ..SessionChanges::default() },
            routes: RouteChanges { withdrawn, ..RouteChanges::default() },
            keys: vec!["advertise.networks".into(), "bgp.hold-time".into()],
            restart: vec!["cni.enabled".into()],
            force: Some("every session would be reset".into()),
            returns_at: Some("2026-11-30T10:00:00.25Z".into()),
            ..Changes::default()
        };
        let text = text(&changes, Layout::default());
        let expected = "\
sessions reset    10.1.1.1 (hold-time)
routes withdrawn  12: 10.200.0.0/24, 10.200.1.0/24, 10.200.2.0/24,
                  10.200.3.0/24, 10.200.4.0/24, 10.200.5.0/24, 10.200.6.0/24,
                  10.200.7.0/24, 10.200.8.0/24, 10.200.9.0/24, and 2 more
keys changed      advertise.networks, bgp.hold-time
needs a restart   cni.enabled
! needs --force: every session would be reset
the former configuration returns at 2026-11-30T10:00:00Z
unless `routelet reload confirm` is run
";
        assert_eq!(text, expected);
        assert!(super::text(&Changes::default(), Layout::default()).contains("in force"));
    }
}
