//! What all formats are converted into: keys of routelet's file, in its order.

use serde_json::{Map, Value};

/// Keys with their values, as in a table of the file.
pub(super) type Keys = Map<String, Value>;

/// A configuration of routelet.
#[derive(Debug, Default)]
pub(super) struct Router {
    pub(super) bgp: Keys,
    pub(super) groups: Vec<(String, Keys)>,
    pub(super) neighbors: Vec<Keys>,
    pub(super) ranges: Vec<Keys>,
    pub(super) advertise: Keys,
    pub(super) policies: Vec<Policy>,
    pub(super) fib: Keys,
    /// What the reader of the file should know.
    pub(super) remarks: Vec<String>,
}

/// `[[policy.NAME]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) remark: Option<String>,
    pub(super) statements: Vec<Keys>,
}

/// Sets a key.
pub(super) fn set(keys: &mut Keys, key: &str, value: impl Into<Value>) {
    keys.insert(key.to_owned(), value.into());
}

/// Appends texts to a list, each once.
pub(super) fn append<T: Into<String>>(keys: &mut Keys, key: &str, texts: impl IntoIterator<Item = T>) {
    let list = keys.entry(key.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
    let Some(list) = list.as_array_mut() else { return };
    for text in texts {
        let text = Value::String(text.into());
        if !list.contains(&text) {
            list.push(text);
        }
    }
}
