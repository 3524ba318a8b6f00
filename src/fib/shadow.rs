//! Finds other daemons' routes that keep ours from being used. Among routes of one prefix the
//! kernel uses the one with the lowest metric, whichever daemon installed it, and addresses
//! delivered to this host (`ip route add local`) precede all of them. Or the host's
//! routing rules never use our table: see `rules`.

use std::collections::BTreeMap;

use crate::{
    fib::{
        host::{ForeignRoute, Host, RouteType},
        route::protocol_name,
        rules::{self, Bypasses},
        view::FibView,
    },
    net::{Diagnostic, Prefix, Reason, Subject},
};

/// Number of prefixes that one problem lists.
const MAX_LISTED: usize = 3;

/// The routes of one table that are preferred to routes of one metric.
#[derive(Debug, Default)]
pub struct Shadows<'a> {
    by_prefix: BTreeMap<Prefix, &'a ForeignRoute>,
    local: Vec<&'a ForeignRoute>,
    bypasses: Option<&'a Bypasses>,
    table: u32,
}

impl<'a> Shadows<'a> {
    pub fn new(host: &'a Host, table: u32, metric: u32) -> Self {
        let mut this = Self { table, ..Self::default() };
        for route in host.routes.iter() {
            match route.kind {
                RouteType::Local => this.local.push(route),
                _ if route.table == table && route.metric < metric => {
                    let held = this.by_prefix.entry(route.prefix).or_insert(route);
                    if route.metric < held.metric {
                        *held = route;
                    }
                }
                _ => {}
            }
        }
        this
    }

    /// Adds the host's rules that bypass our table.
    pub fn with_bypasses(self, bypasses: &'a Bypasses) -> Self {
        Self { bypasses: Some(bypasses), ..self }
    }

    /// The route that is preferred to a route of ours to this prefix.
    pub fn of(&self, prefix: Prefix) -> Option<&'a ForeignRoute> {
        let local = self.local.iter().find(|r| r.prefix.covers(prefix));
        local.or(self.by_prefix.get(&prefix)).copied()
    }

    /// Adds the problem to each affected route in a list of ours with this metric.
    pub fn mark(&self, views: &mut [FibView], metric: u32) {
        for view in views.iter_mut().filter(|v| v.in_kernel && v.metric == metric && v.problem.is_none()) {
            view.problem = self.of(view.prefix).map(explain).or_else(|| self.bypassed(view.prefix));
        }
    }

    fn bypassed(&self, prefix: Prefix) -> Option<String> {
        let by = self.bypasses?.of(prefix)?;
        let (why, remedy) = rules::explain(by, prefix.family(), self.table);
        Some(format!("in the kernel, but not used: {why}; {remedy}"))
    }

    /// The destinations that never use our table, with the remedy.
    pub fn bypasses(&self) -> impl Iterator<Item = (Prefix, (String, String))> + '_ {
        let all = self.bypasses.into_iter().flat_map(Bypasses::list);
        all.map(|(prefix, by)| (prefix, rules::explain(by, prefix.family(), self.table)))
    }

    /// The prefixes whose routes may be shadowed.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.by_prefix.keys().copied()
    }
}

/// Describes the effect of `other` on a route of ours, and the remedy.
fn explain(other: &ForeignRoute) -> String {
    let who = protocol_name(other.protocol);
    match (other.kind, other.metric) {
        (RouteType::Local, _) => format!(
            "in the kernel, but not used: packets to {} are delivered to this host (a local route of {who}); remove that \\
             route",
            other.prefix
        ),
        (_, metric @ 0..=1) => format!(
            "in the kernel, but not used: a route of {who} with metric {metric} leads to the same prefix and is \\
             preferred; remove that route"
        ),
        (_, metric) => format!(
            "in the kernel, but not used: a route of {who} with metric {metric} leads to the same prefix and is \\
             preferred; remove that route, or set fib.metric below {metric}"
        ),
    }
}

/// One line about all routes that are unused, or not installed, because of other routes to their
/// prefixes.
pub fn problem(reason: Reason, what: &str, remedy: &str, of: &[(Prefix, String)]) -> Option<Diagnostic> {
    let named: Vec<_> = of.iter().take(MAX_LISTED).map(|(prefix, who)| format!("{prefix} ({who})")).collect();
    let more = match of.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let routes = if of.len() == 1 { "1 learned route" } else { &format!("{} learned routes", of.len()) };
    let text = format!("{routes} {what}: {}{more}", named.join(", "));
    (!of.is_empty()).then(|| Diagnostic::new(reason, Subject::host(), text, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::host::testing::{gateway, host, link};

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    #[test]
    fn a_route_that_another_shadows_is_named_with_the_remedy() {
        let with =
            |prefix: &str, metric, table| ForeignRoute { metric, table, ..gateway(prefix, "10.0.0.9", 2) };
        let mut link_route = with("10.9.2.0/24", 1, 254);
        link_route.hops[0].gateway = None;
        let mut local = with("10.9.8.0/21", 0, 255);
        local.kind = RouteType::Local;
        let routes = [
            with("10.9.1.0/24", 100, 254),
            with("10.9.1.0/24", 50, 254),
            link_route,
            with("10.9.3.0/24", 180, 254),
            with("10.9.4.0/24", 50, 100),
            local,
        ];
        let host = host([link(2, "eth0").with("10.0.0.2/24")], routes);
        let view = |prefix: &str| FibView {
            prefix: p(prefix),
            table: 254,
            metric: 179,
            protocol: 179,
            next_hops: Vec::new(),
            in_kernel: true,
            problem: None,
        };
        let cases = [
            ("10.9.1.0/24", Some("metric 50 leads to the same prefix")),
            ("10.9.1.0/24", Some("set fib.metric below 50")),
            ("10.9.2.0/24", Some("static (4) with metric 1 ")),
            ("10.9.3.0/24", None),
            ("10.9.4.0/24", None),
            ("10.9.9.0/24", Some("delivered to this host")),
        ];
        for (prefix, expected) in cases {
            let mut views = [view(prefix), FibView { metric: u32::MAX, ..view(prefix) }];
            Shadows::new(&host, 254, 179).mark(&mut views, 179);
            let [ours, unreachable] = views;
            assert_eq!(unreachable.problem, None, "an unreachable route against loops is to be shadowed");
            assert!(ours.in_kernel);
            match (ours.problem, expected) {
                (Some(text), Some(part)) => assert!(text.contains(part), "{prefix}: {text}"),
                (problem, expected) => assert_eq!(problem.as_deref(), expected, "{prefix}"),
            }
        }
    }

    #[test]
    fn a_problem_names_the_first_few() {
        let many: Vec<_> =
            (0..5).map(|n| (Prefix::v4([10, n, 0, 0].into(), 16), "static".to_owned())).collect();
        assert_eq!(problem(Reason::RouteShadowed, "x", "y", &[]), None);
        assert_eq!(
            problem(Reason::RouteShadowed, "x", "y", &many[..1]).unwrap().line(),
            "1 learned route x: 10.0.0.0/16 (static); y"
        );
        let text = problem(Reason::RouteShadowed, "x", "y", &many).unwrap().line();
        assert!(
            text.starts_with("5 learned routes x: 10.0.0.0/16 (static), ")
                && text.ends_with(" and 2 more; y")
        );
    }
}
