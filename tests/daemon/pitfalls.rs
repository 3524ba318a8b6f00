//! Pitfalls seen in the code of kube-router (`docs/troubles.md`), on one host.

use std::{
    fs,
    net::Ipv4Addr,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    common::{
        daemons::Routelet,
        net::{Net, Ns},
        speaker::{Speaker, attributes, end_of_rib, open, update},
        wait_for,
    },
    kernel::{CONFIG, HOST, SWITCH, host_and_switch, learn, net24, ours},
};

/// A next hop outside of the subnet is no silence: it has a reason, and is found over other routes.
#[test]
fn kube_router_a_next_hop_outside_the_subnet_is_named_and_resolved_over_other_routes() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let config = CONFIG.replace("remote-as = 10000\n", "remote-as = 10000\nmultihop = 3\n");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    let far = Ipv4Addr::new(192, 0, 2, 9);
    speaker.send(&update(&[], &attributes(&[10000], far, 0), &[net24(1)]));
    speaker.send(&end_of_rib());
    let reason = || {
        let path = routelet.json(&["show", "routes", "10.60.1.0/24"])[0].clone();
        path["reason"].as_str().unwrap_or_default().to_owned()
    };
    wait_for("the reason", 30.0, || reason().contains("next hop only by the default route").then_some(()));
    assert!(!ours(&host).contains("10.60.1.0/24"));
    host.ip("route add 192.0.2.0/24 via 10.1.1.1");
    wait_for("resolved", 30.0, || {
        host.ip("route show 10.60.1.0/24 proto 179").contains("via 10.1.1.1").then_some(())
    });
    host.ip("route del 192.0.2.0/24");
    wait_for("unresolved again", 30.0, || (!ours(&host).contains("10.60.1.0/24")).then_some(()));
    assert!(reason().contains("next hop"), "{}", reason());
}

/// The flags of the graceful restart capability (64) in an OPEN.
fn restart_flags(body: &[u8]) -> u8 {
    let mut params = &body[10..];
    while let [2, len, rest @ ..] = params {
        let (mut caps, next) = rest.split_at(usize::from(*len));
        while let [code, len, value @ ..] = caps {
            if *code == 64 {
                return value[0] >> 4;
            }
            caps = &value[usize::from(*len)..];
        }
        params = next;
    }
    panic!("no graceful restart capability in {body:?}");
}

/// The restart bit of RFC 4724 §3 says that routes were kept: after a first start there are none.
#[test]
fn kube_router_the_restart_bit_is_set_after_a_real_restart_only() {
    const RESTART: u8 = 8;
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let meet = || {
        let mut speaker = Speaker::dial(&switch, HOST).unwrap();
        speaker.send(&open(10000, 90, SWITCH));
        let (_, body) = speaker.expect(1, 30.0);
        speaker.send(&crate::common::speaker::message(4, &[]));
        speaker.expect(4, 30.0);
        (speaker, restart_flags(&body) & RESTART != 0)
    };
    let (mut speaker, restarted) = meet();
    assert!(!restarted, "a first start");
    learn(&mut speaker, &[net24(1)]);
    wait_for("the route", 30.0, || ours(&host).contains("10.60.1.0/24").then_some(()));
    routelet.process.kill();
    drop(speaker);
    routelet.restart();
    let (mut speaker, restarted) = meet();
    assert!(restarted, "a restart");
    learn(&mut speaker, &[net24(1)]);
    // Once the neighbors have spoken the restart is over.
    wait_for("the bit is taken back", 60.0, || {
        speaker = {
            speaker.stream.shutdown(std::net::Shutdown::Both).ok()?;
            let (again, restarted) = meet();
            if !restarted {
                return Some(());
            }
            again
        };
        learn(&mut speaker, &[net24(1)]);
        sleep(Duration::from_secs(6));
        None
    });
}

fn status(host: &Ns, page: &str) -> String {
    host.sh(&format!(
        "curl -s -o /dev/null --max-time 20 -w '%{{http_code}}' http://127.0.0.1:9179{page} || true"
    ))
}

/// kube-router#739, PR#2162: an API server that is away, a folder that cannot be written and neighbors that do not answer
/// are no reason to be killed.
#[test]
fn kube_router_liveness_hangs_on_nothing_but_the_loop() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switch(&mut net);
    let kubeconfig = net.dir().join("kubeconfig");
    fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"https://10.1.1.1:6443\"}}]\n\
         users: [{name: u, user: {token: t}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\n",
    )
    .unwrap();
    let in_the_way = net.dir().join("net.d");
    fs::write(&in_the_way, "a file where a folder should be").unwrap();
    let config = format!(
        "{CONFIG}[cni]\nconf-dir = \"{}\"\n[metrics]\nlisten = \"127.0.0.1:9179\"\n",
        in_the_way.display()
    );
    let options = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--node-name", "n1"];
    let mut routelet = Routelet::start(&net, &host, &config, &options);
    let end = Instant::now() + Duration::from_secs(15);
    while Instant::now() < end {
        assert_eq!(status(&host, "/livez"), "200");
        assert_eq!(status(&host, "/startupz"), "200");
        assert_eq!(status(&host, "/readyz"), "503", "a node without a network is not ready");
        sleep(Duration::from_millis(300));
    }
    assert!(routelet.process.alive());
    let shown = routelet.json(&["show", "node"]);
    assert_eq!(shown["api"]["connected"], false);
    assert!(shown["api"]["last_error"].as_str().is_some_and(|e| !e.is_empty()), "{shown}");
}

