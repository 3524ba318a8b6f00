//! Determines from the configuration what the sandbox must permit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{RunOptions, limits};
use crate::{
    cni,
    config::{self, Config, NeighborId, NeighborKeys},
    k8s,
    sandbox::{self, Capability, Cni, Demand, SandboxView, io::Held},
};

/// Restricts the daemon, unless disabled. Must be called while there is one thread, after
/// everything that needs more rights: the control socket with its group, and the state folder.
pub(super) fn enter(options: &RunOptions, config: &Config, kubernetes: bool) -> (SandboxView, Option<Held>) {
    if !config.security.sandbox {
        tracing::warn!("sandbox disabled; set security.sandbox = true");
        return (sandbox::io::look(), None);
    }
    let demand = demand(options, config, kubernetes);
    make_folders(&demand);
    let capabilities = capabilities(config, kubernetes, limits::real_time_is_allowed());
    let (view, held) = sandbox::io::enter(&demand, &capabilities);
    let SandboxView { user, capabilities, seccomp, landlock, .. } = &view;
    tracing::info!(user, ?capabilities, seccomp, landlock, "sandbox enabled");
    for missing in &view.missing {
        tracing::warn!(%missing, "sandbox incomplete");
    }
    (view, Some(held))
}

/// The capabilities to keep; each is explained at its definition. Under Kubernetes a BGPPeer may
/// use an interface or BFD at any time; the shipped manifests grant neither capability.
fn capabilities(config: &Config, kubernetes: bool, real_time: bool) -> Vec<Capability> {
    let mut keep = vec![Capability::NetAdmin, Capability::NetBindService];
    if opens_raw_sockets(config, kubernetes) {
        keep.push(Capability::NetRaw);
    }
    let bfd = |keys: &NeighborKeys| matches!(keys.bfd, Some(Some(_)));
    if !real_time && (kubernetes || keys(config).any(bfd)) {
        keep.push(Capability::SysNice);
    }
    keep
}

/// Whether ICMPv6 sockets of unnumbered neighbors may be needed.
pub(super) fn opens_raw_sockets(config: &Config, kubernetes: bool) -> bool {
    let unnumbered = |at: &NeighborId| matches!(at, NeighborId::Interface(_) | NeighborId::Uplinks);
    kubernetes || config.bgp.neighbors.iter().any(|n| unnumbered(&n.at))
}

fn demand(options: &RunOptions, config: &Config, kubernetes: bool) -> Demand {
    let file = options.config.clone().unwrap_or_else(|| config::io::DEFAULT_PATH.into());
    let file = std::path::absolute(&file).unwrap_or(file);
    let (named, runs_credential_program) =
        options.kubeconfig.as_deref().map(k8s::io::credentials).unwrap_or_default();
    let credentials = options.kubeconfig.iter().cloned().chain(named).flat_map(with_target).collect();
    let passwords = passwords(config, file.parent().unwrap_or(Path::new("/")));
    let mut passwords: Vec<_> = passwords.into_iter().flat_map(with_target).collect();
    // `reload` also reads a configuration behind a symbolic link.
    passwords.extend(with_target(file.clone()).into_iter().skip(1));
    Demand {
        state_dir: config.state_dir.clone(),
        socket: config.control.socket.clone(),
        config: file,
        passwords,
        credentials,
        runs_credential_program,
        cni: kubernetes.then(|| Cni {
            conf_dir: config.cni.conf_dir.clone(),
            bin_dir: config.cni.bin_dir.clone(),
            leases: cni::io::LEASES.into(),
            writes: config.cni.enabled != Some(false),
        }),
    }
}

/// Password files in the configuration.
pub(super) fn passwords(config: &Config, folder: &Path) -> Vec<PathBuf> {
    keys(config).flat_map(NeighborKeys::password_files).map(|file| folder.join(file)).collect()
}

/// The keys of all neighbors, groups and the defaults.
fn keys(config: &Config) -> impl Iterator<Item = &NeighborKeys> {
    let neighbors = config.bgp.neighbors.iter().map(|n| &n.keys);
    neighbors.chain(config.bgp.groups.values()).chain([&config.bgp.defaults])
}

/// The absolute path, and its target if it is a symbolic link.
fn with_target(path: PathBuf) -> Vec<PathBuf> {
    let path = std::path::absolute(&path).unwrap_or(path);
    let target = fs::canonicalize(&path).ok().filter(|target| *target != path);
    std::iter::once(path).chain(target).collect()
}

/// Creates folders that are needed later: a missing folder cannot be permitted.
fn make_folders(demand: &Demand) {
    let Some(cni) = &demand.cni else { return };
    let conf_dir = cni.writes.then_some(cni.conf_dir.as_path());
    // The CNI plugin creates its own folder inside the parent.
    for folder in conf_dir.into_iter().chain(cni.leases.parent()) {
        if let Err(error) = fs::create_dir_all(folder) {
            tracing::debug!(path = %folder.display(), %error, "cannot create folder");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bgp::peer::Bfd, config::Neighbor};

    fn neighbor(at: NeighborId, password_file: &str) -> Neighbor {
        let keys = NeighborKeys { password_file: Some(password_file.into()), ..NeighborKeys::default() };
        Neighbor { at, group: None, limit: 1, keys }
    }

    #[test]
    fn raw_sockets_are_kept_for_unnumbered_neighbors_only() {
        let mut config = Config::default();
        assert_eq!(capabilities(&config, false, false), [Capability::NetAdmin, Capability::NetBindService]);
        config.bgp.neighbors.push(neighbor(NeighborId::Interface("eth0".into()), "p"));
        assert!(capabilities(&config, false, false).contains(&Capability::NetRaw));
    }

    #[test]
    fn a_priority_is_kept_for_bfd_only_and_where_no_limit_permits_it() {
        let mut config = Config::default();
        assert!(!capabilities(&config, false, false).contains(&Capability::SysNice));
        let keys = NeighborKeys { bfd: Some(Some(Bfd::default())), ..NeighborKeys::default() };
        config.bgp.groups.insert("leaf".into(), keys);
        assert!(capabilities(&config, false, false).contains(&Capability::SysNice));
        assert!(!capabilities(&config, false, true).contains(&Capability::SysNice));
    }

    #[test]
    fn folders_of_the_configuration_its_passwords_and_their_targets_stay_readable() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        for folder in ["etc", "store", "keys", "bfd"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("store/routelet.toml"), "").unwrap();
        std::os::unix::fs::symlink(at("store/routelet.toml"), at("etc/routelet.toml")).unwrap();
        let mut config = Config::default();
        config.bgp.neighbors.push(neighbor(NeighborId::Gateway, "../keys/tor"));
        let bfd = Bfd { password_file: Some(at("bfd/tor")), ..Bfd::default() };
        let keys = NeighborKeys { bfd: Some(Some(bfd)), ..NeighborKeys::default() };
        config.bgp.groups.insert("tor".into(), keys);
        let options = RunOptions { config: Some(at("etc/routelet.toml")), ..RunOptions::default() };
        let rules = demand(&options, &config, false).rules();
        let readable: Vec<_> = rules.iter().flat_map(|r| r.candidates().next()).collect();
        for folder in [at("etc"), at("store"), at("etc/../keys"), at("bfd")] {
            assert!(readable.contains(&folder.as_path()), "{}: {readable:?}", folder.display());
        }
    }
}
