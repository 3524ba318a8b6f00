//! The cache of Nodes: applies the events of the watch to [`Nodes`], and stores views only.
//!
//! A new list replaces the old one only once it is complete: until then the known Nodes stay in
//! force, so the return of the API server alone changes nothing.
//!
//! A deleted Node stays known for a grace period: our own for [`GRACE`], others for
//! [`OTHERS_GRACE`], since their pod CIDR may be assigned to a new Node. Cloud controllers and
//! operators delete and recreate Node objects while the machine, its kubelet and its pods keep
//! running. The new object gets its addresses and pod CIDRs later; until then those of the old one
//! stay in force, so that the same pod CIDR causes no change.
//!
//! A Node that had addresses and then reports none, with the same UID, keeps the last ones until it
//! reports others or is deleted: cloud controllers and kubelets remove addresses for minutes while
//! the machine keeps running. If one family remains, the list appears complete, so the other family
//! is removed after [`GRACE`]. This also holds across a restart, since the Nodes are saved in the
//! state folder.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::node::{ApiNode, MAX_FORMER, NodeView, Nodes};
use crate::net::{Diagnostic, Family, Prefix, Reason, Subject};

/// How long our own Node stays in force after its deletion, and how long a recreated Node keeps
/// data of the old one that it lacks.
pub const GRACE: Duration = Duration::from_secs(30);

/// How long another Node stays in force after its deletion.
pub const OTHERS_GRACE: Duration = Duration::from_secs(5);

/// Which Nodes are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only our own.
    Own,
    All,
}

/// The cache, and a list that is being received.
#[derive(Clone, Debug)]
pub struct Cluster {
    own_name: String,
    scope: Scope,
    nodes: Nodes,
    /// An incomplete list.
    listing: Option<BTreeMap<String, NodeView>>,
    leaving: BTreeMap<String, Leaving>,
    retained: BTreeMap<String, Retained>,
    /// Whether the Nodes come from the state folder.
    remembered: bool,
}

/// A Node that no longer reports all of its addresses.
#[derive(Clone, Debug)]
struct Retained {
    /// When the missing addresses are removed; `None`: only once the Node reports others.
    until: Option<Instant>,
    /// The Node as reported.
    as_is: NodeView,
}

/// A Node that was deleted.
#[derive(Clone, Debug)]
struct Leaving {
    until: Instant,
    /// The recreated Node as reported, while it is incomplete.
    recreated: Option<NodeView>,
}

impl Cluster {
    /// Starts with the Nodes of the previous run, if any.
    pub fn new(own_name: String, known: Nodes) -> Self {
        Self {
            own_name,
            scope: Scope::Own,
            remembered: known != Nodes::default(),
            nodes: known,
            listing: None,
            leaving: BTreeMap::new(),
            retained: BTreeMap::new(),
        }
    }

    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Access to the fields that do not come from Node objects.
    pub fn nodes_mut(&mut self) -> &mut Nodes {
        &mut self.nodes
    }

    /// Sets whether kubelets are prevented from setting our labels and annotations. Returns whether
    /// that changed.
    pub fn set_guarded(&mut self, guarded: bool) -> bool {
        if self.nodes.guarded.replace(guarded) == Some(guarded) {
            return false;
        }
        self.nodes.own.iter_mut().for_each(|own| own.apply_marks(guarded));
        for view in self.nodes.others.values_mut().filter(|v| !v.open_marks.is_empty()) {
            Arc::make_mut(view).apply_marks(guarded);
        }
        true
    }

    fn is_guarded(&self) -> bool {
        self.nodes.guarded == Some(true)
    }

    /// Starts a list.
    pub fn begin_list(&mut self, scope: Scope) {
        self.scope = scope;
        self.listing = Some(BTreeMap::new());
    }

