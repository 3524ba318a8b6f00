//! The alerts and the dashboard of deploy/ query what a running daemon serves: each name, label and
//! value of a label.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use super::{
    metrics::{OF_CLUSTERS, host, scrape},
    promql,
};
use crate::common::net::Net;

/// Labels that Prometheus adds to each target.
const OF_TARGETS: [&str; 2] = ["instance", "job"];

/// The values of each label of each metric.
type Values = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn values(text: &str) -> Values {
    let mut all = Values::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect(line);
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let metric = all.entry(name.to_owned()).or_default();
        for (label, value) in labels.trim_end_matches("\"}").split("\",").filter_map(|l| l.split_once("=\""))
        {
            metric.entry(label.to_owned()).or_default().insert(value.to_owned());
        }
    }
    all
}

fn chart(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/routelet/files").join(file))
        .unwrap()
}

/// What is wrong with a query; `None` if a daemon serves all that it names.
fn mistake(query: &str, served: &Values) -> Option<String> {
    let read = match promql::read(query) {
        Ok(read) => read,
        Err(error) => return Some(error),
    };
    let mut labels: BTreeSet<&str> = OF_TARGETS.into();
    for selector in &read.selectors {
        let name = &selector.metric;
        if name == "up" || OF_CLUSTERS.contains(&name.as_str()) {
            continue;
        }
        let Some(metric) = served.get(name) else { return Some(format!("no metric {name}")) };
        labels.extend(metric.keys().map(String::as_str));
        for (label, operator, value) in &selector.matchers {
            let is_fixed = !OF_TARGETS.contains(&label.as_str()) && value != ".*";
            let known = metric.get(label);
            let wanted: Vec<_> =
                if operator.ends_with('~') { value.split('|').collect() } else { vec![value] };
            let missing = wanted.into_iter().find(|value| !known.is_some_and(|known| known.contains(*value)));
            if let Some(value) =
                missing.filter(|_| is_fixed || known.is_none() && !OF_TARGETS.contains(&label.as_str()))
            {
                return Some(format!("{name} has no {label}=\"{value}\""));
            }
        }
    }
    let unknown = read.grouped.iter().find(|label| !labels.contains(label.as_str()));
    unknown.map(|label| format!("no metric of it has the label {label}"))
}

#[test]
fn every_alert_queries_what_a_daemon_serves_and_names_a_command() {
    let mut net = Net::new();
    let (host, _routelet) = host(&mut net);
    let served = values(&scrape(&host, ""));
    let rules: Value = serde_saphyr::from_str(&chart("rules.yaml")).unwrap();
    let alerts = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(alerts.len() >= 15);
    let mut names = BTreeSet::new();
    for alert in alerts {
        let (name, query) = (alert["alert"].as_str().unwrap(), alert["expr"].as_str().unwrap());
        assert!(names.insert(name) && name.starts_with("Routelet"), "{name}");
        assert_eq!(mistake(query, &served), None, "{name}: {query}");
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        for text in ["summary", "description"] {
            let text = alert["annotations"][text].as_str().unwrap();
            assert!(text.len() > 10 && !text.contains('\n'), "{name}: {text}");
            // Labels of the annotation are those that the query keeps.
            for label in text.split("{{ $labels.").skip(1).filter_map(|rest| rest.split(' ').next()) {
                let read = promql::read(query).unwrap();
                let has = |s: &promql::Selector| served.get(&s.metric).is_some_and(|m| m.contains_key(label));
                assert!(OF_TARGETS.contains(&label) || read.selectors.iter().any(has), "{name}: {label}");
            }
        }
    }
}

#[test]
fn every_panel_of_the_dashboard_queries_what_a_daemon_serves() {
    let mut net = Net::new();
    let (host, _routelet) = host(&mut net);
    let served = values(&scrape(&host, ""));
    let dashboard: Value = serde_json::from_str(&chart("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|p| p["targets"].as_array().into_iter().flatten());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let queries: Vec<_> = targets
        .filter_map(|t| t["expr"].as_str())
        .chain(variables.filter_map(|v| v["query"]["query"].as_str()))
        .map(|q| q.replace("$instance", ".*").replace("$neighbor", ".*").replace("$__rate_interval", "5m"))
        .collect();
    assert!(queries.len() > 30, "{}", queries.len());
    for query in &queries {
        assert!(!query.contains('$'), "an unknown variable: {query}");
        assert_eq!(mistake(query, &served), None, "{query}");
    }
    let ids: BTreeSet<_> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels.iter().filter(|p| p["type"] != "row") {
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{}", panel["title"]);
    }
}

#[test]
fn a_query_of_what_no_daemon_serves_is_found() {
    let served = values("routelet_x{state=\"up\"} 1\nroutelet_y 2\n");
    for (query, is_good) in [
        ("routelet_x{state=\"up\",instance=~\".*\"} > 0", true),
        ("sum by (instance, state) (routelet_x)", true),
        ("routelet_kubernetes_connected == 0", true),
        ("routelet_z", false),
        ("routelet_x{state=\"down\"}", false),
        ("routelet_x{state=~\"up|down\"}", false),
        ("routelet_y{state=~\".*\"}", false),
        ("sum by (neighbor) (routelet_x)", false),
    ] {
        assert_eq!(mistake(query, &served).is_none(), is_good, "{query}: {:?}", mistake(query, &served));
    }
}
