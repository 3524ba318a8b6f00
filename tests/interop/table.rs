//! One table drives every case with every daemon, and writes `docs/interop.md` from what was seen. What the table in
//! the tree says to work and no longer does, fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    net::Ipv4Addr,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Mutex,
    thread,
    time::Duration,
};

use crate::{
    common::{
        Process,
        daemons::Routelet,
        net::{Net, Ns},
        speaker::{Speaker, attributes, update},
        speakers, wait_for,
    },
    others::{FAR, Kind, LARGE, MANY, OURS, Other, Role, Setup},
};

const NONE: Setup = Setup {
    ibgp: false,
    over_ipv6: false,
    role: Role::None,
    password: false,
    gtsm: false,
    add_path: false,
    extended: false,
    two_octet: false,
    graceful: false,
    install: false,
    back: false,
    asks: false,
    capture: false,
};

type Seen = fn(&mut Lab);

/// What is to be seen, by row.
const CASES: &[(&str, Setup, Seen)] = &[
    ("eBGP, IPv4 and IPv6 routes", NONE, both_ways),
    ("iBGP", Setup { ibgp: true, ..NONE }, both_ways),
    ("reflector, routelet is its client", Setup { ibgp: true, role: Role::Reflector, ..NONE }, reflected),
    ("client, routelet reflects", Setup { ibgp: true, role: Role::Client, ..NONE }, reflected),
    ("session over IPv6", Setup { over_ipv6: true, ..NONE }, both_ways),
    ("MD5", Setup { password: true, ..NONE }, both_ways),
    ("GTSM", Setup { gtsm: true, ..NONE }, both_ways),
    ("ADD-PATH", Setup { add_path: true, ..NONE }, with_add_path),
    ("extended messages", Setup { extended: true, ..NONE }, with_extended_messages),
    ("two-octet AS numbers", Setup { two_octet: true, ..NONE }, with_two_octets),
    ("route refresh, asked by routelet", NONE, refreshed_by_them),
    ("route refresh, asked by the neighbor", Setup { asks: true, ..NONE }, refreshed_by_us),
    ("graceful restart of the neighbor", Setup { graceful: true, ..NONE }, they_restart),
    ("graceful restart of routelet, SIGTERM", RESTART, |lab| we_restart(lab, "TERM")),
    ("graceful restart of routelet, kill -9", RESTART, |lab| we_restart(lab, "KILL")),
];

const RESTART: Setup = Setup { graceful: true, install: true, ..NONE };

/// Cases at the same time.
const WORKERS: usize = 6;

/// A LAN of ours (.1), theirs (.2) and a second routelet (.3).
struct Lab {
    second: Option<Routelet>,
    us: Routelet,
    other: Other,
    kind: Kind,
    setup: Setup,
    capture: Option<Process>,
    lan: Ns,
    ours: Ns,
    theirs: Ns,
    net: Net,
}

fn config(setup: &Setup, n: u32) -> String {
    let network = if n == 1 { 244 } else { 245 };
    let mut text = format!(
        "[bgp]\nas = {OURS}\nrouter-id = \"10.0.0.{n}\"\nhold-time = 9\nconnect-retry-time = 1\nidle-hold-time = 1\n\
         graceful-restart = {}\n[advertise]\nnetworks = [\"10.{network}.1.0/24\", \"2001:db8:{network}::/64\"]\n",
        setup.graceful
    );
    if setup.extended {
        let [plain, large] = setup.communities();
        let all: Vec<_> = plain.into_iter().chain(large.iter().map(|c| format!("large:{c}"))).collect();
        let _ = writeln!(text, "communities = {all:?}");
    }
    if setup.has_sources() {
        for (addr, asn, _) in SOURCES {
            let _ =
                writeln!(text, "[[bgp.neighbor]]\naddress = \"{addr}\"\nremote-as = {asn}\npassive = true");
        }
    }
    let neighbors = match (n, setup.role) {
        (1, Role::Client) => vec![(2, setup.their_as(), true), (3, OURS, true)],
        (1, _) | (_, Role::Reflector) => vec![(2, setup.their_as(), false)],
        _ => vec![(1, OURS, false)],
    };
    for (them, asn, client) in neighbors {
        let _ = write!(
            text,
            "[[bgp.neighbor]]\naddress = \"{}\"\nremote-as = {asn}\nroute-reflector-client = {client}\n{}{}{}{}",
            setup.address(them),
            if setup.password { "password = \"sesame\"\n" } else { "" },
            if setup.gtsm { "ttl-security = 1\n" } else { "" },
            if setup.add_path { "add-paths = \"both\"\n" } else { "" },
            if setup.has_sources() { "transit = true\n" } else { "" },
        );
    }
    text
}

