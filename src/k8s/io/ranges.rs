//! Watches ServiceCIDR objects, the ranges of cluster IPs. API servers before 1.33 do not have
//! them, which is not an error.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{ApiResource, DynamicObject};
use tokio::sync::watch;
use tracing::info;

use super::{Options, follow::follow};
use crate::net::Prefix;

/// Runs until all receivers are dropped. Publishes nothing if the configuration has the ranges.
pub(super) async fn run(options: Options, ranges: watch::Sender<Option<Vec<Prefix>>>) {
    if options.service_cidrs.is_some() {
        return ranges.closed().await;
    }
    let kind = ApiResource::erase::<ServiceCIDR>(&());
    let set = |all: &BTreeMap<_, _>| publish(&ranges, all);
    tokio::select! {
        () = follow(&options, &kind, None, read, |all| all.into_iter().for_each(set)) => {}
        () = ranges.closed() => {}
    }
}

/// A ServiceCIDR that is being deleted stays in force until it is gone: the API server keeps it
/// while a Service has an address of it.
fn read(object: DynamicObject) -> Vec<Prefix> {
    let cidrs = object.data.pointer("/spec/cidrs").and_then(|c| c.as_array());
    cidrs.into_iter().flatten().filter_map(|c| c.as_str()?.parse().ok()).collect()
}

fn publish(ranges: &watch::Sender<Option<Vec<Prefix>>>, all: &BTreeMap<String, Vec<Prefix>>) {
    let all: BTreeSet<_> = all.values().flatten().copied().collect();
    let all: Vec<_> = all.into_iter().collect();
    ranges.send_if_modified(|last| {
        let changed = last.as_ref() != Some(&all);
        if changed {
            info!(service_cidrs = ?all, "service ranges updated");
            *last = Some(all);
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: serde_json::Value) -> DynamicObject {
        let kind = ApiResource::erase::<ServiceCIDR>(&());
        DynamicObject::new("kubernetes", &kind).data(serde_json::json!({ "spec": spec }))
    }

    #[test]
    fn ranges_of_all_objects_are_merged_and_invalid_ones_left_out() {
        let two = serde_json::json!({ "cidrs": ["fd00:96::/112", "10.96.0.0/16"] });
        let one = serde_json::json!({ "cidrs": ["10.96.0.0/16", "nonsense", 7] });
        let all = [two, one, serde_json::json!({})].map(|spec| read(object(spec)));
        let all = ["a", "b", "c"].map(str::to_owned).into_iter().zip(all).collect();
        let (tx, rx) = watch::channel(None);
        publish(&tx, &all);
        let expected = ["10.96.0.0/16", "fd00:96::/112"].map(|p| p.parse().unwrap());
        assert_eq!(rx.borrow().as_deref(), Some(&expected[..]));
    }
}
