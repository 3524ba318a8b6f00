//! Turns everything that was read into a router.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    Defaults, Frr,
    bgp::{Bgp, Redistributed},
    interfaces::Interfaces,
    neighbor::{Filters, Peer},
    policies::{Direction, ListKind, Policies, Scope},
};
use crate::{
    bgp::policy::PrefixRange,
    convert::{
        ConvertError,
        ledger::Ledger,
        router::{Keys, Router, append, set},
    },
    net::{Family, PerFamily},
};

/// Policies at the beginning of every neighbor's export policies, by family.
type OwnPolicies = PerFamily<Vec<String>>;

struct Finish<'a> {
    bgp: &'a Bgp,
    interfaces: &'a Interfaces,
    defaults: Defaults,
    policies: Policies<'a>,
    ledger: Ledger,
    router: Router,
    requires_policy: bool,
    /// Whether routes of one neighbor are advertised to another.
    is_transit: bool,
}

pub(super) fn finish(frr: Frr) -> Result<(Router, Ledger), ConvertError> {
    let Frr { ledger, bgp, lists, maps, interfaces, discarded, router_id, protocol_maps, defaults, .. } = frr;
    let Some(bgp) = bgp else {
        return Err(ConvertError::NothingToConvert(
            "there is no `router bgp` with an AS number that routelet accepts; add the file that has it"
                .into(),
        ));
    };
    let configured = bgp.peers.values().filter(|p| !p.is_group).count();
    let mut finish = Finish {
        bgp: &bgp,
        interfaces: &interfaces,
        defaults,
        policies: Policies::new(&lists, &maps, bgp.asn),
        ledger,
        router: Router::default(),
        requires_policy: bgp.requires_policy.unwrap_or(defaults.requires_policy),
        is_transit: configured > 1 || !bgp.ranges.is_empty(),
    };
    finish.global(router_id);
    finish.source_address(&protocol_maps);
    finish.originated(&discarded.iter().map(|(_, p)| *p).collect::<Vec<_>>());
    let own = finish.own_policies();
    finish.groups(&own);
    finish.neighbors(&own);
    finish.ranges();
    let Finish { policies, ledger, mut router, .. } = finish;
    router.policies = policies.into_made();
    Ok((router, ledger))
}

