//! Scenes: each shows one thing in less than 20 s.

use std::{
    io::{Write, stdout},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    super::{
        Scene,
        topology::{BRIDGE, DOCKER_NETWORK, Leaf},
    },
    Error,
    build::{Net, Node},
    daemons::Daemons,
    demo::{Who, converge, open, pod_addresses, routes, seconds, shut, steps, whole},
    docker::Engine,
    failed,
    ping::{Probes, ping, probe},
};
use crate::net::Prefix;

/// Time between two packets of a stream.
const INTERVAL: Duration = Duration::from_millis(2);
/// How long a scene waits for the effect of a command.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a Docker engine may take to start.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(30);
/// Gateway of the subnet that a host gets while a reflector is missing.
const NEW_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 1);
/// Address of the container.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 10);

/// Plays a scene. `engine`: for the one that shows Docker.
pub(super) async fn play(
    scene: Scene,
    net: &Net,
    daemons: &mut Daemons,
    engine: Option<&Engine>,
) -> Result<(), Error> {
    if scene == Scene::Unnumbered {
        steps(net, daemons, Leaf::Routelet).await?;
        outln!("\nshown: hosts without addresses on their uplinks and without BGP configuration");
        outln!("reach each other over two leaves, and over one when the other is lost");
        return Ok(());
    }
    let took = converge(net, daemons, "converging", |who, _| Some(whole(net, who))).await?;
    outln!("converged in {}", seconds(took));
    match scene {
        Scene::Bfd => bfd(net, daemons).await,
        Scene::Failover => failover(net, daemons).await,
        Scene::Drain => drain(net, daemons).await,
        Scene::Reflectors => reflectors(net, daemons).await,
        Scene::Docker => match engine {
            Some(engine) => docker(net, daemons, engine).await,
            None => Ok(()),
        },
        Scene::Unnumbered => Ok(()),
    }
}

/// An uplink is cut and comes back, while packets pass between the pods of the first two hosts.
async fn failover(net: &Net, daemons: &mut Daemons) -> Result<(), Error> {
    under_packets(net, cut_once(net, daemons)).await?;
    outln!("\nshown: all routes take the other uplink as soon as one is lost, and both when it is back");
    Ok(())
}

/// Sends packets between the pods of the first two hosts while `change` goes on.
async fn under_packets(net: &Net, change: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let [first, second, ..] = net.hosts.as_slice() else { return Ok(()) };
    let Some(target) = pod_addresses(net, second).first().copied() else { return Ok(()) };
    let over = Arc::new(AtomicBool::new(false));
    let probing = {
        let over = over.clone();
        first.pod.spawn(move || probe(target, INTERVAL, &over))
    };
    let wrong = || failed("cannot send packets");
    let probing = probing.map_err(wrong())?;
    let outcome = change.await;
    over.store(true, Ordering::Relaxed);
    let probes = probing.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")));
    outcome?;
    let Probes { sent, lost } = probes.map_err(wrong())?;
    outln!("{sent} packets from {} to {target}, one each 2 ms: {lost} lost", first.host.pod_name());
    Ok(())
}

/// One of two reflectors ends and returns, while packets pass between the pods of the first two
/// hosts.
async fn reflectors(net: &Net, daemons: &mut Daemons) -> Result<(), Error> {
    let [first, second, ..] = net.hosts.as_slice() else { return Ok(()) };
    let (observer, pods) = (second.host.name(), first.host.pods().to_string());
    wait("sessions with both reflectors", || (established(daemons, &observer) == 2).then_some(())).await?;
    outln!("\n── {observer}: routes {pods}\n{}", daemons.show(&observer, &["routes", &pods]).trim_end());
    outln!("");
    under_packets(net, end_reflector(net, daemons)).await?;
    outln!("\nshown: the next hop of a route is the host that has the pods, so that packets pass no");
    outln!("reflector; one reflector is enough, and routes change while the other is missing");
    Ok(())
}

