//! The output of `kubectl routelet`: the reports of all nodes as tables and as JSON.

use super::{
    layout::Layout,
    or_dash, pretty,
    table::{Row, Table},
};
use crate::{
    control::cluster::{NodeRow, ProblemRow, RouteRow, SessionRow},
    k8s::{
        crd::{RouteReport, SessionReport},
        reports::Report,
    },
};

/// A line for each node.
pub fn nodes(list: &[Report], layout: Layout) -> String {
    let mut table = Table::new(layout, ["NODE", "AS", "ROUTER ID", "UP", "PREFIXES", "PROBLEMS"]);
    for Report { node, report, unreadable } in list {
        let row = Row::from([
            node.clone(),
            or_dash(report.asn),
            or_dash(report.router_id.as_ref()),
            format!("{}/{}", report.sessions_up, report.sessions_configured),
            report.prefixes.to_string(),
            report.problems.len().to_string(),
        ]);
        table.row(match unreadable {
            Some(why) => row.note(cannot_be_read(why)),
            None => row,
        });
    }
    table.to_string()
}

/// The sessions of all nodes, with the error of each session that is down below it; `down`: only
/// these.
pub fn sessions(list: &[Report], layout: Layout, down: bool) -> String {
    let heading = ["NODE", "NEIGHBOR", "AS", "STATE", "ACCEPTED", "ADVERTISED", "DESCRIPTION"];
    let mut table = Table::new(layout, heading);
    let mut left_out = String::new();
    for Report { node, report, .. } in list {
        for session in report.sessions.iter().filter(|s| !down || is_down(s)) {
            let row = Row::from([
                node.clone(),
                session.address.clone(),
                or_dash(session.remote_as),
                session.state.clone(),
                session.accepted.to_string(),
                session.advertised.to_string(),
                or_dash(session.description.as_ref()),
            ]);
            let error = session.last_error.as_ref().filter(|_| is_down(session));
            table.row(match error {
                Some(error) => row.note(format!("! {error}")),
                None => row,
            });
        }
        let more = (report.sessions_configured as usize).saturating_sub(report.sessions.len());
        if more > 0 {
            let text = format!(
                "{node}: sessions that are not in its report: {more}; on the node: `routelet show neighbors`"
            );
            left_out += &layout.mark(&text);
        }
    }
    table.to_string() + &left_out
}

fn is_down(session: &SessionReport) -> bool {
    session.state != "established"
}

/// The problems of each node that has any.
pub fn problems(list: &[Report], layout: Layout) -> String {
    let mut text = String::new();
    for Report { node, report, unreadable } in list {
        let unreadable = unreadable.as_deref().map(cannot_be_read);
        let problems: Vec<_> = report.problems.iter().chain(&unreadable).collect();
        if !problems.is_empty() {
            text += &layout.wrap(node, "", "");
        }
        for problem in problems {
            text += &layout.wrap(problem, "  ! ", "    ");
        }
    }
    match text.is_empty() {
        true => format!("no problems on {}\n", count(list.len())),
        false => text,
    }
}

/// The routes of all nodes that match `wanted`.
pub fn routes(list: &[Report], layout: Layout, wanted: impl Fn(&RouteReport) -> bool) -> String {
    let mut table = Table::new(layout, ["", "NODE", "PREFIX", "NEXT HOP", "FROM", "KERNEL", "REASON"]);
    let mut left_out = String::new();
    for Report { node, report, .. } in list {
        for route in report.routes.iter().filter(|r| wanted(r)) {
            table.row([
                if route.best { ">" } else { "" }.to_owned(),
                node.clone(),
                route.prefix.clone(),
                or_dash(route.next_hop.as_ref()),
                route.neighbor.clone().unwrap_or_else(|| "own".into()),
                super::yes_no(route.installed).to_owned(),
                route.reason.clone(),
            ]);
        }
        if report.truncated {
            let text =
                format!("{node}: its report has only some routes; on the node: `routelet show routes`");
            left_out += &layout.mark(&text);
        }
    }
    table.to_string() + &left_out
}

/// The number of routes that match `wanted`.
pub fn count_routes(list: &[Report], wanted: impl Fn(&RouteReport) -> bool) -> usize {
    list.iter().flat_map(|r| &r.report.routes).filter(|r| wanted(r)).count()
}

pub fn nodes_json(list: &[Report]) -> String {
    pretty(&list.iter().map(NodeRow::from).collect::<Vec<_>>())
}

pub fn sessions_json(list: &[Report], down: bool) -> String {
    let of = |r: &Report| {
        let wanted = r.report.sessions.iter().filter(|s| !down || is_down(s));
        wanted.map(|s| SessionRow::new(&r.node, s)).collect::<Vec<_>>()
    };
    pretty(&list.iter().flat_map(of).collect::<Vec<_>>())
}

