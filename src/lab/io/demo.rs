//! The demonstration, in order: convergence, tables, pings, a failure and its repair.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write, stdout},
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use futures::{TryStreamExt, future::try_join_all};
use rtnetlink::{
    LinkUnspec, RouteMessageBuilder,
    packet_route::route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType, RouteVia,
    },
};

use super::{
    super::{
        LabOptions,
        topology::{Leaf, Topology},
    },
    Error,
    build::{Net, Node},
    daemons::{self, Daemons},
    failed,
    netns::Namespace,
    ping::ping,
};

/// Prints a line; a closed pipe does not end the lab.
macro_rules! outln {
    ($($text:tt)*) => {{
        let _ = writeln!(stdout(), $($text)*);
    }};
}
use crate::net::Prefix;

/// Protocol number of routelet's routes in the kernel.
const PROTOCOL: u8 = 179;
/// Limit of the wait for a change of routes.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// Time between reads of the kernels' tables.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Builds `lab` and runs the demonstration.
pub(super) async fn run(lab: Topology, options: LabOptions) -> Result<(), Error> {
    outln!("{}", lab.picture(options.peer).trim_end_matches('\n'));
    let began = Instant::now();
    let net = Net::build(lab).await?;
    let mut daemons = Daemons::start(lab, &net, options.peer)?;
    outln!("\nbuilt in {}", seconds(began.elapsed()));

    let result = steps(&net, &mut daemons, options.peer).await;
    if options.keep {
        print_hints(lab, &daemons);
    }
    result?;
    outln!("\nevery ping got a reply ({} in all)", seconds(began.elapsed()));
    Ok(())
}

async fn steps(net: &Net, daemons: &mut Daemons, leaf: Leaf) -> Result<(), Error> {
    let took = converge(net, daemons, "converging", |_, _| Some(true)).await?;
    outln!("converged in {}: each host's kernel has the pods of all others", seconds(took));
    show(net, daemons, leaf).await?;
    let mut lost = ping_all(net)?;
    lost += cut(net, daemons).await?;
    match lost {
        0 => Ok(()),
        _ => Err(Error::Runtime(format!(
            "{lost} pings got no reply; `routelet lab --keep` keeps a lab for inspection"
        ))),
    }
}

/// The leaf's number among the hosts, which count from 1.
const LEAF: u8 = 0;

