use std::sync::Arc;

use crate::{
    bgp::policy::{Action, Community, Match, Policy, PrefixRange, Set, Statement},
    net::{Diagnostic, Reason, Source, Subject},
};

/// How far a node is taken out of traffic, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// RFC 8326: own routes are advertised with GRACEFUL_SHUTDOWN, and neighbors prefer other
    /// paths.
    Asking,
    /// Prefixes that other nodes advertise as well are withdrawn: Services and
    /// `advertise.networks`. Pods stay reachable.
    Services,
    /// Nothing is advertised.
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

    /// Whether own prefixes of this source are still advertised.
    pub(super) fn leaves(self, source: Source) -> bool {
        match self {
            Self::Asking => true,
            Self::Services => matches!(source, Source::PodCidr | Source::Interface),
            Self::All => false,
        }
    }

    /// The policy for routes of a second speaker on this node. Addresses of Services are host
    /// routes; other routes may be those of pods.
    pub(super) fn of_second_speaker(self) -> Arc<Policy> {
        let range = |text: &str| text.parse::<PrefixRange>().expect("a range of ours");
        let hosts = || ["0.0.0.0/0{32,32}", "::/0{128,128}"].map(range).to_vec();
        let reject = |prefixes: Vec<PrefixRange>| Statement {
            matches: Match { prefixes: prefixes.into(), ..Match::default() },
            action: Some(Action::Reject),
            ..Statement::default()
        };
        let asking = Set {
            local_pref: Some(0),
            add_communities: vec![Community::Standard(Community::GRACEFUL_SHUTDOWN)],
            ..Set::default()
        };
        let statements = match self {
            Self::All => vec![reject(Vec::new())],
            Self::Services => vec![reject(hosts()), Statement { set: asking, ..Statement::default() }],
            Self::Asking => vec![Statement { set: asking, ..Statement::default() }],
        };
        Arc::new(Policy::new("(drained)", statements))
    }

    /// Reminds the operator that the node is drained.
    pub(super) fn note(self) -> Diagnostic {
        let so_far = match self {
            Self::Asking => {
                "own routes are advertised with GRACEFUL_SHUTDOWN, so that neighbors prefer other paths"
            }
            Self::Services => "Services are withdrawn, pod CIDRs and interfaces are not yet",
            Self::All => "everything is withdrawn",
        };
        Diagnostic::new(
            Reason::Drained,
            Subject::host(),
            format!("this node is drained: {so_far}"),
            "`routelet undrain` brings it back",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Case, config, node, nodes, offer},
        *,
    };
    use crate::{
        bgp::{
            peer::PeerKey,
            policy::{self, Community},
            wire::attr::Attrs,
        },
        fib::host::testing::{host, link},
        k8s::services::Services,
        net::ServiceAddresses,
    };

    #[test]
    fn a_second_speaker_on_the_node_leaves_with_it() {
        let loopback = "127.0.0.1".parse().unwrap();
        let mut case = Case::new(config(), None, host([link(2, "eth0").with("10.0.0.2/24")], []));
        case.config.bgp.asn = crate::config::AsSetting::Number(1000);
        let neighbor = |at| crate::config::Neighbor { at, group: None, limit: 1, keys: Default::default() };
        let addresses =
            ["127.0.0.1", "10.0.0.1"].map(|a| crate::config::NeighborId::Address(a.parse().unwrap()));
        case.config.bgp.neighbors = addresses.map(neighbor).to_vec();
        let judge = |case: &Case, prefix: &str| {
            let plan = case.plan();
            let peer = &plan.peers[&PeerKey::Address(loopback)];
            assert!(plan.peers[&PeerKey::Address("10.0.0.1".parse().unwrap())].import.is_empty());
            let mut attrs = std::borrow::Cow::Owned(Attrs::new(loopback.into()));
            let subject = policy::Subject {
                prefix: prefix.parse().unwrap(),
                source: policy::RouteSource::Bgp,
                from: Some(&peer.key),
                to: None,
                own_as: 1000,
                own_next_hop: None,
            };
            policy::run(&peer.import, &subject, &mut attrs, &policy::Hits::default())
                .ok()
                .map(|()| attrs.local_pref)
        };
        for (drain, service, pods) in [
            (None, Some(None), Some(None)),
            (Some(Drain::Asking), Some(Some(0)), Some(Some(0))),
            (Some(Drain::Services), None, Some(Some(0))),
            (Some(Drain::All), None, None),
        ] {
            case.extra.drain = drain;
            assert_eq!(
                (judge(&case, "192.0.2.7/32"), judge(&case, "10.7.0.0/24")),
                (service, pods),
                "{drain:?}"
            );
            assert_eq!(judge(&case, "2001:db8::7/128"), service, "{drain:?}");
        }
    }

    #[test]
    fn services_and_networks_go_before_pods_and_interfaces() {
        let uplink = host([link(2, "eth0").with("10.0.0.2/24"), link(3, "eth1").with("10.7.0.1/24")], []);
        let mut case =
            Case::new(config(), Some(nodes([node("n1", &["10.0.0.2"], &["10.244.1.0/24"])])), uplink);
        case.config.kubernetes.services = vec![ServiceAddresses::LoadBalancerIp];
        case.config.advertise.networks = vec!["10.8.0.0/24".parse().unwrap()];
        case.config.advertise.interfaces = vec!["eth1".into()];
        case.config.advertise.communities = vec![Community::Standard(7)];
        let offer = offer("default/web", ServiceAddresses::LoadBalancerIp);
        let offers = [("192.0.2.7".parse().unwrap(), vec![offer])].into();
        case.extra.services = Arc::new(Services { addresses: offers, ..Services::default() });

        let all = vec!["10.7.0.0/24", "10.8.0.0/24", "10.244.1.0/24", "192.0.2.7/32"];
        for (drain, expected) in [
            (None, all.clone()),
            (Some(Drain::Asking), all),
            (Some(Drain::Services), vec!["10.7.0.0/24", "10.244.1.0/24"]),
            (Some(Drain::All), vec![]),
        ] {
            case.extra.drain = drain;
            let plan = case.plan();
            let prefixes: Vec<_> = plan.originated.keys().map(ToString::to_string).collect();
            assert_eq!(prefixes, expected, "{drain:?}");
            let is_tagged = |c: &[u32]| c == [7, Community::GRACEFUL_SHUTDOWN];
            assert!(
                plan.originated.values().all(|o| is_tagged(&o.communities) == drain.is_some()),
                "{drain:?}"
            );
            assert_eq!(plan.problems.iter().any(|p| p.contains("undrain")), drain.is_some(), "{drain:?}");
            assert_eq!(plan.unreachable.len(), 2, "pods go on, and nothing may loop");
            assert!(plan.conflist.is_some());
            assert_eq!(drain.and_then(|d| Drain::named(d.as_str())), drain);
        }
    }
}
