//! TCP MD5 (RFC 2385) with link-local neighbors, whose address alone says nothing of the link; and whose password is at
//! fault where a signature is wrong.

use serde_json::Value;

use crate::common::{
    daemons::{Bird, Routelet},
    net::{Net, Ns},
    wait_for,
};

/// Two hosts and a link each; the only link-local address of an end is the one given.
fn pair(net: &mut Net, names: (&str, &str), links: &[(&str, &str, &str)]) -> (Ns, Ns) {
    let (one, two) = (net.ns(names.0), net.ns(names.1));
    for (interface, first, second) in links {
        net.link((&one, interface), (&two, interface));
        for (ns, address) in [(&one, first), (&two, second)] {
            ns.ip(&format!("-6 addr flush dev {interface} scope link"));
            ns.ip(&format!("addr add {address}/64 dev {interface} nodad"));
        }
    }
    (one, two)
}

fn speaker(asn: u32, neighbors: &str) -> String {
    format!("[bgp]\nas = {asn}\nrouter-id = \"10.0.0.{}\"\nconnect-retry-time = 1\n{neighbors}", asn % 256)
}

fn neighbor(address: &str, keys: &str) -> String {
    format!("[[bgp.neighbor]]\naddress = \"{address}\"\nremote-as = \"external\"\n{keys}\n")
}

fn printed(routelet: &Routelet) -> String {
    std::fs::read_to_string(routelet.dir.join("log")).unwrap_or_default()
}

/// Dialled and called, alone and with TTL security.
#[test]
fn link_local_neighbors_with_a_password_have_sessions() {
    for (n, ttl) in ["", "ttl-security = 1\n"].into_iter().enumerate() {
        for (m, (here, there)) in [("", "passive = true\n"), ("passive = true\n", "")].into_iter().enumerate()
        {
            let mut net = Net::new();
            let (one, two) = pair(
                &mut net,
                (&format!("one{n}{m}"), &format!("two{n}{m}")),
                &[("eth0", "fe80::1", "fe80::2")],
            );
            let password = format!("password = \"sesame\"\n{ttl}");
            let first = speaker(65001, &neighbor("fe80::2%eth0", &format!("{password}{here}")));
            let second = speaker(65002, &neighbor("fe80::1%eth0", &format!("{password}{there}")));
            let first = Routelet::start(&net, &one, &first, &[]);
            let second = Routelet::start(&net, &two, &second, &[]);
            first.wait_established("fe80::2%eth0");
            second.wait_established("fe80::1%eth0");
            for routelet in [&first, &second] {
                assert!(!printed(routelet).contains("takes no TCP MD5"), "{}", printed(routelet));
            }
        }
    }
}

/// A wrong password is no session, and a change of it at both ends is one.
#[test]
fn a_wrong_password_of_a_link_local_neighbor_keeps_it_out() {
    let mut net = Net::new();
    let (one, two) = pair(&mut net, ("one", "two"), &[("eth0", "fe80::1", "fe80::2")]);
    let of = |word: &str| neighbor("fe80::2%eth0", &format!("password = \"{word}\""));
    let first = Routelet::start(&net, &one, &speaker(65001, &of("wrong")), &[]);
    let second = speaker(65002, &neighbor("fe80::1%eth0", "password = \"right\""));
    let second = Routelet::start(&net, &two, &second, &[]);
    wait_for("a named suspicion", 30.0, || {
        let error = first.json(&["show", "neighbors"])[0]["last_error"].to_string();
        error.contains("compare `password`").then_some(())
    });
    assert_ne!(second.session("fe80::1%eth0").as_deref(), Some("established"));
    first.configure(&speaker(65001, &of("right")));
    first.cli(&["reload"]);
    first.wait_established("fe80::2%eth0");
    second.wait_established("fe80::1%eth0");
}

/// BIRD signs, and dials or waits.
#[test]
fn bird_signs_between_link_local_addresses() {
    for (n, (here, there)) in [("", "passive on;"), ("passive = true", "")].into_iter().enumerate() {
        let mut net = Net::new();
        let (one, two) =
            pair(&mut net, (&format!("host{n}"), &format!("leaf{n}")), &[("eth0", "fe80::1", "fe80::2")]);
        let bird = format!(
            "router id 10.0.0.2; protocol device {{}} protocol bgp {{ local fe80::2 as 65002; \
             neighbor fe80::1%eth0 as 65001; password \"sesame\"; connect retry time 2; {there} \
             ipv6 {{ import all; export all; }}; }}"
        );
        let _bird = Bird::start(&net, &two, &bird);
        let config = speaker(65001, &neighbor("fe80::2%eth0", &format!("password = \"sesame\"\n{here}")));
        let routelet = Routelet::start(&net, &one, &config, &[]);
        routelet.wait_established("fe80::2%eth0");
    }
}

