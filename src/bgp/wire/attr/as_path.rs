//! AS_PATH (RFC 4271 §4.3 b, §5.1.2) with four-octet numbers (RFC 6793).

use std::fmt;

use crate::net::{AS_TRANS, Asn};

/// Limit of AS numbers in one segment.
const SEGMENT: usize = 255;

/// AS_PATH: validated segments with four-octet AS numbers, in wire form.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath(Box<[u8]>);

/// RFC 4271 §4.3 b. Confederation segments are never accepted, as we are not in a confederation
/// (RFC 5065 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    Set = 1,
    Sequence = 2,
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    pub kind: SegmentKind,
    octets: &'a [u8],
}

impl<'a> Segment<'a> {
    pub fn asns(self) -> impl DoubleEndedIterator<Item = Asn> + ExactSizeIterator + 'a {
        self.octets.as_chunks::<4>().0.iter().map(|c| Asn::from_be_bytes(*c))
    }
}

impl AsPath {
    /// The empty path of an originated route.
    pub fn empty() -> Self {
        Self::default()
    }

    /// One sequence, split if it exceeds a segment.
    pub fn sequence(numbers: &[Asn]) -> Self {
        Self::from_segments(&[(SegmentKind::Sequence, numbers)])
    }

    /// Builds a path from segments. Empty ones are dropped, long sequences split, long sets
    /// truncated.
    pub fn from_segments(segments: &[(SegmentKind, &[Asn])]) -> Self {
        let mut octets = Vec::new();
        for &(kind, numbers) in segments {
            let most = if kind == SegmentKind::Set { 1 } else { usize::MAX };
            for part in numbers.chunks(SEGMENT).take(most) {
                push(&mut octets, kind, part.iter().copied());
            }
        }
        Self(octets.into())
    }

    /// Takes segments in wire form with four-octet numbers; `None` if they are malformed.
    pub fn from_wire(octets: &[u8]) -> Option<Self> {
        Self::decode(octets, true).ok()
    }

