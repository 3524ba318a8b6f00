//! Tunes the C library's allocator and returns memory to the kernel: the daemon is small most of
//! the time, and large at times.

use std::{sync::Arc, time::Duration};

use nix::libc;
use tokio::{sync::Notify, time::sleep};

/// Blocks of at least this size are mapped individually and returned to the kernel when freed.
/// Larger than one read of a socket, so that reading causes no page faults.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = 512 * 1024;
/// Maximum free octets at the end of the heap.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 128 * 1024;

/// Configures the allocator. Must be called before other threads exist.
///
/// One arena: memory allocated by one thread is freed by another, and each further arena would keep
/// fragments of its own. Fixed thresholds: by default they grow with the largest freed block, up to
/// 32 MiB, so that tables that grow by doubling leave holes in the heap.
pub(super) fn tune() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD),
    ] {
        set(what, value);
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "no crate that we use has a safe interface to the allocator's settings")]
fn set(what: libc::c_int, value: libc::c_int) {
    // SAFETY: two integers; the function takes the allocator's own lock. The result only shows
    // whether the setting is supported, and the daemon also works without it.
    unsafe { libc::mallopt(what, value) };
}

/// When to trim after most of a large table was removed: soon, when the FIB and the neighbors'
/// queues have released their part, and later for what they held longer.
const TRIM_DELAYS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(25)];

/// Returns free memory to the kernel after each notification of `shrunk`.
pub(super) async fn trim_heap(shrunk: Arc<Notify>) {
    loop {
        shrunk.notified().await;
        for after in TRIM_DELAYS {
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
