//! The rules of Docker 28, planted by hand: what it drops is accepted for advertised subnets, and
//! nothing else is.

use std::{collections::BTreeSet, sync::Arc};

use routelet::{
    net::{Diagnostic, Prefix},
    nft::{
        forward::Wanted,
        io::forward::{Inputs, cleanup, spawn_with_notes},
    },
};
use tokio::{runtime::Runtime, sync::watch};

use crate::{
    common::{
        net::{Net, Ns},
        wait_for,
    },
    masquerade::inside,
};

const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];
const SUBNETS: [&str; 2] = ["172.17.0.0/16", "fd00:17::/64"];
const CONTAINER: [&str; 2] = ["172.17.0.2", "fd00:17::2"];
const CLIENT: [&str; 2] = ["10.0.0.9", "fd00:a::9"];

/// A host with docker0, a container on it, another network, and a client that is routed to it.
struct Host {
    host: Ns,
    container: Ns,
    other: Ns,
    client: Ns,
    wanted: watch::Sender<Option<Arc<Wanted>>>,
    problems: watch::Receiver<Vec<Diagnostic>>,
    runtime: Runtime,
    _ready: watch::Sender<bool>,
    _net: Net,
}

impl Host {
    fn new() -> Self {
        let mut net = Net::new();
        let [host, container, other, client] =
            ["host", "container", "other", "client"].map(|name| net.ns(name));
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            host.sysctl(key, "1");
        }
        net.link((&host, "eth0"), (&client, "eth0"));
        for (ns, n) in [(&host, 1), (&client, 9)] {
            ns.ip(&format!("addr add 10.0.0.{n}/24 dev eth0"));
            ns.ip(&format!("addr add fd00:a::{n}/64 dev eth0 nodad"));
        }
        for (bridge, inner, n) in [("docker0", &container, 17), ("br-other", &other, 18)] {
            host.ip(&format!("link add {bridge} type bridge"));
            host.ip(&format!("link set {bridge} up"));
            host.ip(&format!("addr add 172.{n}.0.1/16 dev {bridge}"));
            host.ip(&format!("addr add fd00:{n}::1/64 dev {bridge} nodad"));
            net.link((&host, &format!("veth{n}")), (inner, "eth0"));
            host.ip(&format!("link set veth{n} master {bridge}"));
            inner.ip(&format!("addr add 172.{n}.0.2/16 dev eth0"));
            inner.ip(&format!("addr add fd00:{n}::2/64 dev eth0 nodad"));
            inner.ip(&format!("route add default via 172.{n}.0.1"));
            inner.ip(&format!("route add default via fd00:{n}::1"));
        }
        client.ip("route add 172.16.0.0/12 via 10.0.0.1");
        client.ip("route add fd00::/16 via fd00:a::1");
        let (wanted, wanted_rx) = watch::channel(None);
        let (ready, ready_rx) = watch::channel(true);
        let (problems_tx, problems) = watch::channel(Vec::new());
        let runtime = inside(&host);
        let guard = runtime.enter();
        let inputs = Inputs { wanted: wanted_rx, ready: ready_rx };
        spawn_with_notes(inputs, problems_tx, watch::channel(Vec::new()).0);
        drop(guard);
        Self { host, container, other, client, wanted, problems, runtime, _ready: ready, _net: net }
    }

    /// As Docker 28 makes them for its default bridge.
    fn plant(&self) {
        for (program, address) in PROGRAMS.into_iter().zip(CONTAINER) {
            let rules = [
                "-N DOCKER",
                "-N DOCKER-FORWARD",
                "-N DOCKER-USER",
                "-A FORWARD -j DOCKER-USER",
                "-A FORWARD -j DOCKER-FORWARD",
                "-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                "-A DOCKER-FORWARD -o docker0 -j DOCKER",
                "-A DOCKER-FORWARD -i docker0 -j ACCEPT",
                "-A DOCKER ! -i docker0 -o docker0 -j DROP",
                "-A DOCKER-USER -j RETURN",
            ];
            rules.iter().for_each(|rule| drop(self.host.sh(&format!("{program} {rule}"))));
            self.host.sh(&format!("{program} -t raw -A PREROUTING -d {address} ! -i docker0 -j DROP"));
        }
    }

    fn want(&self, accept: bool) {
        let subnets: BTreeSet<Prefix> = SUBNETS.map(|s| s.parse().unwrap()).into();
        let bridges = ["docker0", "br-other"].map(str::to_owned);
        let (pods, named) =
            if accept { (subnets.clone(), BTreeSet::new()) } else { (BTreeSet::new(), subnets.clone()) };
        self.wanted.send_replace(Some(Arc::new(Wanted {
            enabled: accept,
            pods,
            inner: bridges.into(),
            routed: [("docker0".to_owned(), subnets)].into(),
            named,
            ..Wanted::default()
        })));
    }

    fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        wait_for(what, 20.0, || is().then_some(()));
    }

    fn is_reached(&self) -> bool {
        CONTAINER.iter().all(|address| self.client.pings(address))
    }

    fn is_named(&self, part: &str) -> bool {
        self.problems.borrow().iter().any(|p| p.line().contains(part))
    }
}

