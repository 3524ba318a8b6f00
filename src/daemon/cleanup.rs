//! `routelet cleanup`: removes everything that the daemon has left behind.

use std::{
    fmt, fs, io,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
};

use super::{Error, forwarding, state, unnumbered};
use crate::{
    cni::{conflist as cni_file, io::former},
    config::{self, Config},
    fib,
    nft::{self, forward::CHAIN},
};

/// Removes routes, nexthop objects, the conflist, its bridge unless pods are attached, and the
/// state, according to the configuration that the daemon had. Returns a line for each.
///
/// # Errors
///
/// If a daemon runs, the configuration is invalid, or something cannot be removed.
pub fn cleanup(config: Option<&Path>) -> Result<Vec<String>, Error> {
    // Whether the daemon ran under Kubernetes does not matter here, and fewer keys are required
    // then.
    let loaded = config::io::load(config, true).map_err(|p| Error::Config(p.to_string()))?.config;
    let socket = &loaded.control.socket;
    if UnixStream::connect(socket).is_ok() {
        let socket = socket.display();
        return Err(Error::Runtime(format!("a daemon runs (it listens on {socket}); stop it first")));
    }
    let mut removed = routes(&loaded)?;
    removed.extend(packet_rules()?);
    // After routes and rules are removed, nothing of ours needs forwarding.
    removed.extend(host_settings(&loaded.state_dir)?);
    removed.extend(pods(&loaded)?);
    removed.extend(files(&loaded)?);
    Ok(removed)
}

/// Routes and nexthop objects, also of former configurations.
fn routes(config: &Config) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    let (table, protocol) = (config.fib.table, config.fib.protocol);
    let kernel = fib::io::cleanup(table, protocol).map_err(|e| {
        Error::Runtime(format!(
            "routes cannot be removed: {e}; routelet needs root, or the capability NET_ADMIN"
        ))
    })?;
    let fib::io::Removed { routes, nexthops } = kernel;
    if routes + nexthops > 0 {
        removed.push(format!("{routes} routes and {nexthops} nexthop objects with protocol {protocol}"));
    }
    for place in state::former(&config.state_dir).places() {
        let former =
            fib::io::cleanup_former(place).map_err(not_removed("routes of a former configuration"))?;
        if former.routes + former.nexthops > 0 {
            removed.push(format!(
                "{} routes and {} nexthop objects of a former configuration (table {}, protocol {})",
                former.routes, former.nexthops, place.table, place.protocol
            ));
        }
    }
    Ok(removed)
}

/// Tables of nftables and chains of iptables.
fn packet_rules() -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    if nft::io::masquerade::cleanup().map_err(not_removed("the nftables table of masquerade"))? {
        removed.push(format!("nftables table inet {}", nft::wire::TABLE));
    }
    if nft::io::forward::cleanup().map_err(not_removed(&format!("the chain {CHAIN}")))? {
        removed.push(format!("chain {CHAIN} of iptables"));
    }
    let table = nft::pod_bgp::TABLE;
    if nft::io::pod_bgp::cleanup().map_err(not_removed(&format!("the nftables table {table}")))? {
        removed.push(format!("nftables table inet {table}"));
    }
    Ok(removed)
}

/// Sysctls, and addresses of interfaces.
fn host_settings(state_dir: &Path) -> Result<Vec<String>, Error> {
    let record = forwarding::record(&state_dir.join(forwarding::FILE));
    let mut removed =
        fib::io::sysctl::undo(&record).map_err(|e| Error::Runtime(format!("{e}; run as root")))?;
    let link_local = "link-local addresses that routelet added";
    removed.extend(unnumbered::cleanup(state_dir).map_err(not_removed(link_local))?);
    let ranges = former::cleanup(state_dir).map_err(not_removed("gateway addresses of former pod CIDRs"))?;
    removed.extend(ranges.iter().map(|r| format!("the gateway address of the former pod CIDR {r}")));
    Ok(removed)
}

/// The conflist, and its bridge unless pods are attached.
fn pods(config: &Config) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    let conflist = config.cni.conf_dir.join(&config.cni.file);
    if let Some((bridge, ranges)) = fs::read(&conflist).ok().and_then(|bytes| cni_file::written_for(&bytes)) {
        let gone =
            former::cleanup_bridge(&bridge, &ranges).map_err(not_removed(&format!("the bridge {bridge}")))?;
        removed.extend(gone.then(|| format!("bridge {bridge}, to which no pod is attached")));
        remove(conflist, &mut removed)?;
    }
    remove(temporary(&config.cni.conf_dir, &config.cni.file), &mut removed)?;
    Ok(removed)
}

/// The state folder with our files, and the control socket.
fn files(config: &Config) -> Result<Vec<String>, Error> {
    let (mut removed, folder) = (Vec::new(), &config.state_dir);
    // Other files are preserved, and the folder with them.
    for name in state::FILES {
        remove(folder.join(name), &mut removed)?;
        remove(temporary(folder, name), &mut removed)?;
        remove(crate::state::io::stale(&folder.join(name)), &mut removed)?;
        remove(folder.join(format!("{name}.new")), &mut removed)?;
    }
    let socket = &config.control.socket;
    if fs::symlink_metadata(socket).is_ok_and(|m| m.file_type().is_socket()) {
        remove(socket.clone(), &mut removed)?;
    }
    // Only if it is empty.
    if fs::remove_dir(folder).is_ok() {
        removed.push(folder.display().to_string());
    }
    Ok(removed)
}

/// The error that something cannot be removed.
fn not_removed<E: fmt::Display>(what: &str) -> impl Fn(E) -> Error + use<'_, E> {
    move |e| Error::Runtime(format!("{what} cannot be removed: {e}; run as root"))
}

/// The temporary file that an interrupted write leaves beside a file.
fn temporary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.tmp"))
}

fn remove(path: PathBuf, removed: &mut Vec<String>) -> Result<(), Error> {
    match fs::remove_file(&path) {
        Ok(()) => removed.push(path.display().to_string()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            let path = path.display();
            return Err(Error::Runtime(format!("{path} cannot be removed: {e}; run as root")));
        }
    }
    Ok(())
}
