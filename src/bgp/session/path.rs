//! What TCP shows of the path to a neighbor: large segments that are lost while small ones arrive,
//! and directions in which nothing arrives.
//!
//! A path with a smaller MTU than both ends assume, whose router reports nothing or whose ICMP is
//! filtered, carries OPEN and KEEPALIVE, and loses the first UPDATE of full size. All that follows
//! waits for it, until a hold timer expires. The kernel knows more:
//!
//! | direction | what shows it |
//! | --- | --- |
//! | to the neighbor | a full segment is sent again and again, while segments arrive from it |
//! | from the neighbor | segments arrive behind a gap that nothing fills |

use std::time::{Duration, Instant};

use super::{Conn, Session};
use crate::net::{Diagnostic, Reason, Subject};

/// What TCP knows of a connection (`TCP_INFO` of Linux).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Octets that were sent and are not acknowledged.
    pub unacknowledged: u32,
    /// Retransmissions of the oldest of them.
    pub retransmits: u8,
    /// Octets of a full segment.
    pub segment: u32,
    /// Octets received in order.
    pub received: u64,
    /// Segments received.
    pub segments: u32,
    /// Those with data.
    pub data_segments: u32,
    /// The neighbor takes nothing more.
    pub is_window_closed: bool,
    /// Segments received behind a gap.
    pub out_of_order: u32,
}

/// Retransmissions of one segment from which it counts as lost for its size.
const MANY_RETRANSMITS: u8 = 3;
/// How long a gap in what arrives may last: many times longer than a retransmission takes.
const GAP_TIME: Duration = Duration::from_secs(3);
/// How long the connection has to carry everything before a loss counts as over.
const WELL_TIME: Duration = Duration::from_secs(15);
/// How long a loss explains that there is no session.
const FOUND_TIME: Duration = Duration::from_secs(300);

/// Where large segments are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToNeighbor { octets: u32, retransmits: u8 },
    FromNeighbor,
}

/// Samples of the established connection.
#[derive(Clone, Debug, Default)]
pub(super) struct PathWatch {
    conn: Option<Conn>,
    last: Transport,
    /// The sample with which the present wait for an acknowledgement began.
    waiting: Option<Transport>,
    /// The sample after which nothing more arrived in order, and its time.
    still: Option<(Instant, Transport)>,
    /// The loss that was found last, and when.
    found: Option<(Instant, Direction)>,
    /// Since when nothing has been found.
    well: Option<Instant>,
}

impl PathWatch {
    fn take(&mut self, now: Instant, conn: Conn, sample: Transport) {
        if self.conn != Some(conn) {
            let (found, conn) = (self.found, Some(conn));
            *self = Self { conn, found, ..Self::default() };
        }
        let new = self.outgoing(sample).or_else(|| self.incoming(now, sample));
        self.last = sample;
        match new {
            Some(direction) => (self.found, self.well) = (Some((now, direction)), None),
            // Something is under way still.
            None if self.waiting.is_some() => self.well = None,
            None => {
                let well = *self.well.get_or_insert(now);
                if now.saturating_duration_since(well) >= WELL_TIME {
                    self.found = None;
                }
            }
        }
    }

    fn outgoing(&mut self, sample: Transport) -> Option<Direction> {
        let Transport { unacknowledged: octets, retransmits, segment, .. } = sample;
        if retransmits == 0 || octets < segment || segment == 0 {
            self.waiting = None;
            return None;
        }
        let began = self.waiting.get_or_insert(sample);
        let arrives = sample.segments != began.segments;
        (retransmits >= MANY_RETRANSMITS && arrives).then_some(Direction::ToNeighbor { octets, retransmits })
    }

    fn incoming(&mut self, now: Instant, sample: Transport) -> Option<Direction> {
        let (since, before) =
            self.still.filter(|(_, t)| t.received == sample.received).unwrap_or((now, sample));
        self.still = Some((since, before));
        let gap = sample.out_of_order > before.out_of_order;
        (gap && now.saturating_duration_since(since) >= GAP_TIME).then_some(Direction::FromNeighbor)
    }
}

impl Session {
    /// One sample of a connection.
    pub(super) fn sampled(&mut self, now: Instant, conn: Conn, sample: Transport) {
        if self.established().is_some_and(|c| c.id == conn) {
            self.path.take(now, conn, sample);
        }
    }

    /// Whether octets of this connection waited for an acknowledgement at the last sample. Behind
    /// a closed window they wait for the neighbor to read.
    pub(super) fn is_unacknowledged(&self, conn: Conn) -> bool {
        let Transport { unacknowledged, is_window_closed, .. } = self.path.last;
        self.path.conn == Some(conn) && unacknowledged > 0 && !is_window_closed
    }

    /// What was taken for a loss of large segments is one of all.
    pub(super) fn nothing_arrives(&mut self) {
        self.path.found = None;
    }

