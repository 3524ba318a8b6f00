//! What must be true whenever the fabric has settled: the kernel of every host is its Loc-RIB is
//! what the fabric's state implies, the switches hold exactly that, objects of others are as they
//! were, and nothing has leaked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    common::net::Ns,
    fabric::{Fabric, HOSTS, Host, SWITCHES, Switch},
};

/// Next hops by prefix.
pub type Table = BTreeMap<String, BTreeSet<String>>;

/// Two single next hops, and their group.
const NEXTHOP_OBJECTS: usize = 3;
/// Memory that may come and go.
const RSS_SLACK: u64 = 24 << 20;

/// What a process needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub pid: u32,
    pub descriptors: usize,
    pub threads: usize,
    pub rss: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Option<Self> {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).ok().map(Iterator::count);
        let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let rss = pages.split(' ').nth(1)?.parse::<u64>().ok()? * 4096;
        Some(Self { pid, descriptors: count("fd")?, threads: count("task")?, rss })
    }

    /// The least of some moments: a client that has just been served still counts for a while.
    pub fn at_rest(pid: u32) -> Option<Self> {
        let samples = (0..8).filter_map(|_| {
            thread::sleep(Duration::from_millis(25));
            Self::of(pid)
        });
        samples.min_by_key(|usage| usage.descriptors)
    }

    /// Not more than before, but for memory that comes and goes, and the threads that wait a while
    /// for more to do.
    pub fn leaked(&self, before: &Self) -> Result<(), String> {
        let more = self.descriptors > before.descriptors
            || self.threads > before.threads + 4
            || self.rss > before.rss + RSS_SLACK;
        if more { Err(format!("leaked: {before:?} became {self:?}")) } else { Ok(()) }
    }
}

/// Routes of one protocol in the kernel, by `ip -j -N route show`. Next hops that do not forward
/// are marked.
pub fn kernel_table(json: &str) -> Table {
    let routes: Vec<Value> = serde_json::from_str(json).unwrap_or_default();
    let mut table = Table::new();
    for route in routes {
        let prefix = route["dst"].as_str().unwrap_or_default();
        let many = route["nexthops"].as_array().cloned().unwrap_or_else(|| vec![route.clone()]);
        let next_hops = table.entry(prefix.to_owned()).or_default();
        next_hops.extend(many.iter().map(next_hop));
    }
    table
}

fn next_hop(object: &Value) -> String {
    let gateway = object["gateway"].as_str();
    let flags = object["flags"].as_array().map_or(0, |flags| {
        flags.iter().filter(|f| ["dead", "linkdown"].contains(&f.as_str().unwrap_or_default())).count()
    });
    let text = gateway.or_else(|| object["type"].as_str().map(|_| "unreachable")).unwrap_or("no gateway");
    if flags > 0 { format!("{text} (down)") } else { text.to_owned() }
}

/// The best paths that were learned, by `show routes --json`. Stale ones are marked.
pub fn loc_rib(paths: &Value) -> Table {
    let mut table = Table::new();
    for path in paths.as_array().into_iter().flatten() {
        let chosen = path["best"] == true || path["multipath"] == true;
        if path["neighbor"].is_null() || !chosen {
            continue;
        }
        let stale = if path["stale"] == true { " (stale)" } else { "" };
        let next_hop = format!("{}{stale}", path["next_hop"].as_str().unwrap_or_default());
        table.entry(path["prefix"].as_str().unwrap_or_default().to_owned()).or_default().insert(next_hop);
    }
    table
}

/// Both tables are the same.
pub fn same(what: &str, is: &Table, expected: &Table) -> Result<(), String> {
    let prefixes: BTreeSet<_> = is.keys().chain(expected.keys()).collect();
    let none = BTreeSet::new();
    let wrong: Vec<_> = prefixes
        .into_iter()
        .filter(|p| is.get(*p) != expected.get(*p))
        .map(|p| {
            let [is, expected] = [is, expected].map(|table| table.get(p).unwrap_or(&none));
            format!("\n  {p} is {is:?}, expected {expected:?}")
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("{what}:{}", wrong.concat())) }
}

/// Both texts are the same.
pub fn unchanged(before: &str, now: &str) -> Result<(), String> {
    if before == now {
        return Ok(());
    }
    let [old, new]: [BTreeSet<_>; 2] = [before, now].map(|text| text.lines().collect());
    let (gone, new): (Vec<_>, Vec<_>) = (old.difference(&new).collect(), new.difference(&old).collect());
    Err(format!("objects of others changed: gone {gone:?}, new {new:?}"))
}

