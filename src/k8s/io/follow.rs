//! Watches a kind with few objects that the cluster may not have. A missing kind is not an error:
//! it is logged once, and the list is retried at long intervals.

use std::{
    collections::BTreeMap,
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
    runtime::watcher::{self, Event, watcher},
};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    Options, client,
    watch::{Retry, WATCH_SECONDS, refusal},
};
use crate::net::text::untrusted;

/// Time to the next list of a kind that the cluster does not have, or to which access is denied.
const MISSING_KIND_INTERVAL: Duration = Duration::from_secs(30);
/// Minimum time to the next attempt after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Calls `on_change` with all objects by name once they are listed and at each change; with none if
/// the cluster does not have the kind, and with `None` if the API server denies access. With `name`
/// only that object is watched. While the API server is unreachable the last known objects stay in
/// force. Never ends.
pub(super) async fn follow<T>(
    options: &Options,
    kind: &ApiResource,
    name: Option<&str>,
    read: fn(DynamicObject) -> T,
    mut on_change: impl FnMut(Option<&BTreeMap<String, T>>),
) {
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let config = match name {
        Some(name) => config.fields(&format!("metadata.name={name}")),
        None => config,
    };
    let mut known = BTreeMap::new();
    let mut absent = 0;
    let mut logged = None;
    let (mut expiries, mut failures) = (Retry::default(), Retry::default());
    loop {
        let Ok(connection) = client::connect(options).await else {
            sleep(RETRY_INTERVAL).await;
            continue;
        };
        let api = Api::<DynamicObject>::all_with(connection.client.clone(), kind);
        let mut stream = pin!(watcher(api, config.clone()));
        let mut listing = BTreeMap::new();
        let status = loop {
            match stream.next().await {
                Some(Ok(Event::Init)) => listing.clear(),
                Some(Ok(Event::InitApply(object))) => insert(&mut listing, object, read, kind),
                Some(Ok(Event::InitDone)) => {
                    (absent, logged) = (0, None);
                    known = std::mem::take(&mut listing);
                    on_change(Some(&known));
                }
                Some(Ok(Event::Apply(object))) => {
                    insert(&mut known, object, read, kind);
                    on_change(Some(&known));
                }
                Some(Ok(Event::Delete(object))) => {
                    known.remove(&name_of(&object));
                    on_change(Some(&known));
                }
                // The stream lists again by itself.
                Some(Err(error)) if refusal(&error) == Some(410) => {
                    sleep(expiries.next_in_a_row(Instant::now())).await;
                }
                Some(Err(error)) => break refusal(&error),
                None => break None,
            }
        };
        match status {
            Some(404) => {
                // The first time may be an API server that is still starting.
                absent += 1;
                if absent == 2 {
                    info!(
                        kind = kind.plural,
                        "optional kind not present in the cluster, checking at intervals"
                    );
                }
                match absent {
                    1 => on_change(None),
                    _ => {
                        known.clear();
                        on_change(Some(&known));
                    }
                }
                sleep(MISSING_KIND_INTERVAL).await;
            }
            Some(code @ 403) => {
                if logged != status {
                    warn!(
                        kind = kind.plural,
                        code, "access denied; allow our ServiceAccount to list and watch this kind"
                    );
                    logged = status;
                }
                on_change(None);
                sleep(MISSING_KIND_INTERVAL).await;
            }
            // The last known objects stay in force; the watch of Nodes reports the outage.
            _ => sleep(failures.next_in_a_row(Instant::now()).max(RETRY_INTERVAL)).await,
        }
    }
}

/// Maximum number of objects of one kind, and octets of each as JSON. Administrators write them,
/// and a mistake must not exhaust the node's memory.
const MAX_OBJECTS: usize = 2000;
const MAX_OCTETS: usize = 256 * 1024;

fn insert<T>(
    known: &mut BTreeMap<String, T>,
    object: DynamicObject,
    read: fn(DynamicObject) -> T,
    kind: &ApiResource,
) {
    let name = name_of(&object);
    if (known.len() >= MAX_OBJECTS && !known.contains_key(&name)) || !is_short(&object) {
        warn!(
            kind = kind.kind,
            name = untrusted(&name),
            "object ignored, limits are 2000 of a kind and 256 KiB each"
        );
        known.remove(&name);
        return;
    }
    known.insert(name, read(object));
}

fn is_short(object: &DynamicObject) -> bool {
    serde_json::to_vec(&object.data).is_ok_and(|json| json.len() <= MAX_OCTETS)
}

fn name_of(object: &DynamicObject) -> String {
    object.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_beyond_the_bounds_are_ignored() {
        let kind = ApiResource {
            group: "x".into(),
            version: "v1".into(),
            api_version: "x/v1".into(),
            kind: "X".into(),
            plural: "xs".into(),
        };
        let object = |name: &str, spec: &str| {
            let mut object = DynamicObject::new(name, &kind);
            object.data = serde_json::json!({ "spec": spec });
            object
        };
        let read: fn(DynamicObject) -> usize = |object| object.data.to_string().len();
        let mut known = BTreeMap::new();
        insert(&mut known, object("web", "short"), read, &kind);
        assert_eq!(known.len(), 1);
        insert(&mut known, object("web", &"x".repeat(MAX_OCTETS)), read, &kind);
        assert!(known.is_empty(), "the former version is not kept");
        for n in 0..MAX_OBJECTS + 10 {
            insert(&mut known, object(&format!("o{n}"), ""), read, &kind);
        }
        assert_eq!(known.len(), MAX_OBJECTS);
        insert(&mut known, object("o7", "changed"), read, &kind);
        assert_eq!((known.len(), known["o7"]), (MAX_OBJECTS, r#"{"spec":"changed"}"#.len()));
    }
}
