//! A [`Router`] as a file.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    ledger::{Line, Outcome},
    router::{Keys, Router},
};

/// Columns of comments.
const WIDTH: usize = 100;

/// The file, with the lines that were not carried over as comments at its end.
pub(super) fn file(router: &Router, lines: &[Line]) -> String {
    let mut text = heading(lines);
    remarks(&mut text, router);
    text += &tables(router);
    listed(&mut text, lines);
    text
}

/// The first line.
pub(super) fn heading(lines: &[Line]) -> String {
    let mut text = String::from("# Written by `routelet convert`.");
    let review = lines.iter().filter(|l| l.outcome.needs_review()).count();
    match review {
        0 => text.push('\n'),
        1 => text.push_str(" One line of the input needs a review: see the end.\n"),
        n => {
            let _ = writeln!(text, " {n} lines of the input need a review: see the end.");
        }
    }
    text
}

/// The remarks, as comments.
pub(super) fn remarks(text: &mut String, router: &Router) {
    router.remarks.iter().for_each(|remark| comment(text, "", remark));
}

/// All tables of the file.
pub(super) fn tables(router: &Router) -> String {
    let mut text = String::new();
    table(&mut text, "[bgp]", &router.bgp);
    for (name, keys) in &router.groups {
        table(&mut text, &format!("[bgp.group.{}]", quoted_key(name)), keys);
    }
    router.neighbors.iter().for_each(|keys| table(&mut text, "[[bgp.neighbor]]", keys));
    router.ranges.iter().for_each(|keys| table(&mut text, "[[bgp.listen-range]]", keys));
    if !router.advertise.is_empty() {
        table(&mut text, "[advertise]", &router.advertise);
    }
    for policy in &router.policies {
        for (n, statement) in policy.statements.iter().enumerate() {
            let heading = format!("[[policy.{}]]", quoted_key(&policy.name));
            let remark = policy.remark.as_deref().filter(|_| n == 0);
            remarked_table(&mut text, &heading, remark, statement);
        }
    }
    if !router.fib.is_empty() {
        table(&mut text, "[fib]", &router.fib);
    }
    router.sections.iter().for_each(|(heading, keys)| table(&mut text, heading, keys));
    text
}

fn table(text: &mut String, heading: &str, keys: &Keys) {
    remarked_table(text, heading, None, keys);
}

fn remarked_table(text: &mut String, heading: &str, remark: Option<&str>, keys: &Keys) {
    text.push('\n');
    if let Some(remark) = remark {
        comment(text, "", remark);
    }
    let _ = writeln!(text, "{heading}");
    let mut sorted: Vec<_> = keys.iter().collect();
    sorted.sort_by_key(|(key, _)| rank(key));
    for (key, value) in sorted {
        let _ = writeln!(text, "{} = {}", quoted_key(key), inline(value));
    }
}

/// Position of a key: first what a table is about, last what a statement does.
fn rank(key: &str) -> usize {
    const FIRST: [&str; 8] =
        ["as", "router-id", "address", "interface", "prefix", "group", "remote-as", "description"];
    match FIRST.iter().position(|first| *first == key) {
        Some(place) => place,
        None if key == "action" => usize::MAX,
        None if ["set-", "add-", "remove-", "prepend-"].iter().any(|begin| key.starts_with(begin)) => 200,
        None => 100,
    }
}

/// The lines that were not carried over unchanged, as comments.
pub(super) fn listed(text: &mut String, lines: &[Line]) {
    for (outcome, heading) in [
        (Outcome::NotCarried, "Not carried over:"),
        (Outcome::Differs, "Carried over with a difference:"),
        (Outcome::NotNeeded, "Not needed:"),
    ] {
        let mut of_it = lines.iter().filter(|l| l.outcome == outcome).peekable();
        if of_it.peek().is_none() {
            continue;
        }
        let _ = writeln!(text, "\n# {heading}");
        for Line { file, line, text: written, reason, .. } in of_it {
            let reason = reason.as_deref().unwrap_or_default();
            comment(text, "  ", &format!("{file}:{line}: `{written}`: {reason}"));
        }
    }
}

/// A comment, wrapped at words.
fn comment(text: &mut String, indent: &str, content: &str) {
    let mut line = format!("# {indent}");
    let mut is_empty = true;
    for word in content.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = format!("# {indent}  ");
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.extend(word.chars().map(|c| if c.is_control() { ' ' } else { c }));
        is_empty = false;
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// A key, in quotes where it needs them.
fn quoted_key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.replace(['\n', '\r'], " ")).to_string()
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(list) => {
            let parts: Vec<_> = list.iter().map(inline).collect();
            let line = format!("[{}]", parts.join(", "));
            match line.len() {
                0..90 => line,
                _ => format!("[\n    {},\n]", parts.join(",\n    ")),
            }
        }
        Value::Object(map) => {
            let parts: Vec<_> =
                map.iter().map(|(k, v)| format!("{} = {}", quoted_key(k), inline(v))).collect();
            format!("{{ {} }}", parts.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_toml() {
        let cases = [
            (json!("a \"b\""), "'a \"b\"'"),
            (json!(["a", 7]), "[\"a\", 7]"),
            (json!({ "min-tx": 300 }), "{ min-tx = 300 }"),
        ];
        for (value, expected) in cases {
            assert_eq!(inline(&value), expected);
            let read: toml::Table = format!("key = {}", inline(&value)).parse().unwrap();
            assert_eq!(serde_json::to_value(&read["key"]).unwrap(), value);
        }
        assert_eq!(quoted_key("a.b"), "\"a.b\"");
    }

    #[test]
    fn text_of_the_input_cannot_leave_its_comment() {
        let mut text = String::new();
        comment(&mut text, "", "a\nb = 1 \u{0}\r c");
        assert_eq!(text, "# a b = 1   c\n");
    }
}
