//! Every default, written once.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    Advertise, AsSetting, Bgp, Cni, CniPlugin, Config, Control, Docker, Fib, Guard, GuardConnected,
    Kubernetes, Log, LogFormat, Masquerade, Metrics, Neighbor, NeighborId, NeighborKeys, OnExit, Peering,
    Security, ServiceRules,
};
use crate::{
    bgp::peer::{AddPaths, AsSets, MaxPrefixesAction, RemoteAs, TtlSecurity},
    net::{Family, Selector, ServiceAddresses, ServiceLimits},
};

/// An empty file.
impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/routelet".into(),
            bgp: Bgp::default(),
            advertise: Advertise { require_carrier: true, ..Advertise::default() },
            policies: Default::default(),
            fib: Fib::default(),
            kubernetes: Kubernetes::default(),
            cni: Cni::default(),
            docker: Docker {
                networks: Vec::new(),
                socket: "/run/docker.sock".into(),
                accept_forwarded: true,
            },
            masquerade: Masquerade::default(),
            guard: Guard::default(),
            security: Security { sandbox: true },
            metrics: Metrics { listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9179))] },
            control: Control { socket: "/run/routelet/routelet.sock".into(), group: None },
            log: Log { level: "info".into(), format: LogFormat::Text },
            is_bare_host: false,
        }
    }
}

impl Config {
    /// Under Kubernetes without a file.
    pub fn for_kubernetes() -> Self {
        Self::default()
    }

    /// A bare host without a file.
    pub fn for_bare_host() -> Self {
        let mut config = Self::default();
        config.set_bare_host();
        config
    }

    /// Peers with default gateways and on uplinks without addresses, and advertises the bridges of
    /// containers. The own AS number follows from the router id.
    pub(super) fn set_bare_host(&mut self) {
        let made =
            |at| Neighbor { at, group: Some(GATEWAY_GROUP.into()), limit: 1, keys: NeighborKeys::default() };
        self.bgp.asn = AsSetting::Auto;
        self.bgp.neighbors = [NeighborId::Gateway, NeighborId::Uplinks].map(made).into();
        self.advertise.containers = true;
        self.is_bare_host = true;
    }
}

/// The group of neighbors at default gateways; there without being written.
pub const GATEWAY_GROUP: &str = "gateway";
/// The group of the other nodes of a mesh.
pub const MESH_GROUP: &str = "mesh";
/// The group of route reflectors.
pub const REFLECTORS_GROUP: &str = "reflectors";

/// Defaults of a neighbor at a default gateway.
pub fn implied_by_gateway() -> NeighborKeys {
    NeighborKeys {
        remote_as: Some(RemoteAs::External),
        allow_own_as: Some(1),
        ttl_security: Some(TtlSecurity::WhereOffered),
        ..NeighborKeys::default()
    }
}

/// Defaults of a neighbor on an `interface`: those of a gateway, as both are switches.
pub fn implied_by_interface() -> NeighborKeys {
    implied_by_gateway()
}

/// The groups that exist without being written, as long as the file does not change their keys.
pub(super) fn built_in_groups() -> [(String, NeighborKeys); 3] {
    [
        (GATEWAY_GROUP.into(), implied_by_gateway()),
        (MESH_GROUP.into(), NeighborKeys::default()),
        (REFLECTORS_GROUP.into(), NeighborKeys::default()),
    ]
}

impl Default for Bgp {
    fn default() -> Self {
        Self {
            asn: AsSetting::Default,
            router_id: None,
            listen: vec![(Ipv4Addr::UNSPECIFIED, 179).into(), (Ipv6Addr::UNSPECIFIED, 179).into()],
            max_paths: 64,
            multipath_relax: true,
            cluster_id: None,
            require_policy: false,
            defaults: neighbor_defaults(),
            groups: built_in_groups().into(),
            neighbors: Vec::new(),
            ranges: Vec::new(),
        }
    }
}

/// Defaults of a neighbor, unless `[bgp]`, the group or the neighbor sets the key. Without
/// `remote-as`, which is required, `next-hop-self`, which depends on the session, `allow-own-as`,
/// which is 1 for gateways, and `max-prefixes`, which follows from the available memory (`daemon`).
fn neighbor_defaults() -> NeighborKeys {
    NeighborKeys {
        port: Some(179),
        passive: Some(false),
        families: Some(Family::ALL.to_vec()),
        hold_time: Some(90),
        connect_retry_time: Some(5),
        idle_hold_time: Some(5),
        graceful_restart: Some(true),
        restart_time: Some(120),
        long_lived_stale_time: Some(0),
        route_reflector_client: Some(false),
        transit: Some(false),
        max_prefixes_action: Some(MaxPrefixesAction::Restart),
        max_prefixes_restart: Some(300),
        add_paths: Some(AddPaths::default()),
        bfd: Some(None),
        import: Some(Vec::new()),
        export: Some(Vec::new()),
        accept_default: Some(false),
        as_sets: Some(AsSets::Withdraw),
        ..NeighborKeys::default()
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self { connected: GuardConnected::default(), block_pod_bgp: true }
    }
}

impl Default for Fib {
    fn default() -> Self {
        Self {
            install: true,
            table: 254,
            protocol: 179,
            metric: 179,
            on_exit: OnExit::Keep,
            resolve_via_default: false,
            prefer_source: Vec::new(),
            nexthop_objects: true,
            resilient: false,
        }
    }
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            enabled: None,
            peering: vec![Peering::Auto],
            mesh_limit: 100,
            mesh_accept: Vec::new(),
            node_name: None,
            service_cidrs: None,
            advertise_pod_cidrs: true,
            startup_taint: None,
            accept_forwarded: true,
            services: Vec::new(),
            service_rules: ServiceRules::default(),
        }
    }
}

/// An annotation may request load balancer addresses only: a Service needs a load balancer to have
/// one. Every Service has a cluster IP, and its author chooses its external IPs.
impl Default for ServiceRules {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            annotations: vec![ServiceAddresses::LoadBalancerIp],
            aggregates: Vec::new(),
            external_ranges: Vec::new(),
            limits: ServiceLimits::default(),
            classes: vec![LOAD_BALANCER_CLASS.into()],
            when_cordoned: false,
            without_endpoints: false,
            ignore_exclude_label: false,
        }
    }
}

/// `spec.loadBalancerClass` of Services that are meant for us.
const LOAD_BALANCER_CLASS: &str = "routelet.io/bgp";

impl Default for Cni {
    fn default() -> Self {
        Self {
            enabled: None,
            conf_dir: "/etc/cni/net.d".into(),
            file: "10-routelet.conflist".into(),
            bin_dir: "/opt/cni/bin".into(),
            bridge: "routelet0".into(),
            mtu: None,
            plugins: vec![CniPlugin::Name("portmap".into())],
        }
    }
}
