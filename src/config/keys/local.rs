//! The tables of what this host does: from `[advertise]` to `[log]`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde_json::{Value, json};

use super::{
    Shape,
    kinds::{Kind, With, sockets},
    section,
};
use crate::{
    bgp::policy::Community,
    config::{
        CniPlugin, GuardConnected, LogFormat, OnExit, PreferSource,
        read::Item,
        values::{self, interface_glob, interface_name, own_prefix, prefix},
    },
    docker::NetworkSelector,
    net::Prefix,
};

section! {
    /// The prefixes that this host originates.
    pub struct Advertise at "[advertise]" {
        /// Prefixes that are always advertised, with an unreachable route in the kernel against
        /// loops.
        "networks" networks: Vec<Prefix> = Vec::new(), Set(written(own_prefix));
        /// Names or patterns of interfaces, such as "docker0" or "br-*": their connected subnets
        /// are advertised while they are up and have a carrier. A bridge has one if one of its
        /// ports has.
        "interfaces" interfaces: Vec<String> = Vec::new(), Set(written(interface_glob));
        /// The same for each bridge whose ports all lead to containers or virtual machines,
        /// whatever its name.
        "containers" containers: bool = false, Flag,
            DefaultIs("false; true on a host without Kubernetes whose file has neither `[bgp]` nor `[advertise]`");
        /// False: an interface needs no carrier, up is enough.
        "require-carrier" require_carrier: bool = true, Flag;
        /// Communities of originated routes: "65001:7", "large:64496:1:2", "ext:rt:65001:7" or a
        /// well-known name.
        "communities" communities: Vec<Community> = Vec::new(), Set(written(values::community));
        /// MED of originated routes.
        "med" med: Option<u32> = None, Optional(number(0..=u32::MAX.into())), Example("100");
        also
        /// Bridges of `docker.networks` as the engine names them; laid over the file.
        docker_bridges: BTreeSet<String> = BTreeSet::new();
    }
}

section! {
    /// Routes in the kernel.
    pub struct Fib at "[fib]" {
        /// Write learned routes to the kernel.
        "install" install: bool = true, Flag;
        /// The routing table: 1 to 4294967295 without 255, which is the kernel's own.
        "table" table: u32 = 254, number(1..=u32::MAX.into())
            .only("1 to 4294967295 without 255, which is the kernel's own", |n| n != 255);
        /// The kernel's route protocol number; only routes with it are ever changed.
        "protocol" protocol: u8 = 179, number(5..=255).only("5 to 255", |_| true);
        /// Metric of learned routes. Where a route of another protocol has the same prefix and
        /// metric, ours is not written.
        "metric" metric: u32 = 179, number(1..=4_294_967_294);
        /// "keep": routes stay over a restart; "flush": they are removed at exit.
        "on-exit" on_exit: OnExit = OnExit::Keep,
            Choice(&[("keep", OnExit::Keep), ("flush", OnExit::Flush)]);
        /// Whether a next hop may be resolved over the default route.
        "resolve-via-default" resolve_via_default: bool = false, Flag;
        /// Source address of what this host itself sends by learned routes: "router-id", an address
        /// of this host (usually one on lo), or a list with one address of each family. With [] the
        /// kernel takes that of the uplink.
        "prefer-source" prefer_source: Vec<PreferSource> = Vec::new(), preferred_sources();
        /// Kernel nexthop groups: "auto" uses them if the kernel has them; true or false.
        "nexthop-objects" nexthop_objects: bool = true, nexthop_objects();
        /// Groups of next hops are resilient (Linux 5.13): when a next hop is lost, only its flows
        /// move, and when it returns, only flows that are idle.
        "resilient" resilient: bool = false, Flag;
    }
}

