//! Which packets may be lost: those that were sent while a fault could not be survived.
//!
//! Every fault declares its window: pairs of hosts, and from when until when. A lost packet outside
//! of all windows is a violation. What was sent while the machine itself stood still, or soon
//! afterwards, is not judged: timers expired that nobody could serve.

use std::{
    fmt,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use crate::common::traffic::{Lost, Pair};

/// Whose packets a fault may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    None,
    From(usize),
    To(usize),
    /// To any of them.
    ToAny(&'static [usize]),
    /// From this host and to it.
    Both(usize),
}

impl Pairs {
    fn has(self, (from, to): Pair) -> bool {
        match self {
            Self::None => false,
            Self::From(host) => from == host,
            Self::To(host) => to == host,
            Self::ToAny(hosts) => hosts.contains(&to),
            Self::Both(host) => from == host || to == host,
        }
    }
}

/// Packets of `pairs` that were sent in `sent` may be lost.
#[derive(Clone, Debug)]
pub struct Window {
    pub pairs: Pairs,
    pub sent: RangeInclusive<Instant>,
    pub fault: String,
}

/// After a pause of the machine timers of sessions may have expired, which are 0.9 s at the least.
const AFTER_PAUSE: Duration = Duration::from_secs(3);
/// Sent just before a fault, and still under way.
const IN_FLIGHT: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct Ledger {
    windows: Vec<Window>,
    /// When the machine stood still.
    pauses: Vec<RangeInclusive<Instant>>,
}

impl Ledger {
    pub fn allow(&mut self, window: Window) {
        if window.pairs != Pairs::None {
            self.windows.push(window);
        }
    }

    pub fn pauses(&mut self, pauses: Vec<RangeInclusive<Instant>>) {
        self.pauses = pauses;
    }

    /// Those of `lost` that nothing permits.
    pub fn unexplained(&self, lost: &[Lost]) -> Vec<Lost> {
        lost.iter().copied().filter(|l| !self.during_pause(l) && self.cause(l).is_none()).collect()
    }

    /// How many of `lost` each fault explains, and how many the machine.
    pub fn by_fault(&self, lost: &[Lost]) -> Vec<(String, usize)> {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for packet in lost {
            let pause = self.during_pause(packet).then_some("the machine stood still");
            let Some(cause) = self.cause(packet).or(pause) else { continue };
            match counts.iter_mut().find(|(known, _)| known == cause) {
                Some((_, count)) => *count += 1,
                None => counts.push((cause.to_owned(), 1)),
            }
        }
        counts
    }

    fn cause(&self, lost: &Lost) -> Option<&str> {
        let covers =
            |w: &&Window| w.pairs.has(lost.pair) && near(&w.sent, lost.sent, IN_FLIGHT, Duration::ZERO);
        self.windows.iter().find(covers).map(|w| w.fault.as_str())
    }

    fn during_pause(&self, lost: &Lost) -> bool {
        self.pauses.iter().any(|p| near(p, lost.sent, IN_FLIGHT, AFTER_PAUSE))
    }
}

fn near(range: &RangeInclusive<Instant>, at: Instant, before: Duration, after: Duration) -> bool {
    at + before >= *range.start() && at <= *range.end() + after
}

/// Losses by pair, with the time of the first and the last.
pub struct Report<'a>(pub &'a [Lost], pub Instant);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
            let times: Vec<_> = self.0.iter().filter(|l| l.pair == (from, to)).map(|l| l.sent).collect();
            if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) {
                let [first, last] = [first, last].map(|at| at.duration_since(self.1).as_secs_f64());
                write!(
                    f,
                    "\n  h{} to h{}: {} from {first:.3} s to {last:.3} s",
                    from + 1,
                    to + 1,
                    times.len()
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(pairs: Pairs, sent: RangeInclusive<Instant>) -> Window {
        Window { pairs, sent, fault: "a fault".into() }
    }

    #[test]
    fn a_loss_is_explained_only_by_a_window_of_its_pair_and_its_time() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut ledger = Ledger::default();
        ledger.allow(window(Pairs::To(1), at(1000)..=at(2000)));
        ledger.allow(window(Pairs::None, at(0)..=at(9000)));
        let lost = |pair, millis| Lost { pair, sent: at(millis) };
        let explained = [lost((0, 1), 950), lost((0, 1), 1500), lost((3, 1), 2000)];
        let violations = [lost((1, 0), 1500), lost((0, 2), 1500), lost((0, 1), 2001), lost((0, 1), 800)];
        let all = [explained.as_slice(), &violations].concat();
        assert_eq!(ledger.unexplained(&all), violations);
        assert_eq!(ledger.by_fault(&all), [("a fault".to_owned(), 3)]);
    }

    #[test]
    fn only_losses_near_a_pause_of_the_machine_are_not_judged() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut ledger = Ledger::default();
        ledger.pauses(vec![at(5000)..=at(5500)]);
        let lost = |millis| Lost { pair: (0, 1), sent: at(millis) };
        assert_eq!(ledger.unexplained(&[lost(5400), lost(8400)]), []);
        assert_eq!(ledger.unexplained(&[lost(4800), lost(8600)]), [lost(4800), lost(8600)]);
    }

    #[test]
    fn a_pair_is_from_a_host_or_to_it() {
        let lists: [(Pairs, &[Pair]); 5] = [
            (Pairs::None, &[]),
            (Pairs::From(2), &[(2, 0), (2, 3)]),
            (Pairs::To(2), &[(0, 2), (3, 2)]),
            (Pairs::ToAny(&[0, 1]), &[(2, 0), (0, 1)]),
            (Pairs::Both(2), &[(2, 0), (2, 3), (0, 2), (3, 2)]),
        ];
        for (pairs, members) in lists {
            for pair in [(2, 0), (2, 3), (0, 2), (3, 2), (0, 1)] {
                assert_eq!(pairs.has(pair), members.contains(&pair), "{pairs:?} {pair:?}");
            }
        }
    }
}
