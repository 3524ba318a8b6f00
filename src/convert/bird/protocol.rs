//! `protocol bgp`.

use serde_json::{Value, json};

use super::{
    Lines, Names,
    tree::{Node, Statement},
};
use crate::{
    convert::router::{Keys, set},
    net::{Asn, Family, PerFamily},
};

/// Maximum depth of templates that are based on one another.
const MAX_TEMPLATES: usize = 20;

/// A neighbor.
#[derive(Clone, Debug, Default)]
pub(super) struct Bgp {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) local_as: Option<Asn>,
    pub(super) remote_as: Option<Value>,
    pub(super) address: Option<String>,
    pub(super) range: Option<String>,
    pub(super) interface: Option<String>,
    pub(super) keys: Keys,
    /// By family.
    pub(super) channels: PerFamily<Option<Channel>>,
    pub(super) is_disabled: bool,
    /// Whether a template is not in the input, with the filters and passwords that it may have.
    pub(super) has_unknown_template: bool,
    /// Whether it has a password that is not in the result.
    pub(super) has_lost_password: bool,
    pub(super) is_multihop: bool,
    pub(super) has_ttl_security: bool,
    pub(super) keepalive: Option<(usize, u64)>,
    pub(super) cluster_id: Option<String>,
}

/// `ipv4 { … }` or `ipv6 { … }`.
#[derive(Clone, Debug, Default)]
pub(super) struct Channel {
    pub(super) import: Option<Filter>,
    pub(super) export: Option<Filter>,
    pub(super) next_hop_self: bool,
}

/// Which filter is applied.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    All,
    None,
    Named {
        name: String,
        line: usize,
    },
    Body {
        body: Vec<Statement>,
        line: usize,
    },
    Where {
        condition: Vec<super::token::Token>,
        line: usize,
    },
    /// It cannot be expressed.
    Unfit,
}

