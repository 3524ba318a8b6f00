//! Reads the BGPNodeStatus objects of all nodes, for `kubectl routelet`: with the credentials of
//! the user, as kubectl itself.

use std::{path::PathBuf, time::Duration};

use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, ListParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::timeout;

use super::error::chain;
use crate::k8s::{
    crd::{BGPNodeStatus, NodeReport},
    reports::Report,
};

/// Maximum time of one request: a page can hold a hundred reports.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Objects of one page of the list.
const PAGE: u32 = 100;

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Instead of `$KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Instead of the current context.
    pub context: Option<String>,
}

/// Why the reports cannot be read. Each text is one line with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ReportsError {
    /// The kubeconfig cannot be used.
    #[error("{0}")]
    Credentials(String),
    #[error(
        "cannot reach the API server: {0}; check the network, and the server and the context in the kubeconfig"
    )]
    Unreachable(String),
    #[error("{0}")]
    Refused(String),
}

/// The reports of all nodes, by the name of the node.
///
/// # Errors
///
/// If the API server cannot be reached, or does not list the objects.
pub async fn read(access: &Access) -> Result<Vec<Report>, ReportsError> {
    let (client, _) = connect(access).await?;
    let api = Api::<DynamicObject>::all_with(client, &ApiResource::erase::<BGPNodeStatus>(&()));
    let (mut reports, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let list = match timeout(TIMEOUT, api.list(&page)).await {
            Ok(Ok(list)) => list,
            Ok(Err(error)) => return Err(failure(&error)),
            Err(_) => return Err(ReportsError::Unreachable("no response within 20 s".into())),
        };
        reports.extend(list.items.into_iter().map(report));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    reports.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(reports)
}

/// A client, and the namespace of the context.
pub(super) async fn connect(access: &Access) -> Result<(Client, String), ReportsError> {
    let unusable = |e: &(dyn std::error::Error + 'static)| {
        let text = chain(e);
        ReportsError::Credentials(format!(
            "no usable kubeconfig: {text}; write one to ~/.kube/config, or use $KUBECONFIG or --kubeconfig"
        ))
    };
    let file = match &access.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let file = file.map_err(|e| unusable(&e))?;
    let mut config = Config::from_custom_kubeconfig(file, &options).await.map_err(|e| unusable(&e))?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(TIMEOUT);
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config).map_err(|e| unusable(&e))?, namespace))
}

fn failure(error: &kube::Error) -> ReportsError {
    let text = chain(error);
    let kube::Error::Api(status) = error else { return ReportsError::Unreachable(text) };
    ReportsError::Refused(match status.code {
        404 => "this cluster has no BGPNodeStatus objects: its CustomResourceDefinition \
                bgpnodestatuses.routelet.io is missing; apply deploy/daemonset.yaml, or the crds.yaml of the Helm \
                chart"
            .into(),
        403 => format!(
            "{text}; you need the right to list bgpnodestatuses.routelet.io: `kubectl auth can-i list \
             bgpnodestatuses.routelet.io`"
        ),
        401 => format!("{text}; the credentials in the kubeconfig are not accepted: log in again"),
        _ => format!("the API server refuses the list: {text}"),
    })
}

/// Why a pod cannot be read.
pub(super) fn failure_of_pods(error: &kube::Error, namespace: &str, name: &str) -> ReportsError {
    let text = chain(error);
    let kube::Error::Api(status) = error else { return ReportsError::Unreachable(text) };
    ReportsError::Refused(match status.code {
        404 => format!(
            "there is no pod {name} in namespace {namespace}; `kubectl get pods -A` lists all, write one as NAMESPACE/POD"
        ),
        403 => format!(
            "{text}; you need the right to get pods in namespace {namespace}, or write the addresses of the pods"
        ),
        401 => format!("{text}; the credentials in the kubeconfig are not accepted: log in again"),
        _ => format!("the API server refuses the request: {text}"),
    })
}

/// Unknown fields, from a newer version, are ignored.
fn report(object: DynamicObject) -> Report {
    let status = object.data.get("status").cloned().unwrap_or_default();
    let (report, unreadable) = match serde_json::from_value::<Option<NodeReport>>(status) {
        Ok(report) => (report.unwrap_or_default(), None),
        Err(error) => (NodeReport::default(), Some(error.to_string())),
    };
    Report { node: object.metadata.name.unwrap_or_default(), report, unreadable }
}
