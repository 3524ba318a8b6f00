use std::net::IpAddr;

use super::{Family, Prefix};

/// Which next hops the host can reach without BGP (RFC 4271 §9.1.2.1).
///
/// A snapshot of connected subnets and of the host's other routes, built by `fib::resolve`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachable {
    /// Longest prefix first; the first match applies.
    entries: Vec<(Prefix, Reach)>,
    /// Interfaces that are up and have carrier.
    links: Vec<u32>,
    /// The same, each with a generation that changes when the link is lost, however briefly.
    lives: Vec<(u32, u32)>,
}

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On a connected subnet whose link is up and has carrier.
    Connected { ifindex: u32 },
    /// Over a route of another source with this metric (the IGP metric of RFC 4271 §9.1.2.2 e).
    Routed { metric: u32 },
    /// Unreachable, with the reason.
    No(Unresolved),
}

/// Why a next hop cannot be used; the text is shown by `show routes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    NoRoute,
    OnlyDefault,
    LinkDown,
    /// The address is the node's own.
    Own,
    TooDeep,
}

impl Unresolved {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "next hop unreachable",
            Self::OnlyDefault => "next hop only by the default route",
            Self::LinkDown => "next hop on a link that is down",
            Self::Own => "next hop is this node",
            Self::TooDeep => "next hop resolves over more than 4 routes",
        }
    }
}

impl Reachable {
    /// Takes entries in any order.
    pub fn new(mut entries: Vec<(Prefix, Reach)>) -> Self {
        entries.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
        Self { entries, links: Vec::new(), lives: Vec::new() }
    }

    /// Adds the interfaces that are up and have carrier.
    pub fn with_links(mut self, links: Vec<u32>) -> Self {
        self.links = links;
        self
    }

    /// Adds the interfaces that can send, with the generation of each.
    pub fn with_lives(mut self, lives: Vec<(u32, u32)>) -> Self {
        self.lives = lives;
        self
    }

    /// Interfaces that could send and were lost since, even if they are back.
    pub fn lost_since(&self, earlier: &Self) -> Vec<u32> {
        earlier.lives.iter().filter(|life| !self.lives.contains(life)).map(|(ifindex, _)| *ifindex).collect()
    }

    /// How one address is reached. For a link-local address with its interface use
    /// [`Reachable::link_up`].
    pub fn lookup(&self, addr: IpAddr) -> Reach {
        self.entries
            .iter()
            .find(|(p, _)| p.contains(addr))
            .map_or(Reach::No(Unresolved::NoRoute), |&(_, reach)| reach)
    }

    /// The connected subnets of one family with their interfaces.
    pub fn connected(&self, family: Family) -> impl Iterator<Item = (Prefix, u32)> + '_ {
        self.entries.iter().filter_map(move |(prefix, reach)| match reach {
            Reach::Connected { ifindex } if prefix.family() == family => Some((*prefix, *ifindex)),
            _ => None,
        })
    }

    /// Whether this interface can send, so that link-local next hops on it are usable.
    pub fn link_up(&self, ifindex: u32) -> bool {
        self.links.contains(&ifindex)
            || self.entries.iter().any(|(_, r)| matches!(r, Reach::Connected { ifindex: i } if *i == ifindex))
    }
}
