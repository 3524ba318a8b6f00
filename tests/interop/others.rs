//! The five daemons that we talk to: how each is told what a case asks for, and how it says what it has.

use std::{fmt::Write, fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use crate::{
    common::{
        Process,
        daemons::{Bird, Frr},
        net::{Net, Ns},
        run, speaker_program, speakers, wait_for,
    },
    kit,
};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Bird,
    Frr,
    GoBgp,
    OpenBgpd,
    ExaBgp,
    /// Version 3, where `speakers` has it beside version 2.
    Bird3,
}

/// Who reflects for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    None,
    /// They reflect; we are a client, and so is a second routelet.
    Reflector,
    /// We reflect; they are a client, and so is a second routelet.
    Client,
}

/// What a session is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    pub ibgp: bool,
    pub over_ipv6: bool,
    pub role: Role,
    pub password: bool,
    pub gtsm: bool,
    pub add_path: bool,
    pub extended: bool,
    pub two_octet: bool,
    pub graceful: bool,
    /// Learned routes go into their kernel.
    pub install: bool,
    /// They were here before.
    pub back: bool,
    /// They ask for our routes again.
    pub asks: bool,
    /// tshark looks on.
    pub capture: bool,
}

pub const OURS: u32 = 65001;
/// Numbers of more than two octets: of a network behind us, and of one behind them.
pub const LARGE: u32 = 4_200_000_001;
pub const FAR: u32 = 4_200_000_002;
/// Communities and large communities of a route whose message is to be longer than 4096 octets.
pub const MANY: [u32; 2] = [1000, 100];
const PASSWORD: &str = "sesame";

impl Setup {
    /// Communities of each route, `65002:1` and up, and large ones, `65002:1:1` and up.
    pub fn communities(&self) -> [Vec<String>; 2] {
        let list = |start: &str, many: u32| (1..=many).map(|n| format!("{start}{n}")).collect();
        let [plain, large] = if self.extended { MANY } else { [0, 0] };
        [list("65002:", plain), list("65002:1:", large)]
    }

    pub fn their_as(&self) -> u32 {
        if self.ibgp { OURS } else { 65002 }
    }

    /// Address of our end, theirs, and that of the second routelet: `n` 1, 2 and 3.
    pub fn address(&self, n: u32) -> String {
        if self.over_ipv6 { format!("2001:db8:1::{n}") } else { format!("10.1.0.{n}") }
    }

    /// Those that the other daemon has sessions with.
    fn neighbors(&self) -> Vec<String> {
        let second = (self.role == Role::Reflector).then(|| self.address(3));
        [self.address(1)].into_iter().chain(second).collect()
    }
}

