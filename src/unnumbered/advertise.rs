//! When to send router advertisements and solicitations on one interface.

use std::time::{Duration, Instant};

use crate::net::Random;

/// RFC 4861 §10: MAX_INITIAL_RTR_ADVERTISEMENTS.
const INITIAL: u8 = 3;
/// MinRtrAdvInterval and MaxRtrAdvInterval (§6.2.1). Short, since a switch that was restarted
/// learns by them alone that we are here.
const MIN_INTERVAL: Duration = Duration::from_millis(3333);
const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// §10: MIN_DELAY_BETWEEN_RAS, of those to all nodes, which are all that we send.
const MIN_DELAY: Duration = Duration::from_secs(3);
/// §10: MAX_RA_DELAY_TIME.
const REPLY_DELAY: Duration = Duration::from_millis(500);
/// RFC 7559 §2: IRT, and the greatest interval. MRT is an hour there; a cable may be plugged in at
/// any time.
const FIRST_SOLICITATION: Duration = Duration::from_secs(4);
const LAST_SOLICITATION: Duration = Duration::from_secs(60);

/// A router that has lost its link may see its own link come back later than our packets. FRR takes
/// an advertisement that comes before that for the neighbor's in one daemon and not in the other,
/// and from then on refuses every connection until the link is lost again.
const SETTLE: Duration = Duration::from_secs(1);

/// What is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// To all nodes.
    Advertisement,
    /// To all routers.
    Solicitation,
}

/// The timers of one interface, from the moment at which it can send.
#[derive(Clone, Debug)]
pub(super) struct Advertiser {
    random: Random,
    /// Advertisements that were sent.
    sent: u8,
    last_sent: Option<Instant>,
    next_advertisement: Instant,
    /// `None`: nobody is looked for.
    next_solicitation: Option<Instant>,
    solicitation_interval: Duration,
}

impl Advertiser {
    /// The first packets leave at once: there is one sender per host and link, not the thousands of
    /// hosts for which RFC 4861 §6.3.7 requires a random delay. On a link that was lost, the
    /// advertisement waits for a second.
    pub(super) fn new(now: Instant, was_lost: bool, seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            sent: 0,
            last_sent: None,
            next_advertisement: if was_lost { now + SETTLE } else { now },
            next_solicitation: Some(now),
            solicitation_interval: FIRST_SOLICITATION,
        }
    }

    /// A solicitation came: an advertisement follows within half a second, or three seconds after
    /// the last one (RFC 4861 §6.2.6).
    pub(super) fn solicited(&mut self, now: Instant) {
        let mut at = now + below(&mut self.random, REPLY_DELAY);
        if let Some(last) = self.last_sent {
            at = at.max(last + MIN_DELAY);
        }
        self.next_advertisement = self.next_advertisement.min(at);
    }

    /// Whether neighbors are looked for: solicitations begin anew, or end.
    pub(super) fn seek(&mut self, now: Instant, seeks: bool) {
        match (seeks, self.next_solicitation) {
            (true, None) => {
                self.solicitation_interval = FIRST_SOLICITATION;
                self.next_solicitation = Some(now);
            }
            (false, _) => self.next_solicitation = None,
            (true, Some(_)) => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.next_solicitation.map_or(self.next_advertisement, |at| at.min(self.next_advertisement))
    }

    /// What is due. Call again until there is nothing.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Send> {
        if self.next_advertisement <= now {
            self.sent = self.sent.saturating_add(1);
            self.last_sent = Some(now);
            // §6.2.4: the first ones follow each other quickly, within
            // MAX_INITIAL_RTR_ADVERT_INTERVAL anyway.
            let interval = if self.sent < INITIAL { MIN_INTERVAL } else { self.interval() };
            self.next_advertisement = now + interval;
            return Some(Send::Advertisement);
        }
        if self.next_solicitation.is_some_and(|at| at <= now) {
            // RFC 7559 §2: a tenth more or less, and twice as long each time.
            let tenth = self.solicitation_interval / 10;
            let wait = self.solicitation_interval - tenth + below(&mut self.random, tenth * 2);
            self.next_solicitation = Some(now + wait);
            self.solicitation_interval = (self.solicitation_interval * 2).min(LAST_SOLICITATION);
            return Some(Send::Solicitation);
        }
        None
    }

    fn interval(&mut self) -> Duration {
        MIN_INTERVAL + below(&mut self.random, MAX_INTERVAL - MIN_INTERVAL)
    }
}

