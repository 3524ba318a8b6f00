//! The ConfigMap that configured MetalLB before release 0.13: peers, pools and communities in one
//! document, in kebab-case.

use super::{Advertisement, Book, Cluster, Node, addresses, attributes, own_as, peer};
use crate::convert::kube::yaml::Value;

/// Keys, and their names in objects.
const NAMES: [(&str, &str); 24] = [
    ("aggregation-length", "aggregationLength"),
    ("aggregation-length-v6", "aggregationLengthV6"),
    ("auto-assign", "autoAssign"),
    ("avoid-buggy-ips", "avoidBuggyIPs"),
    ("bfd-profile", "bfdProfile"),
    ("detect-multiplier", "detectMultiplier"),
    ("ebgp-multihop", "ebgpMultiHop"),
    ("echo-interval", "echoInterval"),
    ("echo-mode", "echoMode"),
    ("hold-time", "holdTime"),
    ("keepalive-time", "keepaliveTime"),
    ("localpref", "localPref"),
    ("match-expressions", "matchExpressions"),
    ("match-labels", "matchLabels"),
    ("minimum-ttl", "minimumTtl"),
    ("my-asn", "myASN"),
    ("node-selectors", "nodeSelectors"),
    ("passive-mode", "passiveMode"),
    ("peer-address", "peerAddress"),
    ("peer-asn", "peerASN"),
    ("peer-port", "peerPort"),
    ("receive-interval", "receiveInterval"),
    ("router-id", "routerID"),
    ("source-address", "sourceAddress"),
];

/// Renames the keys of a document to those of objects.
pub(super) fn rename(node: &mut Node) {
    match &mut node.value {
        Value::Map(entries) => {
            for (key, inner) in entries {
                if key == "transmit-interval" {
                    *key = "transmitInterval".into();
                } else if let Some((_, name)) = NAMES.iter().find(|(old, _)| old == key) {
                    *key = (*name).to_owned();
                }
                // Keys of labels are not renamed.
                if key != "matchLabels" {
                    rename(inner);
                }
            }
        }
        Value::List(list) => list.iter_mut().for_each(rename),
        Value::Null | Value::Scalar(_) => {}
    }
}

/// Converts such a document.
pub(super) fn convert(root: &Node, cluster: &mut Cluster, book: &mut Book) {
    let pairs = root.pairs("bgp-communities").into_iter();
    let names: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), super::community(value))).collect();
    let mut advertisements = Vec::new();
    for pool in root.list("address-pools") {
        pool.text("name");
        for key in ["autoAssign", "avoidBuggyIPs"] {
            book.unneeded_key(pool, key, super::ASSIGNING);
        }
        if pool.text("protocol") != Some("bgp") {
            book.refuse(pool, "routelet has no layer 2 mode: the pool is not advertised");
            continue;
        }
        let ranges = addresses(pool, book);
        let list = pool.list("bgp-advertisements");
        if list.is_empty() {
            advertisements.push(Advertisement { ranges: ranges.clone(), ..Advertisement::default() });
        }
        for node in list {
            match attributes(node, ranges.clone(), &names, book) {
                Ok(mut found) => {
                    found.peers = node.texts("peers").into_iter().map(str::to_owned).collect();
                    advertisements.push(found);
                }
                Err(why) => book.refuse(node, &format!("the advertisement is left out: {why}")),
            }
        }
    }
    let profiles: Vec<_> =
        root.list("bfd-profiles").iter().map(|p| (p.text("name").unwrap_or_default(), p)).collect();
    let peers = root.list("peers");
    own_as(peers.iter().filter_map(|p| p.text("myASN")), cluster);
    for (n, node) in peers.iter().enumerate() {
        let name = node.text("name").map_or_else(|| format!("peer{}", n + 1), str::to_owned);
        if let Err(why) = peer::neighbor(&name, node, &profiles, &advertisements, cluster, book) {
            book.refuse(node, &format!("the neighbor is left out: {why}"));
        }
    }
    for (_, profile) in profiles {
        peer::close_profile(profile, book);
    }
}