/// The kernel's objects that are neither routelet's nor part of the faults.
pub fn foreign_objects(host: &Ns) -> String {
    let lines = |words: &str, keep: &dyn Fn(&str) -> bool| -> String {
        let mut lines: Vec<_> =
            host.ip(words).lines().filter(|l| keep(l)).map(|l| l.trim().to_owned()).collect();
        lines.sort();
        lines.join("\n") + "\n"
    };
    let of_others = |line: &str| {
        ["far0", "far1", "198.18.", "192.0.2.", "2001:db8:"].iter().any(|mark| line.contains(mark))
    };
    [
        // The kernel makes routes of its own for their addresses, some of them later.
        lines("-N route show table all", &|l| of_others(l) && !l.contains("proto 2 ")),
        lines("-N nexthop show", &|l| l.contains("id 4242 ")),
        lines("rule show", &|l| !l.is_empty()),
        lines("-o addr show", &|l| of_others(l)),
        lines("neigh show dev far0 nud permanent", &|l| !l.is_empty()),
        host.sh("nft list table ip foreign"),
    ]
    .concat()
}

impl Fabric {
    /// The kernel of every host and every switch holds what it should.
    pub fn kernels(&self) -> Result<(), String> {
        for h in 0..HOSTS {
            let (learned, own): (Table, Table) =
                host_table(&self.hosts[h]).into_iter().partition(|(_, hops)| !hops.contains("unreachable"));
            same(&format!("kernel of h{}", h + 1), &learned, &self.expected_of_host(h))?;
            let expected = self.expected_originated(h);
            if !own.keys().eq(expected.iter()) {
                return Err(format!("unreachable routes of h{} are {own:?}, expected {expected:?}", h + 1));
            }
        }
        for (s, (ns, switch)) in self.switches.iter().enumerate() {
            let protocol = if matches!(switch, Switch::Bird(_)) { "bird" } else { "bgp" };
            let is = kernel_table(&ns.ip(&format!("-j -N route show proto {protocol}")));
            same(&format!("kernel of s{}", s + 1), &is, &self.expected_of_switch(s))?;
        }
        Ok(())
    }

    /// The kernel of every host is the Loc-RIB of its routelet, and all sessions over links that
    /// carry routes are established.
    pub fn tables(&self) -> Result<(), String> {
        self.kernels()?;
        for (h, host) in self.hosts.iter().enumerate() {
            let json = |args: &[&str]| -> Result<Value, String> {
                let text = host.routelet.try_cli(&[args, &["--json"]].concat());
                let text = text.map_err(|(code, text)| format!("h{}: {args:?}: {code}: {text}", h + 1))?;
                serde_json::from_str(&text).map_err(|e| format!("{args:?}: {e}: {text}"))
            };
            same(
                &format!("Loc-RIB of h{}", h + 1),
                &loc_rib(&json(&["show", "routes"])?),
                &self.expected_of_host(h),
            )?;
            let fib = json(&["show", "fib"])?;
            if let Some(route) = fib.as_array().into_iter().flatten().find(|r| r["in_kernel"] != true) {
                return Err(format!("h{}: show fib: {route}", h + 1));
            }
            let neighbors = json(&["show", "neighbors"])?;
            for s in (0..SWITCHES).filter(|s| self.links[h][*s]) {
                let address = format!("10.{}.{}.1", s + 1, h + 1);
                let one =
                    neighbors.as_array().into_iter().flatten().find(|n| n["address"] == address.as_str());
                let state = one.map_or("absent", |n| n["state"].as_str().unwrap_or_default());
                if state != "established" {
                    return Err(format!("h{}: session with {address} is {state}", h + 1));
                }
            }
        }
        self.neighbors_hold()
    }

    /// The tables of the switches' own daemons: no session is down, and nothing is stale.
    fn neighbors_hold(&self) -> Result<(), String> {
        for (s, (_, switch)) in self.switches.iter().enumerate() {
            let is = match switch {
                Switch::Bird(Some(bird)) => bird_table(&bird.birdc("show route")),
                Switch::Frr(Some(frr)) => frr_table(&frr.json("show bgp ipv4 unicast")),
                Switch::Bird(None) | Switch::Frr(None) => return Err(format!("s{} is down", s + 1)),
            };
            same(&format!("BGP table of s{}", s + 1), &is, &self.expected_of_switch(s))?;
        }
        Ok(())
    }

    /// No nexthop object, descriptor, thread or memory was left behind.
    pub fn nothing_leaked(&self) -> Result<(), String> {
        for (h, host) in self.hosts.iter().enumerate() {
            let objects: Vec<Value> =
                serde_json::from_str(&host.ns.ip("-j -N nexthop show proto 179")).unwrap_or_default();
            if objects.len() > NEXTHOP_OBJECTS {
                return Err(format!("h{}: {} nexthop objects: {objects:?}", h + 1, objects.len()));
            }
            let Some(now) = Usage::of(host.routelet.process.pid()) else {
                return Err(format!("h{}: no process", h + 1));
            };
            if let Some(before) = host.usage.filter(|before| before.pid == now.pid) {
                now.leaked(&before).map_err(|e| format!("h{}: {e}", h + 1))?;
            }
        }
        Ok(())
    }

