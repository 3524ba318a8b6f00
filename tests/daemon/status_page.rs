//! The status page of a running daemon, as a reader without script gets it: with a neighbor that
//! advertises routes, one that is down, and clients that follow events. `browser.rs` has it in a
//! browser.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{
    daemons::{Bird, Routelet},
    net::{Net, Ns},
    wait_for, within,
};

/// A host with BIRD as its switch, which advertises two prefixes, and a neighbor that is down.
pub(super) struct Host {
    pub(super) ns: Ns,
    pub(super) routelet: Routelet,
    pub(super) bird: Bird,
}

impl Host {
    pub(super) fn new(net: &mut Net) -> Self {
        let (ns, switch) = (net.ns("host"), net.ns("switch"));
        net.link((&ns, "eth0"), (&switch, "port"));
        ns.ip("addr add 10.1.1.2/24 dev eth0");
        switch.ip("addr add 10.1.1.1/24 dev port");
        let bird = "router id 10.1.1.1;\nprotocol device {}\n\
             protocol static { ipv4; route 10.30.0.0/16 unreachable; route 10.31.0.0/16 unreachable; }\n\
             protocol bgp host { local 10.1.1.1 as 2000; neighbor 10.1.1.2 as 1000; hold time 9;\n\
               ipv4 { import all; export where source = RTS_STATIC; }; }\n";
        let bird = Bird::start(net, &switch, bird);
        let config = "[bgp]\nas = 1000\nrouter-id = \"10.0.0.1\"\n\
             [[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 2000\ndescription = \"<b>leaf & spine</b>\"\n\
             [[bgp.neighbor]]\naddress = \"10.1.1.3\"\nremote-as = 1000\n\
             [advertise]\nnetworks = [\"10.20.0.0/24\"]\n[metrics]\nlisten = \"127.0.0.1:9179\"\n";
        let routelet = Routelet::start(net, &ns, config, &[]);
        routelet.wait_established("10.1.1.1");
        wait_for("routes of the switch in the kernel", 20.0, || {
            (ns.ip("route show proto 179").matches("via 10.1.1.1").count() == 2).then_some(())
        });
        Self { ns, routelet, bird }
    }
}

fn request(host: &Ns, path: &str, header: &str) -> TcpStream {
    host.enter(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9179").expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9179\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    })
}

/// Status line and headers in lower case, and the body.
fn get(host: &Ns, path: &str) -> (String, String) {
    let mut text = String::new();
    let _ = request(host, path, "").read_to_string(&mut text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {text}"));
    (head.to_lowercase(), body.to_owned())
}

/// A client that follows events.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn new(host: &Ns, path: &str, header: &str) -> Self {
        let mut stream = BufReader::new(request(host, path, header));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).expect("the response in time"), 0, "{head}");
        }
        let head = head.to_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains("text/event-stream"), "{head}");
        Self(stream)
    }

    /// The next event; comments are skipped.
    fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).expect("an event in time"), 0, "the stream ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("each is a line of JSON");
            }
        }
    }
}

/// The number of the page's last event.
fn last_event(page: &str) -> u64 {
    let number = page.split("data-after=\"").nth(1).and_then(|rest| rest.split('"').next());
    number.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no number in {page}"))
}

