use std::{collections::BTreeMap, net::IpAddr};

use super::Prefix;

/// Prefixes that are assigned to hosts independently of their neighbors, by the hosts' addresses:
/// the pod CIDRs of a cluster's Nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned(BTreeMap<IpAddr, Vec<Prefix>>);

impl Assigned {
    /// Records that `prefix` and everything inside it is behind `address`.
    pub fn add(&mut self, address: IpAddr, prefix: Prefix) {
        self.0.entry(address).or_default().push(prefix);
    }

    /// Whether a route for `prefix` over `next_hop` leads to the host that the prefix is assigned
    /// to.
    pub fn leads_there(&self, prefix: Prefix, next_hop: IpAddr) -> bool {
        self.0.get(&next_hop).is_some_and(|assigned| assigned.iter().any(|p| p.covers(prefix)))
    }
}
