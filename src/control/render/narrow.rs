//! Every screen with long inputs: no line is wider than the screen, and no text is lost.

use super::{
    layout::width,
    tests::{details, fib_route, interface, neighbor, node, route, summary},
    *,
};
use crate::{
    bgp::rib::view::NeighborDetails,
    control::{
        BfdView, Changes, EventKind, Events, NeighborReport, NeighborView, PolicyView, SessionState,
        changes::{SessionChanges, SessionReset},
        host::HostStatus,
        policy::StatementView,
    },
};

const ADDRESS: &str = "2001:db8:1111:2222:3333:4444:5555:6666";
const PREFIX: &str = "2001:db8:1111:2222:3333:4444:5555:6666/128";
const NAME: &str =
    "a-node-whose-name-is-as-long-as-names-of-kubernetes-may-be-and-then-a-little-longer.example.net";

fn sentence(of: &str) -> String {
    format!(
        "{of}: nothing was received for 90 s from this neighbor, which may be down, or a firewall on the way drops its packets; check that it runs"
    )
}

fn long_neighbor(state: SessionState) -> NeighborView {
    let mut n = neighbor(&format!("{ADDRESS}%bond0.1234"), state);
    n.interface = Some("bond0.1234".into());
    n.remote_as = Some(4_200_000_000);
    n.description = Some(sentence("description"));
    n.last_error = Some(sentence("error"));
    n.last_notification_sent = Some(sentence("sent"));
    n.capabilities_sent.push(format!("fqdn {NAME}"));
    n.notes = vec![sentence("note")];
    n.history.closings[0].text = sentence("closing");
    n
}

fn long_details() -> NeighborDetails {
    let mut details = details();
    details.import[0].policy = sentence("policy");
    details.import[0].counts.statements = vec![4_000_000_000; 99];
    details
}

fn long_policy() -> PolicyView {
    let keys = serde_json::json!({ "prefixes": vec![PREFIX; 9], "neighbors": vec![ADDRESS; 9] });
    let keys = keys.as_object().cloned().unwrap_or_default();
    let statements = vec![StatementView { keys, ..StatementView::default() }; 2];
    PolicyView { name: NAME.into(), statements, ..PolicyView::default() }
}

