//! Builds a topology with netlink: veth pairs, bridges, addresses, default routes.

use std::{net::IpAddr, path::Path};

use futures::TryStreamExt;
use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, packet_route::link::LinkMessage};

use super::{
    super::topology::{BRIDGE, Host, Topology},
    Error, failed,
    netns::Namespace,
};

/// A lab that is running.
pub(super) struct Net {
    pub(super) leaf: Namespace,
    pub(super) hosts: Vec<Node>,
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
        let leaf = router(lab.leaf(), ipv6).await?;
        if ipv6 {
            // The leaf's port is shut and opened again, and its address has to be kept.
            leaf.sysctl(&[("ipv6/conf/all/keep_addr_on_down", "1")])?;
        }
        let mut hosts = Vec::new();
        for host in lab.hosts() {
            let ns = router(lab.namespace(&host.name()), ipv6).await?;
            let pod = namespace(lab.namespace(&host.pod_name()), ipv6).await?;
            let node = Node { host, ns, pod };
            node.connect(&leaf, ipv6).await?;
            hosts.push(node);
        }
        Ok(Self { leaf, hosts, ipv6 })
    }
}

impl Node {
    /// Connects leaf and host, and the host's bridge and pod.
    async fn connect(&self, leaf: &Namespace, ipv6: bool) -> Result<(), Error> {
        let (host, port) = (self.host, self.host.port());
        // Created in one namespace, so that the two ends have different indices: the kernel delays
        // the notification of a lost carrier if they are the same (docs/kernel.md, section 2).
        leaf.add(LinkVeth::new(&port, "eth0").build()).await?;
        leaf.set(LinkUnspec::new_with_name("eth0").setns_by_fd(self.ns.fd()).build()).await?;
        self.ns.add(LinkBridge::new(BRIDGE).up().build()).await?;
        let veth = host.pod_name();
        self.pod.add(LinkVeth::new("eth0", &veth).index(100).build()).await?;
        self.pod.set(LinkUnspec::new_with_name(&veth).setns_by_fd(self.ns.fd()).build()).await?;
        let bridge = self.ns.index(BRIDGE).await?;
        self.ns.set(LinkUnspec::new_with_name(&veth).controller(bridge).up().build()).await?;

        for (ns, link) in [(leaf, port.as_str()), (&self.ns, "eth0"), (&self.ns, BRIDGE), (&self.pod, "eth0")]
        {
            ns.set(LinkUnspec::new_with_name(link).up().build()).await?;
        }
        let ((own, gateway), (bridge, _), (pod, _)) = (host.uplink(), host.bridge(), host.pod());
        leaf.address(&port, gateway.into(), 30).await?;
        self.ns.address("eth0", own.into(), 30).await?;
        self.ns.address(BRIDGE, bridge.into(), 24).await?;
        self.pod.address("eth0", pod.into(), 24).await?;
        self.ns.default_route(gateway.into()).await?;
        self.pod.default_route(bridge.into()).await?;
        if !ipv6 {
            return Ok(());
        }
        let ((own, gateway), (_, bridge), (_, pod)) = (host.uplink6(), host.bridge(), host.pod());
        leaf.address(&port, gateway.into(), 64).await?;
        self.ns.address("eth0", own.into(), 64).await?;
        self.ns.address(BRIDGE, bridge.into(), 64).await?;
        self.pod.address("eth0", pod.into(), 64).await?;
        self.ns.default_route(gateway.into()).await?;
        self.pod.default_route(bridge.into()).await
    }
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

    async fn address(&self, link: &str, address: IpAddr, length: u8) -> Result<(), Error> {
        let index = self.index(link).await?;
        let wrong = failed(format!("{}: cannot give {link} the address {address}/{length}", self.name));
        self.netlink.address().add(index, address, length).execute().await.map_err(wrong)
    }

    async fn default_route(&self, gateway: IpAddr) -> Result<(), Error> {
        let route = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(gateway).build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(gateway).build(),
        };
        let wrong = failed(format!("{}: cannot set the default route to {gateway}", self.name));
        self.netlink.route().add(route).execute().await.map_err(wrong)
    }
}
