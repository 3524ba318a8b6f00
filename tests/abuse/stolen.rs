//! A stolen node that floods a mesh with what is others': the known cluster comes from the state folder, as the API server
//! is away.

use std::{fs, net::Ipv4Addr};

use serde_json::{Value, json};

use crate::{
    alone, at_rest,
    bed::{Bed, HOST, HOST_AS, Peer, Report, at, holds, same},
    common::wait_for,
    gives_back, holdings, in_kernel,
    words::{Open, local_pref, med, next_hop, nlri, origin, path, update},
};

/// n2 is stolen, n3 is not; n4 to n50 are silent.
const NODES: u8 = 50;

fn cluster() -> Value {
    let node = |n: u8| {
        let address = if n == 1 { HOST } else { at(2, n) };
        json!({ "name": format!("n{n}"), "uid": format!("u{n}"), "pod_cidrs": [pods(n)], "addresses": [address],
            "routelet": "signed", "problems": [] })
    };
    let others: serde_json::Map<_, _> = (2..=NODES).map(|n| (format!("n{n}"), node(n))).collect();
    json!({ "version": 1, "node": "n1", "nodes": { "own": node(1), "others": others, "complete": true,
        "service_cidrs": ["10.96.0.0/12"], "api_servers": [] } })
}

fn pods(n: u8) -> String {
    format!("10.244.{n}.0/24")
}

/// A route of this neighbor that would win over each other one.
fn winning(peer: &Peer) -> Vec<Vec<u8>> {
    vec![origin(0), path(&[]), next_hop(peer.addr), med(0), local_pref(1000)]
}

/// Two halves and 64 addresses of each pod CIDR but its own, and 10,000 prefixes of others.
fn foreign() -> Vec<(Ipv4Addr, u8)> {
    let of_node = |n: u8| {
        let host = move |i: u8| (Ipv4Addr::new(10, 244, n, i), 32);
        let parts = [(Ipv4Addr::new(10, 244, n, 0), 24), (Ipv4Addr::new(10, 244, n, 0), 25)];
        parts.into_iter().chain([(Ipv4Addr::new(10, 244, n, 128), 25)]).chain((0..64).map(host))
    };
    let pods = (1..=NODES).filter(|n| *n != 2).flat_map(of_node);
    let rest = (0..10_000).map(|n| (Ipv4Addr::from(0x1600_0000 + (n << 8)), 24));
    let wide = [
        (Ipv4Addr::new(10, 244, 0, 0), 16),
        (Ipv4Addr::new(10, 96, 0, 0), 12),
        (Ipv4Addr::new(10, 96, 0, 10), 32),
    ];
    pods.chain(rest).chain(wide).collect()
}

#[test]
fn a_stolen_node_takes_nothing_but_its_own_pods_however_much_it_advertises() {
    let _alone = alone();
    let keys = "[kubernetes]\npeering = \"mesh\"\n[cni]\nenabled = false\n";
    let bed = Bed::start_under("", keys, |host, dir| {
        let state = dir.join(&host.name).join("state");
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join("cluster.json"), cluster().to_string()).unwrap();
        ["--kubeconfig", "/nonexistent/kubeconfig", "--node-name", "n1"].map(str::to_owned).into()
    });
    let session = |n: u8| bed.session(at(2, n), &Open::new(HOST_AS, at(2, n)));
    let (mut stolen, mut honest) = (session(2), session(3));
    let send = |peer: &mut Peer, list: &[(Ipv4Addr, u8)]| {
        let attributes = winning(peer);
        list.chunks(500).for_each(|part| peer.send(&update(&[], &attributes, &nlri(part))));
    };
    let own = |n: u8| [(Ipv4Addr::new(10, 244, n, 0), 24)];
    send(&mut honest, &own(3));
    wait_for("the route of n3", 30.0, || in_kernel(&bed, &pods(3)).then_some(()));
    let before = at_rest(&bed);
    let log = || fs::read_to_string(bed.routelet.dir.join("log")).unwrap().len();
    let logged = log();

    let mut report = Report::default();
    let foreign = foreign();
    let all = foreign.len() as u64;
    report.case("everything at once, ten times over", || {
        for _ in 0..10 {
            foreign.chunks(500).for_each(|part| stolen.send(&update(&nlri(part), &[], &[])));
            send(&mut stolen, &foreign);
        }
        send(&mut stolen, &own(2));
        wait_for("what it sent is read", 120.0, || in_kernel(&bed, &pods(2)).then_some(()));
        let neighbor = bed.neighbor(at(2, 2));
        same(neighbor["received"]["ipv4-unicast"].as_u64(), Some(all + 1))?;
        same(neighbor["accepted"]["ipv4-unicast"].as_u64(), Some(1))?;
        let learned = bed.host.ip("-4 route show proto 179 type unicast");
        same(learned.lines().count(), 2)?;
        holds(learned.contains(&pods(3)), &learned)
    });
    report.case("reasons name the nodes", || {
        let shown = bed.received_prefix(at(2, 2), "10.244.3.128/25").ok_or("not there")?;
        same(
            shown["reason"].as_str(),
            Some("guard: not in the pod CIDRs of node n2: 10.244.3.0/24 belongs to node n3"),
        )
    });
    report.case("one problem", || {
        let named = || {
            let problems = bed.routelet.json(&["show", "summary"])["problems"].clone();
            let list: Vec<_> = problems.as_array()?.iter().map(ToString::to_string).collect();
            Some(list.into_iter().filter(|p| p.contains("not in the pod CIDRs")).count())
        };
        wait_for("it is named", 30.0, || (named()? > 0).then_some(()));
        same(named(), Some(1))
    });
    report.case("log and memory", || {
        let (now, more) = (holdings(&bed), log() - logged);
        holds(more < 8_000, &format!("{more} octets of log"))?;
        holds(now.0 < before.0 + 24_000, &format!("{before:?} to {now:?}"))
    });
    report.case("it leaves, and its routes are the last choice", || {
        drop(stolen);
        wait_for("the session has ended", 30.0, || (bed.state(at(2, 2)) != "established").then_some(()));
        holds(!in_kernel(&bed, "10.244.3.128/25") && in_kernel(&bed, &pods(3)), "n3's pods are n3's")?;
        gives_back(&bed, before, 24_000)
    });
    report.finish();
}
