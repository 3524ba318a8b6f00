//! Reduces a Node object to [`NodeView`]: the validated fields that matter to routing.
//!
//! Objects are parsed into [`ApiNode`], which has only those fields: a Node of a real cluster is 10
//! to 30 kB of JSON (images, conditions, managed fields), its view some hundred octets. The watch
//! only stores views.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};

use crate::net::{AS_TRANS, Asn, Diagnostic, Family, Prefix, Reason, RouterId, Subject, text::untrusted};

/// Maximum number of problems that are reported for one Node.
const MAX_NODE_PROBLEMS: usize = 8;

/// The known Nodes of the cluster. Level-triggered: each change creates a new value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Our own Node, once it was received.
    pub own: Option<NodeView>,
    /// The others by name; empty if the peering does not need them. Views are shared between
    /// copies.
    #[serde(with = "shared")]
    pub others: BTreeMap<String, Arc<NodeView>>,
    /// Whether the list of the others is complete.
    pub complete: bool,
    /// Whether our admission policy prevents kubelets from changing `routelet.io/` labels and
    /// annotations of their Nodes; `None` if not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarded: Option<bool>,
    /// Service ranges, from ServiceCIDR objects or the configuration.
    pub service_cidrs: Vec<Prefix>,
    /// Addresses of the API server, for the route guard.
    pub api_servers: Vec<IpAddr>,
}

/// The fields of a Node that matter to routing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub name: String,
    pub uid: String,
    /// The valid prefixes of `spec.podCIDRs`.
    pub pod_cidrs: Vec<Prefix>,
    /// Former pod CIDRs of the Node with this name: pods may still have addresses of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Prefix>,
    /// InternalIP addresses in the Node's order, or those used instead.
    pub addresses: Vec<IpAddr>,
    /// ExternalIP addresses in the Node's order, used if it has no InternalIP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<IpAddr>,
    /// Whether `addresses` are those of `external`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_external: bool,
    /// Addresses that the Node did not report originally: a kubelet may add another Node's address,
    /// so they have lower precedence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<IpAddr>,
    /// Addresses that the Node no longer reports, and that stay in force.
    #[serde(skip)]
    pub retained: Vec<IpAddr>,
    /// Whether routelet runs there.
    #[serde(default)]
    pub routelet: Presence,
    /// Its AS number if it differs from the cluster's: from [`NodeView::marks`], or from
    /// [`NodeView::open_marks`] if those count.
    pub asn: Option<Asn>,
    /// Annotation `routelet.io/router-id`.
    pub router_id: Option<RouterId>,
    /// Annotation `routelet.io/peering`.
    pub peering: Option<String>,
    /// Whether it must or must not be a route reflector; from the same sources.
    pub reflector: Option<bool>,
    /// Settings from labels that kubelets cannot set.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
    /// Settings from the label `routelet.io/route-reflector` and the annotation `routelet.io/as`,
    /// which a kubelet can set unless our admission policy is in force.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub open_marks: Marks,
    /// Creation time in seconds since 1970: the older of two Nodes with the same pod CIDR keeps it.
    #[serde(default)]
    pub created: Option<i64>,
    /// Whether the Node was deleted: every other Node has precedence over it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// All labels; only for our own Node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Keys of all taints in the Node's order; only for our own Node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// Condition `NetworkUnavailable`.
    #[serde(default)]
    pub network_unavailable: Option<bool>,
    /// Reason of that condition; only for our own Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_reason: Option<String>,
    /// Whether the condition Ready is Unknown: the kubelet has stopped reporting.
    #[serde(default, rename = "unheard")]
    pub not_reporting: bool,
    /// Label `node.kubernetes.io/exclude-from-external-load-balancers`.
    #[serde(default)]
    pub excluded: bool,
    /// `spec.unschedulable`.
    #[serde(default)]
    pub cordoned: bool,
    /// Why the node is about to leave the cluster. Not saved: a machine that starts is no longer
    /// shutting down.
    #[serde(skip)]
    pub going: Option<Going>,
    /// Values that could not be parsed, with the reason.
    #[serde(default, rename = "diagnostics", skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Diagnostic>,
}

/// Settings of a Node by labels and annotations that affect other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<Asn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflector: Option<bool>,
}

