//! The targets of `fuzz/` as ordinary tests: over their corpus, and on mutations of it for a while
//! (`ROUTELET_FUZZ_SECONDS`, 10 unless set). A finding is printed in full; it belongs into the corpus.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

#[path = "../fuzz/targets.rs"]
mod targets;

type Target = fn(&[u8]);

/// The seeds of a target, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<_> = files.iter().map(|f| fs::read(f).unwrap()).collect();
    assert!(seeds.len() >= 10, "the corpus of {name} is gone");
    seeds
}

fn run(target: Target, data: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        panic!("falls over {data:02x?}");
    }
}

/// The same numbers in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// A few octets turned, lost, doubled or taken from another seed.
    fn mutate(&mut self, data: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(data.len() + 1);
            match self.below(6) {
                0 if at < data.len() => data[at] ^= 1 << self.below(8),
                1 if at < data.len() => data[at] = [0, 1, 0x40, 0x80, 0xc0, 0xff][self.below(6)],
                2 if at < data.len() => drop(data.remove(at)),
                3 => data.insert(at, self.below(256) as u8),
                4 => data.truncate(at.max(1)),
                _ => {
                    let from = self.below(other.len() + 1);
                    let to = (from + self.below(40)).min(other.len());
                    data.splice(at..at, other[from..to].iter().copied());
                }
            }
        }
        data.truncate(5000);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test that runs for a while")]
fn fuzz(name: &str, target: Target) {
    let seconds = std::env::var("ROUTELET_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let mut seeds = corpus(name);
    seeds.iter().for_each(|seed| run(target, seed));
    let (began, mut dice, mut executions) = (Instant::now(), Dice(seconds), 0_u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        executions += 1000;
        for _ in 0..1000 {
            let (one, other) = (dice.below(seeds.len()), dice.below(seeds.len()));
            let mut data = seeds[one].clone();
            dice.mutate(&mut data, &seeds[other]);
            run(target, &data);
            // Now and then go on from where a mutation led.
            if dice.below(50) == 0 {
                let n = seeds.len();
                if n < 2000 { seeds.push(data) } else { seeds[dice.below(n)] = data }
            }
        }
    }
    println!("{name}: {executions} executions in {seconds} s");
}

#[test]
fn streams_of_messages_never_make_us_fall() {
    fuzz("message", targets::message);
}

#[test]
fn opens_never_make_us_fall_and_are_read_back() {
    fuzz("open", targets::open);
}

#[test]
fn updates_never_make_us_fall_and_are_read_back() {
    fuzz("update", targets::update);
}

#[test]
fn a_neighbor_that_says_anything_at_all_leaves_nothing_behind() {
    fuzz("session", targets::session);
}

#[test]
fn configurations_never_make_us_fall_and_problems_have_a_place() {
    fuzz("config", targets::config);
}

#[test]
fn configurations_of_other_daemons_give_a_valid_file_or_an_error() {
    fuzz("convert", targets::convert);
}

#[test]
fn netlink_messages_are_read_to_the_end() {
    fuzz("netlink", targets::netlink);
}

#[test]
fn cni_files_of_others_are_merged_or_left_alone() {
    fuzz("conflist", targets::conflist);
}

#[test]
fn state_files_of_a_former_run_are_used_or_ignored() {
    fuzz("state", targets::state);
}

#[test]
fn objects_of_the_api_server_lead_to_bounded_problems() {
    fuzz("object", targets::object);
}

#[test]
fn lines_on_the_control_socket_are_requests_or_refused() {
    fuzz("control", targets::control);
}

#[test]
fn http_requests_get_a_short_reply_or_none() {
    fuzz("request", targets::request);
}

#[test]
fn router_advertisements_make_few_neighbors() {
    fuzz("advertisement", targets::advertisement);
}
