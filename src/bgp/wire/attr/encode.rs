//! Encoding of path attributes.

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use super::{
    Attrs,
    table::{self, EXTENDED_LENGTH, OPTIONAL, PARTIAL, ROWS, TRANSITIVE, code},
};
use crate::bgp::wire::Shape;

/// Attributes to be encoded.
pub(in crate::bgp::wire) struct Going<'a> {
    pub(in crate::bgp::wire) attrs: &'a Attrs,
    pub(in crate::bgp::wire) shape: &'a Shape,
    /// Encoded as NEXT_HOP; `None` if the next hop is in MP_REACH_NLRI (RFC 4760 §3).
    pub(in crate::bgp::wire) next_hop: Option<Ipv4Addr>,
}

impl Going<'_> {
    /// Appends all attributes in the order of their codes (RFC 4271 §5), unknown ones with the
    /// Partial bit.
    pub(in crate::bgp::wire) fn encode(&self, out: &mut BytesMut) {
        let mut unknown = self.attrs.extra().unknown.iter().peekable();
        for row in &ROWS {
            while let Some(attr) = unknown.next_if(|a| a.code < row.code) {
                put(out, attr.flags | PARTIAL, attr.code, &attr.value);
            }
            (row.encode)(self, out);
        }
        unknown.for_each(|attr| put(out, attr.flags | PARTIAL, attr.code, &attr.value));
    }

    /// Appends a known attribute.
    fn put(&self, code: u8, out: &mut BytesMut, value: &[u8]) {
        let flags = table::find(code).map_or(OPTIONAL | TRANSITIVE, |row| row.flags);
        let partial = self.attrs.extra.as_ref().is_some_and(|r| r.partial.contains(&code));
        put(out, if partial { flags | PARTIAL } else { flags }, code, value);
    }

    /// Appends a list unless it is empty.
    fn put_list<const N: usize>(
        &self,
        code: u8,
        out: &mut BytesMut,
        list: impl ExactSizeIterator<Item = [u8; N]>,
    ) {
        if list.len() > 0 {
            let value: Vec<u8> = list.flatten().collect();
            self.put(code, out, &value);
        }
    }
}

fn put(out: &mut BytesMut, flags: u8, code: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) if flags & EXTENDED_LENGTH == 0 => out.put_slice(&[flags, code, length]),
        _ => {
            out.put_slice(&[flags | EXTENDED_LENGTH, code]);
            // A longer one makes its message too large, which the packer detects.
            out.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        }
    }
    out.put_slice(value);
}

/// One function per attribute, which encodes it if it is present and may be advertised to this
/// neighbor.
pub(super) mod octets {
    use super::*;
    use crate::net::{AS_TRANS, Asn};

    pub(in super::super) fn origin(g: &Going<'_>, out: &mut BytesMut) {
        g.put(code::ORIGIN, out, &[g.attrs.origin as u8]);
    }

    pub(in super::super) fn as_path(g: &Going<'_>, out: &mut BytesMut) {
        if g.shape.four_octet_as {
            g.put(code::AS_PATH, out, g.attrs.as_path.as_bytes());
        } else {
            g.put(code::AS_PATH, out, &g.attrs.as_path.narrowed());
        }
    }

    /// RFC 6793 §4.2.2.
    pub(in super::super) fn as4_path(g: &Going<'_>, out: &mut BytesMut) {
        if !g.shape.four_octet_as && g.attrs.as_path.needs_as4() {
            g.put(code::AS4_PATH, out, g.attrs.as_path.as_bytes());
        }
    }

    pub(in super::super) fn next_hop(g: &Going<'_>, out: &mut BytesMut) {
        if let Some(next_hop) = g.next_hop {
            g.put(code::NEXT_HOP, out, &next_hop.octets());
        }
    }

    pub(in super::super) fn med(g: &Going<'_>, out: &mut BytesMut) {
        put_number(g, code::MED, out, g.attrs.med);
    }

