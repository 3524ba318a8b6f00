//! The page on Kubernetes objects, from their CustomResourceDefinitions.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{cell, wrapped};

const HEAD: &str = "# Kubernetes objects

All are optional and cluster-wide.
[kubernetes.md](../kubernetes.md#neighbors-and-policies-as-objects) explains BGPPeer and BGPPolicy,
and [reference.md](../reference.md#5-kubernetes-objects) has labels and annotations. routelet itself
writes the BGPNodeStatus of its Node every 30 seconds.
";

pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for definition in routelet::k8s::crd::definitions() {
        let spec = &definition["spec"];
        for version in spec["versions"].as_array().expect("versions") {
            let (kind, number) = (text(&spec["names"]["kind"]), text(&version["name"]));
            let _ = write!(page, "\n## {kind}\n\n`{}/{number}`", text(&spec["group"]));
            let short: Vec<_> =
                list(&spec["names"]["shortNames"]).map(|n| format!("`{}`", text(n))).collect();
            if !short.is_empty() {
                let _ = write!(page, ", for kubectl also {}", short.join(", "));
            }
            let columns: Vec<_> = list(&version["additionalPrinterColumns"])
                .map(|c| format!("`{}`", text(&c["name"])))
                .collect();
            let _ = writeln!(page, ". {}", wrapped(&format!("Columns: {}.", columns.join(", "))));
            let schema = &version["schema"]["openAPIV3Schema"];
            for part in ["spec", "status"] {
                if let Some(schema) = schema["properties"].get(part) {
                    let _ = write!(page, "\n### {part} of {kind}\n\n");
                    if let Some(about) = schema["description"].as_str() {
                        let _ = write!(page, "{}\n\n", wrapped(about));
                    }
                    page.push_str("| field | type | meaning |\n| --- | --- | --- |\n");
                    fields(&mut page, "", schema.as_object().expect("a schema"));
                }
            }
        }
    }
    page
}

/// A row for each field, and below it those of its own.
fn fields(page: &mut String, above: &str, schema: &Map<String, Value>) {
    let required: Vec<_> =
        schema.get("required").map(|all| list(all).map(text).collect()).unwrap_or_default();
    for (name, of) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let of = of.as_object().expect("a schema");
        let path = format!("{above}{name}");
        let needed = if required.contains(&name.as_str()) { ", required" } else { "" };
        let meaning = of.get("description").and_then(Value::as_str).unwrap_or_default();
        let _ = writeln!(page, "| `{path}` | {}{needed} | {} |", kind(of), cell(meaning));
        fields(page, &format!("{path}."), of);
        if let Some(items) = of.get("items").and_then(Value::as_object) {
            fields(page, &format!("{path}[]."), items);
        }
    }
}

fn kind(schema: &Map<String, Value>) -> String {
    let values: Vec<_> = schema
        .get("enum")
        .into_iter()
        .flat_map(list)
        .filter_map(Value::as_str)
        .map(|v| format!("`{v}`"))
        .collect();
    if !values.is_empty() {
        return values.join(", ");
    }
    let items = || schema.get("items").and_then(Value::as_object).map_or("any".into(), kind);
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => format!("array of {}", items()),
        Some("object") if schema.contains_key("additionalProperties") => "map".into(),
        Some(one) => one.to_owned(),
        None => "any".into(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
