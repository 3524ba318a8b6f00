//! A daemon that does not run for half a minute (SIGSTOP, a machine that swaps or is suspended):
//! the sessions that can live do, and the kernel is right soon afterwards.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    common::{
        daemons::Routelet,
        net::{Net, Ns},
        speaker::{Speaker, attributes, end_of_rib, message, update},
        wait_for,
    },
    kernel::{net24, ours},
};

const STOPPED: Duration = Duration::from_secs(30);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 2));
/// Of a neighbor with a hold time of 90 s, of one with 9 s, and of one whose link is lost meanwhile.
const PATIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const IMPATIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 3);
const LOST: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 1);
const KEEPALIVE: u8 = 4;
const HOLD_TIMER_EXPIRED: [u8; 2] = [4, 0];

fn config() -> String {
    let neighbor = |(address, asn): (Ipv4Addr, u32)| {
        format!(
            "[[bgp.neighbor]]\naddress = \"{address}\"\nremote-as = {asn}\npassive = true\nidle-hold-time = 1\n"
        )
    };
    let all: String = [(PATIENT, 10000), (IMPATIENT, 10001), (LOST, 10002)].map(neighbor).concat();
    format!("[bgp]\nas = 1000\nrouter-id = \"10.1.1.2\"\n{all}[advertise]\nnetworks = [\"10.50.0.0/24\"]\n")
}

fn stage(net: &mut Net) -> (Ns, Ns) {
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    for (n, addresses) in [(1, vec![PATIENT, IMPATIENT]), (2, vec![LOST])] {
        net.link((&switch, &format!("eth{n}")), (&host, &format!("eth{n}")));
        for address in addresses {
            switch.ip(&format!("addr add {address}/24 dev eth{n}"));
        }
        host.ip(&format!("addr add 10.{n}.1.2/24 dev eth{n}"));
    }
    // With 1 `ip route flush` fails on what it read itself.
    host.sysctl("net.ipv4.nexthop_compat_mode", "0");
    (switch, host)
}

fn session(switch: &Ns, own: Ipv4Addr, host: IpAddr, asn: u32, hold: u16) -> Speaker {
    let mut speaker = Speaker::dial_from(switch, own.into(), host).unwrap();
    speaker.establish(asn, hold, own);
    speaker
}

fn advertise(speaker: &mut Speaker, own: Ipv4Addr, asn: u32, numbers: std::ops::Range<u8>) {
    let prefixes: Vec<_> = numbers.map(net24).collect();
    speaker.send(&update(&[], &attributes(&[asn], own, 0), &prefixes));
    speaker.send(&end_of_rib());
}

/// The third octets of the learned routes in the kernel.
fn installed(host: &Ns) -> Vec<u8> {
    let all = ours(host);
    let numbers = all.lines().filter_map(|l| l.strip_prefix("10.60.")?.split('.').next()?.parse().ok());
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn after_a_stop_of_thirty_seconds_the_kernel_is_right_and_sessions_that_can_live_do() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    let routelet = Routelet::start(&net, &host, &config(), &[]);
    let mut patient = session(&switch, PATIENT, HOST, 10000, 90);
    let mut impatient = session(&switch, IMPATIENT, HOST, 10001, 9);
    let mut lost = session(&switch, LOST, Ipv4Addr::new(10, 2, 1, 2).into(), 10002, 90);
    advertise(&mut patient, PATIENT, 10000, 0..50);
    advertise(&mut impatient, IMPATIENT, 10001, 50..80);
    advertise(&mut lost, LOST, 10002, 80..100);
    let all: Vec<u8> = (0..100).collect();
    wait_for("the routes of all", 20.0, || (installed(&host) == all).then_some(()));
    let since = |address: Ipv4Addr| {
        let view = routelet.json(&["show", "neighbor", &address.to_string()]);
        (view["state"].clone(), view["since"].clone())
    };
    let before = since(PATIENT);

    let begun = Instant::now();
    routelet.process.signal("STOP");
    // Meanwhile routes change, others delete ours, a link is lost, and a hold timer expires.
    patient.send(&update(&[net24(0)], &[], &[]));
    advertise(&mut patient, PATIENT, 10000, 100..120);
    host.ip("route flush proto 179");
    host.ip("link set eth2 down");
    sleep(Duration::from_secs(9));
    impatient.send(&message(3, &HOLD_TIMER_EXPIRED));
    drop(impatient);
    while begun.elapsed() < STOPPED {
        patient.send(&message(KEEPALIVE, &[]));
        sleep(Duration::from_secs(3));
    }
    routelet.process.signal("CONT");
    let back = Instant::now();
    let right: Vec<u8> = (1..50).chain(100..120).collect();
    wait_for("the kernel is right", 10.0, || {
        (installed(&host) == right && ours(&host).contains("unreachable 10.50.0.0/24")).then_some(())
    });
    println!("right {:?} after the stop", back.elapsed());
    assert_eq!(since(PATIENT), before, "the session with time left");
    host.ip("link set eth2 up");
    // Its neighbor is idle for a second.
    sleep(Duration::from_secs(2));
    let mut impatient = session(&switch, IMPATIENT, HOST, 10001, 9);
    advertise(&mut impatient, IMPATIENT, 10001, 50..80);
    let right: Vec<u8> = (1..80).chain(100..120).collect();
    wait_for("its routes are back", 10.0, || (installed(&host) == right).then_some(()));
    assert_eq!(since(PATIENT), before, "the session with time left");
}