impl Lab {
    fn new(kind: Kind, setup: Setup) -> Self {
        let mut net = Net::new();
        let (lan, ours, theirs) = (net.ns("lan"), net.ns("ours"), net.ns("theirs"));
        let third = (setup.role != Role::None).then(|| net.ns("third"));
        lan.ip("link add lan type bridge");
        lan.ip("link set lan up");
        let hosts = [Some(&ours), Some(&theirs), third.as_ref()];
        for (n, ns) in (1..).zip(hosts.into_iter().flatten()) {
            net.link((&lan, &format!("p{n}")), (ns, "eth0"));
            lan.ip(&format!("link set p{n} master lan"));
            ns.ip(&format!("addr add 10.1.0.{n}/24 dev eth0"));
            ns.ip(&format!("addr add 2001:db8:1::{n}/64 dev eth0 nodad"));
        }
        if setup.has_sources() {
            for (addr, ..) in SOURCES {
                lan.ip(&format!("addr add {addr}/24 dev lan"));
            }
        }
        let capture = setup.capture.then(|| capture(&net, &ours));
        let other = kind.start(&net, &theirs, &setup);
        let us = Routelet::start(&net, &ours, &config(&setup, 1), &[]);
        let second = third.map(|ns| Routelet::start(&net, &ns, &config(&setup, 3), &[]));
        Self { second, us, other, kind, setup, capture, lan, ours, theirs, net }
    }

    fn families(&self) -> Vec<usize> {
        (0..2).filter(|f| self.kind.brings(*f, &self.setup)).collect()
    }

    fn neighbor(&self) -> String {
        self.setup.address(2)
    }

    /// A number or a list out of the neighbor's view.
    fn view(&self, path: &str) -> serde_json::Value {
        let view = self.us.json(&["show", "neighbor", &self.neighbor()]);
        view.pointer(path).cloned().unwrap_or_default()
    }

    fn received(&self, capability: &str) -> bool {
        let list = self.view("/capabilities_received");
        list.as_array()
            .is_some_and(|l| l.iter().any(|c| c.as_str().is_some_and(|c| c.starts_with(capability))))
    }

    /// The network that we have from them is in our kernel.
    fn we_have(&self, ipv6: bool) {
        wait_for("their route is in our kernel", 20.0, || {
            has_route(&self.ours, THEIRS[usize::from(ipv6)], "2")
        });
    }

    fn they_have(&self, prefix: &str) {
        wait_for(format!("they have {prefix}"), 20.0, || self.other.table().contains(prefix).then_some(()));
    }
}

const OWN: [&str; 2] = ["10.244.1.0/24", "2001:db8:244::/64"];
const THEIRS: [&str; 2] = ["10.200.0.0/16", "2001:db8:200::/48"];
const SECOND: [&str; 2] = ["10.245.1.0/24", "2001:db8:245::/64"];

/// A learned route by way of this host of the LAN.
fn has_route(ns: &Ns, prefix: &str, host: &str) -> Option<()> {
    let text = ns.ip(&format!("route show {prefix} proto 179"));
    let via = if prefix.contains(':') {
        ns.ip(&format!("-6 route show {prefix} proto 179")).contains(&format!("2001:db8:1::{host} "))
    } else {
        text.contains(&format!("10.1.0.{host} "))
    };
    via.then_some(())
}

