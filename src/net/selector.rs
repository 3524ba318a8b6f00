use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A label selector in the notation of `kubectl -l`: `team=web,tier in (a,b),!internal`. The empty
/// one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    text: String,
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Has(String),
    HasNot(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

/// Why a text is no selector, with the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("`{0}`: the bracket is not closed")]
    OpenBracket(String),
    #[error("`{0}` is not a term of a selector; write it as `key in (a,b)` or `key notin (a,b)`")]
    Term(String),
    #[error(
        "`{0}` is not a label; write terms as `key=value`, `key!=value`, `key`, `!key` or `key in (a,b)`, with commas between"
    )]
    Key(String),
    #[error("`{0}` is not a value of a label (letters, digits, `-`, `_`, `.`)")]
    Value(String),
}

impl Selector {
    /// Whether every term matches. As in Kubernetes, an object without the label matches `!=` and
    /// `notin`.
    pub fn fits(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = |key: &String| labels.and_then(|l| l.get(key));
        self.terms.iter().all(|term| match term {
            Term::Has(key) => value(key).is_some(),
            Term::HasNot(key) => value(key).is_none(),
            Term::In(key, values) => value(key).is_some_and(|v| values.contains(v)),
            Term::NotIn(key, values) => value(key).is_none_or(|v| !values.contains(v)),
        })
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let terms = terms(text).into_iter().map(str::trim).filter(|t| !t.is_empty()).map(term);
        Ok(Self { text: text.trim().to_owned(), terms: terms.collect::<Result<_, _>>()? })
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.text
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Splits at the commas outside of brackets.
fn terms(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn term(text: &str) -> Result<Term, SelectorError> {
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Term::HasNot(name(key)?));
    }
    // The longer operators first: `!=` and `==` end in `=`.
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = text.split_once(operator) {
            return Ok(among(name(key)?, vec![value_of(value)?], equal));
        }
    }
    let Some((head, list)) = text.split_once('(') else { return Ok(Term::Has(name(text)?)) };
    let list =
        list.trim_end().strip_suffix(')').ok_or_else(|| SelectorError::OpenBracket(text.to_owned()))?;
    let values = list.split(',').map(value_of).collect::<Result<_, _>>()?;
    match head.split_whitespace().collect::<Vec<_>>()[..] {
        [key, "in"] => Ok(among(name(key)?, values, true)),
        [key, "notin"] => Ok(among(name(key)?, values, false)),
        _ => Err(SelectorError::Term(text.to_owned())),
    }
}

fn among(key: String, values: Vec<String>, equal: bool) -> Term {
    if equal { Term::In(key, values) } else { Term::NotIn(key, values) }
}

/// A label's key: a name, optionally prefixed by a domain.
fn name(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    match !text.is_empty() && text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err(SelectorError::Key(text.to_owned())),
    }
}

/// A label's value, which may be empty.
fn value_of(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err(SelectorError::Value(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_fit_as_in_kubernetes() {
        let labels = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.split_whitespace().map(|p| p.split_once('=').unwrap());
            pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        #[rustfmt::skip]
        let cases = [
            ("",                          "",                 true),
            ("team=web",                  "team=web",         true),
            ("team == web",               "team=web",         true),
            ("team=web",                  "team=db",          false),
            ("team=web",                  "",                 false),
            ("team!=web",                 "",                 true),
            ("team!=web",                 "team=web",         false),
            ("team",                      "team=x",           true),
            ("team",                      "x=team",           false),
            ("!team",                     "team=x",           false),
            ("!team",                     "",                 true),
            ("tier in (a, b),!internal",  "tier=b",           true),
            ("tier in (a, b),!internal",  "tier=b internal=", false),
            ("tier in (a, b)",            "",                 false),
            ("tier notin (a,b)",          "tier=c",           true),
            ("tier notin (a,b)",          "tier=a",           false),
            ("tier notin (a,b)",          "",                 true),
            ("example.com/x=",            "example.com/x=",   true),
        ];
        for (selector, given, want) in cases {
            let parsed: Selector = selector.parse().unwrap();
            assert_eq!(parsed.fits(Some(&labels(given))), want, "{selector} on {given}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{selector}");
        }
        assert!("!x".parse::<Selector>().unwrap().fits(None) && !"x".parse::<Selector>().unwrap().fits(None));
    }

    #[test]
    fn invalid_selectors_are_errors() {
        for (text, want) in [
            ("team=w eb", "not a value"),
            ("=web", "not a label"),
            ("a b", "not a label"),
            ("tier in (a", "not closed"),
            ("tier among (a)", "key in (a,b)"),
            ("team in", "not a label"),
        ] {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
