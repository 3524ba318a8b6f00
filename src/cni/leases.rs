//! Leases of `host-local`: which of them belong to pods that are gone for good, and when a range is full.
//!
//! The plugin keeps a file per address, with the container's id, in a folder that survives a reboot, while no pod does: the
//! runtime may never report the former ones as deleted, and after some reboots every address is leased to nobody. A lease is
//! cleared only where its pod cannot run any more:
//!
//! - its container was seen in an earlier run of the host: ids of containers are never given twice; or
//! - no pod hangs on a bridge of ours: the plugin attaches a pod's port before it asks for the address.
//!
//! Neither needs a clock, which may jump while a machine starts. Ranges of others are left alone, also in our folder.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::net::{Diagnostic, Prefix, Reason, Subject};

/// One address that is given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: IpAddr,
    /// The container that has it.
    pub container: String,
}

/// What is remembered over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The run of the host in which the containers were seen.
    pub boot: String,
    pub containers: BTreeSet<String>,
    /// Bridges on which pods may hang in this run.
    pub bridges: BTreeSet<String>,
    /// Containers of earlier runs whose leases are still to be cleared.
    #[serde(default)]
    pub former: BTreeSet<String>,
}

impl Record {
    /// In this run of the host, with pods on `bridge`. What was seen in another one is over.
    pub fn begin(&mut self, boot: &str, bridge: &str) {
        if self.boot != boot {
            self.former.append(&mut self.containers);
            self.bridges.clear();
            boot.clone_into(&mut self.boot);
        }
        self.bridges.insert(bridge.to_owned());
    }

    /// Of the leases in `ranges`, those whose pods are gone. `idle`: no pod hangs on any of the bridges.
    pub fn stale<'a>(&self, leases: &'a [Lease], ranges: &[Prefix], idle: bool) -> Vec<&'a Lease> {
        let ours = |l: &&Lease| ranges.iter().any(|r| r.contains(l.address));
        leases.iter().filter(ours).filter(|l| idle || self.former.contains(&l.container)).collect()
    }

    /// These leases are left.
    pub fn seen(&mut self, leases: &[Lease]) {
        let ids: BTreeSet<_> = leases.iter().map(|l| l.container.clone()).collect();
        self.former.retain(|id| ids.contains(id));
        self.containers = ids.difference(&self.former).cloned().collect();
    }
}

/// How many pods a range has room for: without the network's, the gateway's and, in IPv4, the broadcast address. `None`: more
/// than anybody counts.
pub fn capacity(range: Prefix) -> Option<u64> {
    let bits = range.family().max_len() - range.len();
    let taken = if range.addr().is_ipv4() { 3 } else { 2 };
    (bits <= 20).then(|| (1_u64 << bits).saturating_sub(taken))
}

/// Reads a file of the folder.
pub fn read(name: &str, content: &[u8]) -> Option<Lease> {
    let address = name.parse().ok()?;
    let text = std::str::from_utf8(content).ok()?;
    let container = text.lines().next()?.trim();
    let plausible = !container.is_empty() && container.len() <= 256;
    plausible.then(|| Lease { address, container: container.to_owned() })
}

/// What the operator should know where a range has no address left.
pub fn full(range: Prefix, leases: &[Lease], ports: usize, dir: &str) -> Option<Diagnostic> {
    let capacity = capacity(range)?;
    let given = leases.iter().filter(|l| range.contains(l.address)).count() as u64;
    let leaked = given.saturating_sub(ports as u64);
    (given >= capacity).then(|| {
        let remedy = if leaked > capacity / 10 {
            format!(
                "{leaked} of them belong to no pod; drain the node: without pods, or at the next start of the machine, routelet \
                 clears them"
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
    fn plugins_252_leases_of_an_earlier_run_of_the_host_are_cleared_and_no_others() {
        let before = [
            lease("10.244.1.2", "a"),
            lease("fd00:244:1::2", "a"),
            lease("10.244.1.3", "b"),
            lease("10.244.9.2", "other-range"),
        ];
        let mut record = Record::default();
        record.begin("boot-1", "routelet0");
        record.seen(&before);
        assert!(stale(&record, &before, false).is_empty(), "pods of this run");

        // The machine starts again, and the runtime has made a pod before we looked.
        let mut now = before.to_vec();
        now.push(lease("10.244.1.4", "c"));
        record.begin("boot-2", "routelet0");
        assert_eq!(stale(&record, &now, false), ["10.244.1.2", "fd00:244:1::2", "10.244.1.3"]);
        // They could not be cleared at once, and another one starts meanwhile.
        now.push(lease("10.244.1.5", "d"));
        record.seen(&now);
        record.begin("boot-2", "routelet0");
        assert_eq!(stale(&record, &now, false).len(), 3);
        assert_eq!(record.containers, ["c".to_owned(), "d".to_owned()].into());
        now.retain(|l| l.container == "c" || l.container == "d");
        record.seen(&now);
        assert!(record.former.is_empty() && stale(&record, &now, false).is_empty());
        // Nobody was there to see the leases of the first run: they wait for the next one, or for an idle bridge.
        assert!(stale(&Record::default(), &before, false).is_empty());
        assert_eq!(stale(&Record::default(), &before, true).len(), 3, "others' ranges stay");
    }

    #[test]
    fn files_that_are_no_leases_are_not_taken_for_some() {
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
