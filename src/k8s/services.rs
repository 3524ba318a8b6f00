//! Services and EndpointSlices → the addresses that this node announces, each with its reason.
//!
//! Three steps. [`Catalog`] hears the watches and keeps, of each Service that is asked for, nothing but its addresses and
//! where its endpoints are. [`Services`] is its answer: which addresses there are, and for whom. [`verdicts`] judges each of
//! them for this node, as its Node stands now.
//!
//! # What follows from what
//!
//! kube-proxy forwards, on every node; we only draw the packets to a node. So an address is announced by every node, unless
//! the Service wants local endpoints only (`externalTrafficPolicy`, of cluster IPs `internalTrafficPolicy`): then by nodes with an
//! endpoint that is ready. Endpoints that terminate and still serve count where no other node has a ready one, which is when
//! kube-proxy uses them, too (KEP-1669).
//!
//! # What is deliberately absent
//!
//! Routes in the kernel: kube-proxy needs none, and an unreachable one would keep the host's own connections from leaving.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};

pub use super::bounded::Change;
use super::{
    bounded::{Cache, Kept, MAX_OBJECTS, MAX_OCTETS},
    metadata::is_name,
    node::{EXCLUDED_LABEL, NodeView, Nodes},
    service_limits::{self, Candidate, Excess},
};
use crate::net::{Family, Prefix, Selector, ServiceAddresses as Kind, ServiceLimits, text::untrusted};

/// Which Services are looked for: what the configuration says of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What is announced of Services with the labels of the selector.
    pub kinds: BTreeSet<Kind>,
    pub selector: Selector,
    /// What the annotation may ask for.
    pub by_annotation: BTreeSet<Kind>,
    /// `spec.loadBalancerClass` of Services that are ours to announce, besides those without one.
    pub classes: Vec<String>,
    /// Whether it matters which other nodes have endpoints: for a node that is cordoned.
    pub whereabouts: bool,
    /// Whether it matters that there is an endpoint at all: `kubernetes.withdraw-without-endpoints`.
    #[serde(default)]
    pub endpoints: bool,
    /// How many addresses are advertised.
    #[serde(default)]
    pub limits: ServiceLimits,
    /// Advertised instead of the addresses inside, which count for no limit.
    #[serde(default)]
    pub aggregates: Vec<Prefix>,
    /// Whether it matters which other nodes have endpoints that serve: what nodes advertise to one
    /// another is checked.
    #[serde(default)]
    pub each_node: bool,
}

impl Asked {
    /// Whether there can be anything to announce.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.by_annotation.is_empty()
    }

    /// Whether addresses of this kind can be announced at all.
    pub fn allows(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind) || self.by_annotation.contains(&kind)
    }

    /// The most specific aggregate that holds an address.
    pub fn aggregate_of(&self, addr: IpAddr) -> Option<Prefix> {
        self.aggregates.iter().copied().filter(|a| a.contains(addr)).max_by_key(|a| a.len())
    }
}

/// What is known of Services. Level-triggered: each change makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// Whose address it is: several Services may share one.
    pub offers: BTreeMap<IpAddr, Vec<Offer>>,
    /// Services that could not be understood.
    pub mistakes: Vec<Mistake>,
    /// What else the operator should know, in plain words.
    pub problems: Vec<String>,
}

/// What is wrong with a Service, the same on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// In plain words, with its remedy.
    pub text: String,
}

/// An address of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// `NAMESPACE/NAME`.
    pub service: String,
    pub kind: Kind,
    /// Where the endpoints are; `None`: every node forwards.
    pub local: Option<Places>,
    /// Whether an endpoint serves on any node; `None`: not asked for, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<bool>,
    /// The limit that its Service is beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess: Option<Excess>,
}

/// Where endpoints of a Service are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    pub here: Here,
    /// Other nodes with a ready one; of several only one unless [`Asked::whereabouts`] or
    /// [`Asked::each_node`].
    pub elsewhere: BTreeSet<String>,
    /// Other nodes with one that terminates and serves until it ends, where [`Asked::each_node`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ending: BTreeSet<String>,
}

/// What endpoints there are on this node; the later is the better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Here {
    #[default]
    None,
    /// They terminate and serve until they end.
    Terminating,
    Ready,
}

/// The cache of the watches.
#[derive(Clone, Debug)]
pub struct Catalog {
    node: String,
    asked: Asked,
    services: Cache<View>,
    slices: Cache<Slice>,
    /// The API server does not let us see EndpointSlices.
    blind: bool,
}

impl Catalog {
    pub fn new(node: String) -> Self {
        Self {
            node,
            asked: Asked::default(),
            services: Cache::default(),
            slices: Cache::default(),
            blind: false,
        }
    }

    /// Other Services are looked for: what the watches said is judged anew when they say it again.
    pub fn ask(&mut self, asked: Asked) {
        *self = Self { asked, ..Self::new(mem::take(&mut self.node)) };
    }

    /// A change that the watch of Services reports; whether something changed here.
    pub fn service(&mut self, change: Change<ApiService>) -> bool {
        let asked = &self.asked;
        self.services.apply(change, |s| (key(&s.metadata), View::new(s, asked)))
    }

