//! `router bgp …`.

use std::collections::BTreeMap;

use super::{
    lists::Applied,
    neighbor::{Peer, RemoteAs, Taken, as_number, timers},
};
use crate::{
    convert::{
        ledger::LineId,
        router::{Keys, set},
    },
    net::{Asn, Family, Prefix},
};

/// The block `router bgp`, without policies.
#[derive(Debug)]
pub(super) struct Bgp {
    pub(super) asn: Asn,
    pub(super) keys: Keys,
    pub(super) peers: BTreeMap<String, Peer>,
    /// Names in the order in which they appear.
    pub(super) order: Vec<String>,
    /// `bgp default ipv4-unicast`.
    pub(super) default_v4: bool,
    pub(super) requires_policy: Option<bool>,
    pub(super) import_check: Option<bool>,
    pub(super) networks: Vec<Network>,
    pub(super) redistributed: Vec<Redistributed>,
    /// Aggregates whose more specific prefixes are not advertised.
    pub(super) suppressed: Vec<(LineId, Prefix)>,
    pub(super) ranges: Vec<(LineId, Prefix, String)>,
    pub(super) range_limit: Option<u64>,
}

/// `network PREFIX [route-map NAME]`.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) at: LineId,
    pub(super) prefix: Prefix,
    pub(super) route_map: Option<Applied>,
}

/// `redistribute SOURCE [metric N] [route-map NAME]`.
#[derive(Clone, Debug)]
pub(super) struct Redistributed {
    pub(super) at: LineId,
    pub(super) family: Family,
    pub(super) source: String,
    pub(super) route_map: Option<Applied>,
    pub(super) metric: Option<u32>,
}

use Taken::{Carried, Differs, NotCarried, NotNeeded};

impl Bgp {
    pub(super) fn new(asn: Asn) -> Self {
        Self {
            asn,
            keys: Keys::new(),
            peers: BTreeMap::new(),
            order: Vec::new(),
            default_v4: true,
            requires_policy: None,
            import_check: None,
            networks: Vec::new(),
            redistributed: Vec::new(),
            suppressed: Vec::new(),
            ranges: Vec::new(),
            range_limit: None,
        }
    }

    /// A line of the block, in the block of a family or outside.
    pub(super) fn take(&mut self, at: LineId, words: &[&str], line: &str, family: Family) -> Taken {
        match words {
            ["bgp", rest @ ..] => self.bgp(at, rest),
            ["no", "bgp", rest @ ..] => self.no_bgp(rest),
            ["neighbor", name, rest @ ..] => self.neighbor(at, name, rest, line, family),
            ["no", "neighbor", name, rest @ ..] => match self.peers.get_mut(*name) {
                Some(peer) => peer.take_no(rest, family),
                None => NotCarried(format!("there is no neighbor {name}")),
            },
            ["network", prefix, rest @ ..] => self.network(at, prefix, rest),
            ["redistribute", source, rest @ ..] => self.redistribute(at, source, rest, family),
            ["timers", "bgp", keepalive, hold] => timers(&mut self.keys, keepalive, hold),
            ["maximum-paths", "ibgp", n] | ["maximum-paths", n] => self.maximum_paths(n),
            ["no", "auto-summary" | "synchronization"] => NotNeeded("routelet has neither"),
            ["aggregate-address", prefix, rest @ ..] => {
                self.suppress(at, prefix, rest);
                NotCarried("routelet does not aggregate; name the aggregate in advertise.networks".into())
            }
            ["table-map", ..] => NotCarried("all selected routes are installed".into()),
            ["distance", ..] => NotCarried("the kernel compares metrics; set fib.metric".into()),
            _ => NotCarried("not known to routelet".into()),
        }
    }

    fn bgp(&mut self, at: LineId, words: &[&str]) -> Taken {
        match words {
            ["router-id", id] => self.address("router-id", id),
            ["cluster-id", id] => self.address("cluster-id", id),
            ["log-neighbor-changes"] => NotNeeded("changes of state are always logged"),
            ["default", "ipv4-unicast"] => {
                self.default_v4 = true;
                Carried
            }
            ["ebgp-requires-policy"] => {
                self.requires_policy = Some(true);
                Carried
            }
            ["network", "import-check"] => {
                self.import_check = Some(true);
                Carried
            }
            ["bestpath", "as-path", "multipath-relax", ..] => {
                set(&mut self.keys, "multipath-relax", true);
                Carried
            }
            ["graceful-restart-disable"] => {
                set(&mut self.keys, "graceful-restart", false);
                Carried
            }
            ["graceful-restart", rest @ ..] => self.graceful_restart(rest),
            ["listen", rest @ ..] => self.listen(at, rest),
            _ => bgp_without_counterpart(words),
        }
    }

