//! What an operator types and sees: abbreviated commands, names of neighbors, one prefix in full,
//! filters, forms of output, events over a restart.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
};

use serde_json::Value;

use crate::common::{daemons::Routelet, net::Net, wait_for};

const LEAF: &str = "[bgp]\nas = 10000\nrouter-id = \"10.1.1.1\"\n[fib]\ninstall = false\n\
     [[bgp.neighbor]]\naddress = \"10.1.1.2\"\nremote-as = 1000\nexport = [\"mark\"]\n\
     [advertise]\nnetworks = [\"10.60.1.0/24\", \"10.60.2.0/24\", \"0.0.0.0/0\"]\n\
     [[policy.mark]]\nprefixes = [\"10.60.1.0/24\"]\n\
     add-communities = [\"65001:7\", \"large:64496:1:2\"]\naction = \"accept\"\n";

const HOST: &str = "[bgp]\nas = 1000\nrouter-id = \"10.1.1.2\"\n\
     [[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\ndescription = \"leaf 1, rack A\"\nexport = [\"own\"]\n\
     [[bgp.neighbor]]\naddress = \"10.1.1.9\"\nremote-as = 10009\ndescription = \"leaf 2, rack A\"\n\
     [advertise]\nnetworks = [\"10.50.1.0/24\", \"10.50.2.0/24\"]\n\
     [[policy.own]]\nprefixes = [\"10.50.2.0/24\"]\naction = \"reject\"\n";

/// Leaf 10.1.1.1 and host 10.1.1.2 with a session.
fn stage(net: &mut Net) -> (Routelet, Routelet) {
    let (leaf, host) = (net.ns("leaf"), net.ns("host"));
    net.link((&leaf, "eth0"), (&host, "eth0"));
    leaf.ip("addr add 10.1.1.1/24 dev eth0");
    host.ip("addr add 10.1.1.2/24 dev eth0");
    let leaf = Routelet::start(net, &leaf, LEAF, &[]);
    let routelet = Routelet::start(net, &host, HOST, &[]);
    routelet.wait_established("10.1.1.1");
    wait_for("routes are in the kernel", 10.0, || {
        (host.ip("route show proto 179").matches("10.60.").count() == 2).then_some(())
    });
    (leaf, routelet)
}

/// The prefixes of the first column, or of a paragraph's first line.
fn prefixes(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|r| r["prefix"].as_str().unwrap()).collect()
}

#[test]
fn an_operator_finds_routes_and_neighbors_with_few_words() {
    let mut net = Net::new();
    let (_leaf, routelet) = stage(&mut net);
    let screens: &[&[&str]] = &[
        &["show", "summary"],
        &["sh", "nei"],
        &["show", "neighbors", "leaf 1"],
        &["show", "routes"],
        &["show", "routes", "10.60.1.0/24"],
        &["show", "fib"],
        &["show", "host"],
        &["show", "events"],
    ];
    for screen in screens {
        let text = routelet.cli(screen);
        let wide: Vec<_> = text.lines().filter(|l| l.chars().count() > 80).collect();
        assert!(wide.is_empty() && !text.is_empty(), "{screen:?}: {wide:?}\n{text}");
        println!("$ routelet {}\n{text}", screen.join(" "));
    }
    let one = routelet.cli(&["show", "neighbors", "leaf 1"]);
    assert_eq!(one.lines().next(), Some("neighbor                    10.1.1.1"), "{one}");
    let (status, error) = routelet.try_cli(&["show", "neighbor", "leaf"]).unwrap_err();
    assert!(status == 1 && error.contains("10.1.1.1 (leaf 1, rack A), 10.1.1.9 (leaf 2, rack A)"), "{error}");
    let (status, error) = routelet.try_cli(&["sh", "n"]).unwrap_err();
    assert!(status == 2 && error.contains("neighbor, neighbors, node"), "{error}");
    routelet.cli(&["neighbor", "disable", "all"]);
    wait_for("all are disabled", 5.0, || {
        let all = routelet.json(&["show", "neighbors"]);
        all.as_array()?.iter().all(|n| n["state"] == "disabled").then_some(())
    });
    routelet.cli(&["neighbor", "enable", "all"]);
    routelet.wait_established("10.1.1.1");
    let view = routelet.json(&["show", "neighbor", "leaf 1"]);
    assert_eq!((&view["flaps"], view["closings"].as_array().unwrap().len()), (&1.into(), 1), "{view}");
    assert!(view["closings"][0]["at"].as_str().unwrap().ends_with('Z'), "{view}");
}

