//! Words of the watch → [`Nodes`]: the cache, which keeps views alone.
//!
//! A new listing replaces the old one only when it is whole: until then what was known stays in force, so that an API server
//! that comes back changes nothing that did not change.

use std::collections::BTreeMap;

use super::node::{ApiNode, NodeView, Nodes};

/// Which Nodes are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Our own alone.
    Own,
    All,
}

/// The cache and what the watch is about to replace it by.
#[derive(Clone, Debug)]
pub struct Cluster {
    own_name: String,
    scope: Scope,
    nodes: Nodes,
    /// A listing that is not whole yet.
    listing: Option<BTreeMap<String, NodeView>>,
}

impl Cluster {
    /// With what is known from the last run, if anything.
    pub fn new(own_name: String, known: Nodes) -> Self {
        Self { own_name, scope: Scope::Own, nodes: known, listing: None }
    }

    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// What does not come from Node objects.
    pub fn nodes_mut(&mut self) -> &mut Nodes {
        &mut self.nodes
    }

    /// Whether a listing is under way.
    pub fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// A listing begins.
    pub fn begin(&mut self, scope: Scope) {
        self.scope = scope;
        self.listing = Some(BTreeMap::new());
    }

    /// A Node of the listing, or one that appeared or changed after it.
    pub fn found(&mut self, node: &ApiNode, in_listing: bool) {
        let view = NodeView::from(node);
        match &mut self.listing {
            Some(listing) if in_listing => {
                listing.insert(view.name.clone(), view);
            }
            _ if view.name == self.own_name => self.nodes.own = Some(view),
            _ if self.scope == Scope::All => {
                self.nodes.others.insert(view.name.clone(), view);
            }
            _ => {}
        }
    }

    /// The listing is whole.
    pub fn end(&mut self) {
        let Some(mut listing) = self.listing.take() else { return };
        self.nodes.own = listing.remove(&self.own_name);
        self.nodes.others = listing;
        self.nodes.complete = self.scope == Scope::All;
    }

    /// A Node was deleted. One that was re-created meanwhile has another UID and stays.
    pub fn gone(&mut self, node: &ApiNode) {
        let uid = node.metadata.uid.as_deref().unwrap_or_default();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if name == self.own_name {
            self.nodes.own.take_if(|own| own.uid == uid);
        } else if self.nodes.others.get(name).is_some_and(|n| n.uid == uid) {
            self.nodes.others.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, uid: &str, cidr: &str) -> ApiNode {
        let json = format!(
            r#"{{"metadata": {{"name": "{name}", "uid": "{uid}"}}, "spec": {{"podCIDRs": ["{cidr}"]}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn listed(cluster: &mut Cluster, scope: Scope, nodes: &[ApiNode]) {
        cluster.begin(scope);
        nodes.iter().for_each(|n| cluster.found(n, true));
        cluster.end();
    }

    fn names(cluster: &Cluster) -> Vec<&str> {
        let nodes = cluster.nodes();
        nodes.own.iter().map(|n| n.name.as_str()).chain(nodes.others.keys().map(String::as_str)).collect()
    }

    #[test]
    fn what_was_known_stays_until_the_new_listing_is_whole() {
        let mut c = Cluster::new("n1".into(), Nodes::default());
        listed(&mut c, Scope::All, &[node("n1", "a", "10.244.1.0/24"), node("n2", "b", "10.244.2.0/24")]);
        assert_eq!((names(&c), c.nodes().complete), (vec!["n1", "n2"], true));
        c.begin(Scope::All);
        c.found(&node("n3", "c", "10.244.3.0/24"), true);
        assert_eq!(names(&c), ["n1", "n2"]);
        c.end();
        assert_eq!(names(&c), ["n3"], "and what is not listed is gone");
    }

    #[test]
    fn changes_and_deletions_are_followed() {
        let mut c = Cluster::new("n1".into(), Nodes::default());
        listed(&mut c, Scope::All, &[node("n1", "a", "10.244.1.0/24")]);
        c.found(&node("n2", "b", "10.244.2.0/24"), false);
        c.found(&node("n1", "a", "10.244.9.0/24"), false);
        assert_eq!(c.nodes().own.as_ref().unwrap().pod_cidrs[0].to_string(), "10.244.9.0/24");
        c.gone(&node("n2", "b", "10.244.2.0/24"));
        c.gone(&node("n1", "a", "10.244.9.0/24"));
        assert!(names(&c).is_empty());
    }

    #[test]
    fn a_late_word_of_a_deletion_does_not_touch_the_node_made_anew() {
        let mut c = Cluster::new("n1".into(), Nodes::default());
        listed(&mut c, Scope::All, &[node("n1", "new", "10.244.7.0/24"), node("n2", "new", "10.244.8.0/24")]);
        c.gone(&node("n1", "old", "10.244.1.0/24"));
        c.gone(&node("n2", "old", "10.244.2.0/24"));
        assert_eq!(names(&c), ["n1", "n2"]);
    }

    #[test]
    fn watching_the_own_node_alone_keeps_no_others() {
        let mut c = Cluster::new("n1".into(), Nodes::default());
        listed(&mut c, Scope::All, &[node("n1", "a", "10.244.1.0/24"), node("n2", "b", "10.244.2.0/24")]);
        listed(&mut c, Scope::Own, &[node("n1", "a", "10.244.1.0/24")]);
        assert_eq!((names(&c), c.nodes().complete), (vec!["n1"], false));
    }
}
