//! `show routes` in steps, over tables that are large and change meanwhile.

use std::collections::BTreeSet;

use super::*;

/// Prefixes without any order, each once, the same in every run.
fn scattered(many: u32) -> Vec<Prefix> {
    (0..many).map(|n| prefix(n.wrapping_mul(7919) % 65_536)).collect()
}

fn announced(many: u32) -> (Bench, Vec<Prefix>) {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    bench.neighbor(2, 65002, |c| c.transit = true);
    let prefixes = scattered(many);
    prefixes.chunks(500).for_each(|part| bench.announce(1, &path(1, 65001), part));
    bench.run();
    (bench, prefixes)
}

/// The pages of the output, and what to do between two steps.
fn steps(
    bench: &mut Bench,
    filter: RouteFilter,
    mut between: impl FnMut(&mut Bench, usize),
) -> Vec<RouteView> {
    let mut walk = Walk::new(filter);
    let (mut rows, mut step) = (Vec::new(), 0);
    while !walk.is_over() {
        let page = bench.rib.walk(bench.now, &mut walk);
        assert!(page.len() <= 300, "{} rows in one step", page.len());
        rows.extend(page);
        step += 1;
        between(bench, step);
    }
    rows
}

fn prefixes(rows: &[RouteView]) -> Vec<Prefix> {
    rows.iter().map(|r| r.prefix).collect()
}

#[test]
fn a_large_table_is_shown_in_order_in_small_steps() {
    let (mut bench, mut expected) = announced(30_000);
    let six: Vec<Prefix> = ["2001:db8:1::/48", "2001:db8::/32"].map(|p| p.parse().unwrap()).to_vec();
    let attrs = Attrs::new(std::net::IpAddr::from(address(2).to_ipv6_mapped()).into());
    bench.announce(2, &Attrs { as_path: AsPath::sequence(&[65002]), ..attrs }, &six);
    bench.run();
    expected.extend(six);
    expected.sort_unstable();
    let mut count = 0;
    let rows = steps(&mut bench, RouteFilter::default(), |_, step| count = step);
    assert!(count > 100, "{count} steps");
    assert_eq!(prefixes(&rows), expected);
}

/// What is there all the time is shown once, in order; what comes and goes at most once.
#[test]
fn a_table_that_changes_meanwhile_shows_what_stays_exactly_once() {
    let (mut bench, all) = announced(30_000);
    let (come_and_go, stay): (Vec<_>, Vec<_>) = all.iter().partition(|p| {
        let std::net::IpAddr::V4(addr) = p.addr() else { unreachable!() };
        addr.octets()[2].is_multiple_of(3)
    });
    let mut there = true;
    let rows = steps(&mut bench, RouteFilter::default(), |bench, step| {
        if !step.is_multiple_of(20) {
            return;
        }
        // Numbers of routes are used again by others, and the table shrinks and grows.
        there = !there;
        let attrs = Attrs { med: Some(step as u32), ..path(1, 65001) };
        for part in come_and_go.chunks(400) {
            if there { bench.announce(1, &attrs, part) } else { bench.withdraw(1, part) }
        }
        bench.run();
    });
    let shown = prefixes(&rows);
    assert!(shown.is_sorted_by(|a, b| a < b), "in order, each once");
    let shown: BTreeSet<_> = shown.into_iter().collect();
    assert!(stay.iter().all(|p| shown.contains(p)), "{} of {}", shown.len(), stay.len());
}

