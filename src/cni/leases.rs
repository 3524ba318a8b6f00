//! Address leases of `host-local`: finds those of pods that no longer exist, and ranges that are
//! full.
//!
//! The plugin keeps one file per address, with the container's ID, in a folder that survives a
//! reboot while pods do not. The runtime may never report the former pods as deleted, so after some
//! reboots every address may be leased to a pod that no longer exists. A lease is only removed if
//! its pod cannot run any more:
//!
//! - its container was seen in an earlier boot of the host: container IDs are not reused; or
//! - no pod is attached to a bridge of ours: the plugin attaches a pod's port before it allocates
//!   the address.
//!
//! Neither depends on the clock, which may jump while a machine starts. Leases outside our ranges
//! are not touched, even in our folder.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::net::{Diagnostic, Prefix, Reason, Subject};

/// An allocated address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: IpAddr,
    /// ID of the container that has it.
    pub container: String,
}

/// State that is kept across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The boot of the host in which the containers were seen.
    pub boot: String,
    pub containers: BTreeSet<String>,
    /// Bridges to which pods may be attached in this boot.
    pub bridges: BTreeSet<String>,
    /// Containers of earlier boots whose leases have not been removed yet.
    #[serde(default)]
    pub former: BTreeSet<String>,
}

impl Record {
    /// Starts tracking this boot of the host, with pods on `bridge`. Containers of another boot
    /// become former ones.
    pub fn begin(&mut self, boot: &str, bridge: &str) {
        if self.boot != boot {
            self.former.append(&mut self.containers);
            self.bridges.clear();
            boot.clone_into(&mut self.boot);
        }
        self.bridges.insert(bridge.to_owned());
    }

    /// The leases in `ranges` whose pods no longer exist. `idle`: no pod is attached to any of the
    /// bridges.
    pub fn stale<'a>(&self, leases: &'a [Lease], ranges: &[Prefix], idle: bool) -> Vec<&'a Lease> {
        let ours = |l: &&Lease| ranges.iter().any(|r| r.contains(l.address));
        leases.iter().filter(ours).filter(|l| idle || self.former.contains(&l.container)).collect()
    }

    /// Records the leases that exist now.
    pub fn seen(&mut self, leases: &[Lease]) {
        let ids: BTreeSet<_> = leases.iter().map(|l| l.container.clone()).collect();
        self.former.retain(|id| ids.contains(id));
        self.containers = ids.difference(&self.former).cloned().collect();
    }
}

/// The number of pods that fit into a range: its addresses without those of the network, the
/// gateway and, for IPv4, broadcast. `None` for ranges too large to fill up.
pub fn capacity(range: Prefix) -> Option<u64> {
    let bits = range.family().max_len() - range.len();
    let taken = if range.addr().is_ipv4() { 3 } else { 2 };
    (bits <= 20).then(|| (1_u64 << bits).saturating_sub(taken))
}

/// Parses a lease file; `None` if it is not one.
pub fn read(name: &str, content: &[u8]) -> Option<Lease> {
    let address = name.parse().ok()?;
    let text = std::str::from_utf8(content).ok()?;
    let container = text.lines().next()?.trim();
    let plausible = !container.is_empty() && container.len() <= 256;
    plausible.then(|| Lease { address, container: container.to_owned() })
}

