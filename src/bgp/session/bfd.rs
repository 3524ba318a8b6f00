//! What BFD does to a session: a loss ends it (RFC 5882 §4.2, RFC 9384), and where BFD is required none begins without.

use std::time::Instant;

use super::{After, End, Phase, Running, Session, timer::Timer};
use crate::bgp::{
    peer::DownCause,
    wire::notification::{Notification, cease},
};

impl Session {
    /// The session ends at once, and with it all that was learned: packets do not arrive.
    pub(super) fn bfd_down(&mut self, now: Instant, why: &'static str) {
        for conn in self.all() {
            let notify = self.last_word(conn, Notification::cease(cease::BFD_DOWN, None));
            let end = End {
                notify: Some(notify),
                cause: DownCause::Administrative,
                reason: "bfd",
                why: format!("BFD session down: {why}"),
                after: After::Retry,
            };
            self.end(now, conn, end);
        }
    }

    /// `bfd.strict`, or a BFD session that was lost too often: no session begins.
    pub(super) fn bfd_hold(&mut self, now: Instant, why: Option<String>) {
        let held = self.bfd_hold.is_some();
        self.bfd_hold = why;
        if self.bfd_hold.is_some() {
            let established = self.established().map(|c| c.id);
            for conn in self.all().into_iter().filter(|c| established != Some(*c)) {
                let notify = Notification::cease(cease::BFD_DOWN, None);
                self.administrative(now, conn, Some(notify), "BFD is not up".into(), After::Retry);
            }
            return;
        }
        // One that is idle for another reason waits for the end of that.
        let idle = self.yielding.is_some() || self.timers.due(Timer::IdleHold).is_some();
        if held && !idle && self.running == Running::Yes && self.connections.is_empty() {
            self.connect_backoff.reset();
            self.begin(now);
        }
    }

    /// Whatever else happened: without a connection the neighbor stays in Idle.
    pub(super) fn keep_bfd_hold(&mut self, now: Instant) {
        let Some(why) = self.bfd_hold.clone() else { return };
        if self.running == Running::Yes && self.connections.is_empty() {
            if self.phase != Phase::Idle {
                self.after(now, After::Off, false);
            }
            self.report_bfd_hold(why);
        }
    }

    /// As the last error, and in the log once.
    fn report_bfd_hold(&mut self, why: String) {
        if !self.record.is_last_error(&why) {
            self.complain(why);
        }
    }
}
