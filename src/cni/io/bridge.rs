//! Netlink operations on the pods' bridge.
//!
//! The `bridge` plugin adds the gateway address of the range to its bridge, and refuses to start a
//! pod while the bridge has another IPv4 address. When the pod CIDR changes, the old gateway
//! address moves to `lo`, where pods still reach it as their gateway, and a link route replaces the
//! connected route of its subnet.
//!
//! The replacement is added before the original is removed, so there is no gap. The bridge gets its
//! next address before it loses the last one: without any address the kernel disables IPv4 on it
//! and removes all its routes and neighbors.

use std::{collections::BTreeSet, net::IpAddr};

use futures::TryStreamExt;
use netlink_packet_route::{
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteMessage, RouteProtocol, RouteScope},
};
use rtnetlink::{Error, Handle, LinkBridge, LinkBridgePort, LinkUnspec, RouteMessageBuilder};

use crate::{
    cni::{
        bridge::{BridgeState, Link, RepairStep},
        conflist, former,
    },
    net::{Family, Prefix},
    netlink::io::Connection,
};

/// State of the bridge with regard to former ranges.
#[derive(Debug, Default)]
pub(super) struct FormerState {
    /// Whether the bridge exists.
    pub(super) exists: bool,
    pub(super) ports: BTreeSet<u32>,
    /// Former ranges whose gateway address was on the bridge and was moved: a pod was created with
    /// the old conflist.
    pub(super) late: Vec<Prefix>,
    /// Former ranges that are wanted again and have their gateway address on the bridge.
    pub(super) back: Vec<Prefix>,
}

/// Keeps the gateways of former ranges reachable besides those of the `wanted` ranges; `next` are
/// the ranges for new pods. A bridge that does not exist has neither ports nor addresses.
pub(super) async fn keep_former(
    bridge: &str,
    former: &[Prefix],
    wanted: &[Prefix],
    next: &[Prefix],
) -> Result<FormerState, Error> {
    with_handle(async |handle| {
        let Some(index) = index_of(handle, bridge).await? else { return Ok(FormerState::default()) };
        let mut seen =
            FormerState { exists: true, ports: ports(handle, index).await?, ..FormerState::default() };
        let held = addresses(handle, index).await?;
        for range in former {
            let Some(gateway) = conflist::gateway(*range) else { continue };
            let there = held.iter().find(|m| m.header.prefix_len == range.len() && has(m, gateway));
            if wanted.contains(range) {
                seen.back.extend(there.map(|_| *range));
            } else if former::conflicts_with(*range, wanted) {
                add_to_loopback(handle, gateway).await?;
                add_link_route(handle, *range, index).await?;
                if let Some(message) = there {
                    add_next(handle, index, *range, next).await?;
                    handle.address().del(message.clone()).execute().await?;
                    add_link_route(handle, *range, index).await?;
                    seen.late.push(*range);
                }
            }
        }
        Ok(seen)
    })
    .await
}

/// Reads the bridge with its ports, and the interfaces of pods that are attached to no bridge.
pub(super) async fn read(bridge: &str) -> Result<BridgeState, Error> {
    with_handle(async |handle| {
        let mut seen = BridgeState::default();
        let mut controllers = Vec::new();
        let mut links = handle.link().get().execute();
        while let Some(link) = links.try_next().await? {
            let index = link.header.index;
            if link.attributes.contains(&LinkAttribute::IfName(bridge.to_owned())) {
                seen.link = Some(interface(&link));
                continue;
            }
            let controller = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::Controller(controller) => Some(*controller),
                _ => None,
            });
            // Only ports of pods matter.
            if !is_of_kind(&link, &InfoKind::Veth) {
                continue;
            }
            match controller {
                Some(controller) => controllers.push((index, controller)),
                None => drop(seen.loose.insert(index)),
            }
        }
        if let Some(link) = &mut seen.link {
            let ports = controllers.iter().filter(|(_, controller)| *controller == link.index);
            seen.ports = ports.map(|(index, _)| *index).collect();
            for message in addresses(handle, link.index).await? {
                let len = message.header.prefix_len;
                link.addresses.extend(global(&message).map(|address| (address, len)));
            }
        }
        Ok(seen)
    })
    .await
}

