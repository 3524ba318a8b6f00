//! `reload` and SIGHUP: a good file comes into force, a bad one changes nothing.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::{planner::publish, room::Limit, sandbox};
use crate::{
    cli::log::LogLevel,
    config::{self, Config, Fib},
};

/// Re-reads the file that the daemon was started with.
#[derive(Clone)]
pub(super) struct Reloader {
    pub(super) file: Option<PathBuf>,
    pub(super) kubernetes: bool,
    pub(super) config: watch::Sender<Arc<Config>>,
    /// Octets that routes may take: the memory limit may have changed, too.
    pub(super) budget: watch::Sender<u64>,
    pub(super) log: LogLevel,
}

impl Reloader {
    /// Puts the file into force, or says everything that is wrong with it.
    pub(super) async fn reload(&self) -> Result<Option<String>, String> {
        let (file, kubernetes) = (self.file.clone(), self.kubernetes);
        let read = tokio::task::spawn_blocking(move || config::io::load(file.as_deref(), kubernetes));
        let mut loaded = match read.await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(problems)) => {
                let mut text = problems.to_string();
                if self.config.borrow().security.sandbox && text.contains("Permission denied") {
                    text += OUT_OF_REACH;
                }
                for problem in text.lines() {
                    tracing::error!(%problem, "configuration not taken over; the old one stays in force");
                }
                return Err(format!("the old configuration stays in force:\n{text}"));
            }
            Err(_) => return Err("the daemon is stopping".into()),
        };
        if let Some(warnings) = &loaded.warnings {
            tracing::warn!(%warnings, "configuration");
        }
        let limit = Limit::read();
        limit.complete(&mut loaded.config);
        publish(&self.budget, limit.budget());
        let old = self.config.borrow().clone();
        let late = needs_a_restart(&old, &loaded.config, self.kubernetes);
        if old.log.level != loaded.config.log.level {
            self.log.set(&loaded.config.log.level);
        }
        self.config.send_replace(Arc::new(loaded.config));
        tracing::info!("configuration taken over");
        if late.is_empty() {
            return Ok(None);
        }
        let text = format!("what changed in {} takes effect at the next start", late.join(", "));
        tracing::warn!(keys = %late.join(", "), "these keys take effect at the next start");
        Ok(Some(text))
    }
}

/// The sandbox leaves what was configured at the start.
const OUT_OF_REACH: &str = "\na file in a folder that the configuration did not name at the start is out of reach; \
                            restart routelet";

/// What is bound, opened or decided once. `offered`: the daemon runs under Kubernetes unless the file decides.
fn needs_a_restart(old: &Config, new: &Config, offered: bool) -> Vec<&'static str> {
    let kubernetes = old.kubernetes.enabled.unwrap_or(offered);
    let changed = [
        ("state-dir", old.state_dir != new.state_dir),
        ("fib", old.fib != Fib { prefer_source: old.fib.prefer_source.clone(), ..new.fib.clone() }),
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
        ("metrics.listen", old.metrics != new.metrics),
        ("control", old.control != new.control),
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
        assert_eq!(needs_a_restart(&old, &new, false), ["bgp.neighbor.interface"]);
        assert!(needs_a_restart(&old, &new, true).is_empty());
        assert!(needs_a_restart(&new, &old, false).is_empty());
    }
}