/// The problem to report if a range has no free address.
pub fn full(range: Prefix, leases: &[Lease], ports: usize, dir: &str) -> Option<Diagnostic> {
    let capacity = capacity(range)?;
    let given = leases.iter().filter(|l| range.contains(l.address)).count() as u64;
    let leaked = given.saturating_sub(ports as u64);
    (given >= capacity).then(|| {
        let remedy = if leaked > capacity / 10 {
            format!(
                "{leaked} of them belong to no pod; drain the node: routelet removes them when the node has no pods, or after the \
                 next reboot"
            )
        } else {
            format!("lower the kubelet's maxPods below {capacity}, or give the nodes larger pod CIDRs")
        };
        Diagnostic::new(
            Reason::PodAddressesExhausted,
            Subject::prefix(range),
            format!(
                "pod CIDR {range} is full: all its {capacity} addresses are leased (in {dir}), and no pod can start"
            ),
            remedy,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(address: &str, container: &str) -> Lease {
        Lease { address: address.parse().unwrap(), container: container.into() }
    }

    fn ranges() -> Vec<Prefix> {
        ["10.244.1.0/24", "fd00:244:1::/64"].map(|p| p.parse().unwrap()).into()
    }

    fn stale(record: &Record, leases: &[Lease], idle: bool) -> Vec<String> {
        record.stale(leases, &ranges(), idle).iter().map(|l| l.address.to_string()).collect()
    }

    #[test]
    fn plugins_252_leases_of_an_earlier_boot_are_removed_and_no_others() {
        let before = [
            lease("10.244.1.2", "a"),
            lease("fd00:244:1::2", "a"),
            lease("10.244.1.3", "b"),
            lease("10.244.9.2", "other-range"),
        ];
        let mut record = Record::default();
        record.begin("boot-1", "routelet0");
        record.seen(&before);
        assert!(stale(&record, &before, false).is_empty(), "pods of this boot");

        // After a reboot, the runtime has created a pod before the first check.
        let mut now = before.to_vec();
        now.push(lease("10.244.1.4", "c"));
        record.begin("boot-2", "routelet0");
        assert_eq!(stale(&record, &now, false), ["10.244.1.2", "fd00:244:1::2", "10.244.1.3"]);
        // They could not be removed yet, and another pod starts meanwhile.
        now.push(lease("10.244.1.5", "d"));
        record.seen(&now);
        record.begin("boot-2", "routelet0");
        assert_eq!(stale(&record, &now, false).len(), 3);
        assert_eq!(record.containers, ["c".to_owned(), "d".to_owned()].into());
        now.retain(|l| l.container == "c" || l.container == "d");
        record.seen(&now);
        assert!(record.former.is_empty() && stale(&record, &now, false).is_empty());
        // Leases that were not seen in the first boot wait for the next reboot, or for an idle
        // bridge.
        assert!(stale(&Record::default(), &before, false).is_empty());
        assert_eq!(stale(&Record::default(), &before, true).len(), 3, "leases outside our ranges stay");
    }

    #[test]
    fn other_files_are_not_parsed_as_leases() {
        let good = read("10.244.1.2", b"0123abcd\r\neth0").unwrap();
        assert_eq!(good, lease("10.244.1.2", "0123abcd"));
        assert_eq!(read("fd00:244:1::2", b"0123abcd").unwrap().container, "0123abcd");
        for (name, content) in [
            ("last_reserved_ip.0", &b"10.244.1.7"[..]),
            ("lock", b""),
            ("10.244.1.2", b""),
            ("10.244.1.2", b"\xff"),
        ] {
            assert_eq!(read(name, content), None, "{name}");
        }
    }

    #[test]
    fn harvester_7471_a_full_range_is_named_with_the_remedy_that_helps() {
        let range: Prefix = "10.244.1.0/29".parse().unwrap();
        assert_eq!(capacity(range), Some(5));
        assert_eq!(capacity("fd00:244:1::/125".parse().unwrap()), Some(6));
        assert_eq!(capacity("fd00:244:1::/64".parse().unwrap()), None);
        let leases: Vec<_> = (2..7).map(|n| lease(&format!("10.244.1.{n}"), &n.to_string())).collect();
        assert_eq!(full(range, &leases[..4], 4, "DIR"), None);
        assert!(full(range, &leases, 5, "DIR").unwrap().contains("maxPods"));
        let leaked = full(range, &leases, 1, "DIR").unwrap();
        assert!(
            leaked.contains("10.244.1.0/29 is full") && leaked.contains("4 of them belong to no pod"),
            "{leaked}"
        );
    }
}
