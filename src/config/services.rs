//! The keys of `[kubernetes]` that Services are chosen by.

use super::{
    Kubernetes,
    file::assign,
    read::{Item, Section},
    values::{own_prefix, prefix},
};
use crate::net::ServiceAddresses;

pub(super) fn services(section: &Section<'_>, kubernetes: &mut Kubernetes) {
    let kinds = ServiceAddresses::ALL.map(|kind| (kind.as_str(), kind));
    let kinds_of = |key| section.get(key).and_then(|i| i.set(|i| i.choice(&kinds)));
    assign(&mut kubernetes.services, kinds_of("services"));
    let rules = &mut kubernetes.service_rules;
    assign(&mut rules.annotations, kinds_of("service-annotations"));
    assign(&mut rules.selector, section.get("service-selector").and_then(|i| i.parsed()));
    assign(&mut rules.aggregates, section.get("service-aggregates").and_then(|i| i.set(own_prefix)));
    assign(&mut rules.external_ranges, section.get("service-external-ranges").and_then(|i| i.set(prefix)));
    let limit = |key| section.get(key).and_then(|i| i.number(0..=1_000_000));
    assign(&mut rules.limits.total, limit("service-limit"));
    assign(&mut rules.limits.per_namespace, limit("service-limit-per-namespace"));
    assign(&mut rules.classes, section.get("load-balancer-classes").and_then(|i| i.set(class)));
    assign(&mut rules.when_cordoned, section.get("withdraw-when-cordoned").and_then(|i| i.flag()));
    assign(&mut rules.without_endpoints, section.get("withdraw-without-endpoints").and_then(|i| i.flag()));
    assign(&mut rules.ignore_exclude_label, section.get("ignore-exclude-label").and_then(|i| i.flag()));
    if rules.external_ranges.is_empty() {
        for key in ["services", "service-annotations"] {
            let item = section.get(key).filter(|_| chooses_external_ips(kubernetes, key));
            if let Some(item) = item {
                item.warn(
                    "with \"external-ip\" whoever may write Services chooses the addresses; name those that they may choose in \
                     kubernetes.service-external-ranges",
                );
            }
        }
    }
}

fn chooses_external_ips(kubernetes: &Kubernetes, key: &str) -> bool {
    let kinds = if key == "services" { &kubernetes.services } else { &kubernetes.service_rules.annotations };
    kinds.contains(&ServiceAddresses::ExternalIp)
}

/// A `spec.loadBalancerClass`.
fn class(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.is_empty() || !text.chars().all(good) {
        item.error("is no class of a load balancer; write it as \"example.com/name\"");
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{ParseContext, Problem, parse};
    use crate::config::Config;

    fn read(keys: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
        let around = ParseContext { kubernetes: true, read_password: &|_| Err(String::new()) };
        parse(&format!("[kubernetes]\n{keys}\n"), &around)
    }

    #[test]
    fn limits_and_ranges_are_read_and_have_defaults() {
        let (config, warnings) = read("").unwrap();
        let rules = config.kubernetes.service_rules;
        assert_eq!((rules.limits.total, rules.limits.per_namespace, warnings), (1000, 100, vec![]));
        assert_eq!(
            (rules.external_ranges, rules.annotations.len()),
            (vec![], 1),
            "load balancer addresses alone"
        );
        let keys = "service-limit = 0\nservice-limit-per-namespace = 7\nservice-external-ranges = [\"192.0.2.0/24\", \"2001:db8::/64\"]";
        let rules = read(keys).unwrap().0.kubernetes.service_rules;
        assert_eq!((rules.limits.total, rules.limits.per_namespace, rules.external_ranges.len()), (0, 7, 2));
    }

    #[test]
    fn mistakes_name_their_key() {
        for (keys, key) in [
            ("service-limit = -1", "kubernetes.service-limit"),
            ("service-limit = \"many\"", "kubernetes.service-limit"),
            ("service-limit-per-namespace = 1000001", "kubernetes.service-limit-per-namespace"),
            ("service-external-ranges = [\"192.0.2.7/24\"]", "kubernetes.service-external-ranges"),
        ] {
            let problems = read(keys).unwrap_err();
            assert!(problems.len() == 1 && problems[0].key.starts_with(key), "{keys}: {problems:?}");
        }
    }

    #[test]
    fn external_ips_without_ranges_are_a_warning() {
        for (keys, warnings) in [
            ("services = [\"external-ip\"]", 1),
            ("services = [\"external-ip\"]\nservice-annotations = [\"external-ip\"]", 2),
            ("services = [\"external-ip\"]\nservice-external-ranges = [\"192.0.2.0/24\"]", 0),
            ("services = [\"cluster-ip\", \"load-balancer-ip\"]", 0),
        ] {
            let found = read(keys).unwrap().1;
            assert_eq!(found.len(), warnings, "{keys}: {found:?}");
            assert!(found.iter().all(|w| w.what.contains("kubernetes.service-external-ranges")));
        }
    }
}
