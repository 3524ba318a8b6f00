//! Conditions of filters: expressions → alternatives, each of which one statement can express.

use super::{
    Names,
    token::{Kind, Token},
    unfit::Unfit,
};
use crate::{
    bgp::policy::PrefixRange,
    convert::ranges,
    net::{Asn, Family, Prefix},
};

/// Maximum number of alternatives of one condition.
const MAX_ALTERNATIVES: usize = 64;
/// Maximum nesting of expressions.
const MAX_DEPTH: usize = 40;
/// Maximum number of expressions and prefixes in all functions that one condition calls.
const MAX_PARTS: usize = 10_000;

/// Sources of routes that policies distinguish.
pub(super) const SOURCES: [&str; 3] = ["interface", "network", "bgp"];

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Always(bool),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Prefixes(Vec<PrefixRange>),
    Source(Vec<&'static str>),
    Path(String),
    Communities(Vec<String>),
    OriginAs(Asn),
}

/// Conditions that must hold at the same time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Guard {
    pub(super) prefixes: Option<Vec<PrefixRange>>,
    pub(super) source: Option<Vec<&'static str>>,
    pub(super) path: Option<String>,
    pub(super) communities: Option<Vec<String>>,
    pub(super) origin_as: Option<Asn>,
}

pub(super) struct Parser<'a> {
    tokens: &'a [Token],
    names: &'a Names,
    depth: usize,
    /// Parts of the functions that were inserted.
    parts: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(tokens: &'a [Token], names: &'a Names) -> Self {
        Self { tokens, names, depth: 0, parts: 0 }
    }

    /// The whole expression.
    pub(super) fn condition(mut self) -> Result<Condition, Unfit> {
        let condition = self.or()?;
        if self.tokens.is_empty() { Ok(condition) } else { Err(self.unknown()) }
    }

    fn unknown(&self) -> Unfit {
        let text: Vec<_> = self.tokens.iter().take(8).map(Token::text).collect();
        Unfit::Condition(text.join(" "))
    }

    fn next_is(&mut self, symbol: &str) -> bool {
        match self.tokens {
            [first, rest @ ..] if first.is(symbol) => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn or(&mut self) -> Result<Condition, Unfit> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Unfit::ConditionDepth);
        }
        let mut any = vec![self.and()?];
        while self.next_is("||") {
            any.push(self.not()?);
            if self.tokens.first().is_some_and(|t| t.is("&&")) {
                return Err(Unfit::Precedence);
            }
        }
        self.depth -= 1;
        Ok(if any.len() == 1 { any.remove(0) } else { Condition::Or(any) })
    }

    fn and(&mut self) -> Result<Condition, Unfit> {
        let mut all = vec![self.not()?];
        while self.next_is("&&") {
            all.push(self.not()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::And(all) })
    }

    fn not(&mut self) -> Result<Condition, Unfit> {
        let mut negated = false;
        while self.next_is("!") {
            negated = !negated;
        }
        let condition = self.primary()?;
        Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
    }

    fn primary(&mut self) -> Result<Condition, Unfit> {
        if let Some(community) = self.community() {
            return self.contained(community);
        }
        if self.next_is("(") {
            let inner = self.or()?;
            return if self.next_is(")") { Ok(inner) } else { Err(self.unknown()) };
        }
        let tokens = self.tokens;
        let Some((first, rest)) = tokens.split_first() else { return Err(Unfit::ConditionEnd) };
        let Some(word) = first.word() else { return Err(self.unknown()) };
        if let Some(constant) = constant(word) {
            self.tokens = rest;
            return Ok(Condition::Always(constant));
        }
        if let [open, close, after @ ..] = rest
            && open.is("(")
            && close.is(")")
        {
            self.tokens = after;
            return self.function(word);
        }
        let [operator, after @ ..] = rest else { return Err(self.unknown()) };
        let Kind::Symbol(operator) = operator.kind else { return Err(self.unknown()) };
        let before = self.tokens;
        self.tokens = after;
        let compared = self.comparison(word, operator);
        compared.map_err(|why| {
            self.tokens = before;
            why.unwrap_or_else(|| self.unknown())
        })
    }

    /// A function of the input, inserted for its call.
    fn function(&mut self, name: &str) -> Result<Condition, Unfit> {
        let Some(known) = self.names.conditions.get(name) else {
            return Err(Unfit::Function(name.to_owned()));
        };
        self.parts += known.parts();
        if self.parts > MAX_PARTS {
            return Err(Unfit::ConditionLength);
        }
        Ok(known.clone())
    }

    fn comparison(&mut self, word: &str, operator: &str) -> Result<Condition, Option<Unfit>> {
        let negate = |c: Condition, it: bool| if it { Condition::Not(Box::new(c)) } else { c };
        let is_negated = operator.starts_with('!');
        let compares = matches!(operator, "=" | "!=");
        let condition = match word {
            "net" if compares => Condition::Prefixes(vec![self.prefix().ok_or(None)?]),
            "net" if matches!(operator, "~" | "!~") => Condition::Prefixes(self.prefixes().ok_or(None)?),
            "net.len" => return self.length(operator).ok_or(None),
            "net.type" if compares => {
                let family = match self.word() {
                    Some("NET_IP4") => Family::Ipv4Unicast,
                    Some("NET_IP6") => Family::Ipv6Unicast,
                    _ => return Err(None),
                };
                Condition::Prefixes(vec![ranges::all(family)])
            }
            "source" if compares => Condition::Source(vec![self.source().ok_or(None)?]),
            "source" if matches!(operator, "~" | "!~") => {
                Condition::Source(self.list(Self::source).ok_or(None)?)
            }
            "proto" if compares => self.protocol().ok_or(None)?,
            "bgp_community" | "bgp_large_community" if matches!(operator, "~" | "!~") => {
                Condition::Communities(self.communities().ok_or(None)?)
            }
            "bgp_path" if matches!(operator, "~" | "!~") => Condition::Path(self.mask().ok_or(None)?),
            "bgp_path.len" if compares => match self.word() {
                Some("0") => Condition::Path("^$".into()),
                _ => return Err(None),
            },
            "bgp_path.last" | "bgp_path.last_nonaggregated" if compares => {
                Condition::OriginAs(self.number().ok_or(None)?)
            }
            "bgp_path.first" if compares => Condition::Path(format!("^{}( |$)", self.number().ok_or(None)?)),
            _ => return Err(None),
        };
        Ok(negate(condition, is_negated))
    }

    /// `… ~ bgp_community` after a community.
    fn contained(&mut self, community: String) -> Result<Condition, Unfit> {
        let negated = match self.tokens {
            [operator, list, rest @ ..]
                if matches!(list.word(), Some("bgp_community" | "bgp_large_community"))
                    && (operator.is("~") || operator.is("!~")) =>
            {
                self.tokens = rest;
                operator.is("!~")
            }
            _ => return Err(self.unknown()),
        };
        let condition = Condition::Communities(vec![community]);
        Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
    }

    fn word(&mut self) -> Option<&'a str> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        first.word()
    }

    fn number(&mut self) -> Option<u32> {
        let word = self.word()?;
        self.names.number(word)
    }

    fn prefix(&mut self) -> Option<PrefixRange> {
        range(self.word()?)
    }

    /// A set of prefixes, written here or by name.
    fn prefixes(&mut self) -> Option<Vec<PrefixRange>> {
        if let [first, rest @ ..] = self.tokens
            && let Some(word) = first.word()
        {
            self.tokens = rest;
            return match self.names.prefixes.get(word) {
                Some(set) => Some(set.clone()),
                // `net ~ 10.0.0.0/8`: all inside it.
                None => word.parse::<Prefix>().ok().map(|prefix| {
                    vec![PrefixRange { prefix, ge: prefix.len(), le: prefix.family().max_len() }]
                }),
            };
        }
        self.list(Self::prefix)
    }

    /// `[a, b, …]`.
    fn list<T>(&mut self, one: fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        self.next_is("[").then_some(())?;
        loop {
            all.push(one(self)?);
            if self.next_is("]") {
                return Some(all);
            }
            self.next_is(",").then_some(())?;
        }
    }

    fn source(&mut self) -> Option<&'static str> {
        match self.word()? {
            "RTS_DEVICE" => Some("interface"),
            "RTS_STATIC" => Some("network"),
            "RTS_BGP" => Some("bgp"),
            _ => None,
        }
    }

    fn protocol(&mut self) -> Option<Condition> {
        let (first, rest) = self.tokens.split_first()?;
        let Kind::Text(name) = &first.kind else { return None };
        self.tokens = rest;
        self.names.routes_of(name)
    }

    fn communities(&mut self) -> Option<Vec<String>> {
        self.list(|p| p.community())
    }

    /// `(65001, 7)` or `(65001, 1, 7)`. If it is none, no token is taken.
    pub(super) fn community(&mut self) -> Option<String> {
        let end = self.tokens.iter().position(|t| t.is(")"))?;
        let (pair, rest) = self.tokens.split_at_checked(end + 1)?;
        let number = |t: &Token| self.names.number(t.word()?);
        let community = match pair {
            [open, a, c1, b, _] if open.is("(") && c1.is(",") => {
                let (a, b) = (u16::try_from(number(a)?).ok()?, u16::try_from(number(b)?).ok()?);
                format!("{a}:{b}")
            }
            [open, a, c1, b, c2, c, _] if open.is("(") && c1.is(",") && c2.is(",") => {
                format!("large:{}:{}:{}", number(a)?, number(b)?, number(c)?)
            }
            _ => return None,
        };
        self.tokens = rest;
        Some(community)
    }

    /// `net.len > 24`.
    fn length(&mut self, operator: &str) -> Option<Condition> {
        let n = u8::try_from(self.number()?).ok()?;
        let of = |family: Family| {
            let max = family.max_len();
            let (ge, le) = match operator {
                "=" => (n, n),
                ">" => (n.checked_add(1)?, max),
                ">=" => (n, max),
                "<" => (0, n.checked_sub(1)?),
                "<=" => (0, n),
                _ => return None,
            };
            let all = ranges::all(family);
            (ge <= max).then_some(PrefixRange { ge, le: le.min(max), ..all })
        };
        Some(Condition::Prefixes(Family::ALL.into_iter().filter_map(of).collect()))
    }

    /// `[= * 65001 * =]`, as a regular expression.
    fn mask(&mut self) -> Option<String> {
        self.next_is("[=").then_some(())?;
        let end = self.tokens.iter().position(|t| t.is("=]"))?;
        let (inner, rest) = self.tokens.split_at_checked(end)?;
        self.tokens = rest.get(1..)?;
        let starts = inner.first().is_some_and(|t| t.is("*"));
        let ends = inner.last().is_some_and(|t| t.is("*"));
        let from = usize::from(starts);
        let numbers = inner.get(from..inner.len().saturating_sub(usize::from(ends)).max(from))?;
        let numbers: Option<Vec<String>> =
            numbers.iter().map(|t| self.names.number(t.word()?).map(|n| n.to_string())).collect();
        let numbers = numbers?;
        if numbers.is_empty() {
            return Some(if starts { ".*".into() } else { "^$".into() });
        }
        let (before, after) = (if starts { "_" } else { "^" }, if ends { "_" } else { "$" });
        Some(format!("{before}{}{after}", numbers.join(" ")))
    }
}

