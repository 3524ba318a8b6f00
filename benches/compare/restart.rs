//! A daemon is killed and started again while its routes stay in the kernel.

use std::{thread, time::Instant};

use super::{
    config::{Case, Kind},
    kernel::{Touches, Watch},
    messages::{Mode, address, announcements, asn, end_of_rib6},
    neighbor::Neighbor,
    report::{many, say},
    subject::Subject,
    world::World,
};
use crate::common::speaker::{attributes, update};

/// SIGKILL, and a new start with graceful restart. The neighbor calls again, says all of its table, End-of-RIB, and
/// one more route: when the kernel has that one, all before it was understood and compared with the kernel.
pub fn restart(kind: Kind, routes: u32) {
    let title = format!("restart with {}", many(routes));
    let world = World::new(1);
    let case = Case { restarts: true, ..Case::of(1) };
    let mut subject = Subject::start(kind, &world.net, &world.host, &case);
    let mut one = Neighbor::up(&world.switch, 1);
    let mut octets = announcements(1, Mode::Table, routes);
    // Told to treat the kernel's routes as their own of before, they wait for the End-of-RIB of both families.
    octets.extend(end_of_rib6());
    let mut watch = Watch::new(&world.host, subject.pid(), Mode::Table);
    one.send(&octets);
    watch.wait(routes, true);
    subject.settle();

    let last = std::net::Ipv4Addr::new(100, 64, 0, 0);
    octets.extend(update(&[], &attributes(&[asn(1), 7], address(1), 0), &[(last, 24)]));
    let touches = Touches::of(&world.host, last);
    subject.kill();
    drop(one);
    let start = Instant::now();
    let one = thread::scope(|s| {
        let session = s.spawn(|| {
            let mut one = Neighbor::up(&world.switch, 1);
            say(format!("{title}, until the session stands"), "s", start.elapsed().as_secs_f64());
            one.send(&octets);
            one
        });
        subject = Subject::launch(kind, &world.net, &world.host, &case);
        session.join().expect("a session")
    });
    say(format!("{title}, until whole"), "s", (touches.wait() - start).as_secs_f64());
    subject.settle();
    say(format!("{title}, routes touched"), "", f64::from(touches.count()));
    drop(one);
}
