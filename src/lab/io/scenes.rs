//! Scenes: one thing each, in less than 20 s.

use std::{
    io::{Write, stdout},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    super::{Scene, topology::Leaf},
    Error,
    build::Net,
    daemons::Daemons,
    demo::{Who, converge, open, pod_addresses, seconds, shut, steps, whole},
    failed,
    ping::{Probes, probe},
};

/// Time between two packets of a stream.
const INTERVAL: Duration = Duration::from_millis(2);
/// How long a scene waits for what a command does.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn play(scene: Scene, net: &Net, daemons: &mut Daemons) -> Result<(), Error> {
    if scene == Scene::Unnumbered {
        return steps(net, daemons, Leaf::Routelet).await;
    }
    let took = converge(net, daemons, "converging", |who, _| Some(whole(net, who))).await?;
    outln!("converged in {}", seconds(took));
    match scene {
        Scene::Bfd => bfd(net, daemons).await,
        Scene::Failover => failover(net, daemons).await,
        Scene::Drain => drain(net, daemons).await,
        Scene::Unnumbered => Ok(()),
    }
}

/// An uplink is cut and comes back, while packets pass between the pods of the first two hosts.
async fn failover(net: &Net, daemons: &mut Daemons) -> Result<(), Error> {
    let [first, second, ..] = net.hosts.as_slice() else { return Ok(()) };
    let Some(target) = pod_addresses(net, second).first().copied() else { return Ok(()) };
    let over = Arc::new(AtomicBool::new(false));
    let probing = {
        let over = over.clone();
        first.pod.spawn(move || probe(target, INTERVAL, &over))
    };
    let wrong = || failed("cannot send packets");
    let probing = probing.map_err(wrong())?;
    let outcome = cut_once(net, daemons).await;
    over.store(true, Ordering::Relaxed);
    let probes = probing.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")));
    outcome?;
    let probes = probes.map_err(wrong())?;
    let Probes { sent, lost } = probes;
    outln!("{sent} packets from {} to {target}, one each 2 ms: {lost} lost", first.host.pod_name());
    Ok(())
}

async fn cut_once(net: &Net, daemons: &mut Daemons) -> Result<(), Error> {
    tokio::time::sleep(Duration::from_millis(300)).await;
    let gone = shut(net, daemons, 0).await?;
    outln!("host1 loses its uplink to leaf1: all routes take leaf2 after {}", seconds(gone));
    let back = open(net, daemons, 0).await?;
    outln!("the uplink is back: both leaves are used again after {}", seconds(back));
    Ok(())
}

/// The daemon of the first host is stopped. Its links stay up, so that only BFD notices soon.
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
