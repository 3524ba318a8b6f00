//! The reports of the nodes of a cluster, and the selection of a part of them.

pub mod pair;

use std::net::IpAddr;

use super::crd::{NodeReport, RouteReport};
use crate::net::{Prefix, PrefixError};

/// The report of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Name of the Node.
    pub node: String,
    pub report: NodeReport,
    /// Why the object cannot be read.
    pub unreadable: Option<String>,
}

/// Which routes are wanted: those of a prefix, or those that contain an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    Prefix(Prefix),
    Address(IpAddr),
}

impl Destination {
    pub fn includes(self, route: &RouteReport) -> bool {
        let Ok(prefix) = route.prefix.parse::<Prefix>() else { return false };
        match self {
            Self::Prefix(wanted) => wanted == prefix,
            Self::Address(address) => prefix.contains(address),
        }
    }
}

impl std::str::FromStr for Destination {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => text.parse().map(Self::Prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_selects_what_contains_it_and_a_prefix_itself() {
        let route = |prefix: &str| RouteReport { prefix: prefix.into(), ..RouteReport::default() };
        for (wanted, prefix, expected) in [
            ("10.1.2.3", "10.1.0.0/16", true),
            ("10.1.2.3", "10.2.0.0/16", false),
            ("10.1.0.0/16", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.1.0.0/24", false),
            ("2001:db8::1", "2001:db8::/32", true),
            ("2001:db8::1", "0.0.0.0/0", false),
            ("10.1.2.3", "not a prefix", false),
        ] {
            let destination: Destination = wanted.parse().unwrap();
            assert_eq!(destination.includes(&route(prefix)), expected, "{wanted} and {prefix}");
        }
        assert!("10.1.0.0/40".parse::<Destination>().is_err() && "web".parse::<Destination>().is_err());
    }
}
