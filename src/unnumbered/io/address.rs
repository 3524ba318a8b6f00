//! Link-local addresses of our own, where the kernel makes none.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
};

use futures::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;

use super::socket::link_layer;
use crate::netlink::io::Connection;

/// Adds a link-local address: made from the Ethernet address as RFC 4291 Appendix A does, or from
/// `random` where there is none.
///
/// # Errors
///
/// When the kernel refuses: IPv6 is off on this interface, or the capability NET_ADMIN is missing.
pub(super) async fn add(ifindex: u32, name: &str, random: u64) -> io::Result<Ipv6Addr> {
    let id = link_layer(name).map_or(random, eui64);
    let addr = Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(id));
    let connection = Connection::open()?;
    match connection.address().add(ifindex, addr.into(), 64).execute().await {
        Err(rtnetlink::Error::NetlinkError(e)) => Err(e.to_io()),
        Err(e) => Err(io::Error::other(e)),
        Ok(()) => Ok(addr),
    }
}

/// Removes one from wherever it is. `false`: it is nowhere.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn remove(name: &str, addr: Ipv6Addr) -> io::Result<bool> {
    let connection = Connection::open()?;
    remove_with(&connection, name, addr).await.map_err(io::Error::other)
}

async fn remove_with(
    handle: &rtnetlink::Handle,
    name: &str,
    addr: Ipv6Addr,
) -> Result<bool, rtnetlink::Error> {
    let Ok(ifindex) = nix::net::if_::if_nametoindex(name) else { return Ok(false) };
    let mut found = Vec::new();
    let mut dump = std::pin::pin!(handle.address().get().set_link_index_filter(ifindex).execute());
    while let Some(message) = dump.try_next().await? {
        if message.attributes.contains(&AddressAttribute::Address(IpAddr::V6(addr))) {
            found.push(message);
        }
    }
    let any = !found.is_empty();
    for message in found {
        handle.address().del(message).execute().await?;
    }
    Ok(any)
}

fn eui64(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 4291 Appendix A.
    #[test]
    fn the_interface_identifier_is_that_of_the_rfc() {
        assert_eq!(eui64([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]), 0x3656_78ff_fe9a_bcde);
    }
}
