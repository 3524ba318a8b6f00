//! The series of neighbors and of their BFD sessions.
//!
//! Their number is bounded, whatever the size of the mesh: the first [`MAX_NEIGHBORS`] have series
//! of their own, configured ones before those of listen ranges and of the mesh. The prefixes,
//! messages and failures of all others are sums with the label `neighbor="other"`, and
//! `bgp_neighbors` counts all by state.

use std::{collections::BTreeMap, fmt};

use super::{
    Snapshot,
    write::{Labels, Writer, signed},
};
use crate::{
    bfd::view::BfdView,
    bgp::view::{DROP_REASONS, NeighborView, SessionState},
    net::Family,
};

/// Neighbors with series of their own. Each has about 40.
pub(super) const MAX_NEIGHBORS: usize = 200;

/// Value of the label `neighbor` of all others.
const OTHER: &str = "other";

/// The series of neighbors.
pub(super) struct Shown<'s> {
    snapshot: &'s Snapshot,
    named: Vec<Named<'s>>,
    /// The sum of those without series of their own, if there are any.
    other: Option<Other>,
}

/// A neighbor with series of its own.
struct Named<'s> {
    view: &'s NeighborView,
    remote_as: String,
    /// Name of the Node that it is, in a mesh or as a reflector.
    node: Option<&'s str>,
    bfd: Option<&'s BfdView>,
}

/// Sums.
#[derive(Default)]
struct Other {
    view: NeighborView,
    octets: u64,
    bfd: BfdView,
    has_bfd: bool,
}

impl<'s> Shown<'s> {
    pub(super) fn of(snapshot: &'s Snapshot) -> Self {
        let mut all: Vec<_> = snapshot.neighbors.iter().collect();
        // Stable: within a rank they are in the order of `show neighbors`.
        all.sort_by_key(|n| match n.source.as_str() {
            "mesh" => 2,
            "range" => 1,
            _ => 0,
        });
        let rest = all.split_off(all.len().min(MAX_NEIGHBORS));
        let named = all.into_iter().map(|view| Named {
            view,
            remote_as: view.remote_as.map(|asn| asn.to_string()).unwrap_or_default(),
            node: node(view),
            bfd: snapshot.bfd.sessions.get(&view.address),
        });
        let other = (!rest.is_empty()).then(|| Other::sum(&rest, snapshot));
        Self { named: named.collect(), snapshot, other }
    }

    pub(super) fn write(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        self.states(out)?;
        self.prefixes(out)?;
        self.limits(out)?;
        self.messages(out)
    }

    fn states(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let mut counts: BTreeMap<_, u64> = SessionState::ALL.iter().map(|s| (*s, 0)).collect();
        self.snapshot.neighbors.iter().for_each(|n| *counts.entry(n.state).or_default() += 1);
        let counts = counts.into_iter().map(|(s, count)| (vec![("state", s.as_str())], signed(count)));
        out.gauges("bgp_neighbors", "Neighbors by the state of their session", counts)?;
        let named = || self.named.iter().map(|n| (n.labels([("remote_as", &*n.remote_as)]), n.view));
        out.gauges(
            "bgp_neighbor_state",
            "State of the session, 1 to 6 as in RFC 4273: idle, connect, active, open-sent, open-confirm, established",
            named().map(|(labels, n)| (labels, state_number(n.state))),
        )?;
        out.gauges(
            "bgp_neighbor_up",
            "Whether the session is established",
            named().map(|(labels, n)| (labels, i64::from(n.state == SessionState::Established))),
        )?;
        let since = self.named.iter().filter_map(|n| Some((n.labels([]), seconds(n.view)?)));
        out.gauges(
            "bgp_session_changed_timestamp_seconds",
            "Since when there is a session with the neighbor, or none",
            since,
        )
    }