/// A million communities are no page.
#[test]
fn the_paths_of_one_prefix_come_in_pages_too() {
    let mut bench = Bench::new();
    for n in [1, 2, 3] {
        bench.configure(n, config(n));
        bench.up(n, Negotiated { add_path_receive: PerFamily::both(true), ..negotiated(n, 65000 + n) });
        for id in 1..=200 {
            let communities: Box<[u32]> = (0..300).map(|c| c + (id << 16)).collect();
            bench.announce_path(n, id, &Attrs { communities, ..path(n, 65000 + n) }, &[prefix(9)]);
        }
    }
    bench.configure(4, config(4));
    bench.up(4, Negotiated { add_path_send: PerFamily::both(true), ..negotiated(4, 65000) });
    bench.run();
    let mut largest = 0;
    let mut walk = Walk::new(RouteFilter { prefix: Some(prefix(9)), ..RouteFilter::default() });
    let mut seen = BTreeSet::new();
    while !walk.is_over() {
        let page = bench.rib.walk(bench.now, &mut walk);
        largest = largest.max(serde_json::to_vec(&page).unwrap().len());
        for row in page {
            assert!(seen.insert((row.neighbor, row.path_id)), "once");
        }
        // Others change between two steps: those that stay are all shown.
        bench.withdraw_path(2, 200, &[prefix(9)]);
        bench.run();
    }
    assert!(seen.len() >= 599, "{}", seen.len());
    assert!(largest < 128 * 1024, "{largest} octets in a page");
    let filter = RouteFilter { advertised: Some(address(4).to_string()), ..RouteFilter::default() };
    let ids: BTreeSet<_> = bench.rib.routes(bench.now, &filter).into_iter().map(|r| r.path_id).collect();
    assert_eq!(ids.len(), 599);
}

#[test]
fn the_best_path_comes_first_and_each_view_shows_its_own() {
    let (mut bench, all) = announced(3000);
    let second = all[1];
    bench.announce(
        2,
        &Attrs { as_path: AsPath::sequence(&[65002, 1, 2]), ..path(2, 65002) },
        &[prefix(0), second],
    );
    bench.run();
    let show = |b: &mut Bench, filter| b.rib.routes(b.now, &filter);
    let of = |n| Some(address(n).to_string());
    let rows = show(&mut bench, RouteFilter { prefix: Some(prefix(0)), ..RouteFilter::default() });
    let brief: Vec<_> = rows.iter().map(|r| (r.neighbor.clone(), r.best)).collect();
    assert_eq!(brief, [(of(1), true), (of(2), false)]);
    assert!(rows[1].reason.starts_with("lost: "), "{}", rows[1].reason);

    let filters = [
        (RouteFilter { neighbor: of(2), ..RouteFilter::default() }, 2),
        (RouteFilter { received: of(2), ..RouteFilter::default() }, 2),
        (RouteFilter { received: Some("nobody".into()), ..RouteFilter::default() }, 0),
        (RouteFilter { advertised: of(2), ..RouteFilter::default() }, 3000),
        (RouteFilter { advertised: of(1), ..RouteFilter::default() }, 0),
        (RouteFilter { family: Some(Family::Ipv6Unicast), ..RouteFilter::default() }, 0),
        (RouteFilter { prefix: Some(all[5]), longer: true, ..RouteFilter::default() }, 1),
        (
            RouteFilter {
                prefix: Some("20.0.0.0/8".parse().unwrap()),
                longer: true,
                ..RouteFilter::default()
            },
            3002,
        ),
        (RouteFilter { prefix: Some("20.0.0.0/8".parse().unwrap()), ..RouteFilter::default() }, 0),
        (
            RouteFilter {
                prefix: Some("20.0.0.9/32".parse().unwrap()),
                longest: true,
                ..RouteFilter::default()
            },
            2,
        ),
    ];
    for (filter, expected) in filters {
        assert_eq!(show(&mut bench, filter.clone()).len(), expected, "{filter:?}");
    }
}

/// The counters are kept with the table and not counted anew for each question.
#[test]
fn counts_follow_paths_as_they_come_and_go() {
    let (mut bench, all) = announced(2000);
    bench.announce(2, &path(2, 65002), &all[..10]);
    bench.originate(&[prefix(100_000)]);
    bench.run();
    let counts = |b: &Bench| {
        let counts = b.rib.counts();
        (counts.prefixes[&Family::Ipv4Unicast], counts.paths[&Family::Ipv4Unicast])
    };
    assert_eq!(counts(&bench), (2001, 2011));
    bench.withdraw(2, &all[..5]);
    bench.withdraw(1, &all[..7]);
    bench.originate(&[]);
    bench.run();
    assert_eq!(counts(&bench), (1995, 1998));
    bench.down(1, DownCause::Administrative);
    bench.run();
    assert_eq!(counts(&bench), (5, 5));
}
