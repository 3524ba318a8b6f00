//! The conflist in the hands of real CNI plugins.

use std::{sync::Arc, time::Duration};

use routelet::cni::{
    conflist::{Conflist, Spec, plugin},
    gate::{GateInputs, InitialRoutes},
    io::{ConflistOptions, ConflistTask, spawn_conflist},
    view::{ConflistState, ConflistStatus},
};
use routelet::net::Prefix;
use tokio::{
    runtime::Builder,
    sync::watch::{Receiver, channel},
    time::timeout,
};

use crate::{
    common::{
        net::{Net, Ns},
        wait_for,
    },
    pods::{Pod, Runtime},
};

fn conflist(cidrs: [&str; 2]) -> Arc<Conflist> {
    let pod_cidrs = cidrs.map(|c| c.parse().unwrap());
    let chained = vec![plugin("portmap")];
    Arc::new(Conflist::new(Spec { pod_cidrs: &pod_cidrs, bridge: "routelet0", mtu: Some(1400), chained }))
}

fn open(c: &Conflist) -> GateInputs {
    GateInputs { unreachable: c.pod_cidrs.clone(), forwarding: true, routes: InitialRoutes::Complete }
}

async fn written(status: &mut Receiver<ConflistStatus>) {
    let fits = |s: &ConflistStatus| s.state == ConflistState::Written && s.problem.is_none();
    let waited = timeout(Duration::from_secs(20), status.wait_for(fits)).await.map(|r| r.is_ok());
    assert_eq!(waited, Ok(true), "{:?}", status.borrow());
}

fn starts_with(pod: &Pod, prefixes: [&str; 2]) {
    let fits = pod.addresses.iter().zip(prefixes).all(|(a, p)| a.starts_with(p));
    assert!(pod.addresses.len() == 2 && fits, "{:?} {prefixes:?}", pod.addresses);
}

/// Waits, since the bridge checks its new IPv6 address for duplicates.
fn reached(from: &Ns, pod: &Pod) {
    for address in &pod.addresses {
        wait_for(format!("{} reaches {address}", from.name), 5.0, || from.pings(address).then_some(()));
    }
}

#[test]
fn pods_get_addresses_of_both_families_and_a_new_pod_cidr_serves_the_next_pod() {
    let mut net = Net::new();
    let node = net.ns("node");
    let conf_dir = net.dir().join("net.d");
    let runtime = Runtime::new(&net, &node, &conf_dir);
    let outside = net.ns("outside");
    net.link((&node, "eth0"), (&outside, "eth0"));

    node.enter(|| {
        let tokio = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        tokio.block_on(async {
            let first = conflist(["10.244.1.0/24", "fd00:244:1::/64"]);
            let (want, want_rx) = channel(Some(first.clone()));
            let (ready, ready_rx) = channel(open(&first));
            let options = ConflistOptions {
                enabled: true,
                conf_dir: conf_dir.clone(),
                file: "10-routelet.conflist".into(),
                state_dir: conf_dir.join("../state"),
            };
            let ConflistTask { mut status, held, task } = spawn_conflist(options, want_rx, ready_rx);
            written(&mut status).await;

            let a = runtime.add(&mut net, "a").unwrap();
            let b = runtime.add(&mut net, "b").unwrap();
            starts_with(&a, ["10.244.1.", "fd00:244:1::"]);
            assert!(a.addresses.iter().all(|address| b.ns.pings(address)), "over the bridge");
            reached(&node, &a);
            assert!(a.ns.ip("link show eth0").contains("mtu 1400"));
            assert!(a.ns.ip("-6 route show default").contains("via fd00:244:1::1"));

            let second = conflist(["10.244.7.0/24", "fd00:244:7::/64"]);
            want.send_replace(Some(second.clone()));
            ready.send_replace(open(&second));
            let fresh = |s: &ConflistStatus| s.state == ConflistState::Written;
            timeout(Duration::from_secs(20), async {
                while !std::fs::read_to_string(conf_dir.join("10-routelet.conflist"))
                    .unwrap()
                    .contains("10.244.7.0")
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                status.wait_for(fresh).await.unwrap();
            })
            .await
            .unwrap();
            let c = runtime.add(&mut net, "c").unwrap();
            starts_with(&c, ["10.244.7.", "fd00:244:7::"]);
            reached(&node, &c);
            let bridge = node.ip("-4 addr show dev routelet0");
            assert!(bridge.contains("10.244.7.1") && !bridge.contains("10.244.1.1"), "{bridge}");

            // The pods that were there keep their gateway, and are reached.
            for pod in [&a, &b] {
                reached(&node, pod);
                reached(&c.ns, pod);
                assert!(pod.ns.pings("10.244.1.1") && pod.ns.pings("fd00:244:1::1"));
                assert!(pod.ns.pings(&c.addresses[0]));
            }
            let former: Prefix = "10.244.1.0/24".parse().unwrap();
            assert!(held.borrow().contains(&former));
            runtime.delete(&a);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(held.borrow().contains(&former), "b still runs");
            reached(&c.ns, &b);
            runtime.delete(&b);
            wait_for("the former range is given up", 10.0, || {
                (!held.borrow().contains(&former)).then_some(())
            });
            let left = [node.ip("addr"), node.ip("route"), node.ip("-6 route")].concat();
            assert!(!left.contains("10.244.1.") && !left.contains("fd00:244:1:"), "{left}");
            reached(&node, &c);
            runtime.delete(&c);
            task.abort();
        });
    });
}