fn constant(word: &str) -> Option<bool> {
    match word {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A prefix with the range after it.
pub(super) fn range(word: &str) -> Option<PrefixRange> {
    let bare: Prefix = word.split(['{', '+', '-']).next()?.parse().ok()?;
    let max = bare.family().max_len();
    if word.ends_with('+') {
        return Some(PrefixRange { prefix: bare, ge: bare.len(), le: max });
    }
    if word.ends_with('-') {
        return None;
    }
    word.parse().ok()
}

impl Condition {
    /// Expressions and prefixes, as a measure of its size.
    fn parts(&self) -> usize {
        match self {
            Self::And(parts) | Self::Or(parts) => 1 + parts.iter().map(Self::parts).sum::<usize>(),
            Self::Not(inner) => 1 + inner.parts(),
            Self::Prefixes(set) => 1 + set.len(),
            _ => 1,
        }
    }

    /// The alternatives, of which one must hold.
    pub(super) fn alternatives(&self, negated: bool) -> Result<Vec<Guard>, Unfit> {
        match self {
            Self::Always(it) => Ok(if *it != negated { vec![Guard::default()] } else { Vec::new() }),
            Self::Not(inner) => inner.alternatives(!negated),
            Self::And(parts) if !negated => all_of(parts, negated),
            Self::Or(parts) if negated => all_of(parts, negated),
            Self::And(parts) | Self::Or(parts) => {
                let mut any = Vec::new();
                for part in parts {
                    any.extend(part.alternatives(negated)?);
                    any = limited(any)?;
                }
                Ok(any)
            }
            Self::Prefixes(set) => {
                let set = if negated { complement(set)? } else { set.clone() };
                Ok(vec![Guard { prefixes: Some(set), ..Guard::default() }])
            }
            Self::Source(list) => {
                let source = SOURCES.into_iter().filter(|s| list.contains(s) != negated).collect();
                Ok(vec![Guard { source: Some(source), ..Guard::default() }])
            }
            _ if negated => Err(Unfit::Negated),
            Self::Path(path) => Ok(vec![Guard { path: Some(path.clone()), ..Guard::default() }]),
            Self::Communities(list) => {
                Ok(vec![Guard { communities: Some(list.clone()), ..Guard::default() }])
            }
            Self::OriginAs(asn) => Ok(vec![Guard { origin_as: Some(*asn), ..Guard::default() }]),
        }
    }
}

fn all_of(parts: &[Condition], negated: bool) -> Result<Vec<Guard>, Unfit> {
    let mut all = vec![Guard::default()];
    for part in parts {
        let any = part.alternatives(negated)?;
        let mut both = Vec::new();
        for guard in &all {
            for other in &any {
                both.extend(guard.and(other)?);
            }
        }
        all = limited(both)?;
    }
    Ok(all)
}

fn limited(guards: Vec<Guard>) -> Result<Vec<Guard>, Unfit> {
    if guards.len() > MAX_ALTERNATIVES { Err(Unfit::Alternatives) } else { Ok(guards) }
}

fn complement(set: &[PrefixRange]) -> Result<Vec<PrefixRange>, Unfit> {
    let all = Family::ALL.map(ranges::all).to_vec();
    ranges::minus_all(all, set).ok_or(Unfit::Ranges)
}

impl Guard {
    /// The conditions of both. `None`: nothing can match.
    pub(super) fn and(&self, other: &Self) -> Result<Option<Self>, Unfit> {
        let mut both = self.clone();
        if let Some(set) = &other.prefixes {
            both.prefixes = Some(match &self.prefixes {
                Some(own) => ranges::common(own, set).ok_or(Unfit::Ranges)?,
                None => set.clone(),
            });
        }
        if let Some(list) = &other.source {
            let own = self.source.as_deref().unwrap_or(&SOURCES);
            both.source = Some(own.iter().copied().filter(|s| list.contains(s)).collect());
        }
        fn one<T: Clone + PartialEq>(own: &mut Option<T>, other: &Option<T>) -> Result<(), Unfit> {
            match (&own, other) {
                (Some(a), Some(b)) if a != b => Err(Unfit::TwoConditions),
                (None, Some(b)) => {
                    *own = Some(b.clone());
                    Ok(())
                }
                _ => Ok(()),
            }
        }
        one(&mut both.path, &other.path)?;
        one(&mut both.communities, &other.communities)?;
        one(&mut both.origin_as, &other.origin_as)?;
        let is_empty = both.prefixes.as_ref().is_some_and(Vec::is_empty)
            || both.source.as_ref().is_some_and(Vec::is_empty);
        Ok((!is_empty).then_some(both))
    }
}