fn established(lab: &Lab) {
    lab.us.wait_established(&lab.neighbor());
}

fn both_ways(lab: &mut Lab) {
    established(lab);
    for f in lab.families() {
        lab.we_have(f == 1);
        lab.they_have(OWN[f]);
    }
}

/// Neighbors of ours that both announce [`TWICE`]: address, number, and a MED that tells them apart.
const SOURCES: [(&str, u32, u32); 2] = [("10.1.0.11", 65011, 7), ("10.1.0.12", 65012, 8)];
const TWICE: &str = "10.201.0.0/16";
const AS_TRANS: u32 = 23456;

impl Setup {
    fn has_sources(&self) -> bool {
        self.add_path || self.two_octet
    }
}

impl Lab {
    /// One of [`SOURCES`], which announces [`TWICE`] with these numbers behind its own.
    fn source(&self, n: usize, behind: &[u32]) -> Speaker {
        let (addr, asn, med) = SOURCES[n];
        let addr: Ipv4Addr = addr.parse().expect("an address");
        let ours = "10.1.0.1".parse().expect("an address");
        let mut source = Speaker::dial_from(&self.lan, addr.into(), ours).expect("a call");
        source.establish(asn, 90, addr);
        let attributes = attributes(&[&[asn], behind].concat(), addr, med);
        source.send(&update(&[], &attributes, &[(Ipv4Addr::new(10, 201, 0, 0), 16)]));
        source
    }
}

/// Two neighbors of ours announce one prefix: the other daemon gets both paths, and one is left when one goes.
fn with_add_path(lab: &mut Lab) {
    both_ways(lab);
    assert!(lab.received("add-path"));
    let mut sources = [0, 1].map(|n| lab.source(n, &[]));
    for (_, asn, _) in SOURCES {
        wait_for(format!("they have {TWICE} of AS {asn}"), 20.0, || {
            let table = lab.other.table();
            (table.contains(TWICE) && table.contains(&asn.to_string())).then_some(())
        });
    }
    let advertised = || lab.view("/advertised/ipv4-unicast").as_u64();
    let before = advertised();
    sources[1].send(&update(&[(Ipv4Addr::new(10, 201, 0, 0), 16)], &[], &[]));
    wait_for("one path of two is withdrawn", 20.0, || (advertised() != before).then_some(()));
    // ExaBGP keeps no table, only what it heard.
    if lab.kind != Kind::ExaBgp {
        wait_for("they have one path", 20.0, || {
            let table = lab.other.table();
            (table.contains("65011") && !table.contains("65012")).then_some(())
        });
    }
}

/// Our only path to their network.
fn path_of_theirs(lab: &Lab) -> serde_json::Value {
    lab.us.json(&["show", "routes", THEIRS[0]])[0].clone()
}

/// Each route has more communities than fit into 4096 octets.
fn with_extended_messages(lab: &mut Lab) {
    both_ways(lab);
    assert!(lab.received("extended-message"));
    let path = path_of_theirs(lab);
    let count = |list: &str| path[list].as_array().map(Vec::len);
    assert_eq!([count("communities"), count("large_communities")], MANY.map(|n| Some(n as usize)), "theirs");
    wait_for("they show the communities of ours", 20.0, || {
        // Each writes them in its own way, and FRR no more than 830.
        let shown = lab.other.details(OWN[0]).replace(' ', "").replace(',', ":");
        (shown.contains("65002:800") && shown.contains("65002:1:100")).then_some(())
    });
}

/// A number of four octets passes a session of two each way (RFC 6793 §4.2): as AS_TRANS, and whole in AS4_PATH.
fn with_two_octets(lab: &mut Lab) {
    both_ways(lab);
    assert!(!lab.received("four-octet-as"));
    // OpenBGPD prepends no number but its own and its neighbors'.
    if lab.kind != Kind::OpenBgpd {
        assert_eq!(path_of_theirs(lab)["as_path"], serde_json::json!([lab.setup.their_as(), FAR]));
    }
    let _source = lab.source(0, &[LARGE]);
    lab.they_have(TWICE);
    // The FRR that cannot say four octets does not read AS4_PATH either.
    lab.they_have(&if lab.kind == Kind::Frr { AS_TRANS } else { LARGE }.to_string());
}