impl Marks {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { asn: self.asn.or(other.asn), reflector: self.reflector.or(other.reflector) }
    }
}

/// Whether routelet runs on a Node, as far as the Node object shows.
///
/// All nodes have the list of Nodes in common, so presence is shown there: by the reason of the
/// condition `NetworkUnavailable`, which routelet writes as soon as it has a plan. This requires
/// neither further rights nor another watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Not shown: routelet may be about to start there, or the DaemonSet excludes the Node.
    #[default]
    Unknown,
    /// The condition was written by routelet.
    Signed,
    /// The condition was written by a routelet without sessions among nodes (peering `none` or
    /// `gateway`).
    Apart,
    /// Another operating system, or no real machine: KWOK, virtual kubelets, Fargate.
    Impossible,
}

/// Why a node leaves the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    /// The kubelet stops the pods because the machine shuts down.
    ShutsDown,
    /// The cluster autoscaler is about to delete it (KEP-3836: load balancers respect this taint).
    ToBeDeleted,
    /// It was declared out of service.
    OutOfService,
}

impl Going {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ShutsDown => "the machine shuts down",
            Self::ToBeDeleted => "the Node is about to be deleted (taint of the cluster autoscaler)",
            Self::OutOfService => "the Node is out of service (taint)",
        }
    }
}

/// The fields of a Node object that are parsed.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = Node)]
pub struct ApiNode {
    #[serde(deserialize_with = "super::metadata::lean")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ApiSpec,
    #[serde(default)]
    pub status: ApiNodeStatus,
}

/// `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiSpec {
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    pub unschedulable: bool,
    pub taints: Vec<ApiTaint>,
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
}

/// An entry of `spec.taints`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiTaint {
    pub key: String,
}

/// `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiNodeStatus {
    pub addresses: Vec<ApiAddress>,
    pub conditions: Vec<ApiCondition>,
    pub node_info: ApiNodeInfo,
}

/// `status.nodeInfo`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiNodeInfo {
    pub operating_system: String,
}

/// An entry of `status.conditions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

/// An entry of `status.addresses`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiAddress {
    #[serde(rename = "type")]
    pub kind: String,
    pub address: String,
}

impl NodeView {
    /// The first InternalIP of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| Family::of(*a) == family)
    }

    /// The address of `other` for a session between the two: IPv4 if both have it, else IPv6. One
    /// session carries both families.
    pub fn common_address(&self, other: &Self) -> Option<IpAddr> {
        self.common_address_but(other, |_| false)
    }

    /// The same, without addresses of the other that are `wrong`.
    pub fn common_address_but(&self, other: &Self, wrong: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        Family::ALL.into_iter().find_map(|f| {
            self.address(f)?;
            other.addresses.iter().copied().find(|a| Family::of(*a) == f && !wrong(*a))
        })
    }

    /// Applies the settings that count; `guarded`: kubelets cannot set any.
    pub fn apply_marks(&mut self, guarded: bool) {
        let marks = if guarded { self.marks.or(self.open_marks) } else { self.marks };
        (self.asn, self.reflector) = (marks.asn, marks.reflector);
    }

    /// Drops the fields that are only needed for our own Node, to save memory in large clusters.
    #[must_use]
    pub fn without_own_details(self) -> Self {
        Self { labels: BTreeMap::new(), taints: Vec::new(), network_reason: None, ..self }
    }

    /// Whether this Node has precedence for a prefix or address that both have: the older one,
    /// since its pods are running.
    pub fn comes_before(&self, other: &Self) -> bool {
        let rank = |n: &Self| (n.deleted, n.created);
        (rank(self), &self.name) < (rank(other), &other.name)
    }

    /// The addresses that it reported originally: those that are not in `added`.
    pub fn first_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied().filter(|a| !self.added.contains(a))
    }

    /// What this node still needs before it can take part, if anything.
    pub fn missing(&self) -> Option<&'static str> {
        if self.addresses.is_empty() && self.external.is_empty() {
            Some("the Node has no InternalIP address yet")
        } else if self.pod_cidrs.is_empty() {
            Some(
                "the Node has no pod CIDR yet (the controller manager assigns one with --allocate-node-cidrs)",
            )
        } else {
            None
        }
    }
}