    /// A change that the watch of EndpointSlices reports; whether something changed here.
    pub fn slice(&mut self, change: Change<ApiSlice>) -> bool {
        self.blind = false;
        let (node, asked) = (&self.node, &self.asked);
        self.slices.apply(change, |s| (key(&s.metadata), Slice::new(s, node, asked)))
    }

    /// The API server refuses EndpointSlices; whether that is news.
    pub fn no_slices(&mut self) -> bool {
        !mem::replace(&mut self.blind, true)
    }

    /// Whether EndpointSlices matter.
    pub fn needs_slices(&self) -> bool {
        let all = self.asked.endpoints;
        self.services.values().any(|view| view.addresses.iter().any(|a| all || a.local))
    }

    /// EndpointSlices are no longer watched.
    pub fn forget_slices(&mut self) {
        self.slices = Cache::default();
        self.blind = false;
    }

    /// What is known, once it is whole: until then what was known before stays in force.
    pub fn services(&self) -> Option<Services> {
        let seen = self.slices.is_whole() || self.blind || !self.needs_slices();
        if !self.services.is_whole() || !seen {
            return None;
        }
        let places = self.places();
        let excess = self.excess();
        let mut services = Services {
            problems: service_limits::problems(self.asked.limits, &excess),
            ..Services::default()
        };
        for (name, view) in self.services.iter() {
            services.mistakes.extend(view.mistake.clone());
            for Address { addr, kind, local } in &view.addresses {
                let at = || places.get(&(name.as_str(), Family::of(*addr))).cloned().unwrap_or_default();
                let known = self.asked.endpoints && !self.blind;
                let served = known.then(|| at().here_or_elsewhere);
                let at = || at().places;
                let (service, local) = (name.clone(), local.then(at));
                let offer =
                    Offer { service, kind: *kind, local, served, excess: excess.get(&**name).copied() };
                services.offers.entry(*addr).or_default().push(offer);
            }
        }
        services.problems.extend(self.overflows());
        let more = services.mistakes.len().saturating_sub(NAMED);
        if more > 0 {
            services.mistakes.truncate(NAMED);
            // No number: each would be an Event of its own.
            services
                .problems
                .push(format!("more than {NAMED} Services have annotations that are not understood"));
        }
        if self.blind {
            services.problems.push(
                "the API server does not show us EndpointSlices: Services with the traffic policy Local are not announced; \
                 allow our ServiceAccount to list and watch endpointslices (deploy/daemonset.yaml)"
                    .into(),
            );
        }
        Some(services)
    }

    /// Services beyond the limits.
    fn excess(&self) -> BTreeMap<&str, Excess> {
        let candidates = self.services.iter().map(|(service, view)| {
            let weight = view.weight(&self.asked.aggregates);
            Candidate { service, created: view.created, weight }
        });
        service_limits::excess(self.asked.limits, candidates.collect())
    }

    /// Kinds of which more exist than are kept.
    fn overflows(&self) -> impl Iterator<Item = String> {
        let kinds = [("Services", self.services.overflowed()), ("EndpointSlices", self.slices.overflowed())];
        kinds.into_iter().filter(|(_, overflowed)| *overflowed).map(|(kind, _)| {
            format!(
                "there are more {kind} than the {MAX_OBJECTS} ({} MiB) that are kept: the rest is ignored; narrow \
                 kubernetes.service-selector, or take kinds out of kubernetes.services and service-annotations",
                MAX_OCTETS >> 20
            )
        })
    }

    fn places(&self) -> BTreeMap<(&str, Family), Endpoints> {
        let mut all: BTreeMap<_, Endpoints> = BTreeMap::new();
        for slice in self.slices.values() {
            let endpoints = all.entry((slice.service.as_str(), slice.family)).or_default();
            endpoints.here_or_elsewhere |= slice.serves;
            let places = &mut endpoints.places;
            places.here = places.here.max(slice.places.here);
            places.elsewhere.extend(slice.places.elsewhere.iter().cloned());
            places.ending.extend(slice.places.ending.iter().cloned());
        }
        all
    }
}

/// The endpoints of a Service in one family.
#[derive(Clone, Debug, Default)]
struct Endpoints {
    places: Places,
    /// An endpoint is ready, or terminates and still serves, whether it names its node or not.
    here_or_elsewhere: bool,
}

/// So many Services are named for their mistakes.
const NAMED: usize = 10;

/// What is kept of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    addresses: Vec<Address>,
    /// In seconds since 1970.
    created: Option<i64>,
    mistake: Option<Mistake>,
}

