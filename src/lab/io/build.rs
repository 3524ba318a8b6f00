//! Builds a topology with netlink: veth pairs, bridges, addresses, default routes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use futures::TryStreamExt;
use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, packet_route::link::LinkMessage};

use super::{
    super::topology::{BRIDGE, Fabric, Host, SWITCH, Topology, segment},
    Error, failed,
    netns::Namespace,
};

/// A host's interfaces to the leaves.
const UPLINKS: [&str; 2] = ["eth0", "eth1"];
/// The bridge in the switch.
const SEGMENT: &str = "segment";

/// A lab that is running.
pub(super) struct Net {
    pub(super) leaves: Vec<Namespace>,
    pub(super) hosts: Vec<Node>,
    /// Number of next hops of each host's route to the pods of another, if nothing is missing.
    pub(super) next_hops: usize,
    /// Whether this kernel supports IPv6.
    pub(super) ipv6: bool,
}

/// One host and its pod.
pub(super) struct Node {
    pub(super) host: Host,
    pub(super) ns: Namespace,
    pub(super) pod: Namespace,
}

impl Net {
    pub(super) async fn build(lab: Topology) -> Result<Self, Error> {
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        if lab.fabric == Fabric::Unnumbered && !ipv6 {
            return Err(Error::Runtime(
                "links without addresses need IPv6, which this kernel does not have".into(),
            ));
        }
        let mut leaves = Vec::new();
        for name in lab.leaves() {
            let leaf = router(lab.namespace(name), ipv6).await?;
            if ipv6 && lab.fabric == Fabric::Numbered {
                // The leaf's port is shut down and opened again, and must keep its address.
                leaf.sysctl(&[("ipv6/conf/all/keep_addr_on_down", "1")])?;
            }
            leaves.push(leaf);
        }
        let switch = match lab.fabric {
            Fabric::Reflected => Some(segment_of(lab, &leaves, ipv6).await?),
            Fabric::Numbered | Fabric::Unnumbered => None,
        };
        let mut hosts = Vec::new();
        for host in lab.hosts() {
            let ns = router(lab.namespace(&host.name()), ipv6).await?;
            let pod = namespace(lab.namespace(&host.pod_name()), ipv6).await?;
            let node = Node { host, ns, pod };
            match &switch {
                Some(switch) => {
                    let addresses = lab.address(host);
                    attach(switch, &host.port(), &node.ns, addresses, ipv6).await?;
                }
                None => {
                    for (leaf, uplink) in leaves.iter().zip(UPLINKS) {
                        connect(leaf, &host.port(), &node.ns, uplink).await?;
                    }
                }
            }
            node.attach_pod(ipv6).await?;
            if let (Fabric::Numbered, Some(leaf)) = (lab.fabric, leaves.first()) {
                node.number(leaf, ipv6).await?;
            }
            hosts.push(node);
        }
        // Both reflectors advertise the same next hop.
        let next_hops = if switch.is_some() { 1 } else { leaves.len() };
        Ok(Self { leaves, hosts, next_hops, ipv6 })
    }
}

impl Node {
    /// Creates the host's bridge, and attaches the pod to it.
    async fn attach_pod(&self, ipv6: bool) -> Result<(), Error> {
        self.ns.add(LinkBridge::new(BRIDGE).up().build()).await?;
        let veth = self.host.pod_name();
        self.pod.add(LinkVeth::new("eth0", &veth).index(100).build()).await?;
        self.pod.set(LinkUnspec::new_with_name(&veth).setns_by_fd(self.ns.fd()).build()).await?;
        let bridge = self.ns.index(BRIDGE).await?;
        self.ns.set(LinkUnspec::new_with_name(&veth).controller(bridge).up().build()).await?;
        for (ns, link) in [(&self.ns, BRIDGE), (&self.pod, "eth0")] {
            ns.set(LinkUnspec::new_with_name(link).up().build()).await?;
        }
        let ((bridge, bridge6), (pod, pod6)) = (self.host.bridge(), self.host.pod());
        self.ns.address(BRIDGE, bridge.into(), 24).await?;
        self.pod.address("eth0", pod.into(), 24).await?;
        self.pod.default_route(bridge.into()).await?;
        if ipv6 {
            self.ns.address(BRIDGE, bridge6.into(), 64).await?;
            self.pod.address("eth0", pod6.into(), 64).await?;
            self.pod.default_route(bridge6.into()).await?;
        }
        Ok(())
    }

