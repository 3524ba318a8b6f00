//! The thread on the loopback interface is tested by `tests/netns`; here is what needs no
//! namespace.

use super::*;
use crate::liveness;

#[tokio::test]
async fn without_a_wish_nothing_runs_and_nothing_blocks() {
    let (_client, wishes) = liveness::channel();
    let handle = spawn(wishes, 1);
    let status = handle.status().await;
    assert!(status.sessions.is_empty() && status.realtime.is_none());
    assert!(!handle.hold().await);
    handle.shutdown(false).await;
}
