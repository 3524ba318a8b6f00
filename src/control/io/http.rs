//! `/metrics`, `/livez`, `/readyz` and `/startupz` by HTTP/1.1.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Metrics,
    Livez,
    Readyz,
    Startupz,
}

/// What the daemon says: status 200 or 503, and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub ok: bool,
    pub text: String,
}

/// Connections at the same time, per listener; more wait.
const MAX_CLIENTS: usize = 64;

/// Longest life of a connection: one scrape or one probe.
const PATIENCE: Duration = Duration::from_secs(10);

/// The classic text format, which every collector reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Binds each address; what cannot be bound is a warning, never a reason to stop.
pub async fn bind(addresses: &[SocketAddr]) -> Vec<TcpListener> {
    let mut bound = Vec::new();
    for &address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => bound.push(listener),
            Err(error) => tracing::warn!(
                %address, %error,
                "cannot listen for metrics and probes; going on without; set metrics.listen to a free address"
            ),
        }
    }
    bound
}

/// Serves all listeners until dropped.
pub async fn serve<H, F>(listeners: Vec<TcpListener>, reply: H)
where
    H: Fn(Page) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let reply = Arc::new(reply);
    let mut tasks: JoinSet<()> = listeners.into_iter().map(|l| accept(l, reply.clone())).collect();
    while tasks.join_next().await.is_some() {}
    std::future::pending::<()>().await;
}

async fn accept<H, F>(listener: TcpListener, reply: Arc<H>)
where
    H: Fn(Page) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        let reply = reply.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let reply = reply.clone();
                async move { Ok::<_, Infallible>(respond(&request, &*reply).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(PATIENCE, connection).await;
            drop(permit);
        });
    }
}

async fn respond<H, F>(request: &Request<Incoming>, reply: &H) -> Response<Full<Bytes>>
where
    H: Fn(Page) -> F,
    F: Future<Output = Reply>,
{
    let page = match request.uri().path() {
        "/metrics" => Page::Metrics,
        "/livez" | "/healthz" => Page::Livez,
        "/readyz" => Page::Readyz,
        "/startupz" => Page::Startupz,
        _ => return text(StatusCode::NOT_FOUND, "see /metrics, /livez, /readyz, /startupz\n".into()),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    let Reply { ok, text: body } = reply(page).await;
    let mut response = text(if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body);
    if page == Page::Metrics && ok {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
    }
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
