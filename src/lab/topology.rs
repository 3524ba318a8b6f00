//! Names, addresses and configurations of a lab. Pure.
//!
//! ```text
//!                      leaf, AS 10000
//!      10.0.1.1/30 │      10.0.2.1/30 │            │
//!      10.0.1.2/30 │      10.0.2.2/30 │            │      the default route goes up
//!       host1, AS 1001     host2, AS 1002       …
//!        bridge pods0       bridge pods0                  10.1.1.1/24, 10.1.2.1/24, …
//!             │                  │
//!            pod1               pod2                      10.1.1.10, 10.1.2.10, …
//! ```
//!
//! IPv6 beside it: fd00:0:N::/64 to the leaf, fd00:1:N::/64 for pods.
//!
//! The reflected fabric has one AS and one subnet, 10.0.0.0/24 and fd00::/64, in which two route
//! reflectors (.1 and .2) and the hosts (.11, .12, …) are connected to a switch. The hosts have
//! sessions with the reflectors only.
//!
//! The unnumbered fabric has two leaves, AS 10001 and 10002, and no address on any link between
//! them and the hosts. The hosts have no BGP configuration: they find the leaves and their pods'
//! bridge.

use std::{
    fmt::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use crate::net::{Asn, Prefix};

/// Prefix of every namespace of every lab; the id of the process that created it follows.
pub(super) const PREFIX: &str = "rlab-";
/// The leaf's AS number; host N has 1000 + N.
pub(super) const LEAF_AS: Asn = 10000;
/// Name of the namespace of the switch that connects reflectors and hosts.
pub(super) const SWITCH: &str = "switch";
/// The network of Docker in the first host.
pub(super) const DOCKER_NETWORK: &str = "web";
/// The bridge of pods in each host.
pub(super) const BRIDGE: &str = "pods0";
/// Host N is number 10 + N of the reflected fabric's subnet.
const HOSTS_FROM: u8 = 10;
/// In seconds; short, so that a failure is detected soon even without a loss of carrier.
const HOLD_TIME: u16 = 3;

/// The daemon in the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    Routelet,
    Bird,
    Frr,
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Routelet => "routelet",
            Self::Bird => "bird",
            Self::Frr => "frr",
        })
    }
}

/// How leaves and hosts are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fabric {
    /// One leaf, an address at both ends of each link.
    Numbered,
    /// Two leaves, no addresses (RFC 8950).
    Unnumbered,
    /// Two route reflectors instead of leaves, in the subnet of the hosts (RFC 4456).
    Reflected,
}

/// The plan of a lab.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topology {
    /// Id of the process that creates the lab.
    pub(super) pid: u32,
    pub(super) hosts: u8,
    pub(super) fabric: Fabric,
    /// Whether neighbors watch each other by BFD.
    pub(super) bfd: bool,
    /// Whether the first host has a Docker engine.
    pub(super) docker: bool,
}

impl Topology {
    /// The network namespace of `role`: `leaf`, `host1`, `pod1`.
    pub(super) fn namespace(self, role: &str) -> String {
        format!("{PREFIX}{}-{role}", self.pid)
    }

