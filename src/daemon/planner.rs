//! Computes a new plan whenever the configuration, the host or the cluster changes, and publishes
//! its parts.
//!
//! Each part has its own `watch` and is only published when it differs, so that a change of a
//! neighbor's policy does not wake the task of the conflist.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{readiness::changed, unnumbered};
pub(super) use crate::mailbox::publish;
use crate::{
    bgp::{
        io::{
            Range, ToPeers, Wanted,
            rib::{RibSender, ToRib},
        },
        peer::{Global, PeerKey},
    },
    cni::{
        conflist::{self, Conflist, Plugins},
        io::PluginQuery,
    },
    config::{CniPlugin, Config, Kubernetes},
    docker,
    fib::{self, host::Host, io::sysctl, resolve::Resolver, sysctl::Needs},
    k8s::{
        node::Nodes,
        objects::Objects,
        services::{ServiceSelection, Services},
    },
    net::{
        Assigned, Diagnostic, Family, Guard, Links, Origination, PreferredSources, Prefix, Reachable, Reason,
        RouterId, Subject,
    },
    plan::{
        self, Drain, Election, FormerGateways, Gateways, Plan, PlanInputs, Sessions, forwarding, overlay,
        plan, uplinks,
    },
    unnumbered::{Interfaces, io::Found},
};

/// Inputs of the planner.
pub(super) struct Inputs {
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) host: watch::Receiver<Arc<Host>>,
    /// Known Nodes; `None` outside of Kubernetes.
    pub(super) nodes: Option<watch::Receiver<Arc<Nodes>>>,
    /// BGPPeer and BGPPolicy objects; `None` outside of Kubernetes.
    pub(super) objects: Option<watch::Receiver<Arc<Objects>>>,
    /// Ranges in which pods may have addresses; `None` outside of Kubernetes.
    pub(super) held: Option<watch::Receiver<Arc<BTreeSet<Prefix>>>>,
    /// Known Services; `None` outside of Kubernetes.
    pub(super) services: Option<watch::Receiver<Arc<Services>>>,
    /// The CNI plugins on this host; `None` outside of Kubernetes.
    pub(super) plugins: Option<watch::Receiver<Arc<Plugins>>>,
    /// DNS resolvers of the host, for the route guard.
    pub(super) resolvers: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    pub(super) disabled: watch::Receiver<BTreeSet<PeerKey>>,
    /// Networks of the Docker engine.
    pub(super) docker: watch::Receiver<Arc<docker::Selected>>,
    /// Neighbors found on interfaces of unnumbered neighbors.
    pub(super) found: watch::Receiver<Arc<Found>>,
    /// Established sessions; `None` outside of Kubernetes.
    pub(super) sessions: Option<watch::Receiver<Arc<Sessions>>>,
    /// Sources of connections that are not configured neighbors.
    pub(super) strangers: mpsc::Receiver<IpAddr>,
    /// The drain step of the node.
    pub(super) drain: watch::Receiver<Option<Drain>>,
    pub(super) restarting: watch::Receiver<bool>,
    /// For retrying neighbors at once when a link or an address is added.
    pub(super) peers: mpsc::Sender<ToPeers>,
    /// The RIB, to query which neighbors can be removed.
    pub(super) rib: RibSender,
}