impl Kind {
    pub fn all() -> [Self; 5] {
        let last = if speakers().is_some() { Self::Bird3 } else { Self::ExaBgp };
        [Self::Bird, Self::Frr, Self::GoBgp, Self::OpenBgpd, last]
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bird | Self::Bird3 => "BIRD",
            Self::Frr => "FRR",
            Self::GoBgp => "GoBGP",
            Self::OpenBgpd => "OpenBGPD",
            Self::ExaBgp => "ExaBGP",
        }
    }

    /// The first words that look like a version.
    pub fn version(self) -> String {
        let (program, arg) = match self {
            Self::Bird => (speaker_program("bird"), "--version"),
            Self::Bird3 => (speaker_program("bird3"), "--version"),
            Self::Frr => (speaker_program("bgpd"), "--version"),
            Self::GoBgp => (gobgp("gobgpd"), "--version"),
            Self::OpenBgpd => (speaker_program("openbgpd"), "-V"),
            Self::ExaBgp => ("exabgp".into(), "--version"),
        };
        let out = Command::new(program).arg(arg).output().expect("tests/run installs it");
        let text = [out.stdout, out.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let numbers = text.split(|c: char| c.is_whitespace());
        let version =
            numbers.filter(|w| w.contains('.')).find(|w| w.starts_with(|c: char| c.is_ascii_digit()));
        version.unwrap_or("?").to_owned()
    }

    /// Why it cannot do what is asked, where it cannot.
    pub fn lacks(self, setup: &Setup) -> Option<&'static str> {
        let no = |lacks: bool, why| lacks.then_some(why);
        match self {
            Self::Bird | Self::Bird3 | Self::Frr => None,
            Self::GoBgp => no(setup.extended, "no RFC 8654")
                .or(no(setup.two_octet, "always four octets"))
                .or(no(setup.install, "no kernel routes"))
                .or(no(setup.asks, "no command for it")),
            Self::OpenBgpd => no(setup.extended, "no RFC 8654").or(no(setup.graceful, "End-of-RIB only")),
            Self::ExaBgp => no(setup.asks, "no command for it")
                .or(no(setup.role == Role::Reflector, "no table of its own"))
                .or(no(setup.graceful && setup.install, "no table of its own")),
        }
    }

    /// Whether their IPv4 (0) or IPv6 (1) routes come over the session. OpenBGPD takes the next hop of the session's
    /// own family only; over IPv6 not all find an IPv4 next hop; FRR's two-octet sessions are of IPv4 alone.
    pub fn brings(self, family: usize, setup: &Setup) -> bool {
        match family {
            0 => !setup.over_ipv6,
            _ => setup.over_ipv6 || self != Self::OpenBgpd && !setup.two_octet,
        }
    }

    pub fn start(self, net: &Net, ns: &Ns, setup: &Setup) -> Other {
        let dir = net.dir().join(format!("{}-other", ns.name));
        fs::create_dir_all(&dir).unwrap();
        let text = self.config(setup, &dir);
        let running = match self {
            Self::Bird | Self::Bird3 => {
                let programs = if self == Self::Bird { ("bird", "birdc") } else { ("bird3", "bird3c") };
                let options: &[&str] = if setup.back { &["-R"] } else { &[] };
                Running::Bird(Bird::start_program(programs, net, ns, &text, options))
            }
            Self::Frr => Running::Frr(Frr::start(net, ns, &text)),
            Self::GoBgp => gobgpd(ns, &dir, &text, setup.back),
            Self::OpenBgpd => openbgpd(ns, &dir, &text),
            Self::ExaBgp => exabgp(ns, &dir, &text),
        };
        Other { running, dir, ns: ns.clone() }
    }

    fn config(self, setup: &Setup, dir: &std::path::Path) -> String {
        match self {
            Self::Bird | Self::Bird3 => bird_config(setup),
            Self::Frr => frr_config(setup),
            Self::GoBgp => gobgp_config(setup),
            Self::OpenBgpd => openbgpd_config(setup, dir),
            Self::ExaBgp => exabgp_config(setup, dir),
        }
    }
}

fn bird_config(s: &Setup) -> String {
    let mut text = String::from(
        "router id 10.0.0.2;\nprotocol device { scan time 1; }\n\
         protocol static { ipv4; route 10.200.0.0/16 unreachable; }\n\
         protocol static { ipv6; route 2001:db8:200::/48 unreachable; }\n",
    );
    if s.ibgp {
        text += "protocol direct { ipv4; ipv6; }\n";
    }
    if s.install {
        text += "protocol kernel { ipv4 { export all; }; }\nprotocol kernel { ipv6 { export all; }; }\n";
    }
    for (n, neighbor) in s.neighbors().iter().enumerate() {
        let _ = writeln!(
            text,
            "protocol bgp n{n} {{ local {} as {}; neighbor {neighbor} as {};\n\
             connect retry time 1; connect delay time 1; error wait time 1, 2; hold time 9; graceful restart {};\n\
             enable extended messages {}; enable as4 {};",
            s.address(2),
            s.their_as(),
            OURS,
            on(s.graceful),
            on(s.extended),
            on(!s.two_octet),
        );
        text += if s.password { "password \"sesame\";\n" } else { "" };
        text += if s.gtsm { "ttl security on;\n" } else { "" };
        text += if s.role == Role::Reflector { "rr client;\n" } else { "" };
        let paths = if s.add_path { "add paths on;" } else { "" };
        let mut export = String::new();
        for (attribute, list) in ["bgp_community", "bgp_large_community"].iter().zip(s.communities()) {
            for community in list {
                let _ = write!(export, "{attribute}.add(({}));", community.replace(':', ","));
            }
        }
        export += &if s.two_octet { format!("bgp_path.prepend({FAR});") } else { String::new() };
        let _ = writeln!(
            text,
            "ipv4 {{ import all; export filter {{ {export} accept; }}; next hop address 10.1.0.2; {paths} }};\n\
             ipv6 {{ import all; export filter {{ {export} accept; }}; next hop address 2001:db8:1::2; {paths} }};\n}}"
        );
        if s.role == Role::Reflector {
            // Own next hops would hide those of the clients.
            text = text.replace("next hop address 10.1.0.2;", "next hop keep;");
            text = text.replace("next hop address 2001:db8:1::2;", "next hop keep;");
        }
    }
    text
}

