//! BGPFilter: the filters of a neighbor, in order, as one policy.
//!
//! The first rule that matches decides. Calico's default exports come after the rules. A rule
//! without counterpart rejects all routes that reach it.

use std::collections::BTreeMap;

use super::{Common, Object, not_learned};
use crate::convert::kube::unfit::{Lack, NoCounterpart, Unfit, malformed};
use crate::{
    bgp::policy::PrefixRange,
    convert::{
        kube::{
            cluster::decide,
            object::Book,
            values::{about, community},
            yaml::Node,
        },
        ranges,
        router::{Keys, append, set},
    },
    net::{Family, Prefix},
};

/// All filters by name.
#[derive(Debug)]
pub(super) struct Filters<'a> {
    by_name: BTreeMap<&'a str, &'a Object>,
    used: Vec<&'a str>,
}

/// A rule as a statement.
enum Rule {
    Statement(Keys),
    /// The rule matches nothing.
    Nothing,
    /// It has no counterpart.
    Unfit(Unfit),
}

impl<'a> Filters<'a> {
    pub(super) fn new(objects: &[&'a Object]) -> Self {
        Self { by_name: objects.iter().map(|o| (o.name.as_str(), *o)).collect(), used: Vec::new() }
    }

    /// The policy of these filters and of the statements after them; empty if everything is
    /// accepted.
    pub(super) fn statements(
        &mut self,
        names: &[&str],
        import: bool,
        is_external: bool,
        common: &Common,
        book: &mut Book,
    ) -> Result<Vec<Keys>, Unfit> {
        let mut statements = Vec::new();
        let mut rejects: Vec<Family> = Vec::new();
        for name in names {
            let Some(object) = self.by_name.get(name).copied() else {
                return Err(Unfit::NotInInput { kind: "BGPFilter", name: (*name).to_owned() });
            };
            self.used.push(&object.name);
            for (key, family) in keys(import) {
                for node in object.spec().list(key) {
                    match rule(node, family, is_external) {
                        _ if rejects.contains(&family) => {}
                        Rule::Statement(keys) => statements.push(keys),
                        Rule::Nothing => {}
                        Rule::Unfit(why) => {
                            let mut reject = decide("reject");
                            append(&mut reject, "families", [family.as_str()]);
                            statements.push(reject);
                            rejects.push(family);
                            book.refuse(
                                node,
                                &format!("{why}: from here on the routes of the family are rejected"),
                            );
                        }
                    }
                    read_all(node);
                }
            }
        }
        if !import {
            statements.extend(common.rest.iter().cloned());
            statements.push(not_learned());
        }
        Ok(statements)
    }

    /// Lists filters that no neighbor uses.
    pub(super) fn close(&self, book: &mut Book) {
        for (name, object) in &self.by_name {
            if !self.used.contains(name) {
                book.refuse(object.spec(), "no neighbor of the result has this filter");
            }
        }
    }
}

fn keys(import: bool) -> [(&'static str, Family); 2] {
    match import {
        true => [("importV4", Family::Ipv4Unicast), ("importV6", Family::Ipv6Unicast)],
        false => [("exportV4", Family::Ipv4Unicast), ("exportV6", Family::Ipv6Unicast)],
    }
}

/// Marks the fields that [`rule`] knows as read, whatever the outcome of the rule.
fn read_all(node: &Node) {
    for key in ["action", "cidr", "matchOperator", "source", "interface", "peerType", "priority"] {
        node.text(key);
    }
    for key in ["min", "max"] {
        node.get("prefixLength").and_then(|n| n.text(key));
    }
    node.texts("asPathPrefix");
    if let Some(communities) = node.get("communities") {
        communities.texts("values");
    }
    for operation in node.list("operations") {
        operation.at(&["addCommunity", "value"]).and_then(Node::scalar);
        operation.get("prependASPath").map(|n| n.texts("prefix"));
        operation.at(&["setPriority", "value"]).and_then(Node::scalar);
    }
}

fn rule(node: &Node, family: Family, is_external: bool) -> Rule {
    match statement(node, family, is_external) {
        Ok(Some(keys)) => Rule::Statement(keys),
        Ok(None) => Rule::Nothing,
        Err(why) => Rule::Unfit(why),
    }
}

/// The statement of a rule. `None`: it matches nothing.
fn statement(node: &Node, family: Family, is_external: bool) -> Result<Option<Keys>, Unfit> {
    only_known(node)?;
    let mut keys = match node.get("cidr").map(|_| prefixes(node, family)).transpose()? {
        Some(ranges) if ranges.is_empty() => return Ok(None),
        Some(ranges) => about(&ranges),
        None if node.get("matchOperator").is_some() => return Err(Lack::Cidr.into()),
        None => Keys::new(),
    };
    append(&mut keys, "families", [family.as_str()]);
    match node.text("peerType") {
        None | Some("") => {}
        Some("eBGP") if !is_external => return Ok(None),
        Some("iBGP") if is_external => return Ok(None),
        Some("eBGP" | "iBGP") => {}
        Some(_) => return Err(Unfit::UnknownField("peerType")),
    }
    match node.text("source") {
        None | Some("") => {}
        Some("RemotePeers") => append(&mut keys, "source", ["bgp"]),
        Some(_) => return Err(Unfit::UnknownField("source")),
    }
    let path = node.texts("asPathPrefix");
    if !path.is_empty() {
        if !path.iter().all(|n| n.parse::<u32>().is_ok()) {
            return Err(malformed("asPathPrefix", "no list of AS numbers"));
        }
        set(&mut keys, "as-path", format!("^{}_", path.join("_")));
    }
    if let Some(communities) = node.get("communities") {
        let list: Option<Vec<_>> = communities.texts("values").into_iter().map(community).collect();
        let list = list.filter(|l| l.len() == 1).ok_or(Lack::Community)?;
        append(&mut keys, "communities", list);
    }
    match node.text("action") {
        Some("Accept") => {
            operations(node, &mut keys)?;
            set(&mut keys, "action", "accept");
        }
        Some("Reject") => set(&mut keys, "action", "reject"),
        _ => return Err(malformed("action", "neither Accept nor Reject")),
    }
    Ok(Some(keys))
}

/// An unknown condition must not be ignored.
fn only_known(node: &Node) -> Result<(), Unfit> {
    let known = [
        "action",
        "cidr",
        "matchOperator",
        "source",
        "peerType",
        "prefixLength",
        "asPathPrefix",
        "communities",
        "operations",
    ];
    let super::super::yaml::Value::Map(entries) = &node.value else { return Err(Lack::Rule.into()) };
    match entries.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, _)) => Err(Unfit::Key(key.clone())),
        None => Ok(()),
    }
}

