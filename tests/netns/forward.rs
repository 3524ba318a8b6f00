//! Our chain in iptables' FORWARD: created if the policy is DROP, kept last, removed; and the problem
//! reported for iptables-legacy.

use std::sync::Arc;

use routelet::{
    net::Diagnostic,
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

struct Room {
    node: Ns,
    wanted: watch::Sender<Option<Arc<Wanted>>>,
    ready: watch::Sender<bool>,
    problems: watch::Receiver<Vec<Diagnostic>>,
    notes: watch::Receiver<Vec<Diagnostic>>,
    runtime: Runtime,
    _net: Net,
}

impl Room {
    fn new() -> Self {
        let mut net = Net::new();
        let node = net.ns("node");
        let (wanted, wanted_rx) = watch::channel(None);
        let (ready, ready_rx) = watch::channel(false);
        let (problems_tx, problems) = watch::channel(Vec::new());
        let (notes_tx, notes) = watch::channel(Vec::new());
        let runtime = inside(&node);
        let guard = runtime.enter();
        spawn_with_notes(Inputs { wanted: wanted_rx, ready: ready_rx }, problems_tx, notes_tx);
        drop(guard);
        Self { node, wanted, ready, problems, notes, runtime, _net: net }
    }

    fn want(&self, pods: &[&str]) {
        let pods = pods.iter().map(|p| p.parse().unwrap()).collect();
        let closed = ["docker0".to_owned()].into();
        self.wanted.send_replace(Some(Arc::new(Wanted { enabled: true, pods, closed, ..Wanted::default() })));
    }

    /// Waits until FORWARD and our chain are so.
    fn until(&self, what: &str, forward: &[&str], ours: &[&str]) {
        wait_for(what, 10.0, || {
            let list = self.node.sh("iptables -S");
            let of = |chain: &str| -> Vec<_> {
                let start = format!("-A {chain} ");
                list.lines().filter_map(|l| Some(l.strip_prefix(&start)?.to_owned())).collect()
            };
            (of("FORWARD") == forward && of("ROUTELET-FORWARD") == ours).then_some(())
        });
    }
}

const JUMP: &str = "-j ROUTELET-FORWARD";
const OURS: [&str; 3] = ["-o docker0 -j RETURN", "-s 10.244.1.0/24 -j ACCEPT", "-d 10.244.1.0/24 -j ACCEPT"];

#[test]
fn our_chain_is_the_last_word_before_a_policy_that_drops() {
    let room = Room::new();
    let node = &room.node;
    node.sh("iptables -A FORWARD -s 192.0.2.0/24 -j DROP");
    room.want(&["10.244.1.0/24", "fd00:244:1::/64"]);
    let denied = "-s 192.0.2.0/24 -j DROP";
    room.until("nothing drops, so nothing is done", &[denied], &[]);

    node.sh("iptables -P FORWARD DROP");
    room.until("before the first exchange is over, too", &[denied, JUMP], &OURS);
    assert!(!node.sh("ip6tables -S").contains("ROUTELET"), "each family for itself");
    node.sh("ip6tables -P FORWARD DROP");
    wait_for("IPv6", 10.0, || {
        node.sh("ip6tables -S").contains("-A ROUTELET-FORWARD -s fd00:244:1::/64 -j ACCEPT").then_some(())
    });

    for (what, command) in [
        (
            "a rule behind ours",
            "iptables -D FORWARD -s 192.0.2.0/24 -j DROP; iptables -A FORWARD -s 192.0.2.0/24 -j DROP",
        ),
        ("a second jump", "iptables -I FORWARD -j ROUTELET-FORWARD"),
        ("our rules gone", "iptables -F ROUTELET-FORWARD"),
        ("the jump gone", "iptables -D FORWARD -j ROUTELET-FORWARD"),
        (
            "all gone",
            "iptables -F; iptables -X ROUTELET-FORWARD; iptables -A FORWARD -s 192.0.2.0/24 -j DROP",
        ),
        ("restored by another", "iptables-save | iptables-restore"),
    ] {
        node.sh(command);
        room.until(what, &[denied, JUMP], &OURS);
    }
    room.want(&["10.244.1.128/25"]);
    let other = ["-o docker0 -j RETURN", "-s 10.244.1.128/25 -j ACCEPT", "-d 10.244.1.128/25 -j ACCEPT"];
    room.until("other pods", &[denied, JUMP], &other);

    room.want(&[]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    room.until("what the last run left is kept until more is known", &[denied, JUMP], &other);
    room.ready.send_replace(true);
    room.until("no pods", &[denied], &[]);
    room.want(&["10.244.1.0/24"]);
    room.until("pods again", &[denied, JUMP], &OURS);
    node.sh("iptables -P FORWARD ACCEPT");
    room.until("the policy is gone", &[denied], &[]);
    node.sh("iptables -P FORWARD DROP");
    room.until("and back", &[denied, JUMP], &OURS);
    assert!(room.problems.borrow().is_empty(), "{:?}", *room.problems.borrow());

    room.runtime.shutdown_background();
    assert!(node.enter(cleanup).unwrap(), "there was one");
    assert!(!node.enter(cleanup).unwrap(), "there was none");
    let left = [node.sh("iptables -S"), node.sh("ip6tables -S")].concat();
    assert!(
        !left.contains("ROUTELET") && left.contains(denied) && left.contains("-P FORWARD DROP"),
        "{left}"
    );
}

#[test]
fn a_policy_of_iptables_legacy_is_named_with_its_remedy() {
    let room = Room::new();
    let node = &room.node;
    for (program, address) in [("iptables-legacy", "192.0.2.1"), ("ip6tables-legacy", "2001:db8::1")] {
        node.sh(&format!("{program} -A FORWARD -s {address} -j ACCEPT"));
        node.sh(&format!("{program} -P FORWARD DROP"));
    }
    let before = node.sh("iptables-legacy-save | grep -v '^#'");
    room.want(&["10.244.1.0/24", "fd00:244:1::/64"]);
    let said = |texts: &[&str]| {
        wait_for(format!("{texts:?}"), 40.0, || {
            let all = room.problems.borrow().clone();
            (all.len() == texts.len() && texts.iter().all(|t| all.iter().any(|p| p.line().contains(t))))
                .then_some(())
        });
    };
    said(&[
        "`iptables-legacy -A FORWARD -s 10.244.1.0/24 -j ACCEPT`",
        "`ip6tables-legacy -A FORWARD -s fd00:244:1::/64 -j ACCEPT`",
    ]);
    assert_eq!(node.sh("iptables-legacy-save | grep -v '^#'"), before, "not ours to change");
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        node.sh(&format!("{program} -P FORWARD ACCEPT"));
    }
    room.want(&["10.244.1.0/24"]);
    said(&[]);
}

/// Docker masquerades by default.
#[test]
fn masquerade_of_an_advertised_subnet_is_named() {
    let room = Room::new();
    let node = &room.node;
    room.want(&["172.17.0.0/16", "fd00:17::/64"]);
    for (program, outside, subnet) in
        [("iptables", "172.30.0.2/32", "172.17.0.0/16"), ("ip6tables", "fd00:30::2/128", "fd00:17::/64")]
    {
        node.sh(&format!("{program} -t nat -A POSTROUTING -s {outside} ! -o docker0 -j MASQUERADE"));
        node.sh(&format!("{program} -t nat -A POSTROUTING -d {subnet} -j MASQUERADE"));
        assert!(!has(&room.notes, subnet));
        node.sh(&format!("{program} -t nat -A POSTROUTING -s {subnet} ! -o docker0 -j MASQUERADE"));
        wait_for("masquerading is a note", 10.0, || {
            has(&room.notes, &format!("leaves {subnet}")).then_some(())
        });
        node.sh(&format!("{program} -t nat -F POSTROUTING"));
        wait_for("it ends", 10.0, || room.notes.borrow().is_empty().then_some(()));
    }
}

/// Docker 29 with its own nftables tables, where an accept of ours does not count.
#[test]
fn what_docker_drops_in_a_table_of_its_own_is_named_with_its_remedy() {
    let room = Room::new();
    let node = &room.node;
    room.want(&["172.17.0.0/16"]);
    node.sh("nft add table ip docker-bridges");
    node.sh("nft add chain ip docker-bridges raw-PREROUTING '{ type filter hook prerouting priority raw; }'");
    node.sh(
        "nft add rule ip docker-bridges raw-PREROUTING ip daddr 172.17.0.2 iifname != docker0 counter drop",
    );
    wait_for("a problem", 10.0, || has(&room.problems, "nat-unprotected").then_some(()));
    node.sh("nft delete table ip docker-bridges");
    wait_for("it ends", 10.0, || room.problems.borrow().is_empty().then_some(()));
}

fn has(list: &watch::Receiver<Vec<Diagnostic>>, part: &str) -> bool {
    list.borrow().iter().any(|problem| problem.line().contains(part))
}