    /// Whether segments of the neighbor arrive, although no new data is in them: it sends again
    /// what this host acknowledges in vain. One may be a late acknowledgement.
    pub(super) fn is_sent_again(&self, conn: Conn) -> bool {
        let before = self.path.still.map_or(0, |(_, t)| t.data_segments);
        self.path.conn == Some(conn) && self.path.last.data_segments.wrapping_sub(before) >= 2
    }

    /// Large segments that are lost on the way.
    pub(super) fn lost_segments(&self, now: Instant) -> Option<Diagnostic> {
        let key = &self.config.key;
        let (at, direction) = self.path.found?;
        if self.established().is_none() && now.saturating_duration_since(at) >= FOUND_TIME {
            return None;
        }
        let text = match direction {
            Direction::ToNeighbor { octets, retransmits } => format!(
                "large packets to neighbor {key} are lost, small ones arrive: {octets} octets are not acknowledged \
                 after {retransmits} retransmissions"
            ),
            Direction::FromNeighbor => format!(
                "large packets from neighbor {key} are lost, small ones arrive: what it sends has a gap that is \
                 never filled"
            ),
        };
        let remedy = format!(
            "the MTU on the way is smaller than at the ends: find it with `ping -M do -s SIZE {key}` from both \
             ends, raise it there, or lower the MTU of the interfaces at both ends; let ICMP \"fragmentation \
             needed\" and \"packet too big\" through"
        );
        Some(Diagnostic::new(Reason::LargePacketsLost, Subject::neighbor(key), text, remedy))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    fn base() -> Transport {
        Transport { segment: 1448, received: 500, segments: 20, ..Transport::default() }
    }

    /// Samples, one every two seconds, on the same connection.
    fn found(samples: &[Transport]) -> Option<Direction> {
        let start = Instant::now();
        let mut path = PathWatch::default();
        for (n, sample) in (0..).zip(samples) {
            path.take(start + Duration::from_secs(2) * n, Conn(1), *sample);
        }
        path.found.map(|(_, direction)| direction)
    }

    #[test]
    fn a_full_segment_that_is_sent_in_vain_is_lost_for_its_size_where_others_arrive() {
        let sent = |octets, retransmits, segments| Transport {
            unacknowledged: octets,
            retransmits,
            segments,
            ..base()
        };
        let lost = Some(Direction::ToNeighbor { octets: 4000, retransmits: 4 });
        #[rustfmt::skip]
        let cases = [
            ("lost for its size",       vec![sent(4000, 2, 20), sent(4000, 4, 21)], lost),
            ("nothing arrives either",  vec![sent(4000, 2, 20), sent(4000, 6, 20)], None),
            ("a small segment",         vec![sent(57, 2, 20), sent(57, 6, 21)],     None),
            ("a few retransmissions",   vec![sent(4000, 1, 20), sent(4000, 2, 21)], None),
            ("under way",               vec![sent(4000, 0, 20), sent(9000, 0, 30)], None),
        ];
        for (name, samples, expected) in cases {
            assert_eq!(found(&samples), expected, "{name}");
        }
    }

    #[test]
    fn a_gap_that_nothing_fills_is_a_loss_and_one_that_is_filled_is_none() {
        let got = |received, out_of_order| Transport { received, out_of_order, ..base() };
        #[rustfmt::skip]
        let cases = [
            ("never filled",         vec![got(500, 0), got(500, 1), got(500, 1)],              Some(Direction::FromNeighbor)),
            ("since the first look", vec![got(500, 1), got(500, 1), got(500, 2)],              Some(Direction::FromNeighbor)),
            ("filled",               vec![got(500, 0), got(500, 1), got(900, 1), got(900, 1)], None),
            ("long ago",             vec![got(500, 0), got(900, 9), got(900, 9), got(900, 9)], None),
            ("idle",                 vec![got(500, 0); 9],                                     None),
        ];
        for (name, samples, expected) in cases {
            assert_eq!(found(&samples), expected, "{name}");
        }
    }

    #[test]
    fn a_loss_lasts_over_the_sessions_that_it_ends_and_is_over_when_one_carries_everything() {
        let start = Instant::now();
        let mut path = PathWatch::default();
        let mut at = |seconds, conn, retransmits, segments| {
            let octets = if retransmits > 0 { 4000 } else { 0 };
            let sample = Transport { unacknowledged: octets, retransmits, segments, ..base() };
            path.take(start + Duration::from_secs(seconds), Conn(conn), sample);
            path.found.is_some()
        };
        assert!(!at(0, 1, 1, 20));
        assert!(at(4, 1, 4, 21));
        assert!(at(10, 2, 0, 5), "the next session has not sent a large segment yet");
        assert!(at(24, 2, 0, 9));
        assert!(at(25, 2, 2, 9), "it waits for one");
        assert!(at(45, 2, 5, 9), "and goes on waiting");
        assert!(at(46, 2, 0, 9));
        assert!(!at(61, 2, 0, 9));
    }
}