section! {
    /// The CNI configuration that routelet writes for the container runtime.
    pub struct Cni at "[cni]" {
        /// Write the conflist.
        "enabled" enabled: Option<bool> = None, Optional(Flag),
            DefaultIs("under Kubernetes"), Example("true"), Restart;
        /// Folder of the conflist.
        "conf-dir" conf_dir: PathBuf = "/etc/cni/net.d".into(), path(), Restart;
        /// Name of the conflist.
        "file" file: String = "10-routelet.conflist".into(), written(conflist_name), Restart;
        /// Folder of the CNI plugins; only checked.
        "bin-dir" bin_dir: PathBuf = "/opt/cni/bin".into(), path(), Restart;
        /// Bridge of the pods.
        "bridge" bridge: String = "routelet0".into(), written(interface_name);
        /// MTU of the pods' interfaces.
        // IPv6 needs 1280 (RFC 8200 §5).
        "mtu" mtu: Option<u32> = None, Optional(number(1280..=65535)),
            DefaultIs("the smallest MTU of the interfaces that hold a default route"), Example("1500");
        /// Plugins chained after the bridge, if their binary exists: "portmap", "bandwidth",
        /// "tuning", "firewall", "sbr", or tables.
        "plugins" plugins: Vec<CniPlugin> = vec![CniPlugin::Name("portmap".into())], List(plugin());
    }
}

section! {
    /// Networks of a Docker engine.
    pub struct Docker at "[docker]" {
        /// Networks whose subnets are advertised while a container is attached: names, or
        /// "label:KEY=VALUE". They are read from the socket of the engine and followed; the engine
        /// is not needed for networks that were read before. See
        /// [bare-host.md](bare-host.md#docker).
        "networks" networks: Vec<NetworkSelector> = Vec::new(), Set(written(docker_network));
        /// Socket of the engine, only read, and for `networks` only.
        "socket" socket: PathBuf = "/run/docker.sock".into(), path();
        /// If the FORWARD policy is DROP (Docker sets it if forwarding was off), accept
        /// packets from and to the advertised subnets at its end, by the chain ROUTELET-FORWARD.
        /// If Docker 28 or later drops what is routed to containers, accept it before, by
        /// ROUTELET-DOCKER and ROUTELET-RAW. False: what is dropped is only reported, with the
        /// remedy.
        "accept-forwarded" accept_forwarded: bool = true, Flag;
    }
}

section! {
    /// Masquerading of packets from pods to destinations outside the cluster.
    pub struct Masquerade at "[masquerade]" {
        /// "auto": until an eBGP neighbor has the pod CIDRs; true or false.
        "enabled" enabled: Option<bool> = None, auto_or_flag();
        /// Prefixes to which traffic is never masqueraded.
        "exclude" exclude: Vec<Prefix> = Vec::new(), Set(written(prefix));
    }
}

section! {
    /// Routes and packets that are refused.
    pub struct Guard at "[guard]" {
        /// A connected subnet itself, its network and its broadcast address are never learned.
        /// "equal" accepts prefixes inside it that hold no protected address
        /// ([operating.md](operating.md), The route guard), "inside" rejects them all.
        "connected" connected: GuardConnected = GuardConnected::Equal,
            Choice(&[("equal", GuardConnected::Equal), ("inside", GuardConnected::Inside)]);
        /// Drop packets forwarded from containers to port 179 of neighbors, so that no container
        /// opens a session with the address of this host.
        "block-pod-bgp" block_pod_bgp: bool = true, Flag;
    }
}

section! {
    /// Privileges of the daemon.
    pub struct Security at "[security]" {
        /// After its start the daemon keeps CAP_NET_ADMIN and CAP_NET_BIND_SERVICE (and CAP_NET_RAW
        /// for unnumbered neighbors), reaches only the files that it needs, and is refused system
        /// calls that only an attacker needs ([operating.md](operating.md), The sandbox). False:
        /// for debugging.
        "sandbox" sandbox: bool = true, Flag, Restart;
    }
}

section! {
    /// Metrics and probes over HTTP.
    pub struct Metrics at "[metrics]" {
        /// Addresses of /metrics, /livez, /readyz and the status page at /; "" disables all of
        /// them.
        "listen" listen: Vec<SocketAddr> = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9179))],
            metrics_listen();
        /// The status page at / ([status-page.md](status-page.md)). Anyone who can reach
        /// `listen` can read it, like the metrics; false: disabled.
        "status-page" status_page: bool = true, Flag;
    }
}

section! {
    /// The socket that `routelet show` connects to.
    pub struct Control at "[control]" {
        /// Path of the socket, which has mode 0660.
        "socket" socket: PathBuf = "/run/routelet/routelet.sock".into(), path();
        /// Group of the socket.
        "group" group: Option<String> = None, Optional(some_text()), Example("\"routelet\"");
    }
}

