//! `reload`: the smallest change, its list beforehand, and the way back.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{
    Process,
    daemons::Routelet,
    guard,
    net::{Net, Ns},
    speaker::{Speaker, attributes, end_of_rib, update},
    wait_for,
};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 2));
const ONE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 3);

const CONFIG: &str = "[bgp]\nas = 1000\nrouter-id = \"10.1.1.2\"\n\
     [[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\npassive = true\n\
     [[bgp.neighbor]]\naddress = \"10.1.1.3\"\nremote-as = 10001\npassive = true\n\
     [advertise]\nnetworks = [\"10.50.0.0/24\"]\n";

/// A host below two switches that are played by the test.
fn host_and_switches(net: &mut Net) -> (Ns, Ns) {
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    switch.ip("addr add 10.1.1.1/24 dev eth0");
    switch.ip("addr add 10.1.1.3/24 dev eth0");
    host.ip("addr add 10.1.1.2/24 dev eth0");
    (switch, host)
}

fn dial(switch: &Ns, from: Ipv4Addr, asn: u32) -> Speaker {
    let mut speaker = Speaker::dial_from(switch, from.into(), HOST).unwrap();
    speaker.establish(asn, 90, from);
    speaker
}

/// Exit status, standard output and standard error.
fn reload(routelet: &Routelet, args: &[&str]) -> (i32, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_routelet"))
        .arg("reload")
        .args(args)
        .arg("--socket")
        .arg(routelet.socket())
        .output()
        .unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

fn originates(routelet: &Routelet, prefix: &str) -> bool {
    routelet.json(&["show", "routes", prefix]).as_array().is_some_and(|all| !all.is_empty())
}

fn problems(routelet: &Routelet) -> String {
    routelet.json(&["show", "summary"])["problems"].to_string()
}

fn has_problem(routelet: &Routelet, part: &str) {
    wait_for(format!("a problem with `{part}`"), 5.0, || problems(routelet).contains(part).then_some(()));
}

fn since(routelet: &Routelet, neighbor: Ipv4Addr) -> (Value, Value) {
    let view = routelet.json(&["show", "neighbor", &neighbor.to_string()]);
    (view["state"].clone(), view["since"].clone())
}

#[test]
fn ten_kinds_of_change_with_1000_routes_reset_no_session_without_need() {
    let mut net = Net::new();
    let (switch, host) = host_and_switches(&mut net);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut one = dial(&switch, ONE, 10000);
    let _two = dial(&switch, TWO, 10001);
    let prefixes: Vec<_> =
        (0..1000u16).map(|n| (Ipv4Addr::new(10, 60 + (n >> 8) as u8, n as u8, 0), 24)).collect();
    for some in prefixes.chunks(500) {
        one.send(&update(&[], &attributes(&[10000], ONE, 0), some));
    }
    one.send(&end_of_rib());
    let installed =
        || host.ip("-4 route show proto 179").lines().filter(|l| !l.starts_with("unreachable")).count();
    wait_for("1000 routes", 30.0, || (installed() == 1000).then_some(()));
    for address in ["10.1.1.1", "10.1.1.3"] {
        routelet.wait_established(address);
    }
    let monitor = Process::start(host.command("ip").args(["monitor", "route"]), &net.dir().join("monitor"));
    let before = since(&routelet, ONE);
    let second = since(&routelet, TWO);

    let neighbor = "address = \"10.1.1.1\"";
    #[rustfmt::skip]
    let kinds: [(&str, &str, &str); 14] = [
        ("a description",        neighbor,      "address = \"10.1.1.1\"\ndescription = \"first\""),
        ("a limit",              neighbor,      "address = \"10.1.1.1\"\nmax-prefixes = 5000"),
        ("a policy",             neighbor,      "address = \"10.1.1.1\"\nimport = [\"in\"]"),
        ("a network more",       "\"10.50.0.0/24\"", "\"10.50.0.0/24\", \"10.51.0.0/24\""),
        ("a MED",                "[advertise]", "[advertise]\nmed = 7"),
        ("a community",          "[advertise]", "[advertise]\ncommunities = [\"65000:1\"]"),
        ("a neighbor more",      "[advertise]", "[[bgp.neighbor]]\naddress = \"10.1.1.9\"\nremote-as = 9\n[advertise]"),
        ("a range",              "[advertise]", "[[bgp.listen-range]]\nprefix = \"10.3.0.0/16\"\nremote-as = 9\n[advertise]"),
        ("equal-cost next hops", "as = 1000",   "as = 1000\nmax-paths = 2"),
        ("listen addresses",     "as = 1000",   "as = 1000\nlisten = [\"0.0.0.0:179\"]"),
        ("the guard",            "[advertise]", "[guard]\nconnected = \"inside\"\n[advertise]"),
        ("the source address",   "[advertise]", "[fib]\nprefer-source = \"router-id\"\n[advertise]"),
        ("the log",              "[advertise]", "[log]\nlevel = \"debug\"\n[advertise]"),
        ("another neighbor's hold time", "remote-as = 10001", "remote-as = 10001\nhold-time = 30"),
    ];
    let policy = "[[policy.in]]\nset-local-pref = 120\n";
    for (name, from, to) in kinds {
        assert!(CONFIG.contains(from));
        routelet.configure(&(CONFIG.replacen(from, to, 1) + policy));
        let (status, listed, error) = reload(&routelet, &[]);
        assert_eq!((status, &*error), (0, ""), "{name}");
        let resets = name.contains("hold time");
        assert_eq!(listed.contains("sessions reset"), resets, "{name}: {listed}");
        assert!(!listed.contains("reset    10.1.1.1"), "{name}: {listed}");
        assert!(listed.contains("keys changed"), "{name}: {listed}");
        let effective = routelet.json(&["show", "config"]).to_string();
        assert!(effective.contains("10.50.0.0/24"), "{name}");
        assert_eq!(since(&routelet, ONE), before, "{name}");
        if !resets {
            assert_eq!(since(&routelet, TWO), second, "{name}");
        }
    }
    wait_for("the second session ends", 10.0, || (since(&routelet, TWO) != second).then_some(()));
    sleep(Duration::from_millis(500));
    assert_eq!((since(&routelet, ONE), installed()), (before, 1000));
    let gone = monitor.printed().lines().filter(|l| l.starts_with("Deleted 10.6")).count();
    assert_eq!(gone, 0, "{}", monitor.printed());
}

#[test]
fn a_dry_run_lists_what_would_change_and_touches_nothing() {
    let mut net = Net::new();
    let (switch, host) = host_and_switches(&mut net);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let _one = dial(&switch, ONE, 10000);
    routelet.wait_established("10.1.1.1");
    let before = (since(&routelet, ONE), routelet.json(&["show", "config"]));
    assert!(reload(&routelet, &["--dry-run"]).1.contains("that of the file"));

    let networks: Vec<_> = (0..12).map(|n| format!("\"10.70.{n}.0/24\"")).collect();
    let config = CONFIG
        .replace("\"10.50.0.0/24\"", &networks.join(", "))
        .replace("remote-as = 10000", "remote-as = 10000\nhold-time = 30");
    routelet.configure(&config);
    let (status, text, error) = reload(&routelet, &["--dry-run"]);
    assert_eq!((status, &*error), (0, ""));
    for line in [
        "sessions reset    10.1.1.1 (hold-time)",
        "routes added      12: 10.70.0.0/24,",
        "and 2 more",
        "routes withdrawn  1: 10.50.0.0/24",
        "! needs --force: the only established session would end, and the only own route",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.lines().filter(|l| !l.starts_with('!')).all(|l| l.len() <= 80), "{text}");
    let (_, json, _) = reload(&routelet, &["--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["applied"], false);
    assert_eq!(json["sessions"]["reset"][0]["neighbor"], "10.1.1.1");
    assert_eq!(json["routes"]["added"]["count"], 12);
    assert_eq!(json["routes"]["added"]["first"].as_array().unwrap().len(), 10);
    assert_eq!(before, (since(&routelet, ONE), routelet.json(&["show", "config"])));

    fs::write(routelet.dir.join("routelet.toml"), "[bgp]\nas = 0\n").unwrap();
    let (status, text, error) = reload(&routelet, &["--dry-run"]);
    assert!(status == 2 && text.is_empty() && error.contains("bgp.as"), "{error}");
}

#[test]
fn what_would_take_every_session_or_own_route_away_needs_force() {
    let mut net = Net::new();
    let (switch, host) = host_and_switches(&mut net);
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let (_one, _two) = (dial(&switch, ONE, 10000), dial(&switch, TWO, 10001));
    routelet.wait_established("10.1.1.1");
    routelet.wait_established("10.1.1.3");
    let before = (since(&routelet, ONE), since(&routelet, TWO));
    let other_as = CONFIG.replace("as = 1000\n", "as = 1001\n");
    let no_network = CONFIG.replace("networks = [\"10.50.0.0/24\"]", "");
    for (config, why) in [(&other_as, "all 2 established sessions"), (&no_network, "the only own route")] {
        routelet.configure(config);
        let (status, text, error) = reload(&routelet, &[]);
        assert_eq!((status, &*text, error.lines().count()), (1, "", 1), "{error}");
        assert!(error.contains(why) && error.contains("--force"), "{error}");
        assert_eq!(before, (since(&routelet, ONE), since(&routelet, TWO)));
        assert!(originates(&routelet, "10.50.0.0/24"));
        has_problem(&routelet, "differs from what is in force");
    }
    assert_eq!(reload(&routelet, &["--force"]).0, 0);
    wait_for("the withdrawal", 5.0, || (!originates(&routelet, "10.50.0.0/24")).then_some(()));
    assert_eq!(before, (since(&routelet, ONE), since(&routelet, TWO)), "no session is reset for it");
    // A signal needs no confirmation.
    routelet.configure(&other_as);
    routelet.process.signal("HUP");
    wait_for("the AS number", 5.0, || (routelet.json(&["show", "summary"])["asn"] == 1001).then_some(()));
    assert!(routelet.process.alive());
}

const SECOND: &str = "10.51.0.0/24";

fn with_second() -> String {
    CONFIG.replace("\"10.50.0.0/24\"", "\"10.50.0.0/24\", \"10.51.0.0/24\"")
}

#[test]
fn a_configuration_that_is_not_confirmed_goes_and_one_that_is_stays() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switches(&mut net);
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let (status, _, error) = reload(&routelet, &["confirm"]);
    assert!(status == 1 && error.contains("no reload waits"), "{error}");

    routelet.configure(&with_second());
    let begun = Instant::now();
    let (status, text, error) = reload(&routelet, &["--confirm", "3"]);
    assert!(status == 0 && text.contains("unless `routelet reload confirm` is run"), "{text}{error}");
    wait_for("the second network", 2.0, || originates(&routelet, SECOND).then_some(()));
    has_problem(&routelet, "on trial");
    wait_for("the former configuration", 6.0, || (!originates(&routelet, SECOND)).then_some(()));
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
    has_problem(&routelet, "not confirmed within 3 s");
    let (status, _, error) = reload(&routelet, &["confirm"]);
    assert!(status == 1 && error.contains("the time is over"), "{error}");
    // It stays away over a restart.
    assert!(routelet.process.stop().success());
    routelet.restart();
    wait_for("the first network", 5.0, || originates(&routelet, "10.50.0.0/24").then_some(()));
    assert!(!originates(&routelet, SECOND));
    has_problem(&routelet, "not confirmed within 3 s");

    assert_eq!(reload(&routelet, &["--confirm", "2"]).0, 0);
    assert_eq!(reload(&routelet, &["confirm"]).0, 0);
    assert!(!routelet.dir.join("state/reload.json").exists());
    sleep(Duration::from_secs(4));
    assert!(originates(&routelet, SECOND) && !problems(&routelet).contains("configuration"));
    routelet.process.kill();
    routelet.restart();
    wait_for("the second network", 5.0, || originates(&routelet, SECOND).then_some(()));
}

#[test]
fn a_daemon_that_is_killed_returns_to_the_former_configuration_in_time() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switches(&mut net);
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    routelet.configure(&with_second());
    let begun = Instant::now();
    assert_eq!(reload(&routelet, &["--confirm", "6"]).0, 0);
    // A further reload neither confirms it nor extends the time.
    sleep(Duration::from_secs(1));
    assert_eq!(reload(&routelet, &[]).0, 0);
    routelet.process.kill();
    routelet.restart();
    wait_for("the rest of the time", 3.0, || originates(&routelet, SECOND).then_some(()));
    has_problem(&routelet, "on trial");
    wait_for("the former configuration", 8.0, || (!originates(&routelet, SECOND)).then_some(()));
    assert!((6.0..9.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());

    // Killed, and started when the time is over.
    assert_eq!(reload(&routelet, &["--confirm", "1"]).0, 0);
    routelet.process.kill();
    sleep(Duration::from_secs(2));
    routelet.restart();
    wait_for("the first network", 5.0, || originates(&routelet, "10.50.0.0/24").then_some(()));
    assert!(!originates(&routelet, SECOND));
    has_problem(&routelet, "is not in force: it was not confirmed within 1 s");
    let state = fs::metadata(routelet.dir.join("state/reload.json")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&state) & 0o777, 0o600, "it may hold passwords");
    // The operator mends it.
    assert_eq!(reload(&routelet, &[]).0, 0);
    wait_for("the second network", 5.0, || originates(&routelet, SECOND).then_some(()));
    wait_for("no problem", 5.0, || (!problems(&routelet).contains("configuration")).then_some(()));
    assert!(!routelet.dir.join("state/reload.json").exists());
}

#[test]
fn a_file_that_differs_from_what_is_in_force_is_shown() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switches(&mut net);
    let metrics = "[metrics]\nlisten = \"127.0.0.1:9179\"\n";
    let config = |text: &str| format!("{text}{metrics}");
    let routelet = Routelet::start(&net, &host, &config(CONFIG), &[]);
    host.ip("link set lo up");
    let metric = |name: &str| {
        let text =
            host.sh("curl -s http://127.0.0.1:9179/metrics || wget -qO- http://127.0.0.1:9179/metrics");
        let line = text.lines().find(|l| l.starts_with(&format!("routelet_{name} "))).map(str::to_owned);
        line.and_then(|l| l.split(' ').next_back()?.parse::<f64>().ok())
    };
    let (successful, at) = ("config_last_reload_successful", "config_last_reload_success_timestamp_seconds");
    wait_for("metrics", 10.0, || (metric(successful) == Some(1.0)).then_some(()));
    let first = metric(at).unwrap();

    // A comment is no difference.
    routelet.configure(&config(&format!("# a comment\n{CONFIG}")));
    sleep(Duration::from_millis(2500));
    assert!(!problems(&routelet).contains("configuration"), "{}", problems(&routelet));
    routelet.configure(&config(&with_second()));
    has_problem(&routelet, "differs from what is in force");
    let path = routelet.dir.join("routelet.toml");
    fs::write(&path, "[bgp]\nas = 0\n").unwrap();
    has_problem(&routelet, "has mistakes");
    assert_eq!(reload(&routelet, &[]).0, 2);
    assert_eq!(metric(successful), Some(0.0));
    fs::remove_file(&path).unwrap();
    has_problem(&routelet, "has mistakes");
    routelet.configure(&config(&with_second()));
    has_problem(&routelet, "differs from what is in force");
    assert_eq!(reload(&routelet, &[]).0, 0);
    assert!(!problems(&routelet).contains("configuration"), "{}", problems(&routelet));
    assert!(metric(successful) == Some(1.0) && metric(at).unwrap() > first);
}

