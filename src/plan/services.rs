//! Which Services are watched, and which of their addresses this node advertises.

use std::sync::Arc;

use super::{
    Context, peering,
    taken::{NEVER, Taken},
};
use crate::{
    config::Config,
    k8s::{
        node::{EXCLUDED_LABEL, Nodes},
        services::{self, Eligibility, Rules, ServiceSelection},
    },
    net::{Diagnostic, Reason, ServiceAddresses, ServiceLimits, Source, Subject},
};

/// The Services to watch, as far as the configuration alone determines them: none outside of
/// Kubernetes.
pub fn service_selection(config: &Config, kubernetes: bool) -> Arc<ServiceSelection> {
    let modes = peering::modes_of(config, None, &mut Vec::new());
    selection_among(config, kubernetes, peering::is_among_nodes(&modes))
}

/// The same; `among_nodes`: whether there are sessions among nodes.
pub(super) fn selection_among(config: &Config, kubernetes: bool, among_nodes: bool) -> Arc<ServiceSelection> {
    let (k, rules) = (&config.kubernetes, &config.kubernetes.service_rules);
    if !kubernetes {
        return Arc::default();
    }
    Arc::new(ServiceSelection {
        kinds: k.services.iter().copied().collect(),
        selector: rules.selector.clone(),
        by_annotation: rules.annotations.iter().copied().collect(),
        classes: rules.classes.clone(),
        track_remote_endpoints: rules.when_cordoned,
        endpoints: rules.without_endpoints,
        limits: ServiceLimits { total: rules.limit, per_namespace: rules.limit_per_namespace },
        aggregates: rules.aggregates.clone(),
        each_node: among_nodes,
    })
}

/// Whether each known address is advertised, and why.
pub(super) fn verdicts(
    ctx: &Context<'_>,
    taken: &Taken<'_>,
    selection: &ServiceSelection,
    problems: &mut Vec<Diagnostic>,
    object_problems: &mut Vec<Diagnostic>,
) -> Vec<Eligibility> {
    let (Some(nodes), known) = (ctx.nodes, &ctx.extra.services) else { return Vec::new() };
    object_problems.extend(known.mistakes.iter().cloned());
    problems.extend(known.problems.iter().cloned());
    let rules = Rules {
        selection,
        ignore_exclude_label: ctx.config.kubernetes.service_rules.ignore_exclude_label,
        withheld: ctx.extra.drain.filter(|d| !d.leaves(Source::Service)).map(|_| "this node is drained"),
        refused: &|addr, kind| taken.by(addr, kind),
    };
    let verdicts = services::eligibility(known, nodes, rules);
    let refused = verdicts.iter().filter(|v| v.announced.is_none() && v.reason.starts_with(NEVER));
    problems.extend(refused.take(MAX_NAMED).map(|v| {
        Diagnostic::new(
            Reason::ServiceAddressRefused,
            Subject::address(v.address),
            format!("{} of Service {}: {}", v.address, v.services.join(", "), v.reason),
            "give it another address",
        )
    }));
    object_problems.extend(all_excluded(nodes, &verdicts));
    verdicts
}

/// Whether the label matters here: this Node has it, and some addresses are therefore not
/// advertised.
fn withheld_by_label(verdicts: &[Eligibility]) -> bool {
    verdicts.iter().any(|v| v.announced.is_none() && v.reason.contains(EXCLUDED_LABEL))
}

/// Whether the other Nodes are needed: to check whether any of them advertises the addresses that
/// the label withholds here, and to check that external IPs, which users choose, are not addresses
/// of these Nodes.
pub(super) fn needs_all_nodes(selection: &ServiceSelection, verdicts: &[Eligibility]) -> bool {
    withheld_by_label(verdicts) || selection.allows(ServiceAddresses::ExternalIp)
}

/// The problem that no node advertises, because all have the label: kubeadm and Talos set it on
/// every control plane. All nodes report it with the same text for the same Node, the first by
/// name, so that it is one Event.
fn all_excluded(nodes: &Nodes, verdicts: &[Eligibility]) -> Option<Diagnostic> {
    if !nodes.complete || !withheld_by_label(verdicts) || !nodes.all().all(|n| n.excluded || n.deleted) {
        return None;
    }
    let first = nodes.all().min_by(|a, b| a.name.cmp(&b.name))?;
    Some(Diagnostic::new(
        Reason::ServicesNotAdvertised,
        Subject::node(&first.name, &first.uid),
        format!(
            "no node advertises external and load balancer addresses of Services: every Node has the label \
             {EXCLUDED_LABEL}"
        ),
        format!(
            "set kubernetes.ignore-exclude-label = true, or remove the label from the Nodes that are to take \
             the traffic (kubectl label node {} {EXCLUDED_LABEL}-)",
            first.name
        ),
    ))
}

