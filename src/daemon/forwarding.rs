//! Keeps forwarding on, and what belongs to it as it should be: carries out what [`sysctl`] decides, watches the settings, and
//! keeps a record of what was changed.

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
        io::{
            netconf::Notifications,
            sysctl::{self as io, Done},
        },
        sysctl::{self, Change, Mends, Needs, Record, Why, Write, forwarding_key},
    },
    net::{Diagnostic, Family},
    state::io as kept,
};

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarding {
    /// On for each family that has prefixes here.
    pub(super) on: bool,
    /// What needs the operator, with its remedy.
    pub(super) problems: Vec<Diagnostic>,
    /// What was changed since the host was booted.
    pub(super) changed: Vec<Change>,
    /// Whether the settings were looked at yet.
    pub(super) looked: bool,
}

/// In the state folder.
pub(super) const FILE: &str = "sysctl.json";

/// Between two looks: `accept_ra` and some others change without a notification.
const POLL: Duration = Duration::from_secs(2);
/// After a notification, so that many are one look.
const GATHER: Duration = Duration::from_millis(50);

/// What the last run changed, if the host was not booted since.
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
    let mut netconf = Notifications::of_sysctls();
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
            state.send_if_modified(|old| {
                let differs = *old != now;
                *old = now;
                differs
            });
        }
        // Cancel safe, each.
        let alive = tokio::select! {
            r = needs.changed() => r.is_ok(),
            r = host.changed() => r.is_ok(),
            () = netconf.changed() => {
                sleep(GATHER).await;
                true
            }
            () = sleep(POLL) => true,
        };
        if !alive {
            return;
        }
        netconf.forget();
    }
}

/// What is known between two looks.
#[derive(Default)]
struct Keeper {
    record: Record,
    file: PathBuf,
    mends: Mends,
    /// By family: where others have switched forwarding off on an interface.
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

    /// Looks at the settings, and mends them.
    fn turn(&mut self, needs: &Needs) -> Forwarding {
        let now = Instant::now().into_std();
        let seen = io::look(needs);
        // A name that the host snapshot still has may be about to be renamed.
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
            // Before the values are written: who crashes in between has changed less than it says.
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
        Forwarding {
            on: needs.in_use.iter().all(|f| io::is_forwarding(*f)),
            problems,
            changed: self.record.changes().to_vec(),
            looked: true,
        }
    }

    fn log(&mut self, now: std::time::Instant, write: &Write) {
        let Write { key, old, new, why } = write;
        match (self.mends.written(now, key), why) {
            (true, Why::GiveBack(_)) => {}
            (true, _) => {
                tracing::warn!(%key, found = %old, set = %new, "sysctl was changed by others and set back")
            }
            (false, Why::Forward(_)) => {
                tracing::info!(%key, found = %old, set = %new, "forwarding switched on");
            }
            (false, Why::KeepAdvertisements) => {
                tracing::info!(%key, found = %old, set = %new, "router advertisements stay accepted while the host forwards");
            }
            (false, Why::IgnoreAdvertisements) => {
                tracing::info!(%key, found = %old, set = %new, "router advertisements ignored on the pods' bridge");
            }
            (false, Why::Balance) => {
                tracing::info!(%key, found = %old, set = %new, "several uplinks: packets are balanced by addresses and ports");
            }
            (false, Why::GiveBack(_)) => {
                tracing::info!(%key, set = %new, "forwarding is off again where others had switched it off");
            }
        }
    }

    fn save(&mut self) {
        let bytes = serde_json::to_vec(&self.record).unwrap_or_default();
        // What comes of it is in the log, and tried again.
        let _ = kept::keep_now(&self.file, bytes, 0o644);
    }
}
