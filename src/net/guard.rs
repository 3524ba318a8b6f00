use super::{Family, Prefix};

/// Which received prefixes a node must never take, whoever sends them.
///
/// A snapshot: built by `fib::guard` from the host and the node's own routes, applied by the rib on
/// import. Data only, so that `bgp` needs to know nothing of links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    rules: Vec<GuardRule>,
}

/// One rule: which prefixes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardRule {
    /// This prefix and no other (a connected subnet, an own address as host route).
    Exact(Prefix, Refusal),
    /// This prefix and all inside it (martians, what this node originates).
    Inside(Prefix, Refusal),
    /// Shorter than `len` bits, unless the neighbor is trusted with a default route.
    Shorter(Family, u8),
}

/// Why the guard refused; the text is shown in `show routes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    TooShort,
    Connected,
    Own,
    OwnAddress,
    DefaultGateway,
    Neighbor,
    ApiServer,
    Martian,
}

impl Refusal {
    /// In plain words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "guard: default or very short prefix without accept-default",
            Self::Connected => "guard: equal to a connected subnet",
            Self::Own => "guard: inside what this node originates",
            Self::OwnAddress => "guard: host route to an own address",
            Self::DefaultGateway => "guard: host route to a default gateway",
            Self::Neighbor => "guard: host route to a neighbor",
            Self::ApiServer => "guard: host route to the API server",
            Self::Martian => "guard: martian",
        }
    }
}

impl Guard {
    pub fn new(rules: Vec<GuardRule>) -> Self {
        Self { rules }
    }

    pub fn rules(&self) -> &[GuardRule] {
        &self.rules
    }

    /// Why `prefix` must not be taken, if so. `accept_default` is the neighbor's setting: it opens
    /// the way for prefixes that are too short, never for the rest.
    pub fn refuses(&self, prefix: Prefix, accept_default: bool) -> Option<Refusal> {
        self.rules.iter().find_map(|rule| match *rule {
            GuardRule::Exact(p, why) => (p == prefix).then_some(why),
            GuardRule::Inside(p, why) => p.covers(prefix).then_some(why),
            GuardRule::Shorter(family, len) => {
                (prefix.family() == family && prefix.len() < len && !accept_default)
                    .then_some(Refusal::TooShort)
            }
        })
    }
}
