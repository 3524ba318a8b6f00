//! Two configured neighbors that are one router: each new session ends the one before, for ever,
//! since the router has one neighbor entry for this host and treats a second connection as a
//! restart of it. After that has happened twice, this host no longer connects to one of the two.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::peer::PeerKey;
use crate::net::{Asn, RouterId};

/// The router at the other end of a session, and our address of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    pub id: RouterId,
    pub asn: Asn,
    pub local: IpAddr,
    /// Interface of a link-local session, else 0: each link has addresses of its own.
    pub ifindex: u32,
}

/// A session that ends within this time of the establishment of another one ended because of it.
const CLASH_WINDOW: Duration = Duration::from_secs(2);
/// One of two neighbors yields if their sessions have ended each other twice within this time.
const REPEAT_WINDOW: Duration = Duration::from_secs(120);

/// What to do with a neighbor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Do not connect to `who` while `to` has a session.
    Yield { who: PeerKey, to: PeerKey },
    /// Connect again.
    Resume(PeerKey),
}

/// Sessions that were established and closed.
#[derive(Debug, Default)]
pub struct Contest {
    up: BTreeMap<PeerKey, (Router, Instant)>,
    lost: BTreeMap<PeerKey, (Router, Instant)>,
    /// When one of the two sessions last ended because of the other.
    clashes: BTreeMap<(PeerKey, PeerKey), Instant>,
    /// Neighbors that yield, and to which neighbor.
    held: BTreeMap<PeerKey, PeerKey>,
}

impl Contest {
    pub fn began(&mut self, now: Instant, key: &PeerKey, router: Router) -> Option<Ruling> {
        self.lost.retain(|_, (_, at)| now.duration_since(*at) <= CLASH_WINDOW);
        self.clashes.retain(|_, at| now.duration_since(*at) <= REPEAT_WINDOW);
        self.held.remove(key);
        self.up.insert(key.clone(), (router, now));
        let ended = |(other, (r, _)): &(&PeerKey, &(Router, Instant))| *other != key && *r == router;
        let loser = self.lost.iter().find(ended).map(|(other, _)| other.clone())?;
        self.clash(now, loser, key.clone())
    }

    pub fn ended(&mut self, now: Instant, key: &PeerKey) -> Vec<Ruling> {
        self.clashes.retain(|_, at| now.duration_since(*at) <= REPEAT_WINDOW);
        let mut rulings = self.release(key);
        let Some((router, _)) = self.up.remove(key) else { return rulings };
        let began = |(_, (r, at)): &(&PeerKey, &(Router, Instant))| {
            *r == router && now.duration_since(*at) <= CLASH_WINDOW
        };
        match self.up.iter().find(began).map(|(other, _)| other.clone()) {
            Some(winner) => rulings.extend(self.clash(now, key.clone(), winner)),
            None => {
                self.lost.insert(key.clone(), (router, now));
            }
        }
        rulings
    }

    /// A neighbor was removed.
    pub fn gone(&mut self, key: &PeerKey) -> Vec<Ruling> {
        self.up.remove(key);
        self.lost.remove(key);
        self.held.remove(key);
        self.clashes.retain(|(a, b), _| a != key && b != key);
        self.release(key)
    }

    fn release(&mut self, key: &PeerKey) -> Vec<Ruling> {
        let waiting: Vec<_> =
            self.held.iter().filter(|(_, to)| *to == key).map(|(who, _)| who.clone()).collect();
        waiting.iter().for_each(|who| drop(self.held.remove(who)));
        waiting.into_iter().map(Ruling::Resume).collect()
    }

    fn clash(&mut self, now: Instant, loser: PeerKey, winner: PeerKey) -> Option<Ruling> {
        self.lost.remove(&loser);
        let pair =
            if loser < winner { (loser.clone(), winner.clone()) } else { (winner.clone(), loser.clone()) };
        let again = self.clashes.insert(pair, now).is_some();
        again.then(|| {
            self.held.insert(loser.clone(), winner.clone());
            Ruling::Yield { who: loser, to: winner }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> PeerKey {
        text.parse().unwrap()
    }

    fn router(local: [u8; 4]) -> Router {
        Router { id: [9, 9, 9, 9].into(), asn: 65001, local: local.into(), ifindex: 0 }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an epoch")]
    fn of_two_neighbors_that_end_each_others_sessions_one_stays_out() {
        let (a, b) = (key("10.0.0.2"), key("10.0.0.3"));
        let mut now = Instant::now();
        let mut contest = Contest::default();
        let one = router([10, 0, 0, 1]);
        assert_eq!(contest.began(now, &a, one), None);
        // Reported in either order: the end first, or the establishment.
        assert_eq!(contest.ended(now, &a), []);
        assert_eq!(contest.began(now, &b, one), None, "once may be chance");
        now += Duration::from_secs(5);
        assert_eq!(contest.began(now, &a, one), None);
        assert_eq!(contest.ended(now, &b), [Ruling::Yield { who: b.clone(), to: a.clone() }]);
        // The remaining session ends without the other: the other neighbor may connect.
        now += Duration::from_secs(600);
        assert_eq!(contest.ended(now, &a), [Ruling::Resume(b.clone())]);
        assert_eq!(contest.gone(&a), []);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an epoch")]
    fn sessions_that_have_nothing_to_do_with_each_other_go_on() {
        let (a, b) = (key("10.0.0.2"), key("10.0.0.3"));
        let t0 = Instant::now();
        #[rustfmt::skip]
        let cases = [
            ("another link",     router([10, 0, 1, 1]), 0),
            ("another link",     Router { ifindex: 7, ..router([10, 0, 0, 1]) }, 0),
            ("another router",   Router { id: [9, 9, 9, 8].into(), ..router([10, 0, 0, 1]) }, 0),
            ("seconds later",    router([10, 0, 0, 1]), 3),
        ];
        for (name, other, pause) in cases {
            let (mut contest, mut now) = (Contest::default(), t0);
            for _ in 0..5 {
                assert_eq!(contest.began(now, &a, router([10, 0, 0, 1])), None, "{name}");
                now += Duration::from_secs(10);
                assert_eq!(contest.ended(now, &a), [], "{name}");
                now += Duration::from_secs(pause);
                assert_eq!(contest.began(now, &b, other), None, "{name}");
                now += Duration::from_secs(10);
                assert_eq!(contest.ended(now, &b), [], "{name}");
                now += Duration::from_secs(pause);
            }
        }
    }
}
