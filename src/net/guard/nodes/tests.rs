//! Against a model that looks at every Node, and at every address.

use proptest::prelude::*;

use super::*;

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> NodeInput {
    NodeInput {
        name: name.into(),
        addresses: addresses.iter().map(|a| addr(a)).collect(),
        pod_cidrs: pod_cidrs.iter().map(|c| p(c)).collect(),
        ..NodeInput::default()
    }
}

fn from(neighbor: &str) -> Sender {
    Sender { neighbor: addr(neighbor), next_hop: None }
}

fn reflected(neighbor: &str, next_hop: &str) -> Sender {
    Sender { neighbor: addr(neighbor), next_hop: Some(addr(next_hop)) }
}

/// Three Nodes of both families, and three Services.
fn cluster() -> (Vec<NodeInput>, BTreeMap<Prefix, ServiceInput>) {
    let n = |i: u8| {
        let (addresses, pods) = (
            [format!("10.0.0.{i}"), format!("fd00::{i}")],
            [format!("10.244.{i}.0/24"), format!("fd00:244:{i}::/64")],
        );
        node(&format!("n{i}"), &addresses.each_ref().map(|s| &**s), &pods.each_ref().map(|s| &**s))
    };
    let mut nodes = vec![n(1), n(2), n(3)];
    nodes[2].excluded = true;
    let services = [
        ("10.96.0.10/32", ServiceInput { every: true, ..ServiceInput::default() }),
        ("192.0.2.7/32", ServiceInput { unexcluded: true, ..ServiceInput::default() }),
        ("192.0.2.8/32", ServiceInput { nodes: vec!["n3".into()], ..ServiceInput::default() }),
    ];
    (nodes, services.into_iter().map(|(prefix, who)| (p(prefix), who)).collect())
}

fn prefixes() -> NodePrefixes {
    let (nodes, services) = cluster();
    NodePrefixes::new(nodes, services, [p("172.16.0.0/16"), p("10.0.0.0/8")])
}

#[test]
fn a_node_may_advertise_its_pod_cidrs_its_services_and_what_is_accepted_from_all() {
    let all = prefixes();
    #[rustfmt::skip]
    let cases = [
        ("its pod CIDR",            "10.244.2.0/24",      from("10.0.0.2"), true),
        ("inside it",               "10.244.2.128/25",    from("10.0.0.2"), true),
        ("its other family",        "fd00:244:2::/64",    from("10.0.0.2"), true),
        ("by its other address",    "10.244.2.0/24",      from("fd00::2"), true),
        ("another node's",          "10.244.3.0/24",      from("10.0.0.2"), false),
        ("half of another node's",  "10.244.3.128/25",    from("10.0.0.2"), false),
        ("one pod of it",           "10.244.3.7/32",      from("10.0.0.2"), false),
        ("a stranger",              "10.244.2.0/24",      from("10.9.9.9"), false),
        ("cluster IP",              "10.96.0.10/32",      from("10.0.0.2"), true),
        ("cluster IP, excluded",    "10.96.0.10/32",      from("10.0.0.3"), true),
        ("balancer",                "192.0.2.7/32",       from("10.0.0.2"), true),
        ("balancer, excluded",      "192.0.2.7/32",       from("10.0.0.3"), false),
        ("with its endpoint",       "192.0.2.8/32",       from("10.0.0.3"), true),
        ("without endpoint",        "192.0.2.8/32",       from("10.0.0.2"), false),
        ("of no Node",              "192.0.2.7/32",       from("10.9.9.9"), false),
        ("no Service",              "192.0.2.9/32",       from("10.0.0.2"), false),
        ("around a Service",        "192.0.2.0/24",       from("10.0.0.2"), false),
        ("accepted",                "172.16.0.0/16",      from("10.0.0.2"), true),
        ("inside what is accepted", "172.16.9.0/24",      from("10.0.0.2"), true),
        ("around it",               "172.0.0.0/8",        from("10.0.0.2"), false),
        ("accepted, around pods",   "10.244.0.0/16",      from("10.0.0.2"), true),
        ("the Internet",            "8.8.8.8/32",         from("10.0.0.2"), false),
        ("everything",              "0.0.0.0/0",          from("10.0.0.2"), false),
        ("everything, IPv6",        "::/0",               from("10.0.0.2"), false),
        ("reflected",               "10.244.3.0/24",      reflected("10.0.0.1", "10.0.0.3"), true),
        ("reflected, IPv6",         "fd00:244:3::/64",    reflected("10.0.0.1", "fd00::3"), true),
        ("by its other family",     "10.244.3.0/24",      reflected("10.0.0.1", "fd00::3"), true),
        ("to the wrong node",       "10.244.3.0/24",      reflected("10.0.0.1", "10.0.0.2"), false),
        ("to the reflector",        "10.244.3.0/24",      reflected("10.0.0.1", "10.0.0.1"), false),
        ("to nobody",               "10.244.3.0/24",      reflected("10.0.0.1", "10.9.9.9"), false),
        ("service, reflected",      "192.0.2.8/32",       reflected("10.0.0.1", "10.0.0.3"), true),
        ("service, to another",     "192.0.2.8/32",       reflected("10.0.0.1", "10.0.0.2"), false),
    ];
    for (name, prefix, sender, allowed) in cases {
        assert_eq!(all.allows(p(prefix), sender), allowed, "{name}: {prefix}");
        assert_eq!(all.reason(p(prefix), sender).is_none(), allowed, "{name}: {prefix}");
    }
}