    /// Applies a Node of the list, or one that was added or changed after it.
    pub fn apply(&mut self, now: Instant, node: &ApiNode, in_listing: bool) {
        let view = NodeView::from(node);
        let view = if view.name == self.own_name { view } else { view.without_own_details() };
        match &mut self.listing {
            Some(listing) if in_listing => {
                listing.insert(view.name.clone(), view);
            }
            _ if view.name == self.own_name || self.scope == Scope::All => self.put(now, view),
            _ => {}
        }
    }

    /// Completes the list.
    pub fn end_list(&mut self, now: Instant) {
        let Some(listing) = self.listing.take() else { return };
        if std::mem::take(&mut self.remembered) && self.scope == Scope::All && self.is_foreign(&listing) {
            (self.nodes.own, self.nodes.others) = (None, BTreeMap::new());
        }
        if self.scope == Scope::Own {
            self.nodes.others.clear();
            self.leaving.retain(|name, _| *name == self.own_name);
            self.retained.retain(|name, _| *name == self.own_name);
        }
        let known = self.nodes.all().map(|n| n.name.clone());
        let gone: Vec<_> = known.filter(|name| !listing.contains_key(name)).collect();
        gone.into_iter().for_each(|name| self.leave(now, name));
        listing.into_values().for_each(|view| self.put(now, view));
        self.nodes.complete = self.scope == Scope::All;
    }

    /// Whether the saved Nodes are of another cluster: a cloned machine has the state folder of its
    /// original.
    fn is_foreign(&self, listing: &BTreeMap<String, NodeView>) -> bool {
        let listed = |known: &NodeView| listing.get(&known.name).is_some_and(|n| n.uid == known.uid);
        !self.nodes.others.is_empty() && !listing.is_empty() && !self.nodes.all().any(listed)
    }

    /// Applies the deletion of a Node. One that was recreated meanwhile has another UID and stays.
    pub fn delete(&mut self, now: Instant, node: &ApiNode) {
        let uid = node.metadata.uid.as_deref().unwrap_or_default();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let uid_known = match self.leaving.get(name).and_then(|l| l.recreated.as_ref()) {
            Some(recreated) => recreated.uid == uid,
            None => self.place(name).is_some_and(|n| n.uid == uid),
        };
        if uid_known {
            self.leave(now, name.to_owned());
        }
    }

    /// When [`Cluster::expire`] must be called next.
    pub fn next_expiry(&self) -> Option<Instant> {
        let retained = self.retained.values().filter_map(|l| l.until);
        self.leaving.values().map(|l| l.until).chain(retained).min()
    }

    /// Ends the grace periods of deleted Nodes, and of missing addresses.
    pub fn expire(&mut self, now: Instant) {
        let over = |l: &Retained| l.until.is_some_and(|until| until <= now);
        let due: Vec<_> =
            self.retained.iter().filter(|(_, l)| over(l)).map(|(name, _)| name.clone()).collect();
        for name in due {
            let as_is = self.retained.remove(&name).map(|l| l.as_is);
            self.set(&name, as_is);
        }
        let due: Vec<_> =
            self.leaving.iter().filter(|(_, l)| l.until <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            let recreated = self.leaving.remove(&name).and_then(|l| l.recreated);
            self.set(&name, recreated);
        }
    }

    /// Stores a Node. Data that a recreated Node lacks is taken from the old one for the grace
    /// period.
    fn put(&mut self, now: Instant, mut view: NodeView) {
        view.apply_marks(self.is_guarded());
        let name = view.name.clone();
        let old = self.place(&name);
        if let Some(old) = old {
            view.former = former(old, &view);
        }
        let until = match (self.leaving.get(&name), old) {
            (Some(Leaving { until, recreated: Some(_) }), _) => Some(*until),
            (Some(_), _) => Some(now + GRACE),
            (None, Some(old)) if old.uid != view.uid => Some(now + GRACE),
            _ => None,
        };
        match (until, old) {
            (Some(until), Some(old)) if view.missing().is_some() && old.missing().is_none() => {
                let whole = completed(&view, old);
                self.leaving.insert(name.clone(), Leaving { until, recreated: Some(view) });
                self.set(&name, Some(whole));
            }
            _ => {
                self.leaving.remove(&name);
                let mut view = self.with_addresses(now, view);
                if let Some(old) = self.place(&name) {
                    view.added = added(old, &view);
                }
                // Most events of a large cluster do not change the view.
                if self.place(&name) != Some(&view) {
                    self.set(&name, Some(view));
                }
            }
        }
    }

