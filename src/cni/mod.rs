//! The network of pods on this node: the conflist, the bridge that its plugin creates, and the
//! address leases of its pods.
//!
//! The conflist ([`conflist`]) is the one file that routelet writes for the container runtime. It
//! is written once pods can reach their network ([`gate`]): until then the runtime has no network
//! and starts no pods, which keeps them from coming up unreachable.
//!
//! Afterwards the bridge is repaired if another program changes it ([`bridge`]), former pod CIDRs
//! are kept until their last pod is gone ([`former`]), and leases of pods that cannot exist any
//! more are removed ([`leases`]).

pub mod bridge;
pub mod conflist;
pub mod former;
pub mod gate;
pub mod io;
pub mod leases;
pub mod plugin_file;
pub mod view;