    /// The segments in wire form with four-octet numbers.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut rest = self.as_bytes();
        std::iter::from_fn(move || {
            let (kind, count, after) = split_header(rest)?;
            let (octets, next) = after.split_at_checked(count * 4)?;
            rest = next;
            let kind = if kind == SegmentKind::Set as u8 { SegmentKind::Set } else { SegmentKind::Sequence };
            Some(Segment { kind, octets })
        })
    }

    /// All AS numbers from left to right, including those of sets.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + '_ {
        self.segments().flat_map(Segment::asns)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Length as the decision process counts it: a set counts as one (RFC 4271 §9.1.2.2 a).
    pub fn length(&self) -> usize {
        self.segments().map(hops).sum()
    }

    pub fn contains(&self, asn: Asn) -> bool {
        self.asns().any(|n| n == asn)
    }

    /// How often `asn` occurs in the path.
    pub fn count(&self, asn: Asn) -> usize {
        self.asns().filter(|n| *n == asn).count()
    }

    /// The neighboring AS: the leftmost number, `None` for an empty path and for one that starts
    /// with a set. MED is compared only among paths with the same one (RFC 4271 §9.1.2.2 c).
    pub fn first(&self) -> Option<Asn> {
        let first = self.segments().next().filter(|s| s.kind == SegmentKind::Sequence)?;
        first.asns().next()
    }

    /// The origin AS: the rightmost number, `None` for an empty path and for one that ends in a set
    /// (RFC 6907 §7.1.9: such a route has no origin).
    pub fn origin_as(&self) -> Option<Asn> {
        let last = self.segments().last().filter(|s| s.kind == SegmentKind::Sequence)?;
        last.asns().next_back()
    }

    /// Whether the path contains an AS_SET (RFC 9774 §3).
    pub fn has_set(&self) -> bool {
        self.segments().any(|s| s.kind == SegmentKind::Set)
    }

    /// The path with `asn` prepended `times` times (RFC 4271 §5.1.2 b): to the first sequence while
    /// it has room, then in new ones.
    #[must_use]
    pub fn prepended(&self, asn: Asn, times: usize) -> Self {
        let head = self.segments().next().filter(|s| s.kind == SegmentKind::Sequence);
        let held = head.map_or(0, |s| s.asns().len());
        let fit = times.min(SEGMENT - held);
        let mut octets = Vec::with_capacity(self.0.len() + times * 4 + 2 * (times / SEGMENT + 2));
        let mut beyond = times - fit;
        while beyond > 0 {
            let part = (beyond - 1) % SEGMENT + 1;
            push(&mut octets, SegmentKind::Sequence, std::iter::repeat_n(asn, part));
            beyond -= part;
        }
        let merged = std::iter::repeat_n(asn, fit).chain(head.into_iter().flat_map(Segment::asns));
        push_counted(&mut octets, SegmentKind::Sequence, fit + held, merged);
        let behind = if head.is_some() { 2 + held * 4 } else { 0 };
        octets.extend_from_slice(self.0.get(behind..).unwrap_or_default());
        Self(octets.into())
    }

    /// AS numbers with a set as a nested array: `as_path` in JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let mut path: Vec<serde_json::Value> = Vec::new();
        for segment in self.segments() {
            match segment.kind {
                SegmentKind::Sequence => path.extend(segment.asns().map(Into::into)),
                SegmentKind::Set => path.push(segment.asns().collect()),
            }
        }
        path.into()
    }

    /// Validates the octets received and copies them (RFC 7606 §7.2).
    pub(super) fn decode(value: &[u8], four_octet_as: bool) -> Result<Self, &'static str> {
        let width = if four_octet_as { 4 } else { 2 };
        let mut rest = value;
        while !rest.is_empty() {
            let (kind, count, after) = split_header(rest).ok_or("a single octet is left")?;
            match kind {
                1 | 2 => {}
                3 | 4 => return Err("confederation segment from outside"),
                _ => return Err("unknown segment type"),
            }
            let (numbers, next) =
                after.split_at_checked(count * width).ok_or("segment longer than the attribute")?;
            if count == 0 {
                return Err("segment of no numbers");
            }
            if numbers.chunks_exact(width).any(|n| n.iter().all(|octet| *octet == 0)) {
                return Err("AS 0"); // RFC 7607 §2
            }
            rest = next;
        }
        Ok(Self(if four_octet_as { value.into() } else { widen(value) }))
    }

    /// AS4_PATH: like AS_PATH, except that confederation segments are removed (RFC 6793 §6).
    pub(super) fn decode_as4(value: &[u8]) -> Result<Self, &'static str> {
        let (mut rest, mut kept) = (value, Vec::with_capacity(value.len()));
        while let Some((kind, count, after)) = split_header(rest) {
            let end = (2 + count * 4).min(rest.len());
            if !matches!(kind, 3 | 4) || after.len() < count * 4 {
                kept.extend_from_slice(rest.get(..end).unwrap_or_default());
            }
            rest = rest.get(end..).unwrap_or_default();
        }
        kept.extend_from_slice(rest);
        Self::decode(&kept, true)
    }

    /// Replaces the tail of a path that contains AS_TRANS by the actual numbers of AS4_PATH (RFC
    /// 6793 §4.2.3). An AS4_PATH that is longer than the path is ignored.
    pub(super) fn merge(self, as4: &Self) -> Self {
        let Some(mut lead) = self.length().checked_sub(as4.length()) else { return self };
        let mut octets = Vec::with_capacity(self.0.len().max(as4.0.len()) + 2);
        for segment in self.segments() {
            if lead == 0 {
                break;
            }
            let take = if segment.kind == SegmentKind::Set { usize::MAX } else { lead };
            push(&mut octets, segment.kind, segment.asns().take(take).collect::<Vec<_>>().into_iter());
            lead = lead.saturating_sub(hops(segment));
        }
        Self(octets.into()).join(as4)
    }

    /// Concatenates this path and `tail`, joining two adjacent sequences if they fit into one.
    fn join(self, tail: &Self) -> Self {
        let (last, next) = (self.segments().last(), tail.segments().next());
        let mut octets = self.0.to_vec();
        let behind = match (last, next) {
            (Some(a), Some(b))
                if a.kind == SegmentKind::Sequence
                    && b.kind == SegmentKind::Sequence
                    && a.octets.len() + b.octets.len() <= SEGMENT * 4 =>
            {
                octets.truncate(self.0.len() - a.octets.len() - 2);
                let both = a.asns().len() + b.asns().len();
                push_counted(&mut octets, a.kind, both, a.asns().chain(b.asns()));
                2 + b.octets.len()
            }
            _ => 0,
        };
        octets.extend_from_slice(tail.0.get(behind..).unwrap_or_default());
        Self(octets.into())
    }

    /// Whether a number needs more than two octets, so that AS4_PATH has to accompany the path to a
    /// two-octet neighbor (RFC 6793 §4.2.2).
    pub(super) fn needs_as4(&self) -> bool {
        self.asns().any(|n| n > u16::MAX.into())
    }

    /// The segments with two-octet numbers, AS_TRANS for those that do not fit.
    pub(super) fn narrowed(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.0.len());
        for segment in self.segments() {
            octets.extend([segment.kind as u8, u8::try_from(segment.asns().len()).unwrap_or(u8::MAX)]);
            for n in segment.asns() {
                octets.extend(u16::try_from(n).unwrap_or(AS_TRANS as u16).to_be_bytes());
            }
        }
        octets
    }
}

