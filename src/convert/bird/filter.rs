//! Filters → statements of a policy.
//!
//! A filter is a program, and a policy a list of statements; both continue until something accepts
//! or rejects. From the first part on that a statement cannot express, the policy rejects.

use serde_json::Value;

use super::{
    Names,
    condition::{Condition, Guard, Parser},
    token::Token,
    tree::{Node, Statement},
    unfit::Unfit,
};
use crate::{
    bgp::policy::PrefixRange,
    convert::router::{Keys, append, set},
    net::{Asn, Family},
};

/// Maximum number of statements of one filter.
const MAX_STATEMENTS: usize = 500;
/// Maximum nesting of blocks.
const MAX_DEPTH: usize = 40;

/// One step of a filter.
#[derive(Clone, Debug)]
struct Rule {
    guard: Guard,
    changes: Keys,
    accept: Option<bool>,
}

/// What a filter does, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Compiled {
    rules: Vec<Rule>,
    /// The line from which it cannot be expressed, and why.
    pub(super) unfit: Option<(usize, Unfit)>,
    /// `krt_prefsrc = …`, for the kernel.
    pub(super) sources: Vec<String>,
}

pub(super) struct Compiler<'a> {
    names: &'a Names,
    own_as: Asn,
    compiled: Compiled,
    /// Kinds of attributes that an earlier statement may have changed.
    changed: Vec<&'static str>,
    depth: usize,
}

type Done = Result<bool, (usize, Unfit)>;

/// Compiles the body of a filter. A filter that ends without a decision rejects.
pub(super) fn compile(body: &[Statement], names: &Names, own_as: Asn) -> Compiled {
    let mut compiler =
        Compiler { names, own_as, compiled: Compiled::default(), changed: Vec::new(), depth: 0 };
    if let Err(unfit) = compiler.block(body, &Guard::default()) {
        compiler.compiled.unfit = Some(unfit);
    }
    compiler.compiled
}

/// `where CONDITION`.
pub(super) fn compile_where(condition: &[Token], line: usize, names: &Names) -> Compiled {
    let mut compiled = Compiled::default();
    let alternatives = Parser::new(condition, names).condition().and_then(|c| c.alternatives(false));
    match alternatives {
        Ok(guards) => {
            compiled.rules = guards
                .into_iter()
                .map(|guard| Rule { guard, changes: Keys::new(), accept: Some(true) })
                .collect();
        }
        Err(why) => compiled.unfit = Some((line, why)),
    }
    compiled
}