/// Clients hear of each other, with the next hop of the one that said it (RFC 4456 §10).
fn reflected(lab: &mut Lab) {
    both_ways(lab);
    let second = lab.second.as_ref().expect("a third host").ns.clone();
    for f in lab.families() {
        wait_for("the second client has what they announce", 20.0, || has_route(&second, THEIRS[f], "2"));
        wait_for("the second client has ours", 20.0, || has_route(&second, OWN[f], "1"));
        wait_for("we have the second client's", 20.0, || has_route(&lab.ours, SECOND[f], "3"));
        lab.they_have(SECOND[f]);
    }
}

fn refreshed_by_them(lab: &mut Lab) {
    both_ways(lab);
    assert!(lab.received("route-refresh"));
    let updates = |lab: &Lab| lab.view("/messages_received/update").as_u64();
    let before = updates(lab);
    lab.us.cli(&["neighbor", "refresh", &lab.neighbor()]);
    wait_for("they say everything again", 10.0, || (updates(lab) > before).then_some(()));
    both_ways(lab);
}

fn refreshed_by_us(lab: &mut Lab) {
    both_ways(lab);
    let updates = |lab: &Lab| lab.view("/messages_sent/update").as_u64();
    let before = updates(lab);
    assert!(lab.other.request_refresh(&lab.neighbor_of_theirs()), "it has no command for that");
    wait_for("we say everything again", 10.0, || (updates(lab) > before).then_some(()));
    both_ways(lab);
}

impl Lab {
    fn neighbor_of_theirs(&self) -> String {
        self.setup.address(1)
    }

    /// What the kernel of a namespace says of its routes from now on.
    fn monitor(&self, ns: &Ns, name: &str) -> Process {
        let mut command = ns.command("ip");
        command.args(["monitor", "route"]);
        Process::start(&mut command, &self.net.dir().join(name))
    }
}

/// Their restart: our kernel keeps their routes, and forgets that they were stale when they are back.
fn they_restart(lab: &mut Lab) {
    both_ways(lab);
    let monitor = lab.monitor(&lab.ours, "ours.monitor");
    lab.other.kill();
    let state = |lab: &Lab| lab.us.session(&lab.neighbor()).unwrap_or_default();
    wait_for("the session is gone", 12.0, || (state(lab) != "established").then_some(()));
    let stale = |lab: &Lab| {
        let routes = lab.us.json(&["show", "routes", THEIRS[0]]);
        routes.pointer("/0/stale").and_then(serde_json::Value::as_bool)
    };
    wait_for("the route is stale", 2.0, || (stale(lab) == Some(true)).then_some(()));
    lab.other = lab.kind.start(&lab.net, &lab.theirs, &Setup { back: true, ..lab.setup });
    established(lab);
    wait_for("the route is fresh", 15.0, || (stale(lab) == Some(false)).then_some(()));
    both_ways(lab);
    let text = monitor.printed();
    assert!(
        !THEIRS.iter().any(|p| text.contains(&format!("Deleted {p}"))),
        "our kernel lost a route:\n{text}"
    );
}

/// Our restart: they go on forwarding to us. A probe each millisecond, and not a word of either kernel about the
/// routes of the other.
fn we_restart(lab: &mut Lab, signal: &str) {
    lab.ours.ip("addr add 10.244.1.1/32 dev lo");
    both_ways(lab);
    wait_for("a probe is answered", 10.0, || lab.theirs.pings("10.244.1.1").then_some(()));
    // Everything that follows from the start is over.
    thread::sleep(Duration::from_secs(2));
    let monitors = [lab.monitor(&lab.ours, "ours.monitor"), lab.monitor(&lab.theirs, "theirs.monitor")];
    let mut command = lab.theirs.command("ping");
    command.args(["-n", "-q", "-i", "0.001", "-w", "10", "10.244.1.1"]);
    let mut probe = Process::start(&mut command, &lab.net.dir().join("ping"));
    thread::sleep(Duration::from_millis(500));
    if signal == "TERM" {
        lab.us.process.stop()
    } else {
        lab.us.process.kill()
    };
    thread::sleep(Duration::from_millis(700));
    lab.us.restart();
    established(lab);
    wait_for("the probes are over", 15.0, || (!probe.alive()).then_some(()));
    both_ways(lab);
    let probes = probe.printed();
    assert!(probes.contains(" 0% packet loss"), "{probes}");
    for (monitor, prefixes) in monitors.iter().zip([THEIRS, OWN]) {
        let text = monitor.printed();
        assert!(!prefixes.iter().any(|p| text.contains(p)), "a route was touched:\n{text}");
    }
}