pub fn problems_json(list: &[Report]) -> String {
    let rows = list.iter().flat_map(|r| r.report.problems.iter().map(|p| ProblemRow::new(&r.node, p)));
    pretty(&rows.collect::<Vec<_>>())
}

pub fn routes_json(list: &[Report], wanted: impl Fn(&RouteReport) -> bool) -> String {
    let of = |r: &Report| {
        let wanted = r.report.routes.iter().filter(|route| wanted(route));
        wanted.map(|route| RouteRow::new(&r.node, route)).collect::<Vec<_>>()
    };
    pretty(&list.iter().flat_map(of).collect::<Vec<_>>())
}

fn cannot_be_read(why: &str) -> String {
    format!("its BGPNodeStatus cannot be read: {why}; use the plugin of the version that runs on the node")
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::k8s::crd::NodeReport;

    fn list() -> Vec<Report> {
        let session = |address: &str, state: &str, error: Option<&str>| SessionReport {
            address: address.into(),
            remote_as: Some(64512),
            state: state.into(),
            accepted: 12,
            advertised: 1,
            last_error: error.map(str::to_owned),
            description: Some("leaf in rack 7".into()),
            ..SessionReport::default()
        };
        let route = |prefix: &str, neighbor: Option<&str>| RouteReport {
            prefix: prefix.into(),
            neighbor: neighbor.map(str::to_owned),
            next_hop: neighbor.map(str::to_owned),
            best: true,
            installed: neighbor.is_some(),
            reason: "only path".into(),
        };
        let one = NodeReport {
            asn: Some(64512),
            router_id: Some("10.0.0.1".into()),
            sessions_up: 1,
            sessions_configured: 3,
            prefixes: 2,
            sessions: vec![
                session(
                    "2001:db8:1:2:3:4:5:6",
                    "active",
                    Some(
                        "connection refused: nothing listens on port 179 there; start the neighbor's BGP daemon",
                    ),
                ),
                session("10.0.0.2", "established", Some("hold timer expired")),
            ],
            routes: vec![route("10.244.1.0/24", None), route("10.244.2.0/24", Some("10.0.0.2"))],
            own: Vec::new(),
            truncated: true,
            problems: vec![
                "NeighborDown: neighbor 2001:db8:1:2:3:4:5:6 has been down for 5 minutes; start it".into(),
            ],
        };
        let node = |node: &str, report, unreadable: Option<&str>| Report {
            node: node.into(),
            report,
            unreadable: unreadable.map(str::to_owned),
        };
        vec![
            node("worker-with-a-rather-long-name.rack-7.example.com", one, None),
            node("n2", NodeReport::default(), Some("invalid type")),
        ]
    }

    #[test]
    fn every_screen_has_80_columns_and_names_the_node() {
        let all = |_: &RouteReport| true;
        let layout = Layout::default();
        let list = list();
        let screens = [
            nodes(&list, layout),
            sessions(&list, layout, false),
            problems(&list, layout),
            routes(&list, layout, all),
        ];
        for screen in &screens {
            let widest = screen.lines().map(super::super::layout::width).max();
            assert!(widest <= Some(80), "{widest:?}:\n{screen}");
            assert!(screen.contains("worker-with-a-rather-long-name.rack-7.example.com"), "{screen}");
        }
        // Where lines end depends on the width.
        let joined = |screen: &str| screen.split_whitespace().collect::<Vec<_>>().join(" ");
        let [nodes, sessions, problems, routes] = screens.map(|screen| joined(&screen));
        assert!(nodes.contains("1/3") && nodes.contains("cannot be read: invalid type"), "{nodes}");
        assert!(sessions.contains("! connection refused") && !sessions.contains("hold timer"), "{sessions}");
        assert!(sessions.contains("not in its report: 1"), "{sessions}");
        let down = joined(&super::sessions(&list, layout, true));
        assert!(!down.contains("10.0.0.2") && down.contains("not in its report: 1"), "{down}");
        assert!(problems.contains("! NeighborDown: ") && problems.contains("n2"), "{problems}");
        assert!(routes.contains("10.244.2.0/24") && routes.contains("its report has only some"), "{routes}");
        assert_eq!(super::problems(&[], layout), "no problems on 0 nodes\n");
    }

    #[test]
    fn the_json_has_a_row_for_each_with_its_node() {
        let list = list();
        let rows = |text: String| serde_json::from_str::<Vec<Value>>(&text).unwrap();
        let sessions = rows(sessions_json(&list, false));
        assert_eq!((sessions.len(), &sessions[1]["state"]), (2, &json!("established")));
        let problems = rows(problems_json(&list));
        assert_eq!(problems[0]["reason"], "NeighborDown");
        let own = rows(routes_json(&list, |r| r.neighbor.is_none()));
        assert_eq!((own.len(), &own[0]["prefix"]), (1, &json!("10.244.1.0/24")));
        assert_eq!(rows(nodes_json(&list))[1]["unreadable"], "invalid type");
        assert_eq!(count_routes(&list, |_| true), 2);
    }
}
