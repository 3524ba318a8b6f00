//! Unnumbered neighbors: their sessions, and the link-local addresses that were added for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::sleep,
};

use super::planner::publish;
use crate::{
    bgp::{
        io::{PeerEvent, ToPeers},
        peer::{PeerKey, PeerSource, RemoteAs},
        view::{NeighborView, SessionState},
    },
    pace::tick,
    plan::Unfound,
    unnumbered::{self, Interfaces, io::Found},
};

/// File of the link-local addresses that were added, one per line: interface and address.
pub(super) const FILE: &str = "link-local";
/// Events are collected for this long.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often to read the sessions without an event: events may be missed.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Starts the discovery of neighbors.
pub(super) fn spawn(
    interfaces: watch::Receiver<Arc<Interfaces>>,
    found: watch::Sender<Arc<Found>>,
    (peers, events): (mpsc::Sender<ToPeers>, broadcast::Receiver<PeerEvent>),
    connections: mpsc::Receiver<(u32, Ipv6Addr)>,
    state_dir: &Path,
) {
    let (established_tx, established) = watch::channel(Arc::default());
    tokio::spawn(sessions(established_tx, interfaces.clone(), peers, events));
    let record = state_dir.join(FILE);
    let on_added = Box::new(move |name: &str, addr| note(&record, name, addr));
    let inputs = unnumbered::io::Inputs { interfaces, established, connections, on_added };
    unnumbered::io::spawn(inputs, found);
}

/// Publishes which link-local neighbors have a session, while there are interfaces of unnumbered
/// neighbors.
async fn sessions(
    established: watch::Sender<Arc<BTreeSet<(String, Ipv6Addr)>>>,
    mut interfaces: watch::Receiver<Arc<Interfaces>>,
    peers: mpsc::Sender<ToPeers>,
    mut events: broadcast::Receiver<PeerEvent>,
) {
    loop {
        if interfaces.wait_for(|i| !i.links.is_empty()).await.is_err() {
            return;
        }
        let (reply, response) = oneshot::channel();
        if peers.send(ToPeers::Status { reply }).await.is_err() {
            return;
        }
        let views = response.await.unwrap_or_default();
        let up = views.iter().filter(|v| v.state == SessionState::Established);
        let now: BTreeSet<_> = up
            .filter_map(|v| match v.address.parse() {
                Ok(PeerKey::LinkLocal(addr, interface)) => Some((interface, addr)),
                _ => None,
            })
            .collect();
        publish(&established, Arc::new(now));
        // Each arm is cancel safe.
        let open = tokio::select! {
            event = events.recv() => !matches!(event, Err(broadcast::error::RecvError::Closed)),
            () = tick(CHECK_INTERVAL) => true,
        };
        if !open {
            return;
        }
        sleep(DEBOUNCE).await;
        while events.try_recv().is_ok() {}
    }
}

/// Records an added address, for `cleanup`.
fn note(record: &Path, name: &str, addr: Ipv6Addr) {
    let mut all = added(record);
    all.insert((name.to_owned(), addr));
    let text: String = all.iter().map(|(name, addr)| format!("{name} {addr}\n")).collect();
    // The file is complete before the next address is added.
    if let Err(error) = crate::state::io::keep_now(record, text.into_bytes(), 0o644) {
        tracing::warn!(path = %record.display(), %error, "cannot write the record of added addresses");
    }
}

/// The recorded addresses.
fn added(record: &Path) -> BTreeSet<(String, Ipv6Addr)> {
    let text = std::fs::read_to_string(record).unwrap_or_default();
    let pair = |line: &str| {
        let (name, addr) = line.split_once(' ')?;
        Some((name.to_owned(), addr.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Removes the recorded addresses. Returns a line for each.
///
/// # Errors
///
/// If the kernel rejects a request.
pub(super) fn cleanup(state_dir: &Path) -> std::io::Result<Vec<String>> {
    let all = added(&state_dir.join(FILE));
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut removed = Vec::new();
    for (name, addr) in all {
        if runtime.block_on(unnumbered::io::remove(&name, addr))? {
            removed.push(format!("the link-local address {addr} of {name}"));
        }
    }
    Ok(removed)
}

/// Sets since when no neighbor is found, across plans.
pub(super) fn date(since: &mut BTreeMap<String, String>, unfound: &mut [Unfound]) {
    since.retain(|interface, _| unfound.iter().any(|u| u.interface == *interface));
    for row in unfound {
        let now = || jiff::Timestamp::now().to_string();
        row.since = since.entry(row.interface.clone()).or_insert_with(now).clone();
    }
}

/// The row of `show neighbors` for an interface on which no neighbor was found.
pub(super) fn view(unfound: &Unfound) -> NeighborView {
    let config = &unfound.settings;
    NeighborView {
        address: unfound.interface.clone(),
        interface: Some(unfound.interface.clone()),
        remote_as: match config.remote_as {
            RemoteAs::Number(n) => Some(n),
            RemoteAs::Internal => Some(config.local_as),
            RemoteAs::External | RemoteAs::Any => None,
        },
        local_as: config.local_as,
        state: if config.disabled { SessionState::Disabled } else { SessionState::Idle },
        since: unfound.since.clone(),
        families: config.families.clone(),
        received: BTreeMap::new(),
        accepted: BTreeMap::new(),
        advertised: BTreeMap::new(),
        hold_time: config.hold_time,
        last_error: Some(unfound.reason.clone()),
        ttl_security: None,
        refused_by_ttl: 0,
        withheld: BTreeMap::new(),
        description: config.description.clone(),
        source: if config.source == PeerSource::Object { "object" } else { "configured" }.into(),
        router_id: None,
        local_address: config.own.link_local.map(IpAddr::V6),
        capabilities_sent: Vec::new(),
        capabilities_received: Vec::new(),
        messages_sent: BTreeMap::new(),
        messages_received: BTreeMap::new(),
        drops: BTreeMap::new(),
        flaws: 0,
        timers: BTreeMap::new(),
        last_notification_sent: None,
        last_notification_received: None,
        bfd: None,
        queues: Default::default(),
        history: Default::default(),
        notes: vec![unfound.reason.clone()],
        needs: Vec::new(),
        diagnosis: None,
        bfd_missing: false,
        open_age: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_every_address_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let record = dir.path().join(FILE);
        assert!(added(&record).is_empty());
        for (name, addr) in [("eth1", "fe80::1"), ("eth2", "fe80::2"), ("eth1", "fe80::1")] {
            note(&record, name, addr.parse().unwrap());
        }
        std::fs::write(&record, std::fs::read_to_string(&record).unwrap() + "half a li").unwrap();
        let all = added(&record);
        assert_eq!(all.len(), 2);
        assert!(all.contains(&("eth2".into(), "fe80::2".parse().unwrap())));
    }
}
