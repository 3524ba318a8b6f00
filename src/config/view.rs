//! `show config`: the effective configuration with the keys of the file, without secrets.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    AsSetting, CniPlugin, Config, GuardConnected, LogFormat, NeighborKeys, OnExit, Peering, PreferSource,
};
use crate::{
    bgp::{
        peer::{
            AddPaths, AsSets, Bfd, Global, Hops, MaxPrefixesAction, PeerConfig, PeerKey, PeerSource,
            RemoteAs, Role, TtlSecurity,
        },
        policy::{Community, NextHopSetting, Policy, Statement},
    },
    net::Prefix,
};

/// The configuration with the resulting neighbors. `global` and `peers` come from the plan: the own
/// AS number, the router id, and every neighbor after groups and Kubernetes overlays. Without a
/// plan only the file counts.
pub fn effective<'p>(
    config: &Config,
    global: Option<&Global>,
    peers: impl IntoIterator<Item = &'p PeerConfig>,
) -> Value {
    let mut value = json!({
        "state-dir": config.state_dir,
        "bgp": bgp(config, global),
        "advertise": advertise(config),
        "policy": (!config.policies.is_empty()).then(|| policies(config)),
        "fib": fib(config),
        "kubernetes": kubernetes(config),
        "cni": cni(config),
        "docker": {
            "networks": texts(&config.docker.networks),
            "socket": config.docker.socket,
            "accept-forwarded": config.docker.accept_forwarded,
        },
        "masquerade": {
            "enabled": auto_or(config.masquerade.enabled),
            "exclude": config.masquerade.exclude,
        },
        "guard": {
            "connected": match config.guard.connected {
                GuardConnected::Equal => "equal",
                GuardConnected::Inside => "inside",
            },
            "block-pod-bgp": config.guard.block_pod_bgp,
        },
        "security": { "sandbox": config.security.sandbox },
        "metrics": { "listen": metrics(config) },
        "control": { "socket": config.control.socket, "group": config.control.group },
        "log": { "level": config.log.level, "format": log_format(config.log.format) },
    });
    let peers: Vec<Value> = peers.into_iter().map(peer).collect();
    if !peers.is_empty() {
        value["bgp"]["neighbor"] = peers.into();
    }
    drop_nulls(&mut value);
    value
}

/// TOML has no null: keys that are not set are left out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

const HIDDEN: &str = "(hidden)";

fn bgp(config: &Config, global: Option<&Global>) -> Value {
    let bgp = &config.bgp;
    let asn = match (global, bgp.asn) {
        (Some(global), _) => json!(global.asn),
        (None, AsSetting::Number(asn)) => json!(asn),
        (None, AsSetting::Auto) => json!("auto"),
        (None, AsSetting::Default) => json!(64512),
    };
    let defaults = &bgp.defaults;
    let groups: Map<String, Value> = bgp.groups.iter().map(|(name, k)| (name.clone(), keys(k))).collect();
    let ranges: Vec<Value> = bgp
        .ranges
        .iter()
        .map(|r| {
            json!({ "prefix": r.prefix, "remote-as": remote_as(r.remote_as), "group": r.group, "limit": r.limit })
        })
        .collect();
    json!({
        "as": asn,
        "router-id": global.map(|g| g.router_id).or(bgp.router_id),
        "listen": bgp.listen,
        "hold-time": defaults.hold_time,
        "connect-retry-time": defaults.connect_retry_time,
        "idle-hold-time": defaults.idle_hold_time,
        "graceful-restart": defaults.graceful_restart,
        "restart-time": defaults.restart_time,
        "long-lived-stale-time": defaults.long_lived_stale_time,
        "max-paths": bgp.max_paths,
        "multipath-relax": bgp.multipath_relax,
        "require-policy": bgp.require_policy,
        "cluster-id": global.map(|g| g.cluster_id).or(bgp.cluster_id),
        "group": groups,
        "listen-range": (!ranges.is_empty()).then_some(ranges),
    })
}

