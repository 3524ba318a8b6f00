//! Packs routes into as few UPDATEs as possible (RFC 4271 §4.3, §9.2; RFC 4760 §3).
//!
//! IPv4 prefixes with an IPv4 next hop use the fields of RFC 4271, all others MP_REACH_NLRI, which
//! precedes the other attributes (RFC 7606 §5.1) and replaces NEXT_HOP.

use std::{iter::Peekable, net::IpAddr};

use bytes::{BufMut, BytesMut};

use super::{
    Shape,
    attr::{Attrs, PathNextHop, code, encode::Going},
    framing::{self, HEADER, Kind},
    nlri::Nlri,
};
use crate::net::Family;

/// The attributes leave no room for a prefix in the largest message: such a route cannot be
/// advertised and has to be withdrawn (RFC 8654 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attributes too large for a message")]
pub struct TooLarge;

/// Header of an attribute with extended length, optional and not transitive.
const FLAGS: u8 = 0x90;
const EXTENDED_HEADER: usize = 4;
/// Octets of the attributes of a route, as a rule.
const ATTRIBUTES: usize = 64;
/// Both length fields of an UPDATE.
const LENGTHS: usize = 4;

/// Appends UPDATE messages to a buffer.
#[derive(Debug)]
pub struct Packer<'a> {
    shape: &'a Shape,
    out: &'a mut BytesMut,
    messages: u32,
    /// The attributes of the current set, encoded once for all its messages.
    attributes: BytesMut,
}

impl<'a> Packer<'a> {
    pub fn new(shape: &'a Shape, out: &'a mut BytesMut) -> Self {
        Self { shape, out, messages: 0, attributes: BytesMut::new() }
    }

    /// Number of messages appended so far.
    pub fn messages(&self) -> u32 {
        self.messages
    }

    /// Advertises prefixes of one family with one attribute set.
    ///
    /// # Errors
    ///
    /// [`TooLarge`]; nothing was appended then.
    pub fn advertise(
        &mut self,
        attrs: &Attrs,
        family: Family,
        nlri: impl IntoIterator<Item = Nlri>,
    ) -> Result<(), TooLarge> {
        let classic = match (family, attrs.next_hop.addr) {
            (Family::Ipv4Unicast, IpAddr::V4(a)) => Some(a),
            _ => None,
        };
        self.attributes.clear();
        self.attributes.reserve(ATTRIBUTES);
        Going { attrs, shape: self.shape, next_hop: classic }.encode(&mut self.attributes);
        let mp = if classic.is_some() {
            0
        } else {
            EXTENDED_HEADER + 5 + usize::from(next_hop_len(attrs.next_hop))
        };
        let fixed = HEADER + LENGTHS + self.attributes.len() + mp;
        if fixed + self.longest(family) > self.shape.max_message() {
            return Err(TooLarge);
        }
        let mut nlri = of_family(family, nlri).peekable();
        while nlri.peek().is_some() {
            let start = self.begin();
            self.out.put_u16(0);
            let length_at = self.out.len();
            self.out.put_u16(0);
            if classic.is_some() {
                self.out.put_slice(&self.attributes);
                framing::patch_u16(self.out, length_at, self.attributes.len());
                self.fill(start, family, &mut nlri, 0);
            } else {
                let behind = self.attributes.len();
                self.attribute(code::MP_REACH, family, |packer| {
                    put_next_hop(packer.out, attrs.next_hop);
                    packer.out.put_u8(0);
                    packer.fill(start, family, &mut nlri, behind);
                });
                self.out.put_slice(&self.attributes);
                framing::patch_u16(self.out, length_at, self.out.len() - length_at - 2);
            }
            self.finish(start);
        }
        Ok(())
    }

    /// Withdraws prefixes of one family.
    pub fn withdraw(&mut self, family: Family, nlri: impl IntoIterator<Item = Nlri>) {
        let mut nlri = of_family(family, nlri).peekable();
        while nlri.peek().is_some() {
            let start = self.begin();
            let length_at = self.out.len();
            self.out.put_u16(0);
            match family {
                Family::Ipv4Unicast => {
                    self.fill(start, family, &mut nlri, 2);
                    framing::patch_u16(self.out, length_at, self.out.len() - length_at - 2);
                    self.out.put_u16(0);
                }
                Family::Ipv6Unicast => {
                    self.out.put_u16(0);
                    self.attribute(code::MP_UNREACH, family, |packer| {
                        packer.fill(start, family, &mut nlri, 0)
                    });
                    framing::patch_u16(self.out, length_at + 2, self.out.len() - length_at - LENGTHS);
                }
            }
            self.finish(start);
        }
    }

    /// Appends End-of-RIB (RFC 4724 §2).
    pub fn end_of_rib(&mut self, family: Family) {
        let start = self.begin();
        match family {
            Family::Ipv4Unicast => self.out.put_u32(0),
            Family::Ipv6Unicast => self.out.put_slice(&[0, 0, 0, 6, 0x80, code::MP_UNREACH, 3, 0, 2, 1]),
        }
        self.finish(start);
    }

    fn begin(&mut self) -> usize {
        framing::begin(self.out, Kind::Update)
    }

    fn finish(&mut self, start: usize) {
        framing::finish(self.out, start);
        self.messages += 1;
    }

    /// Appends an attribute that starts with a family; its length is filled in at the end.
    fn attribute(&mut self, code: u8, family: Family, value: impl FnOnce(&mut Self)) {
        self.out.put_slice(&[FLAGS, code]);
        let length_at = self.out.len();
        self.out.put_u16(0);
        self.out.put_u16(family.afi());
        self.out.put_u8(family.safi());
        value(self);
        framing::patch_u16(self.out, length_at, self.out.len() - length_at - 2);
    }

    /// Appends prefixes while the message has room, reserving `behind` octets.
    fn fill(
        &mut self,
        start: usize,
        family: Family,
        nlri: &mut Peekable<impl Iterator<Item = Nlri>>,
        behind: usize,
    ) {
        let add_path = self.shape.add_path_send(family);
        let end = start + self.shape.max_message() - behind;
        while let Some(n) = nlri.next_if(|n| self.out.len() + n.wire_len(add_path) <= end) {
            n.encode(add_path, self.out);
        }
    }

    /// Encoded length of the longest prefix of a family.
    fn longest(&self, family: Family) -> usize {
        1 + usize::from(family.max_len() / 8) + if self.shape.add_path_send(family) { 4 } else { 0 }
    }
}

/// Drops prefixes of another family, which would never fit.
fn of_family(family: Family, nlri: impl IntoIterator<Item = Nlri>) -> impl Iterator<Item = Nlri> {
    nlri.into_iter().filter(move |n| n.prefix.family() == family)
}

/// Encoded length of a next hop in MP_REACH_NLRI, without the length octet.
fn next_hop_len(next_hop: PathNextHop) -> u8 {
    if next_hop.link_local.is_some() { 32 } else { 16 }
}

/// Sixteen octets, or thirty-two with a link-local address (RFC 2545 §3). An IPv4 next hop of IPv6
/// prefixes is encoded as a mapped address.
fn put_next_hop(out: &mut BytesMut, next_hop: PathNextHop) {
    let addr = match next_hop.addr {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    };
    out.put_u8(next_hop_len(next_hop));
    out.put_slice(&addr.octets());
    if let Some(link_local) = next_hop.link_local {
        out.put_slice(&link_local.octets());
    }
}
