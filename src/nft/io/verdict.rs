//! Reads the packet filters of nf_tables, and the policy of iptables-legacy, for `explain`.

use std::io;

use super::{
    iptables_legacy,
    socket::{DumpInterrupted, NftSocket},
};
use crate::{
    net::Family,
    nft::verdict::{Chains, Forwarded, Verdict, list_chains, list_rules, protocols, tables},
};

/// How often a list that changes while it is read is read again.
const TRIES: u32 = 5;

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
            let bases = listed(&mut socket, |seq| list_chains(seq, protocol))?;
            let mut rules = Vec::new();
            for table in tables(&bases) {
                rules.extend(listed(&mut socket, |seq| list_rules(seq, protocol, &table))?);
            }
            chains.push(Chains::new(&bases, rules));
        }
        Ok(Self { chains, legacy_drops: iptables_legacy::forward_drops(family) })
    }

    /// What becomes of a packet.
    pub fn verdict(&self, packet: &Forwarded) -> Verdict {
        let dropped = self.chains.iter().map(|c| c.verdict(packet)).find(|v| *v != Verdict::Accepted);
        dropped.unwrap_or_else(|| match self.legacy_drops {
            true => {
                Verdict::Dropped { by: "the policy of FORWARD in iptables-legacy".into(), certain: false }
            }
            false => Verdict::Accepted,
        })
    }
}

fn listed(socket: &mut NftSocket, request: impl Fn(u32) -> Vec<u8>) -> io::Result<Vec<Vec<u8>>> {
    for last in 1..=TRIES {
        let octets = request(socket.next());
        match socket.request(&octets) {
            Err(e) if last < TRIES && e.get_ref().is_some_and(|e| e.is::<DumpInterrupted>()) => {}
            found => return found,
        }
    }
    Ok(Vec::new())
}
