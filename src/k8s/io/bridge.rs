//! Addresses of the pods' bridge. The `bridge` plugin gives its bridge the gateway address of the range, and refuses to start a
//! pod while the bridge has another IPv4 address: when the pod CIDR changes, the old one must go first.

use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;

/// Removes those of `addresses` that the bridge has, and says how many. A bridge that is not there has none.
pub(super) async fn remove_addresses(bridge: &str, addresses: &[IpAddr]) -> Result<usize, rtnetlink::Error> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|e| rtnetlink::Error::InvalidNla(format!("no netlink socket: {e}")))?;
    let driver = tokio::spawn(connection);
    let removed = remove(&handle, bridge, addresses).await;
    driver.abort();
    removed
}

async fn remove(
    handle: &rtnetlink::Handle,
    bridge: &str,
    addresses: &[IpAddr],
) -> Result<usize, rtnetlink::Error> {
    let link = match handle.link().get().match_name(bridge.to_owned()).execute().try_next().await {
        Ok(Some(link)) => link,
        Ok(None) => return Ok(0),
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -NO_SUCH_DEVICE => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut held = handle.address().get().set_link_index_filter(link.header.index).execute();
    let mut removed = 0;
    while let Some(message) = held.try_next().await? {
        let is_old = message
            .attributes
            .iter()
            .any(|a| matches!(a, AddressAttribute::Address(addr) if addresses.contains(addr)));
        if is_old {
            handle.address().del(message).execute().await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// ENODEV.
const NO_SUCH_DEVICE: i32 = 19;
