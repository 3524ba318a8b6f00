//! Both ends of the control socket, and the HTTP server for metrics and probes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

pub mod client;
mod connections;
pub mod http;
pub mod server;

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::PermissionsExt, net::UnixStream},
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        time::Duration,
    };

    use futures::{StreamExt, stream};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        task::{JoinHandle, spawn_blocking},
    };

    use super::{
        client::{ClientError, Responses, open, request},
        http::{self, Page},
        server::{BindError, Reply, bind},
    };
    use crate::control::{Query, Response};

    /// A daemon that refuses requests about neighbors with the name, and sends a long response to
    /// all others.
    async fn daemon(path: &Path) -> JoinHandle<()> {
        let socket = bind(path, None).await.unwrap();
        tokio::spawn(socket.serve(|query| async move {
            match query {
                Query::Neighbor(name) => Response::Refused(format!("no neighbor {name}")).into(),
                _ => Response::Done(Some("x".repeat(3_000_000))).into(),
            }
        }))
    }

    async fn requested(path: &Path, query: Query) -> Result<Response, ClientError> {
        let path = path.to_owned();
        spawn_blocking(move || request(&path, query)).await.unwrap()
    }

    #[tokio::test]
    async fn a_request_gets_its_response_however_long_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/routelet.sock");
        let server = daemon(&path).await;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(
            requested(&path, Query::ConfirmReload).await.unwrap(),
            Response::Done(Some("x".repeat(3_000_000)))
        );
        let refused = requested(&path, Query::Neighbor("a".into())).await.unwrap();
        assert_eq!(refused, Response::Refused("no neighbor a".into()));
        server.abort();
    }

    #[tokio::test]
    async fn clients_that_stall_or_send_garbage_do_not_keep_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routelet.sock");
        let server = daemon(&path).await;
        let silent: Vec<_> = (0..8).map(|_| UnixStream::connect(&path).unwrap()).collect();
        for garbage in [&b"GET / HTTP/1.1\r\n"[..], b"{\"version\":1,\"query\":\"fib\"}", b"\xff\n"] {
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            stream.write_all(garbage).await.unwrap();
            stream.write_all(b"\n").await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            assert!(response.contains("use the same routelet for both"), "{response}");
        }
        assert!(requested(&path, Query::ConfirmReload).await.is_ok());
        drop(silent);
        server.abort();
    }

    /// A daemon that sends pages without end, and the number of pages it was produced to produce.
    async fn endless(path: &Path) -> (JoinHandle<()>, Arc<AtomicUsize>) {
        let socket = bind(path, None).await.unwrap();
        let produced = Arc::<AtomicUsize>::default();
        let counter = produced.clone();
        let server = tokio::spawn(socket.serve(move |query| {
            let counter = counter.clone();
            async move {
                let pages = stream::repeat_with(move || {
                    counter.fetch_add(1, Relaxed);
                    Response::Done(Some("x".repeat(50_000)))
                });
                Reply::Pages { large: query == Query::Fib, pages: pages.boxed() }
            }
        }));
        (server, produced)
    }

    async fn begun(path: &Path, query: Query) -> Responses {
        let path = path.to_owned();
        spawn_blocking(move || open(&path, query)).await.unwrap().unwrap()
    }

    async fn next(mut responses: Responses) -> (Responses, Result<Option<Response>, ClientError>) {
        spawn_blocking(move || {
            let response = responses.read();
            (responses, response)
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn pages_have_an_end_marker_or_are_incomplete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routelet.sock");
        let page = |n: usize| Response::Done(Some(n.to_string()));
        let socket = bind(&path, None).await.unwrap();
        let server = tokio::spawn(socket.serve(move |query| async move {
            let last = Response::Refused("the daemon is stopping".into());
            let pages = match query {
                Query::Fib => vec![page(1), page(2)],
                _ => vec![page(1), last, page(3)],
            };
            Reply::Pages { large: true, pages: stream::iter(pages).boxed() }
        }));
        let mut got = Vec::new();
        for query in [Query::Fib, Query::Summary] {
            let mut responses = begun(&path, query).await;
            while let (more, Ok(Some(response))) = next(responses).await {
                responses = more;
                got.push(response);
            }
        }
        let refused = Response::Refused("the daemon is stopping".into());
        assert_eq!(got, [page(1), page(2), Response::End, page(1), refused]);
        server.abort();

        // A daemon that dies in the middle of a line.
        let path = folder.path().join("other.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Read::read(&mut stream, &mut [0; 100]).unwrap();
            std::io::Write::write_all(&mut stream, b"{\"done\":\"1\"}\n{\"do").unwrap();
        });
        let (responses, first) = next(begun(&path, Query::Fib).await).await;
        assert_eq!(first.unwrap(), Some(page(1)));
        let error = next(responses).await.1.unwrap_err();
        assert!(matches!(error, ClientError::Incomplete { .. }), "{error}");
    }

    /// A response costs no more than the client reads of it.
    #[tokio::test]
    async fn no_more_pages_are_produced_than_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routelet.sock");
        let (server, produced) = endless(&path).await;
        let (responses, first) = next(begun(&path, Query::Fib).await).await;
        assert!(first.is_ok());
        // As much as the sockets buffer, and no page more.
        let mut before = usize::MAX;
        while before != produced.load(Relaxed) {
            before = produced.load(Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(before < 50, "{before} pages of 50,000 octets");
        drop(responses);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let after = produced.load(Relaxed);
        assert!(after <= before + 1, "the response ends with its reader: {before}, {after}");
        server.abort();
    }

    /// Time advances when no task is runnable.
    #[tokio::test(start_paused = true)]
    async fn a_few_long_responses_at_a_time_and_readers_that_stall_lose_their_slot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routelet.sock");
        let (server, _) = endless(&path).await;
        let request = async |query: &str| {
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            let line = format!("{{\"version\":3,\"query\":\"{query}\"}}\n");
            stream.write_all(line.as_bytes()).await.unwrap();
            let mut first = [0; 40];
            stream.read_exact(&mut first).await.unwrap();
            (String::from_utf8_lossy(&first).into_owned(), stream)
        };
        let mut stalled = Vec::new();
        for _ in 0..4 {
            stalled.push(request("fib").await);
        }
        assert!(stalled.iter().all(|(first, _)| first.contains("xxx")));
        let (fifth, _) = request("fib").await;
        assert!(fifth.contains("4 other long responses"), "{fifth}");
        let (small, _) = request("summary").await;
        assert!(small.contains("xxx"), "short ones are served: {small}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (sixth, _) = request("fib").await;
        assert!(sixth.contains("xxx"), "those that did not read are gone: {sixth}");
        server.abort();
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routelet.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(matches!(requested(&path, Query::Fib).await, Err(ClientError::Refused(_))));
        let server = daemon(&path).await;
        assert!(matches!(bind(&path, None).await, Err(BindError::Taken(_))));
        assert!(requested(&path, Query::Fib).await.is_ok(), "the one in use still responds");
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert!(!path.exists(), "gone with its daemon");
        assert!(matches!(requested(&path, Query::Fib).await, Err(ClientError::Absent(_))));
        std::fs::write(&path, "a file").unwrap();
        assert!(matches!(bind(&path, None).await, Err(BindError::NoSocket(_))));
        let group = bind(&folder.path().join("other.sock"), Some("no-such-group")).await;
        assert!(matches!(group, Err(BindError::NoGroup { .. })));
    }

    #[tokio::test]
    async fn metrics_and_probes_are_served_while_a_client_stalls() {
        let (listeners, _) = http::bind(&["127.0.0.1:0".parse().unwrap()]).await;
        let address = listeners[0].local_addr().unwrap();
        let (bound, taken) = http::bind(&[address]).await;
        assert!(bound.is_empty() && taken[0].0 == address, "taken: no failure");
        let server = tokio::spawn(http::serve(listeners, |page| async move {
            http::Reply::Text { ok: page != Page::Readyz, text: format!("{page:?}\n") }
        }));
        let stalled = TcpStream::connect(address).await.unwrap();
        let cases = [
            ("GET /metrics", "x", "200 OK", "Metrics"),
            ("GET /livez", "x", "200 OK", "Livez"),
            ("GET /readyz?verbose", "x", "503 Service Unavailable", "Readyz"),
            ("GET /nothing", "x", "404 Not Found", "/metrics"),
            ("GET /", "127.0.0.1:9179", "200 OK", "Status { search: \"\" }"),
            ("GET /?q=10.0.0.0%2F8", "[::1]:9179", "200 OK", "Status { search: \"10.0.0.0/8\" }"),
            ("GET /events?after=7", "localhost", "200 OK", "Events { after: Some(7) }"),
            ("GET /events?after=x", "localhost", "200 OK", "Events { after: None }"),
            ("GET /events", "localhost\r\nLast-Event-ID: 9", "200 OK", "Events { after: Some(9) }"),
            ("GET /status.css", "localhost", "200 OK", "text/css"),
            ("GET /status.js", "localhost", "200 OK", "content-security-policy: default-src 'none'"),
            ("GET /status.svg", "localhost", "200 OK", "x-frame-options: DENY"),
            ("HEAD /", "localhost", "200 OK", "content-type: text/html"),
            // A web site whose name resolves to this host.
            ("GET /", "example.com", "421 Misdirected Request", "write the address of this host"),
            ("GET /events", "example.com:9179", "421 Misdirected Request", "x-content-type-options: nosniff"),
            ("GET /", "localhost\r\nHost: example.com", "421 Misdirected Request", ""),
            ("GET http://example.com/", "localhost", "421 Misdirected Request", ""),
            ("POST /metrics", "x", "405 Method Not Allowed", "only GET"),
            ("POST /", "localhost", "405 Method Not Allowed", "only GET"),
        ];
        for (request, host, status, body) in cases {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let text = format!("{request} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut response = String::new();
            let read = stream.read_to_string(&mut response);
            tokio::time::timeout(Duration::from_secs(5), read).await.expect(request).unwrap();
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status}")) && response.contains(body),
                "{response}"
            );
        }
        drop(stalled);
        server.abort();
    }

    /// Few clients can follow events at a time, each for [`http::STREAM_LIFETIME`].
    #[tokio::test]
    async fn streams_are_few_and_end_and_probes_are_served_beside_them() {
        let (listeners, _) = http::bind(&["127.0.0.1:0".parse().unwrap()]).await;
        let address = listeners[0].local_addr().unwrap();
        let server = tokio::spawn(http::serve(listeners, |page| async move {
            match page {
                // A client that does not read does not make it produce more than sockets hold.
                Page::Events { .. } => http::Reply::Stream(stream::repeat("x".repeat(65536)).boxed()),
                _ => http::Reply::Text { ok: true, text: "ok\n".into() },
            }
        }));
        let follow = || async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.unwrap();
            (stream, String::from_utf8(start.to_vec()).unwrap())
        };
        let mut held = Vec::new();
        for n in 0..10 {
            let (stream, status) = follow().await;
            assert_eq!(status, if n < 8 { "HTTP/1.1 200" } else { "HTTP/1.1 503" }, "stream {n}");
            held.push(stream);
        }
        assert!(probe(address).await.starts_with("HTTP/1.1 200 OK"));
        drop(held);
        let again = async {
            while follow().await.1 != "HTTP/1.1 200" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), again).await.expect("a place is free again");
        server.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_after_its_lifetime_read_or_not() {
        for reads in [true, false] {
            let (mut client, server) = tokio::io::duplex(1024);
            let start = tokio::time::Instant::now();
            let serve = tokio::spawn(http::serve_one(server, |_| async {
                let parts = stream::repeat_with(|| "x".to_owned()).then(|part| async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    part.repeat(64)
                });
                http::Reply::Stream(parts.boxed())
            }));
            client.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut response = String::new();
            if reads {
                client.read_to_string(&mut response).await.unwrap();
                assert!(response.ends_with("\r\n0\r\n\r\n"), "an end that is no error: {response}");
            }
            serve.await.unwrap();
            assert!((290..320).contains(&start.elapsed().as_secs()), "{reads}: {:?}", start.elapsed());
        }
    }

    /// A probe as the kubelet sends it.
    async fn probe(address: std::net::SocketAddr) -> String {
        let mut response = String::new();
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            stream.read_to_string(&mut response).await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(1), exchange).await.expect("within a second");
        response
    }

    #[tokio::test]
    async fn idle_slow_and_unread_connections_do_not_keep_probes_out() {
        let (listeners, _) = http::bind(&["127.0.0.1:0".parse().unwrap()]).await;
        let address = listeners[0].local_addr().unwrap();
        let server = tokio::spawn(http::serve(listeners, |page| async move {
            let text = if matches!(page, Page::Metrics(_)) { "m".repeat(20_000_000) } else { "ok\n".into() };
            http::Reply::Text { ok: true, text }
        }));
        let mut held = Vec::new();
        for n in 0..400 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            match n % 3 {
                0 => {}
                1 => stream.write_all(b"GET /livez HTTP/1.1\r\nX: ").await.unwrap(),
                // The response is never read.
                _ => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap(),
            }
            held.push(stream);
            if n % 40 == 39 {
                assert!(probe(address).await.starts_with("HTTP/1.1 200 OK"), "beside {n} others");
            }
        }
        server.abort();
    }

    /// A client that has lost the processor between its connection and its request.
    #[tokio::test]
    async fn a_client_that_sends_late_is_served_beside_many_that_connect() {
        let (listeners, _) = http::bind(&["127.0.0.1:0".parse().unwrap()]).await;
        let address = listeners[0].local_addr().unwrap();
        let server = tokio::spawn(http::serve(listeners, |_| async move {
            http::Reply::Text { ok: true, text: "ok\n".into() }
        }));
        let mut late = TcpStream::connect(address).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /metr").await.unwrap();
            held.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        late.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut response = String::new();
        late.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response:?}");
        server.abort();
    }

    #[tokio::test]
    async fn scrapes_beyond_the_limit_are_refused_and_places_come_back() {
        let (listeners, _) = http::bind(&["127.0.0.1:0".parse().unwrap()]).await;
        let address = listeners[0].local_addr().unwrap();
        let server = tokio::spawn(http::serve(listeners, |_| async move {
            http::Reply::Text { ok: true, text: "m".repeat(20_000_000) }
        }));
        let scrape = || async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.unwrap();
            (stream, String::from_utf8(start.to_vec()).unwrap())
        };
        let mut held = Vec::new();
        for n in 0..12 {
            let (stream, status) = scrape().await;
            assert_eq!(status, if n < 8 { "HTTP/1.1 200" } else { "HTTP/1.1 503" }, "scrape {n}");
            held.push(stream);
        }
        drop(held);
        let again = async {
            while scrape().await.1 != "HTTP/1.1 200" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), again).await.expect("a place is free again");
        server.abort();
    }
}
