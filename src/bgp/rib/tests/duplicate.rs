//! Subnets and AS numbers that two hosts have in common.

use super::*;
use crate::net::{Source, guard::GuardInputs};

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn through(numbers: &[Asn]) -> Attrs {
    Attrs { as_path: AsPath::sequence(numbers), ..attrs(1) }
}

/// This host, 65000, advertises these; neighbor 1 is the switch, 65001.
fn bench(own: &[(&str, Source)], change: impl FnOnce(&mut PeerConfig)) -> Bench {
    let mut bench = Bench::new();
    let own: Vec<_> = own.iter().map(|(prefix, source)| (p(prefix), *source)).collect();
    let inputs = GuardInputs { own: own.iter().map(|(p, _)| *p).collect(), ..GuardInputs::default() };
    bench.rib.handle(bench.now, Input::Guard(Arc::new(Guard::new(inputs))));
    bench.originate_as(&own);
    bench.neighbor(1, 65001, change);
    bench
}

#[test]
fn a_subnet_that_two_hosts_advertise_is_a_problem_with_both_origins() {
    let own = [
        ("172.17.0.0/16", Source::Interface),
        ("192.0.2.1/32", Source::Interface),
        ("10.96.0.10/32", Source::Service),
        ("10.50.0.0/16", Source::Network),
    ];
    let mut bench = bench(&own, |_| {});
    bench.announce(1, &through(&[65001, 65002]), &own.map(|(prefix, _)| p(prefix)));
    bench.run();
    let problems = bench.rib.take_problems().unwrap();
    assert_eq!(problems.len(), 1, "an anycast address, a Service and a network may be shared: {problems:?}");
    for part in ["DuplicateSubnet: 172.17.0.0/16", "AS 65000", "AS path 65001 65002", "10.0.0.11", "`bip`"] {
        assert!(problems[0].contains(part), "{part}: {problems:?}");
    }
    bench.run();
    assert_eq!(bench.rib.take_problems(), None, "reported once");
    bench.withdraw(1, &[p("172.17.0.0/16")]);
    bench.run();
    assert_eq!(bench.rib.take_problems(), Some(Vec::new()));
}

#[test]
fn own_routes_that_a_neighbor_sends_back_are_no_problem() {
    for allow_own_as in [0, 1] {
        let mut bench = bench(&[("172.17.0.0/16", Source::Interface)], |c| c.allow_own_as = allow_own_as);
        bench.announce(1, &through(&[65001, 65000]), &[p("172.17.0.0/16")]);
        bench.run();
        assert_eq!(bench.rib.take_problems(), None, "allow-own-as = {allow_own_as}");
    }
}

#[test]
fn hosts_with_the_same_number_are_a_problem_with_its_remedy() {
    let mut bench = bench(&[("172.17.0.0/16", Source::Interface)], |_| {});
    bench.announce(1, &through(&[65001, 65000]), &[p("172.17.0.0/16"), p("172.18.0.0/16")]);
    bench.run();
    let problems = bench.rib.take_problems().unwrap();
    assert!(problems.len() == 1 && problems[0].contains("allow-own-as = 1"), "{problems:?}");
    bench.withdraw(1, &[p("172.18.0.0/16")]);
    bench.run();
    assert_eq!(bench.rib.take_problems(), Some(Vec::new()));
}
