//! The daemons that are compared, each with the plainest configuration that does the same: take all, install all,
//! pass all on if there is somebody to pass it on to, wait for neighbors to call, no graceful restart.

use std::{fmt::Write as _, fs, path::PathBuf, process::Command};

use super::neighbor::{DAEMON, DAEMON_AS, address, asn};
use crate::common::{
    Process,
    daemons::{Bird, Frr, Routelet},
    net::{Net, Ns},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Routelet,
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Routelet, Self::Bird, Self::Frr, Self::Gobgp, Self::Openbgpd];

    pub fn name(self) -> &'static str {
        match self {
            Self::Routelet => "routelet",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Gobgp => "GoBGP",
            Self::Openbgpd => "OpenBGPD",
        }
    }

    /// Whether it fills the kernel's table by itself, as configured here.
    pub fn has_fib(self) -> bool {
        matches!(self, Self::Routelet | Self::Bird | Self::Frr)
    }

    pub fn version(self) -> String {
        let (program, args): (&str, &[&str]) = match self {
            Self::Routelet => (env!("CARGO_BIN_EXE_routelet"), &["--version"]),
            Self::Bird => ("bird", &["--version"]),
            Self::Frr => ("/usr/lib/frr/bgpd", &["--version"]),
            Self::Gobgp => ("gobgpd", &["--version"]),
            Self::Openbgpd => ("bgpd", &["-V"]),
        };
        let Ok(out) = Command::new(program).args(args).output() else { return "not installed".into() };
        let text = [out.stdout, out.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
    }

    /// For `neighbors` neighbors.
    pub fn config(self, neighbors: u32, dir: &str) -> String {
        let all = 1..=neighbors;
        let mut out = String::new();
        let transit = neighbors > 1;
        let export = if transit { "all" } else { "none" };
        match self {
            Self::Routelet => {
                let _ = write!(
                    out,
                    "[bgp]\nas = {DAEMON_AS}\nrouter-id = \"{DAEMON}\"\ngraceful-restart = false\n\
                     [bgp.group.n]\ntransit = {transit}\npassive = true\nmax-prefixes = 5000000\n"
                );
                for n in all {
                    let _ = write!(
                        out,
                        "[[bgp.neighbor]]\ngroup = \"n\"\naddress = \"{}\"\nremote-as = {}\n",
                        address(n),
                        asn(n)
                    );
                }
            }
            Self::Bird => {
                let _ = write!(
                    out,
                    "router id {DAEMON};\nprotocol device {{}}\nprotocol kernel {{ ipv4 {{ export all; }}; }}\n\
                     protocol kernel {{ ipv6 {{ export all; }}; }}\ntemplate bgp n {{ local {DAEMON} as {DAEMON_AS}; passive on; \
                     graceful restart off; ipv4 {{ import all; export {export}; }}; ipv6 {{ import all; export none; }}; }}\n"
                );
                for n in all {
                    let _ = writeln!(
                        out,
                        "protocol bgp n{n} from n {{ neighbor {} as {}; }}",
                        address(n),
                        asn(n)
                    );
                }
            }
            Self::Frr => {
                let _ = write!(
                    out,
                    "router bgp {DAEMON_AS}\n bgp router-id {DAEMON}\n no bgp ebgp-requires-policy\n neighbor n peer-group\n neighbor n passive\n"
                );
                for n in all {
                    let _ = write!(
                        out,
                        " neighbor {a} remote-as {}\n neighbor {a} peer-group n\n",
                        asn(n),
                        a = address(n)
                    );
                }
                if !transit {
                    out += " neighbor n route-map none out\n";
                }
                out += " address-family ipv6 unicast\n  neighbor n activate\n";
                out += if transit { "" } else { "  neighbor n route-map none out\n" };
                out += " exit-address-family\nexit\nroute-map none deny 1\n";
            }
            Self::Gobgp => {
                let _ =
                    write!(out, "[global.config]\nas = {DAEMON_AS}\nrouter-id = \"{DAEMON}\"\nport = 179\n");
                for n in all {
                    let _ = write!(
                        out,
                        "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n[neighbors.transport.config]\npassive-mode = true\n",
                        address(n),
                        asn(n)
                    );
                }
            }
            Self::Openbgpd => {
                let _ = write!(
                    out,
                    "AS {DAEMON_AS}\nrouter-id {DAEMON}\nlisten on {DAEMON}\nsocket \"{dir}/ctl\"\nfib-update no\n"
                );
                for n in all {
                    let _ = write!(
                        out,
                        "neighbor {} {{\n remote-as {}\n passive\n announce IPv4 unicast\n}}\n",
                        address(n),
                        asn(n)
                    );
                }
                out += "allow from any\nallow to any\n";
            }
        }
        out
    }
}

/// One that runs.
#[expect(dead_code, reason = "held until the measurement is over")]
enum Handle {
    Routelet(Routelet),
    Bird(Bird),
    Frr(Frr),
    Other(Process),
}

pub struct Subject {
    _handle: Handle,
    pids: Vec<u32>,
}

impl Subject {
    pub fn start(kind: Kind, net: &Net, ns: &Ns, neighbors: u32) -> Self {
        let dir: PathBuf = net.dir().join("subject");
        fs::create_dir_all(&dir).expect("a folder");
        let text = kind.config(neighbors, dir.to_str().expect("plain letters"));
        let plain = |program: &str, args: &[&str]| {
            let file = dir.join("conf");
            fs::write(&file, &text).expect("a writable folder");
            Process::start(ns.command(program).args(args).arg(&file), &dir.join("log"))
        };
        let handle = match kind {
            Kind::Routelet => Handle::Routelet(Routelet::start(net, ns, &text, &[])),
            Kind::Bird => Handle::Bird(Bird::start(net, ns, &text)),
            Kind::Frr => Handle::Frr(Frr::start(net, ns, &text)),
            Kind::Gobgp => Handle::Other(plain("gobgpd", &["-l", "error", "--pprof-disable", "-f"])),
            Kind::Openbgpd => Handle::Other(plain("bgpd", &["-d", "-f"])),
        };
        let pids = match &handle {
            Handle::Routelet(r) => vec![r.process.pid()],
            Handle::Bird(b) => vec![b.process.pid()],
            Handle::Frr(_) => ["zebra", "bgpd"].iter().map(|d| frr_pid(net, ns, d)).collect(),
            Handle::Other(p) => vec![p.pid()],
        };
        Self { _handle: handle, pids }
    }

    pub fn pid(&self) -> u32 {
        self.pids[0]
    }

    /// Its processes, children too.
    fn all(&self) -> Vec<u32> {
        let mut all = self.pids.clone();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent =
                stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(1)?.parse::<u32>().ok());
            if parent.is_some_and(|p| self.pids.contains(&p)) {
                all.push(pid);
            }
        }
        all
    }

    /// CPU seconds of all threads that live.
    pub fn cpu(&self) -> f64 {
        let mut nanoseconds = 0.0;
        for pid in self.all() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                nanoseconds +=
                    text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
            }
        }
        nanoseconds / 1e9
    }

    /// Proportional set size in KiB.
    pub fn pss(&self) -> f64 {
        let one = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or_default().trim();
            line.trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0)
        };
        self.all().into_iter().map(one).sum()
    }
}

fn frr_pid(net: &Net, ns: &Ns, daemon: &str) -> u32 {
    let file = net.dir().join(format!("{}-frr", ns.name)).join(format!("{daemon}.pid"));
    fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok()).expect("FRR writes its process id")
}
