//! A configuration on trial: it is in force until a certain time, and the former one afterwards.
//! The record is a file in the state folder, so that a restart of the daemon does not extend the
//! trial. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::bgp::peer::Secret;

/// A time, in seconds: by the clock since boot, which does not jump, and by the wall clock, for use
/// after a reboot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Moment {
    pub(super) boot: String,
    pub(super) since_boot: f64,
    pub(super) wall: f64,
}

impl Moment {
    pub(super) fn plus(&self, seconds: u32) -> Self {
        let seconds = f64::from(seconds);
        Self { boot: self.boot.clone(), since_boot: self.since_boot + seconds, wall: self.wall + seconds }
    }

    /// Seconds from `now` until then; negative if it is over.
    fn after(&self, now: &Self) -> f64 {
        match self.boot == now.boot {
            true => self.since_boot - now.since_boot,
            false => self.wall - now.wall,
        }
    }
}

/// The record of a trial, which is kept until another file is put into force for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The file that the daemon reads.
    pub(super) file: String,
    /// The former text, to return to; `None`: there was no file.
    former: Option<Text>,
    /// The text on trial.
    trial: Option<Text>,
    /// Duration of the trial.
    pub(super) seconds: u32,
    pub(super) until: Moment,
}

/// What a start has to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Start {
    /// Nothing is on trial: the file is in force.
    File,
    /// The file is on trial for this many more seconds.
    Trial(f64),
    /// The time is over: the former text is in force, not the file.
    Former,
}

impl Record {
    pub(super) fn new(
        file: &str,
        former: Option<&Secret>,
        trial: Option<&Secret>,
        seconds: u32,
        now: &Moment,
    ) -> Self {
        let (former, trial) = (former.map(Text::new), trial.map(Text::new));
        Self { file: file.to_owned(), former, trial, seconds, until: now.plus(seconds) }
    }

    pub(super) fn former(&self) -> Option<Secret> {
        self.former.as_ref().map(|t| Secret(t.0.clone()))
    }

    /// The same trial with another text.
    #[must_use]
    pub(super) fn with(&self, trial: Option<&Secret>) -> Self {
        Self { trial: trial.map(Text::new), ..self.clone() }
    }

    /// Seconds left. A clock that was set back while the machine was off does not extend the trial.
    pub(super) fn left(&self, now: &Moment) -> f64 {
        self.until.after(now).clamp(0.0, f64::from(self.seconds))
    }

    /// The same trial at a start, by the clock since this boot: later changes of the wall clock,
    /// and earlier ones, no longer matter.
    #[must_use]
    pub(super) fn resumed(self, now: &Moment) -> Self {
        let left = self.left(now);
        let until =
            Moment { boot: now.boot.clone(), since_boot: now.since_boot + left, wall: now.wall + left };
        Self { until, ..self }
    }

    /// Whether this is the text on trial.
    pub(super) fn is_trial(&self, text: Option<&Secret>) -> bool {
        text.map(Text::new) == self.trial
    }

    /// Whether this is the former text.
    pub(super) fn is_former(&self, text: Option<&Secret>) -> bool {
        text.map(Text::new) == self.former
    }

    /// `text` is the present content of the file.
    pub(super) fn at_start(&self, file: &str, text: Option<&Secret>, now: &Moment) -> Start {
        let left = self.left(now);
        match () {
            // The record is of another daemon, or the operator has restored the former text.
            () if self.file != file || self.is_former(text) => Start::File,
            () if left > 0.0 => Start::Trial(left),
            () if self.is_trial(text) => Start::Former,
            // The file was written after the trial, so it is in force like any other.
            () => Start::File,
        }
    }
}

/// The text of a file, which may hold passwords: never printed, overwritten when it is dropped.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Text(String);

impl Text {
    fn new(text: &Secret) -> Self {
        Self(text.0.clone())
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: &str, since_boot: f64, wall: f64) -> Moment {
        Moment { boot: boot.into(), since_boot, wall }
    }