    /// Adds the former addresses of families that the Node lacks, or its ExternalIPs if it never
    /// had InternalIPs. For our own Node, the plan decides whether its ExternalIPs are on this
    /// host.
    fn with_addresses(&mut self, now: Instant, mut view: NodeView) -> NodeView {
        let old = self.place(&view.name).filter(|old| old.uid == view.uid && !old.by_external);
        let first = old.and_then(|old| old.addresses.first()).map(|a| Family::of(*a));
        let lacking = |family: &Family| view.address(*family).is_none();
        let lacks: Vec<_> = Family::ALL.into_iter().filter(lacking).collect();
        let known = old.into_iter().flat_map(|old| &old.addresses);
        let retained: Vec<_> = known.copied().filter(|a| lacks.contains(&Family::of(*a))).collect();
        if retained.is_empty() {
            self.retained.remove(&view.name);
            if view.addresses.is_empty() && !view.external.is_empty() && view.name != self.own_name {
                view.addresses.clone_from(&view.external);
                view.by_external = true;
            }
            return view;
        }
        let as_is = view.clone();
        let before = self.retained.get(&view.name).and_then(|l| l.until);
        let until = (!view.addresses.is_empty()).then(|| before.unwrap_or(now + GRACE));
        self.retained.insert(view.name.clone(), Retained { until, as_is });
        // Keeps the Node's order of families.
        let at = if retained.first().map(|a| Family::of(*a)) == first { 0 } else { view.addresses.len() };
        view.addresses.splice(at..at, retained.iter().copied());
        view.retained = retained;
        view
    }