impl Kept for View {
    fn octets(&self) -> usize {
        let mistake = self
            .mistake
            .as_ref()
            .map_or(0, |m| m.namespace.len() + m.name.len() + m.uid.len() + m.text.len());
        self.addresses.len() * size_of::<Address>() + mistake
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    addr: IpAddr,
    kind: Kind,
    /// Only nodes with an endpoint forward.
    local: bool,
}

impl View {
    /// `None`: nothing of it is asked for.
    fn new(service: &ApiService, asked: &Asked) -> Option<Self> {
        let (meta, spec) = (&service.metadata, &service.spec);
        if !is_name(meta.name.as_deref()) || !is_name(meta.namespace.as_deref()) {
            return None;
        }
        let single = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.is_empty());
        let cluster: Vec<_> = addresses(spec.cluster_ips.iter().chain(single)).collect();
        // kube-proxy forwards for no other.
        if cluster.is_empty() || spec.kind == "ExternalName" {
            return None;
        }
        let (kinds, mut problem) = kinds(meta, asked);
        let mut all = Vec::new();
        for kind in kinds {
            let (mut found, policy): (Vec<_>, _) = match kind {
                Kind::ClusterIp => (cluster.clone(), &spec.internal_traffic_policy),
                Kind::ExternalIp => (addresses(&spec.external_ips).collect(), &spec.external_traffic_policy),
                Kind::LoadBalancerIp => (load_balancer(service, asked), &spec.external_traffic_policy),
            };
            if found.len() > MAX_ADDRESSES {
                found.truncate(MAX_ADDRESSES);
                problem.get_or_insert_with(|| {
                    format!(
                        "it has more than {MAX_ADDRESSES} addresses of the kind {}: the rest is not announced; spread them \
                         over several Services",
                        kind.as_str()
                    )
                });
            }
            let local = policy.as_deref() == Some("Local");
            all.extend(found.into_iter().map(|addr| Address { addr, kind, local }));
        }
        let mistake = problem.map(|what| Mistake::new(meta, &what));
        let created = meta.creation_timestamp.as_ref().map(|t| t.0.as_second());
        (!all.is_empty() || mistake.is_some()).then_some(Self { addresses: all, created, mistake })
    }

    /// How often it counts towards the limits: its addresses of one family, but those that an aggregate stands for.
    fn weight(&self, aggregates: &[Prefix]) -> u32 {
        let single = |a: &&Address| a.local || !aggregates.iter().any(|p| p.contains(a.addr));
        let of =
            |family| self.addresses.iter().filter(single).filter(|a| Family::of(a.addr) == family).count();
        Family::ALL.map(of).into_iter().max().unwrap_or(0) as u32
    }
}

impl Mistake {
    fn new(meta: &ObjectMeta, what: &str) -> Self {
        let [namespace, name] = [&meta.namespace, &meta.name].map(|t| t.clone().unwrap_or_default());
        let uid = untrusted(meta.uid.as_deref().unwrap_or_default());
        Self { text: format!("Service {namespace}/{name}: {what}"), namespace, name, uid }
    }
}

/// Addresses of a Service that count, of each kind. `spec.externalIPs` has room for tens of thousands.
const MAX_ADDRESSES: usize = 16;

/// What is announced of a Service: as its annotation says, else as the configuration does.
fn kinds(meta: &ObjectMeta, asked: &Asked) -> (BTreeSet<Kind>, Option<String>) {
    let by_file =
        || if asked.selector.fits(meta.labels.as_ref()) { asked.kinds.clone() } else { BTreeSet::new() };
    let text = meta.annotations.as_ref().and_then(|a| a.get(ANNOTATION)).map(|t| t.trim());
    let Some(text) = text.filter(|t| !t.is_empty()) else { return (by_file(), None) };
    if text == "none" {
        return (BTreeSet::new(), None);
    }
    let known = |word: &str| Kind::ALL.into_iter().find(|k| k.as_str() == word.trim());
    let Some(wanted) = text.split(',').map(known).collect::<Option<BTreeSet<_>>>() else {
        let problem = format!(
            "annotation {ANNOTATION}: `{}` is neither `none` nor a list of cluster-ip, external-ip and load-balancer-ip; it is \
             ignored",
            untrusted(text)
        );
        return (by_file(), Some(problem));
    };
    let (allowed, refused): (BTreeSet<_>, BTreeSet<_>) = wanted.into_iter().partition(|k| asked.allows(*k));
    let problem = (!refused.is_empty()).then(|| {
        let names: Vec<_> = refused.iter().map(|k| k.as_str()).collect();
        format!(
            "annotation {ANNOTATION} asks for {}, which kubernetes.service-annotations does not allow: not announced; name it \
             there if whoever may write Services may choose such addresses",
            names.join(", ")
        )
    });
    (allowed, problem)
}

/// Addresses that a load balancer was given and that nodes are to answer for.
fn load_balancer(service: &ApiService, asked: &Asked) -> Vec<IpAddr> {
    let spec = &service.spec;
    let ours = spec.load_balancer_class.as_ref().is_none_or(|class| asked.classes.contains(class));
    if spec.kind != "LoadBalancer" || !ours {
        return Vec::new();
    }
    // `Proxy`: packets come with a node's address, and no node knows this one (KEP-1860).
    let answered =
        service.status.load_balancer.ingress.iter().filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
    addresses(answered.filter_map(|i| i.ip.as_ref())).collect()
}

/// Of texts, those that are addresses: `None` of a headless Service is none.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok())
}

/// What is kept of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    service: String,
    family: Family,
    places: Places,
    /// Whether any endpoint of it serves.
    serves: bool,
}

impl Kept for Slice {
    fn octets(&self) -> usize {
        let names = self.places.elsewhere.iter().chain(&self.places.ending);
        let elsewhere = names.map(|node| node.len() + size_of::<String>());
        self.service.len() + elsewhere.sum::<usize>()
    }
}

