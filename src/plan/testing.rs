//! Configurations, Nodes and contexts for the tests of this folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Context, Plan, PlanInputs, plan};
use crate::{
    bgp::peer::Global,
    cni::conflist::Plugins,
    config::*,
    fib::host::Host,
    k8s::{
        node::{NodeView, Nodes, Presence},
        services::{ServiceAddress, Services},
    },
    net::ServiceAddresses,
};

/// The defaults of docs/reference.md.
pub(super) fn config() -> Config {
    Config {
        state_dir: "/var/lib/routelet".into(),
        bgp: Bgp {
            asn: AsSetting::Default,
            router_id: None,
            listen: Vec::new(),
            max_paths: 64,
            multipath_relax: true,
            cluster_id: None,
            require_policy: false,
            defaults: NeighborKeys::default(),
            groups: BTreeMap::new(),
            neighbors: Vec::new(),
            ranges: Vec::new(),
        },
        advertise: Advertise { require_carrier: true, ..Advertise::default() },
        policies: BTreeMap::new(),
        fib: Fib {
            install: true,
            table: 254,
            protocol: 179,
            metric: 179,
            on_exit: OnExit::Keep,
            resolve_via_default: false,
            prefer_source: Vec::new(),
            nexthop_objects: true,
            resilient: false,
        },
        kubernetes: Kubernetes {
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
        },
        cni: Cni {
            enabled: None,
            conf_dir: "/etc/cni/net.d".into(),
            file: "10-routelet.conflist".into(),
            bin_dir: "/opt/cni/bin".into(),
            bridge: "routelet0".into(),
            mtu: None,
            plugins: vec![CniPlugin::Name("portmap".into())],
        },
        docker: Docker { networks: Vec::new(), socket: "/run/docker.sock".into(), accept_forwarded: true },
        masquerade: Masquerade::default(),
        guard: Guard::default(),
        security: Security { sandbox: true },
        metrics: Metrics { listen: Vec::new(), ..Metrics::default() },
        control: Control { socket: "/run/routelet/routelet.sock".into(), group: None },
        log: Log { level: "info".into(), format: LogFormat::Text },
        is_bare_host: false,
    }
}

pub(super) fn extra(kubernetes: bool) -> PlanInputs {
    PlanInputs { kubernetes, ..PlanInputs::default() }
}

pub(super) fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> NodeView {
    NodeView {
        name: name.into(),
        uid: format!("uid-{name}"),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        pod_cidrs: pod_cidrs.iter().map(|p| p.parse().unwrap()).collect(),
        routelet: Presence::Signed,
        ..NodeView::default()
    }
}

/// The first is our own.
pub(super) fn nodes<const N: usize>(all: [NodeView; N]) -> Nodes {
    let mut all = all.into_iter();
    Nodes {
        own: all.next(),
        others: all.map(|n| (n.name.clone(), n.into())).collect(),
        complete: true,
        ..Nodes::default()
    }
}

/// `n` nodes in so many zones, the first of them our own.
pub(super) fn cluster(n: usize, zones: usize) -> Nodes {
    let mut all = nodes([]);
    let mut views = (0..n).map(|i| {
        let addr = format!("10.0.{}.{}", i / 250, i % 250 + 1);
        let zone = (zones > 0).then(|| format!("zone-{}", i % zones.max(1)));
        NodeView { zone, ..node(&format!("node-{i}"), &[&addr], &[]) }
    });
    all.own = views.next();
    all.others = views.map(|v| (v.name.clone(), v.into())).collect();
    all
}

/// An address of a Service whose endpoints are unknown.
pub(super) fn offer(service: &str, kind: ServiceAddresses) -> ServiceAddress {
    ServiceAddress { service: service.into(), kind, local: None, served: None, excess: None }
}

/// All inputs of a plan.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) config: Config,
    pub(super) nodes: Option<Nodes>,
    pub(super) host: Host,
    pub(super) extra: PlanInputs,
    global: Global,
}

impl Case {
    /// Under Kubernetes when there are nodes.
    pub(super) fn new(config: Config, nodes: Option<Nodes>, host: Host) -> Self {
        let extra = extra(nodes.is_some());
        let global = Global {
            asn: 64512,
            router_id: [1, 2, 3, 4].into(),
            cluster_id: [1, 2, 3, 4].into(),
            max_paths: 64,
            multipath_relax: true,
            restarting: false,
        };
        Self { config, nodes, host, extra, global }
    }

    /// Another node, to be changed.
    pub(super) fn other(&mut self, name: &str) -> &mut NodeView {
        let nodes = self.nodes.as_mut().expect("nodes");
        Arc::make_mut(nodes.others.get_mut(name).expect("a node"))
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            config: &self.config,
            nodes: self.nodes.as_ref(),
            host: &self.host,
            extra: &self.extra,
            global: &self.global,
            cluster_as: 64512,
        }
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.config, self.nodes.as_ref(), &self.host, &self.extra).unwrap()
    }

    /// The keys of all neighbors, each with its source.
    pub(super) fn peers(&self) -> Vec<String> {
        self.plan().peers.values().map(|p| format!("{} {:?}", p.key, p.source)).collect()
    }

    /// Every address is of the Service default/web, and all kinds are advertised.
    pub(super) fn with_services(mut self, addresses: &[(&str, ServiceAddresses)]) -> Self {
        self.config.kubernetes.services = ServiceAddresses::ALL.to_vec();
        let mut services = Services::default();
        for (addr, kind) in addresses {
            let offers = services.addresses.entry(addr.parse().unwrap()).or_default();
            offers.push(offer("default/web", *kind));
        }
        self.extra.services = Arc::new(services);
        self
    }

    pub(super) fn with_programs(mut self, names: &[&str]) -> Self {
        let programs = names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        self.extra.plugins = Arc::new(Plugins { programs: Some(programs), ..Plugins::default() });
        self
    }
}
