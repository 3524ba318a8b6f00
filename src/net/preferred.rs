use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Family;

/// Source addresses that the kernel prefers on learned routes (RTA_PREFSRC), by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PreferredSources {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl PreferredSources {
    pub fn of(self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4Unicast => self.v4.map(IpAddr::V4),
            Family::Ipv6Unicast => self.v6.map(IpAddr::V6),
        }
    }

    /// Replaces the address of its family.
    pub fn set(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(a) => self.v4 = Some(a),
            IpAddr::V6(a) => self.v6 = Some(a),
        }
    }
}
