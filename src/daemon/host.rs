//! The data of `show host`, assembled from the plan, the host and the sessions.

use crate::{
    config::Config,
    control::{
        HostStatus, NeighborView, SessionState,
        host::{InterfaceStatus, NeighborOnLink, SubnetStatus},
    },
    fib::host::Host,
    net::{Family, Prefix},
    plan::{Plan, host::interfaces},
};

/// The source of the configuration without a file.
const BARE_HOST: &str = "no configuration file: BGP with the default gateways and with routers on uplinks without address, a private AS \
     number of its own, and the subnets of bridges with containers are advertised";

/// The same where the file has nothing but `docker.networks`.
const BARE_HOST_WITH_NETWORKS: &str = "no [bgp] in the configuration file: BGP with the default gateways and with routers on uplinks without address, a \
     private AS number of its own, and the subnets of docker.networks are advertised";

/// How the configuration came about.
pub(super) fn bare_host(config: &Config) -> &'static str {
    if config.docker.networks.is_empty() { BARE_HOST } else { BARE_HOST_WITH_NETWORKS }
}

/// The response; without a plan it only has the reason.
pub(super) fn status(
    plan: Result<&Plan, &String>,
    host: &Host,
    neighbors: &[NeighborView],
    problems: Vec<String>,
) -> HostStatus {
    let plan = match plan {
        Ok(plan) => plan,
        Err(_) => return HostStatus { problems, ..HostStatus::default() },
    };
    let rows = interfaces(plan, host).into_iter().map(|i| InterfaceStatus {
        neighbors: on_interface(host, &i.name, neighbors),
        subnets: i.subnets.into_iter().map(|(prefix, why)| subnet(prefix, why, neighbors)).collect(),
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

fn subnet(prefix: Prefix, why: Option<String>, neighbors: &[NeighborView]) -> SubnetStatus {
    if why.is_some() {
        return SubnetStatus { prefix, advertised_to: Vec::new(), reason: why };
    }
    let takes = |n: &&NeighborView| {
        n.state == SessionState::Established
            && n.advertised.get(&prefix.family()).is_some_and(|count| *count > 0)
    };
    let advertised_to: Vec<_> = neighbors.iter().filter(takes).map(|n| n.address.clone()).collect();
    let nobody = || match neighbors.iter().any(|n| n.state == SessionState::Established) {
        true => format!("no neighbor takes {}: see `routelet show neighbor`", name(prefix.family())),
        false => "no neighbor has a session: see `routelet show neighbors`".into(),
    };
    let reason = advertised_to.is_empty().then(nobody);
    SubnetStatus { prefix, advertised_to, reason }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "IPv4 routes",
        Family::Ipv6Unicast => "IPv6 routes",
    }
}
