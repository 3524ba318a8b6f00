//! Connections and descriptors: what others hold open must not keep probes and operators out.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
    run, wait_for, within,
};

const CONFIG: &str = "[bgp]\nas = 1000\n[advertise]\nnetworks = [\"10.20.0.0/24\"]\n\
     [metrics]\nlisten = \"127.0.0.1:9179\"\n";

/// The status of `/livez`, asked for as a kubelet does.
fn livez(host: &Ns) -> (String, Duration) {
    host.enter(|| {
        let start = Instant::now();
        let mut stream = TcpStream::connect("127.0.0.1:9179").expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        (answer.chars().take(12).collect(), start.elapsed())
    })
}

#[test]
fn two_hundred_idle_connections_do_not_keep_probes_out() {
    let mut net = Net::new();
    let host = net.ns("host");
    host.ip("link set lo up");
    let _routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut idle = Vec::new();
    for n in 0..200 {
        let mut stream = host.enter(|| TcpStream::connect("127.0.0.1:9179")).expect("a connection");
        if n % 2 == 1 {
            stream.write_all(b"GET /metr").unwrap();
        }
        idle.push(stream);
        if n % 20 == 19 {
            let (status, took) = livez(&host);
            assert_eq!(status, "HTTP/1.1 200", "beside {n} idle connections, after {took:?}");
        }
    }
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let mut net = Net::new();
    let host = net.ns("host");
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    let mut command = host.command("prlimit");
    command.arg("--nofile=1024:20000").arg(env!("CARGO_BIN_EXE_routelet"));
    command.args(["run", "--config"]).arg(routelet.dir.join("routelet.toml"));
    routelet.process = crate::common::Process::start(&mut command, &routelet.dir.join("log"));
    routelet.wait_ready();
    let pid = routelet.process.pid().to_string();
    let limits =
        run(Command::new("prlimit").args(["--nofile", "--noheadings", "-o", "SOFT,HARD", "-p", &pid]));
    assert_eq!(limits.split_whitespace().collect::<Vec<_>>(), ["20000", "20000"]);
}

#[test]
fn a_request_gets_its_response_within_a_second_beside_a_thousand_silent_clients() {
    let mut net = Net::new();
    let host = net.ns("host");
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let silent: Vec<_> =
        (0..1000).map(|_| UnixStream::connect(routelet.socket()).expect("a connection")).collect();
    within("show summary beside 1,000 silent clients", Duration::from_secs(1), || {
        let start = Instant::now();
        routelet.cli(&["show", "summary"]);
        start.elapsed()
    });
    assert_eq!(silent.len(), 1000);
}

#[test]
fn with_64_open_files_neighbors_wait_and_operators_and_probes_do_not() {
    let mut net = Net::new();
    let host = net.ns("host");
    host.ip("link set lo up");
    let mut config =
        CONFIG.replace("as = 1000", "as = 1000\nrouter-id = \"10.0.0.1\"\nconnect-retry-time = 1");
    for n in 1..=100 {
        // Nobody is there: each dial holds a descriptor.
        config += &format!("[[bgp.neighbor]]\naddress = \"127.1.0.{n}\"\nremote-as = 2000\n");
    }
    let mut routelet = Routelet::ready(&net, &host, &config, &[]);
    let mut command = host.command("prlimit");
    command.arg("--nofile=64:64").arg(env!("CARGO_BIN_EXE_routelet"));
    command.args(["run", "--config"]).arg(routelet.dir.join("routelet.toml"));
    routelet.process = crate::common::Process::start(&mut command, &routelet.dir.join("log"));
    routelet.wait_ready();
    // Strangers take what is left: 300 connections to the BGP port and to the probes.
    let mut held = Vec::new();
    for n in 0..300 {
        let port = if n % 2 == 0 { 179 } else { 9179 };
        // The listener for BGP comes with the first plan.
        let connect = || host.enter(|| TcpStream::connect(("127.0.0.1", port))).ok();
        held.push(wait_for(format!("a connection to port {port}"), 30.0, connect));
    }
    for _ in 0..5 {
        within("show summary", Duration::from_secs(1), || {
            let start = Instant::now();
            routelet.cli(&["show", "summary"]);
            start.elapsed()
        });
        let (status, took) = livez(&host);
        assert_eq!(status, "HTTP/1.1 200", "after {took:?}");
    }
    drop(held);
}
