//! `[kubernetes]`.

use serde_json::json;

use super::{Shape, kinds::With, section};
use crate::{
    config::{
        Peering,
        read::Item,
        values::{nonempty_text, own_prefix, prefix},
    },
    net::{Prefix, Selector, ServiceAddresses, ServiceLimits},
};

section! {
    /// The cluster.
    pub struct Kubernetes at "[kubernetes]" {
        /// Whether this host is a node of a cluster.
        "enabled" enabled: Option<bool> = None, Optional(Flag),
            DefaultIs("if `--kubeconfig` is given or `KUBERNETES_SERVICE_HOST` is set"), Example("true"), Restart;
        /// Which neighbors a node has: "auto", "mesh", "gateway", "reflectors", "none", or a list.
        "peering" peering: Vec<Peering> = vec![Peering::Auto], peering();
        /// Nodes in a full mesh before "auto" uses reflectors.
        "mesh-limit" mesh_limit: usize = 100, number(2..=10_000);
        /// What nodes may advertise to one another besides their pod CIDRs and Service addresses:
        /// these prefixes, and all inside them
        /// ([kubernetes.md](kubernetes.md#what-nodes-accept-from-one-another)).
        "mesh-accept" mesh_accept: Vec<Prefix> = Vec::new(), Set(written(prefix));
        /// Name of the own Node.
        "node-name" node_name: Option<String> = None, Optional(written(node_name)),
            DefaultIs("`$NODE_NAME`, else the host name"), Example("\"node-1\""), Restart;
        /// Ranges of cluster IPs.
        "service-cidrs" service_cidrs: Option<Vec<Prefix>> = None, Optional(Set(written(prefix))),
            DefaultIs("from ServiceCIDR objects"), Example("[\"10.96.0.0/12\"]"), Restart;
        /// Advertise the pod CIDRs of the own Node.
        "advertise-pod-cidrs" advertise_pod_cidrs: bool = true, Flag;
        /// Key of a taint that is removed from the Node once it is ready; needs the right to patch
        /// Nodes (deploy/daemonset.yaml).
        "startup-taint" startup_taint: Option<String> = None, Optional(some_text()),
            Example("\"routelet.io/not-ready\""), Restart;
        /// If the FORWARD policy is DROP (Docker sets it so), accept packets from and to the pod
        /// CIDRs of this Node at its end, by the chain ROUTELET-FORWARD. False: rules of the
        /// operator must let pods through.
        "accept-forwarded" accept_forwarded: bool = true, Flag;
        /// Addresses of Services that are advertised: any of "cluster-ip", "external-ip",
        /// "load-balancer-ip".
        "services" services: Vec<ServiceAddresses> = Vec::new(), service_addresses();
        also
        /// The keys for Services, besides the addresses.
        service_rules: ServiceRules = ServiceRules::default();
    }
}

section! {
    /// Which Services are advertised.
    pub struct ServiceRules at "[kubernetes]" {
        /// Only Services with these labels, as `kubectl -l` takes them: "team=web,tier in
        /// (a,b),!internal".
        "service-selector" selector: Selector = Selector::default(), written(|i| i.parsed());
        /// What the annotation routelet.io/advertise of a Service may request besides `services`;
        /// [] allows nothing else. With "cluster-ip" users who may write Services can have
        /// their cluster IPs advertised, with "external-ip" any address.
        // By default load balancer addresses only: a Service needs a load balancer to have one.
        // Every Service has a cluster IP, and its author chooses its external IPs.
        "service-annotations" annotations: Vec<ServiceAddresses> = vec![ServiceAddresses::LoadBalancerIp],
            service_addresses();
        /// Ranges of external IPs that may be advertised; [] allows any address in a
        /// Service.
        "service-external-ranges" external_ranges: Vec<Prefix> = Vec::new(), Set(written(prefix));
        /// Limit of advertised Service addresses; the oldest Services come first. 0: no limit.
        /// Addresses inside an aggregate do not count.
        "service-limit" limit: u32 = ServiceLimits::default().total, number(0..=1_000_000);
        /// The same for each namespace.
        "service-limit-per-namespace" limit_per_namespace: u32 = ServiceLimits::default().per_namespace,
            number(0..=1_000_000);
        /// Advertised instead of the addresses inside, except those of Services with the traffic
        /// policy Local.
        "service-aggregates" aggregates: Vec<Prefix> = Vec::new(), Set(written(own_prefix));
        /// `spec.loadBalancerClass` of Services whose addresses are advertised, besides those
        /// without one.
        "load-balancer-classes" classes: Vec<String> = vec!["routelet.io/bgp".into()],
            Set(written(class));
        /// Withdraw Service addresses while the Node is cordoned, unless no other node would
        /// advertise them ([services.md](services.md)).
        "withdraw-when-cordoned" when_cordoned: bool = false, Flag;
        /// Withdraw the address of a Service while no endpoint of it is ready on any node; needs
        /// the list of EndpointSlices.
        "withdraw-without-endpoints" without_endpoints: bool = false, Flag;
        /// Advertise Service addresses from Nodes with the label
        /// node.kubernetes.io/exclude-from-external-load-balancers, too: kubeadm and Talos set it
        /// on every control plane, so that no node advertises them in a cluster of control planes
        /// alone.
        "ignore-exclude-label" ignore_exclude_label: bool = false, Flag;
    }
}

