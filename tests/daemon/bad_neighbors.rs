//! Neighbors that are wrong, silent or hostile: one clear line each, no crash, everything else goes on.

use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread::sleep,
    time::Duration,
};

use crate::{
    common::{
        daemons::{Bird, Routelet},
        net::Net,
        speaker::{Speaker, attributes, message, open, update},
        wait_for,
    },
    kernel::{CONFIG, HOST, SWITCH, host_and_switch},
};

fn last_error(routelet: &Routelet, address: &str) -> String {
    let all = routelet.json(&["show", "neighbors"]);
    let one = all.as_array().unwrap().iter().find(|n| n["address"] == address).expect("the neighbor");
    one["last_error"].as_str().unwrap_or_default().to_owned()
}

fn wait_error(routelet: &Routelet, address: &str, words: &[&str]) -> String {
    wait_for(format!("last_error with {words:?}"), 30.0, || {
        let text = last_error(routelet, address);
        words.iter().all(|w| text.to_lowercase().contains(&w.to_lowercase())).then_some(text)
    })
}

#[test]
fn a_wrong_as_is_refused_with_its_notification_and_named() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.send(&open(666, 90, SWITCH));
    let (_, body) = speaker.expect(3, 5.0);
    assert_eq!(body[..2], [2, 2], "OPEN Message Error / Bad Peer AS");
    println!("{}", wait_error(&routelet, "10.1.1.1", &["666"]));
}

#[test]
fn a_closed_port_is_named() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switch(&mut net);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    println!("{}", wait_error(&routelet, "10.1.1.1", &["refused", "179"]));
}

#[test]
fn a_password_mismatch_is_a_named_suspicion() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let bird = "router id 10.1.1.1; protocol device {} protocol bgp { local 10.1.1.1 as 10000; neighbor 10.1.1.2 as 1000; \
                password \"right\"; connect retry time 2; ipv4 { import all; export all; }; }";
    let _bird = Bird::start(&net, &switch, bird);
    let config = CONFIG.replace("remote-as = 10000\n", "remote-as = 10000\npassword = \"wrong\"\n");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    println!("{}", wait_error(&routelet, "10.1.1.1", &["MD5"]));
}

#[test]
fn the_right_password_works_both_ways() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let bird = "router id 10.1.1.1; protocol device {} protocol bgp { local 10.1.1.1 as 10000; neighbor 10.1.1.2 as 1000; \
                password \"right\"; ipv4 { import all; export all; }; }";
    let _bird = Bird::start(&net, &switch, bird);
    let config = CONFIG.replace("remote-as = 10000\n", "remote-as = 10000\npassword = \"right\"\n");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    routelet.wait_established("10.1.1.1");
    assert!(!routelet.cli(&["show", "config"]).contains("\"right\""), "secrets are hidden");
}

#[test]
fn garbage_and_strangers_on_port_179_disturb_nobody() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    switch.ip("addr add 10.1.1.129/25 dev eth0");
    host.ip("addr add 10.1.1.130/25 dev eth0");
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut good = Speaker::dial(&switch, HOST).unwrap();
    good.establish(10000, 9, SWITCH);

    // The right address, garbage instead of BGP: Connection Not Synchronized, or refused as a second connection.
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 64], &[0xff; 64]] {
        if let Ok(mut speaker) = Speaker::dial(&switch, HOST) {
            let _ = speaker.stream.write_all(garbage);
            let _ = speaker.receive(0.3);
        }
    }
    // An address that nobody configured.
    let stranger = switch.enter(|| {
        let socket = TcpStream::connect("10.1.1.130:179");
        socket.map(|mut s| s.write_all(&open(1, 90, SWITCH)))
    });
    drop(stranger);
    // Still there, beyond the hold time of 9 s that only KEEPALIVEs refresh.
    for _ in 0..5 {
        good.send(&message(4, &[]));
        sleep(Duration::from_millis(100));
    }
    good.send(&update(&[], &attributes(&[10000], SWITCH, 0), &[(Ipv4Addr::new(10, 60, 1, 0), 24)]));
    wait_for("the route", 5.0, || host.ip("route show proto 179").contains("10.60.1.0/24").then_some(()));
    assert_eq!(routelet.session("10.1.1.1").as_deref(), Some("established"));
    assert!(routelet.process.alive());
    println!("{}", routelet.process.printed());
}

#[test]
fn a_malformed_update_takes_its_route_and_not_the_session() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    let (a, b) = ((Ipv4Addr::new(10, 60, 1, 0), 24), (Ipv4Addr::new(10, 60, 2, 0), 24));
    let good = attributes(&[10000], SWITCH, 0);
    speaker.send(&update(&[], &good, &[a, b]));
    wait_for("both", 5.0, || host.ip("route show proto 179").contains("10.60.2.0/24").then_some(()));
    // ORIGIN with the value 9 (RFC 7606 §7.1): treat-as-withdraw.
    let mut broken = good.clone();
    broken[3] = 9;
    speaker.send(&update(&[], &broken, &[a]));
    wait_for("the bad one to go", 5.0, || {
        (!host.ip("route show proto 179").contains("10.60.1.0/24")).then_some(())
    });
    assert!(host.ip("route show proto 179").contains("10.60.2.0/24"));
    assert_eq!(routelet.session("10.1.1.1").as_deref(), Some("established"));
}

#[test]
fn silence_after_the_connection_costs_only_that_connection() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let listener = switch.enter(|| TcpListener::bind("10.1.1.1:179")).unwrap();
    let config = CONFIG.replace("remote-as = 10000\n", "remote-as = 10000\nhold-time = 3\n");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    // Says OPEN and KEEPALIVE, then nothing: the hold timer ends it with 4/0.
    let mut speaker = Speaker::accept_on(&listener);
    speaker.establish(10000, 3, SWITCH);
    let (_, body) = speaker.expect(3, 10.0);
    assert_eq!(body[..2], [4, 0], "Hold Timer Expired");
    println!("{}", wait_error(&routelet, "10.1.1.1", &["hold"]));
}
