//! The contents of our OPEN, and what the two OPENs negotiate (RFC 4271 §6.2, RFC 5492).

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};

use crate::{
    bgp::{
        peer::{Global, Graceful, Negotiated, PeerConfig, PeerKey, RemoteAs, Role},
        wire::{
            Code, WireError,
            capability::{
                AddPathFamily, Capability, GracefulFamily, GracefulRestart, LongLivedFamily, NextHopEncoding,
            },
            open::Open,
        },
    },
    net::{AS_TRANS, Asn, Family, PerFamily},
};

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Interface of a link-local connection, else 0.
    pub ifindex: u32,
    /// TTL or hop limit of the SYN that began an accepted connection, where the kernel has kept it.
    pub ttl: Option<u8>,
}

/// What our OPEN depends on besides the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// This is the first session since a start that found our routes in the kernel: the R bit
    /// (RFC 4724 §3).
    pub(super) restarting: bool,
    /// Forwarding state was preserved: the F bits.
    pub(super) forwarding: bool,
    /// The neighbor does not support capabilities (RFC 5492 §3).
    pub(super) without_capabilities: bool,
}

/// Our OPEN.
pub(super) fn open(config: &PeerConfig, global: &Global, now: Circumstances) -> Open {
    if now.without_capabilities {
        let my_as = u16::try_from(config.local_as).unwrap_or(AS_TRANS as u16);
        return Open {
            my_as,
            hold_time: config.hold_time,
            router_id: global.router_id,
            capabilities: vec![],
        };
    }
    Open::new(config.local_as, config.hold_time, global.router_id, capabilities(config, now))
}

fn capabilities(config: &PeerConfig, now: Circumstances) -> Vec<Capability> {
    let mut list: Vec<_> = config.families.iter().map(|f| Capability::family(*f)).collect();
    list.extend([Capability::RouteRefresh, Capability::EnhancedRefresh, Capability::ExtendedMessage]);
    // A session over IPv6 has an own IPv6 address, even if the plan does not have it yet.
    let over_v6 = matches!(config.key, PeerKey::LinkLocal(..) | PeerKey::Address(IpAddr::V6(_)));
    let v6 = over_v6 || config.own.v6.is_some() || config.own.link_local.is_some();
    if v6 && config.families.contains(&Family::Ipv4Unicast) {
        let v4 = Family::Ipv4Unicast;
        let triple = NextHopEncoding {
            afi: v4.afi(),
            safi: v4.safi().into(),
            next_hop_afi: Family::Ipv6Unicast.afi(),
        };
        list.push(Capability::ExtendedNextHop(vec![triple]));
    }
    list.push(Capability::GracefulRestart(graceful_restart(config, now)));
    if config.graceful_restart && config.long_lived_stale_time > 0 {
        let tuple = |f: &Family| LongLivedFamily {
            afi: f.afi(),
            safi: f.safi(),
            forwarding: now.forwarding,
            stale_time: config.long_lived_stale_time,
        };
        list.push(Capability::LongLivedGracefulRestart(config.families.iter().map(tuple).collect()));
    }
    let mode = u8::from(config.add_paths.receive) | u8::from(config.add_paths.send) << 1;
    if mode != 0 {
        let tuple = |f: &Family| AddPathFamily { afi: f.afi(), safi: f.safi(), mode };
        list.push(Capability::AddPath(config.families.iter().map(tuple).collect()));
    }
    list.extend(config.role.map(|r| Capability::Role(role_number(r))));
    list
}

/// Without `graceful-restart` the capability contains no family and only requests End-of-RIB
/// (RFC 4724 §3).
fn graceful_restart(config: &PeerConfig, now: Circumstances) -> GracefulRestart {
    if !config.graceful_restart {
        return GracefulRestart::default();
    }
    let family = |f: &Family| GracefulFamily { afi: f.afi(), safi: f.safi(), forwarding: now.forwarding };
    GracefulRestart {
        restarting: now.restarting,
        notification: true,
        restart_time: config.restart_time,
        families: config.families.iter().map(family).collect(),
    }
}

