//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760 §3, §4) and their next hops (RFC 2545, RFC 8950).

use std::net::{IpAddr, Ipv6Addr};

use super::{
    PathNextHop,
    decode::{Broken, Draft},
};
use crate::{
    bgp::wire::{Shape, nlri},
    net::Family,
};

/// A validated MP_REACH_NLRI.
#[derive(Clone, Copy)]
pub(in crate::bgp::wire) struct Reach<'a> {
    /// `None` for a family that was not negotiated, which is ignored (RFC 4760 §7 leaves that
    /// open).
    pub(in crate::bgp::wire) family: Option<Family>,
    pub(in crate::bgp::wire) next_hop: PathNextHop,
    /// Why the next hop is not a usable address.
    pub(in crate::bgp::wire) flaw: Option<&'static str>,
    pub(in crate::bgp::wire) nlri: &'a [u8],
}

/// A validated MP_UNREACH_NLRI.
#[derive(Clone, Copy)]
pub(in crate::bgp::wire) struct Unreach<'a> {
    pub(in crate::bgp::wire) family: Option<Family>,
    pub(in crate::bgp::wire) nlri: &'a [u8],
}

pub(super) fn reach<'a>(draft: &mut Draft<'a>, value: &'a [u8]) -> Result<(), Broken> {
    let [afi_hi, afi_lo, safi, length, after @ ..] = value else { return Err(Broken::Length) };
    let (next_hop, after) = after.split_at_checked(usize::from(*length)).ok_or(Broken::Length)?;
    // An octet that formerly counted SNPAs is ignored (RFC 4760 §3).
    let (_, nlri) = after.split_first().ok_or(Broken::Length)?;
    let family = negotiated(draft.shape(), [*afi_hi, *afi_lo], *safi);
    let mut reach =
        Reach { family, next_hop: PathNextHop::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), flaw: None, nlri };
    if let Some(family) = family {
        reach.next_hop = read_next_hop(draft.shape(), family, next_hop)
            .ok_or(Broken::Value("next hop of a wrong length"))?;
        let here = draft.shape().on_host && reach.next_hop.addr.is_loopback();
        reach.flaw = flaw(reach.next_hop.addr).filter(|_| !here);
        check(draft.shape(), family, nlri)?;
    }
    draft.reach = Some(reach);
    Ok(())
}

pub(super) fn unreach<'a>(draft: &mut Draft<'a>, value: &'a [u8]) -> Result<(), Broken> {
    let [afi_hi, afi_lo, safi, nlri @ ..] = value else { return Err(Broken::Length) };
    let family = negotiated(draft.shape(), [*afi_hi, *afi_lo], *safi);
    if let Some(family) = family {
        check(draft.shape(), family, nlri)?;
    }
    draft.unreach = Some(Unreach { family, nlri });
    Ok(())
}

fn negotiated(shape: &Shape, afi: [u8; 2], safi: u8) -> Option<Family> {
    Family::from_wire(u16::from_be_bytes(afi), safi).filter(|f| shape.has(*f))
}

fn check(shape: &Shape, family: Family, nlri: &[u8]) -> Result<(), Broken> {
    let good = nlri::is_valid(family, shape.add_path_receive(family), nlri);
    if good { Ok(()) } else { Err(Broken::Value("prefixes are malformed")) }
}

/// The forms in use: one address, or two of which the second is link-local.
fn read_next_hop(shape: &Shape, family: Family, octets: &[u8]) -> Option<PathNextHop> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return (family == Family::Ipv4Unicast).then(|| PathNextHop::from(IpAddr::from(v4)));
    }
    if family == Family::Ipv4Unicast && !shape.extended_next_hop {
        return None;
    }
    match octets.as_chunks::<16>() {
        ([one], []) => Some(PathNextHop::from(IpAddr::from(*one))),
        ([one, two], []) => Some(pair((*one).into(), (*two).into())),
        _ => None,
    }
}

fn pair(one: Ipv6Addr, two: Ipv6Addr) -> PathNextHop {
    let link_local = Some(two).filter(Ipv6Addr::is_unicast_link_local);
    match link_local {
        Some(ll) if one.is_unspecified() || one.is_unicast_link_local() => PathNextHop::from(IpAddr::V6(ll)),
        _ => PathNextHop { addr: one.into(), link_local },
    }
}

/// The requirements of RFC 4271 §6.3 on NEXT_HOP, for both families.
fn flaw(addr: IpAddr) -> Option<&'static str> {
    let good = match addr {
        IpAddr::V4(a) => super::decode::is_host(a),
        IpAddr::V6(a) => !(a.is_unspecified() || a.is_loopback() || a.is_multicast()),
    };
    (!good).then_some("next hop is not an address of a host")
}
