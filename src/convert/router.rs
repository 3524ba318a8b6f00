//! The result of all formats: keys of routelet's file, in its order.

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
    /// Further tables, each with its heading.
    pub(super) sections: Vec<(&'static str, Keys)>,
    /// Remarks for the reader of the file.
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

/// Whether own routes that these keys change are no longer advertised to external neighbors: other
/// daemons evaluate these communities before the neighbor's filter, which may add them.
pub(super) fn hides_own_routes(keys: &Keys) -> bool {
    // NO_EXPORT, NO_ADVERTISE, NO_EXPORT_SUBCONFED (RFC 1997).
    const HIDING: [&str; 3] = ["65535:65281", "65535:65282", "65535:65283"];
    let added = keys.get("add-communities").and_then(Value::as_array);
    added.is_some_and(|list| list.iter().filter_map(Value::as_str).any(|c| HIDING.contains(&c)))
}

/// Removes all keys that change a route.
pub(super) fn without_changes(keys: &mut Keys) {
    let changes = ["set-", "add-", "remove-", "prepend-"];
    keys.retain(|key, _| !changes.iter().any(|begin| key.starts_with(begin)));
}

/// For the ledger.
pub(super) const HIDDEN: &str = "such a route of the host itself is not advertised to external neighbors: it is rejected, for internal ones, too";
