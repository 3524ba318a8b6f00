//! The BFD control packet (RFC 5880 §4.1), and the checks of §6.8.6 that need no session.

use std::time::Duration;

/// Octets of the mandatory section.
pub(super) const MANDATORY: usize = 24;
/// Octets of a SHA1 authentication section (RFC 5880 §4.4).
pub(super) const SHA1_SECTION: usize = 28;
/// The longest packet that is sent.
pub(super) const LONGEST: usize = MANDATORY + SHA1_SECTION;
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// The state of a session (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    AdminDown,
    #[default]
    Down,
    Init,
    Up,
}

impl State {
    fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AdminDown => "admin-down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        }
    }
}

/// The mandatory section; intervals are microseconds on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    pub diagnostic: u8,
    pub state: State,
    pub poll: bool,
    pub is_final: bool,
    pub independent: bool,
    pub authenticated: bool,
    pub demand: bool,
    pub multiplier: u8,
    pub my_discriminator: u32,
    pub your_discriminator: u32,
    pub min_tx: Duration,
    pub min_rx: Duration,
    pub min_echo_rx: Duration,
}

/// Why a packet was discarded: a name of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Discard {
    TooShort,
    Version,
    Length,
    Multiplier,
    Multipoint,
    NoDiscriminator,
    State,
    Ttl,
    NoSession,
    Authentication,
}

impl Discard {
    pub const ALL: [Self; 10] = [
        Self::TooShort,
        Self::Version,
        Self::Length,
        Self::Multiplier,
        Self::Multipoint,
        Self::NoDiscriminator,
        Self::State,
        Self::Ttl,
        Self::NoSession,
        Self::Authentication,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "too-short",
            Self::Version => "version",
            Self::Length => "length",
            Self::Multiplier => "multiplier",
            Self::Multipoint => "multipoint",
            Self::NoDiscriminator => "no-discriminator",
            Self::State => "state",
            Self::Ttl => "ttl",
            Self::NoSession => "no-session",
            Self::Authentication => "authentication",
        }
    }
}

/// A packet to send; holds its octets itself, so that sending allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    octets: [u8; LONGEST],
    len: usize,
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

impl Encoded {
    pub fn as_slice(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.octets.get_mut(..self.len).unwrap_or_default()
    }
}

impl Packet {
    /// RFC 5880 §6.8.6 up to the choice of the session, in its order. Returns the octets that
    /// belong to the packet, too.
    pub fn decode(octets: &[u8]) -> Result<(Self, &[u8]), Discard> {
        let (head, _) = octets.split_first_chunk::<MANDATORY>().ok_or(Discard::TooShort)?;
        if head[0] >> 5 != VERSION {
            return Err(Discard::Version);
        }
        let flags = head[1];
        let authenticated = flags & AUTHENTICATED != 0;
        let length = usize::from(head[3]);
        let least = if authenticated { MANDATORY + 2 } else { MANDATORY };
        let octets = octets.get(..length).filter(|_| length >= least).ok_or(Discard::Length)?;
        let word = |at: usize| {
            let octets = head.get(at..at + 4).and_then(|o| o.try_into().ok());
            u32::from_be_bytes(octets.unwrap_or_default())
        };
        let micros = |at: usize| Duration::from_micros(word(at).into());
        let packet = Self {
            diagnostic: head[0] & 0x1f,
            state: State::from_bits(flags >> 6),
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            independent: flags & INDEPENDENT != 0,
            authenticated,
            demand: flags & DEMAND != 0,
            multiplier: head[2],
            my_discriminator: word(4),
            your_discriminator: word(8),
            min_tx: micros(12),
            min_rx: micros(16),
            min_echo_rx: micros(20),
        };
        if packet.multiplier == 0 {
            return Err(Discard::Multiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(Discard::Multipoint);
        }
        if packet.my_discriminator == 0 {
            return Err(Discard::NoDiscriminator);
        }
        if packet.your_discriminator == 0 && !matches!(packet.state, State::Down | State::AdminDown) {
            return Err(Discard::State);
        }
        Ok((packet, octets))
    }

    /// With room for a SHA1 section behind it where it is to be signed.
    pub fn encode(&self) -> Encoded {
        let mut octets = [0; LONGEST];
        let len = if self.authenticated { LONGEST } else { MANDATORY };
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        octets[0] = VERSION << 5 | self.diagnostic & 0x1f;
        octets[1] = (self.state as u8) << 6
            | flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.independent, INDEPENDENT)
            | flag(self.authenticated, AUTHENTICATED)
            | flag(self.demand, DEMAND);
        octets[2] = self.multiplier;
        octets[3] = u8::try_from(len).unwrap_or(u8::MAX);
        let micros = |d: Duration| u32::try_from(d.as_micros()).unwrap_or(u32::MAX);
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            micros(self.min_tx),
            micros(self.min_rx),
            micros(self.min_echo_rx),
        ];
        for (place, word) in octets[4..MANDATORY].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        Encoded { octets, len }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written down by hand from the figure of RFC 5880 §4.1: Up, Poll, C bit, multiplier 3, 300
    /// ms.
    const UP: [u8; 24] =
        [0x20, 0xe8, 3, 24, 0, 0, 0, 7, 0, 0, 0, 9, 0, 4, 0x93, 0xe0, 0, 4, 0x93, 0xe0, 0, 0, 0, 0];

