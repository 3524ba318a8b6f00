//! Routes of the host itself: `protocol static`, `direct` and `kernel`.

use super::{
    Lines, Names,
    filter::{self, Compiled},
    protocol::{Filter, is_on},
    token::Kind,
    tree::{Node, Statement},
    unfit::Unfit,
};
use crate::{
    convert::{
        ledger::Outcome,
        router::{Keys, set},
    },
    net::{Family, PerFamily, Prefix},
};

/// What the host originates and installs.
#[derive(Debug, Default)]
pub(super) struct Local {
    pub(super) networks: Vec<Prefix>,
    /// The changes of `route … { … }`, by prefix.
    pub(super) changes: Vec<(Prefix, Keys)>,
    pub(super) interfaces: Vec<String>,
    /// Interfaces of `protocol direct`, by family.
    interfaces_of: PerFamily<Vec<String>>,
    /// Families of `protocol direct`.
    pub(super) connected: PerFamily<bool>,
    /// Line of the last `protocol direct`.
    pub(super) direct_line: usize,
    pub(super) requires_carrier: bool,
    /// Families that are exported to the kernel.
    pub(super) installed: PerFamily<bool>,
    pub(super) fib: Keys,
    pub(super) sources: Vec<String>,
    pub(super) max_paths: Option<u32>,
    pub(super) persists: bool,
}

impl Local {
    pub(super) fn read(&mut self, statement: &Statement, kind: &str, names: &Names, lines: &mut Lines) {
        let body = statement.block().unwrap_or_default();
        if body.iter().any(|s| matches!(s.plain().as_slice(), ["disabled", rest @ ..] if is_on(rest))) {
            lines.not_needed(statement, "the protocol is disabled");
            return;
        }
        match kind {
            "static" => self.statics(body, names, lines),
            "direct" => {
                self.direct_line = statement.line;
                self.direct(body, lines);
            }
            _ => self.kernel(body, names, lines),
        }
    }

    fn statics(&mut self, body: &[Statement], names: &Names, lines: &mut Lines) {
        let is_filtered = body.iter().any(is_filtered);
        for statement in body {
            let plain = statement.plain();
            match plain.as_slice() {
                ["route", ..] if is_filtered => {
                    let what = "its channel has a filter or a table, which have no counterpart: it is not advertised";
                    lines.not_carried(statement, what);
                }
                ["route", prefix, "unreachable" | "blackhole" | "prohibit" | "reject"] => {
                    match prefix.parse::<Prefix>() {
                        Ok(prefix) if prefix.len() > 0 => self.network(prefix, statement, names, lines),
                        _ => lines.not_carried(statement, "not a prefix that a host originates"),
                    }
                }
                ["route", ..] => {
                    let what = "routelet has no static routes; the network configuration of the host has";
                    lines.not_carried(statement, what);
                }
                ["ipv4" | "ipv6"] if statement.block().unwrap_or_default().is_empty() => {}
                ["check", "link", ..] => lines.not_needed(statement, "such routes have no link"),
                _ => lines.not_carried(statement, "not known to routelet"),
            }
        }
    }

    fn network(&mut self, prefix: Prefix, statement: &Statement, names: &Names, lines: &mut Lines) {
        let Some(body) = statement.block() else {
            self.networks.push(prefix);
            return;
        };
        // The own AS number cannot be prepended here: it depends on the neighbor's session.
        let compiled = filter::compile(body, names, 0);
        if let Some((line, why)) = &compiled.unfit {
            lines.note(*line, Outcome::NotCarried, why.to_string());
        }
        // Filters of neighbors may test what the block sets.
        if !compiled.only_changes() {
            lines.not_carried(statement, "its block has no counterpart: it is not advertised");
            return;
        }
        self.networks.push(prefix);
        for mut keys in compiled.changes(prefix.family()) {
            keys.remove("families");
            self.changes.push((prefix, keys));
        }
    }

    fn direct(&mut self, body: &[Statement], lines: &mut Lines) {
        let mut named = Vec::new();
        let mut is_named = false;
        let mut families = PerFamily::both(false);
        for statement in body {
            match statement.words().as_slice() {
                ["ipv4" | "ipv6"] if is_filtered(statement) => {
                    let what = "it has no counterpart: no connected subnet of this family is advertised";
                    lines.not_carried(statement, what);
                }
                ["ipv4"] => families[Family::Ipv4Unicast] = true,
                ["ipv6"] => families[Family::Ipv6Unicast] = true,
                ["check", "link", rest @ ..] => self.requires_carrier = is_on(rest),
                ["interface"] => {
                    is_named = true;
                    match patterns(statement) {
                        Some(patterns) => named.extend(patterns),
                        None => {
                            let what = "only patterns of names have a counterpart: no such subnet is advertised; \
                                        name the interfaces in advertise.interfaces";
                            lines.not_carried(statement, what);
                        }
                    }
                }
                _ => lines.not_carried(statement, "not known to routelet"),
            }
        }
        if !is_named {
            named.extend(["*".to_owned(), "lo".to_owned()]);
        }
        if named.iter().any(|n| n == "*") {
            named.push("lo".to_owned());
        }
        for family in Family::ALL.into_iter().filter(|f| families[*f]) {
            self.interfaces_of[family].extend(named.iter().cloned());
            self.connected[family] = true;
        }
        if families != PerFamily::both(false) {
            self.interfaces.extend(named);
        }
    }

