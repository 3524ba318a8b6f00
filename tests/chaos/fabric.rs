//! Two switches and four hosts, each host with an uplink to either switch, and a container on a
//! bridge whose subnet it advertises.
//!
//! The first switch is BIRD, the second FRR with BFD to the first two hosts. All of them do
//! graceful restart. On every host there are objects of others in the kernel, which nobody may
//! touch.
//!
//! | | |
//! | --- | --- |
//! | link of host *h* to switch *s* | 10.*s*.*h*.0/24, the switch is .1 on `eth`*h*, the host .2 on `eth`*s* |
//! | bridge of host *h* | `br-pod`, 172.20.*h*.1/24, the container is .2 |
//! | network of host *h* | 10.64.*h*.0/24, unreachable at home |
//! | AS | host *h* 65000 + *h*, both switches 65100 |

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    common::{
        daemons::{Bird, Frr, Routelet},
        net::{Net, Ns},
        run,
        shim::Shim,
        traffic::Traffic,
    },
    invariants::{self, Table, Usage},
    losses::Ledger,
};

pub const HOSTS: usize = 4;
pub const SWITCHES: usize = 2;
/// The switch with BFD, and the hosts to which it has it.
pub const FRR: usize = 1;
pub const BFD_HOSTS: [usize; 2] = [0, 1];

/// A host with its routelet.
pub struct Host {
    pub ns: Ns,
    pub routelet: Routelet,
    state: PathBuf,
    /// The objects of others when the run began.
    foreign: String,
    /// What its calls find, and how many were changed when a fault began.
    pub shim: Shim,
    pub hits: u64,
    /// What its routelet needed when it was settled; none after a start until it is settled again.
    pub usage: Option<Usage>,
}

/// The daemon of a switch; none while it is down.
pub enum Switch {
    Bird(Option<Bird>),
    Frr(Option<Frr>),
}

pub struct Fabric {
    pub hosts: Vec<Host>,
    pub switches: Vec<(Ns, Switch)>,
    /// Whether the link of a host to a switch carries routes.
    pub links: [[bool; SWITCHES]; HOSTS],
    pub bridges: [bool; HOSTS],
    /// A second network of a host, while its configuration has it.
    pub second_networks: [bool; HOSTS],
    pub ledger: Ledger,
    pub traffic: Traffic,
    pub began: Instant,
    // Dropped last, with the namespaces.
    pub net: Net,
}

impl Fabric {
    /// Built, and settled.
    pub fn new(per_second: u32) -> Self {
        let mut net = Net::new();
        let switches: Vec<Ns> = (1..=SWITCHES).map(|s| net.ns(&format!("s{s}"))).collect();
        for switch in &switches {
            forward(switch);
        }
        let mut spaces = Vec::new();
        for h in 1..=HOSTS {
            let (ns, pod) = (net.ns(&format!("h{h}")), net.ns(&format!("p{h}")));
            forward(&ns);
            for (s, switch) in (1..).zip(&switches) {
                net.link((switch, &format!("eth{h}")), (&ns, &format!("eth{s}")));
                switch.ip(&format!("addr add 10.{s}.{h}.1/24 dev eth{h}"));
                ns.ip(&format!("addr add 10.{s}.{h}.2/24 dev eth{s}"));
            }
            net.link((&ns, "veth1"), (&pod, "eth0"));
            pod.ip(&format!("addr add 172.20.{h}.2/24 dev eth0"));
            pod.ip(&format!("route add default via 172.20.{h}.1"));
            make_bridge(&ns, h);
            plant(&ns, h);
            spaces.push((ns, pod));
        }
        let daemons = [Switch::Bird(None), Switch::Frr(None)];
        let switches: Vec<_> = switches.into_iter().zip(daemons).collect();
        let pods: Vec<_> = (1..)
            .zip(&spaces)
            .map(|(h, (_, pod))| (pod.clone(), IpAddr::from(Ipv4Addr::new(172, 20, h, 2))))
            .collect();
        let hosts = (1..).zip(spaces).map(|(h, (ns, _))| Host::start(&net, h, ns)).collect();
        let mut fabric = Self {
            hosts,
            switches,
            links: [[true; SWITCHES]; HOSTS],
            bridges: [true; HOSTS],
            second_networks: [false; HOSTS],
            ledger: Ledger::default(),
            traffic: Traffic::start(&pods, per_second, 4000),
            began: Instant::now(),
            net,
        };
        for s in 0..SWITCHES {
            fabric.start_switch(s, false);
        }
        fabric
    }

    /// Starts the daemon of a switch; one that is `back` keeps the routes of the one before.
    pub fn start_switch(&mut self, s: usize, back: bool) {
        let (net, (ns, switch)) = (&self.net, &mut self.switches[s]);
        match switch {
            Switch::Bird(bird) => {
                let options: &[&str] = if back { &["-R"] } else { &[] };
                *bird = Some(Bird::start_with(net, ns, &bird_config(), options));
            }
            Switch::Frr(frr) => {
                let bgp = frr_bgp();
                // What its predecessor left in the kernel stays for a minute.
                let daemons: [(&str, &str, &[&str]); 3] =
                    [("zebra", "", &["-K", "60"]), ("bfdd", "", &[]), ("bgpd", &bgp, &[])];
                *frr = Some(Frr::start_all(net, ns, &daemons));
            }
        }
    }

