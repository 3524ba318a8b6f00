//! Text from outside: annotations, labels, objects, NOTIFICATIONs, file names.
//!
//! Its author may not be trusted. A tenant's annotation can contain 256 KiB, escape sequences that
//! a terminal executes, line feeds that forge log lines, and characters that reverse the direction
//! of text. It is truncated and escaped once, where it is read; logs, tables, Events and status
//! objects only contain the result.

use std::fmt::Write;

/// Limit of a text from outside, in octets of UTF-8. Long enough for any legitimate address, name
/// or list of keywords.
pub const UNTRUSTED_MAX: usize = 256;

/// Limit of one problem, in octets of UTF-8.
pub const PROBLEM_MAX: usize = 1024;

/// Escapes everything that does not print as in Rust source, and truncates to [`UNTRUSTED_MAX`]
/// octets. The number of omitted octets is appended.
///
/// Quotation marks are kept and a backslash is doubled, so that an escape sequence cannot be
/// mistaken for text that looks like one.
pub fn untrusted(text: &str) -> String {
    escaped(text, UNTRUSTED_MAX)
}

/// As [`untrusted`], truncated to `max` octets.
pub fn escaped(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for (at, c) in text.char_indices() {
        let before = shown.len();
        match c {
            '\'' | '"' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
        if shown.len() > max {
            shown.truncate(before);
            let _ = write!(shown, "… ({} octets more)", text.len() - at);
            break;
        }
    }
    shown
}

/// Truncates a text of our own to `max` octets and an ellipsis.
pub fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        #[rustfmt::skip]
        let cases = [
            ("cluster-ip, \"x\"'s",      "cluster-ip, \"x\"'s"),
            ("Zürich 日本",               "Zürich 日本"),
            ("a\r\n2026 ERROR forged",   "a\\r\\n2026 ERROR forged"),
            ("\u{1b}]0;owned\u{7}",      "\\u{1b}]0;owned\\u{7}"),
            ("\u{202e}gnp\u{2028}\0",    "\\u{202e}gnp\\u{2028}\\0"),
            ("\u{9b}31m\u{7f}",          "\\u{9b}31m\\u{7f}"),
            ("a\\nb",                    "a\\\\nb"),
        ];
        for (text, want) in cases {
            assert_eq!(untrusted(text), want);
        }
    }

    #[test]
    fn a_long_text_is_cut_and_counted() {
        let shown = untrusted(&"x".repeat(250_000));
        assert_eq!(shown, "x".repeat(UNTRUSTED_MAX) + "… (249744 octets more)");
        let mut own = "é".repeat(600);
        cut(&mut own, 1023);
        assert_eq!(own, "é".repeat(511) + "…");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_short_and_prints(text in any::<String>(), times in 1..200_usize) {
            let shown = untrusted(&text.repeat(times));
            prop_assert!(shown.len() <= UNTRUSTED_MAX + 40);
            prop_assert!(!shown.chars().any(|c| c.is_control()));
        }
    }
}
