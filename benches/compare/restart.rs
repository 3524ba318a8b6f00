//! A daemon is killed and restarted while its routes stay in the kernel.

use std::{thread, time::Instant};

use super::{
    config::{Case, Kind},
    daemon::Daemon,
    kernel::{Touches, Watch},
    messages::{Mode, address, announcements, asn, end_of_rib6},
    neighbor::Neighbor,
    report::{many, record},
    testbed::Testbed,
};
use crate::common::speaker::{attributes, update};

/// SIGKILL, then a start with graceful restart. The neighbor reconnects and sends its whole table,
/// End-of-RIB, and one more route: once the kernel has that one, everything before it was processed
/// and compared with the kernel.
pub fn restart(kind: Kind, routes: u32) {
    let title = format!("restart with {}", many(routes));
    let testbed = Testbed::new(1);
    let case = Case { restarts: true, ..Case::of(1) };
    let mut daemon = Daemon::start(kind, &testbed.net, &testbed.host, &case);
    let mut one = Neighbor::up(&testbed.switch, 1);
    let mut octets = announcements(1, Mode::Table, routes);
    // Configured to adopt the kernel's routes, they wait for End-of-RIB of both families.
    octets.extend(end_of_rib6());
    let mut watch = Watch::new(&testbed.host, daemon.pid(), Mode::Table);
    one.send(&octets);
    watch.wait(routes, true);
    daemon.settle();

    let last = std::net::Ipv4Addr::new(100, 64, 0, 0);
    octets.extend(update(&[], &attributes(&[asn(1), 7], address(1), 0), &[(last, 24)]));
    let touches = Touches::of(&testbed.host, last);
    daemon.kill();
    drop(one);
    let start = Instant::now();
    let one = thread::scope(|s| {
        let session = s.spawn(|| {
            let mut one = Neighbor::up(&testbed.switch, 1);
            record(format!("{title}, until the session stands"), "s", start.elapsed().as_secs_f64());
            one.send(&octets);
            one
        });
        daemon = Daemon::launch(kind, &testbed.net, &testbed.host, &case);
        session.join().expect("a session")
    });
    record(format!("{title}, until whole"), "s", (touches.wait() - start).as_secs_f64());
    daemon.settle();
    record(format!("{title}, routes touched"), "", f64::from(touches.count()));
    drop(one);
}
