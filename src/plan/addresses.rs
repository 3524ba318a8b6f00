//! Which addresses of Nodes are used, and which cannot be right.
//!
//! Other nodes connect to the Node's InternalIPs, and routes point to them. They come from the
//! kubelet, which guesses, or from a cloud controller. Sessions with wrong addresses fail without a
//! hint at the cause, so they are compared with the addresses of this host and of the other Nodes.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Context, candidates::takes_part};
use crate::{
    fib::host::Host,
    k8s::node::{NodeView, Nodes, Presence},
    net::{Diagnostic, Family, Reason, Subject},
};

/// Maximum number of Nodes or addresses that one sentence names.
const MAX_NAMED: usize = 3;

/// The Nodes, with our own Node's addresses reordered: those that this host has come first. If our
/// Node has no InternalIP, its ExternalIPs that this host has are used instead.
pub fn settle<'a>(nodes: &'a Nodes, host: &Host) -> Cow<'a, Nodes> {
    let Some(own) = &nodes.own else { return Cow::Borrowed(nodes) };
    let here = addresses_of(host);
    let mut addresses = own.addresses.clone();
    let by_external = addresses.is_empty();
    if by_external {
        addresses.extend(own.external.iter().filter(|a| here.contains(a)));
    }
    // A stable sort keeps the Node's order among the addresses that are on the host.
    addresses.sort_by_key(|a| !here.contains(a));
    if addresses == own.addresses {
        return Cow::Borrowed(nodes);
    }
    let own = NodeView { addresses, by_external, ..own.clone() };
    Cow::Owned(Nodes { own: Some(own), ..nodes.clone() })
}

/// Reports addresses that cannot be right, and Nodes that lack addresses.
pub(super) fn check(
    ctx: &Context<'_>,
    claims: &Claims<'_>,
    problems: &mut Vec<Diagnostic>,
    of_nodes: &mut Vec<Diagnostic>,
) {
    let (Some(nodes), Some(own)) = (ctx.nodes, ctx.own_node()) else { return };
    check_own(own, &addresses_of(ctx.host), problems);
    retained(nodes, own, problems);
    for (addr, claimants) in &claims.of_ours {
        problems.push(ours(*addr, claimants, own.addresses.contains(addr)));
    }
    of_nodes.extend(claims.shared.iter().map(|(addr, claimants)| shared(*addr, claimants)));
}

fn check_own(own: &NodeView, here: &BTreeSet<IpAddr>, problems: &mut Vec<Diagnostic>) {
    const REMEDY: &str = "start the kubelet with --node-ip set to an address of this host";
    if own.addresses.is_empty() && own.deleted {
        return;
    }
    if own.addresses.is_empty() && own.external.is_empty() {
        problems.push(Diagnostic::new(
            Reason::NoInternalIP,
            Subject::host(),
            "the Node has no InternalIP: other nodes cannot reach this one",
            REMEDY,
        ));
    } else if own.addresses.is_empty() {
        let external = named(own.external.iter().map(ToString::to_string));
        problems.push(Diagnostic::new(
            Reason::NoInternalIP,
            Subject::host(),
            format!(
                "the Node has no InternalIP, and none of its ExternalIPs ({external}) is on this host: other \
                 nodes cannot reach this one"
            ),
            REMEDY,
        ));
    }
    for family in Family::ALL {
        let of_family: Vec<_> = own.addresses.iter().filter(|a| Family::of(**a) == family).collect();
        if !of_family.is_empty() && !of_family.iter().any(|a| here.contains(a)) {
            let list = named(of_family.into_iter().map(ToString::to_string));
            problems.push(Diagnostic::new(
                Reason::InternalIPNotHere,
                Subject::address(&list),
                format!(
                    "InternalIP {list} of this Node is on no interface of this host: other nodes cannot reach \
                     this one there"
                ),
                format!("{REMEDY}, or give the host the address"),
            ));
        }
    }
}

