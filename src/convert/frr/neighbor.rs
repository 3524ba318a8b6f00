//! `neighbor …`: what a line sets for a neighbor or a peer group.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{lists::Applied, policies::Direction, words::rest_of};
use crate::{
    convert::{
        ledger::LineId,
        router::{Keys, set},
    },
    net::{Asn, Family, PerFamily},
};

/// A neighbor or a peer group.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its first line.
    pub(super) at: LineId,
    pub(super) is_group: bool,
    pub(super) is_unnumbered: bool,
    pub(super) group: Option<String>,
    pub(super) keys: Keys,
    pub(super) remote_as: Option<RemoteAs>,
    /// By family.
    pub(super) active: PerFamily<Option<bool>>,
    /// By family, then by direction.
    pub(super) filters: PerFamily<[Filters; 2]>,
    /// The line that shuts it down.
    pub(super) shutdown: Option<LineId>,
    /// Only for eBGP: an iBGP session needs no such key.
    pub(super) multihop: Option<(LineId, u8)>,
    /// `update-source` with the name of an interface.
    pub(super) source_interface: Option<(LineId, String)>,
    pub(super) next_hop_self: bool,
}

/// `remote-as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemoteAs {
    Number(Asn),
    External,
    Internal,
}

/// The filters for the routes of one family in one direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filters {
    pub(super) route_map: Option<Applied>,
    pub(super) prefix_list: Option<Applied>,
    pub(super) access_list: Option<Applied>,
    pub(super) path_list: Option<Applied>,
    /// A line without counterpart that lets fewer routes pass: all are rejected instead.
    pub(super) unfit: Option<LineId>,
}

/// The outcome of a line.
pub(super) enum Taken {
    Carried,
    NotNeeded(&'static str),
    Differs(String),
    NotCarried(String),
}

use Taken::{Carried, Differs, NotCarried, NotNeeded};

impl Filters {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The filters that are set here, and the others as in `group`.
    pub(super) fn or(&self, group: &Self) -> Self {
        let (own, group) = (self.clone(), group.clone());
        Self {
            route_map: own.route_map.or(group.route_map),
            prefix_list: own.prefix_list.or(group.prefix_list),
            access_list: own.access_list.or(group.access_list),
            path_list: own.path_list.or(group.path_list),
            unfit: own.unfit.or(group.unfit),
        }
    }
}

impl RemoteAs {
    fn read(word: &str) -> Option<Self> {
        match word {
            "external" => Some(Self::External),
            "internal" => Some(Self::Internal),
            number => as_number(number).map(Self::Number),
        }
    }

    pub(super) fn value(self) -> Value {
        match self {
            Self::Number(n) => n.into(),
            Self::External => "external".into(),
            Self::Internal => "internal".into(),
        }
    }

    pub(super) fn is_internal(self, own: Asn) -> bool {
        match self {
            Self::Number(n) => n == own,
            Self::External => false,
            Self::Internal => true,
        }
    }
}

/// An AS number that routelet accepts, plain or as `1.10`.
pub(super) fn as_number(word: &str) -> Option<Asn> {
    let number = match word.split_once('.') {
        Some((high, low)) => {
            let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
            Asn::from(high) << 16 | Asn::from(low)
        }
        None => word.parse().ok()?,
    };
    (!matches!(number, 0 | 23456 | 65535 | u32::MAX)).then_some(number)
}

impl Peer {
    pub(super) fn new(at: LineId, is_group: bool) -> Self {
        Self {
            at,
            is_group,
            is_unnumbered: false,
            group: None,
            keys: Keys::new(),
            remote_as: None,
            active: PerFamily::both(None),
            filters: PerFamily::default(),
            shutdown: None,
            multihop: None,
            source_interface: None,
            next_hop_self: false,
        }
    }

