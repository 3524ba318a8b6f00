//! What a lab shows, in order: convergence, tables, pings, a cut and its repair.

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

/// A line for whoever still reads: a closed pipe does not end the lab.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(stdout(), $($text)*);
    }};
}
use crate::net::Prefix;

/// What routelet's routes are marked with in the kernel.
const PROTOCOL: u8 = 179;
/// The longest wait for a change of routes.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at the kernels.
const LOOK: Duration = Duration::from_millis(5);

/// Builds `lab` and tells its story.
pub(super) async fn tell(lab: Topology, options: LabOptions) -> Result<(), Error> {
    say!("{}", lab.picture(options.peer).trim_end_matches('\n'));
    let began = Instant::now();
    let net = Net::build(lab).await?;
    let mut daemons = Daemons::start(lab, &net, options.peer)?;
    say!("\nbuilt in {}", seconds(began.elapsed()));

    let told = chapters(&net, &mut daemons, options.peer).await;
    if options.keep {
        look_around(lab, &daemons);
    }
    told?;
    say!("\nevery ping was answered ({} in all)", seconds(began.elapsed()));
    Ok(())
}

async fn chapters(net: &Net, daemons: &mut Daemons, leaf: Leaf) -> Result<(), Error> {
    let took = converge(net, daemons, "converging", |_, _| Some(true)).await?;
    say!("converged in {}: each host's kernel has the pods of all others", seconds(took));
    show(net, daemons, leaf).await?;
    let mut lost = ping_all(net)?;
    lost += cut(net, daemons).await?;
    match lost {
        0 => Ok(()),
        _ => Err(Error::Runtime(format!(
            "{lost} pings were not answered: `routelet lab --keep` leaves a lab to look into"
        ))),
    }
}

/// The leaf's place among the hosts, who count from 1.
const LEAF: u8 = 0;

/// Waits until the kernel of every host and of the leaf (`who`) has the routes to the others' pods (`whose`) that
/// `wanted(who, whose)` asks for, and none that it refuses; `None`: either will do.
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
        progress.say(&format!("{what}: {right} of {all} routes as they should be, {}", seconds(took)));
        if right == all {
            progress.end();
            return Ok(took);
        }
        if took > PATIENCE {
            progress.end();
            for Node { host, .. } in &net.hosts {
                let name = host.name();
                say!("\n── {name}: neighbors\n{}", daemons.show(&name, &["neighbors"]));
            }
            return Err(Error::Runtime(format!(
                "{what}: {right} of {all} routes after {}: `routelet lab --keep` leaves a lab to look into",
                seconds(took)
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn show(net: &Net, daemons: &Daemons, leaf: Leaf) -> Result<(), Error> {
    say!("\n── leaf: the table of {leaf}\n{}", daemons.leaf_table().trim_end());
    for node in &net.hosts {
        let name = node.host.name();
        say!("\n── {name}: neighbors\n{}", daemons.show(&name, &["neighbors"]).trim_end());
        say!("── {name}: learned routes in the kernel");
        for (prefix, route) in routes(&node.ns).await? {
            if route.header.protocol == RouteProtocol::from(PROTOCOL) {
                say!("{prefix} {}", next_hops(&route));
            }
        }
    }
    Ok(())
}

/// Every pod pings every other one. Says how many were not answered.
fn ping_all(net: &Net) -> Result<usize, Error> {
    say!("\n── pings, pod to pod");
    let answers: Vec<Result<Vec<_>, std::io::Error>> = thread::scope(|scope| {
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
    for (node, answers) in net.hosts.iter().zip(answers) {
        for (target, answer) in
            answers.map_err(failed(format!("cannot ping from {}", node.host.pod_name())))?
        {
            let name = node.host.pod_name();
            match answer {
                Some(took) => say!("{name} → {target:<16} {:.2} ms", took.as_secs_f64() * 1000.0),
                None => {
                    lost += 1;
                    say!("{name} → {target:<16} NO ANSWER");
                }
            }
        }
    }
    Ok(lost)
}

/// Shuts the leaf's port to the first host, opens it again, and pings once more.
async fn cut(net: &Net, daemons: &mut Daemons) -> Result<usize, Error> {
    let Some(first) = net.hosts.first().map(|node| node.host) else { return Ok(0) };
    say!("\n── the cable of {} is pulled", first.name());
    let port = first.port();
    net.leaf.set(LinkUnspec::new_with_name(&port).down().build()).await?;
    // The host that is cut off may keep what it has: nobody told it otherwise.
    let alone = |who, whose| (who != first.n).then_some(whose != first.n);
    let gone = converge(net, daemons, "going", alone).await?;
    say!("the routes to its pods left the leaf and the other hosts in {}", seconds(gone));
    net.leaf.set(LinkUnspec::new_with_name(&port).up().build()).await?;
    say!("\n── and put back");
    let back = converge(net, daemons, "coming back", |_, _| Some(true)).await?;
    say!("all routes are back in {}", seconds(back));
    ping_all(net)
}

fn look_around(lab: Topology, daemons: &Daemons) {
    let host = lab.namespace("host1");
    let pod = lab.namespace("pod1");
    let socket = daemons.socket("host1");
    let routelet = daemons::program();
    say!("\n── the lab stays; look around:");
    say!("ip netns list | grep {}", lab.namespace(""));
    say!("ip netns exec {host} ip route show proto {PROTOCOL}");
    say!("ip netns exec {pod} ping 10.1.2.10");
    say!("{routelet} show summary --socket {}", socket.display());
    say!("{routelet} show routes --socket {}", socket.display());
    for command in daemons.leaf_commands() {
        say!("{command}");
    }
    say!("tail -F {}/*.log", super::dir(lab.pid).display());
    say!("── remove it with:\n{routelet} lab --remove");
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

/// The routes of a namespace's main table that lead somewhere.
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

/// As `ip route` writes them.
fn next_hops(route: &RouteMessage) -> String {
    let words = route.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(format!("via {address}")),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(format!("via {address}")),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(format!("via {address}")),
        RouteAttribute::MultiPath(hops) => Some(format!("via {} next hops", hops.len())),
        RouteAttribute::Priority(metric) => Some(format!("metric {metric}")),
        _ => None,
    });
    let mut words: Vec<_> = words.collect();
    words.sort_by_key(|word| !word.starts_with("via"));
    words.join(" ")
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// One line that is overwritten, where there is a terminal.
struct Progress(bool);

impl Progress {
    fn new() -> Self {
        Self(stdout().is_terminal())
    }

    fn say(&mut self, text: &str) {
        if self.0 {
            let _ = write!(stdout(), "\r{text}\x1b[K");
            // A terminal that is gone is no reason to stop.
            let _ = stdout().flush();
        }
    }

    fn end(&mut self) {
        if self.0 {
            let _ = write!(stdout(), "\r\x1b[K");
        }
    }
}
