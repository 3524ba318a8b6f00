use std::{collections::BTreeSet, net::Ipv6Addr};

/// Who was found on an interface with `interface = …` neighbors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnLink {
    /// Link-local addresses of BGP neighbors.
    pub neighbors: BTreeSet<Ipv6Addr>,
    /// There was nobody for so long that the operator should know.
    pub is_overdue: bool,
    /// Why nothing can be sent or received there, with its remedy.
    pub trouble: Option<String>,
}
