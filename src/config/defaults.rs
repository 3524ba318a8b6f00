//! Defaults that are not constants of one key: those without a file, and those of the built-in
//! groups.

use super::{AsSetting, Config, Neighbor, NeighborId, NeighborKeys};
use crate::bgp::peer::{RemoteAs, TtlSecurity};

impl Config {
    /// Under Kubernetes without a file.
    pub fn for_kubernetes() -> Self {
        Self::default()
    }

    /// A bare host without a file.
    pub fn for_bare_host() -> Self {
        let mut config = Self::default();
        config.set_bare_host();
        config
    }

    /// Peers with default gateways and on uplinks without addresses, and advertises the bridges of
    /// containers. The own AS number follows from the router id.
    pub(super) fn set_bare_host(&mut self) {
        let made =
            |at| Neighbor { at, group: Some(GATEWAY_GROUP.into()), limit: 1, keys: NeighborKeys::default() };
        self.bgp.asn = AsSetting::Auto;
        self.bgp.neighbors = [NeighborId::Gateway, NeighborId::Uplinks].map(made).into();
        self.advertise.containers = true;
        self.is_bare_host = true;
    }
}

/// The group of neighbors at default gateways. It exists without being in the file.
pub const GATEWAY_GROUP: &str = "gateway";
/// The group of the other nodes of a mesh.
pub const MESH_GROUP: &str = "mesh";
/// The group of route reflectors.
pub const REFLECTORS_GROUP: &str = "reflectors";

/// Defaults of a neighbor at a default gateway.
pub fn implied_by_gateway() -> NeighborKeys {
    NeighborKeys {
        remote_as: Some(RemoteAs::External),
        allow_own_as: Some(1),
        ttl_security: Some(TtlSecurity::WhereOffered),
        ..NeighborKeys::default()
    }
}

/// Defaults of a neighbor on an `interface`: those of a gateway, as both are switches.
pub fn implied_by_interface() -> NeighborKeys {
    implied_by_gateway()
}

/// The groups that exist without being in the file, with the keys that they have unless the file
/// changes them.
pub(super) fn built_in_groups() -> [(String, NeighborKeys); 3] {
    [
        (GATEWAY_GROUP.into(), implied_by_gateway()),
        (MESH_GROUP.into(), NeighborKeys::default()),
        (REFLECTORS_GROUP.into(), NeighborKeys::default()),
    ]
}
