//! `[[bgp.neighbor]]`, `[bgp.group.NAME]`, `[[bgp.listen-range]]`.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    AsSetting, Bgp, ListenRange, Neighbor, NeighborId, NeighborKeys,
    keys::{Place, RangeKeys},
    password,
    read::Section,
};
use crate::{
    bgp::{
        peer::{RemoteAs, TtlSecurity},
        policy::Policy,
    },
    net::Asn,
};

type Policies = BTreeMap<String, Arc<Policy>>;

pub(super) fn groups(section: &Section<'_>, bgp: &mut Bgp, policies: &Policies) {
    let Some(groups) = section.section("group") else { return };
    for (name, item) in groups.entries() {
        let Some(group) = item.section() else { continue };
        let written = keys(&group, policies);
        // The built-in groups keep what the file does not change.
        let below = bgp.groups.get(name).cloned().unwrap_or_default();
        bgp.groups.insert(name.to_owned(), written.or(below));
        group.close();
    }
}

pub(super) fn neighbors(section: &Section<'_>, bgp: &mut Bgp, policies: &Policies) {
    let mut lines: Vec<(NeighborId, usize)> = Vec::new();
    for section in section.get("neighbor").map(|i| i.tables()).unwrap_or_default() {
        let place = section.get("address").or_else(|| section.get("interface"));
        let mut written = Place::default();
        written.read(&section);
        let at = place_of(&section, &mut written);
        let limit = limit(&section, &written);
        let group = group(&section, bgp, written.group);
        let keys = keys(&section, policies);
        let below = group.as_ref().and_then(|g| bgp.groups.get(g)).cloned().unwrap_or_default();
        check_combinations(&section, bgp.asn, at.as_ref(), &keys.clone().or(below));
        if let (Some(at), Some(place)) = (at, place) {
            if let Some((_, line)) = lines.iter().find(|(seen, _)| *seen == at) {
                place.error(format!("this neighbor is already defined in line {line}; remove one"));
            }
            lines.push((at.clone(), place.line()));
            bgp.neighbors.push(Neighbor { at, group, limit, keys });
        }
        section.close();
    }
}

fn place_of(section: &Section<'_>, written: &mut Place) -> Option<NeighborId> {
    match (section.get("address"), section.get("interface")) {
        (Some(_), None) => written.address.take(),
        (None, Some(_)) => written.interface.take().map(NeighborId::Interface),
        (Some(_), Some(interface)) => {
            interface.error(
                "`address` and `interface` exclude each other; for a link-local one write fe80::1%eth0",
            );
            None
        }
        (None, None) => {
            section.missing(
                "address",
                "an IP address, fe80::1%eth0 or \"gateway\", or `interface`, as \"eth1\"",
            );
            None
        }
    }
}

/// How many neighbors an interface may have.
fn limit(section: &Section<'_>, written: &Place) -> usize {
    if let Some(item) = section.get("limit")
        && section.get("interface").is_none()
    {
        item.error("is the number of neighbors on an `interface`; remove it beside `address`");
    }
    written.limit.unwrap_or(1)
}

/// The name of a group that exists.
fn group(section: &Section<'_>, bgp: &Bgp, written: Option<String>) -> Option<String> {
    let name = written?;
    if !bgp.groups.contains_key(&name) {
        let known: Vec<&str> = bgp.groups.keys().map(String::as_str).collect();
        let known = known.join(", ");
        section.get("group")?.error(format!("no such group; add [bgp.group.{name}], or use one of {known}"));
        return None;
    }
    Some(name)
}

