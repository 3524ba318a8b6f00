//! `routelet cleanup`: removes everything that the daemon has left behind.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
};

use super::{Error, forwarding, state, unnumbered};
use crate::{
    cni::{conflist as cni_file, io::former},
    config, fib,
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
    let mut removed = Vec::new();
    let (table, protocol) = (loaded.fib.table, loaded.fib.protocol);
    let kernel = fib::io::cleanup(table, protocol).map_err(|e| {
        Error::Runtime(format!(
            "routes cannot be removed: {e}; routelet needs root, or the capability NET_ADMIN"
        ))
    })?;
    let fib::io::Removed { routes, nexthops } = kernel;
    if routes + nexthops > 0 {
        removed.push(format!("{routes} routes and {nexthops} nexthop objects with protocol {protocol}"));
    }
    for place in state::former(&loaded.state_dir).places() {
        let former = fib::io::cleanup_former(place).map_err(|e| {
            Error::Runtime(format!("routes of a former configuration cannot be removed: {e}; run as root"))
        })?;
        if former.routes + former.nexthops > 0 {
            removed.push(format!(
                "{} routes and {} nexthop objects of a former configuration (table {}, protocol {})",
                former.routes, former.nexthops, place.table, place.protocol
            ));
        }
    }
    let table = nft::io::masquerade::cleanup().map_err(|e| {
        Error::Runtime(format!("the nftables table of masquerade cannot be removed: {e}; run as root"))
    })?;
    if table {
        removed.push(format!("nftables table inet {}", nft::wire::TABLE));
    }
    let chain = nft::io::forward::cleanup()
        .map_err(|e| Error::Runtime(format!("the chain {CHAIN} cannot be removed: {e}; run as root")))?;
    if chain {
        removed.push(format!("chain {CHAIN} of iptables"));
    }
    let bgp = nft::io::pod_bgp::cleanup().map_err(|e| {
        let table = nft::pod_bgp::TABLE;
        Error::Runtime(format!("the nftables table {table} cannot be removed: {e}; run as root"))
    })?;
    if bgp {
        removed.push(format!("nftables table inet {}", nft::pod_bgp::TABLE));
    }
    // After routes and rules are removed, nothing of ours needs forwarding.
    let record = forwarding::record(&loaded.state_dir.join(forwarding::FILE));
    removed.extend(fib::io::sysctl::undo(&record).map_err(|e| Error::Runtime(format!("{e}; run as root")))?);
    removed.extend(unnumbered::cleanup(&loaded.state_dir).map_err(|e| {
        Error::Runtime(format!(
            "link-local addresses that routelet added cannot be removed: {e}; run as root"
        ))
    })?);
    let ranges = former::cleanup(&loaded.state_dir).map_err(|e| {
        Error::Runtime(format!("gateway addresses of former pod CIDRs cannot be removed: {e}; run as root"))
    })?;
    removed.extend(ranges.iter().map(|r| format!("the gateway address of the former pod CIDR {r}")));
    let conflist = loaded.cni.conf_dir.join(&loaded.cni.file);
    if let Some((bridge, ranges)) = fs::read(&conflist).ok().and_then(|bytes| cni_file::written_for(&bytes)) {
        let gone = former::cleanup_bridge(&bridge, &ranges).map_err(|e| {
            Error::Runtime(format!("the bridge {bridge} cannot be removed: {e}; run as root"))
        })?;
        removed.extend(gone.then(|| format!("bridge {bridge}, to which no pod is attached")));
        remove(conflist, &mut removed)?;
    }
    remove(temporary(&loaded.cni.conf_dir, &loaded.cni.file), &mut removed)?;
    // Other files are preserved, and the folder with them.
    for name in state::FILES {
        remove(loaded.state_dir.join(name), &mut removed)?;
        remove(temporary(&loaded.state_dir, name), &mut removed)?;
        remove(crate::state::io::stale(&loaded.state_dir.join(name)), &mut removed)?;
        remove(loaded.state_dir.join(format!("{name}.new")), &mut removed)?;
    }
    if fs::symlink_metadata(socket).is_ok_and(|m| m.file_type().is_socket()) {
        remove(socket.clone(), &mut removed)?;
    }
    // Only if it is empty.
    if fs::remove_dir(&loaded.state_dir).is_ok() {
        removed.push(loaded.state_dir.display().to_string());
    }
    Ok(removed)
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
