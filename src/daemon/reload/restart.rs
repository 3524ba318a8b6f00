//! Which keys take effect at a start only.

use crate::{config::Config, daemon::sandbox};

/// Keys whose value is not that of the start, of those that are bound, opened or decided once.
/// `offered`: the daemon runs under Kubernetes unless the file decides.
pub(super) fn keys(started: &Config, new: &Config, offered: bool) -> Vec<&'static str> {
    let old = started;
    let kubernetes = old.kubernetes.enabled.unwrap_or(offered);
    let changed = [
        ("state-dir", old.state_dir != new.state_dir),
        ("kubernetes.enabled", old.kubernetes.enabled != new.kubernetes.enabled),
        ("kubernetes.node-name", old.kubernetes.node_name != new.kubernetes.node_name),
        ("kubernetes.startup-taint", old.kubernetes.startup_taint != new.kubernetes.startup_taint),
        ("kubernetes.service-cidrs", old.kubernetes.service_cidrs != new.kubernetes.service_cidrs),
        ("cni.enabled", old.cni.enabled != new.cni.enabled),
        ("cni.conf-dir", old.cni.conf_dir != new.cni.conf_dir),
        ("cni.file", old.cni.file != new.cni.file),
        ("cni.bin-dir", old.cni.bin_dir != new.cni.bin_dir),
        // Capabilities do not come back.
        (
            "bgp.neighbor.interface",
            sandbox::opens_raw_sockets(new, kubernetes) && !sandbox::opens_raw_sockets(old, kubernetes),
        ),
        ("security.sandbox", old.security != new.security),
        ("log.format", old.log.format != new.log.format),
    ];
    changed.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Neighbor, NeighborId, NeighborKeys};

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