impl Finish<'_> {
    fn global(&mut self, router_id: Option<String>) {
        let keys = &mut self.router.bgp;
        set(keys, "as", self.bgp.asn);
        keys.extend(self.bgp.keys.clone());
        if let Some(id) = router_id.filter(|id| id.parse::<std::net::Ipv4Addr>().is_ok()) {
            keys.entry("router-id").or_insert(id.into());
        }
        keys.entry("hold-time").or_insert(self.defaults.hold_time.into());
        keys.entry("max-paths").or_insert(self.defaults.max_paths.into());
        keys.entry("multipath-relax").or_insert(false.into());
        if self.requires_policy {
            set(keys, "require-policy", true);
        }
        if !self.defaults.is_known {
            self.router.remarks.push(
                "The input names no version: it was read as FRR 7.4 or later with traditional defaults, which require \
                 policies for eBGP. For Quagga convert with --from quagga."
                    .to_owned(),
            );
        }
    }

    fn source_address(&mut self, maps: &[(crate::convert::ledger::LineId, String)]) {
        for (at, name) in maps {
            match self.policies.maps.source_only(name) {
                Some(addr) => append(&mut self.router.fib, "prefer-source", [addr.to_string()]),
                None => self.ledger.not_carried(
                    *at,
                    "only a route-map that does nothing but `set src ADDRESS` has a counterpart, fib.prefer-source",
                ),
            }
        }
    }

    /// `[advertise]`.
    fn originated(&mut self, discarded: &[crate::net::Prefix]) {
        let checks = self.bgp.import_check.unwrap_or(self.defaults.import_check);
        for network in &self.bgp.networks {
            append(&mut self.router.advertise, "networks", [network.prefix.to_string()]);
            if checks && !discarded.contains(&network.prefix) {
                self.ledger.differs(
                    network.at,
                    "advertised always, not only while the kernel has the route (`bgp network import-check`); for the \
                     subnet of an interface name that in advertise.interfaces instead",
                );
            }
        }
        for redistributed in &self.bgp.redistributed {
            match redistributed.source.as_str() {
                "connected" => self.connected(redistributed),
                "static" => {
                    let of_family = discarded.iter().filter(|p| p.family() == redistributed.family);
                    let prefixes: Vec<_> = of_family.map(ToString::to_string).collect();
                    if prefixes.is_empty() {
                        let what = "there are no static routes that discard; others are not redistributed";
                        self.ledger.not_carried(redistributed.at, what);
                    } else {
                        append(&mut self.router.advertise, "networks", prefixes);
                    }
                }
                source => {
                    let what = format!(
                        "routes of `{source}` are not redistributed: name prefixes in advertise.networks"
                    );
                    self.ledger.not_carried(redistributed.at, what);
                }
            }
        }
        // The other daemon sends its own routes with a MED of 0.
        if !self.router.advertise.is_empty() {
            set(&mut self.router.advertise, "med", 0);
        }
    }

    fn connected(&mut self, redistributed: &Redistributed) {
        let map = redistributed.route_map.as_ref();
        let named = map.and_then(|map| self.policies.maps.interfaces_only(&map.name));
        match named {
            Some(names) => append(&mut self.router.advertise, "interfaces", names),
            None => append(&mut self.router.advertise, "interfaces", ["*", "lo"]),
        }
    }

    /// Policies for own routes: route maps of `network` and `redistribute`, and the rejection of
    /// connected subnets in families that do not redistribute them.
    fn own_policies(&mut self) -> OwnPolicies {
        PerFamily::of(|family| {
            let mut names = self.policies_of_aggregates(family);
            names.extend(self.policies_of_networks(family));
            names.extend(self.policies_of_connected(family));
            names.extend(self.policies_of_static(family));
            names
        })
    }

    /// Rejects all prefixes inside an aggregate with `summary-only`, regardless of their source.
    fn policies_of_aggregates(&mut self, family: Family) -> Vec<String> {
        let mut inside = Vec::new();
        for (at, prefix) in &self.bgp.suppressed {
            let range = PrefixRange { prefix: *prefix, ge: prefix.len() + 1, le: family.max_len() };
            if prefix.family() == family && range.ge <= range.le {
                inside.push(range);
                self.ledger.not_carried(*at, "what is inside it is not advertised");
            }
        }
        if inside.is_empty() {
            return Vec::new();
        }
        let scope = Scope { prefixes: Some(inside), ..Scope::all(family, Direction::Out, true) };
        vec![self.policies.named_reject("summary-only", &scope)]
    }

    fn policies_of_networks(&mut self, family: Family) -> Vec<String> {
        let mut names = Vec::new();
        let of_family: Vec<_> = self.bgp.networks.iter().filter(|n| n.prefix.family() == family).collect();
        for network in of_family {
            let Some(map) = &network.route_map else { continue };
            let prefixes = Some(vec![PrefixRange::exact(network.prefix)]);
            let scope =
                Scope { source: Some("network"), prefixes, ..Scope::all(family, Direction::Out, false) };
            names.push(self.policies.route_map(&map.name, map.at, &scope, &mut self.ledger));
        }
        names
    }

    fn policies_of_connected(&mut self, family: Family) -> Vec<String> {
        let is_connected = |r: &&Redistributed| r.source == "connected";
        if !self.bgp.redistributed.iter().any(|r| is_connected(&r)) {
            return Vec::new();
        }
        let scope = Scope { source: Some("interface"), ..Scope::all(family, Direction::Out, false) };
        let of_family = self.bgp.redistributed.iter().filter(is_connected).find(|r| r.family == family);
        match of_family.cloned() {
            None => vec![self.policies.reject_all(&scope)],
            Some(redistributed) if self.has_further_interfaces(&redistributed) => {
                let what = "the other family has other interfaces, which routelet does not distinguish: no connected \
                            subnet of this family is advertised";
                self.ledger.differs(redistributed.at, what);
                vec![self.policies.reject_all(&scope)]
            }
            Some(redistributed) => self.redistribution(&redistributed, &scope),
        }
    }

    /// Whether subnets of further interfaces are advertised, which its route map does not include.
    fn has_further_interfaces(&self, redistributed: &Redistributed) -> bool {
        let map = redistributed.route_map.as_ref();
        let Some(named) = map.and_then(|map| self.policies.maps.interfaces_only(&map.name)) else {
            return false;
        };
        let all = self.router.advertise.get("interfaces").and_then(Value::as_array);
        let mut all = all.into_iter().flatten().filter_map(Value::as_str);
        all.any(|interface| named.iter().all(|name| name != interface))
    }

    fn policies_of_static(&mut self, family: Family) -> Vec<String> {
        let scope = Scope { source: Some("network"), ..Scope::all(family, Direction::Out, false) };
        let of_it =
            self.bgp.redistributed.iter().find(|r| r.source == "static" && r.family == family).cloned();
        match of_it {
            Some(redistributed) if redistributed.route_map.is_some() || redistributed.metric.is_some() => {
                if self.bgp.networks.iter().any(|n| n.prefix.family() == family) {
                    let what = "its options hold for the prefixes of `network`, too";
                    self.ledger.differs(redistributed.at, what);
                }
                self.redistribution(&redistributed, &scope)
            }
            _ => Vec::new(),
        }
    }

    fn redistribution(&mut self, redistributed: &Redistributed, scope: &Scope) -> Vec<String> {
        let mut names = Vec::new();
        if let Some(metric) = redistributed.metric {
            names.push(self.policies.metric(metric, scope));
        }
        if let Some(map) = &redistributed.route_map
            && self.policies.maps.interfaces_only(&map.name).is_none()
        {
            names.push(self.policies.route_map(&map.name, map.at, scope, &mut self.ledger));
        }
        names
    }

    fn groups(&mut self, own: &OwnPolicies) {
        let bgp = self.bgp;
        for name in &bgp.order {
            let Some(peer) = bgp.peers.get(name).filter(|p| p.is_group) else { continue };
            let is_used = bgp.peers.values().any(|p| p.group.as_ref() == Some(name))
                || bgp.ranges.iter().any(|(_, _, group)| group == name);
            if !is_used {
                self.ledger.not_needed(peer.at, "no neighbor is in this group");
                continue;
            }
            let keys = self.peer_keys(peer, own);
            self.router.groups.push((group_name(name), keys));
        }
    }

    fn neighbors(&mut self, own: &OwnPolicies) {
        let bgp = self.bgp;
        for name in &bgp.order {
            let Some(peer) = bgp.peers.get(name).filter(|p| !p.is_group) else { continue };
            let Some(mut keys) = self.place(name, peer) else { continue };
            if let Some(group) = &peer.group {
                if bgp.group_of(peer).is_none() {
                    self.ledger.not_carried(peer.at, format!("there is no peer group {group}: left out"));
                    continue;
                }
                set(&mut keys, "group", group_name(group));
            }
            keys.append(&mut self.peer_keys(peer, own));
            if bgp.remote_as(peer).is_none() {
                self.ledger.not_carried(peer.at, "the neighbor has no `remote-as`: left out");
                continue;
            }
            self.source_of(name, peer, &mut keys);
            self.router.neighbors.push(keys);
        }
    }

    /// `address` or `interface`; `None` if the neighbor is left out.
    fn place(&mut self, name: &str, peer: &Peer) -> Option<Keys> {
        let mut keys = Keys::new();
        if peer.is_unnumbered {
            set(&mut keys, "interface", name);
        } else if let Ok(addr) = name.parse::<IpAddr>() {
            set(&mut keys, "address", addr.to_string());
        } else {
            self.ledger
                .not_carried(peer.at, format!("`{name}` is neither an address nor a peer group: left out"));
            return None;
        }
        let of_group = self.bgp.group_of(peer).and_then(|g| g.shutdown);
        if let Some(at) = peer.shutdown.or(of_group) {
            self.ledger.differs(at, format!("neighbor {name} is left out"));
            self.router.remarks.push(format!("Neighbor {name} is shut down in the input and left out."));
            return None;
        }
        Some(keys)
    }

    /// `update-source` with an interface.
    fn source_of(&mut self, name: &str, peer: &Peer, keys: &mut Keys) {
        let of_group = || self.bgp.group_of(peer).and_then(|g| g.source_interface.as_ref());
        let Some((at, interface)) = peer.source_interface.as_ref().or_else(of_group) else { return };
        let found = name.parse().ok().and_then(|addr| self.interfaces.address(interface, addr));
        match found {
            Some(addr) => set(keys, "local-address", addr.to_string()),
            None if peer.is_unnumbered => {
                self.ledger.not_needed(*at, "the session runs between link-local addresses")
            }
            None => self.ledger.not_carried(
                *at,
                format!(
                    "the address of {interface} is not in the input; write it into `local-address` of {name}"
                ),
            ),
        }
    }

    /// The keys of a neighbor or a group besides its place.
    fn peer_keys(&mut self, peer: &Peer, own: &OwnPolicies) -> Keys {
        let mut keys = Keys::new();
        if let Some(remote_as) = peer.remote_as {
            set(&mut keys, "remote-as", remote_as.value());
        }
        keys.extend(peer.keys.clone());
        let remote_as = self.bgp.remote_as(peer);
        let local_as = peer.keys.get("local-as").and_then(Value::as_u64).and_then(|n| n.try_into().ok());
        let is_internal = remote_as.map(|r| r.is_internal(local_as.unwrap_or(self.bgp.asn)));
        if let Some((at, hops)) = peer.multihop {
            match is_internal {
                Some(true) => self.ledger.not_needed(at, "iBGP sessions are not restricted to one hop"),
                _ => set(&mut keys, "multihop", hops),
            }
        }
        let is_top = peer.group.is_none();
        if is_top {
            self.defaults_of(peer, is_internal, &mut keys);
        }
        let inherits = |f: &PerFamily<[Filters; 2]>| f.iter().flatten().all(Filters::is_empty);
        if is_top || !inherits(&peer.filters) || peer.active != PerFamily::both(None) {
            self.families_and_policies(peer, own, is_internal, &mut keys);
        }
        keys
    }

    /// Sets the defaults of the other daemon, which need no line there.
    fn defaults_of(&self, peer: &Peer, is_internal: Option<bool>, keys: &mut Keys) {
        set(keys, "accept-default", true);
        if self.is_transit {
            set(keys, "transit", true);
            // Third-party next hops on a common subnet (RFC 4271 §5.1.3) are the other daemon's
            // default.
            if is_internal != Some(true) && !peer.next_hop_self {
                set(keys, "next-hop-self", false);
            }
        }
    }

    fn families_and_policies(
        &mut self,
        peer: &Peer,
        own: &OwnPolicies,
        is_internal: Option<bool>,
        keys: &mut Keys,
    ) {
        let active: Vec<Family> = Family::ALL.into_iter().filter(|f| self.bgp.is_active(peer, *f)).collect();
        if active.is_empty() {
            self.ledger.differs(
                peer.at,
                "no family is active; routelet has at least one: nothing is exchanged in it",
            );
            set(keys, "families", json!(["ipv4-unicast"]));
            let names = [Direction::In, Direction::Out].map(|direction| {
                let scope = Scope::all(Family::Ipv4Unicast, direction, true);
                self.policies.reject_all(&scope)
            });
            set(keys, "import", json!([names[0]]));
            set(keys, "export", json!([names[1]]));
            return;
        }
        set(keys, "families", active.iter().map(|f| f.as_str()).collect::<Vec<_>>());
        for (direction, key) in [(Direction::In, "import"), (Direction::Out, "export")] {
            let lists: Vec<Vec<String>> =
                active.iter().map(|family| self.policies_of(peer, *family, direction)).collect();
            let is_required = self.requires_policy && is_internal != Some(true);
            let has_any = lists.iter().any(|l| !l.is_empty());
            let mut names = Vec::new();
            for (family, list) in active.iter().zip(lists) {
                if is_required && list.is_empty() {
                    // The policies of own routes must not count as the required policy.
                    let is_hidden = direction == Direction::Out && !own[*family].is_empty();
                    if has_any || is_hidden {
                        let scope = Scope::all(*family, direction, true);
                        names.push(self.policies.reject_all(&scope));
                        continue;
                    }
                }
                if direction == Direction::Out {
                    names.extend(own[*family].iter().cloned());
                }
                names.extend(list);
            }
            if !names.is_empty() || peer.group.is_some() {
                set(keys, key, names);
            }
        }
    }

    /// The policies of a peer for one family, in the order in which they are applied.
    fn policies_of(&mut self, peer: &Peer, family: Family, direction: Direction) -> Vec<String> {
        let own = &peer.filters[family][direction as usize];
        let filters = match self.bgp.group_of(peer) {
            Some(group) => own.or(&group.filters[family][direction as usize]),
            None => own.clone(),
        };
        let scope = Scope::all(family, direction, direction == Direction::In || self.is_transit);
        let (policies, ledger) = (&mut self.policies, &mut self.ledger);
        let mut names = Vec::new();
        if filters.unfit.is_some() {
            names.push(policies.reject_all(&scope));
        }
        if let Some(list) = &filters.access_list {
            names.push(policies.prefix_filter(ListKind::Access, &list.name, list.at, &scope, ledger));
        }
        if let Some(list) = &filters.prefix_list {
            names.push(policies.prefix_filter(ListKind::Prefix, &list.name, list.at, &scope, ledger));
        }
        if let Some(list) = &filters.path_list {
            names.push(policies.path_filter(&list.name, list.at, &scope, ledger));
        }
        if let Some(map) = &filters.route_map {
            names.push(policies.route_map(&map.name, map.at, &scope, ledger));
        }
        names
    }

    fn ranges(&mut self) {
        for (at, prefix, group) in &self.bgp.ranges {
            let Some(peer) = self.bgp.peers.get(group).filter(|p| p.is_group) else {
                self.ledger.not_carried(*at, format!("there is no peer group {group}: left out"));
                continue;
            };
            if peer.shutdown.is_some() {
                self.ledger.differs(*at, format!("peer group {group} is shut down: left out"));
                continue;
            }
            let Some(remote_as) = peer.remote_as else {
                self.ledger.not_carried(*at, format!("peer group {group} has no `remote-as`: left out"));
                continue;
            };
            let mut keys = Keys::new();
            set(&mut keys, "prefix", prefix.to_string());
            set(&mut keys, "remote-as", remote_as.value());
            set(&mut keys, "group", group_name(group));
            if let Some(limit) = self.bgp.range_limit {
                set(&mut keys, "limit", limit);
            }
            self.router.ranges.push(keys);
        }
    }
}

/// Renames groups whose names have another meaning in routelet.
fn group_name(name: &str) -> String {
    match name {
        "gateway" | "mesh" | "reflectors" => format!("{name}-group"),
        other => other.to_owned(),
    }
}
