//! `[[bgp.neighbor]]`, `[bgp.group.NAME]`, `[[bgp.listen-range]]`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{
    AsSetting, Bgp, ListenRange, Neighbor, NeighborId, NeighborKeys, bfd,
    file::ParseContext,
    password,
    read::{Item, Section},
    values::{self, FAMILIES, interface_glob, neighbor_address, prefix},
};
use crate::{
    bgp::{
        peer::{AddPaths, AsSets, MaxPrefixesAction, RemoteAs, Role, Secret, TtlSecurity},
        policy::Policy,
    },
    net::{Asn, Family},
};

type Policies = BTreeMap<String, Arc<Policy>>;

/// Longest TCP MD5 key that the kernel takes (TCP_MD5SIG_MAXKEYLEN).
const PASSWORD: usize = 80;

/// The keys that `[bgp]` shares with its neighbors.
pub(super) fn session_keys(section: &Section<'_>, keys: &mut NeighborKeys) {
    let mut set = NeighborKeys::default();
    read_session_keys(section, &mut set);
    *keys = set.or(std::mem::take(keys));
}

fn read_session_keys(section: &Section<'_>, keys: &mut NeighborKeys) {
    // RFC 4271 §4.2: zero, or at least three seconds.
    let hold_time = section.get("hold-time");
    keys.hold_time = hold_time
        .and_then(|i| i.number_where("0, or 3 to 65535 seconds", |n| n == 0 || (3..=65535).contains(&n)));
    keys.send_hold_time = section.get("send-hold-time").and_then(|i| i.number(1..=65535));
    keys.connect_retry_time = section.get("connect-retry-time").and_then(|i| i.number(1..=65535));
    keys.idle_hold_time = section.get("idle-hold-time").and_then(|i| i.number(1..=65535));
    keys.graceful_restart = section.get("graceful-restart").and_then(|i| i.flag());
    // Twelve bits (RFC 4724 §3), twenty-four bits (RFC 9494 §3).
    keys.restart_time = section.get("restart-time").and_then(|i| i.number(0..=4095));
    keys.long_lived_stale_time = section.get("long-lived-stale-time").and_then(|i| i.number(0..=16_777_215));
}

impl NeighborKeys {
    /// The files that its passwords are read from.
    pub fn password_files(&self) -> impl Iterator<Item = &PathBuf> {
        let of_bfd = self.bfd.iter().flatten().filter_map(|bfd| bfd.password_file.as_ref());
        self.password_file.iter().chain(of_bfd)
    }

    /// The key if set here, else as set there.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        macro_rules! each {
            ($($key:ident),* $(,)?) => { Self { $($key: self.$key.or(weaker.$key)),* } };
        }
        each!(
            remote_as,
            local_as,
            local_address,
            port,
            passive,
            description,
            password,
            password_file,
            multihop,
            ttl_security,
            families,
            hold_time,
            send_hold_time,
            connect_retry_time,
            idle_hold_time,
            graceful_restart,
            restart_time,
            long_lived_stale_time,
            route_reflector_client,
            next_hop_self,
            transit,
            max_prefixes,
            max_prefixes_action,
            max_prefixes_restart,
            max_prefixes_out,
            add_paths,
            bfd,
            import,
            export,
            fast_failover,
            accept_default,
            allow_own_as,
            as_sets,
            role,
        )
    }
}

pub(super) fn groups(section: &Section<'_>, bgp: &mut Bgp, policies: &Policies, around: &ParseContext<'_>) {
    let Some(groups) = section.section("group") else { return };
    for (name, item) in groups.entries() {
        let Some(group) = item.section() else { continue };
        let written = keys(&group, policies, around);
        // The built-in groups keep what the file does not change.
        let below = bgp.groups.get(name).cloned().unwrap_or_default();
        bgp.groups.insert(name.to_owned(), written.or(below));
        group.close();
    }
}

