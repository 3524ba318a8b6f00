//! The order of own prefixes: what a limit withholds, and what is sent first.

use super::*;
use crate::net::Source;

/// A Service address that sorts before every pod CIDR of these tests.
fn service(n: u32) -> (Prefix, Source) {
    (Prefix::v4(Ipv4Addr::from_bits(0x0a60_0000 + n), 32), Source::Service)
}

fn services(numbers: std::ops::Range<u32>) -> Vec<(Prefix, Source)> {
    numbers.map(service).collect()
}

fn pod_cidr(n: u32) -> (Prefix, Source) {
    (prefix(n), Source::PodCidr)
}

fn with(services: &[(Prefix, Source)], more: &[(Prefix, Source)]) -> Vec<(Prefix, Source)> {
    [services, more].concat()
}

fn withheld(bench: &Bench, n: u32) -> u64 {
    bench.rib.counts().neighbors[&address(n).to_string()].withheld[&Family::Ipv4Unicast]
}

/// 15,000 Services, all before the pod CIDR in the order of prefixes.
#[test]
fn services_never_take_the_place_of_a_pod_cidr() {
    let many = services(0..15_000);
    let mut bench = Bench::new();
    bench.originate_as(&with(&many, &[pod_cidr(1)]));
    bench.neighbor(1, 65001, |_| {});
    bench.run();
    assert!(bench.sent[&1].contains_key(&prefix(1)), "a new session");
    assert_eq!((bench.sent[&1].len(), withheld(&bench, 1)), (10_000, 5001));

    // One that appears on an established session takes the place of one Service.
    bench.originate_as(&with(&many, &[pod_cidr(1), pod_cidr(2)]));
    bench.run();
    assert!(bench.sent[&1].contains_key(&prefix(2)), "an established session");
    assert_eq!((bench.sent[&1].len(), withheld(&bench, 1), bench.withdrawals), (10_000, 5002, 1));

    // Services first, as a restart may learn of them.
    let mut late = Bench::new();
    late.neighbor(1, 65001, |_| {});
    late.originate_as(&many);
    late.run();
    late.originate_as(&with(&many, &[pod_cidr(1)]));
    late.run();
    assert!(late.sent[&1].contains_key(&prefix(1)), "after the Services");
    assert_eq!((late.sent[&1].len(), late.withdrawals), (10_000, 1));

    // When it goes the Service follows.
    late.originate_as(&many);
    late.run();
    assert_eq!((late.sent[&1].len(), withheld(&late, 1)), (10_000, 5000));
}

#[test]
fn own_prefixes_are_sent_in_the_order_of_their_ranks() {
    let first = [
        (prefix(9), Source::PodCidr),
        (prefix(3), Source::Network),
        (prefix(2), Source::Interface),
        (prefix(8), Source::PodCidr),
    ];
    let expected = [prefix(8), prefix(9), prefix(3), prefix(2)];
    let many = services(0..10_000);
    let sent = |bench: &mut Bench| {
        bench.run();
        mem::take(bench.order.get_mut(&1).unwrap())
    };
    let mut bench = Bench::new();
    bench.originate_as(&many);
    bench.decide();
    bench.originate_as(&with(&many, &first));
    bench.decide();
    bench.neighbor(1, 65001, |_| {});
    let order = sent(&mut bench);
    assert_eq!((&order[..4], order.len()), (&expected[..], 10_000), "a new session: each once");

    bench.rib.handle(bench.now, Input::Refresh { peer: PeerId(1), family: Family::Ipv4Unicast, subtype: 0 });
    let order = sent(&mut bench);
    assert_eq!((&order[..4], order.len()), (&expected[..], 10_000), "a refresh");

    let mut live = Bench::new();
    live.neighbor(1, 65001, |_| {});
    live.originate_as(&with(&many, &first));
    assert_eq!(sent(&mut live)[..4], expected, "all at once on an established session");
}

#[test]
fn a_limit_takes_ranks_in_order_and_learned_routes_last() {
    let all = [
        (prefix(5), Source::PodCidr),
        (prefix(4), Source::Network),
        (prefix(3), Source::Interface),
        (prefix(2), Source::Service),
    ];
    for paths in [false, true] {
        for max in 1..=5 {
            let mut bench = Bench::new();
            let config = PeerConfig { transit: true, max_prefixes_out: Some(max), ..(*config(1)).clone() };
            bench.configure(1, Arc::new(config));
            bench.up(1, Negotiated { add_path_send: PerFamily::new(paths, false), ..negotiated(1, 65001) });
            bench.neighbor(2, 65002, |_| {});
            bench.announce(2, &path(2, 65002), &[prefix(0), prefix(1)]);
            bench.run();
            // The last comes first, so that each has to make room for the next.
            for n in (0..all.len()).rev() {
                bench.originate_as(&all[n..]);
                bench.run();
            }
            let sent: Vec<_> = bench.sent[&1].keys().copied().collect();
            let own = sent.iter().filter(|p| all.iter().any(|(own, _)| own == *p)).count();
            let first = all[..all.len().min(max as usize)].iter().all(|(p, _)| sent.contains(p));
            assert!(first && own == all.len().min(max as usize), "{max}, several paths: {paths}: {sent:?}");
            assert_eq!(sent.len(), max as usize);
            assert_eq!(withheld(&bench, 1), u64::from(6 - max));
        }
    }
}

/// Services come and go: whoever is advertised stays so.
#[test]
fn services_do_not_push_one_another_out() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |c| c.max_prefixes_out = Some(100));
    bench.originate_as(&with(&services(500..600), &[pod_cidr(1)]));
    bench.run();
    let before = bench.sent[&1].clone();
    for n in 1..50 {
        bench.originate_as(&with(&services(500 - n..600), &[pod_cidr(1)]));
        bench.run();
    }
    assert_eq!((&bench.sent[&1], bench.withdrawals), (&before, 0));
    bench.originate_as(&with(&services(450..599), &[pod_cidr(1)]));
    bench.run();
    assert_eq!(bench.sent[&1].len(), 100);
    assert!(bench.withdrawals <= 1, "only the one that is gone");
}

/// A prefix that becomes something else keeps its place in the limit that its rank gives it.
#[test]
fn a_prefix_that_changes_its_rank_gives_way_or_is_let_in() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |c| c.max_prefixes_out = Some(1));
    bench.originate_as(&[(prefix(1), Source::PodCidr), (prefix(2), Source::Interface)]);
    bench.run();
    assert!(bench.sent[&1].contains_key(&prefix(1)));
    bench.originate_as(&[(prefix(1), Source::Service), (prefix(2), Source::Interface)]);
    bench.run();
    assert_eq!(bench.sent[&1].keys().collect::<Vec<_>>(), [&prefix(2)]);
    bench.originate_as(&[(prefix(1), Source::PodCidr), (prefix(2), Source::Interface)]);
    bench.run();
    assert_eq!(bench.sent[&1].keys().collect::<Vec<_>>(), [&prefix(1)]);
}
