//! Settings of the host that the planner reads without notifications, and queries that it derives
//! from the configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{
    cni::{conflist, io::PluginQuery},
    config::{CniPlugin, Config},
    docker,
    fib::{host::Host, io::sysctl},
    net::Family,
    pace::tick,
};

pub(super) fn docker_wanted(config: &Config) -> docker::Wanted {
    docker::Wanted { socket: config.docker.socket.clone(), selectors: config.docker.networks.clone() }
}

/// The plugins in the conflist.
pub(super) fn plugin_query(config: &Config) -> PluginQuery {
    let types = config.cni.plugins.iter().filter_map(|p| match p {
        CniPlugin::Name(name) => Some(name.clone()),
        CniPlugin::Table(table) => Some(table.get("type")?.as_str()?.to_owned()),
    });
    PluginQuery {
        bin_dir: config.cni.bin_dir.clone(),
        conflist: config.cni.conf_dir.join(&config.cni.file),
        names: conflist::REQUIRED.map(str::to_owned).into_iter().chain(types).collect(),
    }
}

/// Families that are disabled on this host, with the setting. IPv4 has no such setting.
pub(super) fn switched_off(
    kubernetes: bool,
    uplinks: &[String],
    config: &Config,
) -> BTreeMap<Family, String> {
    let off = kubernetes.then(|| sysctl::ipv6_off(uplinks, &config.cni.bridge)).flatten();
    off.map(|setting| (Family::Ipv6Unicast, setting)).into_iter().collect()
}

/// Waits until a family is enabled or disabled: the kernel sends no notification about settings of
/// future interfaces. Cancel safe.
pub(super) async fn switched(
    kubernetes: bool,
    uplinks: &[String],
    config: &Config,
    known: &BTreeMap<Family, String>,
) {
    if !kubernetes {
        return std::future::pending().await;
    }
    loop {
        tick(SETTINGS_INTERVAL).await;
        if switched_off(kubernetes, uplinks, config) != *known {
            return;
        }
    }
}

/// How often to read settings without notifications.
const SETTINGS_INTERVAL: Duration = Duration::from_secs(5);

/// Addresses that are usable as source now.
pub(super) fn usable(host: &Host) -> BTreeSet<(u32, IpAddr)> {
    let links = host.links_with_carrier();
    links.flat_map(|l| l.addresses.iter().filter(|a| !a.tentative).map(|a| (l.index, a.addr))).collect()
}