/// Checks combinations of keys after the group's keys are merged into the neighbor's.
fn check_combinations(section: &Section<'_>, own: AsSetting, at: Option<&NeighborId>, keys: &NeighborKeys) {
    let unnumbered = section.get("interface").is_some();
    let implied = unnumbered.then_some(RemoteAs::External);
    let Some(remote_as) = keys.remote_as.or(implied) else {
        if section.get("remote-as").is_none() {
            section.missing("remote-as", "a number, \"external\", \"internal\" or \"any\"");
        }
        return;
    };
    let own = keys.local_as.map_or(own, AsSetting::Number);
    if own == AsSetting::Auto && remote_as == RemoteAs::Internal {
        error(
            section,
            "remote-as",
            "no neighbor can have the AS number of bgp.as = \"auto\"; write \"external\" or a number",
        );
    }
    match internal(own, remote_as) {
        Some(true) if keys.role.is_some() => {
            error(section, "role", "roles are for external neighbors only (RFC 9234 §4); remove it");
        }
        Some(false) if keys.route_reflector_client == Some(true) => {
            let what = "only an internal neighbor can be a client (RFC 4456); its AS must be the own one";
            error(section, "route-reflector-client", what);
        }
        _ => {}
    }
    let security = match keys.ttl_security {
        Some(TtlSecurity::Strict(_)) => true,
        // The default of a gateway gives way to `multihop`.
        Some(TtlSecurity::WhereOffered) => section.get("ttl-security").is_some(),
        Some(TtlSecurity::Off) | None => false,
    };
    if keys.multihop.is_some() && security {
        error(section, "ttl-security", "`multihop` and `ttl-security` exclude each other; keep one");
    }
    if unnumbered && keys.local_address.is_some() {
        let what = "the session runs between link-local addresses; remove it beside `interface`";
        error(section, "local-address", what);
    }
    if unnumbered && keys.multihop.is_some() {
        error(
            section,
            "multihop",
            "an unnumbered neighbor is on the link itself; remove it beside `interface`",
        );
    }
    if let (Some(NeighborId::Address(addr)), Some(local)) = (at, keys.local_address)
        && addr.is_ipv4() != local.is_ipv4()
    {
        error(section, "local-address", "must be of the family of the neighbor's address");
    }
}

/// Whether a session is iBGP, as far as the configuration shows.
fn internal(own: AsSetting, remote: RemoteAs) -> Option<bool> {
    let own: Asn = match own {
        AsSetting::Number(n) => n,
        AsSetting::Default => 64512,
        AsSetting::Auto => return if remote == RemoteAs::External { Some(false) } else { None },
    };
    match remote {
        RemoteAs::Number(n) => Some(n == own),
        RemoteAs::External => Some(false),
        RemoteAs::Internal => Some(true),
        RemoteAs::Any => None,
    }
}

/// At the key if the neighbor has it itself, else at the neighbor.
fn error(section: &Section<'_>, key: &'static str, what: &str) {
    match section.get(key) {
        Some(item) => item.error(what),
        None => section.error(key, format!("{what} (it comes from the group)")),
    }
}

/// The keys that a neighbor or group sets.
fn keys(section: &Section<'_>, policies: &Policies) -> NeighborKeys {
    let mut keys = NeighborKeys::default();
    keys.read(section);
    password::load(section, password::MD5, &mut keys.password, &mut keys.password_file);
    for key in ["import", "export"] {
        let Some(item) = section.get(key) else { continue };
        for (item, name) in item.texts() {
            if !policies.contains_key(name) {
                item.error(format!("no policy `{name}`; add [[policy.{name}]], or remove the name"));
            }
        }
    }
    keys
}

pub(super) fn ranges(section: &Section<'_>, bgp: &mut Bgp) {
    for section in section.get("listen-range").map(|i| i.tables()).unwrap_or_default() {
        let mut written = RangeKeys::default();
        written.read(&section);
        let place = section.get("prefix");
        if place.is_none() {
            section.missing("prefix", "the addresses from which neighbors may come, as 10.0.0.0/24");
        }
        let group = group(&section, bgp, written.group);
        let remote_as = written.remote_as.or_else(|| bgp.groups.get(group.as_ref()?)?.remote_as);
        if remote_as.is_none() && section.get("remote-as").is_none() {
            section.missing("remote-as", "a number, \"external\", \"internal\" or \"any\"");
        }
        if let (Some(prefix), Some(remote_as)) = (written.prefix, remote_as) {
            if bgp.ranges.iter().any(|r| r.prefix == prefix)
                && let Some(place) = place
            {
                place.error("this range is listed twice; remove one");
            }
            bgp.ranges.push(ListenRange { prefix, remote_as, group, limit: written.limit });
        }
        section.close();
    }
}