    fn kernel(&mut self, body: &[Statement], names: &Names, lines: &mut Lines) {
        let mut family = Family::Ipv4Unicast;
        for statement in body {
            match statement.plain().as_slice() {
                ["ipv4"] => self.kernel_channel(family, statement, names, lines),
                ["ipv6"] => {
                    family = Family::Ipv6Unicast;
                    self.kernel_channel(family, statement, names, lines);
                }
                ["persist", rest @ ..] => self.persists |= is_on(rest),
                ["scan", "time", _] | ["device", "routes", ..] | ["graceful", "restart", ..] => {
                    lines.not_needed(statement, "the kernel is followed anyway");
                }
                ["kernel", "table", n] | ["metric", n] => {
                    let key = if statement.words().first() == Some(&"metric") { "metric" } else { "table" };
                    match n.parse::<u32>().ok().filter(|n| *n > 0 && *n != 255 && *n < u32::MAX) {
                        Some(n) => set(&mut self.fib, key, n),
                        None => lines.not_carried(statement, "the number is not one that routelet takes"),
                    }
                }
                ["merge", "paths"] => self.max_paths = Some(16),
                ["merge", "paths", "limit", n] | ["merge", "paths", _, "limit", n] => {
                    self.paths(n, statement, lines)
                }
                ["merge", "paths", rest @ ..] if is_on(rest) => self.max_paths = Some(16),
                ["merge", "paths", ..] => {}
                ["learn", rest @ ..] if is_on(rest) => {
                    lines.not_carried(statement, "routes of others in the kernel are not advertised");
                }
                ["learn", ..] => {}
                _ => lines.not_carried(statement, "not known to routelet"),
            }
        }
    }

    /// Whether subnets of further interfaces are advertised, which this family does not include.
    pub(super) fn has_further_interfaces(&self, family: Family) -> bool {
        let of_it = &self.interfaces_of[family];
        !of_it.iter().any(|i| i == "*") && self.interfaces.iter().any(|i| !of_it.contains(i))
    }

    fn paths(&mut self, word: &str, statement: &Statement, lines: &mut Lines) {
        match word.parse::<u32>() {
            Ok(n @ 1..=1024) => self.max_paths = Some(n),
            _ => lines.not_carried(statement, "1 to 1024 paths"),
        }
    }

    fn kernel_channel(&mut self, family: Family, statement: &Statement, names: &Names, lines: &mut Lines) {
        for inner in statement.block().unwrap_or_default() {
            let words = inner.words();
            match words.as_slice() {
                ["export", ..] => {
                    let filter = Filter::read(inner);
                    let compiled = filter.as_ref().map(|f| f.compiled(names, 0));
                    let accepts = compiled.as_ref().is_some_and(Compiled::accepts_all_learned);
                    self.installed[family] = accepts;
                    match compiled {
                        Some(compiled) if accepts => self.sources.extend(compiled.sources),
                        _ if filter == Some(Filter::None) => {}
                        _ => lines.not_carried(
                            inner,
                            "all learned routes are installed, or none: none are; filter on import, and set fib.install",
                        ),
                    }
                }
                ["import", "none"] => {}
                ["import", ..] => {
                    lines.not_carried(inner, "routes of others in the kernel are not advertised")
                }
                _ => lines.not_carried(inner, "not known to routelet"),
            }
        }
    }
}

/// Whether a channel accepts only some routes, or puts them into another table.
fn is_filtered(statement: &Statement) -> bool {
    let is_channel = matches!(statement.words().first(), Some(&("ipv4" | "ipv6")));
    let is_plain =
        |s: &Statement| matches!(s.words().as_slice(), ["import", "all"] | ["export" | "preference", ..]);
    is_channel && !statement.block().unwrap_or_default().iter().all(is_plain)
}

impl Filter {
    /// The compiled filter. A filter that is not in the input rejects.
    pub(super) fn compiled(&self, names: &Names, own_as: crate::net::Asn) -> Compiled {
        match self {
            Self::All => Compiled::accept_all(),
            Self::None | Self::Unfit => Compiled::default(),
            Self::Named { name, line } => match names.filters.get(name) {
                Some(body) => filter::compile(body, names, own_as),
                None => Compiled::unfit(*line, Unfit::MissingFilter(name.clone())),
            },
            Self::Body { body, .. } => filter::compile(body, names, own_as),
            Self::Where { condition, line } => filter::compile_where(condition, *line, names),
        }
    }
}

/// The patterns of names in `interface "…", "…"`. `None` if there are other conditions.
fn patterns(statement: &Statement) -> Option<Vec<String>> {
    let is_plain = |node: &Node| match node {
        Node::Token(t) => match &t.kind {
            Kind::Text(pattern) => !pattern.starts_with('-'),
            _ => t.is(","),
        },
        Node::Block(_) => false,
    };
    let patterns = || statement.plain().into_iter().skip(1).filter(|p| *p != ",").map(str::to_owned);
    statement.nodes.iter().skip(1).all(is_plain).then(|| patterns().collect())
}
