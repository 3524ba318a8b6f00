//! Converts selectors of Nodes, objects and Services: into labels with one value each for the Nodes
//! of a BGPPeer, and into the notation of `kubectl -l` for Services.

use crate::convert::kube::unfit::Unfit;
use std::collections::BTreeMap;

use super::yaml::Node;
use crate::net::Selector;

/// Labels with their values.
pub(super) type Labels = BTreeMap<String, String>;

/// Maximum number of sets of labels for one selector.
pub(super) const MAX_SETS: usize = 64;

/// Whether no Node can have the labels of both.
pub(super) fn are_disjoint(a: &Labels, b: &Labels) -> bool {
    a.iter().any(|(key, value)| b.get(key).is_some_and(|other| other != value))
}

/// The Nodes that one of these LabelSelectors selects, as disjoint sets of labels. Without
/// selectors, all Nodes are selected.
///
/// # Errors
///
/// Why there are no such sets.
pub(super) fn node_sets<'a>(selectors: impl IntoIterator<Item = &'a Node>) -> Result<Vec<Labels>, Unfit> {
    let mut sets: Vec<Labels> = Vec::new();
    let mut any = false;
    for selector in selectors {
        any = true;
        sets.extend(sets_of(selector)?);
    }
    if !any {
        return Ok(vec![Labels::new()]);
    }
    separate(sets)
}

/// The sets without those that are contained in others.
fn separate(mut sets: Vec<Labels>) -> Result<Vec<Labels>, Unfit> {
    sets.sort_by_key(Labels::len);
    let mut kept: Vec<Labels> = Vec::new();
    for set in sets {
        if kept.iter().any(|k| k.iter().all(|(key, value)| set.get(key) == Some(value))) {
            continue;
        }
        if kept.iter().any(|k| !are_disjoint(k, &set)) {
            return Err(Unfit::OverlappingSelectors);
        }
        kept.push(set);
    }
    if kept.len() > MAX_SETS {
        return Err(Unfit::ManyLabels);
    }
    Ok(kept)
}

/// The sets of one LabelSelector: all combinations of its values.
fn sets_of(selector: &Node) -> Result<Vec<Labels>, Unfit> {
    let mut sets = vec![Labels::new()];
    let mut terms: Vec<(&str, Vec<&str>)> =
        selector.pairs("matchLabels").into_iter().map(|(key, value)| (key, vec![value])).collect();
    for expression in selector.list("matchExpressions") {
        let (key, operator, values) = parts(expression);
        if operator != "In" {
            return Err(Unfit::NodeSelector(format!("{key} {operator}")));
        }
        terms.push((key, values));
    }
    for (key, mut values) in terms {
        values.sort_unstable();
        values.dedup();
        sets = sets.iter().flat_map(|set| values.iter().filter_map(move |v| with(set, key, v))).collect();
        if sets.len() > MAX_SETS {
            return Err(Unfit::ManyLabels);
        }
    }
    if sets.is_empty() {
        return Err(Unfit::SelectsNothing);
    }
    Ok(sets)
}

fn with(set: &Labels, key: &str, value: &str) -> Option<Labels> {
    if set.get(key).is_some_and(|known| known != value) {
        return None;
    }
    let mut set = set.clone();
    set.insert(key.to_owned(), value.to_owned());
    Some(set)
}

/// Key, operator and values of an expression.
fn parts(expression: &Node) -> (&str, &str, Vec<&str>) {
    let text = |key| expression.text(key).unwrap_or_default();
    (text("key"), text("operator"), expression.texts("values"))
}

/// Whether a LabelSelector matches an object with these labels.
///
/// # Errors
///
/// An operator that is not known.
pub(super) fn matches(selector: &Node, labels: &Labels) -> Result<bool, Unfit> {
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|v| v == value);
    let mut all = selector.pairs("matchLabels").into_iter().all(|(key, value)| has(key, value));
    for expression in selector.list("matchExpressions") {
        let (key, operator, values) = parts(expression);
        all &= match operator {
            "In" => values.iter().any(|v| has(key, v)),
            "NotIn" => !values.iter().any(|v| has(key, v)),
            "Exists" => labels.contains_key(key),
            "DoesNotExist" => !labels.contains_key(key),
            other => return Err(Unfit::Unknown { what: "the operator", value: other.to_owned() }),
        };
    }
    Ok(all)
}

/// A LabelSelector in the notation of `kubectl -l`.
///
/// # Errors
///
/// Why there is no such text.
pub(super) fn text(selector: &Node) -> Result<String, Unfit> {
    let mut terms: Vec<String> =
        selector.pairs("matchLabels").into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    for expression in selector.list("matchExpressions") {
        let (key, operator, values) = parts(expression);
        let values = values.join(",");
        terms.push(match operator {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            other => return Err(Unfit::Unknown { what: "the operator", value: other.to_owned() }),
        });
    }
    if terms.iter().any(|term| term.trim_start_matches('!').starts_with("io.kubernetes.service.")) {
        return Err(Unfit::ServiceName);
    }
    let text = terms.join(",");
    text.parse::<Selector>().map_err(|e| Unfit::Selector(e.to_string()))?;
    Ok(text)
}

