//! Determines where an address is, and which addresses cannot be explained.

use std::net::IpAddr;

use super::{Facts, Place, StepName, Walk};

/// Why packets to an address cannot be followed, with the remedy; `None` if they can.
pub fn refusal(address: IpAddr) -> Option<String> {
    let why = match address {
        IpAddr::V4(a) if a.is_unspecified() => "is not an address of a host",
        IpAddr::V4(a) if a.octets()[0] == 0 => "is in 0.0.0.0/8, to which no packet is sent",
        IpAddr::V4(a) if a.is_broadcast() => "is the broadcast address, which is never routed",
        IpAddr::V6(a) if a.is_unspecified() => "is not an address of a host",
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => {
            return Some(format!(
                "{a} is an IPv4 address in IPv6 notation; write {}",
                a.to_ipv4_mapped().map(|a| a.to_string()).unwrap_or_default()
            ));
        }
        IpAddr::V6(a) if a.is_unicast_link_local() => {
            return Some(format!(
                "{a} is a link-local address, which exists on each link apart and is never routed; `ip -6 \
                 neighbor show {a}` lists where it was seen"
            ));
        }
        a if a.is_loopback() => "is a loopback address: packets to it never leave this host",
        a if a.is_multicast() => "is a multicast address; routelet routes unicast only",
        _ => return None,
    };
    Some(format!("{address} {why}; give the unicast address of a host or container"))
}

/// Where the address is.
pub(super) fn step(facts: &Facts, walk: &mut Walk) {
    let role = facts.protected.as_ref().map(|role| format!(", {role}")).unwrap_or_default();
    let text = match &facts.place {
        Place::Host { interface } => format!("address of this host, on {interface}"),
        Place::Container { subnet, interface } => {
            format!("in {subnet} of {interface}: a container of this host")
        }
        Place::Originated { prefix, .. } => format!("in {prefix}, which this node originates"),
        Place::ClusterIp { range } => format!("in {range}, a range of cluster IPs of Services"),
        Place::OnLink { subnet, interface } => format!("on link: in {subnet} of {interface}{role}"),
        Place::Remote => format!("in no subnet of this host{role}"),
    };
    match session(facts) {
        Some(state) => walk.ok(StepName::Address, format!("{text}, BGP session {state}")),
        None => walk.ok(StepName::Address, text),
    }
    if let (Some(from), Some(place)) = (facts.question.from, &facts.from) {
        let text = match place {
            Place::Host { interface } => format!("from {from}, an address of this host on {interface}"),
            Place::Container { interface, .. } => format!("from {from}, a container on {interface}"),
            Place::OnLink { interface, .. } => format!("from {from}, on link on {interface}"),
            Place::Originated { prefix, .. } => {
                format!("from {from}, in {prefix}, which this node originates")
            }
            Place::ClusterIp { range } => format!("from {from}, in {range}, a range of cluster IPs"),
            Place::Remote => format!("from {from}, in no subnet of this host"),
        };
        walk.ok(StepName::Address, text);
    }
}

fn session(facts: &Facts) -> Option<&'static str> {
    let neighbor = facts.neighbors.iter().find(|n| n.address == Some(facts.question.address))?;
    Some(neighbor.state.as_str())
}
