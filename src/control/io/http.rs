//! Serves `/metrics`, `/livez`, `/readyz`, `/startupz` and the status page at `/` over HTTP/1.1.
//!
//! Any local user can connect, and with a listener beyond the loopback anybody can. Connections,
//! requests and unread responses are bounded, and a client is served regardless of other clients:
//! the kernel holds back connections without a request ([`DeferAccept`]).

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http_body_util::{Either, Full, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{
        ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
        REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::setsockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::connections::Connections;
use crate::{
    control::page::{self, POLICY, search},
    metrics::Format,
    supervise::supervise,
};

/// The requested page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    Metrics(Format),
    Livez,
    Readyz,
    Startupz,
    /// The status page, with the routes that are searched for.
    Status {
        search: String,
    },
    /// The events after this number, or all later events, as a stream.
    Events {
        after: Option<u64>,
    },
}

/// The daemon's reply.
pub enum Reply {
    /// Status 200 or 503, and the body.
    Text { ok: bool, text: String },
    /// Parts of a body, each of which is sent at once. It ends after [`STREAM_LIFETIME`].
    Stream(BoxStream<'static, String>),
    /// The page is disabled.
    Absent,
}

/// What is sent: a text, or a stream of them.
type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

/// Limit of connections per listener. A further one closes the oldest that has sent no request.
const MAX_CONNECTIONS: usize = 64;

/// Limit of concurrent scrapes over all listeners, each of which holds a body of up to some hundred
/// kilooctets until its client has read it. Further ones get status 503. Probes are not counted.
const MAX_SCRAPES: usize = 8;

/// Limits of concurrent status pages, and of browsers that follow events. Both are below
/// [`MAX_CONNECTIONS`], so that probes are served beside them.
const MAX_PAGES: usize = 4;
const MAX_STREAMS: usize = 8;

/// Time from the connection to the end of the request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum lifetime of a connection for one scrape, one probe or one page.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// When a stream of events ends. A browser connects again; the connection of a client that does not
/// read is closed [`CONNECTION_TIMEOUT`] later.
const STREAM_LIFETIME: Duration = Duration::from_secs(300);

/// Seconds for which the kernel keeps a connection on which no octet has come; the listener gets
/// it afterwards, silent or not.
const DEFER: u32 = 1;

sockopt_impl!(
    /// TCP_DEFER_ACCEPT: a listener gets a connection when its first octets have come.
    DeferAccept,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    u32
);

/// Limit of a request in octets; hyper rejects longer headers with status 431.
const MAX_REQUEST: usize = 16 * 1024;

/// Binds each address; those that cannot be bound are returned with the error.
pub async fn bind(addresses: &[SocketAddr]) -> (Vec<TcpListener>, Vec<(SocketAddr, std::io::Error)>) {
    let (mut bound, mut taken) = (Vec::new(), Vec::new());
    for &address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                // Without it, clients that send late yield to others where there are many.
                let _ = setsockopt(&listener, DeferAccept, &DEFER);
                bound.push(listener);
            }
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
    let places = Arc::new(Places::new());
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let (listener, reply, places) = (Arc::new(listener), reply.clone(), places.clone());
        let start = move || accept(listener.clone(), reply.clone(), places.clone());
        tasks.spawn(supervise("listener for metrics and probes", start));
    }
    while tasks.join_next().await.is_some() {}
    std::future::pending::<()>().await;
}

async fn accept<H, F>(listener: Arc<TcpListener>, reply: Arc<H>, places: Arc<Places>)
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
        let (reply, places) = (reply.clone(), places.clone());
        connections.add(|has_request| connection(stream, reply, places, has_request)).await;
    }
}

/// Serves one connection of any kind, to its end.
pub async fn serve_one<H, F>(stream: impl AsyncRead + AsyncWrite + Unpin, reply: H)
where
    H: Fn(Page) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    connection(stream, Arc::new(reply), Arc::new(Places::new()), Arc::default()).await;
}

