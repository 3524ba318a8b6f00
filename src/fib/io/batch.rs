//! Writes routes and nexthop objects: many messages per send, acknowledged together.

use std::io;

use crate::{
    fib::{
        diff::Fib,
        route::{Object, ObjectId, Op, Target},
        wire::{self, Ours},
    },
    net::Prefix,
    netlink::{
        encode::Encoder,
        io::{Channel, Refused},
    },
};

/// Messages per send. 512 are no faster than 64 (docs/kernel.md, section 3), and fewer let other
/// work proceed.
pub(super) const BATCH: usize = 128;

/// Writes a batch; returns the refused requests.
pub(super) fn write(channel: &mut Channel, fib: &Fib, ours: Ours, ops: &[Op]) -> io::Result<Vec<Refused>> {
    channel.write(|encoder| ops.iter().for_each(|op| encode(encoder, ours, fib, op)))
}

/// Deletes routes by key.
pub(super) fn delete_routes(
    channel: &mut Channel,
    ours: Ours,
    routes: &[(Prefix, u32)],
) -> io::Result<Vec<Refused>> {
    channel.write(|encoder| {
        routes.iter().for_each(|(prefix, metric)| wire::del_route(encoder, ours, *prefix, *metric));
    })
}

/// Replaces routes.
pub(super) fn replace_routes<'a>(
    channel: &mut Channel,
    ours: Ours,
    routes: impl Iterator<Item = (Prefix, u32, Target<'a>)>,
) -> io::Result<Vec<Refused>> {
    channel.write(|encoder| {
        for (prefix, metric, target) in routes {
            wire::new_route(encoder, ours, (prefix, metric), target, true);
        }
    })
}

/// Creates one object; returns whether the kernel accepted it.
pub(super) fn make_object(
    channel: &mut Channel,
    protocol: u8,
    id: ObjectId,
    object: &Object,
) -> io::Result<bool> {
    let refused = channel.write(|encoder| wire::new_nexthop(encoder, protocol, id, object, false))?;
    Ok(refused.is_empty())
}

/// Deletes one object; an object that does not exist is no error.
pub(super) fn delete_object(channel: &mut Channel, id: ObjectId) -> io::Result<()> {
    channel.write(|encoder| wire::del_nexthop(encoder, id)).map(drop)
}

fn encode(encoder: &mut Encoder, ours: Ours, fib: &Fib, op: &Op) {
    match op {
        Op::NewNexthop { id, object, replace } => {
            wire::new_nexthop(encoder, ours.protocol, *id, object, *replace);
        }
        Op::DelNexthop { id } => wire::del_nexthop(encoder, *id),
        Op::DelRoute { prefix, metric } => wire::del_route(encoder, ours, *prefix, *metric),
        Op::NewRoute { prefix, metric, entry, replace } => match fib.target(*entry) {
            Some(target) => wire::new_route(encoder, ours, (*prefix, *metric), target, *replace),
            // `Fib::take` returns no route whose entry is gone.
            None => wire::del_route(encoder, ours, *prefix, *metric),
        },
    }
}
