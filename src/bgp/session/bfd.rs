//! Effect of BFD on a session: a loss closes it (RFC 5882 §4.2, RFC 9384), and if BFD is required,
//! no session is established without it.

use std::time::Instant;

use super::{End, NextStep, Phase, Running, Session, timer::Timer};
use crate::bgp::{
    peer::DownCause,
    wire::notification::{Notification, cease},
};

impl Session {
    /// Closes the session and removes its routes at once, as packets do not arrive.
    pub(super) fn bfd_down(&mut self, now: Instant, why: &'static str) {
        for conn in self.all() {
            let notify = self.final_notification(conn, Notification::cease(cease::BFD_DOWN, None));
            let end = End {
                notify: Some(notify),
                cause: DownCause::Administrative,
                reason: "bfd",
                why: format!("BFD session down: {why}"),
                after: NextStep::Retry,
            };
            self.end(now, conn, end);
        }
    }

    /// `bfd.strict`, or a BFD session that was lost too often: no session is established.
    pub(super) fn bfd_hold(&mut self, now: Instant, why: Option<String>) {
        let held = self.bfd_hold.is_some();
        self.bfd_hold = why;
        if self.bfd_hold.is_some() {
            let established = self.established().map(|c| c.id);
            for conn in self.all().into_iter().filter(|c| established != Some(*c)) {
                let notify = Notification::cease(cease::BFD_DOWN, None);
                self.administrative(now, conn, Some(notify), "BFD is not up".into(), NextStep::Retry);
            }
            return;
        }
        // A session that is Idle for another reason stays so.
        let idle = self.yielding.is_some() || self.timers.due(Timer::IdleHold).is_some();
        if held && !idle && self.running == Running::Yes && self.connections.is_empty() {
            self.connect_backoff.reset();
            self.begin(now);
        }
    }

    /// Without a connection the neighbor stays in Idle, whatever else happened.
    pub(super) fn keep_bfd_hold(&mut self, now: Instant) {
        let Some(why) = self.bfd_hold.clone() else { return };
        if self.running == Running::Yes && self.connections.is_empty() {
            if self.phase != Phase::Idle {
                self.after(now, NextStep::StayDown, false);
            }
            self.report_bfd_hold(why);
        }
    }

    /// Sets the last error, and logs it once.
    fn report_bfd_hold(&mut self, why: String) {
        if !self.record.is_last_error(&why) {
            self.report_failure(why);
        }
    }
}
