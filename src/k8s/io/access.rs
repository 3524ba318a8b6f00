//! Whether the API server can be reached and grants what routelet needs, for `routelet doctor`.

use std::time::Duration;

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::Node,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use tokio::time::timeout;

use super::{
    Options, client,
    error::{ApiError, request},
};
use crate::{
    k8s::view::remedy_of,
    net::{Diagnostic, Reason, Subject},
};

/// Maximum time of all checks together.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);

/// The rights that routelet needs: verb, API group, resource. The first is the right to list Nodes.
const NEEDED: [(&str, &str, &str); 10] = [
    ("list", "", "nodes"),
    ("watch", "", "nodes"),
    ("patch", "", "nodes/status"),
    ("list", "", "services"),
    ("list", "discovery.k8s.io", "endpointslices"),
    ("create", "events.k8s.io", "events"),
    ("list", "routelet.io", "bgppeers"),
    ("list", "routelet.io", "bgppolicies"),
    ("create", "routelet.io", "bgpnodestatuses"),
    ("patch", "routelet.io", "bgpnodestatuses/status"),
];

/// Problems of the connection to the API server, or of the rights there.
pub(super) async fn check(options: &Options) -> Vec<Diagnostic> {
    let late = |_| vec![unreachable(&"the checks did not end within 30 s")];
    timeout(TOTAL_TIMEOUT, checks(options)).await.unwrap_or_else(late)
}

async fn checks(options: &Options) -> Vec<Diagnostic> {
    let client = match client::connect(options).await {
        Ok(connection) => connection.client,
        Err(error) => return vec![unreachable(&error)],
    };
    let mut problems = Vec::new();
    let mut sees_nodes = true;
    for right in NEEDED {
        match is_allowed(&client, right).await {
            Ok(true) => {}
            Ok(false) => {
                sees_nodes &= right != NEEDED[0];
                problems.push(forbidden(right));
            }
            Err(error) => return vec![unreachable(&error)],
        }
    }
    if sees_nodes {
        problems.extend(own_node(client, options).await);
    }
    problems
}

/// The problem of our own Node, if it has one.
async fn own_node(client: Client, options: &Options) -> Option<Diagnostic> {
    let nodes = Api::<Node>::all(client);
    // routelet may list Nodes, but not get a single one.
    let own = ListParams::default().fields(&format!("metadata.name={}", options.node_name));
    match request(nodes.list(&own)).await {
        Ok(list) => match list.items.first() {
            None => Some(no_node(&nodes, &options.node_name).await),
            Some(node) => without_pod_cidr(node),
        },
        Err(error) => Some(unreachable(&error)),
    }
}

/// The problem that our Node does not exist, with the names of some others.
async fn no_node(nodes: &Api<Node>, name: &str) -> Diagnostic {
    const MAX_NAMED: u32 = 5;
    let list = request(nodes.list_metadata(&ListParams::default().limit(MAX_NAMED))).await;
    let names = list.ok().map(|list| list.items).unwrap_or_default();
    let names: Vec<_> = names.into_iter().filter_map(|node| node.metadata.name).collect();
    let others = match names.is_empty() {
        true => "there is no Node yet".to_owned(),
        false => format!("existing Nodes include {}", names.join(", ")),
    };
    Diagnostic::new(
        Reason::NodeNotReady,
        Subject::host(),
        format!("no Node is named {name} ({others})"),
        "set --node-name or $NODE_NAME to the name of this Node, or start the kubelet",
    )
}

fn without_pod_cidr(node: &Node) -> Option<Diagnostic> {
    let has = node.spec.as_ref().is_some_and(|s| s.pod_cidr.as_ref().is_some_and(|c| !c.is_empty()));
    (!has).then(|| {
        Diagnostic::new(
            Reason::NodeNotReady,
            Subject::host(),
            "the Node has no pod CIDR",
            "start the controller manager with --allocate-node-cidrs and --cluster-cidr",
        )
    })
}

async fn is_allowed(client: &Client, (verb, group, resource): (&str, &str, &str)) -> Result<bool, ApiError> {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub.to_owned())),
        None => (resource, None),
    };
    let attributes = ResourceAttributes {
        verb: Some(verb.into()),
        group: Some(group.into()),
        resource: Some(resource.into()),
        subresource,
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let review = request(reviews.create(&PostParams::default(), &review)).await?;
    Ok(review.status.is_some_and(|s| s.allowed))
}

fn unreachable(error: &impl ToString) -> Diagnostic {
    let error = error.to_string();
    Diagnostic::new(
        Reason::ApiUnreachable,
        Subject::host(),
        format!("no connection to the API server: {error}"),
        remedy_of(&error),
    )
}

fn forbidden((verb, group, resource): (&str, &str, &str)) -> Diagnostic {
    let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    Diagnostic::new(
        Reason::ApiForbidden,
        Subject::key(format!("{verb} {resource}")),
        format!("the API server does not allow to {verb} {resource}"),
        "apply the ClusterRole and its binding of deploy/daemonset.yaml",
    )
}