    fn prefixes(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let views = |n: &'_ NeighborView| {
            let one = |view, counts: &BTreeMap<Family, u64>| {
                Family::ALL.map(|f| (view, f, counts.get(&f).copied().unwrap_or_default()))
            };
            [one("received", &n.received), one("accepted", &n.accepted), one("advertised", &n.advertised)]
        };
        let prefixes = self.summed().flat_map(|(labels, n)| {
            views(n).into_iter().flatten().map(move |(view, family, count)| {
                (with(&labels, [("family", family.as_str()), ("view", view)]), signed(count))
            })
        });
        out.gauges("bgp_neighbor_prefixes", "Prefixes by neighbor, family and view", prefixes)?;
        let withheld = self.summed().flat_map(|(labels, n)| {
            Family::ALL.map(|f| {
                let count = n.withheld.get(&f).copied().unwrap_or_default();
                (with(&labels, [("family", f.as_str())]), signed(count))
            })
        });
        out.gauges(
            "bgp_neighbor_prefixes_withheld",
            "Prefixes that are not advertised because there are more than max-prefixes-out",
            withheld,
        )
    }

    fn limits(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let counts = &self.snapshot.counts.neighbors;
        let named = || self.named.iter().filter_map(|n| Some((n.labels([]), counts.get(&n.view.address)?)));
        out.gauges(
            "bgp_neighbor_prefixes_limit",
            "Prefixes of a family that the neighbor may send: max-prefixes",
            named().map(|(labels, c)| (labels, i64::from(c.max_prefixes))),
        )?;
        let other = self.other.iter().map(|o| (vec![("neighbor", OTHER)], o.octets));
        let octets = named().map(|(labels, c)| (labels, c.octets)).chain(other);
        out.gauges(
            "bgp_neighbor_octets",
            "Estimated memory of the neighbor's routes",
            octets.map(|(labels, octets)| (labels, signed(octets))),
        )
    }

    fn messages(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let messages = self.summed().flat_map(|(labels, n)| {
            let sent = n.messages_sent.iter().map(|(kind, count)| (kind, "sent", *count));
            let received = n.messages_received.iter().map(|(kind, count)| (kind, "received", *count));
            sent.chain(received).map(move |(kind, direction, count)| {
                (with(&labels, [("type", &**kind), ("direction", direction)]), count)
            })
        });
        out.counters("bgp_messages", "BGP messages by neighbor, type and direction", messages)?;
        let drops = self.summed().flat_map(|(labels, n)| {
            DROP_REASONS
                .map(|why| (with(&labels, [("reason", why)]), n.drops.get(why).copied().unwrap_or_default()))
        });
        out.counters("bgp_session_drops", "Sessions that ended, by neighbor and reason", drops)
    }

    pub(super) fn bfd(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let named = || self.named.iter().filter_map(|n| Some((n.labels([]), n.bfd?)));
        let up = named().map(|(labels, s)| (labels, i64::from(s.state == "up")));
        out.gauges("bfd_session_up", "Whether BFD reaches the neighbor", up)?;
        let diagnostics = named().map(|(labels, s)| (labels, i64::from(s.diagnostic_code)));
        out.gauges(
            "bfd_session_diagnostic",
            "The local diagnostic code (RFC 5880 section 4.1)",
            diagnostics,
        )?;
        let other = self.other.iter().filter(|o| o.has_bfd).map(|o| (vec![("neighbor", OTHER)], &o.bfd));
        let all: Vec<_> = named().chain(other).collect();
        let failures = all.iter().map(|(labels, s)| (labels.clone(), s.failures));
        out.counters("bfd_session_failures", "How often BFD lost the neighbor", failures)?;
        let packets = all.iter().flat_map(|(labels, s)| {
            [("sent", s.packets_sent), ("received", s.packets_received)]
                .map(|(direction, count)| (with(labels, [("direction", direction)]), count))
        });
        out.counters("bfd_packets", "BFD packets by neighbor and direction", packets)
    }

    /// All neighbors with series of their own, and the sum of the others.
    fn summed(&self) -> impl Iterator<Item = (Labels<'_>, &NeighborView)> {
        let named = self.named.iter().map(|n| (n.labels([]), n.view));
        named.chain(self.other.iter().map(|o| (vec![("neighbor", OTHER)], &o.view)))
    }
}

impl Named<'_> {
    fn labels<'l, const N: usize>(&'l self, more: [(&'static str, &'l str); N]) -> Labels<'l> {
        let first = std::iter::once(("neighbor", &*self.view.address));
        first.chain(more).chain(self.node.map(|name| ("node", name))).collect()
    }
}

impl Other {
    fn sum(rest: &[&NeighborView], snapshot: &Snapshot) -> Self {
        let mut sum = Self::default();
        for view in rest {
            for (of_all, of_one) in [
                (&mut sum.view.received, &view.received),
                (&mut sum.view.accepted, &view.accepted),
                (&mut sum.view.advertised, &view.advertised),
                (&mut sum.view.withheld, &view.withheld),
            ] {
                of_one.iter().for_each(|(family, n)| *of_all.entry(*family).or_default() += n);
            }
            for (of_all, of_one) in [
                (&mut sum.view.messages_sent, &view.messages_sent),
                (&mut sum.view.messages_received, &view.messages_received),
                (&mut sum.view.drops, &view.drops),
            ] {
                of_one.iter().for_each(|(kind, n)| *of_all.entry(kind.clone()).or_default() += n);
            }
            sum.octets += snapshot.counts.neighbors.get(&view.address).map_or(0, |c| c.octets);
            if let Some(bfd) = snapshot.bfd.sessions.get(&view.address) {
                sum.has_bfd = true;
                sum.bfd.failures += bfd.failures;
                sum.bfd.packets_sent += bfd.packets_sent;
                sum.bfd.packets_received += bfd.packets_received;
            }
        }
        sum
    }
}

/// The labels with additional ones before the Node.
fn with<'l, const N: usize>(
    labels: &[(&'static str, &'l str)],
    more: [(&'static str, &'l str); N],
) -> Labels<'l> {
    let mut all: Labels<'l> = labels.to_vec();
    let at = labels.len().min(1);
    all.splice(at..at, more);
    all
}

/// Neighbors that are Nodes have such a description.
fn node(view: &NeighborView) -> Option<&str> {
    let is_node = matches!(view.source.as_str(), "mesh" | "reflector");
    view.description.as_deref().filter(|_| is_node)?.strip_prefix("node ")
}

/// Since when the session has been established, or not, in seconds since 1970.
fn seconds(view: &NeighborView) -> Option<i64> {
    let since = view.history.up_down_since.as_deref().unwrap_or(&view.since);
    Some(since.parse::<jiff::Timestamp>().ok()?.as_second())
}

/// RFC 4273 `bgpPeerState`; a disabled session is idle.
fn state_number(state: SessionState) -> i64 {
    match state {
        SessionState::Idle | SessionState::Disabled => 1,
        SessionState::Connect => 2,
        SessionState::Active => 3,
        SessionState::OpenSent => 4,
        SessionState::OpenConfirm => 5,
        SessionState::Established => 6,
    }
}
