//! The daemons compared, each with the plainest configuration that does the same and suits it best:
//! accept and install all routes, advertise them to the others if there are any, and wait for
//! connections.

use std::{fmt::Write as _, path::Path, process::Command};

use crate::common::{packaged_program, speaker_program};

use super::messages::{DAEMON, DAEMON_AS, address, asn, daemon};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Routelet,
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
    /// The newest releases, as `tests/kit/releases.sh` unpacks them from Debian sid.
    Bird2Newest,
    Bird3,
    FrrNewest,
    GobgpNewest,
    OpenbgpdNewest,
    /// No daemon: the limits of the kernel and the neighbors.
    Bare,
}

/// What the daemon has to do.
#[derive(Clone, Default)]
pub struct Case {
    pub neighbors: Vec<u32>,
    /// Routes of one neighbor are advertised to the others.
    pub transit: bool,
    /// Routes use all neighbors that advertise them.
    pub multipath: bool,
    /// Graceful restart.
    pub restarts: bool,
    /// Neighbors that BFD watches, 50 ms × 3.
    pub bfd: Vec<u32>,
}

impl Case {
    /// With one neighbor nothing is advertised.
    pub fn of(neighbors: u32) -> Self {
        Self { neighbors: (1..=neighbors).collect(), transit: neighbors > 1, ..Self::default() }
    }
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Routelet,
        Self::Bird,
        Self::Frr,
        Self::Gobgp,
        Self::Openbgpd,
        Self::Bird2Newest,
        Self::Bird3,
        Self::FrrNewest,
        Self::GobgpNewest,
        Self::OpenbgpdNewest,
        Self::Bare,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Routelet => "routelet",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Gobgp => "GoBGP",
            Self::Openbgpd => "OpenBGPD",
            Self::Bird2Newest => "bird2.20",
            Self::Bird3 => "bird3",
            Self::FrrNewest => "frr10",
            Self::GobgpNewest => "gobgp4",
            Self::OpenbgpdNewest => "openbgpd9",
            Self::Bare => "bare",
        }
    }

    /// The packaged daemon whose configuration and options it shares.
    pub fn packaged(self) -> Self {
        match self {
            Self::Bird2Newest | Self::Bird3 => Self::Bird,
            Self::FrrNewest => Self::Frr,
            Self::GobgpNewest => Self::Gobgp,
            Self::OpenbgpdNewest => Self::Openbgpd,
            packaged => packaged,
        }
    }

    /// Whether its programs are those of `$ROUTELET_SPEAKERS`.
    pub fn is_newest(self) -> bool {
        self.packaged() != self
    }

    /// Whether it fills the kernel's table by itself in this configuration.
    pub fn has_fib(self) -> bool {
        matches!(self.packaged(), Self::Routelet | Self::Bird | Self::Frr)
    }

    pub fn version(self) -> String {
        let program = if self.is_newest() { speaker_program } else { packaged_program };
        let (program, option) = match self.packaged() {
            Self::Routelet => (env!("CARGO_BIN_EXE_routelet").into(), "--version"),
            Self::Bird if self == Self::Bird3 => (program("bird3"), "--version"),
            Self::Bird => (program("bird"), "--version"),
            Self::Frr => (program("bgpd"), "--version"),
            Self::Gobgp => (program("gobgpd"), "--version"),
            Self::Openbgpd => (program("openbgpd"), "-V"),
            _ => return "only writes routes, or only passes octets on".into(),
        };
        let Ok(out) = Command::new(program).arg(option).output() else {
            return "not installed: run tests/run once".into();
        };
        let text = [out.stdout, out.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
    }

    pub fn config(self, case: &Case, dir: &Path) -> String {
        match self.packaged() {
            Self::Routelet => routelet(case),
            Self::Bird => bird(case),
            Self::Frr => frr(case),
            Self::Gobgp => gobgp(case),
            Self::Openbgpd => openbgpd(case, dir),
            _ => String::new(),
        }
    }
}

