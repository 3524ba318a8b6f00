//! Links and addresses that change while 100,000 routes load, over and over: how long the kernel
//! takes to go on over the other link, and that everything is back afterwards.

use std::{
    io::Write,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{JoinHandle, spawn},
    time::{Duration, Instant},
};

use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
    speaker::{Speaker, attributes, end_of_rib, message, open, update},
    wait_for, within,
};

/// An address may be away for 300 ms before its session ends; the machine loads a table meanwhile.
const LIMIT: Duration = Duration::from_secs(1);
const ROUTES: u32 = 100_000;
const OPEN: u8 = 1;
const KEEPALIVE: u8 = 4;
const PROBE: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);

/// A host with an uplink to each of three switches; the third sends the load.
struct Stage {
    host: Ns,
    switches: [Ns; 3],
    routelet: Routelet,
    speakers: [Option<Speaker>; 2],
    loads: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    load: Option<JoinHandle<()>>,
    net: Net,
}

fn switch_address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, u8::try_from(n + 1).unwrap(), 0, 1)
}

fn asn(n: usize) -> u32 {
    10001 + u32::try_from(n).unwrap()
}

/// A session from the switch, unless the daemon still has the former one.
fn speak(switch: &Ns, n: usize) -> Option<Speaker> {
    let host = Ipv4Addr::new(10, u8::try_from(n + 1).unwrap(), 0, 2);
    let mut speaker = Speaker::dial(switch, host.into()).ok()?;
    speaker.send(&open(asn(n), 90, switch_address(n)));
    if speaker.receive(5.0)?.0 != OPEN {
        return None;
    }
    speaker.send(&message(KEEPALIVE, &[]));
    (speaker.receive(5.0)?.0 == KEEPALIVE).then_some(speaker)
}

/// The whole table, and its withdrawal, until it is to stop or the daemon ends.
fn keep_loading(mut speaker: Speaker, loads: &AtomicUsize, stop: &AtomicBool) {
    let prefixes: Vec<_> = (0..ROUTES).map(|n| (Ipv4Addr::from(0x1e00_0000 + (n << 8)), 24)).collect();
    let mut octets = Vec::new();
    for (set, part) in (0..).zip(prefixes.chunks(200)) {
        let path = [asn(2), 64600 + set % 300];
        octets.extend(update(&[], &attributes(&path, switch_address(2), set), part));
    }
    octets.extend(end_of_rib());
    prefixes.chunks(500).for_each(|part| octets.extend(update(part, &[], &[])));
    while !stop.load(Relaxed) && speaker.stream.write_all(&octets).is_ok() {
        loads.fetch_add(1, Relaxed);
    }
}