/// What is said of a daemon in a row.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Yes,
    No(String),
    /// Not possible with it.
    Lacks(&'static str),
}

fn play(kind: Kind, setup: Setup, seen: Seen) -> Cell {
    if let Some(why) = kind.lacks(&setup) {
        return Cell::Lacks(why);
    }
    let result = panic::catch_unwind(AssertUnwindSafe(|| seen(&mut Lab::new(kind, setup))));
    match result {
        Ok(()) => Cell::Yes,
        Err(why) => {
            let text = why.downcast_ref::<String>().cloned();
            let text = text.or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Cell::No(text.unwrap_or_default().lines().next().unwrap_or_default().to_owned())
        }
    }
}

/// Where the daemons are from, as the heading of their table.
fn release() -> String {
    let suite =
        speakers().and_then(|folder| Some(folder.parent()?.file_name()?.to_string_lossy().into_owned()));
    suite.map_or_else(|| "The test machine".to_owned(), |suite| format!("Debian {suite}"))
}

/// The table of one release, with its heading.
fn table(cells: &BTreeMap<(usize, Kind), Cell>) -> String {
    let kinds = Kind::all();
    let mut text = format!("## {}\n\n| |", release());
    kinds.iter().for_each(|k| text += &format!(" {} {} |", k.name(), k.version()));
    text += "\n| --- |";
    kinds.iter().for_each(|_| text += " --- |");
    for (row, (name, ..)) in CASES.iter().enumerate() {
        let _ = write!(text, "\n| {name} |");
        for kind in kinds {
            let _ = match &cells[&(row, kind)] {
                Cell::Yes => write!(text, " yes |"),
                Cell::No(_) => write!(text, " no |"),
                Cell::Lacks(why) => write!(text, " – ({why}) |"),
            };
        }
    }
    text + "\n"
}

/// The page with this table in the place of the former one of the same release.
fn document(page: &str, table: &str) -> String {
    let (head, tables) = page.split_once("\n## ").expect("a page with tables");
    let mut tables: Vec<_> = tables.split("\n## ").map(|t| format!("## {}\n", t.trim_end())).collect();
    let heading = |t: &str| t.lines().next().map(str::to_owned);
    match tables.iter_mut().find(|t| heading(t) == heading(table)) {
        Some(former) => table.clone_into(former),
        None => tables.push(table.to_owned()),
    }
    format!("{}\n\n{}", head.trim_end(), tables.join("\n"))
}

/// Rows and daemons that the page in the tree promises.
fn promised(page: &str) -> BTreeSet<(usize, Kind)> {
    let mut promised = BTreeSet::new();
    let heading = format!("## {}\n", release());
    let Some((_, table)) = page.split_once(&heading) else { return promised };
    let table = table.split("\n## ").next().unwrap_or_default();
    for (row, (name, ..)) in CASES.iter().enumerate() {
        let start = format!("| {name} |");
        let Some(line) = table.lines().find_map(|l| l.strip_prefix(&start)) else { continue };
        for (kind, cell) in Kind::all().iter().zip(line.split('|')) {
            if cell.trim() == "yes" {
                promised.insert((row, *kind));
            }
        }
    }
    promised
}