    /// Names of the leaves.
    pub(super) fn leaves(self) -> &'static [&'static str] {
        match self.fabric {
            Fabric::Numbered => &["leaf"],
            Fabric::Unnumbered => &["leaf1", "leaf2"],
            Fabric::Reflected => &["reflector1", "reflector2"],
        }
    }

    /// The hosts, numbered from 1.
    pub(super) fn hosts(self) -> impl Iterator<Item = Host> + Clone {
        (1..=self.hosts).map(|n| Host { n })
    }

    /// A leaf's configuration for routelet, by its number.
    pub(super) fn leaf_toml(self, leaf: u8, dir: &Path) -> String {
        let asn = self.leaf_as(leaf);
        let mut text = self.daemon_toml(dir, asn, Ipv4Addr::new(10, 0, 0, leaf + 1));
        let role = match self.fabric {
            Fabric::Reflected => "route-reflector-client",
            Fabric::Numbered | Fabric::Unnumbered => "transit",
        };
        write!(text, "\n[bgp.group.hosts]\n{role} = true\n{}", self.bfd_key()).expect("a String");
        if self.fabric == Fabric::Unnumbered {
            text.push_str(
                "\n[[bgp.neighbor]]\ninterface = \"port*\"\nremote-as = \"external\"\ngroup = \"hosts\"\n",
            );
            return text;
        }
        for host in self.hosts() {
            let (address, asn) = (self.address(host).0, self.host_as(host));
            write!(
                text,
                "\n[[bgp.neighbor]]\naddress = \"{address}\"\nremote-as = {asn}\ngroup = \"hosts\"\n"
            )
            .expect("a String");
        }
        text
    }

    /// The AS number of a leaf. The numbered fabric has one leaf.
    fn leaf_as(self, leaf: u8) -> Asn {
        match self.fabric {
            Fabric::Numbered | Fabric::Reflected => LEAF_AS,
            Fabric::Unnumbered => LEAF_AS + 1 + Asn::from(leaf),
        }
    }

    fn host_as(self, host: Host) -> Asn {
        if self.fabric == Fabric::Reflected { LEAF_AS } else { host.asn() }
    }

    /// Addresses of a host's uplink, if it has any.
    pub(super) fn address(self, host: Host) -> (Ipv4Addr, Ipv6Addr) {
        match self.fabric {
            Fabric::Reflected => segment(HOSTS_FROM + host.n),
            Fabric::Numbered | Fabric::Unnumbered => (host.uplink().0, host.uplink6().0),
        }
    }

    fn bfd_key(self) -> &'static str {
        if self.bfd { "bfd = { min-tx = 50, min-rx = 50, multiplier = 3 }\n" } else { "" }
    }

    /// A host's configuration. In the unnumbered fabric it only contains folders of the lab.
    pub(super) fn host_toml(self, host: Host, dir: &Path) -> String {
        if self.fabric == Fabric::Unnumbered {
            return folders_toml(dir);
        }
        let mut text = self.daemon_toml(dir, self.host_as(host), self.address(host).0);
        let neighbors = match self.fabric {
            Fabric::Reflected => [1, 2].map(|n| segment(n).0).to_vec(),
            Fabric::Numbered | Fabric::Unnumbered => vec![host.uplink().1],
        };
        let bfd = self.bfd_key();
        for address in neighbors {
            write!(text, "\n[[bgp.neighbor]]\naddress = \"{address}\"\nremote-as = {LEAF_AS}\n{bfd}")
                .expect("a String");
        }
        write!(text, "\n[advertise]\ninterfaces = [\"{BRIDGE}\"]\n").expect("a String");
        if self.docker && host.n == 1 {
            let socket = docker_socket(dir);
            let socket = socket.display();
            write!(text, "\n[docker]\nsocket = \"{socket}\"\nnetworks = [\"{DOCKER_NETWORK}\"]\n")
                .expect("a String");
        }
        text
    }

    /// The configuration that all nodes share.
    fn daemon_toml(self, dir: &Path, asn: Asn, router_id: Ipv4Addr) -> String {
        // A long hold time, so that the effect of BFD shows.
        let hold_time = if self.bfd { 90 } else { HOLD_TIME };
        format!(
            "{}\n[bgp]\nas = {asn}\nrouter-id = \"{router_id}\"\nhold-time = {hold_time}\nconnect-retry-time = 1\n\
             idle-hold-time = 1\n",
            folders_toml(dir)
        )
    }

    /// The leaf's configuration for BIRD 2.
    pub(super) fn leaf_bird(self) -> String {
        let mut text = "router id 10.0.0.1;\nprotocol device { scan time 1; }\n\
             protocol kernel { ipv4 { export where source = RTS_BGP; }; }\n\
             protocol kernel { ipv6 { export where source = RTS_BGP; }; }\n"
            .to_owned();
        for host in self.hosts() {
            let (n, asn) = (host.n, host.asn());
            let ((address, gateway), (_, gateway6)) = (host.uplink(), host.uplink6());
            write!(
                text,
                "protocol bgp host{n} {{\n  local {gateway} as {LEAF_AS};\n  neighbor {address} as {asn};\n  direct;\n  \
                 hold time {HOLD_TIME};\n  connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n  \
                 ipv4 {{ import all; export where source = RTS_BGP; }};\n  \
                 ipv6 {{ import all; export where source = RTS_BGP; next hop address {gateway6}; }};\n}}\n"
            )
            .expect("a String");
        }
        text
    }

    /// The leaf's configuration for FRR's bgpd.
    pub(super) fn leaf_frr(self) -> String {
        let mut text = format!(
            "router bgp {LEAF_AS}\n bgp router-id 10.0.0.1\n no bgp ebgp-requires-policy\n \
             no bgp network import-check\n timers bgp 1 {HOLD_TIME}\n"
        );
        for host in self.hosts() {
            let (address, asn) = (host.uplink().0, host.asn());
            write!(text, " neighbor {address} remote-as {asn}\n neighbor {address} timers connect 1\n")
                .expect("a String");
        }
        text.push_str(" address-family ipv6 unicast\n");
        for host in self.hosts() {
            writeln!(text, "  neighbor {} activate", host.uplink().0).expect("a String");
        }
        text.push_str(" exit-address-family\n");
        text
    }

    /// The diagram that the lab prints first.
    pub(super) fn picture(self, leaf: Leaf) -> String {
        match self.fabric {
            Fabric::Numbered => {}
            Fabric::Unnumbered => return self.picture_unnumbered(),
            Fabric::Reflected => return self.picture_reflected(),
        }
        let mut text = format!("leaf  AS {LEAF_AS}  {leaf}\n");
        for host in self.hosts() {
            let branch = if host.n == self.hosts { "└" } else { "├" };
            let (n, asn) = (host.n, host.asn());
            let (link, pods, pods6) = (host.uplink_prefix(), host.pods(), host.pods6());
            writeln!(text, " {branch}─ {link:<12} ─ host{n}  AS {asn}  pod{n} in {pods} and {pods6}")
                .expect("a String");
        }
        text
    }

    fn picture_reflected(self) -> String {
        let mut text = format!("all in AS {LEAF_AS}, on one switch; sessions with the reflectors only\n");
        for (name, n) in self.leaves().iter().zip(1..) {
            writeln!(text, " ├─ {} ─ {name}", segment(n).0).expect("a String");
        }
        for host in self.hosts() {
            let branch = if host.n == self.hosts { "└" } else { "├" };
            let (address, n, pods, pods6) = (self.address(host).0, host.n, host.pods(), host.pods6());
            writeln!(text, " {branch}─ {address:<9} ─ host{n}  pod{n} in {pods} and {pods6}")
                .expect("a String");
        }
        text
    }

    fn picture_unnumbered(self) -> String {
        let mut text = format!("leaf1  AS {}       leaf2  AS {}\n", self.leaf_as(0), self.leaf_as(1));
        for host in self.hosts() {
            let (left, right) = if host.n == self.hosts { ('└', '┘') } else { ('├', '┤') };
            let (n, pods, pods6) = (host.n, host.pods(), host.pods6());
            writeln!(text, " {left}─ eth0 ─ host{n} ─ eth1 ─{right}   pod{n} in {pods} and {pods6}")
                .expect("a String");
        }
        text.push_str("no address on any link, no BGP configuration on any host\n");
        text
    }
}

