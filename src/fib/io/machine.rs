//! Identifies this machine among its clones by the hardware addresses of its interfaces.

use std::{collections::BTreeSet, io, net::IpAddr};

use futures::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkMessage};

use super::netlink;
use crate::netlink::io::Connection;

/// Addresses of the present interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Hardware addresses of network cards, or, if there is none (a container), of interfaces whose
    /// peer is in another namespace.
    pub hardware: BTreeSet<String>,
    pub addresses: BTreeSet<IpAddr>,
}

/// Limit of hardware addresses; more do not help to identify a machine.
const MAX_ADDRESSES: usize = 64;

/// Reads the addresses of all interfaces.
///
/// # Errors
///
/// If the kernel provides no netlink socket or sends no reply.
pub async fn interfaces() -> io::Result<Interfaces> {
    let connection = Connection::open()?;
    read(&connection).await.map_err(io::Error::other)
}

async fn read(handle: &rtnetlink::Handle) -> Result<Interfaces, rtnetlink::Error> {
    let (mut cards, mut ends) = (BTreeSet::new(), BTreeSet::new());
    let mut dump = std::pin::pin!(handle.link().get().execute());
    while let Some(message) = dump.try_next().await? {
        match hardware(&message) {
            Some((address, Kind::Card)) => drop(cards.insert(address)),
            Some((address, Kind::End)) => drop(ends.insert(address)),
            None => {}
        }
    }
    let mut addresses = BTreeSet::new();
    let mut dump = std::pin::pin!(handle.address().get().execute());
    while let Some(message) = dump.try_next().await? {
        addresses.extend(netlink::address(&message).map(|a| a.addr));
    }
    let hardware = if cards.is_empty() { ends } else { cards };
    Ok(Interfaces { hardware: hardware.into_iter().take(MAX_ADDRESSES).collect(), addresses })
}

enum Kind {
    Card,
    /// One end of a pair or child of a parent interface, not a bridge port: what a container has.
    End,
}

/// The permanent address of a card, else its present one.
fn hardware(message: &LinkMessage) -> Option<(String, Kind)> {
    let (mut kind, mut is_port, mut present, mut made) = (None, false, None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Controller(_) => is_port = true,
            LinkAttribute::Address(octets) => present = Some(octets),
            LinkAttribute::PermAddress(octets) => made = Some(octets),
            _ => {}
        }
    }
    let is_real = |octets: &&Vec<u8>| octets.len() == 6 && octets.iter().any(|o| *o != 0);
    let octets = made.filter(is_real).or(present.filter(is_real))?;
    let kind = match kind.as_deref() {
        None => Kind::Card,
        Some("veth" | "macvlan") if !is_port => Kind::End,
        Some(_) => return None,
    };
    let text: Vec<_> = octets.iter().map(|o| format!("{o:02x}")).collect();
    Some((text.join(":"), kind))
}
