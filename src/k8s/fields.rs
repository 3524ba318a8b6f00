//! The fields of BGPPeer and BGPPolicy: the keys of the file in camelCase, as schemas that the API
//! server validates.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::config::keys::{self, Key, Note, Shape, camel};

/// Statements of one policy.
const MAX_STATEMENTS: u32 = 200;

/// The keys of `[[bgp.neighbor]]`.
pub(super) fn of_peers(_: &mut SchemaGenerator) -> Schema {
    schema(object(&keys::of_neighbors()))
}

/// A list of statements with the keys of `[[policy.NAME]]`.
pub(super) fn of_statements(_: &mut SchemaGenerator) -> Schema {
    schema(json!({ "type": "array", "maxItems": MAX_STATEMENTS, "items": object(&keys::of_statements()) }))
}

fn schema(value: Value) -> Schema {
    Schema::try_from(value).expect("an object is a schema")
}

fn object(keys: &[Key]) -> Value {
    let fields = keys.iter().filter(|key| !key.has(Note::FileOnly));
    let properties: Map<_, _> = fields.map(|key| (camel(key.name), field(key))).collect();
    json!({ "type": "object", "properties": properties })
}

/// A field is null if it is not set. The default is only in the description: the API server would
/// write a schema default into objects, where it would override the group.
fn field(key: &Key) -> Value {
    let mut field = values(&key.shape);
    if let Some(of) = field.get_mut("enum").and_then(Value::as_array_mut) {
        of.push(Value::Null);
    }
    field["nullable"] = true.into();
    field["description"] = description(key).into();
    field
}

fn values(shape: &Shape) -> Value {
    match shape {
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Number { min, max } => {
            let format = if i32::try_from(*max).is_ok() { "int32" } else { "int64" };
            json!({ "type": "integer", "format": format, "minimum": min, "maximum": max })
        }
        Shape::Text => json!({ "type": "string" }),
        Shape::Choice(of) => json!({ "type": "string", "enum": of }),
        Shape::List(of) => json!({ "type": "array", "items": values(of) }),
        Shape::Table(keys) => object(keys),
        Shape::AnyTable => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
        // A structural schema has one type. If a key accepts a table or a switch, it is the table.
        Shape::Either(shapes) => match shapes.iter().find(|s| matches!(s, Shape::Table(_))) {
            Some(table) => values(table),
            None => json!({ "x-kubernetes-int-or-string": true }),
        },
    }
}

/// The documentation of the key, with other keys as fields.
fn description(key: &Key) -> String {
    let mut explanation = key.explanation();
    if key.default_text().is_none() && !key.default.is_null() {
        explanation.push_str(&format!(" Default: {}.", key.default));
    }
    let mut text = String::new();
    for (n, part) in explanation.split('`').enumerate() {
        match part {
            key if n % 2 == 1 && key.chars().all(|c| c.is_ascii_lowercase() || c == '-') => {
                text.push_str(&camel(key))
            }
            other => text.push_str(other),
        }
    }
    text
}
