//! The data of `show host`, assembled from the plan, the host and the sessions.

use super::queries::own::{AdvertisedTo, unsent};
use crate::{
    config::Config,
    control::{
        HostStatus, NeighborView,
        host::{InterfaceStatus, NeighborOnLink, SubnetStatus},
    },
    fib::host::Host,
    net::Prefix,
    plan::{NoPlan, Plan, host::interfaces},
};

/// The source of the configuration without a file.
const BARE_HOST: &str = "no configuration file: BGP with the default gateways and with routers on uplinks without address, a private AS \
     number of its own, and the subnets of bridges with containers are advertised";

/// The same if the file has only `docker.networks`.
const BARE_HOST_WITH_NETWORKS: &str = "no [bgp] in the configuration file: BGP with the default gateways and with routers on uplinks without address, a \
     private AS number of its own, and the subnets of docker.networks are advertised";

/// Describes the configuration if there is none in a file.
pub(super) fn bare_host(config: &Config) -> &'static str {
    if config.docker.networks.is_empty() { BARE_HOST } else { BARE_HOST_WITH_NETWORKS }
}

/// The data of the response besides the plan.
pub(super) struct State<'a> {
    pub(super) host: &'a Host,
    pub(super) neighbors: &'a [NeighborView],
    /// The neighbors to which originated subnets are advertised.
    pub(super) sent: &'a AdvertisedTo,
}

/// The response; without a plan it only contains the reason.
pub(super) fn status(plan: Result<&Plan, &NoPlan>, state: &State<'_>, problems: Vec<String>) -> HostStatus {
    let &State { host, neighbors, .. } = state;
    let plan = match plan {
        Ok(plan) => plan,
        Err(_) => return HostStatus { problems, ..HostStatus::default() },
    };
    let rows = interfaces(plan, host).into_iter().map(|i| InterfaceStatus {
        neighbors: on_interface(host, &i.name, neighbors),
        subnets: i.subnets.into_iter().map(|(prefix, why)| subnet(prefix, why, state)).collect(),
        name: i.name,
        kind: i.kind,
        up: i.up,
        carrier: i.carrier,
        default_route: i.default_route,
        reason: i.reason,
    });
    let configuration = if plan.config.is_bare_host {
        bare_host(&plan.config)
    } else {
        "by its file: `routelet show config`"
    };
    HostStatus { configuration: configuration.into(), interfaces: rows.collect(), problems }
}

/// The neighbors on a link.
fn on_interface(host: &Host, name: &str, neighbors: &[NeighborView]) -> Vec<NeighborOnLink> {
    let is_there = |n: &&NeighborView| match (&n.interface, n.address.parse()) {
        (Some(interface), _) => interface == name,
        (None, Ok(addr)) => host.connected_link(addr).is_some_and(|l| l.name == name),
        (None, Err(_)) => false,
    };
    let there = neighbors.iter().filter(is_there);
    there.map(|n| NeighborOnLink { address: n.address.clone(), state: n.state }).collect()
}

fn subnet(prefix: Prefix, why: Option<String>, state: &State<'_>) -> SubnetStatus {
    if why.is_some() {
        return SubnetStatus { prefix, advertised_to: Vec::new(), reason: why };
    }
    let advertised_to = state.sent.get(&prefix).cloned().unwrap_or_default();
    let reason = advertised_to.is_empty().then(|| unsent(state.neighbors).to_owned());
    SubnetStatus { prefix, advertised_to, reason }
}
