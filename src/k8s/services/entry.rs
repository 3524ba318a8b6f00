//! What the cache keeps of one Service and of one EndpointSlice.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    EndpointLocality, LocalEndpoints, ServiceSelection,
    api::{ApiService, ApiSlice},
};
use crate::{
    k8s::{bounded::CacheEntry, metadata::is_name},
    net::{
        Diagnostic, Family, Prefix, Reason, ServiceAddresses as Kind, Subject, SubjectKind, text::untrusted,
    },
};

/// What is cached of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) addresses: Vec<Address>,
    /// In seconds since 1970.
    pub(super) created: Option<i64>,
    pub(super) mistake: Option<Diagnostic>,
}

impl CacheEntry for View {
    fn octets(&self) -> usize {
        let mistake = self
            .mistake
            .as_ref()
            .map_or(0, |m| m.subject.name.len() + m.subject.uid.len() + m.text.len() + m.remedy.len());
        self.addresses.len() * size_of::<Address>() + mistake
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) addr: IpAddr,
    pub(super) kind: Kind,
    /// Whether only nodes with an endpoint forward.
    pub(super) local: bool,
}

impl View {
    /// Returns `None` if no address of the Service is selected.
    pub(super) fn new(service: &ApiService, selection: &ServiceSelection) -> Option<Self> {
        let (meta, spec) = (&service.metadata, &service.spec);
        if !is_name(meta.name.as_deref()) || !is_name(meta.namespace.as_deref()) {
            return None;
        }
        let single = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.is_empty());
        let cluster: Vec<_> = addresses(spec.cluster_ips.iter().chain(single)).collect();
        // kube-proxy only forwards for Services with a cluster IP.
        if cluster.is_empty() || spec.kind == "ExternalName" {
            return None;
        }
        let (kinds, mut problem) = kinds(meta, selection);
        let mut all = Vec::new();
        for kind in kinds {
            let (mut found, policy): (Vec<_>, _) = match kind {
                Kind::ClusterIp => (cluster.clone(), &spec.internal_traffic_policy),
                Kind::ExternalIp => (addresses(&spec.external_ips).collect(), &spec.external_traffic_policy),
                Kind::LoadBalancerIp => (load_balancer(service, selection), &spec.external_traffic_policy),
            };
            if found.len() > MAX_ADDRESSES {
                found.truncate(MAX_ADDRESSES);
                problem.get_or_insert_with(|| {
                    let text = format!(
                        "it has more than {MAX_ADDRESSES} addresses of the kind {}: the rest is not advertised",
                        kind.as_str()
                    );
                    (text, "spread them over several Services")
                });
            }
            let local = policy.as_deref() == Some("Local");
            all.extend(found.into_iter().map(|addr| Address { addr, kind, local }));
        }
        let mistake = problem.map(|what| mistake(meta, what));
        let created = meta.creation_timestamp.as_ref().map(|t| t.0.as_second());
        (!all.is_empty() || mistake.is_some()).then_some(Self { addresses: all, created, mistake })
    }

    /// Its weight towards the limits: the number of addresses of one family, without those covered
    /// by an aggregate.
    pub(super) fn weight(&self, aggregates: &[Prefix]) -> u32 {
        let single = |a: &&Address| a.local || !aggregates.iter().any(|p| p.contains(a.addr));
        let of =
            |family| self.addresses.iter().filter(single).filter(|a| Family::of(a.addr) == family).count();
        Family::ALL.map(of).into_iter().max().unwrap_or(0) as u32
    }
}

