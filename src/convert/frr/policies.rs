//! Turns route maps and lists into policies.
//!
//! A route map rejects routes that no entry permits, whereas a policy accepts routes that no
//! statement matches. Therefore each policy ends with a statement that rejects. If an entry has no
//! exact counterpart, the policy rejects from there on: routes may be missing then, but none is
//! accepted or advertised that the route map would have rejected.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    lists::Lists,
    route_map::{Change, Condition, Entry, Maps},
    unfit::Unfit,
};
use crate::{
    bgp::policy::{Community, PrefixRange},
    convert::{
        ledger::{Ledger, LineId},
        ranges,
        router::{HIDDEN, Keys, Policy, append, hides_own_routes, set, without_changes},
    },
    net::{Asn, Family},
};

/// Maximum number of times that a policy can prepend the own AS number.
pub(super) const MAX_PREPEND: usize = 50;

/// Where a route map is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// The routes to which a policy applies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scope {
    pub(super) family: Family,
    pub(super) direction: Direction,
    /// Only own routes of this source.
    pub(super) source: Option<&'static str>,
    /// Only these prefixes.
    pub(super) prefixes: Option<Vec<PrefixRange>>,
    /// Whether routes of neighbors pass this policy as well.
    pub(super) has_learned: bool,
}

/// The policies that were made, without duplicates.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    pub(super) lists: &'a Lists,
    pub(super) maps: &'a Maps,
    pub(super) own_as: Asn,
    made: Vec<Policy>,
    names: BTreeMap<String, String>,
    /// Communities that own routes get before the route maps of neighbors.
    own_communities: Vec<String>,
}

/// The conditions of a statement.
struct Required {
    /// `None`: any prefix.
    prefixes: Option<Vec<PrefixRange>>,
    /// All other conditions.
    keys: Keys,
}

/// The kind of a list of prefixes on the router.
#[derive(Clone, Copy, Debug)]
pub(super) enum ListKind {
    Prefix,
    Access,
}

impl Scope {
    pub(super) fn all(family: Family, direction: Direction, has_learned: bool) -> Self {
        Self { family, direction, source: None, prefixes: None, has_learned }
    }

    /// A statement that matches all routes of the scope.
    fn statement(&self) -> Keys {
        self.narrowed(None)
    }

    fn narrowed(&self, prefixes: Option<&[PrefixRange]>) -> Keys {
        let mut keys = Keys::new();
        match prefixes.or(self.prefixes.as_deref()) {
            Some(ranges) => append(&mut keys, "prefixes", ranges.iter().map(ToString::to_string)),
            None => append(&mut keys, "families", [self.family.as_str()]),
        }
        if let Some(source) = self.source {
            append(&mut keys, "source", [source]);
        }
        keys
    }

    fn reject(&self) -> Keys {
        let mut keys = self.statement();
        set(&mut keys, "action", "reject");
        keys
    }

    fn is_own_only(&self) -> bool {
        self.source.is_some() || self.direction == Direction::Out && !self.has_learned
    }
}

impl Required {
    /// Restricts the prefixes. Returns whether any is left.
    fn be_within(&mut self, listed: Vec<PrefixRange>) -> Result<bool, Unfit> {
        let both = match &self.prefixes {
            None => listed,
            Some(others) => ranges::common(others, &listed).ok_or(Unfit::TooManyRanges)?,
        };
        let is_left = !both.is_empty();
        self.prefixes = Some(both);
        Ok(is_left)
    }

    /// Requires one of the communities. Returns whether there are any.
    fn have_one_of(&mut self, communities: &[Community]) -> Result<bool, Unfit> {
        if communities.is_empty() {
            return Ok(false);
        }
        if self.keys.contains_key("communities") {
            return Err(Unfit::TwoCommunityLists);
        }
        append(&mut self.keys, "communities", communities.iter().map(ToString::to_string));
        Ok(true)
    }
}

impl<'a> Policies<'a> {
    pub(super) fn new(lists: &'a Lists, maps: &'a Maps, own_as: Asn) -> Self {
        Self { lists, maps, own_as, made: Vec::new(), names: BTreeMap::new(), own_communities: Vec::new() }
    }

