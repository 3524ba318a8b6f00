//! Computes the Service addresses that this node advertises, from Services and EndpointSlices.
//!
//! There are three steps. [`ServiceCache`] applies the events of the watches and stores, for each
//! selected Service, only its addresses and the location of its endpoints. [`Services`] is the
//! resulting list of addresses. [`eligibility()`] decides for each address whether this node
//! advertises it, with the reason.
//!
//! # Rules
//!
//! kube-proxy forwards on every node; we only attract packets to a node. An address is therefore
//! advertised by every node, unless the Service requires local endpoints (`externalTrafficPolicy`,
//! or `internalTrafficPolicy` for cluster IPs): then only by nodes with a ready endpoint. Endpoints
//! that are terminating but still serving count if no other node has a ready one, which is also
//! when kube-proxy uses them (KEP-1669).
//!
//! # Deliberately absent
//!
//! Routes in the kernel: kube-proxy needs none, and an unreachable route would block the host's own
//! connections.

mod api;
mod eligibility;
mod entry;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use self::entry::{Address, Slice, View};
use super::{
    bounded::{Cache, MAX_OBJECTS, MAX_OCTETS},
    service_limits::{self, Candidate, Excess},
};
use crate::net::{
    Diagnostic, Family, Prefix, Reason, Selector, ServiceAddresses as Kind, ServiceLimits, Subject,
};

pub use self::{
    api::{
        ApiEndpoint, ApiEndpointConditions, ApiIngress, ApiLoadBalancer, ApiService, ApiServiceSpec,
        ApiServiceStatus, ApiSlice,
    },
    eligibility::{Eligibility, Rules, eligibility},
};
pub use super::watch::Change;

/// Which Services to watch and advertise, from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSelection {
    /// Kinds of addresses that are advertised for Services that match the selector.
    pub kinds: BTreeSet<Kind>,
    pub selector: Selector,
    /// Kinds of addresses that the annotation may select.
    pub by_annotation: BTreeSet<Kind>,
    /// Values of `spec.loadBalancerClass` that are advertised, besides Services without one.
    pub classes: Vec<String>,
    /// Whether to track which other nodes have endpoints, for withdrawal from cordoned nodes.
    #[serde(rename = "whereabouts")]
    pub track_remote_endpoints: bool,
    /// Whether to withdraw Services without endpoints: `kubernetes.withdraw-without-endpoints`.
    #[serde(default)]
    pub endpoints: bool,
    /// Limits on the number of advertised addresses.
    #[serde(default)]
    pub limits: ServiceLimits,
    /// Aggregates, advertised instead of the addresses inside, which do not count towards the
    /// limits.
    #[serde(default)]
    pub aggregates: Vec<Prefix>,
    /// Whether to track all nodes with serving endpoints, to check what nodes advertise to one
    /// another.
    #[serde(default)]
    pub each_node: bool,
}

impl ServiceSelection {
    /// Whether nothing can be advertised.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.by_annotation.is_empty()
    }

    /// Whether addresses of this kind can be advertised at all.
    pub fn allows(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind) || self.by_annotation.contains(&kind)
    }

    /// The most specific aggregate that contains an address.
    pub fn aggregate_of(&self, addr: IpAddr) -> Option<Prefix> {
        self.aggregates.iter().copied().filter(|a| a.contains(addr)).max_by_key(|a| a.len())
    }
}

/// The known Services. Level-triggered: each change creates a new value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// The Services that have an address: several may share one.
    #[serde(rename = "offers")]
    pub addresses: BTreeMap<IpAddr, Vec<ServiceAddress>>,
    /// What is wrong with single Services, the same on all nodes.
    #[serde(default, rename = "service_diagnostics")]
    pub mistakes: Vec<Diagnostic>,
    /// What else the operator should know.
    #[serde(default, rename = "diagnostics")]
    pub problems: Vec<Diagnostic>,
}

/// An address of one Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// `NAMESPACE/NAME`.
    pub service: String,
    pub kind: Kind,
    /// Location of the endpoints if only nodes with endpoints forward; `None` if every node does.
    pub local: Option<EndpointLocality>,
    /// Whether any node has a serving endpoint; `None` if not tracked, or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<bool>,
    /// The limit that its Service exceeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess: Option<Excess>,
}

