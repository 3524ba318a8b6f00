//! A run of tests that is ended by a signal leaves nothing behind. The test starts this binary again
//! with itself as the only test, which then makes one of each kind of thing that tests make, and
//! waits for its end.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::common::{Process, daemons::Routelet, guard, net::Net, run, wait_for};

/// In the environment of the run that is to be ended.
const TO_BE_ENDED: &str = "ROUTELET_TO_BE_ENDED";

#[test]
fn a_run_that_is_ended_by_a_signal_leaves_nothing_behind() {
    if env::var_os(TO_BE_ENDED).is_some() {
        return make_one_of_each_kind();
    }
    let together = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/together");
    // A whole run is a script that runs others, and none of them passes signals on.
    let script = ["sh", "-c", "\"$@\"; true", "sh"];
    for (name, signal, starter) in [
        ("the tests alone, kill", "TERM", &[][..]),
        ("the tests alone, Ctrl-C", "INT", &[]),
        ("the tests alone, killed", "KILL", &[]),
        ("a whole run, kill", "TERM", &[&[together][..], &script].concat()),
        ("a whole run, Ctrl-C", "INT", &[&[together][..], &script].concat()),
    ] {
        let (mut ended, tag) = start(starter);
        let before = left_behind(&tag);
        for kind in ["namespace", "folder", "mount", "cgroup", "process"] {
            assert!(before.iter().any(|l| l.starts_with(kind)), "{name}: no {kind}: {before:?}");
        }
        let inside = processes_inside(&tag);
        assert!(!inside.is_empty(), "{name}: no process in a namespace");
        run(Command::new("kill").args([&format!("-{signal}"), &ended.id().to_string()]));
        ended.wait().unwrap();
        let mut left = before;
        let gone = || {
            left = left_behind(&tag);
            left.extend(inside.iter().filter(|p| Path::new("/proc").join(p).exists()).cloned());
            left.is_empty().then_some(())
        };
        wait_for(format!("{name}: nothing is left"), 30.0, gone);
    }
}

/// This test in a process of its own, below `starter`, and the tag of what it makes. It is ready.
fn start(starter: &[&str]) -> (Child, String) {
    let binary = env::current_exe().unwrap();
    // Where this run is in the background of a shell, Ctrl-C is ignored.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").args(starter).arg(binary).args(["--exact", "--nocapture"]);
    command.arg(concat!("ended::", "a_run_that_is_ended_by_a_signal_leaves_nothing_behind"));
    command.env(TO_BE_ENDED, "1").stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let tag = lines.find_map(|l| Some(l.split_once("all is made: ")?.1.to_owned()));
    (child, tag.expect("the run makes one of each kind"))
}

fn make_one_of_each_kind() {
    let mut net = Net::new();
    let (host, switch) = (net.ns("host"), net.ns("switch"));
    net.link((&host, "eth0"), (&switch, "port1"));
    let _routelet = Routelet::start(&net, &host, "[bgp]\nas = 64512\n", &[]);
    let _outside = Process::start(Command::new("sleep").arg("10000"), &net.dir().join("log"));
    // Whose parents are gone, in a session of its own, and with arguments that name nothing of ours.
    let leave = "setsid -f sleep 10000 > /dev/null 2>&1";
    switch.sh(leave);
    run(Command::new("sh").args(["-c", leave]).env(guard::VARIABLE, guard::tag()));
    let disk = net.dir().join("disk");
    fs::create_dir(&disk).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&disk));
    let cgroup = cgroups().join(format!("{}ended", guard::tag()));
    fs::create_dir_all(cgroup.join("inside")).unwrap();
    let mut moved = Process::start(Command::new("sleep").arg("10000"), &net.dir().join("log"));
    fs::write(cgroup.join("inside/cgroup.procs"), moved.pid().to_string()).unwrap();
    assert!(moved.alive());
    println!("all is made: {}", guard::tag());
    thread::sleep(Duration::from_secs(600));
}

/// The cgroups of version 2, or those of one controller of version 1.
fn cgroups() -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() { root.to_owned() } else { root.join("pids") }
}

/// Everything with this tag that the machine has.
fn left_behind(tag: &str) -> Vec<String> {
    let named = |folder: &Path, kind: &str| -> Vec<String> {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name());
        let ours = names.filter_map(|n| n.into_string().ok()).filter(|n| n.starts_with(tag));
        ours.map(|n| format!("{kind} {n}")).collect()
    };
    let mut left = named(Path::new("/run/netns"), "namespace");
    left.extend(named(&env::temp_dir(), "folder"));
    left.extend(named(&cgroups(), "cgroup"));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    left.extend(mounts.lines().filter(|l| l.contains(tag)).map(|l| format!("mount {l}")));
    left.extend(processes(tag));
    left
}

/// Processes in namespaces with this tag, by number.
fn processes_inside(tag: &str) -> Vec<String> {
    let names = fs::read_dir("/run/netns").unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    let pids =
        names.filter(|n| n.starts_with(tag)).map(|n| run(Command::new("ip").args(["netns", "pids", &n])));
    pids.flat_map(|p| p.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Processes with the tag in their environment or arguments.
fn processes(tag: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    entries
        .filter_map(|path| {
            let read = |file: &str| fs::read(path.join(file)).unwrap_or_default();
            let (environment, arguments) = (read("environ"), read("cmdline"));
            let text = String::from_utf8_lossy(&[environment, arguments.clone()].concat()).into_owned();
            let marked = text.contains(&format!("{}={tag}", guard::VARIABLE)) || text.contains(tag);
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            (marked && !arguments.is_empty()).then(|| format!("process {}: {arguments}", path.display()))
        })
        .collect()
}