    pub(super) fn into_made(self) -> Vec<Policy> {
        self.made
    }

    /// The policy of a route map, by name.
    pub(super) fn route_map(&mut self, name: &str, at: LineId, scope: &Scope, ledger: &mut Ledger) -> String {
        let maps = self.maps;
        let Some(entries) = maps.get(name) else {
            ledger.differs(at, format!("route-map {name} is not in the input: all is rejected"));
            return self.reject_all(scope);
        };
        let mut statements = Vec::new();
        let mut is_cut = false;
        for entry in entries {
            match self.statements(entry, scope, ledger) {
                Ok(mut more) => statements.append(&mut more),
                Err((line, why)) => {
                    ledger.not_carried(line, why.to_string());
                    let what = "this entry cannot be expressed: the policy rejects what reaches it";
                    ledger.differs(entry.at, what);
                    is_cut = true;
                    break;
                }
            }
        }
        let remark = is_cut.then(|| {
            format!("The rest of route-map {name} cannot be expressed: what reaches its end is rejected.")
        });
        statements.push(scope.reject());
        self.policy(name, remark, statements, scope)
    }

    /// The policy of a list of prefixes.
    pub(super) fn prefix_filter(
        &mut self,
        kind: ListKind,
        name: &str,
        at: LineId,
        scope: &Scope,
        ledger: &mut Ledger,
    ) -> String {
        let (exists, permitted, base) = match kind {
            ListKind::Prefix => (
                self.lists.has_prefix_list(scope.family, name),
                self.lists.prefixes(scope.family, name),
                format!("prefixes-{name}"),
            ),
            ListKind::Access => (
                self.lists.has_access_list(scope.family, name),
                self.lists.access(scope.family, name),
                format!("access-{name}"),
            ),
        };
        let mut statements = Vec::new();
        let mut remark = None;
        match permitted {
            Ok(ranges) if !ranges.is_empty() => {
                let mut keys = scope.narrowed(Some(&ranges));
                set(&mut keys, "action", "accept");
                statements.push(keys);
            }
            Ok(_) if exists => {}
            Ok(_) => ledger.differs(at, format!("list {name} is not in the input: all is rejected")),
            Err(why) => {
                ledger.differs(at, format!("{why}: all is rejected"));
                remark = Some(format!("{why}: all is rejected."));
            }
        }
        statements.push(scope.reject());
        self.policy(&base, remark, statements, scope)
    }

    /// The policy of a list of AS paths.
    pub(super) fn path_filter(
        &mut self,
        name: &str,
        at: LineId,
        scope: &Scope,
        ledger: &mut Ledger,
    ) -> String {
        let mut statements = Vec::new();
        let mut remark = None;
        match self.lists.path_entries(name) {
            Ok(entries) => {
                if entries.is_empty() {
                    ledger.differs(at, format!("list {name} is not in the input: all is rejected"));
                }
                for (permit, pattern) in entries {
                    let mut keys = scope.statement();
                    set(&mut keys, "as-path", pattern);
                    set(&mut keys, "action", if permit { "accept" } else { "reject" });
                    statements.push(keys);
                }
            }
            Err(why) => {
                ledger.differs(at, format!("{why}: all is rejected"));
                remark = Some(format!("{why}: all is rejected."));
            }
        }
        statements.push(scope.reject());
        self.policy(&format!("as-paths-{name}"), remark, statements, scope)
    }

    /// A policy that sets the MED of the scope.
    pub(super) fn metric(&mut self, metric: u32, scope: &Scope) -> String {
        let mut keys = scope.statement();
        set(&mut keys, "set-med", metric);
        self.policy(&format!("med-{metric}"), None, vec![keys], scope)
    }

    /// A policy that rejects the scope.
    pub(super) fn reject_all(&mut self, scope: &Scope) -> String {
        let base = match scope.source {
            Some(source) => format!("no-{source}"),
            None => "reject".to_owned(),
        };
        self.policy(&base, None, vec![scope.reject()], scope)
    }

    /// The same with a given name.
    pub(super) fn named_reject(&mut self, name: &str, scope: &Scope) -> String {
        self.policy(name, None, vec![scope.reject()], scope)
    }

