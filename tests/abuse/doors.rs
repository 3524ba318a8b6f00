//! Floods of the HTTP and control sockets from root, from a user without rights and from another
//! machine, and more neighbors than the daemon may have open files.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::Stdio,
    sync::mpsc::{Receiver, Sender, channel},
};

use super::*;
use crate::{
    bed::HOST,
    common::{Process, daemons::Routelet, net::Ns, speaker, within},
};

/// Opens connections as fast as it can and keeps up to 500 of them: silent ones, half requests,
/// requests without end, noise, and requests whose response is never read.
const FLOOD: &str = r#"
import os, socket, sys
target = sys.argv[1]
kinds = [b"", b"GET /metr", b"X" * 3000 + b"\n", os.urandom(500), b"{\"cmd\":", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"]
held, n = [], 0
while True:
    try:
        if target.startswith("/"):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(0.2)
            s.connect(target)
        else:
            host, port = target.rsplit(":", 1)
            s = socket.create_connection((host, int(port)), 0.2)
        s.settimeout(0.05)
        s.sendall(kinds[n % len(kinds)])
        held.append(s)
    except PermissionError:
        sys.exit(13)
    except OSError:
        pass
    n += 1
    if len(held) > 500:
        held.pop(n * 7919 % 500).close()
"#;

/// `who`: what comes before the program, such as `setpriv`.
fn flood(ns: &Ns, who: &[&str], target: &str, log: &std::path::Path) -> Process {
    let program = ["/usr/bin/python3", "-c", FLOOD, target];
    let mut words = who.iter().chain(&program);
    let mut command = ns.command(words.next().expect("a program"));
    command.args(words).stdout(Stdio::null());
    Process::start(&mut command, log)
}

const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// How long a probe and a request of an operator take, beside whatever goes on. One without a
/// response is repeated, as the kubelet does: the client may have lost the processor between
/// connection and request.
fn doors_are_open(routelet: &Routelet, host: &Ns) {
    within("show summary", Duration::from_secs(1), || {
        let start = Instant::now();
        match routelet.try_cli(&["show", "summary"]) {
            Ok(_) => start.elapsed(),
            Err((code, text)) => {
                println!("show summary: {code}: {text}");
                Duration::MAX
            }
        }
    });
    within("/livez", Duration::from_secs(1), || {
        let start = Instant::now();
        let mut stream = host.enter(|| TcpStream::connect("127.0.0.1:9179")).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut response = String::new();
        if let Err(error) = stream.read_to_string(&mut response) {
            println!("/livez: {error}");
        }
        if response.is_empty() {
            return Duration::MAX;
        }
        assert!(response.starts_with("HTTP/1.1 200"), "{response:?} after {:?}", start.elapsed());
        start.elapsed()
    });
}

#[test]
fn floods_of_requests_cost_no_session_and_keep_nobody_out() {
    let _alone = alone();
    let metrics = "[metrics]\nlisten = \"0.0.0.0:9179\"\n";
    let mut bed = Bed::start("", &(passive(9, 1, WITNESS) + metrics));
    let mut witness = Witness::new(&bed);
    let before = at_rest(&bed);
    let socket = bed.routelet.socket().display().to_string();
    let http = format!("{HOST}:9179");
    let mut report = Report::default();
    let log = |n: usize| bed.routelet.dir.join(format!("flood-{n}"));
    // A user without rights does not even get a connection to the control socket.
    report.case("nobody, control socket", || {
        let mut refused = flood(&bed.host, &NOBODY, &socket, &log(0));
        let status = wait_for("it is refused", 10.0, || (!refused.alive()).then(|| refused.stop().code()));
        same(status, Some(13))
    });
    let floods: [(&str, &Ns, &[&str], &str); 4] = [
        ("root, control socket", &bed.host, &[], &socket),
        ("root, HTTP", &bed.host, &[], "127.0.0.1:9179"),
        ("nobody, HTTP", &bed.host, &NOBODY, "127.0.0.1:9179"),
        ("another machine, HTTP", &bed.switch, &[], &http),
    ];
    let mut peak = 0;
    for (n, (name, ns, who, target)) in floods.into_iter().enumerate() {
        report.case(name, || {
            let mut flood = flood(ns, who, target, &log(n + 1));
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(4) {
                doors_are_open(&bed.routelet, &bed.host);
                peak = peak.max(holdings(&bed).0.saturating_sub(before.0));
                thread::sleep(Duration::from_millis(100));
            }
            holds(flood.alive(), &format!("the flood ended early: {}", flood.printed()))?;
            flood.kill();
            Ok(())
        });
    }
    println!("{peak} KiB more at most");
    report.case("bounded memory", || holds(peak < 24 * 1024, &format!("{peak} KiB more")));
    report.case("the witness", || witness.alive(&mut bed));
    report.case("afterwards", || gives_back(&bed, before, 8 * 1024));
    report.finish();
}

/// Neighbors on all addresses of a namespace: each connection gets an OPEN with hold time 0, so
/// that nothing more has to be sent.
struct Crowd {
    /// Closes so many connections and the listener.
    close: Sender<usize>,
    _thread: thread::JoinHandle<()>,
}

impl Crowd {
    fn start(ns: &Ns) -> Self {
        let listener = speaker::listen(ns, "0.0.0.0:179");
        listener.set_nonblocking(true).unwrap();
        let (close, closing) = channel();
        Self { close, _thread: thread::spawn(move || Self::run(listener, &closing)) }
    }

    fn run(listener: TcpListener, closing: &Receiver<usize>) {
        let mut listener = Some(listener);
        let mut held = BTreeMap::<IpAddr, TcpStream>::new();
        let mut octets = [0; 4096];
        loop {
            while let Some(Ok((mut stream, _))) = listener.as_ref().map(TcpListener::accept) {
                let own = stream.local_addr().expect("connected").ip();
                let IpAddr::V4(id) = own else { unreachable!("IPv4") };
                stream.set_nonblocking(true).unwrap();
                if stream.write_all(&speaker::open(EXTERNAL, 0, id)).is_ok()
                    && stream.write_all(&message(KEEPALIVE, &[])).is_ok()
                {
                    held.insert(own, stream);
                }
            }
            held.retain(|_, stream| match stream.read(&mut octets) {
                Ok(n) => n > 0,
                Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            });
            match closing.try_recv() {
                Ok(number) => {
                    listener = None;
                    // The last ones: those that the test watches are the first.
                    for _ in 0..number {
                        held.pop_last();
                    }
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn more_neighbors_than_open_files_leave_the_others_and_the_operator_undisturbed() {
    let _alone = alone();
    let addresses = (0..1100).map(|n| at(u8::try_from(n / 250).unwrap(), u8::try_from(n % 250 + 1).unwrap()));
    let neighbors: String = addresses
        .clone()
        .map(|addr| {
            format!("[[bgp.neighbor]]\naddress = \"{addr}\"\nremote-as = {EXTERNAL}\nconnect-retry-time = 1\nidle-hold-time = 1\n")
        })
        .collect();
    let mut bed = Bed::start("", "[metrics]\nlisten = \"127.0.0.1:9179\"\n");
    bed.host.permanent_neighbors("eth0", (&bed.switch, "eth0"), addresses);
    let crowd = Crowd::start(&bed.switch);
    // The same daemon with 1,024 open files and these neighbors.
    bed.routelet.process.stop();
    bed.routelet.configure(&format!(
        "[bgp]\nas = 65000\nrouter-id = \"{HOST}\"\n{neighbors}[metrics]\nlisten = \"127.0.0.1:9179\"\n"
    ));
    let mut command = bed.host.command("prlimit");
    command.arg("--nofile=1024:1024").arg(env!("CARGO_BIN_EXE_routelet"));
    command.args(["run", "--config"]).arg(bed.routelet.dir.join("routelet.toml"));
    bed.routelet.process = Process::start(&mut command, &bed.routelet.dir.join("log"));
    bed.routelet.wait_ready();

    let up = |routelet: &Routelet| {
        let rows = routelet.json(&["show", "neighbors"]);
        let rows = rows.as_array().expect("an array").clone();
        let up = rows.into_iter().filter(|row| row["state"] == "established");
        up.map(|row| (row["address"].as_str().unwrap().to_owned(), row["since"].clone()))
            .collect::<BTreeMap<_, _>>()
    };
    // All but a quarter, which is for everything else.
    let first = wait_for("three quarters as many sessions as files", 60.0, || {
        let rows = up(&bed.routelet);
        (rows.len() > 700).then_some(rows)
    });
    println!("{} of 1,100 sessions with 1,024 files", first.len());
    let named = |routelet: &Routelet| {
        let summary = routelet.json(&["show", "summary"]);
        summary["problems"].to_string().contains("OpenFilesExhausted")
    };
    wait_for("the problem is named", 15.0, || named(&bed.routelet).then_some(()));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        doors_are_open(&bed.routelet, &bed.host);
    }
    // Local clients that hold connections do not change that.
    let silent: Vec<_> = (0..200).filter_map(|_| UnixStream::connect(bed.routelet.socket()).ok()).collect();
    doors_are_open(&bed.routelet, &bed.host);
    drop(silent);
    let later = up(&bed.routelet);
    let lost: Vec<_> = first.iter().filter(|(addr, since)| later.get(*addr) != Some(since)).collect();
    assert!(lost.is_empty(), "sessions were lost: {lost:?}");

    // Nothing else lacks files meanwhile: the audit and the chain FORWARD need sockets of their own.
    let log = bed.routelet.process.printed();
    let lacking: Vec<_> = log.lines().filter(|l| l.contains("os error 24")).collect();
    assert!(lacking.is_empty(), "{lacking:#?}");

    // With files to spare the listener accepts again and the problem goes.
    crowd.close.send(300).unwrap();
    wait_for("the problem goes with its cause", 30.0, || (!named(&bed.routelet)).then_some(()));
    let addr = at(4, 100);
    let _session = bed.session(addr, &Open::new(EXTERNAL, addr));
    drop(crowd);
}
