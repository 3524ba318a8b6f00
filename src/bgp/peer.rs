//! Who a neighbor is, what was configured for it and what was negotiated with it.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use zeroize::Zeroize;

use crate::{
    bgp::{policy::Policy, wire::Shape},
    net::{Asn, BfdParams, Diagnostic, Family, PerFamily, Prefix, Reason, RouterId, Subject},
};

/// A neighbor's number inside the daemon: small, and never used for another neighbor while routes
/// of the first are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// What a neighbor is known by: one session per key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKey {
    Address(IpAddr),
    /// A link-local address with its interface: `fe80::1%eth0`.
    LinkLocal(Ipv6Addr, String),
    /// The name of an interface: stands for its unnumbered neighbors in policies and commands. A
    /// session has the key [`PeerKey::LinkLocal`].
    Interface(String),
}

impl PeerKey {
    /// The neighbor's address, whatever link it is on.
    pub fn addr(&self) -> Option<IpAddr> {
        match self {
            Self::Address(addr) => Some(*addr),
            Self::LinkLocal(addr, _) => Some((*addr).into()),
            Self::Interface(_) => None,
        }
    }

    /// Whether it is the neighbor that `name` means: the name of an interface means the unnumbered
    /// ones there.
    pub fn is(&self, name: &Self) -> bool {
        match (self, name) {
            (Self::LinkLocal(_, interface), Self::Interface(name)) => interface == name,
            (own, name) => own == name,
        }
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(a) => f.pad(&a.to_string()),
            Self::LinkLocal(a, i) => f.pad(&format!("{a}%{i}")),
            Self::Interface(i) => f.pad(i),
        }
    }
}

impl FromStr for PeerKey {
    type Err = Infallible;

    /// What is no address is the name of an interface.
    fn from_str(s: &str) -> Result<Self, Infallible> {
        if let Ok(addr) = s.parse() {
            return Ok(Self::Address(addr));
        }
        if let Some((addr, interface)) = s.split_once('%')
            && let Ok(addr) = addr.parse()
        {
            return Ok(Self::LinkLocal(addr, interface.to_owned()));
        }
        Ok(Self::Interface(s.to_owned()))
    }
}

/// Where a neighbor comes from. A configured one replaces an automatic one of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerSource {
    /// `[[bgp.neighbor]]`.
    Configured,
    /// A `BGPPeer` object.
    Object,
    /// Made by `kubernetes.peering` or by `address = "gateway"`.
    Gateway,
    Mesh,
    Reflector,
    /// Accepted by `[[bgp.listen-range]]`.
    Range,
}

/// `remote-as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAs {
    Number(Asn),
    /// Any number but our own.
    External,
    /// Our own.
    Internal,
    Any,
}

/// How far away the neighbor may be (IP TTL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// eBGP on a connected subnet: packets leave with TTL 1. iBGP: any distance.
    Direct,
    /// eBGP over so many hops.
    Multihop(u8),
    /// RFC 5082: packets leave with TTL 255, those that come with less than 256 - n are refused; 1
    /// is a directly connected neighbor.
    Security(u8),
    /// RFC 5082 for a directly connected neighbor that sends with TTL 255, and as [`Hops::Direct`]
    /// for one that does not: packets leave with TTL 255, and `session::gtsm` decides what is
    /// required of those that arrive.
    SecurityWhereOffered,
}

impl Hops {
    /// The least TTL that segments of this neighbor have when they arrive (RFC 5082 §3).
    pub fn least_ttl(self) -> Option<u8> {
        match self {
            Self::Direct | Self::Multihop(_) | Self::SecurityWhereOffered => None,
            Self::Security(n) => Some(255 - n.saturating_sub(1)),
        }
    }

    /// Whether who sent a SYN with this TTL is near enough for RFC 5082. Of an accepted connection
    /// it is the SYN that counts: the socket that listens may have to let others in that are
    /// farther away.
    pub fn admits(self, first_ttl: Option<u8>) -> bool {
        match (self.least_ttl(), first_ttl) {
            (Some(least), Some(ttl)) => ttl >= least,
            _ => true,
        }
    }
}

/// Directions without the policy that `bgp.require-policy` requires; of external sessions only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    pub import: bool,
    pub export: bool,
}

