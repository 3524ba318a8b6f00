//! Which prefixes the Nodes of a cluster may advertise to one another.
//!
//! The API server knows which pod CIDRs belong to which Node, so a neighbor that
//! `kubernetes.peering` made need not be trusted with more. A route is accepted when the Node that
//! it leads to may advertise its prefix: the Node at the other end of the session or, where the
//! route is reflected, the Node whose address is the next hop, whichever reflector it came through.
//! Either way packets end up at the Node to which the prefix belongs, and at no other.
//!
//! Pod CIDRs are disjoint here: of two that overlap the one that comes first in the list counts. An
//! address that several Nodes report stands for each of them, so that a Node that claims the
//! address of another takes nothing from it.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Cover, Prefix};

/// Place of a Node in [`NodePrefixes::nodes`].
type NodeNo = u32;

/// A Node as the cluster describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInput {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<Prefix>,
    /// Pod CIDRs that it had, as long as no other Node has them.
    pub former: Vec<Prefix>,
    /// No external load balancer sends to it.
    pub excluded: bool,
}

/// Which Nodes may advertise the address of a Service, or an aggregate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceInput {
    /// All of them.
    pub every: bool,
    /// All but those that are excluded from external load balancers.
    pub unexcluded: bool,
    /// These, by name: with an endpoint that serves.
    pub nodes: Vec<String>,
}

/// Which prefixes each Node may advertise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePrefixes {
    nodes: Vec<Node>,
    /// In order; an address that several Nodes report is there several times.
    addresses: Vec<(IpAddr, NodeNo)>,
    /// Disjoint and in order.
    pods: Vec<(Prefix, NodeNo)>,
    /// In order.
    services: Vec<(Prefix, Announcers)>,
    /// What each Node may advertise: `kubernetes.mesh-accept`.
    accepted: Cover,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    name: String,
    addresses: Vec<IpAddr>,
    excluded: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Announcers {
    every: bool,
    unexcluded: bool,
    nodes: Vec<NodeNo>,
}

/// Where a received route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The other end of the session.
    pub neighbor: IpAddr,
    /// Of a reflected route (RFC 4456).
    pub next_hop: Option<IpAddr>,
}

/// What two of them may judge differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeChanges {
    pub(super) inside: Vec<Prefix>,
    pub(super) exactly: Vec<Prefix>,
    /// Addresses that stand for other Nodes than before.
    pub(super) senders: Vec<IpAddr>,
}

impl NodePrefixes {
    /// `nodes` in the order in which they are believed: of two overlapping pod CIDRs the first
    /// counts.
    pub fn new(
        nodes: Vec<NodeInput>,
        services: BTreeMap<Prefix, ServiceInput>,
        accepted: impl IntoIterator<Item = Prefix>,
    ) -> Self {
        let pods = owned(&nodes);
        let numbers: BTreeMap<&str, NodeNo> = (0..).zip(&nodes).map(|(no, n)| (&*n.name, no)).collect();
        let announcers = |s: ServiceInput| {
            let mut named: Vec<_> = s.nodes.iter().filter_map(|n| numbers.get(&**n)).copied().collect();
            named.sort_unstable();
            named.dedup();
            Announcers { every: s.every, unexcluded: s.unexcluded, nodes: named }
        };
        let services = services.into_iter().map(|(prefix, s)| (prefix, announcers(s))).collect();
        let addresses = (0..).zip(&nodes).flat_map(|(no, n)| n.addresses.iter().map(move |a| (*a, no)));
        let mut addresses: Vec<(IpAddr, NodeNo)> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        let node = |n: NodeInput| Node { name: n.name, addresses: n.addresses, excluded: n.excluded };
        Self {
            addresses,
            pods,
            services,
            accepted: accepted.into_iter().collect(),
            nodes: nodes.into_iter().map(node).collect(),
        }
    }

    /// Whether the route is one that its Node may advertise.
    pub fn allows(&self, prefix: Prefix, sender: Sender) -> bool {
        if let Some((_, owner)) = self.owner(prefix) {
            let addresses = &self.node(owner).addresses;
            return sender.all().any(|addr| addresses.contains(&addr));
        }
        self.accepted.of(prefix).is_some()
            || self.announcers(prefix).is_some_and(|who| {
                let mut nodes = sender.all().flat_map(|addr| self.at(addr));
                nodes.any(|no| self.is_among(who, no))
            })
    }

    /// Why it is refused, with the Nodes concerned; `None` where it is not.
    pub fn reason(&self, prefix: Prefix, sender: Sender) -> Option<String> {
        if self.allows(prefix, sender) {
            return None;
        }
        let of = sender.next_hop.unwrap_or(sender.neighbor);
        let names: Vec<&str> = self.at(of).map(|no| &*self.node(no).name).take(MAX_NAMED).collect();
        let Some((first, more)) = names.split_first() else {
            return Some(format!("guard: {of} is the address of no Node, so nothing is accepted from there"));
        };
        let node = more.iter().fold(format!("node {first}"), |text, name| format!("{text} or {name}"));
        Some(match self.owner(prefix) {
            Some((pods, owner)) => {
                let owner = &self.node(owner).name;
                format!("guard: not in the pod CIDRs of {node}: {pods} belongs to node {owner}")
            }
            None if self.announcers(prefix).is_some() => {
                format!(
                    "guard: not in the pod CIDRs of {node}, and it may not advertise this Service address"
                )
            }
            None => format!(
                "guard: not in the pod CIDRs of {node}, no Service address, and not in kubernetes.mesh-accept"
            ),
        })
    }