    fn graceful_restart(&mut self, words: &[&str]) -> Taken {
        match words {
            [] => set(&mut self.keys, "graceful-restart", true),
            ["restart-time", n] => match n.parse::<u16>() {
                Ok(n) if n <= 4095 => set(&mut self.keys, "restart-time", n),
                _ => return NotCarried("the restart time is 0 to 4095 seconds".into()),
            },
            ["preserve-fw-state"] => return NotNeeded("routes always stay in the kernel"),
            _ => return NotCarried("stale routes are kept for the restart time of the neighbor".into()),
        }
        Carried
    }

    fn listen(&mut self, at: LineId, words: &[&str]) -> Taken {
        match words {
            ["limit", n] => match n.parse::<u64>() {
                Ok(n @ 1..=65_535) => self.range_limit = Some(n),
                _ => return NotCarried("the limit is 1 to 65535".into()),
            },
            ["range", prefix, "peer-group", group] => match prefix.parse::<Prefix>() {
                Ok(prefix) => self.ranges.push((at, prefix, (*group).to_owned())),
                Err(_) => return NotCarried(format!("`{prefix}` is not a prefix")),
            },
            _ => return NotCarried("not known to routelet".into()),
        }
        Carried
    }

    fn no_bgp(&mut self, words: &[&str]) -> Taken {
        match words {
            ["default", "ipv4-unicast"] => self.default_v4 = false,
            ["ebgp-requires-policy"] => self.requires_policy = Some(false),
            ["network", "import-check"] => self.import_check = Some(false),
            ["log-neighbor-changes"] => return NotNeeded("changes of state are always logged"),
            ["suppress-duplicates"] | ["default", "show-hostname" | "show-nexthop-hostname"] => {
                return NotNeeded("routes do not depend on it");
            }
            _ => return NotCarried("not known to routelet".into()),
        }
        Carried
    }

    fn address(&mut self, key: &str, word: &str) -> Taken {
        match word.parse::<std::net::Ipv4Addr>() {
            Ok(addr) if !addr.is_unspecified() => {
                set(&mut self.keys, key, addr.to_string());
                Carried
            }
            _ => NotCarried(format!("`{word}` is not an IPv4 address")),
        }
    }

    fn maximum_paths(&mut self, word: &str) -> Taken {
        let Ok(n @ 1..=1024) = word.parse::<u16>() else { return NotCarried("1 to 1024 paths".into()) };
        match self.keys.insert("max-paths".to_owned(), n.into()) {
            Some(before) if before != n => {
                let larger = before.as_u64().unwrap_or_default().max(n.into());
                set(&mut self.keys, "max-paths", larger);
                Differs("one limit holds for all routes; it is the larger one".into())
            }
            _ => Carried,
        }
    }

    /// Records the prefixes that `summary-only` suppresses, or that a map may suppress.
    fn suppress(&mut self, at: LineId, prefix: &str, rest: &[&str]) {
        if !rest.iter().any(|word| matches!(*word, "summary-only" | "suppress-map")) {
            return;
        }
        let mask = rest.first().and_then(|mask| masked(prefix, mask));
        if let Some(prefix) = prefix.parse().ok().or(mask) {
            self.suppressed.push((at, prefix));
        }
    }

    fn network(&mut self, at: LineId, prefix: &str, rest: &[&str]) -> Taken {
        let mut parsed = prefix.parse::<Prefix>().ok();
        let mut rest = rest;
        if let ["mask", mask, more @ ..] = rest {
            parsed = masked(prefix, mask);
            rest = more;
        } else if parsed.is_none() {
            parsed = classful(prefix);
        }
        let Some(prefix) = parsed.filter(|p| p.len() > 0) else {
            return NotCarried(format!("`{prefix}` is not a prefix that a host originates"));
        };
        let route_map = match rest {
            [] => None,
            ["route-map", name] => Some(Applied { name: (*name).to_owned(), at }),
            _ => return NotCarried("only `route-map` may follow the prefix".into()),
        };
        self.networks.retain(|n| n.prefix != prefix);
        self.networks.push(Network { at, prefix, route_map });
        Carried
    }

