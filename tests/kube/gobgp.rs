//! GoBGP of the test kit in a namespace: a reflector, or a second speaker on a node.

use std::{fs, path::PathBuf};

use crate::{
    cluster::kit,
    common::{
        Process,
        net::{Net, Ns},
        wait_for,
    },
};

pub struct GoBgp {
    pub process: Process,
    ns: Ns,
}

/// A part of its configuration for a neighbor: both families.
pub const BOTH_FAMILIES: &str = "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
                                 [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n\
                                 [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv6-unicast\"\n\
                                 [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n";

impl GoBgp {
    pub fn start(net: &Net, ns: &Ns, config: &str) -> Self {
        let dir: PathBuf = net.dir().join(format!("{}-gobgp", ns.name));
        fs::create_dir_all(&dir).unwrap();
        let conf = dir.join("gobgpd.toml");
        fs::write(&conf, config).unwrap();
        let mut command = ns.command(kit().join("gobgpd").to_str().unwrap());
        command.arg("-f").arg(&conf).args(["--api-hosts", "127.0.0.1:50051", "--pprof-disable"]);
        let this = Self { process: Process::start(&mut command, &dir.join("log")), ns: ns.clone() };
        wait_for("gobgpd answers", 30.0, || this.cli("global").ok());
        this
    }

    /// A command of its client: what it printed, or its complaint.
    pub fn cli(&self, words: &str) -> Result<String, String> {
        let mut command = self.ns.command(kit().join("gobgp").to_str().unwrap());
        let out = command
            .args(["-u", "127.0.0.1", "-p", "50051"])
            .args(words.split_whitespace())
            .output()
            .expect("tests/run builds it");
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        if out.status.success() { Ok(text) } else { Err(text) }
    }

    /// Announces a prefix, with this next hop or its own address on the session.
    pub fn announce(&self, prefix: &str, next_hop: Option<&str>) {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let hop = next_hop.map(|h| format!("nexthop {h}")).unwrap_or_default();
        self.cli(&format!("global rib add -a {family} {prefix} {hop}")).unwrap_or_else(|e| panic!("{e}"));
    }
}
