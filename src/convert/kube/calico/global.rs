//! BGPConfiguration: the mesh of nodes, AS number, port, and which Service addresses are
//! advertised.

use serde_json::json;

use super::{Common, Object};
use crate::{
    convert::{
        kube::{
            cluster::{Cluster, decide},
            object::Book,
            values::{about, asn, community, inside, seconds},
            yaml::Node,
        },
        router::{Keys, append, set},
    },
    net::Prefix,
};

/// Converts the object `default`; objects of single Nodes are listed.
pub(super) fn convert(objects: &[&Object], cluster: &mut Cluster, book: &mut Book) -> Common {
    let mut common = Common { asn: 64512, ..Common::default() };
    let mut kubernetes = Keys::new();
    set(&mut kubernetes, "peering", "mesh");
    append(&mut kubernetes, "services", [""; 0]);
    append(&mut kubernetes, "service-annotations", [""; 0]);
    for object in objects {
        if object.name == "default" {
            whole(object.spec(), &mut common, &mut kubernetes, cluster, book);
        } else {
            book.refuse(
                object.spec(),
                "of one Node: annotate the Node with routelet.io/as, routelet.io/router-id or routelet.io/peering",
            );
        }
    }
    set(&mut cluster.router.bgp, "as", common.asn);
    cluster.router.sections.push(("[kubernetes]", kubernetes));
    common
}

fn whole(spec: &Node, common: &mut Common, kubernetes: &mut Keys, cluster: &mut Cluster, book: &mut Book) {
    if let Some(text) = spec.text("asNumber") {
        match asn(text) {
            Some(number) => common.asn = number,
            None => {
                book.refuse_key(spec, "asNumber", "not an AS number that routelet takes: 64512 is used");
            }
        }
    }
    mesh(spec, kubernetes, cluster, book);
    if let Some(text) = spec.text("listenPort") {
        match text.parse::<u16>() {
            Ok(port @ 1..) => {
                let listen = json!([format!("0.0.0.0:{port}"), format!("[::]:{port}")]);
                set(&mut cluster.router.bgp, "listen", listen);
                group(cluster, "port", port);
            }
            _ => book.refuse_key(spec, "listenPort", "the port is 1 to 65535"),
        }
    }
    services(spec, common, kubernetes, cluster, book);
    communities(spec, common, book);
    book.unneeded_key(spec, "logSeverityScreen", "set log.level, or RUST_LOG-like filters in it");
    book.unneeded_key(
        spec,
        "ignoredInterfaces",
        "under Kubernetes no subnets of interfaces are advertised unless advertise.interfaces names them",
    );
    match spec.text("bindMode") {
        Some("NodeIP") => book.refuse_key(
            spec,
            "bindMode",
            "each node listens on all its addresses: a firewall may restrict port 179",
        ),
        Some("None") | None => {}
        Some(_) => book.refuse_key(spec, "bindMode", "not known to routelet"),
    }
    for key in ["localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6"] {
        book.refuse_key(spec, key, "routelet has no sessions with pods by selector");
    }
}

/// Sets a key of the sessions between nodes.
fn group(cluster: &mut Cluster, key: &str, value: impl Into<serde_json::Value>) {
    let groups = &mut cluster.router.groups;
    if groups.is_empty() {
        groups.push(("mesh".to_owned(), Keys::new()));
    }
    if let Some((_, keys)) = groups.first_mut() {
        set(keys, key, value);
    }
}

fn mesh(spec: &Node, kubernetes: &mut Keys, cluster: &mut Cluster, book: &mut Book) {
    if spec.text("nodeToNodeMeshEnabled") == Some("false") {
        set(kubernetes, "peering", "none");
    }
    if let Some(password) = spec.get("nodeMeshPassword") {
        // Without the password, sessions would be open to others.
        set(kubernetes, "peering", "none");
        book.refuse(
            password,
            "nodes have no sessions with each other in the result, as the password is not in it: mount the Secret, set \
             bgp.group.mesh.password-file, and kubernetes.peering = \"mesh\"",
        );
    }
    if let Some(text) = spec.text("nodeMeshMaxRestartTime") {
        match seconds(text).filter(|s| *s <= 4095) {
            Some(time) => group(cluster, "restart-time", time),
            None => book.refuse_key(spec, "nodeMeshMaxRestartTime", "whole seconds, 0 to 4095"),
        }
    }
}

/// The ranges of one kind of Service address.
struct Ranges<'a> {
    kind: &'static str,
    list: Vec<(&'a Node, Prefix)>,
}

