//! Follows the few objects of a kind that a cluster may not know: that is no error, and it is asked again now and then,
//! and said once.

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

/// Between two questions whether the cluster knows the kind now, or allows it to be read.
const NOW_AND_THEN: Duration = Duration::from_secs(30);
/// At the least, after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Tells all that there are, by name, once they are listed and at each change; none where the cluster does not know the kind.
/// With `name` only that object is followed. `None` means that the API server refuses the list.
/// While the API server is away nothing is told: what was last known stays. Never ends.
pub(super) async fn follow<T>(
    options: &Options,
    kind: &ApiResource,
    name: Option<&str>,
    read: fn(DynamicObject) -> T,
    mut tell: impl FnMut(Option<&BTreeMap<String, T>>),
) {
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let config = match name {
        Some(name) => config.fields(&format!("metadata.name={name}")),
        None => config,
    };
    let mut known = BTreeMap::new();
    let mut absent = 0;
    let mut said = None;
    let (mut expiries, mut failures) = (Retry::default(), Retry::default());
    loop {
        let Ok(connection) = client::connect(options).await else {
            sleep(RETRY).await;
            continue;
        };
        let api = Api::<DynamicObject>::all_with(connection.client.clone(), kind);
        let mut stream = pin!(watcher(api, config.clone()));
        let mut listing = BTreeMap::new();
        let refused = loop {
            match stream.next().await {
                Some(Ok(Event::Init)) => listing.clear(),
                Some(Ok(Event::InitApply(object))) => insert(&mut listing, object, read, kind),
                Some(Ok(Event::InitDone)) => {
                    (absent, said) = (0, None);
                    known = std::mem::take(&mut listing);
                    tell(Some(&known));
                }
                Some(Ok(Event::Apply(object))) => {
                    insert(&mut known, object, read, kind);
                    tell(Some(&known));
                }
                Some(Ok(Event::Delete(object))) => {
                    known.remove(&name_of(&object));
                    tell(Some(&known));
                }
                // The stream lists anew by itself.
                Some(Err(error)) if refusal(&error) == Some(410) => {
                    sleep(expiries.next_in_a_row(Instant::now())).await;
                }
                Some(Err(error)) => break refusal(&error),
                None => break None,
            }
        };
        match refused {
            Some(404) => {
                // Once is not enough: an API server that starts may not know its kinds yet.
                absent += 1;
                if absent == 2 {
                    info!(
                        kind = kind.plural,
                        "the cluster does not know this kind, nor need it; asking now and then"
                    );
                }
                match absent {
                    1 => tell(None),
                    _ => {
                        known.clear();
                        tell(Some(&known));
                    }
                }
                sleep(NOW_AND_THEN).await;
            }
            Some(code @ 403) => {
                if said != refused {
                    warn!(
                        kind = kind.plural,
                        code, "may not be read; allow our ServiceAccount to list and watch them"
                    );
                    said = refused;
                }
                tell(None);
                sleep(NOW_AND_THEN).await;
            }
            // What was last known stays; the watch of Nodes says that the API server is away.
            _ => sleep(failures.next_in_a_row(Instant::now()).max(RETRY)).await,
        }
    }
}

/// Objects of one kind that are kept, and octets of each as JSON: both are for administrators to write, and a slip of one
/// must not take the node's memory.
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
            "object ignored: at most 2000 of a kind are kept, of at most 256 KiB each"
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
        assert!(known.is_empty(), "it is not kept as it was");
        for n in 0..MAX_OBJECTS + 10 {
            insert(&mut known, object(&format!("o{n}"), ""), read, &kind);
        }
        assert_eq!(known.len(), MAX_OBJECTS);
        insert(&mut known, object("o7", "changed"), read, &kind);
        assert_eq!((known.len(), known["o7"]), (MAX_OBJECTS, r#"{"spec":"changed"}"#.len()));
    }
}
