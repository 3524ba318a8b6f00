//! Parses YAML and JSON streams into trees whose leaves have their line, and whether they were
//! read.
//!
//! The caller bounds the octets, and [`MAX_DEPTH`] and [`MAX_NODES`] bound the depth and the number
//! of nodes. Aliases and merge keys, which `kubectl get` never prints, are refused: they make small
//! inputs large.

use std::{cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Options, Spanned, budget, options};

use crate::convert::ledger::LineId;

/// Maximum nesting of maps and lists.
const MAX_DEPTH: usize = 40;
/// Maximum number of scalars, maps and lists of one input.
const MAX_NODES: usize = 200_000;

/// A part of a document.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) value: Value,
    /// Its line in the ledger, if it is a leaf.
    pub(super) id: Cell<Option<LineId>>,
    /// Whether the converter has read it.
    pub(super) taken: Cell<bool>,
}

#[derive(Debug, Default)]
pub(super) enum Value {
    #[default]
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// The text is not YAML, or is too large: the error on one line, with its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(String);

/// All documents of a text; empty ones are left out.
///
/// # Errors
///
/// [`Unreadable`].
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Unreadable> {
    let read: Result<Vec<Node>, _> = serde_saphyr::from_multiple_with_options(text, limits());
    read.map_err(|error| Unreadable(error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ")))
}

fn limits() -> Options {
    options! {
        budget: budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_aliases: 0,
            max_merge_keys: 0,
        },
        with_snippet: false,
        emit_comments: false,
    }
}

impl Node {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        let found = entries.iter().find(|(k, _)| k == key).map(|(_, node)| node);
        found.filter(|node| !matches!(node.value, Value::Null))
    }

    /// The value at a path of keys.
    pub(super) fn at(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The scalar at a key; it counts as read.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.scalar()
    }

    /// This scalar; it counts as read.
    pub(super) fn scalar(&self) -> Option<&str> {
        let Value::Scalar(text) = &self.value else { return None };
        self.taken.set(true);
        Some(text)
    }

    /// Whether the flag at a key is set; it counts as read.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.text(key) == Some("true")
    }

    /// The members of the list at a key.
    pub(super) fn list(&self, key: &str) -> &[Self] {
        match self.get(key).map(|node| &node.value) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// The scalars of the list at a key; they count as read.
    pub(super) fn texts(&self, key: &str) -> Vec<&str> {
        if let Some(node) = self.get(key).filter(|n| matches!(n.value, Value::List(_))) {
            node.taken.set(true);
        }
        self.list(key).iter().filter_map(Self::scalar).collect()
    }

    /// The entries of the map at a key whose values are scalars; they count as read.
    pub(super) fn pairs(&self, key: &str) -> Vec<(&str, &str)> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Map(entries)) => {
                entries.iter().filter_map(|(k, node)| Some((k.as_str(), node.scalar()?))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it is one line in the ledger: it has no parts, or is a list of scalars.
    pub(super) fn is_leaf(&self) -> bool {
        match &self.value {
            Value::Null | Value::Scalar(_) => true,
            Value::List(list) => list.iter().all(|n| matches!(n.value, Value::Scalar(_) | Value::Null)),
            Value::Map(entries) => entries.is_empty(),
        }
    }

    /// The leaves below, each with its path.
    pub(super) fn leaves<'a>(&'a self, path: String, found: &mut Vec<(String, &'a Self)>) {
        if self.is_leaf() {
            found.push((path, self));
            return;
        }
        match &self.value {
            Value::Map(entries) => {
                for (key, node) in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    node.leaves(format!("{path}{dot}{key}"), found);
                }
            }
            Value::List(list) => {
                list.iter().enumerate().for_each(|(n, node)| node.leaves(format!("{path}[{n}]"), found));
            }
            Value::Null | Value::Scalar(_) => {}
        }
    }

    /// Whether a leaf was read: itself, or a scalar in it.
    pub(super) fn is_taken(&self) -> bool {
        let inner = match &self.value {
            Value::List(list) => list.iter().any(|n| n.taken.get()),
            _ => false,
        };
        inner || self.taken.get()
    }

    /// A leaf as text.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Scalar(text) => text.clone(),
            Value::List(list) => {
                let parts: Vec<_> = list.iter().map(Self::shown).collect();
                format!("[{}]", parts.join(", "))
            }
            Value::Map(_) => "{}".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        let line = usize::try_from(referenced.line()).unwrap_or_default();
        Ok(Self { line, value, ..Self::default() })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = access.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            entries.push((key, access.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_know_their_lines_in_yaml_and_json() {
        let yaml = "a:\n  b: 1\n  c: [x, z]\n  d: {}\n---\ne:\n- f: yes\n  g: \"010\"\n- h: null\n";
        let json = "{\n \"a\": {\n  \"b\": 1,\n  \"c\": [\"x\", \"z\"]\n }\n}";
        let leaves = |text: &str| {
            let mut lines = Vec::new();
            for document in documents(text).unwrap() {
                let mut found = Vec::new();
                document.leaves(String::new(), &mut found);
                lines.extend(found.iter().map(|(path, n)| format!("{} {path}={}", n.line, n.shown())));
            }
            lines
        };
        assert_eq!(
            leaves(yaml),
            ["2 a.b=1", "3 a.c=[x, z]", "4 a.d={}", "7 e[0].f=true", "8 e[0].g=010", "9 e[1].h=null"]
        );
        assert_eq!(leaves(json), ["3 a.b=1", "4 a.c=[x, z]"]);
    }

    #[test]
    fn what_is_too_deep_or_too_large_or_grows_is_an_error_of_one_line() {
        let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
        let block: String = (0..60).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        let large = format!("[{}]", "1,".repeat(MAX_NODES));
        let cases = [&deep, &block, &large, "a: &x [1]\nb: *x\n", "a: 1\na: 2\n", "a: [1"];
        for text in cases {
            let error = documents(text).expect_err(&text.chars().take(40).collect::<String>()).to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
        assert_eq!(documents("---\n---\n").map(|d| d.len()), Ok(0));
    }
}