#[test]
fn reasons_name_the_node_and_whose_prefix_it_is() {
    let all = prefixes();
    #[rustfmt::skip]
    let cases = [
        ("10.244.3.0/25",  from("10.0.0.2"), "guard: not in the pod CIDRs of node n2: 10.244.3.0/24 belongs to node n3"),
        ("192.0.2.8/32",   from("10.0.0.2"), "guard: not in the pod CIDRs of node n2, and it may not advertise this Service address"),
        ("8.8.8.8/32",     from("10.0.0.2"), "guard: not in the pod CIDRs of node n2, no Service address, and not in kubernetes.mesh-accept"),
        ("10.244.3.0/24",  reflected("10.0.0.1", "10.0.0.2"), "guard: not in the pod CIDRs of node n2: 10.244.3.0/24 belongs to node n3"),
        ("10.244.3.0/24",  reflected("10.0.0.1", "10.9.9.9"), "guard: 10.9.9.9 is the address of no Node, so nothing is accepted from there"),
    ];
    for (prefix, sender, reason) in cases {
        assert_eq!(all.reason(p(prefix), sender).as_deref(), Some(reason), "{prefix}");
    }
}

#[test]
fn an_address_that_another_node_claims_takes_nothing_and_gives_nothing() {
    let (mut nodes, services) = cluster();
    // The elder claims the address of n3, and of the reflector n1.
    nodes[1].addresses.extend([addr("10.0.0.3"), addr("10.0.0.1")]);
    let all = NodePrefixes::new(nodes, services, []);
    assert!(all.allows(p("10.244.3.0/24"), from("10.0.0.3")), "n3 is still where it was");
    assert!(all.allows(p("10.244.3.0/24"), reflected("10.0.0.1", "10.0.0.3")));
    assert!(!all.allows(p("10.244.3.0/24"), from("10.0.0.2")), "and n2 has nothing of it");
    let reason = all.reason(p("8.8.8.8/32"), from("10.0.0.3")).unwrap();
    assert!(reason.contains("node n2 or n3"), "{reason}");
}

#[test]
fn of_overlapping_pod_cidrs_the_first_counts_and_former_ones_come_last() {
    let mut n1 = node("n1", &["10.0.0.1"], &["10.244.1.0/24"]);
    n1.former = vec![p("10.244.9.0/24"), p("10.244.2.0/24")];
    let n2 = node("n2", &["10.0.0.2"], &["10.244.2.0/24"]);
    let n3 = node("n3", &["10.0.0.3"], &["10.244.0.0/16", "10.244.2.128/25", "10.7.0.0/16", "10.7.1.0/24"]);
    let all = NodePrefixes::new(vec![n1, n2, n3], BTreeMap::new(), []);
    let allowed = |prefix: &str| {
        let by = |i: u8| from(&format!("10.0.0.{i}"));
        (1..=3).filter(|i| all.allows(p(prefix), by(*i))).collect::<Vec<_>>()
    };
    assert_eq!(allowed("10.244.1.0/24"), [1]);
    assert_eq!(allowed("10.244.2.0/24"), [2], "n1 had it, n3 covers it");
    assert_eq!(allowed("10.244.2.128/25"), [2]);
    assert_eq!(allowed("10.244.9.0/24"), [1], "a former one that nobody else has");
    assert!(allowed("10.244.77.0/24").is_empty() && allowed("10.244.0.0/16").is_empty());
    assert_eq!(allowed("10.7.1.0/24"), [3]);
}

/// Small worlds: addresses 0 to 7, prefixes of 0 to 4 bits in a /28.
fn some_prefix() -> impl Strategy<Value = Prefix> {
    (any::<u8>(), 0..=4u8).prop_map(|(n, bits)| Prefix::v4([10, 0, 0, n & 15].into(), 28 + bits))
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    (0..8u8).prop_map(|n| IpAddr::from([192, 0, 2, n]))
}

