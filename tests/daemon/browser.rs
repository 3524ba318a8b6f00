//! The status page in a real browser: how it looks, what a keyboard and a screen reader find, and
//! that it follows the daemon. `ROUTELET_WRITE=1 cargo test --test daemon browser` writes the
//! pictures and the outline anew.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use routelet::{
    control::{
        Event, EventKind, NeighborTotals, NeighborView, OwnPrefix, RouteTotals, RouteView, SessionState,
        Summary,
        io::http::{self, Page, Reply},
        page::{self, Kernel, Routes, Status, trends::Trends},
    },
    net::{Diagnostic, Family, Reason, Subject},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::status_page::Host;
use crate::common::{
    browser::Browser,
    net::{Net, Ns},
    run, wait_for,
};

const ADDRESS: &str = "127.0.0.1:9179";

fn url(path: &str) -> String {
    format!("http://{ADDRESS}/{path}")
}

/// A page that is always the same, served as the daemon's.
fn fixed_page() -> String {
    let neighbor = |address: &str, state, routes, description: &str| NeighborView {
        address: address.into(),
        interface: Some(if address.starts_with("10.1.1") { "eth0" } else { "eth1" }.into()),
        remote_as: "65001".parse().ok(),
        state,
        since: "2026-11-30T20:00:00Z".into(),
        received: [(Family::Ipv4Unicast, routes)].into(),
        accepted: [(Family::Ipv4Unicast, routes)].into(),
        advertised: [(Family::Ipv4Unicast, 2)].into(),
        description: Some(description.into()),
        ..NeighborView::default()
    };
    let down = NeighborView {
        last_error: Some("hold timer expired: nothing received for 90 s".into()),
        ..neighbor("10.1.2.1", SessionState::Active, 0, "leaf 2")
    };
    let neighbors = [neighbor("10.1.1.1", SessionState::Established, 120, "leaf 1"), down];
    let own = |prefix: &str, to: &[&str], reason: Option<&str>| OwnPrefix {
        prefix: prefix.parse().expect("a prefix"),
        source: "interface".into(),
        interface: Some("docker0".into()),
        neighbors: to.len() as u64,
        advertised_to: to.iter().map(|&address| address.into()).collect(),
        reason: reason.map(Into::into),
    };
    let route = |prefix: &str, path: &[u32], best: bool, reason: &str| -> RouteView {
        let view = json!({
            "prefix": prefix, "neighbor": "10.1.1.1", "source": "bgp", "next_hop": "10.1.1.1", "best": best,
            "multipath": false, "stale": false, "installed": best, "origin": "igp", "as_path": path,
            "communities": [], "large_communities": [], "ext_communities": [], "reason": reason, "age": 60
        });
        serde_json::from_value(view).expect("a path")
    };
    let rows = [
        route("10.30.0.0/16", &[65001, 65100], true, "only usable path"),
        route("10.31.0.0/16", &[65001, 65100, 65200], true, "AS path is shorter"),
        route("2001:db8:30::/48", &[65001], false, "next hop is not reachable"),
    ];
    let summary = Summary {
        node: "node7.example.com".into(),
        version: "1.2.3".into(),
        asn: "65007".parse().ok(),
        router_id: "10.1.1.2".parse().ok(),
        addresses: vec!["10.1.1.2".parse().expect("an address")],
        started: "2026-11-30T18:00:00Z".into(),
        modes: vec!["standalone".into(), "fib (table main)".into()],
        ready: true,
        neighbors: NeighborTotals { configured: 2, up: 1, disabled: 0 },
        routes: RouteTotals { received: 120, installed: 120, advertised: 1, originated: 2 },
        own: vec![
            own("172.18.0.0/16", &[], Some("no carrier: no container is attached")),
            own("172.17.0.0/16", &["10.1.1.1"], None),
        ],
        own_prefixes: 2,
        diagnostics: vec![
            Diagnostic::new(
                Reason::NeighborDown,
                Subject::neighbor("10.1.2.1"),
                "neighbor 10.1.2.1 has no session: hold timer expired",
                "see that eth1 has a carrier and that the switch is up",
            ),
            Diagnostic::new(
                Reason::RouteShadowed,
                Subject::host(),
                "a static route to 10.30.0.0/16 has a better metric",
                "remove it: ip route del 10.30.0.0/16",
            ),
        ],
        ..Summary::default()
    };
    let event = |number, at: &str, kind, subject: &str, text: &str| Event {
        number,
        at: at.into(),
        kind,
        subject: subject.into(),
        text: text.into(),
    };
    let events = [
        event(1, "2026-11-30T18:00:01Z", EventKind::Session, "10.1.1.1", "established, families 1"),
        event(
            2,
            "2026-11-30T20:00:00Z",
            EventKind::Session,
            "10.1.2.1",
            "session closed, reason hold timer expired",
        ),
    ];
    let wave = |scale: f64| (0..80).map(|n| scale * (1.0 + (f64::from(n) / 6.0).sin())).collect();
    page::render(&Status {
        now: "2026-11-30T21:00:00Z".parse::<Timestamp>().expect("a time"),
        summary: &summary,
        neighbors: &neighbors,
        routes: Routes { search: "10.0.0.0/8", rows: &rows, has_more: true, error: None },
        kernel: Kernel { installs: true, prefixes: 122, routes: 122, refused: 0, repairs: 3 },
        trends: &Trends { messages: wave(20.0), convergence: wave(1.5), operations: wave(0.0) },
        events: &events,
    })
}

