//! `routelet doctor` without a daemon: runs the checks of the daemon and those of its start once.

use std::{io, net::SocketAddr, path::Path};

use super::{
    Error, RunOptions, block_on,
    cluster::{api_options, conflist_options},
    filters, kernel_routes,
    survey::Survey,
};
use crate::{
    bgp::io::{owners_of, port_taken},
    cni,
    config::{self, Config},
    fib::{
        self,
        host::Host,
        io::sysctl as io_sysctl,
        sysctl::{self, Needs, forwarding_key},
    },
    k8s,
    net::{Diagnostic, Reason, Subject},
    nft,
    plan::{self, PlanInputs, plan},
};

/// Checks the host for a daemon that would be started with these options. Returns the most urgent
/// problems first.
///
/// # Errors
///
/// If the configuration is invalid.
pub fn doctor(options: RunOptions) -> Result<Vec<Diagnostic>, Error> {
    let offered = options.kubeconfig.is_some() || options.environment.kubernetes_service_host.is_some();
    let loaded = config::io::load(options.config.as_deref(), offered);
    let config = loaded.map_err(|p| Error::Config(p.to_string()))?.config;
    let mut found = block_on(checks(&options, &config, offered))?;
    found.sort_by_key(|problem| problem.severity);
    Ok(found)
}

async fn checks(options: &RunOptions, config: &Config, offered: bool) -> Vec<Diagnostic> {
    let kubernetes = config.kubernetes.enabled.unwrap_or(offered);
    let mut found = ports(&config.bgp.listen, "bgp.listen");
    found.extend(ports(&config.metrics.listen, "metrics.listen"));
    found.extend(Survey::new().check());
    found.extend(state_dir(&config.state_dir));
    match fib::io::Kernel::open(kernel_routes::settings(config)).await {
        Ok(kernel) => {
            let host = kernel.host().borrow().clone();
            found.extend(host_checks(config, &host, kubernetes));
        }
        Err(error) => found.push(Diagnostic::new(
            Reason::KernelUnreadable,
            Subject::host(),
            format!("links and routes of this host cannot be read: {error}"),
            "run it as root",
        )),
    }
    if kubernetes {
        found.extend(cluster_checks(options, config).await);
    }
    found
}

/// Problems of the plan and of the kernel's settings.
fn host_checks(config: &Config, host: &Host, kubernetes: bool) -> Vec<Diagnostic> {
    let extra = PlanInputs { kubernetes, ..PlanInputs::default() };
    // Under Kubernetes the plan needs the Nodes.
    let planned = (!kubernetes).then(|| plan(config, None, host, &extra));
    let mut found = Vec::new();
    match &planned {
        Some(Ok(plan)) => {
            found.extend(plan.diagnostics());
            found.extend(nft::io::forward::dropped(&plan.forward));
        }
        Some(Err(missing)) => {
            found.push(Diagnostic::new(Reason::StartIncomplete, Subject::host(), missing.to_string(), ""));
        }
        None => {}
    }
    let needs = plan::forwarding(config, host, &extra, planned.as_ref().and_then(|p| p.as_ref().ok()));
    if let Some(Ok(planned)) = &planned {
        found.extend(filters::judge(&plan::passages(host, &needs, planned)));
    }
    // This fails only without descriptors or memory, which a command has.
    if let Ok(seen) = io_sysctl::look(&needs) {
        found.extend(sysctl::problems(&needs, &seen));
        found.extend(forwarding_off(&needs));
    }
    found
}

fn forwarding_off(needs: &Needs) -> Vec<Diagnostic> {
    let off = needs.families.iter().filter(|family| !io_sysctl::is_forwarding(**family).unwrap_or(true));
    off.map(|family| {
        let key = forwarding_key(*family);
        Diagnostic::new(
            Reason::ForwardingOff,
            Subject::sysctl(key),
            format!("{key}: is 0: {family} packets of containers are not forwarded"),
            format!("start routelet, which sets it, or run `sysctl -w {key}=1`"),
        )
    })
    .collect()
}

/// Addresses to listen on that are in use by another process.
fn ports(listen: &[SocketAddr], key: &str) -> Vec<Diagnostic> {
    let owners = owners_of(listen);
    let taken = listen.iter().filter_map(|addr| {
        let error = std::net::TcpListener::bind(addr).err()?;
        // A socket is opened for each family separately, so only a socket of the same family, or of
        // both, conflicts.
        let is_taken = error.kind() == io::ErrorKind::AddrInUse && owners.contains_key(&addr.port());
        // An address that a running routelet daemon uses is no problem.
        let is_ours = owners.get(&addr.port()).is_some_and(|owner| owner.starts_with("routelet "));
        let is_refused = error.kind() == io::ErrorKind::PermissionDenied;
        (is_taken && !is_ours || is_refused).then(|| port_taken(*addr, key, &error, owners.get(&addr.port())))
    });
    taken.collect()
}

/// Whether files can be written there. Creates no folder: the nearest existing parent is checked.
fn state_dir(dir: &Path) -> Option<Diagnostic> {
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(dir);
    let error = nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK).err()?;
    Some(Diagnostic::new(
        Reason::StateNotWritable,
        Subject::file(dir.display()),
        format!("{} cannot be written: {error}; no state would survive a restart", dir.display()),
        "run as root, or make state-dir writable",
    ))
}

async fn cluster_checks(options: &RunOptions, config: &Config) -> Vec<Diagnostic> {
    let mut found = k8s::io::check_access(&api_options(options, config, &config.state_dir)).await;
    if config.cni.enabled != Some(false) {
        found.extend(plugins(&config.cni.bin_dir));
        found.extend(cni::io::conflist_in_front(&conflist_options(config, &config.state_dir)));
    }
    found
}

fn plugins(dir: &Path) -> Vec<Diagnostic> {
    let missing = cni::conflist::REQUIRED.into_iter().filter(|name| !dir.join(name).exists());
    missing.map(|name| plan::cni_plugin_missing(name, dir)).collect()
}