    /// The name of the policy with these statements, which is created unless it exists.
    fn policy(
        &mut self,
        base: &str,
        remark: Option<String>,
        mut statements: Vec<Keys>,
        scope: &Scope,
    ) -> String {
        // Statements after one that ends the policy for every route are never reached.
        let everything = scope.statement();
        let ends = |keys: &Keys| {
            let conditions = |k: &&String| !k.starts_with("set-") && !k.starts_with("add-") && *k != "action";
            let of = keys.keys().filter(conditions).count();
            keys.contains_key("action")
                && of == everything.len()
                && everything.iter().all(|(k, v)| keys.get(k) == Some(v))
        };
        if let Some(last) = statements.iter().position(ends) {
            statements.truncate(last + 1);
        }
        let shape = format!(
            "{base} {}",
            Value::from(statements.iter().cloned().map(Value::Object).collect::<Vec<_>>())
        );
        if let Some(name) = self.names.get(&shape) {
            return name.clone();
        }
        let name = self.free_name(base, scope);
        self.names.insert(shape, name.clone());
        self.made.push(Policy { name: name.clone(), remark, statements });
        name
    }

    fn free_name(&self, base: &str, scope: &Scope) -> String {
        let is_free = |name: &String| self.made.iter().all(|p| p.name != *name);
        let family = if scope.family == Family::Ipv4Unicast { "ipv4" } else { "ipv6" };
        let candidates = [base.to_owned(), format!("{base}-{family}")];
        let numbered = (2_u32..).map(|n| format!("{base}-{n}"));
        candidates.into_iter().chain(numbered).find(is_free).unwrap_or_else(|| base.to_owned())
    }

