use std::collections::BTreeMap;

use super::*;
use crate::{
    bgp::view::SessionState,
    control::{EventKind, NeighborTotals},
    net::{Diagnostic, Family, Reason, Subject},
};

const HOSTILE: &str = "</td><script>alert(\"1\")</script><img src=x onerror='a'>&amp;\u{202e}\u{1b}[2J";

fn neighbor(address: &str, state: SessionState) -> NeighborView {
    NeighborView {
        address: address.into(),
        state,
        received: BTreeMap::from([(Family::Ipv4Unicast, 12)]),
        description: Some(HOSTILE.into()),
        last_error: Some(HOSTILE.into()),
        since: "2026-11-30T20:00:00Z".into(),
        ..NeighborView::default()
    }
}

fn page(neighbors: &[NeighborView], search: &str) -> String {
    page_with(neighbors, search, &[])
}

fn page_with(neighbors: &[NeighborView], search: &str, rows: &[RouteView]) -> String {
    let summary = Summary {
        node: HOSTILE.into(),
        version: "1.2.3".into(),
        started: "2026-11-30T20:00:00Z".into(),
        not_ready: Some(HOSTILE.into()),
        modes: vec![HOSTILE.into()],
        neighbors: NeighborTotals { configured: neighbors.len() as u64, ..NeighborTotals::default() },
        diagnostics: vec![Diagnostic::new(
            Reason::RouteShadowed,
            Subject::neighbor(HOSTILE),
            HOSTILE,
            HOSTILE,
        )],
        ..Summary::default()
    };
    let event = Event {
        number: 7,
        at: "2026-11-30T20:59:00Z".into(),
        kind: EventKind::Session,
        subject: HOSTILE.into(),
        text: HOSTILE.into(),
    };
    let trends =
        Trends { messages: vec![0.0, 2.0, 1.0], convergence: vec![f64::MAX], operations: Vec::new() };
    render(&Status {
        now: "2026-11-30T21:00:00Z".parse().unwrap(),
        summary: &summary,
        neighbors,
        routes: Routes { search, rows, has_more: true, error: rows.is_empty().then(|| HOSTILE.into()) },
        kernel: Kernel { installs: true, prefixes: 6, routes: 5, refused: 1, repairs: 2 },
        trends: &trends,
        events: &[event],
    })
}

/// The tags of a page with their attributes.
fn tags(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|rest| rest.split_once('>').expect("each tag has its end").0).collect()
}

#[test]
fn no_text_from_outside_becomes_markup() {
    let page = page(&[neighbor(HOSTILE, SessionState::Active)], HOSTILE);
    let scripts: Vec<_> = tags(&page).into_iter().filter(|tag| tag.starts_with("script")).collect();
    assert_eq!(scripts, ["script src=\"status.js\" defer"]);
    assert!(!page.contains("<img") && !page.contains(['\u{202e}', '\u{1b}']), "{page}");
    assert!(page.matches("&lt;script&gt;").count() >= 10, "each of them is shown");
}

/// The page contains nothing that the policy would block or that is loaded from elsewhere.
#[test]
fn the_page_keeps_its_own_policy() {
    let page = page(&[neighbor("10.1.1.1", SessionState::Established)], "10.0.0.0/8");
    for tag in tags(&page) {
        let attributes: Vec<_> = tag.split(' ').skip(1).filter_map(|part| part.split_once('=')).collect();
        for (name, value) in attributes {
            assert!(name != "style" && !name.starts_with("on"), "{tag}");
            let is_link = ["href", "src", "action"].contains(&name);
            assert!(!is_link || !value.contains("//"), "{tag}");
        }
    }
    let [style, script] = ["/status.css", "/status.js"].map(|path| file(path).expect(path).1);
    assert!(!POLICY.contains("unsafe") && !style.contains("url(") && !style.contains("@import"));
    assert!(!script.contains("innerHTML") && !script.contains("://"));
}

