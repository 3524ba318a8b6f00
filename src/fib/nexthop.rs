//! Sets of next hops, and the kernel nexthop objects that stand for them.
//!
//! ```text
//! route ──want──► Set  (BGP gateways, interned)  ──resolved by the host──► Content
//!   └────have──► Top  (what the route leads to in the kernel)
//!                  Inline      hops written into each route, unreachable, blackhole
//!                  Single id   one nexthop object with one hop
//!                  Group id    a group of Members, each an object shared by all groups
//! ```
//!
//! A top belongs to one set at most. While its set only resolves in another way, the object is changed below its
//! routes and no route is written. When all routes of a top go at once, its object is deleted: that takes them
//! with it, 100,000 in some 15 ms (kernel.md). One whose last route went alone rests for a moment, so that a
//! route that comes and goes costs one message and not two.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use hashbrown::HashMap;

use crate::{
    fib::{
        resolve::{Hop, Resolver},
        route::{Content, Object, ObjectId, Op, SeenObject, Target},
    },
    net::{NextHops, RouteKind, Unresolved},
};

/// Ids of ours have the protocol number in their highest octet: far from where `ip nexthop` and other daemons
/// count, and never those of a second routelet with a number of its own.
const ID_BITS: u32 = 24;

/// Whether an id lies in the range that this protocol number takes its ids from.
pub fn is_ours(id: ObjectId, protocol: u8) -> bool {
    id >> ID_BITS == u32::from(protocol)
}

/// The id before the first of this protocol number's.
pub fn before_first(protocol: u8) -> ObjectId {
    ObjectId::from(protocol) << ID_BITS
}

/// Index of a set plus one; 0 is none.
pub type SetId = u32;
/// Index of a top plus one; 0 is none.
pub type TopId = u32;

/// The top of unreachable routes, always there.
pub const UNREACHABLE: TopId = 1;

/// All sets, tops and members.
#[derive(Debug)]
pub struct Objects {
    /// Whether the kernel has nexthop objects and we may use them.
    enabled: bool,
    protocol: u8,
    sets: Slab<Set>,
    by_hops: HashMap<Arc<NextHops>, SetId, foldhash::fast::RandomState>,
    /// The last answer of `intern`: neighbors come in runs.
    last: Option<(Arc<NextHops>, SetId)>,
    tops: Slab<Top>,
    by_id: BTreeMap<ObjectId, TopId>,
    members: BTreeMap<Hop, Member>,
    /// Ids that others hold.
    foreign: BTreeSet<ObjectId>,
    next_id: ObjectId,
    resolver: Resolver,
    /// Gateways that BFD has lost, with their interface where they are directly connected.
    lost: BTreeSet<(IpAddr, u32)>,
    /// Tops whose object must be written.
    dirty: Vec<TopId>,
    /// Members whose object somebody changed: to be written again below their groups.
    spoiled: BTreeSet<Hop>,
    /// How many objects were found changed by somebody else.
    pub mended: u64,
    /// Tops that may have lost their last route.
    idle: Vec<TopId>,
    /// Tops that did, and may be used again.
    resting: Vec<TopId>,
}

#[derive(Debug)]
struct Set {
    hops: Arc<NextHops>,
    wanted: u32,
    path: Result<Content, Unresolved>,
    top: TopId,
}

#[derive(Debug)]
pub struct Top {
    form: Form,
    pub content: Content,
    pub owner: SetId,
    /// Routes that lead here.
    pub refs: u32,
    /// Written, as far as we know.
    pub alive: bool,
    /// Why the kernel refused it.
    pub error: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Inline,
    Single(ObjectId),
    Group(ObjectId),
}

#[derive(Debug)]
struct Member {
    id: ObjectId,
    users: u32,
    alive: bool,
}

impl Form {
    fn id(self) -> Option<ObjectId> {
        match self {
            Self::Inline => None,
            Self::Single(id) | Self::Group(id) => Some(id),
        }
    }
}

