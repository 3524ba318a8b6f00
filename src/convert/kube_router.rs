//! kube-router: the flags in its DaemonSet or on its command line, and annotations of Nodes.
//!
//! Only lines with a flag or an annotation of kube-router are read, whatever surrounds them: the
//! rest of a DaemonSet concerns kube-router itself.

use serde_json::{Value, json};

use super::{
    ConvertError, Input,
    ledger::{Ledger, LineId, Outcome},
    router::{Keys, Router, append, set},
};
use crate::net::Prefix;

/// Flags of one input.
const MAX_FLAGS: usize = 1000;

/// Flags of the service proxy.
const SERVICE_PROXY_FLAGS: [&str; 9] = [
    "hairpin-mode",
    "masquerade-all",
    "nodeport-bindon-all-ip",
    "excluded-cidrs",
    "ipvs-graceful-period",
    "ipvs-graceful-termination",
    "ipvs-permit-all",
    "ipvs-sync-period",
    "service-node-port-range",
];
/// Flags about kube-router itself, and about facts that routelet finds out by itself.
const UNNEEDED_FLAGS: [&str; 22] = [
    "auto-mtu",
    "cluster-cidr",
    "kubeconfig",
    "master",
    "v",
    "version",
    "help",
    "cache-sync-timeout",
    "iptables-sync-period",
    "routes-sync-period",
    "injected-routes-sync-period",
    "enable-pprof",
    "metrics-port",
    "metrics-path",
    "metrics-addr",
    "health-port",
    "health-addr",
    "cleanup-config",
    "peer-router-connect-retry",
    "runtime-endpoint",
    "enable-ipv4",
    "enable-ipv6",
];

/// Everything that was read.
#[derive(Debug, Default)]
struct KubeRouter {
    ledger: Ledger,
    asn: Option<u32>,
    bgp: Keys,
    kubernetes: Keys,
    services: Vec<&'static str>,
    cni: Option<bool>,
    egress: Option<bool>,
    full_mesh: Option<bool>,
    ibgp: Option<bool>,
    overlay: Option<bool>,
    next_hop_self: bool,
    peers: Option<(LineId, Vec<String>)>,
    peer_asns: Option<(LineId, Vec<String>)>,
    peer_ports: Option<(LineId, Vec<String>)>,
    multihop: Option<u8>,
    has_passwords: bool,
    flags: usize,
}

/// Why a flag is not carried over unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", outcome.as_str())]
struct Remark {
    outcome: Outcome,
    reason: String,
}

/// The outcome of a flag.
type Taken = Result<(), Remark>;

/// Reads all files and converts them.
pub(super) fn convert(inputs: &[Input]) -> Result<(Router, Ledger), ConvertError> {
    let mut read = KubeRouter::default();
    for input in inputs {
        for (n, line) in input.text.lines().enumerate() {
            read.line(&input.name, n + 1, line);
        }
    }
    if read.flags == 0 {
        return Err(ConvertError::NothingToConvert(
            "there is no flag of kube-router in the input; name its DaemonSet".into(),
        ));
    }
    if read.flags > MAX_FLAGS {
        return Err(ConvertError::NothingToConvert(format!(
            "there are more than {MAX_FLAGS} flags in the input"
        )));
    }
    Ok(read.finish())
}

/// Whether a text has flags of kube-router's routes.
pub(super) fn is_input(text: &str) -> bool {
    ["--run-router", "--cluster-asn", "--peer-router-ips", "--nodes-full-mesh", "kube-router.io/"]
        .iter()
        .any(|flag| text.contains(flag))
}

fn not_needed(why: &str) -> Taken {
    Err(Remark { outcome: Outcome::NotNeeded, reason: why.to_owned() })
}

fn differs(why: &str) -> Taken {
    Err(Remark { outcome: Outcome::Differs, reason: why.to_owned() })
}

fn lost(why: impl Into<String>) -> Remark {
    Remark { outcome: Outcome::NotCarried, reason: why.into() }
}

fn not_carried(why: impl Into<String>) -> Taken {
    Err(lost(why))
}