/// A group, with the keys that it sets.
fn keys(k: &NeighborKeys) -> Value {
    json!({
        "remote-as": k.remote_as.map(remote_as),
        "local-as": k.local_as,
        "local-address": k.local_address,
        "port": k.port,
        "passive": k.passive,
        "description": k.description,
        "password": k.password.as_ref().filter(|_| k.password_file.is_none()).map(|_| HIDDEN),
        "password-file": k.password_file,
        "multihop": k.multihop,
        "ttl-security": k.ttl_security.map(ttl_security),
        "families": k.families,
        "hold-time": k.hold_time,
        "send-hold-time": k.send_hold_time,
        "connect-retry-time": k.connect_retry_time,
        "idle-hold-time": k.idle_hold_time,
        "graceful-restart": k.graceful_restart,
        "restart-time": k.restart_time,
        "long-lived-stale-time": k.long_lived_stale_time,
        "route-reflector-client": k.route_reflector_client,
        "next-hop-self": k.next_hop_self,
        "transit": k.transit,
        "max-prefixes": k.max_prefixes,
        "max-prefixes-action": k.max_prefixes_action.map(max_prefixes_action),
        "max-prefixes-restart": k.max_prefixes_restart,
        "max-prefixes-out": k.max_prefixes_out,
        "add-paths": k.add_paths.map(add_paths),
        "bfd": k.bfd.as_ref().map(|b| bfd(b.as_ref())),
        "import": k.import,
        "export": k.export,
        "fast-failover": k.fast_failover,
        "accept-default": k.accept_default,
        "allow-own-as": k.allow_own_as,
        "as-sets": k.as_sets.map(as_sets),
        "role": k.role.map(role),
    })
}

fn ttl_security(setting: TtlSecurity) -> Value {
    match setting {
        TtlSecurity::Off => 0.into(),
        TtlSecurity::Strict(hops) => hops.into(),
        TtlSecurity::WhereOffered => "where-offered".into(),
    }
}

/// The effective settings of a neighbor, and its source.
fn peer(p: &PeerConfig) -> Value {
    let (address, interface) = match &p.key {
        PeerKey::Interface(name) => (None, Some(name.clone())),
        key => (Some(key.to_string()), None),
    };
    let (multihop, security) = match p.hops {
        Hops::Direct => (None, None),
        Hops::Multihop(n) => (Some(n), None),
        Hops::Security(n) => (None, Some(ttl_security(TtlSecurity::Strict(n)))),
        Hops::SecurityWhereOffered => (None, Some(ttl_security(TtlSecurity::WhereOffered))),
    };
    let names = |list: &[std::sync::Arc<Policy>]| list.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    json!({
        "address": address,
        "interface": interface,
        "source": source(p.source),
        "disabled": p.disabled.then_some(true),
        "group": p.group,
        "remote-as": remote_as(p.remote_as),
        "local-as": p.local_as,
        "local-address": p.local_address,
        "port": p.port,
        "passive": p.passive,
        "description": p.description,
        "password": p.password.as_ref().map(|_| HIDDEN),
        "multihop": multihop,
        "ttl-security": security,
        "families": p.families,
        "hold-time": p.hold_time,
        "send-hold-time": p.send_hold_time,
        "connect-retry-time": p.connect_retry_time.as_secs(),
        "idle-hold-time": p.idle_hold_time.as_secs(),
        "graceful-restart": p.graceful_restart,
        "restart-time": p.restart_time,
        "long-lived-stale-time": p.long_lived_stale_time,
        "route-reflector-client": p.route_reflector_client,
        "next-hop-self": p.next_hop_self,
        "transit": p.transit,
        "max-prefixes": p.max_prefixes,
        "max-prefixes-action": max_prefixes_action(p.max_prefixes_action),
        "max-prefixes-restart": p.max_prefixes_restart.as_secs(),
        "max-prefixes-out": p.max_prefixes_out,
        "add-paths": add_paths(p.add_paths),
        "bfd": bfd(p.bfd.as_ref()),
        "import": names(&p.import),
        "export": names(&p.export),
        "fast-failover": p.fast_failover,
        "accept-default": p.accept_default,
        "allow-own-as": p.allow_own_as,
        "as-sets": as_sets(p.as_sets),
        "role": p.role.map(role),
    })
}

