//! The result for the formats of Kubernetes: the file of the ConfigMap, BGPPeer and BGPPolicy
//! objects.

use crate::convert::kube::unfit::Unfit;
use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value};

use super::{
    object::Book,
    selector::{Labels, are_disjoint},
    yaml::{self, Node},
};
use crate::{
    config::{self, Config, ParseContext, keys::camel, objects},
    convert::{
        ConvertError,
        ledger::Line,
        router::{Keys, Router, set},
        write,
    },
};

/// Maximum number of BGPPeer objects in one result.
pub(super) const MAX_PEERS: usize = 1000;
/// Maximum number of statements of one BGPPolicy, as in its definition.
pub(super) const MAX_STATEMENTS: usize = 200;
/// The policy that accepts nothing.
const NOTHING: &str = "reject-all";
/// Maximum characters of the name of an object.
pub(super) const MAX_NAME: usize = 200;

/// A configuration of a cluster.
#[derive(Debug)]
pub(in crate::convert) struct Cluster {
    pub(super) router: Router,
    peers: Vec<Peer>,
    policies: Vec<(String, Vec<Keys>)>,
    /// A configuration with these policies, to check neighbors.
    config: Config,
}

/// A BGPPeer.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    pub(super) name: String,
    /// Labels of the Nodes that have the peer: one object for each set.
    pub(super) nodes: Vec<Labels>,
    /// Keys of `[[bgp.neighbor]]`.
    pub(super) keys: Keys,
    /// Name and key of a Secret.
    pub(super) secret: Option<(String, String)>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let config = Config::for_kubernetes();
        Self { router: Router::default(), peers: Vec::new(), policies: Vec::new(), config }
    }

    /// Adds a policy. Returns its name, or that of an equal policy if there is one.
    ///
    /// # Errors
    ///
    /// Why routelet would not accept it.
    pub(super) fn policy(&mut self, name: &str, statements: Vec<Keys>) -> Result<String, Unfit> {
        if let Some((known, _)) = self.policies.iter().find(|(_, of_it)| *of_it == statements) {
            return Ok(known.clone());
        }
        let name = if statements == [decide("reject")] { NOTHING } else { name };
        if statements.len() > MAX_STATEMENTS {
            return Err(Unfit::ManyStatements);
        }
        let name = unused(&object_name(name), |name| self.policies.iter().any(|(known, _)| known == name));
        let policy = objects::policy(&name, &policy_spec(&statements))?;
        self.config.policies.insert(name.clone(), policy);
        self.policies.push((name.clone(), statements));
        Ok(name)
    }

    /// A policy that accepts nothing.
    pub(super) fn nothing(&mut self) -> String {
        self.policy(NOTHING, vec![decide("reject")]).unwrap_or_else(|_| NOTHING.to_owned())
    }

    /// Adds a BGPPeer with the fields of `node`, or lists why it is left out.
    pub(super) fn peer(&mut self, peer: Peer, node: &Node, book: &mut Book) {
        if let Err(why) = self.add(peer) {
            book.refuse(node, &format!("the neighbor is left out: {why}"));
        }
    }

    fn add(&mut self, peer: Peer) -> Result<(), Unfit> {
        objects::neighbor(&camel_keys(&peer.keys), &self.config)?;
        let place = |p: &Peer| (p.keys.get("address").cloned(), p.keys.get("interface").cloned());
        let same = self.peers.iter().filter(|p| place(p) == place(&peer));
        if let Some(other) = same
            .flat_map(|p| p.nodes.iter().map(move |n| (p, n)))
            .find_map(|(p, theirs)| peer.nodes.iter().any(|ours| !are_disjoint(ours, theirs)).then_some(p))
        {
            return Err(Unfit::SameAddress(other.name.clone()));
        }
        let count: usize = self.peers.iter().map(|p| p.nodes.len()).sum();
        if count + peer.nodes.len() > MAX_PEERS {
            return Err(Unfit::ManyPeers);
        }
        for (n, labels) in peer.nodes.iter().enumerate() {
            let wanted = match peer.nodes.len() {
                1 => object_name(&peer.name),
                _ => object_name(&format!("{}-{}", peer.name, n + 1)),
            };
            let name = unused(&wanted, |name| self.peers.iter().any(|p| p.name == name));
            self.peers.push(Peer { name, nodes: vec![labels.clone()], ..peer.clone() });
        }
        Ok(())
    }

    /// The stream: the ConfigMap and the objects, with the fields that are not carried over as
    /// comments at its end.
    ///
    /// # Errors
    ///
    /// If `routelet check` or the API server would not accept it.
    pub(in crate::convert) fn write(&self, lines: &[Line]) -> Result<String, ConvertError> {
        let file = write::tables(&self.router);
        let mut text = write::heading(lines);
        write::remarks(&mut text, &self.router);
        text.push_str(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: routelet\n  namespace: kube-system\n",
        );
        text.push_str("data:\n  routelet.toml: |\n");
        for line in file.trim().lines() {
            let indent = if line.is_empty() { "" } else { "    " };
            let _ = writeln!(text, "{indent}{line}");
        }
        self.write_objects(&mut text);
        write::listed(&mut text, lines);
        self.check(&file, &text)?;
        Ok(text)
    }

    fn write_objects(&self, text: &mut String) {
        for (name, statements) in &self.policies {
            object(text, "BGPPolicy", name);
            text.push_str("  statements:\n");
            for statement in statements {
                for (n, (key, value)) in camel_keys(statement).iter().enumerate() {
                    let _ = writeln!(text, "  {} {key}: {value}", if n == 0 { "-" } else { " " });
                }
            }
        }
        for peer in &self.peers {
            object(text, "BGPPeer", &peer.name);
            for (key, value) in peer.spec() {
                let _ = writeln!(text, "  {key}: {value}");
            }
        }
    }

    /// Checks the result as `routelet check` and the daemon do, and that the stream is YAML with
    /// all objects.
    fn check(&self, file: &str, text: &str) -> Result<(), ConvertError> {
        let context = ParseContext { kubernetes: true, read_password: &|_| Ok("not read".into()) };
        let (mut config, _) = config::parse(file, &context).map_err(|problems| {
            let list: Vec<_> = problems.iter().map(|p| format!("{}: {}", p.key, p.what)).collect();
            ConvertError::Invalid(list.join("; "))
        })?;
        let invalid = |name: &str, e: objects::ObjectError| ConvertError::Invalid(format!("{name}: {e}"));
        for (name, statements) in &self.policies {
            let policy = objects::policy(name, &policy_spec(statements)).map_err(|e| invalid(name, e))?;
            config.policies.insert(name.clone(), policy);
        }
        for peer in &self.peers {
            objects::neighbor(&camel_keys(&peer.keys), &config).map_err(|e| invalid(&peer.name, e))?;
        }
        let documents = yaml::documents(text).map_err(|e| ConvertError::Invalid(e.to_string()))?;
        let of_file = documents.first().and_then(|d| d.at(&["data"])).and_then(|d| d.text("routelet.toml"));
        let is_whole = documents.len() == 1 + self.policies.len() + self.peers.len();
        match is_whole && of_file.map(str::trim_end) == Some(file.trim()) {
            true => Ok(()),
            false => Err(ConvertError::Invalid("the objects cannot be written as YAML".into())),
        }
    }
}

