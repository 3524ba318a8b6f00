//! The client of the API server: from `--kubeconfig` or from the ServiceAccount of the pod, never from `$KUBECONFIG` or
//! `~/.kube/config`, which belong to whoever started us.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{net::lookup_host, time::timeout};

use super::{Options, watch::WATCH_SECONDS};

/// A client and what it was made from.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// Where the API server is, for the route guard.
    pub(super) servers: Vec<IpAddr>,
    made_from: Option<SystemTime>,
}

impl Connection {
    /// Whether a new one is due: the kubeconfig was written anew, or a certificate in it has run out.
    pub(super) fn is_stale(&self, options: &Options) -> bool {
        let expired = self.client.valid_until().is_some_and(|t| t <= jiff::Timestamp::now());
        expired || self.made_from != modified(options)
    }
}

/// Reads the credentials. Fails while a file is missing: the caller tries again.
pub(super) async fn connect(options: &Options) -> Result<Connection, String> {
    let made_from = modified(options);
    let mut config = match &options.kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::incluster_env().map_err(|e| format!("no ServiceAccount: {}", super::chain(&e)))?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    // A server that takes a question and never answers. Nothing is silent for longer than a watch.
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 20));
    config.reset_reader_on_write = true;
    let mut servers = addresses(config.cluster_url.host().unwrap_or_default()).await;
    let service = options.service.iter().filter_map(|(host, _)| host.parse::<IpAddr>().ok());
    servers.extend(service);
    servers.sort_unstable();
    servers.dedup();
    let client = Client::try_from(config).map_err(|e| super::chain(&e))?;
    Ok(Connection { client, servers, made_from })
}

async fn from_file(path: &Path) -> Result<Config, String> {
    let failed = |e: kube::config::KubeconfigError| format!("{}: {}", path.display(), super::chain(&e));
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)
}

fn modified(options: &Options) -> Option<SystemTime> {
    std::fs::metadata(options.kubeconfig.as_ref()?).ok()?.modified().ok()
}

/// The addresses of a host name; none when it cannot be resolved now.
async fn addresses(host: &str) -> Vec<IpAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(addr) = host.parse() {
        return vec![addr];
    }
    match timeout(Duration::from_secs(2), lookup_host((host, 443))).await {
        Ok(Ok(found)) => found.map(|a| a.ip()).collect(),
        _ => Vec::new(),
    }
}
