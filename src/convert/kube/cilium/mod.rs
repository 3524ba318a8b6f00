//! Cilium: CiliumBGPClusterConfig, CiliumBGPPeerConfig, CiliumBGPAdvertisement and
//! CiliumBGPNodeConfigOverride, and CiliumBGPPeeringPolicy of releases before 1.19.
//!
//! Neighbors get only the routes that an advertisement of one of their families selects; as in
//! Cilium, nothing is learned from them. Which Services are advertised is one setting for all
//! neighbors: advertisements that select others than the first are left out.

mod advert;
mod policy;
mod session;

use self::{advert::Adverts, session::Session};
use super::{
    cluster::{Cluster, Peer},
    object::{Book, Object, read},
    selector::{Labels, node_sets},
    values::asn,
    yaml::Node,
};
use crate::convert::kube::unfit::Unfit;
use crate::convert::{
    ConvertError, Input,
    ledger::Ledger,
    router::{Keys, append, set},
};

const KINDS: [&str; 5] = [
    "CiliumBGPClusterConfig",
    "CiliumBGPPeerConfig",
    "CiliumBGPAdvertisement",
    "CiliumBGPNodeConfigOverride",
    "CiliumBGPPeeringPolicy",
];

/// Reads all files and converts them.
pub(super) fn convert(inputs: &[Input]) -> Result<(Cluster, Ledger), ConvertError> {
    let is_known = |o: &Object| o.group == "cilium.io" && KINDS.contains(&o.kind.as_str());
    let (objects, mut book) = read(inputs, is_known)?;
    let of_kind = |kind: &str| objects.iter().filter(move |o| o.kind == kind).collect::<Vec<_>>();
    let mut cluster = Cluster::new();
    let mut adverts = Adverts::default();
    for object in of_kind("CiliumBGPAdvertisement") {
        adverts.read(object, &mut book);
    }
    let mut ports = Vec::new();
    let configs = of_kind("CiliumBGPPeerConfig");
    for object in of_kind("CiliumBGPClusterConfig") {
        let selector = object.spec().get("nodeSelector");
        let nodes = node_sets(selector);
        for instance in object.spec().list("bgpInstances") {
            ports.extend(instance_port(instance, &mut book));
            instance_peers(object, instance, &nodes, &configs, &adverts, &mut cluster, &mut book);
        }
    }
    for object in of_kind("CiliumBGPPeeringPolicy") {
        policy::convert(object, &mut adverts, &mut cluster, &mut book);
    }
    for config in &configs {
        session::close(config.spec(), &mut book);
    }
    for object in of_kind("CiliumBGPNodeConfigOverride") {
        book.refuse(object.spec(), OVERRIDE);
    }
    finish(&adverts, &ports, &mut cluster);
    book.close(&objects);
    Ok((cluster, book.ledger))
}

const OVERRIDE: &str = "of one Node: annotate the Node with routelet.io/router-id or routelet.io/as; for localAddress write a \
                        BGPPeer with a nodeSelector for the Node";

fn instance_port(instance: &Node, book: &mut Book) -> Option<u16> {
    let text = instance.text("localPort")?;
    match text.parse::<u16>() {
        Ok(port @ 1..) => Some(port),
        _ => {
            book.refuse_key(instance, "localPort", "the port is 1 to 65535");
            None
        }
    }
}

/// The peers of one instance.
fn instance_peers(
    object: &Object,
    instance: &Node,
    nodes: &Result<Vec<Labels>, Unfit>,
    configs: &[&Object],
    adverts: &Adverts,
    cluster: &mut Cluster,
    book: &mut Book,
) {
    instance.text("name");
    let own = instance.text("localASN").and_then(asn);
    for peer in instance.list("peers") {
        let found = one_peer(object, peer, own, configs).and_then(|(found, config)| {
            let nodes = nodes.clone()?;
            complete(Peer { nodes, ..found }, adverts.exports(config)?, own, cluster)
        });
        match found {
            Ok(found) => cluster.peer(found, peer, book),
            Err(why) => book.refuse(peer, &format!("the neighbor is left out: {why}")),
        }
    }
}

/// A peer, and its CiliumBGPPeerConfig.
fn one_peer<'a>(
    object: &Object,
    peer: &Node,
    own: Option<u32>,
    configs: &[&'a Object],
) -> Result<(Peer, Option<&'a Node>), Unfit> {
    let own = own.ok_or(Unfit::NoLocalAs)?;
    let mut session = Session::new(own);
    session.place(peer)?;
    let config = match peer.at(&["peerConfigRef", "name"]).and_then(Node::scalar) {
        Some(name) => {
            let found = configs.iter().find(|o| o.name == name);
            Some(
                found
                    .ok_or_else(|| Unfit::NotInInput { kind: "CiliumBGPPeerConfig", name: name.to_owned() })?
                    .spec(),
            )
        }
        None => None,
    };
    session.configure(config)?;
    let name = format!("{}-{}", object.name, peer.text("name").unwrap_or("peer"));
    Ok((Peer { name, keys: session.keys, secret: session.secret, ..Peer::default() }, config))
}

/// Policies and own AS number of a neighbor.
fn complete(
    mut peer: Peer,
    exports: Vec<Keys>,
    own: Option<u32>,
    cluster: &mut Cluster,
) -> Result<Peer, Unfit> {
    if let Some(own) = own {
        let known = cluster.router.bgp.entry("as").or_insert_with(|| own.into());
        if *known != own {
            set(&mut peer.keys, "local-as", own);
        }
    }
    let export = cluster.policy(&format!("{}-export", peer.name), exports)?;
    append(&mut peer.keys, "export", [export]);
    append(&mut peer.keys, "import", [cluster.nothing()]);
    Ok(peer)
}

/// All addresses of this host with each of the ports.
fn addresses_with(ports: &[u16]) -> Vec<String> {
    let mut listen: Vec<String> = Vec::new();
    for port in ports {
        for address in [format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
            if !listen.contains(&address) {
                listen.push(address);
            }
        }
    }
    listen
}

/// Settings of Cilium's speaker: no routes are learned, and pods keep their network.
fn finish(adverts: &Adverts, ports: &[u16], cluster: &mut Cluster) {
    let router = &mut cluster.router;
    if !router.bgp.contains_key("as") {
        set(&mut router.bgp, "as", 64512);
    }
    set(&mut router.bgp, "listen", addresses_with(ports));
    let mut kubernetes = Keys::new();
    set(&mut kubernetes, "peering", "none");
    set(&mut kubernetes, "advertise-pod-cidrs", adverts.has_pod_cidrs());
    adverts.services(&mut kubernetes);
    append(&mut kubernetes, "service-annotations", [""; 0]);
    append(&mut kubernetes, "load-balancer-classes", ["io.cilium/bgp-control-plane"]);
    router.sections.push(("[kubernetes]", kubernetes));
    let off = || Keys::from_iter([("enabled".to_owned(), false.into())]);
    router.sections.push(("[cni]", off()));
    router.sections.push(("[masquerade]", off()));
    router.remarks.push(
        "routelet takes the place of Cilium's BGP control plane alone (bgpControlPlane.enabled=false): pods keep Cilium's \
         network. With Cilium's IPAM mode cluster-pool, the pod CIDRs of CiliumNodes are not those of Nodes, which routelet \
         advertises."
            .into(),
    );
}
