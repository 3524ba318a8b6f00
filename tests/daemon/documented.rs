//! The commands that the pages print for a host, run as they are printed.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use super::{
    blocks::{Block, marked},
    switch::{config, rack, the_switch_accepts},
};
use crate::common::{
    daemons::{Frr, Routelet},
    net::{Net, Ns},
    wait_for,
};

/// An executable in a folder of the PATH of the blocks.
fn program(folder: &Path, name: &str, script: &str) {
    fs::create_dir_all(folder).unwrap();
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a block in `ns`, with changes of `/etc` and `/usr` that nobody else sees, and with what it
/// started ended at its end.
fn run_block(net: &Net, ns: &Ns, number: usize, block: &Block, tools: &Path, before: &str) {
    let layers = net.dir().join(format!("{}-{number}", ns.name));
    let clone = layers.join("clone");
    fs::create_dir_all(clone.join("target/release")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_routelet"), clone.join("target/release/routelet")).unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    std::os::unix::fs::symlink(deploy, clone.join("deploy")).unwrap();
    let script = format!(
        "set -euo pipefail
        mount -t tmpfs tmpfs {layers}/layers
        for folder in etc usr; do
          mkdir -p {layers}/layers/$folder/upper {layers}/layers/$folder/work
          mount -t overlay overlay -o lowerdir=/$folder,upperdir={layers}/layers/$folder/upper,workdir={layers}/layers/$folder/work /$folder
        done
        for folder in run var/lib; do mount -t tmpfs tmpfs /$folder; done
        mkdir -p /run/routelet
        cd {clone}
        export PATH={tools}:$PATH LAYERS={layers}
        {before}
        {text}",
        layers = layers.display(),
        clone = clone.display(),
        tools = tools.display(),
        text = block.text,
    );
    fs::create_dir_all(layers.join("layers")).unwrap();
    let mut command = ns.command("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", &script]);
    let done = command.output().unwrap();
    let output = [&done.stdout, &done.stderr].map(|octets| String::from_utf8_lossy(octets).into_owned());
    assert!(done.status.success(), "{}: {}\n{}", block.place, done.status, output.concat());
}

#[test]
fn each_block_for_a_host_runs() {
    let mut net = Net::new();
    let (switch, host) = rack(&mut net);
    let frr_docker = marked("frr-docker").remove(0);
    let _frr = Frr::start(&net, &switch, &frr_docker.text);
    let routelet = Routelet::start(&net, &host, &config(64512, "172.20.1.0/24"), &[]);
    routelet.wait_established("10.1.1.1");
    wait_for("it is ready", 20.0, || (routelet.json(&["show", "summary"])["ready"] == true).then_some(()));
    let tools = net.dir().join("tools");
    let to_the_daemon = format!(
        "case \"$1\" in convert) exec {binary} \"$@\" ;; *) exec {binary} \"$@\" --socket {socket} ;; esac",
        binary = env!("CARGO_BIN_EXE_routelet"),
        socket = routelet.socket().display()
    );
    program(&tools, "routelet", &to_the_daemon);
    let files = "mkdir -p /etc/frr /etc/routelet
        printf 'router bgp 1000\\n neighbor 10.1.1.1 remote-as 10000\\n' > /etc/frr/frr.conf
        rm -f /etc/routelet/routelet.toml";
    for (number, block) in marked("sh host").iter().enumerate() {
        run_block(&net, &host, number, block, &tools, files);
    }
}

/// With a `cargo` that has built the program before, and a `systemctl` that starts what the unit
/// starts.
#[test]
fn each_block_that_installs_runs() {
    let mut net = Net::new();
    let (_switch, host) = rack(&mut net);
    let tools = net.dir().join("tools");
    program(&tools, "cargo", "[ \"$*\" = 'build --release' ]");
    program(&tools, "systemd-sysusers", "grep -q '^u.*routelet' /usr/lib/sysusers.d/routelet.conf");
    program(
        &tools,
        "systemctl",
        "[ \"$*\" = 'enable --now routelet' ] || exit 1
        unit=/etc/systemd/system/routelet.service
        start() { $(grep -E \"^$1=\" $unit | cut -d= -f2-); }
        start ExecStartPre || exit 1
        start ExecStart > $LAYERS/log 2>&1 &
        for _ in $(seq 200); do [ -S /run/routelet/routelet.sock ] && exit 0; sleep 0.1; done
        cat $LAYERS/log; exit 1",
    );
    for (number, block) in marked("sh install").iter().enumerate() {
        run_block(&net, &host, number, block, &tools, "");
    }
}

#[test]
fn each_block_for_the_lab_runs() {
    let mut lines: Vec<_> = marked("sh lab")
        .into_iter()
        .flat_map(|b| b.text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    lines.sort();
    lines.dedup();
    for line in lines {
        let arguments =
            line.strip_prefix("cargo run --release -- ").unwrap_or_else(|| panic!("not the lab: {line}"));
        let done =
            Command::new(env!("CARGO_BIN_EXE_routelet")).args(arguments.split_whitespace()).output().unwrap();
        let output = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && output.contains("every ping got a reply"), "{line}: {output}");
    }
}

#[test]
fn the_switches_of_the_tutorials_accept_their_hosts() {
    for (mark, own_as, network) in
        [("frr-docker", 4_200_000_001, "172.20.1.0/24"), ("frr-nodes", 64512, "10.244.1.0/24")]
    {
        let mut net = Net::new();
        let (switch, host) = rack(&mut net);
        let block = marked(mark).remove(0);
        let _frr = Frr::start(&net, &switch, &block.text);
        let routelet = Routelet::start(&net, &host, &config(own_as, network), &[]);
        the_switch_accepts(network, &switch, &routelet);
    }
}