fn routelet(case: &Case) -> String {
    let mut out = format!(
        "[bgp]\nas = {DAEMON_AS}\nrouter-id = \"{DAEMON}\"\ngraceful-restart = {}\n\
         [bgp.group.n]\ntransit = {}\npassive = true\nmax-prefixes = 5000000\n",
        case.restarts, case.transit
    );
    for n in &case.neighbors {
        let (address, asn) = (address(*n), asn(*n));
        let bfd =
            if case.bfd.contains(n) { "bfd = { min-tx = 50, min-rx = 50, multiplier = 3 }\n" } else { "" };
        let _ =
            write!(out, "[[bgp.neighbor]]\ngroup = \"n\"\naddress = \"{address}\"\nremote-as = {asn}\n{bfd}");
    }
    out
}

/// The session ends with the carrier (`check link`); kernel routes stay over a restart.
fn bird(case: &Case) -> String {
    let export = if case.transit { "all" } else { "none" };
    let merge = if case.multipath { "merge paths on limit 64;" } else { "" };
    let (link, keep, restart) = (
        if case.multipath { "check link on;" } else { "" },
        if case.restarts { "persist; graceful restart on;" } else { "" },
        if case.restarts { "on" } else { "off" },
    );
    let mut out = format!(
        "router id {DAEMON};\nprotocol device {{}}\n\
         protocol kernel {{ {merge} {keep} scan time 60; ipv4 {{ export all; }}; }}\n\
         protocol kernel {{ {merge} {keep} scan time 60; ipv6 {{ export all; }}; }}\n\
         template bgp n {{ local as {DAEMON_AS}; passive on; direct; {link} graceful restart {restart}; \
         ipv4 {{ import all; export {export}; }}; ipv6 {{ import all; export none; }}; }}\n"
    );
    if !case.bfd.is_empty() {
        out +=
            "protocol bfd { interface \"*\" { interval 50 ms; idle tx interval 50 ms; multiplier 3; }; }\n";
    }
    for n in &case.neighbors {
        let bfd = if case.bfd.contains(n) { "bfd on; " } else { "" };
        let _ = writeln!(
            out,
            "protocol bgp n{n} from n {{ {bfd}local {}; neighbor {} as {}; }}",
            daemon(*n),
            address(*n),
            asn(*n)
        );
    }
    out
}

fn frr(case: &Case) -> String {
    let mut out = format!(
        "router bgp {DAEMON_AS}\n bgp router-id {DAEMON}\n no bgp ebgp-requires-policy\n \
         bgp bestpath as-path multipath-relax\n neighbor n peer-group\n neighbor n passive\n"
    );
    if case.restarts {
        out += " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n";
    }
    for n in &case.neighbors {
        let a = address(*n);
        let _ = write!(out, " neighbor {a} remote-as {}\n neighbor {a} peer-group n\n", asn(*n));
    }
    let (silent, paths) = (
        if case.transit { "" } else { "  neighbor n route-map none out\n" },
        if case.multipath { 64 } else { 1 },
    );
    let _ = write!(
        out,
        " address-family ipv4 unicast\n  maximum-paths {paths}\n{silent} exit-address-family\n \
         address-family ipv6 unicast\n  neighbor n activate\n{silent} exit-address-family\n\
         exit\nroute-map none deny 1\n"
    );
    out
}

fn gobgp(case: &Case) -> String {
    let mut out = format!("[global.config]\nas = {DAEMON_AS}\nrouter-id = \"{DAEMON}\"\nport = 179\n");
    for n in &case.neighbors {
        let _ = write!(
            out,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n\
             [neighbors.transport.config]\npassive-mode = true\n",
            address(*n),
            asn(*n)
        );
    }
    out
}

fn openbgpd(case: &Case, dir: &Path) -> String {
    let mut out = format!(
        "AS {DAEMON_AS}\nrouter-id {DAEMON}\nlisten on {DAEMON}\nsocket \"{}/ctl\"\nfib-update no\n",
        dir.display()
    );
    for n in &case.neighbors {
        let (address, asn) = (address(*n), asn(*n));
        let _ =
            write!(out, "neighbor {address} {{\n remote-as {asn}\n passive\n announce IPv4 unicast\n}}\n");
    }
    out + "allow from any\nallow to any\n"
}
