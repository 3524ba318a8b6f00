//! What one UPDATE may make us hold. Each limit lets everything pass that fits into a message of 4,096
//! octets; only messages of RFC 8654 can go beyond, and those that do are treated as withdrawn.

/// AS numbers in an AS_PATH.
pub const MAX_AS_PATH: usize = 1024;
/// Entries of each kind of communities, and of a CLUSTER_LIST.
pub const MAX_LIST: usize = 1024;
/// Octets of all unknown attributes of a path together.
pub const MAX_UNKNOWN: usize = 4096;
