//! What an earlier version left: its state folder (`former_state`), its kernel routes, and a client
//! of it that calls. `scripts/upgrade` runs the binary of an earlier version itself.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use crate::{
    common::{Process, daemons::Routelet, net::Net, speaker::Speaker, wait_for},
    kernel::{CONFIG, HOST, SWITCH, host_and_switch, learn, net24, ours},
};

/// Puts the files of the earlier version into the state folder. `BOOT` in them stands for this boot
/// of the machine.
fn leave_state(routelet: &Routelet) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let (from, to) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/former_state"), routelet.dir.join("state"));
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap().replace("BOOT", boot.trim());
        fs::write(to.join(entry.file_name()), text).unwrap();
    }
}

#[test]
fn state_and_routes_of_an_earlier_version_are_taken_over_and_no_route_is_missing_meanwhile() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    // The first id of protocol 179, and a place that a configuration had before that.
    host.ip("nexthop add id 3003121665 via 10.1.1.1 dev eth0 proto 179");
    host.ip("route add 10.60.1.0/24 nhid 3003121665 proto 179 metric 179");
    host.ip("route add unreachable 10.50.0.0/24 proto 179 metric 4294967295");
    for n in [2, 3] {
        host.ip(&format!("route add 10.60.{n}.0/24 via 10.1.1.1 proto 178 metric 200"));
    }
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    leave_state(&routelet);
    let log = routelet.dir.join("monitor");
    let mut monitor = Process::start(host.command("ip").args(["-4", "monitor", "route"]), &log);
    routelet.restart();
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    learn(&mut speaker, &[net24(1), net24(2)]);
    wait_for("the routes of the earlier version are replaced or removed", 30.0, || {
        for prefix in ["10.60.1.0/24", "10.60.2.0/24", "10.50.0.0/24"] {
            assert!(!host.ip(&format!("route show {prefix}")).is_empty(), "{prefix} is missing");
        }
        (host.ip("route show proto 178").is_empty() && ours(&host).contains("10.60.2.0/24")).then_some(())
    });
    monitor.kill();
    let seen = fs::read_to_string(&log).unwrap();
    for prefix in ["Deleted 10.60.1.0/24", "Deleted unreachable 10.50.0.0/24"] {
        assert!(!seen.contains(prefix), "{seen}");
    }
    assert_eq!(routelet.json(&["show", "summary"])["router_id"], "10.9.9.9", "the saved router ID");
}

#[test]
fn a_client_of_an_earlier_version_is_refused_with_the_remedy() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switch(&mut net);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    for (request, reason) in [
        (r#"{"version":2,"query":"summary"}"#, "this command version 2"),
        (r#"{"version":2,"query":{"drain":{"now":true}}}"#, "this command version 2"),
        (r#"{"version":3,"query":"no-such-query"}"#, "does not know this request"),
    ] {
        let mut stream = UnixStream::connect(routelet.socket()).unwrap();
        writeln!(stream, "{request}").unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert!(line.contains("refused") && line.contains(reason), "{request}: {line}");
        assert!(line.contains("use the same routelet for both"), "{request}: {line}");
    }
    assert!(!routelet.cli(&["show", "summary"]).contains("drain"), "nothing was carried out");
}
