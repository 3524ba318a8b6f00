//! Routes of former configurations: replaced if they hold keys that we need, and removed when the
//! present configuration's routes are installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use tracing::{info, warn};

use super::{
    batch::{self, BATCH},
    netlink,
};
use crate::{
    fib::{
        diff::content,
        former::Location,
        host::{ForeignHop, RouteType},
        nexthop,
        resolve::Hop,
        route::{Content, GroupKind, Leads, Object, ObjectId, SeenObject, SeenRoute, Target},
        wire::{self, Ours},
    },
    net::{Family, PreferredSources, Prefix, RouteKind},
    netlink::io::Channel,
};

/// What was found at the start in the locations of former configurations.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Where routes are installed.
    now: Option<Location>,
    places: Vec<Location>,
    routes: Vec<BTreeSet<(Prefix, u32)>>,
    /// Objects with the protocol number of a former configuration.
    objects: Vec<ObjectId>,
    /// Objects that these routes use, with the number of routes.
    pub(super) uses: BTreeMap<ObjectId, u32>,
}

/// Gives the present protocol number to routes of ours that have a former one at the same key. They
/// would otherwise count as another daemon's, and their keys could not be written. Each is replaced
/// by a route with the same next hops, so that none is missing in between. Must run before anything
/// else is read.
pub(super) fn take_over(channel: &mut Channel, former: &[Location], now: Location) -> io::Result<()> {
    let in_table = former.iter().filter(|p| p.table == now.table && p.protocol != now.protocol);
    for place in in_table {
        let mut routes = routes_of(channel, place)?;
        routes.retain(|r| now.has_key_of(r));
        if routes.is_empty() {
            continue;
        }
        let ours = Ours { sources: sources_of(&routes), ..ours(&now) };
        let seen = netlink::objects(channel)?.unwrap_or_default();
        let copies = copy_objects(channel, &seen, place.protocol, now.protocol)?;
        let mut left = 0;
        for batch in routes.chunks(BATCH) {
            let contents: Vec<_> = batch.iter().map(content_of).collect();
            let put = batch.iter().zip(&contents).map(|(route, content)| {
                let target = match (copies.get(&route.object), content) {
                    (Some(copy), _) => Target::Object(*copy),
                    (None, Content::Hops(hops)) => Target::Hops(hops),
                    (None, Content::Unreachable) => Target::Unreachable,
                    (None, Content::Blackhole) => Target::Blackhole,
                };
                (route.prefix, route.metric, target)
            });
            let refused = batch::replace_routes(channel, ours, put)?;
            left += refused.len();
            // A route that cannot be replaced leads nowhere and holds the key.
            let stuck: Vec<_> =
                refused.iter().filter_map(|r| batch.get(r.index)).map(|r| (r.prefix, r.metric)).collect();
            if !stuck.is_empty() {
                batch::delete_routes(channel, self::ours(place), &stuck)?;
            }
        }
        let (from, to) = (place.protocol, now.protocol);
        info!(
            routes = routes.len() - left,
            from, to, "routes of the former configuration have the new protocol number"
        );
    }
    Ok(())
}

/// Copies our objects under another protocol number, by former id: that of a group cannot be
/// changed.
fn copy_objects(
    channel: &mut Channel,
    seen: &BTreeMap<ObjectId, SeenObject>,
    from: u8,
    to: u8,
) -> io::Result<BTreeMap<ObjectId, ObjectId>> {
    let taken = seen.keys().copied().filter(|id| nexthop::is_ours(*id, to)).max();
    let mut next = taken.unwrap_or(nexthop::before_first(to));
    let mut copies = BTreeMap::new();
    let former: Vec<_> = seen.values().filter(|o| is_former(o, from)).collect();
    let groups_last = former.iter().filter(|o| !is_group(o)).chain(former.iter().filter(|o| is_group(o)));
    for one in groups_last {
        let object = match &one.leads {
            Leads::Hop(hop) => hop_of(hop).map(Object::Hop),
            Leads::Group { members, kind } => {
                let members = members.iter().filter_map(|id| copies.get(id).copied()).collect();
                Some(match kind {
                    GroupKind::Resilient => Object::ResilientGroup(members),
                    GroupKind::Plain | GroupKind::Other => Object::Group(members),
                })
            }
            Leads::Blackhole | Leads::Nowhere => None,
        };
        let Some(object) = object else { continue };
        next += 1;
        if nexthop::is_ours(next, to) && batch::make_object(channel, to, next, &object)? {
            copies.insert(one.id, next);
        }
    }
    Ok(copies)
}

