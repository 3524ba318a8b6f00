//! BIRD 2 and 3: the part of their language that hosts use.
//!
//! `token` and `tree` read the text, `condition` and `filter` the filters, `protocol` the blocks of
//! BGP, `local` those of static, direct and kernel routes, and `finish` combines the results.

mod condition;
mod filter;
mod finish;
mod local;
mod protocol;
mod token;
mod tree;
mod unfit;

use std::collections::BTreeMap;

use condition::{Condition, Parser};
use local::Local;
use protocol::Bgp;
use token::{Token, tokens};
use tree::{Node, Statement};
use unfit::Unfit;

use super::{
    ConvertError, Input,
    ledger::{Ledger, LineId, Outcome},
    ranges,
    router::Router,
};
use crate::{
    bgp::policy::PrefixRange,
    net::{Family, PerFamily},
};

/// The definitions of names.
#[derive(Debug, Default)]
struct Names {
    numbers: BTreeMap<String, u32>,
    prefixes: BTreeMap<String, Vec<PrefixRange>>,
    /// Functions without arguments that return a condition.
    conditions: BTreeMap<String, Condition>,
    filters: BTreeMap<String, Vec<Statement>>,
    /// Each with the template on which it is based.
    templates: BTreeMap<String, (Option<String>, Vec<Statement>)>,
    protocols: Vec<Protocol>,
}

/// The routes of a protocol.
#[derive(Debug)]
struct Protocol {
    name: Option<String>,
    source: &'static str,
    families: PerFamily<bool>,
}

/// The ledger, indexed by line across all files.
#[derive(Debug, Default)]
struct Lines {
    ledger: Ledger,
    by_line: BTreeMap<usize, LineId>,
}

/// Everything that was read.
#[derive(Debug, Default)]
struct Read {
    names: Names,
    lines: Lines,
    router_id: Option<String>,
    bgp: Vec<Bgp>,
    local: Local,
}

/// Reads all files and converts them.
pub(super) fn convert(inputs: &[Input]) -> Result<(Router, Ledger), ConvertError> {
    let mut read = Read::default();
    let mut all = Vec::new();
    let mut base = 0;
    for input in inputs {
        let too_much =
            || ConvertError::NothingToConvert(format!("{}: the file has too many parts", input.name));
        let mut tokens = tokens(&input.text).ok_or_else(too_much)?;
        tokens.iter_mut().for_each(|t| t.line += base);
        read.lines.register(input, &tokens, base);
        let statements = tree::statements(&tokens)
            .map_err(|_| ConvertError::NothingToConvert(format!("{}: blocks are too deep", input.name)))?;
        all.extend(statements);
        base += input.text.lines().count() + 1;
    }
    all.iter().for_each(|s| read.name(s));
    all.iter().for_each(|s| read.function(s));
    all.iter().for_each(|s| read.statement(s));
    finish::finish(read)
}

impl Lines {
    fn register(&mut self, input: &Input, tokens: &[Token], base: usize) {
        let lines: Vec<&str> = input.text.lines().collect();
        for token in tokens {
            let number = token.line - base;
            let text = lines.get(number.saturating_sub(1)).copied().unwrap_or_default();
            self.by_line.entry(token.line).or_insert_with(|| self.ledger.add(&input.name, number, text));
        }
    }

    fn note(&mut self, line: usize, outcome: Outcome, reason: impl Into<String>) {
        if let Some(at) = self.by_line.get(&line) {
            self.ledger.note(*at, outcome, reason);
        }
    }

    fn not_needed(&mut self, statement: &Statement, reason: &str) {
        self.note_all(statement, Outcome::NotNeeded, reason);
    }

    fn not_carried(&mut self, statement: &Statement, reason: &str) {
        self.note_all(statement, Outcome::NotCarried, reason);
    }

    fn differs(&mut self, line: usize, reason: impl Into<String>) {
        self.note(line, Outcome::Differs, reason);
    }

    /// Notes an outcome for every line of a statement and its block.
    fn note_all(&mut self, statement: &Statement, outcome: Outcome, reason: &str) {
        let ids: Vec<LineId> =
            self.by_line.range(statement.line..=statement.last_line).map(|(_, id)| *id).collect();
        ids.into_iter().for_each(|id| self.ledger.note(id, outcome, reason));
    }
}

impl Names {
    fn number(&self, word: &str) -> Option<u32> {
        word.parse().ok().or_else(|| self.numbers.get(word).copied())
    }

    /// The condition for the routes of one protocol. `None`: policies do not distinguish them from
    /// those of another one.
    fn routes_of(&self, name: &str) -> Option<Condition> {
        let is_named = |p: &&Protocol| p.name.as_deref() == Some(name);
        let known = self.protocols.iter().find(is_named)?;
        let source = Condition::Source(vec![known.source]);
        let others = || self.protocols.iter().filter(|p| !is_named(p) && p.source == known.source);
        if others().next().is_none() {
            return Some(source);
        }
        let of_it = || Family::ALL.into_iter().filter(|f| known.families[*f]);
        if of_it().any(|f| others().any(|p| p.families[f])) {
            return None;
        }
        Some(Condition::And(vec![source, Condition::Prefixes(of_it().map(ranges::all).collect())]))
    }
}