    /// The statements of one entry: none if it matches no route of the scope.
    fn statements(
        &mut self,
        entry: &Entry,
        scope: &Scope,
        ledger: &mut Ledger,
    ) -> Result<Vec<Keys>, (LineId, Unfit)> {
        if let Some(unfit) = &entry.unfit {
            return Err(unfit.clone());
        }
        if let Some(missing) = self.missing(entry).filter(|_| !entry.permit) {
            return Err(missing);
        }
        let Some(mut keys) = self.conditions(entry, scope)? else { return Ok(Vec::new()) };
        if !entry.permit {
            set(&mut keys, "action", "reject");
            return Ok(vec![keys]);
        }
        let mut statements = Vec::new();
        for (at, change) in &entry.changes {
            if let Change::Communities { list, additive: false } = change {
                statements.extend(self.replace_communities(&mut keys, *at, list, scope, ledger)?);
            } else {
                self.change(&mut keys, change, scope).map_err(|why| (*at, why))?;
            }
        }
        if scope.source.is_some() && hides_own_routes(&keys) {
            ledger.differs(entry.at, HIDDEN);
            without_changes(&mut keys);
            set(&mut keys, "action", "reject");
            return Ok(vec![keys]);
        }
        if scope.source.is_some()
            && let Some(added) = keys.get("add-communities").and_then(Value::as_array)
        {
            self.own_communities.extend(added.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        set(&mut keys, "action", "accept");
        statements.dedup();
        statements.push(keys);
        Ok(statements)
    }

    /// Adds communities that replace others. Own routes only have those of `own_communities`; the
    /// returned statement rejects routes that may have other ones.
    fn replace_communities(
        &self,
        keys: &mut Keys,
        at: LineId,
        list: &[Community],
        scope: &Scope,
        ledger: &mut Ledger,
    ) -> Result<Option<Keys>, (LineId, Unfit)> {
        if scope.direction == Direction::In {
            return Err((at, Unfit::Replaced));
        }
        let rejected = (!scope.is_own_only()).then(|| {
            let mut learned = keys.clone();
            append(&mut learned, "source", ["bgp"]);
            set(&mut learned, "action", "reject");
            ledger.differs(
                at,
                "communities are added, not replaced: routes learned from others are rejected here; write `additive`",
            );
            learned
        });
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        let is_replaced = |c: &&String| scope.source.is_none() && !list.contains(c);
        let replaced: Vec<String> = self.own_communities.iter().filter(is_replaced).cloned().collect();
        if !replaced.is_empty() {
            append(keys, "remove-communities", replaced);
        }
        append(keys, "add-communities", list);
        Ok(rejected)
    }

    /// A list of the entry that is not in the input: it is unknown which routes the entry rejects.
    fn missing(&self, entry: &Entry) -> Option<(LineId, Unfit)> {
        let lists = self.lists;
        entry.conditions.iter().find_map(|(at, condition)| {
            let (is_there, name) = match condition {
                Condition::PrefixList(family, name) => (lists.has_prefix_list(*family, name), name),
                Condition::AccessList(family, name) => (lists.has_access_list(*family, name), name),
                Condition::AsPath(name) => (lists.has_path(name), name),
                Condition::Community { list, large } => (lists.has_community(list, *large), list),
                Condition::NextHop(_) | Condition::Peer(_) | Condition::Interface(_) => return None,
            };
            (!is_there).then(|| (*at, Unfit::Missing(name.clone())))
        })
    }

    /// The conditions of an entry; `None` if no route of the scope can meet them.
    fn conditions(&self, entry: &Entry, scope: &Scope) -> Result<Option<Keys>, (LineId, Unfit)> {
        let mut required = Required { prefixes: scope.prefixes.clone(), keys: Keys::new() };
        for (at, condition) in &entry.conditions {
            if !self.require(&mut required, condition, scope).map_err(|why| (*at, why))? {
                return Ok(None);
            }
        }
        let mut all = scope.narrowed(required.prefixes.as_deref());
        all.append(&mut required.keys);
        Ok(Some(all))
    }

    /// Adds a condition. Returns whether a route can meet it.
    fn require(&self, required: &mut Required, condition: &Condition, scope: &Scope) -> Result<bool, Unfit> {
        match condition {
            Condition::PrefixList(family, _) | Condition::AccessList(family, _)
                if *family != scope.family =>
            {
                Ok(false)
            }
            Condition::PrefixList(family, name) => required.be_within(self.lists.prefixes(*family, name)?),
            Condition::AccessList(family, name) => required.be_within(self.lists.access(*family, name)?),
            Condition::AsPath(name) => {
                let pattern = self.lists.path(name)?;
                let can_match = pattern.is_some();
                if let Some(pattern) = pattern {
                    set(&mut required.keys, "as-path", pattern);
                }
                Ok(can_match)
            }
            Condition::Community { list, large } => {
                required.have_one_of(&self.lists.community(list, *large)?)
            }
            Condition::NextHop(_) if required.keys.contains_key("next-hop") => Err(Unfit::TwoNextHops),
            Condition::NextHop(addr) => {
                append(&mut required.keys, "next-hop", [addr.to_string()]);
                Ok(true)
            }
            Condition::Peer(addr) if scope.direction == Direction::In => {
                append(&mut required.keys, "neighbors", [addr.to_string()]);
                Ok(true)
            }
            Condition::Peer(_) => Err(Unfit::PeerOnExport),
            Condition::Interface(_) => Err(Unfit::Interface),
        }
    }

    fn change(&self, keys: &mut Keys, change: &Change, scope: &Scope) -> Result<(), Unfit> {
        match change {
            Change::LocalPref(n) => set(keys, "set-local-pref", *n),
            Change::Med(n) => set(keys, "set-med", *n),
            Change::Communities { list, .. } => {
                append(keys, "add-communities", list.iter().map(ToString::to_string));
            }
            Change::DeleteCommunities { list, large } => {
                let list = self.lists.community(list, *large)?;
                if !list.is_empty() {
                    append(keys, "remove-communities", list.iter().map(ToString::to_string));
                }
            }
            Change::Prepend(numbers) => {
                if numbers.iter().any(|n| *n != self.own_as) || numbers.len() > MAX_PREPEND {
                    return Err(Unfit::Prepend(self.own_as));
                }
                set(keys, "prepend-as", numbers.len());
            }
            // It has no effect in the other family.
            Change::NextHop(family, addr) if *family == scope.family => {
                set(keys, "set-next-hop", addr.to_string());
            }
            Change::NextHop(..) => {}
            Change::Source(_) => return Err(Unfit::Source),
        }
        Ok(())
    }
}
