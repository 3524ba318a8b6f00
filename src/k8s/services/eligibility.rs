//! Which addresses this node advertises, and why it does not advertise the others.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EndpointLocality, LocalEndpoints, ServiceAddress, ServiceSelection, Services};
use crate::{
    k8s::node::{EXCLUDED_LABEL, NodeView, Nodes},
    net::{Prefix, ServiceAddresses as Kind},
};

/// Conditions under which this node advertises Services.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub selection: &'a ServiceSelection,
    /// Whether a Node with the label [`EXCLUDED_LABEL`] advertises nevertheless.
    pub ignore_exclude_label: bool,
    /// Why no address is advertised at all, if so.
    pub withheld: Option<&'a str>,
    /// Why an address must not be advertised, if so.
    pub refused: &'a dyn Fn(IpAddr, Kind) -> Option<String>,
}

/// Whether this node advertises an address, and why.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Eligibility {
    /// Address of a Service.
    pub address: IpAddr,
    /// `NAMESPACE/NAME (KIND)`.
    pub services: Vec<String>,
    /// The advertised prefix: the address itself, or an aggregate.
    pub announced: Option<Prefix>,
    /// Why it is advertised, or why not.
    pub reason: String,
}

/// Decides for each address whether this node advertises it, in the order of addresses.
pub fn eligibility(services: &Services, nodes: &Nodes, rules: Rules<'_>) -> Vec<Eligibility> {
    let offers = services.addresses.iter().map(|(address, offers)| {
        let offers: Vec<_> = offers.iter().filter(|o| rules.selection.allows(o.kind)).collect();
        (*address, offers)
    });
    offers
        .filter(|(_, offers)| !offers.is_empty())
        .map(|(addr, offers)| eligibility_of(addr, &offers, nodes, rules))
        .collect()
}

fn eligibility_of(
    address: IpAddr,
    offers: &[&ServiceAddress],
    nodes: &Nodes,
    rules: Rules<'_>,
) -> Eligibility {
    let named = |o: &&ServiceAddress| format!("{} ({})", o.service, o.kind.as_str());
    let results: Vec<_> = offers.iter().map(|o| (*o, eligible(address, o, nodes, rules))).collect();
    let eligible: Vec<_> = results.iter().filter_map(|(o, why)| why.is_ok().then_some(*o)).collect();
    if eligible.is_empty() {
        let reason =
            results.into_iter().find_map(|(_, why)| why.err()).map(|why| why.to_string()).unwrap_or_default();
        return Eligibility {
            address,
            services: offers.iter().map(named).collect(),
            announced: None,
            reason,
        };
    }
    // If only some nodes forward, the aggregate would attract packets to the others too.
    let local = eligible.iter().all(|o| o.local.is_some());
    let aggregate = rules.selection.aggregate_of(address).filter(|_| !local);
    let reason = results.iter().find_map(|(_, why)| why.as_ref().ok()).copied().unwrap_or_default();
    Eligibility {
        address,
        services: eligible.iter().map(named).collect(),
        announced: Some(aggregate.unwrap_or_else(|| Prefix::host(address))),
        reason: reason.into(),
    }
}

/// Why this node does not advertise an address.
#[derive(Debug, thiserror::Error)]
enum Withheld {
    /// The address must not be advertised, no address is advertised, or there are too many.
    #[error("{0}")]
    Rule(String),
    #[error("the Node is not known yet")]
    UnknownNode,
    #[error("{0}")]
    Going(&'static str),
    #[error("the Node has the label {EXCLUDED_LABEL}")]
    Excluded,
    #[error("no endpoint is ready on any node (kubernetes.withdraw-without-endpoints)")]
    NoEndpoint,
    #[error("endpoints on this node are terminating, others are ready elsewhere (traffic policy Local)")]
    Terminating,
    #[error("no endpoint on this node is ready (traffic policy Local)")]
    NoLocalEndpoint,
    #[error("the Node is cordoned (kubernetes.withdraw-when-cordoned)")]
    Cordoned,
}

/// Why this node advertises the address, or why not.
fn eligible(
    address: IpAddr,
    offer: &ServiceAddress,
    nodes: &Nodes,
    rules: Rules<'_>,
) -> Result<&'static str, Withheld> {
    if let Some(why) = (rules.refused)(address, offer.kind) {
        return Err(Withheld::Rule(why));
    }
    if let Some(why) = rules.withheld {
        return Err(Withheld::Rule(why.to_owned()));
    }
    if let Some(excess) = offer.excess {
        return Err(Withheld::Rule(excess.reason(rules.selection.limits)));
    }
    let Some(own) = &nodes.own else { return Err(Withheld::UnknownNode) };
    if let Some(going) = own.going {
        return Err(Withheld::Going(going.as_str()));
    }
    if !accepts(own, offer.kind, rules) {
        return Err(Withheld::Excluded);
    }
    if offer.served == Some(false) {
        return Err(Withheld::NoEndpoint);
    }
    let why = match &offer.local {
        None => "every node forwards it",
        Some(EndpointLocality { local: LocalEndpoints::Ready, .. }) => "an endpoint on this node is ready",
        Some(EndpointLocality { local: LocalEndpoints::Terminating, elsewhere, .. })
            if elsewhere.is_empty() =>
        {
            "an endpoint on this node is terminating but still serving, none is ready elsewhere"
        }
        Some(EndpointLocality { local: LocalEndpoints::Terminating, .. }) => {
            return Err(Withheld::Terminating);
        }
        Some(_) => return Err(Withheld::NoLocalEndpoint),
    };
    if own.cordoned && rules.selection.track_remote_endpoints && others_take_over(offer, nodes, rules) {
        return Err(Withheld::Cordoned);
    }
    Ok(why)
}

/// Whether a node accepts packets for such addresses. The exclude label does not apply to cluster
/// IPs.
fn accepts(node: &NodeView, kind: Kind, rules: Rules<'_>) -> bool {
    kind == Kind::ClusterIp || !node.excluded || rules.ignore_exclude_label
}

/// Whether another node that is not cordoned advertises the address: only then does a cordoned node
/// withdraw it.
fn others_take_over(offer: &ServiceAddress, nodes: &Nodes, rules: Rules<'_>) -> bool {
    let stays =
        |n: &NodeView| !n.cordoned && !n.not_reporting && n.going.is_none() && accepts(n, offer.kind, rules);
    match &offer.local {
        None => nodes.others().any(stays),
        Some(places) => places.elsewhere.iter().any(|name| nodes.others.get(name).is_some_and(|n| stays(n))),
    }
}