    fn leave(&mut self, now: Instant, name: String) {
        let grace = if name == self.own_name { GRACE } else { OTHERS_GRACE };
        let until = self.leaving.get(&name).map_or(now + grace, |l| l.until);
        self.retained.remove(&name);
        self.leaving.insert(name.clone(), Leaving { until, recreated: None });
        if let Some(mut view) = self.place(&name).cloned() {
            view.deleted = true;
            view.retained.clear();
            view.problems = vec![Diagnostic::new(
                Reason::NodeDeleted,
                Subject::host(),
                format!(
                    "the Node was deleted: its pod CIDRs and addresses stay in force for {} s",
                    grace.as_secs()
                ),
                "restart the kubelet, which registers it again, or stop routelet here",
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
        let guarded = self.is_guarded();
        let view = view.map(|mut view| {
            view.apply_marks(guarded);
            view
        });
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

/// Addresses that the Node did not report originally.
fn added(old: &NodeView, new: &NodeView) -> Vec<IpAddr> {
    // Addresses of a Node without InternalIP, or of another Node with this name, do not count.
    if old.uid != new.uid || old.addresses.is_empty() || old.by_external {
        return Vec::new();
    }
    let is_new = |addr: &&IpAddr| !old.addresses.contains(addr) || old.added.contains(addr);
    new.addresses.iter().filter(is_new).copied().collect()
}

/// Former pod CIDRs of the Node with this name, the latest first.
fn former(old: &NodeView, new: &NodeView) -> Vec<Prefix> {
    let gone = old.pod_cidrs.iter().chain(&old.former).filter(|p| !new.pod_cidrs.contains(p));
    let mut former: Vec<Prefix> = Vec::new();
    for prefix in gone {
        if !former.contains(prefix) {
            former.push(*prefix);
        }
    }
    former.truncate(MAX_FORMER);
    former
}

/// A recreated Node, completed with data of the old one.
fn completed(view: &NodeView, old: &NodeView) -> NodeView {
    let mut whole = view.clone();
    if whole.addresses.is_empty() {
        whole.addresses.clone_from(&old.addresses);
    }
    if whole.pod_cidrs.is_empty() {
        whole.pod_cidrs.clone_from(&old.pod_cidrs);
        whole.deleted = true;
    }
    // A cloud controller sets its labels together with the addresses.
    for (key, value) in &old.labels {
        whole.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    whole.zone = whole.zone.or_else(|| old.zone.clone());
    whole.router_id = whole.router_id.or(old.router_id);
    (whole.marks, whole.open_marks) = (whole.marks.or(old.marks), whole.open_marks.or(old.open_marks));
    whole.peering = whole.peering.or_else(|| old.peering.clone());
    whole.problems.push(Diagnostic::new(
        Reason::NodeIncomplete,
        Subject::host(),
        format!(
            "the Node was recreated and is incomplete: what it lacks stays as it was for {} s",
            GRACE.as_secs()
        ),
        "see the kubelet and the cloud controller",
    ));
    whole
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    /// A Node with an address, unless it has no pod CIDR either.
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
        cluster.begin_list(scope);
        nodes.iter().for_each(|n| cluster.apply(now, n, true));
        cluster.end_list(now);
    }

    fn names(cluster: &Cluster) -> Vec<&str> {
        let nodes = cluster.nodes();
        nodes.own.iter().map(|n| n.name.as_str()).chain(nodes.others.keys().map(String::as_str)).collect()
    }

    fn own_cidr(cluster: &Cluster) -> Option<String> {
        cluster.nodes().own.as_ref()?.pod_cidrs.first().map(ToString::to_string)
    }

    fn marked(name: &str, cidr: &str) -> ApiNode {
        let mut node = node(name, "u", cidr);
        let label = ("routelet.io/route-reflector".to_owned(), "true".to_owned());
        node.metadata.labels = Some([label].into());
        node
    }

    #[test]
    fn our_labels_count_while_kubelets_cannot_set_them() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        let all = [node("n1", "a", "10.244.1.0/24"), marked("n2", "10.244.2.0/24")];
        listed(&mut c, t, Scope::All, &all);
        let reflector = |c: &Cluster| c.nodes().others["n2"].reflector;
        assert_eq!(reflector(&c), None, "not known yet");
        assert!(c.set_guarded(true) && !c.set_guarded(true));
        assert_eq!(reflector(&c), Some(true));
        c.apply(t, &marked("n2", "10.244.2.0/24"), false);
        assert_eq!(reflector(&c), Some(true));
        assert!(c.set_guarded(false));
        assert_eq!(reflector(&c), None);
    }

    #[test]
    fn former_pod_cidrs_and_added_addresses_are_remembered() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        listed(&mut c, t, Scope::All, &[node("n1", "a", "10.244.1.0/24"), node("n2", "b", "10.244.2.0/24")]);
        c.apply(t, &node("n2", "c", "10.244.7.0/24"), false);
        let n2 = |c: &Cluster| c.nodes().others["n2"].clone();
        assert_eq!(n2(&c).former, ["10.244.2.0/24".parse().unwrap()]);
        assert!(n2(&c).added.is_empty(), "another Node with this name");
        let with = |addresses: &[&str]| {
            let mut node = node("n2", "c", "10.244.7.0/24");
            let list = addresses.iter().map(|a| format!(r#"{{"type": "InternalIP", "address": "{a}"}}"#));
            let list = format!("[{}]", list.collect::<Vec<_>>().join(","));
            node.status.addresses = serde_json::from_str(&list).unwrap();
            node
        };
        for addresses in [&["10.0.0.1", "10.0.0.9"][..], &["10.0.0.9", "10.0.0.1"], &["10.0.0.9"]] {
            c.apply(t, &with(addresses), false);
            assert_eq!(n2(&c).added, ["10.0.0.9".parse::<IpAddr>().unwrap()], "{addresses:?}");
        }
        c.apply(t, &with(&["10.0.0.1"]), false);
        assert_eq!(n2(&c).added.len(), 1, "the original addresses are unknown by then");
        assert_eq!(n2(&c).former.len(), 1);
    }

    #[test]
    fn known_nodes_stay_until_the_new_list_is_complete() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        let both = [node("n1", "a", "10.244.1.0/24"), node("n2", "b", "10.244.2.0/24")];
        listed(&mut c, t, Scope::All, &both);
        assert_eq!((names(&c), c.nodes().complete), (vec!["n1", "n2"], true));
        c.begin_list(Scope::All);
        c.apply(t, &node("n3", "c", "10.244.3.0/24"), true);
        assert_eq!(names(&c), ["n1", "n2"]);
        c.end_list(t);
        assert_eq!(names(&c), ["n1", "n2", "n3"], "a Node that is not listed has its grace period");
        c.expire(t + GRACE);
        assert_eq!(names(&c), ["n3"]);
    }

    #[test]
    fn changes_apply_at_once_and_deletions_after_a_grace_period() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        listed(&mut c, t, Scope::All, &[node("n1", "a", "10.244.1.0/24")]);
        c.apply(t, &node("n2", "b", "10.244.2.0/24"), false);
        c.apply(t, &node("n1", "a", "10.244.9.0/24"), false);
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.9.0/24"));
        c.delete(t, &node("n2", "b", "10.244.2.0/24"));
        c.delete(t, &node("n1", "a", "10.244.9.0/24"));
        assert_eq!((names(&c), c.next_expiry()), (vec!["n1", "n2"], Some(t + OTHERS_GRACE)));
        c.expire(t + OTHERS_GRACE);
        assert_eq!(names(&c), ["n1"], "other Nodes have the shorter period");
        let own = c.nodes().own.as_ref().unwrap();
        assert!(own.deleted && own.problems[0].contains("deleted"));
        c.expire(t + GRACE);
        assert!(names(&c).is_empty() && c.next_expiry().is_none());
    }

    #[test]
    fn a_recreated_node_with_the_same_pod_cidr_changes_nothing_meanwhile() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        listed(&mut c, t, Scope::Own, &[node("n1", "old", "10.244.1.0/24")]);
        c.delete(t, &node("n1", "old", ""));
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.1.0/24"));
        c.apply(t, &node("n1", "new", ""), false);
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.1.0/24"), "bare, and retained what it lacks");
        c.apply(t, &node("n1", "new", "10.244.1.0/24"), false);
        let own = c.nodes().own.clone().unwrap();
        assert_eq!(
            (own.uid.as_str(), own.deleted, own.problems.len(), c.next_expiry()),
            ("new", false, 0, None)
        );
        c.expire(t + GRACE);
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.1.0/24"));
    }

    #[test]
    fn a_recreated_node_keeps_its_labels_until_it_is_complete() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        c.set_guarded(true);
        let mut old = node("n1", "old", "10.244.1.0/24");
        old.metadata.labels = Some([("rack".to_owned(), "a".to_owned())].into());
        old.metadata.annotations = Some([("routelet.io/as".to_owned(), "65007".to_owned())].into());
        listed(&mut c, t, Scope::Own, &[old]);
        c.apply(t, &node("n1", "new", ""), false);
        let own = c.nodes().own.clone().unwrap();
        assert_eq!((own.labels["rack"].as_str(), own.asn), ("a", Some(65007)));
        c.apply(t, &node("n1", "new", "10.244.1.0/24"), false);
        let own = c.nodes().own.clone().unwrap();
        assert_eq!((own.labels.len(), own.asn), (0, None));
    }

    #[test]
    fn a_recreated_node_that_stays_incomplete_loses_its_former_data() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        listed(&mut c, t, Scope::Own, &[node("n1", "old", "10.244.1.0/24")]);
        // The deletion itself was missed.
        listed(&mut c, t, Scope::Own, &[node("n1", "new", "")]);
        assert_eq!(own_cidr(&c).as_deref(), Some("10.244.1.0/24"));
        c.expire(t + GRACE);
        assert_eq!((names(&c), own_cidr(&c)), (vec!["n1"], None));
    }

