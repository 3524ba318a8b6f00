use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Failure, io};
use crate::{
    config::{LogFormat, LogLevelError, log_level},
    daemon::{self, RunOptions},
};

/// Run the daemon
#[derive(Args, Debug)]
pub(super) struct Run {
    /// Configuration file, optional [default: /etc/routelet/routelet.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run under Kubernetes with this kubeconfig [default: the pod's service account, if any]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of this Node [default: $NODE_NAME, else the host name in lower case]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Format of the log
    #[arg(long, value_enum)]
    log_format: Option<Format>,
    /// error, warn, info, debug, trace or off, or a list such as info,routelet::bgp=debug
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn level(text: &str) -> Result<String, LogLevelError> {
    log_level(text).map(|()| text.to_owned())
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        let options = RunOptions {
            config: self.config,
            kubeconfig: self.kubeconfig,
            node_name: self.node_name,
            log_format: self.log_format.map(|format| match format {
                Format::Text => LogFormat::Text,
                Format::Json => LogFormat::Json,
            }),
            log_level: self.log_level,
            environment: io::environment(),
        };
        Ok(daemon::run(options)?)
    }
}