fn on(yes: bool) -> &'static str {
    if yes { "on" } else { "off" }
}

fn frr_config(s: &Setup) -> String {
    let mut policy = String::new();
    let [plain, large] = s.communities();
    for (n, part) in (1..).zip(plain.chunks(100)) {
        let part = part.join(" ");
        let _ = write!(policy, "route-map own permit {n}\n set community {part} additive\n on-match next\n");
    }
    policy += "route-map own permit 100\n";
    if s.extended {
        let _ = writeln!(policy, " set large-community {}", large.join(" "));
    }
    policy += &if s.two_octet { format!(" set as-path prepend {FAR}\n") } else { String::new() };
    let mut text = format!(
        "router bgp {}\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n no bgp network import-check\n\
         {}",
        s.their_as(),
        if s.graceful { " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n" } else { "" }
    );
    let neighbors = s.neighbors();
    for n in &neighbors {
        let _ = write!(
            text,
            " neighbor {n} remote-as {}\n neighbor {n} timers 3 9\n neighbor {n} timers connect 1\n",
            OURS
        );
        text += &if s.password { format!(" neighbor {n} password {PASSWORD}\n") } else { String::new() };
        text += &if s.gtsm { format!(" neighbor {n} ttl-security hops 1\n") } else { String::new() };
        // FRR knows no other way to leave RFC 6793 out.
        text +=
            &if s.two_octet { format!(" neighbor {n} dont-capability-negotiate\n") } else { String::new() };
    }
    for (family, network) in [("ipv4", "10.200.0.0/16"), ("ipv6", "2001:db8:200::/48")] {
        let _ = write!(text, " address-family {family} unicast\n  network {network} route-map own\n");
        for n in &neighbors {
            let _ = writeln!(text, "  neighbor {n} activate");
            if s.role == Role::Reflector {
                let _ = writeln!(text, "  neighbor {n} route-reflector-client");
            }
            if s.add_path {
                let _ = writeln!(text, "  neighbor {n} addpath-tx-all-paths");
            }
        }
        text += " exit-address-family\n";
    }
    // What is not there yet when a network names it lets nothing pass, for seconds.
    policy + &text
}

fn gobgp_config(s: &Setup) -> String {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"10.0.0.2\"\nlocal-address-list = [\"{}\"]\n",
        s.their_as(),
        s.address(2)
    );
    for n in s.neighbors() {
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{n}\"\npeer-as = {OURS}\n{}\
             [neighbors.timers.config]\nconnect-retry = 1\nhold-time = 9\nkeepalive-interval = 3\n\
             idle-hold-time-after-reset = 1\n[neighbors.transport.config]\nlocal-address = \"{}\"\n",
            if s.password { format!("auth-password = \"{PASSWORD}\"\n") } else { String::new() },
            s.address(2),
        );
        if s.gtsm {
            text += "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
        }
        if s.role == Role::Reflector {
            text += "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                     route-reflector-cluster-id = \"10.0.0.2\"\n";
        }
        if s.graceful {
            text += "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\n";
        }
        for family in ["ipv4-unicast", "ipv6-unicast"] {
            let _ = write!(
                text,
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}\"\n"
            );
            if s.graceful {
                text += "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n";
            }
            if s.add_path {
                text += "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n";
            }
        }
    }
    text
}