/// A segment's type and count, and the octets that follow.
fn split_header(octets: &[u8]) -> Option<(u8, usize, &[u8])> {
    match octets {
        [kind, count, after @ ..] => Some((*kind, usize::from(*count), after)),
        _ => None,
    }
}

fn hops(segment: Segment<'_>) -> usize {
    match segment.kind {
        SegmentKind::Set => 1,
        SegmentKind::Sequence => segment.asns().len(),
    }
}

fn push(octets: &mut Vec<u8>, kind: SegmentKind, numbers: impl ExactSizeIterator<Item = Asn>) {
    push_counted(octets, kind, numbers.len(), numbers);
}

/// Appends a segment of `count` numbers, at most 255; an empty one is left out.
fn push_counted(octets: &mut Vec<u8>, kind: SegmentKind, count: usize, numbers: impl Iterator<Item = Asn>) {
    if let (1.., Ok(count)) = (count, u8::try_from(count)) {
        octets.extend([kind as u8, count]);
        numbers.for_each(|n| octets.extend(n.to_be_bytes()));
    }
}

/// Converts validated segments with two-octet numbers to four octets.
fn widen(mut value: &[u8]) -> Box<[u8]> {
    let mut octets = Vec::with_capacity(value.len() * 2);
    while let Some((kind, count, after)) = split_header(value) {
        let (numbers, next) = after.split_at_checked(count * 2).unwrap_or_default();
        octets.extend([kind, u8::try_from(count).unwrap_or(u8::MAX)]);
        for n in numbers.as_chunks::<2>().0 {
            octets.extend(Asn::from(u16::from_be_bytes(*n)).to_be_bytes());
        }
        value = next;
    }
    octets.into()
}