/// What goes over the LAN, until the process is stopped.
fn capture(net: &Net, ns: &Ns) -> Process {
    let mut command = ns.command("tshark");
    command.args(["-q", "-i", "eth0", "-f", "tcp port 179", "-w"]).arg(net.dir().join("capture"));
    let log = net.dir().join("tshark.log");
    let process = Process::start(&mut command, &log);
    wait_for("tshark captures", 20.0, || process.printed().contains("Capturing on").then_some(()));
    process
}

/// A session with all that we know to say, read by somebody else's dissector.
#[test]
fn tshark_finds_nothing_malformed_in_what_we_send() {
    // Without RFC 8654: tshark takes a message of more than 4096 octets for an error.
    let all = Setup { add_path: true, graceful: true, capture: true, ..NONE };
    let mut lab = Lab::new(Kind::Frr, all);
    refreshed_by_them(&mut lab);
    refreshed_by_us(&mut lab);
    lab.us.cli(&["neighbor", "disable", &lab.neighbor(), "--message", "window 7"]);
    wait_for("the session is down", 5.0, || (lab.us.session(&lab.neighbor())? == "disabled").then_some(()));
    thread::sleep(Duration::from_secs(1));
    lab.capture.take().expect("a capture").stop();
    let read = |filter: &str| {
        let file = lab.net.dir().join("capture");
        let mut command = std::process::Command::new("tshark");
        command.arg("-r").arg(file).args(["-Y", &format!("ip.src == 10.1.0.1 && bgp && ({filter})")]);
        crate::common::run(&mut command)
    };
    for (kind, name) in
        [(1, "OPEN"), (2, "UPDATE"), (3, "NOTIFICATION"), (4, "KEEPALIVE"), (5, "ROUTE-REFRESH")]
    {
        assert!(
            !read(&format!("bgp.type == {kind}")).is_empty(),
            "no {name} in the capture:\n{}",
            read("bgp")
        );
    }
    let complaints = read("_ws.malformed || _ws.expert.severity >= \"Error\"");
    assert!(complaints.is_empty(), "{complaints}");
}

#[test]
fn what_is_promised_of_other_daemons_works() {
    // One daemon, or one row, alone: then the page stays as it is.
    let only = std::env::var("ROUTELET_INTEROP").unwrap_or_default();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/interop.md");
    let text = fs::read_to_string(&page).expect("docs");
    let promised = promised(&text);
    let all = (0..CASES.len()).flat_map(|row| Kind::all().map(|kind| (row, kind)));
    let wanted = |(row, kind): &(usize, Kind)| format!("{} {}", kind.name(), CASES[*row].0).contains(&only);
    // The longest first.
    let mut jobs: Vec<_> = all.filter(wanted).collect();
    jobs.sort_by_key(|(row, _)| *row);
    let (jobs, cells) = (Mutex::new(jobs), Mutex::new(BTreeMap::new()));
    thread::scope(|s| {
        for _ in 0..WORKERS {
            s.spawn(|| {
                loop {
                    let Some((row, kind)) = jobs.lock().unwrap().pop() else { return };
                    let (_, setup, seen) = CASES[row];
                    let cell = play(kind, setup, seen);
                    println!("{}, {}: {cell:?}", CASES[row].0, kind.name());
                    cells.lock().unwrap().insert((row, kind), cell);
                }
            });
        }
    });
    let mut cells = cells.into_inner().unwrap();
    // What failed among others may only have been slow: once more, alone.
    for ((row, kind), cell) in &mut cells {
        if matches!(cell, Cell::No(_)) && promised.contains(&(*row, *kind)) {
            let (_, setup, seen) = CASES[*row];
            *cell = play(*kind, setup, seen);
        }
    }
    if only.is_empty() {
        fs::write(&page, document(&text, &table(&cells))).expect("docs");
    }
    let broken: Vec<_> = promised
        .iter()
        .filter_map(|at| Some((CASES[at.0].0, at.1.name(), cells.get(at)?)))
        .filter(|(_, _, cell)| **cell != Cell::Yes)
        .collect();
    assert!(broken.is_empty(), "promised by docs/interop.md and not seen: {broken:#?}");
}