/// Any time below a limit, each as likely as another.
fn below(random: &mut Random, limit: Duration) -> Duration {
    let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(random.draw() % nanos)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "an epoch")]
mod tests {
    use super::*;

    /// When what was sent until `end`, with the time since the start in milliseconds.
    fn run(advertiser: &mut Advertiser, t0: Instant, until: Duration) -> Vec<(u128, Send)> {
        let mut sent = Vec::new();
        loop {
            let now = advertiser.poll_timeout();
            if now >= t0 + until {
                return sent;
            }
            let mut turns = 0;
            while let Some(what) = advertiser.poll(now) {
                sent.push(((now - t0).as_millis(), what));
                turns += 1;
                assert!(turns < 10, "no end at {:?}", now - t0);
            }
        }
    }

    fn times(sent: &[(u128, Send)], what: Send) -> Vec<u128> {
        sent.iter().filter(|(_, w)| *w == what).map(|(at, _)| *at).collect()
    }

    #[test]
    fn both_leave_at_once_then_within_the_intervals_of_the_rfcs() {
        for seed in 0..50 {
            let t0 = Instant::now();
            let mut advertiser = Advertiser::new(t0, false, seed);
            let sent = run(&mut advertiser, t0, Duration::from_secs(600));
            let ras = times(&sent, Send::Advertisement);
            assert_eq!(ras[..3], [0, 3333, 6666], "initial ones");
            for pair in ras.windows(2) {
                assert!((3000..=10_000).contains(&(pair[1] - pair[0])), "{pair:?}");
            }
            assert!((60..=180).contains(&ras.len()), "{}", ras.len());
            let rss = times(&sent, Send::Solicitation);
            assert_eq!(rss[0], 0);
            assert!((3600..=4400).contains(&(rss[1] - rss[0])), "{rss:?}");
            assert!(rss.windows(2).skip(5).all(|p| (54_000..=66_000).contains(&(p[1] - p[0]))), "{rss:?}");
        }
    }

    #[test]
    fn a_flood_of_solicitations_gives_one_advertisement_in_three_seconds() {
        let t0 = Instant::now();
        let mut advertiser = Advertiser::new(t0, false, 3);
        advertiser.seek(t0, false);
        let mut sent = Vec::new();
        for ms in 0..30_000 {
            let now = t0 + Duration::from_millis(ms);
            advertiser.solicited(now);
            while let Some(what) = advertiser.poll(now) {
                sent.push(ms);
                assert_eq!(what, Send::Advertisement);
            }
        }
        assert!((9..=11).contains(&sent.len()), "{sent:?}");
        assert!(sent.windows(2).all(|p| p[1] - p[0] >= 3000), "{sent:?}");
    }

    #[test]
    fn a_solicitation_after_a_pause_is_answered_within_half_a_second() {
        let t0 = Instant::now();
        for seed in 0..50 {
            let mut advertiser = Advertiser::new(t0, false, seed);
            advertiser.seek(t0, false);
            assert_eq!(advertiser.poll(t0), Some(Send::Advertisement));
            let solicited = t0 + Duration::from_millis(3100);
            advertiser.solicited(solicited);
            let at = advertiser.poll_timeout();
            assert!(at >= solicited && at <= solicited + REPLY_DELAY, "{:?}", at - solicited);
        }
    }

    #[test]
    fn solicitations_end_with_a_neighbor_and_begin_anew_without() {
        let t0 = Instant::now();
        let mut advertiser = Advertiser::new(t0, false, 1);
        run(&mut advertiser, t0, Duration::from_secs(100));
        let later = t0 + Duration::from_secs(100);
        advertiser.seek(later, false);
        let sent = run(&mut advertiser, t0, Duration::from_secs(300));
        assert!(times(&sent, Send::Solicitation).is_empty());
        let again = t0 + Duration::from_secs(300);
        advertiser.seek(again, true);
        advertiser.seek(again, true);
        let rss = times(&run(&mut advertiser, again, Duration::from_secs(6)), Send::Solicitation);
        assert_eq!(rss.len(), 2, "at once and after four seconds: {rss:?}");
    }
}