fn openbgpd_config(s: &Setup, dir: &std::path::Path) -> String {
    let mut text = format!(
        "AS {}\nrouter-id 10.0.0.2\nfib-update no\nlisten on {}\nsocket \"{}/ctl\"\nconnect-retry 1\n\
         network 10.200.0.0/16\nnetwork 2001:db8:200::/48\n",
        s.their_as(),
        s.address(2),
        dir.display()
    );
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    for n in s.neighbors() {
        let _ = write!(
            text,
            "neighbor {n} {{\nremote-as {}\nenforce neighbor-as no\nlocal-address {}\nholdtime 9\nannounce IPv4 unicast\n\
             announce IPv6 unicast\nannounce enhanced refresh yes\nannounce as-4byte {}\nttl-security {}\n",
            OURS,
            s.address(2),
            yes(!s.two_octet),
            yes(s.gtsm)
        );
        text += if s.password { "tcp md5sig password sesame\n" } else { "" };
        text += if s.role == Role::Reflector { "route-reflector\n" } else { "" };
        text += if s.add_path { "announce add-path recv yes\nannounce add-path send all\n" } else { "" };
        text += "}\n";
    }
    text += "allow from any\nallow to any\n";
    text.replace("connect-retry 1\n", "")
}

fn exabgp_config(s: &Setup, dir: &std::path::Path) -> String {
    let script = dir.join("listen");
    // Its standard input does not block, which ends simpler programs.
    let listen = "#!/usr/bin/python3\nimport sys\nwith open(sys.argv[0] + '.heard', 'a', 1) as f:\n  for line in iter(sys.stdin.readline, ''):\n    f.write(line)\n";
    fs::write(&script, listen).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut text = format!("process log {{ run {}; encoder json; }}\n", script.display());
    let asn4 = if s.two_octet { "disable" } else { "enable" };
    let mut more = String::new();
    if s.extended {
        let [plain, large] = s.communities().map(|list| list.join(" "));
        let _ = write!(more, " community [ {plain} ] large-community [ {large} ]");
    }
    if s.two_octet {
        let _ = write!(more, " as-path [ {} {FAR} ]", s.their_as());
    }
    for n in s.neighbors() {
        let _ = write!(
            text,
            "neighbor {n} {{\nrouter-id 10.0.0.2;\nlocal-address {};\nlocal-as {};\npeer-as {};\nhold-time 9;\n\
             {}{}family {{ ipv4 unicast; ipv6 unicast; }}\n\
             capability {{ asn4 {asn4}; route-refresh enable; {}{}{}}}\n\
             api {{ processes [ log ]; receive {{ parsed; update; refresh; }} }}\n\
             static {{ route 10.200.0.0/16 next-hop 10.1.0.2{more}; route 2001:db8:200::/48 next-hop 2001:db8:1::2{more}; }}\n}}\n",
            s.address(2),
            s.their_as(),
            OURS,
            if s.password { "md5-password \"sesame\";\n" } else { "" },
            if s.gtsm { "outgoing-ttl 255;\nincoming-ttl 255;\n" } else { "" },
            if s.graceful { "graceful-restart 60; " } else { "" },
            if s.add_path { "add-path send/receive; " } else { "" },
            if s.extended { "extended-message enable; " } else { "extended-message disable; " },
        );
    }
    text
}

/// GoBGP's daemon or client.
pub fn gobgp(name: &str) -> PathBuf {
    if speakers().is_some() { speaker_program(name) } else { kit::tool(name) }
}

fn gobgpd(ns: &Ns, dir: &std::path::Path, text: &str, back: bool) -> Running {
    let conf = dir.join("gobgpd.toml");
    fs::write(&conf, text).unwrap();
    let mut this = Other { running: Running::None, dir: dir.to_owned(), ns: ns.clone() };
    let mut command = ns.command(gobgp("gobgpd").to_str().unwrap());
    command.args(["-f"]).arg(&conf).args(["--api-hosts", "127.0.0.1:50051", "--pprof-disable"]);
    command.args(back.then_some("--graceful-restart"));
    this.running = Running::Process(Kind::GoBgp, Process::start(&mut command, &dir.join("log")));
    wait_for("gobgpd answers", 15.0, || this.gobgp("global").ok());
    for (family, prefix, hop) in
        [("ipv4", "10.200.0.0/16", "10.1.0.2"), ("ipv6", "2001:db8:200::/48", "2001:db8:1::2")]
    {
        this.gobgp(&format!("global rib add -a {family} {prefix} nexthop {hop}")).expect("a route");
    }
    this.running
}