impl Slice {
    fn new(slice: &ApiSlice, node: &str, asked: &Asked) -> Option<Self> {
        let all = asked.whereabouts || asked.each_node;
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
        let mut places = Places::default();
        let mut serves = false;
        for endpoint in slice.endpoints.iter().flatten() {
            let here = endpoint.conditions.state();
            serves |= here != Here::None;
            let Some(at) = endpoint.node_name.as_ref().filter(|n| is_name(Some(n))) else { continue };
            if at == node {
                places.here = places.here.max(here);
            } else if here == Here::Ready && (all || places.elsewhere.is_empty()) {
                places.elsewhere.insert(at.clone());
            } else if here == Here::Terminating && asked.each_node {
                places.ending.insert(at.clone());
            }
        }
        Some(Self { service, family, places, serves })
    }
}

/// How a node stands towards Services, and what the operator asked for.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub asked: &'a Asked,
    /// Whether a Node announces although it has the label [`EXCLUDED_LABEL`].
    pub ignore_exclude_label: bool,
    /// Why no address is announced at all, if so.
    pub withheld: Option<&'a str>,
    /// Why an address must never be announced, if so.
    pub refused: &'a dyn Fn(IpAddr, Kind) -> Option<String>,
}

/// What becomes of an address on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub address: IpAddr,
    /// `NAMESPACE/NAME (KIND)`.
    pub services: Vec<String>,
    /// As what it is announced: itself, or an aggregate.
    pub announced: Option<Prefix>,
    /// Why it is announced, or why not.
    pub reason: String,
}

/// Judges each address, in order.
pub fn verdicts(services: &Services, nodes: &Nodes, rules: Rules<'_>) -> Vec<Verdict> {
    let offers = services.offers.iter().map(|(address, offers)| {
        let offers: Vec<_> = offers.iter().filter(|o| rules.asked.allows(o.kind)).collect();
        (*address, offers)
    });
    offers
        .filter(|(_, offers)| !offers.is_empty())
        .map(|(addr, offers)| verdict(addr, &offers, nodes, rules))
        .collect()
}

fn verdict(address: IpAddr, offers: &[&Offer], nodes: &Nodes, rules: Rules<'_>) -> Verdict {
    let named = |o: &&Offer| format!("{} ({})", o.service, o.kind.as_str());
    let judged: Vec<_> = offers.iter().map(|o| (*o, judge(address, o, nodes, rules))).collect();
    let standing: Vec<_> = judged.iter().filter_map(|(o, why)| why.is_ok().then_some(*o)).collect();
    if standing.is_empty() {
        let reason = judged.into_iter().find_map(|(_, why)| why.err()).unwrap_or_default();
        return Verdict { address, services: offers.iter().map(named).collect(), announced: None, reason };
    }
    // Where only some nodes forward, the aggregate of all would lead astray.
    let local = standing.iter().all(|o| o.local.is_some());
    let aggregate = rules.asked.aggregate_of(address).filter(|_| !local);
    let reason = judged.iter().find_map(|(_, why)| why.as_ref().ok()).copied().unwrap_or_default();
    Verdict {
        address,
        services: standing.iter().map(named).collect(),
        announced: Some(aggregate.unwrap_or_else(|| Prefix::host(address))),
        reason: reason.into(),
    }
}

/// Why this node announces it, or why not.
fn judge(address: IpAddr, offer: &Offer, nodes: &Nodes, rules: Rules<'_>) -> Result<&'static str, String> {
    if let Some(why) = (rules.refused)(address, offer.kind) {
        return Err(why);
    }
    if let Some(why) = rules.withheld {
        return Err(why.into());
    }
    if let Some(excess) = offer.excess {
        return Err(excess.reason(rules.asked.limits));
    }
    let Some(own) = &nodes.own else { return Err("the Node is not known".into()) };
    if let Some(going) = own.going {
        return Err(going.as_str().into());
    }
    if !takes(own, offer.kind, rules) {
        return Err(format!("the Node has the label {EXCLUDED_LABEL}"));
    }
    if offer.served == Some(false) {
        return Err("no endpoint is ready on any node (kubernetes.withdraw-without-endpoints)".into());
    }
    let why = match &offer.local {
        None => "every node forwards it",
        Some(Places { here: Here::Ready, .. }) => "an endpoint on this node is ready",
        Some(Places { here: Here::Terminating, elsewhere, .. }) if elsewhere.is_empty() => {
            "an endpoint on this node serves until it ends, none is ready elsewhere"
        }
        Some(Places { here: Here::Terminating, .. }) => {
            return Err(
                "endpoints on this node terminate, others are ready elsewhere (traffic policy Local)".into(),
            );
        }
        Some(_) => return Err("no endpoint on this node is ready (traffic policy Local)".into()),
    };
    if own.cordoned && rules.asked.whereabouts && others_take_over(offer, nodes, rules) {
        return Err("the Node is cordoned (kubernetes.withdraw-when-cordoned)".into());
    }
    Ok(why)
}

/// Whether a node takes packets for such addresses. Cluster IPs are no matter of external load balancers.
fn takes(node: &NodeView, kind: Kind, rules: Rules<'_>) -> bool {
    kind == Kind::ClusterIp || !node.excluded || rules.ignore_exclude_label
}

/// A cordoned node gives up what another one, which is not cordoned, announces; never the last.
fn others_take_over(offer: &Offer, nodes: &Nodes, rules: Rules<'_>) -> bool {
    let stays = |n: &NodeView| !n.cordoned && !n.unheard && n.going.is_none() && takes(n, offer.kind, rules);
    match &offer.local {
        None => nodes.others().any(stays),
        Some(places) => places.elsewhere.iter().any(|name| nodes.others.get(name).is_some_and(|n| stays(n))),
    }
}

/// A Service as the API server sends it, without all that routing does not ask for.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = Service)]
pub struct ApiService {
    #[serde(deserialize_with = "super::metadata::lean")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ApiServiceSpec,
    #[serde(default)]
    pub status: ApiServiceStatus,
}

/// `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServiceSpec {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    pub external_traffic_policy: Option<String>,
    pub internal_traffic_policy: Option<String>,
    pub load_balancer_class: Option<String>,
}

