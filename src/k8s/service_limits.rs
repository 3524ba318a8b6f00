//! Limits the number of advertised Service addresses: `kubernetes.service-limit` for all, and
//! `kubernetes.service-limit-per-namespace` for each namespace.
//!
//! The oldest Services have precedence, by creation timestamp and then by name, so all nodes decide
//! alike and a new Service displaces none. The weight of a Service is its number of addresses of
//! one family, without those inside an aggregate.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::net::{Diagnostic, Reason, ServiceLimits, Subject, text::untrusted};

/// The limit that a Service exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Excess {
    Namespace,
    Total,
}

impl Excess {
    /// Why the Service is not advertised.
    pub(super) fn reason(self, limits: ServiceLimits) -> String {
        match self {
            Self::Namespace => format!(
                "older Services of its namespace use up kubernetes.service-limit-per-namespace = {}",
                limits.per_namespace
            ),
            Self::Total => format!("older Services use up kubernetes.service-limit = {}", limits.total),
        }
    }
}

/// A Service with addresses to advertise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// `NAMESPACE/NAME`.
    pub(super) service: &'a str,
    /// Seconds since 1970; a Service without it is considered new.
    pub(super) created: Option<i64>,
    /// Number of addresses that count.
    pub(super) weight: u32,
}

impl<'a> Candidate<'a> {
    fn namespace(&self) -> &'a str {
        self.service.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

/// The Services that exceed a limit.
pub(super) fn excess<'a>(limits: ServiceLimits, mut all: Vec<Candidate<'a>>) -> BTreeMap<&'a str, Excess> {
    let maximum = |limit: u32| if limit == 0 { u64::MAX } else { limit.into() };
    let (total, per_namespace) = (maximum(limits.total), maximum(limits.per_namespace));
    all.retain(|c| c.weight > 0);
    if !is_exceeded(&all, total, per_namespace) {
        return BTreeMap::new();
    }
    all.sort_by_key(|c| (c.created.map_or((1, 0), |at| (0, at)), c.service));
    let mut excess = BTreeMap::new();
    let mut full = false;
    let mut used = 0;
    // Once one does not fit, no later one is accepted either: free room is reserved for the older.
    let mut namespaces: HashMap<&str, (u64, bool)> = HashMap::new();
    for candidate in &all {
        let weight = u64::from(candidate.weight);
        let (of_namespace, namespace_full) = namespaces.entry(candidate.namespace()).or_default();
        *namespace_full |= *of_namespace + weight > per_namespace;
        if *namespace_full {
            excess.insert(candidate.service, Excess::Namespace);
            continue;
        }
        full |= used + weight > total;
        if full {
            excess.insert(candidate.service, Excess::Total);
            continue;
        }
        *of_namespace += weight;
        used += weight;
    }
    excess
}