impl Peer {
    fn spec(&self) -> Map<String, Value> {
        let mut spec = Map::new();
        if let Some(labels) = self.nodes.first().filter(|labels| !labels.is_empty()) {
            spec.insert("nodeSelector".into(), labels_value(labels));
        }
        spec.append(&mut camel_keys(&self.keys));
        if let Some((name, key)) = &self.secret {
            spec.insert("passwordSecretRef".into(), serde_json::json!({ "name": name, "key": key }));
        }
        spec
    }
}

fn labels_value(labels: &BTreeMap<String, String>) -> Value {
    labels.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect::<Map<_, _>>().into()
}

fn object(text: &mut String, kind: &str, name: &str) {
    let _ = write!(
        text,
        "---\napiVersion: routelet.io/v1alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n"
    );
}

fn policy_spec(statements: &[Keys]) -> Map<String, Value> {
    let list: Vec<Value> = statements.iter().map(|s| camel_keys(s).into()).collect();
    Map::from_iter([("statements".to_owned(), list.into())])
}

/// The keys in camelCase, as in objects.
fn camel_keys(keys: &Keys) -> Map<String, Value> {
    let inner = |value: &Value| match value {
        Value::Object(table) => camel_keys(table).into(),
        other => other.clone(),
    };
    keys.iter().map(|(key, value)| (camel(key), inner(value))).collect()
}

/// A name that the API server accepts.
pub(super) fn object_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let lower = name.to_ascii_lowercase();
    let name: String = lower.chars().map(|c| if fits(c) { c } else { '-' }).take(MAX_NAME).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

fn unused(name: &str, is_used: impl Fn(&str) -> bool) -> String {
    let others = (2_usize..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.to_owned()).chain(others).find(|n| !is_used(n)).unwrap_or_default()
}

/// A statement that ends a policy.
pub(super) fn decide(action: &str) -> Keys {
    let mut keys = Keys::new();
    set(&mut keys, "action", action);
    keys
}