impl KubeRouter {
    fn line(&mut self, file: &str, number: usize, line: &str) {
        let bare = line.trim_start();
        if bare.starts_with('#') {
            return;
        }
        if let Some(at) = bare.find("kube-router.io/") {
            self.flags += 1;
            let name = bare.get(at + "kube-router.io/".len()..).unwrap_or_default();
            let shown =
                if name.starts_with("peer.password") { "kube-router.io/peer.passwords: ***" } else { bare };
            let id = self.ledger.add(file, number, shown);
            let (outcome, why) = annotation(name);
            self.ledger.note(id, outcome, why);
        }
        for (name, value) in flags(bare) {
            self.flags += 1;
            // Only the flag itself, not the whole command line: other flags may be passwords.
            let shown = match &value {
                Some(_) if name.contains("password") => format!("--{name}=***"),
                Some(value) => format!("--{name}={value}"),
                None => format!("--{name}"),
            };
            let id = self.ledger.add(file, number, &shown);
            if let Err(Remark { outcome, reason }) = self.take(id, name, value.as_deref()) {
                self.ledger.note(id, outcome, reason);
            }
        }
    }

    fn take(&mut self, at: LineId, name: &str, value: Option<&str>) -> Taken {
        let list = || {
            value
                .unwrap_or_default()
                .split(',')
                .map(|v| v.trim().to_owned())
                .filter(|v| !v.is_empty())
                .collect()
        };
        match name {
            "peer-router-ips" | "peer-router-asns" | "peer-router-ports" if value.is_none() => {
                return not_carried("its value is not read: write it behind `=`");
            }
            "cluster-asn" => self.asn = Some(as_number(value)?),
            "router-id" => match value.and_then(|v| v.parse::<std::net::Ipv4Addr>().ok()) {
                Some(id) => set(&mut self.bgp, "router-id", id.to_string()),
                None => return differs("the router id has its default, see bgp.router-id"),
            },
            "peer-router-ips" => self.peers = Some((at, list())),
            "peer-router-asns" => self.peer_asns = Some((at, list())),
            "peer-router-ports" => self.peer_ports = Some((at, list())),
            "peer-router-passwords" | "peer-router-passwords-file" => {
                self.has_passwords = true;
                return not_carried(
                    "passwords are left out, so that no session comes up without one: write BGPPeer objects with \
                     passwordSecretRef, or `password-file`",
                );
            }
            "peer-router-multihop-ttl" => match value.and_then(|v| v.parse().ok()) {
                Some(0 | 1) => {}
                Some(hops) => self.multihop = Some(hops),
                None => return not_carried("hops are 1 to 255"),
            },
            "nodes-full-mesh" => self.full_mesh = Some(flag(value)?),
            "enable-ibgp" => self.ibgp = Some(flag(value)?),
            "enable-overlay" => self.overlay = Some(flag(value)?),
            "override-nexthop" => self.next_hop_self = flag(value)?,
            _ => return self.take_of_bgp(name, value),
        }
        Ok(())
    }

    fn take_of_bgp(&mut self, name: &str, value: Option<&str>) -> Taken {
        match name {
            "bgp-holdtime" => seconds(&mut self.bgp, "hold-time", value, 3, 65535)?,
            "bgp-graceful-restart-time" => seconds(&mut self.bgp, "restart-time", value, 0, 4095)?,
            "bgp-graceful-restart" => set(&mut self.bgp, "graceful-restart", flag(value)?),
            "bgp-graceful-restart-deferral-time" => {
                return not_needed("routes are advertised as they are learned");
            }
            "bgp-port" => match value.and_then(|v| v.parse::<u16>().ok()) {
                Some(port @ 1..) => {
                    set(&mut self.bgp, "listen", json!([format!("0.0.0.0:{port}"), format!("[::]:{port}")]));
                    if port != 179 {
                        return differs("the other nodes' port is set in [bgp.group.mesh] as well");
                    }
                }
                _ => return not_carried("the port is 1 to 65535"),
            },
            _ => return self.take_of_node(name, value),
        }
        Ok(())
    }

    fn take_of_node(&mut self, name: &str, value: Option<&str>) -> Taken {
        match name {
            "advertise-cluster-ip" => self.service("cluster-ip", value)?,
            "advertise-external-ip" => self.service("external-ip", value)?,
            "advertise-loadbalancer-ip" => self.service("load-balancer-ip", value)?,
            "advertise-pod-cidr" => set(&mut self.kubernetes, "advertise-pod-cidrs", flag(value)?),
            "service-cluster-ip-range" => prefixes(&mut self.kubernetes, "service-cidrs", value)?,
            "service-external-ip-range" => prefixes(&mut self.kubernetes, "service-external-ranges", value)?,
            "hostname-override" => match value {
                Some(name) if !name.is_empty() && !name.contains('$') => {
                    set(&mut self.kubernetes, "node-name", name)
                }
                _ => return not_needed("the manifest passes the name of the Node"),
            },
            "enable-cni" => self.cni = Some(flag(value)?),
            "enable-pod-egress" => self.egress = Some(flag(value)?),
            "run-router" => {
                if !flag(value)? {
                    return differs("routes are all that routelet is for");
                }
            }
            "run-firewall" | "run-service-proxy" | "run-loadbalancer" if !flag(value)? => {
                return not_needed("routelet has none");
            }
            _ => return without_counterpart(name),
        }
        Ok(())
    }