#[test]
fn a_reload_in_part_ends_with_status_4_and_names_what_needs_a_restart() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switches(&mut net);
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    routelet.configure(&format!("{}[log]\nformat = \"json\"\n", with_second()));
    let (status, text, error) = reload(&routelet, &[]);
    assert_eq!((status, &*error), (4, ""), "{text}");
    assert!(text.contains("needs a restart   log.format"), "{text}");
    wait_for("the rest is in force", 5.0, || originates(&routelet, SECOND).then_some(()));
    has_problem(&routelet, "new values of log.format take effect at the next start");
    assert_eq!(reload(&routelet, &[]).0, 4, "as long as it is not");
    routelet.process.stop();
    routelet.restart();
    assert_eq!(reload(&routelet, &[]).0, 0);
    assert!(!problems(&routelet).contains("next start"));
}

#[test]
fn control_socket_and_metrics_move_by_a_reload_where_the_sandbox_permits_it() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switches(&mut net);
    host.ip("link set lo up");
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let file = routelet.dir.join("routelet.toml");
    let text = fs::read_to_string(&file).unwrap();
    let other = routelet.dir.join("other.sock");
    let moved = text
        .replace("routelet.sock", "other.sock")
        .replace("[metrics]\nlisten = \"\"", "[metrics]\nlisten = \"127.0.0.1:9180\"");
    assert!(moved.contains("9180") && moved.contains("other.sock"), "{moved}");
    fs::write(&file, &moved).unwrap();
    let (status, listed, error) = reload(&routelet, &[]);
    assert_eq!((status, &*error), (0, ""), "{listed}");
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
        let out = command.args(args).arg("--socket").arg(&other).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
    };
    assert_eq!(run(&["show", "config"]).0, 0);
    assert!(
        host.sh("curl -s http://127.0.0.1:9180/livez || wget -qO- http://127.0.0.1:9180/livez")
            .contains("alive")
    );
    wait_for("the former socket goes", 20.0, || (!routelet.socket().exists()).then_some(()));
    assert!(other.exists());

    let elsewhere = guard::folder("elsewhere");
    let path = elsewhere.path().join("routelet.sock").display().to_string();
    fs::write(&file, moved.replace(&other.display().to_string(), &path)).unwrap();
    let (status, listed) = run(&["reload"]);
    assert!(status == 4 && listed.contains("needs a restart   control"), "{listed}");
    let (_, summary) = run(&["show", "summary"]);
    assert!(summary.contains("new values of control take effect at the next start"), "{summary}");
    fs::write(&file, &moved).unwrap();
    let (status, listed) = run(&["reload"]);
    assert_eq!(status, 0, "{listed}");
}

/// Within the time for which the former socket is served, too.
#[test]
fn a_control_socket_that_is_not_confirmed_goes_back() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switches(&mut net);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let (file, other) = (routelet.dir.join("routelet.toml"), routelet.dir.join("other.sock"));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("routelet.sock", "other.sock")).unwrap();
    assert_eq!(reload(&routelet, &["--confirm", "1"]).0, 0);
    assert!(other.exists());
    has_problem(&routelet, "not confirmed within 1 s");
    assert!(!problems(&routelet).contains("next start"), "{}", problems(&routelet));
    wait_for("the other socket goes", 20.0, || (!other.exists()).then_some(()));
    sleep(Duration::from_secs(1));
    has_problem(&routelet, "not confirmed within 1 s");
    fs::write(&file, text).unwrap();
    assert_eq!(reload(&routelet, &[]).0, 0);
}
