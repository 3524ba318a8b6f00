//! MetalLB: BGPPeer, BGPAdvertisement, IPAddressPool, Community and BFDProfile, and the ConfigMap
//! of releases before 0.13.
//!
//! routelet only replaces the speaker: MetalLB's controller continues to assign addresses.
//! Neighbors get only the addresses of the pools that an advertisement selects; nothing is learned
//! from them.

mod legacy;
mod peer;

use self::peer::neighbor;
use super::{
    cluster::{Cluster, decide},
    object::{Book, LEGACY_GROUP, Object, read},
    selector,
    values::{about, community, inside, prefixes},
    yaml::Node,
};
use crate::convert::kube::unfit::{NoCounterpart, Unfit};
use crate::{
    bgp::policy::PrefixRange,
    convert::{
        ConvertError, Input,
        ledger::Ledger,
        router::{Keys, append, set},
    },
    net::Family,
};

/// Keys of aggregates, by family.
const LENGTHS: [(&str, Family); 2] =
    [("aggregationLength", Family::Ipv4Unicast), ("aggregationLengthV6", Family::Ipv6Unicast)];

/// The routes that some neighbors get.
#[derive(Clone, Debug, Default)]
struct Advertisement {
    /// Names of the neighbors; empty for all.
    peers: Vec<String>,
    ranges: Vec<PrefixRange>,
    /// Communities and LOCAL_PREF.
    attributes: Keys,
}

/// `ADDRESSES` of a pool.
#[derive(Debug)]
struct Pool<'a> {
    name: &'a str,
    object: &'a Object,
    ranges: Vec<PrefixRange>,
}

const ASSIGNING: &str = "MetalLB's controller continues to assign addresses";
const KINDS: [&str; 5] = ["BGPPeer", "BGPAdvertisement", "IPAddressPool", "Community", "BFDProfile"];

/// Reads all files and converts them.
pub(super) fn convert(inputs: &[Input]) -> Result<(Cluster, Ledger), ConvertError> {
    let is_known =
        |o: &Object| o.group == "metallb.io" && KINDS.contains(&o.kind.as_str()) || o.group == LEGACY_GROUP;
    let (mut objects, mut book) = read(inputs, is_known)?;
    objects.iter_mut().filter(|o| o.group == LEGACY_GROUP).for_each(|o| legacy::rename(&mut o.root));
    let mut cluster = Cluster::new();
    let of_kind = |kind: &str| objects.iter().filter(move |o| o.kind == kind).collect::<Vec<_>>();
    let names = community_names(&of_kind("Community"), &mut book);
    let pools = pools(&of_kind("IPAddressPool"), &mut book);
    let mut advertisements = Vec::new();
    for object in of_kind("BGPAdvertisement") {
        match advertisement(object, &pools, &names, &mut book) {
            Ok(found) => advertisements.push(found),
            Err(why) => book.refuse(object.spec(), &format!("the advertisement is left out: {why}")),
        }
    }
    let peers = of_kind("BGPPeer");
    if !peers.is_empty() {
        own_as(peers.iter().filter_map(|o| o.spec().text("myASN")), &mut cluster);
    }
    for object in peers {
        let (spec, name) = (object.spec(), object.name.as_str());
        let profiles: Vec<_> =
            of_kind("BFDProfile").into_iter().map(|o| (o.name.as_str(), o.spec())).collect();
        if let Err(why) = neighbor(name, spec, &profiles, &advertisements, &mut cluster, &mut book) {
            book.refuse(spec, &format!("the neighbor is left out: {why}"));
        }
    }
    for object in of_kind("BFDProfile") {
        peer::close_profile(object.spec(), &mut book);
    }
    for object in objects.iter().filter(|o| o.group == LEGACY_GROUP) {
        legacy::convert(&object.root, &mut cluster, &mut book);
    }
    finish(&mut cluster);
    book.close(&objects);
    Ok((cluster, book.ledger))
}

/// Settings of MetalLB's speaker: no routes in the kernel, no pods' network, addresses of load
/// balancers that have an endpoint.
fn finish(cluster: &mut Cluster) {
    own_as([], cluster);
    let mut kubernetes = Keys::new();
    set(&mut kubernetes, "peering", "none");
    set(&mut kubernetes, "advertise-pod-cidrs", false);
    append(&mut kubernetes, "services", ["load-balancer-ip"]);
    append(&mut kubernetes, "service-annotations", [""; 0]);
    append(&mut kubernetes, "load-balancer-classes", [""; 0]);
    set(&mut kubernetes, "withdraw-without-endpoints", true);
    let router = &mut cluster.router;
    router.sections.push(("[kubernetes]", kubernetes));
    let off = || Keys::from_iter([("enabled".to_owned(), false.into())]);
    router.sections.push(("[cni]", off()));
    router.sections.push(("[masquerade]", off()));
    router.remarks.push(
        "routelet advertises the addresses that MetalLB's controller assigns, in place of MetalLB's speaker: remove the \
         speaker, keep the controller. Pods keep their network."
            .into(),
    );
}

/// Sets `bgp.as` to the first of the numbers.
fn own_as<'a>(numbers: impl IntoIterator<Item = &'a str>, cluster: &mut Cluster) {
    let first = numbers.into_iter().find_map(super::values::asn);
    if !cluster.router.bgp.contains_key("as") {
        set(&mut cluster.router.bgp, "as", first.unwrap_or(64512));
    }
}

