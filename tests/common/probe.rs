//! A ping that never stops, a hundred times a second: what it lost, or whether anything came through at all.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use super::{
    Process,
    net::{Net, Ns},
    wait_for,
};

/// Runs until it is asked.
pub struct Probe {
    process: Process,
    what: String,
}

impl Probe {
    /// From `ns` to `address`.
    pub fn start(net: &Net, ns: &Ns, address: &str) -> Self {
        let what = format!("{} to {address}", ns.name);
        let log: PathBuf = net.dir().join(format!("probe-{}", what.replace([' ', ':', '/'], "-")));
        // That of an earlier one would answer for this.
        let _ = std::fs::remove_file(&log);
        let mut command: Command = ns.command("ping");
        Self { process: Process::start(command.args(["-n", "-i", "0.01", "-W", "5", address]), &log), what }
    }

    /// The same, once the address answers.
    pub fn start_when_reached(net: &Net, ns: &Ns, address: &str) -> Self {
        wait_for(format!("{} reaches {address}", ns.name), 30.0, || ns.pings(address).then_some(()));
        Self::start(net, ns, address)
    }

    /// Waits for so many more answers: it has seen what was done before.
    pub fn goes_on(&self) {
        let before = answered(&self.process).len();
        wait_for(format!("{} goes on", self.what), 10.0, || {
            (answered(&self.process).len() > before + 50).then_some(())
        });
    }

    /// Ends it. Not one was lost, up to the last that was answered; how many there were.
    pub fn lost_nothing(mut self) -> usize {
        self.goes_on();
        self.process.stop();
        let answered = answered(&self.process);
        let last = answered.last().copied().unwrap_or(0);
        let lost: Vec<_> = (1..=last).filter(|n| !answered.contains(n)).collect();
        assert!(lost.is_empty(), "{} lost {} of {last}: {lost:?}", self.what, lost.len());
        answered.len()
    }

    /// Ends it. Not one was answered; it has asked all the time.
    pub fn expect_no_reply(mut self) {
        assert!(self.process.alive(), "{}: {}", self.what, self.process.printed());
        self.process.stop();
        let answered = answered(&self.process);
        assert!(answered.is_empty(), "{}: {} were answered", self.what, answered.len());
    }
}

/// The numbers of the echoes that were answered, by what a `ping` has printed.
pub fn answered(ping: &Process) -> BTreeSet<u32> {
    let printed = ping.printed();
    let lines = printed.lines().filter(|l| l.contains("bytes from"));
    let number = |line: &str| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok();
    lines.filter_map(number).collect()
}

/// Ends all of them: not one was lost.
pub fn none_lost(probes: Vec<Probe>) {
    for probe in probes {
        probe.lost_nothing();
    }
}
