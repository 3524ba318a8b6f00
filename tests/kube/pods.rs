//! Pods as a container runtime makes them: `cnitool` with the conflist that routelet wrote.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    cluster::kit,
    common::{
        net::{Net, Ns},
        run,
    },
};

/// The name of the network in our conflist.
const OURS: &str = "routelet";

/// Where one node's runtime keeps its things.
pub struct Runtime {
    node: Ns,
    conf_dir: PathBuf,
    leases: PathBuf,
}

/// A namespace with an address of its node's range.
pub struct Pod {
    pub ns: Ns,
    pub addresses: Vec<String>,
}

impl Runtime {
    pub fn new(net: &Net, node: &Ns, conf_dir: &Path) -> Self {
        let leases = net.dir().join(format!("{}-leases", node.name));
        fs::create_dir_all(&leases).unwrap();
        fs::create_dir_all("/var/lib/cni").unwrap();
        Self { node: node.clone(), conf_dir: conf_dir.to_owned(), leases }
    }

    /// Makes a pod, or says why the plugins would not.
    pub fn add(&self, net: &mut Net, name: &str) -> Result<Pod, String> {
        self.add_to(net, name, OURS)
    }

    /// By the plugins of this folder.
    pub fn add_by(&self, net: &mut Net, name: &str, plugins: &Path) -> Result<Pod, String> {
        self.add_with(net, name, OURS, plugins)
    }

    /// What is /var/lib/cni to the runtime.
    pub fn leases(&self) -> &Path {
        &self.leases
    }

    /// By the conflist of another agent.
    pub fn add_to(&self, net: &mut Net, name: &str, network: &str) -> Result<Pod, String> {
        self.add_with(net, name, network, &kit().join("cni"))
    }

    fn add_with(&self, net: &mut Net, name: &str, network: &str, plugins: &Path) -> Result<Pod, String> {
        let ns = net.ns(name);
        let out = self.cnitool("add", network, &ns).env("CNI_PATH", plugins).output().unwrap();
        if !out.status.success() {
            let text = [out.stdout, out.stderr].concat();
            return Err(String::from_utf8_lossy(&text).into_owned());
        }
        let result: Value = serde_json::from_slice(&out.stdout).unwrap();
        let ips = result["ips"].as_array().cloned().unwrap_or_default();
        let plain = |ip: &Value| Some(ip["address"].as_str()?.split('/').next()?.to_owned());
        Ok(Pod { ns, addresses: ips.iter().filter_map(plain).collect() })
    }

    pub fn delete(&self, pod: &Pod) {
        run(&mut self.cnitool("del", OURS, &pod.ns));
    }

    /// The addresses that a network has given out are given out in ours, too.
    pub fn copy_leases(&self, network: &str) {
        let networks = self.leases.join("networks");
        fs::create_dir_all(networks.join(OURS)).unwrap();
        run(Command::new("cp").arg("-a").arg(networks.join(network).join(".")).arg(networks.join(OURS)));
    }

    /// The leases of `host-local` lie under /var/lib/cni: each node of a test gets its own.
    fn cnitool(&self, verb: &str, network: &str, pod: &Ns) -> Command {
        let mut command = self.node.command("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg(format!(
            "mount --bind {} /var/lib/cni && exec {} {verb} {network} /run/netns/{}",
            self.leases.display(),
            kit().join("cnitool").display(),
            pod.name
        ));
        command.env("CNI_PATH", kit().join("cni")).env("NETCONFPATH", &self.conf_dir);
        command
    }
}
