//! Objects of a cluster, as `kubectl get -o yaml` prints them, and the record of which of their
//! fields were read.
//!
//! Each field of an object is a line of the ledger. A field that no converter reads is listed as
//! not carried over, so that none is dropped silently.

use std::collections::BTreeMap;

use super::yaml::{Node, Value, documents};
use crate::convert::{
    ConvertError, Input,
    ledger::{Ledger, Outcome},
};

/// Used as the group of the ConfigMap of MetalLB before 0.13.
pub(super) const LEGACY_GROUP: &str = "MetalLB before 0.13";

/// Maximum number of objects in the input.
const MAX_OBJECTS: usize = 5000;

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    /// The part of `apiVersion` before the slash.
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) root: Node,
}

/// Records fields.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) ledger: Ledger,
}

/// Reads all files. `is_known`: whether each field of an object is recorded; for other objects one
/// line is recorded, without their content.
pub(super) fn read(
    inputs: &[Input],
    is_known: impl Fn(&Object) -> bool,
) -> Result<(Vec<Object>, Book), ConvertError> {
    let (mut objects, mut book) = (Vec::new(), Book::default());
    for input in inputs {
        let refused = |why: String| ConvertError::NothingToConvert(format!("{}: {why}", input.name));
        let documents = documents(&input.text).map_err(|e| refused(e.to_string()))?;
        for root in flattened(documents) {
            let object = Object::new(root).unwrapped();
            if is_known(&object) {
                book.record(&input.name, &object);
                objects.push(object);
            } else {
                book.unknown(&input.name, &object);
            }
            if objects.len() > MAX_OBJECTS {
                return Err(refused(format!("more than {MAX_OBJECTS} objects; convert them in parts")));
            }
        }
    }
    if objects.is_empty() {
        return Err(ConvertError::NothingToConvert(
            "there is no object of this format in the input; print them with `kubectl get -o yaml`".into(),
        ));
    }
    Ok((objects, book))
}

/// All objects of the documents.
fn flattened(documents: Vec<Node>) -> Vec<Node> {
    let mut found = Vec::new();
    documents.into_iter().for_each(|document| flatten(document, &mut found));
    found
}

/// Replaces a List by its members.
pub(super) fn flatten(document: Node, found: &mut Vec<Node>) {
    let is_list = document.text("kind").is_some_and(|kind| kind.ends_with("List"))
        && document.get("items").is_some_and(|items| matches!(items.value, Value::List(_)));
    match document.value {
        Value::Map(entries) if is_list => {
            for (_, items) in entries.into_iter().filter(|(key, _)| key == "items") {
                if let Value::List(list) = items.value {
                    list.into_iter().for_each(|item| flatten(item, found));
                }
            }
        }
        value => found.push(Node { value, line: document.line, ..Node::default() }),
    }
}

impl Object {
    fn new(root: Node) -> Self {
        let version = root.text("apiVersion").unwrap_or_default();
        let group = version.split_once('/').map(|(group, _)| group).unwrap_or_default().to_owned();
        let kind = root.text("kind").unwrap_or_default().to_owned();
        let metadata = root.get("metadata");
        let name = metadata.and_then(|m| m.text("name")).unwrap_or_default().to_owned();
        let labels = metadata.map(|m| m.pairs("labels")).unwrap_or_default();
        let labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Self { group, kind, name, labels, root }
    }

    /// The document in the ConfigMap of MetalLB before 0.13, if it is one.
    fn unwrapped(self) -> Self {
        let text = self.root.at(&["data", "config"]).filter(|_| self.kind == "ConfigMap");
        let Some((text, line)) = text.and_then(|node| Some((node.scalar()?, node.line))) else { return self };
        let inner = documents(text).ok().and_then(|list| list.into_iter().next());
        let is_it = |node: &Node| node.get("address-pools").is_some() || node.get("peers").is_some();
        match inner.filter(is_it) {
            Some(mut root) => {
                root.move_down(line);
                Self { group: LEGACY_GROUP.to_owned(), root, ..self }
            }
            None => self,
        }
    }

    pub(super) fn spec(&self) -> &Node {
        self.root.get("spec").unwrap_or(&self.root)
    }
}