/// Location of the endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointLocality {
    #[serde(rename = "here")]
    pub local: LocalEndpoints,
    /// Other nodes with a ready endpoint; only one of several unless
    /// [`ServiceSelection::track_remote_endpoints`] or [`ServiceSelection::each_node`].
    pub elsewhere: BTreeSet<String>,
    /// Other nodes with a terminating endpoint that still serves, if
    /// [`ServiceSelection::each_node`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ending: BTreeSet<String>,
}

/// The endpoints on this node, ordered from worst to best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalEndpoints {
    #[default]
    None,
    /// Terminating, but still serving.
    Terminating,
    Ready,
}

/// The cache of the watches of Services and EndpointSlices.
#[derive(Clone, Debug)]
pub struct ServiceCache {
    node: String,
    selection: ServiceSelection,
    services: Cache<View>,
    slices: Cache<Slice>,
    /// Whether the API server denies access to EndpointSlices.
    slices_forbidden: bool,
}

impl ServiceCache {
    pub fn new(node: String) -> Self {
        Self {
            node,
            selection: ServiceSelection::default(),
            services: Cache::default(),
            slices: Cache::default(),
            slices_forbidden: false,
        }
    }

    /// Changes the selection. The cache is emptied, to be filled by a new list.
    pub fn select(&mut self, selection: ServiceSelection) {
        *self = Self { selection, ..Self::new(mem::take(&mut self.node)) };
    }

    /// Applies a change of a Service. Returns whether the cache changed.
    pub fn service(&mut self, change: Change<ApiService>) -> bool {
        let selection = &self.selection;
        self.services.apply(change, |s| (key(&s.metadata), View::new(s, selection)))
    }

    /// Applies a change of an EndpointSlice. Returns whether the cache changed.
    pub fn slice(&mut self, change: Change<ApiSlice>) -> bool {
        self.slices_forbidden = false;
        let (node, selection) = (&self.node, &self.selection);
        self.slices.apply(change, |s| (key(&s.metadata), Slice::new(s, node, selection)))
    }

    /// Records that the API server denies access to EndpointSlices. Returns whether that is new.
    pub fn set_slices_forbidden(&mut self) -> bool {
        !mem::replace(&mut self.slices_forbidden, true)
    }

    /// Whether EndpointSlices are needed.
    pub fn needs_slices(&self) -> bool {
        let all = self.selection.endpoints;
        self.services.values().any(|view| view.addresses.iter().any(|a| all || a.local))
    }

    /// Clears the EndpointSlices, which are no longer watched.
    pub fn forget_slices(&mut self) {
        self.slices = Cache::default();
        self.slices_forbidden = false;
    }

    /// The Services, once all lists are complete: until then the previous ones stay in force.
    pub fn services(&self) -> Option<Services> {
        let slices_known = self.slices.is_synced() || self.slices_forbidden || !self.needs_slices();
        if !self.services.is_synced() || !slices_known {
            return None;
        }
        let places = self.places();
        let excess = self.excess();
        let mut services = Services {
            problems: service_limits::problems(self.selection.limits, &excess),
            ..Services::default()
        };
        for (name, view) in self.services.iter() {
            services.mistakes.extend(view.mistake.clone());
            for Address { addr, kind, local } in &view.addresses {
                let at = || places.get(&(name.as_str(), Family::of(*addr))).cloned().unwrap_or_default();
                let known = self.selection.endpoints && !self.slices_forbidden;
                let served = known.then(|| at().here_or_elsewhere);
                let at = || at().places;
                let (service, local) = (name.clone(), local.then(at));
                let offer = ServiceAddress {
                    service,
                    kind: *kind,
                    local,
                    served,
                    excess: excess.get(&**name).copied(),
                };
                services.addresses.entry(*addr).or_default().push(offer);
            }
        }
        services.problems.extend(self.overflows());
        let more = services.mistakes.len().saturating_sub(MAX_MISTAKES);
        if more > 0 {
            services.mistakes.truncate(MAX_MISTAKES);
            services.problems.push(Diagnostic::new(
                Reason::NotUnderstood,
                Subject::host(),
                format!("more than {MAX_MISTAKES} Services have invalid annotations"),
                "correct those that are named first",
            ));
        }
        if self.slices_forbidden {
            services.problems.push(Diagnostic::new(
                Reason::EndpointsForbidden,
                Subject::host(),
                "the API server refuses EndpointSlices: Services with the traffic policy Local are not \
                 advertised",
                "allow our ServiceAccount to list and watch endpointslices (deploy/daemonset.yaml)",
            ));
        }
        Some(services)
    }

