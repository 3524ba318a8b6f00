//! `show config`: the effective configuration with the keys of the file, without secrets.

use serde_json::{Map, Value, json};

use super::{
    Config, ListenRange, NeighborKeys,
    keys::{RangeKeys, StatementKeys, is_shared},
};
use crate::bgp::{
    peer::{Global, Hops, PeerConfig, PeerKey, PeerSource, TtlSecurity},
    policy::Policy,
};

/// The configuration with the resulting neighbors. `global` and `peers` come from the plan: the own
/// AS number, the router id, and every neighbor after groups and Kubernetes overlays. Without a
/// plan only the file counts.
pub fn effective<'p>(
    config: &Config,
    global: Option<&Global>,
    peers: impl IntoIterator<Item = &'p PeerConfig>,
) -> Value {
    let mut value = config.show();
    let peers: Vec<Value> = peers.into_iter().map(peer).collect();
    value.insert("bgp".to_owned(), bgp(config, global, peers));
    if !config.policies.is_empty() {
        value.insert("policy".to_owned(), policies(config));
    }
    let mut kubernetes = config.kubernetes.show();
    kubernetes.append(&mut config.kubernetes.service_rules.show());
    for (name, table) in [
        ("advertise", config.advertise.show()),
        ("fib", config.fib.show()),
        ("kubernetes", kubernetes),
        ("cni", config.cni.show()),
        ("docker", config.docker.show()),
        ("masquerade", config.masquerade.show()),
        ("guard", config.guard.show()),
        ("security", config.security.show()),
        ("metrics", config.metrics.show()),
        ("control", config.control.show()),
        ("log", config.log.show()),
    ] {
        value.insert(name.to_owned(), table.into());
    }
    let mut value = Value::Object(value);
    drop_nulls(&mut value);
    value
}

/// TOML has no null: keys that are not set are left out.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn bgp(config: &Config, global: Option<&Global>, peers: Vec<Value>) -> Value {
    let bgp = &config.bgp;
    let mut value = bgp.show();
    value.append(&mut bgp.defaults.show_where(is_shared));
    if let Some(global) = global {
        value.insert("as".to_owned(), json!(global.asn));
        value.insert("router-id".to_owned(), json!(global.router_id));
        value.insert("cluster-id".to_owned(), json!(global.cluster_id));
    }
    let groups = bgp.groups.iter().map(|(name, keys)| (name.clone(), keys.shown().into()));
    value.insert("group".to_owned(), Value::Object(groups.collect()));
    if !bgp.ranges.is_empty() {
        value.insert("listen-range".to_owned(), bgp.ranges.iter().map(range).collect());
    }
    if !peers.is_empty() {
        value.insert("neighbor".to_owned(), peers.into());
    }
    value.into()
}

fn range(range: &ListenRange) -> Map<String, Value> {
    let ListenRange { prefix, remote_as, group, limit } = range.clone();
    RangeKeys { prefix: Some(prefix), remote_as: Some(remote_as), group, limit }.show()
}

/// The statements of a policy with the keys of the file that are set.
pub fn statements(policy: &Policy) -> Vec<Map<String, Value>> {
    let keys = |statement| {
        let mut keys = StatementKeys::from(statement).show();
        keys.retain(|_, value| !value.is_null());
        keys
    };
    policy.statements.iter().map(keys).collect()
}

fn policies(config: &Config) -> Value {
    config
        .policies
        .iter()
        .map(|(name, policy)| (name.clone(), statements(policy).into()))
        .collect::<Map<_, _>>()
        .into()
}

/// The effective settings of a neighbor, and its source.
fn peer(peer: &PeerConfig) -> Value {
    let (address, interface) = match &peer.key {
        PeerKey::Interface(name) => (None, Some(name.clone())),
        key => (Some(key.to_string()), None),
    };
    let mut value = in_force(peer).shown();
    value.insert("address".to_owned(), json!(address));
    value.insert("interface".to_owned(), json!(interface));
    value.insert("source".to_owned(), source(peer.source).into());
    value.insert("disabled".to_owned(), json!(peer.disabled.then_some(true)));
    value.insert("group".to_owned(), json!(peer.group));
    value.into()
}

/// The keys that lead to these settings.
fn in_force(p: &PeerConfig) -> NeighborKeys {
    let (multihop, ttl_security) = match p.hops {
        Hops::Direct => (None, None),
        Hops::Multihop(n) => (Some(n), None),
        Hops::Security(n) => (None, Some(TtlSecurity::Strict(n))),
        Hops::SecurityWhereOffered => (None, Some(TtlSecurity::WhereOffered)),
    };
    let names = |list: &[std::sync::Arc<Policy>]| Some(list.iter().map(|p| p.name.clone()).collect());
    let seconds = |time: std::time::Duration| u16::try_from(time.as_secs()).ok();
    NeighborKeys {
        remote_as: Some(p.remote_as),
        local_as: Some(p.local_as),
        local_address: p.local_address,
        port: Some(p.port),
        passive: Some(p.passive),
        description: p.description.clone(),
        password: p.password.clone(),
        password_file: None,
        multihop,
        ttl_security,
        families: Some(p.families.clone()),
        hold_time: Some(p.hold_time),
        send_hold_time: p.send_hold_time,
        connect_retry_time: seconds(p.connect_retry_time),
        idle_hold_time: seconds(p.idle_hold_time),
        graceful_restart: Some(p.graceful_restart),
        restart_time: Some(p.restart_time),
        long_lived_stale_time: Some(p.long_lived_stale_time),
        route_reflector_client: Some(p.route_reflector_client),
        next_hop_self: p.next_hop_self,
        transit: Some(p.transit),
        max_prefixes: Some(p.max_prefixes),
        max_prefixes_action: Some(p.max_prefixes_action),
        max_prefixes_restart: u32::try_from(p.max_prefixes_restart.as_secs()).ok(),
        max_prefixes_out: p.max_prefixes_out,
        add_paths: Some(p.add_paths),
        bfd: Some(p.bfd.clone()),
        import: names(&p.import),
        export: names(&p.export),
        fast_failover: p.fast_failover,
        accept_default: Some(p.accept_default),
        allow_own_as: Some(p.allow_own_as),
        as_sets: Some(p.as_sets),
        role: p.role,
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
    use crate::config::{ParseContext, parse, password::HIDDEN};

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
        status-page = false
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