/// Two routers that both are fe80::2, with passwords of their own, and a third without: the links tell them apart.
#[test]
fn one_link_local_address_on_several_links_has_a_password_on_each() {
    for (n, (here, there)) in [("passive = true\n", ""), ("", "passive = true\n")].into_iter().enumerate() {
        let mut net = Net::new();
        let links =
            [("eth0", "fe80::1", "fe80::2"), ("eth1", "fe80::1", "fe80::2"), ("eth2", "fe80::1", "fe80::2")];
        let host = net.ns(&format!("host{n}"));
        let mut leaves = Vec::new();
        for (k, (interface, own, other)) in links.into_iter().enumerate() {
            let leaf = net.ns(&format!("leaf{n}{k}"));
            net.link((&host, interface), (&leaf, "eth0"));
            for (ns, device, address) in [(&host, interface, own), (&leaf, "eth0", other)] {
                ns.ip(&format!("-6 addr flush dev {device} scope link"));
                ns.ip(&format!("addr add {address}/64 dev {device} nodad"));
            }
            leaves.push(leaf);
        }
        let passwords = ["password = \"one\"\n", "password = \"two\"\n", ""];
        let neighbors: String = links
            .iter()
            .zip(passwords)
            .map(|((interface, ..), word)| {
                neighbor(&format!("fe80::2%{interface}"), &format!("{word}{here}"))
            })
            .collect();
        let routelet = Routelet::start(&net, &host, &speaker(65001, &neighbors), &[]);
        let started: Vec<_> = leaves
            .iter()
            .zip(passwords)
            .enumerate()
            .map(|(k, (leaf, word))| {
                let config = neighbor("fe80::1%eth0", &format!("{word}{there}"));
                Routelet::start(&net, leaf, &speaker(65010 + k as u32, &config), &[])
            })
            .collect();
        for leaf in &started {
            leaf.wait_established("fe80::1%eth0");
        }
        wait_for("all three are up", 30.0, || {
            let all = routelet.json(&["show", "neighbors"]);
            let up = |v: &&Value| v["state"] == "established";
            (all.as_array()?.iter().filter(up).count() == 3).then_some(())
        });
    }
}

/// Whoever calls from the link, with the password of the range.
#[test]
fn a_range_of_link_local_addresses_takes_a_password() {
    for (n, ttl) in ["", "ttl-security = 1\n"].into_iter().enumerate() {
        let mut net = Net::new();
        let (host, leaf) = pair(
            &mut net,
            (&format!("host{n}"), &format!("leaf{n}")),
            &[("eth0", "fe80::1", "fe80::2"), ("eth1", "fe80::1", "fe80::2")],
        );
        let range = format!(
            "[bgp.group.link]\nremote-as = \"external\"\npassword = \"sesame\"\n{ttl}\
             [[bgp.listen-range]]\nprefix = \"fe80::/10\"\ngroup = \"link\"\n"
        );
        let routelet = Routelet::start(&net, &leaf, &speaker(65002, &range), &[]);
        let dial = |interface: &str| {
            neighbor(&format!("fe80::2%{interface}"), &format!("password = \"sesame\"\n{ttl}"))
        };
        let caller = speaker(65001, &format!("{}{}", dial("eth0"), dial("eth1")));
        let caller = Routelet::start(&net, &host, &caller, &[]);
        let up = |of: &Routelet| {
            let all = of.json(&["show", "neighbors"]);
            let links = all.as_array().expect("a list").iter().filter(|v| v["state"] == "established");
            links.filter_map(|v| v["interface"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        for of in [&routelet, &caller] {
            wait_for("a session on each link", 30.0, || (up(of) == ["eth0", "eth1"]).then_some(()));
        }
    }
}

/// The kernel counts dropped segments of all connections together.
#[test]
fn a_wrong_password_is_told_of_no_other_neighbor() {
    let mut net = Net::new();
    let (host, leaf) = (net.ns("host"), net.ns("leaf"));
    net.link((&host, "eth0"), (&leaf, "eth0"));
    host.ip("addr add 10.1.1.1/24 dev eth0");
    leaf.ip("addr add 10.1.1.2/24 dev eth0");
    // Behind the leaf, where nothing answers and nobody says so.
    host.ip("route add 203.0.113.0/24 via 10.1.1.2");
    leaf.ip("route add blackhole 203.0.113.0/24");
    let bird = "router id 10.1.1.2; protocol device {} protocol bgp { local 10.1.1.2 as 65002; \
                neighbor 10.1.1.1 as 65001; password \"right\"; connect retry time 1; \
                ipv4 { import all; export all; }; }";
    let _bird = Bird::start(&net, &leaf, bird);
    let far = |n: u8, word: &str| neighbor(&format!("203.0.113.{n}"), &format!("multihop = 4\n{word}"));
    let near = neighbor("10.1.1.2", "password = \"wrong\"");
    let config = speaker(65001, &format!("{near}{}", far(9, "")));
    let routelet = Routelet::start(&net, &host, &config, &[]);
    let error = |address: &str| {
        let all = routelet.json(&["show", "neighbors"]);
        let one = all.as_array().expect("a list").iter().find(|v| v["address"] == address).cloned();
        one.map(|v| v["last_error"].to_string()).unwrap_or_default()
    };
    wait_for("the wrong one is named", 30.0, || {
        error("10.1.1.2").contains("compare `password`").then_some(())
    });
    wait_for("the other has been dialled", 30.0, || error("203.0.113.9").contains("no reply").then_some(()));
    assert!(!error("10.1.1.2").contains("or of"), "{}", error("10.1.1.2"));
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(!error("203.0.113.9").contains("MD5"), "{}", error("203.0.113.9"));

    // Two with a password are silent: each text names the other one as well.
    routelet.configure(&speaker(65001, &format!("{near}{}", far(8, "password = \"x\"\n"))));
    routelet.cli(&["reload"]);
    wait_for("both are named", 30.0, || {
        let one = error("10.1.1.2").contains("from this neighbor or from 203.0.113.8");
        (one && error("203.0.113.8").contains("from this neighbor or from 10.1.1.2")).then_some(())
    });
}
