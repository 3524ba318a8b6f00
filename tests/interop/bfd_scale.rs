//! 1,000 BFD sessions at 300 ms × 3 between routelet and FRR's bfdd, and the CPU time that either
//! end takes.

use std::{fmt::Write as _, fs, process::Command, thread::sleep, time::Duration};

use crate::common::{
    daemons::{Frr, Routelet},
    net::{Net, Ns},
    run, wait_for,
};

const SESSIONS: u32 = 1000;
const MEASURED: Duration = Duration::from_secs(30);

/// Address `n` of routelet (`side` 0) or of FRR (128), all in one subnet.
fn address(side: u32, n: u32) -> String {
    format!("10.3.{}.{}", side + n / 250, n % 250 + 1)
}

/// The addresses of one side, and where the other's are.
fn add_addresses(net: &Net, ns: &Ns, side: u32, other: &Ns) {
    let all: String = (0..SESSIONS).map(|n| format!("addr add {}/16 dev eth0\n", address(side, n))).collect();
    let file = net.dir().join(format!("addresses-{side}"));
    fs::write(&file, all).unwrap();
    run(Command::new("ip").args(["-n", &ns.name, "-batch"]).arg(&file));
    ns.permanent_neighbors("eth0", (other, "eth0"), (0..SESSIONS).map(|n| address(128 - side, n)));
}

/// CPU seconds of a process so far.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[test]
#[ignore = "measures, on a machine without other load: cargo test --release --test interop -- --ignored --nocapture a_thousand"]
fn a_thousand_bfd_sessions_stay_up_and_their_cost_is_noted_beside_that_of_frr() {
    let mut net = Net::new();
    let (ours, theirs) = (net.ns("ours"), net.ns("theirs"));
    net.link((&ours, "eth0"), (&theirs, "eth0"));
    add_addresses(&net, &ours, 0, &theirs);
    add_addresses(&net, &theirs, 128, &ours);
    let (mut config, mut bfdd) =
        (String::from("[bgp]\nas = 65001\nrouter-id = \"10.3.0.1\"\n"), String::from("bfd\n"));
    for n in 0..SESSIONS {
        let (own, remote) = (address(0, n), address(128, n));
        writeln!(
            config,
            "[[bgp.neighbor]]\naddress = \"{remote}\"\nlocal-address = \"{own}\"\nremote-as = 65002\npassive = true\n\
             bfd = {{ min-tx = 300, min-rx = 300, multiplier = 3 }}"
        )
        .unwrap();
        writeln!(
            bfdd,
            " peer {own} local-address {remote}\n  receive-interval 300\n  transmit-interval 300\n !"
        )
        .unwrap();
    }
    let frr = Frr::start_all(&net, &theirs, &[("zebra", "", &[]), ("bfdd", &bfdd, &[])]);
    let routelet = Routelet::start(&net, &ours, &config, &[]);
    let sessions = || {
        let all = routelet.json(&["show", "bfd"]);
        let all = all.as_array().cloned().unwrap_or_default();
        let up = all.iter().filter(|s| s["state"] == "up").count();
        (up, all.iter().filter_map(|s| s["failures"].as_u64()).sum::<u64>())
    };
    wait_for("all sessions", 120.0, || (sessions().0 == SESSIONS as usize).then_some(()));
    // Intervals of 300 ms are in force once the poll sequences are over.
    sleep(Duration::from_secs(5));
    let pids = [routelet.process.pid(), frr.pids()[1]];
    let (failures, before) = (sessions().1, pids.map(cpu));
    sleep(MEASURED);
    let after = pids.map(cpu);
    println!(
        "{SESSIONS} BFD sessions at 300 ms × 3 for {MEASURED:?}: routelet {:.2} CPU s, bfdd {:.2} CPU s",
        after[0] - before[0],
        after[1] - before[1]
    );
    assert_eq!(sessions(), (SESSIONS as usize, failures), "sessions up and failures");
}
