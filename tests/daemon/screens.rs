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
        &["show", "policy"],
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
fn a_neighbor_has_its_queues_and_limits_and_policies_count_what_they_match() {
    let mut net = Net::new();
    let (leaf, routelet) = stage(&mut net);
    let text = wait_for("End-of-RIB both ways", 10.0, || {
        let text = routelet.cli(&["show", "neighbor", "10.1.1.1"]);
        (text.matches("yes   yes       0").count() >= 1).then_some(text)
    });
    for part in
        ["security", "no TCP MD5, directly connected", "max-prefixes 1000000", "max-prefixes-out 10000"]
    {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    // An evaluation may be repeated.
    assert!(text.contains("own     export     1: "), "{text}");
    let view = routelet.json(&["show", "neighbor", "10.1.1.1"]);
    assert_eq!(view["queues"]["unsent"], 0, "{view}");
    assert!(view["details"]["export"][0]["statements"][0].as_u64() >= Some(1), "{view}");
    assert_eq!(view["state"], "established", "{view}");

    let all = routelet.json(&["show", "policy"]);
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    let one = routelet.json(&["show", "policy", "own"]);
    assert_eq!(one[0]["used_by"], serde_json::json!({"import": [], "export": ["10.1.1.1"]}), "{one}");
    assert_eq!(one[0]["statements"][0]["keys"]["prefixes"], serde_json::json!(["10.50.2.0/24"]), "{one}");
    let otherwise = &one[0]["otherwise"];
    assert!(otherwise["import"] == 0 && otherwise["export"].as_u64() >= Some(1), "{one}");
    let text = leaf.cli(&["show", "policy", "mark"]);
    assert!(text.contains("add-communities = [\"65001:7\", \"large:64496:1:2\"]"), "{text}");
    let (status, error) = routelet.try_cli(&["show", "policy", "nosuch"]).unwrap_err();
    assert!(status == 1 && error.contains("show policy"), "{error}");
    assert_eq!(routelet.cli(&["show", "policy", "--count"]), "1\n");
}

#[test]
fn shells_complete_neighbors_prefixes_and_policies_of_the_daemon() {
    let mut net = Net::new();
    let (_leaf, routelet) = stage(&mut net);
    let line = |text: &str| {
        format!("routelet {}", text.replace('@', &format!("--socket {}", routelet.socket().display())))
    };
    let run = |command: &mut Command| String::from_utf8(command.output().unwrap().stdout).unwrap();
    let values = |text: &str| {
        run(Command::new(env!("CARGO_BIN_EXE_routelet")).args(["completions", "--values", &line(text)]))
    };
    for (text, expected) in [
        ("sh nei @ ", "10.1.1.1\n10.1.1.9\n"),
        ("neighbor reset @ ", "10.1.1.1\n10.1.1.9\nall\n"),
        ("show routes @ --received 10.1.1.9", "10.1.1.9\n"),
        ("show routes @ 10.60.", "10.60.1.0/24\n10.60.2.0/24\n"),
        ("show policy @ ", "own\n"),
        ("show policy @ x", ""),
    ] {
        // A busy machine may need more than the time that a shell waits.
        wait_for(format!("values of {text}"), 10.0, || (values(text) == expected).then_some(()));
    }
    let script = "source <(\"$1\" completions bash); COMP_LINE=\"$2\"; COMP_POINT=${#2}; COMP_WORDS=($1 ${2#routelet }); \
                  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _routelet_live \"$1\" \
                  \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let bash = |word: &str| {
        let arguments =
            ["-c", script, "bash", env!("CARGO_BIN_EXE_routelet"), &line(&format!("show routes @ {word}"))];
        run(Command::new("bash").args(arguments))
    };
    wait_for("bash completes a prefix", 10.0, || (bash("10.60.2") == "10.60.2.0/24\n").then_some(()));
    let options = bash("--lon");
    assert_eq!(options, "--longer\n", "options are those of the command line");
}

#[test]
fn events_of_links_own_routes_and_problems_are_kept_over_a_restart() {
    let mut net = Net::new();
    let (_leaf, mut routelet) = stage(&mut net);
    routelet.ns.ip("link add br7 type bridge");
    routelet.ns.ip("link del br7");
    let has = |routelet: &Routelet, kind: &str, subject: &str, text: &str| {
        let all = routelet.json(&["show", "events"]);
        let is_it = |e: &&Value| {
            e["kind"] == kind
                && e["subject"] == subject
                && e["text"].as_str().is_some_and(|t| t.starts_with(text))
        };
        all.as_array().unwrap().iter().find(is_it).map(|e| e["number"].clone())
    };
    let expected = [
        ("link", "br7", "link removed"),
        ("route", "10.50.1.0/24", "own route originated"),
        ("session", "10.1.1.1", "session established"),
    ];
    let find = |routelet: &Routelet| {
        expected
            .iter()
            .map(|(kind, subject, text)| has(routelet, kind, subject, text))
            .collect::<Option<Vec<_>>>()
    };
    let before = wait_for("events of each kind", 10.0, || find(&routelet));
    routelet.process.stop();
    routelet.restart();
    assert_eq!(find(&routelet), Some(before.clone()), "with their numbers");

    // What was written is torn, and the rest is used.
    routelet.process.stop();
    let file = routelet.dir.join("state/events.jsonl");
    let mut lines = std::fs::read(&file).unwrap();
    lines.truncate(lines.len() - 5);
    std::fs::write(&file, lines).unwrap();
    routelet.restart();
    assert_eq!(find(&routelet), Some(before));
    let damaged = || has(&routelet, "config", "", "event file damaged");
    wait_for("the damage is reported", 5.0, damaged);
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
    let why = serde_json::json!([
        {"neighbor": "10.1.1.1", "reason": "rejected by export policy own, statement 1"},
        {"neighbor": "10.1.1.9", "reason": "no session"}
    ]);
    assert_eq!(own[0]["details"]["not_advertised_to"], why, "{own}");
    let text = routelet.cli(&["show", "routes", "10.50.2.0/24"]);
    assert!(text.contains("to 10.1.1.1: rejected by export policy own, statement 1\n"), "{text}");
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
        (["--community", "nothing"], 2, "--community: `nothing` is not a community"),
        (["--as-path", "("], 2, "--as-path: `(` is not a regular expression"),
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
