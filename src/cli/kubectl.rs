//! `kubectl routelet`: the state of all nodes of a cluster, from their BGPNodeStatus objects. The
//! same binary under the name `kubectl-routelet`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{Failure, io};
use crate::{
    control::render::{Layout, cluster, pair},
    daemon,
    k8s::{
        crd::RouteReport,
        io::{
            endpoints::Wanted,
            reports::{Access, ReportsError},
        },
        reports::{
            Destination, Report,
            pair::{Verdict, explain},
        },
    },
    net::Family,
};

/// The name under which kubectl finds it.
const PLUGIN: &str = "kubectl-routelet";

/// Shows the sessions, problems and routes of all nodes of a cluster, as their routelets report
/// them (changes within 30 seconds).
#[derive(Debug, Parser)]
#[command(name = PLUGIN, bin_name = "kubectl routelet", version, propagate_version = true, max_term_width = 100)]
pub(super) struct Kubectl {
    #[command(subcommand)]
    view: View,
}

#[derive(Debug, Subcommand)]
enum View {
    /// A line for each node: AS number, router id, sessions, prefixes, problems
    Nodes(Common),
    /// The sessions of all nodes, with the error of each that is down
    Sessions {
        /// Only sessions that are not established
        #[arg(long)]
        down: bool,
        #[command(flatten)]
        common: Common,
    },
    /// The problems of all nodes, each with its remedy
    Problems(Common),
    /// The routes of all nodes
    Routes {
        /// Only this prefix, or those that contain this address
        #[arg(value_name = "PREFIX|ADDRESS")]
        destination: Option<Destination>,
        #[command(flatten)]
        common: Common,
    },
    /// Follow packets between two pods and back, and show the step that stops them
    ///
    /// From the reports of both nodes: whether each originates and advertises the prefix of its
    /// pod, and whether the other one has learned it and installed it. For everything else the
    /// command to run on the node is printed. Exits with 0 if nothing stops the packets,
    /// with 1 if a step does, and with 4 if that is unknown.
    Explain(Explain),
}

#[derive(Args, Debug)]
struct Explain {
    /// A pod as POD or NAMESPACE/POD, or an address
    #[arg(value_name = "POD|ADDRESS")]
    from: Wanted,
    /// The other pod or address
    #[arg(value_name = "POD|ADDRESS")]
    to: Wanted,
    /// Namespace of pods without one [default: that of the context]
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// Addresses of this family [default: the first that both have]
    #[arg(long, value_enum, value_name = "FAMILY")]
    family: Option<Addresses>,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Addresses {
    Ipv4,
    Ipv6,
}

#[derive(Args, Debug)]
struct Common {
    /// Only this Node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    /// Tables without heading
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Args, Debug)]
struct Cluster {
    /// Instead of $KUBECONFIG and ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Whether the program was started as the plugin.
pub(super) fn is_plugin(arguments: &[OsString]) -> bool {
    let name = arguments.first().map(PathBuf::from);
    name.is_some_and(|path| path.file_name().is_some_and(|name| name == PLUGIN))
}

impl Kubectl {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.view {
            View::Nodes(common) => common.print(cluster::nodes, cluster::nodes_json),
            View::Problems(common) => common.print(cluster::problems, cluster::problems_json),
            View::Sessions { down, common } => {
                let text = |list: &[Report], layout| cluster::sessions(list, layout, down);
                common.print(text, |list| cluster::sessions_json(list, down))
            }
            View::Explain(explain) => explain.run(),
            View::Routes { destination, common } => {
                let list = common.read()?;
                let wanted = |r: &RouteReport| destination.is_none_or(|d| d.includes(r));
                if destination.is_some() && cluster::count_routes(&list, wanted) == 0 && !common.json {
                    return Err(Failure::Runtime(nothing(&list)));
                }
                common.write(
                    &list,
                    |list, layout| cluster::routes(list, layout, wanted),
                    |list| cluster::routes_json(list, wanted),
                )
            }
        }
    }
}

impl Common {
    fn print(
        &self,
        text: impl Fn(&[Report], Layout) -> String,
        json: impl Fn(&[Report]) -> String,
    ) -> Result<(), Failure> {
        self.write(&self.read()?, text, json)
    }

