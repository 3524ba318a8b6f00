//! The alerts of the chart fire, or do not, on the series of `alerts.yaml`: each by tests of its own,
//! which Prometheus's `promtool` runs. That a daemon serves what they query is for
//! `tests/daemon/monitoring.rs`.

use std::process::Command;

use serde_json::Value;

use crate::{kit, read, root};

const RULES: &str = "deploy/helm/routelet/files/rules.yaml";
const TESTS: &str = "tests/deploy/alerts.yaml";

#[test]
fn each_alert_fires_when_it_must_and_not_before() {
    for arguments in [["check", "rules", RULES], ["test", "rules", TESTS]] {
        let done = Command::new(kit::tool("promtool")).args(arguments).current_dir(root()).output().unwrap();
        let output = [done.stdout, done.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned());
        assert!(done.status.success(), "promtool {arguments:?}:\n{}", output.concat());
    }
}

#[test]
fn each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let [rules, tests]: [Value; 2] = [RULES, TESTS]
        .map(|path| serde_saphyr::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}")));
    let alerts = rules["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap());
    let names: Vec<_> = alerts.map(|alert| alert["alert"].as_str().unwrap()).collect();
    assert!(names.len() >= 18, "{names:?}");
    for name in names {
        let test = tests["tests"].as_array().unwrap().iter().find(|test| test["name"] == name);
        let test = test.unwrap_or_else(|| panic!("{TESTS} has no test of {name}"));
        let checks = test["alert_rule_test"].as_array().unwrap();
        assert!(checks.iter().all(|check| check["alertname"] == name), "{name}: it tests another alert");
        for (expected, fires) in [("an alert", true), ("none", false)] {
            let found = checks.iter().any(|c| c["exp_alerts"].as_array().unwrap().is_empty() != fires);
            assert!(found, "{name}: no time with {expected}");
        }
    }
}
