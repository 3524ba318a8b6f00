use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::{
    Failure, io,
    output::{Common, Output},
};
use crate::control::{Event, Query, Response, render};

#[derive(Args, Debug)]
pub(super) struct Events {
    /// Keep printing new events, also over a restart of the daemon
    #[arg(long, conflicts_with_all = ["watch", "count"])]
    follow: bool,
    /// Only events from this time on (2026-11-21T08:00:00Z), or of the last 30s, 10m, 2h or 1d
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    #[command(flatten)]
    common: Common,
}

/// Time between requests of `--follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Value of `--since`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Since {
    Ago(Duration),
    At(Timestamp),
}

/// The text is not a value of `--since`.
#[derive(Debug, thiserror::Error)]
#[error("write a time such as 2026-11-21T08:00:00Z, or how long ago: 30s, 10m, 2h, 1d")]
struct NoTime;

fn since(text: &str) -> Result<Since, NoTime> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Since::At(at));
    }
    let unit = text.chars().next_back().ok_or(NoTime)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(NoTime),
    };
    let number: u32 = text.strip_suffix(unit).unwrap_or("").parse().map_err(|_| NoTime)?;
    Ok(Since::Ago(Duration::from_secs(u64::from(number) * seconds)))
}

impl Since {
    fn start(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(time) => now
                .checked_sub(jiff::SignedDuration::try_from(time).unwrap_or_default())
                .unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }
}

/// The progress of a follower through the events.
#[derive(Debug, Default)]
struct Progress {
    /// Number of the last event that was printed.
    after: u64,
    /// Its time.
    last: Option<Timestamp>,
    /// Whether the daemon did not respond lately. It may have restarted.
    is_interrupted: bool,
}

impl Progress {
    /// The events that are new to the follower.
    fn take(&mut self, mut events: Vec<Event>, start: Option<Timestamp>) -> Vec<Event> {
        let Some(newest) = events.last() else { return events };
        let is_after_restart = std::mem::take(&mut self.is_interrupted);
        // Numbers continue after a restart, unless the state folder was lost and the clock set
        // back.
        let numbers_go_on = newest.number >= self.after;
        let known = self.last.filter(|_| is_after_restart && !numbers_go_on);
        let after = if numbers_go_on { self.after } else { 0 };
        self.after = newest.number;
        self.last = newest.at.parse().ok().or(self.last);
        let is_later = |at: Timestamp| start.is_none_or(|s| at >= s) && known.is_none_or(|k| at > k);
        events.retain(|e| e.number > after && e.at.parse().map_or(true, &is_later));
        events
    }

    fn interrupted(&mut self) {
        self.is_interrupted = true;
    }

    /// The number above which events are requested: after an interruption 0, since the daemon may
    /// have restarted with other numbers.
    fn wanted(&self) -> u64 {
        if self.is_interrupted { 0 } else { self.after }
    }
}

impl Events {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.follow {
            true => self.follow(),
            false => self.common.repeat(|| self.print_once()),
        }
    }

    fn print_once(&self) -> Result<(), Failure> {
        match self.request(0)? {
            Response::Events(events) => {
                let events = Progress::default().take(events, self.start());
                self.common.print(&Response::Events(events))
            }
            other => self.common.print(&other),
        }
    }

    /// The daemon must respond once; afterwards, restarts are waited for.
    fn follow(&self) -> Result<(), Failure> {
        let (mut progress, mut was_reached, start) = (Progress::default(), false, self.start());
        loop {
            match self.request(progress.wanted()) {
                Ok(Response::Events(events)) => {
                    was_reached = true;
                    let events = progress.take(events, start);
                    if !events.is_empty() && !io::print_on(&self.lines(events)?)? {
                        return Ok(());
                    }
                }
                Ok(other) => return self.common.print(&other),
                Err(Failure::Unreachable(_)) if was_reached => progress.interrupted(),
                Err(failure) => return Err(failure),
            }
            io::wait(FOLLOW_INTERVAL);
        }
    }

    fn lines(&self, events: Vec<Event>) -> Result<String, Failure> {
        match self.common.output() {
            // One object per line, because an endless array is of no use to a script.
            Some(Output::Json) => Ok(render::json_lines(&events)),
            _ => self.common.render(&Response::Events(events)),
        }
    }

    fn request(&self, after: u64) -> Result<Response, Failure> {
        self.common.socket.request(Query::Events { after })
    }

    fn start(&self) -> Option<Timestamp> {
        self.since.map(|since| since.start(io::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::EventKind;

    fn event(number: u64, second: u64) -> Event {
        Event {
            number,
            at: format!("2026-11-21T08:00:{second:02}Z"),
            kind: EventKind::Config,
            subject: String::new(),
            text: String::new(),
        }
    }

    #[test]
    fn a_follower_prints_each_event_once_also_over_a_restart() {
        let mut progress = Progress::default();
        let numbers = |events: Vec<Event>| events.into_iter().map(|e| e.number).collect::<Vec<_>>();
        assert_eq!(numbers(progress.take(vec![event(11, 1), event(12, 2)], None)), [11, 12]);
        assert_eq!(progress.wanted(), 12);
        assert_eq!(numbers(progress.take(vec![], None)), [0; 0]);
        progress.interrupted();
        assert_eq!(progress.wanted(), 0);
        let kept = vec![event(11, 1), event(12, 2), event(13, 2), event(14, 2)];
        assert_eq!(numbers(progress.take(kept, None)), [13, 14], "the daemon has kept its events");
        progress.interrupted();
        assert_eq!(numbers(progress.take(vec![event(14, 2)], None)), [0; 0], "nothing new");
        progress.interrupted();
        assert_eq!(numbers(progress.take(vec![event(1, 2), event(2, 5)], None)), [2], "other numbers");
    }

    #[test]
    fn times_and_ages_are_read() {
        let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-21T07:00:00Z", "2026-11-21T07:00:00Z"),
            ("30s", "2026-11-21T07:59:30Z"),
            ("10m", "2026-11-21T07:50:00Z"),
            ("2h", "2026-11-21T06:00:00Z"),
            ("1d", "2026-11-20T08:00:00Z"),
        ] {
            assert_eq!(since(text).unwrap().start(now).to_string(), expected, "{text}");
        }
        for wrong in ["", "m", "10", "10w", "-1m", "yesterday", "é"] {
            assert!(since(wrong).is_err_and(|e| e.to_string().contains("2026-11-21T08:00:00Z")), "{wrong}");
        }
        let start = Some("2026-11-21T08:00:02Z".parse().unwrap());
        assert_eq!(Progress::default().take(vec![event(1, 1), event(2, 2)], start).len(), 1);
    }
}