    /// Services that exceed the limits.
    fn excess(&self) -> BTreeMap<&str, Excess> {
        let candidates = self.services.iter().map(|(service, view)| {
            let weight = view.weight(&self.selection.aggregates);
            Candidate { service, created: view.created, weight }
        });
        service_limits::excess(self.selection.limits, candidates.collect())
    }

    /// Problems of kinds with more objects than are cached.
    fn overflows(&self) -> impl Iterator<Item = Diagnostic> {
        let kinds = [("Services", self.services.overflowed()), ("EndpointSlices", self.slices.overflowed())];
        kinds.into_iter().filter(|(_, overflowed)| *overflowed).map(|(kind, _)| {
            Diagnostic::new(
                Reason::TooManyServices,
                Subject::namespace(kind),
                format!(
                    "there are more {kind} than the {MAX_OBJECTS} ({} MiB) that are kept: the rest is ignored",
                    MAX_OCTETS >> 20
                ),
                "narrow kubernetes.service-selector, or take kinds out of kubernetes.services and \
                 service-annotations",
            )
        })
    }

    fn places(&self) -> BTreeMap<(&str, Family), Endpoints> {
        let mut all: BTreeMap<_, Endpoints> = BTreeMap::new();
        for slice in self.slices.values() {
            let endpoints = all.entry((slice.service.as_str(), slice.family)).or_default();
            endpoints.here_or_elsewhere |= slice.serves;
            let places = &mut endpoints.places;
            places.local = places.local.max(slice.places.local);
            places.elsewhere.extend(slice.places.elsewhere.iter().cloned());
            places.ending.extend(slice.places.ending.iter().cloned());
        }
        all
    }
}

/// The endpoints of a Service in one family.
#[derive(Clone, Debug, Default)]
struct Endpoints {
    places: EndpointLocality,
    /// Whether any endpoint is ready, or terminating but still serving, including endpoints without
    /// a node name.
    here_or_elsewhere: bool,
}

/// Maximum number of Services whose mistakes are reported.
const MAX_MISTAKES: usize = 10;

