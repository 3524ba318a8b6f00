//! Own prefixes: to which neighbors each is advertised, and why others are not advertised.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::QueryHandler;
use crate::{
    bgp::{io::rib::ToRib, view::SessionState},
    control::{NeighborView, OwnPrefix},
    fib::host::Host,
    net::{Prefix, Source},
    plan::{Plan, host::interfaces},
};

/// Prefixes per request to the table, which handles other requests in between.
const BATCH: usize = 32;
/// Maximum number of prefixes that are searched for those that are advertised to no neighbor.
const MAX_LOOKED_UP: usize = 8 * BATCH;
/// Maximum number of prefixes in the summary.
const MAX_SHOWN: usize = 10;
/// Maximum number of neighbors listed for each.
const MAX_NAMED: usize = 8;

/// Names of the neighbors to which each prefix is advertised.
pub(in crate::daemon) type AdvertisedTo = BTreeMap<Prefix, Vec<String>>;

impl QueryHandler {
    pub(super) async fn advertised_to(&self, prefixes: &[Prefix]) -> AdvertisedTo {
        let mut all = AdvertisedTo::new();
        for prefixes in prefixes.chunks(BATCH) {
            let (reply, response) = oneshot::channel();
            let request = ToRib::AdvertisedTo { prefixes: prefixes.to_vec(), reply };
            if self.rib.send(request).await.is_err() {
                break;
            }
            let names = response.await.unwrap_or_default();
            all.extend(prefixes.iter().copied().zip(names));
        }
        all
    }

    /// Own prefixes for the summary, those that are advertised to no neighbor first, and their
    /// total number.
    pub(super) async fn own(&self, plan: &Plan, neighbors: &[NeighborView]) -> (Vec<OwnPrefix>, u64) {
        let mut list = own_prefixes(plan, &self.host.borrow());
        let total = list.len() as u64;
        list.truncate(MAX_LOOKED_UP);
        let planned: Vec<_> = list.iter().filter(|own| own.reason.is_none()).map(|own| own.prefix).collect();
        let mut sent = self.advertised_to(&planned).await;
        for own in list.iter_mut().filter(|own| own.reason.is_none()) {
            let Some(names) = sent.remove(&own.prefix) else { continue };
            own.neighbors = names.len() as u64;
            own.reason = names.is_empty().then(|| unsent(neighbors).to_owned());
            own.advertised_to = names.into_iter().take(MAX_NAMED).collect();
        }
        list.sort_by_key(|own| own.neighbors > 0);
        list.truncate(MAX_SHOWN);
        (list, total)
    }
}

/// Why a prefix that this node originates is advertised to no neighbor.
pub(in crate::daemon) fn unsent(neighbors: &[NeighborView]) -> &'static str {
    match neighbors.iter().any(|n| n.state == SessionState::Established) {
        true => "export policies reject it, or there is no next hop for it: see `routelet show neighbor`",
        false => "no neighbor has a session: see `routelet show neighbors`",
    }
}

/// The prefixes that the node originates, and subnets that it would originate if they were up.
fn own_prefixes(plan: &Plan, host: &Host) -> Vec<OwnPrefix> {
    let mut of_interfaces: BTreeMap<Prefix, (String, Option<String>)> = BTreeMap::new();
    for interface in interfaces(plan, host).into_iter().filter(|i| i.is_selected) {
        for (prefix, why) in interface.subnets {
            of_interfaces.insert(prefix, (interface.name.clone(), why));
        }
    }
    let own = |prefix: Prefix, source: Source, interface: Option<String>, reason: Option<String>| OwnPrefix {
        prefix,
        source: source.as_str().into(),
        interface,
        neighbors: 0,
        advertised_to: Vec::new(),
        reason,
    };
    let missing = of_interfaces.iter().filter(|(prefix, _)| !plan.originated.contains_key(prefix));
    let missing = missing.map(|(p, (name, why))| own(*p, Source::Interface, Some(name.clone()), why.clone()));
    let name = |prefix: &Prefix| of_interfaces.get(prefix).map(|(name, _)| name.clone());
    let originated = plan.originated.iter().map(|(p, o)| own(*p, o.source, name(p), None));
    missing.chain(originated).collect()
}