pub(super) fn mistake(meta: &ObjectMeta, (what, remedy): (String, &'static str)) -> Diagnostic {
    let [namespace, name] = [&meta.namespace, &meta.name].map(|t| t.clone().unwrap_or_default());
    let uid = untrusted(meta.uid.as_deref().unwrap_or_default());
    Diagnostic::new(
        Reason::NotUnderstood,
        Subject::object(SubjectKind::Service, Some(&namespace), &name, &uid),
        format!("Service {namespace}/{name}: {what}"),
        remedy,
    )
}

/// Maximum addresses of each kind for a Service. `spec.externalIPs` can have tens of thousands.
pub(super) const MAX_ADDRESSES: usize = 16;

/// The kinds of addresses to advertise for a Service: from its annotation, else from the
/// configuration.
pub(super) fn kinds(
    meta: &ObjectMeta,
    selection: &ServiceSelection,
) -> (BTreeSet<Kind>, Option<(String, &'static str)>) {
    let from_config = || {
        if selection.selector.fits(meta.labels.as_ref()) { selection.kinds.clone() } else { BTreeSet::new() }
    };
    let text = meta.annotations.as_ref().and_then(|a| a.get(ANNOTATION)).map(|t| t.trim());
    let Some(text) = text.filter(|t| !t.is_empty()) else { return (from_config(), None) };
    if text == "none" {
        return (BTreeSet::new(), None);
    }
    let known = |text: &str| Kind::ALL.into_iter().find(|k| k.as_str() == text.trim());
    let Some(wanted) = text.split(',').map(known).collect::<Option<BTreeSet<_>>>() else {
        let problem = format!(
            "annotation {ANNOTATION}: `{}` is neither `none` nor a list of cluster-ip, external-ip and load-balancer-ip; it is \
             ignored",
            untrusted(text)
        );
        return (from_config(), Some((problem, "correct or remove the annotation")));
    };
    let (allowed, denied): (BTreeSet<_>, BTreeSet<_>) =
        wanted.into_iter().partition(|k| selection.allows(*k));
    let problem = (!denied.is_empty()).then(|| {
        let names: Vec<_> = denied.iter().map(|k| k.as_str()).collect();
        let text = format!(
            "annotation {ANNOTATION} selects {}, which kubernetes.service-annotations does not allow: not \
             advertised",
            names.join(", ")
        );
        (text, "add it there if users who may write Services may choose such addresses")
    });
    (allowed, problem)
}

/// Addresses of a load balancer that nodes accept packets for.
pub(super) fn load_balancer(service: &ApiService, selection: &ServiceSelection) -> Vec<IpAddr> {
    let spec = &service.spec;
    let ours = spec.load_balancer_class.as_ref().is_none_or(|class| selection.classes.contains(class));
    if spec.kind != "LoadBalancer" || !ours {
        return Vec::new();
    }
    // `Proxy`: packets arrive with a node's address as destination instead (KEP-1860).
    let accepted =
        service.status.load_balancer.ingress.iter().filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
    addresses(accepted.filter_map(|i| i.ip.as_ref())).collect()
}

/// Parses addresses; other texts, such as `None` of a headless Service, are skipped.
pub(super) fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok())
}

/// What is cached of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) service: String,
    pub(super) family: Family,
    pub(super) places: EndpointLocality,
    /// Whether any of its endpoints serves.
    pub(super) serves: bool,
}

impl CacheEntry for Slice {
    fn octets(&self) -> usize {
        let names = self.places.elsewhere.iter().chain(&self.places.ending);
        let elsewhere = names.map(|node| node.len() + size_of::<String>());
        self.service.len() + elsewhere.sum::<usize>()
    }
}

impl Slice {
    pub(super) fn new(slice: &ApiSlice, node: &str, selection: &ServiceSelection) -> Option<Self> {
        let all = selection.track_remote_endpoints || selection.each_node;
        let family = match slice.address_type.as_str() {
            "IPv4" => Family::Ipv4Unicast,
            "IPv6" => Family::Ipv6Unicast,
            _ => return None,
        };
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        if !is_name(Some(name)) || !is_name(slice.metadata.name.as_deref()) {
            return None;
        }
        let service = format!("{}/{name}", slice.metadata.namespace.as_deref().unwrap_or_default());
        let mut places = EndpointLocality::default();
        let mut serves = false;
        for endpoint in slice.endpoints.iter().flatten() {
            let here = endpoint.conditions.state();
            serves |= here != LocalEndpoints::None;
            let Some(at) = endpoint.node_name.as_ref().filter(|n| is_name(Some(n))) else { continue };
            if at == node {
                places.local = places.local.max(here);
            } else if here == LocalEndpoints::Ready && (all || places.elsewhere.is_empty()) {
                places.elsewhere.insert(at.clone());
            } else if here == LocalEndpoints::Terminating && selection.each_node {
                places.ending.insert(at.clone());
            }
        }
        Some(Self { service, family, places, serves })
    }
}

const ANNOTATION: &str = "routelet.io/advertise";

const SERVICE_NAME: &str = "kubernetes.io/service-name";
