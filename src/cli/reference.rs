//! The sources of the pages of `docs/reference/`: the command line with its exit status, and the
//! JSON of each command. `ROUTELET_WRITE=1 cargo test --test docs` writes the pages.

use std::fmt::Write as _;

use clap::CommandFactory;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use super::{command, kubectl::Kubectl};
use crate::{
    control::{
        BfdView, Changes, Event, Explanation, FibView, HostStatus, NeighborReport, NeighborView, NodeStatus,
        PolicyView, RouteView, Summary,
        cluster::{NodeRow, ProblemRow, RouteRow, SessionRow},
        host::InterfaceStatus,
    },
    convert,
    k8s::reports::pair::Pair,
    net::Diagnostic,
};

/// Each exit status with its meaning.
pub const EXIT_STATUS: [(u8, &str); 5] = [
    (0, "success"),
    (1, "failure at run time, a refusal of the daemon, or what was looked for does not exist"),
    (2, "wrong usage or configuration"),
    (3, "the daemon, or the API server, cannot be reached"),
    (4, "not ready, problems were found, or done in part"),
];

/// The same at the end of `--help` and of the man page.
pub(super) fn exit_status() -> String {
    let mut text = String::from("Exit status:\n");
    for (status, meaning) in EXIT_STATUS {
        let _ = writeln!(text, "  {status}  {meaning}");
    }
    text.trim_end().to_owned()
}

/// `routelet` and `kubectl routelet` with all subcommands.
pub fn commands() -> [clap::Command; 2] {
    [command(), Kubectl::command()].map(|mut command| {
        command.build();
        command
    })
}

/// The JSON that one command prints.
#[derive(Clone, Debug)]
pub struct Printed {
    /// The command without `routelet` and `--json`.
    pub command: &'static str,
    /// Name of the schema's file, without its ending.
    pub file: &'static str,
    pub schema: Schema,
}

/// The JSON of all commands of `routelet` and `kubectl routelet`, without `show config`, which
/// prints the file by key.
pub fn schemas() -> Vec<Printed> {
    vec![
        of::<Summary>("show summary", "summary"),
        of::<Vec<NeighborView>>("show neighbors", "neighbors"),
        of::<NeighborReport>("show neighbor", "neighbor"),
        of::<Vec<RouteView>>("show routes", "routes"),
        of::<Vec<FibView>>("show fib", "fib"),
        of::<Vec<InterfaceStatus>>("show interfaces", "interfaces"),
        of::<HostStatus>("show host", "host"),
        of::<Option<NodeStatus>>("show node", "node"),
        of::<Vec<BfdView>>("show bfd", "bfd"),
        of::<Vec<PolicyView>>("show policy", "policy"),
        of::<Vec<Event>>("show events", "events"),
        of::<Explanation>("explain", "explain"),
        of::<Vec<Diagnostic>>("doctor", "doctor"),
        of::<Changes>("reload", "reload"),
        of::<convert::Report>("convert", "convert"),
        of::<Vec<NodeRow>>("kubectl routelet nodes", "kubectl-nodes"),
        of::<Vec<SessionRow>>("kubectl routelet sessions", "kubectl-sessions"),
        of::<Vec<ProblemRow>>("kubectl routelet problems", "kubectl-problems"),
        of::<Vec<RouteRow>>("kubectl routelet routes", "kubectl-routes"),
        of::<Pair>("kubectl routelet explain", "kubectl-explain"),
    ]
}

fn of<T: JsonSchema>(command: &'static str, file: &'static str) -> Printed {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    Printed { command, file, schema: settings.into_generator().into_root_schema_for::<T>() }
}
