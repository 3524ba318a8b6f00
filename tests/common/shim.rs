//! What the calls of a running routelet find: another wall clock, errors and delays of rtnetlink,
//! files that take a few octets per write (`shim.c`, loaded before libc).
//!
//! Streams are not here: a short write to a socket means that its buffer is full, which tokio
//! relies on. The kernel itself makes those where a neighbor does not read.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};

use super::{daemons::Routelet, run};

/// What can be set; the place of its number in the page that both ends share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Seconds by which the wall clock is ahead.
    Ahead,
    /// One of three requests to rtnetlink is not executed, and refused with this `errno`.
    Error,
    /// Microseconds until a reply of rtnetlink is there.
    Delay,
    /// The most octets of a write to a file.
    Most,
}

const SETTINGS: u64 = 4;
const OCTETS: u64 = 8;

/// The page of one routelet.
pub struct Shim(File);

impl Shim {
    /// In force from the next start of this routelet.
    pub fn of(routelet: &mut Routelet) -> Self {
        let (library, page) = (routelet.dir.join("shim.so"), routelet.dir.join("shim"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/shim.c");
        run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl"));
        let zeros = [0; (OCTETS * (SETTINGS + 1)) as usize];
        fs::write(&page, zeros).expect("a writable folder");
        let file = File::options().read(true).write(true).open(&page).expect("just written");
        let variables = [("LD_PRELOAD", &library), ("TEST_SHIM", &page)];
        routelet.environment = variables.map(|(k, v)| (k.to_owned(), v.display().to_string())).into();
        Self(file)
    }

    /// At once; 0: as without it.
    pub fn set(&self, setting: Setting, value: i64) {
        self.0.write_at(&value.to_ne_bytes(), setting as u64 * OCTETS).expect("a page");
    }

    /// How many calls were changed so far.
    pub fn hits(&self) -> u64 {
        let mut octets = [0; OCTETS as usize];
        self.0.read_exact_at(&mut octets, SETTINGS * OCTETS).expect("a page");
        u64::from_ne_bytes(octets)
    }
}