fn operations(node: &Node, keys: &mut Keys) -> Result<(), Unfit> {
    for operation in node.list("operations") {
        let added = operation.at(&["addCommunity", "value"]).and_then(Node::scalar);
        match added.and_then(community) {
            Some(community) => append(keys, "add-communities", [community]),
            None => return Err(NoCounterpart::Operation.into()),
        }
    }
    if node.get("operations").is_some() && node.list("operations").is_empty() {
        return Err(malformed("operations", "no list"));
    }
    Ok(())
}

fn prefixes(node: &Node, family: Family) -> Result<Vec<PrefixRange>, Unfit> {
    let prefix: Option<Prefix> = node.text("cidr").and_then(|text| text.parse().ok());
    let prefix =
        prefix.filter(|p| p.family() == family).ok_or(malformed("cidr", "no prefix of the family"))?;
    let length = |key: &'static str, otherwise: u8| match node.get("prefixLength").and_then(|n| n.text(key)) {
        Some(text) => text.parse::<u8>().map_err(|_| Unfit::PrefixLength(key)),
        None => Ok(otherwise),
    };
    let (min, max) = (length("min", prefix.len())?, length("max", family.max_len())?);
    let range = |ge: u8, le: u8| {
        let ge = ge.max(prefix.len());
        (ge <= le && le <= family.max_len()).then_some(PrefixRange { prefix, ge, le })
    };
    let has_lengths = node.get("prefixLength").is_some();
    let (within, is_not) = match node.text("matchOperator") {
        Some("In") => (range(min, max), false),
        Some("NotIn") => (range(min, max), true),
        Some("Equal") if !has_lengths => (range(prefix.len(), prefix.len()), false),
        Some("NotEqual") if !has_lengths => (range(prefix.len(), prefix.len()), true),
        Some("Equal" | "NotEqual") => return Err(NoCounterpart::LengthBesideEqual.into()),
        _ => return Err(Unfit::UnknownField("matchOperator")),
    };
    let within: Vec<_> = within.into_iter().collect();
    match is_not {
        false => Ok(within),
        true => ranges::minus_all(vec![ranges::all(family)], &within).ok_or(Unfit::ManyPrefixes),
    }
}
