//! The inputs of a plan, kept to compute what another configuration would change.

use std::sync::Arc;

use crate::{
    config::{Config, Kubernetes},
    docker,
    fib::host::Host,
    k8s::{node::Nodes, objects::Objects},
    plan::{NoPlan, Plan, PlanInputs, overlay, plan},
};

/// The inputs of a plan besides the configuration.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Basis {
    pub(super) host: Arc<Host>,
    pub(super) nodes: Option<Arc<Nodes>>,
    pub(super) objects: Arc<Objects>,
    pub(super) extra: PlanInputs,
    /// The settings on which the topology in `extra` is based.
    pub(super) kubernetes: Kubernetes,
    /// Selected by the `docker.networks` in force: the networks of another list are only known once
    /// the engine is read for it.
    pub(super) docker: Arc<docker::Selected>,
}

impl Basis {
    /// The plan that another configuration would give at this moment.
    pub(in crate::daemon) fn plan(&self, config: &Config) -> Result<Plan, NoPlan> {
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
            let context = ParseContext { kubernetes: false, read_password: &|_| Ok(String::new()) };
            let config = parse(&text, &context).unwrap_or_else(|e| panic!("{e:?}")).0;
            let plan = basis.plan(&config).unwrap();
            plan.originated.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(originated("[docker]\nnetworks = [\"web\"]\n"), ["172.18.0.0/16"]);
        assert_eq!(originated(""), [""; 0]);
    }
}
