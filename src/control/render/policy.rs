use serde_json::Value;

use super::{
    layout::Layout,
    listed,
    table::{Pairs, Table},
};
use crate::control::policy::{PolicyView, StatementView};

/// Maximum number of neighbors listed for a policy and direction.
const MAX_NAMED: usize = 8;

pub(super) fn text(list: &[PolicyView], layout: Layout) -> String {
    if list.is_empty() {
        return "no policy is configured: [[policy.NAME]] defines one, `import` and `export` of a neighbor \
                name it\n"
            .into();
    }
    list.iter().map(|policy| one(policy, layout)).collect::<Vec<_>>().join("\n")
}

fn one(policy: &PolicyView, layout: Layout) -> String {
    let mut pairs = Pairs::new(layout);
    pairs.add("policy", &policy.name);
    let used = &policy.used_by;
    for (direction, names) in [("import of", &used.import), ("export to", &used.export)] {
        if !names.is_empty() {
            pairs.add(direction, some(names));
        }
    }
    if used.import.is_empty() && used.export.is_empty() {
        pairs.add("not used", "no neighbor names it in `import` or `export`");
    }
    let mut table = Table::new(layout, ["STATEMENT", "IMPORT", "EXPORT", "KEYS"]);
    for (number, statement) in (1..).zip(&policy.statements) {
        let matched = statement.matched;
        table.row([
            number.to_string(),
            matched.import.to_string(),
            matched.export.to_string(),
            keys(statement),
        ]);
    }
    let rest = policy.otherwise;
    let end = "no statement ended it: accepted".to_owned();
    table.row(["otherwise".to_owned(), rest.import.to_string(), rest.export.to_string(), end]);
    format!("{pairs}{table}")
}

fn some(names: &[String]) -> String {
    let shown = listed(names.iter().take(MAX_NAMED));
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// `prefixes = ["10.0.0.0/8"], action = "accept"`, as in the file.
fn keys(statement: &StatementView) -> String {
    listed(statement.keys.iter().map(|(key, value)| format!("{key} = {}", toml(value))))
}

/// Texts, numbers and lists of them look the same in TOML and in JSON.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::policy::{Matched, UsedBy};

    fn statement(keys: Value, import: u64) -> StatementView {
        let keys = keys.as_object().cloned().unwrap_or_default();
        StatementView { keys, matched: Matched { import, export: 0 } }
    }

    #[test]
    fn a_policy_has_its_statements_as_in_the_file_and_where_it_is_used() {
        let policy = PolicyView {
            name: "from-leaf".into(),
            used_by: UsedBy {
                import: (1..=10).map(|n| format!("10.1.1.{n}")).collect(),
                ..UsedBy::default()
            },
            statements: vec![
                statement(json!({"prefixes": ["10.0.0.0/8{16,24}", "::/0"]}), 12),
                statement(json!({"set-local-pref": 200}), 3),
            ],
            otherwise: Matched { import: 15, export: 0 },
        };
        let unused = PolicyView { name: "spare".into(), ..PolicyView::default() };
        let shown = text(&[policy, unused], Layout::default());
        assert_eq!(
            shown,
            "policy     from-leaf\n\
             import of  10.1.1.1, 10.1.1.2, 10.1.1.3, 10.1.1.4, 10.1.1.5, 10.1.1.6, 10.1.1.7,\n\
             \x20          10.1.1.8 and 2 more\n\
             STATEMENT  IMPORT  EXPORT  KEYS\n\
             1          12      0       prefixes = [\"10.0.0.0/8{16,24}\", \"::/0\"]\n\
             2          3       0       set-local-pref = 200\n\
             otherwise  15      0       no statement ended it: accepted\n\
             \n\
             policy    spare\n\
             not used  no neighbor names it in `import` or `export`\n\
             STATEMENT  IMPORT  EXPORT  KEYS\n\
             otherwise  0       0       no statement ended it: accepted\n"
        );
        assert!(text(&[], Layout::default()).contains("[[policy.NAME]]"));
    }
}
