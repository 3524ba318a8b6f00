//! Words of the watch → [`Nodes`]: the cache, which keeps views alone.
//!
//! A new listing replaces the old one only when it is whole: until then what was known stays in force, so that an API server
//! that comes back changes nothing that did not change.
//!
//! A Node that is deleted stays known for [`GRACE`], another's for [`OTHERS_GRACE`]: its route must not outlive it for
//! long, since the pod CIDR may be given to a new Node. Node objects are deleted and made anew by cloud controllers and by hand
//! while the machine, its kubelet and its pods go on; the new one comes bare and gets its addresses and pod CIDRs
//! later. Until then what the old one had stays in force, so that the same pod CIDR given again changes nothing.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::node::{ApiNode, NodeView, Nodes};

/// How long what the own Node had stays in force when it is deleted, and what any Node had when it is made anew.
pub const GRACE: Duration = Duration::from_secs(30);

/// How long another Node that is deleted has to be made anew.
pub const OTHERS_GRACE: Duration = Duration::from_secs(5);

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
    leaving: BTreeMap<String, Leaving>,
}

/// Of a Node that was deleted.
#[derive(Clone, Debug)]
struct Leaving {
    until: Instant,
    /// As it is, of one that was made anew and has not everything yet.
    anew: Option<NodeView>,
}

impl Cluster {
    /// With what is known from the last run, if anything.
    pub fn new(own_name: String, known: Nodes) -> Self {
        Self { own_name, scope: Scope::Own, nodes: known, listing: None, leaving: BTreeMap::new() }
    }

    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// What does not come from Node objects.
    pub fn nodes_mut(&mut self) -> &mut Nodes {
        &mut self.nodes
    }

    /// A listing begins.
    pub fn begin(&mut self, scope: Scope) {
        self.scope = scope;
        self.listing = Some(BTreeMap::new());
    }

    /// A Node of the listing, or one that appeared or changed after it.
    pub fn found(&mut self, now: Instant, node: &ApiNode, in_listing: bool) {
        let view = NodeView::from(node);
        let view = if view.name == self.own_name { view } else { view.of_another() };
        match &mut self.listing {
            Some(listing) if in_listing => {
                listing.insert(view.name.clone(), view);
            }
            _ if view.name == self.own_name || self.scope == Scope::All => self.put(now, view),
            _ => {}
        }
    }

    /// The listing is whole.
    pub fn end(&mut self, now: Instant) {
        let Some(listing) = self.listing.take() else { return };
        if self.scope == Scope::Own {
            self.nodes.others.clear();
            self.leaving.retain(|name, _| *name == self.own_name);
        }
        let known = self.nodes.all().map(|n| n.name.clone());
        let gone: Vec<_> = known.filter(|name| !listing.contains_key(name)).collect();
        gone.into_iter().for_each(|name| self.leave(now, name));
        listing.into_values().for_each(|view| self.put(now, view));
        self.nodes.complete = self.scope == Scope::All;
    }

    /// A Node was deleted. One that was re-created meanwhile has another UID and stays.
    pub fn gone(&mut self, now: Instant, node: &ApiNode) {
        let uid = node.metadata.uid.as_deref().unwrap_or_default();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let uid_known = match self.leaving.get(name).and_then(|l| l.anew.as_ref()) {
            Some(anew) => anew.uid == uid,
            None => self.place(name).is_some_and(|n| n.uid == uid),
        };
        if uid_known {
            self.leave(now, name.to_owned());
        }
    }