impl Lacks {
    /// What that means, with its remedy.
    pub fn explain(self, neighbor: &PeerKey) -> Option<Diagnostic> {
        let (keys, effect) = match (self.import, self.export) {
            (true, true) => ("`import` and `export`", "no routes are accepted from it or advertised to it"),
            (true, false) => ("`import`", "no routes are accepted from it"),
            (false, true) => ("`export`", "no routes are advertised to it"),
            (false, false) => return None,
        };
        Some(Diagnostic::new(
            Reason::PolicyRequired,
            Subject::neighbor(neighbor),
            format!("external neighbor {neighbor} lacks {keys}: {effect} (RFC 8212)"),
            "name a policy, or set bgp.require-policy = false",
        ))
    }
}

/// `ttl-security`, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlSecurity {
    Off,
    /// The largest number of hops allowed.
    Strict(u8),
    /// One hop, required of neighbors that send with TTL 255 themselves.
    WhereOffered,
}

/// What to do with a neighbor that sends too many prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxPrefixesAction {
    Warn,
    Restart,
}

/// RFC 7911, seen from us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPaths {
    pub send: bool,
    pub receive: bool,
}

/// RFC 9774 or RFC 4271, for paths with an AS_SET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsSets {
    Withdraw,
    Accept,
}

/// Own role on a session (RFC 9234 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Provider,
    RouteServer,
    RouteServerClient,
    Customer,
    Peer,
}

/// `bfd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bfd {
    pub params: BfdParams,
    /// No session begins before BFD is up.
    pub strict: bool,
    /// The file that the key was read from.
    pub password_file: Option<PathBuf>,
}

impl Default for Bfd {
    fn default() -> Self {
        let interval = Duration::from_millis(300);
        let params =
            BfdParams { min_tx: interval, min_rx: interval, multiplier: 3, passive: false, auth: None };
        Self { params, strict: false, password_file: None }
    }
}

/// A password: never printed, and overwritten in memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The node's own addresses on the link to a neighbor: the next hops we can announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub link_local: Option<Ipv6Addr>,
}

/// Everything about one neighbor after defaults, groups and overlays. Made by `plan`, shared by the
/// session, its driver and the rib.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerConfig {
    pub key: PeerKey,
    pub source: PeerSource,
    pub description: Option<String>,
    pub group: Option<String>,
    pub remote_as: RemoteAs,
    /// Our number towards this neighbor: `local-as`, else `bgp.as`.
    pub local_as: Asn,
    /// `bgp.as`: what decides iBGP or eBGP is `local_as`, what loops are found by is both.
    pub global_as: Asn,
    pub local_address: Option<IpAddr>,
    pub port: u16,
    pub passive: bool,
    pub password: Option<Secret>,
    pub hops: Hops,
    pub families: Vec<Family>,
    pub hold_time: u16,
    /// RFC 9687; `None`: 8 minutes, or twice the hold time where that is longer.
    pub send_hold_time: Option<u16>,
    pub connect_retry_time: Duration,
    pub idle_hold_time: Duration,
    pub graceful_restart: bool,
    pub restart_time: u16,
    pub long_lived_stale_time: u32,
    pub route_reflector_client: bool,
    /// `None`: true towards eBGP, false towards iBGP.
    pub next_hop_self: Option<bool>,
    pub transit: bool,
    pub max_prefixes: u32,
    pub max_prefixes_action: MaxPrefixesAction,
    pub max_prefixes_restart: Duration,
    /// Most routes to advertise, by family; 0: any number. `None`: 10000 if only own routes are
    /// advertised, else any.
    pub max_prefixes_out: Option<u32>,
    pub add_paths: AddPaths,
    pub bfd: Option<Bfd>,
    /// End the session when its link or its local address is lost. `None`: where it is directly
    /// connected eBGP; others are probed.
    pub fast_failover: Option<bool>,
    pub import: Vec<Arc<Policy>>,
    pub export: Vec<Arc<Policy>>,
    /// RFC 8212: with an external neighbor no route passes in a direction for which no policy is
    /// configured.
    pub lacks_policy: Lacks,
    pub accept_default: bool,
    /// It is a Node of the cluster: only what
    /// [`NodePrefixes`](crate::net::guard::NodePrefixes) allows is accepted from it, and its
    /// MED and a LOCAL_PREF above 100 are ignored.
    pub is_node: bool,
    pub allow_own_as: u8,
    pub as_sets: AsSets,
    pub role: Option<Role>,
    pub own: OwnAddresses,
    /// Connected subnets that the neighbor is on as well; of the other family those of its link.
    pub shared: Vec<Prefix>,
    /// The router through which the neighbor is reached although its packets leave with TTL 1.
    pub behind: Option<IpAddr>,
    /// The address is one of this host, and we listen there ourselves: it is not dialled.
    pub is_here: bool,
    /// `neighbor disable`: keep the session down.
    pub disabled: bool,
}