/// Fixed there by f741fe42: passwords stood in the log, the arguments and an annotation.
#[test]
fn kube_router_a_password_is_nowhere_to_be_read() {
    const PASSWORDS: [&str; 2] = ["hush-in-the-file", "hush-beside-it"];
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let beside = net.dir().join("password");
    fs::write(&beside, PASSWORDS[1]).unwrap();
    let more = format!(
        "[[bgp.neighbor]]\naddress = \"10.1.1.9\"\nremote-as = 1\nmultihop = 2\npassword-file = \"{}\"\n",
        beside.display()
    );
    let config = CONFIG
        .replace("remote-as = 10000\n", &format!("remote-as = 10000\npassword = \"{}\"\n", PASSWORDS[0]))
        + &more
        + "[metrics]\nlisten = \"127.0.0.1:9179\"\n";
    let routelet = Routelet::start(&net, &host, &config, &["--log-level", "trace"]);
    // Attempts that fail are what is talked about most.
    let _ = switch
        .enter(|| std::net::TcpStream::connect_timeout(&(HOST, 179).into(), Duration::from_millis(300)));
    wait_for("an attempt", 30.0, || {
        let one = routelet.json(&["show", "neighbor", "10.1.1.1"]);
        one["last_error"].as_str().is_some_and(|e| !e.is_empty()).then_some(())
    });
    routelet.cli(&["reload"]);
    let mut said = vec![("the log", routelet.process.printed())];
    for page in [
        &["show", "config"][..],
        &["show", "neighbors"],
        &["show", "neighbor", "10.1.1.9"],
        &["show", "events"],
        &["show", "summary"],
    ] {
        said.push(("a view", routelet.cli(page)));
        said.push(("a view", routelet.json(page).to_string()));
    }
    said.push(("metrics", host.sh("curl -s http://127.0.0.1:9179/metrics")));
    let proc = format!("/proc/{}", routelet.process.pid());
    for file in ["cmdline", "environ"] {
        said.push((file, String::from_utf8_lossy(&fs::read(format!("{proc}/{file}")).unwrap()).into_owned()));
    }
    assert!(said.iter().any(|(_, text)| text.contains("10.1.1.9")));
    for (what, text) in said {
        for password in PASSWORDS {
            assert!(!text.contains(password), "{what}: {text}");
        }
    }
}

/// Its gRPC port was open to the whole cluster: here are BGP, and pages on the loopback.
#[test]
fn kube_router_no_port_is_open_but_bgp_and_the_loopback() {
    let mut net = Net::new();
    let (_switch, host) = host_and_switch(&mut net);
    let config = format!("{CONFIG}[metrics]\nlisten = \"127.0.0.1:9179\"\n");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    let open = || -> Vec<String> {
        let shown = host.sh("ss -Hltn; ss -Hlun; ss -Hlwn");
        shown
            .lines()
            .filter_map(|l| Some(l.split_whitespace().find(|w| w.contains(':'))?.to_owned()))
            .collect()
    };
    wait_for("BGP listens", 30.0, || open().iter().any(|a| a.ends_with(":179")).then_some(()));
    let mut all = open();
    all.sort();
    assert_eq!(all, ["0.0.0.0:179", "127.0.0.1:9179", "[::]:179"]);
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(routelet.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

/// Its hold time was for neighbors outside only.
#[test]
fn kube_router_the_hold_time_is_each_neighbors_own() {
    let mut net = Net::new();
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    host.ip("addr add 10.1.1.254/24 dev eth0");
    let cases = [
        (1, "external", "hold-time = 9\n", 9),
        (2, "internal", "hold-time = 12\n", 12),
        (3, "internal", "", 33),
    ];
    let mut config = "[bgp]\nas = 1000\nhold-time = 33\n".to_owned();
    for (n, remote, hold, _) in cases {
        switch.ip(&format!("addr add 10.1.1.{n}/24 dev eth0"));
        config += &format!(
            "[[bgp.neighbor]]\naddress = \"10.1.1.{n}\"\nremote-as = \"{remote}\"\npassive = true\n{hold}"
        );
    }
    let routelet = Routelet::start(&net, &host, &config, &[]);
    for (n, remote, _, want) in cases {
        let at = Ipv4Addr::new(10, 1, 1, n);
        let asn = if remote == "internal" { 1000 } else { 10000 };
        let mut speaker =
            Speaker::dial_from(&switch, at.into(), Ipv4Addr::new(10, 1, 1, 254).into()).unwrap();
        speaker.send(&open(asn, 90, at));
        let (_, body) = speaker.expect(1, 30.0);
        assert_eq!(u16::from_be_bytes([body[3], body[4]]), want, "{at}");
        speaker.send(&crate::common::speaker::message(4, &[]));
        routelet.wait_established(&at.to_string());
        let shown = routelet.json(&["show", "neighbor", &at.to_string()]);
        assert_eq!(shown["hold_time"], want, "{shown}");
    }
}
