use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    bgp::{rib::view::Explained, view::SessionState},
    fib::{
        lookup::{Drop, Entry},
        view::FibView,
    },
    net::{Family, Prefix},
};

/// A request for an explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub address: IpAddr,
    /// Source of the packets.
    pub from: Option<IpAddr>,
    /// Name of the interface on which they arrive.
    pub interface: Option<String>,
}

/// All facts on which the explanation depends, as of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub question: Question,
    /// Where the address is.
    pub place: Place,
    /// Where `--from` is.
    pub from: Option<Place>,
    /// Why the guard protects the address: `default gateway`, `neighbor`, ….
    pub protected: Option<String>,
    /// Originated prefixes that contain the address, the longest first.
    pub own: Vec<Source>,
    /// Why the subnet that contains the address is not originated.
    pub not_originated: Option<String>,
    pub drain: Drain,
    /// Originated prefixes from which the packets come.
    pub sources: Vec<Source>,
    /// Whether packets from containers leave this host with one of its addresses.
    pub masqueraded: bool,
    pub rib: Explained,
    pub neighbors: Vec<Neighbor>,
    /// The row of `show fib` for the longest prefix with a selected path.
    pub fib: Option<FibView>,
    /// `fib.table`.
    pub table: u32,
    /// `fib.install`.
    pub installs: bool,
    /// What the kernel does with the packets, or with packets of this host.
    pub kernel: Kernel,
    /// The first rule that looks up the table of that route.
    pub rule: Option<Rule>,
    /// The interface by which they leave.
    pub exit: Option<Link>,
    /// The neighbor entry at that interface.
    pub reached: Option<Reached>,
    /// Packets that are forwarded, in both directions.
    pub flows: Vec<Flow>,
    /// Why packet filters could not be read, if so.
    pub filters_unread: Option<String>,
}

/// Whether the node is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    #[default]
    No,
    Drained,
}

/// Where an address is, seen from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address of this host.
    Host {
        interface: String,
    },
    /// In a subnet of containers.
    Container {
        subnet: Prefix,
        interface: String,
    },
    /// In an originated prefix that is no subnet of an interface.
    Originated {
        prefix: Prefix,
        is_service: bool,
    },
    /// In a range of cluster IPs.
    ClusterIp {
        range: Prefix,
    },
    /// In any other subnet of an interface.
    OnLink {
        subnet: Prefix,
        interface: String,
    },
    Remote,
}

/// A prefix that this node originates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub prefix: Prefix,
    /// `pod CIDR`, `network`, `interface docker0`, `Service shop/web`.
    pub by: String,
    /// The interface with this subnet, and its MTU.
    pub link: Option<(String, u32)>,
}

/// A BGP neighbor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    pub name: String,
    pub state: SessionState,
    pub last_error: Option<String>,
    pub address: Option<IpAddr>,
    /// The interface to it, where it is on a link of this host.
    pub link: Option<Link>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub kind: String,
    pub up: bool,
    pub carrier: bool,
    pub mtu: u32,
    pub subnets: Vec<Prefix>,
}

/// What the kernel does with packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    Used(Box<Used>),
    Dropped(Drop),
    Unknown(String),
}

/// The route that it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub prefix: Prefix,
    pub table: u32,
    pub metric: u32,
    /// `static (4)`, ….
    pub protocol: String,
    /// Written by routelet.
    pub is_ours: bool,
    /// Delivered to this host.
    pub is_local: bool,
    /// `broadcast`, `blackhole`, …; `None`: packets are sent on.
    pub dead_end: Option<&'static str>,
    /// All next hops of the route, gateway and interface.
    pub hops: Vec<(Option<IpAddr>, String)>,
    /// The next hop selected for these packets.
    pub gateway: Option<IpAddr>,
    pub interface: String,
    /// The source address that this host would use.
    pub source: Option<IpAddr>,
    /// In octets, if it is less than that of the interface.
    pub mtu: Option<u32>,
}

/// A routing rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub priority: u32,
    pub table: u32,
    /// Whether it only applies to some packets.
    pub selects: bool,
}

/// The neighbor entry of the gateway, or of the address itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub address: IpAddr,
    pub entry: Entry,
}

/// Packets that this node forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// `172.20.0.0/16 to 10.9.0.5`.
    pub name: String,
    /// Whether these are replies.
    pub is_back: bool,
    /// Whether they are delivered to this host itself, so that they are not forwarded.
    pub to_host: bool,
    /// The interface on which they arrive.
    pub arrives_on: String,
    /// The sysctl whose value 0 keeps the packets from being forwarded, if any.
    pub forwarding_off: Option<String>,
    /// rp_filter of that interface, the larger of its own value and that of all.
    pub rp_filter: u32,
    pub kernel: Kernel,
    pub firewall: Firewall,
}

/// The verdict of packet filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firewall {
    Accepted,
    Dropped {
        by: String,
        certain: bool,
    },
    /// Not read, or not to be forwarded.
    Unknown,
}

impl Facts {
    pub(super) fn family(&self) -> Family {
        Family::of(self.question.address)
    }

    /// The kernel's route, if packets are sent on by it.
    pub(super) fn used(&self) -> Option<&Used> {
        match &self.kernel {
            Kernel::Used(used) => Some(used),
            _ => None,
        }
    }

    /// Whether kube-proxy delivers packets to the address, with its own rules.
    pub(super) fn is_service(&self) -> bool {
        matches!(self.place, Place::Originated { is_service: true, .. } | Place::ClusterIp { .. })
    }

    pub(super) fn neighbor(&self, name: &str) -> Option<&Neighbor> {
        self.neighbors.iter().find(|n| n.name == name)
    }

    /// Whether the packets begin and end on this node's side, so that no neighbor needs a route to
    /// them.
    pub(super) fn stays_here(&self) -> bool {
        let is_here = |place: &Place| !matches!(place, Place::Remote | Place::OnLink { .. });
        self.from.as_ref().is_some_and(is_here) && is_here(&self.place)
    }
}

impl Used {
    /// Whether it has a next hop with this gateway.
    pub(super) fn leads_over(&self, gateway: IpAddr) -> bool {
        self.hops.iter().any(|(g, _)| *g == Some(gateway)) || self.gateway == Some(gateway)
    }

    /// `10.9.0.0/24 via 10.1.1.1 on eth0`.
    pub(super) fn text(&self) -> String {
        let via = self.gateway.map(|g| format!(" via {g}")).unwrap_or_default();
        format!("{}{via} on {}", self.prefix, self.interface)
    }
}
