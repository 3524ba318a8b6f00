//! BGPPeer and BFDProfile of MetalLB.

use std::net::IpAddr;

use serde_json::Value;

use super::{Advertisement, Book, Cluster, Keys, Node, append, exports, set};
use crate::convert::kube::unfit::{Lack, NoCounterpart, Unfit, malformed};
use crate::convert::{
    kube::{
        SECRET,
        cluster::Peer,
        selector::node_sets,
        values::{asn, only_family_of, seconds},
    },
    ledger::Outcome,
};

/// Hops of a neighbor that is not directly connected, as in FRR.
const ANY_HOPS: u8 = 255;

/// Adds a neighbor.
///
/// # Errors
///
/// Why it is left out.
pub(super) fn neighbor(
    name: &str,
    spec: &Node,
    profiles: &[(&str, &Node)],
    advertisements: &[Advertisement],
    cluster: &mut Cluster,
    book: &mut Book,
) -> Result<(), Unfit> {
    if spec.text("vrf").is_some_and(|vrf| !vrf.is_empty()) {
        return Err(NoCounterpart::Vrf.into());
    }
    let nodes = node_sets(spec.list("nodeSelectors"))?;
    let mut keys = Keys::new();
    let address = place(spec, "peerAddress", &mut keys)?;
    remote(spec, &mut keys, cluster)?;
    families(spec, address, &mut keys);
    timers(spec, &mut keys, book);
    if let Some(text) = spec.text("sourceAddress").filter(|text| !text.is_empty()) {
        set(&mut keys, "local-address", text);
    }
    if let Some(port) = spec.text("peerPort").and_then(|text| text.parse::<u16>().ok()) {
        set(&mut keys, "port", port);
    }
    if spec.flag("ebgpMultiHop") && address.is_some() && keys.get("remote-as") != Some(&"internal".into()) {
        set(&mut keys, "multihop", ANY_HOPS);
    }
    set(&mut keys, "graceful-restart", spec.flag("enableGracefulRestart"));
    book.differs_key(
        spec,
        "routerID",
        "the router id is one of the node: annotate it with routelet.io/router-id",
    );
    if let Some(profile) = spec.text("bfdProfile").filter(|text| !text.is_empty()) {
        match profiles.iter().find(|(name, _)| *name == profile) {
            Some((_, of_it)) => set(&mut keys, "bfd", Value::Object(bfd(of_it))),
            None => return Err(Unfit::NotInInput { kind: "BFDProfile", name: profile.to_owned() }),
        }
    }
    let secret = password(name, spec, book);
    let export = cluster.policy(&format!("{name}-export"), exports(name, advertisements))?;
    append(&mut keys, "export", [export]);
    append(&mut keys, "import", [cluster.nothing()]);
    cluster.peer(Peer { name: name.to_owned(), nodes, keys, secret }, spec, book);
    Ok(())
}

/// The address of the neighbor. `None`: it is on an interface.
fn place(spec: &Node, key: &str, keys: &mut Keys) -> Result<Option<IpAddr>, Unfit> {
    if let Some(text) = spec.text(key).filter(|text| !text.is_empty()) {
        let address: IpAddr =
            text.parse().map_err(|_| Unfit::Value { value: text.to_owned(), expected: "address" })?;
        set(keys, "address", address.to_string());
        return Ok(Some(address));
    }
    let interface = spec.text("interface").filter(|text| !text.is_empty());
    set(keys, "interface", interface.ok_or(Lack::AddressOrInterface)?);
    Ok(None)
}

fn remote(spec: &Node, keys: &mut Keys, cluster: &Cluster) -> Result<(), Unfit> {
    match (spec.text("dynamicASN"), spec.text("peerASN").filter(|text| *text != "0")) {
        (Some(kind @ ("internal" | "external")), None) => set(keys, "remote-as", kind),
        (None | Some(""), Some(text)) => {
            set(
                keys,
                "remote-as",
                asn(text).ok_or(malformed("peerASN", "no AS number that routelet takes"))?,
            );
        }
        _ => return Err(Lack::RemoteAs.into()),
    }
    let own =
        spec.text("myASN").and_then(asn).ok_or(malformed("myASN", "no AS number that routelet takes"))?;
    if cluster.router.bgp.get("as") != Some(&own.into()) {
        set(keys, "local-as", own);
    }
    Ok(())
}

/// The session only has the family of its address, unless both are wanted.
fn families(spec: &Node, address: Option<IpAddr>, keys: &mut Keys) {
    spec.text("disableMP");
    if !spec.flag("dualStackAddressFamily")
        && let Some(address) = address
    {
        only_family_of(keys, address);
    }
}

fn timers(spec: &Node, keys: &mut Keys, book: &mut Book) {
    let hold = spec.text("holdTime").map(seconds);
    match hold {
        Some(Some(time)) if time == 0 || (3..=65535).contains(&time) => set(keys, "hold-time", time),
        Some(_) => book.refuse_key(spec, "holdTime", "whole seconds, 0 or 3 to 65535: it is 90"),
        None => {}
    }
    if let Some(text) = spec.text("keepaliveTime") {
        let hold = hold.flatten().unwrap_or(90);
        if seconds(text) != Some(hold / 3) {
            book.differs_key(spec, "keepaliveTime", "keepalives are sent after a third of the hold time");
        }
    }
    match spec.text("connectTime").map(seconds) {
        Some(Some(time @ 1..=65535)) => set(keys, "connect-retry-time", time),
        Some(_) => book.refuse_key(spec, "connectTime", "whole seconds, 1 to 65535: it is 5"),
        None => {}
    }
}

/// If a neighbor has a password, there is never a session without it: none is established until the
/// Secret exists.
fn password(name: &str, spec: &Node, book: &mut Book) -> Option<(String, String)> {
    if let Some(reference) = spec.get("passwordSecret")
        && let Some(secret) = reference.text("name").filter(|text| !text.is_empty())
    {
        let secret = secret.to_owned();
        book.note(reference, Outcome::Differs, SECRET);
        return Some((secret, "password".to_owned()));
    }
    spec.text("password").filter(|text| !text.is_empty())?;
    let secret = format!("metallb-{}", crate::convert::kube::cluster::object_name(name));
    book.differs_key(
        spec,
        "password",
        &format!(
            "not in the result: make the Secret {secret} with the key password in the namespace of routelet and name it in \
             the Role; there is no session until it is there"
        ),
    );
    Some((secret, "password".to_owned()))
}

/// The keys of `bfd`.
fn bfd(spec: &Node) -> Keys {
    let mut keys = Keys::new();
    for (field, key) in
        [("transmitInterval", "min-tx"), ("receiveInterval", "min-rx"), ("detectMultiplier", "multiplier")]
    {
        if let Some(number) = spec.text(field).and_then(|text| text.parse::<u32>().ok()) {
            set(&mut keys, key, number);
        }
    }
    if spec.flag("passiveMode") {
        set(&mut keys, "passive", true);
    }
    keys
}

/// Lists the parts of a profile that are not carried over.
pub(super) fn close_profile(spec: &Node, book: &mut Book) {
    drop(bfd(spec));
    for key in ["echoMode", "echoInterval"] {
        book.refuse_key(spec, key, "routelet sends no echo packets");
    }
    book.refuse_key(spec, "minimumTtl", "BFD over several hops accepts any TTL; restrict UDP port 4784");
}
