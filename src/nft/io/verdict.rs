//! Reads the packet filters of nf_tables, and the policy of iptables-legacy.

use std::io;

use super::{
    iptables_legacy,
    socket::{Listed, NftSocket},
};
use crate::{
    net::Family,
    netlink::encode::Encoder,
    nft::{
        chain::list_rules,
        verdict::{Chains, Dropper, Forwarded, Verdict, list_chains, list_elements, protocols, sets},
        wire::{NEW_GENERATION, generation_in, get_generation},
    },
};

/// What is read of the rules at most: they are judged in the memory of the daemon.
const MAX_OCTETS: usize = 8 << 20;
const MAX_CHAINS: usize = 4096;

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
    /// If the kernel refuses, for want of rights, or there are more rules than are judged. A kernel
    /// without nf_tables has no filters there.
    pub fn read(family: Family) -> io::Result<Self> {
        let mut reader = Reader { socket: NftSocket::open()?, left: MAX_OCTETS };
        let [own, both] = protocols(family);
        let chains = vec![reader.chains(own)?, reader.chains(both)?];
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

/// Reads no more than is judged.
struct Reader {
    socket: NftSocket,
    /// Octets that may still be read.
    left: usize,
}

impl Reader {
    fn chains(&mut self, protocol: u8) -> io::Result<Chains> {
        let mut chains = Chains::new(protocol, &self.list(|encoder| list_chains(encoder, protocol))?);
        while let Some((table, chain)) = chains.unread().cloned() {
            if chains.read_count() >= MAX_CHAINS {
                return Err(too_many());
            }
            let rules = self.list(|encoder| list_rules(encoder, protocol, &table, &chain))?;
            for set in sets(&rules) {
                let elements = self.list(|encoder| list_elements(encoder, protocol, &set))?;
                chains.add_set(set, &elements);
            }
            chains.add_rules((table, chain), rules);
        }
        Ok(chains)
    }

    fn list(&mut self, request: impl Fn(&mut Encoder)) -> io::Result<Vec<Listed>> {
        let listed = self.socket.list_within(self.left, request)?.ok_or_else(too_many)?;
        self.left -= listed.iter().map(Vec::len).sum::<usize>();
        Ok(listed)
    }
}

fn too_many() -> io::Error {
    io::Error::other(format!("more than {} MiB, or {MAX_CHAINS} chains, of rules", MAX_OCTETS >> 20))
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