fn some_nodes() -> impl Strategy<Value = Vec<NodeInput>> {
    let list = |most| prop::collection::vec(some_prefix(), 0..most);
    let one = (prop::collection::vec(some_address(), 0..3), list(3), list(2), any::<bool>());
    prop::collection::vec(one, 0..5).prop_map(|nodes| {
        let named = nodes.into_iter().enumerate();
        let node = |(n, (addresses, pod_cidrs, former, excluded))| NodeInput {
            name: format!("n{n}"),
            addresses,
            pod_cidrs,
            former,
            excluded,
        };
        named.map(node).collect()
    })
}

fn some_services() -> impl Strategy<Value = BTreeMap<Prefix, ServiceInput>> {
    let who = (any::<bool>(), any::<bool>(), prop::collection::vec(0..5u8, 0..3)).prop_map(
        |(every, unexcluded, nodes)| ServiceInput {
            every: every && unexcluded,
            unexcluded,
            nodes: nodes.into_iter().map(|n| format!("n{n}")).collect(),
        },
    );
    prop::collection::btree_map(some_prefix(), who, 0..4)
}

#[derive(Clone, Debug)]
struct World {
    nodes: Vec<NodeInput>,
    services: BTreeMap<Prefix, ServiceInput>,
    accepted: Vec<Prefix>,
}

fn some_world() -> impl Strategy<Value = World> {
    (some_nodes(), some_services(), prop::collection::vec(some_prefix(), 0..2))
        .prop_map(|(nodes, services, accepted)| World { nodes, services, accepted })
}

fn some_routes() -> impl Strategy<Value = Vec<(Prefix, Sender)>> {
    let sender = (some_address(), prop::option::of(some_address()))
        .prop_map(|(neighbor, next_hop)| Sender { neighbor, next_hop });
    prop::collection::vec((some_prefix(), sender), 1..24)
}

impl World {
    fn prefixes(&self) -> NodePrefixes {
        NodePrefixes::new(self.nodes.clone(), self.services.clone(), self.accepted.iter().copied())
    }

    /// Whose the prefix is: Node after Node takes what of its own does not overlap what others
    /// have.
    fn owner(&self, prefix: Prefix) -> Option<&NodeInput> {
        let mut taken: Vec<(Prefix, &NodeInput)> = Vec::new();
        for list in
            [(|n: &NodeInput| n.pod_cidrs.clone()) as fn(&NodeInput) -> Vec<Prefix>, |n| n.former.clone()]
        {
            for node in &self.nodes {
                let overlaps = |p: &Prefix| taken.iter().any(|(t, _)| t.covers(*p) || p.covers(*t));
                let own = list(node);
                let widest = own.iter().filter(|p| !own.iter().any(|o| o != *p && o.covers(**p)));
                let free: Vec<_> = widest.filter(|p| !overlaps(p)).map(|p| (*p, node)).collect();
                taken.extend(free);
            }
        }
        taken.into_iter().find(|(t, _)| t.covers(prefix)).map(|(_, node)| node)
    }

    fn allows(&self, prefix: Prefix, sender: Sender) -> bool {
        let is = |n: &NodeInput| sender.all().any(|a| n.addresses.contains(&a));
        if let Some(owner) = self.owner(prefix) {
            return is(owner);
        }
        let may = |who: &ServiceInput| {
            let by =
                |n: &NodeInput| who.every || who.unexcluded && !n.excluded || who.nodes.contains(&n.name);
            self.nodes.iter().any(|n| is(n) && by(n))
        };
        self.accepted.iter().any(|a| a.covers(prefix)) || self.services.get(&prefix).is_some_and(may)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn exactly_what_the_model_allows_is_accepted(world in some_world(), routes in some_routes()) {
        let prefixes = world.prefixes();
        for (prefix, sender) in routes {
            let allowed = world.allows(prefix, sender);
            prop_assert_eq!(prefixes.allows(prefix, sender), allowed, "{} {:?}", prefix, sender);
            prop_assert_eq!(prefixes.reason(prefix, sender).is_none(), allowed);
        }
    }

    /// What the changes do not name is judged alike before and after.
    #[test]
    fn a_route_that_no_change_concerns_is_judged_as_before(
        before in some_world(), after in some_world(), routes in some_routes(),
    ) {
        // A part of the changes only: else everything differs.
        for after in [after.clone(), World { nodes: before.nodes.clone(), ..after.clone() },
                      World { services: before.services.clone(), accepted: before.accepted.clone(), ..after }] {
            let (a, b) = (before.prefixes(), after.prefixes());
            let changes = a.changes(&b);
            for (prefix, sender) in &routes {
                let shared = b.services().any(|p| p == *prefix);
                let concerned = changes.inside.iter().any(|p| p.covers(*prefix))
                    || changes.exactly.contains(prefix)
                    || shared && sender.all().any(|addr| changes.senders.contains(&addr));
                if !concerned {
                    prop_assert_eq!(a.allows(*prefix, *sender), b.allows(*prefix, *sender), "{} {:?}", prefix, sender);
                }
            }
        }
    }
}
