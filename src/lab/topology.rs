//! Names, addresses and configurations of a lab. Pure.

/// The daemon in the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    Routelet,
    Bird,
    Frr,
}
