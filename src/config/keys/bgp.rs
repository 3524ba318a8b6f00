//! `[bgp]`, and `[[bgp.listen-range]]`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{Shape, kinds::With, neighbor::remote_as, neighbor_defaults, section};
use crate::{
    bgp::peer::RemoteAs,
    config::{
        AsSetting, ListenRange, Neighbor, NeighborKeys,
        defaults::built_in_groups,
        read::Item,
        values::{self, prefix, router_id},
    },
    net::{Asn, Prefix, RouterId},
};

section! {
    /// This router.
    pub struct Bgp at "[bgp]" {
        /// Own AS number: 1 to 4294967294 without 23456 and 65535 (RFC 7607, 6793, 7300). "auto"
        /// derives a private one from the router id, which a mesh, reflectors and
        /// `kubernetes.peering` "auto" cannot use.
        "as" asn: AsSetting = AsSetting::Default, own_as(),
            DefaultIs("64512 under Kubernetes; \"auto\" if a file without Kubernetes has neither `[bgp]` nor `[advertise]`; else required");
        /// BGP identifier of this host.
        "router-id" router_id: Option<RouterId> = None, Optional(written(router_id)),
            DefaultIs("the Node's InternalIP; else the address of the interface with the default route; else the lowest IPv4 address"),
            Example("\"10.0.0.1\"");
        /// Addresses to listen on; [] accepts no connections, so that sessions are opened from here
        /// only.
        "listen" listen: Vec<SocketAddr> =
            vec![(Ipv4Addr::UNSPECIFIED, 179).into(), (Ipv6Addr::UNSPECIFIED, 179).into()], sockets();
        /// Equal-cost next hops of a route; 1 disables multipath.
        "max-paths" max_paths: usize = 64, number(1..=1024);
        /// AS paths of the same length count as equal although their numbers differ.
        "multipath-relax" multipath_relax: bool = true, Flag;
        /// RFC 8212: from an external neighbor without `import` no route is accepted, to one
        /// without `export` none is advertised.
        "require-policy" require_policy: bool = false, Flag;
        /// Cluster identifier for route reflection (RFC 4456).
        "cluster-id" cluster_id: Option<RouterId> = None, Optional(written(router_id)),
            DefaultIs("the router id"), Example("\"10.0.0.1\"");
        also
        /// Defaults of all neighbors, with the keys of `[bgp]` itself: hold time, retry times,
        /// graceful restart.
        defaults: NeighborKeys = neighbor_defaults();
        groups: BTreeMap<String, NeighborKeys> = built_in_groups().into();
        neighbors: Vec<Neighbor> = Vec::new();
        ranges: Vec<ListenRange> = Vec::new();
    }
}

section! {
    /// Neighbors that are not listed, by the addresses from which they connect.
    pub(in crate::config) struct RangeKeys at "[[bgp.listen-range]]" {
        /// The addresses from which neighbors may connect.
        "prefix" prefix: Option<Prefix> = None, Optional(written(prefix)),
            DefaultIs("required"), Example("\"10.2.0.0/24\"");
        /// A number, "external", "internal" or "any".
        "remote-as" remote_as: Option<RemoteAs> = None, Optional(remote_as()),
            DefaultIs("that of the group, else required"), Example("\"external\"");
        /// A `[bgp.group.NAME]` whose keys apply.
        "group" group: Option<String> = None, Optional(any_text()), Example("\"tor\"");
        /// Limit of these neighbors.
        "limit" limit: usize = 100, number(1..=100_000);
    }
}

/// A number, or `"auto"`.
fn own_as() -> With<AsSetting> {
    With {
        read: read_own_as,
        show: |setting| match setting {
            AsSetting::Number(asn) => (*asn).into(),
            AsSetting::Auto => "auto".into(),
            AsSetting::Default => DEFAULT_AS.into(),
        },
        shape: || {
            let number = Shape::Number { min: 1, max: 4_294_967_294 };
            Shape::Either(vec![number, Shape::Choice(vec!["auto"])])
        },
    }
}

/// Under Kubernetes.
const DEFAULT_AS: Asn = 64512;

fn read_own_as(item: &Item<'_>) -> Option<AsSetting> {
    if !item.is_text() {
        return values::asn(item).map(AsSetting::Number);
    }
    let text = item.text()?;
    if text != "auto" {
        let hint = if text.parse::<u32>().is_ok() { ", the number without quotes" } else { "" };
        item.error(format!("must be {}, or \"auto\"{hint}", values::AS_ALLOWED));
        return None;
    }
    Some(AsSetting::Auto)
}