fn interface(link: &LinkMessage) -> Link {
    let mut seen = Link {
        index: link.header.index,
        is_bridge: is_of_kind(link, &InfoKind::Bridge),
        up: link.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => seen.mtu = *mtu,
            LinkAttribute::Address(mac) => seen.mac.clone_from(mac),
            _ => {}
        }
    }
    seen
}

/// Whether any interface is attached to the bridge.
pub(super) async fn has_ports(bridge: &str) -> Result<bool, Error> {
    with_handle(async |handle| match index_of(handle, bridge).await? {
        Some(index) => Ok(!ports(handle, index).await?.is_empty()),
        None => Ok(false),
    })
    .await
}

/// Executes the steps in order. All are attempted; the first failure is returned.
pub(super) async fn repair(bridge: &str, steps: &[RepairStep]) -> Result<(), (RepairStep, Error)> {
    let mut failed = None;
    for step in steps {
        let done = with_handle(async |handle| take(handle, bridge, step).await).await;
        if let Err(error) = done {
            failed.get_or_insert((step.clone(), error));
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn take(handle: &Handle, bridge: &str, step: &RepairStep) -> Result<(), Error> {
    if let RepairStep::Create { mtu, mac } = step {
        let mut link = LinkBridge::new(bridge);
        if *mtu > 0 {
            link = link.mtu(*mtu);
        }
        // Pods have it in their neighbor caches.
        if mac.len() == 6 {
            link = link.address(mac.clone());
        }
        return unless(handle.link().add(link.build()).execute().await, ALREADY_THERE);
    }
    let Some(index) = index_of(handle, bridge).await? else {
        return Err(Error::RequestFailed);
    };
    match step {
        RepairStep::Create { .. } => Ok(()),
        RepairStep::Up => handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await,
        RepairStep::Attach(port) => {
            let attached = LinkUnspec::new_with_index(*port).controller(index).build();
            handle.link().set(attached).execute().await?;
            // As in the conflist: a pod can reach itself through a Service.
            handle.link().set_port(LinkBridgePort::new(*port).hairpin(true).build()).execute().await
        }
        RepairStep::Address(address, len) => {
            let mut request = handle.address().add(index, *address, *len);
            if address.is_ipv6() {
                // It was this host's address before, so duplicate address detection is not needed.
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            unless(request.execute().await, ALREADY_THERE)
        }
    }
}

fn is_of_kind(link: &LinkMessage, kind: &InfoKind) -> bool {
    let infos = link.attributes.iter().filter_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().any(|i| matches!(i, LinkInfo::Kind(of) if of == kind))
}

/// Removes what [`keep_former`] added for a range. `on_bridge`: also removes the address from the
/// bridge itself.
pub(super) async fn release(bridge: &str, range: Prefix, on_bridge: bool) -> Result<(), Error> {
    let Some(gateway) = conflist::gateway(range) else { return Ok(()) };
    with_handle(async |handle| {
        let bridge = index_of(handle, bridge).await?;
        // The address has the host's prefix length on `lo`, and that of the range on the bridge.
        let places =
            [(Some(LOOPBACK), range.family().max_len()), (bridge.filter(|_| on_bridge), range.len())];
        for (index, len) in places {
            let Some(index) = index else { continue };
            for message in addresses(handle, index).await? {
                if message.header.prefix_len == len && has(&message, gateway) {
                    handle.address().del(message).execute().await?;
                }
            }
        }
        let Some(index) = bridge else { return Ok(()) };
        unless(handle.route().del(link_route(range, index)).execute().await, NO_SUCH_ROUTE)
    })
    .await
}

/// Deletes the bridge that the plugin created for these ranges, unless pods are attached to it or
/// it has other addresses. Returns whether it was deleted.
pub(super) async fn remove_idle(bridge: &str, ranges: &[Prefix]) -> Result<bool, Error> {
    let gateways: BTreeSet<_> = ranges.iter().filter_map(|r| conflist::gateway(*r)).collect();
    with_handle(async |handle| {
        let Some(link) = link_of(handle, bridge).await?.filter(|l| is_of_kind(l, &InfoKind::Bridge)) else {
            return Ok(false);
        };
        let index = link.header.index;
        let held = addresses(handle, index).await?;
        let others = held.iter().flat_map(global).any(|address| !gateways.contains(&address));
        if others || !ports(handle, index).await?.is_empty() {
            return Ok(false);
        }
        handle.link().del(index).execute().await.map(|()| true)
    })
    .await
}

/// Addresses other than those that the kernel generates.
fn global(message: &AddressMessage) -> impl Iterator<Item = IpAddr> {
    message.attributes.iter().filter_map(|a| match a {
        AddressAttribute::Address(IpAddr::V6(a)) if a.is_unicast_link_local() => None,
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    })
}

async fn with_handle<T>(body: impl AsyncFnOnce(&Handle) -> Result<T, Error>) -> Result<T, Error> {
    let connection = Connection::open().map_err(|e| Error::InvalidNla(format!("no netlink socket: {e}")))?;
    body(&connection).await
}

async fn index_of(handle: &Handle, name: &str) -> Result<Option<u32>, Error> {
    Ok(link_of(handle, name).await?.map(|l| l.header.index))
}

async fn link_of(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, Error> {
    match handle.link().get().match_name(name.to_owned()).execute().try_next().await {
        Ok(link) => Ok(link),
        Err(Error::NetlinkError(e)) if e.raw_code() == -NO_SUCH_DEVICE => Ok(None),
        Err(e) => Err(e),
    }
}

async fn ports(handle: &Handle, bridge: u32) -> Result<BTreeSet<u32>, Error> {
    let mut links = handle.link().get().execute();
    let mut ports = BTreeSet::new();
    while let Some(link) = links.try_next().await? {
        if link.attributes.contains(&LinkAttribute::Controller(bridge)) {
            ports.insert(link.header.index);
        }
    }
    Ok(ports)
}

async fn addresses(handle: &Handle, index: u32) -> Result<Vec<AddressMessage>, Error> {
    handle.address().get().set_link_index_filter(index).execute().try_collect().await
}

fn has(message: &AddressMessage, address: IpAddr) -> bool {
    message.attributes.iter().any(|a| matches!(a, AddressAttribute::Address(held) if *held == address))
}

/// Adds the gateway address of the next IPv4 range, as the `bridge` plugin would.
async fn add_next(handle: &Handle, index: u32, range: Prefix, next: &[Prefix]) -> Result<(), Error> {
    let same = |n: &&Prefix| range.family() == Family::Ipv4Unicast && n.family() == range.family();
    let next = next.iter().find(same).and_then(|n| Some((n, conflist::gateway(*n)?)));
    let Some((next, gateway)) = next else { return Ok(()) };
    unless(handle.address().add(index, gateway, next.len()).execute().await, ALREADY_THERE)
}

async fn add_to_loopback(handle: &Handle, address: IpAddr) -> Result<(), Error> {
    let len = Prefix::host(address).len();
    unless(handle.address().add(LOOPBACK, address, len).execute().await, ALREADY_THERE)
}

async fn add_link_route(handle: &Handle, range: Prefix, index: u32) -> Result<(), Error> {
    unless(handle.route().add(link_route(range, index)).execute().await, ALREADY_THERE)
}

/// Equivalent to the connected route that it replaces: programs that remove foreign routes leave
/// those of the kernel alone. The metric distinguishes the two.
fn link_route(range: Prefix, index: u32) -> RouteMessage {
    match range.addr() {
        IpAddr::V4(a) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(a, range.len())
            .output_interface(index)
            .priority(METRIC)
            .protocol(RouteProtocol::Kernel)
            .scope(RouteScope::Link)
            .build(),
        IpAddr::V6(a) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(a, range.len())
            .output_interface(index)
            .priority(METRIC)
            .protocol(RouteProtocol::Kernel)
            .build(),
    }
}

/// Ignores the error that the object already is in the requested state.
fn unless(result: Result<(), Error>, expected: i32) -> Result<(), Error> {
    match result {
        Err(Error::NetlinkError(e)) if e.code.is_none() || e.raw_code() == -expected => Ok(()),
        other => other,
    }
}

const METRIC: u32 = 1;
/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
/// ESRCH.
const NO_SUCH_ROUTE: i32 = 3;
/// EEXIST.
const ALREADY_THERE: i32 = 17;
/// ENODEV.
const NO_SUCH_DEVICE: i32 = 19;
