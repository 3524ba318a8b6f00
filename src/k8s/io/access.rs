//! Whether the API server can be reached and grants what routelet needs, for `routelet doctor`.

use std::time::Duration;

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::Node,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;

use super::{Options, client};
use crate::net::{Diagnostic, Reason, Subject};

/// Of one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of all checks.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);

/// What is requested of the API server: verb, API group, resource.
const NEEDED: [(&str, &str, &str); 9] = [
    ("list", "", "nodes"),
    ("watch", "", "nodes"),
    ("patch", "", "nodes/status"),
    ("list", "", "services"),
    ("list", "discovery.k8s.io", "endpointslices"),
    ("create", "events.k8s.io", "events"),
    ("list", "routelet.io", "bgppeers"),
    ("list", "routelet.io", "bgppolicies"),
    ("patch", "routelet.io", "bgpnodestatuses/status"),
];

/// The problems of the connection, or of the rights there.
pub(super) async fn check(options: &Options) -> Vec<Diagnostic> {
    let late = |_| vec![unreachable("the checks did not end within 30 s")];
    timeout(TOTAL_TIMEOUT, checks(options)).await.unwrap_or_else(late)
}

async fn checks(options: &Options) -> Vec<Diagnostic> {
    let client = match client::connect(options).await {
        Ok(connection) => connection.client,
        Err(error) => return vec![unreachable(&error)],
    };
    let mut problems = Vec::new();
    for right in NEEDED {
        match is_allowed(&client, right).await {
            Ok(true) => {}
            Ok(false) => problems.push(forbidden(right)),
            Err(error) => return vec![unreachable(&error)],
        }
    }
    let nodes = Api::<Node>::all(client);
    match timeout(TIMEOUT, nodes.get_opt(&options.node_name)).await {
        Ok(Ok(None)) => problems.push(Diagnostic::new(
            Reason::NodeNotReady,
            Subject::host(),
            format!("there is no Node {}", options.node_name),
            "check --node-name, or $NODE_NAME",
        )),
        Ok(Ok(Some(node))) => problems.extend(without_pod_cidr(&node)),
        Ok(Err(error)) => problems.push(unreachable(&super::chain(&error))),
        Err(_) => problems.push(unreachable("no response within 10 s")),
    }
    problems
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

async fn is_allowed(client: &Client, (verb, group, resource): (&str, &str, &str)) -> Result<bool, String> {
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
    match timeout(TIMEOUT, reviews.create(&PostParams::default(), &review)).await {
        Ok(Ok(review)) => Ok(review.status.is_some_and(|s| s.allowed)),
        Ok(Err(error)) => Err(super::chain(&error)),
        Err(_) => Err("no response within 10 s".into()),
    }
}

fn unreachable(error: &str) -> Diagnostic {
    Diagnostic::new(
        Reason::ApiUnreachable,
        Subject::host(),
        format!("no connection to the API server: {error}"),
        "see that the API server runs and that the credentials are valid",
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
