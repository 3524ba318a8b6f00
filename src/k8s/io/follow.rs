//! Watches a kind with few objects that the cluster may not have, and keeps all of them.

use std::{collections::BTreeMap, mem};

use kube::{
    api::{ApiResource, DynamicObject},
    runtime::watcher,
};
use tracing::warn;

use super::{
    Options,
    watch::{News, Source, Watcher},
};
use crate::{
    k8s::watch::{Cause, Change, Report, Role},
    net::text::untrusted,
};

/// Maximum number of objects of one kind, and octets of each as JSON. Administrators write them,
/// and a mistake must not exhaust the node's memory.
const MAX_OBJECTS: usize = 2000;
const MAX_OCTETS: usize = 256 * 1024;

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
    let config = match name {
        Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        None => watcher::Config::default(),
    };
    let source = Source {
        kind: kind.clone(),
        role: Role::Optional,
        config,
        remedy: "apply the ClusterRole of deploy/daemonset.yaml",
    };
    let mut watcher = Watcher::new(options.clone(), source);
    let mut objects = Objects { known: BTreeMap::new(), listing: BTreeMap::new(), read, kind };
    loop {
        let News { change, report } = watcher.next().await;
        match report {
            Some(Report::Failed { cause: Cause::Absent, .. }) => {
                objects.known.clear();
                on_change(Some(&objects.known));
            }
            // The first time may be an API server that is still starting.
            Some(Report::Failed { cause: Cause::Missing | Cause::Denied, .. }) => on_change(None),
            // The last known objects stay in force.
            Some(Report::Failed { cause: Cause::Unreachable, .. }) => {}
            Some(Report::Connected | Report::NoStreaming) | None => {}
        }
        if change.is_some_and(|change| objects.apply(change)) {
            on_change(Some(&objects.known));
        }
    }
}

/// Objects by name, within the bounds.
struct Objects<'a, T> {
    known: BTreeMap<String, T>,
    /// An incomplete list.
    listing: BTreeMap<String, T>,
    read: fn(DynamicObject) -> T,
    kind: &'a ApiResource,
}

impl<T> Objects<'_, T> {
    /// Returns whether the known objects may have changed.
    fn apply(&mut self, change: Change<DynamicObject>) -> bool {
        match change {
            Change::ListStarted => {
                self.listing.clear();
                return false;
            }
            Change::Listed(object) => {
                insert(&mut self.listing, object, self.read, self.kind);
                return false;
            }
            Change::ListDone => self.known = mem::take(&mut self.listing),
            Change::Applied(object) => insert(&mut self.known, object, self.read, self.kind),
            Change::Deleted(object) => {
                self.known.remove(&name_of(&object));
            }
        }
        true
    }
}

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