impl Stage {
    fn new() -> Self {
        let mut net = Net::new();
        let host = net.ns("host");
        let switches = [0, 1, 2].map(|n| {
            let switch = net.ns(&format!("switch{n}"));
            net.link((&switch, "port"), (&host, &format!("eth{n}")));
            switch.ip(&format!("addr add {}/24 dev port", switch_address(n)));
            host.ip(&format!("addr add 10.{}.0.2/24 dev eth{n}", n + 1));
            switch
        });
        // What the daemon sends back to the load's switch is read by nobody: nothing is sent.
        let neighbor = |n: usize| {
            format!(
                "[[bgp.neighbor]]\naddress = \"{}\"\nremote-as = {}\npassive = true\nmax-prefixes = 1000000\n\
                 idle-hold-time = 1\nexport = [\"nothing\"]\n",
                switch_address(n),
                asn(n)
            )
        };
        let config = format!(
            "[bgp]\nas = 1000\nrouter-id = \"10.3.0.2\"\n{}{}{}[[policy.nothing]]\naction = \"reject\"\n",
            neighbor(0),
            neighbor(1),
            neighbor(2)
        );
        let routelet = Routelet::start(&net, &host, &config, &[]);
        let (loads, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let third = wait_for("a session for the load", 20.0, || speak(&switches[2], 2));
        let load = {
            let (loads, stop) = (loads.clone(), stop.clone());
            Some(spawn(move || keep_loading(third, &loads, &stop)))
        };
        let mut stage = Self { host, switches, routelet, speakers: [None, None], loads, stop, load, net };
        (0..2).for_each(|n| stage.connect(n));
        stage
    }

    /// Waits until the route is there over this switch, by the session that stayed or by another.
    fn connect(&mut self, n: usize) {
        wait_for(format!("the route over switch {n}"), 60.0, || {
            if self.routelet.session(&switch_address(n).to_string()).as_deref() != Some("established") {
                let mut speaker = speak(&self.switches[n], n)?;
                let attributes = attributes(&[asn(n), 64600], switch_address(n), 0);
                speaker.send(&update(&[], &attributes, &[(PROBE, 24)]));
                speaker.send(&end_of_rib());
                // The end of the former connection comes after this: a neighbor that closes one
                // session after the other would be held off.
                self.speakers[n] = Some(speaker);
            }
            self.hops().contains(&switch_address(n)).then_some(())
        });
    }

    /// The next hops of the route in the kernel.
    fn hops(&self) -> Vec<Ipv4Addr> {
        let route = self.host.ip(&format!("-4 route show {PROBE}/24"));
        let words: Vec<_> = route.split_whitespace().collect();
        words.windows(2).filter(|w| w[0] == "via").filter_map(|w| w[1].parse().ok()).collect()
    }

    /// How long after `change` the kernel goes on over the second switch alone.
    fn goes_on(&self, change: &str) -> Duration {
        let start = Instant::now();
        self.host.sh(change);
        wait_for(format!("{change}: the kernel goes on over the other link"), 30.0, || {
            (self.hops() == [switch_address(1)]).then(|| start.elapsed())
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // A load that waits for its window ends with the daemon.
        self.routelet.process.kill();
        let _ = self.load.take().map(JoinHandle::join);
    }
}

/// What happens to the first link, and what undoes it.
const CHANGES: [(&str, &str, &str); 5] = [
    ("the link is set down", "ip link set eth0 down", "ip link set eth0 up"),
    ("the address is removed", "ip addr del 10.1.0.2/24 dev eth0", "ip addr add 10.1.0.2/24 dev eth0"),
    (
        "the link has another name",
        "ip link set eth0 down; ip link set eth0 name wan0; ip link set wan0 up",
        "ip link set wan0 down; ip link set wan0 name eth0; ip link set eth0 up",
    ),
    (
        "the address moves to a bridge above the link",
        "ip link add br0 type bridge; ip link set eth0 master br0; ip link set br0 up; ip addr del 10.1.0.2/24 dev eth0",
        "ip link del br0; ip addr add 10.1.0.2/24 dev eth0",
    ),
    (
        "the MTU changes, and the link goes for good",
        "ip link set eth0 mtu 1400; ip addr flush dev eth0",
        "ip link set eth0 mtu 1500; ip addr add 10.1.0.2/24 dev eth0",
    ),
];

#[test]
fn a_link_that_changes_while_a_table_loads_is_left_within_a_second_and_used_again() {
    let mut stage = Stage::new();
    for (name, change, undo) in CHANGES {
        within(name, LIMIT, || {
            let took = stage.goes_on(change);
            stage.host.sh(undo);
            stage.connect(0);
            took
        });
    }
    // Carrier, as the switch takes it away.
    within("no carrier", LIMIT, || {
        let start = Instant::now();
        stage.switches[0].ip("link set port down");
        let took = wait_for("the kernel goes on", 30.0, || {
            (stage.hops() == [switch_address(1)]).then(|| start.elapsed())
        });
        stage.switches[0].ip("link set port up");
        stage.connect(0);
        took
    });
    // Another interface of the same name, with the same address.
    stage.host.ip("link del eth0");
    wait_for("the kernel goes on", 30.0, || (stage.hops() == [switch_address(1)]).then_some(()));
    stage.net.link((&stage.switches[0], "port"), (&stage.host, "eth0"));
    stage.switches[0].ip("addr add 10.1.0.1/24 dev port");
    stage.host.ip("addr add 10.1.0.2/24 dev eth0");
    stage.connect(0);
    // The load went on meanwhile, and its switch still has its session.
    let before = stage.loads.load(Relaxed);
    println!("{before} loads of {ROUTES} routes");
    wait_for("another load", 120.0, || (stage.loads.load(Relaxed) > before).then_some(()));
    assert_eq!(stage.routelet.session("10.3.0.1").as_deref(), Some("established"));
    wait_for("both links are used", 10.0, || (stage.hops().len() == 2).then_some(()));
}
