//! Memory of a daemon that is small most of the time and large at times: how the C library's allocator is to work,
//! and what goes back to the kernel.

use std::time::Duration;

use nix::libc;
use tokio::time::{Instant, sleep_until};

/// Blocks of so many octets come from the kernel and go back to it by themselves. Above what one read of a
/// socket takes, so that reading costs no page faults.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 512 * 1024;
/// So many free octets may stay at the end of the heap.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 128 * 1024;

/// Call before there are other threads.
///
/// One arena: what one thread allocates another frees here, and each further arena holds its own leftovers.
/// Fixed thresholds: by default they grow with the largest block that was ever freed, up to 32 MiB, and tables
/// that grow by doubling then stay in the heap as holes.
pub(super) fn tune() {
    #[cfg(target_env = "gnu")]
    for (what, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, MAPPED), (libc::M_TRIM_THRESHOLD, KEPT)]
    {
        set(what, value);
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "no crate that we use has a safe interface to the allocator's settings")]
fn set(what: libc::c_int, value: libc::c_int) {
    // SAFETY: two integers; the function takes the allocator's own lock. Its answer only says whether the
    // setting is known, and without it all goes on as before.
    unsafe { libc::mallopt(what, value) };
}

/// Returns free pages in the middle of the heap to the kernel: worth its milliseconds when most of the table went.
#[allow(unsafe_code, reason = "no crate that we use has a safe interface to the allocator's settings")]
pub(super) fn give_back() {
    // SAFETY: takes an integer and the allocator's own locks; touches free memory only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// So long the start takes, give or take, and so long with a cluster to be read.
const STARTED: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Once the start is over, gives back what only it needed of the program's file.
pub(super) async fn forget_start(kubernetes: bool) {
    let begin = Instant::now();
    for after in STARTED.iter().take(1 + usize::from(kubernetes)) {
        sleep_until(begin + *after).await;
        if let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") {
            unchanged(&smaps).into_iter().for_each(unmap);
        }
    }
}

/// Code and constants, by address and length: mappings of files of which no page is a copy of our own, in memory or in
/// the swap space.
fn unchanged(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for line in smaps.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [range, "r-xp" | "r--p", _, _, _, file] if file.starts_with('/') => found.push(span(range)),
            [_, mode, ..] if mode.len() == 4 && mode.ends_with(['p', 's']) => found.push(None),
            ["Anonymous:" | "Swap:", size, "kB"] if size != "0" => {
                found.last_mut().into_iter().for_each(|m| *m = None)
            }
            _ => {}
        }
    }
    found.into_iter().flatten().collect()
}

/// `1000-3000`: address and length.
fn span(range: &str) -> Option<(usize, usize)> {
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    Some((start, usize::from_str_radix(end, 16).ok()?.checked_sub(start)?))
}

/// What is needed again comes back from the page cache.
#[allow(unsafe_code, reason = "nothing safe can promise that a mapping is as its file")]
fn unmap((start, len): (usize, usize)) {
    // SAFETY: the kernel drops its page tables' entries for pages that are the file's own, and makes them again at the
    // next access; contents do not change, and nobody makes such a mapping writable (`unchanged`).
    unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_its_file_is_unmapped() {
        let mapping = |range: &str, mode: &str, file: &str, anonymous: u32, swap: u32| {
            format!(
                "{range} {mode} 00001000 fd:00 1234   {file}\nSize: 8 kB\nPrivate_Clean: 8 kB\n\
                 Anonymous: {anonymous} kB\nSwap: {swap} kB\nVmFlags: rd ex mr mw me\n"
            )
        };
        let smaps = [
            mapping("1000-3000", "r--p", "/usr/bin/routelet", 0, 0),
            mapping("3000-8000", "r-xp", "/usr/bin/routelet", 0, 0),
            mapping("8000-9000", "r--p", "/usr/bin/routelet", 4, 0),
            mapping("9000-a000", "r--p", "/usr/bin/routelet", 0, 4),
            mapping("a000-b000", "rw-p", "/usr/bin/routelet", 0, 0),
            mapping("b000-c000", "rw-p", "", 0, 0),
            mapping("c000-d000", "r-xp", "[vdso]", 0, 0),
            mapping("d000-e000", "r--s", "/dev/shm/x", 0, 0),
        ];
        assert_eq!(unchanged(&smaps.concat()), [(0x1000, 0x2000), (0x3000, 0x5000)]);
        let own = unchanged(&std::fs::read_to_string("/proc/self/smaps").unwrap());
        let here = only_what_is_as_in_its_file_is_unmapped as fn() as usize;
        assert!(own.iter().any(|(start, len)| (*start..start + len).contains(&here)), "{own:x?}");
        own.into_iter().for_each(unmap);
        assert_eq!(unchanged(""), []);
    }
}