/// Maximum number of refused addresses that are reported.
const MAX_NAMED: usize = 10;

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Case, config, node, nodes},
        *,
    };
    use crate::{
        fib::host::testing::{gateway, host, link},
        net::{Refusal, SubjectKind},
        plan::Plan,
    };
    use ServiceAddresses::{ClusterIp, ExternalIp, LoadBalancerIp};

    fn case(offers: &[(&str, ServiceAddresses)]) -> Case {
        let host = host([link(2, "eth0").with("10.0.0.2/24")], [gateway("0.0.0.0/0", "10.0.0.1", 2)]);
        let mut cluster = nodes([
            node("n1", &["10.0.0.2"], &["10.244.1.0/24"]),
            node("n2", &["10.0.0.3"], &["10.244.2.0/24"]),
        ]);
        cluster.api_servers = vec!["10.96.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap()];
        Case::new(config(), Some(cluster), host).with_services(offers)
    }

    #[test]
    fn service_addresses_are_announced_and_never_put_into_the_kernel() {
        let plan = case(&[("10.96.0.1", ClusterIp), ("192.0.2.7", LoadBalancerIp)]).plan();
        let advertised: Vec<_> = plan.originated.iter().map(|(p, o)| (p.to_string(), o.source)).collect();
        let expected = [
            ("10.96.0.1/32".to_owned(), Source::Service),
            ("10.244.1.0/24".to_owned(), Source::PodCidr),
            ("192.0.2.7/32".to_owned(), Source::Service),
        ];
        assert_eq!(advertised, expected);
        assert_eq!(plan.unreachable, ["10.244.1.0/24".parse().unwrap()]);
        let theirs = "192.0.2.7/32".parse().unwrap();
        assert_eq!(plan.guard.refuses(theirs, false), Some(Refusal::Own), "another node's path is not taken");
        assert!(plan.masquerade.keep.contains(&theirs));
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);
    }

    #[test]
    fn addresses_that_belong_to_somebody_are_refused_and_named() {
        let offers = [
            ("10.0.0.3", ExternalIp, "node n2"),
            ("10.244.2.9", ExternalIp, "node n2"),
            ("10.0.0.1", ExternalIp, "gateway"),
            ("10.0.0.9", LoadBalancerIp, "API server"),
            ("127.0.0.1", ExternalIp, "no network"),
            ("fe80::7", ExternalIp, "no network"),
        ];
        let plan = case(&offers.map(|(addr, kind, _)| (addr, kind))).plan();
        assert!(plan.originated.values().all(|o| o.source == Source::PodCidr), "{:?}", plan.originated);
        for (addr, _, why) in offers {
            let named = |p: &&Diagnostic| {
                p.text.starts_with(&format!("{addr} of Service default/web")) && p.contains(why)
            };
            assert_eq!(plan.problems.iter().filter(named).count(), 1, "{addr}: {:?}", plan.problems);
        }
    }

    /// ServiceLB of k3s gives a Service the addresses of the nodes that run its pods.
    #[test]
    fn servicelb_an_ingress_address_that_is_a_nodes_own_is_no_problem() {
        let mut case = case(&[
            ("10.0.0.2", LoadBalancerIp),
            ("10.0.0.3", LoadBalancerIp),
            ("203.0.113.3", LoadBalancerIp),
        ]);
        case.other("n2").external = vec!["203.0.113.3".parse().unwrap()];
        let plan = case.plan();
        assert!(plan.problems.is_empty() && plan.object_problems.is_empty(), "{:?}", plan.diagnostics());
        let reasons: Vec<_> = plan.services.iter().map(|v| (v.announced, v.reason.as_str())).collect();
        assert_eq!(
            reasons,
            [
                (None, "need not be advertised: it is an address of node n1"),
                (None, "need not be advertised: it is an address of node n2"),
                (None, "need not be advertised: it is an address of node n2"),
            ]
        );
        // An address of a pod still is a problem.
        let plan = self::case(&[("10.244.2.9", LoadBalancerIp)]).plan();
        assert_eq!(plan.problems.len(), 1, "{:?}", plan.problems);
    }

    #[test]
    fn metallb_2274_a_label_on_every_node_is_one_event_and_can_be_ignored() {
        let mut case = case(&[("192.0.2.7", LoadBalancerIp), ("10.96.0.7", ClusterIp)]);
        let own = |case: &mut Case| case.nodes.as_mut().unwrap().own.as_mut().unwrap().excluded = true;
        let services = |plan: &Plan| {
            let advertised = plan.originated.iter().filter(|(_, o)| o.source == Source::Service);
            advertised.map(|(p, _)| p.to_string()).collect::<Vec<_>>()
        };
        own(&mut case);
        let plan = case.plan();
        assert_eq!(services(&plan), ["10.96.0.7/32"], "cluster IPs are no matter of external load balancers");
        assert!(plan.object_problems.is_empty(), "n2 announces it: {:?}", plan.object_problems);
        assert!(plan.all_nodes, "needed to decide");

        case.other("n2").excluded = true;
        let [problem] = &case.plan().object_problems[..] else { panic!("one") };
        assert_eq!(
            (problem.subject.kind, problem.subject.name.as_str()),
            (SubjectKind::Node, "n1"),
            "the first by name"
        );
        for part in
            ["node.kubernetes.io/exclude-from-external-load-balancers", "kubernetes.ignore-exclude-label"]
        {
            assert!(problem.contains(part), "{problem}");
        }
        // n2 reports the same Event.
        let mut there = case.clone();
        let nodes = there.nodes.as_mut().unwrap();
        let n2 = nodes.others.remove("n2").unwrap();
        let n1 = nodes.own.replace((*n2).clone()).unwrap();
        nodes.others.insert("n1".into(), n1.into());
        assert_eq!(there.plan().object_problems, std::slice::from_ref(problem));

        case.config.kubernetes.service_rules.ignore_exclude_label = true;
        let plan = case.plan();
        assert_eq!(services(&plan), ["10.96.0.7/32", "192.0.2.7/32"]);
        assert!(plan.object_problems.is_empty());

        // Nothing is reported if the label withholds nothing, or before the list is complete.
        let mut quiet = self::case(&[("10.96.0.7", ClusterIp)]);
        own(&mut quiet);
        quiet.other("n2").excluded = true;
        assert!(quiet.plan().object_problems.is_empty());
        case.config.kubernetes.service_rules.ignore_exclude_label = false;
        case.nodes.as_mut().unwrap().complete = false;
        assert!(case.plan().object_problems.is_empty());
    }

    #[test]
    fn what_is_looked_for_follows_the_configuration() {
        let mut case = case(&[("192.0.2.7", ExternalIp)]);
        assert_eq!(case.plan().services.len(), 1);
        case.config.kubernetes.services = vec![ClusterIp];
        assert!(case.plan().services.is_empty(), "known from before, and no longer selected");
        let selection = case.plan().service_selection;
        assert_eq!(
            (selection.kinds.len(), selection.by_annotation.len(), selection.is_empty()),
            (1, 1, false)
        );
        assert!(service_selection(&case.config, false).is_empty(), "not under Kubernetes");
    }

    /// Anyone who may write a Service chooses its external IPs.
    #[test]
    fn external_ips_lie_in_the_ranges_that_the_operator_names() {
        let offers = [
            ("192.0.2.7", ExternalIp, None),
            ("198.51.100.7", ExternalIp, Some("kubernetes.service-external-ranges")),
            ("2001:db8::7", ExternalIp, Some("kubernetes.service-external-ranges")),
            ("10.96.0.10", ExternalIp, Some("10.96.0.0/12, from which cluster IPs come")),
            ("203.0.113.3", ExternalIp, Some("node n2")),
            // Addresses that the cluster assigns are not affected.
            ("198.51.100.8", LoadBalancerIp, None),
            ("10.96.0.11", ClusterIp, None),
        ];
        let mut case = case(&offers.map(|(addr, kind, _)| (addr, kind)));
        case.config.kubernetes.service_rules.external_ranges =
            ["192.0.2.0/24", "203.0.113.0/24"].map(|p| p.parse().unwrap()).to_vec();
        case.nodes.as_mut().unwrap().service_cidrs = vec!["10.96.0.0/12".parse().unwrap()];
        case.other("n2").external = vec!["203.0.113.3".parse().unwrap()];
        let plan = case.plan();
        for (addr, _, why) in offers {
            let verdict = plan.services.iter().find(|v| v.address.to_string() == addr).unwrap();
            assert_eq!(verdict.announced.is_some(), why.is_none(), "{addr}: {}", verdict.reason);
            assert!(why.is_none_or(|why| verdict.reason.contains(why)), "{addr}: {}", verdict.reason);
        }
        assert_eq!(plan.problems.len(), 4, "{:?}", plan.problems);
        assert!(plan.all_nodes, "or the addresses of other Nodes would not be known");
        // Without configured ranges, any other address is allowed.
        case.config.kubernetes.service_rules.external_ranges.clear();
        assert_eq!(case.plan().problems.len(), 2);
    }
}
