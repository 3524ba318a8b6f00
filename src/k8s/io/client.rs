//! The client of the API server: from `--kubeconfig` or from the ServiceAccount of the pod, never from `$KUBECONFIG` or
//! `~/.kube/config`, which belong to whoever started us.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{ClientBuilder, ConfigExt, retry::RetryPolicy},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{net::lookup_host, time::timeout};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

use super::{Options, watch::WATCH_SECONDS};

/// A connection on which nothing came for so long is probed, and a probe that is not acknowledged is repeated. A watch is
/// silent for minutes, so an API server that lost its power, or a middlebox that forgot the connection, is noticed by this
/// alone: within 10 + 3 × 4 seconds.
const IDLE: Duration = Duration::from_secs(10);
const BETWEEN_PROBES: Duration = Duration::from_secs(4);
const PROBES: u32 = 3;
/// What was sent and is not acknowledged for so long ends the connection, too (TCP_USER_TIMEOUT, tcp(7)): the kernel
/// sends no keepalive probes while data is under way.
const UNACKNOWLEDGED: Duration = Duration::from_secs(22);

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
    let client = client(config).map_err(|e| super::chain(&e))?;
    Ok(Connection { client, servers, made_from })
}

/// As `kube` makes it, over sockets that notice when the other end is gone.
fn client(config: Config) -> Result<Client, kube::Error> {
    // A proxy, where the build knows any, brings its own connector.
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    // Only `kube` itself can read until when a certificate from a program is good.
    let valid_until = match &config.auth_info.exec {
        Some(_) => Client::try_from(config.clone())?.valid_until().to_owned(),
        None => None,
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(IDLE));
    tcp.set_keepalive_interval(Some(BETWEEN_PROBES));
    tcp.set_keepalive_retries(Some(PROBES));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let http = legacy::Builder::new(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).with_valid_until(valid_until).build())
}

async fn from_file(path: &Path) -> Result<Config, String> {
    let failed = |e: kube::config::KubeconfigError| format!("{}: {}", path.display(), super::chain(&e));
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)
}

/// Files that a kubeconfig names, and whether it names a program that makes credentials. Of one that is
/// not there yet nothing is known.
pub(crate) fn credentials(kubeconfig: &Path) -> (Vec<PathBuf>, bool) {
    let Ok(config) = Kubeconfig::read_from(kubeconfig) else { return Default::default() };
    let users: Vec<_> = config.auth_infos.into_iter().filter_map(|named| named.auth_info).collect();
    let has_program = users.iter().any(|user| user.exec.is_some() || user.auth_provider.is_some());
    let of_users = users.into_iter().flat_map(|u| [u.client_certificate, u.client_key, u.token_file]);
    let clusters = config.clusters.into_iter().filter_map(|named| named.cluster);
    let files = of_users.chain(clusters.map(|cluster| cluster.certificate_authority));
    (files.flatten().map(PathBuf::from).collect(), has_program)
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
