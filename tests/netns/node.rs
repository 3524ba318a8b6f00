//! A fib running inside a namespace, driven as the rib and the plan would.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use routelet::{
    fib::{
        host::Host,
        io::{FibHandle, Inputs, Kernel, Settings},
        view::FibView,
    },
    mailbox,
    net::{Convergence, Gateway, NextHops, Phase, Prefix},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};

use crate::common::{
    net::{Net, Ns},
    wait_for,
};

pub(crate) fn settings() -> Settings {
    Settings {
        install: true,
        table: 254,
        protocol: 179,
        metric: 179,
        resolve_via_default: false,
        nexthop_objects: true,
        resilient: false,
        restart_time: Duration::from_secs(120),
    }
}

/// A host with two links to a switch: 10.0.1.0/24 and 10.0.2.0/24, fd00:1::/64 and fd00:2::/64; the host is .1,
/// the switch .2 and .3.
pub(crate) fn two_links(net: &mut Net) -> (Ns, Ns) {
    let (host, switch) = (net.ns("host"), net.ns("switch"));
    for i in [1, 2] {
        net.link((&host, &format!("eth{i}")), (&switch, &format!("sw{i}")));
        host.ip(&format!("addr add 10.0.{i}.1/24 dev eth{i}"));
        host.ip(&format!("addr add fd00:{i}::1/64 dev eth{i} nodad"));
        for n in [2, 3] {
            switch.ip(&format!("addr add 10.0.{i}.{n}/24 dev sw{i}"));
            switch.ip(&format!("addr add fd00:{i}::{n}/64 dev sw{i} nodad"));
        }
    }
    (host, switch)
}

/// The running fib with the ends of its inputs. Dropped without [`Node::stop`] it is killed.
pub(crate) struct Node {
    rt: Runtime,
    routes: mailbox::Sender<Prefix, Option<Arc<NextHops>>>,
    own: watch::Sender<Arc<Vec<Prefix>>>,
    convergence: watch::Sender<Arc<Convergence>>,
    pub(crate) host: watch::Receiver<Arc<Host>>,
    pub(crate) fib: FibHandle,
}

impl Node {
    /// Starts in the namespace of the calling thread.
    pub(crate) fn start(settings: Settings) -> Self {
        let rt = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (routes, from_rib) = mailbox::mailbox();
        let (own, own_rx) = watch::channel(Arc::default());
        let (convergence, convergence_rx) = watch::channel(Arc::default());
        let (host, fib) = rt.block_on(async {
            let kernel = Kernel::open(settings).await.unwrap();
            let sources = watch::channel(None).1;
            let assigned = watch::channel(Arc::default()).1;
            let lost = watch::channel(Arc::default()).1;
            let convergence = convergence_rx;
            let inputs = Inputs { routes: from_rib, own: own_rx, convergence, sources, assigned, lost };
            (kernel.host(), kernel.spawn(inputs))
        });
        Self { rt, routes, own, convergence, host, fib }
    }

    pub(crate) fn stop(self, flush: bool) {
        let Self { rt, fib, .. } = self;
        rt.block_on(fib.shutdown(flush));
    }

    /// As a `kill -9`: nothing is put in order.
    pub(crate) fn kill(self) {
        self.rt.shutdown_background();
    }

    pub(crate) fn want(&self, prefix: &str, gateways: &[&str]) {
        self.routes.post_all([(p(prefix), Some(Arc::new(hops(gateways))))]);
    }

    pub(crate) fn want_many(&self, prefixes: &[Prefix], hops: Option<NextHops>) {
        let hops = hops.map(Arc::new);
        self.routes.post_all(prefixes.iter().map(|p| (*p, hops.clone())));
    }

    pub(crate) fn drop_route(&self, prefix: &str) {
        self.routes.post_all([(p(prefix), None)]);
    }

    pub(crate) fn own(&self, prefixes: &[&str]) {
        self.own.send_replace(Arc::new(prefixes.iter().map(|s| p(s)).collect()));
    }

    pub(crate) fn neighbors(&self, phases: &[(&str, Phase)]) {
        let neighbors: BTreeMap<IpAddr, Phase> =
            phases.iter().map(|(a, p)| (a.parse().unwrap(), *p)).collect();
        self.convergence.send_replace(Arc::new(Convergence { neighbors }));
    }

    pub(crate) fn list(&self) -> Vec<FibView> {
        self.rt.block_on(self.fib.client().list())
    }

    pub(crate) fn view(&self, prefix: &str) -> FibView {
        self.list().into_iter().find(|v| v.prefix == p(prefix)).unwrap()
    }

    /// Routes in the kernel, as the fib counts them.
    pub(crate) fn count(&self) -> usize {
        self.rt.block_on(self.fib.client().count(routelet::net::Family::Ipv4Unicast))
    }
}

pub(crate) fn p(s: &str) -> Prefix {
    s.parse().unwrap()
}

/// Gateways as `addr` or `addr%ifindex`.
pub(crate) fn hops(gateways: &[&str]) -> NextHops {
    let gateway = |s: &&str| {
        let (addr, ifindex) = s.split_once('%').unwrap_or((s, "0"));
        Gateway { addr: addr.parse().unwrap(), ifindex: ifindex.parse().unwrap() }
    };
    NextHops::unicast(gateways.iter().map(gateway).collect())
}

/// Our routes as the kernel prints them, in one line per route.
pub(crate) fn ours(ns: &Ns) -> String {
    let v4 = ns.ip("-o route show proto 179");
    let v6 = ns.ip("-o -6 route show proto 179");
    (v4 + &v6).replace('\\', "")
}

/// Waits until the kernel's text for a prefix holds each of these words; gives the time it took.
pub(crate) fn wait_route(ns: &Ns, prefix: &str, words: &[&str]) -> Duration {
    let start = Instant::now();
    wait_for(format!("{prefix} with {words:?}"), 5.0, || {
        let all = ours(ns);
        let line = all.lines().find(|l| l.split_whitespace().any(|w| w == prefix))?;
        words.iter().all(|w| line.contains(w)).then_some(())
    });
    start.elapsed()
}

pub(crate) fn wait_gone(ns: &Ns, prefix: &str) {
    wait_for(format!("{prefix} gone"), 5.0, || {
        (!ours(ns).lines().any(|l| l.split_whitespace().any(|w| w == prefix))).then_some(())
    });
}

/// `n` prefixes of 24 bits from 20.0.0.0 on.
pub(crate) fn many(n: u32) -> Vec<Prefix> {
    (0..n).map(|i| Prefix::v4((0x1400_0000 + (i << 8)).into(), 24)).collect()
}