    /// RFC 4271 §5.1.5: never to external neighbors.
    pub(in super::super) fn local_pref(g: &Going<'_>, out: &mut BytesMut) {
        put_number(g, code::LOCAL_PREF, out, g.attrs.local_pref.filter(|_| g.shape.ibgp));
    }

    pub(in super::super) fn atomic_aggregate(g: &Going<'_>, out: &mut BytesMut) {
        if g.attrs.extra().atomic_aggregate {
            g.put(code::ATOMIC_AGGREGATE, out, &[]);
        }
    }

    pub(in super::super) fn aggregator(g: &Going<'_>, out: &mut BytesMut) {
        let Some((asn, addr)) = g.attrs.extra().aggregator else { return };
        if g.shape.four_octet_as {
            g.put(code::AGGREGATOR, out, &aggregated_by(asn, addr));
        } else {
            let [a, b] = u16::try_from(asn).unwrap_or(AS_TRANS as u16).to_be_bytes();
            let [c, d, e, f] = addr.octets();
            g.put(code::AGGREGATOR, out, &[a, b, c, d, e, f]);
        }
    }

    /// RFC 6793 §4.2.2.
    pub(in super::super) fn as4_aggregator(g: &Going<'_>, out: &mut BytesMut) {
        match g.attrs.extra().aggregator {
            Some((asn, addr)) if !g.shape.four_octet_as && asn > u16::MAX.into() => {
                g.put(code::AS4_AGGREGATOR, out, &aggregated_by(asn, addr));
            }
            _ => {}
        }
    }

    fn aggregated_by(asn: Asn, addr: Ipv4Addr) -> [u8; 8] {
        ((u64::from(asn) << 32) | u64::from(addr.to_bits())).to_be_bytes()
    }

    pub(in super::super) fn communities(g: &Going<'_>, out: &mut BytesMut) {
        g.put_list(code::COMMUNITIES, out, g.attrs.communities.iter().map(|c| c.to_be_bytes()));
    }

    /// RFC 4456 §8: not transitive, and without meaning outside the AS.
    pub(in super::super) fn originator_id(g: &Going<'_>, out: &mut BytesMut) {
        let id = g.attrs.extra().originator_id.filter(|_| g.shape.ibgp);
        put_number(g, code::ORIGINATOR_ID, out, id.map(Ipv4Addr::to_bits));
    }

    pub(in super::super) fn cluster_list(g: &Going<'_>, out: &mut BytesMut) {
        if g.shape.ibgp {
            g.put_list(code::CLUSTER_LIST, out, g.attrs.extra().cluster_list.iter().map(|c| c.to_be_bytes()));
        }
    }

    pub(in super::super) fn ext_communities(g: &Going<'_>, out: &mut BytesMut) {
        g.put_list(code::EXT_COMMUNITIES, out, g.attrs.extra().ext_communities.iter().copied());
    }

    pub(in super::super) fn ipv6_ext_communities(g: &Going<'_>, out: &mut BytesMut) {
        g.put_list(code::IPV6_EXT_COMMUNITIES, out, g.attrs.extra().ipv6_ext_communities.iter().copied());
    }

    pub(in super::super) fn large_communities(g: &Going<'_>, out: &mut BytesMut) {
        let octets = |c: &[u32; 3]| {
            let mut octets = [0; 12];
            octets.iter_mut().zip(c.iter().flat_map(|n| n.to_be_bytes())).for_each(|(to, from)| *to = from);
            octets
        };
        g.put_list(code::LARGE_COMMUNITIES, out, g.attrs.extra().large_communities.iter().map(octets));
    }

    pub(in super::super) fn otc(g: &Going<'_>, out: &mut BytesMut) {
        put_number(g, code::OTC, out, g.attrs.extra().otc);
    }

    /// Encoded elsewhere, or never.
    pub(in super::super) fn nothing(_: &Going<'_>, _: &mut BytesMut) {}

    fn put_number(g: &Going<'_>, code: u8, out: &mut BytesMut, number: Option<u32>) {
        if let Some(n) = number {
            g.put(code, out, &n.to_be_bytes());
        }
    }
}