async fn end_reflector(net: &Net, daemons: &mut Daemons) -> Result<(), Error> {
    let ([first, second, ..], Some(ns)) = (net.hosts.as_slice(), net.leaves.first()) else { return Ok(()) };
    let (reflector, observer) = (daemons.first_leaf(), second.host.name());
    daemons.kill(reflector)?;
    wait("the session with the reflector is down", || (established(daemons, &observer) == 1).then_some(()))
        .await?;
    outln!("the daemon of {reflector} is killed: {observer} has one session left");
    let new = Prefix::v4(NEW_GATEWAY, 24);
    first.ns.address(BRIDGE, NEW_GATEWAY.into(), 24).await?;
    let took = seconds(learned(second, new, true).await?);
    outln!("a new subnet of {}, {new}, reaches {observer} by the other in {took}", first.host.name());
    daemons.launch(ns, reflector)?;
    wait("the session with the reflector is back", || (established(daemons, &observer) == 2).then_some(()))
        .await?;
    let back = converge(net, daemons, "restoring", |who, _| Some(whole(net, who))).await?;
    outln!("the daemon of {reflector} is started again: all its routes are back in {}", seconds(back));
    Ok(())
}

/// Sessions of a node that are established.
fn established(daemons: &Daemons, node: &str) -> usize {
    daemons.show(node, &["neighbors", "--json"]).matches("\"state\": \"established\"").count()
}

