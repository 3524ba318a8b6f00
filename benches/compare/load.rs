//! Routes of one neighbor: into the kernel, out again by message, out again with the neighbor; and nothing at all.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    bare,
    config::{Case, Kind},
    kernel::Watch,
    messages::{Mode, announcements, withdrawals},
    neighbor::Neighbor,
    report::{many, say},
    subject::Subject,
    world::World,
    writer,
};

/// More routes than these are loaded once only: that is long enough for the slow ones.
const ONCE: u32 = 100_000;

/// Load, CPU, memory, withdrawal by message, memory after it, a second load, neighbor lost.
pub fn load(kind: Kind, mode: Mode, routes: u32) {
    let title = format!("{} {}", many(routes), mode.name());
    let world = World::new(1);
    if kind == Kind::Bare {
        return without_daemon(&world, &title, mode, routes);
    }
    let subject = Subject::start(kind, &world.net, &world.host, &Case::of(1));
    let mut one = Neighbor::up(&world.switch, 1);
    subject.settle();
    let (idle, cpu) = (subject.pss(), subject.cpu());
    let mut watch = Watch::new(&world.host, subject.pid(), mode);
    let octets = announcements(1, mode, routes);

    let start = Instant::now();
    one.send(&octets);
    let done = watch.wait(routes, true);
    say(format!("load, {title}"), "s", (done - start).as_secs_f64());
    subject.settle();
    say(format!("CPU of load, {title}"), "s", subject.cpu() - cpu);
    say(format!("memory per route, {title}"), "octets", (subject.pss() - idle) * 1024.0 / f64::from(routes));

    if routes <= ONCE {
        let gone = withdrawals(mode, routes);
        let start = Instant::now();
        one.send(&gone);
        let done = watch.wait(routes, false);
        say(format!("withdraw by message, {title}"), "s", (done - start).as_secs_f64());
        subject.settle();
        say(format!("memory kept after withdrawal, {title}"), "KiB", subject.pss() - idle);
        one.send(&octets);
        watch.wait(routes, true);
        subject.settle();
    }
    let start = Instant::now();
    drop(one);
    let done = watch.wait(routes, false);
    say(format!("neighbor lost, {title}"), "s", (done - start).as_secs_f64());
}

/// What the kernel takes from a program that does nothing else, and how soon a reader has all octets.
fn without_daemon(world: &World, title: &str, mode: Mode, routes: u32) {
    let mut writer = writer::Writer::new(&world.host, mode);
    say(format!("load, {title}"), "s", writer.load(&world.host, routes));
    if routes <= ONCE {
        say(format!("withdraw by message, {title}"), "s", writer.withdraw(routes));
        writer.again(routes);
    }
    say(format!("neighbor lost, {title}"), "s", writer.lose());
    let octets = bare::transfer(&world.switch, &world.host, &announcements(1, mode, routes));
    say(format!("all octets from neighbor to a reader, {title}"), "s", octets);
}

/// One neighbor, nothing to do.
pub fn idle(kind: Kind) {
    let world = World::new(1);
    let subject = Subject::start(kind, &world.net, &world.host, &Case::of(1));
    let _one = Neighbor::up(&world.switch, 1);
    subject.settle();
    let cpu = subject.cpu();
    thread::sleep(Duration::from_secs(5));
    say("idle with one neighbor, PSS".into(), "KiB", subject.pss());
    say("idle with one neighbor, CPU per minute".into(), "ms", (subject.cpu() - cpu) * 12e3);
}
