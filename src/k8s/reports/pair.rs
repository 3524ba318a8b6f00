//! The path of packets between two pods, in both directions, as far as the reports of their nodes
//! show it.
//!
//! For each direction, the reports show whether the node of the destination originates its prefix
//! and advertises it, and whether the node of the source has learned and installed it. For what
//! they do not contain (packet filters, neighbor entries, MTU), there is a step with the command to
//! run on the node. A report is up to a minute old.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::Serialize;

use super::Report;
use crate::{
    k8s::crd::{NodeReport, OwnReport, RouteReport},
    net::{Family, Prefix},
};

/// A pod, or an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Endpoint {
    /// `namespace/pod`, or the address.
    pub name: String,
    /// Name of its Node, if it is known.
    pub node: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it uses the addresses of its Node.
    pub host_network: bool,
    /// Why it receives no packets, and the remedy.
    #[serde(skip)]
    pub problem: Option<(String, String)>,
}

/// Whether packets between two pods pass.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Pair {
    /// The first pod.
    pub from: Endpoint,
    /// The second pod.
    pub to: Endpoint,
    /// Whether packets pass in both directions.
    pub verdict: Verdict,
    /// The step that stops them; `null` if none does.
    pub stopped_by: Option<&'static str>,
    /// The verdict in one sentence.
    pub text: String,
    /// What to do; `null` if nothing is to be done.
    pub remedy: Option<String>,
    /// The way there and back, in order.
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "PairVerdict")]
pub enum Verdict {
    /// Nothing in the reports stops them.
    Reachable,
    Stopped,
    /// The reports do not cover a step.
    Unknown,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "PairStep")]
pub struct Step {
    /// Which step it is.
    pub step: &'static str,
    /// The Node that the step is about.
    pub node: Option<String>,
    /// How it ends for packets.
    pub result: Outcome,
    /// What was found.
    pub text: String,
    /// What to do, or the command that shows what the reports do not have.
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "PairOutcome")]
pub enum Outcome {
    Ok,
    Note,
    Warning,
    Unknown,
    Stop,
}

/// Where routelet runs on each Node: namespace and pod.
pub type Agents = BTreeMap<String, (String, String)>;

/// Problems and sessions of a node that are shown.
const MAX_SHOWN: usize = 5;

impl Outcome {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Stop => "stop",
        }
    }
}

/// Follows packets from one endpoint to the other and back. `family`: instead of the first that
/// both have.
pub fn explain(
    from: Endpoint,
    to: Endpoint,
    family: Option<Family>,
    reports: &[Report],
    agents: &Agents,
) -> Pair {
    let mut walk = Walk { reports, agents, steps: Vec::new() };
    let (mut from, mut to) = (from, to);
    walk.endpoints(&mut from, &mut to, family);
    walk.end(from, to)
}

/// An endpoint with one address on a known Node.
struct Place<'a> {
    address: IpAddr,
    node: &'a str,
    host_network: bool,
}

struct Walk<'a> {
    reports: &'a [Report],
    agents: &'a Agents,
    steps: Vec<Step>,
}