    /// When [`Cluster::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.leaving.values().map(|l| l.until).min()
    }

    /// Ends the grace of deleted Nodes.
    pub fn expire(&mut self, now: Instant) {
        let due: Vec<_> =
            self.leaving.iter().filter(|(_, l)| l.until <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            let anew = self.leaving.remove(&name).and_then(|l| l.anew);
            self.set(&name, anew);
        }
    }

    /// What is there now is known; where it is a Node made anew that lacks something, the old one lends it for a while.
    fn put(&mut self, now: Instant, view: NodeView) {
        let name = view.name.clone();
        let old = self.place(&name);
        let until = match (self.leaving.get(&name), old) {
            (Some(Leaving { until, anew: Some(_) }), _) => Some(*until),
            (Some(_), _) => Some(now + GRACE),
            (None, Some(old)) if old.uid != view.uid => Some(now + GRACE),
            _ => None,
        };
        match (until, old) {
            (Some(until), Some(old)) if view.missing().is_some() && old.missing().is_none() => {
                let mut lent = view.clone();
                if lent.addresses.is_empty() {
                    lent.addresses.clone_from(&old.addresses);
                }
                if lent.pod_cidrs.is_empty() {
                    lent.pod_cidrs.clone_from(&old.pod_cidrs);
                    lent.deleted = true;
                }
                // A cloud controller sets its labels together with the addresses.
                for (key, value) in &old.labels {
                    lent.labels.entry(key.clone()).or_insert_with(|| value.clone());
                }
                lent.zone = lent.zone.or_else(|| old.zone.clone());
                lent.asn = lent.asn.or(old.asn);
                lent.router_id = lent.router_id.or(old.router_id);
                lent.reflector = lent.reflector.or(old.reflector);
                lent.peering = lent.peering.or_else(|| old.peering.clone());
                lent.problems.push(format!(
                    "the Node was made anew and is not whole: what it lacks stays as it was for {} s",
                    GRACE.as_secs()
                ));
                self.leaving.insert(name.clone(), Leaving { until, anew: Some(view) });
                self.set(&name, Some(lent));
            }
            (_, old) => {
                // Most words of a large cluster are about what does not matter here.
                let same = old == Some(&view);
                self.leaving.remove(&name);
                if !same {
                    self.set(&name, Some(view));
                }
            }
        }
    }

    fn leave(&mut self, now: Instant, name: String) {
        let grace = if name == self.own_name { GRACE } else { OTHERS_GRACE };
        let until = self.leaving.get(&name).map_or(now + grace, |l| l.until);
        self.leaving.insert(name.clone(), Leaving { until, anew: None });
        if let Some(mut view) = self.place(&name).cloned() {
            view.deleted = true;
            view.problems = vec![format!(
                "the Node was deleted: its pod CIDRs and addresses stay in force for {} s",
                grace.as_secs()
            )];
            self.set(&name, Some(view));
        }
    }

    fn place(&self, name: &str) -> Option<&NodeView> {
        if name == self.own_name {
            self.nodes.own.as_ref()
        } else {
            self.nodes.others.get(name).map(Arc::as_ref)
        }
    }

    fn set(&mut self, name: &str, view: Option<NodeView>) {
        match view {
            view if name == self.own_name => self.nodes.own = view,
            Some(view) => {
                self.nodes.others.insert(name.to_owned(), Arc::new(view));
            }
            None => {
                self.nodes.others.remove(name);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    /// With an address, unless there is no pod CIDR either.
    fn node(name: &str, uid: &str, cidr: &str) -> ApiNode {
        let whole = format!(
            r#", "spec": {{"podCIDRs": ["{cidr}"]}},
                "status": {{"addresses": [{{"type": "InternalIP", "address": "10.0.0.1"}}]}}"#
        );
        let rest = if cidr.is_empty() { "" } else { whole.as_str() };
        serde_json::from_str(&format!(r#"{{"metadata": {{"name": "{name}", "uid": "{uid}"}}{rest}}}"#))
            .unwrap()
    }

    fn listed(cluster: &mut Cluster, now: Instant, scope: Scope, nodes: &[ApiNode]) {
        cluster.begin(scope);
        nodes.iter().for_each(|n| cluster.found(now, n, true));
        cluster.end(now);
    }

    fn names(cluster: &Cluster) -> Vec<&str> {
        let nodes = cluster.nodes();
        nodes.own.iter().map(|n| n.name.as_str()).chain(nodes.others.keys().map(String::as_str)).collect()
    }

    fn own_cidr(cluster: &Cluster) -> Option<String> {
        cluster.nodes().own.as_ref()?.pod_cidrs.first().map(ToString::to_string)
    }

    #[test]
    fn what_was_known_stays_until_the_new_listing_is_whole() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        let both = [node("n1", "a", "10.244.1.0/24"), node("n2", "b", "10.244.2.0/24")];
        listed(&mut c, t, Scope::All, &both);
        assert_eq!((names(&c), c.nodes().complete), (vec!["n1", "n2"], true));
        c.begin(Scope::All);
        c.found(t, &node("n3", "c", "10.244.3.0/24"), true);
        assert_eq!(names(&c), ["n1", "n2"]);
        c.end(t);
        assert_eq!(names(&c), ["n1", "n2", "n3"], "what is not listed has its grace");
        c.expire(t + GRACE);
        assert_eq!(names(&c), ["n3"]);
    }

    #[test]
    fn changes_are_followed_at_once_and_deletions_after_a_grace() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        listed(&mut c, t, Scope::All, &[node("n1", "a", "10.244.1.0/24")]);
        c.found(t, &node("n2", "b", "10.244.2.0/24"), false);
        c.found(t, &node("n1", "a", "10.244.9.0/24"), false);
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.9.0/24"));
        c.gone(t, &node("n2", "b", "10.244.2.0/24"));
        c.gone(t, &node("n1", "a", "10.244.9.0/24"));
        assert_eq!((names(&c), c.next_expiry()), (vec!["n1", "n2"], Some(t + OTHERS_GRACE)));
        c.expire(t + OTHERS_GRACE);
        assert_eq!(names(&c), ["n1"], "another's time is short");
        let own = c.nodes().own.as_ref().unwrap();
        assert!(own.deleted && own.problems[0].contains("deleted"));
        c.expire(t + GRACE);
        assert!(names(&c).is_empty() && c.next_expiry().is_none());
    }

    #[test]
    fn a_node_made_anew_with_the_same_pod_cidr_changes_nothing_on_the_way() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        listed(&mut c, t, Scope::Own, &[node("n1", "old", "10.244.1.0/24")]);
        c.gone(t, &node("n1", "old", ""));
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.1.0/24"));
        c.found(t, &node("n1", "new", ""), false);
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.1.0/24"), "bare, and lent what it lacks");
        c.found(t, &node("n1", "new", "10.244.1.0/24"), false);
        let own = c.nodes().own.clone().unwrap();
        assert_eq!(
            (own.uid.as_str(), own.deleted, own.problems.len(), c.next_expiry()),
            ("new", false, 0, None)
        );
        c.expire(t + GRACE);
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.1.0/24"));
    }

    #[test]
    fn a_node_made_anew_is_lent_its_labels_until_it_is_whole() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        let mut old = node("n1", "old", "10.244.1.0/24");
        old.metadata.labels = Some([("rack".to_owned(), "a".to_owned())].into());
        old.metadata.annotations = Some([("routelet.io/as".to_owned(), "65007".to_owned())].into());
        listed(&mut c, t, Scope::Own, &[old]);
        c.found(t, &node("n1", "new", ""), false);
        let own = c.nodes().own.clone().unwrap();
        assert_eq!((own.labels["rack"].as_str(), own.asn), ("a", Some(65007)));
        c.found(t, &node("n1", "new", "10.244.1.0/24"), false);
        let own = c.nodes().own.clone().unwrap();
        assert_eq!((own.labels.len(), own.asn), (0, None));
    }

    #[test]
    fn a_node_made_anew_that_stays_bare_is_bare_in_the_end() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        listed(&mut c, t, Scope::Own, &[node("n1", "old", "10.244.1.0/24")]);
        // The deletion itself was missed.
        listed(&mut c, t, Scope::Own, &[node("n1", "new", "")]);
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.1.0/24"));
        c.expire(t + GRACE);
        assert_eq!((names(&c), own_cidr(&c)), (vec!["n1"], None));
    }

    #[test]
    fn a_late_word_of_a_deletion_does_not_touch_the_node_made_anew() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        let anew = [node("n1", "new", "10.244.7.0/24"), node("n2", "new", "10.244.8.0/24")];
        listed(&mut c, t, Scope::All, &anew);
        c.gone(t, &node("n1", "old", "10.244.1.0/24"));
        c.gone(t, &node("n2", "old", "10.244.2.0/24"));
        assert_eq!((names(&c), c.next_expiry()), (vec!["n1", "n2"], None));
    }

    #[test]
    fn watching_the_own_node_alone_keeps_no_others() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        let both = [node("n1", "a", "10.244.1.0/24"), node("n2", "b", "10.244.2.0/24")];
        listed(&mut c, t, Scope::All, &both);
        listed(&mut c, t, Scope::Own, &both[..1]);
        assert_eq!((names(&c), c.nodes().complete), (vec!["n1"], false));
    }
}