pub(super) fn neighbors(
    section: &Section<'_>,
    bgp: &mut Bgp,
    policies: &Policies,
    around: &ParseContext<'_>,
) {
    let mut lines: Vec<(NeighborId, usize)> = Vec::new();
    for section in section.get("neighbor").map(|i| i.tables()).unwrap_or_default() {
        let place = section.get("address").or_else(|| section.get("interface"));
        let at = place_of(&section);
        let limit = limit(&section);
        let group = group(&section, bgp);
        let keys = keys(&section, policies, around);
        let below = group.as_ref().and_then(|g| bgp.groups.get(g)).cloned().unwrap_or_default();
        check_combinations(&section, bgp.asn, at.as_ref(), &keys.clone().or(below));
        if let (Some(at), Some(place)) = (at, place) {
            if let Some((_, line)) = lines.iter().find(|(seen, _)| *seen == at) {
                place.error(format!("this neighbor stands in line {line} already; keep one of them"));
            }
            lines.push((at.clone(), place.line()));
            bgp.neighbors.push(Neighbor { at, group, limit, keys });
        }
        section.close();
    }
}

fn place_of(section: &Section<'_>) -> Option<NeighborId> {
    match (section.get("address"), section.get("interface")) {
        (Some(address), None) => neighbor_address(&address),
        (None, Some(interface)) => interface_glob(&interface).map(NeighborId::Interface),
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
fn limit(section: &Section<'_>) -> usize {
    let Some(item) = section.get("limit") else { return 1 };
    if section.get("interface").is_none() {
        item.error("is the number of neighbors on an `interface`; remove it beside `address`");
        return 1;
    }
    item.number(1..=64).unwrap_or(1)
}

/// The name of a group that exists.
fn group(section: &Section<'_>, bgp: &Bgp) -> Option<String> {
    let item = section.get("group")?;
    let name = item.text()?;
    if !bgp.groups.contains_key(name) {
        let known: Vec<&str> = bgp.groups.keys().map(String::as_str).collect();
        item.error(format!("no such group; add [bgp.group.{name}], or use one of {}", known.join(", ")));
        return None;
    }
    Some(name.to_owned())
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
            "nobody shares the number of bgp.as = \"auto\"; write \"external\" or a number",
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
        // What a gateway has by default gives way to `multihop`.
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

/// Whether a session is iBGP, as far as the configuration tells.
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

/// The keys of a neighbor or group, each if written.
fn keys(section: &Section<'_>, policies: &Policies, around: &ParseContext<'_>) -> NeighborKeys {
    let flag = |key| section.get(key).and_then(|i| i.flag());
    let names = |key| section.get(key).and_then(|i| i.list(|i| policy_name(i, policies)));
    let mut keys = NeighborKeys {
        remote_as: section.get("remote-as").and_then(|i| values::remote_as(&i)),
        local_as: section.get("local-as").and_then(|i| values::asn(&i)),
        local_address: section.get("local-address").and_then(|i| values::address(&i)),
        port: section.get("port").and_then(|i| i.number(1..=65535)),
        passive: flag("passive"),
        description: section.get("description").and_then(|i| i.text()).map(str::to_owned),
        multihop: section.get("multihop").and_then(|i| i.number(1..=255)),
        ttl_security: section.get("ttl-security").and_then(|i| ttl_security(&i)),
        families: section.get("families").and_then(|i| families(&i)),
        route_reflector_client: flag("route-reflector-client"),
        next_hop_self: flag("next-hop-self"),
        transit: flag("transit"),
        max_prefixes: section.get("max-prefixes").and_then(|i| i.number(1..=u32::MAX.into())),
        max_prefixes_action: section.get("max-prefixes-action").and_then(|i| i.choice(&ACTIONS)),
        max_prefixes_restart: section.get("max-prefixes-restart").and_then(|i| i.number(1..=u32::MAX.into())),
        max_prefixes_out: section.get("max-prefixes-out").and_then(|i| i.number(0..=u32::MAX.into())),
        add_paths: section.get("add-paths").and_then(|i| i.choice(&ADD_PATHS)),
        bfd: section.get("bfd").and_then(|i| bfd::read(&i, around)),
        import: names("import"),
        export: names("export"),
        fast_failover: flag("fast-failover"),
        accept_default: flag("accept-default"),
        allow_own_as: section.get("allow-own-as").and_then(|i| i.number(0..=255)),
        as_sets: section
            .get("as-sets")
            .and_then(|i| i.choice(&[("withdraw", AsSets::Withdraw), ("accept", AsSets::Accept)])),
        role: section.get("role").and_then(|i| i.choice(&ROLES)),
        ..NeighborKeys::default()
    };
    read_session_keys(section, &mut keys);
    let (password, file) = password::read(section, around, PASSWORD, "TCP MD5");
    (keys.password, keys.password_file) = (password.map(Secret), file);
    keys
}

/// A number of hops, 0 or false for none, or "where-offered".
fn ttl_security(item: &Item<'_>) -> Option<TtlSecurity> {
    const WHERE_OFFERED: &str = "where-offered";
    if item.value.get_ref().as_bool() == Some(false) {
        return Some(TtlSecurity::Off);
    }
    if item.is_text() {
        return item.choice(&[(WHERE_OFFERED, TtlSecurity::WhereOffered)]);
    }
    let hops = item.number_where("0 (off), 1 to 254 hops, or \"where-offered\"", |n| n <= 254)?;
    Some(if hops == 0 { TtlSecurity::Off } else { TtlSecurity::Strict(hops) })
}

const ACTIONS: [(&str, MaxPrefixesAction); 2] =
    [("restart", MaxPrefixesAction::Restart), ("warn", MaxPrefixesAction::Warn)];

const ADD_PATHS: [(&str, AddPaths); 4] = [
    ("none", AddPaths { send: false, receive: false }),
    ("receive", AddPaths { send: false, receive: true }),
    ("send", AddPaths { send: true, receive: false }),
    ("both", AddPaths { send: true, receive: true }),
];

const ROLES: [(&str, Role); 5] = [
    ("provider", Role::Provider),
    ("customer", Role::Customer),
    ("peer", Role::Peer),
    ("rs", Role::RouteServer),
    ("rs-client", Role::RouteServerClient),
];

fn families(item: &Item<'_>) -> Option<Vec<Family>> {
    let mut families = item.set(|i| i.choice(&FAMILIES))?;
    if families.is_empty() {
        item.error("must name at least one of \"ipv4-unicast\", \"ipv6-unicast\"");
        return None;
    }
    families.sort_unstable();
    Some(families)
}

fn policy_name(item: &Item<'_>, policies: &Policies) -> Option<String> {
    let name = item.text()?;
    if !policies.contains_key(name) {
        item.error(format!("no policy `{name}`; add [[policy.{name}]], or remove the name"));
        return None;
    }
    Some(name.to_owned())
}

pub(super) fn ranges(section: &Section<'_>, bgp: &mut Bgp) {
    for section in section.get("listen-range").map(|i| i.tables()).unwrap_or_default() {
        let place = section.get("prefix");
        if place.is_none() {
            section.missing("prefix", "the addresses from which neighbors may come, as 10.0.0.0/24");
        }
        let prefix = place.as_ref().and_then(prefix);
        let group = group(&section, bgp);
        let written = section.get("remote-as");
        let own = written.as_ref().and_then(values::remote_as);
        let remote_as = own.or_else(|| bgp.groups.get(group.as_ref()?)?.remote_as);
        if remote_as.is_none() && written.is_none() {
            section.missing("remote-as", "a number, \"external\", \"internal\" or \"any\"");
        }
        let limit = section.get("limit").and_then(|i| i.number(1..=100_000)).unwrap_or(100);
        if let (Some(prefix), Some(remote_as)) = (prefix, remote_as) {
            if bgp.ranges.iter().any(|r| r.prefix == prefix)
                && let Some(place) = place
            {
                place.error("this range stands here twice; remove one");
            }
            bgp.ranges.push(ListenRange { prefix, remote_as, group, limit });
        }
        section.close();
    }
}
