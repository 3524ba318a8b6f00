//! The client of the API server, configured by `--kubeconfig` or the ServiceAccount of the pod. It
//! never uses `$KUBECONFIG` or `~/.kube/config`, which belong to the user who started routelet.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hyper::{
    Response,
    body::Incoming,
    http::{HeaderValue, header::RETRY_AFTER},
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

use super::{
    Options,
    error::{ApiError, chain},
};
use crate::k8s::watch::WATCH_SECONDS;

/// Idle time before the first TCP keepalive probe. A watch can be silent for minutes, so only
/// keepalives detect an API server that lost power, or a middlebox that dropped the connection:
/// within 10 + 3 × 4 seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(4);
const KEEPALIVE_RETRIES: u32 = 3;
/// Maximum time for sent data to stay unacknowledged (TCP_USER_TIMEOUT, tcp(7)): the kernel sends
/// no keepalive probes while data is in flight.
const USER_TIMEOUT: Duration = Duration::from_secs(22);

/// Maximum seconds by which a response can delay the next attempt of the same request. Three such
/// delays fit into the timeout of a list.
const MAX_RETRY_AFTER_SECONDS: u16 = 10;

/// A client and the version of its credentials.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// Addresses of the API server, for the route guard.
    pub(super) servers: Vec<IpAddr>,
    made_from: Option<SystemTime>,
}

impl Connection {
    /// Whether a new connection is needed: the kubeconfig was rewritten, or a certificate has
    /// expired.
    pub(super) fn is_stale(&self, options: &Options) -> bool {
        let expired = self.client.valid_until().is_some_and(|t| t <= jiff::Timestamp::now());
        expired || self.made_from != modified(options)
    }
}

/// Reads the credentials and creates a client. Fails while a file is missing; the caller retries.
pub(super) async fn connect(options: &Options) -> Result<Connection, ApiError> {
    let made_from = modified(options);
    let mut config = match &options.kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::incluster_env().map_err(|e| ApiError::NoServiceAccount(chain(&e)))?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    // Detects a server that accepts a request and never responds. Of all requests, a watch is
    // silent longest.
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 20));
    config.reset_reader_on_write = true;
    let mut servers = addresses(config.cluster_url.host().unwrap_or_default()).await;
    let service = options.service.iter().filter_map(|(host, _)| host.parse::<IpAddr>().ok());
    servers.extend(service);
    servers.sort_unstable();
    servers.dedup();
    let client = client(config)?;
    Ok(Connection { client, servers, made_from })
}

/// A client like that of `kube`, over sockets that detect a dead server.
fn client(config: Config) -> Result<Client, kube::Error> {
    // A proxy has its own connector.
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    // Only `kube` itself can read the expiry of a certificate that a program returned.
    let valid_until = match &config.auth_info.exec {
        Some(_) => Client::try_from(config.clone())?.valid_until().to_owned(),
        None => None,
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let http = legacy::Builder::new(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(retries())))
        .map_response(bounded_retry_after::<Incoming>)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).with_valid_until(valid_until).build())
}

/// Three more attempts, after the time that the server requests, or after 0.5 to 5 seconds. Watches
/// retry by themselves, and report an API server that does not respond.
fn retries() -> RetryPolicy {
    RetryPolicy::new(Duration::from_millis(500), Duration::from_secs(5), 3, true)
        .expect("the bounds are in order")
}

/// Limits the `Retry-After` of a response: the client waits that long within the request, and a
/// watch must not stay silent for hours.
fn bounded_retry_after<B>(mut response: Response<B>) -> Response<B> {
    let value = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = value.and_then(|text| text.trim().parse::<u64>().ok());
    if seconds.is_some_and(|seconds| seconds > MAX_RETRY_AFTER_SECONDS.into()) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(MAX_RETRY_AFTER_SECONDS));
    }
    response
}

async fn from_file(path: &Path) -> Result<Config, ApiError> {
    let failed =
        |e: kube::config::KubeconfigError| ApiError::Kubeconfig { path: path.to_owned(), cause: chain(&e) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)
}

/// The files referenced by a kubeconfig, and whether it has a program that creates credentials.
/// Empty if the kubeconfig does not exist yet.
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

/// The addresses of a host name; none if it cannot be resolved now.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_delays_the_next_attempt_by_seconds_and_not_by_hours() {
        let cases = [
            ("1", "1"),
            ("10", "10"),
            ("11", "10"),
            (" 86400 ", "10"),
            ("18446744073709551615", "10"),
            // The client does not use these.
            ("soon", "soon"),
            ("99999999999999999999", "99999999999999999999"),
        ];
        for (given, expected) in cases {
            let response = Response::builder().status(429).header(RETRY_AFTER, given).body(()).unwrap();
            assert_eq!(bounded_retry_after(response).headers()[RETRY_AFTER], expected, "{given}");
        }
        let response = bounded_retry_after(Response::new(()));
        assert!(!response.headers().contains_key(RETRY_AFTER));
    }
}