/// The listener of the daemon, with the fixed page.
fn serve_fixed_page(ns: &Ns) -> Runtime {
    let runtime = Runtime::new().expect("a runtime");
    let (listeners, taken) =
        ns.enter(|| runtime.block_on(http::bind(&[ADDRESS.parse().expect("an address")])));
    assert!(taken.is_empty(), "{taken:?}");
    runtime.spawn(http::serve(listeners, |page| async move {
        match page {
            Page::Events { .. } => Reply::Stream(stream::pending().boxed()),
            _ => Reply::Text { ok: true, text: fixed_page() },
        }
    }));
    runtime
}

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/pictures").join(name)
}

fn is_written_anew() -> bool {
    env::var_os("ROUTELET_WRITE").is_some()
}

/// Share of blocks that may differ from the kept picture.
const MAX_DIFFERENCE: f64 = 0.01;

/// Share of blocks of 16 × 16 pixels whose mean color differs; 1 for pictures of different sizes.
/// Smoothing of letters and a line that is moved by a pixel change a block's mean only slightly.
const COMPARE: &str = r#"(async (one, other) => {
  const SIDE = 16, DIFFERENCE = 20;
  const pixels = async (base64) => {
    const octets = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const image = await createImageBitmap(new Blob([octets], { type: "image/webp" }));
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height);
  };
  const [a, b] = [await pixels(one), await pixels(other)];
  if (a.width !== b.width || a.height !== b.height) return 1;
  const mean = (image, x, y) => {
    const sum = [0, 0, 0];
    for (let row = y; row < y + SIDE; row++)
      for (let column = x; column < x + SIDE; column++)
        for (let c = 0; c < 3; c++) sum[c] += image.data[(row * image.width + column) * 4 + c];
    return sum.map((value) => value / (SIDE * SIDE));
  };
  let blocks = 0, differing = 0;
  for (let y = 0; y + SIDE <= a.height; y += SIDE)
    for (let x = 0; x + SIDE <= a.width; x += SIDE) {
      const [p, q] = [mean(a, x, y), mean(b, x, y)];
      blocks += 1;
      if (p.some((value, c) => Math.abs(value - q[c]) > DIFFERENCE)) differing += 1;
    }
  return differing / blocks;
})"#;

fn difference(browser: &Browser, one: &str, other: &str) -> f64 {
    browser.evaluate(&format!("{COMPARE}({}, {})", json!(one), json!(other))).as_f64().expect("a share")
}

/// The kept picture of this name, in base64; written where that is requested.
fn kept_picture(net: &Net, name: &str, shot: &str) -> String {
    let path = kept(&format!("{name}.webp"));
    if is_written_anew() {
        let text = net.dir().join(name);
        fs::write(&text, shot).expect("a writable folder");
        let picture =
            Command::new("base64").arg("-d").arg(&text).output().expect("base64 of coreutils").stdout;
        fs::write(&path, picture).expect("a writable tree");
    }
    run(Command::new("base64").args(["-w", "0"]).arg(&path))
}

