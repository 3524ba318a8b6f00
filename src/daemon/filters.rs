//! Watches whether packet filters of other programs drop packets that this host should forward.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::planner::publish;
use crate::{
    net::{Diagnostic, Family},
    nft::{
        io::verdict::{Filters, generation},
        passage::{Passage, problems},
        verdict::Verdict,
    },
    pace::tick,
};

/// Time between two checks for changes of nf_tables.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// After reading all rules, the pause before the next check is this many times as long as the
/// reading took, so that rules that change all the time cost little.
const PAUSE_FACTOR: u32 = 500;
const MAX_PAUSE: Duration = Duration::from_secs(50);

/// Runs until nobody receives the problems any more.
pub(super) async fn run(
    mut passages: watch::Receiver<Arc<Vec<Passage>>>,
    found: watch::Sender<Vec<Diagnostic>>,
) {
    let mut judged = None;
    let mut pause = Duration::ZERO;
    loop {
        let now = passages.borrow_and_update().clone();
        let (last, none) = (judged.take(), now.is_empty());
        let Ok(looked) = spawn_blocking(move || look(&now, last)).await else { return };
        if let Some(problems) = looked.problems {
            publish(&found, problems);
            pause = (looked.took * PAUSE_FACTOR).min(MAX_PAUSE);
        }
        judged = Some(looked.judged);
        sleep(pause).await;
        // Each arm is cancel safe.
        tokio::select! {
            r = passages.changed() => if r.is_err() { return },
            () = tick(CHECK_INTERVAL), if !none => {}
            () = found.closed() => return,
        }
    }
}

/// What was evaluated last: the generation of nf_tables, and the passages.
type Judged = (Option<u32>, Arc<Vec<Passage>>);

struct Looked {
    /// `None`: nothing has changed.
    problems: Option<Vec<Diagnostic>>,
    judged: Judged,
    took: Duration,
}

fn look(passages: &Arc<Vec<Passage>>, last: Option<Judged>) -> Looked {
    let start = Instant::now();
    // A kernel without nf_tables has no such filters.
    let now = (generation().ok().flatten(), passages.clone());
    let problems = (last.as_ref() != Some(&now)).then(|| judge(passages));
    Looked { problems, judged: now, took: start.elapsed() }
}

/// The present problems. Filters that cannot be read cause none; `explain` reports the error.
pub(super) fn judge(passages: &[Passage]) -> Vec<Diagnostic> {
    let of_family = |family| {
        let some: Vec<_> = passages.iter().filter(|p| p.subnet.family() == family).cloned().collect();
        if some.is_empty() {
            return Vec::new();
        }
        let filters = Filters::read(family).ok();
        problems(&some, |packet| filters.as_ref().map_or(Verdict::Accepted, |f| f.verdict(packet)))
    };
    Family::ALL.into_iter().flat_map(of_family).collect()
}