#[test]
fn what_docker_28_drops_is_accepted_for_advertised_subnets_alone() {
    let room = Host::new();
    room.until("the client reaches the container", || room.is_reached());
    room.plant();
    assert!(CONTAINER.iter().all(|a| !room.client.pings(a)), "Docker's rules drop");
    room.want(true);
    room.until("accepted", || room.is_reached());
    for (address, client) in CONTAINER.into_iter().zip(CLIENT) {
        assert!(!room.other.pings(address), "Docker's networks stay isolated");
        assert!(room.container.pings(client), "the other way");
    }
    assert!(room.problems.borrow().is_empty(), "{:?}", room.problems.borrow());

    // Who denies comes first.
    for (program, client) in PROGRAMS.into_iter().zip(CLIENT) {
        room.host.sh(&format!("{program} -I DOCKER-USER -s {client} -j DROP"));
    }
    room.until("a rule of the operator holds", || CONTAINER.iter().all(|a| !room.client.pings(a)));
    for program in PROGRAMS {
        room.host.sh(&format!("{program} -F DOCKER-USER; {program} -t raw -D PREROUTING 1"));
    }
    room.until("flushed by somebody, written again", || room.is_reached());

    // The container is started again: nothing is lost meanwhile.
    room.host.sh("iptables -t raw -D PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP");
    room.host.sh("iptables -t raw -I PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP");
    room.until("ours is first again", || room.is_reached());

    room.want(false);
    room.until("our chains are gone", || !room.host.sh("iptables-save; ip6tables-save").contains("ROUTELET"));
    let remedies = [
        "`iptables -I DOCKER-USER -d 172.17.0.0/16 -j ACCEPT`",
        "`iptables -t raw -I PREROUTING -d 172.17.0.0/16 -j ACCEPT`",
        "`ip6tables -I DOCKER-USER -d fd00:17::/64 -j ACCEPT`",
        "`ip6tables -t raw -I PREROUTING -d fd00:17::/64 -j ACCEPT`",
    ];
    for remedy in remedies {
        room.until(remedy, || room.is_named(remedy));
        room.host.sh(remedy.trim_matches('`'));
    }
    room.until("the commands help", || room.problems.borrow().is_empty() && room.is_reached());

    room.want(true);
    room.until("ours again", || room.host.sh("iptables -S").contains("-N ROUTELET-DOCKER"));
    room.runtime.shutdown_background();
    assert!(room.host.enter(cleanup).unwrap(), "there was one");
    let left = room.host.sh("iptables-save; ip6tables-save");
    assert!(!left.contains("ROUTELET") && left.contains("-A DOCKER-USER"), "{left}");
}