impl Walk<'_> {
    fn add(
        &mut self,
        step: &'static str,
        node: Option<&str>,
        result: Outcome,
        text: impl Into<String>,
        remedy: Option<String>,
    ) {
        let node = node.map(str::to_owned);
        self.steps.push(Step { step, node, result, text: text.into(), remedy });
    }

    fn is_over(&self) -> bool {
        self.steps.last().is_some_and(|step| step.result == Outcome::Stop)
    }

    fn endpoints(&mut self, from: &mut Endpoint, to: &mut Endpoint, family: Option<Family>) {
        for endpoint in [&*from, &*to] {
            if let Some((text, remedy)) = &endpoint.problem {
                let text = format!("{}: {text}", endpoint.name);
                return self.add(
                    "endpoints",
                    endpoint.node.as_deref(),
                    Outcome::Stop,
                    text,
                    Some(remedy.clone()),
                );
            }
        }
        let pair = from.addresses.iter().find_map(|a| {
            let fits = |b: &&IpAddr| Family::of(**b) == Family::of(*a);
            let wanted = family.is_none_or(|family| family == Family::of(*a));
            Some((*a, *to.addresses.iter().find(fits)?)).filter(|_| wanted)
        });
        let Some((a, b)) = pair else {
            let family = family.map(|f| format!(" of {f}")).unwrap_or_default();
            let text = format!("{} and {} have no addresses{family} in common", from.name, to.name);
            let remedy = "choose pods that both have addresses of one family";
            return self.add("endpoints", None, Outcome::Stop, text, Some(remedy.into()));
        };
        for (endpoint, address) in [(&mut *from, a), (&mut *to, b)] {
            if endpoint.node.is_none() {
                endpoint.node = self.originator(address);
            }
        }
        let (Some(node_a), Some(node_b)) = (from.node.clone(), to.node.clone()) else {
            let unknown = if from.node.is_none() { a } else { b };
            return self.nowhere(unknown);
        };
        let text = format!("{a} on node {node_a}, {b} on node {node_b}");
        self.add("endpoints", None, Outcome::Ok, text, None);
        let place =
            |address, node, endpoint: &Endpoint| Place { address, node, host_network: endpoint.host_network };
        self.ways(&place(a, &node_a, from), &place(b, &node_b, to));
    }

    fn ways(&mut self, from: &Place<'_>, to: &Place<'_>) {
        if from.node == to.node {
            self.add(
                "routes",
                Some(from.node),
                Outcome::Ok,
                "both are on one node: no routes between nodes are needed",
                None,
            );
        } else {
            for (source, destination) in [(from, to), (to, from)] {
                self.way(source, destination);
                if self.is_over() {
                    return;
                }
            }
        }
        self.problems(from.node);
        self.on_node(from.node, from.address, to.address);
        if from.node != to.node {
            self.problems(to.node);
            self.on_node(to.node, to.address, from.address);
        }
    }

    /// The node that originates the longest prefix with an address.
    fn originator(&self, address: IpAddr) -> Option<String> {
        let mut best: Option<(u8, &str)> = None;
        for Report { node, report, .. } in self.reports {
            let length = own_prefixes(report).filter(|p| p.contains(address)).map(Prefix::len).max();
            if let Some(length) = length.filter(|l| best.is_none_or(|(known, _)| *l > known)) {
                best = Some((length, node));
            }
        }
        best.map(|(_, node)| node.to_owned())
    }

    fn nowhere(&mut self, address: IpAddr) {
        match self.reports.iter().find(|r| r.report.truncated || r.unreadable.is_some()) {
            Some(Report { node, .. }) => {
                let text = format!(
                    "no report has an originated prefix with {address}, but not every report has all routes"
                );
                let command = self.command(node, &format!("show routes {address}"));
                self.add("originated", None, Outcome::Unknown, text, Some(command));
            }
            None => {
                let text = format!("no node originates a prefix with {address}");
                let remedy = "name the pod instead of its address; `kubectl routelet routes` lists what nodes originate";
                self.add("originated", None, Outcome::Stop, text, Some(remedy.into()));
            }
        }
    }

    /// Follows packets from one node to an address on the other.
    fn way(&mut self, source: &Place<'_>, destination: &Place<'_>) {
        let address = destination.address;
        if destination.host_network {
            let text = format!("{address} is an address of the Node itself: routelet does not route it");
            return self.add("originated", Some(destination.node), Outcome::Note, text, None);
        }
        let originated = self.originated(destination);
        if self.is_over() {
            return;
        }
        self.learned(source, address, originated);
    }

    /// The report of a node. If there is none, adds a step that shows this.
    fn report(&mut self, node: &str, address: IpAddr) -> Option<&'_ NodeReport> {
        let position = self.reports.iter().position(|r| r.node == node && r.unreadable.is_none());
        if position.is_none() {
            let text =
                "the node has no BGPNodeStatus that can be read: is routelet running there?".to_owned();
            let command = self.command(node, &format!("show routes {address}"));
            self.add("report", Some(node), Outcome::Unknown, text, Some(command));
        }
        self.reports.get(position?).map(|r| &r.report)
    }

    /// Whether the node of the destination originates and advertises a prefix with it.
    fn originated(&mut self, destination: &Place<'_>) -> Option<Prefix> {
        let Place { address, node, .. } = *destination;
        let report = self.report(node, address)?.clone();
        let prefix = own_prefixes(&report).filter(|p| p.contains(address)).max_by_key(|p| p.len());
        let Some(prefix) = prefix else {
            let command = self.command(node, &format!("explain {address}"));
            if report.truncated {
                let text = format!("its report has no originated prefix with {address}, and not all routes");
                self.add("originated", Some(node), Outcome::Unknown, text, Some(command));
            } else {
                let text = format!("the node originates no prefix with {address}");
                let remedy = format!(
                    "`kubectl get node {node} -o jsonpath={{.spec.podCIDRs}}` has to contain the address; {command}"
                );
                self.add("originated", Some(node), Outcome::Stop, text, Some(remedy));
            }
            return None;
        };
        let own = report.own.iter().find(|own| own.prefix.parse() == Ok(prefix));
        self.advertised(node, prefix, own);
        Some(prefix)
    }

    fn advertised(&mut self, node: &str, prefix: Prefix, own: Option<&OwnReport>) {
        let show = self.command(node, &format!("show routes {prefix}"));
        match own {
            Some(own) if own.neighbors == 0 => {
                let why = own.reason.as_deref().unwrap_or("no neighbor has it");
                let text = format!("{prefix} is originated and advertised to nobody: {why}");
                self.add("advertised", Some(node), Outcome::Stop, text, Some(show));
            }
            Some(own) => {
                let more = own.neighbors.saturating_sub(own.advertised_to.len() as u64);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let text = format!(
                    "{prefix} is originated and advertised to {}{more}",
                    own.advertised_to.join(", ")
                );
                self.add("advertised", Some(node), Outcome::Ok, text, None);
            }
            None => {
                let text = format!("{prefix} is originated; to whom it is advertised is not in the report");
                self.add("advertised", Some(node), Outcome::Note, text, Some(show));
            }
        }
    }

    /// Whether the node of the source has a route to the address.
    fn learned(&mut self, source: &Place<'_>, address: IpAddr, originated: Option<Prefix>) {
        let node = source.node;
        let Some(report) = self.report(node, address).cloned() else { return };
        let mut routes: Vec<(Prefix, &RouteReport)> = report
            .routes
            .iter()
            .filter_map(|r| Some((r.prefix.parse::<Prefix>().ok()?, r)))
            .filter(|(prefix, _)| prefix.contains(address))
            .collect();
        routes.sort_by_key(|(prefix, route)| (std::cmp::Reverse(prefix.len()), !route.best));
        let command = self.command(node, &format!("explain {address} --from {}", source.address));
        match routes.iter().find(|(_, route)| route.best) {
            Some((prefix, route)) => self.selected(node, *prefix, route, originated, command),
            None if report.truncated => {
                let text = format!("its report has no route to {address}, and not all routes");
                self.add("learned", Some(node), Outcome::Unknown, text, Some(command));
            }
            None => {
                let reasons: Vec<String> =
                    routes.iter().take(MAX_SHOWN).map(|(p, r)| format!("{p}: {}", r.reason)).collect();
                let text = match reasons.is_empty() {
                    true => format!("the node has learned no route to {address}{}", down(&report)),
                    false => format!("no path to {address} is used: {}", reasons.join("; ")),
                };
                self.add("learned", Some(node), Outcome::Stop, text, Some(command));
            }
        }
    }

    /// The route that is used.
    fn selected(
        &mut self,
        node: &str,
        prefix: Prefix,
        route: &RouteReport,
        originated: Option<Prefix>,
        command: String,
    ) {
        let Some(neighbor) = &route.neighbor else {
            let text = format!("the node originates {prefix} itself, which contains the address");
            let remedy = "give each Node a pod CIDR of its own: `kubectl get nodes -o \
                          custom-columns=NAME:.metadata.name,CIDRS:.spec.podCIDRs`";
            return self.add("learned", Some(node), Outcome::Stop, text, Some(remedy.into()));
        };
        let next_hop = route.next_hop.as_deref().unwrap_or("unknown");
        let text = format!("{prefix} is learned from {neighbor}, next hop {next_hop}");
        if !route.installed {
            let text = format!("{text}, and is not in the kernel: {}", route.reason);
            return self.add("installed", Some(node), Outcome::Stop, text, Some(command));
        }
        match originated {
            Some(originated) if originated.len() > prefix.len() => {
                let text = format!("{text}, in the kernel; {originated} itself is not learned");
                self.add("learned", Some(node), Outcome::Warning, text, Some(command));
            }
            _ => self.add("learned", Some(node), Outcome::Ok, format!("{text}, in the kernel"), None),
        }
    }

    fn problems(&mut self, node: &str) {
        let report = self.reports.iter().find(|r| r.node == node);
        let problems = report.map(|r| r.report.problems.clone()).unwrap_or_default();
        for problem in problems.iter().take(MAX_SHOWN) {
            self.add("problems", Some(node), Outcome::Warning, problem.clone(), None);
        }
        let more = problems.len().saturating_sub(MAX_SHOWN);
        if more > 0 {
            let text = format!("further problems of the node: {more}");
            let remedy = format!("`kubectl routelet problems --node {node}`");
            self.add("problems", Some(node), Outcome::Warning, text, Some(remedy));
        }
    }

    /// Adds the step for everything that no report contains.
    fn on_node(&mut self, node: &str, own: IpAddr, other: IpAddr) {
        let text = "packet filters, rp_filter, neighbor entries and MTU are in no report";
        let command = self.command(node, &format!("explain {other} --from {own}"));
        self.add("on-node", Some(node), Outcome::Note, text, Some(command));
    }

    fn command(&self, node: &str, what: &str) -> String {
        match self.agents.get(node) {
            Some((namespace, pod)) => format!("run `kubectl -n {namespace} exec {pod} -- /routelet {what}`"),
            None => format!("on node {node}, run `routelet {what}`"),
        }
    }

    fn end(self, from: Endpoint, to: Endpoint) -> Pair {
        let stop = self.steps.iter().find(|s| s.result == Outcome::Stop);
        let unknown = self.steps.iter().find(|s| s.result == Outcome::Unknown);
        let names = format!("{} and {}", from.name, to.name);
        let on = |s: &Step| s.node.as_ref().map(|node| format!("node {node}: ")).unwrap_or_default();
        let (verdict, decisive, text) = match (stop, unknown) {
            (Some(s), _) => (Verdict::Stopped, Some(s), format!("{}{}", on(s), s.text)),
            (None, Some(s)) => (Verdict::Unknown, Some(s), format!("{}{}", on(s), s.text)),
            (None, None) => (
                Verdict::Reachable,
                None,
                format!("the reports show nothing that stops packets between {names}"),
            ),
        };
        Pair {
            verdict,
            stopped_by: stop.map(|s| s.step),
            text,
            remedy: decisive.and_then(|s| s.remedy.clone()),
            steps: self.steps,
            from,
            to,
        }
    }
}

