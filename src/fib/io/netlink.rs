//! Reads links, addresses and routes from the kernel.

use std::{collections::BTreeMap, io, net::IpAddr};

use futures::TryStreamExt;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use crate::{
    fib::{
        host::{Link, LinkAddress, Scope},
        route::{ObjectId, SeenObject, SeenRoute},
        wire,
    },
    net::Family,
    netlink::io::{Channel, Connection, is_transient},
};

/// All links with their addresses.
pub(super) async fn links() -> io::Result<BTreeMap<u32, Link>> {
    let connection = Connection::open()?;
    read_links(&connection).await.map_err(io::Error::other)
}

async fn read_links(handle: &rtnetlink::Handle) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
    let mut links = BTreeMap::new();
    let mut dump = std::pin::pin!(handle.link().get().execute());
    while let Some(message) = dump.try_next().await? {
        let link = link(&message);
        links.insert(link.index, link);
    }
    let mut dump = std::pin::pin!(handle.address().get().execute());
    while let Some(message) = dump.try_next().await? {
        if let (Some(link), Some(address)) = (links.get_mut(&message.header.index), address(&message)) {
            link.addresses.push(address);
        }
    }
    links.values_mut().for_each(|l| l.addresses.sort_unstable());
    Ok(links)
}

/// A link without its addresses, which the kernel reports separately.
pub(super) fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: String::new(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        lower_up: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        master: None,
        addresses: Vec::new(),
        generation: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    link
}

pub(super) fn address(message: &AddressMessage) -> Option<LinkAddress> {
    let (mut addr, mut local) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(a) => addr = Some(*a),
            AddressAttribute::Local(a) => local = Some(*a),
            AddressAttribute::Flags(f) => flags = *f,
            _ => {}
        }
    }
    let own: IpAddr = local.or(addr)?;
    Some(LinkAddress {
        addr: own,
        len: message.header.prefix_len,
        peer: addr.filter(|a| *a != own),
        scope: match message.header.scope {
            AddressScope::Link => Scope::Link,
            AddressScope::Host => Scope::Host,
            _ => Scope::Global,
        },
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
            && !flags.contains(AddressFlags::Optimistic),
        secondary: flags.contains(AddressFlags::Secondary),
        deprecated: flags.contains(AddressFlags::Deprecated),
    })
}

/// Calls `each` with every route of every table.
pub(super) fn routes(channel: &mut Channel, mut each: impl FnMut(SeenRoute)) -> io::Result<()> {
    for family in Family::ALL {
        channel.dump(
            |encoder| wire::dump_routes(encoder, family, None, None),
            |message| {
                if message.kind == wire::kind::NEW_ROUTE
                    && let Some(route) = wire::route(message.body)
                {
                    each(route);
                }
            },
        )?;
    }
    Ok(())
}

/// How often the objects are read before an error, or what was read amid changes, is returned.
const ATTEMPTS: u32 = 3;

/// All nexthop objects; `None` if the kernel does not support them.
pub(super) fn objects(channel: &mut Channel) -> io::Result<Option<BTreeMap<ObjectId, SeenObject>>> {
    let mut attempt = 1;
    loop {
        match read_objects(channel) {
            Err(e) if e.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => return Ok(None),
            Err(e) if is_transient(&e) && attempt < ATTEMPTS => {}
            Ok((_, false)) if attempt < ATTEMPTS => {}
            // Others that change theirs all the time do not keep us from finding ours.
            read => return read.map(|(objects, _)| Some(objects)),
        }
        attempt += 1;
    }
}

/// Returns whether they did not change meanwhile, too.
fn read_objects(channel: &mut Channel) -> io::Result<(BTreeMap<ObjectId, SeenObject>, bool)> {
    let mut found = BTreeMap::new();
    let consistent = channel.whole_dump(wire::dump_objects, |message| {
        if message.kind == wire::kind::NEW_NEXTHOP
            && let Some(object) = wire::object(message.body)
        {
            found.insert(object.id, object);
        }
    })?;
    Ok((found, consistent))
}

/// Whether the kernel has resilient groups, by its version: a trial would create a group.
pub(super) fn has_resilient_groups() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.trim().parse::<u32>().ok());
    // Where it cannot be read the kernel decides.
    numbers.next().is_none_or(|major| (major, numbers.next().unwrap_or(0)) >= (5, 13))
}