/// A screen: its name, and the texts that it must have.
type Screen = (&'static str, Response, Vec<String>);

fn screens() -> Vec<Screen> {
    [neighbor_screens(), route_screens(), cluster_screens(), host_screens(), event_screens()]
        .into_iter()
        .flatten()
        .collect()
}

fn neighbor_screens() -> Vec<Screen> {
    let text = sentence;
    let down = long_neighbor(SessionState::OpenConfirm);
    let listed = vec![down.address.clone(), text("description"), text("error")];
    let detail = ["sent", "note", "closing", "policy"].map(text);

    let mut screen = summary();
    (screen.node, screen.problems) = (NAME.into(), vec![text("problem")]);
    (screen.sessions, screen.not_ready) = (vec![down.clone(); 3], Some(text("missing")));
    let in_summary = [&listed[..], &[NAME.into(), text("problem"), text("missing")]].concat();
    let all = vec![neighbor("10.0.0.1", SessionState::Established), down.clone()];
    let report = NeighborReport { session: down, details: Some(Box::new(long_details())) };
    let in_report = [&listed[..], &detail, &[NAME.into(), "99: 4000000000".into()]].concat();
    vec![
        ("summary", Response::Summary(Box::new(screen)), in_summary),
        ("neighbors", Response::Neighbors(all), listed),
        ("neighbor", Response::Neighbor(Box::new(report)), in_report),
        ("policy", Response::Policies(vec![long_policy()]), vec![NAME.into(), PREFIX.into()]),
    ]
}

fn route_screens() -> Vec<Screen> {
    let text = sentence;
    let mut path = route("10.0.0.0/8", Some("10.0.0.1"));
    path.prefix = PREFIX.parse().unwrap();
    path.next_hop = Some(ADDRESS.parse().unwrap());
    path.neighbor = Some(ADDRESS.into());
    path.as_path = serde_json::json!((0..40).map(|n| 4_200_000_000u32 + n).collect::<Vec<_>>());
    path.reason = text("reason");
    let in_routes =
        vec![PREFIX.into(), ADDRESS.into(), text("reason"), "4200000039".into(), "10.9.0.0/24".into()];

    let mut fib = fib_route("10.0.0.0/8", (1..64).map(|n| format!("10.0.{n}.1")).collect());
    (fib.prefix, fib.problem) = (PREFIX.parse().unwrap(), Some(text("problem")));
    vec![
        ("routes", Response::Routes(vec![route("10.9.0.0/24", None), path]), in_routes),
        ("fib", Response::Fib(vec![fib]), vec![PREFIX.into(), text("problem"), "10.0.63.1 eth0".into()]),
    ]
}

fn cluster_screens() -> Vec<Screen> {
    let text = sentence;
    let mut here = node();
    (here.node, here.problems) = (NAME.into(), vec![text("problem")]);
    here.mesh_members[0].node = NAME.into();
    here.services[1].reason = text("service");
    here.services[1].services = vec![format!("namespace/{NAME} (load-balancer-ip)")];
    here.api.last_error = Some(text("api"));
    let in_node =
        vec![NAME.into(), text("problem"), text("service"), text("api"), format!("namespace/{NAME}")];
    vec![("node", Response::Node(Some(Box::new(here))), in_node)]
}

fn host_screens() -> Vec<Screen> {
    let text = sentence;
    let mut link = interface("a-bridge-name-0", PREFIX);
    link.neighbors[0].address = ADDRESS.into();
    link.subnets[0].advertised_to = vec![ADDRESS.into(); 5];
    let mut without = interface("br-12345678", "10.9.0.0/24");
    (without.subnets[0].advertised_to, without.subnets[0].reason) = (Vec::new(), Some(text("why not")));
    let host = HostStatus {
        configuration: text("configuration"),
        interfaces: vec![link, without],
        problems: vec![text("problem")],
    };
    let mut in_host = vec![PREFIX.to_owned(), ADDRESS.to_owned()];
    in_host.extend(["why not", "configuration", "problem"].map(text));
    let bfd = BfdView {
        neighbor: ADDRESS.into(),
        interface: Some("bond0.1234".into()),
        state: "admin-down".into(),
        diagnostic: text("diagnostic"),
        problem: Some(text("problem")),
        ..BfdView::default()
    };
    vec![
        ("host", Response::Host(Box::new(host)), in_host),
        ("bfd", Response::Bfd(vec![bfd]), vec![ADDRESS.into(), text("diagnostic"), text("problem")]),
    ]
}

fn event_screens() -> Vec<Screen> {
    let text = sentence;
    let mut events = Events::default();
    events.push("2026-11-21T11:54:30.487079864Z".into(), EventKind::Session, ADDRESS, text("event"));
    let changes = Changes {
        sessions: SessionChanges {
            reset: vec![SessionReset { neighbor: ADDRESS.into(), reason: text("reason") }; 3],
            ..SessionChanges::default()
        },
        force: Some(text("force")),
        ..Changes::default()
    };
    let in_changes = vec![ADDRESS.into(), text("reason"), text("force")];
    vec![
        ("events", Response::Events(events.after(0)), vec![ADDRESS.into(), text("event")]),
        ("changes", Response::Changes(Box::new(changes)), in_changes),
    ]
}

fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn no_line_is_wider_than_the_screen_and_no_text_is_lost() {
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    for (name, response, texts) in screens() {
        for columns in [80, 100, 132] {
            let shown = text(&response, now, Layout { width: columns, headings: true });
            for line in shown.lines() {
                assert!(width(line) <= columns, "{name} on {columns} columns: {line}\n{shown}");
            }
            for text in &texts {
                assert!(
                    without_spaces(&shown).contains(&without_spaces(text)),
                    "{name} on {columns} columns lacks {text}:\n{shown}"
                );
            }
        }
        let shown = text(&response, now, Layout::wide());
        for text in &texts {
            assert!(shown.contains(text), "{name} -o wide has `{text}` on one line:\n{shown}");
        }
    }
}

#[test]
fn usual_screens_take_one_line_per_row() {
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    let list = vec![
        neighbor("10.1.1.1", SessionState::Established),
        neighbor("10.1.1.2", SessionState::Established),
    ];
    let rows = vec![route("10.244.0.0/24", None), route("10.244.1.0/24", Some("10.1.1.1"))];
    for (response, lines) in [(Response::Neighbors(list), 3), (Response::Routes(rows), 4)] {
        let shown = text(&response, now, Layout::default());
        assert_eq!(shown.lines().count(), lines, "{shown}");
        let bare = text(&response, now, Layout { headings: false, ..Layout::default() });
        assert_eq!(bare.lines().count(), 2, "rows alone without headings: {bare}");
    }
}
