//! Calico: BGPConfiguration, BGPPeer, BGPFilter and IPPool.
//!
//! A neighbor of Calico is a BGPPeer whose export policies accept what Calico exports: Service
//! addresses inside the configured ranges, then the routes that the filters and pools accept.

mod filter;
mod global;
mod pool;

use std::net::IpAddr;

use self::filter::Filters;
use super::{
    cluster::{Cluster, Peer, decide},
    object::{Book, Object, read},
    selector::{self, Labels},
    values::{asn, only_family_of, seconds},
    yaml::Node,
};
use crate::convert::kube::unfit::{Lack, NoCounterpart, Unfit, malformed};
use crate::convert::{
    ConvertError, Input,
    ledger::{Ledger, Outcome},
    router::{Keys, append, set},
};

/// Settings that all neighbors share.
#[derive(Debug, Default)]
struct Common {
    /// Own AS number.
    asn: u32,
    /// The policy of the advertised Service addresses.
    services: Option<String>,
    /// Statements after those of filters: pools that are not exported, communities.
    rest: Vec<Keys>,
}

/// Why a key of a pool or neighbor has no counterpart.
pub(super) const MESH_OF_NODES: &str = "nodes peer with each other by kubernetes.peering: label reflectors with \
                             routelet.io/route-reflector and set it to \"reflectors\"";

/// Reads all files and converts them.
pub(super) fn convert(inputs: &[Input]) -> Result<(Cluster, Ledger), ConvertError> {
    let known = ["BGPConfiguration", "BGPPeer", "BGPFilter", "IPPool"];
    let is_known = |o: &Object| is_group(&o.group) && known.contains(&o.kind.as_str());
    let (objects, mut book) = read(inputs, is_known)?;
    let of_kind = |kind: &str| objects.iter().filter(move |o| o.kind == kind).collect::<Vec<_>>();
    let mut cluster = Cluster::new();
    let mut common = global::convert(&of_kind("BGPConfiguration"), &mut cluster, &mut book);
    pool::convert(&of_kind("IPPool"), &mut cluster, &mut common, &mut book);
    let mut filters = Filters::new(&of_kind("BGPFilter"));
    for object in of_kind("BGPPeer") {
        if let Err(why) = neighbor(object, &common, &mut filters, &mut cluster, &mut book) {
            book.refuse(object.spec(), &format!("the neighbor is left out: {why}"));
        }
    }
    filters.close(&mut book);
    cluster.router.remarks.push(
        "Pods get addresses of the pod CIDRs of their Nodes, not of Calico's pools: read docs/migration/calico.md. Sessions \
         of Calico may have any number of hops: set multihop where a neighbor is not directly connected."
            .into(),
    );
    book.close(&objects);
    Ok((cluster, book.ledger))
}

fn is_group(group: &str) -> bool {
    group == "projectcalico.org" || group == "crd.projectcalico.org"
}

fn neighbor(
    object: &Object,
    common: &Common,
    filters: &mut Filters<'_>,
    cluster: &mut Cluster,
    book: &mut Book,
) -> Result<(), Unfit> {
    let spec = object.spec();
    for key in ["peerSelector", "localWorkloadSelector"] {
        if spec.text(key).is_some_and(|text| !text.is_empty()) {
            return Err(match key {
                "peerSelector" => NoCounterpart::MeshOfNodes.into(),
                _ => NoCounterpart::SessionsWithPods.into(),
            });
        }
    }
    let nodes = nodes(spec, book)?;
    let mut keys = Keys::new();
    let (address, port) = spec.text("peerIP").and_then(address).ok_or(malformed("peerIP", "no address"))?;
    set(&mut keys, "address", address.to_string());
    if let Some(port) = port {
        set(&mut keys, "port", port);
    }
    let local_as =
        spec.text("localASNumber").map(|text| asn(text).ok_or(malformed("localASNumber", "no AS number")));
    let local_as = local_as.transpose()?;
    let remote_as = match spec.text("asNumber") {
        Some(text) => asn(text).ok_or(malformed("asNumber", "no AS number"))?,
        None => common.asn,
    };
    set(&mut keys, "remote-as", remote_as);
    if let Some(local_as) = local_as {
        set(&mut keys, "local-as", local_as);
    }
    only_family_of(&mut keys, address);
    let is_external = remote_as != local_as.unwrap_or(common.asn);
    session(spec, &mut keys, book)?;
    let secret = password(spec, book)?;

    let mut chain: Vec<String> = common.services.iter().cloned().collect();
    let names = spec.texts("filters");
    let exports = filters.statements(&names, false, is_external, common, book)?;
    let name = if names.is_empty() { "calico-export".to_owned() } else { format!("{}-export", object.name) };
    chain.push(cluster.policy(&name, exports)?);
    append(&mut keys, "export", chain);
    if !names.is_empty() {
        let imports = filters.statements(&names, true, is_external, common, book)?;
        if !imports.is_empty() {
            let name = cluster.policy(&format!("{}-import", object.name), imports)?;
            append(&mut keys, "import", [name]);
        }
    }
    cluster.peer(Peer { name: object.name.clone(), nodes, keys, secret }, spec, book);
    Ok(())
}

