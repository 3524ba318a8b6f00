//! The command line, with one short file per command.
//!
//! [`reference::EXIT_STATUS`] has the meaning of each exit status. Errors are one line on standard
//! error with the cause and the remedy; only `check` prints a line per problem.

mod abbreviation;
mod check;
mod cleanup;
mod completions;
mod convert;
mod doctor;
mod drain;
mod events;
mod explain;
mod io;
mod kubectl;
mod lab;
pub mod log;
mod man;
mod neighbor;
mod output;
pub mod reference;
mod reload;
mod run;
mod show;
mod values;

use std::{ffi::OsString, net::IpAddr, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::{
    control::{Query, Response, io::client, render::Pages},
    daemon,
};

/// A BGP daemon for hosts: advertises the subnets of this host's containers and installs the routes
/// to all others.
#[derive(Debug, Parser)]
#[command(name = "routelet", version, propagate_version = true, max_term_width = 100)]
#[command(after_long_help = reference::exit_status())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Doctor(doctor::Doctor),
    /// Show the state of the daemon
    #[command(subcommand)]
    Show(show::Show),
    Explain(explain::Explain),
    /// Act on one neighbor
    #[command(subcommand)]
    Neighbor(neighbor::Neighbor),
    Reload(reload::Reload),
    Drain(drain::Drain),
    Undrain(drain::Undrain),
    Lab(lab::Lab),
    Convert(convert::Convert),
    Cleanup(cleanup::Cleanup),
    Completions(completions::Completions),
    Man(man::Man),
}

/// The daemon to connect to.
#[derive(Args, Clone, Debug)]
struct Socket {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = "/run/routelet/routelet.sock")]
    socket: PathBuf,
}

/// Failures by exit status.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// 1.
    #[error("{0}")]
    Runtime(String),
    /// 1. The response itself has the reason.
    #[error("not reachable")]
    Unreached,
    /// 2.
    #[error("{0}")]
    Usage(String),
    /// 3.
    #[error(transparent)]
    Unreachable(#[from] client::ClientError),
    /// 3.
    #[error("{0}")]
    NoApiServer(String),
    /// 4. The response itself has the reason.
    #[error("not ready")]
    NotReady,
    /// 4, likewise.
    #[error("done in part")]
    Partial,
}

/// Parses the command line, runs the command and reports its result.
pub fn main() -> ExitCode {
    let arguments = io::arguments();
    match kubectl::is_plugin(&arguments) {
        true => run::<kubectl::Kubectl>(arguments, kubectl::Kubectl::run),
        false => run::<Cli>(arguments, Cli::run),
    }
}

fn run<C: Parser>(arguments: Vec<OsString>, run: impl FnOnce(C) -> Result<(), Failure>) -> ExitCode {
    let arguments = match abbreviation::expand(arguments, &C::command()) {
        Ok(arguments) => arguments,
        Err(ambiguous) => {
            io::print_error(&ambiguous.to_string());
            return ExitCode::from(2);
        }
    };
    let cli = match C::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(e) if is_help(&e) => {
            // Help and version go to standard output; a closed pipe is not an error.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
        Err(e) => {
            io::print_error(&one_line(&e.to_string()));
            return ExitCode::from(2);
        }
    };
    let done = run(cli);
    let Err(failure) = done else { return ExitCode::SUCCESS };
    if !matches!(failure, Failure::NotReady | Failure::Partial | Failure::Unreached) {
        io::print_error(&failure.to_string());
    }
    match failure {
        Failure::Runtime(_) | Failure::Unreached => ExitCode::from(1),
        Failure::Usage(_) => ExitCode::from(2),
        Failure::Unreachable(_) | Failure::NoApiServer(_) => ExitCode::from(3),
        Failure::NotReady | Failure::Partial => ExitCode::from(4),
    }
}

