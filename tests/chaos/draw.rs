//! What a seed draws: always the same faults, at the same places, for the same time.

use crate::faults::{Fault, Kind};

/// Faults of a seed that happen one at a time, and pairs of faults that overlap.
pub const SINGLES: usize = 5;
pub const PAIRS: usize = 2;

/// SplitMix64 (Steele, Lea, Flood, 2014).
pub struct Generator(u64);

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).expect("a small number")).expect("below `end`")
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        Fault { kind, host: self.below(4), switch: self.below(2), way: self.below(3), more: self.below(1000) }
    }
}

/// One step of a run: a fault, or two that overlap.
pub type Step = Vec<Fault>;

/// The steps of a seed. Seeds that follow each other go through all kinds, then through all pairs
/// of kinds: the kinds are drawn without putting them back, in rounds.
pub fn steps(seed: u64) -> Vec<Step> {
    let mut places = Generator::new(seed);
    let singles = slice(seed, &Kind::ALL, SINGLES, 1);
    let pairs = slice(seed, &pairs(), PAIRS, 2);
    let mut steps: Vec<Step> = singles.into_iter().map(|kind| vec![places.fault(kind)]).collect();
    for (one, other) in pairs {
        let first = places.fault(one);
        let second = loop {
            let second = places.fault(other);
            if !second.collides(&first) {
                break second;
            }
        };
        steps.push(vec![first, second]);
    }
    places.shuffle(&mut steps);
    steps
}

/// All pairs of kinds, and each kind with itself at another place.
pub fn pairs() -> Vec<(Kind, Kind)> {
    let kinds = Kind::ALL.iter().enumerate();
    kinds.flat_map(|(n, one)| Kind::ALL[n..].iter().map(|other| (*one, *other))).collect()
}

/// How many seeds from 1 on it takes until every pair was drawn.
pub fn seeds_for_all_pairs() -> u64 {
    u64::try_from(pairs().len().div_ceil(PAIRS)).expect("some hundred")
}

/// The part of `all` that is `seed`'s turn: `many` of them, in an order that changes from round to
/// round.
fn slice<T: Copy>(seed: u64, all: &[T], many: usize, salt: u64) -> Vec<T> {
    let turns = u64::try_from(all.len().div_ceil(many)).expect("some hundred");
    let (round, turn) = (seed.wrapping_sub(1) / turns, seed.wrapping_sub(1) % turns);
    let mut order = all.to_vec();
    Generator::new(round.wrapping_mul(1000).wrapping_add(salt)).shuffle(&mut order);
    let start = usize::try_from(turn).expect("below the number of turns") * many;
    order.into_iter().skip(start).take(many).collect()
}

#[test]
fn a_seed_draws_the_same_again_and_another_seed_something_else() {
    assert_eq!(steps(7), steps(7));
    assert_ne!(steps(7), steps(8));
}

#[test]
fn seeds_in_a_row_draw_every_kind_and_every_pair() {
    let turns = u64::try_from(Kind::ALL.len().div_ceil(SINGLES)).unwrap();
    let first: Vec<Step> = (1..=turns).flat_map(steps).collect();
    for kind in Kind::ALL {
        assert!(first.iter().any(|s| s.len() == 1 && s[0].kind == kind), "{kind:?}");
    }
    let all: Vec<Step> = (1..=seeds_for_all_pairs()).flat_map(steps).collect();
    for (one, other) in pairs() {
        let drawn = |s: &Step| s.len() == 2 && s[0].kind == one && s[1].kind == other;
        assert!(all.iter().any(drawn), "{one:?} with {other:?}");
    }
}

#[test]
fn two_faults_of_a_step_never_happen_to_the_same_thing() {
    for step in (1..=seeds_for_all_pairs()).flat_map(steps).filter(|s| s.len() == 2) {
        assert!(!step[0].collides(&step[1]), "{step:?}");
    }
}