fn advertise(config: &Config) -> Value {
    let a = &config.advertise;
    let communities = a
        .communities
        .iter()
        .map(|c| Community::Standard(*c))
        .chain(a.large_communities.iter().map(|c| Community::Large(*c)))
        .chain(a.ext_communities.iter().map(|c| Community::Ext(*c)));
    json!({
        "networks": a.networks,
        "interfaces": a.interfaces,
        "containers": a.containers,
        "require-carrier": a.require_carrier,
        "communities": texts(communities),
        "med": a.med,
    })
}

fn policies(config: &Config) -> Value {
    let all: BTreeMap<&String, Vec<Value>> = config
        .policies
        .iter()
        .map(|(name, p)| (name, p.statements.iter().map(statement).collect()))
        .collect();
    json!(all)
}

fn statement(s: &Statement) -> Value {
    let (m, set) = (&s.matches, &s.set);
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let next_hop = set.next_hop.map(|n| match n {
        NextHopSetting::Own => "self".to_owned(),
        NextHopSetting::Address(addr) => addr.to_string(),
    });
    json!({
        "prefixes": some(texts(&m.prefixes)),
        "families": some(texts(&m.families)),
        "neighbors": some(texts(&m.neighbors)),
        "as-path": m.as_path.as_ref().map(|p| p.as_str()),
        "origin-as": (!m.origin_as.is_empty()).then_some(&m.origin_as),
        "communities": some(texts(&m.communities)),
        "source": (!m.source.is_empty()).then_some(&m.source),
        "next-hop": some(texts(&m.next_hop)),
        "set-local-pref": set.local_pref,
        "set-med": set.med,
        "add-communities": some(texts(&set.add_communities)),
        "remove-communities": some(texts(&set.remove_communities)),
        "prepend-as": (set.prepend_as > 0).then_some(set.prepend_as),
        "set-next-hop": next_hop,
        "action": s.action,
    })
}

fn texts<T: ToString>(list: impl IntoIterator<Item = T>) -> Vec<String> {
    list.into_iter().map(|t| t.to_string()).collect()
}

fn fib(config: &Config) -> Value {
    let f = &config.fib;
    json!({
        "install": f.install,
        "table": f.table,
        "protocol": f.protocol,
        "metric": f.metric,
        "on-exit": match f.on_exit {
            OnExit::Keep => "keep",
            OnExit::Flush => "flush",
        },
        "resolve-via-default": f.resolve_via_default,
        "prefer-source": texts(f.prefer_source.iter().map(prefer_source)),
        "resilient": f.resilient,
        "nexthop-objects": if f.nexthop_objects { json!("auto") } else { json!(false) },
    })
}

fn prefer_source(source: &PreferSource) -> String {
    match source {
        PreferSource::RouterId => "router-id".into(),
        PreferSource::Address(address) => address.to_string(),
    }
}

fn kubernetes(config: &Config) -> Value {
    let k = &config.kubernetes;
    let peering: Vec<&str> = k.peering.iter().map(|p| peering(*p)).collect();
    let rules = &k.service_rules;
    json!({
        "enabled": k.enabled,
        "peering": peering,
        "mesh-limit": k.mesh_limit,
        "mesh-accept": texts(&k.mesh_accept),
        "node-name": k.node_name,
        "service-cidrs": k.service_cidrs.as_ref().map(texts::<&Prefix>),
        "advertise-pod-cidrs": k.advertise_pod_cidrs,
        "startup-taint": k.startup_taint,
        "accept-forwarded": k.accept_forwarded,
        "services": k.services,
        "service-selector": rules.selector.to_string(),
        "service-annotations": rules.annotations,
        "service-aggregates": texts(&rules.aggregates),
        "service-external-ranges": texts(&rules.external_ranges),
        "service-limit": rules.limits.total,
        "service-limit-per-namespace": rules.limits.per_namespace,
        "load-balancer-classes": rules.classes,
        "withdraw-when-cordoned": rules.when_cordoned,
        "withdraw-without-endpoints": rules.without_endpoints,
        "ignore-exclude-label": rules.ignore_exclude_label,
    })
}

fn peering(peering: Peering) -> &'static str {
    match peering {
        Peering::Mesh => "mesh",
        Peering::Gateway => "gateway",
        Peering::Reflectors => "reflectors",
        Peering::Auto => "auto",
        Peering::None => "none",
    }
}