    fn service(&mut self, kind: &'static str, value: Option<&str>) -> Taken {
        if flag(value)? {
            self.services.push(kind);
        }
        Ok(())
    }

    fn finish(mut self) -> (Router, Ledger) {
        let mut router = Router::default();
        set(&mut router.bgp, "as", self.asn.unwrap_or(64512));
        router.bgp.append(&mut self.bgp);
        let is_mesh = self.ibgp != Some(false) && self.full_mesh != Some(false);
        set(&mut self.kubernetes, "peering", if is_mesh { "mesh" } else { "none" });
        if !self.services.is_empty() {
            append(&mut self.kubernetes, "services", self.services.iter().copied());
        }
        if let Some(listen) = router.bgp.get("listen").and_then(|l| l[0].as_str())
            && let Some(port) = listen.rsplit(':').next().and_then(|p| p.parse::<u16>().ok())
            && port != 179
        {
            router
                .groups
                .push(("mesh".to_owned(), Keys::from_iter([("port".to_owned(), Value::from(port))])));
        }
        self.neighbors(&mut router);
        router.sections.push(("[kubernetes]", std::mem::take(&mut self.kubernetes)));
        if let Some(enabled) = self.cni {
            router.sections.push(("[cni]", Keys::from_iter([("enabled".to_owned(), enabled.into())])));
        }
        let egress = Keys::from_iter([("enabled".to_owned(), self.egress.unwrap_or(true).into())]);
        router.sections.push(("[masquerade]", egress));
        if self.overlay != Some(false) {
            router.remarks.push(
                "kube-router reaches nodes of other subnets by tunnels (--enable-overlay). routelet has none: peer with \
                 the routers between the subnets."
                    .to_owned(),
            );
        }
        (router, self.ledger)
    }

    /// Neighbors outside of the cluster. All of them are left out if their lists do not match.
    fn neighbors(&mut self, router: &mut Router) {
        let Some((at, peers)) = self.peers.take() else { return };
        let asns = self.peer_asns.take().map(|(_, list)| list).unwrap_or_default();
        let ports = self.peer_ports.take().map(|(_, list)| list).unwrap_or_default();
        if asns.len() != peers.len() || !ports.is_empty() && ports.len() != peers.len() {
            self.ledger
                .not_carried(at, "there are not as many AS numbers or ports as addresses: all are left out");
            return;
        }
        if self.has_passwords {
            self.ledger.not_carried(at, "left out, as their passwords are not in the result");
            return;
        }
        for (n, (peer, asn)) in peers.iter().zip(&asns).enumerate() {
            let address = peer.parse::<std::net::IpAddr>();
            let (Ok(address), Ok(asn)) = (address, as_number(Some(asn))) else {
                self.ledger.not_carried(at, format!("`{peer}` with AS `{asn}` is not a neighbor: left out"));
                continue;
            };
            let mut keys = Keys::new();
            set(&mut keys, "address", address.to_string());
            set(&mut keys, "remote-as", asn);
            if let Some(port) = ports.get(n).and_then(|p| p.parse::<u16>().ok()).filter(|p| *p > 0) {
                set(&mut keys, "port", port);
            }
            if let Some(hops) = self.multihop {
                set(&mut keys, "multihop", hops);
            }
            if self.next_hop_self {
                set(&mut keys, "next-hop-self", true);
            }
            router.neighbors.push(keys);
        }
    }
}

/// Flags that change nothing in the result.
fn without_counterpart(name: &str) -> Taken {
    match name {
        "run-firewall" => not_carried("routelet enforces no NetworkPolicy: see docs/network-policy.md"),
        "run-service-proxy" => not_carried("routelet is no service proxy: run kube-proxy"),
        "run-loadbalancer" => {
            not_carried("routelet assigns no addresses of load balancers; it advertises them")
        }
        "disable-source-dest-check" => not_carried("no counterpart; set it where the machines are created"),
        "loadbalancer-ip-range" | "loadbalancer-default-class" | "loadbalancer-sync-period" => {
            not_carried("routelet assigns no addresses of load balancers; it advertises them")
        }
        name if SERVICE_PROXY_FLAGS.contains(&name) => {
            not_carried("it belongs to the service proxy: set it for kube-proxy")
        }
        name if UNNEEDED_FLAGS.contains(&name) => {
            not_needed("routelet finds it out, or it is about kube-router itself")
        }
        "overlay-type" | "overlay-encap" | "overlay-encap-port" => not_carried("routelet has no tunnels"),
        _ => not_carried("not known to routelet"),
    }
}

