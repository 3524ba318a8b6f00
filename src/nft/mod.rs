//! nf_tables: the tables and chains that this node needs, and the messages that create and read
//! them.
//!
//! Three independent features, each with its own task in `io`: [`masquerade`] rewrites the source
//! of packets from pods, [`forward`] accepts forwarded packets where iptables drops them, and
//! [`pod_bgp`] drops BGP packets of containers. The encoding is shared: [`wire`] for messages and
//! attributes, which have the kernel's names ([`attr`]), [`chain`] for rules that iptables-nft can
//! display, [`ranges`] for interval sets.

mod attr;
pub mod chain;
pub mod docker;
pub mod forward;
pub mod io;
pub mod masquerade;
pub mod passage;
pub mod pod_bgp;
pub mod ranges;
pub mod verdict;
pub mod wire;
