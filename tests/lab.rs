//! `routelet lab`: every ping is answered below every leaf, and nothing stays behind however it ends.
#![allow(clippy::disallowed_methods, reason = "tests of the real world")]

#[path = "common/guard.rs"]
mod guard;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

#[test]
fn every_ping_is_answered_below_routelet() {
    succeeds_with("routelet");
}

#[test]
fn every_ping_is_answered_below_bird() {
    succeeds_with("bird");
}

#[test]
fn every_ping_is_answered_below_frr() {
    succeeds_with("frr");
}

#[test]
fn hosts_without_addresses_and_configuration_reach_each_other_over_two_leaves() {
    let out = done(&["--unnumbered"], 90);
    assert!(out.contains("every ping got a reply") && !out.contains("NO REPLY"), "{out}");
    // Three pods, two others each, two families: at first, without either leaf, and afterwards.
    assert_eq!(out.matches(" → ").count(), 48, "{out}");
    for part in ["no BGP configuration on any host", "what it found out", "disconnecting host1 from leaf2"] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    // Sessions of three hosts, each with two uplinks.
    assert!(out.matches("established").count() >= 6, "{out}");
}

#[test]
fn scene_failover() {
    let out = done(&["scene", "failover"], SCENE);
    assert!(out.contains("all routes take leaf2") && out.contains("both leaves are used again"), "{out}");
    let line = out.lines().find(|l| l.contains(" packets from pod1 to 10.1.2.10")).expect(&out);
    let (sent, lost) = packets(line);
    assert!(sent > 200 && lost < sent / 2, "{line}");
}

/// Packets pass no reflector, so that none is lost; a busy machine may be slow to reply to a few.
#[test]
fn scene_reflectors() {
    let out = done(&["scene", "reflectors"], SCENE);
    for part in ["one session left", "10.2.1.0/24, reaches host2", "all its routes are back"] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    let line = out.lines().find(|l| l.contains(" packets from pod1 to 10.1.2.10")).expect(&out);
    let (sent, lost) = packets(line);
    assert!(sent > 200 && lost <= sent / 50, "{line}");
}

#[test]
fn scene_docker() {
    let (engines, networks) = (of_this_machine("containerd"), of_this_machine("networks"));
    let out = done(&["scene", "docker"], SCENE);
    for part in
        ["the network `web`, no container", "host2 has the route to 172.30.1.0/24", "pod2 → 172.30.1.10"]
    {
        assert!(out.contains(part), "{part}\n{out}");
    }
    assert!(out.contains("the container is removed: the route is gone"), "{out}");
    assert_eq!((of_this_machine("containerd"), of_this_machine("networks")), (engines, networks));
}

