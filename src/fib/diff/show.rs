//! What `show fib` lists of each route, and the problems of routes that have no effect.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Fib, Own, Settings};
use crate::{
    fib::{
        nexthop::{NexthopEntryId, SetId},
        route::{Content, OWN_METRIC, protocol_name},
        shadow::{Shadows, problem},
        table::{Mark, State},
        view::{FibHop, FibView},
    },
    net::{Diagnostic, Prefix, Reason, Subject},
};

impl Fib {
    /// Lists the desired routes that have no effect because other routes hold their key or are
    /// preferred, in a line per cause with the remedy.
    pub fn displaced(&self, shadows: &Shadows<'_>) -> Vec<Diagnostic> {
        if !self.settings.install {
            return Vec::new();
        }
        let metric = self.settings.metric;
        let wanted = |p: Prefix| self.routes.get(p).is_some_and(|s| s.want != 0);
        let held = self.foreign.iter().filter(|((p, m), _)| *m == metric && wanted(*p));
        let mut held: Vec<_> = held.map(|((p, _), who)| (*p, protocol_name(*who))).collect();
        held.sort_unstable();
        // The host's own default route is preferred to a learned one by design.
        let shadowed = shadows.prefixes().filter(|p| p.len() > 0);
        let shadowed = shadowed.filter(|p| self.routes.get(*p).is_some_and(|s| s.have() != 0));
        let who = |p: Prefix| Some((p, shadows.of(p)?));
        let shadowed: Vec<_> = shadowed
            .filter_map(who)
            .map(|(p, by)| (p, format!("{}, metric {}", protocol_name(by.protocol), by.metric)))
            .collect();
        let not_there = problem(
            Reason::RouteNotInstalled,
            &format!("not in the kernel, as other routes hold their prefix with metric {metric}"),
            "change fib.metric, or remove those routes",
            &held,
        );
        let not_used = problem(
            Reason::RouteShadowed,
            "in the kernel, but not used, as other routes to the same prefix are preferred",
            "remove those, or set fib.metric below theirs; `routelet show fib` lists all of them",
            &shadowed,
        );
        not_there.into_iter().chain(not_used).chain(self.bypassed(shadows)).collect()
    }

    /// What the routing rules of the host keep from our table: each rule in a line. A default route
    /// is not counted, as above.
    fn bypassed(&self, shadows: &Shadows<'_>) -> Vec<Diagnostic> {
        let learned =
            |(prefix, state): (Prefix, State)| (prefix.len() > 0 && state.is_there()).then_some(prefix);
        let mut by_rule: BTreeMap<(String, String), Vec<Prefix>> = BTreeMap::new();
        for (prefix, why) in shadows.bypasses() {
            by_rule.entry(why).or_default().push(prefix);
        }
        let concerns = |destinations: &[Prefix]| {
            let inside = |p: Prefix| destinations.iter().any(|d| d.covers(p));
            // Of a whole family any route is one of them: no search through a million.
            destinations.iter().any(|d| d.len() == 0 && self.routes.there(d.family()) > 0)
                || !self.is_large() && self.routes.iter().filter_map(learned).any(inside)
        };
        let concerned = by_rule.into_iter().filter(|(_, destinations)| concerns(destinations));
        concerned.map(|((why, remedy), destinations)| bypassed(&why, remedy, &destinations)).collect()
    }

    /// A learned route as `show fib` reports it. `name` maps interface indexes to names.
    pub(in crate::fib) fn learned_view(
        &self,
        prefix: Prefix,
        s: State,
        name: &impl Fn(u32) -> String,
    ) -> FibView {
        let entry = self.objects.entry(s.have());
        let content = entry.map(|t| &t.content).or_else(|| self.objects.path(s.want).ok());
        let in_kernel = entry.is_some_and(|t| t.alive);
        let problem =
            if in_kernel && !s.is(Mark::Stale) { None } else { self.problem(prefix, s.want, s.have()) };
        self.view(prefix, self.settings.metric, content, in_kernel, problem, name)
    }

    /// An originated prefix as `show fib` reports it.
    pub(in crate::fib) fn own_view(
        &self,
        prefix: Prefix,
        own: Own,
        name: &impl Fn(u32) -> String,
    ) -> FibView {
        let problem = if own.there { None } else { self.place_problem(prefix, OWN_METRIC) };
        self.view(prefix, OWN_METRIC, Some(&Content::Unreachable), own.there, problem, name)
    }

    pub(super) fn view(
        &self,
        prefix: Prefix,
        metric: u32,
        content: Option<&Content>,
        in_kernel: bool,
        problem: Option<String>,
        name: impl Fn(u32) -> String,
    ) -> FibView {
        let hops = match content {
            Some(Content::Hops(hops)) => &**hops,
            _ => &[],
        };
        let hop =
            |address: IpAddr, ifindex| FibHop { address: Some(address), interface: name(ifindex), weight: 1 };
        let next_hops = hops.iter().map(|h| hop(h.gateway, h.ifindex)).collect();
        let Settings { table, protocol, .. } = self.settings;
        FibView { prefix, table, metric, protocol, next_hops, in_kernel, problem }
    }

    pub(super) fn problem(&self, prefix: Prefix, want: SetId, have: NexthopEntryId) -> Option<String> {
        if have != 0 {
            return Some("from an earlier run; waiting for its neighbor".into());
        }
        if !self.settings.install {
            return Some("fib.install is false".into());
        }
        self.place_problem(prefix, self.settings.metric)
            .or_else(|| self.objects.path(want).err().map(|why| why.as_str().into()))
            .or_else(|| self.objects.error_of(want).map(|e| e.to_string()))
            .or_else(|| Some("being written".into()))
    }

    fn place_problem(&self, prefix: Prefix, metric: u32) -> Option<String> {
        match self.foreign.get(&(prefix, metric)) {
            Some(protocol) => Some(format!(
                "a route of {} holds this prefix with metric {metric}; it is left alone",
                protocol_name(*protocol)
            )),
            None => self.problems.get(&(prefix, metric)).map(|why| format!("the kernel refused it: {why}")),
        }
    }
}

/// The problem of a rule.
fn bypassed(why: &str, remedy: String, destinations: &[Prefix]) -> Diagnostic {
    let first = destinations.first().map_or_else(String::new, ToString::to_string);
    let more = match destinations.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    Diagnostic::new(
        Reason::RouteBypassed,
        Subject::rule(why),
        format!("learned routes inside {first}{more} are in the kernel, but not used: {why}"),
        remedy,
    )
}