    pub fn foreign_unchanged(&self) -> Result<(), String> {
        self.hosts.iter().try_for_each(Host::foreign_unchanged)
    }
}

/// Of routelet's routes, in the kernel of its host.
fn host_table(host: &Host) -> Table {
    kernel_table(&host.ns.ip("-j -N route show proto 179"))
}

/// `show route` of BIRD: a line with the prefix and the protocol for each path, next hops below. A
/// stale path has an `s` behind its state.
fn bird_table(text: &str) -> Table {
    let (mut table, mut prefix) = (Table::new(), String::new());
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let Some(first) = words.first().filter(|w| w.contains('/')) {
            (*first).clone_into(&mut prefix);
        }
        if let ["via", next_hop, ..] = words.as_slice() {
            table.entry(prefix.clone()).or_default().insert((*next_hop).to_owned());
        }
    }
    table
}

/// `show bgp ipv4 unicast json` of FRR.
fn frr_table(json: &Value) -> Table {
    let mut table = Table::new();
    for (prefix, paths) in json["routes"].as_object().into_iter().flatten() {
        for path in paths.as_array().into_iter().flatten() {
            let stale = if path["stale"] == true { " (stale)" } else { "" };
            let hops = path["nexthops"].as_array().into_iter().flatten();
            let hops = hops.map(|hop| format!("{}{stale}", hop["ip"].as_str().unwrap_or_default()));
            table.entry(prefix.clone()).or_default().extend(hops);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &[&str])]) -> Table {
        let set = |hops: &[&str]| hops.iter().map(|h| (*h).to_owned()).collect();
        routes.iter().map(|(prefix, hops)| ((*prefix).to_owned(), set(hops))).collect()
    }

    #[test]
    fn a_missing_a_further_and_a_wrong_route_are_found() {
        let right = table(&[("10.1.0.0/24", &["a", "b"]), ("10.2.0.0/24", &["a"])]);
        assert_eq!(same("t", &right, &right), Ok(()));
        for wrong in [
            table(&[("10.1.0.0/24", &["a", "b"])]),
            table(&[("10.1.0.0/24", &["a"]), ("10.2.0.0/24", &["a"])]),
            table(&[("10.1.0.0/24", &["a", "b"]), ("10.2.0.0/24", &["a"]), ("10.3.0.0/24", &["a"])]),
        ] {
            assert!(same("t", &wrong, &right).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_next_hop_that_does_not_forward_and_a_stale_path_are_marked() {
        let json = r#"[{"dst":"10.1.0.0/24","nexthops":[{"gateway":"10.0.0.1","flags":[]},
            {"gateway":"10.0.0.2","flags":["linkdown"]}]},{"dst":"10.2.0.0/24","gateway":"10.0.0.1","flags":[]},
            {"type":"7","dst":"10.3.0.0/24","flags":[]}]"#;
        let expected = table(&[
            ("10.1.0.0/24", &["10.0.0.1", "10.0.0.2 (down)"]),
            ("10.2.0.0/24", &["10.0.0.1"]),
            ("10.3.0.0/24", &["unreachable"]),
        ]);
        assert_eq!(kernel_table(json), expected);
        let paths = serde_json::json!([
            { "prefix": "10.1.0.0/24", "neighbor": "n", "next_hop": "10.0.0.1", "best": true, "stale": true },
            { "prefix": "10.1.0.0/24", "neighbor": "n", "next_hop": "10.0.0.2", "best": false, "multipath": false },
            { "prefix": "10.9.0.0/24", "neighbor": null, "next_hop": null, "best": true },
        ]);
        assert_eq!(loc_rib(&paths), table(&[("10.1.0.0/24", &["10.0.0.1 (stale)"])]));
    }

    #[test]
    fn a_descriptor_more_is_a_leak_and_a_restart_is_none() {
        let before = Usage { pid: 1, descriptors: 20, threads: 4, rss: 1 << 24 };
        assert_eq!(before.leaked(&before), Ok(()));
        assert!(Usage { descriptors: 21, ..before }.leaked(&before).is_err());
        assert!(Usage { threads: 9, ..before }.leaked(&before).is_err());
        assert!(Usage { rss: before.rss + RSS_SLACK + 1, ..before }.leaked(&before).is_err());
    }

    #[test]
    fn what_others_lost_and_got_is_named() {
        assert_eq!(unchanged("a\nb\n", "a\nb\n"), Ok(()));
        let text = unchanged("a\nb\n", "a\nc\n").unwrap_err();
        assert!(text.contains("gone [\"b\"]") && text.contains("new [\"c\"]"), "{text}");
    }
}
