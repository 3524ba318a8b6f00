//! The JSON of a response as YAML.

use serde_json::Value;

/// A document, followed by a line break.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::new();
    node(&mut out, value, 0);
    out.trim_start_matches(['\n', ' ']).to_owned()
}

/// The items of an array, which may be a part of a longer one.
pub(super) fn items(list: &[Value], out: &mut String, depth: usize) {
    for item in list {
        *out += &format!("{}-", "  ".repeat(depth));
        let mut inner = String::new();
        node(&mut inner, item, depth + 1);
        // The first line of a block stands behind the dash.
        *out += " ";
        *out += inner.trim_start_matches(['\n', ' ']);
    }
}

/// The value after a key or a dash, with the line break.
fn node(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            for (key, value) in map {
                *out += &format!("{}{}:", "  ".repeat(depth), scalar(key));
                node(out, value, depth + 1);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            items(list, out, depth);
        }
        Value::String(text) => *out += &format!(" {}\n", scalar(text)),
        // Empty ones, numbers and the like are the same in both.
        other => *out += &format!(" {other}\n"),
    }
}

/// A string, without quotes if it cannot be mistaken for anything else.
fn scalar(text: &str) -> String {
    const OTHERS: [&str; 11] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan"];
    let starts_as_word = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    if starts_as_word && is_plain && !OTHERS.contains(&&*text.to_ascii_lowercase()) {
        return text.to_owned();
    }
    let quoted = Value::from(text).to_string();
    // JSON allows these characters, YAML does not.
    quoted
        .chars()
        .map(|c| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.into() })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_reads_as_the_json_does() {
        let values = [
            json!({"address": "10.1.1.1", "since": "2026-11-21T08:47:30Z", "remote_as": 10000, "up": true,
                "none": null, "families": ["ipv4-unicast"], "as_path": [1, [2, 3], []], "counts": {"a": 1},
                "empty": {}, "list": [{"a": {"b": [{"c": "d"}]}, "e": []}, "x"]}),
            json!([
                "no",
                "y",
                "~",
                "1e3",
                "0x1f",
                "a: b",
                "# c",
                "- d",
                "",
                " ",
                "é\u{7f}\u{85}\u{1b}\n",
                "%x",
                "[x",
                "null"
            ]),
            json!([]),
            json!("text"),
            json!(7),
        ];
        for value in values {
            let text = document(&value);
            let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert_eq!(read, value, "{text}");
        }
    }

    #[test]
    fn blocks_are_indented_by_two() {
        let value = json!([{"prefix": "10.0.0.0/8", "as_path": [1]}, "x"]);
        assert_eq!(document(&value), "- as_path:\n    - 1\n  prefix: \"10.0.0.0/8\"\n- x\n");
    }
}