    #[test]
    fn a_late_deletion_does_not_affect_the_recreated_node() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        let recreated = [node("n1", "new", "10.244.7.0/24"), node("n2", "new", "10.244.8.0/24")];
        listed(&mut c, t, Scope::All, &recreated);
        c.delete(t, &node("n1", "old", "10.244.1.0/24"));
        c.delete(t, &node("n2", "old", "10.244.2.0/24"));
        assert_eq!((names(&c), c.next_expiry()), (vec!["n1", "n2"], None));
    }

    /// `n2` with UID `b` and these addresses, each `TYPE=ADDRESS`.
    fn with(addresses: &[&str]) -> ApiNode {
        let entry = |a: &&str| {
            let (kind, address) = a.split_once('=').unwrap();
            format!(r#"{{"type": "{kind}", "address": "{address}"}}"#)
        };
        let list = addresses.iter().map(entry).collect::<Vec<_>>().join(",");
        serde_json::from_str(&format!(
            r#"{{"metadata": {{"name": "n2", "uid": "b"}}, "spec": {{"podCIDRs": ["10.244.2.0/24"]}},
                "status": {{"addresses": [{list}]}}}}"#
        ))
        .unwrap()
    }

    fn of_n2(c: &Cluster) -> Vec<String> {
        let nodes = c.nodes();
        let view = nodes.others.get("n2").map(|v| &**v).or(nodes.own.as_ref());
        view.map(|v| v.addresses.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    const BOTH: [&str; 2] = ["InternalIP=10.0.0.2", "InternalIP=fd00::2"];

    #[test]
    fn cloud_provider_openstack_280_a_node_that_reports_no_address_keeps_the_last_ones() {
        for own in ["n1", "n2"] {
            let (mut c, t) = (Cluster::new(own.into(), Nodes::default()), Instant::now());
            listed(&mut c, t, Scope::All, &[with(&BOTH)]);
            // A cloud controller may leave the ExternalIP, which does not count as another address.
            for lack in [&["Hostname=n2"][..], &["Hostname=n2", "ExternalIP=192.0.2.2"]] {
                c.apply(t, &with(lack), false);
                assert_eq!((of_n2(&c), c.next_expiry()), (vec!["10.0.0.2".into(), "fd00::2".into()], None));
                assert_eq!(c.nodes().all().next().unwrap().retained.len(), 2, "it is named");
            }
            c.expire(t + GRACE * 99);
            listed(&mut c, t + GRACE * 99, Scope::All, &[with(&["Hostname=n2"])]);
            assert_eq!(of_n2(&c).len(), 2, "for as long as it takes, and over a listing");

            // routelet restarts meanwhile.
            let text = serde_json::to_string(c.nodes()).unwrap();
            let mut c = Cluster::new(own.into(), serde_json::from_str(&text).unwrap());
            listed(&mut c, t, Scope::All, &[with(&["Hostname=n2"])]);
            assert_eq!((of_n2(&c).len(), c.nodes().all().next().unwrap().retained.len()), (2, 2));

            c.apply(t, &with(&["InternalIP=10.0.0.9"]), false);
            c.expire(t + GRACE);
            assert_eq!(of_n2(&c), ["10.0.0.9"], "others replace them");
            c.apply(t, &with(&[]), false);
            assert_eq!(of_n2(&c), ["10.0.0.9"]);
            c.delete(t, &with(&[]));
            c.expire(t + GRACE * 2);
            assert_eq!((of_n2(&c).len(), c.next_expiry()), (0, None), "deleted is deleted");
        }
    }

    #[test]
    fn one_missing_family_stays_for_the_grace_period() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        listed(&mut c, t, Scope::All, &[with(&BOTH)]);
        c.apply(t, &with(&BOTH[1..]), false);
        assert_eq!(
            (of_n2(&c), c.next_expiry()),
            (vec!["10.0.0.2".into(), "fd00::2".into()], Some(t + GRACE))
        );
        // Another change of the Node does not restart the period; the return of the family ends it.
        c.apply(t + GRACE / 2, &with(&[BOTH[1], "Hostname=n2"]), false);
        assert_eq!(c.next_expiry(), Some(t + GRACE));
        c.apply(t + GRACE / 2, &with(&BOTH), false);
        assert_eq!((of_n2(&c).len(), c.next_expiry()), (2, None));
        c.apply(t + GRACE, &with(&BOTH[..1]), false);
        c.expire(t + GRACE * 2);
        assert_eq!((of_n2(&c), c.next_expiry()), (vec!["10.0.0.2".into()], None));
        assert!(c.nodes().others["n2"].retained.is_empty());
    }

    #[test]
    fn external_addresses_are_used_for_another_node_that_never_had_internal_ones() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        listed(&mut c, t, Scope::All, &[with(&["ExternalIP=192.0.2.2"])]);
        assert_eq!((of_n2(&c), c.nodes().others["n2"].by_external), (vec!["192.0.2.2".into()], true));
        c.apply(t, &with(&[]), false);
        assert_eq!(of_n2(&c).len(), 0, "nothing that stood in is retained");
        c.apply(t, &with(&["ExternalIP=192.0.2.2", BOTH[0]]), false);
        assert_eq!((of_n2(&c), c.nodes().others["n2"].by_external), (vec!["10.0.0.2".into()], false));

        let mut own = Cluster::new("n2".into(), Nodes::default());
        listed(&mut own, t, Scope::All, &[with(&["ExternalIP=192.0.2.2"])]);
        assert_eq!(of_n2(&own).len(), 0, "the own one's only where the host has them");
    }

    #[test]
    fn cloned_state_of_another_cluster_is_dropped_at_the_first_list() {
        let t = Instant::now();
        let known = |uids: [&str; 2]| {
            let mut c = Cluster::new("n1".into(), Nodes::default());
            let nodes = [node("n1", uids[0], "10.1.1.0/24"), node("n2", uids[1], "10.1.2.0/24")];
            listed(&mut c, t, Scope::All, &nodes);
            c.nodes().clone()
        };
        let mut c = Cluster::new("n1".into(), known(["x", "y"]));
        listed(&mut c, t, Scope::All, &[node("n1", "a", ""), node("n9", "b", "10.244.9.0/24")]);
        assert_eq!(
            (names(&c), own_cidr(&c)),
            (vec!["n1", "n9"], None),
            "nothing is retained by another cluster"
        );

        let mut c = Cluster::new("n1".into(), known(["x", "b"]));
        listed(&mut c, t, Scope::All, &[node("n1", "a", ""), node("n2", "b", "10.1.2.0/24")]);
        assert_eq!(own_cidr(&c).as_deref(), Some("10.1.1.0/24"), "the own Node was made recreated");
    }

    #[test]
    fn watching_only_the_own_node_keeps_no_others() {
        let (mut c, t) = (Cluster::new("n1".into(), Nodes::default()), Instant::now());
        let both = [node("n1", "a", "10.244.1.0/24"), node("n2", "b", "10.244.2.0/24")];
        listed(&mut c, t, Scope::All, &both);
        listed(&mut c, t, Scope::Own, &both[..1]);
        assert_eq!((names(&c), c.nodes().complete), (vec!["n1"], false));
    }
}
