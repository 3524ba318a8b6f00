//! FRR and Quagga: `frr.conf`, or `bgpd.conf` with `zebra.conf` and `staticd.conf`.
//!
//! `words` splits lines, `bgp` and `neighbor` read the block `router bgp`, `lists` and `route_map`
//! the lists and maps that filters refer to, and `policies` turns these into policies. `finish`
//! combines everything once all lines are read, since a filter may come before the lists that it
//! refers to.

mod bgp;
mod finish;
mod interfaces;
mod lists;
mod neighbor;
mod policies;
mod route_map;
mod unfit;
mod words;

use bgp::Bgp;
use interfaces::Interfaces;
use lists::Lists;
use neighbor::Taken;
use route_map::{Clause, Maps};

use super::{
    ConvertError, Format, Input,
    ledger::{Ledger, LineId},
    router::Router,
};
use crate::net::{Family, Prefix};

/// Everything that was read.
#[derive(Debug)]
struct Frr {
    ledger: Ledger,
    bgp: Option<Bgp>,
    lists: Lists,
    maps: Maps,
    interfaces: Interfaces,
    /// `ip route PREFIX Null0`, `blackhole` or `reject`.
    discarded: Vec<(LineId, Prefix)>,
    router_id: Option<String>,
    /// `ip protocol bgp route-map NAME`.
    protocol_maps: Vec<(LineId, String)>,
    defaults: Defaults,
    node: Node,
}

/// Settings that apply without a line for them.
#[derive(Clone, Copy, Debug)]
struct Defaults {
    requires_policy: bool,
    import_check: bool,
    hold_time: u16,
    max_paths: u16,
    /// Whether the file names its version or profile.
    is_known: bool,
}

/// The block that a line belongs to.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Top,
    Bgp,
    Family(Family),
    /// A family that routelet does not have.
    OtherFamily,
    RouteMap {
        name: String,
        permit: bool,
        sequence: u32,
    },
    Interface(String),
    /// A block of another kind, with the reason why it is left out.
    Other(&'static str),
}

/// Reads all files and converts them.
pub(super) fn convert(inputs: &[Input], format: Format) -> Result<(Router, Ledger), ConvertError> {
    let mut frr = Frr::new(format);
    for input in inputs {
        frr.node = Node::Top;
        for (n, line) in input.text.lines().enumerate() {
            frr.line(&input.name, n + 1, line);
        }
    }
    finish::finish(frr)
}

impl Frr {
    fn new(format: Format) -> Self {
        Self {
            ledger: Ledger::default(),
            bgp: None,
            lists: Lists::default(),
            maps: Maps::default(),
            interfaces: Interfaces::default(),
            discarded: Vec::new(),
            router_id: None,
            protocol_maps: Vec::new(),
            defaults: Defaults::of(format),
            node: Node::Top,
        }
    }

    fn line(&mut self, file: &str, number: usize, line: &str) {
        let Some(words) = words::words(line) else {
            let at = self.ledger.add(file, number, line);
            self.ledger.not_carried(at, "the line has too many words");
            return;
        };
        if words.is_empty() {
            return;
        }
        let is_indented = line.starts_with(char::is_whitespace);
        if is_end(&words) {
            self.leave(&words);
            return;
        }
        let at = self.ledger.add(file, number, line);
        // An indented line belongs to the block regardless of its words: `vrf` has `ip route` as
        // well.
        let is_top = is_top(&words) && !(is_indented && matches!(self.node, Node::Other(_)));
        if is_top || matches!(self.node, Node::Other(_) | Node::Interface(_)) && !is_indented {
            self.node = Node::Top;
        }
        let taken = self.take(at, &words, line);
        self.note(at, taken);
    }

    /// `exit`, `exit-address-family`, `end`: returns to the enclosing block.
    fn leave(&mut self, words: &[&str]) {
        let is_family = matches!(self.node, Node::Family(_) | Node::OtherFamily);
        self.node = if is_family && words != ["end"] { Node::Bgp } else { Node::Top };
    }

    fn note(&mut self, at: LineId, taken: Taken) {
        match taken {
            Taken::Carried => {}
            Taken::NotNeeded(why) => self.ledger.not_needed(at, why),
            Taken::Differs(why) => self.ledger.differs(at, why),
            Taken::NotCarried(why) => self.ledger.not_carried(at, why),
        }
    }

