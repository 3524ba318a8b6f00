//! The inputs that all parts of the start share: options, configuration, the name of the node, the
//! state folder. Creating it claims the state folder and enters the sandbox.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::{RunOptions, host, limits, room::Limit, sandbox, state, survey};
use crate::{
    bgp::{self, io::Owners},
    config::Config,
    fib,
    net::Diagnostic,
    sandbox::{SandboxView, io::Held},
};

pub(super) struct Context {
    pub(super) options: RunOptions,
    /// The configuration at the start.
    pub(super) config: Config,
    /// The configuration in force, which a reload replaces.
    pub(super) in_force: watch::Receiver<Arc<Config>>,
    pub(super) kubernetes: bool,
    pub(super) node_name: String,
    pub(super) state_dir: PathBuf,
    /// Other processes that listen on our BGP ports.
    pub(super) owners: Owners,
    pub(super) sandbox: SandboxView,
    /// Files that were opened before the sandbox was entered.
    _held: Option<Held>,
    /// Problems: state that could not be saved.
    pub(super) unsaved: watch::Receiver<Vec<Diagnostic>>,
    /// Problems: few file descriptors are left.
    pub(super) descriptors: watch::Receiver<Vec<Diagnostic>>,
    /// Problems that the checks of the host find.
    pub(super) survey: watch::Receiver<Vec<Diagnostic>>,
}

impl Context {
    /// Claims the state folder and enters the sandbox. The control socket must be bound before: a
    /// second daemon fails at that point, before it changes anything.
    pub(super) async fn enter(
        options: RunOptions,
        config: Config,
        in_force: watch::Receiver<Arc<Config>>,
        kubernetes: bool,
        limit: Limit,
    ) -> Self {
        let node_name = node_name(&options, &config);
        log_start(&config, &node_name, kubernetes, limit);
        let interfaces = fib::io::machine::interfaces().await.unwrap_or_default();
        let mark = state::Mark::new(&interfaces, kubernetes.then_some(node_name.as_str()));
        let state_dir = state::claim(&config.state_dir, &mark, &interfaces.addresses);
        // The owner of a port is only visible outside of the sandbox.
        let owners = bgp::io::owners_of(&config.bgp.listen);
        let survey = survey::Survey::new();
        let (sandbox, held) = sandbox::enter(&options, &config, kubernetes);
        state::mark(&state_dir, &mark);
        Self {
            options,
            config,
            in_force,
            kubernetes,
            node_name,
            state_dir,
            owners,
            sandbox,
            _held: held,
            unsaved: crate::state::io::problems(),
            descriptors: limits::follow(),
            survey: survey::follow(survey),
        }
    }
}

fn log_start(config: &Config, node_name: &str, kubernetes: bool, limit: Limit) {
    if config.is_bare_host && !kubernetes {
        tracing::info!("{}", host::bare_host(config));
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = %node_name, kubernetes, "routelet starting");
    tracing::info!(%limit, budget_mib = limit.budget() >> 20, max_prefixes = limit.max_prefixes(), "memory for routes");
}

/// From the options, the file, the environment, or the host name, in this order.
pub(super) fn node_name(options: &RunOptions, config: &Config) -> String {
    let given = options.node_name.clone().or_else(|| config.kubernetes.node_name.clone());
    given.or_else(|| options.environment.node_name.clone()).unwrap_or_else(|| {
        let host = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok());
        host.unwrap_or_default().to_lowercase()
    })
}
