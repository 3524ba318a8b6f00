//! Problems that an operator should know: one type for `show summary`, the log, Events, metrics,
//! BGPNodeStatus and `doctor`.
//!
//! A problem is identified by its reason and its subject. Its text may change (a count, an error of
//! the kernel) without making it another one.

mod reason;
mod subject;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{PROBLEM_MAX, cut};
pub use reason::{Reason, Severity};
pub use subject::{Subject, SubjectKind};

/// Octets of a remedy. What is left of [`PROBLEM_MAX`] is for the text.
const REMEDY_MAX: usize = 512;
const TEXT_MAX: usize = PROBLEM_MAX - REMEDY_MAX;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable name of the problem, for scripts and alerts.
    pub reason: Reason,
    /// That of the reason, for those who read the JSON.
    pub severity: Severity,
    /// What the problem is about.
    pub subject: Subject,
    /// What is wrong, in one sentence. Bounded, and without control characters.
    pub text: String,
    /// What to do about it, likewise.
    pub remedy: String,
}

impl Diagnostic {
    pub fn new(reason: Reason, subject: Subject, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        let [text, remedy] = [(text.into(), TEXT_MAX), (remedy.into(), REMEDY_MAX)].map(bounded);
        Self { reason, severity: reason.severity(), subject, text, remedy }
    }

    /// What identifies it.
    pub fn key(&self) -> (Reason, &Subject) {
        (self.reason, &self.subject)
    }

    /// Text and remedy in one line, without the reason.
    pub fn line(&self) -> String {
        match self.remedy.is_empty() {
            true => self.text.clone(),
            false => format!("{}; {}", self.text, self.remedy),
        }
    }

    /// Whether the line contains this.
    #[cfg(test)]
    pub fn contains(&self, part: &str) -> bool {
        self.to_string().contains(part)
    }
}

/// `Reason: text; remedy`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.line())
    }
}

/// Removes what moves a terminal's cursor or forges a line, and truncates.
fn bounded((mut text, max): (String, usize)) -> String {
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, " ");
    }
    cut(&mut text, max - '…'.len_utf8());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, remedy: &str) -> Diagnostic {
        Diagnostic::new(Reason::OpenFilesExhausted, Subject::host(), text, remedy)
    }

    #[test]
    fn a_problem_is_one_line_with_its_reason() {
        assert_eq!(
            one("16 files are left", "raise the limit").to_string(),
            "OpenFilesExhausted: 16 files are left; raise the limit"
        );
        assert_eq!(one("16 files are left", "").line(), "16 files are left");
    }

    #[test]
    fn texts_are_bounded_and_print() {
        let long = one(&"ü".repeat(5000), &"x\n\u{1b}[2J".repeat(900));
        assert!(long.line().len() <= PROBLEM_MAX + 2, "{}", long.line().len());
        assert!(!long.to_string().contains(char::is_control));
    }

    #[test]
    fn the_json_has_all_parts_and_is_read_back() {
        let subject = Subject::object(SubjectKind::Service, Some("shop"), "web", "u1");
        let one = Diagnostic::new(Reason::OpenFilesExhausted, subject, "a", "b");
        let json = serde_json::to_value(&one).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "reason": "OpenFilesExhausted", "severity": "error", "text": "a", "remedy": "b",
                "subject": { "kind": "Service", "name": "web", "namespace": "shop", "uid": "u1" },
            })
        );
        assert_eq!(serde_json::from_value::<Diagnostic>(json).unwrap(), one);
    }

    #[test]
    fn a_reason_of_a_newer_version_is_read_as_unknown() {
        let read: Reason = serde_json::from_str("\"WillBeInvented\"").unwrap();
        assert_eq!(read, Reason::Unknown);
        for reason in Reason::ALL {
            let name = serde_json::to_string(reason).unwrap();
            assert_eq!(serde_json::from_str::<Reason>(&name).unwrap(), *reason);
        }
    }
}
