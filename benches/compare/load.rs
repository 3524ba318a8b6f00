//! Routes of one neighbor: installed, withdrawn by message, removed with the neighbor; and idle
//! CPU.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    baseline,
    config::{Case, Kind},
    daemon::Daemon,
    kernel::Watch,
    messages::{Mode, announcements, withdrawals},
    neighbor::Neighbor,
    report::{many, record},
    testbed::Testbed,
    writer,
};

/// More routes than this are loaded only once, which takes long enough with the slow daemons.
const ONCE: u32 = 100_000;

/// Load, CPU, memory, withdrawal by message, memory after it, a second load, neighbor lost.
pub fn load(kind: Kind, mode: Mode, routes: u32) {
    let title = format!("{} {}", many(routes), mode.name());
    let testbed = Testbed::new(1);
    if kind == Kind::Bare {
        return without_daemon(&testbed, &title, mode, routes);
    }
    let daemon = Daemon::start(kind, &testbed.net, &testbed.host, &Case::of(1));
    let mut one = Neighbor::up(&testbed.switch, 1);
    daemon.settle();
    let (idle, cpu) = (daemon.pss(), daemon.cpu());
    let mut watch = Watch::new(&testbed.host, daemon.pid(), mode);
    let octets = announcements(1, mode, routes);

    let start = Instant::now();
    one.send(&octets);
    let done = watch.wait(routes, true);
    record(format!("load, {title}"), "s", (done - start).as_secs_f64());
    daemon.settle();
    record(format!("CPU of load, {title}"), "s", daemon.cpu() - cpu);
    record(
        format!("memory per route, {title}"),
        "octets",
        (daemon.pss() - idle) * 1024.0 / f64::from(routes),
    );

    if routes <= ONCE {
        let gone = withdrawals(mode, routes);
        let start = Instant::now();
        one.send(&gone);
        let done = watch.wait(routes, false);
        record(format!("withdraw by message, {title}"), "s", (done - start).as_secs_f64());
        daemon.settle();
        record(format!("memory kept after withdrawal, {title}"), "KiB", daemon.pss() - idle);
        one.send(&octets);
        watch.wait(routes, true);
        daemon.settle();
    }
    let start = Instant::now();
    drop(one);
    let done = watch.wait(routes, false);
    record(format!("neighbor lost, {title}"), "s", (done - start).as_secs_f64());
}

/// Limit of the kernel with a program that only writes routes, and of a reader that receives all
/// octets.
fn without_daemon(testbed: &Testbed, title: &str, mode: Mode, routes: u32) {
    let mut writer = writer::Writer::new(&testbed.host, mode);
    record(format!("load, {title}"), "s", writer.load(&testbed.host, routes));
    if routes <= ONCE {
        record(format!("withdraw by message, {title}"), "s", writer.withdraw(routes));
        writer.again(routes);
    }
    record(format!("neighbor lost, {title}"), "s", writer.lose());
    let octets = baseline::transfer(&testbed.switch, &testbed.host, &announcements(1, mode, routes));
    record(format!("all octets from neighbor to a reader, {title}"), "s", octets);
}

/// One neighbor, nothing to do.
pub fn idle(kind: Kind) {
    let testbed = Testbed::new(1);
    let daemon = Daemon::start(kind, &testbed.net, &testbed.host, &Case::of(1));
    let _one = Neighbor::up(&testbed.switch, 1);
    daemon.settle();
    let cpu = daemon.cpu();
    thread::sleep(Duration::from_secs(5));
    record("idle with one neighbor, PSS".into(), "KiB", daemon.pss());
    record("idle with one neighbor, CPU per minute".into(), "ms", (daemon.cpu() - cpu) * 12e3);
}
