use clap::{Args, ValueEnum};

use super::{Failure, Socket, io};
use crate::control::{self, Query, Response, render};

/// Make the daemon read its configuration again
///
/// Lists what changes. Sessions that did not change stay up. If the configuration is invalid, the
/// old one remains in force. `routelet reload confirm` keeps a configuration that was loaded with
/// --confirm. Exits with 4 if a changed key takes effect at the next start only.
#[derive(Args, Debug)]
pub(super) struct Reload {
    /// Keep the configuration that `reload --confirm` put in force
    #[arg(value_enum, conflicts_with_all = ["dry_run", "confirm", "force"])]
    action: Option<Action>,
    /// Only list what would change
    #[arg(long, conflicts_with_all = ["confirm", "force"])]
    dry_run: bool,
    /// Return to the former configuration after this time unless `reload confirm` is run
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86400))]
    confirm: Option<u32>,
    /// Apply even if every session would be reset or every own route withdrawn
    #[arg(long)]
    force: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    Confirm,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { action, dry_run, confirm, force, json, socket } = self;
        let query = match action {
            Some(Action::Confirm) => Query::ConfirmReload,
            None => Query::Reload(control::Reload { dry_run, confirm, force }),
        };
        let response = socket.request(query)?;
        io::print(&if json {
            render::json(&response)
        } else {
            render::text(&response, io::now(), io::layout())
        })?;
        match response {
            Response::Changes(changes) if changes.applied && !changes.restart.is_empty() => {
                Err(Failure::Partial)
            }
            _ => Ok(()),
        }
    }
}
