//! The configuration at a start: that of the file, unless its trial has timed out.

use std::path::Path;

use super::{FILE, Trial, moment, path, trial::Start};
use crate::{
    config::{
        Config, Problems,
        io::{Loaded, load, of_text, without_file},
    },
    daemon::{room::Limit, state},
};

/// The result of reading the configuration at a start.
pub(in crate::daemon) struct Started {
    /// The configuration in force, with defaults that depend on the host.
    pub(in crate::daemon) config: Config,
    /// The same configuration as it was read.
    pub(super) in_force: Loaded,
    pub(super) trial: Option<Trial>,
    /// Messages for the log, which cannot be written before the configuration is known.
    pub(in crate::daemon) notes: Vec<String>,
}

/// Reads the file, and the record of a trial in the previous run.
///
/// # Errors
///
/// All errors in the file.
pub(in crate::daemon) fn at_start(
    file: Option<&Path>,
    kubernetes: bool,
    limit: Limit,
) -> Result<Started, Problems> {
    let loaded = load(file, kubernetes)?;
    let mut notes: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    let (in_force, trial) = begin(file, kubernetes, loaded, &mut notes);
    let mut config = in_force.config.clone();
    limit.complete(&mut config);
    Ok(Started { config, in_force, trial, notes })
}

fn begin(
    file: Option<&Path>,
    kubernetes: bool,
    loaded: Loaded,
    notes: &mut Vec<String>,
) -> (Loaded, Option<Trial>) {
    let Some(record) =
        state::read(&loaded.config.state_dir, FILE).and_then(|t| serde_json::from_str(&t).ok())
    else {
        return (loaded, None);
    };
    let record: super::Record = record;
    let path = path(file);
    let start = record.at_start(&path.display().to_string(), loaded.text.as_ref(), &moment());
    if start == Start::File {
        return (loaded, None);
    }
    let former = match record.former() {
        Some(text) => of_text(&path, text, kubernetes),
        None => Ok(without_file(kubernetes)),
    };
    let former = match former {
        Ok(former) => former,
        Err(problems) => {
            notes
                .push(format!("the former configuration cannot return, so the file is in force: {problems}"));
            return (loaded, None);
        }
    };
    match start {
        Start::Former => {
            notes.push(format!(
                "{} is not in force: it was not confirmed within {} s, and the former configuration returned; mend the \
                 file and run `routelet reload`",
                path.display(),
                record.seconds
            ));
            (former.clone(), Some(Trial { record, former, returned: true }))
        }
        Start::Trial(left) => {
            notes.push(format!(
                "{} is on trial: the former configuration returns in {left:.0} s unless `routelet reload confirm` comes",
                path.display()
            ));
            let record = record.resumed(&moment());
            // If this fails, a further start counts from the earlier record: the trial never
            // becomes longer than configured.
            let bytes = serde_json::to_vec(&record).unwrap_or_default();
            let _ = crate::state::io::write(&loaded.config.state_dir.join(FILE), &bytes, 0o600);
            (loaded, Some(Trial { record, former, returned: false }))
        }
        Start::File => (loaded, None),
    }
}