impl PeerConfig {
    /// A neighbor with these settings and defaults.
    pub fn new(key: PeerKey, remote_as: RemoteAs, asn: Asn) -> Self {
        Self {
            key,
            source: PeerSource::Configured,
            description: None,
            group: None,
            remote_as,
            local_as: asn,
            global_as: asn,
            local_address: None,
            port: 179,
            passive: false,
            password: None,
            hops: Hops::Direct,
            families: Family::ALL.to_vec(),
            hold_time: 90,
            send_hold_time: None,
            connect_retry_time: Duration::from_secs(5),
            idle_hold_time: Duration::from_secs(5),
            graceful_restart: true,
            restart_time: 120,
            long_lived_stale_time: 0,
            route_reflector_client: false,
            next_hop_self: None,
            transit: false,
            max_prefixes: 1_000_000,
            max_prefixes_action: MaxPrefixesAction::Restart,
            max_prefixes_restart: Duration::from_secs(300),
            max_prefixes_out: None,
            add_paths: AddPaths::default(),
            bfd: None,
            fast_failover: None,
            import: Vec::new(),
            export: Vec::new(),
            lacks_policy: Lacks::default(),
            accept_default: false,
            is_node: false,
            allow_own_as: 0,
            as_sets: AsSets::Withdraw,
            role: None,
            own: OwnAddresses::default(),
            shared: Vec::new(),
            behind: None,
            is_here: false,
            disabled: false,
        }
    }

    /// Whether the session is iBGP whatever the neighbor's OPEN contains.
    pub fn is_surely_internal(&self) -> bool {
        match self.remote_as {
            RemoteAs::Internal => true,
            RemoteAs::Number(n) => n == self.local_as,
            RemoteAs::External | RemoteAs::Any => false,
        }
    }

    /// Whether the session is eBGP regardless of the AS number in the neighbor's OPEN.
    pub fn is_surely_external(&self) -> bool {
        match self.remote_as {
            RemoteAs::External => true,
            RemoteAs::Number(n) => n != self.local_as,
            RemoteAs::Internal | RemoteAs::Any => false,
        }
    }

    /// TTL or hop limit of what is sent. RFC 5082 §3: 255 where it is looked at.
    pub fn ttl(&self) -> u8 {
        match self.hops {
            Hops::Direct if self.is_surely_internal() => 64,
            Hops::Direct => 1,
            Hops::Multihop(n) => n,
            Hops::Security(_) | Hops::SecurityWhereOffered => 255,
        }
    }

    /// Whether no router stands between the neighbor and this host.
    pub fn is_on_link(&self) -> bool {
        !self.shared.is_empty()
            || !matches!(self.key, PeerKey::Address(_))
            || self.hops == Hops::SecurityWhereOffered
    }
}

/// What holds for all sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    pub asn: Asn,
    pub router_id: RouterId,
    pub cluster_id: RouterId,
    pub max_paths: usize,
    pub multipath_relax: bool,
    /// The restart flag of RFC 4724 §3: true only after a start that found our own routes in the
    /// kernel.
    pub restarting: bool,
}

/// What both OPENs agreed on (RFC 5492). Exists only while a session is Established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The real number, four octets.
    pub remote_as: Asn,
    pub remote_id: RouterId,
    pub local_as: Asn,
    pub local_addr: IpAddr,
    pub remote_addr: IpAddr,
    /// Interface of a link-local session, else 0.
    pub ifindex: u32,
    /// Seconds; 0: no keepalives.
    pub hold_time: u16,
    /// Both sides speak four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Messages up to 65,535 octets may be sent to it (RFC 8654).
    pub extended_messages: bool,
    pub families: Vec<Family>,
    /// IPv4 NLRI with IPv6 next hops in either direction (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether the neighbor may send several paths to a prefix (RFC 7911).
    pub add_path_receive: PerFamily<bool>,
    /// Whether several paths to a prefix may be sent to the neighbor.
    pub add_path_send: PerFamily<bool>,
    pub route_refresh: bool,
    pub enhanced_refresh: bool,
    /// It sends End-of-RIB markers, and keeps routes of these families over its own restart.
    pub graceful: Option<Graceful>,
    /// It keeps our routes while we restart: graceful restart with families was announced by both.
    pub kept_over_restart: bool,
    /// Our role, confirmed or not contradicted by theirs (RFC 9234 §4.2).
    pub role: Option<Role>,
}