    /// The configuration of host `h` has its second network, or not, and is in force.
    pub fn set_second_network(&mut self, h: usize, there: bool) {
        let further = if there { vec![format!("10.65.{}.0/24", h + 1)] } else { Vec::new() };
        self.hosts[h].configure(h, &further);
        self.hosts[h].routelet.cli(&["reload"]);
        self.second_networks[h] = there;
    }

    /// Whether host and switch notice within [`crate::faults::BFD`] that packets do not arrive.
    pub fn has_bfd(host: usize, switch: usize) -> bool {
        switch == FRR && BFD_HOSTS.contains(&host)
    }

    /// The second at which something happened, from the start of the run.
    pub fn second(&self, at: Instant) -> f64 {
        at.duration_since(self.began).as_secs_f64()
    }

    /// The prefixes that host `h` originates.
    fn originated(&self, h: usize) -> Vec<String> {
        let n = h + 1;
        let mut prefixes = vec![format!("10.64.{n}.0/24")];
        if self.second_networks[h] {
            prefixes.push(format!("10.65.{n}.0/24"));
        }
        if self.bridges[h] {
            prefixes.push(format!("172.20.{n}.0/24"));
        }
        prefixes
    }

    /// Which routes host `h` has learned, as things are.
    pub fn expected_of_host(&self, h: usize) -> Table {
        let mut table = Table::new();
        for other in (0..HOSTS).filter(|other| *other != h) {
            let through = (0..SWITCHES).filter(|s| self.links[h][*s] && self.links[other][*s]);
            let next_hops: Vec<_> = through.map(|s| format!("10.{}.{}.1", s + 1, h + 1)).collect();
            if !next_hops.is_empty() {
                let routes = self.originated(other).into_iter();
                table.extend(routes.map(|prefix| (prefix, next_hops.iter().cloned().collect())));
            }
        }
        table
    }

    /// Which routes switch `s` has learned.
    pub fn expected_of_switch(&self, s: usize) -> Table {
        let mut table = Table::new();
        for h in (0..HOSTS).filter(|h| self.links[*h][s]) {
            let next_hop = format!("10.{}.{}.2", s + 1, h + 1);
            table.extend(self.originated(h).into_iter().map(|p| (p, [next_hop.clone()].into())));
        }
        table
    }

    pub fn expected_originated(&self, h: usize) -> Vec<String> {
        self.originated(h).into_iter().filter(|p| p.starts_with("10.")).collect()
    }
}

impl Host {
    fn start(net: &Net, h: u8, ns: Ns) -> Self {
        let mut routelet = Routelet::ready(net, &ns, &config(h.into(), &[]), &[]);
        let state = routelet.dir.join("state");
        fs::create_dir_all(&state).expect("a folder");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(&state));
        let shim = Shim::of(&mut routelet);
        routelet.restart();
        let foreign = invariants::foreign_objects(&ns);
        Self { ns, routelet, state, foreign, shim, hits: 0, usage: None }
    }

    /// The objects of others are as they were.
    pub fn foreign_unchanged(&self) -> Result<(), String> {
        invariants::unchanged(&self.foreign, &invariants::foreign_objects(&self.ns))
    }

    /// Writes its configuration with these networks beside its own one.
    pub fn configure(&self, h: usize, further: &[String]) {
        self.routelet.configure(&config(h + 1, further));
    }

    pub fn fill_disk(&self) {
        let file = fs::File::create(self.state.join("filler")).expect("a writable folder");
        let written = std::io::copy(&mut std::io::Read::take(std::io::repeat(1), 1 << 21), &mut &file);
        assert!(written.is_err(), "the state folder of {} is full", self.ns.name);
    }

    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        run(Command::new("mount").args(["-o", options]).arg(&self.state));
        if !read_only {
            // The daemon started with a copy of the mount, which keeps its own flag.
            let pid = self.routelet.process.pid().to_string();
            run(Command::new("nsenter").args(["-t", &pid, "-m", "mount", "-o", options]).arg(&self.state));
        }
    }

    pub fn free_disk(&self) {
        let _ = fs::remove_file(self.state.join("filler"));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.routelet.process.kill();
        let _ = Command::new("umount").arg("--lazy").arg(&self.state).status();
    }
}

/// The bridge of host `h`, counted from 1, with its container on it.
pub fn make_bridge(host: &Ns, h: usize) {
    host.ip("link add br-pod type bridge");
    host.ip(&format!("addr add 172.20.{h}.1/24 dev br-pod"));
    host.ip("link set br-pod up");
    host.ip("link set veth1 master br-pod");
    host.ip("link set veth1 up");
}

