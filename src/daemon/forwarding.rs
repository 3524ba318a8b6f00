//! Keeps forwarding and related sysctls as [`sysctl`] decides, watches the settings, and records
//! the changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::state;
use crate::{
    fib::{
        host::Host,
        io::sysctl::{self as io, Done},
        sysctl::{self, Change, Mends, Needs, Record, Why, Write, forwarding_key},
    },
    net::{Diagnostic, Family},
    pace::tick,
    state::io as kept,
};

/// Result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarding {
    /// Whether forwarding is enabled for each family with prefixes here.
    pub(super) on: bool,
    /// Problems for the operator, with the remedy.
    pub(super) problems: Vec<Diagnostic>,
    /// Changes since the host was booted.
    pub(super) changed: Vec<Change>,
    /// Whether the settings were checked yet.
    pub(super) checked: bool,
}

/// File in the state folder.
pub(super) const FILE: &str = "sysctl.json";

/// How often to check: `accept_ra` and some others change without a notification.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Notifications are collected for this long.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Changes of the previous run, unless the host was rebooted.
pub(super) fn record(file: &std::path::Path) -> Record {
    let boot = state::boot_id();
    let known = kept::read(file).and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    known.filter(|r| r.is_of(&boot)).unwrap_or_else(|| Record::new(&boot))
}

pub(super) async fn run(
    state: watch::Sender<Forwarding>,
    mut needs: watch::Receiver<Option<Arc<Needs>>>,
    mut host: watch::Receiver<Arc<Host>>,
    file: PathBuf,
) {
    let mut netconf = io::changes();
    let mut keeper = Keeper { record: record(&file), file, ..Keeper::default() };
    loop {
        let wanted = needs.borrow_and_update().clone();
        keeper.host(&host.borrow_and_update());
        if let Some(wanted) = wanted {
            let turn = spawn_blocking(move || {
                let now = keeper.turn(&wanted);
                (keeper, now)
            });
            let Ok((back, now)) = turn.await else { return };
            keeper = back;
            match now {
                Ok(now) => drop(state.send_if_modified(|old| {
                    let differs = *old != now;
                    *old = now;
                    differs
                })),
                // The previous results stay in force.
                Err(error) => tracing::debug!(%error, "cannot read the host's settings"),
            }
        }
        // Each arm is cancel safe.
        let alive = tokio::select! {
            r = needs.changed() => r.is_ok(),
            r = host.changed() => r.is_ok(),
            () = netconf.changed() => {
                sleep(DEBOUNCE).await;
                true
            }
            () = tick(CHECK_INTERVAL) => true,
        };
        if !alive {
            return;
        }
        netconf.forget();
    }
}

/// State between checks.
#[derive(Default)]
struct Keeper {
    record: Record,
    file: PathBuf,
    mends: Mends,
    /// By family: interfaces on which another program disabled forwarding.
    off: BTreeMap<Family, BTreeSet<String>>,
    /// Names of the interfaces by index.
    names: BTreeMap<u32, String>,
    renamed: Vec<(String, String)>,
}

impl Keeper {
    fn host(&mut self, host: &Host) {
        let names: BTreeMap<_, _> = host.links.values().map(|l| (l.index, l.name.clone())).collect();
        for (index, name) in &names {
            if let Some(old) = self.names.get(index).filter(|old| *old != name) {
                self.renamed.push((old.clone(), name.clone()));
            }
        }
        self.names = names;
    }

    /// Checks the settings and corrects them, unless they cannot be read.
    fn turn(&mut self, needs: &Needs) -> std::io::Result<Forwarding> {
        let now = Instant::now().into_std();
        let seen = io::look(needs)?;
        // The interface may have been renamed since the snapshot of the host.
        let mut present = seen.interfaces.clone();
        present.extend(self.names.values().map(|n| sysctl::escaped(n)));
        let before = self.record.clone();
        self.record.follow(&present, &std::mem::take(&mut self.renamed));
        self.mends.retain(&present);
        for family in Family::ALL {
            if let Some(off) = sysctl::switched_off(&seen, family) {
                self.off.insert(family, off);
            }
        }
        let off = self.off.values().flatten().cloned().collect();
        let mut writes = sysctl::writes(needs, &seen, &self.record, &off);
        let may =
            |w: &Write| self.mends.may(now, &w.key) && (self.record.has(&w.key) || self.record.has_room());
        writes.retain(may);
        writes.iter().for_each(|w| self.record.note(w));
        if self.record != before {
            // Saved before the values are written: after a crash the record has at least all
            // changes.
            self.save();
        }
        let mut problems = Vec::new();
        for Done { write, result } in io::write(writes) {
            match result {
                Some(Ok(())) => self.log(now, &write),
                Some(Err(e)) => problems.push(sysctl::refusal(&write, &e.to_string())),
                None => problems.push(sysctl::left_off(&write.key)),
            }
        }
        let missing = needs.families.iter().filter(|f| !seen.values.contains_key(forwarding_key(**f)));
        problems.extend(missing.map(|f| sysctl::missing(*f)));
        problems.extend(self.mends.problems(now));
        problems.extend(sysctl::problems(needs, &seen));
        let mut on = true;
        for family in &needs.in_use {
            on &= io::is_forwarding(*family)?;
        }
        Ok(Forwarding { on, problems, changed: self.record.changes().to_vec(), checked: true })
    }

    fn log(&mut self, now: std::time::Instant, write: &Write) {
        let Write { key, old, new, why } = write;
        match (self.mends.written(now, key), why) {
            (true, Why::GiveBack(_)) => {}
            (true, _) => {
                tracing::warn!(%key, found = %old, set = %new, "sysctl changed by another program, restored")
            }
            (false, Why::Forward(_)) => {
                tracing::info!(%key, found = %old, set = %new, "forwarding enabled");
            }
            (false, Why::KeepAdvertisements) => {
                tracing::info!(%key, found = %old, set = %new, "accepting router advertisements while forwarding");
            }
            (false, Why::IgnoreAdvertisements) => {
                tracing::info!(%key, found = %old, set = %new, "ignoring router advertisements on the pods' bridge");
            }
            (false, Why::Balance) => {
                tracing::info!(%key, found = %old, set = %new, "multipath hash uses addresses and ports");
            }
            (false, Why::GiveBack(_)) => {
                tracing::info!(%key, set = %new, "forwarding disabled again where another program had disabled it");
            }
        }
    }

    fn save(&mut self) {
        let bytes = serde_json::to_vec(&self.record).unwrap_or_default();
        // Failures are logged and retried.
        let _ = kept::keep_now(&self.file, bytes, 0o644);
    }
}
