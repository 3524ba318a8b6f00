//! The next messages for each member: batches of the journal or of `adj_rib_out`, encoded once for
//! all members at the same position.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};

use super::{
    At, Batch, MAX_BATCH_OCTETS, MAX_BATCH_SLOTS, MAX_CACHED_BATCHES, Member, OutEntry, UpdateGroup,
};
use crate::bgp::{
    rib::{
        attrs::{AttrsId, AttrsTable},
        paths::SlotNo,
        table::{OWN, PeerNo, Table},
    },
    wire::{
        pack::Packer,
        refresh::{self, Refresh},
    },
};

/// Octets of a message with one prefix, as a rule.
const ONE_MESSAGE: usize = 128;

impl UpdateGroup {
    /// Members with messages to send.
    pub(in crate::bgp::rib) fn behind(&self) -> impl Iterator<Item = PeerNo> + '_ {
        let end = self.end();
        let members = if self.behind { &self.members[..] } else { &[] };
        members.iter().filter(move |m| m.is_behind(end)).map(|m| m.peer)
    }

    /// The next batch for a member: complete messages and their number.
    pub(in crate::bgp::rib) fn next(
        &mut self,
        peer: PeerNo,
        table: &Table,
        attrs: &AttrsTable,
    ) -> Option<(Bytes, u32)> {
        let n = self.position(peer).ok()?;
        loop {
            if let Some(marks) = self.before_sweep(n) {
                return Some(marks);
            }
            let at = self.members[n].at;
            match at {
                At::Journal(place) if place >= self.end() => return self.after_sweep(n),
                At::Sweep { next, since } if next as usize >= self.adj_rib_out.len() => {
                    self.members[n].at = At::Journal(since);
                    if let Some(marks) = self.after_sweep(n) {
                        return Some(marks);
                    }
                }
                at => {
                    let (to, bytes, messages) = self.batch(at, peer, table, attrs);
                    self.members[n].at = to;
                    if messages > 0 {
                        return Some((bytes, messages));
                    }
                }
            }
        }
    }

    fn before_sweep(&mut self, n: usize) -> Option<(Bytes, u32)> {
        let (family, shape) = (self.view.family, self.view.shape);
        let member = &mut self.members[n];
        if !member.begin_refresh && member.withdraw.is_empty() {
            return None;
        }
        let mut out = BytesMut::new();
        let mut messages = 0;
        if std::mem::take(&mut member.begin_refresh) {
            Refresh::new(family, refresh::BEGIN).encode(&mut out);
            messages += 1;
        }
        let gone = std::mem::take(&mut member.withdraw);
        let mut packer = Packer::new(&shape, &mut out);
        if !gone.is_empty() {
            packer.withdraw(family, gone);
        }
        messages += packer.messages();
        Some((out.freeze(), messages))
    }

    fn after_sweep(&mut self, n: usize) -> Option<(Bytes, u32)> {
        let (family, shape) = (self.view.family, self.view.shape);
        let member = &mut self.members[n];
        let mut out = BytesMut::new();
        let mut messages = 0;
        if std::mem::take(&mut member.end_of_rib) {
            let mut packer = Packer::new(&shape, &mut out);
            packer.end_of_rib(family);
            messages += packer.messages();
        }
        if std::mem::take(&mut member.end_refresh) {
            Refresh::new(family, refresh::END).encode(&mut out);
            messages += 1;
        }
        (messages > 0).then(|| (out.freeze(), messages))
    }

    /// The batch at `at`, shared with other members if possible.
    fn batch(&mut self, at: At, peer: PeerNo, table: &Table, attrs: &AttrsTable) -> (At, Bytes, u32) {
        let end = self.end();
        let shared = |c: &&Batch| {
            // A batch of the table is shared only if nothing has changed since.
            let fresh = matches!(at, At::Journal(_)) || c.end == end;
            c.from == at && fresh && !c.sources.contains(&peer)
        };
        if let Some(chunk) = self.batches.iter().find(shared) {
            return (chunk.to, chunk.bytes.clone(), chunk.messages);
        }
        let (slots, to) = self.collect(at, attrs);
        let mut sources: Vec<PeerNo> = slots.iter().map(|s| self.adj_rib_out[*s as usize].source).collect();
        sources.sort_unstable();
        sources.dedup();
        sources.retain(|s| *s != OWN && self.position(*s).is_ok());
        self.add_next_hops(&mut sources, &slots, attrs);
        let (bytes, messages, too_large) = self.encode(&slots, peer, table, attrs);
        if self.too_large.is_empty()
            && let Some(slot) = too_large.first()
        {
            let prefix = self.nlri(*slot, table).prefix;
            tracing::warn!(%prefix, "route not advertised, its attributes do not fit into a message; shorten them by policy");
        }
        self.too_large.extend(too_large);
        if self.members.len() > 1 && !sources.contains(&peer) {
            self.batches.truncate(MAX_CACHED_BATCHES - 1);
            let chunk = Batch { from: at, to, end, sources, bytes: bytes.clone(), messages };
            self.batches.push_front(chunk);
        }
        (to, bytes, messages)
    }

    /// Adds the members that are next hops of these routes: they need messages of their own.
    fn add_next_hops(&self, apart: &mut Vec<PeerNo>, slots: &[SlotNo], attrs: &AttrsTable) {
        if self.view.always_own_next_hop() {
            return;
        }
        let mut hops: Vec<IpAddr> = slots
            .iter()
            .filter_map(|s| Some(attrs.get(self.adj_rib_out[*s as usize].attrs?).next_hop.addr))
            .collect();
        hops.sort_unstable();
        hops.dedup();
        let is_hop = |m: &&Member| m.addr.is_some_and(|a| hops.binary_search(&a).is_ok());
        apart.extend(self.members.iter().filter(is_hop).map(|m| m.peer));
    }

    /// The slots of the batch at `at`, and the position after it. It ends after [`MAX_BATCH_SLOTS`]
    /// slots, or [`MAX_BATCH_OCTETS`] of attributes.
    fn collect(&self, at: At, attrs: &AttrsTable) -> (Vec<SlotNo>, At) {
        let mut slots = Vec::new();
        let (mut room, mut last) = (MAX_BATCH_OCTETS, None);
        let mut take = |slots: &mut Vec<SlotNo>, slot: SlotNo, out: &OutEntry| {
            slots.push(slot);
            if let Some(id) = out.attrs.filter(|id| last != Some(*id)) {
                room = room.saturating_sub(attrs.size(id));
                last = Some(id);
            }
            room > 0
        };
        match at {
            At::Head { next, since } => {
                for (rank, slot) in self.ranked.heads(next) {
                    if slots.len() >= MAX_BATCH_SLOTS
                        || !take(&mut slots, slot, &self.adj_rib_out[slot as usize])
                    {
                        return (slots, At::Head { next: (rank, slot + 1), since });
                    }
                }
                (slots, At::Sweep { next: 0, since })
            }
            At::Sweep { next, since } => {
                let mut n = next;
                let mut more = true;
                while more
                    && let Some(out) = self.adj_rib_out.get(n as usize)
                    && slots.len() < MAX_BATCH_SLOTS
                {
                    if out.attrs.is_some() && !out.rank.is_first() {
                        more = take(&mut slots, n, out);
                    }
                    n += 1;
                }
                (slots, At::Sweep { next: n, since })
            }
            At::Journal(place) => {
                let mut place = place.max(self.base);
                let mut more = true;
                while more
                    && let Some(&slot) = self.journal.get((place - self.base) as usize)
                    && slots.len() < MAX_BATCH_SLOTS
                {
                    let out = &self.adj_rib_out[slot as usize];
                    if out.place == place as u32 {
                        more = take(&mut slots, slot, out);
                    }
                    place += 1;
                }
                (slots, At::Journal(place))
            }
        }
    }

    /// Encodes withdrawals, then advertisements in the order of their ranks, grouped by attributes.
    /// Also returns the slots whose attributes do not fit into a message.
    fn encode(
        &self,
        slots: &[SlotNo],
        peer: PeerNo,
        table: &Table,
        attrs: &AttrsTable,
    ) -> (Bytes, u32, Vec<SlotNo>) {
        let nlri = |slot: &SlotNo| self.nlri(*slot, table);
        let (mut gone, mut here) = (Vec::new(), Vec::with_capacity(slots.len()));
        let member = self.position(peer).ok().map(|n| &self.members[n]);
        let leads_back = |id: AttrsId| member.is_some_and(|m| m.is_next_hop(id, attrs));
        for &slot in slots {
            let out = self.adj_rib_out[slot as usize];
            match out.attrs {
                Some(id) if out.source != peer && leads_back(id) => gone.push(slot),
                Some(id) if out.source != peer => here.push((id, out.rank, slot)),
                // Learned from this member: a withdrawal is needed only if another neighbor's path
                // was advertised to it before.
                _ if out.source != peer || out.source_changed() => gone.push(slot),
                _ => {}
            }
        }
        if gone.is_empty() && here.is_empty() {
            return (Bytes::new(), 0, Vec::new());
        }
        here.sort_unstable();
        let mut octets = BytesMut::with_capacity(ONE_MESSAGE);
        let (family, shape) = (self.view.family, self.view.shape);
        let mut packer = Packer::new(&shape, &mut octets);
        let mut too_large = Vec::new();
        if !gone.is_empty() {
            packer.withdraw(family, gone.iter().map(nlri));
        }
        let mut runs: Vec<_> = here.chunk_by(|a, b| a.0 == b.0).collect();
        runs.sort_by_key(|run| run[0].1);
        for run in runs {
            let prefixes = run.iter().map(|(.., slot)| nlri(slot));
            if packer.advertise(attrs.get(run[0].0), family, prefixes).is_err() {
                too_large.extend(run.iter().map(|(.., slot)| *slot));
            }
        }
        if !too_large.is_empty() {
            packer.withdraw(family, too_large.iter().map(nlri));
        }
        let messages = packer.messages();
        (octets.freeze(), messages, too_large)
    }
}
