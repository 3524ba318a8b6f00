//! A socket that responds like an engine, or in ways in which none should.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};

use super::*;
use crate::docker::NetworkSelector;

const LIST: &str = r#"[{"Name":"web","Id":"0123456789abcdef","Driver":"bridge"}]"#;

struct Bed {
    dir: tempfile::TempDir,
    wanted: watch::Sender<Wanted>,
    selected: watch::Receiver<Arc<Selected>>,
}

impl Bed {
    fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let selectors = names.iter().map(|n| NetworkSelector::parse(n).unwrap()).collect();
        let (wanted, receiver) = watch::channel(Wanted { socket: dir.path().join("docker.sock"), selectors });
        let selected = spawn(receiver, dir.path());
        Self { dir, wanted, selected }
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.dir.path().join("docker.sock")).unwrap()
    }

    async fn until(&mut self, is: impl FnMut(&Arc<Selected>) -> bool) -> Arc<Selected> {
        let found = timeout(Duration::from_secs(20), self.selected.wait_for(is)).await;
        found.expect("in time").unwrap().clone()
    }
}

/// The next request, by its path.
async fn request(listener: &UnixListener) -> (UnixStream, String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let (mut text, mut some) = (String::new(), [0; 1024]);
    while !text.contains("\r\n\r\n") {
        let n = stream.read(&mut some).await.unwrap();
        text.push_str(std::str::from_utf8(&some[..n]).unwrap());
    }
    assert!(text.starts_with("GET /"), "read only: {text}");
    (stream, text.split(' ').nth(1).unwrap().to_owned())
}

async fn respond(stream: &mut UnixStream, body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
}

/// The stream of events, which the caller keeps open.
async fn events(listener: &UnixListener) -> UnixStream {
    let (mut stream, path) = request(listener).await;
    assert!(path.starts_with("/events?filters="), "{path}");
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    stream
}

async fn list(listener: &UnixListener, body: &str) {
    let (mut stream, path) = request(listener).await;
    assert_eq!(path, "/networks");
    respond(&mut stream, body).await;
}

#[tokio::test]
async fn each_event_is_a_new_reading_and_what_was_read_outlives_the_engine() {
    let mut bed = Bed::new(&["web"]);
    bed.until(|s| s.problems.iter().any(|p| p.contains("start Docker"))).await;
    let listener = bed.listen();
    let mut stream = events(&listener).await;
    list(&listener, "[]").await;
    bed.until(|s| s.problems.iter().any(|p| p.contains("docker network create web"))).await;
    stream.write_all(b"2\r\n{}\r\n").await.unwrap();
    list(&listener, LIST).await;
    let read = bed.until(|s| !s.bridges.is_empty()).await;
    assert_eq!((read.bridges.len(), read.problems.len()), (1, 0));

    // The engine ends; the next start of routelet uses the saved list.
    drop((stream, listener));
    crate::state::io::flush(Duration::from_secs(5));
    let (_wanted, same) = watch::channel(bed.wanted.borrow().clone());
    let mut again = spawn(same, bed.dir.path());
    let found = timeout(Duration::from_secs(20), again.wait_for(|s| !s.bridges.is_empty())).await;
    assert_eq!(found.unwrap().unwrap().problems.len(), 1, "the engine is away");
    assert_eq!(bed.selected.borrow().bridges.len(), 1, "what was read holds");
    assert!(
        timeout(RETRY_INTERVAL * 2, again.changed()).await.is_err(),
        "further attempts that fail change nothing"
    );

    bed.wanted.send_modify(|w| w.selectors.clear());
    bed.until(|s| s.bridges.is_empty()).await;
}

#[tokio::test]
async fn an_engine_that_sends_nonsense_or_no_end_is_a_problem_and_nothing_more() {
    for body in ["not JSON".to_owned(), "[".repeat(9 << 20)] {
        let mut bed = Bed::new(&["web"]);
        let listener = bed.listen();
        let _stream = events(&listener).await;
        let (mut stream, _) = request(&listener).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        // The reader may close the connection before everything is written.
        let _ = stream.write_all((head + &body).as_bytes()).await;
        let found = bed.until(|s| !s.problems.is_empty()).await;
        assert!(found.bridges.is_empty() && found.problems[0].contains("docker network ls"), "{found:?}");
    }
}
