use super::*;
use crate::{
    bgp::{
        rib::view::{
            Advertised, Explained, NotAdvertised, PathExplained, PathState, PolicyResult, RouteView, testing,
        },
        view::SessionState,
    },
    fib::{
        lookup::{Drop, Entry},
        view::{FibHop, FibView},
    },
    net::{Prefix, Unresolved},
};

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn a(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn path(prefix: &str, state: PathState, reason: &str) -> PathExplained {
    let route = RouteView {
        neighbor: Some("10.1.1.1".into()),
        next_hop: Some(a("10.1.1.1")),
        best: state == PathState::Selected,
        installed: true,
        as_path: serde_json::json!([10000, 10009]),
        reason: reason.into(),
        age: 5,
        ..testing::route(prefix)
    };
    PathExplained { route, state, policies: Vec::new() }
}

fn used(prefix: &str, gateway: &str) -> Used {
    Used {
        prefix: p(prefix),
        table: 254,
        metric: 179,
        protocol: "protocol 179".into(),
        is_ours: true,
        is_local: false,
        dead_end: None,
        hops: vec![(Some(a(gateway)), "eth0".into())],
        gateway: Some(a(gateway)),
        interface: "eth0".into(),
        source: Some(a("10.1.1.2")),
        mtu: None,
    }
}

fn link(name: &str, kind: &str, subnet: &str) -> Link {
    Link {
        name: name.into(),
        kind: kind.into(),
        up: true,
        carrier: true,
        mtu: 1500,
        subnets: vec![p(subnet)],
    }
}

fn flow(name: &str, arrives_on: &str, is_back: bool) -> Flow {
    Flow {
        name: name.into(),
        is_back,
        to_host: false,
        arrives_on: arrives_on.into(),
        forwarding_off: None,
        rp_filter: 0,
        kernel: Kernel::Used(Box::new(used("10.9.0.0/24", "10.1.1.1"))),
        firewall: Firewall::Accepted,
    }
}

fn source() -> Source {
    Source { prefix: p("172.20.0.0/16"), by: "subnet of br-pod".into(), link: Some(("br-pod".into(), 1500)) }
}

fn advertised(why_not: Option<NotAdvertised>) -> Advertised {
    Advertised { prefix: p("172.20.0.0/16"), neighbor: "10.1.1.1".into(), why_not }
}

/// A container network of this host, and one of another host behind a switch.
fn remote() -> Facts {
    let hop = FibHop { address: Some(a("10.1.1.1")), interface: "eth0".into(), weight: 1 };
    Facts {
        question: Question { address: a("10.9.0.5"), from: None, interface: None },
        place: Place::Remote,
        from: None,
        protected: None,
        own: Vec::new(),
        not_originated: None,
        drain: Drain::No,
        sources: vec![source()],
        masqueraded: false,
        rib: Explained {
            paths: vec![path("10.9.0.0/24", PathState::Selected, "best: only path")],
            advertised: vec![advertised(None)],
        },
        neighbors: vec![Neighbor {
            name: "10.1.1.1".into(),
            state: SessionState::Established,
            last_error: None,
            address: Some(a("10.1.1.1")),
            link: Some(link("eth0", "", "10.1.1.0/24")),
        }],
        fib: Some(FibView {
            prefix: p("10.9.0.0/24"),
            table: 254,
            metric: 179,
            next_hops: vec![hop],
            in_kernel: true,
            problem: None,
            protocol: 179,
        }),
        table: 254,
        installs: true,
        kernel: Kernel::Used(Box::new(used("10.9.0.0/24", "10.1.1.1"))),
        rule: None,
        exit: Some(link("eth0", "", "10.1.1.0/24")),
        reached: Some(Reached { address: a("10.1.1.1"), entry: Entry::Known }),
        flows: vec![
            flow("172.20.0.0/16 to 10.9.0.5", "br-pod", false),
            flow("10.9.0.5 to 172.20.0.0/16", "eth0", true),
        ],
        filters_unread: None,
    }
}

/// A container of this host.
fn container() -> Facts {
    let kernel = Used {
        gateway: None,
        hops: vec![(None, "br-pod".into())],
        interface: "br-pod".into(),
        is_ours: false,
        protocol: "protocol kernel (2)".into(),
        ..used("172.20.0.0/16", "10.1.1.1")
    };
    Facts {
        question: Question { address: a("172.20.0.2"), from: None, interface: None },
        place: Place::Container { subnet: p("172.20.0.0/16"), interface: "br-pod".into() },
        own: vec![source()],
        rib: Explained { paths: Vec::new(), advertised: vec![advertised(None)] },
        fib: None,
        kernel: Kernel::Used(Box::new(kernel)),
        exit: Some(link("br-pod", "bridge", "172.20.0.0/16")),
        reached: Some(Reached { address: a("172.20.0.2"), entry: Entry::Known }),
        flows: vec![flow("10.1.1.1 to 172.20.0.2", "eth0", false)],
        ..remote()
    }
}

fn change(facts: Facts, act: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = facts;
    act(&mut facts);
    facts
}

fn kernel(facts: &mut Facts, act: impl FnOnce(&mut Used)) {
    let Kernel::Used(used) = &mut facts.kernel else { panic!("a route") };
    act(used);
}

#[test]
fn a_way_without_faults_is_reachable_step_by_step() {
    let names = |facts: &Facts| {
        let found = explain(facts);
        assert_eq!((found.verdict, found.stopped_by), (Verdict::Reachable, None), "{}", found.text);
        assert!(found.steps.iter().all(|s| s.result == Outcome::Ok), "{:?}", found.steps);
        found.steps.iter().map(|s| s.step.as_str()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        names(&remote()),
        "address rib policy guard next-hop installed kernel-route interface neighbor-entry mtu forwarding \
         rp-filter firewall return"
    );
    assert_eq!(
        names(&container()),
        "address origin advertised kernel-route interface neighbor-entry forwarding rp-filter firewall"
    );
    assert_eq!(explain(&remote()).text, "10.9.0.5 is reachable via 10.1.1.1 on eth0");
}

#[test]
fn each_fault_on_the_way_stops_with_its_step_and_remedy() {
    use StepName as S;
    let refused = |state, reason: &'static str| {
        move |f: &mut Facts| {
            f.rib.paths = vec![path("10.9.0.0/24", state, reason)];
            (f.fib, f.kernel) = (None, Kernel::Dropped(Drop::Unreachable));
        }
    };
    let by_policy = |f: &mut Facts| {
        refused(PathState::Policy, "rejected by import policy lab, statement 2")(f);
        f.rib.paths[0].policies =
            vec![PolicyResult { policy: "lab".into(), statement: Some(2), accepted: false }];
    };
    let shadow = |f: &mut Facts| {
        let other = Used {
            is_ours: false,
            protocol: "protocol static (4)".into(),
            metric: 50,
            ..used("10.9.0.0/24", "10.1.1.7")
        };
        f.kernel = Kernel::Used(Box::new(other));
    };
    let table = |f: &mut Facts| {
        f.kernel =
            Kernel::Used(Box::new(Used { table: 100, is_ours: false, ..used("0.0.0.0/0", "10.1.1.7") }));
        f.rule = Some(Rule { priority: 90, table: 100, selects: false });
    };
    let none = |f: &mut Facts| {
        f.rib.paths.clear();
        (f.fib, f.kernel) = (None, Kernel::Dropped(Drop::Unreachable));
    };
    let down = |f: &mut Facts| {
        none(f);
        f.neighbors[0].state = SessionState::Idle;
        f.neighbors[0].last_error = Some("hold timer expired".into());
    };
    let dead = |f: &mut Facts| {
        down(f);
        f.neighbors[0].link.as_mut().unwrap().carrier = false;
    };
    let elsewhere = |f: &mut Facts| {
        refused(PathState::Unresolved(Unresolved::OnlyDefault), "next hop only by the default route")(f);
        f.rib.paths[0].route.next_hop = Some(a("10.7.0.1"));
        f.kernel = Kernel::Used(Box::new(used("0.0.0.0/0", "10.1.1.1")));
    };
    let absent = |f: &mut Facts| {
        let fib = f.fib.as_mut().unwrap();
        (fib.in_kernel, fib.problem) = (false, Some("refused by the kernel".into()));
        f.kernel = Kernel::Used(Box::new(used("0.0.0.0/0", "10.1.1.9")));
    };
    let policy_out = NotAdvertised::Policy { policy: "out".into(), statement: 1 };
    #[rustfmt::skip]
    let cases: Vec<(&str, Facts, StepName, &str, &str)> = vec![
        ("no route", change(remote(), none), S::Rib, "no neighbor advertises one", "add a default route"),
        ("no session", change(remote(), down), S::Rib, "hold timer expired", "`routelet show neighbor 10.1.1.1`"),
        ("no carrier towards the neighbor", change(remote(), dead), S::Interface, "eth0 has no carrier", "cable"),
        ("guard", change(remote(), refused(PathState::Guard, "guard: 10.9.0.53 (resolver)")), S::Guard, "10.9.0.53 (resolver)", "what the guard protects"),
        ("guard, default route", change(remote(), |f| { refused(PathState::Guard, "guard: default route")(f); f.rib.paths[0].route.prefix = p("0.0.0.0/0"); }), S::Guard, "default route", "accept-default = true"),
        ("policy", change(remote(), by_policy), S::Policy, "lab, statement 2", "statement 2 of [[policy.lab]]"),
        ("loop", change(remote(), refused(PathState::Refused, "loop: own AS number")), S::Import, "loop", "allow-own-as"),
        ("next hop", change(remote(), refused(PathState::Unresolved(Unresolved::NoRoute), "next hop unreachable")), S::NextHop, "next hop unreachable (10.1.1.1)", "next-hop-self"),
        ("default route that leads elsewhere", change(remote(), elsewhere), S::NextHop, "packets follow the default route", "fib.resolve-via-default"),
        ("held", change(remote(), refused(PathState::Held, "held back")), S::NextHop, "held back", "wait for a message"),
        ("not in the kernel", change(remote(), absent), S::Installed, "refused by the kernel", "show fib"),
        ("fib.install = false", change(remote(), |f| { f.fib = None; f.installs = false; f.kernel = Kernel::Dropped(Drop::Unreachable); }), S::Installed, "fib.install is false", "fib.install = true"),
        ("shadowed", change(remote(), shadow), S::KernelRoute, "static (4), metric 50", "fib.metric below 50"),
        ("another table", change(remote(), table), S::KernelRoute, "priority 90 looks up table 100", "`ip rule add to 10.9.0.0/24 table 254 priority 89`"),
        ("blackhole", change(remote(), |f| kernel(f, |u| (u.dead_end, u.is_ours) = (Some("blackhole"), false))), S::KernelRoute, "type blackhole", "remove it"),
        ("prohibit", change(remote(), |f| { f.rib.paths.clear(); f.kernel = Kernel::Dropped(Drop::Prohibited); f.flows.clear(); }), S::KernelRoute, "prohibit", "ip rule"),
        ("interface down", change(remote(), |f| f.exit.as_mut().unwrap().up = false), S::Interface, "eth0 is down", "`ip link set eth0 up`"),
        ("no carrier", change(remote(), |f| f.exit.as_mut().unwrap().carrier = false), S::Interface, "eth0 has no carrier", "cable"),
        ("no reply to ARP", change(remote(), |f| f.reached.as_mut().unwrap().entry = Entry::Failed), S::NeighborEntry, "does not reply to ARP", "`ip neighbor show 10.1.1.1 dev eth0`"),
        ("forwarding off", change(remote(), |f| f.flows[0].forwarding_off = Some("net.ipv4.ip_forward".into())), S::Forwarding, "net.ipv4.ip_forward is 0", "`sysctl -w net.ipv4.ip_forward=1`"),
        ("rp_filter", change(remote(), |f| f.flows[1].kernel = Kernel::Dropped(Drop::ReversePath)), S::RpFilter, "rp_filter drops", "net.ipv4.conf.eth0.rp_filter=2"),
        ("no way for containers", change(remote(), |f| f.flows[0].kernel = Kernel::Dropped(Drop::Unreachable)), S::KernelRoute, "once they arrive on br-pod", "ip rule"),
        ("firewall", change(remote(), |f| f.flows[0].firewall = Firewall::Dropped { by: "the policy of FORWARD".into(), certain: true }), S::Firewall, "the policy of FORWARD", "accept-forwarded = true"),
        ("no way back", change(remote(), |f| f.rib.advertised = vec![advertised(Some(policy_out.clone()))]), S::Return, "replies get lost", "statement 1 of [[policy.out]]"),
        ("own: not originated", change(container(), |f| { f.own.clear(); f.not_originated = Some("no container is attached".into()); }), S::Origin, "no container is attached", "advertise.interfaces"),
        ("own: drained", change(container(), |f| { f.own.clear(); f.drain = Drain::Drained; }), S::Origin, "drained", "`routelet undrain`"),
        ("own: rejected by policy", change(container(), |f| f.rib.advertised = vec![advertised(Some(policy_out.clone()))]), S::Advertised, "export policy out, statement 1", "[[policy.out]]"),
        ("own: no session", change(container(), |f| { f.rib.advertised = vec![advertised(Some(NotAdvertised::NoSession))]; f.neighbors[0].state = SessionState::Active; }), S::Advertised, "no session (active)", "show neighbor 10.1.1.1"),
        ("own: no neighbor", change(container(), |f| f.rib.advertised.clear()), S::Advertised, "there is no BGP neighbor", "[[bgp.neighbor]]"),
        ("own: a network that nobody has", change(container(), |f| { f.place = Place::Originated { prefix: p("172.20.0.0/16"), is_service: false }; f.kernel = Kernel::Dropped(Drop::Unreachable); f.flows.clear(); }), S::KernelRoute, "stops loops for 172.20.0.0/16", "advertise.networks"),
        ("own: no such container", change(container(), |f| f.reached.as_mut().unwrap().entry = Entry::Incomplete), S::NeighborEntry, "does not reply to ARP on br-pod", "attached"),
        ("own: bridge without ports", change(container(), |f| f.exit.as_mut().unwrap().carrier = false), S::Interface, "no container is attached", "attach a container"),
    ];
    for (name, facts, step, text, remedy) in cases {
        let found = explain(&facts);
        assert_eq!(found.stopped_by, Some(step), "{name}: {:#?}", found.steps);
        assert!(found.text.contains(text), "{name}: {}", found.text);
        assert!(found.remedy.as_deref().is_some_and(|r| r.contains(remedy)), "{name}: {:?}", found.remedy);
        let stops = found.steps.iter().filter(|s| s.result == Outcome::Stop).count();
        assert!(stops == 1 && found.steps.last().unwrap().step == step, "{name}: it ends the walk");
    }
}

#[test]
fn what_loses_nothing_for_certain_does_not_stop() {
    let warns = |name: &str, facts: &Facts, step: StepName, result: Outcome| {
        let found = explain(facts);
        assert_eq!(found.stopped_by, None, "{name}: {}", found.text);
        let there = found.steps.iter().any(|s| s.step == step && s.result == result);
        assert!(there, "{name}: {:#?}", found.steps);
    };
    let default_route = |f: &mut Facts| {
        f.rib.paths[0] = path("10.9.0.0/24", PathState::Policy, "rejected by import policy lab, statement 2");
        f.fib = None;
        f.kernel = Kernel::Used(Box::new(Used { is_ours: false, ..used("0.0.0.0/0", "10.1.1.1") }));
    };
    let protected = |f: &mut Facts| {
        default_route(f);
        f.rib.paths[0] = path("10.9.0.5/32", PathState::Guard, "guard: 10.9.0.5 (resolver)");
        f.rib.paths[0].route.next_hop = Some(a("10.1.1.66"));
        f.protected = Some("resolver".into());
    };
    use {Outcome::*, StepName as S};
    #[rustfmt::skip]
    let cases: Vec<(&str, Facts, StepName, Outcome)> = vec![
        ("refused, and the default route leads to the same next hop", change(remote(), default_route), S::Policy, Note),
        ("refused by a guard that protects this address", change(remote(), protected), S::Guard, Note),
        ("a static route to the same next hop", change(remote(), |f| kernel(f, |u| (u.is_ours, u.metric) = (false, 1))), S::KernelRoute, Note),
        ("a longer prefix", change(remote(), |f| f.kernel = Kernel::Used(Box::new(Used { is_ours: false, ..used("10.9.0.4/30", "10.1.1.7") }))), S::KernelRoute, Note),
        ("not written, and another route leads there", change(remote(), |f| { f.fib.as_mut().unwrap().in_kernel = false; kernel(f, |u| u.is_ours = false); }), S::Installed, Warning),
        ("a wider bridge", change(remote(), |f| f.exit.as_mut().unwrap().mtu = 1400), S::Mtu, Warning),
        ("a narrower path", change(remote(), |f| kernel(f, |u| u.mtu = Some(1280))), S::Mtu, Warning),
        ("a firewall that cannot be judged", change(remote(), |f| f.flows[0].firewall = Firewall::Dropped { by: "x".into(), certain: false }), S::Firewall, Warning),
        ("masqueraded", change(remote(), |f| { f.masqueraded = true; f.rib.advertised = vec![advertised(Some(NotAdvertised::NoFamily))]; }), S::Return, Note),
        ("no BGP route", change(remote(), |f| { f.rib.paths.clear(); f.fib = None; kernel(f, |u| u.is_ours = false); }), S::Rib, Note),
        ("a cluster IP", change(remote(), |f| f.place = Place::ClusterIp { range: p("10.9.0.0/16") }), S::KernelRoute, Note),
        ("an address of this host", change(container(), |f| { f.own.clear(); f.place = Place::Host { interface: "eth0".into() }; kernel(f, |u| u.is_local = true); f.flows.clear(); }), S::Origin, Note),
    ];
    for (name, facts, step, result) in cases {
        warns(name, &facts, step, result);
    }
}

#[test]
fn an_aggregate_that_a_neighbor_has_stands_for_what_it_covers() {
    let rejected = NotAdvertised::Policy { policy: "out".into(), statement: 1 };
    let aggregate = |why_not| Advertised { prefix: p("172.16.0.0/12"), ..advertised(why_not) };
    let by_network = || Source { prefix: p("172.16.0.0/12"), by: "advertise.networks".into(), link: None };
    let text = |facts: &Facts, step| {
        let found = explain(facts);
        assert_eq!(found.stopped_by, None, "{}", found.text);
        found.steps.iter().find(|s| s.step == step).unwrap().text.clone()
    };
    let sent = |f: &mut Facts| {
        f.rib.advertised = vec![aggregate(None), advertised(Some(rejected.clone()))];
    };
    let own = change(container(), |f| {
        sent(f);
        f.own.push(by_network());
    });
    assert_eq!(text(&own, StepName::Origin), "172.16.0.0/12 is originated: advertise.networks");
    assert_eq!(text(&own, StepName::Advertised), "172.16.0.0/12 is advertised to 10.1.1.1");

    // Packets of one container, and of all.
    for sources in [vec![source()], vec![by_network(), source()]] {
        let there = change(remote(), |f| {
            sent(f);
            f.sources = sources;
        });
        assert_eq!(text(&there, StepName::Return), "172.16.0.0/12 is advertised to 10.1.1.1");
    }

    // If the aggregate is advertised to nobody either, the longest prefix is reported.
    let nobody = change(own, |f| f.rib.advertised[0].why_not = Some(rejected.clone()));
    assert!(explain(&nobody).text.contains("172.20.0.0/16 is not advertised"), "{}", explain(&nobody).text);
    let elsewhere = change(remote(), |f| {
        sent(f);
        f.rib.advertised[0].neighbor = "10.2.2.2".into();
    });
    assert_eq!(explain(&elsewhere).stopped_by, Some(StepName::Return), "only another neighbor has it");
}

#[test]
fn the_remedy_for_a_firewall_names_the_direction() {
    let remedy = |mut facts: Facts, flow: usize| {
        facts.flows[flow].firewall = Firewall::Dropped { by: "x".into(), certain: true };
        explain(&facts).remedy.unwrap()
    };
    let both = change(container(), |f| f.flows.push(flow("172.20.0.2 to 10.1.1.1", "br-pod", true)));
    for (facts, there, back) in [(remote(), "from", "to"), (both, "to", "from")] {
        for (n, direction) in [(0, there), (1, back)] {
            let found = remedy(facts.clone(), n);
            assert!(found.contains(&format!("packets {direction} the containers")), "{n}: {found}");
        }
    }
}

#[test]
fn packets_that_stay_on_this_host_need_no_neighbor() {
    let facts = change(container(), |f| {
        f.question.from = Some(a("172.20.0.3"));
        f.from = Some(Place::Container { subnet: p("172.20.0.0/16"), interface: "br-pod".into() });
        f.rib.advertised = vec![advertised(Some(NotAdvertised::NoSession))];
    });
    let found = explain(&facts);
    assert_eq!(found.stopped_by, None, "{}", found.text);
    assert!(found.steps.iter().all(|s| s.step != StepName::Advertised), "{:?}", found.steps);
}

#[test]
fn names_in_json_are_those_of_the_text_and_read_back() {
    for step in StepName::ALL {
        assert_eq!(serde_json::to_value(step).unwrap(), step.as_str());
    }
    for outcome in [Outcome::Ok, Outcome::Note, Outcome::Warning, Outcome::Stop] {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
    }
    let found = explain(&change(remote(), |f| f.exit.as_mut().unwrap().up = false));
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!((&json["verdict"], &json["stopped_by"]), (&"stopped".into(), &"interface".into()));
    assert_eq!(serde_json::from_value::<Explanation>(json).unwrap(), found);
}
