//! What a change of the host's subnets costs in the table.

use super::*;

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

impl Bench {
    /// Sets the connected subnets beside the neighbors'. Returns for how many neighbors all paths
    /// were visited.
    fn relinked(&mut self, subnets: &[&str]) -> u64 {
        let before = self.rib.relinked;
        let subnets = ["10.0.0.0/24"].iter().chain(subnets);
        let entries = subnets.map(|s| (p(s), Reach::Connected { ifindex: 2 })).collect();
        self.rib.handle(self.now, Input::Reachable(Arc::new(Reachable::new(entries))));
        self.run();
        self.rib.relinked - before
    }
}

#[test]
fn a_subnet_visits_paths_only_if_a_next_hop_beside_a_link_local_one_is_in_it() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    bench.announce(1, &path(1, 65001), &(0..100).map(prefix).collect::<Vec<_>>());
    assert_eq!(bench.relinked(&["2001:db8:1::/64", "10.7.0.0/24"]), 0, "no such next hop");
    let next_hop =
        PathNextHop { addr: "2001:db8:9::9".parse().unwrap(), link_local: Some("fe80::9".parse().unwrap()) };
    let six = p("2001:db8:ffff::/48");
    bench.announce(1, &Attrs { next_hop, ..path(1, 65001) }, &[six]);
    bench.run();
    assert_eq!(bench.hops(six), ["fe80::9"]);
    assert_eq!(bench.relinked(&["2001:db8:2::/64"]), 0, "another subnet");
    assert_eq!(bench.relinked(&["2001:db8:2::/64", "2001:db8:9::/64"]), 1, "that of the next hop");
    assert_eq!(bench.hops(six), ["2001:db8:9::9"]);
    assert_eq!(bench.relinked(&["2001:db8:2::/64"]), 1, "which is removed");
    assert_eq!(bench.hops(six), ["fe80::9"]);
    bench.withdraw(1, &[six]);
    bench.run();
    assert_eq!(bench.relinked(&["2001:db8:9::/64"]), 0, "no route has the next hop any more");
}