section! {
    /// The log on standard error.
    pub struct Log at "[log]" {
        /// "error", "warn", "info", "debug", "trace", or as "info,routelet::bgp=debug".
        "level" level: String = "info".into(), written(log_level);
        /// "text" or "json".
        "format" format: LogFormat = LogFormat::Text,
            Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), Restart;
    }
}

/// `"router-id"`, an address, or one of each family.
fn preferred_sources() -> With<Vec<PreferSource>> {
    const ROUTER_ID: &str = "router-id";
    With {
        read: |item| {
            let list = item.set(|i| {
                if i.is_text() && i.text() == Some(ROUTER_ID) {
                    return Some(PreferSource::RouterId);
                }
                values::address(i).map(PreferSource::Address)
            })?;
            let is_v4 = |s: &PreferSource| !matches!(s, PreferSource::Address(IpAddr::V6(_)));
            if list.iter().filter(|s| is_v4(s)).count() > 1 || list.iter().filter(|s| !is_v4(s)).count() > 1 {
                item.error("takes at most one address of each family; \"router-id\" counts as one of IPv4");
                return None;
            }
            Some(list)
        },
        show: |list| {
            let text = |source: &PreferSource| match source {
                PreferSource::RouterId => ROUTER_ID.to_owned(),
                PreferSource::Address(address) => address.to_string(),
            };
            list.iter().map(text).collect()
        },
        shape: || Shape::List(Box::new(Shape::Text)),
    }
}

/// `"auto"` is true: if the kernel has no nexthop objects, plain routes are written.
fn nexthop_objects() -> With<bool> {
    With {
        read: |item| super::kinds::auto_or_flag().read(item).map(|flag| flag.unwrap_or(true)),
        show: |uses| if *uses { "auto".into() } else { false.into() },
        shape: || super::kinds::auto_or_flag().shape(),
    }
}

fn conflist_name(item: &Item<'_>) -> Option<String> {
    let name = item.text()?;
    if name.contains('/') || name.starts_with('.') || !name.ends_with(".conflist") {
        item.error("must be a file name without a folder that ends in .conflist, as 10-routelet.conflist");
        return None;
    }
    Some(name.to_owned())
}

const PLUGINS: [&str; 5] = ["portmap", "bandwidth", "tuning", "firewall", "sbr"];

fn plugin() -> With<CniPlugin> {
    With {
        read: read_plugin,
        show: |plugin| match plugin {
            CniPlugin::Name(name) => json!(name),
            CniPlugin::Table(table) => json!(table),
        },
        shape: || Shape::Either(vec![Shape::Choice(PLUGINS.to_vec()), Shape::AnyTable]),
    }
}

fn read_plugin(item: &Item<'_>) -> Option<CniPlugin> {
    if item.is_text() {
        let known = PLUGINS.map(|name| (name, name));
        return item.choice(&known).map(|name| CniPlugin::Name(name.to_owned()));
    }
    // Only to report that it is no table.
    item.section()?;
    let Value::Object(table) = values::to_json(item.value.get_ref())? else { return None };
    if !table.get("type").is_some_and(Value::is_string) {
        item.error("needs `type`, the name of the plugin's binary");
        return None;
    }
    Some(CniPlugin::Table(table))
}

fn docker_network(item: &Item<'_>) -> Option<NetworkSelector> {
    NetworkSelector::parse(item.text()?).map_err(|what| item.error(what)).ok()
}

/// As other lists of addresses, with `""` for none.
fn metrics_listen() -> With<Vec<SocketAddr>> {
    With {
        read: |item| {
            let is_off = item.value.get_ref().as_str() == Some("");
            if is_off { Some(Vec::new()) } else { sockets().read(item) }
        },
        show: |list| if list.is_empty() { "".into() } else { sockets().show(list) },
        shape: || Shape::List(Box::new(Shape::Text)),
    }
}

fn log_level(item: &Item<'_>) -> Option<String> {
    let level = item.text()?;
    crate::config::log_level(level).map_err(|what| item.error(what)).ok().map(|()| level.to_owned())
}
