//! API servers that answer badly: a server of this test's own, which says what a real one says at its worst, and counts
//! how often it is asked.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use routelet::k8s::{
    io::{self, Options, Watch},
    node::Nodes,
    view::ApiStatus,
};
use tempfile::TempDir;
use tokio::{
    runtime::Builder,
    sync::watch::channel,
    time::{sleep, timeout},
};

use crate::common::{
    guard::folder,
    net::{Net, Ns},
};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Good,
    /// The status code, to everything.
    Refuses(u16),
    /// Lists are good, and each watch ends at once: what it asks for is too old.
    Expires,
    /// After so many seconds.
    Slow(u64),
    /// Never.
    Hangs,
}

/// An API server with two Nodes, without streaming lists.
struct Server {
    mood: Mutex<Mood>,
    requests: AtomicUsize,
}

impl Server {
    fn start() -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(Self { mood: Mutex::new(Mood::Good), requests: AtomicUsize::new(0) });
        let this = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let this = this.clone();
                thread::spawn(move || this.serve(stream));
            }
        });
        (server, port)
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.requests.store(0, Ordering::Relaxed);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// One connection: request after request, until a watch.
    fn serve(&self, stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        while let Some(asked) = lines.next() {
            // The head ends with an empty line; none of these requests has a body.
            lines.by_ref().find(String::is_empty);
            self.requests.fetch_add(1, Ordering::Relaxed);
            if self.answer(&stream, &asked).is_none() {
                return;
            }
        }
    }

    /// `None`: this was the connection's last word.
    fn answer(&self, mut stream: &TcpStream, asked: &str) -> Option<()> {
        let mood = self.mood();
        match mood {
            Mood::Slow(seconds) => thread::sleep(Duration::from_secs(seconds)),
            Mood::Hangs => {
                while self.mood() == Mood::Hangs {
                    thread::sleep(Duration::from_millis(20));
                }
                return None;
            }
            _ => {}
        }
        let watch = asked.contains("watch=true");
        let (code, body) = match mood {
            Mood::Refuses(code) => (code, status(code)),
            _ if asked.contains("sendInitialEvents=true") => (422, status(422)),
            Mood::Expires if watch => {
                let gone = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(410));
                stream.write_all(reply(200, &gone).as_bytes()).ok()?;
                return Some(());
            }
            _ if watch => {
                // Nothing happens; it ends when the mood does.
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).ok()?;
                while self.mood() == mood {
                    thread::sleep(Duration::from_millis(20));
                }
                return None;
            }
            _ if asked.contains("/nodes") => (200, nodes()),
            _ => (200, "ok".into()),
        };
        stream.write_all(reply(code, &body).as_bytes()).ok()
    }
}

fn reply(code: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {code} x\r\nContent-Type: application/json\r\nRetry-After: 1\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn status(code: u16) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"code {code}","reason":"Test","code":{code}}}"#
    )
}

fn nodes() -> String {
    let node = |n: u8| {
        format!(
            r#"{{"metadata":{{"name":"n{n}","uid":"u{n}","resourceVersion":"7"}},"spec":{{"podCIDRs":["10.244.{n}.0/24"]}},
                "status":{{"addresses":[{{"type":"InternalIP","address":"10.0.0.{n}"}}]}}}}"#
        )
    };
    let items = [1, 2].map(node).join(",");
    format!(
        r#"{{"kind":"NodeList","apiVersion":"v1","metadata":{{"resourceVersion":"7"}},"items":[{items}]}}"#
    )
}

fn begin(dir: &TempDir, port: u16) -> Watch {
    let file = dir.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"http://127.0.0.1:{port}\"}}}}]\n\
         users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\ncurrent-context: c\n"
    );
    fs::write(&file, text).unwrap();
    let options = Options {
        kubeconfig: Some(file),
        service: None,
        node_name: "n1".into(),
        state_dir: dir.path().join("state"),
        service_cidrs: None,
    };
    io::spawn(options, channel(true).1)
}

fn is_whole(nodes: &Nodes) -> bool {
    nodes.complete && nodes.missing().is_none() && nodes.others.contains_key("n2")
}

async fn becomes(watch: &mut Watch, what: &str, fits: impl Fn(&ApiStatus) -> bool) {
    let seen = timeout(Duration::from_secs(120), watch.status.wait_for(|s| fits(s))).await.map(|r| r.is_ok());
    assert_eq!(seen, Ok(true), "{what}: {:?}", watch.status.borrow());
}

/// Delays double from 0.2 s, so that hardly more than ten attempts fit into so many seconds, whoever is how slow.
const SECONDS: u64 = 6;
const ATTEMPTS: usize = 16;

