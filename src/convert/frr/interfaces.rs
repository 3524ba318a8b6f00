//! `interface …`: only addresses, which `update-source` may refer to.

use std::{collections::BTreeMap, net::IpAddr};

use super::neighbor::Taken;

/// Addresses by interface.
#[derive(Debug, Default)]
pub(super) struct Interfaces(BTreeMap<String, Vec<IpAddr>>);

impl Interfaces {
    /// A line of the block; the name is empty in blocks without meaning.
    pub(super) fn take(&mut self, name: &str, words: &[&str]) -> Taken {
        match words {
            ["ip" | "ipv6", "address", address, ..] if !name.is_empty() => {
                let addr = address.split('/').next().and_then(|a| a.parse::<IpAddr>().ok());
                self.0.entry(name.to_owned()).or_default().extend(addr);
                Taken::NotCarried(
                    "routelet sets no addresses; the network configuration of the host does".into(),
                )
            }
            ["ipv6", "nd", ..] | ["no", "ipv6", "nd", ..] => {
                Taken::NotNeeded("router advertisements are sent where a neighbor is unnumbered")
            }
            ["shutdown"] => Taken::NotCarried("routelet leaves interfaces as they are".into()),
            _ => Taken::NotNeeded("routelet leaves interfaces as they are"),
        }
    }

    /// The only address of an interface in the family of `other`.
    pub(super) fn address(&self, name: &str, other: IpAddr) -> Option<IpAddr> {
        let mut fitting = self.0.get(name)?.iter().filter(|a| a.is_ipv4() == other.is_ipv4());
        match (fitting.next(), fitting.next()) {
            (Some(addr), None) => Some(*addr),
            _ => None,
        }
    }
}
