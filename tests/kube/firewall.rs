//! What a firewall holds, as its own programs tell it, without what is ours.

use crate::common::net::Ns;

/// All rules, sets and chains of others: iptables, ip6tables, ipset and nftables. Without counters, which packets move.
pub fn saved(ns: &Ns) -> String {
    let xtables = |program: &str| {
        let text = ns.sh(program);
        let ours = |l: &&str| !l.starts_with('#') && !l.contains("ROUTELET-FORWARD");
        text.lines().filter(ours).map(without_counters).collect::<Vec<_>>().join("\n")
    };
    // A set that was made again has another seed.
    let sets = ns.sh("ipset save -sorted | sed 's/ initval 0x[0-9a-f]*//'");
    [xtables("iptables-save"), xtables("ip6tables-save"), sets, tables(ns)].join("\n")
}

fn without_counters(line: &str) -> String {
    line.split(" [").next().unwrap_or_default().to_owned()
}

/// nftables' own: what iptables-nft has is told by `iptables-save`.
fn tables(ns: &Ns) -> String {
    let listed = ns.sh("nft -s list tables");
    let is_ours = |t: &str| ["table inet routelet", "table inet routelet-bgp"].contains(&t);
    let others = listed.lines().filter(|t| !is_of_iptables(t) && !is_ours(t));
    others.map(|table| ns.sh(&format!("nft -s list {table}"))).collect()
}

fn is_of_iptables(table: &str) -> bool {
    let names = ["filter", "nat", "mangle", "raw", "security"];
    let mut words = table.split(' ').skip(1);
    matches!(words.next(), Some("ip" | "ip6")) && words.next().is_some_and(|name| names.contains(&name))
}