/// What `sent` and `got` negotiate.
///
/// # Errors
///
/// Code 2 with the subcode of RFC 4271 §6.2, RFC 5492 §5 or RFC 9234 §4.2.
pub(super) fn agree(
    config: &PeerConfig,
    sent: &Open,
    got: &Open,
    ends: Endpoints,
) -> Result<Negotiated, WireError> {
    let remote_as = got.asn();
    check_as(config, got)?;
    let ibgp = remote_as == config.local_as;
    if ibgp && got.router_id == sent.router_id {
        return Err(bad(3, "BGP identifier is our own"));
    }
    let role = role(config, got, ibgp)?;
    let families = families(config, sent, got);
    if families.is_empty() {
        return Err(no_common_family(config));
    }
    let both = |c: &Capability| sent.capabilities.contains(c) && got.capabilities.contains(c);
    let four = |o: &Open| o.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_)));
    let (add_path_receive, add_path_send) = add_path(config, sent, got, &families);
    let graceful = graceful(config, sent, got, &families);
    Ok(Negotiated {
        remote_as,
        remote_id: got.router_id,
        local_as: config.local_as,
        local_addr: ends.local.ip(),
        remote_addr: ends.remote.ip(),
        ifindex: ends.ifindex,
        hold_time: sent.hold_time.min(got.hold_time),
        four_octet_as: four(sent) && four(got),
        extended_messages: both(&Capability::ExtendedMessage),
        extended_next_hop: extended_next_hop(sent) && extended_next_hop(got),
        add_path_receive,
        add_path_send,
        route_refresh: both(&Capability::RouteRefresh),
        enhanced_refresh: both(&Capability::EnhancedRefresh),
        kept_over_restart: config.graceful_restart && graceful.is_some(),
        graceful,
        role,
        families,
    })
}

/// RFC 4271 §6.2, RFC 7607 (0), RFC 6793 §9 (AS_TRANS is nobody's number).
fn check_as(config: &PeerConfig, got: &Open) -> Result<(), WireError> {
    let asn = got.asn();
    if got.my_as == 0 || asn == 0 {
        return Err(bad(2, "AS number is 0"));
    }
    if asn == AS_TRANS {
        return Err(bad(2, "AS number is AS_TRANS"));
    }
    let wanted = match config.remote_as {
        RemoteAs::Number(n) => asn == n,
        RemoteAs::External => asn != config.local_as,
        RemoteAs::Internal => asn == config.local_as,
        RemoteAs::Any => true,
    };
    if wanted { Ok(()) } else { Err(bad(2, "AS number does not match remote-as")) }
}

/// The families in common. A neighbor without multiprotocol capabilities has IPv4 unicast
/// (RFC 4760 §8).
fn families(config: &PeerConfig, sent: &Open, got: &Open) -> Vec<Family> {
    let has = |open: &Open, family: Family| {
        let silent = !open.capabilities.iter().any(|c| matches!(c, Capability::Multiprotocol { .. }));
        open.capabilities.contains(&Capability::family(family)) || silent && family == Family::Ipv4Unicast
    };
    config.families.iter().copied().filter(|f| has(sent, *f) && has(got, *f)).collect()
}

/// 2/7 contains the missing capabilities (RFC 5492 §5).
fn no_common_family(config: &PeerConfig) -> WireError {
    let mut data = BytesMut::new();
    for f in &config.families {
        data.extend_from_slice(&[1, 4, 0, f.afi() as u8, 0, f.safi()]);
    }
    WireError { code: Code::Open, subcode: 7, data: data.freeze(), what: "no address family in common" }
}

fn add_path(
    config: &PeerConfig,
    sent: &Open,
    got: &Open,
    families: &[Family],
) -> (PerFamily<bool>, PerFamily<bool>) {
    let (mut receive, mut send) = (PerFamily::default(), PerFamily::default());
    let announced = sent.capabilities.iter().any(|c| matches!(c, Capability::AddPath(_)));
    let tuples =
        got.capabilities.iter().filter_map(|c| if let Capability::AddPath(t) = c { Some(t) } else { None });
    for tuple in tuples.flatten().filter(|_| announced) {
        let Some(family) = Family::from_wire(tuple.afi, tuple.safi).filter(|f| families.contains(f)) else {
            continue;
        };
        // RFC 7911 §4: any other mode is to be ignored. Of several tuples for a family the last
        // counts.
        if !matches!(tuple.mode, 1..=3) {
            continue;
        }
        receive[family] = config.add_paths.receive && tuple.mode & 2 != 0;
        send[family] = config.add_paths.send && tuple.mode & 1 != 0;
    }
    (receive, send)
}

fn extended_next_hop(open: &Open) -> bool {
    let ipv4_over_ipv6 = |t: &NextHopEncoding| (t.afi, t.safi, t.next_hop_afi) == (1, 1, 2);
    open.capabilities
        .iter()
        .any(|c| matches!(c, Capability::ExtendedNextHop(list) if list.iter().any(ipv4_over_ipv6)))
}

