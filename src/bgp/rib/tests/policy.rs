//! Policies that must be there (RFC 8212).

use super::*;
use crate::bgp::peer::Lacks;

#[test]
fn without_a_policy_an_external_neighbor_gives_and_gets_nothing_where_one_is_required() {
    let both = Lacks { import: true, export: true };
    #[rustfmt::skip]
    let cases = [
        ("eBGP, nothing is required",    65001, Lacks::default(),                     true,  true),
        ("eBGP without policies",        65001, both,                                 false, false),
        ("eBGP without import policies", 65001, Lacks { import: true, export: false }, false, true),
        ("eBGP without export policies", 65001, Lacks { import: false, export: true }, true,  false),
        ("iBGP without policies",        65000, both,                                 true,  true),
    ];
    for (name, asn, lacks_policy, accepted, advertised) in cases {
        let mut bench = Bench::new();
        bench.neighbor(1, asn, |c| c.lacks_policy = lacks_policy);
        bench.originate(&[prefix(7)]);
        bench.announce(1, &path(1, asn), &[prefix(0)]);
        bench.run();
        assert_eq!(bench.hops(prefix(0)).len(), usize::from(accepted), "{name}");
        assert_eq!(bench.sent[&1].contains_key(&prefix(7)), advertised, "{name}");
        if !accepted {
            let reason = &bench.reasons(prefix(0))["10.0.0.11"];
            assert_eq!(reason, "no import policy (bgp.require-policy, RFC 8212)", "{name}");
        }
    }
}

#[test]
fn a_reload_that_requires_policies_applies_to_what_was_learned_and_advertised() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    bench.originate(&[prefix(7)]);
    bench.announce(1, &path(1, 65001), &[prefix(0)]);
    bench.run();
    for required in [true, false, true] {
        let lacks_policy = Lacks { import: required, export: required };
        bench.configure(1, Arc::new(PeerConfig { lacks_policy, ..(*config(1)).clone() }));
        bench.run();
        let found = (bench.hops(prefix(0)).len(), bench.sent[&1].len());
        assert_eq!(found, if required { (0, 0) } else { (1, 1) });
    }
}
