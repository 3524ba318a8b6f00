//! The data of `show node`.

use std::{collections::BTreeSet, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::services::Eligibility;

use super::node::{NodeView, Nodes, Presence};
use crate::{
    cni::view::{ConflistState, ConflistStatus},
    net::{Diagnostic, Prefix, Reach, Reachable, Reason, Subject, Unresolved},
};

/// The Kubernetes side of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Name of this node's Node object.
    pub node: String,
    /// `null` until the Node was received.
    pub uid: Option<String>,
    /// Pod CIDRs of this Node.
    pub pod_cidrs: Vec<Prefix>,
    /// InternalIP addresses of this Node.
    pub addresses: Vec<IpAddr>,
    /// Ranges of cluster IPs: from ServiceCIDR objects, or the configuration.
    #[serde(default)]
    pub service_cidrs: Vec<Prefix>,
    /// The file for the container runtime.
    pub conflist: ConflistStatus,
    /// The other nodes that a mesh would peer with; empty if the peering does not need them.
    pub mesh_members: Vec<MeshMember>,
    /// Nodes that are route reflectors; empty in a mesh.
    #[serde(default)]
    pub reflectors: Vec<String>,
    /// The connection to the API server.
    pub api: ApiStatus,
    /// Nodes that are reached over the default route only, so that their paths are not used.
    pub unresolved_nodes: usize,
    /// The remedy for that.
    pub remedy: Option<String>,
    /// Addresses of Services: whether each is advertised, and why.
    #[serde(default)]
    pub services: Vec<Eligibility>,
    /// What the Node still lacks, with the remedy.
    #[serde(default)]
    pub waiting: Option<Diagnostic>,
    /// Problems for the operator, each with its remedy.
    pub problems: Vec<String>,
}

/// Another node as a member of a mesh.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct MeshMember {
    /// Name of the Node.
    pub node: String,
    /// Address of its session; `null` while it has no InternalIP.
    pub address: Option<IpAddr>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<Prefix>,
}

/// The connection to the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ApiStatus {
    /// Whether requests to the API server succeed.
    pub connected: bool,
    /// Start of this connection or outage, RFC 3339 in UTC.
    pub since: Option<String>,
    /// Why the last request failed; `null` if none has.
    pub last_error: Option<String>,
    /// The known cluster comes from the state folder, not yet from the API server.
    pub from_state: bool,
}

impl NodeStatus {
    /// What keeps this node from taking part: the connection to the API server, the conflist, and
    /// nodes that cannot be reached.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let api = self.api.last_error.as_ref().filter(|_| !self.api.connected);
        let api = api.map(|error| {
            let stays = if self.uid.is_some() { "; what was last known stays in force" } else { "" };
            Diagnostic::new(
                Reason::ApiUnreachable,
                Subject::host(),
                format!("no connection to the API server: {error}{stays}"),
                remedy_of(error),
            )
        });
        let waiting =
            self.conflist.problem.as_ref().filter(|_| self.conflist.state == ConflistState::Waiting);
        let waiting = waiting.map(|what| {
            let text = format!("the conflist is not written yet: {what}");
            Diagnostic::new(Reason::ConflistWaiting, Subject::host(), text, "")
        });
        // Without a remedy this is no problem: the gateway's routes lead to them.
        let remedy = self.remedy.as_ref().filter(|_| self.unresolved_nodes > 0);
        let unresolved = remedy.map(|remedy| {
            Diagnostic::new(
                Reason::NodesBehindDefaultRoute,
                Subject::host(),
                format!("nodes behind the default route only: {}", self.unresolved_nodes),
                remedy,
            )
        });
        let known = [self.conflist.diagnostic.clone(), self.waiting.clone()];
        [api, waiting].into_iter().chain(known).chain([unresolved]).flatten().collect()
    }

    /// All problems without duplicates, those that keep the node from taking part first.
    pub fn marks(&self) -> Vec<String> {
        let marks =
            self.diagnostics().into_iter().map(|d| d.to_string()).chain(self.problems.iter().cloned());
        let mut seen = BTreeSet::new();
        marks.filter(|mark| seen.insert(mark.clone())).collect()
    }

    /// Combines the state of the watch and of the conflist task. `reachable` determines which nodes
    /// are only reached over the default route; `services` and `problems` come from the plan.
    pub fn new(
        node: &str,
        nodes: &Nodes,
        reachable: &Reachable,
        api: ApiStatus,
        conflist: ConflistStatus,
        services: Vec<Eligibility>,
        problems: Vec<Diagnostic>,
    ) -> Self {
        let own = nodes.own.clone().unwrap_or_default();
        let member = |other: &NodeView| MeshMember {
            node: other.name.clone(),
            address: own.common_address(other),
            pod_cidrs: other.pod_cidrs.clone(),
        };
        let may_peer = |other: &&NodeView| !matches!(other.routelet, Presence::Impossible | Presence::Apart);
        let mesh_members: Vec<_> = nodes.others().filter(may_peer).map(member).collect();
        let by_default = |m: &&MeshMember| {
            m.address.is_some_and(|a| reachable.lookup(a) == Reach::No(Unresolved::OnlyDefault))
        };
        let unresolved_nodes = mesh_members.iter().filter(by_default).count();
        let waiting = nodes.missing().map(|what| {
            let text = format!("{what}: waiting for the API server");
            Diagnostic::new(Reason::NodeNotReady, Subject::host(), text, nodes.remedy(node))
        });
        Self {
            node: node.to_owned(),
            uid: (!own.uid.is_empty()).then_some(own.uid),
            pod_cidrs: own.pod_cidrs,
            addresses: own.addresses,
            service_cidrs: nodes.service_cidrs.clone(),
            conflist,
            mesh_members,
            reflectors: Vec::new(),
            api,
            unresolved_nodes,
            remedy: (unresolved_nodes > 0).then(|| {
                "their addresses are only reached over the default route: peer with the gateway \
                 (kubernetes.peering = \"gateway\" or \"auto\", and the switch must peer with them), or give the nodes a common subnet"
                    .to_owned()
            }),
            services,
            problems: waiting.iter().cloned().chain(problems).map(|d| d.to_string()).collect(),
            waiting,
        }
    }
}

