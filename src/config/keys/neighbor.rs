//! `[[bgp.neighbor]]` and `[bgp.group.NAME]`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde_json::Value;

use super::{
    Note, Shape, Table,
    kinds::{Choice, Kind, Set, With},
    section,
};
use crate::{
    bgp::peer::{AddPaths, AsSets, Bfd, MaxPrefixesAction, RemoteAs, Role, Secret, TtlSecurity},
    config::{
        NeighborId, bfd, password,
        read::Item,
        values::{self, FAMILIES, interface_glob},
    },
    net::{Asn, Family},
};

/// Defines the keys of a neighbor, each with the default that holds unless `[bgp]`, its group or
/// the neighbor itself sets it.
macro_rules! neighbor_keys {
    (
        $(#[doc = $about:literal])*
        {
            $(
                $(#[doc = $doc:literal])*
                $key:literal $field:ident: $type:ty = $default:expr, $kind:expr $(, $note:expr)*;
            )*
        }
    ) => {
        section! {
            $(#[doc = $about])*
            pub struct NeighborKeys at "[[bgp.neighbor]]" {
                $(
                    $(#[doc = $doc])*
                    $key $field: Option<$type> = None, Optional($kind) $(, $note)*;
                )*
            }
        }

        impl NeighborKeys {
            /// The keys that are set here, and the others as in `weaker`.
            #[must_use]
            pub fn or(self, weaker: Self) -> Self {
                Self { $($field: self.$field.or(weaker.$field)),* }
            }
        }

        /// The defaults, except for `remote-as`, which is required, and for keys whose default
        /// depends on the session, the host or other keys.
        pub(in crate::config) fn neighbor_defaults() -> NeighborKeys {
            NeighborKeys { $($field: $default),* }
        }
    };
}

neighbor_keys! {
    /// A neighbor. Keys that it does not set are those of its group, else of `[bgp]`.
    {
        /// A number, "external", "internal" or "any".
        "remote-as" remote_as: RemoteAs = None, remote_as(),
            DefaultIs("\"external\" beside `interface` and in `[bgp.group.gateway]`, else required"),
            Example("10000");
        /// Own AS number towards this neighbor, in place of that of the node.
        "local-as" local_as: Asn = None, asn(), Example("65001");
        /// Own address of the session.
        "local-address" local_address: IpAddr = None, written(values::address),
            DefaultIs("that of the interface that leads to the neighbor"), Example("\"10.1.1.2\"");
        /// TCP port of the neighbor.
        "port" port: u16 = Some(179), number(1..=65535);
        /// Only accept connections, never open one.
        "passive" passive: bool = Some(false), Flag;
        /// Text for displays and logs.
        "description" description: String = None, any_text(), Example("\"leaf 1\"");
        /// TCP MD5 (RFC 2385), at most 80 octets.
        "password" password: Secret = None, password::of_tcp(),
            Example("\"secret\""), FileOnly;
        /// Instead of `password`: a file whose first line is the password.
        "password-file" password_file: PathBuf = None, password::file(),
            Example("\"/etc/routelet/leaf1.password\""), Alternative, FileOnly;
        /// TTL of an eBGP session with a neighbor that is not directly connected.
        "multihop" multihop: u8 = None, number(1..=255), Example("2");
        /// RFC 5082, instead of `multihop`: the largest number of hops allowed, 1 to 254; 0 turns
        /// it off. "where-offered": one hop, required of a directly connected neighbor once it
        /// sends with TTL 255 itself.
        "ttl-security" ttl_security: TtlSecurity = None, ttl_security(),
            DefaultIs("\"where-offered\" for gateways and beside `interface`, else none"),
            Example("1"), Alternative;
        /// Address families of the session.
        "families" families: Vec<Family> = Some(Family::ALL.to_vec()), families();
        /// Seconds without a message after which the session ends: 0 (never), or 3 to 65535.
        // RFC 4271 §4.2.
        "hold-time" hold_time: u16 = Some(90), number(0..=65535)
            .only("0, or 3 to 65535 seconds", |n| n == 0 || n >= 3), Shared;
        /// Seconds for which the neighbor may read nothing of what is sent before the session ends
        /// (RFC 9687), no shorter than the hold time.
        "send-hold-time" send_hold_time: u16 = None, number(1..=65535),
            DefaultIs("480, or twice the hold time if that is longer"), Example("480"), Shared;
        /// Seconds between attempts to connect, with jitter; doubles up to 120 while the neighbor
        /// refuses.
        "connect-retry-time" connect_retry_time: u16 = Some(5), number(1..=65535), Shared;
        /// Seconds without a session after one that ended with an error; doubles up to 120 while
        /// the errors continue.
        "idle-hold-time" idle_hold_time: u16 = Some(5), number(1..=65535), Shared;
        /// Advertise graceful restart (RFC 4724, RFC 8538) and help a neighbor that restarts.
        "graceful-restart" graceful_restart: bool = Some(true), Flag, Shared;
        /// Seconds that the neighbor keeps our routes over a restart.
        // Twelve bits (RFC 4724 §3).
        "restart-time" restart_time: u16 = Some(120), number(0..=4095), Shared;
        /// Seconds that stale routes are kept after that (RFC 9494); 0 disables it.
        // Twenty-four bits (RFC 9494 §3).
        "long-lived-stale-time" long_lived_stale_time: u32 = Some(0), number(0..=16_777_215),
            DefaultIs("0; 604800 (a week) in the groups \"mesh\" and \"reflectors\""), Shared;
        /// Reflect routes to and from this neighbor (RFC 4456).
        "route-reflector-client" route_reflector_client: bool = Some(false), Flag;
        /// Advertise this host as next hop; never on reflected routes (RFC 4456 §10).
        "next-hop-self" next_hop_self: bool = None, Flag,
            DefaultIs("true for eBGP, false for iBGP"), Example("true");
        /// Also advertise routes learned from other neighbors.
        "transit" transit: bool = Some(false), Flag;
        /// Limit of prefixes received from the neighbor, for each family. All routes together never
        /// take more memory than there is for them: the session that exceeds it is closed first.
        "max-prefixes" max_prefixes: u32 = None, number(1..=u32::MAX.into()),
            DefaultIs("what the memory limit allows (440000 with 256 MiB), at most 1000000"),
            Example("1000000");
        /// Beyond `max-prefixes`: "restart" closes the session for a while (CEASE/1), which
        /// `max-prefixes-restart` sets; "warn" only logs.
        "max-prefixes-action" max_prefixes_action: MaxPrefixesAction = Some(MaxPrefixesAction::Restart),
            Choice(&ACTIONS);
        /// Seconds without a session after `max-prefixes` was exceeded.
        "max-prefixes-restart" max_prefixes_restart: u32 = Some(300), number(1..=u32::MAX.into());
        /// Limit of prefixes advertised to the neighbor, for each family; 0: no limit. Those beyond
        /// are withheld, with a line in the log, and follow when others are withdrawn; the session
        /// stays.
        "max-prefixes-out" max_prefixes_out: u32 = None, number(0..=u32::MAX.into()),
            DefaultIs("10000 for eBGP without `transit`, else 0"), Example("10000");
        /// Several paths of a prefix (RFC 7911): "none", "receive", "send" or "both".
        "add-paths" add_paths: AddPaths = Some(AddPaths::default()), Choice(&ADD_PATHS);
        /// BFD (RFC 5880): a table of timers, {} for the defaults; in the file also true or false.
        /// The neighbor is lost after `multiplier` packets ([operating.md](operating.md)).
        "bfd" bfd: Option<Bfd> = Some(None), bfd::kind(),
            Example("{ min-tx = 300, min-rx = 300, multiplier = 3, strict = false, passive = false }");
        /// Names of policies for received routes, run in order.
        "import" import: Vec<String> = Some(Vec::new()), List(any_text()), Example("[\"from-leaf\"]");
        /// Names of policies for advertised routes, run in order.
        "export" export: Vec<String> = Some(Vec::new()), List(any_text());
        /// Close the session at once when its link or its own address is lost; where it is not
        /// directly connected eBGP, the neighbor is probed first and has ten seconds to respond.
        /// False: only the hold time counts.
        "fast-failover" fast_failover: bool = None, Flag,
            DefaultIs("true for directly connected eBGP"), Example("true");
        /// Accept a default route from this neighbor.
        "accept-default" accept_default: bool = Some(false), Flag;
        /// How many times the own AS number may be in a received AS path.
        "allow-own-as" allow_own_as: u8 = None, number(0..=255),
            DefaultIs("0; 1 for gateways and beside `interface`"), Example("0");
        /// A received route with an AS_SET: "withdraw" (RFC 9774) or "accept".
        "as-sets" as_sets: AsSets = Some(AsSets::Withdraw), Choice(&AS_SETS);
        /// Own role (RFC 9234): "provider", "customer", "peer", "rs" or "rs-client".
        "role" role: Role = None, Choice(&ROLES), Example("\"customer\"");
    }
}

impl NeighborKeys {
    /// The files that its passwords are read from.
    pub fn password_files(&self) -> impl Iterator<Item = &PathBuf> {
        let of_bfd = self.bfd.iter().flatten().filter_map(|bfd| bfd.password_file.as_ref());
        self.password_file.iter().chain(of_bfd)
    }

    /// As [`NeighborKeys::show`], with nothing that was read from another file.
    pub(in crate::config) fn shown(&self) -> serde_json::Map<String, Value> {
        let mut shown = self.show();
        if self.password_file.is_some() {
            shown.remove("password");
        }
        shown
    }

    /// The keys with the defaults that hold without `[bgp]` and groups.
    pub(in crate::config) fn table_with_defaults() -> Table {
        let mut table = Self::table();
        let mut defaults = neighbor_defaults().show();
        for key in &mut table.keys {
            key.default = defaults.remove(key.name).unwrap_or_default();
        }
        table
    }
}

/// Whether it is a key of `[bgp]` as well.
pub(in crate::config) fn is_shared(notes: &[Note]) -> bool {
    notes.contains(&Note::Shared)
}

section! {
    /// Where a neighbor is found.
    pub(in crate::config) struct Place at "[[bgp.neighbor]]" {
        /// An IP address, fe80::1%eth0, or "gateway": the next hop of each default route that is
        /// not of routelet itself, followed as it changes.
        "address" address: Option<NeighborId> = None, Optional(neighbor_address()),
            DefaultIs("required without `interface`"), Example("\"10.1.1.1\"");
        /// Instead of `address`, the name of an interface or a pattern: the neighbors there are
        /// found by IPv6 router advertisements ([unnumbered.md](unnumbered.md)).
        "interface" interface: Option<String> = None, Optional(written(interface_glob)),
            Example("\"eth*\""), Alternative;
        /// Limit of neighbors on each such interface, up to 64.
        "limit" limit: Option<usize> = None, Optional(number(1..=64)),
            DefaultIs("1"), Example("1"), Alternative;
        /// A `[bgp.group.NAME]` whose keys apply unless set here.
        "group" group: Option<String> = None, Optional(any_text()), Example("\"tor\"");
    }
}

section! {
    /// `bfd` of a neighbor: times are milliseconds.
    pub(in crate::config) struct BfdKeys at "bfd" {
        /// Milliseconds between two packets.
        "min-tx" min_tx: u64 = milliseconds(Bfd::default().params.min_tx), interval();
        /// Milliseconds between two packets that we can receive.
        "min-rx" min_rx: u64 = milliseconds(Bfd::default().params.min_rx), interval();
        /// Number of missed packets after which the neighbor is lost.
        "multiplier" multiplier: u8 = Bfd::default().params.multiplier, number(1..=255);
        /// No session before BFD is up.
        "strict" strict: bool = false, Flag;
        /// Send nothing before the neighbor does.
        "passive" passive: bool = false, Flag;
        /// Key that signs the packets, at most 20 octets.
        "password" password: Option<Secret> = None, Optional(password::of_bfd()), FileOnly;
        /// Instead of `password`: a file whose first line is the key.
        "password-file" password_file: Option<PathBuf> = None, Optional(password::file()), FileOnly;
        /// Number of the key.
        "key-id" key_id: Option<u8> = None, Optional(number(0..=255)), DefaultIs("1"), FileOnly;
        /// "meticulous-sha1" or "sha1".
        "authentication" meticulous: Option<bool> = None,
            Optional(Choice(&[("meticulous-sha1", true), ("sha1", false)])),
            DefaultIs("\"meticulous-sha1\""), FileOnly;
    }
}

/// A general-purpose kernel cannot keep shorter intervals of BFD, and longer ones detect a failure
/// later than the hold time.
fn interval() -> super::kinds::Integer<u64> {
    super::kinds::number(10..=60_000)
}

pub(in crate::config) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const ACTIONS: [(&str, MaxPrefixesAction); 2] =
    [("restart", MaxPrefixesAction::Restart), ("warn", MaxPrefixesAction::Warn)];

const ADD_PATHS: [(&str, AddPaths); 4] = [
    ("none", AddPaths { send: false, receive: false }),
    ("receive", AddPaths { send: false, receive: true }),
    ("send", AddPaths { send: true, receive: false }),
    ("both", AddPaths { send: true, receive: true }),
];

const AS_SETS: [(&str, AsSets); 2] = [("withdraw", AsSets::Withdraw), ("accept", AsSets::Accept)];

const ROLES: [(&str, Role); 5] = [
    ("provider", Role::Provider),
    ("customer", Role::Customer),
    ("peer", Role::Peer),
    ("rs", Role::RouteServer),
    ("rs-client", Role::RouteServerClient),
];

fn as_number() -> Shape {
    Shape::Number { min: 1, max: 4_294_967_294 }
}

fn asn() -> With<Asn> {
    With { read: values::asn, show: |asn| (*asn).into(), shape: as_number }
}

pub(super) fn remote_as() -> With<RemoteAs> {
    With {
        read: values::remote_as,
        show: |remote_as| match remote_as {
            RemoteAs::Number(asn) => (*asn).into(),
            RemoteAs::External => "external".into(),
            RemoteAs::Internal => "internal".into(),
            RemoteAs::Any => "any".into(),
        },
        shape: || Shape::Either(vec![as_number(), Shape::Choice(vec!["external", "internal", "any"])]),
    }
}

const WHERE_OFFERED: &str = "where-offered";

/// A number of hops, 0 or false for none, or "where-offered".
fn ttl_security() -> With<TtlSecurity> {
    With {
        read: read_ttl_security,
        show: |setting| match setting {
            TtlSecurity::Off => 0.into(),
            TtlSecurity::Strict(hops) => (*hops).into(),
            TtlSecurity::WhereOffered => WHERE_OFFERED.into(),
        },
        shape: || Shape::Either(vec![Shape::Number { min: 0, max: 254 }, Shape::Choice(vec![WHERE_OFFERED])]),
    }
}

fn read_ttl_security(item: &Item<'_>) -> Option<TtlSecurity> {
    if item.value.get_ref().as_bool() == Some(false) {
        return Some(TtlSecurity::Off);
    }
    if item.is_text() {
        return item.choice(&[(WHERE_OFFERED, TtlSecurity::WhereOffered)]);
    }
    let hops = item.number_where("0 (off), 1 to 254 hops, or \"where-offered\"", |n| n <= 254)?;
    Some(if hops == 0 { TtlSecurity::Off } else { TtlSecurity::Strict(hops) })
}

/// At least one, in the order of their numbers.
fn families() -> With<Vec<Family>> {
    With {
        read: |item| {
            let mut families = Set(Choice(&FAMILIES)).read(item)?;
            if families.is_empty() {
                item.error("must name at least one of \"ipv4-unicast\", \"ipv6-unicast\"");
                return None;
            }
            families.sort_unstable();
            Some(families)
        },
        show: |families| Set(Choice(&FAMILIES)).show(families),
        shape: || Set(Choice(&FAMILIES)).shape(),
    }
}

fn neighbor_address() -> With<NeighborId> {
    With {
        read: values::neighbor_address,
        show: |at| match at {
            NeighborId::Address(address) => address.to_string().into(),
            NeighborId::LinkLocal(address, interface) => format!("{address}%{interface}").into(),
            NeighborId::Gateway => "gateway".into(),
            NeighborId::Interface(_) | NeighborId::Uplinks => Value::Null,
        },
        shape: || Shape::Text,
    }
}