impl Compiler<'_> {
    fn push(
        &mut self,
        line: usize,
        guard: &Guard,
        changes: Keys,
        accept: Option<bool>,
    ) -> Result<(), (usize, Unfit)> {
        if self.compiled.rules.len() >= MAX_STATEMENTS {
            return Err((line, Unfit::Branches));
        }
        let reads_changed = guard.communities.is_some() && self.changed.contains(&"communities")
            || (guard.path.is_some() || guard.origin_as.is_some()) && self.changed.contains(&"path");
        if reads_changed {
            return Err((line, Unfit::ReadsChanged));
        }
        if accept.is_none() {
            let names = |key: &str| match key {
                "add-communities" | "remove-communities" => Some("communities"),
                "prepend-as" => Some("path"),
                _ => None,
            };
            self.changed.extend(changes.keys().filter_map(|k| names(k)));
        }
        self.compiled.rules.push(Rule { guard: guard.clone(), changes, accept });
        Ok(())
    }

    /// Returns whether every route that reaches the block is accepted or rejected.
    fn block(&mut self, body: &[Statement], guard: &Guard) -> Done {
        self.depth += 1;
        let first_line = body.first().map_or(0, |s| s.line);
        if self.depth > MAX_DEPTH {
            return Err((first_line, Unfit::BlockDepth));
        }
        let mut changes = Keys::new();
        let mut rest = body;
        while let Some((statement, after)) = rest.split_first() {
            rest = after;
            let line = statement.line;
            match statement.nodes.first().and_then(Node::token).and_then(Token::word) {
                Some(word @ ("accept" | "reject")) if statement.nodes.len() == 1 => {
                    let accept = word == "accept";
                    let changes = if accept { changes } else { Keys::new() };
                    self.push(line, guard, changes, Some(accept))?;
                    self.depth -= 1;
                    return Ok(true);
                }
                Some("if") => {
                    if !changes.is_empty() {
                        self.push(line, guard, std::mem::take(&mut changes), None)?;
                    }
                    let otherwise = match after.first() {
                        Some(next) if next.nodes.first().is_some_and(|n| n.is_word("else")) => {
                            rest = after.get(1..).unwrap_or_default();
                            Some(next)
                        }
                        _ => None,
                    };
                    if self.branch(statement, otherwise, guard)? {
                        self.depth -= 1;
                        return Ok(true);
                    }
                }
                Some("print" | "printn") => {}
                _ => self.change(statement, &mut changes).map_err(|why| (line, why))?,
            }
        }
        if !changes.is_empty() {
            self.push(first_line, guard, changes, None)?;
        }
        self.depth -= 1;
        Ok(false)
    }

    fn branch(&mut self, statement: &Statement, otherwise: Option<&Statement>, guard: &Guard) -> Done {
        let line = statement.line;
        let unfit = |why: Unfit| (line, why);
        let nodes = &statement.nodes;
        let then = nodes.iter().position(|n| n.is_word("then"));
        let Some(then) = then else { return Err(unfit(Unfit::NoThen)) };
        let tokens: Vec<Token> =
            nodes.get(1..then).unwrap_or_default().iter().filter_map(|n| n.token().cloned()).collect();
        let condition = Parser::new(&tokens, self.names).condition().map_err(unfit)?;
        let behind = nodes.get(then + 1..).unwrap_or_default();
        let is_nested = behind.iter().any(|n| n.is_word("if"));
        let else_at = behind.iter().position(|n| n.is_word("else"));
        if is_nested
            && (else_at.is_some() || otherwise.is_some())
            && !matches!(behind.first(), Some(Node::Block(_)))
        {
            return Err(unfit(Unfit::NoBraces));
        }
        let yes = as_body(behind.get(..else_at.unwrap_or(behind.len())).unwrap_or_default(), line);
        let no = match (else_at, otherwise) {
            (Some(at), next) => {
                let mut body = as_body(behind.get(at + 1..).unwrap_or_default(), line);
                // The next statement belongs to the `if` after this `else`.
                body.extend(next.cloned());
                body
            }
            (None, Some(next)) => as_body(next.nodes.get(1..).unwrap_or_default(), next.line),
            (None, None) => Vec::new(),
        };
        let ends = self.alternatives(&condition, false, &yes, guard, line)?;
        if no.is_empty() {
            return Ok(ends && condition == Condition::Always(true));
        }
        if ends {
            // Routes that get here did not meet the condition.
            return self.block(&no, guard);
        }
        self.alternatives(&condition, true, &no, guard, line)?;
        Ok(false)
    }

    /// Returns whether the body decides about each route that meets the condition.
    fn alternatives(
        &mut self,
        condition: &Condition,
        negated: bool,
        body: &[Statement],
        guard: &Guard,
        line: usize,
    ) -> Done {
        let unfit = |why: Unfit| (line, why);
        let guards = condition.alternatives(negated).map_err(unfit)?;
        let many = guards.len() > 1;
        let mut ends = true;
        for alternative in guards {
            let Some(both) = guard.and(&alternative).map_err(unfit)? else { continue };
            ends &= self.block(body, &both)?;
        }
        if many && !ends {
            return Err(unfit(Unfit::ChangedTwice));
        }
        Ok(ends)
    }

    fn change(&mut self, statement: &Statement, changes: &mut Keys) -> Result<(), Unfit> {
        let tokens: Vec<Token> = statement.nodes.iter().filter_map(|n| n.token().cloned()).collect();
        let text = || tokens.iter().take(10).map(Token::text).collect::<Vec<_>>().join(" ");
        let unknown = || Unfit::Step(text());
        if tokens.len() != statement.nodes.len() {
            return Err(unknown());
        }
        match tokens.as_slice() {
            [name, equals, value] if equals.is("=") => self.assign(name, value, changes).ok_or_else(unknown),
            [method, open, inner @ .., close] if open.is("(") && close.is(")") => {
                self.call(method.word().unwrap_or_default(), inner, changes).ok_or_else(unknown)
            }
            [name, equals, function, open, first, comma, inner @ .., close]
                if equals.is("=")
                    && open.is("(")
                    && comma.is(",")
                    && close.is(")")
                    && name == &renamed(first, name) =>
            {
                let method =
                    format!("{}.{}", name.word().unwrap_or_default(), function.word().unwrap_or_default());
                self.call(&method, inner, changes).ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }

    fn assign(&mut self, name: &Token, value: &Token, changes: &mut Keys) -> Option<()> {
        let key = match name.word()? {
            "bgp_local_pref" => "set-local-pref",
            "bgp_med" => "set-med",
            "krt_prefsrc" => {
                let addr: std::net::IpAddr = value.word()?.parse().ok()?;
                self.compiled.sources.push(addr.to_string());
                return Some(());
            }
            _ => return None,
        };
        set(changes, key, self.names.number(value.word()?)?);
        Some(())
    }

    fn call(&mut self, method: &str, inner: &[Token], changes: &mut Keys) -> Option<()> {
        match method {
            "bgp_path.prepend" => {
                let [number] = inner else { return None };
                (self.names.number(number.word()?)? == self.own_as).then_some(())?;
                let times = changes.get("prepend-as").and_then(Value::as_u64).unwrap_or(0) + 1;
                (times <= 50).then(|| set(changes, "prepend-as", times))
            }
            "bgp_community.add" | "bgp_large_community.add" => {
                let community = self.community(inner)?;
                // The last step counts.
                drop_text(changes, "remove-communities", &community);
                append(changes, "add-communities", [community]);
                Some(())
            }
            "bgp_community.delete" | "bgp_large_community.delete" => {
                let community = self.community(inner)?;
                drop_text(changes, "add-communities", &community);
                append(changes, "remove-communities", [community]);
                Some(())
            }
            _ => None,
        }
    }

    fn community(&self, tokens: &[Token]) -> Option<String> {
        // The community must be the whole text.
        let end = tokens.iter().position(|t| t.is(")"))?;
        (end + 1 == tokens.len()).then_some(())?;
        Parser::new(tokens, self.names).community()
    }
}

/// `first` at the line of `name`, so that the two can be compared.
fn renamed(first: &Token, name: &Token) -> Token {
    Token { kind: first.kind.clone(), line: name.line }
}

fn drop_text(keys: &mut Keys, key: &str, text: &str) {
    if let Some(Value::Array(list)) = keys.get_mut(key) {
        list.retain(|v| v != text);
        if list.is_empty() {
            keys.remove(key);
        }
    }
}

/// A branch: a block, or one statement.
fn as_body(nodes: &[Node], line: usize) -> Vec<Statement> {
    match nodes {
        [] => Vec::new(),
        [Node::Block(statements)] => statements.clone(),
        nodes => vec![Statement { line, last_line: line, nodes: nodes.to_vec() }],
    }
}

impl Compiled {
    /// Rejects everything, for a reason.
    pub(super) fn unfit(line: usize, why: Unfit) -> Self {
        Self { unfit: Some((line, why)), ..Self::default() }
    }

    pub(super) fn accept_all() -> Self {
        Self {
            rules: vec![Rule { guard: Guard::default(), changes: Keys::new(), accept: Some(true) }],
            ..Self::default()
        }
    }

    /// The changes that it makes before any decision: all changes, if it decides nothing.
    pub(super) fn changes(&self, family: Family) -> Vec<Keys> {
        self.rules.iter().filter(|r| r.accept.is_none()).filter_map(|rule| rule.statement(family)).collect()
    }

    /// Whether it only changes routes, and all changes can be expressed.
    pub(super) fn only_changes(&self) -> bool {
        self.unfit.is_none() && self.rules.iter().all(|r| r.accept.is_none())
    }

    /// Whether every route is accepted as it is.
    pub(super) fn accepts_all(&self) -> bool {
        match self.rules.as_slice() {
            [Rule { guard, changes, accept: Some(true) }] => *guard == Guard::default() && changes.is_empty(),
            _ => false,
        }
    }

    /// Whether all learned routes are accepted, regardless of others: for filters of the kernel
    /// protocol.
    pub(super) fn accepts_all_learned(&self) -> bool {
        let learned = |guard: &Guard| guard.source.as_ref().is_none_or(|s| s.contains(&"bgp"));
        let relevant = self.rules.iter().find(|r| learned(&r.guard) && r.accept.is_some());
        self.unfit.is_none()
            && relevant.is_some_and(|r| {
                r.accept == Some(true) && Guard { source: None, ..r.guard.clone() } == Guard::default()
            })
    }

    /// The statements for one family. Routes without a decision are rejected.
    pub(super) fn statements(&self, family: Family) -> Vec<Keys> {
        let mut statements: Vec<Keys> = self.rules.iter().filter_map(|rule| rule.statement(family)).collect();
        let mut last = Keys::new();
        append(&mut last, "families", [family.as_str()]);
        set(&mut last, "action", "reject");
        let decides = |keys: &Keys| {
            keys.contains_key("action")
                && keys.keys().all(|k| k == "families" || k == "action" || CHANGES.contains(&k.as_str()))
        };
        match statements.iter().position(decides) {
            Some(at) => statements.truncate(at + 1),
            None => statements.push(last),
        }
        statements
    }
}

const CHANGES: [&str; 5] =
    ["set-local-pref", "set-med", "prepend-as", "add-communities", "remove-communities"];

impl Rule {
    /// `None`: it matches nothing of the family, or does nothing.
    fn statement(&self, family: Family) -> Option<Keys> {
        let Guard { prefixes, source, path, communities, origin_as } = &self.guard;
        let mut keys = Keys::new();
        match prefixes {
            Some(all) => {
                let of_family: Vec<&PrefixRange> =
                    all.iter().filter(|r| r.prefix.family() == family).collect();
                match of_family.as_slice() {
                    [] => return None,
                    [one] if **one == crate::convert::ranges::all(family) => {
                        append(&mut keys, "families", [family.as_str()]);
                    }
                    some => append(&mut keys, "prefixes", some.iter().map(ToString::to_string)),
                }
            }
            None => append(&mut keys, "families", [family.as_str()]),
        }
        if let Some(source) = source {
            append(&mut keys, "source", source.iter().copied());
        }
        if let Some(path) = path {
            set(&mut keys, "as-path", path.as_str());
        }
        if let Some(communities) = communities {
            append(&mut keys, "communities", communities.iter().cloned());
        }
        if let Some(asn) = origin_as {
            set(&mut keys, "origin-as", Value::from(vec![*asn]));
        }
        keys.extend(self.changes.clone());
        if let Some(accept) = self.accept {
            set(&mut keys, "action", if accept { "accept" } else { "reject" });
        }
        (self.accept.is_some() || !self.changes.is_empty()).then_some(keys)
    }
}