/// The neighbor's graceful restart capability, limited to the families in use and to what
/// `graceful-restart` allows.
fn graceful(config: &PeerConfig, sent: &Open, got: &Open, families: &[Family]) -> Option<Graceful> {
    if sent.capabilities.is_empty() {
        return None;
    }
    // RFC 4724 §3: of several instances all but the last are ignored.
    let theirs = got.capabilities.iter().rev().find_map(|c| match c {
        Capability::GracefulRestart(g) => Some(g),
        _ => None,
    })?;
    if !config.graceful_restart {
        return Some(Graceful { restarting: theirs.restarting, ..Graceful::default() });
    }
    let in_use = |afi, safi| Family::from_wire(afi, safi).filter(|f| families.contains(f));
    // RFC 9494 §3.1 needs the capability of RFC 4724, and is read in the same way.
    let long_lived = got.capabilities.iter().rev().find_map(|c| match c {
        Capability::LongLivedGracefulRestart(list) if config.long_lived_stale_time > 0 => Some(list),
        _ => None,
    });
    Some(Graceful {
        restarting: theirs.restarting,
        notification: theirs.notification,
        restart_time: theirs.restart_time,
        families: last_of_each(
            theirs.families.iter().filter_map(|f| Some((in_use(f.afi, f.safi)?, f.forwarding))),
            |f| f.0,
        ),
        long_lived: last_of_each(
            long_lived
                .into_iter()
                .flatten()
                .filter_map(|f| Some((in_use(f.afi, f.safi)?, f.stale_time, f.forwarding))),
            |f| f.0,
        ),
    })
}

/// One tuple for each family: the last one counts.
fn last_of_each<T>(tuples: impl Iterator<Item = T>, family: impl Fn(&T) -> Family) -> Vec<T> {
    let mut list: Vec<T> = Vec::new();
    for tuple in tuples {
        list.retain(|have| family(have) != family(&tuple));
        list.push(tuple);
    }
    list
}

/// RFC 9234 §4.2: two roles must be a valid pair; if the neighbor has none, ours applies. Several
/// different roles are refused, whether we have one or not; equal ones count once. Roles apply to
/// eBGP only.
fn role(config: &PeerConfig, got: &Open, ibgp: bool) -> Result<Option<Role>, WireError> {
    if ibgp {
        return Ok(None);
    }
    let mut theirs =
        got.capabilities.iter().filter_map(|c| if let Capability::Role(r) = c { Some(*r) } else { None });
    let first = theirs.next();
    if theirs.any(|r| Some(r) != first) {
        return Err(bad(11, "several roles that differ"));
    }
    let Some(ours) = config.role else { return Ok(None) };
    let pair = match ours {
        Role::Provider => Role::Customer,
        Role::Customer => Role::Provider,
        Role::RouteServer => Role::RouteServerClient,
        Role::RouteServerClient => Role::RouteServer,
        Role::Peer => Role::Peer,
    };
    if first.is_none_or(|r| r == role_number(pair)) {
        Ok(Some(ours))
    } else {
        Err(bad(11, "role does not fit ours"))
    }
}

fn role_number(role: Role) -> u8 {
    match role {
        Role::Provider => 0,
        Role::RouteServer => 1,
        Role::RouteServerClient => 2,
        Role::Customer => 3,
        Role::Peer => 4,
    }
}

/// Explains an error of negotiation to the operator.
pub(super) fn explain(config: &PeerConfig, got: &Open, error: &WireError) -> String {
    let name = |asn: Asn| format!("AS {asn}");
    match (error.code, error.subcode) {
        (Code::Open, 2) => {
            let wanted = match config.remote_as {
                RemoteAs::Number(n) => name(n),
                RemoteAs::External => format!("any but our own {}", name(config.local_as)),
                RemoteAs::Internal => format!("our own {}", name(config.local_as)),
                RemoteAs::Any => "a usable number".into(),
            };
            match got.asn() {
                // Not a valid AS number: the OPEN is at fault, not `remote-as`.
                AS_TRANS => format!(
                    "bad peer AS: {} (23456), a placeholder for a four-octet number, which no capability contains; \
                     remote-as is {wanted}",
                    error.what
                ),
                0 => format!("bad peer AS: {}; remote-as is {wanted}", error.what),
                _ if got.my_as == 0 => format!("bad peer AS: {}", error.what),
                asn => format!("bad peer AS: the neighbor is {}, remote-as is {wanted}", name(asn)),
            }
        }
        (Code::Open, 3) => {
            format!("bad BGP identifier: the neighbor has our own router id {}", got.router_id)
        }
        _ => error.what.into(),
    }
}

fn bad(subcode: u8, what: &'static str) -> WireError {
    WireError { code: Code::Open, subcode, data: Bytes::new(), what }
}