impl Objects {
    pub fn new(enabled: bool, protocol: u8) -> Self {
        let unreachable = Top {
            form: Form::Inline,
            content: Content::Unreachable,
            owner: 0,
            refs: 0,
            alive: true,
            error: None,
        };
        let mut tops = Slab::new();
        tops.insert(unreachable);
        Self {
            enabled,
            protocol,
            sets: Slab::new(),
            by_hops: HashMap::default(),
            last: None,
            tops,
            by_id: BTreeMap::new(),
            members: BTreeMap::new(),
            foreign: BTreeSet::new(),
            next_id: u32::from(protocol) << ID_BITS,
            resolver: Resolver::default(),
            lost: BTreeSet::new(),
            dirty: Vec::new(),
            spoiled: BTreeSet::new(),
            mended: 0,
            idle: Vec::new(),
            resting: Vec::new(),
        }
    }

    /// Goes on without objects: the kernel has none. Only before anything is written.
    pub fn disable(&mut self) {
        self.enabled = false;
    }

    pub fn enabled(&self) -> bool {
        self.enabled
    }

    pub fn top(&self, id: TopId) -> Option<&Top> {
        self.tops.get(id)
    }

    fn top_mut(&mut self, id: TopId) -> Option<&mut Top> {
        self.tops.get_mut(id)
    }

    fn set(&self, id: SetId) -> Option<&Set> {
        self.sets.get(id)
    }

    fn set_mut(&mut self, id: SetId) -> Option<&mut Set> {
        self.sets.get_mut(id)
    }

    /// What is wanted of a set's routes, or why they cannot be had.
    pub fn path(&self, set: SetId) -> Result<&Content, Unresolved> {
        self.set(set).map_or(Err(Unresolved::NoRoute), |s| s.path.as_ref().map_err(|e| *e))
    }

