//! What another host has in common with this one and should not: a subnet that both advertise, or
//! the AS number, where that keeps each from accepting the other's routes.

use super::{
    Rib,
    import::Refused,
    peers::Peer,
    table::{OWN, PeerNo},
};
use crate::net::{Diagnostic, Prefix, Reason, Refusal, Source, Subject};

/// So many subnets are named.
const MAX_NAMED: usize = 10;
/// So many own prefixes are looked at for routes of this host that a neighbor sends back.
const LOOKED_AT: usize = 1000;

/// An own subnet that a neighbor has from another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Duplicate {
    prefix: Prefix,
    neighbor: String,
    /// As `show routes` writes it.
    as_path: String,
    next_hop: String,
}

impl Rib {
    /// The own subnets that another host advertises, too. Addresses of Services, and single
    /// addresses on the loopback, may well be advertised by several.
    pub(super) fn duplicates(&self) -> Vec<Duplicate> {
        let code = usize::from(Refused::Guard(Refusal::Own).code());
        if self.refused.iter().all(|counts| counts[code] == 0) {
            return Vec::new();
        }
        let is_subnet = |source: Source| matches!(source, Source::Interface | Source::PodCidr);
        let subnets = self.originated.iter().filter(|(p, o)| !p.is_host() && is_subnet(o.source));
        subnets.filter_map(|(prefix, _)| self.duplicate(*prefix)).take(MAX_NAMED).collect()
    }

    fn duplicate(&self, prefix: Prefix) -> Option<Duplicate> {
        let table = &self.tables[prefix.family()];
        let paths = table.get(table.find(prefix)?).paths();
        paths.iter().filter(|path| path.peer != OWN && path.refused != 0).find_map(|path| {
            let (peer, attrs) = (self.peer(path.peer)?, self.attrs.get(path.received));
            let (as_path, config) = (&attrs.as_path, &peer.config);
            // A path with the own number may be that of this host, which the neighbor sends back.
            let is_back = as_path.contains(config.local_as) || as_path.contains(self.global.asn);
            let is_loop = path.refused != Refused::Guard(Refusal::Own).code();
            (!is_back && !is_loop).then(|| Duplicate {
                prefix,
                neighbor: peer.name(),
                as_path: as_path.to_string(),
                next_hop: attrs.next_hop.addr.to_string(),
            })
        })
    }

    /// The neighbors that send routes of other hosts with this host's AS number, which are refused.
    /// Fewer than [`LOOKED_AT`] own prefixes that come back are distinguished from them.
    pub(super) fn shared_numbers(&self) -> Vec<PeerNo> {
        let peers = self.peers.iter().enumerate().filter_map(|(n, p)| Some((n as PeerNo, p.as_ref()?)));
        let of_others = |(no, peer): &(PeerNo, &Peer)| self.exceeds_own_sent_back(*no, peer, Refused::AsLoop);
        peers.filter(of_others).map(|(no, _)| no).collect()
    }

    /// Whether more routes of a neighbor are refused as loops than this host's own, which it sends
    /// back: then others come from a host with the same number.
    pub(super) fn exceeds_own_sent_back(&self, no: PeerNo, peer: &Peer, why: Refused) -> bool {
        let refused = peer.refused(why);
        refused > 0 && u64::from(refused) > self.own_sent_back(no, why)
    }

    pub(super) fn own_sent_back(&self, no: PeerNo, why: Refused) -> u64 {
        if self.peer(no).is_none_or(|peer| peer.refused(why) == 0) {
            return 0;
        }
        let is_loop = |prefix: &&Prefix| {
            let table = &self.tables[prefix.family()];
            let paths = table.find(**prefix).map(|route| table.get(route).paths()).unwrap_or_default();
            paths.iter().any(|p| p.peer == no && p.refused == why.code())
        };
        self.originated.keys().take(LOOKED_AT).filter(is_loop).count() as u64
    }

    pub(super) fn duplicate_problem(&self, duplicate: &Duplicate) -> Diagnostic {
        let Duplicate { prefix, neighbor, as_path, next_hop } = duplicate;
        let path = if as_path.is_empty() { "an empty AS path".into() } else { format!("AS path {as_path}") };
        let (asn, id) = (self.global.asn, self.global.router_id);
        Diagnostic::new(
            Reason::DuplicateSubnet,
            Subject::prefix(*prefix),
            format!(
                "{prefix} is advertised by this host (AS {asn}, router id {id}) and by another one: neighbor \
                 {neighbor} has it with {path} and next hop {next_hop}; packets to its containers reach either host"
            ),
            "give each host a subnet of its own: `bip` in /etc/docker/daemon.json for docker0, `docker network \
             create --subnet` for other networks",
        )
    }

    pub(super) fn shared_number_problem(&self, no: PeerNo) -> Diagnostic {
        let peer = self.peer(no);
        let name = peer.map(Peer::name).unwrap_or_default();
        let asn = peer.map_or(self.global.asn, |p| p.config.local_as);
        Diagnostic::new(
            Reason::AsNumberShared,
            Subject::neighbor(&name),
            format!(
                "neighbor {name} sends routes of other hosts with this host's AS number {asn}, which are refused \
                 as loops"
            ),
            "where hosts below one switch share a number set allow-own-as = 1 for this neighbor, or give each \
             host a number of its own (bgp.as = \"auto\")",
        )
    }
}
