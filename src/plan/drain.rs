use crate::net::Source;

/// How far a node is taken out of traffic, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// RFC 8326: neighbors hear GRACEFUL_SHUTDOWN with each own route, and prefer other paths.
    Asking,
    /// What others announce as well is withdrawn: Services and `advertise.networks`. Pods are still reached.
    Services,
    /// Nothing is announced.
    All,
}

impl Drain {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asking => "asking",
            Self::Services => "services",
            Self::All => "all",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Asking, Self::Services, Self::All].into_iter().find(|d| d.as_str() == name)
    }

    /// Whether own prefixes from there are still announced.
    pub(super) fn leaves(self, source: Source) -> bool {
        match self {
            Self::Asking => true,
            Self::Services => matches!(source, Source::PodCidr | Source::Interface),
            Self::All => false,
        }
    }

    /// What the operator should not forget.
    pub(super) fn note(self) -> String {
        let so_far = match self {
            Self::Asking => "neighbors are asked to look for other ways",
            Self::Services => "Services are withdrawn, pod CIDRs and interfaces are not yet",
            Self::All => "everything is withdrawn",
        };
        format!("this node is drained: {so_far}; `routelet undrain` brings it back")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Case, config, node, nodes},
        *,
    };
    use crate::{
        bgp::policy::Community,
        fib::host::testing::{host, link},
        k8s::services::{Offer, Services},
        net::ServiceAddresses,
    };

    #[test]
    fn services_and_networks_go_before_pods_and_interfaces() {
        let uplink = host([link(2, "eth0").with("10.0.0.2/24"), link(3, "eth1").with("10.7.0.1/24")], []);
        let mut case =
            Case::new(config(), Some(nodes([node("n1", &["10.0.0.2"], &["10.244.1.0/24"])])), uplink);
        case.config.kubernetes.services = vec![ServiceAddresses::LoadBalancerIp];
        case.config.advertise.networks = vec!["10.8.0.0/24".parse().unwrap()];
        case.config.advertise.interfaces = vec!["eth1".into()];
        case.config.advertise.communities = vec![7];
        let offer =
            Offer { service: "default/web".into(), kind: ServiceAddresses::LoadBalancerIp, local: None };
        let offers = [("192.0.2.7".parse().unwrap(), vec![offer])].into();
        case.extra.services = std::sync::Arc::new(Services { offers, ..Services::default() });

        let all = vec!["10.7.0.0/24", "10.8.0.0/24", "10.244.1.0/24", "192.0.2.7/32"];
        for (drain, told) in [
            (None, all.clone()),
            (Some(Drain::Asking), all),
            (Some(Drain::Services), vec!["10.7.0.0/24", "10.244.1.0/24"]),
            (Some(Drain::All), vec![]),
        ] {
            case.extra.drain = drain;
            let plan = case.plan();
            let prefixes: Vec<_> = plan.originated.keys().map(ToString::to_string).collect();
            assert_eq!(prefixes, told, "{drain:?}");
            let asks = |c: &[u32]| c == [7, Community::GRACEFUL_SHUTDOWN];
            assert!(plan.originated.values().all(|o| asks(&o.communities) == drain.is_some()), "{drain:?}");
            assert_eq!(plan.notes.iter().any(|p| p.contains("undrain")), drain.is_some(), "{drain:?}");
            assert_eq!(plan.unreachable.len(), 2, "pods go on, and nothing may loop");
            assert!(plan.conflist.is_some());
            assert_eq!(drain.and_then(|d| Drain::named(d.as_str())), drain);
        }
    }
}
