//! Memory of a daemon that is small most of the time and large at times: how the C library's allocator is to work,
//! and what goes back to the kernel.

use std::{sync::Arc, time::Duration};

use nix::libc;
use tokio::{sync::Notify, time::sleep};

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

/// Once most of a large table went: soon, when the kernel's writer and the neighbors' queues have let go of their
/// part, and again for what they held longer.
const QUIET: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(25)];

/// Gives memory back to the kernel each time that `less` is notified.
pub(super) async fn give_back(less: Arc<Notify>) {
    loop {
        less.notified().await;
        for after in QUIET {
            sleep(after).await;
            trim();
        }
    }
}

/// Returns free pages in the middle of the heap to the kernel.
#[allow(unsafe_code, reason = "no crate that we use has a safe interface to the allocator's settings")]
fn trim() {
    // SAFETY: takes an integer and the allocator's own locks; touches free memory only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