fn community_names(objects: &[&Object], book: &mut Book) -> Vec<(String, Option<String>)> {
    let mut names = Vec::new();
    for object in objects {
        for entry in object.spec().list("communities") {
            let value = entry.text("value").and_then(community);
            if value.is_none() {
                book.refuse(entry, "not a community that routelet takes");
            }
            names.push((entry.text("name").unwrap_or_default().to_owned(), value));
        }
    }
    names
}

/// A community, or the name of one.
fn resolved(text: &str, names: &[(String, Option<String>)]) -> Result<String, Unfit> {
    let known = names.iter().find(|(name, _)| name == text);
    let value = match known {
        Some((_, value)) => value.clone(),
        None => community(text).filter(|_| text.contains(':')),
    };
    value.ok_or_else(|| Unfit::UnknownCommunity(text.to_owned()))
}

fn pools<'a>(objects: &[&'a Object], book: &mut Book) -> Vec<Pool<'a>> {
    let mut found = Vec::new();
    for object in objects {
        let spec = object.spec();
        let ranges = addresses(spec, book);
        for key in ["autoAssign", "avoidBuggyIPs"] {
            book.unneeded_key(spec, key, ASSIGNING);
        }
        book.unneeded_key(spec, "serviceAllocation", ASSIGNING);
        found.push(Pool { name: &object.name, object, ranges });
    }
    found
}

/// The addresses of a pool, all of them host routes.
fn addresses(node: &Node, book: &mut Book) -> Vec<PrefixRange> {
    let mut ranges = Vec::new();
    for text in node.texts("addresses") {
        match prefixes(text) {
            Some(list) => ranges.extend(list.into_iter().map(|p| {
                let range = inside(p);
                PrefixRange { ge: range.le, ..range }
            })),
            None => book.refuse_key(node, "addresses", &format!("`{text}` is not a prefix or range")),
        }
    }
    ranges
}

fn advertisement(
    object: &Object,
    pools: &[Pool<'_>],
    names: &[(String, Option<String>)],
    book: &mut Book,
) -> Result<Advertisement, Unfit> {
    let spec = object.spec();
    let selectors = spec.list("nodeSelectors");
    if !selectors.is_empty() {
        return Err(NoCounterpart::NodesOfAdvertisement.into());
    }
    let wanted = spec.texts("ipAddressPools");
    let by_label = spec.list("ipAddressPoolSelectors");
    let mut ranges = Vec::new();
    for pool in pools {
        let mut is_selected = wanted.contains(&pool.name) || wanted.is_empty() && by_label.is_empty();
        for selector in by_label {
            is_selected |= selector::matches(selector, &pool.object.labels)?;
        }
        if is_selected {
            ranges.extend(pool.ranges.iter().copied());
        }
    }
    if wanted.iter().any(|name| !pools.iter().any(|p| p.name == *name)) {
        book.refuse_key(spec, "ipAddressPools", "a pool of them is not in the input: it is not advertised");
    }
    let mut found = attributes(spec, ranges, names, book)?;
    found.peers = spec.texts("peers").into_iter().map(str::to_owned).collect();
    Ok(found)
}

/// The attributes that advertisements of both kinds can have.
fn attributes(
    node: &Node,
    mut ranges: Vec<PrefixRange>,
    names: &[(String, Option<String>)],
    book: &mut Book,
) -> Result<Advertisement, Unfit> {
    for (key, family) in LENGTHS {
        let length = node.text(key).map(|text| text.parse::<u8>());
        if length.is_some_and(|l| l != Ok(family.max_len())) {
            ranges.retain(|r| r.prefix.family() != family);
            book.refuse_key(
                node,
                key,
                "addresses of this family are not advertised: routelet advertises aggregates to all neighbors alike, see \
                 kubernetes.service-aggregates",
            );
        }
    }
    let mut attributes = Keys::new();
    let list: Result<Vec<_>, _> =
        node.texts("communities").into_iter().map(|text| resolved(text, names)).collect();
    let list = list?;
    if !list.is_empty() {
        append(&mut attributes, "add-communities", list);
    }
    if let Some(text) = node.text("localPref") {
        let value: u32 =
            text.parse().map_err(|_| Unfit::Value { value: text.to_owned(), expected: "LOCAL_PREF" })?;
        if value > 0 {
            set(&mut attributes, "set-local-pref", value);
        }
    }
    Ok(Advertisement { peers: Vec::new(), ranges, attributes })
}

/// The export policy of a neighbor.
fn exports(name: &str, advertisements: &[Advertisement]) -> Vec<Keys> {
    let is_for = |a: &&Advertisement| a.peers.is_empty() || a.peers.iter().any(|p| p == name);
    let of_it: Vec<_> = advertisements.iter().filter(is_for).filter(|a| !a.ranges.is_empty()).collect();
    let mut statements = Vec::new();
    let mut all: Vec<PrefixRange> = Vec::new();
    for Advertisement { ranges, attributes, .. } in of_it {
        if !attributes.is_empty() {
            let mut statement = about(ranges);
            append(&mut statement, "source", ["service"]);
            statement.extend(attributes.clone());
            if !statements.contains(&statement) {
                statements.push(statement);
            }
        }
        all.extend(ranges.iter().filter(|r| !all.contains(r)).copied().collect::<Vec<_>>());
    }
    if !all.is_empty() {
        let mut accept = about(&all);
        append(&mut accept, "source", ["service"]);
        set(&mut accept, "action", "accept");
        statements.push(accept);
    }
    statements.push(decide("reject"));
    statements
}