/// Determines which Service addresses are advertised. A policy of all neighbors accepts them only
/// inside the ranges. It does not distinguish the kinds of addresses, so ranges through which
/// another kind would pass are left out.
fn services(spec: &Node, common: &mut Common, kubernetes: &mut Keys, cluster: &mut Cluster, book: &mut Book) {
    let mut read = |key: &str, kind| Ranges { kind, list: ranges(spec, key, book) };
    let cluster_ips = read("serviceClusterIPs", "cluster-ip");
    let balancers = read("serviceLoadBalancerIPs", "load-balancer-ip");
    let external = read("serviceExternalIPs", "external-ip");
    let mut passed: Vec<Prefix> = Vec::new();
    let mut kinds: Vec<&str> = Vec::new();
    for Ranges { kind, list } in [&cluster_ips, &balancers, &external] {
        for (node, prefix) in list {
            let others = [&cluster_ips, &balancers, &external].into_iter().filter(|r| r.kind != *kind);
            let mut overlapping = others.flat_map(|r| &r.list).filter(|(_, p)| overlaps(*p, *prefix));
            if overlapping.any(|(_, p)| p != prefix) {
                book.refuse(
                    node,
                    "it overlaps a range of another kind, whose addresses would be advertised, too: write disjoint ranges, or \
                     equal ones",
                );
                continue;
            }
            passed.push(*prefix);
            if !kinds.contains(kind) {
                kinds.push(kind);
            }
            match *kind {
                "external-ip" => append(kubernetes, "service-external-ranges", [prefix.to_string()]),
                "load-balancer-ip" if spec.text("serviceLoadBalancerAggregation") == Some("Disabled") => {}
                _ if prefix.is_host() => {}
                _ => append(kubernetes, "service-aggregates", [prefix.to_string()]),
            }
        }
    }
    spec.text("serviceLoadBalancerAggregation");
    if passed.is_empty() {
        return;
    }
    append(kubernetes, "services", kinds);
    cluster.router.remarks.push(
        "An aggregate of Service addresses is advertised while a Service has an address in it; Calico advertises it always."
            .into(),
    );
    let ranges: Vec<_> = passed.iter().map(|p| inside(*p)).collect();
    let mut accept = about(&ranges);
    append(&mut accept, "source", ["service"]);
    set(&mut accept, "action", "accept");
    let mut reject = decide("reject");
    append(&mut reject, "source", ["service"]);
    common.services = cluster.policy("calico-services", vec![accept, reject]).ok();
    if common.services.is_none() {
        common.services = Some(cluster.nothing());
    }
}

fn overlaps(a: Prefix, b: Prefix) -> bool {
    a.covers(b) || b.covers(a)
}

/// `[{cidr: 10.96.0.0/12}]`.
fn ranges<'a>(spec: &'a Node, key: &str, book: &mut Book) -> Vec<(&'a Node, Prefix)> {
    let mut found = Vec::new();
    for entry in spec.list(key) {
        match entry.text("cidr").and_then(|text| text.parse::<Prefix>().ok()) {
            Some(prefix) => found.push((entry, prefix)),
            None => book.refuse(entry, "no prefix"),
        }
    }
    found
}

/// Sets communities on own routes inside prefixes. If a community cannot be set, the routes are
/// rejected, since it may keep others from passing them on.
fn communities(spec: &Node, common: &mut Common, book: &mut Book) {
    let mut names: Vec<(&str, Option<String>)> = Vec::new();
    for entry in spec.list("communities") {
        let value = entry.text("value").and_then(community);
        if value.is_none() {
            book.refuse(entry, "not a community that routelet takes");
        }
        names.push((entry.text("name").unwrap_or_default(), value));
    }
    for entry in spec.list("prefixAdvertisements") {
        let Some(prefix) = entry.text("cidr").and_then(|text| text.parse::<Prefix>().ok()) else {
            book.refuse(entry, "no prefix");
            continue;
        };
        let mut statement = about(&[inside(prefix)]);
        let found: Option<Vec<String>> = entry
            .texts("communities")
            .into_iter()
            .map(|text| match names.iter().find(|(name, _)| *name == text) {
                Some((_, value)) => value.clone(),
                None => community(text).filter(|_| text.contains(':')),
            })
            .collect();
        match found {
            Some(list) => {
                append(&mut statement, "add-communities", list);
                book.note(
                    entry,
                    crate::convert::ledger::Outcome::Differs,
                    "the communities are those of all own prefixes inside",
                );
            }
            None => {
                set(&mut statement, "action", "reject");
                book.refuse(entry, "a community is not known: the prefixes inside are not advertised");
            }
        }
        common.rest.push(statement);
    }
}
