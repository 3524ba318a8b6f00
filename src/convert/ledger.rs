//! What became of each line of the input.

use schemars::JsonSchema;
use serde::Serialize;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "LineOutcome")]
pub enum Outcome {
    /// The output has the same.
    Carried,
    /// The output does not need it: routelet does so anyway, or routes do not depend on it.
    NotNeeded,
    /// The output has it, with a difference.
    Differs,
    /// The output does not have it.
    NotCarried,
}

/// A line of the input that is no comment.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Line {
    /// Name of the file that was read.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Passwords are hidden.
    pub text: String,
    /// What became of the line.
    pub outcome: Outcome,
    /// Why it was not carried over, or what differs.
    pub reason: Option<String>,
}

/// A line of the [`Ledger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LineId(usize);

/// All lines.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lines: Vec<Line>,
}

impl Outcome {
    /// Whether the operator has to review the line.
    pub fn needs_review(self) -> bool {
        matches!(self, Self::Differs | Self::NotCarried)
    }

    /// As reports print it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Carried => "carried over",
            Self::NotNeeded => "not needed",
            Self::Differs => "differs",
            Self::NotCarried => "not carried over",
        }
    }
}

impl Ledger {
    /// A line that is carried over unless something else is noted.
    pub(super) fn add(&mut self, file: &str, line: usize, text: &str) -> LineId {
        let text = hidden(text.trim());
        self.lines.push(Line { file: file.to_owned(), line, text, outcome: Outcome::Carried, reason: None });
        LineId(self.lines.len() - 1)
    }

    /// Notes an outcome. A worse one replaces a better one; equal ones are joined.
    pub(super) fn note(&mut self, at: LineId, outcome: Outcome, reason: impl Into<String>) {
        let Some(line) = self.lines.get_mut(at.0) else { return };
        let reason = reason.into();
        let is_same = outcome == line.outcome;
        if let Some(known) = line.reason.as_mut().filter(|_| is_same) {
            if !known.contains(&reason) {
                *known = format!("{known}; {reason}");
            }
        } else if outcome >= line.outcome {
            (line.outcome, line.reason) = (outcome, Some(reason));
        }
    }

    pub(super) fn not_needed(&mut self, at: LineId, reason: &str) {
        self.note(at, Outcome::NotNeeded, reason);
    }

    pub(super) fn differs(&mut self, at: LineId, reason: impl Into<String>) {
        self.note(at, Outcome::Differs, reason);
    }

    pub(super) fn not_carried(&mut self, at: LineId, reason: impl Into<String>) {
        self.note(at, Outcome::NotCarried, reason);
    }

    pub(super) fn into_lines(self) -> Vec<Line> {
        self.lines
    }
}

/// The line without the text after `password`.
fn hidden(text: &str) -> String {
    let secret = ["password", "authentication-key", "key-string"];
    let mut shown = String::new();
    for word in text.split_inclusive(char::is_whitespace) {
        shown.push_str(word);
        if secret.contains(&word.trim()) {
            shown.push_str("***");
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_and_the_worst_outcome_counts() {
        let mut ledger = Ledger::default();
        let at = ledger.add("a", 1, " neighbor 10.0.0.1 password open sesame");
        ledger.differs(at, "one");
        ledger.not_needed(at, "less");
        ledger.differs(at, "two");
        let line = ledger.into_lines().remove(0);
        assert_eq!(line.text, "neighbor 10.0.0.1 password ***");
        assert_eq!((line.outcome, line.reason.as_deref()), (Outcome::Differs, Some("one; two")));
    }
}