    fn up() -> Packet {
        Packet {
            state: State::Up,
            poll: true,
            independent: true,
            multiplier: 3,
            my_discriminator: 7,
            your_discriminator: 9,
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            ..Packet::default()
        }
    }

    #[test]
    fn the_figure_of_the_rfc_is_read_and_written() {
        assert_eq!(Packet::decode(&UP).unwrap(), (up(), &UP[..]));
        assert_eq!(up().encode().as_slice(), UP);
    }

    #[test]
    fn each_rule_of_the_reception_discards() {
        type Change = fn(&mut Vec<u8>);
        #[rustfmt::skip]
        let cases: &[(&str, Change, Discard)] = &[
            ("nothing",                  |p| p.clear(),                          Discard::TooShort),
            ("23 octets",                |p| p.truncate(23),                     Discard::TooShort),
            ("version 0",                |p| p[0] = 0,                           Discard::Version),
            ("version 2",                |p| p[0] = 0x40,                        Discard::Version),
            ("length 23",                |p| p[3] = 23,                          Discard::Length),
            ("length beyond the payload", |p| p[3] = 25,                         Discard::Length),
            ("A bit, length 24",         |p| p[1] |= 4,                          Discard::Length),
            ("A bit, length 25",         |p| { p[1] |= 4; p[3] = 25; p.push(0) }, Discard::Length),
            ("multiplier 0",             |p| p[2] = 0,                           Discard::Multiplier),
            ("multipoint",               |p| p[1] |= 1,                          Discard::Multipoint),
            ("my discriminator 0",       |p| p[7] = 0,                           Discard::NoDiscriminator),
            ("up without yours",         |p| p[11] = 0,                          Discard::State),
            ("init without yours",       |p| { p[11] = 0; p[1] = 0x80 },         Discard::State),
        ];
        for (name, change, expected) in cases {
            let mut packet = UP.to_vec();
            change(&mut packet);
            assert_eq!(Packet::decode(&packet).unwrap_err(), *expected, "{name}");
        }
    }

    #[test]
    fn octets_behind_the_packet_are_ignored() {
        let mut longer = UP.to_vec();
        longer.extend([1, 2, 3]);
        assert_eq!(Packet::decode(&longer).unwrap(), (up(), &UP[..]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((packet, _)) = Packet::decode(&octets) {
                let written = packet.encode();
                prop_assert_eq!(Packet::decode(written.as_slice()).unwrap().0, packet);
            }
        }
    }
}
