//! The file in a folder: its readers, other programs that change it, and interrupted writes.

use tokio::sync::watch;

use super::*;
use crate::cni::conflist::Spec;

fn conflist(cidr: &str) -> Arc<Conflist> {
    let pod_cidrs = [cidr.parse().unwrap()];
    let chained = vec![conflist::plugin("portmap")];
    Arc::new(Conflist::new(Spec { pod_cidrs: &pod_cidrs, bridge: "rl-unit-none", mtu: Some(1500), chained }))
}

fn open(cidr: &str) -> GateInputs {
    GateInputs {
        unreachable: vec![cidr.parse().unwrap()],
        forwarding: true,
        routes: gate::InitialRoutes::Complete,
    }
}

struct Room {
    dir: tempfile::TempDir,
    want: watch::Sender<Option<Arc<Conflist>>>,
    ready: watch::Sender<GateInputs>,
    status: watch::Receiver<ConflistStatus>,
    task: tokio::task::JoinHandle<()>,
}

impl Room {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let (want, want_rx) = watch::channel(None);
        let (ready, ready_rx) = watch::channel(GateInputs::default());
        let options = ConflistOptions {
            enabled: true,
            conf_dir: dir.path().into(),
            file: "10-routelet.conflist".into(),
            state_dir: dir.path().join("state"),
        };
        let super::super::ConflistTask { status, task, .. } =
            super::super::spawn_conflist(options, want_rx, ready_rx);
        Self { dir, want, ready, status, task }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("10-routelet.conflist")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    async fn until(&mut self, state: ConflistState, problem: &str) -> ConflistStatus {
        let fits = |s: &ConflistStatus| {
            s.state == state && s.problem.as_deref().unwrap_or_default().contains(problem)
        };
        let wait = self.status.wait_for(fits);
        tokio::time::timeout(OVERWRITE_INTERVAL + Duration::from_secs(60), wait)
            .await
            .expect("in time")
            .unwrap()
            .clone()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn it_is_written_when_the_gate_opens_and_follows_the_pod_cidr() {
    let mut room = Room::new(|_| {});
    room.until(ConflistState::Waiting, "unknown").await;
    room.want.send_replace(Some(conflist("10.244.1.0/24")));
    room.until(ConflistState::Waiting, "unreachable").await;
    assert!(!room.file().exists());
    room.ready.send_replace(open("10.244.1.0/24"));
    room.until(ConflistState::Written, "").await;
    assert!(room.text().contains("10.244.1.0/24"));

    room.want.send_replace(Some(conflist("10.244.7.0/24")));
    room.until(ConflistState::Waiting, "unreachable").await;
    assert!(room.text().contains("10.244.1.0/24"), "the old one stays until the new range is guarded");
    room.ready.send_replace(open("10.244.7.0/24"));
    room.until(ConflistState::Written, "").await;
    assert!(room.text().contains("10.244.7.0/24") && !room.text().contains("10.244.1.0/24"));
}

#[tokio::test]
async fn a_file_that_is_right_is_not_touched_and_waits_for_nothing() {
    let wanted = conflist("10.244.1.0/24");
    let bytes = wanted.bytes.clone();
    let mut room = Room::new(|dir| std::fs::write(dir.join("10-routelet.conflist"), &bytes).unwrap());
    let before = std::fs::metadata(room.file()).unwrap().modified().unwrap();
    room.want.send_replace(Some(wanted));
    room.until(ConflistState::Written, "").await;
    assert_eq!(std::fs::metadata(room.file()).unwrap().modified().unwrap(), before);
}

#[tokio::test]
async fn kube_router_files_of_others_stay_and_one_that_is_read_before_ours_is_named() {
    let mut room = Room::new(|dir| std::fs::write(dir.join("05-other.conflist"), "{}").unwrap());
    room.ready.send_replace(open("10.244.1.0/24"));
    room.want.send_replace(Some(conflist("10.244.1.0/24")));
    room.until(ConflistState::Written, "05-other.conflist").await;
    assert_eq!(std::fs::read_to_string(room.dir.path().join("05-other.conflist")).unwrap(), "{}");
    assert_eq!(room.status.borrow().others, ["05-other.conflist"]);
}

#[tokio::test]
async fn what_others_chain_stays_and_what_they_break_is_mended_in_time() {
    let mut room = Room::new(|_| {});
    room.ready.send_replace(open("10.244.1.0/24"));
    room.want.send_replace(Some(conflist("10.244.1.0/24")));
    room.until(ConflistState::Written, "").await;
    std::fs::write(room.file(), "{}").unwrap();
    room.until(ConflistState::Waiting, "another program").await;
    assert_eq!(room.text(), "{}", "no quarrel");
}

/// istio#11037, cilium#7772: a program that overwrites or removes the file also removes plugins
/// that others chained.
#[tokio::test]
async fn istio_11037_a_chained_plugin_survives_and_who_overwrites_is_named() {
    let mut room = Room::new(|_| {});
    room.ready.send_replace(open("10.244.1.0/24"));
    room.want.send_replace(Some(conflist("10.244.1.0/24")));
    room.until(ConflistState::Written, "").await;
    let mut file: serde_json::Value = serde_json::from_str(&room.text()).unwrap();
    let plugins = file["plugins"].as_array_mut().unwrap();
    plugins.push(serde_json::json!({ "type": "istio-cni", "log_level": "info" }));
    std::fs::write(room.file(), file.to_string()).unwrap();
    // Ours is rewritten for another range; theirs is still chained.
    room.ready.send_replace(open("10.244.7.0/24"));
    room.want.send_replace(Some(conflist("10.244.7.0/24")));
    until_true(|| room.text().contains("10.244.7.0/24")).await;
    assert!(room.text().contains("istio-cni"), "{}", room.text());
    room.until(ConflistState::Written, "").await;

    // Another program removes the file, as Cilium renames the files that it finds, or replaces it.
    let path = room.file();
    std::fs::rename(&path, path.with_extension("cilium_bak")).unwrap();
    room.until(ConflistState::Waiting, "another program").await;
    room.until(ConflistState::Written, "another program changed or removed the conflist (found: no file)")
        .await;
    assert!(room.text().contains("10.244.7.0/24") && room.text().contains("istio-cni"), "{}", room.text());
    assert!(path.with_extension("cilium_bak").exists(), "what is theirs stays");
}

async fn until_true(mut check: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 60 s");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_reported() {
    let mut room = Room::new(|dir| std::fs::create_dir(dir.join("10-routelet.conflist")).unwrap());
    room.ready.send_replace(open("10.244.1.0/24"));
    room.want.send_replace(Some(conflist("10.244.1.0/24")));
    room.until(ConflistState::Failed, "cni.conf-dir").await;
}

/// Two conflists that differ in length, so that a half of either is neither.
fn two() -> [Vec<u8>; 2] {
    let chained = vec![conflist::plugin("portmap"), conflist::plugin("bandwidth")];
    let pod_cidrs = ["10.244.7.0/24".parse().unwrap(), "fd00:244:7::/64".parse().unwrap()];
    let long = Conflist::new(Spec { pod_cidrs: &pod_cidrs, bridge: "routelet0", mtu: None, chained });
    [conflist("10.244.1.0/24").bytes.clone(), long.bytes]
}

/// Reads like a runtime until `stop` is set; returns how often.
fn read_on(dir: &Path, stop: &std::sync::atomic::AtomicBool) -> usize {
    let whole = two();
    let mut reads = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let entries = std::fs::read_dir(dir).unwrap();
        let names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        let seen = conflist::first_read(names.iter().map(String::as_str));
        assert!(seen.is_none_or(|name| name == "10-routelet.conflist"), "{names:?}");
        // A folder that changes while it is listed may show the name twice or not at all; the file
        // is there.
        let bytes = std::fs::read(dir.join("10-routelet.conflist")).unwrap();
        assert!(whole.contains(&bytes), "half a file: {}", String::from_utf8_lossy(&bytes));
        reads += 1;
    }
    reads
}

#[test]
fn kube_router_2126_no_reader_sees_half_a_file_in_10000_rewrites_nor_when_the_writer_is_killed() {
    const NAME: &str = "cni::io::conflist::tests::kube_router_2126_no_reader_sees_half_a_file_in_10000_rewrites_nor_when_the_writer_is_killed";
    let rewrite = |path: &Path, times: usize| {
        for bytes in two().iter().cycle().take(times) {
            replace(path, bytes).unwrap();
        }
    };
    if let Some(path) = std::env::var_os("ROUTELET_TEST_WRITES") {
        return rewrite(Path::new(&path), usize::MAX);
    }
    // In memory: the point is the order of the steps, not the speed of a disk.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("10-routelet.conflist");
    rewrite(&path, 1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        let reader = s.spawn(|| read_on(dir.path(), &stop));
        rewrite(&path, 10_000);
        for round in 0..40 {
            let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", NAME])
                .env("ROUTELET_TEST_WRITES", &path)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_micros(20_000 + round * 137));
            writer.kill().unwrap();
            writer.wait().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert!(two().contains(&bytes), "after kill -9");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 1000);
    });
    rewrite(&path, 1);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "what a killed writer left is gone");
}