    /// How a route to `top` is written.
    pub fn target(&self, top: TopId) -> Option<Target<'_>> {
        let top = self.top(top)?;
        Some(match (top.form.id(), &top.content) {
            (Some(id), _) => Target::Object(id),
            (None, Content::Hops(hops)) => Target::Hops(hops),
            (None, Content::Unreachable) => Target::Unreachable,
            (None, Content::Blackhole) => Target::Blackhole,
        })
    }

    /// The object of a top that many routes share; deleting it deletes them.
    pub fn object_of(&self, top: TopId) -> Option<ObjectId> {
        let id = self.top(top)?.form.id()?;
        // An object that groups use as well takes more than its own routes with it.
        (!self.members.values().any(|m| m.id == id)).then_some(id)
    }

    pub fn by_object(&self, id: ObjectId) -> Option<TopId> {
        self.by_id.get(&id).copied()
    }

    /// One more route wants these next hops.
    pub fn intern(&mut self, hops: &Arc<NextHops>) -> SetId {
        if let Some((_, id)) = self.last.as_ref().filter(|(last, _)| Arc::ptr_eq(last, hops)) {
            let id = *id;
            if let Some(set) = self.set_mut(id) {
                set.wanted += 1;
            }
            return id;
        }
        let id = self.intern_anew(hops);
        self.last = Some((hops.clone(), id));
        id
    }

    fn intern_anew(&mut self, hops: &Arc<NextHops>) -> SetId {
        if let Some(&id) = self.by_hops.get(hops) {
            if let Some(set) = self.set_mut(id) {
                set.wanted += 1;
            }
            return id;
        }
        let path = path(&self.resolver, &self.lost, hops);
        let id = self.sets.insert(Set { hops: hops.clone(), wanted: 1, path, top: 0 });
        self.by_hops.insert(hops.clone(), id);
        id
    }

    /// One route less wants this set.
    pub fn release(&mut self, id: SetId) {
        let Some(set) = self.set_mut(id) else { return };
        set.wanted -= 1;
        if set.wanted > 0 {
            return;
        }
        let hops = set.hops.clone();
        self.by_hops.remove(&hops);
        self.sets.remove(id);
        self.last = None;
        for top in self.tops.ids() {
            if self.top(top).is_some_and(|t| t.owner == id) {
                self.disown(top);
            }
        }
    }

    /// Whether a route that leads to `top` is right for `set`. A top found at the start, that belongs to nobody
    /// yet, becomes the set's if it leads to the same hops.
    pub fn right(&mut self, top: TopId, set: SetId) -> bool {
        match self.top(top) {
            Some(t) if t.owner == set && set != 0 => true,
            // One of the form that another configuration had is written anew.
            Some(t) if t.owner == 0 && t.alive && self.is_in_form(t) && Ok(&t.content) == self.path(set) => {
                if let Some(t) = self.top_mut(top).filter(|_| top != UNREACHABLE) {
                    t.owner = set;
                }
                if let Some(s) = self.set_mut(set).filter(|s| s.top == 0) {
                    s.top = top;
                }
                true
            }
            _ => false,
        }
    }

    /// Whether next hops are in an object where we use objects, and in the route where we do not.
    fn is_in_form(&self, top: &Top) -> bool {
        !matches!(top.content, Content::Hops(_)) || (top.form != Form::Inline) == self.enabled
    }

    /// The top for new routes of a resolved set, made where there is none.
    pub fn ensure(&mut self, id: SetId) -> Option<TopId> {
        let set = self.set(id)?;
        let content = set.path.clone().ok()?;
        if self.top(set.top).is_some() {
            return Some(set.top);
        }
        let several = set.hops.gateways().len() > 1;
        let group = several || matches!(&content, Content::Hops(hops) if hops.len() > 1);
        let top = match self.rested(&content, group) {
            Some(top) => top,
            None => self.make(content, group),
        };
        self.top_mut(top)?.owner = id;
        self.set_mut(id)?.top = top;
        Some(top)
    }

    /// A resting top that leads there, of the form that a new one would have.
    fn rested(&self, content: &Content, group: bool) -> Option<TopId> {
        let same = |t: &Top| {
            t.owner == 0 && t.alive && t.content == *content && matches!(t.form, Form::Group(_)) == group
        };
        self.resting.iter().copied().find(|id| self.top(*id).is_some_and(same))
    }

    fn make(&mut self, content: Content, group: bool) -> TopId {
        let form = match &content {
            Content::Hops(_) if self.enabled && group => Form::Group(self.fresh_id()),
            Content::Hops(_) if self.enabled => Form::Single(self.fresh_id()),
            _ => Form::Inline,
        };
        let alive = form == Form::Inline;
        let top = self.tops.insert(Top { form, content, owner: 0, refs: 0, alive, error: None });
        if let Some(object) = form.id() {
            self.by_id.insert(object, top);
            self.dirty.push(top);
        }
        top
    }

    fn fresh_id(&mut self) -> ObjectId {
        loop {
            let id = self.next_id;
            self.next_id = self.id_after(id);
            let taken = self.by_id.contains_key(&id)
                || self.foreign.contains(&id)
                || self.members.values().any(|m| m.id == id);
            if !taken {
                return id;
            }
        }
    }

    /// The next of our range, which begins anew after its last.
    fn id_after(&self, id: ObjectId) -> ObjectId {
        id.checked_add(1)
            .filter(|next| is_ours(*next, self.protocol))
            .unwrap_or(u32::from(self.protocol) << ID_BITS)
    }

    /// One more route leads to `top`.
    pub fn hold(&mut self, top: TopId) {
        if let Some(t) = self.top_mut(top) {
            t.refs += 1;
        }
    }

    /// `count` routes less lead to `top`.
    pub fn drop_refs(&mut self, top: TopId, count: u32) {
        if let Some(t) = self.top_mut(top) {
            t.refs = t.refs.saturating_sub(count);
            if t.refs == 0 {
                self.idle.push(top);
            }
        }
    }

    /// Gives `top` with all its routes to another set, if its object can be changed to that.
    pub fn retarget(&mut self, top: TopId, set: SetId) -> bool {
        let Ok(content) = self.path(set).cloned() else { return false };
        let Some(t) = self.top(top).filter(|t| t.alive && fits(t.form, &content)) else { return false };
        let old = t.owner;
        if let Some(s) = self.set_mut(old).filter(|s| s.top == top) {
            s.top = 0;
        }
        if let Some(s) = self.set_mut(set).filter(|s| s.top == 0) {
            s.top = top;
        }
        self.rewrite(top, content);
        if let Some(t) = self.top_mut(top) {
            t.owner = set;
        }
        true
    }

    fn rewrite(&mut self, top: TopId, content: Content) {
        // Of a group that is not there the members are not counted: `writes` does when it makes it.
        if let Some(t) = self.top(top).filter(|t| t.alive && matches!(t.form, Form::Group(_))) {
            let old = t.content.clone();
            self.use_members(&content, 1);
            self.use_members(&old, -1);
        }
        if let Some(t) = self.top_mut(top) {
            t.content = content;
            t.error = None;
        }
        self.dirty.push(top);
    }

    fn use_members(&mut self, content: &Content, by: i32) {
        let Content::Hops(hops) = content else { return };
        for hop in hops {
            if let Some(m) = self.members.get_mut(hop) {
                m.users = m.users.saturating_add_signed(by);
            } else if by > 0 {
                let id = self.fresh_id();
                self.members.insert(*hop, Member { id, users: 1, alive: false });
            }
        }
    }

    /// The object changes that are due, in an order that the kernel can follow.
    pub fn writes(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        for hop in std::mem::take(&mut self.spoiled) {
            let Some(member) = self.members.get(&hop).filter(|m| m.alive) else { continue };
            ops.push(Op::SetObject { id: member.id, object: Object::Hop(hop), replace: true });
        }
        for id in std::mem::take(&mut self.dirty) {
            let Some(top) = self.top(id) else { continue };
            let (form, content, replace) = (top.form, top.content.clone(), top.alive);
            let Content::Hops(hops) = &content else { continue };
            match form {
                Form::Inline => continue,
                Form::Single(id) => {
                    let Some(&hop) = hops.first() else { continue };
                    ops.push(Op::SetObject { id, object: Object::Hop(hop), replace });
                }
                Form::Group(id) => {
                    if !replace {
                        self.use_members(&content, 1);
                    }
                    let members = self.group(hops, &mut ops);
                    ops.push(Op::SetObject { id, object: Object::Group(members), replace });
                }
            }
            if let Some(top) = self.top_mut(id) {
                top.alive = true;
                top.error = None;
            }
        }
        ops
    }

    fn group(&mut self, hops: &[Hop], ops: &mut Vec<Op>) -> Vec<ObjectId> {
        let mut ids = Vec::new();
        for hop in hops {
            let Some(member) = self.members.get_mut(hop) else { continue };
            if !member.alive {
                ops.push(Op::SetObject { id: member.id, object: Object::Hop(*hop), replace: false });
                member.alive = true;
            }
            ids.push(member.id);
        }
        ids
    }

    /// The objects that nobody uses any more and those whose routes shall go with them (`whole`). The others may
    /// rest.
    pub fn sweep(&mut self, whole: &BTreeSet<TopId>) -> Vec<Op> {
        let mut ops = Vec::new();
        for id in std::mem::take(&mut self.idle) {
            // One that the kernel refused is kept with the reason as long as somebody wants it.
            let keep = |t: &Top| t.refs > 0 || t.owner != 0 && t.error.is_some();
            if id == UNREACHABLE || self.top(id).is_none_or(keep) {
                continue;
            }
            let may_rest = self.top(id).is_some_and(|t| t.alive && t.form != Form::Inline);
            if may_rest && !whole.contains(&id) {
                self.rest(id);
                continue;
            }
            let object = self.object_of(id);
            let alive = self.top(id).is_some_and(|t| t.alive);
            self.forget(id);
            ops.extend(object.filter(|_| alive).map(|id| Op::DelObject { id }));
        }
        self.members.retain(|_, m| {
            if m.users == 0 && m.alive && !self.by_id.contains_key(&m.id) {
                ops.push(Op::DelObject { id: m.id });
            }
            m.users > 0
        });
        ops
    }

    fn rest(&mut self, id: TopId) {
        if !self.resting.contains(&id) {
            self.resting.push(id);
        }
    }

    /// Whether objects without routes wait to be used again, or for [`Objects::retire`].
    pub fn is_resting(&self) -> bool {
        !self.resting.is_empty()
    }

    /// Ends the rest of those that no route came back to.
    pub fn retire(&mut self) -> Vec<Op> {
        let rested: BTreeSet<_> = std::mem::take(&mut self.resting).into_iter().collect();
        self.idle.extend(&rested);
        self.sweep(&rested)
    }

    /// A top that no route leads to goes; its object is the caller's.
    fn forget(&mut self, id: TopId) {
        let Some(top) = self.tops.remove(id) else { return };
        if let Some(set) = self.set_mut(top.owner).filter(|s| s.top == id) {
            set.top = 0;
        }
        if let Some(object) = top.form.id() {
            self.by_id.remove(&object);
        }
        if matches!(top.form, Form::Group(_)) && top.alive {
            self.use_members(&top.content, -1);
        }
        self.dirty.retain(|d| *d != id);
        self.resting.retain(|r| *r != id);
    }

    /// The kernel refused to make an object: its top is not there, and says why. One that it refused to
    /// *change* is left as it was: [`Objects::observe`] finds out how.
    pub fn refused(&mut self, id: ObjectId, replace: bool, taken: bool, why: &Arc<str>) {
        if let Some(top) = self.by_object(id) {
            if !replace {
                self.kill(top);
            }
            if let Some(t) = self.top_mut(top) {
                t.error = Some(why.clone());
            }
        }
        self.members.values_mut().filter(|m| m.id == id).for_each(|m| m.alive = false);
        if taken && !replace {
            self.foreign.insert(id);
            self.renumber(id);
        }
    }

    /// Somebody else holds this id: ours gets another.
    fn renumber(&mut self, id: ObjectId) {
        let fresh = self.fresh_id();
        self.members.values_mut().filter(|m| m.id == id).for_each(|m| m.id = fresh);
        let Some(top) = self.by_id.remove(&id) else { return };
        self.by_id.insert(fresh, top);
        if let Some(t) = self.top_mut(top) {
            t.form = match t.form {
                Form::Inline => Form::Inline,
                Form::Single(_) => Form::Single(fresh),
                Form::Group(_) => Form::Group(fresh),
            };
        }
    }

    fn kill(&mut self, id: TopId) {
        let Some(top) = self.top_mut(id).filter(|t| t.alive) else { return };
        top.alive = false;
        if matches!(top.form, Form::Group(_)) {
            let content = top.content.clone();
            self.use_members(&content, -1);
        }
    }

    /// Compares with what the kernel holds: it deletes objects and shrinks groups without a word (kernel.md 2), and
    /// others may change what has one of our ids. Returns the tops that were lost, with all their routes.
    pub fn observe(&mut self, seen: &BTreeMap<ObjectId, SeenObject>) -> BTreeSet<TopId> {
        for (hop, member) in &mut self.members {
            match seen.get(&member.id) {
                Some(s) if s.object() == Some(Object::Hop(*hop)) && s.protocol == self.protocol => {
                    member.alive = true;
                }
                Some(_) if member.alive => drop(self.spoiled.insert(*hop)),
                _ => member.alive = false,
            }
        }
        self.mended += self.spoiled.len() as u64;
        let by_member: HashMap<ObjectId, Hop> = self.members.iter().map(|(hop, m)| (m.id, *hop)).collect();
        let mut lost = BTreeSet::new();
        for id in self.tops.ids() {
            let Some(object) = self.top(id).filter(|t| t.alive).and_then(|t| t.form.id()) else { continue };
            let Some(seen) = seen.get(&object) else {
                self.kill(id);
                lost.insert(id);
                continue;
            };
            let hops = self.hops_of(seen, &by_member);
            let content = Content::Hops(hops.clone().unwrap_or_default().into());
            // The kernel takes members away from a group; all else is somebody's doing.
            let is_single = |t: &Top| matches!(t.form, Form::Single(_)) && t.content != content;
            if hops.is_none() || self.top(id).is_some_and(is_single) {
                self.mended += 1;
            }
            self.shrunk(id, content);
        }
        lost
    }

    /// Where an object of ours leads now; `None` where it was changed to what we never made.
    fn hops_of(&self, seen: &SeenObject, by_member: &HashMap<ObjectId, Hop>) -> Option<Vec<Hop>> {
        let mut hops = match seen.object().filter(|_| seen.protocol == self.protocol)? {
            Object::Hop(hop) => vec![hop],
            Object::Group(ids) => ids.iter().map(|i| by_member.get(i).copied()).collect::<Option<_>>()?,
        };
        hops.sort_unstable();
        Some(hops)
    }

    /// The kernel's content of a living top is another than we wrote; without hops where somebody changed it.
    fn shrunk(&mut self, id: TopId, content: Content) {
        let Some(top) = self.top(id).filter(|t| t.content != content) else { return };
        let (old, group) = (top.content.clone(), matches!(top.form, Form::Group(_)));
        if group {
            self.use_members(&content, 1);
            self.use_members(&old, -1);
        }
        if let Some(t) = self.top_mut(id) {
            t.content = content;
        }
    }

    /// Takes a new view of the host: sets resolve anew, objects follow. Tops that were lost are written again.
    /// The routes must be looked through afterwards.
    pub fn resolve(&mut self, resolver: Resolver) {
        self.resolver = resolver;
        for set in self.sets.values_mut() {
            set.path = path(&self.resolver, &self.lost, &set.hops);
        }
        self.follow();
    }

    /// These gateways are not reached: groups go on without them. Where no other is left nothing changes, as the routes
    /// have nowhere else to go before the table has decided.
    pub fn lose(&mut self, lost: &BTreeSet<(IpAddr, u32)>) {
        if self.lost != *lost {
            self.lost.clone_from(lost);
            self.resolve(self.resolver.clone());
        }
    }

    /// Brings each top to what its set resolves to.
    pub fn follow(&mut self) {
        for id in self.tops.ids() {
            let Some(top) = self.top(id).filter(|t| t.owner != 0) else { continue };
            match self.path(top.owner) {
                Ok(content) if *content == top.content && top.alive => {}
                Ok(content) if fits(top.form, content) => {
                    let content = content.clone();
                    self.rewrite(id, content);
                }
                _ => self.disown(id),
            }
        }
    }

    fn disown(&mut self, id: TopId) {
        let Some(owner) = self.top(id).map(|t| t.owner) else { return };
        if let Some(set) = self.set_mut(owner).filter(|s| s.top == id) {
            set.top = 0;
        }
        if let Some(top) = self.top_mut(id) {
            top.owner = 0;
            if top.refs == 0 {
                self.idle.push(id);
            }
        }
    }

    /// A top for a route that is already in the kernel: on an object of ours, or else with its hops inline.
    pub fn adopt(&mut self, object: ObjectId, content: Content) -> TopId {
        match (self.by_object(object), &content) {
            (Some(top), _) => return top,
            (None, Content::Unreachable) => return UNREACHABLE,
            _ => {}
        }
        let same = |t: &Top| t.form == Form::Inline && t.owner == 0 && t.content == content;
        if let Some(found) = self.tops.ids().find(|id| self.top(*id).is_some_and(same)) {
            return found;
        }
        self.tops.insert(Top { form: Form::Inline, content, owner: 0, refs: 0, alive: true, error: None })
    }

    /// Whether a route on this object (0: none), with these hops, is what a route to `top` looks like.
    pub fn looks_like(&self, top: TopId, object: ObjectId, content: &Content) -> bool {
        self.top(top).is_some_and(|t| match t.form.id() {
            Some(id) => id == object,
            None => object == 0 && t.content == *content,
        })
    }

    /// Takes over the objects of ours that the kernel holds, and keeps clear of the others' ids.
    pub fn adopt_all(&mut self, seen: &BTreeMap<ObjectId, SeenObject>, protocol: u8) {
        self.foreign = seen.values().filter(|s| s.protocol != protocol).map(|s| s.id).collect();
        let ours = || seen.values().filter(|s| s.protocol == protocol);
        let mut members = BTreeSet::new();
        for seen in ours() {
            if let Some(Object::Group(ids)) = seen.object() {
                members.extend(ids);
            }
        }
        let hop_of = |id: &ObjectId| match seen.get(id).and_then(SeenObject::object) {
            Some(Object::Hop(hop)) => Some(hop),
            _ => None,
        };
        for id in &members {
            if let Some(hop) = hop_of(id) {
                self.members.insert(hop, Member { id: *id, users: 0, alive: true });
            }
        }
        for one in ours().filter(|s| !members.contains(&s.id)) {
            let (form, mut hops) = match one.object() {
                Some(Object::Hop(hop)) => (Form::Single(one.id), vec![hop]),
                Some(Object::Group(ids)) => (Form::Group(one.id), ids.iter().filter_map(hop_of).collect()),
                None => continue,
            };
            hops.sort_unstable();
            let content = Content::Hops(hops.into());
            if matches!(form, Form::Group(_)) {
                self.use_members(&content, 1);
            }
            let top = Top { form, content, owner: 0, refs: 0, alive: true, error: None };
            let id = self.tops.insert(top);
            self.by_id.insert(one.id, id);
            self.idle.push(id);
        }
        let last = seen.keys().copied().filter(|id| is_ours(*id, self.protocol)).max();
        self.next_id = last.map_or(u32::from(self.protocol) << ID_BITS, |id| self.id_after(id));
    }

    /// Why the kernel refused the object of a set.
    pub fn error_of(&self, set: SetId) -> Option<&str> {
        self.top(self.set(set)?.top)?.error.as_deref()
    }

    /// Whether anything is left to write.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.spoiled.is_empty()
    }

    /// Tops whose object the kernel refused, to be tried again.
    pub fn retry(&mut self) -> bool {
        let failed: Vec<_> = self
            .tops
            .ids()
            .filter(|id| self.top(*id).is_some_and(|t| !t.alive && t.owner != 0 && t.error.is_some()))
            .collect();
        self.dirty.extend(&failed);
        !failed.is_empty()
    }
}