fn cni(config: &Config) -> Value {
    let c = &config.cni;
    let plugins: Vec<Value> = c
        .plugins
        .iter()
        .map(|p| match p {
            CniPlugin::Name(name) => json!(name),
            CniPlugin::Table(table) => json!(table),
        })
        .collect();
    json!({
        "enabled": c.enabled,
        "conf-dir": c.conf_dir,
        "file": c.file,
        "bin-dir": c.bin_dir,
        "bridge": c.bridge,
        "mtu": c.mtu,
        "plugins": plugins,
    })
}

fn metrics(config: &Config) -> Value {
    if config.metrics.listen.is_empty() { json!("") } else { json!(config.metrics.listen) }
}

fn auto_or(flag: Option<bool>) -> Value {
    flag.map_or(json!("auto"), Value::Bool)
}

fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn remote_as(remote_as: RemoteAs) -> Value {
    match remote_as {
        RemoteAs::Number(n) => json!(n),
        RemoteAs::External => json!("external"),
        RemoteAs::Internal => json!("internal"),
        RemoteAs::Any => json!("any"),
    }
}

fn max_prefixes_action(action: MaxPrefixesAction) -> &'static str {
    match action {
        MaxPrefixesAction::Warn => "warn",
        MaxPrefixesAction::Restart => "restart",
    }
}

fn add_paths(add_paths: AddPaths) -> &'static str {
    match (add_paths.receive, add_paths.send) {
        (false, false) => "none",
        (true, false) => "receive",
        (false, true) => "send",
        (true, true) => "both",
    }
}

fn as_sets(as_sets: AsSets) -> &'static str {
    match as_sets {
        AsSets::Withdraw => "withdraw",
        AsSets::Accept => "accept",
    }
}

fn bfd(bfd: Option<&Bfd>) -> Value {
    let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    bfd.map_or(json!(false), |Bfd { params, strict, password_file }| {
        let auth = params.auth.as_ref();
        json!({
            "min-tx": ms(params.min_tx),
            "min-rx": ms(params.min_rx),
            "multiplier": params.multiplier,
            "strict": strict,
            "passive": params.passive,
            "password": auth.filter(|_| password_file.is_none()).map(|_| HIDDEN),
            "password-file": password_file,
            "key-id": auth.map(|a| a.key_id),
            "authentication": auth.map(|a| if a.meticulous { "meticulous-sha1" } else { "sha1" }),
        })
    })
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Provider => "provider",
        Role::RouteServer => "rs",
        Role::RouteServerClient => "rs-client",
        Role::Customer => "customer",
        Role::Peer => "peer",
    }
}

