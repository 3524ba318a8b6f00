//! The page on JSON, from the schemas of what commands print.

use std::{collections::BTreeMap, fmt::Write as _};

use routelet::cli::reference;
use serde_json::{Map, Value};

use super::{cell, wrapped};

const HEAD: &str = "# JSON

`--json` and `-o json` print the state as JSON. Field names are in snake_case, times RFC 3339 in
UTC, durations in seconds unless stated. Fields and values keep their meaning between releases; new
ones are added, so readers should ignore what they do not know. Each schema is a JSON schema
(2020-12) of what this version prints.

`show config --json` prints the configuration in force by key, with the resulting neighbors.

| command | prints | schema |
| --- | --- | --- |
";

pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut types = BTreeMap::new();
    for printed in reference::schemas() {
        let root = printed.schema.as_object().expect("a schema is an object");
        for (name, schema) in root.get("$defs").and_then(Value::as_object).into_iter().flatten() {
            let before = types.insert(name.clone(), schema.clone());
            assert!(before.is_none_or(|before| before == *schema), "two types are named {name}: rename one");
        }
        let prints = if root.contains_key("properties") {
            let title = root["title"].as_str().expect("a title").to_owned();
            types.insert(title.clone(), root.clone().into());
            link(&title)
        } else {
            kind(root)
        };
        let file = printed.file;
        let _ = writeln!(
            page,
            "| `{} --json` | {prints} | [`{file}.json`](../schema/{file}.json) |",
            printed.command
        );
    }
    for (name, schema) in &types {
        describe(&mut page, name, schema.as_object().expect("a schema is an object"));
    }
    page
}

fn describe(page: &mut String, name: &str, schema: &Map<String, Value>) {
    let _ = write!(page, "\n## {name}\n\n");
    if let Some(text) = schema.get("description").and_then(Value::as_str) {
        let _ = write!(page, "{}\n\n", wrapped(&plain(text)));
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let required = schema.get("required").and_then(Value::as_array);
        page.push_str("| field | type | meaning |\n| --- | --- | --- |\n");
        for (field, of) in properties {
            let of = of.as_object().expect("a schema is an object");
            let is_optional = !required.is_some_and(|all| all.iter().any(|r| r == field));
            let optional = if is_optional { ", may be absent" } else { "" };
            let meaning = of.get("description").and_then(Value::as_str).map(plain).unwrap_or_default();
            assert!(!meaning.is_empty(), "{name}.{field} has no description: write a comment in the code");
            let _ = writeln!(page, "| `{field}` | {}{optional} | {} |", kind(of), cell(&meaning));
        }
        return;
    }
    let values = values(schema);
    if values.is_empty() {
        let _ = writeln!(page, "A {}.", kind(schema));
        return;
    }
    for (value, meaning) in values {
        let colon = if meaning.is_empty() { "" } else { ": " };
        let _ = writeln!(page, "{}", wrapped(&format!("- `{value}`{colon}{meaning}")).replace('\n', "\n  "));
    }
}

/// The values of an enumeration with their meanings.
fn values(schema: &Map<String, Value>) -> Vec<(String, String)> {
    let list = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    let mut all: Vec<_> =
        list("enum").filter_map(|v| Some((v.as_str()?.to_owned(), String::new()))).collect();
    for one in list("oneOf").filter_map(Value::as_object) {
        let meaning = one.get("description").and_then(Value::as_str).map(plain).unwrap_or_default();
        match one.get("const").and_then(Value::as_str) {
            Some(value) => all.push((value.to_owned(), meaning)),
            None => all.extend(values(one)),
        }
    }
    all
}

/// A type in text.
fn kind(schema: &Map<String, Value>) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        return link(name.trim_start_matches("#/$defs/"));
    }
    if let Some(all) = schema.get("anyOf").and_then(Value::as_array) {
        let kinds: Vec<_> = all.iter().filter_map(Value::as_object).map(kind).collect();
        return kinds.join(" or ");
    }
    match schema.get("type") {
        Some(Value::String(one)) => simple(one, schema),
        Some(Value::Array(several)) => {
            let kinds: Vec<_> = several.iter().filter_map(Value::as_str).map(|k| simple(k, schema)).collect();
            kinds.join(" or ")
        }
        _ => "any".into(),
    }
}

fn simple(kind_of: &str, schema: &Map<String, Value>) -> String {
    let inner = |key: &str| schema.get(key).and_then(Value::as_object).map(kind);
    match kind_of {
        "array" => format!("array of {}", inner("items").unwrap_or("any".into())),
        "object" => {
            let keys = match schema.get("propertyNames").and_then(Value::as_object) {
                Some(names) => format!(" by {}", kind(names)),
                None => String::new(),
            };
            format!("object of {}{keys}", inner("additionalProperties").unwrap_or("any".into()))
        }
        "string" => match schema.get("format").and_then(Value::as_str) {
            Some("ip" | "ipv4" | "ipv6") => "address".into(),
            _ => "string".into(),
        },
        other => other.to_owned(),
    }
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

/// A comment of the code without its links to other code, as one paragraph.
fn plain(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`").split_whitespace().collect::<Vec<_>>().join(" ")
}