impl Read {
    /// Records a name, which filters may use before it is defined.
    fn name(&mut self, statement: &Statement) {
        match statement.words().as_slice() {
            ["define", name] => {
                let rest: Vec<Token> =
                    statement.nodes.iter().skip(3).filter_map(|n| n.token().cloned()).collect();
                if let [number] = rest.as_slice()
                    && let Some(n) = number.word().and_then(|w| self.names.number(w))
                {
                    self.names.numbers.insert((*name).to_owned(), n);
                } else if let Some(set) = prefix_set(&rest, &self.names) {
                    self.names.prefixes.insert((*name).to_owned(), set);
                } else {
                    self.lines
                        .not_carried(statement, "only numbers and sets of prefixes are known as constants");
                }
            }
            ["filter", name] => {
                let body = statement.block().unwrap_or_default().to_vec();
                self.names.filters.insert((*name).to_owned(), body);
            }
            ["template", "bgp", name, rest @ ..] => {
                let parent = if let ["from", parent] = rest { Some((*parent).to_owned()) } else { None };
                let body = statement.block().unwrap_or_default().to_vec();
                self.names.templates.insert((*name).to_owned(), (parent, body));
            }
            ["protocol", kind @ ("static" | "direct"), rest @ ..] => {
                let source = if *kind == "static" { "network" } else { "interface" };
                let body = statement.block().unwrap_or_default();
                let has = |family: &str| body.iter().any(|s| s.words().first() == Some(&family));
                let families = match (has("ipv4"), has("ipv6")) {
                    (false, false) => PerFamily::both(true),
                    (ipv4, ipv6) => PerFamily::new(ipv4, ipv6),
                };
                let name = rest.first().map(|name| (*name).to_owned());
                self.names.protocols.push(Protocol { name, source, families });
            }
            _ => {}
        }
    }

    /// `function is_ours() { return net ~ […]; }`.
    fn function(&mut self, statement: &Statement) {
        let [Node::Token(first), Node::Token(name), ..] = statement.nodes.as_slice() else { return };
        let (Some("function"), Some(name)) = (first.word(), name.word()) else { return };
        let has_arguments = !statement.nodes.get(3).is_some_and(|n| n.is_symbol(")"));
        let condition = match statement.block() {
            Some([only]) if !has_arguments && only.nodes.first().is_some_and(|n| n.is_word("return")) => {
                let tokens: Vec<Token> =
                    only.nodes.iter().skip(1).filter_map(|n| n.token().cloned()).collect();
                Parser::new(&tokens, &self.names).condition()
            }
            _ => Err(Unfit::Arguments),
        };
        match condition {
            Ok(condition) => {
                self.names.conditions.insert(name.to_owned(), condition);
            }
            Err(why) => self.lines.not_carried(statement, &why.to_string()),
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement.words().as_slice() {
            ["router", "id", id] if id.parse::<std::net::Ipv4Addr>().is_ok() => {
                self.router_id = Some((*id).to_owned());
            }
            ["router", "id", ..] => {
                self.lines.not_carried(statement, "write the address into bgp.router-id; it has a default");
            }
            ["define" | "filter", ..] | ["template", "bgp", ..] | ["function", ..] => {}
            ["protocol", kind, ..] => self.protocol(statement, kind),
            [
                "log" | "debug" | "timeformat" | "watchdog" | "mrtdump" | "threads" | "eval" | "cli"
                | "hostname",
                ..,
            ] => {
                self.lines.not_needed(statement, "it is about the other daemon itself");
            }
            ["graceful", "restart", ..] => {
                self.lines.not_needed(statement, "routes are swept neighbor by neighbor")
            }
            ["ipv4" | "ipv6", "table", "master4" | "master6"] => {
                self.lines.not_needed(statement, "routelet has this table alone");
            }
            ["include"] => {
                self.lines.not_carried(statement, "name the included files on the command line as well")
            }
            _ => self.lines.not_carried(statement, "not known to routelet"),
        }
    }

    fn protocol(&mut self, statement: &Statement, kind: &str) {
        match kind {
            "bgp" => {
                let bgp = Bgp::read(statement, &self.names, &mut self.lines, self.bgp.len());
                self.bgp.push(bgp);
            }
            "static" | "direct" | "kernel" => self.local.read(statement, kind, &self.names, &mut self.lines),
            "device" => self.lines.not_needed(statement, "interfaces are followed anyway"),
            "bfd" => self.lines.not_needed(statement, "timers of BFD belong to a neighbor: `bfd`"),
            _ => self.lines.not_carried(statement, "routelet has no such protocol"),
        }
    }
}

/// `[ 10.0.0.0/8+, … ]`.
fn prefix_set(tokens: &[Token], names: &Names) -> Option<Vec<PrefixRange>> {
    let [open, inner @ .., close] = tokens else { return None };
    (open.is("[") && close.is("]")).then_some(())?;
    let mut set = Vec::new();
    for part in inner.split(|t| t.is(",")) {
        let [one] = part else { return None };
        match names.prefixes.get(one.word()?) {
            Some(known) => set.extend(known.iter().copied()),
            None => set.push(condition::range(one.word()?)?),
        }
    }
    Some(set)
}