    fn take(&mut self, at: LineId, words: &[&str], line: &str) -> Taken {
        match self.node.clone() {
            Node::Top => self.take_top(at, words),
            Node::Bgp | Node::Family(_) | Node::OtherFamily if words.first() == Some(&"address-family") => {
                self.enter_family(words.get(1..).unwrap_or_default())
            }
            Node::Bgp => self.take_bgp(at, words, line, Family::Ipv4Unicast),
            Node::Family(family) => self.take_bgp(at, words, line, family),
            Node::OtherFamily => Taken::NotCarried("routelet has IPv4 and IPv6 unicast only".into()),
            Node::RouteMap { name, permit, sequence } => {
                match self.maps.entry(&name, permit, sequence, at).take(at, words) {
                    Ok(()) | Err(Clause::Is(())) => Taken::Carried,
                    Err(Clause::NotNeeded(why)) => Taken::NotNeeded(why),
                    Err(Clause::Unfit(why)) => Taken::NotCarried(why.to_string()),
                }
            }
            Node::Interface(name) => self.interfaces.take(&name, words),
            Node::Other(why) => Taken::NotCarried(why.to_owned()),
        }
    }

    fn take_bgp(&mut self, at: LineId, words: &[&str], line: &str, family: Family) -> Taken {
        match &mut self.bgp {
            Some(bgp) => bgp.take(at, words, line, family),
            None => Taken::NotCarried("outside of `router bgp`".into()),
        }
    }

    fn enter_family(&mut self, words: &[&str]) -> Taken {
        self.node = match words {
            ["ipv4"] | ["ipv4", "unicast"] => Node::Family(Family::Ipv4Unicast),
            ["ipv6"] | ["ipv6", "unicast"] => Node::Family(Family::Ipv6Unicast),
            _ => Node::OtherFamily,
        };
        match self.node {
            Node::OtherFamily => Taken::NotCarried("routelet has IPv4 and IPv6 unicast only".into()),
            _ => Taken::Carried,
        }
    }

    fn take_top(&mut self, at: LineId, words: &[&str]) -> Taken {
        let ip = |word: &str| if word == "ipv6" { Family::Ipv6Unicast } else { Family::Ipv4Unicast };
        let listed = match words {
            [family @ ("ip" | "ipv6"), "prefix-list", rest @ ..] => self.lists.prefix_list(ip(family), rest),
            [family @ ("ip" | "ipv6"), "access-list", rest @ ..] => self.lists.access_list(ip(family), rest),
            ["access-list", rest @ ..] => self.lists.access_list(Family::Ipv4Unicast, rest),
            ["ip" | "bgp", "as-path", "access-list", rest @ ..] => self.lists.as_path_list(rest),
            ["ip" | "bgp", "community-list", rest @ ..] => self.lists.community_list(rest, false),
            ["ip" | "bgp", "large-community-list", rest @ ..] => self.lists.community_list(rest, true),
            _ => return self.take_command(at, words),
        };
        match listed {
            Ok(()) => Taken::Carried,
            Err(why) => Taken::NotCarried(why.to_string()),
        }
    }

    fn take_command(&mut self, at: LineId, words: &[&str]) -> Taken {
        match words {
            ["router", "bgp", rest @ ..] => self.enter_bgp(rest),
            ["router", ..] => self.enter_other("routelet has BGP alone"),
            ["route-map", name, kind @ ("permit" | "deny"), sequence] => {
                self.enter_map(at, name, *kind == "permit", sequence)
            }
            ["interface", name, ..] => {
                self.node = Node::Interface((*name).to_owned());
                Taken::NotNeeded("routelet leaves interfaces as they are")
            }
            ["vrf", ..] => self.enter_other("routelet has one routing table, fib.table"),
            ["bfd"] => self.enter_other("timers of BFD belong to a neighbor: `bfd`"),
            ["line", ..] => self.enter_unneeded("there is no terminal"),
            ["frr", "version", version, ..] => {
                self.defaults.version(version);
                Taken::NotNeeded("the defaults of this version were read into the result")
            }
            ["frr", "defaults", profile] => {
                self.defaults.profile(profile);
                Taken::NotNeeded("the defaults of this profile were read into the result")
            }
            ["router-id", id] | ["ip", "router-id", id] => {
                self.router_id = Some((*id).to_owned());
                Taken::Carried
            }
            ["ip" | "ipv6", "protocol", "bgp", "route-map", name] => {
                self.protocol_maps.push((at, (*name).to_owned()));
                Taken::Carried
            }
            ["ip" | "ipv6", "route", prefix, rest @ ..] => self.static_route(at, prefix, rest),
            _ => top_of_others(words),
        }
    }

    fn static_route(&mut self, at: LineId, prefix: &str, rest: &[&str]) -> Taken {
        match (prefix.parse::<Prefix>(), rest) {
            (Ok(prefix), ["Null0" | "null0" | "blackhole" | "reject", ..]) => {
                self.discarded.push((at, prefix));
                Taken::NotNeeded("own prefixes have an unreachable route anyway")
            }
            _ => Taken::NotCarried(
                "routelet has no static routes; the network configuration of the host has".into(),
            ),
        }
    }

