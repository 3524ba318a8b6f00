use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Failure, io};
use crate::convert::{self, Format, Line, Outcome, Report};

/// Make a configuration from that of another daemon
///
/// Reads files of FRR, Quagga, BIRD or kube-router that belong together and prints a configuration
/// of routelet, or objects of Calico, MetalLB or Cilium, as `kubectl get -o yaml` prints them, and
/// prints a ConfigMap, BGPPeer and BGPPolicy objects for `kubectl apply`. Each line that is not
/// carried over, or not exactly, is listed with the reason on standard error and at the end of the
/// result. What a policy cannot express is rejected. Exit status 4 if a line needs a review, else
/// 0.
#[derive(Args, Debug)]
pub(super) struct Convert {
    /// Files of the other daemon; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files are written for [default: recognized from the files]
    #[arg(long, value_enum, value_name = "FORMAT")]
    from: Option<From>,
    /// File to write, which must not exist yet [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print a report with each line and the result
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    Frr,
    Quagga,
    Bird,
    KubeRouter,
    Calico,
    Metallb,
    Cilium,
}

impl Convert {
    pub(super) fn run(self) -> Result<(), Failure> {
        let inputs = self.files.iter().map(|path| io::read_input(path)).collect::<Result<Vec<_>, _>>()?;
        let format = self.from.map(|from| match from {
            From::Frr => Format::Frr,
            From::Quagga => Format::Quagga,
            From::Bird => Format::Bird,
            From::KubeRouter => Format::KubeRouter,
            From::Calico => Format::Calico,
            From::Metallb => Format::Metallb,
            From::Cilium => Format::Cilium,
        });
        let report = convert::convert(&inputs, format).map_err(|e| Failure::Usage(e.to_string()))?;
        if let Some(path) = &self.output {
            io::write_new(path, &report.output)?;
        }
        if self.json {
            let text = serde_json::to_string_pretty(&report)
                .map_err(|e| Failure::Runtime(format!("the report cannot be printed: {e}")))?;
            io::print(&format!("{text}\n"))?;
        } else {
            list(&report);
            if self.output.is_none() {
                io::print(&report.output)?;
            }
        }
        if report.complete { Ok(()) } else { Err(Failure::Partial) }
    }
}

/// Lists each line that was not carried over unchanged.
fn list(report: &Report) {
    for Line { file, line, text, outcome, reason } in &report.lines {
        if *outcome != Outcome::Carried {
            let reason = reason.as_deref().unwrap_or_default();
            io::print_error(&format!("{file}:{line}: {}: `{text}`: {reason}", outcome.as_str()));
        }
    }
}
