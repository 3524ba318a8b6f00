use std::net::IpAddr;

use super::{Prefix, PrefixMap};

/// Which next hops the host can reach without BGP (RFC 4271 §9.1.2.1).
///
/// A snapshot of connected subnets and of the host's other routes, built by `fib::resolve`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachable {
    /// The longest match applies.
    entries: PrefixMap<Reach>,
    /// Interfaces that are up and have carrier, and those of connected subnets; sorted.
    links: Vec<u32>,
    /// Interfaces that can send, each with a generation that changes when the link is lost, however
    /// briefly; sorted.
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
    pub fn new(entries: Vec<(Prefix, Reach)>) -> Self {
        let connected = entries.iter().filter_map(|(_, reach)| match reach {
            Reach::Connected { ifindex } => Some(*ifindex),
            Reach::Routed { .. } | Reach::No(_) => None,
        });
        let links = connected.collect();
        Self { entries: entries.into_iter().collect(), ..Self::default() }.with_links(links)
    }

    /// Adds interfaces that are up and have carrier.
    pub fn with_links(mut self, links: Vec<u32>) -> Self {
        self.links.extend(links);
        self.links.sort_unstable();
        self.links.dedup();
        self
    }

    /// Adds the interfaces that can send, with the generation of each.
    pub fn with_lives(mut self, mut lives: Vec<(u32, u32)>) -> Self {
        lives.sort_unstable();
        self.lives = lives;
        self
    }

    /// Interfaces that could send and were lost since, even if they are back.
    pub fn lost_since(&self, earlier: &Self) -> Vec<u32> {
        let lost = earlier.lives.iter().filter(|life| self.lives.binary_search(life).is_err());
        lost.map(|(ifindex, _)| *ifindex).collect()
    }

    /// How one address is reached. For a link-local address with its interface use
    /// [`Reachable::link_up`].
    pub fn lookup(&self, addr: IpAddr) -> Reach {
        let longest = self.entries.covering(Prefix::host(addr)).next();
        longest.map_or(Reach::No(Unresolved::NoRoute), |(_, reach)| *reach)
    }

    /// Whether an address is on a connected subnet.
    pub fn is_connected(&self, addr: IpAddr) -> bool {
        matches!(self.lookup(addr), Reach::Connected { .. })
    }

    /// Whether this interface can send, so that link-local next hops on it are usable.
    pub fn link_up(&self, ifindex: u32) -> bool {
        self.links.binary_search(&ifindex).is_ok()
    }
}