#[test]
fn tags_are_closed_in_order_and_everything_has_a_name() {
    let all = [neighbor("10.1.1.1", SessionState::Established), neighbor("10.1.1.2", SessionState::Idle)];
    let page = page(&all, "");
    let mut open: Vec<&str> = Vec::new();
    for tag in tags(&page).into_iter().skip(1) {
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "{page}"),
            None if ["meta", "link", "br", "input"].contains(&name) || tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\" aria-label=\"").count());
    for needed in ["<html lang=\"en\">", "<main id=\"main\"", "href=\"#main\"", "<label for=\"q\">", "<h1>"] {
        assert!(page.contains(needed), "{needed}");
    }
    for id in ["problems", "neighbors", "own", "routes", "kernel", "trends", "events"] {
        assert!(
            page.contains(&format!("href=\"#{id}\"")) && page.contains(&format!("<h2 id=\"{id}\">")),
            "{id}"
        );
    }
}

#[test]
fn the_script_finds_what_it_changes() {
    let page = page(&[], "");
    let (_, script) = file("/status.js").unwrap();
    let by_id: Vec<_> =
        script.split("getElementById(\"").skip(1).map(|s| s.split('"').next().unwrap()).collect();
    assert_eq!(by_id, ["event-table", "state", "pause"]);
    let live = page.split("id=\"").skip(1).filter(|s| s.split('>').next().unwrap().ends_with(" data-live"));
    let live: Vec<_> = live.map(|s| s.split('"').next().unwrap()).collect();
    assert_eq!(live.len(), page.matches(" data-live>").count(), "each has a name");
    for id in by_id.iter().chain(&live) {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
}

#[test]
fn everything_is_bounded_whatever_neighbors_send() {
    let text = "<".repeat(70_000);
    let one = NeighborView {
        description: Some(text.clone()),
        last_error: Some(text.clone()),
        ..neighbor(&text, SessionState::Active)
    };
    let route = RouteView {
        as_path: (0..16_000).collect(),
        neighbor: Some(text.clone()),
        reason: text.clone(),
        ..serde_json::from_value(serde_json::json!({
            "prefix": "10.0.0.0/8", "source": "bgp", "best": true, "multipath": false, "stale": false,
            "installed": true, "origin": "igp", "as_path": [], "communities": [], "large_communities": [],
            "ext_communities": [], "reason": "", "age": 0
        }))
        .unwrap()
    };
    let page = page_with(&vec![one; 300], "", &vec![route; MAX_ROUTES]);
    assert!(page.len() < 5_000_000, "{}", page.len());
    assert!(
        page.contains("100 more: <code>routelet show neighbors</code>") && page.contains("13 14 15 16 17")
    );
}

#[test]
fn the_page_is_short_and_shows_sessions_that_are_down_first() {
    let many: Vec<_> = (0..5000)
        .map(|n| {
            let state = if n == 4999 { SessionState::Active } else { SessionState::Established };
            NeighborView { description: None, ..neighbor(&format!("10.0.{}.{}", n / 250, n % 250), state) }
        })
        .collect();
    let page = page(&many, "");
    assert!(page.len() < 200_000, "{}", page.len());
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(at("10.0.19.249") < at("10.0.0.0"));
    assert!(page.contains("4800 more: <code>routelet show neighbors</code>"));
}

#[test]
fn events_are_sent_as_a_stream_that_a_browser_continues() {
    let event = |number, text: &str| Event {
        number,
        at: "2026-11-30T20:59:00Z".into(),
        kind: EventKind::Session,
        subject: "10.1.1.1".into(),
        text: text.into(),
    };
    let text = stream_part(&[event(7, "a\nb"), event(9, "c")]);
    assert!(text.starts_with("id: 7\ndata: {") && text.ends_with("}\n\n"), "{text}");
    assert_eq!((text.matches("id: ").count(), text.matches("\ndata: ").count()), (2, 2), "{text}");
    assert_eq!((text.lines().count(), stream_part(&[])), (6, String::new()), "{text}");
}
