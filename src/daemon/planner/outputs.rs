//! The outputs of the planner, with one channel for each part.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use super::{basis::Basis, publish};
use crate::{
    bgp::{
        io::{Range, Wanted},
        peer::Global,
    },
    cni::{conflist::Conflist, io::PluginQuery},
    config::Config,
    docker,
    fib::sysctl::Needs,
    k8s::services::ServiceSelection,
    net::{Assigned, Guard, Links, Origination, PreferredSources, Prefix, Reachable, RouterId},
    nft::{self, passage::Passage},
    plan::{self, NoPlan, Plan},
    unnumbered::Interfaces,
};

/// Outputs of the planner. All senders start with empty values; receivers wait for changes.
pub(in crate::daemon) struct Outputs {
    pub(in crate::daemon) wanted: watch::Sender<Arc<Wanted>>,
    pub(in crate::daemon) global: watch::Sender<Global>,
    pub(in crate::daemon) originated: watch::Sender<Arc<BTreeMap<Prefix, Origination>>>,
    pub(in crate::daemon) reachable: watch::Sender<Arc<Reachable>>,
    pub(in crate::daemon) links: watch::Sender<Arc<Links>>,
    pub(in crate::daemon) guard: watch::Sender<Arc<Guard>>,
    pub(in crate::daemon) unreachable: watch::Sender<Arc<Vec<Prefix>>>,
    pub(in crate::daemon) sources: watch::Sender<Option<PreferredSources>>,
    pub(in crate::daemon) assigned: watch::Sender<Arc<Assigned>>,
    pub(in crate::daemon) conflist: watch::Sender<Option<Arc<Conflist>>>,
    pub(in crate::daemon) forward: watch::Sender<Option<Arc<nft::forward::Wanted>>>,
    pub(in crate::daemon) block_bgp: watch::Sender<Option<Arc<nft::pod_bgp::Wanted>>>,
    /// The sysctls that the host needs; `None` before the first plan.
    pub(in crate::daemon) needs: watch::Sender<Option<Arc<Needs>>>,
    /// The packets for which packet filters are evaluated.
    pub(in crate::daemon) passages: watch::Sender<Arc<Vec<Passage>>>,
    /// Which networks of the Docker engine are needed.
    pub(in crate::daemon) docker: watch::Sender<docker::Wanted>,
    /// The interfaces on which unnumbered neighbors are looked for.
    pub(in crate::daemon) interfaces: watch::Sender<Arc<Interfaces>>,
    pub(in crate::daemon) all_nodes: watch::Sender<bool>,
    pub(in crate::daemon) service_selection: watch::Sender<Arc<ServiceSelection>>,
    /// The CNI plugins to scan for.
    pub(in crate::daemon) plugins: watch::Sender<Option<PluginQuery>>,
    /// Why there is no conflist, if so.
    pub(in crate::daemon) no_conflist: watch::Sender<String>,
    /// The inputs of the plan.
    pub(in crate::daemon) basis: watch::Sender<Option<Arc<Basis>>>,
    /// The plan in force, or why there is none yet.
    pub(in crate::daemon) plan: watch::Sender<Arc<Result<Plan, NoPlan>>>,
}

impl Outputs {
    /// Before the first plan: no sessions, no routes.
    pub(in crate::daemon) fn new(config: &Config, kubernetes: bool) -> Self {
        let nothing = nothing();
        Self {
            global: watch::Sender::new(nothing.global.clone()),
            wanted: watch::Sender::new(Arc::new(nothing)),
            originated: watch::Sender::default(),
            reachable: watch::Sender::default(),
            links: watch::Sender::default(),
            guard: watch::Sender::default(),
            unreachable: watch::Sender::default(),
            sources: watch::Sender::default(),
            assigned: watch::Sender::default(),
            conflist: watch::Sender::default(),
            forward: watch::Sender::default(),
            block_bgp: watch::Sender::default(),
            needs: watch::Sender::default(),
            passages: watch::Sender::default(),
            docker: watch::Sender::default(),
            interfaces: watch::Sender::default(),
            all_nodes: watch::Sender::new(plan::starts_with_all_nodes(config, kubernetes)),
            service_selection: watch::Sender::new(plan::service_selection(config, kubernetes)),
            plugins: watch::Sender::default(),
            no_conflist: watch::Sender::new("the first plan is being computed".to_owned()),
            basis: watch::Sender::default(),
            plan: watch::Sender::new(Arc::new(Err(NoPlan::Starting))),
        }
    }

    /// Publishes the parts of the plan; own prefixes before the sessions that advertise them.
    pub(super) fn publish_plan(&self, config: &Config, plan: &Plan) {
        publish(&self.guard, plan.guard.clone());
        publish(&self.global, plan.global.clone());
        publish(&self.originated, Arc::new(plan.originated.clone()));
        publish(&self.sources, Some(plan.sources));
        publish(&self.assigned, plan.assigned.clone());
        publish(&self.unreachable, Arc::new(plan.unreachable.clone()));
        publish(&self.no_conflist, plan.no_conflist.clone());
        publish(&self.conflist, plan.conflist.clone());
        publish(&self.forward, Some(plan.forward.clone()));
        publish(&self.block_bgp, Some(plan.block_bgp.clone()));
        publish(&self.interfaces, plan.interfaces.clone());
        publish(&self.all_nodes, plan.all_nodes);
        publish(&self.service_selection, plan.service_selection.clone());
        let wanted = Wanted {
            global: plan.global.clone(),
            listen: config.bgp.listen.clone(),
            peers: plan.peers.clone(),
            ranges: plan.ranges.iter().map(range).collect(),
            unnumbered: plan.interfaces.links.values().map(|i| i.name.clone()).collect(),
        };
        publish(&self.wanted, Arc::new(wanted));
    }
}

fn range(range: &plan::Range) -> Range {
    Range { prefix: range.prefix, limit: range.limit, template: range.template.clone() }
}

/// No sessions, and a router ID that is never sent.
fn nothing() -> Wanted {
    let global = Global {
        asn: 0,
        router_id: RouterId::UNSPECIFIED,
        cluster_id: RouterId::UNSPECIFIED,
        max_paths: 1,
        multipath_relax: true,
        restarting: false,
    };
    Wanted {
        global,
        listen: Vec::new(),
        peers: BTreeMap::new(),
        ranges: Vec::new(),
        unnumbered: Default::default(),
    }
}