impl Cli {
    fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Check(check) => check.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Show(show) => show.run(),
            Command::Explain(explain) => explain.run(),
            Command::Neighbor(neighbor) => neighbor.run(),
            Command::Reload(reload) => reload.run(),
            Command::Drain(drain) => drain.run(),
            Command::Undrain(undrain) => undrain.run(),
            Command::Lab(lab) => lab.run(),
            Command::Convert(convert) => convert.run(),
            Command::Cleanup(cleanup) => cleanup.run(),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
        }
    }
}

fn is_help(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::DisplayVersion
    )
}

/// Joins clap's lines into one: the error with its tips, then the usage.
fn one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = text.split("\n\nFor more information").next().unwrap_or(text);
    let parts = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    parts.collect::<Vec<_>>().join("; ")
}

impl From<daemon::Error> for Failure {
    fn from(error: daemon::Error) -> Self {
        match error {
            daemon::Error::Config(text) => Self::Usage(text),
            daemon::Error::Runtime(text) => Self::Runtime(text),
        }
    }
}

impl Socket {
    /// Sends a request to the daemon; a refusal is a failure.
    fn request(&self, query: Query) -> Result<Response, Failure> {
        match client::request(&self.socket, query)? {
            Response::Refused(why) => Err(Failure::Runtime(why)),
            Response::Misconfigured(why) => Err(Failure::Usage(why)),
            response => Ok(response),
        }
    }

    /// Sends a request whose response may be long, and prints it as it arrives. A closed pipe (`|
    /// head`) ends it. Returns the number of rows.
    fn show_pages(&self, query: Query, mut pages: Pages) -> Result<usize, Failure> {
        let mut responses = client::open(&self.socket, query)?;
        let (mut begun, mut rows) = (false, 0);
        loop {
            let response = match responses.read() {
                // Part of the response was printed, so the daemon was reached.
                Err(e) if begun => return Err(Failure::Runtime(e.to_string())),
                response => response?,
            };
            let text = match response {
                Some(Response::Refused(why)) => return Err(Failure::Runtime(why)),
                Some(Response::Misconfigured(why)) => return Err(Failure::Usage(why)),
                Some(Response::End) => return io::print(&pages.end()).map(|()| rows),
                Some(page) => {
                    rows += page.rows();
                    pages.page(&page)
                }
                None => return Err(self.cut_short(begun)),
            };
            begun = true;
            if !io::print_on(&text)? {
                return Ok(rows);
            }
        }
    }

    fn cut_short(&self, begun: bool) -> Failure {
        let path = self.socket.clone();
        match begun {
            true => Failure::Runtime(client::ClientError::Incomplete { path, source: None }.to_string()),
            false => client::ClientError::Silent(path).into(),
        }
    }

    /// Sends a command and prints what the daemon reports about it.
    fn order(&self, query: Query) -> Result<(), Failure> {
        match self.request(query)? {
            Response::Done(Some(text)) => io::print(&format!("{text}\n")),
            _ => Ok(()),
        }
    }
}

/// A neighbor in the daemon's notation: addresses in canonical form, anything else unchanged.
#[expect(clippy::unnecessary_wraps, reason = "clap requires a Result")]
fn neighbor_name(text: &str) -> Result<String, std::convert::Infallible> {
    let (addr, interface) = text.split_once('%').map_or((text, None), |(a, i)| (a, Some(i)));
    Ok(match (addr.parse::<IpAddr>(), interface) {
        (Ok(addr), None) => addr.to_string(),
        (Ok(addr), Some(interface)) => format!("{addr}%{interface}"),
        (Err(_), _) => text.to_owned(),
    })
}

/// The whole command line, for completions, man pages and the reference.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_neighbor_is_written_as_the_daemon_writes_it() {
        let cases = [
            ("10.0.0.1", "10.0.0.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("FE80::1%eth0", "fe80::1%eth0"),
            ("eth0", "eth0"),
        ];
        for (written, named) in cases {
            assert_eq!(neighbor_name(written), Ok(named.to_owned()));
        }
    }
}
