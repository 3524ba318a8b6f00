//! What the rib's tests share, and tests of the whole.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use super::*;
use crate::{
    bgp::peer::{AddPaths, AsSets, Hops, MaxPrefixesAction, OwnAddresses, PeerKey, PeerSource, RemoteAs},
    net::{Asn, RouterId},
};

pub(crate) fn attrs(med: u32) -> Attrs {
    Attrs {
        origin: Origin::Igp,
        as_path: AsPath::empty(),
        next_hop: PathNextHop { addr: "10.0.0.9".parse().unwrap(), link_local: None },
        med: (med > 0).then_some(med),
        local_pref: None,
        communities: Box::default(),
        rare: None,
    }
}

pub(crate) fn global() -> Global {
    Global {
        asn: 65000,
        router_id: RouterId::new(10, 0, 0, 1),
        cluster_id: RouterId::new(10, 0, 0, 1),
        max_paths: 64,
        multipath_relax: true,
        restarting: false,
    }
}

/// The address of neighbor `n`.
pub(crate) fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + 10 + n)
}

pub(crate) fn config(n: u32) -> Arc<PeerConfig> {
    Arc::new(PeerConfig {
        key: PeerKey::Address(address(n).into()),
        source: PeerSource::Configured,
        description: None,
        group: None,
        remote_as: RemoteAs::Any,
        local_as: 65000,
        global_as: 65000,
        local_address: None,
        port: 179,
        passive: false,
        password: None,
        hops: Hops::Direct,
        families: Family::ALL.to_vec(),
        hold_time: 90,
        connect_retry_time: Duration::from_secs(5),
        idle_hold_time: Duration::from_secs(5),
        graceful_restart: true,
        restart_time: 120,
        long_lived_stale_time: 0,
        route_reflector_client: false,
        next_hop_self: None,
        transit: false,
        max_prefixes: 1_000_000,
        max_prefixes_action: MaxPrefixesAction::Restart,
        max_prefixes_restart: Duration::from_secs(300),
        add_paths: AddPaths::default(),
        bfd: None,
        import: Vec::new(),
        export: Vec::new(),
        accept_default: false,
        allow_own_as: 0,
        as_sets: AsSets::Withdraw,
        role: None,
        own: OwnAddresses { v4: Some(Ipv4Addr::new(10, 0, 0, 1)), v6: None, link_local: None },
        disabled: false,
    })
}

pub(crate) fn negotiated(n: u32, remote_as: Asn) -> Negotiated {
    Negotiated {
        remote_as,
        remote_id: address(n),
        local_as: 65000,
        local_addr: Ipv4Addr::new(10, 0, 0, 1).into(),
        remote_addr: address(n).into(),
        ifindex: 0,
        hold_time: 90,
        four_octet_as: true,
        extended_messages: false,
        families: Family::ALL.to_vec(),
        extended_next_hop: false,
        add_path_receive: [false; 2],
        add_path_send: [false; 2],
        route_refresh: true,
        enhanced_refresh: false,
        graceful: None,
        kept_over_restart: false,
        role: None,
    }
}
