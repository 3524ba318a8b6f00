//! Looks up single packets, neighbor entries and rules in the kernel, for `explain`.

use std::{
    io,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use crate::{
    fib::{
        lookup::{Drop, Entry, LookUp, Looked, Packet, Used},
        route::SeenRoute,
        rules::{Action, Rule, rule},
        wire::{self, kind},
    },
    net::Family,
    netlink::io::{Channel, Protocol},
};

/// How long a neighbor may take to reply. The kernel repeats its first request after a second.
const RESOLVE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Between two looks at an entry that is being resolved.
const RESOLVE_INTERVAL: Duration = Duration::from_millis(20);

/// A socket for look-ups. It blocks for a moment: use it in a thread of its own.
pub struct Lookups(Channel);

impl Lookups {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// If the kernel provides no netlink socket.
    pub fn open() -> io::Result<Self> {
        Channel::open(Protocol::ROUTE).map(Self)
    }

    /// The route that the kernel uses for a packet.
    pub fn route(&mut self, packet: &Packet) -> Looked {
        let used = self.one(packet, true).and_then(|route| Ok((route, self.one(packet, false)?)));
        match used {
            Ok(((route, _), (selected, mtu))) => Looked::Route(Box::new(Used { route, selected, mtu })),
            Err(error) => dropped(&error),
        }
    }

    fn one(&mut self, packet: &Packet, matched: bool) -> io::Result<(SeenRoute, Option<u32>)> {
        let found = self.0.get(
            kind::NEW_ROUTE,
            |encoder| wire::get_route(encoder, packet, matched),
            |m| wire::route(m.body).map(|route| (route, wire::path_mtu(m.body))),
        )?;
        found.ok_or_else(|| io::Error::other("the kernel sent no route"))
    }

    /// The neighbor entry of an address, which is resolved first if that is necessary.
    ///
    /// # Errors
    ///
    /// If the kernel does not support such requests, as before Linux 5.0.
    pub fn neighbor(&mut self, ifindex: u32, addr: IpAddr) -> io::Result<Entry> {
        let entry = self.entry(ifindex, addr)?;
        if matches!(entry, Entry::Known | Entry::NotNeeded) {
            return Ok(entry);
        }
        self.0.get(kind::NEW_NEIGHBOR, |encoder| wire::use_neighbor(encoder, ifindex, addr), |_| Some(()))?;
        let until = Instant::now() + RESOLVE_TIMEOUT;
        loop {
            let entry = self.entry(ifindex, addr)?;
            if !matches!(entry, Entry::Absent | Entry::Incomplete) || Instant::now() >= until {
                return Ok(entry);
            }
            thread::sleep(RESOLVE_INTERVAL);
        }
    }

    fn entry(&mut self, ifindex: u32, addr: IpAddr) -> io::Result<Entry> {
        let found = self.0.get(
            kind::NEW_NEIGHBOR,
            |encoder| wire::get_neighbor(encoder, ifindex, addr),
            |m| wire::neighbor_state(m.body).map(Entry::from_state),
        );
        match found {
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(Entry::Absent),
            found => Ok(found?.unwrap_or(Entry::Absent)),
        }
    }

    /// The rules of a family that look up a table, in their order.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the request.
    pub fn rules(&mut self, family: Family) -> io::Result<Vec<LookUp>> {
        let mut rules = Vec::new();
        self.0.dump(
            |encoder| wire::dump_rules(encoder, family),
            |m| rules.extend(Some(m).filter(|m| m.kind == kind::NEW_RULE).and_then(|m| rule(m.body))),
        )?;
        rules.sort_by_key(|r| r.priority);
        let look_up = |r: &Rule| match r.action {
            Action::Look(table) => {
                let selects = r.selects || r.destination.is_some() || r.vrf;
                Some(LookUp { priority: r.priority, table, selects })
            }
            _ => None,
        };
        Ok(rules.iter().filter_map(look_up).collect())
    }
}

fn dropped(error: &io::Error) -> Looked {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => Looked::Dropped(Drop::Unreachable),
        Some(Errno::EACCES) => Looked::Dropped(Drop::Prohibited),
        Some(Errno::EINVAL) => Looked::Dropped(Drop::Invalid),
        Some(Errno::EXDEV) => Looked::Dropped(Drop::ReversePath),
        _ => Looked::Unknown(error.to_string()),
    }
}