const PEERINGS: [(&str, Peering); 5] = [
    ("auto", Peering::Auto),
    ("mesh", Peering::Mesh),
    ("gateway", Peering::Gateway),
    ("reflectors", Peering::Reflectors),
    ("none", Peering::None),
];

fn peering() -> With<Vec<Peering>> {
    With {
        read: |item| {
            let list = item.set(|i| i.choice(&PEERINGS))?;
            if list.is_empty() {
                item.error("names nothing; write \"none\" for no neighbors");
            } else if list.len() > 1 && list.contains(&Peering::None) {
                item.error("\"none\" cannot be combined with others");
            }
            Some(list)
        },
        show: |list| {
            let known = |peering| PEERINGS.iter().find(|(_, known)| known == peering);
            list.iter().filter_map(known).map(|(name, _)| *name).collect()
        },
        shape: || Shape::List(Box::new(Shape::Choice(PEERINGS.map(|(name, _)| name).to_vec()))),
    }
}

/// A Node's name: RFC 1123 subdomain.
fn node_name(item: &Item<'_>) -> Option<String> {
    let name = nonempty_text(item)?;
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        item.error(format!("`{name}` is not a node name: lower-case letters, digits, `-` and `.`"));
        return None;
    }
    Some(name)
}

fn service_addresses() -> With<Vec<ServiceAddresses>> {
    With {
        read: |item| {
            let kinds = ServiceAddresses::ALL.map(|kind| (kind.as_str(), kind));
            item.set(|i| i.choice(&kinds))
        },
        show: |list| json!(list),
        shape: || {
            let kinds = ServiceAddresses::ALL.map(ServiceAddresses::as_str);
            Shape::List(Box::new(Shape::Choice(kinds.to_vec())))
        },
    }
}

/// A `spec.loadBalancerClass`.
fn class(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.is_empty() || !text.chars().all(good) {
        item.error("is not a class of a load balancer; write it as \"example.com/name\"");
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ParseContext, Problem, parse};

    fn read(keys: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
        let around = ParseContext { kubernetes: true, read_password: &|_| Ok(String::new()) };
        parse(&format!("[kubernetes]\n{keys}\n"), &around)
    }

    #[test]
    fn limits_and_ranges_are_read_and_have_defaults() {
        let (config, warnings) = read("").unwrap();
        let rules = config.kubernetes.service_rules;
        assert_eq!((rules.limit, rules.limit_per_namespace, warnings), (1000, 100, vec![]));
        assert_eq!(
            (rules.external_ranges, rules.annotations.len()),
            (vec![], 1),
            "load balancer addresses alone"
        );
        let keys = "service-limit = 0\nservice-limit-per-namespace = 7\nservice-external-ranges = [\"192.0.2.0/24\", \"2001:db8::/64\"]";
        let rules = read(keys).unwrap().0.kubernetes.service_rules;
        assert_eq!((rules.limit, rules.limit_per_namespace, rules.external_ranges.len()), (0, 7, 2));
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