    fn write(
        &self,
        list: &[Report],
        text: impl Fn(&[Report], Layout) -> String,
        json: impl Fn(&[Report]) -> String,
    ) -> Result<(), Failure> {
        let layout = Layout { headings: !self.no_headers, ..io::layout() };
        io::print(&if self.json { json(list) } else { text(list, layout) })
    }

    /// The reports of the selected nodes; having none is a failure.
    fn read(&self) -> Result<Vec<Report>, Failure> {
        let list = self.cluster.reports()?;
        match &self.node {
            Some(name) => only(list, name),
            None => Ok(list),
        }
    }
}

impl Cluster {
    fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }

    /// The reports of all nodes; having none is a failure.
    fn reports(&self) -> Result<Vec<Report>, Failure> {
        let list = daemon::cluster_reports(&self.access())?.map_err(failure)?;
        if list.is_empty() {
            return Err(Failure::Runtime(
                "no node has a BGPNodeStatus: is routelet running there? `kubectl get pods -A -l \
                 app.kubernetes.io/name=routelet` lists its pods"
                    .into(),
            ));
        }
        Ok(list)
    }
}

impl Explain {
    fn run(self) -> Result<(), Failure> {
        let reports = self.cluster.reports()?;
        let wanted = [self.from, self.to];
        let namespace = self.namespace.as_deref();
        let found = daemon::cluster_endpoints(&self.cluster.access(), namespace, &wanted)?;
        let ([from, to], agents) = found.map_err(failure)?;
        let family = self.family.map(|family| match family {
            Addresses::Ipv4 => Family::Ipv4Unicast,
            Addresses::Ipv6 => Family::Ipv6Unicast,
        });
        let found = explain(from, to, family, &reports, &agents);
        io::print(&if self.json { pair::json(&found) } else { pair::text(&found, io::layout()) })?;
        match found.verdict {
            Verdict::Reachable => Ok(()),
            Verdict::Stopped => Err(Failure::Unreached),
            Verdict::Unknown => Err(Failure::Partial),
        }
    }
}

fn failure(error: ReportsError) -> Failure {
    match error {
        ReportsError::Unreachable(_) => Failure::NoApiServer(error.to_string()),
        ReportsError::Credentials(_) => Failure::Usage(error.to_string()),
        ReportsError::Refused(_) => Failure::Runtime(error.to_string()),
    }
}

/// Maximum number of nodes that an error lists.
const MAX_NAMED: usize = 5;

fn only(list: Vec<Report>, name: &str) -> Result<Vec<Report>, Failure> {
    let names: Vec<_> = list.iter().map(|r| r.node.clone()).collect();
    let one: Vec<_> = list.into_iter().filter(|r| r.node == name).collect();
    if !one.is_empty() {
        return Ok(one);
    }
    let more = names.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = names.into_iter().take(MAX_NAMED).collect::<Vec<_>>().join(", ");
    Err(Failure::Runtime(format!("node {name} has no BGPNodeStatus; those that have: {names}{more}")))
}

fn nothing(list: &[Report]) -> String {
    let truncated = list.iter().filter(|r| r.report.truncated).count();
    let nodes = if truncated == 1 { "node has" } else { "nodes have" };
    match truncated {
        0 => "no node reports such a route; `kubectl routelet routes` lists all".into(),
        n => format!(
            "no node reports such a route, but {n} {nodes} more routes than their report; on the node: `routelet \
             show routes`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Kubectl::command().debug_assert();
    }

    #[test]
    fn only_the_name_of_the_plugin_makes_it_one() {
        for (name, expected) in [
            ("kubectl-routelet", true),
            ("/usr/local/bin/kubectl-routelet", true),
            ("routelet", false),
            ("/usr/local/bin/routelet", false),
            ("kubectl-routelet/routelet", false),
        ] {
            assert_eq!(is_plugin(&[name.into()]), expected, "{name}");
        }
        assert!(!is_plugin(&[]));
    }

    #[test]
    fn a_node_that_has_no_report_is_an_error_with_the_names_of_those_that_have() {
        let list = |n: usize| (0..n).map(|n| Report { node: format!("n{n}"), ..Report::default() }).collect();
        assert_eq!(only(list(3), "n1").unwrap().len(), 1);
        let error = only(list(8), "x").unwrap_err().to_string();
        assert_eq!(error, "node x has no BGPNodeStatus; those that have: n0, n1, n2, n3, n4 and 3 more");
    }
}