    fn redistribute(&mut self, at: LineId, source: &str, mut rest: &[&str], family: Family) -> Taken {
        let (mut route_map, mut metric) = (None, None);
        loop {
            rest = match rest {
                [] => break,
                ["route-map", name, more @ ..] => {
                    route_map = Some(Applied { name: (*name).to_owned(), at });
                    more
                }
                ["metric", n, more @ ..] if n.parse::<u32>().is_ok() => {
                    metric = n.parse().ok();
                    more
                }
                _ => return NotCarried("only `metric` and `route-map` may follow".into()),
            };
        }
        let source = source.to_owned();
        self.redistributed.retain(|r| (r.family, &r.source) != (family, &source));
        self.redistributed.push(Redistributed { at, family, source, route_map, metric });
        Carried
    }

    fn neighbor(&mut self, at: LineId, name: &str, words: &[&str], line: &str, family: Family) -> Taken {
        if let ["peer-group"] = words {
            self.peer(at, name, true).is_group = true;
            return Carried;
        }
        let is_interface = name.parse::<std::net::IpAddr>().is_err();
        if let ["interface", rest @ ..] = words
            && is_interface
        {
            let peer = self.peer(at, name, false);
            (peer.is_unnumbered, peer.is_group) = (true, false);
            return match rest {
                [] | ["v6only"] => Carried,
                ["v6only", rest @ ..] | rest => peer.take(at, rest, line, family),
            };
        }
        // A name without a preceding `peer-group` is a group nevertheless, as the order of lines is
        // free.
        let is_new_group = is_interface && !self.peers.contains_key(name);
        self.peer(at, name, is_new_group).take(at, words, line, family)
    }

    fn peer(&mut self, at: LineId, name: &str, is_group: bool) -> &mut Peer {
        if !self.peers.contains_key(name) {
            self.order.push(name.to_owned());
        }
        self.peers.entry(name.to_owned()).or_insert_with(|| Peer::new(at, is_group))
    }

    /// The group of a peer.
    pub(super) fn group_of(&self, peer: &Peer) -> Option<&Peer> {
        self.peers.get(peer.group.as_ref()?).filter(|g| g.is_group)
    }

    /// The AS number of the other end, its own or that of its group.
    pub(super) fn remote_as(&self, peer: &Peer) -> Option<RemoteAs> {
        peer.remote_as.or_else(|| self.group_of(peer)?.remote_as)
    }

    /// Whether a family is active for a peer.
    pub(super) fn is_active(&self, peer: &Peer, family: Family) -> bool {
        let of_group = || self.group_of(peer).and_then(|g| g.active[family]);
        let default = family == Family::Ipv4Unicast && self.default_v4;
        peer.active[family].or_else(of_group).unwrap_or(default)
    }
}

/// A prefix of `network A.B.C.D mask M.M.M.M`.
fn masked(addr: &str, mask: &str) -> Option<Prefix> {
    let mask: std::net::Ipv4Addr = mask.parse().ok()?;
    let len = mask.to_bits().leading_ones();
    (mask.to_bits().count_ones() == len).then_some(())?;
    Some(Prefix::v4(addr.parse().ok()?, len.try_into().ok()?))
}

/// A prefix without length, which has the length of its class.
fn classful(addr: &str) -> Option<Prefix> {
    let addr: std::net::Ipv4Addr = addr.parse().ok()?;
    let len = match addr.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        192..224 => 24,
        _ => return None,
    };
    Some(Prefix::v4(addr, len))
}

/// The AS number of `router bgp`.
pub(super) fn own_as(word: &str) -> Option<Asn> {
    as_number(word)
}

/// Lines below `router bgp` that change nothing in the result.
fn bgp_without_counterpart(words: &[&str]) -> Taken {
    match words {
        ["graceful-shutdown"] => NotCarried("run `routelet drain` on the host".into()),
        ["suppress-fib-pending" | "suppress-duplicates" | "fast-external-failover" | "fast-convergence"]
        | ["update-delay" | "coalesce-time", ..] => {
            NotNeeded("routelet advertises without such delays, and ends sessions of lost links at once")
        }
        ["default", "show-hostname" | "show-nexthop-hostname"] => NotNeeded("routes do not depend on it"),
        ["default", "local-preference", ..] => {
            NotCarried("set local-pref in an import policy of the external neighbors".into())
        }
        ["default", ..] => NotCarried("set `families` of the neighbors".into()),
        [
            "always-compare-med" | "deterministic-med" | "bestpath" | "confederation" | "enforce-first-as",
            ..,
        ] => Differs("paths are compared as RFC 4271 §9.1.2.2 orders".into()),
        _ => NotCarried("not known to routelet".into()),
    }
}
