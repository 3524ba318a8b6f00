use std::fmt;

use crate::net::Asn;

/// Segment type of RFC 4271 §4.3 b.
pub const AS_SET: u8 = 1;
/// Segment type of RFC 4271 §4.3 b.
pub const AS_SEQUENCE: u8 = 2;

/// AS_PATH: segments with four-octet numbers, in wire form, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath(Box<[u8]>);

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// [`AS_SET`], [`AS_SEQUENCE`], or one of RFC 5065.
    pub kind: u8,
    octets: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Its numbers, in order.
    pub fn asns(self) -> impl DoubleEndedIterator<Item = Asn> + ExactSizeIterator + 'a {
        self.octets.as_chunks::<4>().0.iter().map(|a| Asn::from_be_bytes(*a))
    }
}

impl AsPath {
    /// The empty path of a route that starts here.
    pub fn empty() -> Self {
        Self::default()
    }

    /// From segments in wire form with four-octet numbers; `None` when their lengths do not add up.
    pub fn from_wire(octets: &[u8]) -> Option<Self> {
        let mut rest = octets;
        while let [_, count, after @ ..] = rest {
            rest = after.get(usize::from(*count) * 4..)?;
        }
        rest.is_empty().then(|| Self(octets.into()))
    }

    /// One AS_SEQUENCE (or more, where one is too short for all).
    pub fn sequence(asns: &[Asn]) -> Self {
        let mut octets = Vec::with_capacity(2 + asns.len() * 4);
        for run in asns.chunks(255) {
            octets.extend([AS_SEQUENCE, run.len() as u8]);
            octets.extend(run.iter().flat_map(|a| a.to_be_bytes()));
        }
        Self(octets.into())
    }

    /// The segments in wire form with four-octet numbers.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The segments, first to last.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (head, after) = rest.split_at_checked(2)?;
            let (octets, after) = after.split_at_checked(usize::from(head[1]) * 4)?;
            rest = after;
            Some(Segment { kind: head[0], octets })
        })
    }

    /// All numbers, sets included.
    pub fn asns(&self) -> impl Iterator<Item = Asn> {
        self.segments().flat_map(Segment::asns)
    }

    /// The length of RFC 4271 §9.1.2.2 a: a set counts as one, confederation segments do not (RFC 5065 §5.3).
    pub fn length(&self) -> usize {
        let of = |s: Segment<'_>| match s.kind {
            AS_SEQUENCE => s.asns().len(),
            AS_SET => 1,
            _ => 0,
        };
        self.segments().map(of).sum()
    }

    /// The neighbor AS: the first number, if the path begins with a sequence.
    pub fn first(&self) -> Option<Asn> {
        self.segments().next().filter(|s| s.kind == AS_SEQUENCE)?.asns().next()
    }

    /// Where the route started: the last number, if the path ends in a sequence.
    pub fn origin_as(&self) -> Option<Asn> {
        self.segments().last().filter(|s| s.kind == AS_SEQUENCE)?.asns().next_back()
    }

    /// How many times a number stands in it.
    pub fn count(&self, asn: Asn) -> usize {
        self.asns().filter(|a| *a == asn).count()
    }

    /// Whether a set is in it (RFC 9774 §3), one of a confederation too.
    pub fn has_set(&self) -> bool {
        self.segments().any(|s| matches!(s.kind, AS_SET | 4))
    }

    /// With `asn` so many times in front (RFC 4271 §5.1.2): into the first sequence while it has room.
    pub fn prepended(&self, asn: Asn, times: usize) -> Self {
        let mut path = self.clone();
        let mut left = times;
        while left > 0 {
            let (have, rest) = match &*path.0 {
                [AS_SEQUENCE, n, rest @ ..] if *n < 255 => (usize::from(*n), rest),
                all => (0, all),
            };
            let add = left.min(255 - have);
            let mut octets = Vec::with_capacity(path.0.len() + 2 + add * 4);
            octets.extend([AS_SEQUENCE, (have + add) as u8]);
            octets.extend(std::iter::repeat_n(asn.to_be_bytes(), add).flatten());
            octets.extend_from_slice(rest);
            path = Self(octets.into());
            left -= add;
        }
        path
    }
}

/// Numbers with one blank between them, a set as `{1,2}`.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, segment) in self.segments().enumerate() {
            let (open, between, close) = match segment.kind {
                AS_SEQUENCE => ("", " ", ""),
                AS_SET => ("{", ",", "}"),
                3 => ("(", " ", ")"),
                _ => ("[", ",", "]"),
            };
            f.write_str(if n > 0 { " " } else { "" })?;
            f.write_str(open)?;
            for (i, asn) in segment.asns().enumerate() {
                write!(f, "{}{asn}", if i > 0 { between } else { "" })?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_ends_and_text() {
        let set = AsPath::from_wire(&[2, 1, 0, 0, 0, 7, 1, 2, 0, 0, 0, 8, 0, 0, 0, 9]).unwrap();
        let cases = [
            (AsPath::empty(), "", 0, None, None, false),
            (AsPath::sequence(&[1, 2, 3]), "1 2 3", 3, Some(1), Some(3), false),
            (set, "7 {8,9}", 2, Some(7), None, true),
        ];
        for (path, text, length, first, origin, has_set) in cases {
            assert_eq!(path.to_string(), text);
            let got = (path.length(), path.first(), path.origin_as(), path.has_set());
            assert_eq!(got, (length, first, origin, has_set), "{text}");
        }
        assert_eq!(AsPath::from_wire(&[2, 2, 0, 0, 0, 1]), None);
        assert_eq!(AsPath::from_wire(&[2]), None);
    }

    #[test]
    fn prepending_fills_the_first_sequence_and_starts_another_when_it_is_full() {
        assert_eq!(AsPath::sequence(&[2]).prepended(1, 2), AsPath::sequence(&[1, 1, 2]));
        assert_eq!(AsPath::empty().prepended(1, 1), AsPath::sequence(&[1]));
        let long = AsPath::sequence(&[7; 254]).prepended(1, 3);
        assert_eq!(long.length(), 257);
        assert_eq!(long.segments().map(|s| s.asns().len()).collect::<Vec<_>>(), [2, 255]);
        let set = AsPath::from_wire(&[1, 1, 0, 0, 0, 9]).unwrap();
        assert_eq!(set.prepended(1, 1).to_string(), "1 {9}");
    }
}