/// `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServiceStatus {
    pub load_balancer: ApiLoadBalancer,
}

/// `status.loadBalancer`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiLoadBalancer {
    pub ingress: Vec<ApiIngress>,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiIngress {
    pub ip: Option<String>,
    pub ip_mode: Option<String>,
}

/// An EndpointSlice, likewise.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = EndpointSlice)]
#[serde(rename_all = "camelCase")]
pub struct ApiSlice {
    #[serde(deserialize_with = "super::metadata::lean")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub address_type: String,
    /// `null` where there are none.
    #[serde(default)]
    pub endpoints: Option<Vec<ApiEndpoint>>,
}

/// An entry of `endpoints`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiEndpoint {
    pub node_name: Option<String>,
    pub conditions: ApiEndpointConditions,
}

/// `conditions` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiEndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

impl ApiEndpointConditions {
    /// What is not said means ready, and serving if ready, as the API has it.
    fn state(&self) -> Here {
        let ready = self.ready != Some(false);
        match (ready, self.serving.unwrap_or(ready), self.terminating.unwrap_or(false)) {
            (true, _, _) => Here::Ready,
            (false, true, true) => Here::Terminating,
            (false, _, _) => Here::None,
        }
    }
}

fn key(meta: &ObjectMeta) -> String {
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

const ANNOTATION: &str = "routelet.io/advertise";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn all() -> Asked {
        Asked { kinds: Kind::ALL.into(), by_annotation: Kind::ALL.into(), ..Asked::default() }
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

    fn catalog(asked: Asked, services: &[ApiService], slices: &[ApiSlice]) -> Catalog {
        let mut catalog = Catalog::new("n1".into());
        catalog.ask(asked);
        catalog.service(Change::Begin);
        for s in services {
            catalog.service(Change::Listed(s.clone()));
        }
        catalog.service(Change::Whole);
        if catalog.needs_slices() {
            catalog.slice(Change::Begin);
            for s in slices {
                catalog.slice(Change::Listed(s.clone()));
            }
            catalog.slice(Change::Whole);
        }
        catalog
    }

    fn offered(asked: Asked, service: ApiService) -> (Vec<String>, Vec<String>) {
        let services = catalog(asked, &[service], &[]).services().unwrap();
        let mistakes = services.mistakes.into_iter().map(|m| m.text).collect();
        (services.offers.keys().map(ToString::to_string).collect(), mistakes)
    }

    fn node(name: &str) -> NodeView {
        NodeView { name: name.into(), ..NodeView::default() }
    }

    fn nodes(own: NodeView, others: impl IntoIterator<Item = NodeView>) -> Nodes {
        let others = others.into_iter().map(|n| (n.name.clone(), n.into())).collect();
        Nodes { own: Some(own), others, ..Nodes::default() }
    }

    fn rules(asked: &Asked) -> Rules<'_> {
        Rules { asked, ignore_exclude_label: false, withheld: None, refused: &|_, _| None }
    }

    /// What is announced.
    fn announced(verdicts: &[Verdict]) -> Vec<String> {
        verdicts.iter().filter_map(|v| Some(v.announced?.to_string())).collect()
    }

    #[test]
    fn configuration_selector_and_annotation_choose_the_addresses() {
        use Kind::{ClusterIp, ExternalIp, LoadBalancerIp};
        let (v4, v6, ext, lb) = ("10.96.0.7", "fd00:96::7", "192.0.2.7", "198.51.100.7");
        let annotated = |text: &str| json!({"metadata": {"annotations": {"routelet.io/advertise": text}}});
        let class = |class: &str| json!({"spec": {"loadBalancerClass": class}});
        let kinds = |kinds: &[Kind]| Asked {
            kinds: kinds.iter().copied().collect(),
            by_annotation: [ClusterIp, LoadBalancerIp].into(),
            classes: vec!["routelet.io/bgp".into()],
            ..Asked::default()
        };
        let web = |kind| Asked { selector: "team=web".parse().unwrap(), ..kinds(&[kind]) };
        let none = || json!({});
        #[rustfmt::skip]
        let cases: Vec<(&str, Asked, Value, Vec<&str>, usize)> = vec![
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
        for (name, asked, more, want, problems) in cases {
            let (offers, said) = offered(asked, service(more));
            assert_eq!(
                (offers, said.len()),
                (want.iter().map(|a| (*a).to_owned()).collect(), problems),
                "{name}: {said:?}"
            );
            assert!(said.iter().all(|p| p.contains("default/web")), "{said:?}");
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
            ("nothing said is ready",        vec![("n1", json!({}))], true),
            ("an old controller",            vec![("n1", of_old())], true),
            ("not ready",                    vec![("n1", unready())], false),
            ("elsewhere",                    vec![("n2", ready())], false),
            ("terminating, the last",        vec![("n1", serving()), ("n2", unready())], true),
            ("terminating, others too",      vec![("n1", serving()), ("n2", serving())], true),
            ("terminating, others are ready", vec![("n1", serving()), ("n2", ready())], false),
            ("ready but terminating",        vec![("n1", json!({"ready": true, "serving": true, "terminating": true}))], true),
            ("ended",                        vec![("n1", ended())], false),
        ];
        let asked = all();
        for (name, endpoints, want) in cases {
            let local =
                json!({"spec": {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster"}});
            let slices = [slice("IPv4", &endpoints)];
            let c = catalog(asked.clone(), &[service(local)], &slices);
            let judged = verdicts(&c.services().unwrap(), &nodes(node("n1"), []), rules(&asked));
            let external = |v: &&Verdict| !v.services[0].contains("cluster-ip");
            assert!(
                judged.iter().filter(external).all(|v| v.announced.is_some() == want),
                "{name}: {judged:?}"
            );
            assert_eq!(judged.iter().filter(|v| !external(v) && v.announced.is_some()).count(), 2, "{name}");

            let local =
                json!({"spec": {"externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Local"}});
            let c = catalog(asked.clone(), &[service(local)], &slices);
            let judged = verdicts(&c.services().unwrap(), &nodes(node("n1"), []), rules(&asked));
            let mut expected = vec!["192.0.2.7/32".to_owned(), "198.51.100.7/32".to_owned()];
            expected.splice(0..0, want.then(|| "10.96.0.7/32".to_owned()));
            assert_eq!(announced(&judged), expected, "{name}: cluster IPs, of IPv4 alone");
        }
    }

    /// antrea#8347, metallb#312: with the policy Cluster an address draws packets although no endpoint serves.
    #[test]
    fn metallb_312_services_without_endpoints_are_withdrawn_where_asked() {
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
        let asked = Asked { endpoints: true, ..all() };
        for (name, endpoints, want) in cases {
            let c = catalog(asked.clone(), &[service(json!({}))], &[slice("IPv4", &endpoints)]);
            let judged = verdicts(&c.services().unwrap(), &nodes(node("n1"), []), rules(&asked));
            let v4: Vec<_> = judged.iter().filter(|v| v.address.is_ipv4()).collect();
            assert_eq!(v4.len(), 3, "{name}");
            assert!(v4.iter().all(|v| v.announced.is_some() == want), "{name}: {judged:?}");
            let v6 = judged.iter().find(|v| v.address.is_ipv6()).unwrap();
            assert!(v6.reason.contains("withdraw-without-endpoints"), "{name}: no IPv6 endpoint: {v6:?}");
        }
        // An endpoint that names no node is one too.
        let elsewhere = json!({
            "metadata": {"namespace": "default", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
        });
        let slices = [serde_json::from_value(elsewhere).unwrap()];
        let mut c = catalog(asked.clone(), &[service(json!({}))], &slices);
        let told =
            |c: &Catalog| announced(&verdicts(&c.services().unwrap(), &nodes(node("n1"), []), rules(&asked)));
        assert_eq!(told(&c), ["10.96.0.7/32", "192.0.2.7/32", "198.51.100.7/32"]);
        // Without the right to see them nothing is withdrawn for it.
        c.forget_slices();
        assert!(c.no_slices());
        assert_eq!(told(&c).len(), 4);
        // Not asked for: nobody looks.
        assert!(!catalog(all(), &[service(json!({}))], &[]).needs_slices());
    }

    #[test]
    fn each_family_has_slices_of_its_own_and_deleted_ones_count_no_more() {
        let asked = Asked { kinds: [Kind::ClusterIp].into(), ..Asked::default() };
        let local = service(json!({"spec": {"internalTrafficPolicy": "Local"}}));
        let (four, six) = (slice("IPv4", &[("n1", json!({}))]), slice("IPv6", &[("n2", json!({}))]));
        let mut c = catalog(asked.clone(), &[local], &[four.clone(), six.clone()]);
        let told =
            |c: &Catalog| announced(&verdicts(&c.services().unwrap(), &nodes(node("n1"), []), rules(&asked)));
        assert_eq!(told(&c), ["10.96.0.7/32"]);
        assert!(c.slice(Change::Changed(slice("IPv6", &[("n1", json!({}))]))));
        assert_eq!(told(&c), ["10.96.0.7/32", "fd00:96::7/128"]);
        assert!(!c.slice(Change::Changed(slice("IPv6", &[("n1", json!({})), ("n1", json!({}))]))), "no news");
        assert!(c.slice(Change::Gone(four)));
        assert_eq!(told(&c), ["fd00:96::7/128"]);
        assert!(!c.slice(Change::Changed(slice("FQDN", &[("n1", json!({}))]))));
        let none: ApiSlice = serde_json::from_value(json!({
            "metadata": six.metadata, "addressType": "IPv6", "endpoints": null,
        }))
        .unwrap();
        assert!(c.slice(Change::Changed(none)));
        assert!(told(&c).is_empty());
    }

    #[test]
    fn what_was_known_stays_until_all_that_matters_is_listed() {
        let mut c = Catalog::new("n1".into());
        c.ask(all());
        let local = service(json!({"spec": {"externalTrafficPolicy": "Local"}}));
        c.service(Change::Begin);
        assert!(!c.service(Change::Listed(local.clone())) && c.services().is_none());
        assert!(c.service(Change::Whole) && c.needs_slices());
        assert!(c.services().is_none(), "EndpointSlices are missing");
        c.slice(Change::Begin);
        c.slice(Change::Whole);
        assert_eq!(c.services().unwrap().offers.len(), 4);

        // A second listing replaces the first when it is whole.
        c.service(Change::Begin);
        assert_eq!(c.services().unwrap().offers.len(), 4);
        assert!(c.service(Change::Whole));
        assert!(c.services().unwrap().offers.is_empty() && !c.needs_slices());

        // Whom the API server refuses the slices announces the rest and says so.
        c.service(Change::Changed(local.clone()));
        c.forget_slices();
        assert!(c.services().is_none());
        assert!(c.no_slices() && !c.no_slices());
        let known = c.services().unwrap();
        assert!(known.problems[0].contains("endpointslices"), "{:?}", known.problems);
        let asked = all();
        let judged = verdicts(&known, &nodes(node("n1"), []), rules(&asked));
        assert_eq!(announced(&judged), ["10.96.0.7/32", "fd00:96::7/128"]);
        assert!(c.service(Change::Gone(local)) && c.services().unwrap().offers.is_empty());
    }

    #[test]
    fn the_node_decides_what_it_takes() {
        use super::super::node::Going;
        let asked = Asked { whereabouts: true, ..all() };
        let place = |here, elsewhere: &[&str]| {
            Some(Places {
                here,
                elsewhere: elsewhere.iter().map(|n| (*n).to_owned()).collect(),
                ..Places::default()
            })
        };
        let excluded = || NodeView { excluded: true, ..node("n1") };
        let cordoned = |name: &str| NodeView { cordoned: true, ..node(name) };
        let going = |name: &str| NodeView { going: Some(Going::ShutsDown), ..node(name) };
        let (cluster, balancer) = (Kind::ClusterIp, Kind::LoadBalancerIp);
        #[rustfmt::skip]
        let cases: Vec<(&str, Kind, Option<Places>, NodeView, Vec<NodeView>, bool)> = vec![
            ("any node",                   balancer, None, node("n1"), vec![], true),
            ("excluded",                   balancer, None, excluded(), vec![node("n2")], false),
            ("excluded, cluster IP",       cluster,  None, excluded(), vec![node("n2")], true),
            ("shuts down",                 cluster,  None, going("n1"), vec![], false),
            ("cordoned, another is there", balancer, None, cordoned("n1"), vec![node("n2")], false),
            ("cordoned, the last",         balancer, None, cordoned("n1"), vec![cordoned("n2"), going("n3")], true),
            ("cordoned, others excluded",  balancer, None, cordoned("n1"),
                vec![NodeView { excluded: true, ..node("n2") }], true),
            ("local, endpoint elsewhere",  balancer, place(Here::Ready, &["n2"]), cordoned("n1"), vec![node("n2")], false),
            ("local, the last endpoint",   balancer, place(Here::Ready, &[]), cordoned("n1"), vec![node("n2")], true),
            ("local, others cordoned too", balancer, place(Here::Ready, &["n2"]), cordoned("n1"),
                vec![cordoned("n2"), node("n3")], true),
        ];
        for (name, kind, local, own, others, want) in cases {
            let offers =
                vec![Offer { service: "default/web".into(), kind, local, served: None, excess: None }];
            let services =
                Services { offers: [("192.0.2.7".parse().unwrap(), offers)].into(), ..Services::default() };
            let judged = verdicts(&services, &nodes(own.clone(), others.clone()), rules(&asked));
            assert_eq!(judged[0].announced.is_some(), want, "{name}: {}", judged[0].reason);
            // Cordoning matters to nobody who did not ask for it.
            let plain = Asked { whereabouts: false, ..asked.clone() };
            let judged = verdicts(&services, &nodes(own.clone(), others), rules(&plain));
            assert_eq!(judged[0].announced.is_some(), want || own.cordoned, "{name}, not asked for");
        }
        let services = catalog(all(), &[service(json!({}))], &[]).services().unwrap();
        let nobody = verdicts(&services, &Nodes::default(), rules(&asked));
        assert!(announced(&nobody).is_empty(), "without a Node nothing is announced");
        let drained = Rules { withheld: Some("drained"), ..rules(&asked) };
        assert!(announced(&verdicts(&services, &nodes(node("n1"), []), drained)).is_empty());
    }

    #[test]
    fn aggregates_stand_for_what_every_node_forwards_and_for_nothing_else() {
        let aggregates = vec!["10.96.0.0/16".parse().unwrap(), "10.96.0.0/24".parse().unwrap()];
        let asked = Asked { aggregates, ..all() };
        let rules = rules(&asked);
        let slices = [slice("IPv4", &[("n1", json!({}))]), slice("IPv6", &[("n1", json!({}))])];
        let told = |more: Value| {
            let c = catalog(asked.clone(), &[service(more)], &slices);
            announced(&verdicts(&c.services().unwrap(), &nodes(node("n1"), []), rules))
        };
        assert_eq!(told(json!({})), ["10.96.0.0/24", "192.0.2.7/32", "198.51.100.7/32", "fd00:96::7/128"]);
        let local = told(json!({"spec": {"internalTrafficPolicy": "Local"}}));
        assert_eq!(local[0], "10.96.0.7/32", "beside the aggregate of others");
    }

    #[test]
    fn a_shared_address_stands_while_one_service_stands_for_it() {
        let asked = all();
        let lb = "198.51.100.7";
        let one = service(json!({"spec": {"externalTrafficPolicy": "Local"}}));
        let two = service(json!({"metadata": {"name": "dns"}}));
        let c = catalog(asked.clone(), &[one, two], &[]);
        let judged = verdicts(&c.services().unwrap(), &nodes(node("n1"), []), rules(&asked));
        let shared = judged.iter().find(|v| v.address.to_string() == lb).unwrap();
        assert_eq!(shared.services, ["default/dns (load-balancer-ip)"]);
        assert_eq!(shared.announced, Some("198.51.100.7/32".parse().unwrap()));
    }

    /// A Service of another name and namespace, made at this second of 2026.
    fn another(namespace: &str, n: u32, at: u32) -> ApiService {
        let created = format!("2026-01-01T{:02}:{:02}:{:02}Z", at / 3600, at / 60 % 60, at % 60);
        service(json!({
            "metadata": {"namespace": namespace, "name": format!("s{n:05}"), "creationTimestamp": created},
            "spec": {"clusterIPs": [format!("10.97.{}.{}", n / 256, n % 256)]},
        }))
    }

    /// No namespace takes the place of others, and what is advertised stays so.
    #[test]
    fn services_beyond_the_limits_are_named_by_namespace_and_the_oldest_stay() {
        let asked = Asked { kinds: [Kind::ClusterIp].into(), ..Asked::default() };
        let greedy: Vec<_> = (0..300).map(|n| another("greedy", n, 1000 - n)).collect();
        let mut c = catalog(asked.clone(), &[greedy, vec![another("shop", 900, 5000)]].concat(), &[]);
        let judge = |c: &Catalog| {
            let known = c.services().unwrap();
            (verdicts(&known, &nodes(node("n1"), []), rules(&asked)), known.problems)
        };
        let (judged, problems) = judge(&c);
        let before = announced(&judged);
        assert_eq!((before.len(), before.contains(&"10.97.3.132/32".to_owned())), (101, true));
        assert!(before.contains(&"10.97.1.43/32".to_owned()), "the oldest, by its time and not by its name");
        let refused = judged.iter().find(|v| v.announced.is_none()).unwrap();
        assert!(
            refused.reason.contains("kubernetes.service-limit-per-namespace = 100"),
            "{}",
            refused.reason
        );
        assert!(problems.len() == 1 && problems[0].contains("namespace greedy"), "{problems:?}");

        // New ones change nothing, and one that goes makes room for one.
        assert!(c.service(Change::Changed(another("greedy", 1, 7000))));
        assert_eq!(announced(&judge(&c).0), before);
        assert!(c.service(Change::Gone(another("greedy", 299, 701))));
        assert_eq!(announced(&judge(&c).0).len(), 101);

        // Addresses inside an aggregate count for no limit.
        let aggregates = vec!["10.97.0.0/16".parse().unwrap()];
        let many: Vec<_> = (0..5000).map(|n| another("greedy", n, n)).collect();
        let asked = Asked { aggregates, ..asked.clone() };
        let known = catalog(asked.clone(), &many, &[]).services().unwrap();
        let judged = verdicts(&known, &nodes(node("n1"), []), rules(&asked));
        assert!(judged.iter().all(|v| v.announced.is_some()) && known.problems.is_empty());
    }

    /// Whatever a tenant writes, little of it is kept.
    #[test]
    fn names_and_addresses_without_end_are_left_out() {
        let asked = all();
        let long = "x".repeat(256 << 10);
        for meta in [
            json!({"name": long}),
            json!({"namespace": long}),
            json!({"name": "a\u{1b}[2J"}),
            json!({"name": ""}),
        ] {
            let c = catalog(asked.clone(), &[service(json!({ "metadata": meta }))], &[]);
            assert!(c.services().unwrap().offers.is_empty());
        }
        let many: Vec<_> = (0..20_000).map(|n| format!("192.0.{}.{}", n / 256, n % 256)).collect();
        let c = catalog(asked.clone(), &[service(json!({"spec": {"externalIPs": many}}))], &[]);
        let known = c.services().unwrap();
        let external = known.offers.values().flatten().filter(|o| o.kind == Kind::ExternalIp).count();
        assert_eq!(external, MAX_ADDRESSES);
        assert!(known.mistakes[0].text.contains("more than 16 addresses of the kind external-ip"));
    }
}
