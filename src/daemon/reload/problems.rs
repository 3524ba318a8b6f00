//! Problems of the configuration file for the operator. Pure.

use std::path::Path;

use super::Trial;
use crate::{
    config::{Config, io::Loaded},
    net::{Diagnostic, Reason, Subject},
};

/// The problem that the file on disk is not in force. `read` is `None` if the file is invalid.
pub(super) fn of_file(
    path: &Path,
    read: Option<&Loaded>,
    in_force: &Config,
    trial: Option<&Trial>,
) -> Option<Diagnostic> {
    let (subject, path) = (Subject::file(path.display()), path.display());
    let Some(read) = read else {
        let text = format!("the configuration file {path} has mistakes and is not in force");
        let remedy = format!("`routelet check --config {path}` lists them");
        return Some(Diagnostic::new(Reason::ConfigurationInvalid, subject, text, remedy));
    };
    let ended = trial.filter(|t| t.returned && t.record.is_trial(read.text.as_ref()));
    if let Some(trial) = ended {
        let text = format!(
            "the configuration file {path} is not in force: it was not confirmed within {} s, and the former \
             configuration returned",
            trial.record.seconds
        );
        let remedy = "correct the file and run `routelet reload`";
        return Some(Diagnostic::new(Reason::ConfigurationNotConfirmed, subject, text, remedy));
    }
    (read.config != *in_force).then(|| {
        let text = format!("the configuration file {path} differs from what is in force");
        let remedy = "`routelet reload --dry-run` lists what would change, `routelet reload` applies it";
        Diagnostic::new(Reason::ConfigurationDiffers, subject, text, remedy)
    })
}

/// The notice that the former configuration returns at `until` (RFC 3339).
pub(super) fn on_trial(path: &Path, until: &str) -> Diagnostic {
    let text = format!("a configuration is on trial; the former one returns at {until}");
    let remedy = "`routelet reload confirm` keeps it";
    Diagnostic::new(Reason::ConfigurationOnTrial, Subject::file(path.display()), text, remedy)
}

/// Reports keys whose new values take effect at the next start.
pub(super) fn late(keys: &[&str]) -> Option<Diagnostic> {
    let text = format!("new values of {} take effect at the next start", keys.join(", "));
    (!keys.is_empty())
        .then(|| Diagnostic::new(Reason::RestartNeeded, Subject::host(), text, "restart routelet"))
}
