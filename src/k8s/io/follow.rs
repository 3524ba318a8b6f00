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

/// Between two questions whether the cluster knows the kind now, or allows it to be read.
const NOW_AND_THEN: Duration = Duration::from_secs(30);
/// At the least, after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Tells all that there are, by name, once they are listed and at each change; none where the cluster does not know the kind.
/// While the API server is away nothing is told: what was last known stays. Never ends.
pub(super) async fn follow<T>(
    options: &Options,
    kind: &ApiResource,
    read: fn(DynamicObject) -> T,
    mut tell: impl FnMut(&BTreeMap<String, T>),
) {
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
        let mut stream = pin!(watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)));
        let mut listing = BTreeMap::new();
        let refused = loop {
            match stream.next().await {
                Some(Ok(Event::Init)) => listing.clear(),
                Some(Ok(Event::InitApply(object))) => {
                    listing.insert(name(&object), read(object));
                }
                Some(Ok(Event::InitDone)) => {
                    (absent, said) = (0, None);
                    known = std::mem::take(&mut listing);
                    tell(&known);
                }
                Some(Ok(Event::Apply(object))) => {
                    known.insert(name(&object), read(object));
                    tell(&known);
                }
                Some(Ok(Event::Delete(object))) => {
                    known.remove(&name(&object));
                    tell(&known);
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
                if absent > 1 {
                    known.clear();
                    tell(&known);
                }
                sleep(NOW_AND_THEN).await;
            }
            Some(code @ 403) if said != refused => {
                warn!(
                    kind = kind.plural,
                    code, "may not be read; allow our ServiceAccount to list and watch them"
                );
                said = refused;
                sleep(NOW_AND_THEN).await;
            }
            Some(403) => sleep(NOW_AND_THEN).await,
            // What was last known stays; the watch of Nodes says that the API server is away.
            _ => sleep(failures.next_in_a_row(Instant::now()).max(RETRY)).await,
        }
    }
}

fn name(object: &DynamicObject) -> String {
    object.metadata.name.clone().unwrap_or_default()
}