impl Former {
    /// Finds what is left. `now` is where routes are installed: objects with its protocol number
    /// stay in use.
    pub(super) fn find(
        channel: &mut Channel,
        places: Vec<Location>,
        now: Option<Location>,
    ) -> io::Result<Self> {
        let mut found = Self { now, places, ..Self::default() };
        if found.places.is_empty() {
            return Ok(found);
        }
        for place in &found.places.clone() {
            let routes = found.routes_at(channel, place)?;
            for route in routes.iter().filter(|r| r.object != 0) {
                *found.uses.entry(route.object).or_default() += 1;
            }
            found.routes.push(routes.iter().map(|r| (r.prefix, r.metric)).collect());
        }
        let former = |o: &&SeenObject| {
            let stays = now.is_some_and(|n| nexthop::is_ours(o.id, n.protocol));
            !stays && found.places.iter().any(|p| is_former(o, p.protocol))
        };
        let seen = netlink::objects(channel)?.unwrap_or_default();
        let mut objects: Vec<_> = seen.values().filter(former).collect();
        // Groups before their members.
        objects.sort_by_key(|o| !is_group(o));
        found.objects = objects.iter().map(|o| o.id).collect();
        let routes = found.routes.iter().map(BTreeSet::len).sum::<usize>();
        if routes > 0 {
            info!(routes, places = ?found.places, "routes of former configurations found; removed once the neighbors have converged");
        }
        Ok(found)
    }

    /// The routes at a former location. Another metric alone leaves unreachable routes where they
    /// are.
    fn routes_at(&self, channel: &mut Channel, place: &Location) -> io::Result<Vec<SeenRoute>> {
        let mut routes = routes_of(channel, place)?;
        routes.retain(|r| !self.now.is_some_and(|now| now.holds(r)));
        Ok(routes)
    }

    /// Removes all of it, except at locations that another daemon uses by now.
    pub(super) fn remove(&self, channel: &mut Channel) -> io::Result<()> {
        let mut all_ours = true;
        for (place, known) in self.places.iter().zip(&self.routes) {
            let there: Vec<_> =
                self.routes_at(channel, place)?.iter().map(|r| (r.prefix, r.metric)).collect();
            let Location { table, protocol, .. } = *place;
            if there.iter().any(|r| !known.contains(r)) {
                all_ours = false;
                warn!(
                    table,
                    protocol,
                    "another program writes routes where the former configuration had its own, so they are left alone; once it is clear \
                     whose they are, `ip route flush table TABLE proto PROTOCOL` removes them"
                );
                continue;
            }
            let mut removed = 0;
            for batch in there.chunks(BATCH) {
                removed += batch.len() - batch::delete_routes(channel, ours(place), batch)?.len();
            }
            if removed > 0 {
                info!(routes = removed, table, protocol, "routes of a former configuration removed");
            }
        }
        if all_ours {
            for id in &self.objects {
                batch::delete_object(channel, *id)?;
            }
        }
        Ok(())
    }
}

fn ours(place: &Location) -> Ours {
    Ours { table: place.table, protocol: place.protocol, sources: PreferredSources::default() }
}

/// The preferred source of learned routes, which all of a family share.
fn sources_of(routes: &[SeenRoute]) -> PreferredSources {
    let mut sources = PreferredSources::default();
    routes.iter().filter_map(|r| r.source).for_each(|source| sources.set(source));
    sources
}

fn routes_of(channel: &mut Channel, place: &Location) -> io::Result<Vec<SeenRoute>> {
    let mut found = Vec::new();
    for family in Family::ALL {
        channel.dump(
            |encoder| wire::dump_routes(encoder, family, Some(place.table), Some(place.protocol)),
            |message| {
                let route = wire::route(message.body).filter(|_| message.kind == wire::kind::NEW_ROUTE);
                found.extend(route.filter(|r| place.holds(r) && r.kind.and_then(RouteType::kind).is_some()));
            },
        )?;
    }
    Ok(found)
}

fn content_of(route: &SeenRoute) -> Content {
    // `routes_of` returns no other kinds.
    let kind = route.kind.and_then(RouteType::kind).unwrap_or(RouteKind::Unreachable);
    content(kind, &route.hops)
}

fn is_former(object: &SeenObject, protocol: u8) -> bool {
    object.protocol == protocol && nexthop::is_ours(object.id, protocol)
}

fn is_group(object: &SeenObject) -> bool {
    matches!(object.leads, Leads::Group { .. })
}

fn hop_of(hop: &ForeignHop) -> Option<Hop> {
    Some(Hop { ifindex: hop.ifindex, gateway: hop.gateway?, onlink: hop.onlink })
}
