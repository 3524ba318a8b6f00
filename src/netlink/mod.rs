//! Netlink, as far as all of its protocols share it.
//!
//! [`encode`] builds messages, [`decode`] and [`dump`] read them, [`io`] has the sockets. The
//! contents of messages belong to the modules that exchange them with the kernel: routes, nexthop
//! objects and routing rules to `fib`, nf_tables to `nft`. Links and addresses are read and written
//! by the crate rtnetlink.

pub mod decode;
pub mod dump;
pub mod encode;
pub mod io;

/// `NLM_F_…`.
pub mod flag {
    pub const REQUEST: u16 = 0x1;
    pub const ACK: u16 = 0x4;
    /// The table changed during the dump.
    pub const DUMP_INTR: u16 = 0x10;
    /// `NLM_F_ROOT | NLM_F_MATCH`
    pub const DUMP: u16 = 0x300;
    pub const REPLACE: u16 = 0x100;
    pub const EXCL: u16 = 0x200;
    pub const CREATE: u16 = 0x400;
    pub const APPEND: u16 = 0x800;
    /// On NLMSG_ERROR: the request is not repeated, attributes follow.
    pub const CAPPED: u16 = 0x100;
    pub const ACK_TLVS: u16 = 0x200;
}
