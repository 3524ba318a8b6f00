//! Starts the tasks on the path of routes: kernel, RIB, BFD, FIB and neighbors.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use tokio::sync::{Notify, watch};

use super::{
    Error, bfd as bfd_report, context::Context, kernel_routes, memory, planner::Outputs, readiness, state,
};
use crate::{
    bfd,
    bgp::{
        self,
        io::rib::{FibSender, Hooks, RibHandle, RibInputs},
    },
    fib::{
        self,
        former::{Location, Record},
        host::Host,
        io::{FibHandle, Kernel},
    },
    liveness,
    mailbox::{self, mailbox},
    net::Prefix,
};

/// The tasks on the path of routes, without the neighbors.
pub(super) struct Routing {
    /// Links, addresses and default routes.
    pub(super) host: watch::Receiver<Arc<Host>>,
    pub(super) rib: RibHandle,
    pub(super) fib: FibHandle,
    pub(super) bfd: bfd::io::Handle,
    pub(super) liveness: liveness::Client,
    /// Prefixes that were learned or lost, for masquerading under Kubernetes.
    pub(super) learned: Option<mailbox::Receiver<Prefix, bool>>,
    /// Whether this start is a graceful restart that is not over.
    pub(super) restarting: watch::Receiver<bool>,
}

impl Routing {
    /// # Errors
    ///
    /// If netlink is denied.
    pub(super) async fn start(
        context: &Context,
        outputs: &Outputs,
        budget: watch::Receiver<u64>,
    ) -> Result<Self, Error> {
        let (kernel, former) = open_kernel(context).await?;
        let host = kernel.host();
        let (to_fib, routes) = mailbox();
        let (learned_tx, learned) = context.kubernetes.then(mailbox).unzip();
        let rib = spawn_rib(
            RibInputs {
                global: outputs.global.subscribe(),
                originated: outputs.originated.subscribe(),
                reachable: outputs.reachable.subscribe(),
                guard: outputs.guard.subscribe(),
                budget,
                learned: learned_tx,
            },
            to_fib,
            &kernel,
        );
        let (liveness, bfd) = spawn_bfd();
        let inputs = fib::io::Inputs {
            routes,
            own: outputs.unreachable.subscribe(),
            convergence: rib.convergence.clone(),
            sources: outputs.sources.subscribe(),
            assigned: outputs.assigned.subscribe(),
            lost: bfd.lost.clone(),
        };
        let fib = spawn_fib(context, kernel, inputs, former);
        let restarting = readiness::restart(&fib.client(), &context.config, rib.convergence.clone()).await;
        Ok(Self { host, rib, fib, bfd, liveness, learned, restarting })
    }
}

/// Where our routes were, and where they are now.
type Former = (Record, Option<Location>);

/// Opens netlink. The location of our routes is recorded first, so that a crash leaves no routes
/// that are not on record.
async fn open_kernel(context: &Context) -> Result<(Kernel, Former), Error> {
    let settings = kernel_routes::settings(&context.config);
    let (record, place) = (state::former(&context.state_dir), settings.location());
    state::keep_former(&context.state_dir, &record.with(place));
    let kernel = Kernel::open_after(settings, record.former(place)).await.map_err(|e| {
        Error::Runtime(format!("netlink: {e}; routelet needs root, or the capability NET_ADMIN"))
    })?;
    Ok((kernel, (record, place)))
}

fn spawn_rib(inputs: RibInputs, to_fib: FibSender, kernel: &Kernel) -> RibHandle {
    let counters = kernel.counters();
    let shrunk = Arc::new(Notify::new());
    tokio::spawn(memory::trim_heap(shrunk.clone()));
    let hooks = Hooks {
        on_post: Box::new(move |read_at| counters.update_read(read_at)),
        on_less: Box::new(move || shrunk.notify_one()),
    };
    bgp::io::rib::spawn(inputs, to_fib, hooks)
}

fn spawn_bfd() -> (liveness::Client, bfd::io::Handle) {
    let (client, wishes) = liveness::channel();
    let bfd = bfd::io::spawn(wishes, RandomState::new().hash_one(std::process::id()));
    tokio::spawn(bfd_report::report(bfd.clone()));
    (client, bfd)
}

fn spawn_fib(
    context: &Context,
    kernel: Kernel,
    inputs: fib::io::Inputs,
    (record, place): Former,
) -> FibHandle {
    let folder = context.state_dir.clone();
    let fib = kernel.spawn_and(inputs, move || state::keep_former(&folder, &record.swept(place)));
    let state_dir = context.state_dir.clone();
    tokio::spawn(kernel_routes::follow(context.in_force.clone(), fib.client(), state_dir));
    fib
}

/// Starts the sessions, from the neighbors to the RIB.
pub(super) fn spawn_neighbors(context: &Context, outputs: &Outputs, routing: &Routing) -> bgp::io::Handle {
    bgp::io::spawn(
        outputs.wanted.subscribe(),
        outputs.links.subscribe(),
        routing.rib.convergence.clone(),
        routing.rib.sender.clone(),
        routing.liveness.clone(),
        context.owners.clone(),
    )
}
