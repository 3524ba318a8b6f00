//! Reads the packet filters of nf_tables, and the policy of iptables-legacy.

use std::{collections::BTreeMap, io};

use super::{iptables_legacy, socket::NftSocket};
use crate::{
    net::Family,
    nft::{
        verdict::{
            Chains, Dropper, Forwarded, Verdict, elements, list_chains, list_elements, list_rules, protocols,
            sets, tables,
        },
        wire::{NEW_GENERATION, generation_in, get_generation},
    },
};

/// The packet filters of one family.
pub struct Filters {
    chains: Vec<Chains>,
    legacy_drops: bool,
}

impl Filters {
    /// Reads them. It blocks for a moment: use it in a thread of its own.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, for want of rights. A kernel without nf_tables has no filters there.
    pub fn read(family: Family) -> io::Result<Self> {
        let mut socket = NftSocket::open()?;
        let mut chains = Vec::new();
        for protocol in protocols(family) {
            let bases = socket.list(|encoder| list_chains(encoder, protocol))?;
            let mut rules = Vec::new();
            for table in tables(&bases) {
                rules.extend(socket.list(|encoder| list_rules(encoder, protocol, &table))?);
            }
            let mut known = BTreeMap::new();
            for set in sets(&rules) {
                let listed = socket.list(|encoder| list_elements(encoder, protocol, &set))?;
                known.insert(set, elements(&listed));
            }
            chains.push(Chains::new(protocol, &bases, rules, known));
        }
        Ok(Self { chains, legacy_drops: iptables_legacy::forward_drops(family) })
    }

    /// What becomes of a packet.
    pub fn verdict(&self, packet: &Forwarded) -> Verdict {
        let legacy =
            self.legacy_drops.then(|| Verdict::Dropped { by: legacy_policy(packet), certain: false });
        let verdicts = self.chains.iter().map(|c| c.verdict(packet)).chain(legacy);
        verdicts.min_by_key(Verdict::certainty).unwrap_or(Verdict::Accepted)
    }
}

fn legacy_policy(packet: &Forwarded) -> Dropper {
    Dropper {
        family: if packet.destination.is_ipv4() { "ip" } else { "ip6" },
        table: "filter of iptables-legacy".into(),
        chain: "FORWARD".into(),
        rule: None,
    }
}

/// A number that changes with every change of nf_tables.
///
/// # Errors
///
/// If the kernel refuses, for want of rights, or has no nf_tables.
pub fn generation() -> io::Result<Option<u32>> {
    let found = NftSocket::open()?.get(NEW_GENERATION, get_generation)?;
    Ok(found.as_deref().and_then(generation_in))
}
