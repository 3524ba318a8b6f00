//! Keyed SHA1 and Meticulous Keyed SHA1 (RFC 5880 §4.4, §6.7.4). Simple passwords and MD5 are not
//! supported: the first protects nothing, the second is to be avoided (§6.7.3).

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::packet::{Encoded, LONGEST, MANDATORY, Packet, SHA1_SECTION};
use crate::net::BfdAuth;

const KEYED_SHA1: u8 = 4;
const METICULOUS_KEYED_SHA1: u8 = 5;
/// Octets of the key and of the hash.
const HASH: usize = 20;
const HASH_AT: usize = MANDATORY + 8;

/// The signing side and the checking side of one session.
#[derive(Debug)]
pub(super) struct Authenticator {
    settings: BfdAuth,
    /// bfd.XmitAuthSeq
    sent: u32,
    /// bfd.RcvAuthSeq, while bfd.AuthSeqKnown
    received: Option<u32>,
}

impl Authenticator {
    /// `seed`: the first sequence number, which RFC 5880 §6.8.1 wants to be random.
    pub(super) fn new(settings: BfdAuth, seed: u32) -> Self {
        Self { settings, sent: seed, received: None }
    }

    pub(super) fn settings(&self) -> &BfdAuth {
        &self.settings
    }

    /// Nothing was received for twice the detection time: any sequence number may come next.
    pub(super) fn forget_sequence(&mut self) {
        self.received = None;
    }

    /// Signs a packet. Each has a number of its own, as the meticulous form requires and the other
    /// one allows.
    pub(super) fn sign(&mut self, packet: &Packet) -> Encoded {
        self.sent = self.sent.wrapping_add(1);
        let mut encoded = Packet { authenticated: true, ..*packet }.encode();
        let octets = encoded.as_mut_slice();
        let head = [self.kind(), SHA1_SECTION as u8, self.settings.key_id, 0];
        octets[MANDATORY..MANDATORY + 4].copy_from_slice(&head);
        octets[MANDATORY + 4..HASH_AT].copy_from_slice(&self.sent.to_be_bytes());
        octets[HASH_AT..].copy_from_slice(&self.key());
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, octets);
        octets[HASH_AT..].copy_from_slice(hash.as_ref());
        encoded
    }

    /// RFC 5880 §6.7.4, the receiving side. `octets`: the packet by its length field.
    pub(super) fn check(&mut self, packet: &Packet, octets: &[u8]) -> bool {
        let Some(section) = octets.get(MANDATORY..) else { return false };
        let Ok(section) = <&[u8; SHA1_SECTION]>::try_from(section) else { return false };
        let head = [self.kind(), SHA1_SECTION as u8, self.settings.key_id];
        if section[..3] != head {
            return false;
        }
        let sequence = u32::from_be_bytes([section[4], section[5], section[6], section[7]]);
        if !self.is_in_window(sequence, packet.multiplier) {
            return false;
        }
        let mut keyed = [0; LONGEST];
        keyed[..HASH_AT].copy_from_slice(&octets[..HASH_AT]);
        keyed[HASH_AT..].copy_from_slice(&self.key());
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &keyed);
        if hash.as_ref() != &section[8..] {
            return false;
        }
        self.received = Some(sequence);
        true
    }

    fn is_in_window(&self, sequence: u32, multiplier: u8) -> bool {
        let Some(last) = self.received else { return true };
        let ahead = sequence.wrapping_sub(last);
        ahead >= u32::from(self.settings.meticulous) && ahead <= 3 * u32::from(multiplier)
    }

    fn kind(&self) -> u8 {
        if self.settings.meticulous { METICULOUS_KEYED_SHA1 } else { KEYED_SHA1 }
    }

    /// Filled with zeros (RFC 5880 §4.4).
    fn key(&self) -> [u8; HASH] {
        let mut key = [0; HASH];
        for (place, octet) in key.iter_mut().zip(&self.settings.key) {
            *place = *octet;
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(meticulous: bool) -> BfdAuth {
        BfdAuth { key_id: 3, key: b"secret".to_vec(), meticulous }
    }

    fn packet() -> Packet {
        Packet { multiplier: 3, my_discriminator: 1, ..Packet::default() }
    }

    fn checked(by: &mut Authenticator, octets: &[u8]) -> bool {
        Packet::decode(octets).is_ok_and(|(packet, octets)| by.check(&packet, octets))
    }

    #[test]
    fn a_signed_packet_is_accepted_once_or_again() {
        for (meticulous, again) in [(true, false), (false, true)] {
            let mut ours = Authenticator::new(settings(meticulous), u32::MAX - 1);
            let mut theirs = Authenticator::new(settings(meticulous), 0);
            for _ in 0..4 {
                let signed = ours.sign(&packet());
                assert!(checked(&mut theirs, signed.as_slice()), "the numbers go over zero");
                assert_eq!(checked(&mut theirs, signed.as_slice()), again, "repeated");
            }
        }
    }

    #[test]
    fn other_keys_types_octets_and_old_numbers_are_refused() {
        let mut ours = Authenticator::new(settings(true), 10);
        let first = ours.sign(&packet());
        let second = ours.sign(&packet());
        let mut other = Authenticator::new(BfdAuth { key: b"other".to_vec(), ..settings(true) }, 0);
        assert!(!checked(&mut other, first.as_slice()));
        let mut other = Authenticator::new(BfdAuth { key_id: 4, ..settings(true) }, 0);
        assert!(!checked(&mut other, first.as_slice()));
        assert!(!checked(&mut Authenticator::new(settings(false), 0), first.as_slice()));
        for at in 0..LONGEST {
            let mut wrong = first.as_slice().to_vec();
            wrong[at] ^= 1;
            // The reserved octet is covered by the hash like every other.
            assert!(!checked(&mut Authenticator::new(settings(true), 0), &wrong), "octet {at}");
        }
        let mut theirs = Authenticator::new(settings(true), 0);
        assert!(checked(&mut theirs, second.as_slice()));
        assert!(!checked(&mut theirs, first.as_slice()), "replayed");
        for _ in 0..9 {
            ours.sign(&packet());
        }
        let far = ours.sign(&packet());
        assert!(!checked(&mut theirs, far.as_slice()), "10 ahead, 9 are allowed");
        theirs.forget_sequence();
        assert!(checked(&mut theirs, far.as_slice()));
    }

    #[test]
    fn the_key_is_not_printed() {
        let text = format!("{:?}", Authenticator::new(settings(true), 0));
        assert!(!text.contains("secret") && !text.contains("115"), "{text}");
    }
}