#[test]
fn whatever_the_api_server_answers_it_is_asked_rarely_and_what_was_known_stays() {
    let dir = folder("api");
    let (server, port) = Server::start();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        for first in [Mood::Refuses(429), Mood::Refuses(500), Mood::Expires] {
            // At the start, when nothing is known yet, and later.
            fs::remove_dir_all(dir.path().join("state")).ok();
            server.becomes(first);
            let mut watch = begin(&dir, port);
            sleep(Duration::from_secs(SECONDS)).await;
            let asked = server.requests();
            assert!((2..=ATTEMPTS).contains(&asked), "{first:?} at the start: asked {asked} times");
            server.becomes(Mood::Good);
            becomes(&mut watch, "it is well again", |s| s.connected).await;
            timeout(Duration::from_secs(60), watch.nodes.wait_for(|n| is_whole(n))).await.unwrap().unwrap();
            let known = watch.nodes.borrow().clone();

            server.becomes(first);
            sleep(Duration::from_secs(SECONDS)).await;
            let asked = server.requests();
            // What went wrong before counts: the next question may be ten seconds away.
            assert!(asked <= ATTEMPTS, "{first:?} later: asked {asked} times");
            assert_eq!(*watch.nodes.borrow(), known, "{first:?}");
            server.becomes(Mood::Good);
            becomes(&mut watch, "it is well again", |s| s.connected).await;
            watch.task.abort();
        }
    });
}

#[test]
fn a_slow_api_server_is_waited_for_and_one_that_never_answers_is_left() {
    let dir = folder("api");
    let (server, port) = Server::start();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        server.becomes(Mood::Slow(4));
        let mut watch = begin(&dir, port);
        timeout(Duration::from_secs(90), watch.nodes.wait_for(|n| is_whole(n))).await.unwrap().unwrap();
        assert_eq!(watch.status.borrow().last_error, None, "slow is not away");
        watch.task.abort();

        // A node that knows nothing.
        let dir = folder("api");
        server.becomes(Mood::Hangs);
        let mut watch = begin(&dir, port);
        let hangs = |s: &ApiStatus| s.last_error.as_ref().is_some_and(|e| e.contains("timed out"));
        becomes(&mut watch, "it is noticed", hangs).await;
        server.becomes(Mood::Good);
        timeout(Duration::from_secs(90), watch.nodes.wait_for(|n| is_whole(n))).await.unwrap().unwrap();
        watch.task.abort();
    });
}

/// The connections of the clients to `port`, by their own port.
fn established(ns: &Ns, port: u16) -> Vec<u16> {
    let shown = ns.sh(&format!("ss -Htn state established dport = :{port}"));
    let own = |line: &str| line.split_whitespace().nth(2)?.rsplit(':').next()?.parse().ok();
    shown.lines().filter_map(own).collect()
}

/// A half-dead connection: the API server lost its power, or a middlebox forgot the connection and drops what comes. It was
/// noticed when the watch ended, three minutes later.
#[test]
fn a_connection_on_which_packets_are_dropped_is_noticed_within_half_a_minute_and_opened_anew() {
    let mut net = Net::new();
    for (name, lost) in [("both", &["sport", "dport"][..]), ("to", &["sport"]), ("from", &["dport"])] {
        let (dir, ns) = (folder(name), net.ns(name));
        let drops = ns.clone();
        ns.enter(move || {
            let (server, port) = Server::start();
            Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let mut watch = begin(&dir, port);
                becomes(&mut watch, "it is there", |s| s.connected).await;
                // The watch stands.
                while server.requests() < 2 || established(&drops, port).is_empty() {
                    sleep(Duration::from_millis(50)).await;
                }
                sleep(Duration::from_secs(1)).await;
                let (since, before) = (Instant::now(), established(&drops, port));
                let ports = before.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                drops
                    .sh("nft 'add table inet t; add chain inet t in { type filter hook input priority 0; }'");
                for end in lost {
                    drops.sh(&format!("nft 'add rule inet t in tcp {end} {{ {ports} }} drop'"));
                }
                server.becomes(Mood::Good);
                let is_away =
                    timeout(Duration::from_secs(30), watch.status.wait_for(|s| !s.connected)).await.is_ok();
                assert!(is_away, "{name}: still called connected after {:?}", since.elapsed());
                println!(
                    "{name}: noticed after {:?}: {:?}",
                    since.elapsed(),
                    watch.status.borrow().last_error
                );
                becomes(&mut watch, "it is opened anew", |s| s.connected).await;
                while !established(&drops, port).iter().any(|p| !before.contains(p)) || server.requests() == 0
                {
                    assert!(since.elapsed() < Duration::from_secs(120), "{name}: no new watch");
                    sleep(Duration::from_millis(50)).await;
                }
                watch.task.abort();
            });
        });
    }
}