/// The prefixes that a node originates: from the list of routes, and from that of own prefixes,
/// which large tables have as well.
fn own_prefixes(report: &NodeReport) -> impl Iterator<Item = Prefix> {
    let of_routes = report.routes.iter().filter(|r| r.neighbor.is_none()).map(|r| &r.prefix);
    let of_own = report.own.iter().filter(|own| own.source != "interface" || own.neighbors > 0);
    of_routes.chain(of_own.map(|own| &own.prefix)).filter_map(|prefix| prefix.parse().ok())
}

/// The sessions that are down, as a part of a sentence.
fn down(report: &NodeReport) -> String {
    let is_down = |state: &str| state != "established" && state != "disabled";
    let list: Vec<_> = report
        .sessions
        .iter()
        .filter(|s| is_down(&s.state))
        .take(MAX_SHOWN)
        .map(|s| match &s.last_error {
            Some(error) => format!("{} ({error})", s.address),
            None => format!("{} ({})", s.address, s.state),
        })
        .collect();
    match list.is_empty() {
        true => String::new(),
        false => format!("; sessions that are down: {}", list.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::crd::SessionReport;

    fn own(prefix: &str, neighbors: u64) -> OwnReport {
        OwnReport {
            prefix: prefix.into(),
            source: "pod-cidr".into(),
            neighbors,
            advertised_to: (neighbors > 0).then(|| "10.0.0.9".to_owned()).into_iter().collect(),
            reason: (neighbors == 0).then(|| "no neighbor has a session".into()),
        }
    }

    fn route(prefix: &str, neighbor: Option<&str>) -> RouteReport {
        RouteReport {
            prefix: prefix.into(),
            neighbor: neighbor.map(str::to_owned),
            next_hop: neighbor.map(str::to_owned),
            best: true,
            installed: neighbor.is_some(),
            reason: "only path".into(),
        }
    }

    fn report(node: &str, own_prefix: &str, learned: &str, from: &str) -> Report {
        let routes = vec![route(own_prefix, None), route(learned, Some(from))];
        let report = NodeReport { routes, own: vec![own(own_prefix, 2)], ..NodeReport::default() };
        Report { node: node.into(), report, unreadable: None }
    }

    /// Two nodes that have each other's pod CIDR.
    fn two() -> Vec<Report> {
        vec![
            report("n1", "10.244.1.0/24", "10.244.2.0/24", "10.0.0.2"),
            report("n2", "10.244.2.0/24", "10.244.1.0/24", "10.0.0.1"),
        ]
    }

    fn pod(name: &str, node: &str, address: &str) -> Endpoint {
        Endpoint {
            name: format!("default/{name}"),
            node: Some(node.into()),
            addresses: vec![address.parse().unwrap()],
            ..Endpoint::default()
        }
    }

    fn explained(reports: &[Report]) -> Pair {
        let agents = Agents::from([("n1".into(), ("kube-system".into(), "routelet-abc".into()))]);
        explain(pod("a", "n1", "10.244.1.5"), pod("b", "n2", "10.244.2.6"), None, reports, &agents)
    }

    #[test]
    fn a_pair_that_nothing_stops_is_reachable_in_both_directions() {
        let found = explained(&two());
        assert_eq!((found.verdict, found.stopped_by), (Verdict::Reachable, None), "{found:#?}");
        let steps: Vec<_> = found.steps.iter().map(|s| (s.step, s.node.as_deref().unwrap_or("-"))).collect();
        let expected = [
            ("endpoints", "-"),
            ("advertised", "n2"),
            ("learned", "n1"),
            ("advertised", "n1"),
            ("learned", "n2"),
            ("on-node", "n1"),
            ("on-node", "n2"),
        ];
        assert_eq!(steps, expected);
        let command = "run `kubectl -n kube-system exec routelet-abc -- /routelet explain 10.244.2.6 --from 10.244.1.5`";
        assert_eq!(found.steps[5].remedy.as_deref(), Some(command));
        let there = "on node n2, run `routelet explain 10.244.1.5 --from 10.244.2.6`";
        assert_eq!(found.steps[6].remedy.as_deref(), Some(there));
    }

    #[test]
    fn the_step_that_stops_packets_is_named_with_its_node() {
        type Change = fn(&mut [Report]);
        let cases: [(&str, Change, Verdict, Option<&str>, &str); 10] = [
            (
                "no own prefix",
                |r| (r[1].report.routes.remove(0), r[1].report.own.clear()).1,
                Verdict::Stopped,
                Some("originated"),
                "node n2: ",
            ),
            (
                "to nobody",
                |r| r[1].report.own = vec![own("10.244.2.0/24", 0)],
                Verdict::Stopped,
                Some("advertised"),
                "no neighbor has a session",
            ),
            (
                "not learned",
                |r| drop(r[0].report.routes.remove(1)),
                Verdict::Stopped,
                Some("learned"),
                "node n1: the node has learned no route",
            ),
            (
                "not installed",
                |r| r[0].report.routes[1].installed = false,
                Verdict::Stopped,
                Some("installed"),
                "not in the kernel: only path",
            ),
            (
                "refused",
                |r| r[0].report.routes[1].best = false,
                Verdict::Stopped,
                Some("learned"),
                "no path to 10.244.2.6 is used: 10.244.2.0/24: only path",
            ),
            (
                "the way back",
                |r| drop(r[1].report.routes.remove(1)),
                Verdict::Stopped,
                Some("learned"),
                "node n2: ",
            ),
            (
                "duplicate",
                |r| r[0].report.routes[1].neighbor = None,
                Verdict::Stopped,
                Some("learned"),
                "itself",
            ),
            (
                "truncated",
                |r| {
                    r[0].report.routes.remove(1);
                    r[0].report.truncated = true;
                },
                Verdict::Unknown,
                None,
                "not all routes",
            ),
            ("unreadable", |r| r[1].unreadable = Some("x".into()), Verdict::Unknown, None, "BGPNodeStatus"),
            (
                "large table",
                |r| {
                    r[1].report.routes.remove(0);
                    r[1].report.truncated = true;
                },
                Verdict::Reachable,
                None,
                "nothing that stops",
            ),
        ];
        for (name, change, verdict, step, part) in cases {
            let mut reports = two();
            change(&mut reports);
            let found = explained(&reports);
            assert_eq!((found.verdict, found.stopped_by), (verdict, step), "{name}: {found:#?}");
            assert!(found.text.contains(part), "{name}: {}", found.text);
            assert_eq!(found.remedy.is_none(), verdict == Verdict::Reachable, "{name}");
        }
    }

    #[test]
    fn sessions_that_are_down_and_problems_are_shown() {
        let mut reports = two();
        reports[0].report.routes.remove(1);
        let down =
            SessionReport { address: "10.0.0.2".into(), state: "active".into(), ..SessionReport::default() };
        reports[0].report.sessions.push(down);
        assert!(explained(&reports).text.contains("sessions that are down: 10.0.0.2 (active)"));
        let mut reports = two();
        reports[1].report.problems = (0..7).map(|n| format!("Reason: problem {n}")).collect();
        let found = explained(&reports);
        let shown: Vec<_> = found.steps.iter().filter(|s| s.step == "problems").map(|s| &s.text).collect();
        assert!(shown.len() == 6 && shown[5].ends_with(": 2"), "{shown:?}");
    }

    #[test]
    fn endpoints_are_pods_or_addresses_of_one_family() {
        let address = |text: &str| Endpoint {
            name: text.into(),
            addresses: vec![text.parse().unwrap()],
            ..Endpoint::default()
        };
        let explained = |a: Endpoint, b: Endpoint, family| explain(a, b, family, &two(), &Agents::new());
        let found = explained(address("10.244.1.5"), address("10.244.2.6"), None);
        assert_eq!((found.verdict, found.to.node.as_deref()), (Verdict::Reachable, Some("n2")));
        let found = explained(address("10.244.1.5"), address("10.99.0.1"), None);
        assert_eq!(found.stopped_by, Some("originated"));
        for (b, family) in [("2001:db8::1", None), ("10.244.2.6", Some(Family::Ipv6Unicast))] {
            let found = explained(address("10.244.1.5"), address(b), family);
            assert!(found.text.contains("in common"), "{}", found.text);
        }
        let found = explained(pod("a", "n1", "10.244.1.5"), pod("b", "n1", "10.244.1.6"), None);
        assert!(found.verdict == Verdict::Reachable && found.steps[1].text.contains("one node"));
        let host = Endpoint { host_network: true, ..pod("b", "n2", "10.0.0.2") };
        let found = explained(pod("a", "n1", "10.244.1.5"), host, None);
        assert!(found.verdict == Verdict::Reachable && found.steps[1].text.contains("Node itself"));
        let problem = Some(("it is Pending".to_owned(), "wait".to_owned()));
        let found =
            explained(pod("a", "n1", "10.244.1.5"), Endpoint { problem, ..pod("b", "n2", "::1") }, None);
        assert_eq!((found.stopped_by, found.remedy.as_deref()), (Some("endpoints"), Some("wait")));
    }
}