/// One host with its pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    pub(super) n: u8,
}

impl Host {
    pub(super) fn name(self) -> String {
        format!("host{}", self.n)
    }

    pub(super) fn pod_name(self) -> String {
        format!("pod{}", self.n)
    }

    pub(super) fn asn(self) -> Asn {
        1000 + Asn::from(self.n)
    }

    /// Name of the leaf's port to the host.
    pub(super) fn port(self) -> String {
        format!("port{}", self.n)
    }

    fn uplink_prefix(self) -> Prefix {
        Prefix::v4(Ipv4Addr::new(10, 0, self.n, 0), 30)
    }

    /// Address of the host and of the leaf, on a /30.
    pub(super) fn uplink(self) -> (Ipv4Addr, Ipv4Addr) {
        (Ipv4Addr::new(10, 0, self.n, 2), Ipv4Addr::new(10, 0, self.n, 1))
    }

    /// The same on a /64.
    pub(super) fn uplink6(self) -> (Ipv6Addr, Ipv6Addr) {
        (v6(0, self.n, 2), v6(0, self.n, 1))
    }

    pub(super) fn pods(self) -> Prefix {
        Prefix::v4(Ipv4Addr::new(10, 1, self.n, 0), 24)
    }

    pub(super) fn pods6(self) -> Prefix {
        Prefix::v6(v6(1, self.n, 0), 64)
    }

    /// The bridge's addresses, which are the pod's gateways.
    pub(super) fn bridge(self) -> (Ipv4Addr, Ipv6Addr) {
        (Ipv4Addr::new(10, 1, self.n, 1), v6(1, self.n, 1))
    }

    pub(super) fn pod(self) -> (Ipv4Addr, Ipv6Addr) {
        (Ipv4Addr::new(10, 1, self.n, 10), v6(1, self.n, 0x10))
    }
}

/// Path of the socket of a host's Docker engine.
pub(super) fn docker_socket(dir: &Path) -> PathBuf {
    dir.join("docker/docker.sock")
}

