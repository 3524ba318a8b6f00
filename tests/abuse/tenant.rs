//! A tenant of the cluster who may write Services and nothing else: texts of 256 KiB in annotations, labels and names, 10,000
//! objects, ten changes a second.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    limits::{CONTAINER, Cgroup},
    stand_in::{LONG_ONES, SERVICES, StandIn},
    *,
};

const CHANGES: Duration = Duration::from_secs(20);

/// Milliseconds of CPU.
fn cpu(bed: &Bed) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", bed.routelet.process.pid())).expect("it runs");
    let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
    fields.skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks") * 10).sum()
}

fn log_octets(bed: &Bed) -> u64 {
    fs::metadata(bed.routelet.dir.join("log")).expect("a log").len()
}

#[test]
fn a_tenant_costs_no_session_no_pod_cidr_and_little_memory() {
    let _alone = alone();
    let cgroup = Cgroup::new(CONTAINER);
    let tor = at(8, 1);
    let config = passive(8, 1, "remote-as = 65001\n")
        + &passive(9, 1, WITNESS)
        + "[kubernetes]\npeering = \"none\"\nservice-annotations = [\"cluster-ip\", \"load-balancer-ip\"]\n\
           [cni]\nenabled = false\n[masquerade]\nenabled = false\n";
    let mut api = None;
    let mut bed = Bed::start_in(Some(cgroup.procs()), "", &config, |host, dir| {
        api = Some(StandIn::start(host));
        let file = dir.join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"http://127.0.0.1:8001\"}}]\n\
                        users: [{name: u, user: {}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\n";
        fs::write(&file, text).expect("a writable folder");
        ["--kubeconfig", file.to_str().expect("UTF-8"), "--node-name", "n1"].map(str::to_owned).to_vec()
    });
    let api = api.expect("it was started");
    let mut witness = Witness::new(&bed);
    let mut switch = bed.session(tor, &Open::new(EXTERNAL, tor).hold(0));
    let mut report = Report::default();

    report.case("the pod CIDR and 1,000 Services are advertised", || {
        let many = |h: &words::Received| (h.routes.len() == 1001).then_some(());
        switch.receives(120.0, many)?;
        switch.receives(PATIENCE, |h| h.routes.contains_key("10.244.1.0/24").then_some(()))
    });
    let (memory, log) = (cgroup.used(), log_octets(&bed));
    println!("{SERVICES} Services, {LONG_ONES} with long texts: {memory} KiB, {log} octets of log");

    api.changing.store(true, Relaxed);
    let (begin, before) = (Instant::now(), cpu(&bed));
    let mut most = 0;
    while begin.elapsed() < CHANGES {
        most = most.max(cgroup.used());
        thread::sleep(Duration::from_millis(50));
    }
    let per_second = (cpu(&bed) - before) * 1000 / u64::try_from(begin.elapsed().as_millis()).expect("few");
    api.changing.store(false, Relaxed);
    let changes = api.changes.load(Relaxed);
    println!(
        "{changes} changes: {most} KiB at most, {per_second} ms of CPU a second, {} octets of log",
        log_octets(&bed)
    );

    report.case("changes cost little memory, CPU and log", || {
        holds(changes > 100, "the tenant was busy")?;
        holds(cgroup.killed() == 0, "the daemon was killed")?;
        holds(most < memory + 24 * 1024, "memory")?;
        // Code that is not optimised takes ten times as long.
        holds(per_second < if cfg!(debug_assertions) { 1500 } else { 300 }, "CPU")?;
        holds(log_octets(&bed) < 256 * 1024, "the log")?;
        holds(api.events.load(Relaxed) < 40, "Events")
    });
    report.case("no text of the tenant reaches a terminal", || {
        let text = fs::read_to_string(bed.routelet.dir.join("log")).expect("UTF-8");
        let shown = bed.routelet.cli(&["show", "summary"]) + &bed.routelet.cli(&["show", "events"]);
        // Colours of the log are our own.
        holds(!text.contains("\u{1b}[2J") && !shown.contains('\u{1b}'), "escape sequences")?;
        holds(!text.lines().chain(shown.lines()).any(|l| l.starts_with("2026-01-01 ERROR")), "forged lines")?;
        holds(shown.len() < 512 * 1024, "what is shown")
    });
    report.case("the session and the pod CIDR stand", || {
        switch.receives(PATIENCE, |h| {
            let stays =
                h.routes.contains_key("10.244.1.0/24") && !h.events.contains(&"-10.244.1.0/24".to_owned());
            (stays && h.routes.len() <= 1001).then_some(())
        })?;
        same(bed.state(tor), "established".into())?;
        witness.alive(&mut bed)
    });
    report.finish();
}