#[test]
fn one_prefix_has_every_attribute_and_where_it_goes() {
    let mut net = Net::new();
    let (_leaf, routelet) = stage(&mut net);
    let text = routelet.cli(&["show", "routes", "10.60.1.0/24"]);
    for part in [
        "10.60.1.0/24 from 10.1.1.1: best, in the kernel, for ",
        "communities        65001:7\n",
        "large communities  64496:1:2\n",
        "10.1.1.1 via eth0",
        "10000 (igp)",
        "accepted from 10.1.1.1",
        "advertised to      nobody",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert_eq!(routelet.cli(&["show", "routes", "10.60.1.77"]).lines().next(), text.lines().next());
    let own = routelet.json(&["show", "routes", "10.50.1.0/24"]);
    assert_eq!(own[0]["details"]["advertised_to"], serde_json::json!(["10.1.1.1"]), "{own}");
    let own = routelet.json(&["show", "routes", "10.50.2.0/24"]);
    assert_eq!(own[0]["details"]["advertised_to"], serde_json::json!([]), "rejected on export: {own}");
    let refused = routelet.cli(&["show", "routes", "0.0.0.0/0"]);
    let verdict = refused.lines().any(|l| l.trim_start().starts_with("import") && l.ends_with("refused"));
    assert!(verdict && refused.contains("accept-default"), "{refused}");
    for missing in [&["10.61.0.0/24"][..], &["10.60.1.0/24", "--community", "65001:8"]] {
        let arguments = [&["show", "routes"], missing].concat();
        let (status, error) = routelet.try_cli(&arguments).unwrap_err();
        assert!(status == 1 && error.starts_with("no path to ") && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn filters_select_paths() {
    let mut net = Net::new();
    let (_leaf, routelet) = stage(&mut net);
    let cases: &[(&[&str], &[&str])] = &[
        (&["--refused"], &["0.0.0.0/0"]),
        (&["--community", "65001:7"], &["10.60.1.0/24"]),
        (&["--community", "large:64496:1:2"], &["10.60.1.0/24"]),
        (&["--as-path", "^10000$"], &["0.0.0.0/0", "10.60.1.0/24", "10.60.2.0/24"]),
        (&["--as-path", "_1000_"], &[]),
        (&["--origin-as", "1000"], &["10.50.1.0/24", "10.50.2.0/24"]),
        (&["--origin-as", "10000", "--community", "65001:7"], &["10.60.1.0/24"]),
        (&["--not-advertised", "leaf 1"], &["10.50.2.0/24", "10.60.1.0/24", "10.60.2.0/24"]),
        (&["--advertised", "leaf 1"], &["10.50.1.0/24"]),
        (&["--received", "leaf 1", "--community", "65001:7"], &["10.60.1.0/24"]),
        (&["10.60.0.0/16", "--longer"], &["10.60.1.0/24", "10.60.2.0/24"]),
    ];
    for (filter, expected) in cases {
        let arguments = [&["show", "routes"], *filter].concat();
        assert_eq!(prefixes(&routelet.json(&arguments)), *expected, "{filter:?}");
        let count = routelet.cli(&[&arguments[..], &["--count"]].concat());
        assert_eq!(count, format!("{}\n", expected.len()), "{filter:?}");
    }
    for (wrong, expected, part) in [
        (["--community", "nothing"], 2, "--community: `nothing` is no community"),
        (["--as-path", "("], 2, "--as-path: `(` is no regular expression"),
        (["--not-advertised", "10.9.9.9"], 1, "there is no neighbor 10.9.9.9"),
    ] {
        let (status, error) = routelet.try_cli(&[&["show", "routes"], &wrong[..]].concat()).unwrap_err();
        assert!(status == expected && error.contains(part) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn output_has_the_form_that_was_requested() {
    let mut net = Net::new();
    let (_leaf, routelet) = stage(&mut net);
    let json = routelet.json(&["show", "routes"]);
    let yaml: Value = serde_saphyr::from_str(&routelet.cli(&["show", "routes", "-o", "yaml"])).unwrap();
    assert_eq!(prefixes(&yaml), prefixes(&json));
    let bare = routelet.cli(&["show", "neighbors", "--no-headers", "-o", "wide"]);
    assert!(!bare.contains("NEIGHBOR") && bare.contains("leaf 1, rack A"), "{bare}");
    assert_eq!(routelet.cli(&["show", "neighbors", "--count"]), "2\n");
    let (status, error) = routelet.try_cli(&["show", "config", "--count"]).unwrap_err();
    assert!(status == 2 && error.contains("no rows"), "{error}");

    let mut watch = Command::new(env!("CARGO_BIN_EXE_routelet"))
        .args(["show", "neighbors", "--watch=1", "--socket"])
        .arg(routelet.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let headings = lines.map_while(Result::ok).filter(|l| l.starts_with("NEIGHBOR")).take(2).count();
    assert_eq!(headings, 2, "printed again");
    // The reader is gone: it ends by itself.
    assert!(watch.wait().unwrap().success());
}

#[test]
fn followed_events_go_on_over_a_restart() {
    let mut net = Net::new();
    let (_leaf, mut routelet) = stage(&mut net);
    let mut follow = Command::new(env!("CARGO_BIN_EXE_routelet"))
        .args(["show", "events", "--follow", "--since", "1h", "-o", "json", "--socket"])
        .arg(routelet.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, events) = mpsc::channel();
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut all: Vec<String> = Vec::new();
    let mut established = |times| {
        wait_for("the session is reported", 20.0, || {
            all.extend(events.try_iter());
            let is_it = |l: &&String| l.contains("session established") && l.contains("10.1.1.1");
            (all.iter().filter(is_it).count() == times).then_some(())
        });
    };
    established(1);
    routelet.process.stop();
    routelet.restart();
    established(2);
    follow.kill().unwrap();
    follow.wait().unwrap();
    let mut sorted = all.clone();
    sorted.dedup();
    assert_eq!(sorted.len(), all.len(), "each event once: {all:?}");
    assert_eq!(routelet.cli(&["show", "events", "--since", "2100-01-01T00:00:00Z"]), "");
}
