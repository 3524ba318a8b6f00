//! A stand-in for an API server: one Node, and the Services of a tenant who writes as much as objects can hold.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::common::net::Ns;

/// Services there are, and how many of them, the first by name, hold [`LONG`] octets of text.
pub(crate) const SERVICES: usize = 10_000;
pub(crate) const LONG_ONES: usize = 600;
const LONG: usize = 256 * 1024;
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct StandIn {
    /// Whether the tenant changes Services.
    pub(crate) changing: AtomicBool,
    pub(crate) changes: AtomicUsize,
    /// Events that were written.
    pub(crate) events: AtomicUsize,
}

impl StandIn {
    /// Serves on port 8001 of the loopback in `ns` until the test ends.
    pub(crate) fn start(ns: &Ns) -> Arc<Self> {
        let this = Arc::new(Self::default());
        let listener = ns.enter(|| TcpListener::bind(("127.0.0.1", 8001))).expect("a free port");
        let served = this.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                // A client that goes ends its thread.
                thread::spawn(move || served.serve(stream).ok());
            }
        });
        this
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (method, target) = request(&mut reader)?;
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let of = |key: &str| query.split('&').find_map(|p| p.strip_prefix(key)?.strip_prefix('='));
            match (method.as_str(), path, of("watch") == Some("true") || of("watch") == Some("1")) {
                ("GET", ..) if of("sendInitialEvents").is_some() => refuse(&stream, 400)?,
                ("GET", "/api/v1/nodes", false) => {
                    respond(&stream, 200, &list("NodeList", vec![node()], ""))?
                }
                ("GET", "/api/v1/services", false) => {
                    let first = of("continue").and_then(|n| n.parse().ok()).unwrap_or(0);
                    let limit = of("limit").and_then(|n| n.parse().ok()).unwrap_or(SERVICES);
                    respond(&stream, 200, &page(first, limit))?;
                }
                ("GET", "/api/v1/services", true) => self.changes_of_services(&stream)?,
                ("GET", "/api/v1/nodes", true) => silent(&stream)?,
                ("PATCH", "/api/v1/nodes/n1/status", _) => respond(&stream, 200, &node())?,
                ("POST", path, _) if path.ends_with("/events") => {
                    self.events.fetch_add(1, Relaxed);
                    respond(
                        &stream,
                        201,
                        &json!({ "kind": "Event", "apiVersion": "events.k8s.io/v1",
                        "metadata": { "name": "e" }, "eventTime": null }),
                    )?;
                }
                _ => refuse(&stream, 404)?,
            }
        }
    }

    /// A watch in which the tenant changes long texts, and takes back and repeats what is announced.
    fn changes_of_services(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        stream.write_all(STREAM)?;
        loop {
            thread::sleep(PAUSE);
            if !self.changing.load(Relaxed) {
                continue;
            }
            let change = self.changes.fetch_add(1, Relaxed) + 1;
            let n = if change.is_multiple_of(5) { LONG_ONES + change % 3000 } else { change % LONG_ONES };
            let event = json!({ "type": "MODIFIED", "object": service(n, change) }).to_string() + "\n";
            write!(stream, "{:x}\r\n{event}\r\n", event.len())?;
        }
    }
}

const STREAM: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";

/// Method and target of the next request; its body is read and dropped.
fn request(reader: &mut BufReader<TcpStream>) -> std::io::Result<(String, String)> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok((method, target))
}

fn respond(mut stream: &TcpStream, code: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body.as_bytes())
}

fn refuse(stream: &TcpStream, code: u16) -> std::io::Result<()> {
    respond(
        stream,
        code,
        &json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": "BadRequest", "message": "not here" }),
    )
}

/// A watch in which nothing happens.
fn silent(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(STREAM)?;
    loop {
        thread::sleep(Duration::from_secs(1));
        if stream.peek(&mut [0]).is_ok_and(|n| n == 0) {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn list(kind: &str, items: Vec<Value>, next: &str) -> Value {
    json!({ "kind": kind, "apiVersion": "v1", "metadata": { "resourceVersion": "1", "continue": next }, "items": items })
}

fn page(first: usize, limit: usize) -> Value {
    let end = (first + limit).min(SERVICES);
    let next = if end < SERVICES { end.to_string() } else { String::new() };
    list("ServiceList", (first..end).map(|n| service(n, 0)).collect(), &next)
}

fn node() -> Value {
    json!({ "kind": "Node", "apiVersion": "v1",
        "metadata": { "name": "n1", "uid": "u1", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] },
        "status": { "addresses": [{ "type": "InternalIP", "address": "10.2.255.254" }] } })
}

/// Service `n` after so many changes: the first ones with a long annotation, label or name, the others in 50 namespaces, each
/// requesting its cluster IP.
fn service(n: usize, change: usize) -> Value {
    let (mut name, mut annotation) = (format!("s{n:05}"), "cluster-ip".to_owned());
    let mut labels = json!({ "app": "web" });
    if n < LONG_ONES {
        // What a terminal would obey, and what looks like another line of the log.
        let text = format!("{change}\u{1b}[2J\r\n2026-01-01 ERROR all routes are lost {}", "x".repeat(LONG));
        match n % 3 {
            0 => annotation = text,
            1 => labels["long"] = text.into(),
            _ => name = text,
        }
    }
    if change % 10 == 5 && n >= LONG_ONES {
        annotation = "none".into();
    }
    json!({ "kind": "Service", "apiVersion": "v1",
        "metadata": { "name": name, "namespace": format!("ns{}", n % 50), "uid": format!("u{n}"),
            "resourceVersion": format!("{}", change + 2), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels, "annotations": { "routelet.io/advertise": annotation } },
        "spec": { "type": "ClusterIP", "clusterIP": format!("10.96.{}.{}", n / 256, n % 256),
            "clusterIPs": [format!("10.96.{}.{}", n / 256, n % 256)], "ports": [{ "port": 80 }] },
        "status": { "loadBalancer": {} } })
}