/// Outputs of the planner. All senders start with empty values; receivers wait for changes.
pub(super) struct Outputs {
    pub(super) wanted: watch::Sender<Arc<Wanted>>,
    pub(super) global: watch::Sender<Global>,
    pub(super) originated: watch::Sender<Arc<BTreeMap<Prefix, Origination>>>,
    pub(super) reachable: watch::Sender<Arc<Reachable>>,
    pub(super) links: watch::Sender<Arc<Links>>,
    pub(super) guard: watch::Sender<Arc<Guard>>,
    pub(super) unreachable: watch::Sender<Arc<Vec<Prefix>>>,
    pub(super) sources: watch::Sender<Option<PreferredSources>>,
    pub(super) assigned: watch::Sender<Arc<Assigned>>,
    pub(super) conflist: watch::Sender<Option<Arc<Conflist>>>,
    pub(super) forward: watch::Sender<Option<Arc<crate::nft::forward::Wanted>>>,
    pub(super) block_bgp: watch::Sender<Option<Arc<crate::nft::pod_bgp::Wanted>>>,
    /// The sysctls that the host needs; `None` before the first plan.
    pub(super) needs: watch::Sender<Option<Arc<Needs>>>,
    /// Which networks of the Docker engine are looked for.
    pub(super) docker: watch::Sender<docker::Wanted>,
    /// Interfaces of unnumbered neighbors.
    pub(super) interfaces: watch::Sender<Arc<Interfaces>>,
    pub(super) all_nodes: watch::Sender<bool>,
    pub(super) service_selection: watch::Sender<Arc<ServiceSelection>>,
    /// The CNI plugins to scan for.
    pub(super) plugins: watch::Sender<Option<PluginQuery>>,
    /// Why there is no conflist, if so.
    pub(super) no_conflist: watch::Sender<String>,
    /// What the plan was made of.
    pub(super) basis: watch::Sender<Option<Arc<Basis>>>,
    /// The plan in force, or why there is none yet.
    pub(super) plan: watch::Sender<Arc<Result<Plan, String>>>,
}

/// What a plan is made of beside the configuration.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    host: Arc<Host>,
    nodes: Option<Arc<Nodes>>,
    objects: Arc<Objects>,
    extra: PlanInputs,
    /// How nodes peer, in the configuration that the topology in `extra` follows.
    kubernetes: Kubernetes,
    /// By `docker.networks` in force: what another list selects is known once the engine is read
    /// for it.
    docker: Arc<docker::Selected>,
}

impl Basis {
    /// The plan that another configuration would make here and now.
    pub(super) fn plan(&self, config: &Config) -> Result<Plan, String> {
        let mut over = overlay(config, self.nodes.as_deref().and_then(|n| n.own.as_ref()), &self.objects);
        if !over.config.docker.networks.is_empty() {
            over.config.advertise.docker_bridges.clone_from(&self.docker.bridges);
        }
        let mut extra = PlanInputs { objects: over.neighbors, broken: over.broken, ..self.extra.clone() };
        if over.config.kubernetes != self.kubernetes {
            extra.topology = None;
        }
        plan(&over.config, self.nodes.as_deref(), &self.host, &extra)
    }
}