impl Book {
    /// Records each field except for those that the API server sets.
    fn record(&mut self, file: &str, object: &Object) {
        let mut found = Vec::new();
        let Value::Map(entries) = &object.root.value else { return };
        for (key, node) in entries {
            match key.as_str() {
                "apiVersion" | "kind" | "metadata" | "status" => {}
                _ => node.leaves(key.clone(), &mut found),
            }
        }
        let title = format!("{} {}", object.kind, object.name);
        if found.is_empty() {
            let id = self.ledger.add(file, object.root.line, &title);
            self.ledger.not_needed(id, "it has no fields");
        }
        for (path, leaf) in found {
            let last = path.rsplit('.').next().unwrap_or_default();
            let shown = if last.to_ascii_lowercase().contains("password") && leaf.is_secret() {
                "***".to_owned()
            } else {
                leaf.shown()
            };
            leaf.id.set(Some(self.ledger.add(file, leaf.line, &format!("{title}: {path}: {shown}"))));
        }
        self.annotations(file, object, &title);
    }

    /// Records annotations, which may change the meaning of an object; those of kubectl and Helm do
    /// not.
    fn annotations(&mut self, file: &str, object: &Object, title: &str) {
        let Some(node) = object.root.at(&["metadata", "annotations"]) else { return };
        let Value::Map(entries) = &node.value else { return };
        for (key, value) in entries {
            if !["kubectl.kubernetes.io/", "meta.helm.sh/"].iter().any(|begin| key.starts_with(begin)) {
                let id = self.ledger.add(file, value.line, &format!("{title}: metadata.annotations.{key}"));
                self.ledger.not_carried(id, "annotations have no counterpart");
            }
        }
    }

    fn unknown(&mut self, file: &str, object: &Object) {
        let kind = if object.kind.is_empty() { "something without kind" } else { &object.kind };
        let id = self.ledger.add(file, object.root.line, &format!("{kind} {}", object.name));
        self.ledger.not_carried(id, other_kind(kind));
    }

    /// Notes an outcome for all fields below, which count as read.
    pub(super) fn note(&mut self, node: &Node, outcome: Outcome, why: &str) {
        let mut found = Vec::new();
        node.leaves(String::new(), &mut found);
        for (_, leaf) in found {
            leaf.taken.set(true);
            if let Some(id) = leaf.id.get() {
                self.ledger.note(id, outcome, why);
            }
        }
    }

    pub(super) fn refuse(&mut self, node: &Node, why: &str) {
        self.note(node, Outcome::NotCarried, why);
    }

    /// A key whose value is not carried over, if it is there.
    pub(super) fn refuse_key(&mut self, node: &Node, key: &str, why: &str) {
        if let Some(found) = node.get(key) {
            self.refuse(found, why);
        }
    }

    pub(super) fn unneeded_key(&mut self, node: &Node, key: &str, why: &str) {
        if let Some(found) = node.get(key) {
            self.note(found, Outcome::NotNeeded, why);
        }
    }

    pub(super) fn differs_key(&mut self, node: &Node, key: &str, why: &str) {
        if let Some(found) = node.get(key) {
            self.note(found, Outcome::Differs, why);
        }
    }

    /// Lists the fields that were not read.
    pub(super) fn close(&mut self, objects: &[Object]) {
        for object in objects {
            let mut found = Vec::new();
            object.root.leaves(String::new(), &mut found);
            for (_, leaf) in found {
                let Some(id) = leaf.id.get().filter(|_| !leaf.is_taken()) else { continue };
                match leaf.value {
                    Value::Null => self.ledger.not_needed(id, "not set"),
                    _ => self.ledger.not_carried(id, "not known to routelet"),
                }
            }
        }
    }
}

impl Node {
    /// Moves all lines down.
    fn move_down(&mut self, lines: usize) {
        self.line += lines;
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.move_down(lines)),
            Value::List(list) => list.iter_mut().for_each(|node| node.move_down(lines)),
            Value::Null | Value::Scalar(_) => {}
        }
    }

    /// Whether the value is a secret itself, rather than the name of a Secret.
    fn is_secret(&self) -> bool {
        matches!(self.value, Value::Scalar(_))
    }
}

fn other_kind(kind: &str) -> &'static str {
    match kind {
        "Secret" => {
            "Secrets are not read: copy those that BGPPeer objects name into the namespace of routelet"
        }
        "Node" => {
            "annotate Nodes with routelet.io/as and routelet.io/router-id, and label reflectors with \
             routelet.io/route-reflector"
        }
        _ => "objects of this kind are not converted",
    }
}