/// Reports Nodes whose missing addresses stay in force.
fn retained(nodes: &Nodes, own: &NodeView, problems: &mut Vec<Diagnostic>) {
    const REMEDY: &str = "see the kubelet and the cloud controller";
    let list = |retained: &[IpAddr]| named(retained.iter().map(ToString::to_string));
    if !own.retained.is_empty() {
        let retained = list(&own.retained);
        problems.push(Diagnostic::new(
            Reason::InternalIPNotReported,
            Subject::host(),
            format!(
                "the Node no longer reports its InternalIP {retained}: the last known address stays in force"
            ),
            REMEDY,
        ));
    }
    let others: Vec<_> = nodes.others().filter(|o| !o.retained.is_empty() && takes_part(o)).collect();
    if let Some(first) = others.first() {
        let names = named(others.iter().map(|o| o.name.as_str()));
        let retained = if others.len() == 1 { format!(" {}", list(&first.retained)) } else { String::new() };
        problems.push(Diagnostic::new(
            Reason::InternalIPNotReported,
            Subject::address("of other nodes"),
            format!(
                "no InternalIP{retained} is reported for node {names} any longer: the last known address stays in force"
            ),
            REMEDY,
        ));
    }
}

/// Which Nodes claim an address of this host, or an address that another Node claims as well.
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    of_ours: BTreeMap<IpAddr, Vec<&'a NodeView>>,
    /// The first Node is the one to which the address is attributed.
    shared: BTreeMap<IpAddr, Vec<&'a NodeView>>,
}

impl<'a> Claims<'a> {
    pub(super) fn of(ctx: &Context<'a>) -> Self {
        let mut ours = addresses_of(ctx.host);
        ours.extend(ctx.own_node().into_iter().flat_map(|own| &own.addresses));
        let own_name = ctx.own_node().map(|own| own.name.as_str());
        let others = ctx.nodes.into_iter().flat_map(Nodes::others);
        let others = others.filter(|o| Some(o.name.as_str()) != own_name && !o.deleted && takes_part(o));
        let mut claims: BTreeMap<IpAddr, Vec<&NodeView>> = BTreeMap::new();
        for node in others {
            node.addresses.iter().for_each(|addr| claims.entry(*addr).or_default().push(node));
        }
        let (of_ours, claims): (BTreeMap<_, _>, BTreeMap<_, _>) =
            claims.into_iter().partition(|(addr, _)| ours.contains(addr));
        let mut shared: BTreeMap<_, _> = claims.into_iter().filter(|(_, nodes)| nodes.len() > 1).collect();
        for (addr, claimants) in &mut shared {
            let is_added = |n: &NodeView| n.added.contains(addr);
            claimants.sort_by_key(|n| {
                (n.not_reporting, n.routelet != Presence::Signed, is_added(n), n.created, &n.name)
            });
        }
        Self { of_ours, shared }
    }

    /// Whether this is the wrong address for a session with the Node.
    pub(super) fn is_wrong(&self, node: &NodeView, addr: IpAddr) -> bool {
        let first = || self.shared.get(&addr).and_then(|claimants| claimants.first());
        self.is_ours(addr) || first().is_some_and(|first| first.name != node.name)
    }

    /// Whether it is an address of this host.
    pub(super) fn is_ours(&self, addr: IpAddr) -> bool {
        self.of_ours.contains_key(&addr)
    }
}

/// Nodes of the same machine type often get the same address from a NAT, or on a bridge; a machine
/// that was renamed leaves its former Node behind.
fn ours(addr: IpAddr, claimants: &[&NodeView], is_internal: bool) -> Diagnostic {
    let names = named(claimants.iter().map(|n| n.name.as_str()));
    let nodes =
        if claimants.len() == 1 { format!("node {names} has") } else { format!("nodes {names} have") };
    let address = if is_internal {
        format!("the same InternalIP {addr} as this node")
    } else {
        format!("the InternalIP {addr}, which is an address of this host")
    };
    let remedy = if claimants.iter().all(|n| n.not_reporting) {
        "delete the Node if it is a former name of this machine, or start its kubelet with --node-ip"
    } else {
        "start its kubelet with --node-ip"
    };
    Diagnostic::new(
        Reason::AddressClaimed,
        Subject::address(addr),
        format!("{nodes} {address}: there is no session at that address"),
        remedy,
    )
}