/// Addresses in the subnet of the reflected fabric: of the reflectors from 1, of the hosts from
/// [`HOSTS_FROM`].
pub(super) fn segment(n: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 0, 0, n), v6(0, 0, n.into()))
}

/// The folders of a daemon of the lab.
fn folders_toml(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "state-dir = \"{dir}/state\"\n\n[control]\nsocket = \"{dir}/routelet.sock\"\n\n[metrics]\nlisten = \"\"\n"
    )
}

fn v6(kind: u16, n: u8, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, kind, n.into(), 0, 0, 0, 0, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: Topology = Topology { pid: 7, hosts: 3, fabric: Fabric::Numbered, bfd: false, docker: false };

    #[test]
    fn no_two_hosts_share_a_prefix() {
        let lab = Topology { hosts: 50, ..LAB };
        let mut all: Vec<_> = lab.hosts().flat_map(|h| [h.uplink_prefix(), h.pods(), h.pods6()]).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn names_of_interfaces_fit_into_the_kernel() {
        for host in (Topology { pid: u32::MAX, hosts: 50, ..LAB }).hosts() {
            assert!(host.port().len() <= 15, "{}", host.port());
        }
    }

    #[test]
    fn the_leaf_knows_every_host_in_every_language() {
        for text in [LAB.leaf_toml(0, Path::new("/run/x")), LAB.leaf_bird(), LAB.leaf_frr()] {
            for host in LAB.hosts() {
                let (address, asn) = (host.uplink().0.to_string(), host.asn().to_string());
                assert!(text.contains(&address) && text.contains(&asn), "{address} AS {asn} in:\n{text}");
            }
        }
    }

    #[test]
    fn a_host_speaks_to_the_leaf_and_advertises_its_bridge() {
        let text = LAB.host_toml(LAB.hosts().next().unwrap(), Path::new("/run/x"));
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["bgp"]["neighbor"][0]["address"].as_str(), Some("10.0.1.1"));
        assert_eq!(table["advertise"]["interfaces"][0].as_str(), Some(BRIDGE));
    }

    fn parse(text: &str) -> crate::config::Config {
        let around = crate::config::ParseContext { kubernetes: false, read_password: &|_| Ok(String::new()) };
        crate::config::parse(text, &around).unwrap_or_else(|e| panic!("{e:?}\n{text}")).0
    }

    #[test]
    fn hosts_have_sessions_with_the_reflectors_only() {
        let lab = Topology { fabric: Fabric::Reflected, hosts: 50, ..LAB };
        let dir = Path::new("/run/x");
        let reflector = parse(&lab.leaf_toml(0, dir)).bgp;
        assert_eq!(reflector.groups["hosts"].route_reflector_client, Some(true));
        assert_eq!(reflector.neighbors.len(), 50);
        let mut ids: Vec<_> = lab.hosts().map(|h| parse(&lab.host_toml(h, dir)).bgp).collect();
        assert!(ids.iter().all(|bgp| bgp.neighbors.len() == 2 && bgp.asn == reflector.asn));
        ids.push(parse(&lab.leaf_toml(1, dir)).bgp);
        ids.push(reflector);
        let ids: std::collections::BTreeSet<_> = ids.iter().map(|bgp| bgp.router_id).collect();
        assert_eq!(ids.len(), 52, "each has a router id of its own");
    }

    #[test]
    fn the_first_host_advertises_the_network_of_docker() {
        let lab = Topology { docker: true, ..LAB };
        let networks = |n| parse(&lab.host_toml(Host { n }, Path::new("/run/x"))).docker.networks.len();
        assert_eq!((networks(1), networks(2)), (1, 0));
    }

    #[test]
    fn hosts_without_addresses_have_no_bgp_configuration() {
        let lab = Topology { fabric: Fabric::Unnumbered, ..LAB };
        assert!(parse(&lab.host_toml(lab.hosts().next().unwrap(), Path::new("/run/x"))).is_bare_host);
        let leaves: Vec<_> = (0..2).map(|n| parse(&lab.leaf_toml(n, Path::new("/run/x"))).bgp).collect();
        assert!(leaves[0].asn != leaves[1].asn && leaves[0].router_id != leaves[1].router_id);
        let watched = Topology { bfd: true, ..LAB };
        assert!(parse(&watched.leaf_toml(0, Path::new("/run/x"))).bgp.groups["hosts"].bfd.is_some());
        assert!(
            parse(&watched.host_toml(Host { n: 1 }, Path::new("/run/x"))).bgp.neighbors[0].keys.bfd.is_some()
        );
    }
}
