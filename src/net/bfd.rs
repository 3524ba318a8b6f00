use std::{fmt, net::IpAddr, time::Duration};

/// The path that one BFD session watches: a link to a neighbor (RFC 5881), or several hops (RFC
/// 5883).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BfdPath {
    pub remote: IpAddr,
    /// The address that packets leave with; `None`: the one that the kernel chooses.
    pub local: Option<IpAddr>,
    /// The interface of a directly connected neighbor; 0: several hops.
    pub ifindex: u32,
}

impl BfdPath {
    pub fn is_multihop(&self) -> bool {
        self.ifindex == 0
    }
}

/// Settings of one BFD session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdParams {
    pub min_tx: Duration,
    pub min_rx: Duration,
    pub multiplier: u8,
    /// Send nothing before the neighbor does (RFC 5880 §6.1).
    pub passive: bool,
    pub auth: Option<BfdAuth>,
}

/// How packets are signed (RFC 5880 §4.4): the key is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct BfdAuth {
    pub key_id: u8,
    /// 1 to 20 octets.
    pub key: Vec<u8>,
    /// A new sequence number in each packet is required (type 5), else that of the last packet is
    /// accepted (type 4).
    pub meticulous: bool,
}

impl fmt::Debug for BfdAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BfdAuth")
            .field("key_id", &self.key_id)
            .field("key", &"(hidden)")
            .field("meticulous", &self.meticulous)
            .finish()
    }
}

/// What a BFD session reports to whoever depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BfdReport {
    pub status: BfdStatus,
    /// How often it went from Up to Down, other than by an administrator.
    pub failures: u64,
    /// The local diagnostic of the last failure (RFC 5880 §4.1).
    pub diagnostic: u8,
    /// The neighbor's BFD survives a restart of its control plane: its last C bit.
    pub independent: bool,
}

/// The state of a BFD session as its users see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BfdStatus {
    /// It has not been up yet.
    #[default]
    Starting,
    Up,
    /// It was up, and the neighbor is not reached any more.
    Down,
    /// The neighbor's administrator turned it off: no failure (RFC 5882 §3.2).
    AdminDown,
    /// It is up, and was lost too often lately: for how long it has to stay up before it counts.
    Dampened(Duration),
}

impl BfdStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "not up yet",
            Self::Up => "up",
            Self::Down => "down",
            Self::AdminDown => "administratively down at the neighbor",
            Self::Dampened(_) => "up, dampened",
        }
    }
}

/// The text of a diagnostic code (RFC 5880 §4.1).
pub fn bfd_diagnostic(code: u8) -> &'static str {
    match code {
        0 => "no diagnostic",
        1 => "control detection time expired",
        2 => "echo function failed",
        3 => "neighbor signaled session down",
        4 => "forwarding plane reset",
        5 => "path down",
        6 => "concatenated path down",
        7 => "administratively down",
        8 => "reverse concatenated path down",
        _ => "unknown diagnostic",
    }
}
