//! Tables of the kernel that drop packets once they are full: connections and neighbors.

use std::{collections::BTreeSet, fs, path::Path};

use crate::net::{Diagnostic, Reason, Subject};

/// Percent of the limit from which a table is nearly full, and below which it no longer is.
const NEAR: u64 = 90;
const NO_LONGER: u64 = 85;

/// One table.
struct Table {
    reason: Reason,
    name: &'static str,
    entries: fn(&Path) -> Option<u64>,
    /// The sysctl of its limit.
    limit: &'static str,
}

const TABLES: [Table; 3] = [
    Table {
        reason: Reason::ConntrackNearlyFull,
        name: "connection tracking",
        entries: |root| number(root, "proc/sys/net/netfilter/nf_conntrack_count"),
        limit: "net.netfilter.nf_conntrack_max",
    },
    Table {
        reason: Reason::NeighborTableNearlyFull,
        name: "IPv4 neighbors (ARP)",
        entries: |root| neighbors(root, "arp_cache"),
        limit: "net.ipv4.neigh.default.gc_thresh3",
    },
    Table {
        reason: Reason::NeighborTableNearlyFull,
        name: "IPv6 neighbors (ND)",
        entries: |root| neighbors(root, "ndisc_cache"),
        limit: "net.ipv6.neigh.default.gc_thresh3",
    },
];

/// The tables that are nearly full; `near`: those at the last check. In a network namespace of its
/// own, some limits cannot be read, and their tables are left out.
pub(super) fn problems(root: &Path, near: &BTreeSet<Reason>) -> Vec<Diagnostic> {
    TABLES.iter().filter_map(|table| problem(root, table, near.contains(&table.reason))).collect()
}

fn problem(root: &Path, table: &Table, was: bool) -> Option<Diagnostic> {
    let Table { reason, name, entries, limit: sysctl } = table;
    let limit = number(root, &format!("proc/sys/{}", sysctl.replace('.', "/")))?;
    let entries = entries(root)?;
    let percent = if was { NO_LONGER } else { NEAR };
    // 0 is no limit.
    let is_near = limit > 0 && entries.saturating_mul(100) >= limit.saturating_mul(percent);
    is_near.then(|| {
        Diagnostic::new(
            *reason,
            Subject::sysctl(sysctl),
            format!("the table of {name} has {entries} of at most {limit} entries; once it is full packets are lost"),
            format!("run `sysctl -w {sysctl}={}`, and keep it in /etc/sysctl.d", limit.saturating_mul(2)),
        )
    })
}

fn number(root: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(root.join(file)).ok()?.trim().parse().ok()
}

/// Entries of a neighbor table: the first column of the statistics, the same in each row.
fn neighbors(root: &Path, table: &str) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/net/stat").join(table)).ok()?;
    u64::from_str_radix(text.lines().nth(1)?.split_whitespace().next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join("proc").join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn a_table_is_named_from_90_percent_until_it_is_below_85() {
        let root = tempfile::tempdir().unwrap();
        let none = BTreeSet::new();
        assert_eq!(problems(root.path(), &none), [], "no table at all");
        write(root.path(), "sys/net/netfilter/nf_conntrack_max", "1000\n");
        let found = |entries: u64, near: &BTreeSet<Reason>| {
            write(root.path(), "sys/net/netfilter/nf_conntrack_count", &format!("{entries}\n"));
            problems(root.path(), near)
        };
        assert_eq!(found(899, &none), []);
        let full = found(900, &none);
        assert!(full[0].contains("900 of at most 1000"), "{full:?}");
        assert!(full[0].remedy.contains("`sysctl -w net.netfilter.nf_conntrack_max=2000`"), "{full:?}");
        let near = BTreeSet::from([Reason::ConntrackNearlyFull]);
        assert_eq!((found(850, &near).len(), found(849, &near).len()), (1, 0));
        write(root.path(), "sys/net/netfilter/nf_conntrack_max", "0\n");
        assert_eq!(found(900, &none), [], "no limit");
    }

    #[test]
    fn entries_of_the_neighbor_tables_are_hexadecimal() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "self/net/stat/arp_cache", "entries  allocs\n000003f0 00006476\n000003f0 1\n");
        write(root.path(), "sys/net/ipv4/neigh/default/gc_thresh3", "1024\n");
        let found = problems(root.path(), &BTreeSet::new());
        assert!(found.len() == 1 && found[0].contains("1008 of at most 1024"), "{found:?}");
    }
}
