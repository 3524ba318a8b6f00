//! What a running daemon may do, and that all it has to do works with so little.

use std::{collections::BTreeMap, fs, process::Command};

use crate::common::{
    Process,
    daemons::Routelet,
    guard,
    net::{Net, Ns},
    run, wait_for,
};

const CONFIG: &str = "[bgp]\nas = 1000\n[advertise]\nnetworks = [\"10.20.0.0/24\"]\n";
/// `CAP_NET_BIND_SERVICE` is bit 10, `CAP_NET_ADMIN` bit 12.
const KEPT: &str = "0000000000001400";
const NONE: &str = "0000000000000000";

/// `/proc/PID/task/*/status` of the daemon, by thread.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let fields = |text: String| {
        let line = |l: &str| l.split_once(":\t").map(|(k, v)| (k.to_owned(), v.trim().to_owned()));
        text.lines().filter_map(line).collect()
    };
    status.map(fields).collect()
}

fn uplink(net: &mut Net, host: &Ns) -> Ns {
    let leaf = net.ns("leaf");
    net.link((&leaf, "eth0"), (host, "eth0"));
    host.ip("addr add 10.1.1.2/24 dev eth0");
    leaf
}

#[test]
fn each_thread_has_two_capabilities_a_filter_and_no_way_to_more() {
    let mut net = Net::new();
    let host = net.ns("host");
    let _leaf = uplink(&mut net, &host);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    // Threads for files and long responses are there, too.
    routelet.cli(&["show", "routes"]);
    routelet.cli(&["reload"]);
    let all = threads(routelet.process.pid());
    assert!(!all.is_empty());
    for thread in all {
        let field = |name: &str| thread[name].as_str();
        for (set, expected) in
            [("CapEff", KEPT), ("CapPrm", KEPT), ("CapBnd", KEPT), ("CapInh", NONE), ("CapAmb", NONE)]
        {
            assert_eq!(field(set), expected, "{set} of {}", field("Name"));
        }
        assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1", "2"), "{}", field("Name"));
    }
    let view = routelet.json(&["show", "summary"])["sandbox"].clone();
    assert_eq!(view["capabilities"], serde_json::json!(["CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"]));
    let layers = ["enabled", "no_new_privileges", "seccomp", "landlock"];
    assert!(
        layers.iter().all(|layer| view[layer] == true) && view["missing"] == serde_json::json!([]),
        "{view}"
    );
    // A core dump would hold passwords.
    let environment = format!("/proc/{}/environ", routelet.process.pid());
    let owner = run(Command::new("stat").args(["-c", "%u", &environment]));
    assert_eq!(owner.trim(), "0");
    let shown = routelet.cli(&["show", "summary", "-o", "wide"]);
    assert!(
        shown.contains("CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, no_new_privs, seccomp, landlock"),
        "{shown}"
    );
}

#[test]
fn reload_state_sysctls_and_ports_work_within_it() {
    let mut net = Net::new();
    let host = net.ns("host");
    let _leaf = uplink(&mut net, &host);
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let forwards = |value: &str| {
        let now = || host.command("cat").arg("/proc/sys/net/ipv4/ip_forward").output().unwrap().stdout;
        wait_for("ip_forward", 10.0, || (now().trim_ascii() == value.as_bytes()).then_some(()));
    };
    forwards("1");
    host.sysctl("net.ipv4.ip_forward", "0");
    forwards("1");

    // The file is replaced by another one, as editors and ConfigMaps do; the port moves below 1024.
    fs::write(routelet.dir.join("password"), "secret\n").unwrap();
    let neighbor =
        "[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 2000\npassword-file = \"password\"\n";
    let moved = CONFIG.replace("as = 1000", "as = 1000\nlisten = [\"0.0.0.0:180\"]");
    routelet.configure(&format!("{moved}{neighbor}"));
    let (old, new) = (routelet.dir.join("routelet.toml"), routelet.dir.join("routelet.toml.new"));
    fs::copy(&old, &new).unwrap();
    fs::rename(&new, &old).unwrap();
    routelet.cli(&["reload"]);
    wait_for("the neighbor", 10.0, || routelet.session("10.1.1.1").map(drop));
    let listening = || String::from_utf8(host.command("ss").arg("-ltnH").output().unwrap().stdout).unwrap();
    wait_for("port 180", 10.0, || listening().contains(":180 ").then_some(()));

    routelet.cli(&["drain"]);
    assert!(routelet.dir.join("state/drained").exists());
    routelet.cli(&["undrain"]);
    assert!(!routelet.dir.join("state/drained").exists());
    assert!(routelet.process.stop().success());
    assert!(!routelet.socket().exists(), "the socket goes with its daemon");
    assert!(routelet.dir.join("state/router-id").exists());
}

