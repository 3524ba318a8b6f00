//! The table of masquerade in the real kernel: whose address the other end sees.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use routelet::{
    mailbox::{self, mailbox},
    net::Prefix,
    nft::{
        io::masquerade::{Inputs, cleanup, spawn},
        masquerade::Want,
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};

use crate::common::{
    net::{Net, Ns},
    speaker::listen,
    wait_for,
};

/// A pod behind a node, and a machine outside with two addresses of each family.
struct Room {
    pod: Ns,
    node: Ns,
    outside: Ns,
    want: watch::Sender<Option<Arc<Want>>>,
    learned: mailbox::Sender<Prefix, bool>,
    ready: watch::Sender<bool>,
    _runtime: Runtime,
    net: Net,
}

/// A runtime whose threads are in the namespace: sockets belong to that of the thread that opens them.
pub(crate) fn inside(ns: &Ns) -> Runtime {
    let name = ns.name.clone();
    let enter = move || {
        let file = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    };
    Builder::new_multi_thread().worker_threads(1).on_thread_start(enter).enable_all().build().unwrap()
}

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

impl Room {
    fn new() -> Self {
        let mut net = Net::new();
        let [pod, node, outside] = ["pod", "node", "out"].map(|n| net.ns(n));
        net.link((&node, "pod"), (&pod, "eth0"));
        net.link((&node, "eth0"), (&outside, "eth0"));
        node.sysctl("net.ipv4.ip_forward", "1");
        node.sysctl("net.ipv6.conf.all.forwarding", "1");
        for (ns, dev, addresses) in [
            (&node, "pod", ["10.244.1.1/24", "fd00:244:1::1/64"]),
            (&pod, "eth0", ["10.244.1.2/24", "fd00:244:1::2/64"]),
            (&node, "eth0", ["10.9.0.1/24", "fd00:9::1/64"]),
            (&outside, "eth0", ["10.9.0.2/24", "fd00:9::2/64"]),
            (&outside, "lo", ["198.51.100.1/32", "2001:db8:1::1/128"]),
            (&outside, "lo", ["198.51.100.2/32", "2001:db8:1::2/128"]),
        ] {
            ns.ip(&format!("addr add {} dev {dev}", addresses[0]));
            ns.ip(&format!("addr add {} dev {dev} nodad", addresses[1]));
        }
        pod.ip("route add default via 10.244.1.1");
        pod.ip("-6 route add default via fd00:244:1::1");
        node.ip("route add default via 10.9.0.2");
        node.ip("-6 route add default via fd00:9::2");
        outside.ip("route add 10.244.1.0/24 via 10.9.0.1");
        outside.ip("-6 route add fd00:244:1::/64 via fd00:9::1");

        let (want, want_rx) = watch::channel(None);
        let (learned, learned_rx) = mailbox();
        let (ready, ready_rx) = watch::channel(false);
        let runtime = inside(&node);
        let inputs = Inputs { want: want_rx, learned: learned_rx, ready: ready_rx };
        let guard = runtime.enter();
        spawn(inputs);
        drop(guard);
        Self { pod, node, outside, want, learned, ready, _runtime: runtime, net }
    }

    /// The address from which `target` sees a connection of the pod.
    fn seen(&self, target: &str) -> String {
        self.seen_by(&self.pod, target, target)
    }

    /// The address from which `listens` sees a connection of `from` to `target`.
    fn seen_by(&self, from: &Ns, target: &str, listens: &str) -> String {
        let at = |address: &str| SocketAddr::new(address.parse().unwrap(), 8080);
        let listener = listen(&self.outside, &at(listens).to_string());
        // The kernel answers for the listener until somebody accepts.
        let _caller = from.enter(|| TcpStream::connect_timeout(&at(target), Duration::from_secs(5)).unwrap());
        let (_called, peer) = listener.accept().unwrap();
        peer.ip().to_string()
    }

    fn until_seen(&self, target: &str, source: &str) {
        wait_for(format!("{target} sees {source}"), 15.0, || (self.seen(target) == source).then_some(()));
    }