/// What the next hops lead to on this host: those that resolve, if any does.
fn path(resolver: &Resolver, lost: &BTreeSet<(IpAddr, u32)>, hops: &NextHops) -> Result<Content, Unresolved> {
    match hops.kind() {
        RouteKind::Unreachable => return Ok(Content::Unreachable),
        RouteKind::Blackhole => return Ok(Content::Blackhole),
        RouteKind::Unicast => {}
    }
    let mut good = BTreeSet::new();
    let mut why = Unresolved::NoRoute;
    for gateway in hops.gateways() {
        match resolver.resolve(*gateway) {
            Ok(found) => good.extend(found),
            Err(e) => why = e,
        }
    }
    if good.is_empty() {
        return Err(why);
    }
    let is_lost = |hop: &Hop| {
        !lost.is_empty() && (lost.contains(&(hop.gateway, hop.ifindex)) || lost.contains(&(hop.gateway, 0)))
    };
    if good.iter().any(|hop| !is_lost(hop)) {
        good.retain(|hop| !is_lost(hop));
    }
    Ok(Content::Hops(good.into_iter().collect()))
}

/// Whether an object of this form can be changed to this content: never from one hop to a group or back.
fn fits(form: Form, content: &Content) -> bool {
    match (form, content) {
        (Form::Group(_), Content::Hops(_)) => true,
        (Form::Single(_), Content::Hops(hops)) => hops.len() == 1,
        _ => false,
    }
}

/// Values by number; a free number is used again.
#[derive(Debug)]
struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slab<T> {
    fn new() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }

    fn insert(&mut self, value: T) -> u32 {
        let index = self.free.pop().unwrap_or(self.items.len());
        match self.items.get_mut(index) {
            Some(item) => *item = Some(value),
            None => self.items.push(Some(value)),
        }
        number(index)
    }

    fn get(&self, id: u32) -> Option<&T> {
        self.items.get(index(id)?)?.as_ref()
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.items.get_mut(index(id)?)?.as_mut()
    }

    fn remove(&mut self, id: u32) -> Option<T> {
        let index = index(id)?;
        let item = self.items.get_mut(index)?.take()?;
        self.free.push(index);
        Some(item)
    }

    fn ids(&self) -> impl Iterator<Item = u32> + use<T> {
        (0..self.items.len()).map(number)
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().flatten()
    }
}

fn index(id: u32) -> Option<usize> {
    usize::try_from(id).ok()?.checked_sub(1)
}

fn number(index: usize) -> u32 {
    u32::try_from(index + 1).expect("fewer than 2^24 tops")
}