fn openbgpd(ns: &Ns, dir: &std::path::Path, text: &str) -> Running {
    // Where its lesser processes lock themselves in; the package's unit makes it, too.
    fs::create_dir_all("/run/openbgpd").unwrap();
    let conf = dir.join("bgpd.conf");
    fs::write(&conf, text).unwrap();
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = ns.command(speaker_program("openbgpd").to_str().unwrap());
    command.args(["-d", "-f"]).arg(&conf);
    let process = Process::start(&mut command, &dir.join("log"));
    wait_for("bgpd listens", 10.0, || dir.join("ctl").exists().then_some(()));
    Running::Process(Kind::OpenBgpd, process)
}

fn exabgp(ns: &Ns, dir: &std::path::Path, text: &str) -> Running {
    let conf = dir.join("exabgp.conf");
    fs::write(&conf, text).unwrap();
    let mut command = ns.command("env");
    command
        .args(["exabgp.daemon.user=root", "exabgp.api.cli=false", "exabgp.log.level=INFO", "exabgp"])
        .arg(&conf);
    Running::Process(Kind::ExaBgp, Process::start(&mut command, &dir.join("log")))
}

enum Running {
    None,
    Bird(Bird),
    Frr(Frr),
    Process(Kind, Process),
}

/// A running one.
pub struct Other {
    running: Running,
    dir: PathBuf,
    ns: Ns,
}

impl Other {
    fn gobgp(&self, words: &str) -> Result<String, String> {
        let out = self
            .ns
            .command(gobgp("gobgp").to_str().unwrap())
            .args(["-u", "127.0.0.1", "-p", "50051"])
            .args(words.split_whitespace())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        if out.status.success() { Ok(text) } else { Err(text) }
    }

    /// Everything it has learned, in its own words.
    pub fn table(&self) -> String {
        match &self.running {
            Running::None => String::new(),
            Running::Bird(bird) => bird.birdc("show route all"),
            Running::Frr(frr) => {
                frr.vtysh("show bgp ipv4 unicast wide") + &frr.vtysh("show bgp ipv6 unicast wide")
            }
            Running::Process(Kind::GoBgp, _) => {
                let of = |family| self.gobgp(&format!("global rib -a {family}")).unwrap_or_default();
                of("ipv4") + &of("ipv6")
            }
            Running::Process(Kind::OpenBgpd, _) => run(Command::new(speaker_program("bgpctl"))
                .arg("-s")
                .arg(self.dir.join("ctl"))
                .args(["show", "rib"])),
            Running::Process(..) => fs::read_to_string(self.dir.join("listen.heard")).unwrap_or_default(),
        }
    }

    /// All that it says of one prefix of IPv4.
    pub fn details(&self, prefix: &str) -> String {
        match &self.running {
            Running::Frr(frr) => frr.vtysh(&format!("show bgp ipv4 unicast {prefix}")),
            _ => self.table(),
        }
    }

    /// Asks us for our routes again; whether it can.
    pub fn request_refresh(&self, neighbor: &str) -> bool {
        match &self.running {
            Running::Bird(bird) => {
                let filters = if bird.is_version_3() { "filters " } else { "" };
                bird.birdc(&format!("reload {filters}in n0")).contains("eloading")
            }
            Running::Frr(frr) => {
                frr.vtysh(&format!("clear bgp {neighbor} in"));
                true
            }
            Running::Process(Kind::GoBgp, _) => {
                self.gobgp(&format!("neighbor {neighbor} softresetin")).is_ok()
            }
            Running::Process(Kind::OpenBgpd, _) => {
                run(Command::new(speaker_program("bgpctl"))
                    .arg("-s")
                    .arg(self.dir.join("ctl"))
                    .args(["neighbor", neighbor, "refresh"]));
                true
            }
            _ => false,
        }
    }

    /// Dies without a word.
    pub fn kill(&mut self) {
        match &mut self.running {
            Running::None => {}
            Running::Bird(bird) => {
                bird.process.kill();
            }
            Running::Frr(frr) => frr.kill(),
            Running::Process(_, process) => {
                process.kill();
            }
        }
        self.running = Running::None;
    }
}