/// What an engine of the lab must not change: files of containerd, and interfaces.
fn of_this_machine(what: &str) -> Vec<String> {
    let folder = if what == "containerd" { "/run/containerd" } else { "/sys/class/net" };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn scene_docker_without_docker_is_refused_with_a_remedy() {
    let refused = lab(&["scene", "docker"]).env("PATH", "/nowhere").output().unwrap();
    let err = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{err}");
    assert!(err.contains("no program `dockerd`") && err.contains("install Docker Engine"), "{err}");
    assert!(refused.stdout.is_empty(), "nothing is built");
}

/// Sent and lost.
fn packets(line: &str) -> (usize, usize) {
    let words: Vec<_> = line.split(' ').collect();
    (words[0].parse().unwrap(), words[words.len() - 2].parse().unwrap())
}

#[test]
fn scene_bfd() {
    let out = done(&["scene", "bfd"], SCENE);
    assert!(out.contains("its routes are gone after") && out.contains("all routes are back"), "{out}");
}

#[test]
fn scene_drain() {
    let out = done(&["scene", "drain"], SCENE);
    for part in ["GRACEFUL_SHUTDOWN", "its pods left every kernel", "established", "all routes are back"] {
        assert!(out.contains(part), "{part}\n{out}");
    }
}

#[test]
fn scene_unnumbered() {
    let out = done(&["scene", "unnumbered"], SCENE);
    assert!(out.contains("what it found out") && !out.contains("NO REPLY"), "{out}");
}

#[test]
fn leaves_without_addresses_run_routelet() {
    let out = lab(&["--unnumbered", "--peer", "frr"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}

/// In seconds; a debug build beside other tests takes longer than the 20 that a scene takes by itself.
const SCENE: u64 = 40;

/// The output of a lab that ends well within so many seconds, and leaves nothing behind.
fn done(options: &[&str], seconds: u64) -> String {
    let began = Instant::now();
    let lab = lab(options).spawn().unwrap();
    let id = lab.id();
    let Output { status, stdout, stderr } = lab.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{out}\n{err}");
    assert!(began.elapsed() < Duration::from_secs(seconds), "{:?}:\n{out}", began.elapsed());
    assert_eq!(left_behind(id), Vec::<String>::new());
    assert!(options.first() != Some(&"scene") || out.contains("\nshown: "), "what it showed:\n{out}");
    out.into_owned()
}

#[test]
fn nothing_is_left_after_an_interrupt() {
    let mut lab = standing_lab();
    signal(&lab, "INT");
    let status = lab.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(left_behind(lab.id()), Vec::<String>::new());
}

#[test]
fn nothing_is_left_after_a_crash() {
    let mut lab = standing_lab();
    lab.kill().unwrap();
    lab.wait().unwrap();
    let began = Instant::now();
    while !left_behind(lab.id()).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", left_behind(lab.id()));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_reader_that_has_seen_enough_does_not_end_the_lab() {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_routelet"))
        .arg("lab")
        .env(guard::VARIABLE, guard::tag())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(lab.stdout.take());
    let pid = lab.id();
    let ended = lab.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(left_behind(pid), Vec::<String>::new());
}

#[test]
fn a_lab_without_root_fails_with_the_reason() {
    let nobody = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", env!("CARGO_BIN_EXE_routelet"), "lab"])
        .output()
        .expect("setpriv of util-linux");
    let err = String::from_utf8_lossy(&nobody.stderr);
    // Where `nobody` may not even enter the folder of the binary, setpriv fails instead.
    assert!(!nobody.status.success() && (err.contains("as root") || err.contains("setpriv")), "{err}");
}

fn succeeds_with(peer: &str) {
    let began = Instant::now();
    let lab = lab(&["--peer", peer]).spawn().unwrap();
    let id = lab.id();
    let Output { status, stdout, stderr } = lab.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{out}\n{err}");
    assert!(out.contains("every ping got a reply") && !out.contains("NO REPLY"), "{out}");
    // Three pods, two others each, two families, before and after the cut.
    assert_eq!(out.matches(" → ").count(), 24, "{out}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}:\n{out}", began.elapsed());
    assert_eq!(left_behind(id), Vec::<String>::new());
}

/// A lab in the middle of its work.
fn standing_lab() -> Child {
    let lab = lab(&["--nodes", "20"]).spawn().unwrap();
    let began = Instant::now();
    while left_behind(lab.id()).len() < 10 {
        assert!(began.elapsed() < Duration::from_secs(30), "no lab was built");
        thread::sleep(Duration::from_millis(5));
    }
    lab
}

fn lab(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
    command.env(guard::VARIABLE, guard::tag());
    command.arg("lab").args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn signal(process: &Child, name: &str) {
    let done = Command::new("kill").args([&format!("-{name}"), &process.id().to_string()]).status();
    assert!(done.unwrap().success());
}

/// Namespaces, files and processes of the lab that process `id` made.
fn left_behind(id: u32) -> Vec<String> {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|e| e.file_name());
    let prefix = format!("rlab-{id}-");
    let mut left: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix))
        .collect();
    let folder = format!("/run/routelet-lab/{id}");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&format!("{folder}/")) {
            left.push(entry.path().display().to_string());
        }
    }
    left.extend(Path::new(&folder).exists().then_some(folder));
    for groups in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"] {
        let group = format!("{groups}/routelet-lab-{id}");
        left.extend(Path::new(&group).exists().then_some(group));
    }
    left
}