/// A selector of Calico, as `rack == 'a' && zone in {'b', 'c'}`.
///
/// # Errors
///
/// Why there are no such sets.
pub(super) fn calico(text: &str) -> Result<Vec<Labels>, Unfit> {
    let mut sets = vec![Labels::new()];
    let text = text.trim();
    for term in split_outside_quotes(text, "&&") {
        let term = term.trim();
        if term == "all()" {
            continue;
        }
        let Some((key, mut values)) = calico_term(term) else {
            return Err(Unfit::NodeSelector(term.to_owned()));
        };
        values.sort();
        values.dedup();
        sets = sets.iter().flat_map(|set| values.iter().filter_map(|v| with(set, key, v))).collect();
        if sets.is_empty() || sets.len() > MAX_SETS {
            return Err(Unfit::NoneOrManyLabels);
        }
    }
    Ok(sets)
}

/// `key == 'value'` or `key in {'a', 'b'}`.
fn calico_term(term: &str) -> Option<(&str, Vec<String>)> {
    let is_label = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let end = term.find(|c: char| !is_label(c))?;
    let (key, rest) = (term.get(..end)?, term.get(end..)?.trim());
    if key.is_empty() {
        return None;
    }
    if let Some(value) = rest.strip_prefix("==") {
        return Some((key, vec![unquoted(value)?]));
    }
    let list = rest.strip_prefix("in")?.trim().strip_prefix('{')?.strip_suffix('}')?;
    let values: Option<Vec<_>> = split_outside_quotes(list, ",").into_iter().map(unquoted).collect();
    Some((key, values?))
}

fn unquoted(text: &str) -> Option<String> {
    let text = text.trim();
    let quote = text.chars().next().filter(|c| *c == '\'' || *c == '"')?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then(|| inner.to_owned())
}

fn split_outside_quotes<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let (mut parts, mut start, mut quote, mut skip_to) = (Vec::new(), 0, None, 0);
    for (at, c) in text.char_indices() {
        if at < skip_to {
            continue;
        }
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if text.get(at..).is_some_and(|rest| rest.starts_with(separator)) => {
                parts.extend(text.get(start..at));
                start = at + separator.len();
                skip_to = start;
            }
            None => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

#[cfg(test)]
mod tests {
    use super::{super::yaml::documents, *};

    fn node(text: &str) -> Node {
        documents(text).unwrap().remove(0)
    }

    fn shown(sets: &[Labels]) -> Vec<String> {
        let one = |set: &Labels| set.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
        sets.iter().map(one).collect()
    }

    #[test]
    fn values_of_one_label_become_a_set_each_and_no_node_is_in_two() {
        let in_list =
            node("matchLabels: {zone: z}\nmatchExpressions: [{key: rack, operator: In, values: [b, a, a]}]");
        assert_eq!(shown(&node_sets([&in_list]).unwrap()), ["rack=a,zone=z", "rack=b,zone=z"]);
        assert_eq!(shown(&node_sets([]).unwrap()), [""]);
        let (all, a) = (node("{}"), node("matchLabels: {rack: a}"));
        assert_eq!(shown(&node_sets([&a, &all]).unwrap()), [""]);
        let other = node("matchLabels: {zone: z}");
        assert!(node_sets([&a, &other]).unwrap_err().to_string().contains("twice"));
        let not = node("matchExpressions: [{key: rack, operator: NotIn, values: [b]}]");
        assert!(node_sets([&not]).unwrap_err().to_string().contains("rack NotIn"));
        let none = node("matchLabels: {rack: a}\nmatchExpressions: [{key: rack, operator: In, values: [b]}]");
        assert!(node_sets([&none]).unwrap_err().to_string().contains("no Node"));
    }

    #[test]
    fn selectors_of_calico_are_equalities() {
        let cases = [
            ("all()", Ok(vec![""])),
            ("rack == 'a'", Ok(vec!["rack=a"])),
            ("rack == \"a\" && zone in {'x', 'y'}", Ok(vec!["rack=a,zone=x", "rack=a,zone=y"])),
            ("rack == 'a && b'", Ok(vec!["rack=a && b"])),
            ("rack != 'a'", Err("!=")),
            ("has(rack)", Err("has(rack)")),
            ("rack == 'a' || rack == 'b'", Err("has no counterpart")),
            ("!has(rack)", Err("!has")),
            ("(rack == 'a')", Err("(rack")),
            ("rack == 'a' && rack == 'b'", Err("none")),
        ];
        for (text, expected) in cases {
            match (calico(text), expected) {
                (Ok(sets), Ok(expected)) => assert_eq!(shown(&sets), expected, "{text}"),
                (Err(why), Err(part)) => assert!(why.to_string().contains(part), "{text}: {why}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn label_selectors_are_matched_and_written_for_kubectl() {
        let selector = node(
            "matchLabels: {a: x}\nmatchExpressions: [{key: b, operator: NotIn, values: [w, z]}, {key: c, operator: Exists}, \
             {key: d, operator: DoesNotExist}]",
        );
        assert_eq!(text(&selector).unwrap(), "a=x,b notin (w,z),c,!d");
        let labels =
            |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(matches(&selector, &labels(&[("a", "x"), ("c", "")])), Ok(true));
        assert_eq!(matches(&selector, &labels(&[("a", "x"), ("b", "w"), ("c", "")])), Ok(false));
        assert_eq!(matches(&selector, &labels(&[("a", "x"), ("c", ""), ("d", "")])), Ok(false));
        let namespace = node("matchLabels: {io.kubernetes.service.namespace: web}");
        assert!(text(&namespace).is_err());
        assert!(matches(&node("matchExpressions: [{key: a, operator: Gt}]"), &Labels::new()).is_err());
    }
}