/// The flags of a line, each with its value.
fn flags(line: &str) -> impl Iterator<Item = (&str, Option<String>)> {
    line.match_indices("--").filter_map(|(at, _)| {
        let before = line.get(..at).unwrap_or_default();
        if before.chars().next_back().is_some_and(|c| !ends_flag(c)) {
            return None;
        }
        let rest = line.get(at + 2..).unwrap_or_default();
        let name = rest.split(|c: char| ends_flag(c) || c == '=').next().filter(|n| is_flag(n))?;
        let value = rest.get(name.len()..).and_then(|v| v.strip_prefix('=')).map(|v| {
            // In quotes of the shell or of a flow sequence, a list continues after commas.
            let quoted = before.ends_with(['"', '\'']);
            let end = |c: char| {
                if quoted { "\"'".contains(c) } else { c.is_whitespace() || "\"']".contains(c) }
            };
            v.trim_start_matches(['"', '\'']).split(end).next().unwrap_or_default().to_owned()
        });
        Some((name, value))
    })
}

fn ends_flag(c: char) -> bool {
    c.is_whitespace() || "\"',[]".contains(c)
}

fn is_flag(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !name.starts_with('-')
}

/// An annotation of a Node.
fn annotation(name: &str) -> (Outcome, &'static str) {
    let is = |begin: &str| name.starts_with(begin);
    if is("node.asn") {
        (Outcome::NotCarried, "annotate the Node with routelet.io/as")
    } else if is("rr.server") || is("rr.client") {
        (
            Outcome::NotCarried,
            "label the reflectors with routelet.io/route-reflector, and set kubernetes.peering to reflectors",
        )
    } else if is("peer.") {
        (Outcome::NotCarried, "write a BGPPeer with a nodeSelector for the Node")
    } else if is("path-prepend") || is("node.bgp.customimportreject") || is("node.bgp.communities") {
        (Outcome::NotCarried, "write a BGPPolicy and name it in a BGPPeer")
    } else if is("service.") {
        (Outcome::NotCarried, "annotate the Service with routelet.io/advertise")
    } else {
        (Outcome::NotCarried, "no counterpart")
    }
}

fn as_number(value: Option<&str>) -> Result<u32, Remark> {
    let number = value.and_then(|v| v.parse::<u32>().ok());
    number
        .filter(|n| !matches!(n, 0 | 23456 | 65535 | &u32::MAX))
        .ok_or_else(|| lost("not an AS number that routelet accepts"))
}

/// A flag without value is true.
fn flag(value: Option<&str>) -> Result<bool, Remark> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "1" | "t") => Ok(true),
        Some("false" | "0" | "f") => Ok(false),
        Some(other) => Err(lost(format!("`{other}` is neither true nor false"))),
    }
}

/// A time as `90s` or `1m30s`.
fn seconds(keys: &mut Keys, key: &str, value: Option<&str>, min: u64, max: u64) -> Taken {
    let mut total = 0_u64;
    let mut rest = value.unwrap_or_default();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = rest.get(..digits).and_then(|n| n.parse::<u64>().ok());
        let unit = rest.get(digits..).and_then(|u| u.chars().next());
        let scale = match unit {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            _ => return not_carried("not a time as 90s or 1m30s"),
        };
        let Some(part) = number.and_then(|n| n.checked_mul(scale)) else { return not_carried("not a time") };
        total = total.saturating_add(part);
        rest = rest.get(digits + 1..).unwrap_or_default();
    }
    if value.is_none_or(str::is_empty) || !(min..=max).contains(&total) {
        return not_carried(format!("{min} to {max} seconds"));
    }
    set(keys, key, total);
    Ok(())
}

fn prefixes(keys: &mut Keys, key: &str, value: Option<&str>) -> Taken {
    let list: Result<Vec<Prefix>, _> =
        value.unwrap_or_default().split(',').map(|v| v.trim().parse()).collect();
    match list {
        Ok(list) if !list.is_empty() => {
            append(keys, key, list.iter().map(ToString::to_string));
            Ok(())
        }
        _ => not_carried("not a list of prefixes"),
    }
}
