use std::path::PathBuf;

use clap::Args;

use super::{Failure, Socket, io};
use crate::{
    control::{Query, Response, io::client, render},
    daemon::{self, RunOptions},
    net::{Diagnostic, Severity},
};

/// Print the problems of this host, each with its remedy
///
/// Prints the problems of the running daemon. Without one, or with --offline, checks the host
/// itself: sysctls, ports, other BGP daemons, firewall, MTU, files, CNI plugins, and access to the
/// API server. Exits with 0 if nothing was found and with 4 otherwise; problems of severity info
/// do not count.
#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// Check the host itself, even while a daemon runs
    #[arg(long)]
    offline: bool,
    /// Configuration file of the daemon, optional [default: /etc/routelet/routelet.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check access to Kubernetes with this kubeconfig [default: the pod's service account, if any]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of this Node [default: $NODE_NAME, else the host name in lower case]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let json = self.json;
        let found = self.found()?;
        io::print(&if json {
            render::problems_json(&found)
        } else {
            render::problems(&found, io::layout())
        })?;
        match found.iter().any(|problem| problem.severity != Severity::Info) {
            true => Err(Failure::NotReady),
            false => Ok(()),
        }
    }

    fn found(self) -> Result<Vec<Diagnostic>, Failure> {
        use client::ClientError::{Absent, Refused};
        if !self.offline {
            match client::request(&self.socket.socket, Query::Summary) {
                Ok(Response::Summary(summary)) => return Ok(summary.diagnostics),
                Ok(Response::Refused(why)) => return Err(Failure::Runtime(why)),
                Ok(_) => return Err(client::ClientError::Silent(self.socket.socket).into()),
                Err(Absent(_) | Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(daemon::doctor(RunOptions {
            config: self.config,
            kubeconfig: self.kubeconfig,
            node_name: self.node_name,
            environment: io::environment(),
            ..RunOptions::default()
        })?)
    }
}