impl Nodes {
    /// All Nodes, our own first.
    pub fn all(&self) -> impl Iterator<Item = &NodeView> {
        self.own.iter().chain(self.others())
    }

    pub fn others(&self) -> impl Iterator<Item = &NodeView> {
        self.others.values().map(Arc::as_ref)
    }

    /// What this node is waiting for, if anything.
    pub fn missing(&self) -> Option<&'static str> {
        self.own.as_ref().map_or(Some("the Node does not exist yet"), NodeView::missing)
    }

    /// What to do about [`Nodes::missing`]. `name` is the name that our Node should have.
    pub fn remedy(&self, name: &str) -> String {
        match &self.own {
            None if self.others.is_empty() => {
                format!("no Node is named {name}: check --node-name, or $NODE_NAME")
            }
            None => {
                let names: Vec<_> = self.others.keys().take(5).map(String::as_str).collect();
                format!(
                    "no Node is named {name} (existing Nodes include {}): check --node-name, or $NODE_NAME",
                    names.join(", ")
                )
            }
            Some(own) if own.addresses.is_empty() && own.external.is_empty() => {
                "see that the kubelet runs there, with --node-ip where there are several addresses".into()
            }
            Some(_) => "start the controller manager with --allocate-node-cidrs and --cluster-cidr".into(),
        }
    }
}

impl From<&ApiNode> for NodeView {
    fn from(node: &ApiNode) -> Self {
        let mut view = Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            created: node.metadata.creation_timestamp.as_ref().map(|t| t.0.as_second()),
            ..Self::default()
        };
        view.read_pod_cidrs(&node.spec);
        view.read_addresses(&node.status);
        view.read_external(&node.status);
        let condition = node.status.conditions.iter().find(|c| c.kind == "NetworkUnavailable");
        view.network_reason = condition.map(|c| untrusted(&c.reason)).filter(|reason| !reason.is_empty());
        view.routelet = presence(node, view.network_reason.as_deref());
        view.network_unavailable = condition.and_then(|c| match c.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        });
        view.not_reporting =
            node.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "Unknown");
        view.cordoned = node.spec.unschedulable;
        view.going = going(node);
        view.labels = node.metadata.labels.clone().unwrap_or_default();
        view.taints = node.spec.taints.iter().take(MAX_TAINTS).map(|t| t.key.clone()).collect();
        view.read_annotations(node.metadata.annotations.as_ref());
        view.read_labels(node.metadata.labels.as_ref());
        view.apply_marks(false);
        view
    }
}

const NODE_IP: &str = "start the kubelet with --node-ip";
const DELETE: &str = "delete the Node, and let the kubelet register it again";