/// AS numbers separated by spaces, a set as `{1,2}`: the text that `as-path` of a policy is matched
/// against.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for segment in self.segments() {
            match segment.kind {
                SegmentKind::Sequence => {
                    for n in segment.asns() {
                        write!(f, "{space}{n}")?;
                        space = " ";
                    }
                }
                SegmentKind::Set => {
                    write!(f, "{space}{{")?;
                    for (i, n) in segment.asns().enumerate() {
                        write!(f, "{}{n}", if i == 0 { "" } else { "," })?;
                    }
                    f.write_str("}")?;
                    space = " ";
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(segments: &[(SegmentKind, &[Asn])]) -> AsPath {
        AsPath::from_segments(segments)
    }

    use SegmentKind::{Sequence, Set};

    #[test]
    fn a_set_counts_as_one_and_names_no_neighbor() {
        let mixed = path(&[(Sequence, &[1, 2, 2]), (Set, &[7, 8, 9]), (Sequence, &[3])]);
        assert_eq!((mixed.length(), mixed.first(), mixed.origin_as()), (5, Some(1), Some(3)));
        assert_eq!((mixed.count(2), mixed.contains(8), mixed.has_set()), (2, true, true));
        assert_eq!(mixed.to_string(), "1 2 2 {7,8,9} 3");
        assert_eq!(mixed.to_json(), serde_json::json!([1, 2, 2, [7, 8, 9], 3]));
        let sets = path(&[(Set, &[1, 2])]);
        assert_eq!((sets.length(), sets.first(), sets.origin_as()), (1, None, None));
        let none = AsPath::empty();
        assert_eq!(
            (none.length(), none.first(), none.origin_as(), none.to_string()),
            (0, None, None, "".into())
        );
    }

    #[test]
    fn prepending_fills_the_first_sequence_and_then_makes_new_ones() {
        assert_eq!(AsPath::empty().prepended(9, 2), AsPath::sequence(&[9, 9]));
        assert_eq!(AsPath::empty().prepended(9, 0), AsPath::empty());
        assert_eq!(AsPath::sequence(&[1, 2]).prepended(9, 1), AsPath::sequence(&[9, 1, 2]));
        let set = path(&[(Set, &[1, 2])]);
        assert_eq!(set.prepended(9, 1), path(&[(Sequence, &[9]), (Set, &[1, 2])]));
        let full = AsPath::sequence(&[1; 254]).prepended(9, 3);
        let lengths: Vec<_> = full.segments().map(|s| s.asns().len()).collect();
        assert_eq!((lengths, full.length(), full.count(9)), (vec![2, 255], 257, 3));
        let long = AsPath::empty().prepended(9, 600);
        let lengths: Vec<_> = long.segments().map(|s| s.asns().len()).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 600);
        assert!(lengths.iter().all(|n| (1..=255).contains(n)), "{lengths:?}");
        assert_eq!(AsPath::decode(full.as_bytes(), true), Ok(full.clone()));
    }

    #[test]
    fn malformed_paths_are_named() {
        #[rustfmt::skip]
        let cases: &[(&str, &[u8])] = &[
            ("a single octet is left",            &[2]),
            ("a single octet is left",            &[2, 1, 0, 0, 0, 1, 2]),
            ("segment longer than the attribute", &[2, 2, 0, 0, 0, 1]),
            ("segment longer than the attribute", &[2, 255]),
            ("segment of no numbers",             &[2, 0]),
            ("unknown segment type",              &[0, 1, 0, 0, 0, 1]),
            ("unknown segment type",              &[5, 1, 0, 0, 0, 1]),
            ("confederation segment from outside", &[3, 1, 0, 0, 0, 1]),
            ("confederation segment from outside", &[4, 1, 0, 0, 0, 1]),
            ("AS 0",                              &[2, 2, 0, 0, 0, 1, 0, 0, 0, 0]),
            ("AS 0",                              &[1, 1, 0, 0, 0, 0]),
        ];
        for (what, octets) in cases {
            assert_eq!(AsPath::decode(octets, true), Err(*what), "{octets:?}");
        }
        let long = [&[2, 255], &[1; 255 * 4][..]].concat().repeat(5);
        assert_eq!(AsPath::decode(&long, true).unwrap().length(), 5 * 255, "longer than a short message");
        assert_eq!(AsPath::decode(&[2, 1, 0, 0], false), Err("AS 0"));
    }

    #[test]
    fn two_octet_paths_are_widened_and_narrowed() {
        let octets = [2, 2, 0xfd, 0xe8, 0x5b, 0xa0, 1, 1, 0, 7];
        let wide = AsPath::decode(&octets, false).unwrap();
        assert_eq!(wide, path(&[(Sequence, &[65000, AS_TRANS]), (Set, &[7])]));
        assert_eq!(wide.narrowed(), octets);
        assert_eq!(AsPath::sequence(&[70000]).narrowed(), [2, 1, 0x5b, 0xa0]);
        assert!(AsPath::sequence(&[1, 70000]).needs_as4() && !wide.needs_as4());
    }

    /// RFC 6793 §4.2.3.
    #[test]
    fn as4_path_replaces_the_tail() {
        #[rustfmt::skip]
        let cases = [
            ("same length",    path(&[(Sequence, &[23456, 23456])]), path(&[(Sequence, &[70000, 80000])]), "70000 80000"),
            ("shorter",        path(&[(Sequence, &[1, 2, 23456])]), path(&[(Sequence, &[70000])]), "1 2 70000"),
            ("longer: no use", path(&[(Sequence, &[23456])]), path(&[(Sequence, &[70000, 5])]), "23456"),
            ("set in front",   path(&[(Set, &[4, 5]), (Sequence, &[23456])]), path(&[(Sequence, &[70000])]), "{4,5} 70000"),
            ("set behind",     path(&[(Sequence, &[1, 2]), (Set, &[23456, 3])]), path(&[(Set, &[70000, 3])]), "1 2 {70000,3}"),
            ("empty",          path(&[(Sequence, &[1, 2])]), AsPath::empty(), "1 2"),
        ];
        for (name, two, as4, want) in cases {
            let merged = two.merge(&as4);
            assert_eq!(merged.to_string(), want, "{name}");
            assert_eq!(AsPath::decode(merged.as_bytes(), true), Ok(merged.clone()), "{name}");
        }
        let joined = path(&[(Sequence, &[1, 2, 23456])]).merge(&AsPath::sequence(&[70000]));
        assert_eq!(joined, AsPath::sequence(&[1, 2, 70000]), "one segment, as it would have been");
    }

    #[test]
    fn confederation_segments_are_cut_out_of_as4_path() {
        let octets = [3, 1, 0, 0, 0, 1, 2, 1, 0, 1, 0, 0];
        assert_eq!(AsPath::decode_as4(&octets), Ok(AsPath::sequence(&[65536])));
        assert!(AsPath::decode_as4(&[3, 2, 0, 0, 0, 1]).is_err());
        assert!(AsPath::decode_as4(&[2, 1, 0, 0, 0, 1, 3]).is_err());
    }
}
