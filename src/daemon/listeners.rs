//! The listeners that follow the configuration: the control socket, metrics and probes.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{planner::due, queries::QueryHandler};
use crate::{
    bgp::io::{owners_of, port_taken},
    config::{Config, Control},
    control::io::{
        http,
        server::{self, BindError, ControlSocket},
    },
    net::Diagnostic,
};

/// How long clients of the former control socket may wait for their responses.
const LINGER: Duration = Duration::from_secs(5);

/// A request to move the control socket, or to change its group.
pub(super) struct Move {
    pub(super) to: Control,
    /// Receives the error if that is not possible while the daemon runs.
    pub(super) reply: oneshot::Sender<Result<(), BindError>>,
}

/// A former control socket.
struct Former {
    path: PathBuf,
    serving: JoinHandle<()>,
    until: Instant,
}

/// Serves the control socket, and moves it on request.
pub(super) async fn control(
    socket: ControlSocket,
    mut now: Control,
    mut moves: mpsc::Receiver<Move>,
    queries: QueryHandler,
) {
    let serve = |socket: ControlSocket| {
        let queries = queries.clone();
        tokio::spawn(socket.serve(move |query| queries.clone().handle(query)))
    };
    let mut serving = serve(socket);
    // The oldest first.
    let mut former: Vec<Former> = Vec::new();
    loop {
        // Both arms are cancel safe.
        let order = tokio::select! {
            () = due(former.first().map(|f| f.until)) => {
                former.remove(0).serving.abort();
                continue;
            }
            order = moves.recv() => order,
        };
        let Some(Move { to, reply }) = order else { break };
        let back = former.iter().position(|f| f.path == to.socket);
        let moved = if to.socket == now.socket || back.is_some() {
            let group = server::set_group(&to.socket, to.group.as_deref());
            group.map(|()| back.map(|at| former.remove(at).serving))
        } else {
            server::bind(&to.socket, to.group.as_deref()).await.map(|socket| Some(serve(socket)))
        };
        let moved = moved.map(|next| {
            let path = std::mem::replace(&mut now, to).socket;
            if let Some(next) = next {
                let (serving, until) = (std::mem::replace(&mut serving, next), Instant::now() + LINGER);
                former.push(Former { path, serving, until });
            }
        });
        let _ = reply.send(moved);
    }
    let _ = serving.await;
}

/// Serves metrics and probes on the configured addresses.
pub(super) async fn metrics(
    mut listeners: Vec<TcpListener>,
    mut config: watch::Receiver<Arc<Config>>,
    problems: watch::Sender<Vec<Diagnostic>>,
    queries: QueryHandler,
) {
    let mut now = config.borrow_and_update().metrics.listen.clone();
    loop {
        let page = queries.clone();
        // Both arms are cancel safe.
        tokio::select! {
            () = http::serve(std::mem::take(&mut listeners), move |p| page.clone().page(p)) => return,
            changed = config.wait_for(|c| c.metrics.listen != now) => match changed {
                Ok(config) => now.clone_from(&config.metrics.listen),
                Err(_) => return,
            },
        }
        let taken;
        (listeners, taken) = http::bind(&now).await;
        problems.send_replace(taken_ports(&taken));
    }
}

/// The problems of addresses on which metrics cannot be served.
pub(super) fn taken_ports(taken: &[(SocketAddr, std::io::Error)]) -> Vec<Diagnostic> {
    let addresses: Vec<_> = taken.iter().map(|(address, _)| *address).collect();
    let owners = owners_of(&addresses);
    let problem = |(address, error): &(SocketAddr, std::io::Error)| {
        port_taken(*address, "metrics.listen", error, owners.get(&address.port()))
    };
    taken.iter().map(problem).collect()
}