impl NodeView {
    fn read_pod_cidrs(&mut self, spec: &ApiSpec) {
        let single = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.is_empty());
        for text in spec.pod_cidrs.iter().chain(single).filter(|t| !t.is_empty()) {
            match text.parse::<Prefix>() {
                Ok(p) if self.pod_cidrs.contains(&p) => {}
                Ok(p) => self.pod_cidrs.push(p),
                Err(_) => {
                    let text = format!("pod CIDR `{}` is not a prefix and is ignored", untrusted(text));
                    self.problem(Reason::NodeMarkInvalid, Subject::mark("podCIDRs"), text, DELETE);
                }
            }
        }
        if self.pod_cidrs.len() > MAX_POD_CIDRS {
            self.pod_cidrs.truncate(MAX_POD_CIDRS);
            let text = format!("the Node has more than {MAX_POD_CIDRS} pod CIDRs: the rest is ignored");
            self.problem(Reason::NodeMarkInvalid, Subject::mark("podCIDRs"), text, DELETE);
        }
    }

    fn read_addresses(&mut self, status: &ApiNodeStatus) {
        for a in status.addresses.iter().filter(|a| a.kind == "InternalIP") {
            match a.address.parse::<IpAddr>() {
                Ok(addr) if !usable(addr) => {
                    let text = format!("InternalIP {addr} is not usable as address of a node and is ignored");
                    self.problem(Reason::NodeAddressInvalid, Subject::address(addr), text, NODE_IP);
                }
                Ok(addr) if self.addresses.contains(&addr) => {}
                Ok(addr) => self.addresses.push(addr),
                Err(_) => {
                    let shown = untrusted(&a.address);
                    let text = format!("InternalIP `{shown}` is not an IP address and is ignored");
                    self.problem(Reason::NodeAddressInvalid, Subject::address(shown), text, NODE_IP);
                }
            }
        }
        if self.addresses.len() > MAX_ADDRESSES {
            let count = self.addresses.len();
            self.addresses.truncate(MAX_ADDRESSES);
            let text = format!("the Node has {count} InternalIPs: only the first {MAX_ADDRESSES} are used");
            self.problem(Reason::NodeAddressInvalid, Subject::host(), text, NODE_IP);
        }
    }

    /// Invalid ExternalIPs are ignored without a problem: most nodes do not use them.
    fn read_external(&mut self, status: &ApiNodeStatus) {
        let external = status.addresses.iter().filter(|a| a.kind == "ExternalIP");
        let usable = external.filter_map(|a| a.address.parse().ok()).filter(|a| usable(*a));
        self.external = usable.take(MAX_ADDRESSES).collect();
    }

    fn read_annotations(&mut self, annotations: Option<&BTreeMap<String, String>>) {
        let get =
            |key: &str| annotations.and_then(|a| a.get(key)).map(|v| v.trim()).filter(|v| !v.is_empty());
        self.open_marks.asn =
            get(AS_ANNOTATION).and_then(|text| self.read_as("annotation", AS_ANNOTATION, text));
        if let Some(text) = get(ROUTER_ID_ANNOTATION) {
            match text.parse::<RouterId>() {
                Ok(id) if !id.is_unspecified() => self.router_id = Some(id),
                _ => self.invalid_mark(
                    "annotation",
                    ROUTER_ID_ANNOTATION,
                    text,
                    "not a router ID in dotted form",
                ),
            }
        }
        self.peering = get(PEERING_ANNOTATION).map(untrusted);
    }

    fn read_labels(&mut self, labels: Option<&BTreeMap<String, String>>) {
        let get = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
        self.zone = get("topology.kubernetes.io/zone").map(untrusted);
        self.excluded = get(EXCLUDED_LABEL).is_some();
        let [guarded, open] = [GUARDED_REFLECTOR_LABEL, REFLECTOR_LABEL].map(|key| (key, get(key)));
        self.marks.reflector = self.read_reflector(guarded);
        self.open_marks.reflector = self.read_reflector(open);
        self.marks.asn = get(GUARDED_AS_LABEL).and_then(|text| self.read_as("label", GUARDED_AS_LABEL, text));
    }

    fn read_reflector(&mut self, (key, text): (&str, Option<&str>)) -> Option<bool> {
        match text? {
            "true" | "" => Some(true),
            "false" => Some(false),
            other => {
                self.invalid_mark("label", key, other, "neither \"true\" nor \"false\"");
                None
            }
        }
    }

    fn read_as(&mut self, what: &str, key: &str, text: &str) -> Option<Asn> {
        let asn = text.parse::<Asn>().ok().filter(|n| valid_asn(*n));
        if asn.is_none() {
            let valid = "not an AS number (1 to 4294967294 without 23456 and 65535)";
            self.invalid_mark(what, key, text, valid);
        }
        asn
    }

    /// A Node can have thousands of addresses; a few problems suffice to show the cause.
    fn problem(&mut self, reason: Reason, subject: Subject, text: String, remedy: &str) {
        if self.problems.len() < MAX_NODE_PROBLEMS {
            self.problems.push(Diagnostic::new(reason, subject, text, remedy));
        }
    }

    /// A label or an annotation that is ignored.
    fn invalid_mark(&mut self, what: &str, key: &str, value: &str, why: &str) {
        let text = format!("{what} {key}: `{}` is {why}; it is ignored", untrusted(value));
        self.problem(Reason::NodeMarkInvalid, Subject::mark(key), text, "correct or remove it");
    }
}

/// Serialises views without the `Arc` around them.
mod shared {
    use std::{collections::BTreeMap, sync::Arc};

    use serde::{Deserialize, Deserializer, Serializer};