fn key(meta: &ObjectMeta) -> String {
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{entry::MAX_ADDRESSES, *};
    use crate::k8s::node::{NodeView, Nodes};

    fn all() -> ServiceSelection {
        ServiceSelection {
            kinds: Kind::ALL.into(),
            by_annotation: Kind::ALL.into(),
            ..ServiceSelection::default()
        }
    }

    /// A Service of each kind of address; `more` is merged into it.
    fn service(more: Value) -> ApiService {
        let mut service = json!({
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
                     "externalIPs": ["192.0.2.7"], "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7", "ipMode": "VIP"}]}},
        });
        merge(&mut service, more);
        serde_json::from_value(service).unwrap()
    }

    fn merge(into: &mut Value, more: Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => {
                more.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(Value::Null), v));
            }
            (into, more) => *into = more,
        }
    }

    /// `endpoints`: node and conditions of each.
    fn slice(family: &str, endpoints: &[(&str, Value)]) -> ApiSlice {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(node, c)| json!({"nodeName": node, "conditions": c, "addresses": ["x"]}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": format!("web-{family}"),
                         "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": family, "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn cache(selection: ServiceSelection, services: &[ApiService], slices: &[ApiSlice]) -> ServiceCache {
        let mut cache = ServiceCache::new("n1".into());
        cache.select(selection);
        cache.service(Change::ListStarted);
        for s in services {
            cache.service(Change::Listed(s.clone()));
        }
        cache.service(Change::ListDone);
        if cache.needs_slices() {
            cache.slice(Change::ListStarted);
            for s in slices {
                cache.slice(Change::Listed(s.clone()));
            }
            cache.slice(Change::ListDone);
        }
        cache
    }

    fn offered(selection: ServiceSelection, service: ApiService) -> (Vec<String>, Vec<String>) {
        let services = cache(selection, &[service], &[]).services().unwrap();
        let mistakes = services.mistakes.into_iter().map(|m| m.text).collect();
        (services.addresses.keys().map(ToString::to_string).collect(), mistakes)
    }

    fn node(name: &str) -> NodeView {
        NodeView { name: name.into(), ..NodeView::default() }
    }

    fn nodes(own: NodeView, others: impl IntoIterator<Item = NodeView>) -> Nodes {
        let others = others.into_iter().map(|n| (n.name.clone(), n.into())).collect();
        Nodes { own: Some(own), others, ..Nodes::default() }
    }

    fn rules(selection: &ServiceSelection) -> Rules<'_> {
        Rules { selection, ignore_exclude_label: false, withheld: None, refused: &|_, _| None }
    }

    /// The advertised prefixes.
    fn announced(eligibility: &[Eligibility]) -> Vec<String> {
        eligibility.iter().filter_map(|v| Some(v.announced?.to_string())).collect()
    }

    #[test]
    fn configuration_selector_and_annotation_choose_the_addresses() {
        use Kind::{ClusterIp, ExternalIp, LoadBalancerIp};
        let (v4, v6, ext, lb) = ("10.96.0.7", "fd00:96::7", "192.0.2.7", "198.51.100.7");
        let annotated = |text: &str| json!({"metadata": {"annotations": {"routelet.io/advertise": text}}});
        let class = |class: &str| json!({"spec": {"loadBalancerClass": class}});
        let kinds = |kinds: &[Kind]| ServiceSelection {
            kinds: kinds.iter().copied().collect(),
            by_annotation: [ClusterIp, LoadBalancerIp].into(),
            classes: vec!["routelet.io/bgp".into()],
            ..ServiceSelection::default()
        };
        let web = |kind| ServiceSelection { selector: "team=web".parse().unwrap(), ..kinds(&[kind]) };
        let none = || json!({});
        #[rustfmt::skip]
        let cases: Vec<(&str, ServiceSelection, Value, Vec<&str>, usize)> = vec![
            ("nothing",             kinds(&[]),                        none(), vec![], 0),
            ("cluster IPs",         kinds(&[ClusterIp]),               none(), vec![v4, v6], 0),
            ("external IPs",        kinds(&[ExternalIp]),              none(), vec![ext], 0),
            ("balancer",            kinds(&[LoadBalancerIp]),          none(), vec![lb], 0),
            ("two kinds",           kinds(&[ExternalIp, LoadBalancerIp]), none(), vec![ext, lb], 0),
            ("selector fits",       web(ClusterIp), json!({"metadata": {"labels": {"team": "web"}}}), vec![v4, v6], 0),
            ("selector does not",   web(ClusterIp), json!({"metadata": {"labels": {"team": "db"}}}), vec![], 0),
            ("no labels",           web(ClusterIp),                    none(), vec![], 0),
            ("annotated",           kinds(&[]),      annotated("cluster-ip,load-balancer-ip"), vec![v4, lb, v6], 0),
            ("beyond the selector", web(ClusterIp),  annotated(" load-balancer-ip "), vec![lb], 0),
            ("annotated: none",     kinds(&[ClusterIp]), annotated("none"), vec![], 0),
            ("annotated: empty",    kinds(&[ClusterIp]), annotated(""), vec![v4, v6], 0),
            ("annotated: nonsense", kinds(&[ClusterIp]), annotated("cluster-ip,all"), vec![v4, v6], 1),
            ("annotated: too much", kinds(&[]),      annotated("external-ip,cluster-ip"), vec![v4, v6], 1),
            ("allowed by the file", kinds(&[ExternalIp]), annotated("external-ip"), vec![ext], 0),
            ("headless",            all(), json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}), vec![], 0),
            ("external name",       all(), json!({"spec": {"type": "ExternalName", "clusterIP": "", "clusterIPs": []}}), vec![], 0),
            ("one cluster IP",      kinds(&[ClusterIp]), json!({"spec": {"clusterIPs": []}}), vec![v4], 0),
            ("node port",           kinds(&[LoadBalancerIp]), json!({"spec": {"type": "NodePort"}}), vec![], 0),
            ("class of others",     kinds(&[LoadBalancerIp]), class("example.com/other"), vec![], 0),
            ("our class",           kinds(&[LoadBalancerIp]), class("routelet.io/bgp"), vec![lb], 0),
            ("class, cluster IPs",  kinds(&[ClusterIp]), class("example.com/other"), vec![v4, v6], 0),
            ("by a proxy",          kinds(&[LoadBalancerIp]),
                json!({"status": {"loadBalancer": {"ingress": [{"ip": lb, "ipMode": "Proxy"}]}}}), vec![], 0),
            ("by name",             kinds(&[LoadBalancerIp]),
                json!({"status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}}}), vec![], 0),
            ("not given yet",       kinds(&[LoadBalancerIp]), json!({"status": {"loadBalancer": {"ingress": []}}}), vec![], 0),
        ];
        for (name, selection, more, want, problems) in cases {
            let (offers, problems_found) = offered(selection, service(more));
            assert_eq!(
                (offers, problems_found.len()),
                (want.iter().map(|a| (*a).to_owned()).collect(), problems),
                "{name}: {problems_found:?}"
            );
            assert!(problems_found.iter().all(|p| p.contains("default/web")), "{problems_found:?}");
        }
    }

    #[test]
    fn local_policies_follow_the_endpoints_of_this_node() {
        let ready = || json!({"ready": true, "serving": true, "terminating": false});
        let serving = || json!({"ready": false, "serving": true, "terminating": true});
        let ended = || json!({"ready": false, "serving": false, "terminating": true});
        let unready = || json!({"ready": false, "serving": false, "terminating": false});
        let of_old = || json!({"ready": true});
        #[rustfmt::skip]
        let cases: Vec<(&str, Vec<(&str, Value)>, bool)> = vec![
            ("none",                         vec![], false),
            ("ready",                        vec![("n1", ready())], true),
            ("ready, one of several",        vec![("n1", unready()), ("n1", ready()), ("n2", ready())], true),
            ("no condition is ready",       vec![("n1", json!({}))], true),
            ("an old controller",            vec![("n1", of_old())], true),
            ("not ready",                    vec![("n1", unready())], false),
            ("elsewhere",                    vec![("n2", ready())], false),
            ("terminating, the last",        vec![("n1", serving()), ("n2", unready())], true),
            ("terminating, others too",      vec![("n1", serving()), ("n2", serving())], true),
            ("terminating, others are ready", vec![("n1", serving()), ("n2", ready())], false),
            ("ready but terminating",        vec![("n1", json!({"ready": true, "serving": true, "terminating": true}))], true),
            ("ended",                        vec![("n1", ended())], false),
        ];
        let selection = all();
        for (name, endpoints, want) in cases {
            let local =
                json!({"spec": {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster"}});
            let slices = [slice("IPv4", &endpoints)];
            let c = cache(selection.clone(), &[service(local)], &slices);
            let results = eligibility(&c.services().unwrap(), &nodes(node("n1"), []), rules(&selection));
            let external = |v: &&Eligibility| !v.services[0].contains("cluster-ip");
            assert!(
                results.iter().filter(external).all(|v| v.announced.is_some() == want),
                "{name}: {results:?}"
            );
            assert_eq!(results.iter().filter(|v| !external(v) && v.announced.is_some()).count(), 2, "{name}");

            let local =
                json!({"spec": {"externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Local"}});
            let c = cache(selection.clone(), &[service(local)], &slices);
            let results = eligibility(&c.services().unwrap(), &nodes(node("n1"), []), rules(&selection));
            let mut expected = vec!["192.0.2.7/32".to_owned(), "198.51.100.7/32".to_owned()];
            expected.splice(0..0, want.then(|| "10.96.0.7/32".to_owned()));
            assert_eq!(announced(&results), expected, "{name}: cluster IPs, of IPv4 alone");
        }
    }

    /// antrea#8347, metallb#312: with the policy Cluster an address attracts packets although no
    /// endpoint serves.
    #[test]
    fn metallb_312_services_without_endpoints_are_withdrawn_if_configured() {
        let ready = || json!({"ready": true});
        let serving = || json!({"ready": false, "serving": true, "terminating": true});
        let unready = || json!({"ready": false, "serving": false});
        #[rustfmt::skip]
        let cases: Vec<(&str, Vec<(&str, Value)>, bool)> = vec![
            ("none",                  vec![],                                         false),
            ("not ready",             vec![("n1", unready()), ("n2", unready())],     false),
            ("on this node",          vec![("n1", ready())],                          true),
            ("on another node",       vec![("n2", unready()), ("n3", ready())],       true),
            ("another terminates",    vec![("n2", serving())],                        true),
        ];
        let selection = ServiceSelection { endpoints: true, ..all() };
        for (name, endpoints, want) in cases {
            let c = cache(selection.clone(), &[service(json!({}))], &[slice("IPv4", &endpoints)]);
            let results = eligibility(&c.services().unwrap(), &nodes(node("n1"), []), rules(&selection));
            let v4: Vec<_> = results.iter().filter(|v| v.address.is_ipv4()).collect();
            assert_eq!(v4.len(), 3, "{name}");
            assert!(v4.iter().all(|v| v.announced.is_some() == want), "{name}: {results:?}");
            let v6 = results.iter().find(|v| v.address.is_ipv6()).unwrap();
            assert!(v6.reason.contains("withdraw-without-endpoints"), "{name}: no IPv6 endpoint: {v6:?}");
        }
        // An endpoint without a node name counts as well.
        let elsewhere = json!({
            "metadata": {"namespace": "default", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
        });
        let slices = [serde_json::from_value(elsewhere).unwrap()];
        let mut c = cache(selection.clone(), &[service(json!({}))], &slices);
        let prefixes = |c: &ServiceCache| {
            announced(&eligibility(&c.services().unwrap(), &nodes(node("n1"), []), rules(&selection)))
        };
        assert_eq!(prefixes(&c), ["10.96.0.7/32", "192.0.2.7/32", "198.51.100.7/32"]);
        // Without access to EndpointSlices nothing is withdrawn.
        c.forget_slices();
        assert!(c.set_slices_forbidden());
        assert_eq!(prefixes(&c).len(), 4);
        // Not configured: endpoints do not matter.
        assert!(!cache(all(), &[service(json!({}))], &[]).needs_slices());
    }

    #[test]
    fn each_family_has_its_own_slices_and_deleted_ones_do_not_count() {
        let selection = ServiceSelection { kinds: [Kind::ClusterIp].into(), ..ServiceSelection::default() };
        let local = service(json!({"spec": {"internalTrafficPolicy": "Local"}}));
        let (four, six) = (slice("IPv4", &[("n1", json!({}))]), slice("IPv6", &[("n2", json!({}))]));
        let mut c = cache(selection.clone(), &[local], &[four.clone(), six.clone()]);
        let prefixes = |c: &ServiceCache| {
            announced(&eligibility(&c.services().unwrap(), &nodes(node("n1"), []), rules(&selection)))
        };
        assert_eq!(prefixes(&c), ["10.96.0.7/32"]);
        assert!(c.slice(Change::Applied(slice("IPv6", &[("n1", json!({}))]))));
        assert_eq!(prefixes(&c), ["10.96.0.7/32", "fd00:96::7/128"]);
        assert!(!c.slice(Change::Applied(slice("IPv6", &[("n1", json!({})), ("n1", json!({}))]))), "no news");
        assert!(c.slice(Change::Deleted(four)));
        assert_eq!(prefixes(&c), ["fd00:96::7/128"]);
        assert!(!c.slice(Change::Applied(slice("FQDN", &[("n1", json!({}))]))));
        let none: ApiSlice = serde_json::from_value(json!({
            "metadata": six.metadata, "addressType": "IPv6", "endpoints": null,
        }))
        .unwrap();
        assert!(c.slice(Change::Applied(none)));
        assert!(prefixes(&c).is_empty());
    }

    #[test]
    fn known_services_stay_until_everything_needed_is_listed() {
        let mut c = ServiceCache::new("n1".into());
        c.select(all());
        let local = service(json!({"spec": {"externalTrafficPolicy": "Local"}}));
        c.service(Change::ListStarted);
        assert!(!c.service(Change::Listed(local.clone())) && c.services().is_none());
        assert!(c.service(Change::ListDone) && c.needs_slices());
        assert!(c.services().is_none(), "EndpointSlices are missing");
        c.slice(Change::ListStarted);
        c.slice(Change::ListDone);
        assert_eq!(c.services().unwrap().addresses.len(), 4);

        // A second list replaces the first one once it is complete.
        c.service(Change::ListStarted);
        assert_eq!(c.services().unwrap().addresses.len(), 4);
        assert!(c.service(Change::ListDone));
        assert!(c.services().unwrap().addresses.is_empty() && !c.needs_slices());

        // Without access to EndpointSlices the rest is advertised, with a problem.
        c.service(Change::Applied(local.clone()));
        c.forget_slices();
        assert!(c.services().is_none());
        assert!(c.set_slices_forbidden() && !c.set_slices_forbidden());
        let known = c.services().unwrap();
        assert!(known.problems[0].contains("endpointslices"), "{:?}", known.problems);
        let selection = all();
        let results = eligibility(&known, &nodes(node("n1"), []), rules(&selection));
        assert_eq!(announced(&results), ["10.96.0.7/32", "fd00:96::7/128"]);
        assert!(c.service(Change::Deleted(local)) && c.services().unwrap().addresses.is_empty());
    }

    #[test]
    fn the_state_of_the_node_decides_what_it_advertises() {
        use crate::k8s::node::Going;
        let selection = ServiceSelection { track_remote_endpoints: true, ..all() };
        let place = |local, elsewhere: &[&str]| {
            Some(EndpointLocality {
                local,
                elsewhere: elsewhere.iter().map(|n| (*n).to_owned()).collect(),
                ..EndpointLocality::default()
            })
        };
        let excluded = || NodeView { excluded: true, ..node("n1") };
        let cordoned = |name: &str| NodeView { cordoned: true, ..node(name) };
        let going = |name: &str| NodeView { going: Some(Going::ShutsDown), ..node(name) };
        let (cluster, balancer) = (Kind::ClusterIp, Kind::LoadBalancerIp);
        #[rustfmt::skip]
        let cases: Vec<(&str, Kind, Option<EndpointLocality>, NodeView, Vec<NodeView>, bool)> = vec![
            ("any node",                   balancer, None, node("n1"), vec![], true),
            ("excluded",                   balancer, None, excluded(), vec![node("n2")], false),
            ("excluded, cluster IP",       cluster,  None, excluded(), vec![node("n2")], true),
            ("shuts down",                 cluster,  None, going("n1"), vec![], false),
            ("cordoned, another is there", balancer, None, cordoned("n1"), vec![node("n2")], false),
            ("cordoned, the last",         balancer, None, cordoned("n1"), vec![cordoned("n2"), going("n3")], true),
            ("cordoned, others excluded",  balancer, None, cordoned("n1"),
                vec![NodeView { excluded: true, ..node("n2") }], true),
            ("local, endpoint elsewhere",  balancer, place(LocalEndpoints::Ready, &["n2"]), cordoned("n1"), vec![node("n2")], false),
            ("local, the last endpoint",   balancer, place(LocalEndpoints::Ready, &[]), cordoned("n1"), vec![node("n2")], true),
            ("local, others cordoned too", balancer, place(LocalEndpoints::Ready, &["n2"]), cordoned("n1"),
                vec![cordoned("n2"), node("n3")], true),
        ];
        for (name, kind, local, own, others, want) in cases {
            let offers = vec![ServiceAddress {
                service: "default/web".into(),
                kind,
                local,
                served: None,
                excess: None,
            }];
            let services = Services {
                addresses: [("192.0.2.7".parse().unwrap(), offers)].into(),
                ..Services::default()
            };
            let results = eligibility(&services, &nodes(own.clone(), others.clone()), rules(&selection));
            assert_eq!(results[0].announced.is_some(), want, "{name}: {}", results[0].reason);
            // Cordoning only matters if configured.
            let plain = ServiceSelection { track_remote_endpoints: false, ..selection.clone() };
            let results = eligibility(&services, &nodes(own.clone(), others), rules(&plain));
            assert_eq!(results[0].announced.is_some(), want || own.cordoned, "{name}, not configured");
        }
        let services = cache(all(), &[service(json!({}))], &[]).services().unwrap();
        let nobody = eligibility(&services, &Nodes::default(), rules(&selection));
        assert!(announced(&nobody).is_empty(), "without a Node nothing is announced");
        let drained = Rules { withheld: Some("drained"), ..rules(&selection) };
        assert!(announced(&eligibility(&services, &nodes(node("n1"), []), drained)).is_empty());
    }

    #[test]
    fn aggregates_replace_only_what_every_node_forwards() {
        let aggregates = vec!["10.96.0.0/16".parse().unwrap(), "10.96.0.0/24".parse().unwrap()];
        let selection = ServiceSelection { aggregates, ..all() };
        let rules = rules(&selection);
        let slices = [slice("IPv4", &[("n1", json!({}))]), slice("IPv6", &[("n1", json!({}))])];
        let prefixes = |more: Value| {
            let c = cache(selection.clone(), &[service(more)], &slices);
            announced(&eligibility(&c.services().unwrap(), &nodes(node("n1"), []), rules))
        };
        assert_eq!(
            prefixes(json!({})),
            ["10.96.0.0/24", "192.0.2.7/32", "198.51.100.7/32", "fd00:96::7/128"]
        );
        let local = prefixes(json!({"spec": {"internalTrafficPolicy": "Local"}}));
        assert_eq!(local[0], "10.96.0.7/32", "beside the aggregate of others");
    }

    #[test]
    fn a_shared_address_is_advertised_while_one_service_is_eligible() {
        let selection = all();
        let lb = "198.51.100.7";
        let one = service(json!({"spec": {"externalTrafficPolicy": "Local"}}));
        let two = service(json!({"metadata": {"name": "dns"}}));
        let c = cache(selection.clone(), &[one, two], &[]);
        let results = eligibility(&c.services().unwrap(), &nodes(node("n1"), []), rules(&selection));
        let shared = results.iter().find(|v| v.address.to_string() == lb).unwrap();
        assert_eq!(shared.services, ["default/dns (load-balancer-ip)"]);
        assert_eq!(shared.announced, Some("198.51.100.7/32".parse().unwrap()));
    }

    /// A Service with another name and namespace, created at this second of 2026.
    fn another(namespace: &str, n: u32, at: u32) -> ApiService {
        let created = format!("2026-01-01T{:02}:{:02}:{:02}Z", at / 3600, at / 60 % 60, at % 60);
        service(json!({
            "metadata": {"namespace": namespace, "name": format!("s{n:05}"), "creationTimestamp": created},
            "spec": {"clusterIPs": [format!("10.97.{}.{}", n / 256, n % 256)]},
        }))
    }

    /// No namespace displaces others, and advertised Services stay advertised.
    #[test]
    fn services_beyond_the_limits_are_reported_by_namespace_and_the_oldest_stay() {
        let selection = ServiceSelection { kinds: [Kind::ClusterIp].into(), ..ServiceSelection::default() };
        let greedy: Vec<_> = (0..300).map(|n| another("greedy", n, 1000 - n)).collect();
        let mut c = cache(selection.clone(), &[greedy, vec![another("shop", 900, 5000)]].concat(), &[]);
        let judge = |c: &ServiceCache| {
            let known = c.services().unwrap();
            (eligibility(&known, &nodes(node("n1"), []), rules(&selection)), known.problems)
        };
        let (results, problems) = judge(&c);
        let before = announced(&results);
        assert_eq!((before.len(), before.contains(&"10.97.3.132/32".to_owned())), (101, true));
        assert!(before.contains(&"10.97.1.43/32".to_owned()), "the oldest, by its time and not by its name");
        let refused = results.iter().find(|v| v.announced.is_none()).unwrap();
        assert!(
            refused.reason.contains("kubernetes.service-limit-per-namespace = 100"),
            "{}",
            refused.reason
        );
        assert!(problems.len() == 1 && problems[0].contains("namespace greedy"), "{problems:?}");

        // New Services change nothing, and a deleted one makes room for another.
        assert!(c.service(Change::Applied(another("greedy", 1, 7000))));
        assert_eq!(announced(&judge(&c).0), before);
        assert!(c.service(Change::Deleted(another("greedy", 299, 701))));
        assert_eq!(announced(&judge(&c).0).len(), 101);

        // Addresses inside an aggregate do not count.
        let aggregates = vec!["10.97.0.0/16".parse().unwrap()];
        let many: Vec<_> = (0..5000).map(|n| another("greedy", n, n)).collect();
        let selection = ServiceSelection { aggregates, ..selection.clone() };
        let known = cache(selection.clone(), &many, &[]).services().unwrap();
        let results = eligibility(&known, &nodes(node("n1"), []), rules(&selection));
        assert!(results.iter().all(|v| v.announced.is_some()) && known.problems.is_empty());
    }

    /// Little of what a tenant writes is cached.
    #[test]
    fn oversized_names_and_addresses_are_left_out() {
        let selection = all();
        let long = "x".repeat(256 << 10);
        for meta in [
            json!({"name": long}),
            json!({"namespace": long}),
            json!({"name": "a\u{1b}[2J"}),
            json!({"name": ""}),
        ] {
            let c = cache(selection.clone(), &[service(json!({ "metadata": meta }))], &[]);
            assert!(c.services().unwrap().addresses.is_empty());
        }
        let many: Vec<_> = (0..20_000).map(|n| format!("192.0.{}.{}", n / 256, n % 256)).collect();
        let c = cache(selection.clone(), &[service(json!({"spec": {"externalIPs": many}}))], &[]);
        let known = c.services().unwrap();
        let external = known.addresses.values().flatten().filter(|o| o.kind == Kind::ExternalIp).count();
        assert_eq!(external, MAX_ADDRESSES);
        assert!(known.mistakes[0].text.contains("more than 16 addresses of the kind external-ip"));
    }
}