/// What to do about an error of the connection to the API server.
pub fn remedy_of(error: &str) -> &'static str {
    let has = |part: &str| error.contains(part);
    if has("401 ") {
        "the credentials are not valid: renew the ServiceAccount token or the kubeconfig; where they are new, \
         compare the clocks of this host and of the API server"
    } else if has("403 ") {
        "apply the ClusterRole and its binding of deploy/daemonset.yaml"
    } else if has("certificate expired") || has("not valid yet") {
        "compare the clock of this host (`timedatectl`) with the dates of the API server's certificate; renew the \
         certificate where it has expired"
    } else if has("invalid peer certificate") {
        "let the kubeconfig name the certificate authority of this API server"
    } else if has("refused") {
        "start the API server, or correct its address and port"
    } else {
        "see that the API server runs, that it is reachable, and that the credentials are valid"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, addresses: &[&str]) -> NodeView {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        NodeView { name: name.into(), addresses, ..NodeView::default() }
    }

    #[test]
    fn prerequisites_of_a_start_are_marked_first() {
        let status = NodeStatus {
            api: ApiStatus { last_error: Some("401 Unauthorized".into()), ..ApiStatus::default() },
            conflist: ConflistStatus {
                state: ConflistState::Waiting,
                problem: Some("the Node has no pod CIDR yet".into()),
                ..ConflistStatus::default()
            },
            problems: vec!["one".into(), "one".into()],
            ..NodeStatus::default()
        };
        let marks = [
            "ApiUnreachable: no connection to the API server: 401 Unauthorized; the credentials are not valid: renew \
             the ServiceAccount token or the kubeconfig; where they are new, compare the clocks of this host and \
             of the API server",
            "ConflistWaiting: the conflist is not written yet: the Node has no pod CIDR yet",
            "one",
        ];
        assert_eq!(status.marks(), marks);
        let well = NodeStatus {
            uid: Some("u".into()),
            api: ApiStatus { connected: true, last_error: Some("once".into()), ..ApiStatus::default() },
            ..NodeStatus::default()
        };
        assert!(well.marks().is_empty(), "an outage that is over");
    }

    #[test]
    fn errors_of_the_api_server_have_remedies_of_their_own() {
        let cases = [
            ("401 Unauthorized", "renew the ServiceAccount token"),
            ("403 Forbidden: nodes is forbidden", "ClusterRole"),
            ("client error: invalid peer certificate: certificate expired: verified at 1", "`timedatectl`"),
            (
                "client error: invalid peer certificate: certificate not valid yet: verified at 1",
                "`timedatectl`",
            ),
            ("client error: invalid peer certificate: UnknownIssuer", "certificate authority"),
            ("tcp connect error: Connection refused (os error 111)", "start the API server"),
            ("no response within 10 s", "see that the API server runs"),
        ];
        for (error, remedy) in cases {
            assert!(remedy_of(error).contains(remedy), "{error}: {}", remedy_of(error));
        }
    }

    #[test]
    fn nodes_behind_the_default_route_are_counted_with_a_remedy() {
        let nodes = Nodes {
            own: Some(node("n1", &["10.0.0.1"])),
            others: [node("n2", &["10.0.1.1"]), node("n3", &["fd00::3"])]
                .map(|n| (n.name.clone(), n.into()))
                .into(),
            ..Nodes::default()
        };
        let status = |reach| {
            let reachable = Reachable::new(vec![("0.0.0.0/0".parse().unwrap(), reach)]);
            let (api, conflist) = (ApiStatus::default(), ConflistStatus::default());
            NodeStatus::new("n1", &nodes, &reachable, api, conflist, Vec::new(), Vec::new())
        };
        let far = status(Reach::No(Unresolved::OnlyDefault));
        let addresses: Vec<_> = far.mesh_members.iter().map(|m| m.address).collect();
        assert_eq!(addresses, ["10.0.1.1".parse().ok(), None], "no common family, no session");
        assert!(far.problems[0].contains("no pod CIDR"), "{:?}", far.problems);
        assert_eq!(far.unresolved_nodes, 1);
        assert!(far.remedy.unwrap().contains("gateway"));

        let near = status(Reach::Connected { ifindex: 2 });
        assert_eq!((near.unresolved_nodes, near.remedy), (0, None));
    }
}
