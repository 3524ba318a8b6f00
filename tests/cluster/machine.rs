//! One machine: a kubelet with containerd, and kube-proxy, in namespaces of its own. Its processes see each other and end with
//! it, as those of a real one.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    common::{
        Process,
        net::{Net, Ns},
        run, wait_for,
    },
    plane::{ControlPlane, kit},
};

pub struct Machine {
    pub name: String,
    pub ns: Ns,
    dir: PathBuf,
    process: Process,
    /// The first process inside, as seen from here.
    init: u32,
}

impl Machine {
    /// Switches it on in `ns`, whose addresses are given.
    pub fn boot(
        net: &Net,
        ns: &Ns,
        name: &str,
        addresses: &[String],
        plane: &ControlPlane,
        images: &[PathBuf],
    ) -> Self {
        prepare(ns);
        let dir = net.dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let here = crate::here();
        for file in ["containerd.toml", "kubelet.yaml"] {
            fs::copy(here.join(file), dir.join(file)).unwrap();
        }
        let mut command = ns.command("unshare");
        command.args(["--mount", "--propagation", "private", "--uts", "--pid", "--fork", "--mount-proc"]);
        command.arg(here.join("node.sh")).arg(&dir).args([name, &addresses.join(",")]);
        command.arg(plane.dir.join("pki")).arg(kit()).args(images);
        let mut process = Process::start(&mut command, &dir.join("log"));
        let children = format!("/proc/{0}/task/{0}/children", process.pid());
        let init = wait_for(format!("{name} has a first process"), 10.0, || {
            assert!(process.alive(), "{name} ended:\n{}", process.printed());
            fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok()
        });
        Self { name: name.to_owned(), ns: ns.clone(), dir, process, init }
    }

    pub fn wait_up(&mut self) {
        wait_for(format!("{} has its images and a kubelet", self.name), 300.0, || {
            assert!(self.process.alive(), "{} ended:\n{}", self.name, self.process.printed());
            self.process.printed().lines().any(|l| l == "up").then_some(())
        });
    }

    /// `program`, to be run on this machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--uts", "--net", program]);
        command
    }

    /// `program`, to be run in the network namespace of the pod with this address.
    pub fn in_pod(&self, address: &str, program: &str) -> Command {
        let find = format!(
            "for n in $(ls /run/netns); do ip -n $n -o addr | grep -qF ' {address}/' && echo $n; done"
        );
        let found = run(self.command("sh").args(["-c", &format!("{find}; true")]));
        let pod = found.trim();
        assert!(!pod.is_empty(), "{}: no pod has {address}", self.name);
        let mut command = self.command("nsenter");
        command.arg(format!("--net=/run/netns/{pod}")).arg(program);
        command
    }

    /// A command of routelet's, to the one in the pod of this machine.
    pub fn routelet(&self, args: &[&str]) -> Option<Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
        command.args(args).arg("--json").arg("--socket").arg(self.dir.join("run/routelet/routelet.sock"));
        let out = command.output().unwrap();
        out.status.success().then(|| serde_json::from_slice(&out.stdout).expect("JSON"))
    }

    /// State of routelet's session with `address`.
    pub fn session(&self, address: &str) -> Option<String> {
        let all = self.routelet(&["show", "neighbors"])?;
        let one = all.as_array()?.iter().find(|n| n["address"] == address)?;
        Some(one["state"].as_str()?.to_owned())
    }

    /// The containerd id of routelet's container that runs.
    pub fn container(&self) -> Option<String> {
        let ctr = |args: &[&str]| run(self.command("ctr").args(["-n", "k8s.io"]).args(args));
        let ours = ctr(&["containers", "ls", "-q", "labels.\"io.kubernetes.container.name\"==routelet"]);
        let tasks = ctr(&["tasks", "ls"]);
        let runs = |id: &&str| tasks.lines().any(|l| l.starts_with(*id) && l.contains("RUNNING"));
        ours.lines().find(runs).map(str::to_owned)
    }

    /// A signal to routelet by way of the container runtime: no API server is asked.
    pub fn signal_routelet(&self, signal: &str) {
        let id = self.container().unwrap_or_else(|| panic!("{}: no routelet runs", self.name));
        run(self.command("ctr").args(["-n", "k8s.io", "tasks", "kill", "-s", signal, &id]));
    }

    /// The kubelet ends, containers go on.
    pub fn stop_kubelet(&self) {
        let pid = fs::read_to_string(self.dir.join("kubelet.pid")).expect("a kubelet was started");
        let inside = format!("kill -KILL {}", pid.trim());
        run(Command::new("nsenter").args(["--target", &self.init.to_string(), "--pid", "sh", "-c", &inside]));
    }

    /// Everything on it ends at once, without a word.
    pub fn off(&mut self) {
        if self.process.alive() {
            run(Command::new("kill").args(["-KILL", &self.init.to_string()]));
            wait_for("the machine is off", 30.0, || (!self.process.alive()).then_some(()));
        }
    }

    /// Why something may have gone wrong here.
    pub fn diagnosis(&self) -> String {
        let tail = |file: &str| {
            let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(12).collect();
            lines.into_iter().rev().fold(format!("--- {} {file}\n", self.name), |all, l| all + l + "\n")
        };
        ["kubelet.log", "kube-proxy.log", "containerd.log"].map(tail).concat()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let containers = self.dir.join("run/containerd/io.containerd.runtime.v2.task/k8s.io");
        let ids: Vec<_> =
            fs::read_dir(containers).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        self.off();
        // What the kernel does not clear away by itself.
        for id in ids {
            let id = id.to_string_lossy().into_owned();
            let sweep = format!("rmdir /sys/fs/cgroup/*/k8s.io/{id} /sys/fs/cgroup/k8s.io/{id}");
            let _ = Command::new("sh").args(["-c", &sweep]).output();
        }
    }
}

/// As kubeadm leaves a machine.
fn prepare(ns: &Ns) {
    for key in [
        "net.ipv4.ip_forward",
        "net.ipv6.conf.all.forwarding",
        // Answers between two pods of one bridge must pass kube-proxy's rules.
        "net.bridge.bridge-nf-call-iptables",
        "net.bridge.bridge-nf-call-ip6tables",
    ] {
        ns.sysctl(key, "1");
    }
}