    /// A line of the peer without `neighbor NAME`, in the block of a family or outside.
    pub(super) fn take(&mut self, at: LineId, words: &[&str], line: &str, family: Family) -> Taken {
        match words {
            ["remote-as", number] => match RemoteAs::read(number) {
                Some(remote_as) => {
                    self.remote_as = Some(remote_as);
                    Carried
                }
                None => NotCarried(format!("`{number}` is not an AS number of a neighbor")),
            },
            ["peer-group", name] => {
                self.group = Some((*name).to_owned());
                Carried
            }
            ["description", ..] => {
                set(&mut self.keys, "description", rest_of(line, 3));
                Carried
            }
            ["password", ..] => self.password(rest_of(line, 3)),
            ["shutdown", ..] => {
                self.shutdown = Some(at);
                Differs(
                    "neighbors that are shut down are left out; `routelet neighbor disable` shuts one down"
                        .into(),
                )
            }
            ["activate"] => {
                self.active[family] = Some(true);
                Carried
            }
            ["update-source", source] => self.source(at, source),
            ["ebgp-multihop", hops @ ..] => match hops.first().map_or(Ok(255), |h| h.parse::<u8>()) {
                Ok(hops @ 1..) => {
                    self.multihop = Some((at, hops));
                    Carried
                }
                _ => NotCarried("hops are 1 to 255".into()),
            },
            ["ttl-security", "hops", hops] => self.number("ttl-security", hops, 1, 254),
            ["local-as", number, rest @ ..] => self.local_as(number, rest),
            ["port", port] => self.number("port", port, 1, 65535),
            ["passive"] => self.flag("passive", true),
            ["timers", rest @ ..] => self.timers(rest),
            ["bfd", rest @ ..] => self.bfd(rest),
            ["graceful-restart"] => self.flag("graceful-restart", true),
            ["graceful-restart-disable"] => self.flag("graceful-restart", false),
            _ => self.take_of_family(at, words, family),
        }
    }

    fn take_of_family(&mut self, at: LineId, words: &[&str], family: Family) -> Taken {
        match words {
            [kind @ ("route-map" | "prefix-list" | "distribute-list" | "filter-list"), name, direction] => {
                self.filter(at, kind, name, direction, family)
            }
            ["next-hop-self", ..] => {
                self.next_hop_self = true;
                self.flag("next-hop-self", true)
            }
            ["route-reflector-client"] => self.flag("route-reflector-client", true),
            ["allowas-in"] => self.number("allow-own-as", "3", 0, 255),
            ["allowas-in", n] => self.number("allow-own-as", n, 0, 255),
            ["maximum-prefix", limit, rest @ ..] => self.maximum_prefix(limit, rest),
            ["maximum-prefix-out", limit] => self.number("max-prefixes-out", limit, 0, u32::MAX.into()),
            ["addpath-tx-all-paths"] => {
                set(&mut self.keys, "add-paths", "both");
                Carried
            }
            ["soft-reconfiguration", "inbound"] => {
                NotNeeded("received routes are kept anyway, and policies apply to them at once")
            }
            ["send-community", ..] => NotNeeded("communities are always advertised"),
            ["advertisement-interval", _] => NotNeeded("changes are advertised at once"),
            ["capability", "extended-nexthop" | "dynamic" | "software-version"]
            | ["dont-capability-negotiate" | "strict-capability-match" | "override-capability"]
            | ["disable-addpath-rx"] => NotNeeded("capabilities are negotiated"),
            ["enforce-first-as"] => NotNeeded("the first AS number is always checked"),
            ["graceful-restart-helper"] => NotNeeded("routelet always helps a neighbor that restarts"),
            ["interface", ..] => NotNeeded("the interface follows from the address"),
            ["unsuppress-map" | "advertise-map", ..] => {
                self.filters[family][Direction::Out as usize].unfit = Some(at);
                NotCarried("no counterpart: nothing is advertised to the neighbor instead".into())
            }
            ["default-originate", ..] => {
                NotCarried("no counterpart; a host does not advertise a default route".into())
            }
            [
                "remove-private-AS"
                | "as-override"
                | "attribute-unchanged"
                | "weight"
                | "route-server-client",
                ..,
            ] => NotCarried("no counterpart; routes are exchanged without it".into()),
            ["disable-connected-check"] => NotCarried("no counterpart; set `multihop`".into()),
            _ => NotCarried("not known to routelet".into()),
        }
    }

    /// `no neighbor NAME …`.
    pub(super) fn take_no(&mut self, words: &[&str], family: Family) -> Taken {
        match words {
            ["activate"] => {
                self.active[family] = Some(false);
                Carried
            }
            ["shutdown", ..] => {
                self.shutdown = None;
                Carried
            }
            ["send-community", ..] => {
                NotCarried("communities are always advertised; remove them by `remove-communities`".into())
            }
            ["enforce-first-as"] => Differs("the first AS number is always checked".into()),
            ["passive"] => self.flag("passive", false),
            ["next-hop-self", ..] => {
                self.next_hop_self = false;
                self.keys.remove("next-hop-self");
                Carried
            }
            ["capability", ..] => Differs("capabilities are negotiated".into()),
            _ => NotCarried("not known to routelet".into()),
        }
    }

    fn flag(&mut self, key: &str, value: bool) -> Taken {
        set(&mut self.keys, key, value);
        Carried
    }

    fn number(&mut self, key: &str, word: &str, min: u64, max: u64) -> Taken {
        match word.parse::<u64>() {
            Ok(n) if (min..=max).contains(&n) => {
                set(&mut self.keys, key, n);
                Carried
            }
            _ => NotCarried(format!("`{word}` is not {min} to {max}")),
        }
    }