    fn text(text: &str) -> Secret {
        Secret(text.into())
    }

    #[test]
    fn a_start_goes_on_with_the_trial_or_takes_the_former_text() {
        let record = Record::new("f", Some(&text("old")), Some(&text("new")), 60, &at("a", 100.0, 5000.0));
        #[rustfmt::skip]
        let cases = [
            ("within the time",                   "f", "new",   at("a", 130.0, 5030.0),  Start::Trial(30.0)),
            ("the wall clock jumped",             "f", "new",   at("a", 130.0, 99999.0), Start::Trial(30.0)),
            ("the time is over",                  "f", "new",   at("a", 161.0, 5061.0),  Start::Former),
            ("over, and the clock was set back",  "f", "new",   at("a", 161.0, 10.0),    Start::Former),
            ("another boot within the time",      "f", "new",   at("b", 5.0, 5030.0),    Start::Trial(30.0)),
            ("another boot after it",             "f", "new",   at("b", 5.0, 5100.0),    Start::Former),
            ("another boot, clock far back",      "f", "new",   at("b", 5.0, 0.0),       Start::Trial(60.0)),
            ("edited within the time",            "f", "third", at("a", 130.0, 5030.0),  Start::Trial(30.0)),
            ("edited after it",                   "f", "third", at("a", 161.0, 5061.0),  Start::File),
            ("the former text was put back",      "f", "old",   at("a", 130.0, 5030.0),  Start::File),
            ("another file",                      "g", "new",   at("a", 161.0, 5061.0),  Start::File),
        ];
        for (name, file, now, moment, expected) in cases {
            assert_eq!(record.at_start(file, Some(&text(now)), &moment), expected, "{name}");
        }
        let kept = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&kept).unwrap(), record);
    }

    #[test]
    fn a_trial_ends_in_time_after_a_start_with_a_clock_that_was_set_back() {
        let record = || Record::new("f", Some(&text("old")), Some(&text("new")), 60, &at("a", 100.0, 5000.0));
        for (name, start, left) in [
            ("another boot, wall clock far back", at("b", 5.0, 0.0), 60.0),
            ("the same boot, its clock far back", at("a", 5.0, 0.0), 60.0),
            ("the same boot, wall clock far back", at("a", 130.0, 0.0), 30.0),
            ("another boot within the time", at("b", 5.0, 5030.0), 30.0),
        ] {
            let resumed = record().resumed(&start);
            assert_eq!(resumed.left(&start), left, "{name}");
            // The wall clock is corrected, or set wrong, during the trial.
            let later = |seconds, wall| Moment { wall, ..at(&start.boot, start.since_boot + seconds, 0.0) };
            assert_eq!(resumed.left(&later(10.0, 99_999.0)), left - 10.0, "{name}");
            assert_eq!(resumed.left(&later(left + 1.0, 0.0)), 0.0, "{name}");
        }
    }

    #[test]
    fn the_former_configuration_may_have_been_no_file() {
        let record = Record::new("f", None, Some(&text("new")), 60, &at("a", 100.0, 5000.0));
        assert_eq!(record.at_start("f", Some(&text("new")), &at("a", 200.0, 5100.0)), Start::Former);
        assert_eq!(record.at_start("f", None, &at("a", 200.0, 5100.0)), Start::File);
        assert!(record.former().is_none());
    }

    #[test]
    fn another_text_on_trial_neither_extends_it_nor_replaces_what_returns() {
        let record = Record::new("f", Some(&text("old")), Some(&text("new")), 60, &at("a", 100.0, 5000.0));
        let other = record.with(Some(&text("newer")));
        assert_eq!(other.at_start("f", Some(&text("newer")), &at("a", 161.0, 0.0)), Start::Former);
        assert_eq!(other.former(), Some(text("old")));
        assert_eq!(other.left(&at("a", 130.0, 0.0)), 30.0);
    }
}