fn source(source: PeerSource) -> &'static str {
    match source {
        PeerSource::Configured => "configured",
        PeerSource::Object => "object",
        PeerSource::Gateway => "gateway",
        PeerSource::Mesh => "mesh",
        PeerSource::Reflector => "reflector",
        PeerSource::Range => "range",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::{ParseContext, parse};

    fn read(text: &str) -> Config {
        let around = ParseContext { kubernetes: true, read_password: &|_| Ok("from a file".into()) };
        parse(text, &around).unwrap_or_else(|p| panic!("{p:#?}\n{text}")).0
    }

    /// All sections but neighbors, each key with a value that is not its default.
    const FULL: &str = r#"
        state-dir = "/tmp/x"
        [bgp]
        as = 65010
        router-id = "10.0.0.7"
        listen = ["127.0.0.1:1179"]
        hold-time = 9
        connect-retry-time = 2
        idle-hold-time = 3
        max-paths = 2
        multipath-relax = false
        cluster-id = "10.0.0.8"
        graceful-restart = false
        restart-time = 60
        long-lived-stale-time = 70
        [bgp.group.tor]
        remote-as = "any"
        local-as = 65001
        local-address = "10.0.0.1"
        port = 1790
        passive = true
        description = "leaf"
        password-file = "/etc/p"
        multihop = 3
        families = ["ipv4-unicast"]
        hold-time = 30
        send-hold-time = 200
        route-reflector-client = true
        next-hop-self = true
        transit = true
        max-prefixes = 5
        max-prefixes-action = "warn"
        max-prefixes-restart = 6
        max-prefixes-out = 500
        add-paths = "both"
        bfd = false
        import = ["p"]
        export = ["p"]
        fast-failover = false
        accept-default = true
        allow-own-as = 2
        as-sets = "accept"
        role = "rs-client"
        [bgp.group.leaf]
        bfd = { min-tx = 50, min-rx = 60, multiplier = 5, strict = true, passive = true, password-file = "/etc/q", key-id = 7, authentication = "sha1" }
        [[bgp.listen-range]]
        prefix = "10.9.0.0/16"
        remote-as = 7
        group = "tor"
        limit = 3
        [advertise]
        networks = ["10.1.0.0/16", "2001:db8::/48"]
        interfaces = ["docker0"]
        require-carrier = false
        communities = ["65001:7", "large:1:2:3", "ext:rt:65001:7"]
        med = 5
        [[policy.p]]
        prefixes = ["10.0.0.0/8{16,24}", "::/0"]
        families = ["ipv6-unicast"]
        neighbors = ["10.1.1.1", "fe80::1%eth0", "eth1"]
        as-path = "^1 "
        origin-as = [7]
        communities = ["no-export"]
        source = ["pod-cidr", "bgp"]
        next-hop = ["10.1.1.0/24"]
        set-local-pref = 1
        set-med = 2
        add-communities = ["1:1"]
        remove-communities = ["1:2"]
        prepend-as = 3
        set-next-hop = "self"
        action = "accept"
        [[policy.p]]
        action = "reject"
        [fib]
        install = false
        table = 100
        protocol = 200
        metric = 50
        on-exit = "flush"
        resolve-via-default = true
        prefer-source = ["router-id", "fd00::1"]
        nexthop-objects = false
        [kubernetes]
        enabled = true
        peering = ["gateway", "mesh"]
        mesh-limit = 7
        mesh-accept = ["192.0.2.0/24"]
        node-name = "node-7"
        service-cidrs = ["10.96.0.0/12"]
        advertise-pod-cidrs = false
        services = ["cluster-ip"]
        accept-forwarded = false
        service-selector = "team=web,!internal"
        service-annotations = ["external-ip"]
        service-aggregates = ["10.96.0.0/16"]
        service-external-ranges = ["192.0.2.0/24"]
        service-limit = 7
        service-limit-per-namespace = 0
        load-balancer-classes = ["example.com/x"]
        withdraw-when-cordoned = true
        withdraw-without-endpoints = true
        ignore-exclude-label = true
        [cni]
        enabled = false
        conf-dir = "/tmp/net.d"
        file = "05-x.conflist"
        bin-dir = "/tmp/bin"
        bridge = "br7"
        mtu = 1400
        plugins = ["bandwidth", { type = "tuning", sysctl = { "net.core.somaxconn" = "500" } }]
        [docker]
        networks = ["web", "label:com.example/advertise=true"]
        socket = "/tmp/docker.sock"
        accept-forwarded = false
        [masquerade]
        enabled = false
        exclude = ["10.0.0.0/8"]
        [guard]
        connected = "inside"
        block-pod-bgp = false
        [security]
        sandbox = false
        [metrics]
        listen = ["127.0.0.1:9180"]
        [control]
        socket = "/tmp/r.sock"
        group = "routelet"
        [log]
        level = "debug"
        format = "json"
    "#;

    #[test]
    fn what_is_shown_reads_back_as_the_same_configuration() {
        for text in ["[bgp]\nas = 64512\n", FULL] {
            let config = read(text);
            let shown = toml::to_string_pretty(&effective(&config, None, [])).unwrap();
            assert_eq!(read(&shown), config, "{shown}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        let config = read(
            "[bgp.group.x]\npassword = \"hunter2\"\nbfd = { password = \"hunter2\" }\n[bgp.group.y]\npassword-file = \"/p\"\nbfd = { password-file = \"/p\" }\n",
        );
        let shown = effective(&config, None, []).to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("from a file"), "{shown}");
        assert!(shown.contains(HIDDEN));
    }
}
