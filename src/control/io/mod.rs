//! The control socket, both ends, and the HTTP server for metrics and probes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

pub mod client;
pub mod http;
pub mod server;

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::PermissionsExt, net::UnixStream},
        path::Path,
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        task::{JoinHandle, spawn_blocking},
    };

    use super::{
        client::{AskError, ask},
        http::{self, Page, Reply},
        server::{BindError, bind},
    };
    use crate::control::{Answer, Query};

    /// A daemon that answers each question with its name.
    async fn daemon(path: &Path) -> JoinHandle<()> {
        let socket = bind(path, None).await.unwrap();
        tokio::spawn(socket.serve(|query| async move {
            match query {
                Query::Neighbor(name) => Answer::Refused(format!("no neighbor {name}")),
                _ => Answer::Done(Some("x".repeat(3_000_000))),
            }
        }))
    }

    async fn asked(path: &Path, query: Query) -> Result<Answer, AskError> {
        let path = path.to_owned();
        spawn_blocking(move || ask(&path, query)).await.unwrap()
    }

    #[tokio::test]
    async fn a_question_gets_its_answer_however_long_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/routelet.sock");
        let server = daemon(&path).await;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(asked(&path, Query::Reload).await.unwrap(), Answer::Done(Some("x".repeat(3_000_000))));
        let refused = asked(&path, Query::Neighbor("a".into())).await.unwrap();
        assert_eq!(refused, Answer::Refused("no neighbor a".into()));
        server.abort();
    }

    #[tokio::test]
    async fn clients_that_stall_or_talk_nonsense_do_not_keep_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routelet.sock");
        let server = daemon(&path).await;
        let silent: Vec<_> = (0..8).map(|_| UnixStream::connect(&path).unwrap()).collect();
        for nonsense in [&b"GET / HTTP/1.1\r\n"[..], b"{\"version\":2,\"query\":\"fib\"}", b"\xff\n"] {
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            stream.write_all(nonsense).await.unwrap();
            stream.write_all(b"\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("use the same routelet for both"), "{answer}");
        }
        assert!(asked(&path, Query::Reload).await.is_ok());
        drop(silent);
        server.abort();
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routelet.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(matches!(asked(&path, Query::Fib).await, Err(AskError::Refused(_))));
        let server = daemon(&path).await;
        assert!(matches!(bind(&path, None).await, Err(BindError::Taken(_))));
        assert!(asked(&path, Query::Fib).await.is_ok(), "the one in use still answers");
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert!(!path.exists(), "gone with its daemon");
        assert!(matches!(asked(&path, Query::Fib).await, Err(AskError::Absent(_))));
        std::fs::write(&path, "a file").unwrap();
        assert!(matches!(bind(&path, None).await, Err(BindError::NoSocket(_))));
        let group = bind(&folder.path().join("other.sock"), Some("no-such-group")).await;
        assert!(matches!(group, Err(BindError::NoGroup { .. })));
    }

    #[tokio::test]
    async fn metrics_and_probes_answer_while_a_client_stalls() {
        let listeners = http::bind(&["127.0.0.1:0".parse().unwrap()]).await;
        let address = listeners[0].local_addr().unwrap();
        assert!(http::bind(&[address]).await.is_empty(), "taken: a warning, no failure");
        let server = tokio::spawn(http::serve(listeners, |page| async move {
            Reply { ok: page != Page::Readyz, text: format!("{page:?}\n") }
        }));
        let stalled = TcpStream::connect(address).await.unwrap();
        let cases = [
            ("GET /metrics", "200 OK", "Metrics"),
            ("GET /livez", "200 OK", "Livez"),
            ("GET /readyz?verbose", "503 Service Unavailable", "Readyz"),
            ("GET /", "404 Not Found", "/metrics"),
            ("POST /metrics", "405 Method Not Allowed", "only GET"),
        ];
        for (request, status, body) in cases {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            tokio::time::timeout(Duration::from_secs(5), read).await.expect(request).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(body), "{answer}");
        }
        drop(stalled);
        server.abort();
    }

    /// A probe as the kubelet makes it.
    async fn probe(address: std::net::SocketAddr) -> String {
        let mut answer = String::new();
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            stream.read_to_string(&mut answer).await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(1), exchange).await.expect("within a second");
        answer
    }

    #[tokio::test]
    async fn idle_slow_and_unread_connections_do_not_keep_probes_out() {
        let listeners = http::bind(&["127.0.0.1:0".parse().unwrap()]).await;
        let address = listeners[0].local_addr().unwrap();
        let server = tokio::spawn(http::serve(listeners, |page| async move {
            let text = if page == Page::Metrics { "m".repeat(20_000_000) } else { "ok\n".into() };
            Reply { ok: true, text }
        }));
        let mut held = Vec::new();
        for n in 0..400 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            match n % 3 {
                0 => {}
                1 => stream.write_all(b"GET /livez HTTP/1.1\r\nX: ").await.unwrap(),
                // Its answer is never read.
                _ => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap(),
            }
            held.push(stream);
            if n % 40 == 39 {
                assert!(probe(address).await.starts_with("HTTP/1.1 200 OK"), "beside {n} others");
            }
        }
        server.abort();
    }

    #[tokio::test]
    async fn scrapes_beyond_the_limit_are_refused_and_places_come_back() {
        let listeners = http::bind(&["127.0.0.1:0".parse().unwrap()]).await;
        let address = listeners[0].local_addr().unwrap();
        let server = tokio::spawn(http::serve(listeners, |_| async move {
            Reply { ok: true, text: "m".repeat(20_000_000) }
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
