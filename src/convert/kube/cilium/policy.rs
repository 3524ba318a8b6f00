//! CiliumBGPPeeringPolicy, the API of releases before 1.19: neighbors, advertisements and
//! attributes in one object.

use super::{
    Adverts, Book, Cluster, Keys, Node, Object, Peer, Session,
    advert::{Services, attributes_of, services},
    append, asn, complete, node_sets,
    session::{family, keepalive},
    set,
};
use crate::convert::kube::unfit::Unfit;
use crate::convert::kube::{SECRET, cluster::decide};

/// The routes that the neighbors of one virtual router get.
struct Router {
    own: Option<u32>,
    pod_cidrs: bool,
    services: bool,
}

pub(super) fn convert(object: &Object, adverts: &mut Adverts, cluster: &mut Cluster, book: &mut Book) {
    let nodes = node_sets(object.spec().get("nodeSelector"));
    for router in object.spec().list("virtualRouters") {
        let own = router.text("localASN").and_then(asn);
        let pod_cidrs = router.flag("exportPodCIDR");
        if pod_cidrs {
            adverts.take_pod_cidrs();
        }
        let found = Router { own, pod_cidrs, services: take_services(router, adverts, book) };
        book.refuse_key(
            router,
            "podIPPoolSelector",
            "routelet knows no CiliumPodIPPool: pods have the pod CIDRs of Nodes",
        );
        for (n, node) in router.list("neighbors").iter().enumerate() {
            let name = format!("{}-{}", object.name, n + 1);
            let peer = nodes.clone().and_then(|nodes| {
                let (peer, exports) = neighbor(node, Peer { name, nodes, ..Peer::default() }, &found, book)?;
                complete(peer, exports, own, cluster)
            });
            match peer {
                Ok(peer) => cluster.peer(peer, node, book),
                Err(why) => book.refuse(node, &format!("the neighbor is left out: {why}")),
            }
        }
    }
}

/// Whether the Services of the virtual router are advertised.
fn take_services(router: &Node, adverts: &mut Adverts, book: &mut Book) -> bool {
    let Some(selector) = router.get("serviceSelector") else {
        book.unneeded_key(router, "serviceAdvertisements", "without serviceSelector no Service is selected");
        return false;
    };
    let mut addresses = router.texts("serviceAdvertisements");
    if addresses.is_empty() {
        addresses.push("LoadBalancerIP");
    }
    let wanted: Result<Services, Unfit> = services(Some(selector), &addresses);
    match wanted.and_then(|wanted| adverts.take_services(wanted)) {
        Ok(()) => true,
        Err(why) => {
            for key in ["serviceSelector", "serviceAdvertisements"] {
                book.refuse_key(router, key, &format!("no Services are advertised: {why}"));
            }
            false
        }
    }
}

fn neighbor(
    node: &Node,
    mut peer: Peer,
    router: &Router,
    book: &mut Book,
) -> Result<(Peer, Vec<Keys>), Unfit> {
    let own = router.own.ok_or(Unfit::NoLocalAs)?;
    let mut session = Session::new(own);
    session.place(node)?;
    session.timers(Some(node))?;
    keepalive(node, book);
    session.restart(node.get("gracefulRestart"))?;
    session.hops(node.text("eBGPMultihopTTL"))?;
    if let Some(port) = node.text("peerPort") {
        session.port(port)?;
    }
    session.families(node.list("families"))?;
    for entry in node.list("families") {
        if family(entry).is_none() {
            book.refuse(entry, "routelet only has IPv4 and IPv6 unicast");
        }
    }
    if let Some(name) = node.text("authSecretRef") {
        session.secret = Some((name.to_owned(), "password".to_owned()));
        book.differs_key(node, "authSecretRef", SECRET);
    }
    let exports = exports(node, router, book);
    (peer.keys, peer.secret) = (session.keys, session.secret);
    Ok((peer, exports))
}

/// The export policy. If attributes have no counterpart, the routes that need them are not
/// advertised.
fn exports(node: &Node, router: &Router, book: &mut Book) -> Vec<Keys> {
    let (mut pod_cidrs, mut services) = (router.pod_cidrs, router.services);
    let mut statements = Vec::new();
    for entry in node.list("advertisedPathAttributes") {
        let of_pods = entry.text("selectorType") == Some("PodCIDR");
        match attributes_of(entry) {
            Ok(attributes) if of_pods => {
                book.unneeded_key(entry, "selector", "the pod CIDRs of a Node are not selected by labels");
                if !attributes.is_empty() {
                    let mut statement = source("pod-cidr");
                    statement.extend(attributes);
                    statements.push(statement);
                }
            }
            Ok(_) => {
                services = false;
                book.refuse(
                    entry,
                    "routelet cannot determine which Services have addresses of the pool: none is advertised to this neighbor",
                );
            }
            Err(why) => {
                (pod_cidrs, services) = (pod_cidrs && !of_pods, false);
                book.refuse(entry, &format!("{why}: such routes are not advertised to this neighbor"));
            }
        }
    }
    for (is_on, name) in [(pod_cidrs, "pod-cidr"), (services, "service")] {
        if is_on {
            let mut accept = source(name);
            set(&mut accept, "action", "accept");
            statements.push(accept);
        }
    }
    statements.push(decide("reject"));
    statements
}

fn source(name: &str) -> Keys {
    let mut keys = Keys::new();
    append(&mut keys, "source", [name]);
    keys
}