/// Runs until its inputs are closed.
pub(super) async fn run(mut inputs: Inputs, outputs: Outputs, kubernetes: bool, state_dir: PathBuf) {
    let mut extra =
        PlanInputs { kubernetes, stored_router_id: read_router_id(&state_dir), ..PlanInputs::default() };
    let mut logged_missing = None;
    let mut source_addresses = None;
    let mut alone_since = BTreeMap::new();
    let mut election = Election::default();
    let mut gateways = Gateways::default();
    let mut former_gateways = FormerGateways::default();
    loop {
        let config = inputs.config.borrow_and_update().clone();
        let host = inputs.host.borrow_and_update().clone();
        let nodes = inputs.nodes.as_mut().map(|n| n.borrow_and_update().clone());
        let sessions = inputs.sessions.as_mut().map(|s| s.borrow_and_update().clone()).unwrap_or_default();
        let objects = inputs.objects.as_mut().map(|o| o.borrow_and_update().clone()).unwrap_or_default();
        let over = overlay(&config, nodes.as_deref().and_then(|n| n.own.as_ref()), &objects);
        let mut config = over.config;
        let docker = inputs.docker.borrow_and_update().clone();
        publish(&outputs.docker, docker_wanted(&config));
        config.advertise.docker_bridges.clone_from(&docker.bridges);
        extra.objects = over.neighbors;
        extra.broken = over.broken;
        extra.held = inputs.held.as_mut().map(|h| h.borrow_and_update().clone()).unwrap_or_default();
        extra.services = inputs.services.as_mut().map(|s| s.borrow_and_update().clone()).unwrap_or_default();
        extra.former_gateways = Arc::new(former_gateways.see(&host));
        extra.resolvers = inputs.resolvers.borrow_and_update().clone();
        extra.found = inputs.found.borrow_and_update().clone();
        extra.disabled = inputs.disabled.borrow_and_update().clone();
        extra.drain = *inputs.drain.borrow_and_update();
        extra.restarting = *inputs.restarting.borrow_and_update();
        let settled = nodes.as_deref().filter(|_| kubernetes).map(|nodes| plan::settle(nodes, &host));
        if let Some(nodes) = settled.as_deref() {
            elect(&mut election, &config, nodes, &sessions, &inputs.rib).await;
            extra.topology = election.topology().cloned();
        }
        extra.plugins = inputs.plugins.as_mut().map(|p| p.borrow_and_update().clone()).unwrap_or_default();
        let uplinks = uplinks(&config, nodes.as_deref(), &host);
        extra.off = switched_off(kubernetes, &uplinks, &config);
        publish(&outputs.plugins, kubernetes.then(|| plugin_query(&config)));
        gateways.handle(Instant::now().into_std(), &host, &config);
        extra.held_gateways = gateways.held();

        let resolver = Resolver::new(&host, config.fib.resolve_via_default);
        // Links first: sessions mark routes as stale before their next hops are resolved again.
        publish(&outputs.links, Arc::new(fib::links::links(&host)));
        let reachable = resolver.reachable().with_lives(fib::links::alive(&host));
        publish(&outputs.reachable, Arc::new(reachable));
        outputs.basis.send_replace(Some(Arc::new(Basis {
            host: host.clone(),
            nodes: nodes.clone(),
            objects: objects.clone(),
            extra: extra.clone(),
            kubernetes: config.kubernetes.clone(),
            docker: docker.clone(),
        })));
        let mut result = plan(&config, nodes.as_deref(), &host, &extra);
        if let Ok(plan) = &mut result
            && plan.conflist.is_some()
            && extra.plugins.programs.is_none()
        {
            let folder = config.cni.bin_dir.display();
            plan.problems.push(Diagnostic::new(
                Reason::CniPluginsUnknown,
                Subject::key("cni.bin-dir"),
                format!(
                    "cni.bin-dir: {folder} cannot be read, so it is not known which CNI plugins there are"
                ),
                "install them, or mount the folder",
            ));
        }
        if let Ok(plan) = &mut result {
            plan.problems.extend(docker.problems.iter().cloned());
            plan.add_object_problems(over.problems);
            unnumbered::date(&mut alone_since, &mut plan.unfound);
        }
        match &result {
            Ok(plan) => {
                logged_missing = None;
                extra.held_services = plan.held_services.clone();
                let own = nodes.as_ref().and_then(|n| n.own.as_ref());
                // A configured router ID is not saved.
                let set = config.bgp.router_id.is_some() || own.is_some_and(|o| o.router_id.is_some());
                if !set && plan.keeps_router_id {
                    keep_router_id(&state_dir, &mut extra.stored_router_id, plan.global.router_id);
                }
                publish_plan(&outputs, &config, plan);
            }
            // Not a problem: at each start the Node and its addresses arrive a little later.
            Err(missing) => {
                publish(&outputs.no_conflist, missing.clone());
                if logged_missing.as_ref() != Some(missing) {
                    tracing::info!(%missing, "waiting for inputs of the plan");
                    logged_missing = Some(missing.clone());
                }
            }
        }
        let needs = forwarding(&config, &host, &extra, result.as_ref().ok());
        publish(&outputs.needs, Some(Arc::new(needs)));
        publish(&outputs.plan, Arc::new(result));
        let now = usable(&host);
        // Not at the start: all neighbors are tried then anyway.
        if source_addresses.replace(now.clone()).is_some_and(|before| !now.is_subset(&before)) {
            // If the queue is full, a retry is queued already.
            let _ = inputs.peers.try_send(ToPeers::RetryNow);
        }

        // Each arm is cancel safe: `changed` marks nothing seen until it wins.
        let alive = loop {
            tokio::select! {
                r = inputs.config.changed() => break r.is_ok(),
                r = inputs.host.changed() => break r.is_ok(),
                r = changed(inputs.nodes.as_mut()) => break r,
                r = changed(inputs.held.as_mut()) => break r,
                r = changed(inputs.objects.as_mut()) => break r,
                r = changed(inputs.services.as_mut()) => break r,
                r = changed(inputs.plugins.as_mut()) => break r,
                () = switched(kubernetes, &uplinks, &config, &extra.off) => break true,
                r = changed(inputs.sessions.as_mut()) => if !r { break false },
                addr = caller(&mut inputs.strangers, nodes.as_deref()) => {
                    election.called(Instant::now().into_std(), addr);
                }
                r = inputs.resolvers.changed() => break r.is_ok(),
                r = inputs.disabled.changed() => break r.is_ok(),
                r = inputs.found.changed() => break r.is_ok(),
                r = inputs.docker.changed() => break r.is_ok(),
                r = inputs.drain.changed() => break r.is_ok(),
                r = inputs.restarting.changed() => break r.is_ok(),
                () = due(gateways.poll_timeout()) => break true,
                () = due(election.poll_timeout()) => {}
            }
            // Sessions and time only change the topology, and rarely: no new plan unless it
            // changed.
            let Some(nodes) = settled.as_deref() else { continue };
            let sessions =
                inputs.sessions.as_mut().map(|s| s.borrow_and_update().clone()).unwrap_or_default();
            elect(&mut election, &config, nodes, &sessions, &inputs.rib).await;
            if election.topology() != extra.topology.as_ref() {
                break true;
            }
        };
        if !alive {
            return;
        }
    }
}