async fn connection<H, F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    reply: Arc<H>,
    places: Arc<Places>,
    has_request: Arc<AtomicBool>,
) where
    H: Fn(Page) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let taken = Arc::new(Taken::default());
    let of_requests = taken.clone();
    let service = service_fn(move |request| {
        has_request.store(true, Ordering::Relaxed);
        let (reply, places, taken) = (reply.clone(), places.clone(), of_requests.clone());
        async move { Ok::<_, Infallible>(respond(&request, &*reply, &places, &taken).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if timeout(CONNECTION_TIMEOUT, connection.as_mut()).await.is_err()
        && taken.is_stream.load(Ordering::Relaxed)
    {
        let _ = timeout(STREAM_LIFETIME, connection).await;
    }
}

/// State of a connection.
#[derive(Default)]
struct Taken {
    /// The permit, held while the body is in memory.
    place: OnceLock<OwnedSemaphorePermit>,
    is_stream: AtomicBool,
}

/// Permits for responses that are large, or that wait.
struct Places {
    scrapes: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Places {
    fn new() -> Self {
        let [scrapes, pages, streams] =
            [MAX_SCRAPES, MAX_PAGES, MAX_STREAMS].map(|most| Arc::new(Semaphore::new(most)));
        Self { scrapes, pages, streams }
    }

    /// The permits for a page, and the term to report if none is left; `None` if the page needs
    /// none.
    fn of(&self, page: &Page) -> Option<(&Arc<Semaphore>, &'static str)> {
        match page {
            Page::Metrics(_) => Some((&self.scrapes, "scrapes")),
            Page::Status { .. } => Some((&self.pages, "status pages")),
            Page::Events { .. } => Some((&self.streams, "streams of events")),
            Page::Livez | Page::Readyz | Page::Startupz => None,
        }
    }
}

async fn respond<H, F>(
    request: &Request<Incoming>,
    reply: &H,
    places: &Places,
    taken: &Taken,
) -> Response<Body>
where
    H: Fn(Page) -> F,
    F: Future<Output = Reply>,
{
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    }
    let path = request.uri().path();
    if page::has(path) && !is_to_this_host(request) {
        return text(StatusCode::MISDIRECTED_REQUEST, page::WRONG_HOST.into());
    }
    if let Some((kind, file)) = page::file(path) {
        return content(kind, Either::Left(file.into()));
    }
    let Some(page) = page(path, request) else {
        return not_found();
    };
    if let Some((semaphore, what)) = places.of(&page) {
        let Ok(permit) = semaphore.clone().try_acquire_owned() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, format!("too many {what} at once; try again\n"));
        };
        let _ = taken.place.set(permit);
    }
    let kind = match &page {
        Page::Metrics(format) => format.content_type(),
        Page::Status { .. } => "text/html; charset=utf-8",
        Page::Events { .. } => "text/event-stream",
        Page::Livez | Page::Readyz | Page::Startupz => PLAIN,
    };
    match reply(page).await {
        Reply::Text { ok: true, text } => content(kind, Either::Left(text.into())),
        Reply::Text { ok: false, text: body } => text(StatusCode::SERVICE_UNAVAILABLE, body),
        Reply::Stream(parts) => {
            taken.is_stream.store(true, Ordering::Relaxed);
            let frames = parts.map(|part| Ok(Frame::data(part.into())));
            let body = frames.take_until(sleep(STREAM_LIFETIME)).boxed();
            content(kind, Either::Right(StreamBody::new(body)))
        }
        Reply::Absent => not_found(),
    }
}

/// The page of a path; a request for another one has none.
fn page(path: &str, request: &Request<Incoming>) -> Option<Page> {
    Some(match path {
        "/" => Page::Status { search: search::field(request.uri().query(), "q") },
        "/events" => Page::Events { after: after(request) },
        "/metrics" => Page::Metrics(accepted(request)),
        "/livez" | "/healthz" => Page::Livez,
        "/readyz" => Page::Readyz,
        "/startupz" => Page::Startupz,
        _ => return None,
    })
}

/// The last event that the browser has: from the ended stream, or from the page.
fn after(request: &Request<Incoming>) -> Option<u64> {
    let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    let of_page = search::field(request.uri().query(), "after");
    last.unwrap_or(&of_page).parse().ok()
}

/// Whether the request has exactly one host name, which is an address or a name of the loopback.
fn is_to_this_host(request: &Request<Incoming>) -> bool {
    let mut names = request.headers().get_all(HOST).iter();
    match (names.next(), names.next(), request.uri().authority()) {
        (Some(name), None, None) => name.to_str().is_ok_and(page::is_own_host),
        (Some(name), None, Some(of_uri)) => {
            name.to_str().is_ok_and(page::is_own_host) && page::is_own_host(of_uri.as_str())
        }
        _ => false,
    }
}

/// The format that all `Accept` headers together select.
fn accepted(request: &Request<Incoming>) -> Format {
    let values = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    Format::accepted(&values.collect::<Vec<_>>().join(","))
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// Headers of each response.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A response of this type.
fn content(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = content(PLAIN, Either::Left(body.into()));
    *response.status_mut() = status;
    response
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "see /, /metrics, /livez, /readyz, /startupz\n".into())
}