    use super::NodeView;

    type Others = BTreeMap<String, Arc<NodeView>>;

    pub(super) fn serialize<S: Serializer>(others: &Others, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(others.iter().map(|(name, view)| (name, view.as_ref())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Others, D::Error> {
        let views = BTreeMap::<String, NodeView>::deserialize(from)?;
        Ok(views.into_iter().map(|(name, view)| (name, Arc::new(view))).collect())
    }
}

/// Evidence that routelet cannot run there overrides the condition, which templates of fake Nodes
/// copy.
fn presence(node: &ApiNode, reason: Option<&str>) -> Presence {
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    let other_system = [
        Some(node.status.node_info.operating_system.as_str()),
        label("kubernetes.io/os"),
        label("beta.kubernetes.io/os"),
    ];
    let other_system = other_system.into_iter().flatten().any(|os| !os.is_empty() && os != "linux");
    let fake = matches!(label("type"), Some("kwok" | "virtual-kubelet"))
        || label("liqo.io/type") == Some("virtual-node")
        || label("eks.amazonaws.com/compute-type") == Some("fargate")
        || node.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kwok.x-k8s.io/node"))
        || node.spec.provider_id.as_ref().is_some_and(|id| id.starts_with("kwok:"))
        || node.spec.taints.iter().any(|t| t.key.starts_with("virtual-kubelet.io/"));
    match reason {
        _ if other_system || fake => Presence::Impossible,
        Some(reason) => super::condition::presence(reason),
        None => Presence::Unknown,
    }
}

/// A kubelet shows a shutdown only in the message of `Ready`.
fn going(node: &ApiNode) -> Option<Going> {
    let ready = node.status.conditions.iter().find(|c| c.kind == "Ready");
    let shuts_down =
        ready.is_some_and(|c| c.status == "False" && c.message.contains("node is shutting down"));
    let tainted = |key: &str| node.spec.taints.iter().any(|t| t.key == key);
    match () {
        () if shuts_down => Some(Going::ShutsDown),
        () if tainted("node.kubernetes.io/out-of-service") => Some(Going::OutOfService),
        () if tainted("ToBeDeletedByClusterAutoscaler") => Some(Going::ToBeDeleted),
        () => None,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "signature required by serde")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Whether a session could use it: not a loopback, link-local, multicast or unspecified address.
fn usable(addr: IpAddr) -> bool {
    let local = match addr {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    !(local || addr.is_loopback() || addr.is_multicast() || addr.is_unspecified())
}

/// Excludes the AS numbers that no speaker may have (RFC 7607, RFC 6793 §9, RFC 7300).
fn valid_asn(n: Asn) -> bool {
    !matches!(n, 0 | AS_TRANS | 65535 | u32::MAX)
}

/// Maximum number of former pod CIDRs of a Node.
pub(super) const MAX_FORMER: usize = 8;
/// Maximum number of InternalIPs of a Node, and of ExternalIPs.
const MAX_ADDRESSES: usize = 8;
/// Maximum number of pod CIDRs; the API server allows one of each family.
const MAX_POD_CIDRS: usize = 8;
/// Maximum number of taints of our own Node that are kept.
const MAX_TAINTS: usize = 256;
const AS_ANNOTATION: &str = "routelet.io/as";
const ROUTER_ID_ANNOTATION: &str = "routelet.io/router-id";
const PEERING_ANNOTATION: &str = "routelet.io/peering";
pub(crate) const REFLECTOR_LABEL: &str = "routelet.io/route-reflector";
/// The same as labels that kubelets cannot set if the admission plugin NodeRestriction is enabled.
pub(crate) const GUARDED_REFLECTOR_LABEL: &str = "node-restriction.kubernetes.io/routelet-route-reflector";
pub(crate) const GUARDED_AS_LABEL: &str = "node-restriction.kubernetes.io/routelet-as";
/// External load balancers do not use such a Node, regardless of the label's value.
pub(crate) const EXCLUDED_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

#[cfg(test)]
mod tests {
    use super::*;

    /// A view with our admission policy in force.
    fn view(json: &str) -> NodeView {
        let mut view = NodeView::from(&serde_json::from_str::<ApiNode>(json).unwrap());
        view.apply_marks(true);
        view
    }

    #[test]
    fn settings_that_a_kubelet_can_change_count_only_with_the_admission_policy() {
        let node = |labels: &str, annotations: &str| {
            view(&format!(
                r#"{{"metadata": {{"name": "n1", "labels": {{{labels}}}, "annotations": {{{annotations}}}}}}}"#
            ))
        };
        let (open, guarded) = (
            r#""routelet.io/route-reflector": "true""#,
            r#""node-restriction.kubernetes.io/routelet-route-reflector": "false""#,
        );
        let guarded_as = r#""node-restriction.kubernetes.io/routelet-as": "65020""#;
        let as_annotation = r#""routelet.io/as": "65010""#;
        let cases = [
            (open.to_owned(), as_annotation, [(None, None), (Some(true), Some(65010))]),
            (guarded.to_owned(), "", [(Some(false), None), (Some(false), None)]),
            (format!("{open}, {guarded}, {guarded_as}"), as_annotation, [(Some(false), Some(65020)); 2]),
        ];
        for (labels, annotations, expected) in cases {
            let mut v = node(&labels, annotations);
            for (is_guarded, expected) in [false, true].into_iter().zip(expected) {
                v.apply_marks(is_guarded);
                assert_eq!((v.reflector, v.asn), expected, "{labels} {annotations} {is_guarded}");
            }
        }
        let wrong = node(r#""node-restriction.kubernetes.io/routelet-as": "x""#, "");
        assert!(
            wrong.asn.is_none() && wrong.problems[0].contains("is not an AS number"),
            "{:?}",
            wrong.problems
        );
    }

    #[test]
    fn a_dual_stack_node_keeps_the_order_of_its_addresses() {
        let v = view(
            r#"{"metadata": {"name": "n1", "uid": "u1", "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"topology.kubernetes.io/zone": "a"},
                    "annotations": {"routelet.io/as": "65010", "routelet.io/router-id": "1.2.3.4",
                                    "routelet.io/peering": "mesh"}},
                "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
                "status": {"images": [{"names": ["x"]}], "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "InternalIP", "address": "10.99.0.11"}, {"type": "InternalIP", "address": "fd00:99::11"},
                    {"type": "ExternalIP", "address": "192.0.2.1"}]}}"#,
        );
        assert_eq!(v.pod_cidrs, ["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()]);
        assert_eq!(v.address(Family::Ipv4Unicast), Some("10.99.0.11".parse().unwrap()));
        assert_eq!(v.address(Family::Ipv6Unicast), Some("fd00:99::11".parse().unwrap()));
        assert_eq!(
            (v.asn, v.router_id, v.zone.as_deref(), v.created),
            (Some(65010), Some([1, 2, 3, 4].into()), Some("a"), Some(1_767_323_045))
        );
        assert_eq!((v.peering.as_deref(), v.reflector, v.missing()), (Some("mesh"), None, None));
        assert!(v.problems.is_empty(), "{:?}", v.problems);
    }

    #[test]
    fn the_condition_of_the_network_is_read() {
        for (status, want) in [("True", Some(true)), ("False", Some(false)), ("Unknown", None)] {
            let v = view(&format!(
                r#"{{"metadata": {{"name": "n1"}}, "status": {{"conditions": [
                    {{"type": "Ready", "status": "True"}}, {{"type": "NetworkUnavailable", "status": "{status}"}}]}}}}"#
            ));
            assert_eq!(v.network_unavailable, want, "{status}");
        }
    }

