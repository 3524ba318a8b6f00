use std::{
    ops::{Index, IndexMut},
    slice,
};

use super::Family;

/// One value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PerFamily<T>([T; 2]);

impl<T> PerFamily<T> {
    /// In the order of [`Family::ALL`].
    pub const fn new(ipv4: T, ipv6: T) -> Self {
        Self([ipv4, ipv6])
    }

    /// What `make` returns for each family.
    pub fn of(make: impl FnMut(Family) -> T) -> Self {
        Self(Family::ALL.map(make))
    }

    /// What `change` makes of each value.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> PerFamily<U> {
        PerFamily(self.0.map(change))
    }

    /// The values, IPv4 first.
    pub fn iter(&self) -> slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl<T: Copy> PerFamily<T> {
    /// The same value for both.
    pub const fn both(value: T) -> Self {
        Self([value; 2])
    }
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    #[inline]
    fn index(&self, family: Family) -> &T {
        match family {
            Family::Ipv4Unicast => &self.0[0],
            Family::Ipv6Unicast => &self.0[1],
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    #[inline]
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4Unicast => &mut self.0[0],
            Family::Ipv6Unicast => &mut self.0[1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_own_value() {
        let mut lengths = PerFamily::of(Family::max_len);
        assert_eq!(lengths, PerFamily::new(32, 128));
        lengths[Family::Ipv6Unicast] = 64;
        assert_eq!(Family::ALL.map(|family| lengths[family]), [32, 64]);
        assert_eq!(lengths.iter().sum::<u8>(), 96);
        assert_eq!(lengths.map(|n| n == 64), PerFamily::new(false, true));
        assert_eq!(PerFamily::both(7)[Family::Ipv4Unicast], 7);
    }
}
