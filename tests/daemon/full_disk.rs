//! A state folder that cannot be written to: a full disk, a read-only one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
    run, wait_for,
};

const CONFIG: &str = "[bgp]\nas = 1000\n[advertise]\nnetworks = [\"10.20.0.0/24\"]\n";
const OTHER_TABLE: &str = "[fib]\ntable = 700\n";
/// Of the state folder of a bare host.
const FILES: [&str; 4] = ["machine.json", "router-id", "fib.json", "sysctl.json"];

/// A small disk in place of the state folder.
struct Disk(PathBuf);

impl Disk {
    fn new(routelet: &Routelet) -> Self {
        let path = routelet.dir.join("state");
        fs::create_dir_all(&path).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(&path));
        Self(path)
    }

    fn fill(&self) {
        let file = File::create(self.0.join("filler")).unwrap();
        let mut left = 1 << 20;
        while left > 0
            && std::io::copy(&mut std::io::Read::take(std::io::repeat(1), 4096), &mut &file).is_ok()
        {
            left -= 4096;
        }
        assert!(left > 0, "the disk is small");
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }

    fn remount(&self, how: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0));
    }

    fn has(&self, name: &str) -> bool {
        fs::metadata(self.0.join(name)).is_ok_and(|m| m.len() > 0)
    }

    fn stale(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".stale")).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn host(net: &mut Net) -> Ns {
    let (host, leaf) = (net.ns("host"), net.ns("leaf"));
    net.link((&leaf, "eth0"), (&host, "eth0"));
    host.ip("addr add 10.1.1.2/24 dev eth0");
    host
}

fn problem(routelet: &Routelet, start: &str) -> Option<String> {
    let summary = routelet.json(&["show", "summary"]);
    let problems = summary["problems"].as_array()?.clone();
    problems.iter().filter_map(|p| p.as_str()).find(|p| p.starts_with(start)).map(str::to_owned)
}

fn lines(log: &Path, what: &str) -> usize {
    fs::read_to_string(log).unwrap().lines().filter(|line| line.contains(what)).count()
}

#[test]
fn state_that_could_not_be_written_is_there_once_the_disk_has_room() {
    let mut net = Net::new();
    let host = host(&mut net);
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    let disk = Disk::new(&routelet);
    disk.fill();
    routelet.restart();
    let text = wait_for("the problem", 10.0, || problem(&routelet, "StateNotWritable"));
    assert!(text.contains("No space left") && text.contains("free space"), "{text}");
    let (_, refused) = routelet.try_cli(&["drain"]).unwrap_err();
    assert!(refused.contains("state-dir"), "an order that cannot be kept is refused: {refused}");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(lines(&routelet.process.log, "state cannot be written"), 1);
    disk.free();
    wait_for("all files", 70.0, || FILES.iter().all(|name| disk.has(name)).then_some(()));
    wait_for("no problem", 10.0, || problem(&routelet, "StateNotWritable").is_none().then_some(()));
    assert_eq!(lines(&routelet.process.log, "all state is written again"), 1);
    assert_eq!(disk.stale(), Vec::<String>::new());
}

#[test]
fn a_start_after_a_full_disk_reports_that_its_state_is_out_of_date() {
    let mut net = Net::new();
    let host = host(&mut net);
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    let disk = Disk::new(&routelet);
    routelet.restart();
    wait_for("all files", 10.0, || FILES.iter().all(|name| disk.has(name)).then_some(()));
    routelet.process.stop();
    disk.fill();
    // Where routes are is written before they are.
    routelet.configure(&format!("{CONFIG}{OTHER_TABLE}"));
    routelet.restart();
    wait_for("the problem", 10.0, || problem(&routelet, "StateNotWritable"));
    assert!(disk.stale().contains(&"fib.json.stale".to_owned()), "{:?}", disk.stale());
    routelet.process.signal("KILL");
    wait_for("its end", 10.0, || (!routelet.process.alive()).then_some(()));
    let before = lines(&routelet.process.log, "saved state is outdated");
    routelet.restart();
    let after = lines(&routelet.process.log, "saved state is outdated");
    assert!(after > before, "{before} → {after}");
    let text = wait_for("out of date", 10.0, || problem(&routelet, "StateOutOfDate"));
    assert!(text.contains("fib.json"), "{text}");
    disk.free();
    wait_for("no problem", 70.0, || problem(&routelet, "State").is_none().then_some(()));
    assert_eq!(disk.stale(), Vec::<String>::new());
    // Records of both places were kept: nothing of the former one is forgotten.
    let record = fs::read_to_string(disk.0.join("fib.json")).unwrap();
    assert!(record.contains("700") && record.contains("254"), "{record}");
}

#[test]
fn a_folder_that_was_read_only_gets_its_files_when_it_can_be_written_to() {
    let mut net = Net::new();
    let host = host(&mut net);
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    let disk = Disk::new(&routelet);
    disk.remount("ro");
    routelet.restart();
    let text = wait_for("the problem", 10.0, || problem(&routelet, "StateNotWritable"));
    assert!(text.contains("Read-only file system"), "{text}");
    disk.remount("rw");
    // Its namespace has a copy of the mount.
    let pid = routelet.process.pid().to_string();
    run(Command::new("nsenter")
        .args(["--target", &pid, "--mount", "mount", "-o", "remount,rw"])
        .arg(&disk.0));
    wait_for("all files", 70.0, || FILES.iter().all(|name| disk.has(name)).then_some(()));
    wait_for("no problem", 10.0, || problem(&routelet, "State").is_none().then_some(()));
}