    #[test]
    fn nodes_where_routelet_cannot_run_are_distinguished_from_those_that_show_it() {
        let signed = r#""status": {"conditions": [{"type": "NetworkUnavailable", "status": "False",
            "reason": "RouteletIsUp"}]}"#;
        let foreign = signed.replace("RouteletIsUp", "RouteCreated");
        let labelled =
            |key: &str, value: &str| format!(r#""metadata": {{"labels": {{"{key}": "{value}"}}}}"#);
        #[rustfmt::skip]
        let cases = [
            (String::from(r#""metadata": {}"#),                                       Presence::Unknown),
            (signed.into(),                                                           Presence::Signed),
            (signed.replace("RouteletIsUp", "RouteletIsStarting"),                    Presence::Signed),
            (signed.replace("RouteletIsUp", "RouteletHasNoNeighbor"),                 Presence::Signed),
            (signed.replace("RouteletIsUp", "RouteletIsUpOutsideMesh"),               Presence::Apart),
            (foreign,                                                                 Presence::Unknown),
            (labelled("kubernetes.io/os", "linux"),                                   Presence::Unknown),
            (labelled("kubernetes.io/os", "windows"),                                 Presence::Impossible),
            (format!("{}, {signed}", labelled("kubernetes.io/os", "windows")),        Presence::Impossible),
            (format!("{}, {signed}", labelled("type", "kwok")),                       Presence::Impossible),
            (labelled("type", "virtual-kubelet"),                                     Presence::Impossible),
            (labelled("eks.amazonaws.com/compute-type", "fargate"),                   Presence::Impossible),
            (r#""metadata": {"annotations": {"kwok.x-k8s.io/node": "fake"}}"#.into(), Presence::Impossible),
            (r#""status": {"nodeInfo": {"operatingSystem": "windows"}}"#.into(),      Presence::Impossible),
            (r#""status": {"nodeInfo": {"operatingSystem": "linux"}}"#.into(),        Presence::Unknown),
            (r#""spec": {"providerID": "kwok://n1"}"#.into(),                         Presence::Impossible),
            (r#""spec": {"taints": [{"key": "virtual-kubelet.io/provider"}]}"#.into(), Presence::Impossible),
        ];
        for (part, want) in cases {
            let meta = if part.contains("metadata") { "" } else { r#""metadata": {}, "# };
            assert_eq!(view(&format!("{{{meta}{part}}}")).routelet, want, "{part}");
        }
    }

    #[test]
    fn eight_addresses_are_used_and_external_ones_are_separate() {
        let entry = |kind: &str, a: String| format!(r#"{{"type": "{kind}", "address": "{a}"}}"#);
        let internal = (1..=10).map(|n| entry("InternalIP", format!("10.0.0.{n}")));
        let external = ["192.0.2.1", "127.0.0.1", "x"].map(|a| entry("ExternalIP", a.into()));
        let list = internal.chain(external).collect::<Vec<_>>().join(",");
        let v = view(&format!(r#"{{"metadata": {{}}, "status": {{"addresses": [{list}]}}}}"#));
        assert_eq!((v.addresses.len(), v.external), (8, vec!["192.0.2.1".parse().unwrap()]));
        assert!(v.problems[0].contains("10 InternalIPs"), "{:?}", v.problems);
    }

    /// Anybody with the token of a kubelet can write its Node.
    #[test]
    fn texts_of_a_node_are_bounded() {
        let long = "x\u{1b}[2J".repeat(10_000);
        let cidrs: Vec<_> =
            (0..2000).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).chain([long.clone()]).collect();
        let taints: Vec<_> = (0..5000).map(|n| serde_json::json!({ "key": format!("t{n}") })).collect();
        let addresses: Vec<_> =
            (0..100).map(|_| serde_json::json!({ "type": "InternalIP", "address": long })).collect();
        let node = serde_json::json!({
            "metadata": { "name": "n1", "labels": { "topology.kubernetes.io/zone": long, "rack": "a" },
                "annotations": { "routelet.io/as": long, "routelet.io/peering": long, "other": long } },
            "spec": { "podCIDRs": cidrs, "taints": taints },
            "status": { "addresses": addresses,
                "conditions": [{ "type": "NetworkUnavailable", "status": "True", "reason": long, "message": long }] },
        });
        let v = view(&node.to_string());
        assert_eq!((v.pod_cidrs.len(), v.taints.len(), v.labels.len()), (MAX_POD_CIDRS, MAX_TAINTS, 1));
        let kept = serde_json::to_string(&v).unwrap();
        assert!(kept.len() < 16 * 1024 && !kept.contains("\\u001b"), "{}", kept.len());
    }

    #[test]
    fn a_node_that_leaves_the_cluster_is_recognised() {
        let condition = |status: &str, message: &str| {
            format!(
                r#""status": {{"conditions": [{{"type": "Ready", "status": "{status}", "message": "{message}"}}]}}"#
            )
        };
        let taint =
            |key: &str| format!(r#""spec": {{"taints": [{{"key": "{key}", "effect": "NoSchedule"}}]}}"#);
        let both = "[container runtime is down, node is shutting down]";
        for (part, want) in [
            (condition("False", "node is shutting down"), Some(Going::ShutsDown)),
            (condition("False", both), Some(Going::ShutsDown)),
            (condition("False", "container runtime is down"), None),
            (condition("True", "kubelet is posting ready status"), None),
            (taint("ToBeDeletedByClusterAutoscaler"), Some(Going::ToBeDeleted)),
            (taint("node.kubernetes.io/out-of-service"), Some(Going::OutOfService)),
            (taint("node.kubernetes.io/unschedulable"), None),
        ] {
            let v = view(&format!(r#"{{"metadata": {{"name": "n1"}}, {part}}}"#));
            assert_eq!(v.going, want, "{part}");
        }
        let v = view(
            r#"{"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}},
                "spec": {"unschedulable": true}}"#,
        );
        assert!(v.excluded && v.cordoned);
        let kept: NodeView = serde_json::from_str(
            &serde_json::to_string(&NodeView { going: Some(Going::ShutsDown), ..v.clone() }).unwrap(),
        )
        .unwrap();
        assert_eq!(kept, v, "the next boot begins without it");
    }

    #[test]
    fn what_is_missing_is_named_in_the_order_in_which_it_comes() {
        let nodes = |own| Nodes { own, ..Nodes::default() };
        assert_eq!(nodes(None).missing(), Some("the Node does not exist yet"));
        let bare = view(r#"{"metadata": {"name": "n1"}}"#);
        assert_eq!(nodes(Some(bare)).missing(), Some("the Node has no InternalIP address yet"));
        let v = view(
            r#"{"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}"#,
        );
        assert!(v.missing().unwrap().starts_with("the Node has no pod CIDR yet"));
    }

    #[test]
    fn malformed_parts_are_left_out_and_named() {
        let cases = [
            (r#""spec": {"podCIDRs": ["10.244.1.0"]}"#, "pod CIDR `10.244.1.0`"),
            (r#""status": {"addresses": [{"type": "InternalIP", "address": "n1"}]}"#, "InternalIP `n1`"),
            (
                r#""status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}"#,
                "InternalIP 127.0.0.1",
            ),
            (
                r#""status": {"addresses": [{"type": "InternalIP", "address": "fe80::1"}]}"#,
                "InternalIP fe80::1",
            ),
        ];
        for (part, want) in cases {
            let v = view(&format!(r#"{{"metadata": {{"name": "n1"}}, {part}}}"#));
            assert!(v.problems.iter().any(|p| p.contains(want)), "{part}: {:?}", v.problems);
            assert!(v.pod_cidrs.is_empty() && v.addresses.is_empty(), "{part}");
        }
    }

    #[test]
    fn malformed_annotations_and_labels_are_ignored_and_named() {
        for (key, value) in [
            (AS_ANNOTATION, "0"),
            (AS_ANNOTATION, "23456"),
            (AS_ANNOTATION, "65535"),
            (AS_ANNOTATION, "4294967295"),
            (AS_ANNOTATION, "ten"),
            (ROUTER_ID_ANNOTATION, "0.0.0.0"),
            (ROUTER_ID_ANNOTATION, "7"),
        ] {
            let v = view(&format!(r#"{{"metadata": {{"annotations": {{"{key}": "{value}"}}}}}}"#));
            assert!(
                v.problems.len() == 1 && v.problems[0].contains(value),
                "{key}={value}: {:?}",
                v.problems
            );
            assert_eq!((v.asn, v.router_id), (None, None), "{key}={value}");
        }
        for (value, want, problems) in
            [("true", Some(true), 0), ("", Some(true), 0), ("false", Some(false), 0), ("x", None, 1)]
        {
            let v = view(&format!(r#"{{"metadata": {{"labels": {{"{REFLECTOR_LABEL}": "{value}"}}}}}}"#));
            assert_eq!((v.reflector, v.problems.len()), (want, problems), "{value}");
        }
    }
}
