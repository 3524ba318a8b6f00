//! Former pod CIDRs in which pods still run.
//!
//! A pod keeps its address for its lifetime, so when the Node's pod CIDR changes, the former range
//! is served until its last pod is gone. Its pods are identified by their bridge ports: all ports
//! that were attached at the change. That does not require access to the runtime's folders, and an
//! interface index is not reused while the host runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::net::{Family, Prefix};

/// Former pod CIDRs with their bridge ports, for one boot of the host: a reboot removes every port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerCidrs {
    boot: String,
    pub bridge: String,
    /// Ports of the bridge behind which pods of a range may be, by range.
    ranges: BTreeMap<Prefix, BTreeSet<u32>>,
}

impl FormerCidrs {
    /// No former ranges yet, on this bridge and in this boot of the host.
    pub fn new(boot: &str, bridge: &str) -> Self {
        Self { boot: boot.into(), bridge: bridge.into(), ranges: BTreeMap::new() }
    }

    /// Whether the record is of this boot of the host.
    pub fn is_of(&self, boot: &str) -> bool {
        self.boot == boot
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn ranges(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.ranges.keys().copied()
    }

    /// Records that pods of `range` may also be behind these ports.
    pub fn keep(&mut self, range: Prefix, ports: &BTreeSet<u32>) {
        self.ranges.entry(range).or_default().extend(ports);
    }

    pub fn forget(&mut self, range: Prefix) {
        self.ranges.remove(&range);
    }

    /// Removes the ranges without pods, given the ports that exist. Returns the removed ranges.
    pub fn remove_unused(&mut self, ports: &BTreeSet<u32>) -> Vec<Prefix> {
        self.ranges.values_mut().for_each(|held| held.retain(|p| ports.contains(p)));
        let empty: Vec<_> =
            self.ranges.iter().filter(|(_, held)| held.is_empty()).map(|(range, _)| *range).collect();
        self.ranges.retain(|_, held| !held.is_empty());
        empty
    }
}

/// Whether the gateway address of `range` must be removed from the bridge before those of `wanted`
/// are added: the `bridge` plugin accepts only one IPv4 address, and several IPv6 addresses as long
/// as their ranges do not overlap.
pub fn conflicts_with(range: Prefix, wanted: &[Prefix]) -> bool {
    !wanted.contains(&range)
        && (range.family() == Family::Ipv4Unicast
            || wanted.iter().any(|w| w.covers(range) || range.covers(*w)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    #[test]
    fn a_range_is_kept_until_the_last_of_its_ports_is_gone() {
        let mut kept = FormerCidrs::new("boot", "routelet0");
        kept.keep(p("10.244.1.0/24"), &[3, 4].into());
        kept.keep(p("10.244.2.0/24"), &[5].into());
        assert_eq!(kept.remove_unused(&[3, 4, 5, 9].into()), []);
        assert_eq!(kept.remove_unused(&[4, 9].into()), [p("10.244.2.0/24")]);
        assert_eq!(kept.remove_unused(&[3, 4].into()), [], "a port that reappears does not count");
        assert_eq!(kept.remove_unused(&[3].into()), [p("10.244.1.0/24")]);
        assert!(kept.is_empty());
    }

    #[test]
    fn late_ports_count_and_the_record_survives_serialisation() {
        let mut kept = FormerCidrs::new("boot", "routelet0");
        kept.keep(p("10.244.1.0/24"), &[3].into());
        kept.keep(p("10.244.1.0/24"), &[7].into());
        let text = serde_json::to_string(&kept).unwrap();
        let mut read: FormerCidrs = serde_json::from_str(&text).unwrap();
        assert_eq!(read, kept);
        assert!(read.is_of("boot") && !read.is_of("another"));
        assert_eq!(read.remove_unused(&[7].into()), []);
    }

    #[test]
    fn ipv4_ranges_always_conflict_and_ipv6_ranges_if_they_overlap() {
        #[rustfmt::skip]
        let cases = [
            ("10.244.1.0/24",     "10.244.7.0/24",     true),
            ("10.244.1.0/24",     "10.244.1.0/24",     false),
            ("10.244.1.0/24",     "10.244.1.0/25",     true),
            ("fd00:244:1::/64",   "fd00:244:7::/64",   false),
            ("fd00:244:1::/64",   "fd00:244::/48",     false),
            ("fd00:244:1::/64",   "fd00:244:1::/56",   true),
        ];
        for (range, wanted, aside) in cases {
            assert_eq!(conflicts_with(p(range), &[p(wanted)]), aside, "{range} beside {wanted}");
        }
    }
}