    /// The addresses of Services and their aggregates.
    pub(super) fn services(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.services.iter().map(|(prefix, _)| *prefix)
    }

    /// What `new` may judge differently.
    pub(super) fn changes(&self, new: &Self) -> NodeChanges {
        if self == new {
            return NodeChanges::default();
        }
        let pods = |s: &Self, entry: &(Prefix, NodeNo)| s.nodes[entry.1 as usize].clone();
        let mut inside = differences(&self.pods, &new.pods, |a, b| {
            let (a, b) = (pods(self, a), pods(new, b));
            (a.name, a.addresses) == (b.name, b.addresses)
        });
        inside.extend(self.accepted.differences(&new.accepted));
        let exactly = differences(&self.services, &new.services, |a, b| {
            let names =
                |s: &Self, who: &Announcers| who.nodes.iter().map(|no| s.node(*no).name.clone()).collect();
            let (of_a, of_b): (Vec<String>, Vec<String>) = (names(self, &a.1), names(new, &b.1));
            (a.1.every, a.1.unexcluded, of_a) == (b.1.every, b.1.unexcluded, of_b)
        });
        NodeChanges { inside, exactly, senders: self.other_senders(new) }
    }

    /// Addresses that stand for other Nodes, or for Nodes that are excluded as they were not.
    fn other_senders(&self, new: &Self) -> Vec<IpAddr> {
        let described = |s: &Self| -> BTreeMap<IpAddr, Vec<(String, bool)>> {
            let mut all = BTreeMap::<_, Vec<_>>::new();
            for (addr, no) in &s.addresses {
                let node = s.node(*no);
                all.entry(*addr).or_default().push((node.name.clone(), node.excluded));
            }
            all.values_mut().for_each(|nodes| nodes.sort_unstable());
            all
        };
        let (before, after) = (described(self), described(new));
        let differ = before.keys().chain(after.keys()).filter(|a| before.get(*a) != after.get(*a));
        let mut senders: Vec<IpAddr> = differ.copied().collect();
        senders.sort_unstable();
        senders.dedup();
        senders
    }

    /// The pod CIDR that holds a prefix, with its Node.
    fn owner(&self, prefix: Prefix) -> Option<(Prefix, NodeNo)> {
        let after = self.pods.partition_point(|(pods, _)| *pods <= prefix);
        let before = *self.pods.get(after.checked_sub(1)?)?;
        before.0.covers(prefix).then_some(before)
    }

    fn announcers(&self, prefix: Prefix) -> Option<&Announcers> {
        let at = self.services.binary_search_by_key(&prefix, |(p, _)| *p).ok()?;
        Some(&self.services[at].1)
    }

    fn is_among(&self, who: &Announcers, no: NodeNo) -> bool {
        who.every || who.unexcluded && !self.node(no).excluded || who.nodes.binary_search(&no).is_ok()
    }

    /// The Nodes that report an address.
    fn at(&self, addr: IpAddr) -> impl Iterator<Item = NodeNo> + '_ {
        let from = self.addresses.partition_point(|(a, _)| *a < addr);
        self.addresses[from..].iter().take_while(move |(a, _)| *a == addr).map(|(_, no)| *no)
    }

    fn node(&self, no: NodeNo) -> &Node {
        &self.nodes[no as usize]
    }
}

impl Sender {
    pub fn all(self) -> impl Iterator<Item = IpAddr> {
        [Some(self.neighbor), self.next_hop].into_iter().flatten()
    }
}

/// Disjoint pod CIDRs with their Nodes: present ones before former ones, each in the order of the
/// Nodes.
fn owned(nodes: &[NodeInput]) -> Vec<(Prefix, NodeNo)> {
    let mut owned = BTreeMap::<Prefix, NodeNo>::new();
    let present = (0..).zip(nodes).map(|(no, n)| (no, &n.pod_cidrs));
    let former = (0..).zip(nodes).map(|(no, n)| (no, &n.former));
    for (no, prefixes) in present.chain(former) {
        // Of its own that lie inside each other the widest stands for all.
        let own: Cover = prefixes.iter().copied().collect();
        let free = |p: &Prefix| {
            let before = owned.range(..=*p).next_back();
            let inside = owned.range(*p..).next();
            !before.is_some_and(|(o, _)| o.covers(*p)) && !inside.is_some_and(|(o, _)| p.covers(*o))
        };
        let free: Vec<Prefix> = own.iter().filter(free).collect();
        owned.extend(free.into_iter().map(|p| (p, no)));
    }
    owned.into_iter().collect()
}

/// Keys of what only one of two ordered lists has, and of what both have differently.
fn differences<T>(
    a: &[(Prefix, T)],
    b: &[(Prefix, T)],
    same: impl Fn(&(Prefix, T), &(Prefix, T)) -> bool,
) -> Vec<Prefix> {
    let find = |list: &[(Prefix, T)], key: Prefix| list.binary_search_by_key(&key, |(p, _)| *p).ok();
    let here = a.iter().filter(|x| find(b, x.0).is_none_or(|n| !same(x, &b[n]))).map(|x| x.0);
    let there = b.iter().filter(|x| find(a, x.0).is_none()).map(|x| x.0);
    here.chain(there).collect()
}

/// So many Nodes with one address are named.
const MAX_NAMED: usize = 3;

#[cfg(test)]
mod tests;