/// Routes by ports as well as by addresses, so that every pair of hosts uses both switches.
fn forward(ns: &Ns) {
    ns.sysctl("net.ipv4.ip_forward", "1");
    ns.sysctl("net.ipv4.fib_multipath_hash_policy", "1");
    ns.sysctl("net.ipv4.conf.all.rp_filter", "0");
    ns.sysctl("net.ipv4.conf.default.rp_filter", "0");
}

/// Objects of others: they are there before routelet, and after everything.
fn plant(host: &Ns, h: usize) {
    host.ip("link add far0 type veth peer name far1");
    for end in ["far0", "far1"] {
        // No address of its own making, which would come later.
        host.ip(&format!("link set {end} addrgenmode none"));
        host.ip(&format!("link set {end} up"));
    }
    let other = h % HOSTS + 1;
    for words in [
        "addr add 192.0.2.1/24 dev far0",
        "addr add 192.0.2.2/32 dev lo",
        "addr add 2001:db8:f::1/64 dev far0 nodad",
        "route add 2001:db8:e::/48 via 2001:db8:f::9 dev far0 proto static",
        "nexthop add id 4242 via 192.0.2.9 dev far0 proto static",
        "route add 198.51.100.0/24 nhid 4242 proto static",
        "route add 203.0.113.0/24 via 192.0.2.7 dev far0 table 100 proto bird",
        "route add blackhole 198.18.0.0/15 proto static metric 500",
        "rule add pref 1000 from 198.51.100.9 lookup 100",
        "neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev far0",
        // Beside a route of routelet's, which has the better metric.
        &format!("route add 172.20.{other}.0/24 via 192.0.2.8 dev far0 proto static metric 9999"),
    ] {
        host.ip(words);
    }
    host.sh("nft 'add table ip foreign; add chain ip foreign pass { type filter hook forward priority 0; }; add rule ip foreign pass ip saddr 198.51.100.1 accept'");
}

fn config(h: usize, further: &[String]) -> String {
    let networks: Vec<_> =
        [format!("10.64.{h}.0/24")].iter().chain(further).map(|n| format!("{n:?}")).collect();
    let neighbors = (1..=SWITCHES).map(|s| {
        let bfd = if Fabric::has_bfd(h - 1, s - 1) { "bfd = true\n" } else { "" };
        format!("[[bgp.neighbor]]\naddress = \"10.{s}.{h}.1\"\nremote-as = 65100\n{bfd}")
    });
    format!(
        "[bgp]\nas = {}\nrouter-id = \"10.0.0.{h}\"\nhold-time = 9\nconnect-retry-time = 1\nidle-hold-time = 1\n\
         restart-time = 30\n{}[advertise]\ninterfaces = [\"br-pod\"]\nnetworks = [{}]\n",
        65000 + h,
        neighbors.collect::<String>(),
        networks.join(", ")
    )
}

fn bird_config() -> String {
    let neighbors = (1..=HOSTS).map(|h| {
        format!(
            "protocol bgp h{h} {{ local 10.1.{h}.1 as 65100; neighbor 10.1.{h}.2 as {};\n\
             hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2; error forget time 5;\n\
             graceful restart on; graceful restart time 30;\n\
             ipv4 {{ import all; export where source = RTS_BGP; }}; }}\n",
            65000 + h
        )
    });
    format!(
        "router id 10.1.0.1;\nlog stderr all;\nprotocol device {{ scan time 1; }}\n\
         protocol kernel {{ persist; graceful restart; ipv4 {{ export all; }}; }}\n{}",
        neighbors.collect::<String>()
    )
}

fn frr_bgp() -> String {
    let neighbors = (1..=HOSTS).map(|h| {
        let bfd =
            if Fabric::has_bfd(h - 1, FRR) { format!(" neighbor 10.2.{h}.2 bfd\n") } else { String::new() };
        format!(
            " neighbor 10.2.{h}.2 remote-as {}\n neighbor 10.2.{h}.2 timers 3 9\n \
             neighbor 10.2.{h}.2 timers connect 1\n{bfd}",
            65000 + h
        )
    });
    // Until FRRouting/frr#20325, FRR takes a route that returns while its withdrawal is queued for a duplicate, and
    // then sends the withdrawal alone: with a link that is down for less than
    // a second, no neighbor has that route until the next change.
    format!(
        "router bgp 65100\n bgp router-id 10.2.0.1\n no bgp ebgp-requires-policy\n \
         no bgp suppress-duplicates\n bgp suppress-fib-pending\n bgp graceful-restart\n \
         bgp graceful-restart preserve-fw-state\n bgp graceful-restart restart-time 30\n \
         bgp graceful-restart stalepath-time 30\n bgp graceful-restart select-defer-time 10\n{}",
        neighbors.collect::<String>()
    )
}

/// For how long something may take on a machine that others use, too.
pub const SETTLE: Duration = Duration::from_secs(60);