/// Updates the election of reflectors. Waiting for the RIB's response is safe, since the RIB never
/// waits.
async fn elect(
    election: &mut Election,
    config: &Config,
    nodes: &Nodes,
    sessions: &Sessions,
    rib: &RibSender,
) {
    let now = Instant::now().into_std();
    election.handle(now, config, nodes, sessions);
    let Some(leaving) = election.removals_to_check(now, nodes) else { return };
    let (reply, result) = oneshot::channel();
    if rib.send(ToRib::SoleSources { leaving, reply }).await.is_ok()
        && let Ok(sole_sources) = result.await
    {
        election.apply_sole_sources(now, nodes, sole_sources);
    }
}

/// The next Node that connects and is not a neighbor yet. Cancel safe: other sources are discarded.
async fn caller(strangers: &mut mpsc::Receiver<IpAddr>, nodes: Option<&Nodes>) -> IpAddr {
    loop {
        match strangers.recv().await {
            Some(addr) if nodes.is_some_and(|n| n.others().any(|o| o.addresses.contains(&addr))) => {
                return addr;
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

fn docker_wanted(config: &Config) -> docker::Wanted {
    docker::Wanted { socket: config.docker.socket.clone(), selectors: config.docker.networks.clone() }
}

/// The plugins in the conflist.
fn plugin_query(config: &Config) -> PluginQuery {
    let types = config.cni.plugins.iter().filter_map(|p| match p {
        CniPlugin::Name(name) => Some(name.clone()),
        CniPlugin::Table(table) => Some(table.get("type")?.as_str()?.to_owned()),
    });
    PluginQuery {
        bin_dir: config.cni.bin_dir.clone(),
        conflist: config.cni.conf_dir.join(&config.cni.file),
        names: conflist::REQUIRED.map(str::to_owned).into_iter().chain(types).collect(),
    }
}

/// Families that are disabled on this host, with the setting. IPv4 has no such setting.
fn switched_off(kubernetes: bool, uplinks: &[String], config: &Config) -> BTreeMap<Family, String> {
    let off = kubernetes.then(|| sysctl::ipv6_off(uplinks, &config.cni.bridge)).flatten();
    off.map(|setting| (Family::Ipv6Unicast, setting)).into_iter().collect()
}

/// Waits until a family is enabled or disabled: the kernel sends no notification about settings of
/// future interfaces. Cancel safe.
async fn switched(kubernetes: bool, uplinks: &[String], config: &Config, known: &BTreeMap<Family, String>) {
    loop {
        tokio::time::sleep(SETTINGS_INTERVAL).await;
        if switched_off(kubernetes, uplinks, config) != *known {
            return;
        }
    }
}

/// How often to read settings without notifications.
const SETTINGS_INTERVAL: Duration = Duration::from_secs(2);

/// Waits until then; forever without a time. Cancel safe.
pub(super) async fn due(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Addresses that are usable as source now.
fn usable(host: &Host) -> BTreeSet<(u32, IpAddr)> {
    let links = host.links.values().filter(|l| host.has_carrier(l));
    links.flat_map(|l| l.addresses.iter().filter(|a| !a.tentative).map(|a| (l.index, a.addr))).collect()
}

/// Publishes the parts of the plan; own prefixes before the sessions that advertise them.
fn publish_plan(outputs: &Outputs, config: &Config, plan: &Plan) {
    publish(&outputs.guard, plan.guard.clone());
    publish(&outputs.global, plan.global.clone());
    publish(&outputs.originated, Arc::new(plan.originated.clone()));
    publish(&outputs.sources, Some(plan.sources));
    publish(&outputs.assigned, plan.assigned.clone());
    publish(&outputs.unreachable, Arc::new(plan.unreachable.clone()));
    publish(&outputs.no_conflist, plan.no_conflist.clone());
    publish(&outputs.conflist, plan.conflist.clone());
    publish(&outputs.forward, Some(plan.forward.clone()));
    publish(&outputs.block_bgp, Some(plan.block_bgp.clone()));
    publish(&outputs.interfaces, plan.interfaces.clone());
    publish(&outputs.all_nodes, plan.all_nodes);
    publish(&outputs.service_selection, plan.service_selection.clone());
    let wanted = Wanted {
        global: plan.global.clone(),
        listen: config.bgp.listen.clone(),
        peers: plan.peers.clone(),
        ranges: plan.ranges.iter().map(range).collect(),
        unnumbered: plan.interfaces.links.values().map(|i| i.name.clone()).collect(),
    };
    publish(&outputs.wanted, Arc::new(wanted));
}

fn range(range: &plan::Range) -> Range {
    Range { prefix: range.prefix, limit: range.limit, template: range.template.clone() }
}

pub(super) const ROUTER_ID_FILE: &str = "router-id";

fn read_router_id(state_dir: &Path) -> Option<RouterId> {
    String::from_utf8(crate::state::io::read(&state_dir.join(ROUTER_ID_FILE))?).ok()?.trim().parse().ok()
}

/// Saves the router ID, so that a changed DHCP lease does not reset sessions.
fn keep_router_id(state_dir: &Path, stored: &mut Option<RouterId>, id: RouterId) {
    if *stored == Some(id) {
        return;
    }
    *stored = Some(id);
    let path = state_dir.join(ROUTER_ID_FILE);
    crate::state::io::keep(&path, format!("{id}\n").into_bytes(), 0o644);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{ParseContext, parse},
        fib::host::testing::{host, link},
    };

    #[test]
    fn another_configuration_is_planned_with_the_networks_of_docker() {
        let mut bridge = link(3, "br-1").with("172.18.0.1/16");
        bridge.kind = "bridge".into();
        let mut port = link(4, "veth1");
        port.master = Some(3);
        let docker = docker::Selected { bridges: ["br-1".to_owned()].into(), problems: Vec::new() };
        let basis = Basis {
            host: Arc::new(host([link(2, "eth0").with("10.0.0.2/24"), bridge, port], [])),
            nodes: None,
            objects: Arc::default(),
            extra: PlanInputs::default(),
            kubernetes: Kubernetes::default(),
            docker: Arc::new(docker),
        };
        let originated = |more: &str| {
            let text = format!("[bgp]\nas = 1000\nrouter-id = \"10.0.0.2\"\n{more}");
            let context = ParseContext { kubernetes: false, read_password: &|_| Err(String::new()) };
            let config = parse(&text, &context).unwrap_or_else(|e| panic!("{e:?}")).0;
            let plan = basis.plan(&config).unwrap();
            plan.originated.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(originated("[docker]\nnetworks = [\"web\"]\n"), ["172.18.0.0/16"]);
        assert_eq!(originated(""), [""; 0]);
    }
}