    /// Gives both ends of the uplink their addresses.
    async fn number(&self, leaf: &Namespace, ipv6: bool) -> Result<(), Error> {
        let (port, [uplink, _]) = (self.host.port(), UPLINKS);
        let (own, gateway) = self.host.uplink();
        leaf.address(&port, gateway.into(), 30).await?;
        self.ns.address(uplink, own.into(), 30).await?;
        self.ns.default_route(gateway.into()).await?;
        if ipv6 {
            let (own, gateway) = self.host.uplink6();
            leaf.address(&port, gateway.into(), 64).await?;
            self.ns.address(uplink, own.into(), 64).await?;
            self.ns.default_route(gateway.into()).await?;
        }
        Ok(())
    }
}

/// Connects the port of a leaf, or of the switch, and the uplink of a host.
async fn connect(leaf: &Namespace, port: &str, host: &Namespace, uplink: &str) -> Result<(), Error> {
    // Created in one namespace, so that the two ends have different indices: the kernel delays
    // the notification of a lost carrier if they are the same (docs/kernel.md, section 2).
    leaf.add(LinkVeth::new(port, uplink).build()).await?;
    leaf.set(LinkUnspec::new_with_name(uplink).setns_by_fd(host.fd()).build()).await?;
    leaf.set(LinkUnspec::new_with_name(port).up().build()).await?;
    host.set(LinkUnspec::new_with_name(uplink).up().build()).await
}

/// The switch of the reflected fabric with its reflectors.
async fn segment_of(lab: Topology, reflectors: &[Namespace], ipv6: bool) -> Result<Namespace, Error> {
    let switch = namespace(lab.namespace(SWITCH), ipv6).await?;
    switch.add(LinkBridge::new(SEGMENT).up().build()).await?;
    for (reflector, n) in reflectors.iter().zip(1..) {
        attach(&switch, &format!("reflector{n}"), reflector, segment(n), ipv6).await?;
    }
    Ok(switch)
}

/// Connects another router or host to the switch, with its addresses there.
async fn attach(
    switch: &Namespace,
    port: &str,
    ns: &Namespace,
    addresses: (Ipv4Addr, Ipv6Addr),
    ipv6: bool,
) -> Result<(), Error> {
    let [uplink, _] = UPLINKS;
    connect(switch, port, ns, uplink).await?;
    let bridge = switch.index(SEGMENT).await?;
    switch.set(LinkUnspec::new_with_name(port).controller(bridge).build()).await?;
    ns.address(uplink, addresses.0.into(), 24).await?;
    if ipv6 {
        ns.address(uplink, addresses.1.into(), 64).await?;
    }
    Ok(())
}

/// A namespace that forwards.
async fn router(name: String, ipv6: bool) -> Result<Namespace, Error> {
    let ns = namespace(name, ipv6).await?;
    ns.sysctl(&[("ipv4/ip_forward", "1")])?;
    if ipv6 {
        ns.sysctl(&[("ipv6/conf/all/forwarding", "1")])?;
    }
    Ok(ns)
}

async fn namespace(name: String, ipv6: bool) -> Result<Namespace, Error> {
    let ns = Namespace::create(name)?;
    if ipv6 {
        // Without duplicate address detection, so that addresses are usable at once.
        ns.sysctl(&[("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")])?;
    }
    ns.set(LinkUnspec::new_with_name("lo").up().build()).await?;
    Ok(ns)
}

impl Namespace {
    async fn add(&self, link: LinkMessage) -> Result<(), Error> {
        let wrong = failed(format!("{}: cannot make an interface (veth and bridge are needed)", self.name));
        self.netlink.link().add(link).execute().await.map_err(wrong)
    }

    pub(super) async fn set(&self, link: LinkMessage) -> Result<(), Error> {
        self.netlink
            .link()
            .set(link)
            .execute()
            .await
            .map_err(failed(format!("{}: cannot set an interface", self.name)))
    }

    async fn index(&self, name: &str) -> Result<u32, Error> {
        let wrong = format!("{}: no interface {name}", self.name);
        let link =
            self.netlink.link().get().match_name(name).execute().try_next().await.map_err(failed(&wrong))?;
        link.map(|link| link.header.index).ok_or(Error::Runtime(wrong))
    }

    pub(super) async fn address(&self, link: &str, address: IpAddr, length: u8) -> Result<(), Error> {
        let index = self.index(link).await?;
        let wrong = failed(format!("{}: cannot give {link} the address {address}/{length}", self.name));
        self.netlink.address().add(index, address, length).execute().await.map_err(wrong)
    }

    async fn default_route(&self, gateway: IpAddr) -> Result<(), Error> {
        let route = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
        };
        let wrong = failed(format!("{}: cannot set the default route to {gateway}", self.name));
        self.netlink.route().add(route).execute().await.map_err(wrong)
    }
}
