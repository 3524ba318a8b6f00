//! Watches BGPPeer and BGPPolicy objects and reads the Secrets that they reference. Most clusters
//! do not have these kinds; the list is then retried at long intervals.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
};
use tokio::{sync::watch, time::sleep_until};
use tracing::info;

use super::{
    Options, client,
    error::{ApiError, request},
    follow::follow,
};
use crate::{
    k8s::{
        crd::{BGPPeer, BGPPolicy},
        node::Nodes,
        objects::{Object, Objects, SecretState},
    },
    state::io as state,
};

/// How often to read a Secret.
const SECRET_INTERVAL: Duration = Duration::from_secs(30);
/// Namespace of routelet and of the Secrets that it may read.
const NAMESPACE: &str = "kube-system";

/// The objects of the previous run.
pub(super) fn load(options: &Options) -> Objects {
    let bytes = state::read(&file(options)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Runs until all receivers are dropped.
pub(super) async fn run(
    options: Options,
    nodes: watch::Receiver<Arc<Nodes>>,
    objects: watch::Sender<Arc<Objects>>,
) {
    let peers = ApiResource::erase::<BGPPeer>(&());
    let policies = ApiResource::erase::<BGPPolicy>(&());
    let set_peers = |all: &BTreeMap<_, _>| change(&objects, |o| o.peers.clone_from(all));
    let set_policies = |all: &BTreeMap<_, _>| change(&objects, |o| o.policies.clone_from(all));
    // The last known objects stay in force while access is denied.
    tokio::select! {
        () = follow(&options, &peers, None, read, |all| all.into_iter().for_each(set_peers)) => {}
        () = follow(&options, &policies, None, read, |all| all.into_iter().for_each(set_policies)) => {}
        () = secrets(&options, nodes, &objects) => {}
        () = keep(&options, objects.subscribe()) => {}
        () = objects.closed() => {}
    }
}

fn read(object: DynamicObject) -> Object {
    let mut data = object.data;
    let spec = data.get_mut("spec").and_then(|s| s.as_object_mut()).map(std::mem::take);
    Object { uid: object.metadata.uid.unwrap_or_default(), spec: spec.unwrap_or_default() }
}

fn change(objects: &watch::Sender<Arc<Objects>>, change: impl FnOnce(&mut Objects)) {
    objects.send_if_modified(|now| {
        let mut new = Objects::clone(now);
        change(&mut new);
        let changed = **now != new;
        if changed {
            *now = Arc::new(new);
        }
        changed
    });
}

/// Reads the Secrets that peers of our Node reference, each by name.
async fn secrets(
    options: &Options,
    mut nodes: watch::Receiver<Arc<Nodes>>,
    objects: &watch::Sender<Arc<Objects>>,
) {
    let mut changed = objects.subscribe();
    loop {
        let labels = nodes.borrow_and_update().own.as_ref().map(|own| own.labels.clone());
        let wanted = labels.map(|l| changed.borrow_and_update().wanted_secrets(&l)).unwrap_or_default();
        change(objects, |o| o.secrets.retain(|name, _| wanted.contains(name)));
        for name in &wanted {
            let found = fetch(options, name).await;
            change(objects, |o| {
                let state = o.secrets.entry(name.clone()).or_default();
                match found {
                    Ok(data) => *state = SecretState { data, error: None },
                    // The last known content stays in force.
                    Err(error) => state.error = Some(error.to_string()),
                }
            });
        }
        let again = tokio::time::Instant::now() + SECRET_INTERVAL;
        loop {
            // Each arm is cancel safe.
            tokio::select! {
                () = sleep_until(again), if !wanted.is_empty() => break,
                r = changed.changed() => if r.is_err() { return },
                r = nodes.changed() => if r.is_err() { return },
            }
            let labels = nodes.borrow_and_update().own.as_ref().map(|own| own.labels.clone());
            if labels.map(|l| changed.borrow_and_update().wanted_secrets(&l)).unwrap_or_default() != wanted {
                break;
            }
        }
    }
}

async fn fetch(options: &Options, name: &str) -> Result<BTreeMap<String, String>, ApiError> {
    let connection = client::connect(options).await?;
    let api = Api::<Secret>::namespaced(connection.client, NAMESPACE);
    match request(api.get(name)).await {
        Ok(secret) => {
            Ok(passwords(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0))))
        }
        Err(error) => Err(match error.code() {
            Some(404) => ApiError::NoSecret { namespace: NAMESPACE },
            Some(403) => ApiError::SecretDenied { namespace: NAMESPACE },
            _ => error,
        }),
    }
}

/// The values of a Secret that can be a TCP MD5 password, which has at most 80 octets. Others are
/// not kept.
fn passwords(data: impl Iterator<Item = (String, Vec<u8>)>) -> BTreeMap<String, String> {
    let text = |octets: Vec<u8>| Some(String::from_utf8(octets).ok()?.trim_end_matches('\n').to_owned());
    let all = data.filter_map(|(key, value)| Some((key, text(value)?)));
    all.filter(|(_, text)| text.len() <= MAX_PASSWORD).take(MAX_KEYS).collect()
}

/// Maximum octets of a value, with room for passwords that `check` reports as too long.
const MAX_PASSWORD: usize = 128;
/// Maximum keys of one Secret that are kept.
const MAX_KEYS: usize = 256;

/// Saves the objects. The file contains passwords, so only its owner may read it.
async fn keep(options: &Options, mut objects: watch::Receiver<Arc<Objects>>) {
    while objects.changed().await.is_ok() {
        let now = objects.borrow_and_update().clone();
        info!(
            peers = now.peers.len(),
            policies = now.policies.len(),
            "BGPPeer and BGPPolicy objects changed"
        );
        state::keep(&file(options), serde_json::to_vec(&*now).unwrap_or_default(), 0o600);
    }
}

fn file(options: &Options) -> PathBuf {
    options.state_dir.join("objects.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_passwords_of_a_secret_are_kept() {
        let data =
            [("password", b"hush\n".to_vec()), ("ca.crt", vec![b'x'; 1 << 20]), ("key", vec![0xff; 8])];
        let kept = passwords(data.into_iter().map(|(k, v)| (k.to_owned(), v)));
        assert_eq!(kept, [("password".to_owned(), "hush".to_owned())].into());
        let many = (0..10_000).map(|n| (format!("k{n}"), b"x".to_vec()));
        assert_eq!(passwords(many).len(), MAX_KEYS);
    }
}
