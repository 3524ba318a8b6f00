//! Serves `/metrics`, `/livez`, `/readyz` and `/startupz` over HTTP/1.1.
//!
//! Any local user can connect, and with a listener beyond the loopback anybody can. Connections,
//! requests and unread responses are bounded, and a client that sends its request at once is served
//! regardless of other clients.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue, VARY},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use super::connections::Connections;
use crate::{metrics::Format, supervise::supervise};

/// The page that is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Metrics(Format),
    Livez,
    Readyz,
    Startupz,
}

/// The daemon's reply: status 200 or 503, and the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub ok: bool,
    pub text: String,
}

/// Limit of connections per listener. A further one closes the oldest that has sent no request.
const MAX_CONNECTIONS: usize = 64;

/// Limit of concurrent scrapes over all listeners, each of which holds a body of up to some hundred
/// kilooctets until its client has read it. Further ones get status 503. Probes are not counted.
const MAX_SCRAPES: usize = 8;

/// Time from the connection to the end of the request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum lifetime of a connection: one scrape or one probe.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit of a request in octets; hyper rejects longer headers with status 431.
const MAX_REQUEST: usize = 16 * 1024;

/// Binds each address; those that cannot be bound are returned with the error.
pub async fn bind(addresses: &[SocketAddr]) -> (Vec<TcpListener>, Vec<(SocketAddr, std::io::Error)>) {
    let (mut bound, mut taken) = (Vec::new(), Vec::new());
    for &address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => bound.push(listener),
            Err(error) => taken.push((address, error)),
        }
    }
    (bound, taken)
}

/// Serves all listeners until dropped.
pub async fn serve<H, F>(listeners: Vec<TcpListener>, reply: H)
where
    H: Fn(Page) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let reply = Arc::new(reply);
    let scrapes = Arc::new(Semaphore::new(MAX_SCRAPES));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let (listener, reply, scrapes) = (Arc::new(listener), reply.clone(), scrapes.clone());
        let start = move || accept(listener.clone(), reply.clone(), scrapes.clone());
        tasks.spawn(supervise("listener for metrics and probes", start));
    }
    while tasks.join_next().await.is_some() {}
    std::future::pending::<()>().await;
}

async fn accept<H, F>(listener: Arc<TcpListener>, reply: Arc<H>, scrapes: Arc<Semaphore>)
where
    H: Fn(Page) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let mut connections = Connections::new(MAX_CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                connections.make_room(&error).await;
                continue;
            }
        };
        let (reply, scrapes) = (reply.clone(), scrapes.clone());
        connections.add(|has_request| connection(stream, reply, scrapes, has_request)).await;
    }
}

/// Serves one connection of any kind, to its end.
pub async fn serve_one<H, F>(stream: impl AsyncRead + AsyncWrite + Unpin, reply: H)
where
    H: Fn(Page) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    connection(stream, Arc::new(reply), Arc::new(Semaphore::new(MAX_SCRAPES)), Arc::default()).await;
}

async fn connection<H, F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    reply: Arc<H>,
    scrapes: Arc<Semaphore>,
    has_request: Arc<AtomicBool>,
) where
    H: Fn(Page) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    // Held until the connection ends, which is how long the body of a scrape is in memory.
    let place = Arc::new(OnceLock::new());
    let service = service_fn(move |request| {
        has_request.store(true, Ordering::Relaxed);
        let (reply, scrapes, place) = (reply.clone(), scrapes.clone(), place.clone());
        async move { Ok::<_, Infallible>(respond(&request, &*reply, scrapes, &place).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}

async fn respond<H, F>(
    request: &Request<Incoming>,
    reply: &H,
    scrapes: Arc<Semaphore>,
    place: &OnceLock<OwnedSemaphorePermit>,
) -> Response<Full<Bytes>>
where
    H: Fn(Page) -> F,
    F: Future<Output = Reply>,
{
    let page = match request.uri().path() {
        "/metrics" => Page::Metrics(accepted(request)),
        "/livez" | "/healthz" => Page::Livez,
        "/readyz" => Page::Readyz,
        "/startupz" => Page::Startupz,
        _ => return text(StatusCode::NOT_FOUND, "see /metrics, /livez, /readyz, /startupz\n".into()),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    if let Page::Metrics(_) = page {
        let Ok(permit) = scrapes.try_acquire_owned() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once; try again\n".into());
        };
        let _ = place.set(permit);
    }
    let Reply { ok, text: body } = reply(page).await;
    let mut response = text(if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body);
    if let Page::Metrics(format) = page {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    }
    response
}

/// The format that all `Accept` headers together select.
fn accepted(request: &Request<Incoming>) -> Format {
    let values = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    Format::accepted(&values.collect::<Vec<_>>().join(","))
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
