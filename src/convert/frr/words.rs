//! A line of FRR's or Quagga's configuration as words.

use nom::{
    IResult, Parser,
    bytes::complete::take_till1,
    character::complete::multispace0,
    combinator::all_consuming,
    multi::many_m_n,
    sequence::{preceded, terminated},
};

/// Maximum number of words of a line; longer lines are not read.
const MAX_WORDS: usize = 200;

/// The words of a line without its comment. `None`: too many.
pub(super) fn words(line: &str) -> Option<Vec<&str>> {
    let line = line.trim();
    if line.starts_with('!') || line.starts_with('#') {
        return Some(Vec::new());
    }
    split(line).ok().map(|(_, words)| words)
}

fn split(input: &str) -> IResult<&str, Vec<&str>> {
    let word = take_till1(char::is_whitespace);
    all_consuming(terminated(many_m_n(0, MAX_WORDS, preceded(multispace0, word)), multispace0)).parse(input)
}

/// The text after the first `n` words of a line, unchanged, for descriptions and regular
/// expressions.
pub(super) fn rest_of(line: &str, n: usize) -> &str {
    let mut rest = line.trim();
    for _ in 0..n {
        rest = rest.find(char::is_whitespace).map_or("", |at| rest.get(at..).unwrap_or("").trim_start());
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_words_and_comments_are_none() {
        let cases: [(&str, Option<Vec<&str>>); 4] = [
            ("  neighbor 10.0.0.1\tremote-as 7 ", Some(vec!["neighbor", "10.0.0.1", "remote-as", "7"])),
            ("! neighbor", Some(vec![])),
            ("", Some(vec![])),
            (&"a ".repeat(201), None),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line), expected, "{line}");
        }
        assert_eq!(rest_of(" a  b  c d", 2), "c d");
        assert_eq!(rest_of("a", 2), "");
    }
}