#[test]
fn a_password_file_that_was_out_of_reach_at_the_start_is_named_with_its_remedy() {
    let mut net = Net::new();
    let host = net.ns("host");
    let _leaf = uplink(&mut net, &host);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let elsewhere = guard::folder("elsewhere");
    fs::write(elsewhere.path().join("password"), "secret\n").unwrap();
    let file = elsewhere.path().join("password").display().to_string();
    let neighbor =
        format!("[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 2000\npassword-file = \"{file}\"\n");
    routelet.configure(&format!("{CONFIG}{neighbor}"));
    let (_, error) = routelet.try_cli(&["reload"]).unwrap_err();
    assert!(error.contains(&file) && error.contains("restart routelet"), "{error}");
    assert!(routelet.session("10.1.1.1").is_none(), "the old configuration stays in force");
}

#[test]
fn a_file_that_is_named_by_a_relative_path_can_be_replaced_and_reloaded() {
    let mut net = Net::new();
    let host = net.ns("host");
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    // Apart from the socket, whose folder is within reach anyway.
    let folder = routelet.dir.join("configuration");
    fs::create_dir(&folder).unwrap();
    let put = |routelet: &Routelet, config: &str| {
        routelet.configure(config);
        fs::rename(routelet.dir.join("routelet.toml"), folder.join("routelet.toml")).unwrap();
    };
    put(&routelet, CONFIG);
    let program = routelet.binary.display().to_string();
    let line = format!("cd {} && exec {program} run --config routelet.toml", folder.display());
    routelet.process = Process::start(host.command("sh").args(["-c", &line]), &routelet.dir.join("log"));
    routelet.wait_ready();
    put(&routelet, &CONFIG.replace("10.20.0.0", "10.21.0.0"));
    routelet.cli(&["reload"]);
    assert!(routelet.cli(&["show", "config"]).contains("10.21.0.0/24"));
}

#[test]
fn it_can_be_turned_off() {
    let mut net = Net::new();
    let host = net.ns("host");
    let routelet = Routelet::start(&net, &host, &format!("{CONFIG}[security]\nsandbox = false\n"), &[]);
    let all = threads(routelet.process.pid());
    assert!(all.iter().all(|thread| thread["CapEff"] != KEPT && thread["Seccomp"] == "0"), "{all:?}");
    assert_eq!(routelet.json(&["show", "summary"])["sandbox"]["enabled"], false);
    assert!(routelet.cli(&["show", "summary"]).contains("off (security.sandbox)"));
}

/// As `routelet.service` starts it: a user without any right but two capabilities.
#[test]
fn it_runs_as_a_user_of_its_own() {
    let mut net = Net::new();
    let host = net.ns("host");
    let _leaf = uplink(&mut net, &host);
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    let chown = |path: &std::path::Path| run(Command::new("chown").args(["-R", "65534:65534"]).arg(path));
    run(Command::new("chmod").arg("755").arg(net.dir()));
    chown(&routelet.dir);
    let mut command = host.command("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all,+net_admin,+net_bind_service",
    ]);
    command.args([
        "--ambient-caps=-all,+net_admin,+net_bind_service",
        "--bounding-set=-all,+net_admin,+net_bind_service",
    ]);
    command.arg("--no-new-privs").arg(env!("CARGO_BIN_EXE_routelet"));
    command.args(["run", "--config"]).arg(routelet.dir.join("routelet.toml"));
    routelet.process = Process::start(&mut command, &routelet.dir.join("log"));
    routelet.wait_ready();
    for thread in threads(routelet.process.pid()) {
        assert_eq!((thread["CapEff"].as_str(), thread["CapAmb"].as_str()), (KEPT, NONE));
        assert!(thread["Uid"].starts_with("65534"), "{}", thread["Uid"]);
    }
    let view = routelet.json(&["show", "summary"])["sandbox"].clone();
    assert_eq!(
        (&view["user"], &view["missing"]),
        (&serde_json::json!(65534), &serde_json::json!([])),
        "{view}"
    );
    // Sysctls of the network, routes and files, all the same.
    let forwards = || host.command("cat").arg("/proc/sys/net/ipv4/ip_forward").output().unwrap().stdout;
    wait_for("ip_forward", 10.0, || (forwards().trim_ascii() == b"1").then_some(()));
    wait_for("its own route", 10.0, || host.ip("route").contains("10.20.0.0/24").then_some(()));
    wait_for("its state", 10.0, || routelet.dir.join("state/router-id").exists().then_some(()));
    let listening = String::from_utf8(host.command("ss").arg("-ltnH").output().unwrap().stdout).unwrap();
    assert!(listening.contains(":179 "), "{listening}");
    let problems = routelet.json(&["show", "summary"])["diagnostics"].clone();
    // There is no BGP speaker at the other end.
    let other = |p: &&serde_json::Value| p["reason"] != "NeighborDown";
    let problems: Vec<_> = problems.as_array().unwrap().iter().filter(other).collect();
    assert!(problems.is_empty(), "{problems:?}");
}
