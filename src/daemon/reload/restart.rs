//! The keys that only take effect at a start.

use crate::{config::Config, daemon::sandbox};

/// Whether two configurations differ in a key.
type Differs = fn(&Config, &Config) -> bool;

/// The keys of [`crate::config::reference::for_the_next_start`].
const KEYS: [(&str, Differs); 11] = [
    ("state-dir", |old, new| old.state_dir != new.state_dir),
    ("kubernetes.enabled", |old, new| old.kubernetes.enabled != new.kubernetes.enabled),
    ("kubernetes.node-name", |old, new| old.kubernetes.node_name != new.kubernetes.node_name),
    ("kubernetes.startup-taint", |old, new| old.kubernetes.startup_taint != new.kubernetes.startup_taint),
    ("kubernetes.service-cidrs", |old, new| old.kubernetes.service_cidrs != new.kubernetes.service_cidrs),
    ("cni.enabled", |old, new| old.cni.enabled != new.cni.enabled),
    ("cni.conf-dir", |old, new| old.cni.conf_dir != new.cni.conf_dir),
    ("cni.file", |old, new| old.cni.file != new.cni.file),
    ("cni.bin-dir", |old, new| old.cni.bin_dir != new.cni.bin_dir),
    ("security.sandbox", |old, new| old.security != new.security),
    ("log.format", |old, new| old.log.format != new.log.format),
];

/// Of the keys that are bound, opened or decided once, those whose value is not that of the start.
/// `offered`: whether the daemon runs under Kubernetes unless the file determines it.
pub(super) fn keys(started: &Config, new: &Config, offered: bool) -> Vec<&'static str> {
    let kubernetes = started.kubernetes.enabled.unwrap_or(offered);
    let changed = KEYS.iter().filter(|(_, differs)| differs(started, new)).map(|(key, _)| *key);
    // Dropped capabilities cannot be regained.
    let lacks_capability =
        sandbox::opens_raw_sockets(new, kubernetes) && !sandbox::opens_raw_sockets(started, kubernetes);
    changed.chain(lacks_capability.then_some("bgp.neighbor.interface")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Neighbor, NeighborId, NeighborKeys};

    #[test]
    fn they_are_those_that_the_reference_names() {
        let mut names = KEYS.map(|(key, _)| key.to_owned());
        let mut defined = crate::config::reference::for_the_next_start();
        names.sort();
        defined.sort();
        assert_eq!(names.as_slice(), defined);
    }

    #[test]
    fn the_first_unnumbered_neighbor_needs_a_restart_on_a_bare_host_alone() {
        let (old, mut new) = (Config::default(), Config::default());
        let at = NeighborId::Interface("eth0".into());
        new.bgp.neighbors.push(Neighbor { at, group: None, limit: 1, keys: NeighborKeys::default() });
        assert_eq!(keys(&old, &new, false), ["bgp.neighbor.interface"]);
        assert!(keys(&old, &new, true).is_empty());
        assert!(keys(&new, &old, false).is_empty());
    }
}