    fn enter_bgp(&mut self, words: &[&str]) -> Taken {
        let asn = words.first().and_then(|word| bgp::own_as(word));
        match (words, asn) {
            ([_], Some(asn)) => {
                self.node = Node::Bgp;
                if self.bgp.as_ref().is_some_and(|bgp| bgp.asn != asn) {
                    return self.enter_other("one host has one `router bgp`");
                }
                self.bgp.get_or_insert_with(|| Bgp::new(asn));
                Taken::Carried
            }
            ([_, _, ..], _) => self.enter_other("routelet has one routing table, and no views and VRFs"),
            _ => self.enter_other("the AS number is not one that routelet takes"),
        }
    }

    fn enter_map(&mut self, at: LineId, name: &str, permit: bool, sequence: &str) -> Taken {
        let Ok(sequence) = sequence.parse::<u32>() else {
            return self.enter_other("the entry has an invalid number");
        };
        self.maps.entry(name, permit, sequence, at);
        self.node = Node::RouteMap { name: name.to_owned(), permit, sequence };
        Taken::Carried
    }

    fn enter_other(&mut self, why: &'static str) -> Taken {
        self.node = Node::Other(why);
        Taken::NotCarried(why.to_owned())
    }

    fn enter_unneeded(&mut self, why: &'static str) -> Taken {
        self.node = Node::Interface(String::new());
        Taken::NotNeeded(why)
    }
}

impl Defaults {
    fn of(format: Format) -> Self {
        match format {
            Format::Quagga => Self {
                requires_policy: false,
                import_check: false,
                hold_time: 180,
                max_paths: 1,
                is_known: true,
            },
            _ => Self {
                requires_policy: true,
                import_check: true,
                hold_time: 180,
                max_paths: 64,
                is_known: false,
            },
        }
    }

    /// FRR before 7.4 did not require policies, and did not check networks.
    fn version(&mut self, version: &str) {
        self.is_known = true;
        let mut parts = version.split(['.', '-', '_', '~']).map(|p| p.parse::<u32>().unwrap_or(0));
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (7, 4) {
            (self.requires_policy, self.import_check) = (false, false);
        }
    }

    fn profile(&mut self, profile: &str) {
        self.is_known = true;
        if profile == "datacenter" {
            (self.requires_policy, self.hold_time) = (false, 9);
        }
    }
}

fn is_end(words: &[&str]) -> bool {
    matches!(words, ["exit" | "end" | "quit" | "exit-address-family" | "exit-vrf" | "exit-route-map"])
}

/// Whether a line is at the top level, outside of any block.
fn is_top(words: &[&str]) -> bool {
    const ALONE: [&str; 16] = [
        "router",
        "route-map",
        "interface",
        "vrf",
        "line",
        "frr",
        "access-list",
        "log",
        "hostname",
        "service",
        "debug",
        "agentx",
        "router-id",
        "domainname",
        "password",
        "enable",
    ];
    const AFTER_IP: [&str; 10] = [
        "prefix-list",
        "access-list",
        "as-path",
        "community-list",
        "large-community-list",
        "route",
        "router-id",
        "protocol",
        "forwarding",
        "nht",
    ];
    const AFTER_BGP: [&str; 5] =
        ["as-path", "community-list", "large-community-list", "extcommunity-list", "community"];
    match words {
        ["ip" | "ipv6", second, ..] => AFTER_IP.contains(second) || *second == "extcommunity-list",
        ["bgp", second, ..] => AFTER_BGP.contains(second),
        ["no", "ip" | "ipv6", "forwarding", ..] => true,
        [first, ..] => ALONE.contains(first),
        [] => false,
    }
}

/// Lines of the daemon itself.
fn top_of_others(words: &[&str]) -> Taken {
    match words {
        [
            "hostname"
            | "domainname"
            | "log"
            | "service"
            | "debug"
            | "agentx"
            | "password"
            | "enable"
            | "banner"
            | "allow-external-route-update"
            | "nexthop-group"
            | "zebra",
            ..,
        ] => Taken::NotNeeded("it is about the other daemon itself"),
        ["no", "log" | "service" | "debug" | "banner" | "zebra", ..] => {
            Taken::NotNeeded("it is about the other daemon itself")
        }
        ["ip" | "ipv6", "forwarding"] => {
            Taken::NotNeeded("forwarding is switched on where routes are learned")
        }
        ["ip" | "ipv6", "nht", "resolve-via-default"] => Taken::NotCarried(
            "set fib.resolve-via-default if next hops are reached by the default route".into(),
        ),
        _ => Taken::NotCarried("not known to routelet".into()),
    }
}