    fn password(&mut self, password: &str) -> Taken {
        if password.is_empty() || password.len() > 80 {
            return NotCarried("passwords have 1 to 80 octets".into());
        }
        set(&mut self.keys, "password", password);
        Carried
    }

    fn source(&mut self, at: LineId, source: &str) -> Taken {
        match source.parse::<IpAddr>() {
            Ok(addr) => set(&mut self.keys, "local-address", addr.to_string()),
            Err(_) => self.source_interface = Some((at, source.to_owned())),
        }
        Carried
    }

    fn local_as(&mut self, number: &str, rest: &[&str]) -> Taken {
        let Some(number) = as_number(number) else {
            return NotCarried(format!("`{number}` is not an AS number"));
        };
        set(&mut self.keys, "local-as", number);
        match rest {
            ["no-prepend", "replace-as", ..] => Carried,
            _ => Differs(
                "the neighbor sees this AS number alone in the path, as with `no-prepend replace-as`".into(),
            ),
        }
    }

    fn timers(&mut self, words: &[&str]) -> Taken {
        match words {
            ["connect", n] => self.number("connect-retry-time", n, 1, 65535),
            ["delayopen", _] => NotNeeded("the OPEN is sent at once"),
            [keepalive, hold] => timers(&mut self.keys, keepalive, hold),
            _ => NotCarried("not known to routelet".into()),
        }
    }

    fn bfd(&mut self, words: &[&str]) -> Taken {
        let numbers: Result<Vec<u64>, _> = words.iter().map(|w| w.parse()).collect();
        match (words, numbers.as_deref()) {
            ([], _) => self.flag("bfd", true),
            (_, Ok([multiplier @ 1..=255, rx @ 10..=60_000, tx @ 10..=60_000])) => {
                let timers = json!({ "min-tx": tx, "min-rx": rx, "multiplier": multiplier });
                set(&mut self.keys, "bfd", timers);
                Carried
            }
            (["profile", _], _) => {
                set(&mut self.keys, "bfd", true);
                Differs("BFD has its default timers; write those of the profile into `bfd`".into())
            }
            (["check-control-plane-failure"], _) => {
                self.keys.entry("bfd").or_insert_with(|| true.into());
                NotNeeded("graceful restart and BFD follow RFC 5882")
            }
            _ => NotCarried("multiplier is 1 to 255, intervals are 10 to 60000 ms".into()),
        }
    }

    fn maximum_prefix(&mut self, limit: &str, rest: &[&str]) -> Taken {
        let Ok(limit @ 1..) = limit.parse::<u32>() else {
            return NotCarried("the limit is 1 or more".into());
        };
        set(&mut self.keys, "max-prefixes", limit);
        let rest = match rest {
            [percent, rest @ ..] if percent.parse::<u8>().is_ok() => rest,
            rest => rest,
        };
        match rest {
            ["warning-only"] => set(&mut self.keys, "max-prefixes-action", "warn"),
            ["restart", minutes] => match minutes.parse::<u32>().ok().and_then(|m| m.checked_mul(60)) {
                Some(seconds @ 1..) => set(&mut self.keys, "max-prefixes-restart", seconds),
                _ => return NotCarried("the restart time is in minutes".into()),
            },
            [] => {
                // In FRR the session stays down until an operator clears it.
                set(&mut self.keys, "max-prefixes-restart", u32::MAX);
            }
            _ => return Differs("the limit is carried over without its options".into()),
        }
        Carried
    }

    fn filter(&mut self, at: LineId, kind: &str, name: &str, direction: &str, family: Family) -> Taken {
        let direction = match direction {
            "in" => Direction::In,
            "out" => Direction::Out,
            _ => return NotCarried("neither `in` nor `out`".into()),
        };
        let filters = &mut self.filters[family][direction as usize];
        let place = match kind {
            "route-map" => &mut filters.route_map,
            "prefix-list" => &mut filters.prefix_list,
            "distribute-list" => &mut filters.access_list,
            _ => &mut filters.path_list,
        };
        *place = Some(Applied { name: name.to_owned(), at });
        Carried
    }
}

/// `timers KEEPALIVE HOLD`.
pub(super) fn timers(keys: &mut Keys, keepalive: &str, hold: &str) -> Taken {
    let (Ok(keepalive), Ok(hold)) = (keepalive.parse::<u16>(), hold.parse::<u16>()) else {
        return NotCarried("times are seconds, 0 to 65535".into());
    };
    if matches!(hold, 1 | 2) {
        return NotCarried("the hold time is 0, or 3 to 65535".into());
    }
    set(keys, "hold-time", hold);
    if u32::from(keepalive) * 3 == u32::from(hold) {
        return Carried;
    }
    Differs("keepalives are sent each third of the hold time".into())
}