/// Elements whose text has less contrast to its background than WCAG 2.2 AA requires (§1.4.3).
const LOW_CONTRAST: &str = r#"(() => {
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = numbers(color).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    while (element.parentElement && numbers(getComputedStyle(element).backgroundColor)[3] === 0)
      element = element.parentElement;
    return getComputedStyle(element).backgroundColor;
  };
  const hasText = (element) => [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.body.querySelectorAll("*")].filter(hasText).filter((element) => {
    const pair = [luminance(getComputedStyle(element).color), luminance(background(element))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05) < 4.5;
  }).map((element) => element.outerHTML);
})()"#;

#[test]
fn the_page_looks_like_its_pictures_and_its_text_has_contrast() {
    let mut net = Net::new();
    let ns = net.ns("host");
    let _server = serve_fixed_page(&ns);
    let browser = Browser::start(&net, &ns);
    let mut shots = Vec::new();
    for (name, width, height, scheme) in
        [("light", 1000, 2200, "light"), ("dark", 1000, 2200, "dark"), ("narrow", 320, 3300, "light")]
    {
        browser.set_window(width, height, scheme);
        browser.open(&url(""));
        assert_eq!(
            browser.evaluate("document.documentElement.scrollWidth"),
            width,
            "{name}: scrolls sideways"
        );
        assert_eq!(browser.evaluate(LOW_CONTRAST), json!([]), "{name}");
        shots.push((name, browser.screenshot()));
        assert_eq!(Browser::errors(&browser.events()), [""; 0], "{name}");
    }
    browser.open("about:blank");
    for (name, shot) in &shots {
        let share = difference(&browser, shot, &kept_picture(&net, name, shot));
        println!("{name}: {share:.4} of all blocks differ");
        if share > MAX_DIFFERENCE {
            let path = env::temp_dir().join(format!("routelet-status-{name}.base64"));
            fs::write(&path, shot).expect("a writable folder");
            panic!(
                "{name}: {share:.4} of all blocks differ from tests/daemon/pictures/; see {}",
                path.display()
            );
        }
    }
    assert!(difference(&browser, &shots[0].1, &shots[1].1) > 0.9, "light and dark differ");
}

/// Roles that a screen reader lists or jumps to.
const ROLES: [&str; 15] = [
    "banner",
    "navigation",
    "main",
    "region",
    "search",
    "heading",
    "table",
    "columnheader",
    "rowheader",
    "image",
    "textbox",
    "button",
    "link",
    "status",
    "figure",
];

/// What a screen reader finds in its order, a line for each element.
fn outline(browser: &Browser) -> String {
    let tree = browser.command("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().expect("nodes");
    let by_id: BTreeMap<_, _> =
        nodes.iter().filter_map(|node| Some((node["nodeId"].as_str()?, node))).collect();
    let (mut lines, mut next) = (String::new(), vec![(0, &nodes[0])]);
    while let Some((depth, node)) = next.pop() {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let is_shown = node["ignored"] != true && ROLES.contains(&role);
        if is_shown {
            let name = node["name"]["value"].as_str().unwrap_or_default();
            lines.push_str(format!("{}{role}: {name}", "  ".repeat(depth)).trim_end());
            lines.push('\n');
        }
        let children = node["childIds"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let children =
            children.filter_map(|id| by_id.get(id)).map(|child| (depth + usize::from(is_shown), *child));
        next.extend(children.rev());
    }
    lines
}

#[test]
fn a_screen_reader_finds_landmarks_headings_and_tables() {
    let mut net = Net::new();
    let ns = net.ns("host");
    let _server = serve_fixed_page(&ns);
    let browser = Browser::start(&net, &ns);
    browser.open(&url(""));
    let (outline, path) = (outline(&browser), kept("outline.txt"));
    if is_written_anew() {
        fs::write(&path, &outline).expect("a writable tree");
    }
    let expected = fs::read_to_string(&path).expect("the kept outline");
    assert_eq!(outline, expected, "left: the page, right: {}", path.display());
}

/// Which element has the focus, and whether that can be seen.
const FOCUS: &str = r#"(() => {
  const element = document.activeElement, style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  const isVisible = style.outlineStyle !== "none" && box.width > 0 && box.right > 0;
  return [element.id || element.textContent.slice(0, 40) || element.tagName, isVisible];
})()"#;