fn is_exceeded(all: &[Candidate<'_>], total: u64, per_namespace: u64) -> bool {
    let mut namespaces: HashMap<&str, u64> = HashMap::new();
    let mut sum = 0;
    for candidate in all {
        let weight = u64::from(candidate.weight);
        sum += weight;
        *namespaces.entry(candidate.namespace()).or_default() += weight;
    }
    sum > total || namespaces.values().any(|n| *n > per_namespace)
}

/// One problem for each namespace that exceeds its limit, and one for the total.
pub(super) fn problems(limits: ServiceLimits, excess: &BTreeMap<&str, Excess>) -> Vec<Diagnostic> {
    let beyond = |of: Excess| excess.iter().filter(move |(_, e)| **e == of).map(|(service, _)| *service);
    let namespaces: BTreeSet<_> =
        beyond(Excess::Namespace).filter_map(|s| Some(s.split_once('/')?.0)).collect();
    // Without counts: a problem whose text changes would be reported each time.
    let mut problems: Vec<_> = namespaces
        .iter()
        .take(MAX_NAMESPACES)
        .map(|namespace| of_namespace(namespace, limits.per_namespace))
        .collect();
    if namespaces.len() > MAX_NAMESPACES {
        problems.push(Diagnostic::new(
            Reason::ServiceLimit,
            Subject::key("kubernetes.service-limit-per-namespace"),
            format!(
                "more than {MAX_NAMESPACES} namespaces are beyond kubernetes.service-limit-per-namespace = {}",
                limits.per_namespace
            ),
            "`routelet show node` lists the Services",
        ));
    }
    if beyond(Excess::Total).next().is_some() {
        problems.push(Diagnostic::new(
            Reason::ServiceLimit,
            Subject::key("kubernetes.service-limit"),
            format!(
                "Services have more addresses to advertise than kubernetes.service-limit = {}: the newest are \
                 not advertised",
                limits.total
            ),
            REMEDY,
        ));
    }
    problems
}

fn of_namespace(namespace: &str, limit: u32) -> Diagnostic {
    let namespace = untrusted(namespace);
    let text = format!(
        "Services of namespace {namespace} have more addresses to advertise than \
         kubernetes.service-limit-per-namespace = {limit}: the newest are not advertised"
    );
    Diagnostic::new(Reason::ServiceLimit, Subject::namespace(namespace), text, REMEDY)
}

const REMEDY: &str = "raise it if all are meant, or name their range in kubernetes.service-aggregates";
/// Maximum number of namespaces that are reported by name.
const MAX_NAMESPACES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(namespace: &str, numbers: std::ops::Range<u32>) -> Vec<(String, i64)> {
        numbers.map(|n| (format!("{namespace}/s{n:05}"), 1_000_000 - i64::from(n))).collect()
    }

    fn beyond(limits: ServiceLimits, all: &[(String, i64)]) -> BTreeMap<&str, Excess> {
        let candidates =
            all.iter().map(|(service, at)| Candidate { service, created: Some(*at), weight: 1 }).collect();
        excess(limits, candidates)
    }

    #[test]
    fn a_namespace_cannot_exceed_its_limit() {
        let all = [names("greedy", 0..15_000), names("shop", 0..50)].concat();
        let beyond = beyond(ServiceLimits::default(), &all);
        assert_eq!(beyond.len(), 14_900);
        assert!(beyond.keys().all(|s| s.starts_with("greedy/")));
        // The oldest stay, which are those with the highest numbers.
        assert!(!beyond.contains_key("greedy/s14999") && beyond.contains_key("greedy/s00000"));
        let problems = problems(ServiceLimits::default(), &beyond);
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(
            problem.contains("namespace greedy") && problem.contains("service-limit-per-namespace = 100")
        );
    }

    #[test]
    fn the_total_is_limited_and_a_new_service_displaces_none() {
        let mut all: Vec<_> = (0..20).flat_map(|n| names(&format!("ns{n:02}"), 0..90)).collect();
        let before: BTreeMap<_, _> =
            beyond(ServiceLimits::default(), &all).into_iter().map(|(s, e)| (s.to_owned(), e)).collect();
        assert_eq!((all.len() - before.len(), before.values().all(|e| *e == Excess::Total)), (1000, true));
        // Younger than all, and first by name.
        all.push(("aaa/new".into(), 2_000_000));
        let mut after: BTreeMap<_, _> =
            beyond(ServiceLimits::default(), &all).into_iter().map(|(s, e)| (s.to_owned(), e)).collect();
        assert_eq!(after.remove("aaa/new"), Some(Excess::Total));
        assert_eq!(after, before);
        let problems = problems(ServiceLimits::default(), &beyond(ServiceLimits::default(), &all));
        assert!(
            problems.len() == 1 && problems[0].contains("kubernetes.service-limit = 1000"),
            "{problems:?}"
        );
    }

    #[test]
    fn zero_means_unlimited_and_services_without_weight_do_not_count() {
        let all = names("greedy", 0..5000);
        assert!(beyond(ServiceLimits { total: 0, per_namespace: 0 }, &all).is_empty());
        assert_eq!(beyond(ServiceLimits { total: 4000, per_namespace: 0 }, &all).len(), 1000);
        let inside = |service| Candidate { service, created: None, weight: 0 };
        let candidates = all.iter().map(|(service, _)| inside(service.as_str())).collect();
        assert!(excess(ServiceLimits::default(), candidates).is_empty());
        let heavy = |service, weight| Candidate { service, created: Some(0), weight };
        let limits = ServiceLimits { total: 10, per_namespace: 5 };
        let beyond = excess(limits, vec![heavy("a/1", 4), heavy("a/2", 2), heavy("a/3", 1), heavy("b/1", 5)]);
        assert_eq!(beyond, [("a/2", Excess::Namespace), ("a/3", Excess::Namespace)].into());
    }

    #[test]
    fn problems_are_few_whatever_the_number_of_namespaces() {
        let all: Vec<_> = (0..50).flat_map(|n| names(&format!("ns{n:02}"), 0..150)).collect();
        let limits = ServiceLimits { total: 0, per_namespace: 100 };
        let problems = problems(limits, &beyond(limits, &all));
        assert_eq!(problems.len(), MAX_NAMESPACES + 1);
        assert!(problems.iter().all(|p| p.contains("kubernetes.service-limit-per-namespace")));
    }
}