#[test]
fn the_page_shows_the_node_and_finds_routes_without_script() {
    let mut net = Net::new();
    let host = Host::new(&mut net);
    let (head, page) = get(&host.ns, "/");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/html"), "{head}");
    for header in ["content-security-policy: default-src 'none'", "x-frame-options: deny", "nosniff"] {
        assert!(head.contains(header), "no {header} in {head}");
    }
    for part in [
        "10.1.1.1, AS 2000, established, &lt;b&gt;leaf &amp; spine&lt;/b&gt;",
        "10.1.1.3, AS 1000, ",
        "<dt>AS number</dt><dd>1000</dd>",
        "<dt>Router id</dt><dd>10.0.0.1</dd>",
        "<th scope=\"row\">10.20.0.0/24</th>",
        "<th scope=\"row\">10.30.0.0/16</th><td>10.1.1.1</td><td>10.1.1.1</td><td>2000</td><td>best</td><td>yes</td>",
        "<dt>Routes of routelet in the kernel</dt><dd>3</dd>",
        "The kernel has and uses all routes that it should have.",
        "</html>",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    let rows = |search: &str| {
        let (_, page) = get(&host.ns, &format!("/?q={search}"));
        let (_, routes) = page.split_once("id=\"routes\"").expect("the section");
        routes.split("</section>").next().unwrap().matches("<tr><th scope=\"row\">").count()
    };
    for (search, found) in [
        ("10.20.0.7", 1),
        ("10.31.255.255", 1),
        ("10.0.0.0%2F8", 3),
        ("10.20.0.0%2f24", 1),
        ("10.21.0.0%2F24", 0),
        ("192.0.2.1", 0),
    ] {
        assert_eq!(rows(search), found, "{search}");
    }
    let (head, page) = get(&host.ns, "/?q=%3Cscript%3Ealert(1)%3C/script%3E");
    assert!(head.starts_with("http/1.1 200") && page.contains("write a prefix as"), "{page}");
    assert!(page.contains("&lt;script&gt;alert") && !page.contains("<script>"), "{page}");
    let series = wait_for("the first sample of the trends", 60.0, || {
        let (_, page) = get(&host.ns, "/");
        page.contains("<polyline").then_some(page.matches("<polyline").count())
    });
    assert_eq!(series, 3);
}

#[test]
fn what_the_kernel_lacks_is_on_the_page() {
    let mut net = Net::new();
    let host = Host::new(&mut net);
    host.bird.birdc("disable host");
    let page = wait_for("the session is down on the page", 30.0, || {
        let (_, page) = get(&host.ns, "/");
        page.contains("NeighborDown (neighbor 10.1.1.1)").then_some(page)
    });
    assert!(page.contains("0 of 2 established") && page.contains("Remedy: "), "{page}");
    assert!(!page.contains("10.30.0.0/16</th>"), "{page}");
}

#[test]
fn events_arrive_as_they_happen_and_a_stream_goes_on_after_the_last_one() {
    let mut net = Net::new();
    let host = Host::new(&mut net);
    let after = last_event(&get(&host.ns, "/").1);
    let mut follower = Follower::new(&host.ns, &format!("/events?after={after}"), "");
    let mut news = Follower::new(&host.ns, "/events", "");
    host.routelet.cli(&["drain"]);
    let drained = |event: &Value| event["text"].as_str().is_some_and(|text| text.contains("drain"));
    let mut numbers = vec![after];
    loop {
        let event = follower.next();
        numbers.push(event["number"].as_u64().expect("a number"));
        if drained(&event) {
            break;
        }
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "each once, in order: {numbers:?}");
    while !drained(&news.next()) {}
    // The header that a browser sends when it connects again counts more than the address.
    let last = numbers.pop().unwrap() - 1;
    let header = format!("Last-Event-ID: {last}\r\n");
    let mut again = Follower::new(&host.ns, "/events?after=0", &header);
    assert_eq!(again.next()["number"], last + 1);
}

#[test]
fn without_the_page_metrics_and_probes_stay() {
    let mut net = Net::new();
    let ns = net.ns("host");
    let config = "[bgp]\nas = 1000\nrouter-id = \"10.0.0.1\"\n\
         [metrics]\nlisten = \"127.0.0.1:9179\"\nstatus-page = PAGE\n";
    let routelet = Routelet::start(&net, &ns, &config.replace("PAGE", "false"), &[]);
    let status = |path: &str| get_status(&ns, path).split(' ').nth(1).map(str::to_owned);
    for (path, expected) in [("/", "404"), ("/events", "404"), ("/livez", "200"), ("/metrics", "200")] {
        assert_eq!(status(path).as_deref(), Some(expected), "{path}");
    }
    routelet.configure(&config.replace("PAGE", "true"));
    routelet.cli(&["reload"]);
    wait_for("the page after a reload", 10.0, || (status("/").as_deref() == Some("200")).then_some(()));
}

#[test]
fn browsers_that_follow_events_take_no_place_of_probes_and_scrapes() {
    let mut net = Net::new();
    let host = Host::new(&mut net);
    let held: Vec<_> = (0..40).map(|_| request(&host.ns, "/events", "")).collect();
    wait_for("all places of streams are taken", 10.0, || {
        get_status(&host.ns, "/events").starts_with("http/1.1 503").then_some(())
    });
    within("a probe, a scrape and a page beside them", Duration::from_secs(1), || {
        let start = Instant::now();
        for path in ["/livez", "/metrics", "/"] {
            let (head, _) = get(&host.ns, path);
            assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        }
        start.elapsed()
    });
    drop(held);
    wait_for("a place is free again", 30.0, || {
        get_status(&host.ns, "/events").starts_with("http/1.1 200").then_some(())
    });
}

/// The status line alone: the body may go on.
fn get_status(host: &Ns, path: &str) -> String {
    let mut line = String::new();
    BufReader::new(request(host, path, "")).read_line(&mut line).expect("a response");
    line.to_lowercase()
}
