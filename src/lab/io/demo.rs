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
        topology::{Host, Leaf, Topology},
    },
    Error,
    build::{Net, Node},
    daemons::{self, Daemons},
    failed,
    netns::Namespace,
    ping::ping,
    scenes,
};

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
    let engine = match (lab.docker, net.hosts.first()) {
        (true, Some(node)) => Some(daemons.docker(&node.ns, &node.host.name())?),
        _ => None,
    };
    outln!("\nbuilt in {}", seconds(began.elapsed()));

    let result = match options.scene {
        Some(scene) => scenes::play(scene, &net, &mut daemons, engine.as_ref()).await,
        None => steps(&net, &mut daemons, options.peer).await,
    };
    if options.keep {
        print_hints(lab, &daemons);
    }
    result?;
    match options.scene {
        Some(_) => outln!("\ndone in {}", seconds(began.elapsed())),
        None => outln!("\nevery ping got a reply ({} in all)", seconds(began.elapsed())),
    }
    Ok(())
}

pub(super) async fn steps(net: &Net, daemons: &mut Daemons, leaf: Leaf) -> Result<(), Error> {
    let took = converge(net, daemons, "converging", |who, _| Some(whole(net, who))).await?;
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

/// The node whose kernel is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// From 0.
    Leaf(usize),
    /// From 1.
    Host(u8),
}

/// The number of next hops of a route in a complete fabric: a host reaches the others by every
/// leaf.
pub(super) fn whole(net: &Net, who: Who) -> usize {
    match who {
        Who::Leaf(_) => 1,
        Who::Host(_) => net.next_hops,
    }
}

/// Waits until the kernel of every host and leaf (`who`) has as many next hops to the pods of each
/// other host (`whose`) as `wanted(who, whose)`, 0 for no route; `None` allows any.
pub(super) async fn converge(
    net: &Net,
    daemons: &mut Daemons,
    what: &str,
    wanted: impl Fn(Who, u8) -> Option<usize>,
) -> Result<Duration, Error> {
    let began = Instant::now();
    let mut progress = Progress::new();
    loop {
        daemons.check()?;
        let leaves = net.leaves.iter().enumerate().map(|(n, ns)| (Who::Leaf(n), ns));
        let everyone = net.hosts.iter().map(|node| (Who::Host(node.host.n), &node.ns)).chain(leaves);
        let tables =
            try_join_all(everyone.map(async |(who, ns)| Ok::<_, Error>((who, routes(ns).await?)))).await?;
        let (mut right, mut all) = (0, 0);
        for (who, table) in &tables {
            for other in net.hosts.iter().filter(|other| Who::Host(other.host.n) != *who) {
                let Some(wanted) = wanted(*who, other.host.n) else { continue };
                for prefix in pods(net, other) {
                    all += 1;
                    right += usize::from(table.get(&prefix).map_or(0, count_next_hops) == wanted);
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
    outln!("\n── {}: the table of {leaf}\n{}", daemons.first_leaf(), daemons.leaf_table().trim_end());
    for node in &net.hosts {
        let name = node.host.name();
        if net.leaves.len() > 1 {
            outln!("\n── {name}: what it found out\n{}", daemons.show(&name, &["host"]).trim_end());
        }
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

/// Cuts the first host's uplinks, one after the other, and pings once more.
async fn cut(net: &Net, daemons: &mut Daemons) -> Result<usize, Error> {
    let mut lost = 0;
    for leaf in 0..net.leaves.len() {
        lost += cut_uplink(net, daemons, leaf).await?;
    }
    Ok(lost + ping_all(net)?)
}

/// Shuts a leaf's port to the first host and opens it again. With another leaf, every pod stays
/// reachable.
async fn cut_uplink(net: &Net, daemons: &mut Daemons, leaf: usize) -> Result<usize, Error> {
    let Some(name) = net.hosts.first().map(|node| node.host.name()) else { return Ok(0) };
    let alone = net.leaves.len() == 1;
    match alone {
        true => outln!("\n── disconnecting {name}"),
        false => outln!("\n── disconnecting {name} from leaf{}", leaf + 1),
    }
    let gone = shut(net, daemons, leaf).await?;
    let mut lost = 0;
    if alone {
        outln!("the routes to its pods left the leaf and the other hosts in {}", seconds(gone));
    } else {
        outln!("all routes to and from it take the other leaf after {}", seconds(gone));
        lost = ping_all(net)?;
    }
    outln!("\n── reconnecting it");
    let back = open(net, daemons, leaf).await?;
    outln!("all routes are back in {}", seconds(back));
    Ok(lost)
}

/// Shuts the leaf's port to the first host, and waits until no kernel uses it.
pub(super) async fn shut(net: &Net, daemons: &mut Daemons, leaf: usize) -> Result<Duration, Error> {
    let Some((ns, first)) = port(net, leaf) else { return Ok(Duration::ZERO) };
    ns.set(LinkUnspec::new_with_name(&first.port()).down().build()).await?;
    let leaves = net.leaves.len();
    converge(net, daemons, "withdrawing", |who, whose| match who {
        // An isolated host may keep its routes, as no neighbor withdraws them.
        Who::Host(n) if n == first.n => (leaves > 1).then_some(leaves - 1),
        Who::Host(_) if whose == first.n => Some(leaves - 1),
        Who::Leaf(n) if whose == first.n => Some(usize::from(n != leaf)),
        who => Some(whole(net, who)),
    })
    .await
}

/// Opens the port again, and waits until no route is missing.
pub(super) async fn open(net: &Net, daemons: &mut Daemons, leaf: usize) -> Result<Duration, Error> {
    let Some((ns, first)) = port(net, leaf) else { return Ok(Duration::ZERO) };
    ns.set(LinkUnspec::new_with_name(&first.port()).up().build()).await?;
    converge(net, daemons, "restoring", |who, _| Some(whole(net, who))).await
}

fn port(net: &Net, leaf: usize) -> Option<(&Namespace, Host)> {
    Some((net.leaves.get(leaf)?, net.hosts.first()?.host))
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

pub(super) fn pod_addresses(net: &Net, node: &Node) -> Vec<IpAddr> {
    let (v4, v6) = node.host.pod();
    let mut pods = vec![IpAddr::V4(v4)];
    pods.extend(net.ipv6.then_some(IpAddr::V6(v6)));
    pods
}

/// The routes of a namespace's main table that have a next hop.
pub(super) async fn routes(ns: &Namespace) -> Result<BTreeMap<Prefix, RouteMessage>, Error> {
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

fn count_next_hops(route: &RouteMessage) -> usize {
    let several = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops.len()),
        _ => None,
    });
    several.unwrap_or(1)
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

pub(super) fn seconds(time: Duration) -> String {
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
