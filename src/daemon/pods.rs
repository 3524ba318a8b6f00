//! Notifies the conflist's task of changes of the pods' bridge.

use std::sync::Arc;

use tokio::sync::watch;

use super::planner::publish;
use crate::{cni::bridge::BridgeSnapshot, config::Config, fib::host::Host};

/// Runs until its inputs are closed.
pub(super) async fn run(
    to: watch::Sender<BridgeSnapshot>,
    mut host: watch::Receiver<Arc<Host>>,
    mut config: watch::Receiver<Arc<Config>>,
) {
    loop {
        let now = snapshot(&host.borrow_and_update(), &config.borrow_and_update().cni.bridge);
        publish(&to, now);
        // Each arm is cancel safe.
        let alive = tokio::select! {
            r = host.changed() => r.is_ok(),
            r = config.changed() => r.is_ok(),
        };
        if !alive {
            return;
        }
    }
}

fn snapshot(host: &Host, bridge: &str) -> BridgeSnapshot {
    let Some(link) = host.link(bridge) else { return BridgeSnapshot::default() };
    BridgeSnapshot {
        link: Some((link.index, link.up)),
        addresses: link.addresses.iter().map(|a| (a.addr, a.len)).collect(),
        ports: host.links.values().filter(|l| l.master == Some(link.index)).map(|l| l.index).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::host::{
        Link,
        testing::{host, link},
    };

    #[test]
    fn every_change_of_the_bridge_is_detected() {
        let bridge = || Link { kind: "bridge".into(), ..link(7, "routelet0") }.with("10.244.1.1/24");
        let port = || Link { master: Some(7), ..link(8, "veth8") };
        let whole = snapshot(&host([bridge(), port(), link(2, "eth0")], []), "routelet0");
        let bare = Link { addresses: Vec::new(), ..bridge() };
        let others = [
            host([bare, port()], []),
            host([bridge().down(), port()], []),
            host([bridge()], []),
            host([port()], []),
        ];
        for other in others {
            assert_ne!(snapshot(&other, "routelet0"), whole);
        }
        let elsewhere = link(2, "eth0").with("10.0.0.1/24");
        assert_eq!(snapshot(&host([bridge(), port(), elsewhere], []), "routelet0"), whole);
    }
}