/// Stops by SIGKILL before each step of a rewrite in turn; after each, the file is the old one or
/// the new one, and nothing else in the folder is a file that a runtime reads.
#[test]
fn kube_router_the_conflist_is_never_truncated_whatever_step_is_the_last() {
    const NAME: &str =
        "cni::io::conflist::tests::kube_router_the_conflist_is_never_truncated_whatever_step_is_the_last";
    if let Some(path) = std::env::var_os("ROUTELET_TEST_DIES") {
        let last: usize = std::env::var("ROUTELET_TEST_STEP").unwrap().parse().unwrap();
        let mut step = 0;
        let die = &mut || {
            if step == last {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
            }
            step += 1;
        };
        return state::write_by_steps(Path::new(&path), &two()[1], 0o644, die).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("10-routelet.conflist");
    let [old, new] = two();
    let mut found = Vec::new();
    for step in 0.. {
        replace(&path, &old).unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env("ROUTELET_TEST_DIES", &path)
            .env("ROUTELET_TEST_STEP", step.to_string())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes == old || bytes == new, "step {step}: {}", String::from_utf8_lossy(&bytes));
        let names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
        let names: Vec<_> = names.map(|n| n.into_string().unwrap()).collect();
        let read: Vec<_> = names.iter().filter(|n| conflist::read_by_runtimes(n)).collect();
        assert_eq!(read, ["10-routelet.conflist"], "step {step}: {names:?}");
        found.push(bytes == new);
        if status.success() {
            break;
        }
    }
    // Killed before the rename it is the old one, and the new one from then on.
    assert!(found.len() >= 6 && found.is_sorted() && !found[0] && found[found.len() - 1], "{found:?}");
}

/// A name and a network of a file that is not ours.
#[test]
fn names_and_networks_of_others_are_escaped_and_long_files_mean_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = ConflistOptions {
        enabled: true,
        conf_dir: dir.path().into(),
        file: "10-routelet.conflist".into(),
        state_dir: dir.path().join("state"),
    };
    let name = "00-a\u{1b}[2J\n.conf";
    let multus = serde_json::json!({ "type": "multus", "clusterNetwork": "x\u{1b}[2J".repeat(1000) });
    for content in [multus.to_string(), "{}".into(), " ".repeat(3 << 20)] {
        std::fs::write(dir.path().join(name), &content).unwrap();
        let problem = in_front(&options, b"{}").map(|d| d.line()).unwrap_or_default();
        assert!(problem.contains("00-a\\u{1b}[2J\\n.conf"), "{problem}");
        assert!(problem.len() < 1024 && !problem.contains(['\u{1b}', '\n']), "{problem}");
    }
    for n in 0..1000 {
        std::fs::write(dir.path().join(format!("{n:04}.conf")), "{}").unwrap();
    }
    assert_eq!(others(&options).len(), MAX_OTHERS);
}
