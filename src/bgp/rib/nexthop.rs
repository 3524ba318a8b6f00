//! Next hops: each distinct one is resolved once, and routes share sets of them.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::{
    bgp::wire::attr::PathNextHop,
    net::{Gateway, NextHops, Reach, Reachable, Unresolved},
};

/// One distinct next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HopId(NonZeroU32);

/// One distinct set of next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetId(NonZeroU32);

/// Whether and how a next hop is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    Via {
        /// IGP metric (RFC 4271 §9.1.2.2 e).
        metric: u32,
        set: SetId,
    },
    No(Unresolved),
}

/// A next hop in use.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) gateway: Gateway,
    users: u32,
    pub(super) resolution: Resolution,
    /// Depends on routes of the table, or may do so: resolved again when the table changes.
    pub(super) recursive: bool,
    /// Changed: the routes that use it have to be processed again.
    pub(super) changed: bool,
}

/// All next hops in use.
#[derive(Default)]
pub(super) struct Hops {
    hops: Vec<Option<Hop>>,
    free: Vec<u32>,
    index: HashMap<Gateway, HopId, RandomState>,
}

/// The link that a session runs over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OnLink {
    /// Interface of a directly connected neighbor, else 0.
    pub(super) ifindex: u32,
    /// The session runs between link-local addresses.
    pub(super) link_local: bool,
}

/// The interface of a received next hop if its link-local address is used, else 0.
///
/// Of a pair of addresses (RFC 2545 §3) the link-local one is used on link-local sessions, and if
/// the global one is not on a connected subnet. The link is that of the session: a link-local
/// address does not name its link, and is meaningless unless the neighbor is directly connected.
pub(super) fn interface(next_hop: &PathNextHop, at: OnLink, reachable: &Reachable) -> u32 {
    match (next_hop.addr, next_hop.link_local) {
        (IpAddr::V6(a), None) if a.is_unicast_link_local() => at.ifindex,
        (_, None) => 0,
        (addr, Some(_)) => {
            let connected = matches!(reachable.lookup(addr), Reach::Connected { .. });
            if connected && !at.link_local { 0 } else { at.ifindex }
        }
    }
}

/// The gateway for a received next hop; `ifindex` is the result of [`interface`].
pub(super) fn gateway(next_hop: &PathNextHop, ifindex: u32) -> Gateway {
    let addr = match next_hop.link_local {
        Some(ll) if ifindex != 0 || next_hop.addr.is_unspecified() => IpAddr::V6(ll),
        _ => next_hop.addr,
    };
    let link_local = matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local());
    Gateway { addr, ifindex: if link_local { ifindex } else { 0 } }
}

impl Hops {
    /// The id of a next hop, with one more user; `true` if it is new and has to be resolved.
    pub(super) fn intern(&mut self, gateway: Gateway) -> (HopId, bool) {
        if let Some(&id) = self.index.get(&gateway) {
            self.get_mut(id).users += 1;
            return (id, false);
        }
        let resolution = Resolution::No(Unresolved::NoRoute);
        let hop = Some(Hop { gateway, users: 1, resolution, recursive: false, changed: false });
        let n = match self.free.pop() {
            Some(n) => {
                self.hops[n as usize] = hop;
                n
            }
            None => {
                self.hops.push(hop);
                self.hops.len() as u32 - 1
            }
        };
        let id = HopId(NonZeroU32::MIN.saturating_add(n));
        self.index.insert(gateway, id);
        (id, true)
    }

    /// Removes a user; the last one frees the next hop and returns its set.
    pub(super) fn release(&mut self, id: HopId) -> Option<SetId> {
        let hop = self.get_mut(id);
        hop.users -= 1;
        if hop.users > 0 {
            return None;
        }
        let (gateway, resolution) = (hop.gateway, hop.resolution);
        self.index.remove(&gateway);
        self.hops[id.0.get() as usize - 1] = None;
        self.free.push(id.0.get() - 1);
        match resolution {
            Resolution::Via { set, .. } => Some(set),
            Resolution::No(_) => None,
        }
    }

    pub(super) fn get(&self, id: HopId) -> &Hop {
        self.hops[id.0.get() as usize - 1].as_ref().expect("an id is held by a user")
    }

    pub(super) fn get_mut(&mut self, id: HopId) -> &mut Hop {
        self.hops[id.0.get() as usize - 1].as_mut().expect("an id is held by a user")
    }

    /// Number of next hops in use.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Ids of all next hops in use, in a stable order.
    pub(super) fn ids(&self) -> Vec<HopId> {
        let used = self.hops.iter().enumerate().filter(|(_, h)| h.is_some());
        used.map(|(n, _)| HopId(NonZeroU32::MIN.saturating_add(n as u32))).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Hop> {
        self.hops.iter().flatten()
    }
}

/// All sets of next hops in use. Equal sets share one `Arc`, so that the fib makes one kernel
/// object of them.
#[derive(Default)]
pub(super) struct Sets {
    sets: Vec<Option<(Arc<NextHops>, u32)>>,
    free: Vec<u32>,
    index: HashMap<Arc<NextHops>, SetId, RandomState>,
}

impl Sets {
    /// The id of this set, with one more user.
    pub(super) fn intern(&mut self, hops: NextHops) -> SetId {
        if let Some(&id) = self.index.get(&hops) {
            return self.acquire(id);
        }
        let hops = Arc::new(hops);
        let n = match self.free.pop() {
            Some(n) => {
                self.sets[n as usize] = Some((hops.clone(), 1));
                n
            }
            None => {
                self.sets.push(Some((hops.clone(), 1)));
                self.sets.len() as u32 - 1
            }
        };
        let id = SetId(NonZeroU32::MIN.saturating_add(n));
        self.index.insert(hops, id);
        id
    }

    pub(super) fn acquire(&mut self, id: SetId) -> SetId {
        if let Some((_, users)) = &mut self.sets[id.0.get() as usize - 1] {
            *users += 1;
        }
        id
    }

    pub(super) fn release(&mut self, id: SetId) {
        let n = id.0.get() - 1;
        let slot = &mut self.sets[n as usize];
        let Some((hops, users)) = slot else { return };
        *users -= 1;
        if *users == 0 {
            self.index.remove(hops);
            *slot = None;
            self.free.push(n);
        }
    }

    pub(super) fn get(&self, id: SetId) -> &Arc<NextHops> {
        let slot = self.sets[id.0.get() as usize - 1].as_ref();
        &slot.expect("an id is held by a user").0
    }
}