#[test]
fn a_keyboard_reaches_the_search_and_uses_it() {
    let mut net = Net::new();
    let host = Host::new(&mut net);
    let browser = Browser::start(&net, &host.ns);
    browser.open(&url(""));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|name| name != "q") {
        assert!(seen.len() < 30, "no search among {seen:?}");
        browser.press("Tab", 9, "");
        let focus = browser.evaluate(FOCUS);
        assert_eq!(focus[1], true, "the focus cannot be seen at {}", focus[0]);
        seen.push(focus[0].as_str().expect("a name").to_owned());
    }
    assert_eq!(seen[..2], ["Skip to content", "pause"], "{seen:?}");
    browser.command("Input.insertText", json!({ "text": "10.31.9.9" }));
    browser.press("Enter", 13, "\r");
    browser.wait_loaded();
    assert_eq!(browser.evaluate("location.search"), "?q=10.31.9.9");
    let found = "[...document.querySelectorAll('#live-routes tbody th')].map((th) => th.textContent)";
    assert_eq!(browser.evaluate(found), json!(["10.31.0.0/16"]));
    assert_eq!(browser.evaluate("document.getElementById('q').value"), "10.31.9.9");
    assert_eq!(Browser::errors(&browser.events()), [""; 0]);
}

#[test]
fn the_page_is_whole_without_script() {
    let mut net = Net::new();
    let host = Host::new(&mut net);
    let browser = Browser::start(&net, &host.ns);
    browser.command("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.open(&url(""));
    let captions = "[...document.querySelectorAll('caption')].map((c) => c.textContent)";
    let expected = [
        "Sessions, those that are down first",
        "Prefixes of this node, those that are advertised to nobody first",
        "Paths",
        "Events, the latest first",
    ];
    assert_eq!(browser.evaluate(captions), json!(expected));
    let rows = "[...document.querySelectorAll('table')].map((t) => t.tBodies[0].rows.length > 0)";
    assert_eq!(browser.evaluate(rows), json!([true, true, true, true]));
    assert_eq!(browser.evaluate("document.getElementById('pause').checkVisibility()"), false);
    let state = "document.getElementById('state').textContent";
    assert_eq!(browser.evaluate(state), "Reload the page for the present state.");
    assert_eq!(Browser::errors(&browser.events()), [""; 0]);
}

#[test]
fn the_page_follows_the_daemon_and_pauses() {
    let mut net = Net::new();
    let mut host = Host::new(&mut net);
    let browser = Browser::start(&net, &host.ns);
    browser.open(&url(""));
    let is_true = |what: &str, expression: &str| {
        wait_for(what, 60.0, || (browser.evaluate(expression) == true).then_some(()));
    };
    is_true("the session on the page", "/10.1.1.1, AS 2000, established/.test(document.body.textContent)");
    // What is typed stays.
    browser.evaluate("document.getElementById('q').focus()");
    browser.command("Input.insertText", json!({ "text": "10.9" }));
    host.bird.birdc("disable host");
    is_true(
        "its end among the events",
        "/10.1.1.1/.test(document.querySelector('#event-table tr:has(td)').textContent)",
    );
    is_true("its state in the tree", "!/10.1.1.1, AS 2000, established/.test(document.body.textContent)");
    assert_eq!(browser.evaluate("document.getElementById('q').value"), "10.9");
    assert_eq!(browser.evaluate("document.activeElement.id"), "q");
    assert_eq!(Browser::errors(&browser.events()), [""; 0]);

    // A daemon that is gone is noticed, and so is its return.
    host.routelet.process.stop();
    is_true("no response", "/does not respond/.test(document.getElementById('state').textContent)");
    host.routelet.restart();
    is_true("a response again", "!document.body.classList.contains('stale')");
    is_true("a stream again", "source !== null && source.readyState === EventSource.OPEN");

    browser.evaluate("document.getElementById('pause').focus()");
    browser.press(" ", 32, " ");
    assert_eq!(browser.evaluate("document.getElementById('pause').textContent"), "Resume updates");
    assert_eq!(browser.evaluate("source === null && timer === null"), true);
    browser.press(" ", 32, " ");
    is_true("the stream after the pause", "source !== null && source.readyState === EventSource.OPEN");
}
