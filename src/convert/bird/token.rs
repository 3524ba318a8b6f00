//! The text of a BIRD configuration as tokens.

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::{is_not, tag, take_until, take_while, take_while1},
    character::complete::{anychar, char, multispace1, not_line_ending},
    combinator::{opt, recognize, value, verify},
    multi::many0_count,
    sequence::{delimited, pair, preceded},
};

/// Maximum number of tokens of one configuration.
const MAX_TOKENS: usize = 500_000;

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, a number, an address, a prefix with its range, `bgp_path.len`.
    Word(String),
    /// In double quotes.
    Text(String),
    Symbol(&'static str),
    /// A character that belongs to no token.
    Other(char),
}

/// A token and its line, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) line: usize,
}

/// All tokens. `None`: too many.
pub(super) fn tokens(text: &str) -> Option<Vec<Token>> {
    let (mut rest, mut line, mut found) = (text, 1, Vec::new());
    while !rest.is_empty() {
        let skipped = space(rest).map_or(rest, |(after, ())| after);
        line += lines_between(rest, skipped);
        rest = skipped;
        let Ok((after, kind)) = token(rest) else { break };
        found.push(Token { kind, line });
        line += lines_between(rest, after);
        rest = after;
        if found.len() > MAX_TOKENS {
            return None;
        }
    }
    Some(found)
}

fn lines_between(before: &str, after: &str) -> usize {
    before.get(..before.len() - after.len()).unwrap_or_default().matches('\n').count()
}

fn space(input: &str) -> IResult<&str, ()> {
    let line = preceded(char('#'), not_line_ending);
    let block = recognize((tag("/*"), alt((take_until("*/"), take_while(|_| true))), opt(tag("*/"))));
    value((), many0_count(alt((multispace1, line, block)))).parse(input)
}

fn token(input: &str) -> IResult<&str, Kind> {
    let text = delimited(char('"'), opt(is_not("\"\n")), opt(char('"')));
    let name = delimited(char('\''), is_not("'\n"), char('\''));
    alt((
        text.map(|t: Option<&str>| Kind::Text(t.unwrap_or_default().to_owned())),
        name.map(|t: &str| Kind::Word(t.to_owned())),
        word.map(Kind::Word),
        symbol.map(Kind::Symbol),
        anychar.map(Kind::Other),
    ))
    .parse(input)
}

/// A word; a prefix includes the range after it.
fn word(input: &str) -> IResult<&str, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.:/%".contains(c);
    let mut plain = verify(take_while1(is_part), |w: &str| {
        w.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') || w.starts_with("::")
    });
    let (rest, word): (&str, &str) = plain.parse(input)?;
    if !word.contains('/') {
        return Ok((rest, word.to_owned()));
    }
    let range = recognize(pair(
        char('{'),
        pair(take_while(|c: char| c.is_ascii_digit() || c == ',' || c == ' '), char('}')),
    ));
    let (rest, suffix): (&str, Option<&str>) = opt(alt((range, tag("+"), tag("-")))).parse(rest)?;
    let suffix: String = suffix.unwrap_or_default().split(' ').collect();
    Ok((rest, format!("{word}{suffix}")))
}

fn symbol(input: &str) -> IResult<&str, &'static str> {
    const SYMBOLS: [&str; 25] = [
        "&&", "||", "!=", "!~", ">=", "<=", "->", "[=", "=]", "..", "{", "}", "(", ")", "[", "]", ";", ",",
        "=", "~", "<", ">", "!", "*", "?",
    ];
    for symbol in SYMBOLS {
        if let Some(rest) = input.strip_prefix(symbol) {
            return Ok((rest, symbol));
        }
    }
    Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Tag)))
}

impl Token {
    pub(super) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(super) fn is(&self, symbol: &str) -> bool {
        self.kind_is(symbol)
    }

    fn kind_is(&self, symbol: &str) -> bool {
        matches!(&self.kind, Kind::Symbol(s) if *s == symbol)
    }

    /// The token as written, for messages.
    pub(super) fn text(&self) -> String {
        match &self.kind {
            Kind::Word(word) => word.clone(),
            Kind::Text(text) => format!("\"{text}\""),
            Kind::Symbol(symbol) => (*symbol).to_owned(),
            Kind::Other(c) => c.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_lines_and_prefixes_their_ranges() {
        let text = "a /* x\n y */ \"b c\"; # d\n10.0.0.0/8{16,24}+ ::/0- [= * =] 'e-f' {}";
        let found: Vec<_> = tokens(text).unwrap().iter().map(|t| (t.line, t.text())).collect();
        let expected = [
            (1, "a"),
            (2, "\"b c\""),
            (2, ";"),
            (3, "10.0.0.0/8{16,24}"),
            (3, "+"),
            (3, "::/0-"),
            (3, "[="),
            (3, "*"),
            (3, "=]"),
            (3, "e-f"),
            (3, "{"),
            (3, "}"),
        ];
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
    }
}
