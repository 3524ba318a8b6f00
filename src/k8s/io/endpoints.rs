//! Reads what `kubectl routelet explain` needs besides the reports: two pods, and the pods of
//! routelet on their Nodes, with the credentials of the user.

use std::net::IpAddr;

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::Value;
use tokio::time::timeout;

use super::reports::{Access, ReportsError, TIMEOUT, connect, failure_of_pods};
use crate::k8s::reports::pair::{Agents, Endpoint};

/// Maximum pods of routelet that are listed on one Node: two while one replaces the other.
const MAX_AGENTS: u32 = 4;
const SELECTOR: &str = "app.kubernetes.io/name=routelet";

/// A pod or an address, as the user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Address(IpAddr),
    Pod { namespace: Option<String>, name: String },
}

/// The text is neither a pod nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write the name of a pod, as web-1 or shop/web-1, or an address")]
pub struct NoEndpoint;

impl std::str::FromStr for Wanted {
    type Err = NoEndpoint;

    fn from_str(text: &str) -> Result<Self, NoEndpoint> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let text = text.strip_prefix("pod/").unwrap_or(text);
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let is_name = |name: &str| {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            !name.is_empty() && name.len() < 254 && name.chars().all(fits)
        };
        // A namespace has no dots: `10.0.0.0/8` is not a pod.
        if !is_name(name) || !namespace.is_none_or(|n| is_name(n) && !n.contains('.')) {
            return Err(NoEndpoint);
        }
        Ok(Self::Pod { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

/// Reads the endpoints, and where routelet runs on their Nodes. Without the right to list pods,
/// commands name the Node instead.
///
/// # Errors
///
/// If the API server cannot be reached, or does not return a pod.
pub async fn read(
    access: &Access,
    namespace: Option<&str>,
    wanted: &[Wanted; 2],
) -> Result<([Endpoint; 2], Agents), ReportsError> {
    let (client, default) = connect(access).await?;
    let namespace = namespace.unwrap_or(&default);
    let mut endpoints = Vec::new();
    for one in wanted {
        endpoints.push(match one {
            Wanted::Address(address) => {
                let address = address.to_canonical();
                Endpoint { name: address.to_string(), addresses: vec![address], ..Endpoint::default() }
            }
            Wanted::Pod { namespace: own, name } => {
                pod(&client, own.as_deref().unwrap_or(namespace), name).await?
            }
        });
    }
    let mut agents = Agents::new();
    for node in endpoints.iter().filter_map(|e| e.node.clone()) {
        if let Some(agent) = agent(&client, &node).await {
            agents.insert(node, agent);
        }
    }
    let mut list = endpoints.into_iter();
    match (list.next(), list.next()) {
        (Some(a), Some(b)) => Ok(([a, b], agents)),
        _ => Ok(([Endpoint::default(), Endpoint::default()], agents)),
    }
}

fn pods() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".into(),
        api_version: "v1".into(),
        kind: "Pod".into(),
        plural: "pods".into(),
    }
}

async fn pod(client: &Client, namespace: &str, name: &str) -> Result<Endpoint, ReportsError> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &pods());
    match timeout(TIMEOUT, api.get(name)).await {
        Ok(Ok(object)) => Ok(endpoint(format!("{namespace}/{name}"), &object.data)),
        Ok(Err(error)) => Err(failure_of_pods(&error, namespace, name)),
        Err(_) => Err(ReportsError::Unreachable("no response within 20 s".into())),
    }
}

/// A pod as an endpoint.
fn endpoint(name: String, pod: &Value) -> Endpoint {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let status = &pod["status"];
    let listed = status["podIPs"].as_array().into_iter().flatten().map(|entry| &entry["ip"]);
    let mut addresses: Vec<IpAddr> = listed.filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(status["podIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    let node = text(&pod["spec"]["nodeName"]);
    let phase = text(&status["phase"]).unwrap_or_else(|| "Unknown".into());
    let problem = match (phase.as_str(), &node) {
        ("Succeeded" | "Failed", _) => {
            Some(("the pod has ended".to_owned(), "choose a pod that runs".to_owned()))
        }
        (_, None) => Some((
            "the pod is on no Node yet".to_owned(),
            format!("`kubectl describe pod {name}` names what the scheduler lacks"),
        )),
        _ if addresses.is_empty() => Some((
            format!("the pod has no address, its phase is {phase}"),
            format!(
                "`kubectl describe pod {name}` names the cause, for example no CNI configuration on the Node"
            ),
        )),
        _ => None,
    };
    let problem = problem.map(|(why, remedy)| (why, remedy.replace(&name, &as_arguments(&name))));
    Endpoint { node, addresses, host_network: pod["spec"]["hostNetwork"] == true, problem, name }
}

/// `-n namespace name`, as kubectl takes it.
fn as_arguments(name: &str) -> String {
    match name.split_once('/') {
        Some((namespace, name)) => format!("-n {namespace} {name}"),
        None => name.to_owned(),
    }
}

/// The pod of routelet on a Node.
async fn agent(client: &Client, node: &str) -> Option<(String, String)> {
    let api = Api::<DynamicObject>::all_with(client.clone(), &pods());
    let wanted = ListParams::default()
        .labels(SELECTOR)
        .fields(&format!("spec.nodeName={node},status.phase=Running"))
        .limit(MAX_AGENTS);
    let list = timeout(TIMEOUT, api.list(&wanted)).await.ok()?.ok()?;
    list.items.into_iter().find_map(|pod| Some((pod.metadata.namespace?, pod.metadata.name?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_named_with_or_without_its_namespace() {
        let pod = |namespace: Option<&str>, name: &str| {
            Ok(Wanted::Pod { namespace: namespace.map(str::to_owned), name: name.into() })
        };
        for (text, expected) in [
            ("web-1", pod(None, "web-1")),
            ("shop/web-1", pod(Some("shop"), "web-1")),
            ("pod/web-1", pod(None, "web-1")),
            ("10.0.0.1", Ok(Wanted::Address([10, 0, 0, 1].into()))),
        ] {
            assert_eq!(text.parse::<Wanted>(), expected, "{text}");
        }
        for text in ["", "a/b/c", "Web", "10.0.0.0/24", "a b", "/a", "a/"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_keeps_a_pod_from_packets_is_a_problem_of_its_endpoint() {
        let status = |phase: &str, ips: Value| json!({ "phase": phase, "podIPs": ips });
        let ips = json!([{ "ip": "10.244.1.5" }, { "ip": "fd00::5" }]);
        let running = endpoint(
            "a/b".into(),
            &json!({ "spec": { "nodeName": "n1" }, "status": status("Running", ips.clone()) }),
        );
        assert!(running.problem.is_none() && running.addresses.len() == 2 && !running.host_network);
        for (pod, part) in [
            (json!({ "spec": { "nodeName": "n1" }, "status": status("Succeeded", ips) }), "has ended"),
            (json!({ "spec": {}, "status": { "phase": "Pending" } }), "on no Node"),
            (json!({ "spec": { "nodeName": "n1" }, "status": { "phase": "Pending" } }), "phase is Pending"),
            (json!({}), "on no Node"),
        ] {
            let (why, remedy) = endpoint("a/b".into(), &pod).problem.unwrap();
            assert!(why.contains(part) && !remedy.contains("a/b"), "{why}: {remedy}");
        }
    }
}
