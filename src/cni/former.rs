//! Ranges of former pod CIDRs in which pods still run.
//!
//! A pod keeps its address for life, so when the Node's pod CIDR changes, the old range is served until the last pod in
//! it is gone. Which pods those are is known by their ports: everything that hung on the bridge at the change. That
//! needs no view into the runtime's folders, and a port's index is never given twice while the host runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::net::{Family, Prefix};

/// What is kept, for one run of the host: a reboot takes every pod's port with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    boot: String,
    pub bridge: String,
    /// Range → ports of the bridge behind which its pods may be.
    ranges: BTreeMap<Prefix, BTreeSet<u32>>,
}

impl Kept {
    /// Nothing yet, on this bridge and in this run of the host.
    pub fn new(boot: &str, bridge: &str) -> Self {
        Self { boot: boot.into(), bridge: bridge.into(), ranges: BTreeMap::new() }
    }

    /// Whether it was written in this run of the host.
    pub fn is_of(&self, boot: &str) -> bool {
        self.boot == boot
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn ranges(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.ranges.keys().copied()
    }

    /// Pods of `range` may be behind these ports too.
    pub fn keep(&mut self, range: Prefix, ports: &BTreeSet<u32>) {
        self.ranges.entry(range).or_default().extend(ports);
    }

    pub fn forget(&mut self, range: Prefix) {
        self.ranges.remove(&range);
    }

    /// Drops what has no pod left, and says what that was.
    pub fn settle(&mut self, ports: &BTreeSet<u32>) -> Vec<Prefix> {
        self.ranges.values_mut().for_each(|held| held.retain(|p| ports.contains(p)));
        let empty: Vec<_> =
            self.ranges.iter().filter(|(_, held)| held.is_empty()).map(|(range, _)| *range).collect();
        self.ranges.retain(|_, held| !held.is_empty());
        empty
    }
}

/// Whether the gateway address of `range` must leave the bridge before it gets those of `wanted`: the `bridge` plugin
/// takes one IPv4 address only, and of IPv6 several as long as their ranges do not overlap.
pub fn must_step_aside(range: Prefix, wanted: &[Prefix]) -> bool {
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
        let mut kept = Kept::new("boot", "routelet0");
        kept.keep(p("10.244.1.0/24"), &[3, 4].into());
        kept.keep(p("10.244.2.0/24"), &[5].into());
        assert_eq!(kept.settle(&[3, 4, 5, 9].into()), []);
        assert_eq!(kept.settle(&[4, 9].into()), [p("10.244.2.0/24")]);
        assert_eq!(kept.settle(&[3, 4].into()), [], "an index that comes again would be another run's");
        assert_eq!(kept.settle(&[3].into()), [p("10.244.1.0/24")]);
        assert!(kept.is_empty());
    }

    #[test]
    fn ports_that_came_late_count_and_a_copy_survives_the_file() {
        let mut kept = Kept::new("boot", "routelet0");
        kept.keep(p("10.244.1.0/24"), &[3].into());
        kept.keep(p("10.244.1.0/24"), &[7].into());
        let text = serde_json::to_string(&kept).unwrap();
        let mut read: Kept = serde_json::from_str(&text).unwrap();
        assert_eq!(read, kept);
        assert!(read.is_of("boot") && !read.is_of("another"));
        assert_eq!(read.settle(&[7].into()), []);
    }

    #[test]
    fn ipv4_steps_aside_and_ipv6_only_where_it_overlaps() {
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
            assert_eq!(must_step_aside(p(range), &[p(wanted)]), aside, "{range} beside {wanted}");
        }
    }
}