fn nodes(spec: &Node, book: &mut Book) -> Result<Vec<Labels>, Unfit> {
    if let Some(node) = spec.text("node").filter(|node| !node.is_empty()) {
        let why = "the Node is selected by its label kubernetes.io/hostname, which has the name of the Node unless \
                   kubelet has --hostname-override";
        book.differs_key(spec, "node", why);
        return Ok(vec![Labels::from([("kubernetes.io/hostname".to_owned(), node.to_owned())])]);
    }
    match spec.text("nodeSelector") {
        Some(text) if !text.trim().is_empty() => selector::calico(text),
        _ => Ok(vec![Labels::new()]),
    }
}

/// `192.0.2.1`, `192.0.2.1:179`, `2001:db8::1` or `[2001:db8::1]:179`.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse() {
        return Some((address, None));
    }
    let (address, port) = text.rsplit_once(':')?;
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    Some((address.parse().ok()?, Some(port.parse().ok().filter(|p| *p > 0)?)))
}

fn session(spec: &Node, keys: &mut Keys, book: &mut Book) -> Result<(), Unfit> {
    match (spec.text("nextHopMode"), spec.text("keepOriginalNextHop")) {
        (Some("Self"), _) => set(keys, "next-hop-self", true),
        (Some("Keep"), _) | (None, Some("true")) => set(keys, "next-hop-self", false),
        (Some("Auto"), _) | (None, None | Some("false")) => {}
        (other, _) => {
            return Err(Unfit::Unknown { what: "nextHopMode", value: other.unwrap_or_default().to_owned() });
        }
    }
    if let Some(text) = spec.text("numAllowedLocalASNumbers") {
        let count: u8 = text.parse().map_err(|_| malformed("numAllowedLocalASNumbers", "more than 255"))?;
        set(keys, "allow-own-as", count);
    }
    if let Some(text) = spec.text("ttlSecurity") {
        let hops: u8 = text.parse().map_err(|_| malformed("ttlSecurity", "1 to 254"))?;
        // 0 means no check in Calico. Here it would disable the check as well, so the key is left
        // out.
        if hops > 0 {
            set(keys, "ttl-security", hops);
        }
    }
    if let Some(text) = spec.text("maxRestartTime") {
        match seconds(text).filter(|s| *s <= 4095) {
            Some(time) => set(keys, "restart-time", time),
            None => book.refuse_key(spec, "maxRestartTime", "whole seconds, 0 to 4095"),
        }
    }
    match spec.text("sourceAddress") {
        Some("UseNodeIP") => {
            let why = "the source is the address of the interface that leads to the neighbor";
            book.differs_key(spec, "sourceAddress", why);
        }
        Some("None") | None => {}
        Some(_) => book.refuse_key(spec, "sourceAddress", "not known to routelet"),
    }
    book.refuse_key(spec, "reachableBy", "routelet adds no static routes to neighbors: add one to the host");
    book.unneeded_key(spec, "reversePeering", "it is for neighbors by peerSelector");
    Ok(())
}

/// The Secret of a password. If a neighbor has a password, there is never a session without it.
fn password(spec: &Node, book: &mut Book) -> Result<Option<(String, String)>, Unfit> {
    let Some(password) = spec.get("password") else { return Ok(None) };
    let reference = password.get("secretKeyRef").ok_or(Lack::SecretReference)?;
    let name = reference.text("name").filter(|n| !n.is_empty()).ok_or(Lack::SecretName)?;
    let key = reference.text("key").unwrap_or("password");
    let secret = (name.to_owned(), key.to_owned());
    reference.text("optional");
    book.note(password, Outcome::Differs, super::SECRET);
    Ok(Some(secret))
}

/// The end of a policy of Calico: routes of other neighbors are not exported.
fn not_learned() -> Keys {
    let mut keys = decide("reject");
    append(&mut keys, "source", ["bgp"]);
    keys
}
