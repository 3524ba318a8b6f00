//! Which source addresses learned routes prefer (`fib.prefer-source`).

use std::net::IpAddr;

use super::Context;
use crate::{
    config::PreferSource,
    fib::host::Host,
    net::{Diagnostic, PreferredSources, Reason, Subject},
};

/// The configured addresses that are on this host: the kernel refuses a route with another
/// preferred source.
pub(super) fn preferred(ctx: &Context<'_>, problems: &mut Vec<Diagnostic>) -> PreferredSources {
    let mut sources = PreferredSources::default();
    for source in &ctx.config.fib.prefer_source {
        let (address, key) = match source {
            PreferSource::Address(address) => (*address, "fib.prefer-source"),
            PreferSource::RouterId => (IpAddr::V4(ctx.global.router_id), "fib.prefer-source: the router id"),
        };
        if is_on(ctx.host, address) {
            sources.set(address);
        } else {
            problems.push(Diagnostic::new(
                Reason::PreferredSourceMissing,
                Subject::address(address),
                format!(
                    "{key} {address} is on no interface of this host; learned routes have no preferred source \
                     until it is"
                ),
                "add it, for instance to lo",
            ));
        }
    }
    sources
}

fn is_on(host: &Host, address: IpAddr) -> bool {
    host.links.values().flat_map(|l| &l.addresses).any(|a| a.addr == address && !a.tentative)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, config};
    use crate::{
        config::PreferSource,
        fib::host::testing::{host, link},
    };

    #[test]
    fn an_address_counts_while_it_is_on_the_host() {
        let there = host([link(1, "lo").with("10.255.0.1/32"), link(2, "eth0").with("fd00::2/64")], []);
        let mut case = Case::new(config(), None, there);
        case.config.bgp.asn = crate::config::AsSetting::Number(1);
        case.config.bgp.router_id = Some("10.255.0.9".parse().unwrap());
        let v4 = PreferSource::Address("10.255.0.1".parse().unwrap());
        let v6 = PreferSource::Address("fd00::2".parse().unwrap());
        case.config.fib.prefer_source = vec![v4, v6];
        let plan = case.plan();
        assert_eq!((plan.sources.v4, plan.sources.v6), ("10.255.0.1".parse().ok(), "fd00::2".parse().ok()));
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);

        case.config.fib.prefer_source = vec![PreferSource::RouterId, v6];
        let plan = case.plan();
        assert_eq!((plan.sources.v4, plan.sources.v6), (None, "fd00::2".parse().ok()));
        assert!(plan.problems.iter().any(|p| p.contains("10.255.0.9")), "{:?}", plan.problems);
    }
}