/// A network of Docker is advertised while a container is in it.
async fn docker(net: &Net, daemons: &mut Daemons, engine: &Engine) -> Result<(), Error> {
    let [first, second, ..] = net.hosts.as_slice() else { return Ok(()) };
    let name = first.host.name();
    let began = Instant::now();
    while !engine.is_ready() {
        daemons.check()?;
        if began.elapsed() > ENGINE_TIMEOUT {
            let took = seconds(began.elapsed());
            return Err(Error::Runtime(format!(
                "the Docker engine does not respond after {took}: see its log in `routelet lab scene docker --keep`"
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let subnet = Prefix::v4(CONTAINER, 24);
    engine.prepare(DOCKER_NETWORK, &subnet.to_string())?;
    outln!("\n── {name}: a Docker engine with the network `{DOCKER_NETWORK}`, no container");
    wait("routelet knows the network", || {
        daemons.show(&name, &["interfaces", "--json"]).contains(&subnet.to_string()).then_some(())
    })
    .await?;
    outln!("{}", daemons.show(&name, &["interfaces"]).trim_end());
    learned(second, subnet, false).await?;

    let began = Instant::now();
    engine.start("first", DOCKER_NETWORK, CONTAINER)?;
    let started = seconds(began.elapsed());
    let came = learned(second, subnet, true).await?;
    outln!("\n── a container is started with {CONTAINER} (docker run takes {started})");
    outln!("{} has the route to {subnet} {} later", second.host.name(), seconds(came));
    outln!("{}", daemons.show(&name, &["interfaces"]).trim_end());
    let reply = second.pod.within(|| ping(CONTAINER.into(), 1)).map_err(failed("cannot ping"))?;
    let Some(reply) = reply else {
        let state = daemons.command(&name, &["explain", &CONTAINER.to_string()]);
        return Err(Error::Runtime(format!("no reply from the container\n{state}")));
    };
    outln!("{} → {CONTAINER}: {:.2} ms", second.host.pod_name(), reply.as_secs_f64() * 1000.0);

    engine.remove("first")?;
    let gone = learned(second, subnet, false).await?;
    outln!("\n── the container is removed: the route is gone {} later", seconds(gone));
    outln!("\nshown: a Docker network is advertised exactly while a container runs in it, and the");
    outln!("container is reached from another host by its own address");
    Ok(())
}

/// Waits until the kernel of a host has a route to `prefix`, or has none.
async fn learned(node: &Node, prefix: Prefix, present: bool) -> Result<Duration, Error> {
    let began = Instant::now();
    while routes(&node.ns).await?.contains_key(&prefix) != present {
        if began.elapsed() > TIMEOUT {
            let state = if present { "no" } else { "still a" };
            return Err(Error::Runtime(format!("{} has {state} route to {prefix}", node.host.name())));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(began.elapsed())
}

async fn cut_once(net: &Net, daemons: &mut Daemons) -> Result<(), Error> {
    tokio::time::sleep(Duration::from_millis(300)).await;
    let gone = shut(net, daemons, 0).await?;
    outln!("host1 loses its uplink to leaf1: all routes take leaf2 after {}", seconds(gone));
    let back = open(net, daemons, 0).await?;
    outln!("the uplink is back: both leaves are used again after {}", seconds(back));
    Ok(())
}

/// The daemon of the first host is stopped. Its links stay up, so that only BFD detects it soon.
async fn bfd(net: &Net, daemons: &mut Daemons) -> Result<(), Error> {
    let sessions = net.hosts.len();
    wait("BFD is up with every host", || {
        (daemons.show("leaf", &["bfd", "--json"]).matches("\"state\": \"up\"").count() == sessions)
            .then_some(())
    })
    .await?;
    outln!("\n── leaf: BFD sessions\n{}", daemons.show("leaf", &["bfd"]).trim_end());
    let Some(host) = net.hosts.first().map(|node| node.host) else { return Ok(()) };
    let name = host.name();
    daemons.signal(&name, Signal::SIGSTOP)?;
    let lost = converge(net, daemons, "noticing", |who, whose| match who {
        Who::Host(n) if n == host.n => None,
        _ if whose == host.n => Some(0),
        who => Some(whole(net, who)),
    })
    .await;
    daemons.signal(&name, Signal::SIGCONT)?;
    let lost = lost?;
    outln!(
        "\nthe daemon of {name} is stopped, its links stay up: its routes are gone after {}",
        seconds(lost)
    );
    outln!("(50 ms × 3 by BFD; the hold time is 90 s)");
    let back = converge(net, daemons, "restoring", |who, _| Some(whole(net, who))).await?;
    outln!("it goes on: all routes are back in {}", seconds(back));
    outln!("\nshown: BFD detects a daemon that hangs in {}, the hold time would in 90 s", seconds(lost));
    Ok(())
}

/// The first host is taken out of traffic and back. Its session stays.
async fn drain(net: &Net, daemons: &mut Daemons) -> Result<(), Error> {
    let Some(host) = net.hosts.first().map(|node| node.host) else { return Ok(()) };
    let (name, pods) = (host.name(), host.pods().to_string());
    outln!("\n── routelet drain, on {name}\n{}", daemons.command(&name, &["drain"]).trim_end());
    wait("GRACEFUL_SHUTDOWN at the leaf", || {
        daemons.show("leaf", &["routes", &pods, "--json"]).contains("65535:0").then_some(())
    })
    .await?;
    outln!("the leaf has {pods} with the community GRACEFUL_SHUTDOWN (RFC 8326), and prefers other paths");
    outln!("\n── routelet drain --now\n{}", daemons.command(&name, &["drain", "--now"]).trim_end());
    let gone = converge(net, daemons, "withdrawing", |who, whose| match who {
        _ if whose == host.n => Some(0),
        who => Some(whole(net, who)),
    })
    .await?;
    outln!("its pods left every kernel in {}; its session stays:", seconds(gone));
    let neighbors = daemons.show(&name, &["neighbors"]);
    outln!("{}", neighbors.trim_end());
    if !neighbors.contains("established") {
        return Err(Error::Runtime(format!("{name} has lost its session while it was drained")));
    }
    outln!("\n── routelet undrain\n{}", daemons.command(&name, &["undrain"]).trim_end());
    let back = converge(net, daemons, "restoring", |who, _| Some(whole(net, who))).await?;
    outln!("all routes are back in {}", seconds(back));
    outln!("\nshown: a host leaves traffic, first by preference and then entirely, and comes back;");
    outln!("its session stays up");
    Ok(())
}

async fn wait<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> Result<T, Error> {
    let began = Instant::now();
    loop {
        if let Some(found) = check() {
            return Ok(found);
        }
        if began.elapsed() > TIMEOUT {
            return Err(Error::Runtime(format!(
                "no sign of this after {}: {what}; `routelet lab --keep` keeps a lab for inspection",
                seconds(began.elapsed())
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