    fn ruleset(&self) -> String {
        let out = self.node.command("nft").args(["list", "ruleset"]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    }

    fn nft(&self, command: &str) {
        crate::common::run(self.node.command("nft").arg(command));
    }
}

#[test]
fn pods_leave_with_the_nodes_address_but_not_to_what_is_spared_or_learned() {
    let room = Room::new();
    room.nft("add table ip other; add chain ip other nat { type nat hook postrouting priority 100; }");
    let want = |pods: &[&str]| {
        let keep = ["10.9.0.0/24", "fd00:9::/64", "10.244.0.0/16", "fd00:244::/48"];
        Some(Arc::new(Want {
            pods: pods.iter().map(|s| p(s)).collect(),
            keep: keep.iter().map(|s| p(s)).collect(),
        }))
    };
    let both = ["10.244.1.0/24", "fd00:244:1::/64"];
    room.want.send_replace(want(&both));
    std::thread::sleep(Duration::from_millis(500));
    assert!(!room.ruleset().contains("routelet"), "not before the first exchange is over");
    room.ready.send_replace(true);
    room.until_seen("198.51.100.1", "10.9.0.1");
    room.until_seen("2001:db8:1::1", "fd00:9::1");
    assert_eq!(room.seen("10.9.0.2"), "10.244.1.2", "a connected subnet is spared");
    assert_eq!(room.seen("fd00:9::2"), "fd00:244:1::2");

    // Prefixes that touch make one range; taken apart again they are two.
    let learned = ["198.51.100.2/32", "198.51.100.3/32", "2001:db8:1::2/128", "0.0.0.0/0"];
    room.learned.post_all(learned.map(|s| (p(s), true)));
    room.until_seen("198.51.100.2", "10.244.1.2");
    room.until_seen("2001:db8:1::2", "fd00:244:1::2");
    assert_eq!(room.seen("198.51.100.1"), "10.9.0.1", "a learned default route spares nothing");
    room.learned.post_all([(p("198.51.100.3/32"), false), (p("198.51.100.1/32"), true)]);
    room.until_seen("198.51.100.1", "10.244.1.2");
    assert_eq!(room.seen("198.51.100.2"), "10.244.1.2");
    room.learned.post_all([(p("198.51.100.1/32"), false)]);
    room.until_seen("198.51.100.1", "10.9.0.1");

    // `nft flush ruleset`, as a firewall's start script does.
    room.nft("flush ruleset");
    room.until_seen("198.51.100.1", "10.9.0.1");
    room.nft("add table ip other");

    room.want.send_replace(want(&both[1..]));
    room.until_seen("198.51.100.1", "10.244.1.2");
    assert_eq!(room.seen("2001:db8:1::1"), "fd00:9::1", "each family for itself");
    room.want.send_replace(want(&[]));
    wait_for("the table goes", 5.0, || (!room.ruleset().contains("routelet")).then_some(()));
    room.want.send_replace(want(&both));
    wait_for("the table is back", 5.0, || room.ruleset().contains("masquerade").then_some(()));
    assert!(room.node.enter(cleanup).unwrap(), "there was one");
    assert!(!room.node.enter(cleanup).unwrap(), "there was none");
    assert!(room.ruleset().contains("table ip other") && !room.ruleset().contains("routelet"));
}

#[test]
fn a_hundred_thousand_learned_prefixes_fit() {
    let room = Room::new();
    room.want.send_replace(Some(Arc::new(Want { pods: [p("10.244.1.0/24")].into(), keep: [].into() })));
    room.ready.send_replace(true);
    // Every second /24 of 32.0.0.0/6 and on: nothing merges.
    let many = (0..100_000u32).map(|n| (Prefix::v4((0x2000_0000 + (n << 9)).into(), 24), true));
    room.learned.post_all(many.chain([(p("198.51.100.2/32"), true)]));
    room.until_seen("198.51.100.2", "10.244.1.2");
    assert_eq!(room.seen("198.51.100.1"), "10.9.0.1");
    room.learned.post_all([(p("198.51.100.2/32"), false)]);
    room.until_seen("198.51.100.2", "10.9.0.1");
    let listed =
        room.node.command("nft").args(["list", "set", "inet", "routelet", "keep-v4"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.matches("/24").count(), 100_000);
}

/// kube-proxy in its two modes, shortened to one Service 10.96.0.10 whose only endpoint is a pod of another node.
const KUBE_PROXY: [&str; 2] = [
    "nft -f - <<EOF
table ip kube-proxy {
  chain mark-for-masquerade { meta mark set mark or 0x4000; }
  chain service-x { ip saddr != 10.244.0.0/16 jump mark-for-masquerade
    meta l4proto tcp dnat to 10.244.2.2:8080; }
  chain services { ip daddr 10.96.0.10 tcp dport 8080 goto service-x; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; meta mark & 0x4000 == 0 return
    meta mark set mark xor 0x4000
    masquerade fully-random; }
}
EOF",
    "nft delete table ip kube-proxy; iptables-restore --noflush <<EOF
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-X - [0:0]
:KUBE-SEP-X - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 8080 -j KUBE-SVC-X
-A KUBE-SVC-X ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ
-A KUBE-SVC-X -j KUBE-SEP-X
-A KUBE-SEP-X -s 10.244.2.2/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-X -p tcp -m tcp -j DNAT --to-destination 10.244.2.2:8080
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
EOF",
];

#[test]
fn beside_kube_proxy_and_docker_each_rewrites_its_own() {
    let mut room = Room::new();
    let container = room.net.ns("container");
    room.node.ip("link add docker0 type bridge");
    room.node.ip("link set docker0 up");
    room.node.ip("addr add 172.17.0.1/16 dev docker0");
    room.net.link((&room.node, "veth1"), (&container, "eth0"));
    room.node.ip("link set veth1 master docker0");
    container.ip("addr add 172.17.0.2/16 dev eth0");
    container.ip("route add default via 172.17.0.1");
    // A pod of another node, and its reply's way to a Service.
    room.outside.ip("addr add 10.244.2.2/32 dev lo");
    room.node.ip("route add 10.244.2.0/24 via 10.9.0.2");
    room.outside.ip("route add 10.96.0.0/16 via 10.9.0.1");
    room.node.sh("iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE");

    let keep = ["10.9.0.0/24", "10.244.0.0/16", "10.96.0.0/16", "172.17.0.0/16", "198.51.100.2/32"];
    let keep = keep.iter().map(|s| p(s)).collect();
    room.want.send_replace(Some(Arc::new(Want { pods: [p("10.244.1.0/24")].into(), keep })));
    room.ready.send_replace(true);
    for mode in KUBE_PROXY {
        room.node.sh(mode);
        let others = || room.node.sh("iptables-save | sed 's/ \\[.*//; /^#/d'; nft -s list tables");
        let before = others();
        room.until_seen("198.51.100.1", "10.9.0.1");
        let pod = "10.244.1.2";
        for (what, target, listens, source) in [
            ("a Service", "10.96.0.10", "10.244.2.2", pod),
            ("a pod", "10.244.2.2", "10.244.2.2", pod),
            ("a node", "10.9.0.2", "10.9.0.2", pod),
            ("what is excluded", "198.51.100.2", "198.51.100.2", pod),
            ("the world", "198.51.100.1", "198.51.100.1", "10.9.0.1"),
        ] {
            assert_eq!(room.seen_by(&room.pod, target, listens), source, "{what}");
        }
        assert_eq!(room.seen_by(&room.outside, "10.96.0.10", "10.244.2.2"), "10.9.0.1", "kube-proxy's own");
        assert_eq!(room.seen_by(&container, "198.51.100.1", "198.51.100.1"), "10.9.0.1", "Docker's own");
        // Without ours, theirs do the same; and ours is what the pod needs.
        assert_eq!(
            others().replace("table inet routelet\n", ""),
            before.replace("table inet routelet\n", "")
        );
    }
    room.want.send_replace(Some(Arc::new(Want::default())));
    room.until_seen("198.51.100.1", "10.244.1.2");
    assert_eq!(room.seen_by(&container, "198.51.100.1", "198.51.100.1"), "10.9.0.1");
    assert_eq!(room.seen_by(&room.outside, "10.96.0.10", "10.244.2.2"), "10.9.0.1");
}
