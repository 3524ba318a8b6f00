use super::Prefix;

/// A set of prefixes that finds the one containing another prefix in a few steps.
///
/// Prefixes inside others are left out, so that the rest are disjoint and sorted by address. Only
/// the last one that does not sort after a prefix can contain it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    disjoint: Vec<Prefix>,
}

impl Cover {
    pub fn is_empty(&self) -> bool {
        self.disjoint.is_empty()
    }

    /// The prefixes of the set, disjoint and in order.
    pub fn iter(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.disjoint.iter().copied()
    }

    /// The prefix of the set that is equal to `prefix` or contains it.
    pub fn of(&self, prefix: Prefix) -> Option<Prefix> {
        let after = self.disjoint.partition_point(|p| *p <= prefix);
        let before = *self.disjoint.get(after.checked_sub(1)?)?;
        before.covers(prefix).then_some(before)
    }

    /// The prefixes in only one of the two sets.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Prefix> + 'a {
        let missing =
            |a: &'a [Prefix], b: &'a [Prefix]| a.iter().filter(move |p| b.binary_search(p).is_err()).copied();
        missing(&self.disjoint, &other.disjoint).chain(missing(&other.disjoint, &self.disjoint))
    }
}

impl FromIterator<Prefix> for Cover {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let mut disjoint: Vec<Prefix> = prefixes.into_iter().collect();
        // By address, shorter first, so that a containing prefix precedes those inside it.
        disjoint.sort_unstable();
        disjoint.dedup_by(|next, kept| kept.covers(*next));
        Self { disjoint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    #[test]
    fn the_widest_prefix_that_holds_another_is_found() {
        let set: Cover = ["10.1.0.0/24", "10.0.0.0/16", "10.0.7.0/24", "fd00::/48", "0.0.0.0/9"]
            .map(p)
            .into_iter()
            .collect();
        #[rustfmt::skip]
        let cases = [
            ("10.0.0.0/16",  Some("10.0.0.0/16")),
            ("10.0.7.0/24",  Some("10.0.0.0/16")),
            ("10.0.0.0/15",  None),
            ("10.1.0.9/32",  Some("10.1.0.0/24")),
            ("10.1.1.0/24",  None),
            ("0.0.0.0/32",   Some("0.0.0.0/9")),
            ("0.0.0.0/0",    None),
            ("fd00::7/128",  Some("fd00::/48")),
            ("fd00:1::/64",  None),
            ("::/0",         None),
        ];
        for (prefix, found) in cases {
            assert_eq!(set.of(p(prefix)), found.map(p), "{prefix}");
        }
        assert_eq!(Cover::default().of(p("10.0.0.0/8")), None);
    }

    #[test]
    fn differences_are_what_one_of_two_sets_lacks() {
        let set = |list: &[&str]| list.iter().map(|s| p(s)).collect::<Cover>();
        let (a, b) = (set(&["10.0.0.0/16", "10.2.0.0/24"]), set(&["10.0.0.0/24", "10.2.0.0/24"]));
        let found: Vec<_> = a.differences(&b).collect();
        assert_eq!(found, [p("10.0.0.0/16"), p("10.0.0.0/24")]);
        assert_eq!(a.differences(&a).count(), 0);
    }
}
