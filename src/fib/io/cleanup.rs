//! `routelet cleanup`: removes everything of ours from the kernel.

use std::io;

use super::{
    batch::{self, BATCH},
    netlink,
};
use crate::{
    fib::{
        diff::{self, Fib},
        former::Location,
        nexthop,
        route::{Leads, Op, SeenObject, SeenRoute},
        wire::{self, Ours},
    },
    net::Family,
    net::PreferredSources,
    netlink::io::{Channel, Protocol},
};

/// Numbers of what was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub routes: usize,
    pub nexthops: usize,
}

/// Removes all routes and nexthop objects with our protocol number. Blocks; for a command rather
/// than the daemon.
///
/// # Errors
///
/// If the kernel sends no reply. What it refuses to remove is not counted.
pub fn cleanup(table: u32, protocol: u8) -> io::Result<Removed> {
    remove(table, protocol, |_| true, |_| true)
}

/// Does the same at the location of a former configuration, where by now other daemons may have
/// routes with other metrics.
///
/// # Errors
///
/// If the kernel sends no reply.
pub fn cleanup_former(place: &Location) -> io::Result<Removed> {
    remove(
        place.table,
        place.protocol,
        |route| place.holds(route),
        |object| nexthop::is_ours(object.id, place.protocol),
    )
}

fn remove(
    table: u32,
    protocol: u8,
    is_ours: impl Fn(&SeenRoute) -> bool,
    is_our_object: impl Fn(&SeenObject) -> bool,
) -> io::Result<Removed> {
    let mut channel = Channel::open(Protocol::ROUTE)?;
    let ours = Ours { table, protocol, sources: PreferredSources::default() };
    let mut removed = Removed::default();
    for family in Family::ALL {
        let mut found = Vec::new();
        channel.dump(
            |encoder| wire::dump_routes(encoder, family, Some(table), Some(protocol)),
            |message| {
                let route = wire::route(message.body).filter(|_| message.kind == wire::kind::NEW_ROUTE);
                let route =
                    route.filter(|r| r.table == table && r.protocol == protocol && !r.cloned && is_ours(r));
                found.extend(route.map(|r| (r.prefix, r.metric)));
            },
        )?;
        for batch in found.chunks(BATCH) {
            removed.routes += batch.len() - batch::delete_routes(&mut channel, ours, batch)?.len();
        }
    }
    let objects = netlink::objects(&mut channel)?.unwrap_or_default();
    let mut ours_only: Vec<_> =
        objects.values().filter(|o| o.protocol == protocol && is_our_object(o)).collect();
    // Groups before their members.
    ours_only.sort_by_key(|o| !matches!(o.leads, Leads::Group { .. }));
    let ops: Vec<_> = ours_only.iter().map(|o| Op::DelNexthop { id: o.id }).collect();
    let nobody = Fib::new(diff::Settings {
        install: false,
        table,
        protocol,
        metric: 0,
        nexthop_objects: false,
        resilient: false,
    });
    for batch in ops.chunks(BATCH) {
        removed.nexthops += batch.len() - batch::write(&mut channel, &nobody, ours, batch)?.len();
    }
    Ok(removed)
}
