//! Import and export policies: match, set, accept or reject.

/// One `[[policy.NAME]]`: its statements in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    pub name: String,
}
