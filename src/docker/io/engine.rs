//! Requests to the engine: HTTP over its UNIX socket. Only `GET`, and each response is bounded in
//! octets and in time.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use crate::docker::{Network, networks};

/// How long a response may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest list of networks in octets: some thousands of them.
const LIST_MAX: usize = 8 << 20;
/// What is buffered of one connection.
const BUFFER: usize = 64 << 10;
/// How long the stream of events may be silent before the list is read again.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(60);

const LIST: &str = "/networks";
/// `filters={"type":["network"],"event":["create","destroy"]}`
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22network%22%5D%2C\
                      %22event%22%3A%5B%22create%22%2C%22destroy%22%5D%7D";

/// All networks of the engine.
pub(super) async fn list(socket: &Path) -> io::Result<Vec<Network>> {
    let read = async {
        let response = get(socket, Uri::from_static(LIST)).await?;
        let body = Limited::new(response.into_body(), LIST_MAX).collect().await;
        networks(&body.map_err(io::Error::other)?.to_bytes()).map_err(io::Error::other)
    };
    timeout(RESPONSE_TIMEOUT, read).await?
}

/// Reports that networks were created or destroyed.
pub(super) struct Events(Incoming);

impl Events {
    pub(super) async fn open(socket: &Path) -> io::Result<Self> {
        let response = timeout(RESPONSE_TIMEOUT, get(socket, Uri::from_static(EVENTS))).await??;
        Ok(Self(response.into_body()))
    }

    /// Returns when the list may have changed. What exactly an event is about does not matter.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        match timeout(EVENTS_TIMEOUT, self.0.frame()).await {
            Err(_) | Ok(Some(Ok(_))) => Ok(()),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Ok(None) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the engine ended the stream of events"))
            }
        }
    }
}

async fn get(socket: &Path, uri: Uri) -> io::Result<Response<Incoming>> {
    let stream = UnixStream::connect(socket).await?;
    let made = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(io::Error::other)?;
    // Ends with the response.
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri;
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(io::Error::other(format!("the engine responds with status {status}"))),
    }
}