/// The outcome of a statement.
pub(super) enum Taken {
    Carried,
    NotNeeded(&'static str),
    Differs(&'static str),
    NotCarried(String),
}

use Taken::{Carried, Differs, NotCarried, NotNeeded};

impl Bgp {
    pub(super) fn read(statement: &Statement, names: &Names, lines: &mut Lines, number: usize) -> Self {
        let words = statement.words();
        let name = match words.get(2) {
            Some(name) if *name != "from" => (*name).to_owned(),
            _ => format!("bgp{}", number + 1),
        };
        let mut bgp = Self { name, line: statement.line, ..Self::default() };
        let from = words.iter().position(|w| *w == "from").and_then(|at| words.get(at + 1));
        bgp.template(from.copied(), MAX_TEMPLATES, names, lines);
        bgp.body(statement.block().unwrap_or_default(), names, lines);
        bgp
    }

    /// Applies a template, after the one on which it is based.
    fn template(&mut self, from: Option<&str>, depth: usize, names: &Names, lines: &mut Lines) {
        let Some(from) = from else { return };
        match names.templates.get(from).filter(|_| depth > 0) {
            Some((parent, body)) => {
                self.template(parent.as_deref(), depth - 1, names, lines);
                self.body(body, names, lines);
            }
            None => self.has_unknown_template = true,
        }
    }

    fn body(&mut self, body: &[Statement], names: &Names, lines: &mut Lines) {
        for statement in body {
            match statement.words().as_slice() {
                ["ipv4"] => self.channel(Family::Ipv4Unicast, statement, names, lines),
                ["ipv6"] => self.channel(Family::Ipv6Unicast, statement, names, lines),
                _ => note(lines, statement, self.take(statement, names)),
            }
        }
    }

    fn take(&mut self, statement: &Statement, names: &Names) -> Taken {
        let plain = statement.plain();
        match plain.as_slice() {
            ["local", rest @ ..] => self.local(rest, names),
            ["neighbor", rest @ ..] => self.neighbor(rest, names),
            ["interface", name] => {
                self.interface = Some((*name).to_owned());
                Carried
            }
            ["source", "address", addr] => self.address("local-address", addr),
            ["multihop"] => self.multihop(255),
            ["multihop", hops] => match hops.parse() {
                Ok(hops @ 1..) => self.multihop(hops),
                _ => NotCarried("hops are 1 to 255".into()),
            },
            ["direct"] => NotNeeded("it is the default of eBGP"),
            ["ttl", "security", rest @ ..] => {
                self.has_ttl_security = is_on(rest);
                Carried
            }
            ["password", password] if (1..=80).contains(&password.len()) => {
                set(&mut self.keys, "password", *password);
                Carried
            }
            ["authentication", "none"] => Carried,
            ["password" | "passwords" | "keys" | "authentication", ..] => {
                self.has_lost_password = true;
                NotCarried("one password of at most 80 octets; without it the neighbor is left out".into())
            }
            ["description", text] => {
                set(&mut self.keys, "description", *text);
                Carried
            }
            ["disabled", rest @ ..] => {
                self.is_disabled = is_on(rest);
                Carried
            }
            ["passive", rest @ ..] => self.flag("passive", is_on(rest)),
            ["rr", "client"] => self.flag("route-reflector-client", true),
            ["rr", "cluster", "id", id] => {
                self.cluster_id = Some((*id).to_owned());
                Carried
            }
            ["allow", "local", "as"] => self.number("allow-own-as", "255", 255),
            ["allow", "local", "as", n] => self.number("allow-own-as", n, 255),
            ["local_role" | "role", role] => self.role(role),
            ["bfd", rest @ ..] => self.bfd(rest, statement),
            _ => self.timers(statement.line, &plain),
        }
    }

    fn timers(&mut self, line: usize, plain: &[&str]) -> Taken {
        match plain {
            ["hold", "time", "1" | "2"] => NotCarried("the hold time is 0, or 3 to 65535".into()),
            ["hold", "time", n] => self.number("hold-time", n, 65535),
            ["keepalive", "time", n] => {
                self.keepalive = n.parse().ok().map(|n| (line, n));
                Carried
            }
            ["connect", "retry", "time", n] => self.number("connect-retry-time", n, 65535),
            ["error", "wait", "time", n, ..] => self.number("idle-hold-time", n, 65535),
            ["connect", "delay", "time", _]
            | ["startup", "hold", "time", _]
            | ["error", "forget", "time", _]
            | ["send", "hold", "time", _] => NotNeeded("routelet has its own such times"),
            ["graceful", "restart", "time", n] => self.number("restart-time", n, 4095),
            ["graceful", "restart", "aware"] => NotNeeded("routelet always helps a neighbor that restarts"),
            ["graceful", "restart", rest @ ..] => self.flag("graceful-restart", is_on(rest)),
            ["long", "lived", "stale", "time", n] => self.number("long-lived-stale-time", n, 16_777_215),
            ["check", "link", ..]
            | ["strict", "bind", ..]
            | ["enable", ..]
            | ["capabilities", ..]
            | ["advertise", "hostname", ..]
            | ["interpret", "communities", ..]
            | ["dynamic", "name", ..]
            | ["prefer", "older", ..]
            | ["free", "bind", ..] => NotNeeded("routelet does so, or negotiates it"),
            ["deterministic", "med", ..]
            | ["med", "metric", ..]
            | ["igp", "metric", ..]
            | ["path", "metric", ..] => Differs("paths are compared as RFC 4271 §9.1.2.2 orders"),
            ["import" | "export" | "next" | "table", ..] => {
                NotCarried("BIRD 2 has it in a channel, `ipv4 { … }`; update the file to BIRD 2 first".into())
            }
            _ => NotCarried("not known to routelet".into()),
        }
    }

    fn local(&mut self, mut words: &[&str], names: &Names) -> Taken {
        if let ["role", role] = words {
            return self.role(role);
        }
        if let [addr, rest @ ..] = words
            && addr.parse::<std::net::IpAddr>().is_ok()
        {
            // For a link-local address, the interface determines it.
            if !addr.starts_with("fe80") {
                set(&mut self.keys, "local-address", *addr);
            }
            words = rest;
        }
        let mut taken = Carried;
        if let ["port", _, rest @ ..] = words {
            taken = Differs("name the port in bgp.listen");
            words = rest;
        }
        match words {
            [] => taken,
            ["as", n] => match as_number(n, names) {
                Some(n) => {
                    self.local_as = Some(n);
                    taken
                }
                None => NotCarried(format!("`{n}` is not an AS number that routelet accepts")),
            },
            _ => NotCarried("not known to routelet".into()),
        }
    }

    fn neighbor(&mut self, mut words: &[&str], names: &Names) -> Taken {
        if let ["range", prefix, rest @ ..] = words {
            self.range = Some((*prefix).to_owned());
            words = rest;
        } else if let [addr, rest @ ..] = words
            && addr.split('%').next().is_some_and(|a| a.parse::<std::net::IpAddr>().is_ok())
        {
            self.address = Some((*addr).to_owned());
            words = rest;
        }
        if let ["port", port, rest @ ..] = words {
            if let NotCarried(why) = self.number("port", port, 65535) {
                return NotCarried(why);
            }
            words = rest;
        }
        match words {
            [] => {}
            ["as", n] => match as_number(n, names) {
                Some(n) => self.remote_as = Some(n.into()),
                None => return NotCarried(format!("`{n}` is not an AS number of a neighbor")),
            },
            [kind @ ("external" | "internal")] => self.remote_as = Some((*kind).into()),
            _ => return NotCarried("not known to routelet".into()),
        }
        Carried
    }

    fn address(&mut self, key: &str, addr: &str) -> Taken {
        match addr.parse::<std::net::IpAddr>() {
            Ok(addr) => {
                set(&mut self.keys, key, addr.to_string());
                Carried
            }
            Err(_) => NotCarried(format!("`{addr}` is not an address")),
        }
    }

    fn multihop(&mut self, hops: u8) -> Taken {
        self.is_multihop = true;
        set(&mut self.keys, "multihop", hops);
        Carried
    }

    fn flag(&mut self, key: &str, value: bool) -> Taken {
        set(&mut self.keys, key, value);
        Carried
    }

    fn number(&mut self, key: &str, word: &str, max: u64) -> Taken {
        match word.parse::<u64>() {
            Ok(n) if n <= max => {
                set(&mut self.keys, key, n);
                Carried
            }
            _ => NotCarried(format!("`{word}` is not a number up to {max}")),
        }
    }

    fn role(&mut self, role: &str) -> Taken {
        let role = match role {
            "provider" | "customer" | "peer" => role,
            "rs_server" => "rs",
            "rs_client" => "rs-client",
            _ => return NotCarried("no such role".into()),
        };
        set(&mut self.keys, "role", role);
        Carried
    }

    fn bfd(&mut self, words: &[&str], statement: &Statement) -> Taken {
        let Some(body) = statement.block() else { return self.flag("bfd", is_on(words)) };
        let mut timers = json!({});
        for inner in body {
            let plain = inner.plain();
            let (key, n) = match plain.as_slice() {
                ["min", "rx", "interval", n, "ms"] => ("min-rx", n),
                ["min", "tx", "interval", n, "ms"] => ("min-tx", n),
                ["multiplier", n] => ("multiplier", n),
                _ => {
                    set(&mut self.keys, "bfd", timers);
                    return Differs("only intervals in ms and the multiplier are carried over");
                }
            };
            match (key, n.parse::<u32>()) {
                ("multiplier", Ok(n @ 1..=255)) => timers[key] = n.into(),
                ("min-rx" | "min-tx", Ok(n @ 10..=60_000)) => timers[key] = n.into(),
                _ => return NotCarried("intervals are 10 to 60000 ms, the multiplier is 1 to 255".into()),
            }
        }
        set(&mut self.keys, "bfd", timers);
        Carried
    }

    fn channel(&mut self, family: Family, statement: &Statement, names: &Names, lines: &mut Lines) {
        let mut channel = self.channels[family].take().unwrap_or_default();
        for inner in statement.block().unwrap_or_default() {
            let taken = self.channel_option(&mut channel, inner, names);
            note(lines, inner, taken);
        }
        self.channels[family] = Some(channel);
    }

    fn channel_option(&mut self, channel: &mut Channel, statement: &Statement, names: &Names) -> Taken {
        let plain = statement.plain();
        match plain.as_slice() {
            ["import" | "receive", "limit", rest @ ..] => return self.limit(rest, names),
            ["export", "limit", n, rest @ ..] => {
                let taken = self.number("max-prefixes-out", n, u32::MAX.into());
                return if matches!(rest, ["action", "block"]) { taken } else { worse(taken) };
            }
            ["import", "table", ..] | ["export", "table", ..] | ["import", "keep", "filtered", ..] => {
                return NotNeeded("received routes are kept anyway");
            }
            ["import", ..] => channel.import = Filter::read(statement),
            ["export", ..] => channel.export = Filter::read(statement),
            ["next", "hop", "self", ..] => {
                channel.next_hop_self = true;
                set(&mut self.keys, "next-hop-self", true);
            }
            ["extended", "next", "hop", ..]
            | ["missing", "lladdr", ..]
            | ["gateway", ..]
            | ["igp", "table", ..]
            | ["mandatory", ..]
            | ["table", "master4" | "master6"] => {
                return NotNeeded("routelet negotiates it, or resolves next hops by itself");
            }
            ["table", ..] => {
                (channel.import, channel.export) = (Some(Filter::Unfit), Some(Filter::Unfit));
                return NotCarried("routelet has one table: nothing is exchanged with this neighbor".into());
            }
            ["add", "paths", "rx"] => set(&mut self.keys, "add-paths", "receive"),
            ["add", "paths", "tx"] => set(&mut self.keys, "add-paths", "send"),
            ["add", "paths", rest @ ..] if is_on(rest) => set(&mut self.keys, "add-paths", "both"),
            ["add", "paths", ..] => {}
            _ => return NotCarried("not known to routelet".into()),
        }
        let unfit = [&channel.import, &channel.export].iter().any(|f| **f == Some(Filter::Unfit));
        if unfit {
            NotCarried("not known to routelet: everything is rejected instead".into())
        } else {
            Carried
        }
    }

    fn limit(&mut self, words: &[&str], names: &Names) -> Taken {
        let Some((number, rest)) = words.split_first() else { return NotCarried("no number".into()) };
        let Some(limit @ 1..) = names.number(number) else {
            return NotCarried("the limit is 1 or more".into());
        };
        set(&mut self.keys, "max-prefixes", limit);
        match rest {
            ["action", "warn"] => set(&mut self.keys, "max-prefixes-action", "warn"),
            ["action", "restart"] => {}
            // In BIRD the session stays down until an operator enables it.
            [] | ["action", "disable"] => set(&mut self.keys, "max-prefixes-restart", u32::MAX),
            _ => return Differs("the session is closed for a while instead"),
        }
        Carried
    }
}

impl Filter {
    pub(super) fn read(statement: &Statement) -> Option<Self> {
        let line = statement.line;
        let words = statement.words();
        Some(match words.as_slice() {
            [_, "all"] => Self::All,
            [_, "none"] => Self::None,
            [_, "filter"] => match statement.block() {
                Some(body) => Self::Body { body: body.to_vec(), line },
                None => Self::Unfit,
            },
            [_, "filter", name] => Self::Named { name: (*name).to_owned(), line },
            [_, "where", ..] => {
                let tokens = statement.nodes.iter().skip(2);
                Self::Where { condition: tokens.filter_map(Node::token).cloned().collect(), line }
            }
            _ => Self::Unfit,
        })
    }
}

pub(super) fn note(lines: &mut Lines, statement: &Statement, taken: Taken) {
    match taken {
        Carried => {}
        NotNeeded(why) => lines.not_needed(statement, why),
        Differs(why) => lines.differs(statement.line, why),
        NotCarried(why) => lines.not_carried(statement, &why),
    }
}

fn worse(taken: Taken) -> Taken {
    match taken {
        Carried => Differs("what is beyond the limit is withheld; the session stays"),
        other => other,
    }
}

pub(super) fn is_on(words: &[&str]) -> bool {
    !matches!(words.first(), Some(&("off" | "no" | "false")))
}

fn as_number(word: &str, names: &Names) -> Option<Asn> {
    names.number(word).filter(|n| !matches!(n, 0 | 23456 | 65535 | &u32::MAX))
}