/// The neighbor's graceful restart capability (RFC 4724 §3, RFC 8538 §2, RFC 9494 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graceful {
    pub restarting: bool,
    /// N bit: NOTIFICATION does not end it.
    pub notification: bool,
    /// Seconds.
    pub restart_time: u16,
    /// Families it keeps, each with its forwarding bit.
    pub families: Vec<(Family, bool)>,
    /// Families with long-lived stale time in seconds and forwarding bit.
    pub long_lived: Vec<(Family, u32, bool)>,
}

/// Why a session ended: decides whether its routes stay as stale (RFC 4724 §4.2, RFC 8538 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownCause {
    /// TCP closed or reset without a NOTIFICATION.
    Closed,
    /// Our hold timer ran out.
    HoldTimer,
    /// NOTIFICATION from the neighbor; `hard` is RFC 8538's Hard Reset.
    Received { hard: bool },
    /// NOTIFICATION sent by us for an error of the neighbor.
    Sent { hard: bool },
    /// The link towards the neighbor was lost: what points over it has nowhere to go.
    LinkLost { ifindex: u32 },
    /// The session goes on from another address of this host.
    Moved,
    /// Disabled, reset by hand, removed, or lost by BFD: never graceful.
    Administrative,
}

impl Negotiated {
    pub fn is_ibgp(&self) -> bool {
        self.remote_as == self.local_as
    }

    /// Whether the neighbor's routes stay after this end of the session (RFC 4724 §4.2, RFC 8538
    /// §4).
    pub fn helps(&self, config: &PeerConfig, cause: DownCause) -> bool {
        let Some(graceful) = self.graceful.as_ref().filter(|_| config.graceful_restart) else { return false };
        match cause {
            DownCause::Closed | DownCause::LinkLost { .. } => true,
            DownCause::HoldTimer => graceful.notification,
            DownCause::Received { hard } | DownCause::Sent { hard } => graceful.notification && !hard,
            DownCause::Administrative | DownCause::Moved => false,
        }
    }

    /// How long they may stay: the restart time, and what RFC 9494 §4.2 adds to it. `None`: they go
    /// at once.
    pub fn routes_stay(&self, config: &PeerConfig, cause: DownCause) -> Option<Duration> {
        let graceful =
            self.graceful.as_ref().filter(|g| !g.families.is_empty() && self.helps(config, cause))?;
        let long =
            graceful.long_lived.iter().map(|(_, seconds, _)| (*seconds).min(config.long_lived_stale_time));
        let seconds = u64::from(graceful.restart_time) + u64::from(long.max().unwrap_or(0));
        Some(Duration::from_secs(seconds))
    }

    pub fn has(&self, family: Family) -> bool {
        self.families.contains(&family)
    }

    /// What of it shapes UPDATEs.
    pub fn shape(&self) -> Shape {
        let from_route_server = self.role == Some(Role::RouteServerClient);
        Shape {
            ibgp: self.is_ibgp(),
            four_octet_as: self.four_octet_as,
            families: PerFamily::of(|f| self.has(f)),
            extended_next_hop: self.extended_next_hop,
            extended_messages: self.extended_messages,
            add_path_receive: self.add_path_receive,
            add_path_send: self.add_path_send,
            first_as: (!self.is_ibgp() && !from_route_server).then_some(self.remote_as),
            on_host: self.is_on_host(),
        }
    }

    /// Whether it is a second speaker on this host.
    pub fn is_on_host(&self) -> bool {
        self.remote_addr.is_loopback() || self.remote_addr == self.local_addr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ttl_security_requires_a_ttl() {
        let cases = [
            (Hops::Direct, Some(1), true),
            (Hops::Multihop(5), Some(1), true),
            (Hops::SecurityWhereOffered, Some(1), true),
            (Hops::Security(1), Some(255), true),
            (Hops::Security(1), Some(254), false),
            (Hops::Security(3), Some(253), true),
            (Hops::Security(3), Some(252), false),
            // The kernel has not kept the SYN.
            (Hops::Security(1), None, true),
        ];
        for (hops, ttl, expected) in cases {
            assert_eq!(hops.admits(ttl), expected, "{hops:?} {ttl:?}");
        }
    }
}