/// All nodes report this with the same text, so that it is one Event.
fn shared(addr: IpAddr, claimants: &[&NodeView]) -> Diagnostic {
    let second = claimants[1..].iter().max_by_key(|n| (n.created, Reverse(&n.name))).unwrap_or(&claimants[0]);
    let mut names: Vec<_> = claimants.iter().map(|n| n.name.as_str()).collect();
    names.sort_unstable();
    Diagnostic::new(
        Reason::SameInternalIP,
        Subject::node(&second.name, &second.uid),
        format!(
            "nodes {} have the same InternalIP {addr}: only one of them can be reached there",
            named(names)
        ),
        "start their kubelets with --node-ip, and delete Nodes of machines that are gone",
    )
}

fn addresses_of(host: &Host) -> BTreeSet<IpAddr> {
    host.links.values().flat_map(|l| &l.addresses).map(|a| a.addr).collect()
}

/// The first names, and the number of the others.
pub(super) fn named<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let mut names = names.into_iter();
    let first: Vec<_> = names.by_ref().take(MAX_NAMED).collect();
    let first = first.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    match names.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Case, config, node, nodes},
        *,
    };
    use crate::fib::host::testing::{host, link};

    /// This node `n1` and others, on a host with these addresses.
    fn case<const N: usize>(all: [NodeView; N], addresses: &[&str]) -> Case {
        let eth0 = addresses.iter().fold(link(2, "eth0"), |l, a| l.with(a));
        Case::new(config(), Some(nodes(all)), host([eth0], []))
    }

    fn problems(case: &Case) -> Vec<String> {
        let plan = case.plan();
        let found = plan.problems.iter().chain(&plan.object_problems).map(Diagnostic::line);
        found.filter(|p| p.contains("InternalIP")).collect()
    }

    fn one(case: &Case, words: &[&str]) {
        let found = problems(case);
        assert!(found.len() == 1 && words.iter().all(|w| found[0].contains(w)), "{words:?}: {found:#?}");
    }

    #[test]
    fn rancher_25042_nodes_with_one_internal_ip_are_named_and_nobody_dials_himself() {
        let same = |name: &str| node(name, &["10.0.2.15"], &[]);
        let two = case([same("n1"), same("n2")], &["10.0.2.15/24"]);
        one(&two, &["node n2 has the same InternalIP 10.0.2.15 as this node", "--node-ip"]);
        assert!(two.peers().is_empty(), "{:?}", two.peers());
        let names = ["n2", "n3", "n4", "n5", "n6"].map(same);
        let [n2, n3, n4, n5, n6] = names;
        let six = case([same("n1"), n2, n3, n4, n5, n6], &["10.0.2.15/24"]);
        one(&six, &["nodes n2, n3, n4 and 2 more have the same InternalIP"]);

        // Each node has two interfaces; only the second address is its own.
        let own = node("n1", &["10.0.2.15", "192.168.56.11"], &[]);
        let other = node("n2", &["10.0.2.15", "192.168.56.12"], &[]);
        let vagrant = case([own, other], &["10.0.2.15/24", "192.168.56.11/24"]);
        one(&vagrant, &["node n2 has the same InternalIP 10.0.2.15"]);
        assert_eq!(vagrant.peers(), ["192.168.56.12 Mesh"]);
    }

    #[test]
    fn an_address_of_this_host_that_another_node_claims_is_named() {
        let own = node("n1", &["10.0.0.1", "fd00::1"], &[]);
        let other = node("n2", &["172.17.0.1"], &[]);
        let docker = case([own.clone(), other], &["10.0.0.1/24", "fd00::1/64", "172.17.0.1/16"]);
        one(&docker, &["node n2 has the InternalIP 172.17.0.1, which is an address of this host"]);
        assert!(docker.peers().is_empty());
        let former = NodeView { not_reporting: true, ..node("old-name", &["10.0.0.1"], &[]) };
        one(&case([own.clone(), former], &["10.0.0.1/24", "fd00::1/64"]), &["former name of this machine"]);
        for harmless in [
            NodeView { deleted: true, ..node("n2", &["10.0.0.1"], &[]) },
            NodeView { routelet: Presence::Impossible, ..node("fake", &["10.0.0.1"], &[]) },
        ] {
            let found = problems(&case([own.clone(), harmless], &["10.0.0.1/24", "fd00::1/64"]));
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn of_two_other_nodes_with_one_address_one_is_met_and_both_are_named_once() {
        let (own, addresses) = (node("n1", &["10.0.0.1"], &[]), ["10.0.0.1/24"]);
        let at = |name: &str, created| NodeView { created: Some(created), ..node(name, &["10.0.0.9"], &[]) };
        let both = case([own.clone(), at("n2", 7), at("n3", 5)], &addresses);
        one(&both, &["nodes n2, n3 have the same InternalIP 10.0.0.9", "--node-ip"]);
        let plan = both.plan();
        assert_eq!(plan.object_problems[0].subject.name, "n2", "the Event is at the younger one");
        let met: Vec<_> = plan.peers.values().map(|p| p.description.clone().unwrap()).collect();
        assert_eq!(met, ["node n3"], "the elder");
        let dead = case([own, at("n2", 7), NodeView { not_reporting: true, ..at("n3", 5) }], &addresses);
        assert_eq!(dead.plan().peers.values().next().unwrap().description.as_deref(), Some("node n2"));
    }

    #[test]
    fn an_internal_ip_that_the_host_does_not_have_is_named_and_one_that_it_has_comes_first() {
        let away = case([node("n1", &["10.0.0.7"], &[])], &["10.0.0.1/24"]);
        one(&away, &["InternalIP 10.0.0.7 of this Node is on no interface", "--node-ip"]);
        let several = case([node("n1", &["10.0.0.7", "10.0.0.1"], &[])], &["10.0.0.1/24"]);
        assert!(problems(&several).is_empty());
        assert_eq!(several.plan().node_addresses[0], IpAddr::from([10, 0, 0, 1]));
        assert_eq!(several.plan().global.router_id, std::net::Ipv4Addr::new(10, 0, 0, 1));
        let one_family = case([node("n1", &["10.0.0.1", "fd00::7"], &[])], &["10.0.0.1/24"]);
        one(&one_family, &["InternalIP fd00::7 of this Node is on no interface"]);
    }

    #[test]
    fn without_internal_ip_external_ones_count_where_the_host_has_them() {
        let external = |list: &[&str]| NodeView {
            external: list.iter().map(|a| a.parse().unwrap()).collect(),
            ..node("n1", &[], &[])
        };
        let other = || node("n2", &["192.0.2.2"], &[]);
        let has = case([external(&["203.0.113.1", "192.0.2.1"]), other()], &["192.0.2.1/24"]);
        assert!(problems(&has).is_empty());
        assert_eq!((has.peers(), has.plan().node_addresses.len()), (vec!["192.0.2.2 Mesh".into()], 1));
        let mut has_not = case([external(&["203.0.113.1"]), other()], &["192.0.2.1/24"]);
        let missing =
            super::super::plan(&has_not.config, has_not.nodes.as_ref(), &has_not.host, &has_not.extra);
        assert!(missing.unwrap_err().to_string().contains("203.0.113.1"));
        has_not.config.bgp.router_id = Some([1, 1, 1, 1].into());
        one(&has_not, &["no InternalIP, and none of its ExternalIPs (203.0.113.1) is on this host"]);
        has_not.nodes.as_mut().unwrap().own = Some(external(&[]));
        one(&has_not, &["the Node has no InternalIP: other nodes cannot reach this one"]);
    }

    #[test]
    fn kubernetes_68270_addresses_that_stay_in_force_are_named() {
        let retained = |mut n: NodeView| {
            n.retained.clone_from(&n.addresses);
            n
        };
        let (n1, n2, n3) =
            (node("n1", &["10.0.0.1"], &[]), node("n2", &["10.0.0.2"], &[]), node("n3", &["10.0.0.3"], &[]));
        let addresses = ["10.0.0.1/24"];
        let own = case([retained(n1.clone()), n2.clone()], &addresses);
        one(&own, &["the Node no longer reports its InternalIP 10.0.0.1"]);
        one(&case([n1.clone(), retained(n2.clone())], &addresses), &["10.0.0.2", "for node n2"]);
        one(&case([n1, retained(n2), retained(n3)], &addresses), &["for node n2, n3"]);
    }
}
