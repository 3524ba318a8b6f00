//! Two configured neighbors that are one router: each new session ends the one before, for ever,
//! since the router knows us by one address and takes a second call for our restart. After it has
//! happened twice one of the two stays out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::peer::PeerKey;
use crate::net::{Asn, RouterId};

/// Who is at the other end of a session, and over which address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    pub id: RouterId,
    pub asn: Asn,
    pub local: IpAddr,
    /// Interface of a link-local session, else 0: each link has addresses of its own.
    pub ifindex: u32,
}

/// The end of one session and the begin of the other are so close when the one is for the other.
const CLOSE: Duration = Duration::from_secs(2);
/// Within this time it must have happened twice.
const AGAIN: Duration = Duration::from_secs(120);

/// What to do with a neighbor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It stays out, since the other one has a session.
    Yield { who: PeerKey, to: PeerKey },
    /// It may try again.
    Resume(PeerKey),
}

/// Sessions that began and ended.
#[derive(Debug, Default)]
pub struct Contest {
    up: BTreeMap<PeerKey, (Router, Instant)>,
    lost: BTreeMap<PeerKey, (Router, Instant)>,
    /// When a session last ended for another one's begin.
    clashes: BTreeMap<(PeerKey, PeerKey), Instant>,
    /// Who stays out, and for whom.
    held: BTreeMap<PeerKey, PeerKey>,
}

impl Contest {
    pub fn began(&mut self, now: Instant, key: &PeerKey, router: Router) -> Option<Ruling> {
        self.lost.retain(|_, (_, at)| now.duration_since(*at) <= CLOSE);
        self.clashes.retain(|_, at| now.duration_since(*at) <= AGAIN);
        self.held.remove(key);
        self.up.insert(key.clone(), (router, now));
        let ended = |(other, (r, _)): &(&PeerKey, &(Router, Instant))| *other != key && *r == router;
        let loser = self.lost.iter().find(ended).map(|(other, _)| other.clone())?;
        self.clash(now, loser, key.clone())
    }

    pub fn ended(&mut self, now: Instant, key: &PeerKey) -> Vec<Ruling> {
        self.clashes.retain(|_, at| now.duration_since(*at) <= AGAIN);
        let mut rulings = self.release(key);
        let Some((router, _)) = self.up.remove(key) else { return rulings };
        let began =
            |(_, (r, at)): &(&PeerKey, &(Router, Instant))| *r == router && now.duration_since(*at) <= CLOSE;
        match self.up.iter().find(began).map(|(other, _)| other.clone()) {
            Some(winner) => rulings.extend(self.clash(now, key.clone(), winner)),
            None => {
                self.lost.insert(key.clone(), (router, now));
            }
        }
        rulings
    }

    /// A neighbor that is no more.
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
        // Seen in either order: the end first, or the begin.
        assert_eq!(contest.ended(now, &a), []);
        assert_eq!(contest.began(now, &b, one), None, "once may be chance");
        now += Duration::from_secs(5);
        assert_eq!(contest.began(now, &a, one), None);
        assert_eq!(contest.ended(now, &b), [Ruling::Yield { who: b.clone(), to: a.clone() }]);
        // The one that is left ends for good: the other may try.
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