/// Waits until the kernel of every host and of the leaf (`who`) has the routes to the others' pods
/// (`whose`) for which `wanted(who, whose)` is true, and none for which it is false; `None` allows
/// either.
async fn converge(
    net: &Net,
    daemons: &mut Daemons,
    what: &str,
    wanted: impl Fn(u8, u8) -> Option<bool>,
) -> Result<Duration, Error> {
    let began = Instant::now();
    let mut progress = Progress::new();
    loop {
        daemons.check()?;
        let everyone = net.hosts.iter().map(|node| (node.host.n, &node.ns)).chain([(LEAF, &net.leaf)]);
        let tables =
            try_join_all(everyone.map(async |(who, ns)| Ok::<_, Error>((who, routes(ns).await?)))).await?;
        let (mut right, mut all) = (0, 0);
        for (who, table) in &tables {
            for other in net.hosts.iter().filter(|other| other.host.n != *who) {
                let Some(wanted) = wanted(*who, other.host.n) else { continue };
                for prefix in pods(net, other) {
                    all += 1;
                    right += usize::from(table.contains_key(&prefix) == wanted);
                }
            }
        }
        let took = began.elapsed();
        progress.show(&format!("{what}: {right} of {all} routes correct, {}", seconds(took)));
        if right == all {
            progress.end();
            return Ok(took);
        }
        if took > CONVERGENCE_TIMEOUT {
            progress.end();
            for Node { host, .. } in &net.hosts {
                let name = host.name();
                outln!("\n── {name}: neighbors\n{}", daemons.show(&name, &["neighbors"]));
            }
            return Err(Error::Runtime(format!(
                "{what}: {right} of {all} routes after {}: `routelet lab --keep` keeps a lab for inspection",
                seconds(took)
            )));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn show(net: &Net, daemons: &Daemons, leaf: Leaf) -> Result<(), Error> {
    outln!("\n── leaf: the table of {leaf}\n{}", daemons.leaf_table().trim_end());
    for node in &net.hosts {
        let name = node.host.name();
        outln!("\n── {name}: neighbors\n{}", daemons.show(&name, &["neighbors"]).trim_end());
        outln!("── {name}: learned routes in the kernel");
        for (prefix, route) in routes(&node.ns).await? {
            if route.header.protocol == RouteProtocol::from(PROTOCOL) {
                outln!("{prefix} {}", next_hops(&route));
            }
        }
    }
    Ok(())
}

/// Pings every pod from every other one. Returns how many pings had no reply.
fn ping_all(net: &Net) -> Result<usize, Error> {
    outln!("\n── pings, pod to pod");
    let replies: Vec<Result<Vec<_>, std::io::Error>> = thread::scope(|scope| {
        let from = |node: &Node| {
            let others = net.hosts.iter().filter(|other| other.host.n != node.host.n);
            let targets: Vec<IpAddr> = others.flat_map(|other| pod_addresses(net, other)).collect();
            node.pod.within(|| {
                targets.into_iter().zip(1..).map(|(target, n)| Ok((target, ping(target, n)?))).collect()
            })
        };
        let threads: Vec<_> = net.hosts.iter().map(|node| scope.spawn(move || from(node))).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked"))))
            .collect()
    });
    let mut lost = 0;
    for (node, replies) in net.hosts.iter().zip(replies) {
        for (target, reply) in
            replies.map_err(failed(format!("cannot ping from {}", node.host.pod_name())))?
        {
            let name = node.host.pod_name();
            match reply {
                Some(took) => outln!("{name} → {target:<16} {:.2} ms", took.as_secs_f64() * 1000.0),
                None => {
                    lost += 1;
                    outln!("{name} → {target:<16} NO REPLY");
                }
            }
        }
    }
    Ok(lost)
}

/// Shuts the leaf's port to the first host, opens it again, and pings once more.
async fn cut(net: &Net, daemons: &mut Daemons) -> Result<usize, Error> {
    let Some(first) = net.hosts.first().map(|node| node.host) else { return Ok(0) };
    outln!("\n── disconnecting {}", first.name());
    let port = first.port();
    net.leaf.set(LinkUnspec::new_with_name(&port).down().build()).await?;
    // The isolated host may keep its routes, as no neighbor withdraws them.
    let alone = |who, whose| (who != first.n).then_some(whose != first.n);
    let gone = converge(net, daemons, "withdrawing", alone).await?;
    outln!("the routes to its pods left the leaf and the other hosts in {}", seconds(gone));
    net.leaf.set(LinkUnspec::new_with_name(&port).up().build()).await?;
    outln!("\n── reconnecting it");
    let back = converge(net, daemons, "restoring", |_, _| Some(true)).await?;
    outln!("all routes are back in {}", seconds(back));
    ping_all(net)
}

fn print_hints(lab: Topology, daemons: &Daemons) {
    let host = lab.namespace("host1");
    let pod = lab.namespace("pod1");
    let socket = daemons.socket("host1");
    let routelet = daemons::program();
    outln!("\n── the lab is kept; commands to inspect it:");
    outln!("ip netns list | grep {}", lab.namespace(""));
    outln!("ip netns exec {host} ip route show proto {PROTOCOL}");
    outln!("ip netns exec {pod} ping 10.1.2.10");
    outln!("{routelet} show summary --socket {}", socket.display());
    outln!("{routelet} show routes --socket {}", socket.display());
    for command in daemons.leaf_commands() {
        outln!("{command}");
    }
    outln!("tail -F {}/*.log", super::dir(lab.pid).display());
    outln!("── remove it with:\n{routelet} lab --remove");
}

fn pods(net: &Net, node: &Node) -> Vec<Prefix> {
    let mut pods = vec![node.host.pods()];
    pods.extend(net.ipv6.then(|| node.host.pods6()));
    pods
}

fn pod_addresses(net: &Net, node: &Node) -> Vec<IpAddr> {
    let (v4, v6) = node.host.pod();
    let mut pods = vec![IpAddr::V4(v4)];
    pods.extend(net.ipv6.then_some(IpAddr::V6(v6)));
    pods
}

/// The routes of a namespace's main table that have a next hop.
async fn routes(ns: &Namespace) -> Result<BTreeMap<Prefix, RouteMessage>, Error> {
    let mut found = BTreeMap::new();
    for request in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let mut routes = std::pin::pin!(ns.netlink.route().get(request).execute());
        while let Some(route) =
            routes.try_next().await.map_err(failed(format!("{}: cannot read routes", ns.name)))?
        {
            if route.header.kind == RouteType::Unicast
                && route.header.table == RouteHeader::RT_TABLE_MAIN
                && let Some(prefix) = destination(&route)
            {
                found.insert(prefix, route);
            }
        }
    }
    Ok(found)
}

fn destination(route: &RouteMessage) -> Option<Prefix> {
    let length = route.header.destination_prefix_length;
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Prefix::new((*address).into(), length),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Prefix::new((*address).into(), length),
        _ => None,
    })
}

/// In the notation of `ip route`.
fn next_hops(route: &RouteMessage) -> String {
    let parts = route.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(format!("via {address}")),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(format!("via {address}")),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(format!("via {address}")),
        RouteAttribute::MultiPath(hops) => Some(format!("via {} next hops", hops.len())),
        RouteAttribute::Priority(metric) => Some(format!("metric {metric}")),
        _ => None,
    });
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by_key(|part| !part.starts_with("via"));
    parts.join(" ")
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A status line that is overwritten, if there is a terminal.
struct Progress(bool);

impl Progress {
    fn new() -> Self {
        Self(stdout().is_terminal())
    }

    fn show(&mut self, text: &str) {
        if self.0 {
            let _ = write!(stdout(), "\r{text}\x1b[K");
            // A terminal that is gone does not stop the lab.
            let _ = stdout().flush();
        }
    }

    fn end(&mut self) {
        if self.0 {
            let _ = write!(stdout(), "\r\x1b[K");
        }
    }
}
