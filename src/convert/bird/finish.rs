//! Turns everything that was read into a router.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Lines, Names, Read,
    local::Local,
    protocol::{Bgp, Filter},
};
use crate::{
    convert::{
        ConvertError,
        ledger::{Ledger, Outcome},
        router::{Keys, Policy, Router, append, set},
    },
    net::{Asn, Family},
};

/// BIRD's default.
const HOLD_TIME: u16 = 240;

struct Finish<'a> {
    names: &'a Names,
    local: &'a Local,
    lines: Lines,
    router: Router,
    own_as: Asn,
    is_transit: bool,
    /// Names of policies by their statements.
    made: BTreeMap<String, String>,
}

pub(super) fn finish(read: Read) -> Result<(Router, Ledger), ConvertError> {
    let Read { names, lines, router_id, bgp, local } = read;
    let Some(own_as) = bgp.iter().find_map(|b| b.local_as) else {
        return Err(ConvertError::NothingToConvert(
            "there is no `protocol bgp` with `local as` and a number that routelet takes; add the file that has it".into(),
        ));
    };
    let enabled = bgp.iter().filter(|b| !b.is_disabled);
    let is_transit = enabled.clone().count() > 1 || enabled.clone().any(|b| b.range.is_some());
    let mut finish = Finish {
        names: &names,
        local: &local,
        lines,
        router: Router::default(),
        own_as,
        is_transit,
        made: BTreeMap::new(),
    };
    finish.global(router_id, &bgp);
    finish.originated();
    finish.kernel(&bgp);
    bgp.iter().for_each(|b| finish.neighbor(b));
    let Finish { lines, router, .. } = finish;
    Ok((router, lines.ledger))
}

impl Finish<'_> {
    fn global(&mut self, router_id: Option<String>, bgp: &[Bgp]) {
        let keys = &mut self.router.bgp;
        set(keys, "as", self.own_as);
        if let Some(id) = router_id {
            set(keys, "router-id", id);
        }
        if let Some(id) = bgp.iter().find_map(|b| b.cluster_id.clone()) {
            set(keys, "cluster-id", id);
        }
        set(keys, "hold-time", HOLD_TIME);
        set(keys, "max-paths", self.local.max_paths.unwrap_or(1));
    }

    fn originated(&mut self) {
        let keys = &mut self.router.advertise;
        if !self.local.networks.is_empty() {
            append(keys, "networks", self.local.networks.iter().map(ToString::to_string));
        }
        if !self.local.interfaces.is_empty() && self.local.connected.iter().any(|c| *c) {
            append(keys, "interfaces", self.local.interfaces.iter().cloned());
            if !self.local.requires_carrier {
                set(keys, "require-carrier", false);
            }
        }
    }

    fn kernel(&mut self, bgp: &[Bgp]) {
        self.router.fib = self.local.fib.clone();
        let keys = &mut self.router.fib;
        if !self.local.installed.iter().any(|i| *i) {
            set(keys, "install", false);
            self.router
                .remarks
                .push("No routes are installed: the input exports none to the kernel.".to_owned());
            return;
        }
        if !self.local.persists {
            set(keys, "on-exit", "flush");
        }
        if !self.local.sources.is_empty() {
            append(keys, "prefer-source", self.local.sources.iter().cloned());
        }
        for family in Family::ALL {
            let has = |b: &&Bgp| b.channels[family].is_some();
            if let Some(with) = bgp.iter().find(has).filter(|_| !self.local.installed[family]) {
                let what = format!(
                    "routes of {family} are installed, too: the input has no kernel protocol that does"
                );
                self.lines.differs(with.line, what);
            }
        }
    }

    fn neighbor(&mut self, bgp: &Bgp) {
        let Some(mut keys) = self.place(bgp) else { return };
        let Some(remote_as) = &bgp.remote_as else {
            self.lines.note(bgp.line, Outcome::NotCarried, "the neighbor has no AS number: left out");
            return;
        };
        set(&mut keys, "remote-as", remote_as.clone());
        if !bgp.keys.contains_key("description") && bgp.range.is_none() {
            set(&mut keys, "description", bgp.name.as_str());
        }
        let local_as = bgp.local_as.unwrap_or(self.own_as);
        let mut own = bgp.keys.clone();
        if bgp.range.is_some() {
            own.remove("description");
        }
        if local_as != self.own_as {
            set(&mut own, "local-as", local_as);
        }
        let is_internal = *remote_as == json!(local_as) || *remote_as == json!("internal");
        if bgp.has_ttl_security {
            let hops = own.remove("multihop").unwrap_or_else(|| json!(1));
            set(&mut own, "ttl-security", hops.as_u64().unwrap_or(1).min(254));
        }
        if is_internal {
            own.remove("multihop");
        }
        self.keepalive(bgp, &own);
        set(&mut own, "accept-default", true);
        if self.is_transit {
            set(&mut own, "transit", true);
            let has_self = bgp.channels.iter().flatten().any(|c| c.next_hop_self);
            if !is_internal && !has_self {
                set(&mut own, "next-hop-self", false);
            }
        }
        self.channels(bgp, is_internal, local_as, &mut own);
        self.add(bgp, keys, own);
    }

    /// Adds a neighbor, or a range with its group.
    fn add(&mut self, bgp: &Bgp, mut keys: Keys, mut own: Keys) {
        if bgp.range.is_some() {
            set(&mut keys, "group", bgp.name.as_str());
            self.router.groups.push((bgp.name.clone(), own));
            self.router.ranges.push(keys);
        } else {
            keys.append(&mut own);
            self.router.neighbors.push(keys);
        }
    }

    fn place(&mut self, bgp: &Bgp) -> Option<Keys> {
        let mut keys = Keys::new();
        if bgp.is_disabled {
            self.lines.differs(bgp.line, "the neighbor is disabled and left out");
            self.router.remarks.push(format!("Neighbor {} is disabled in the input and left out.", bgp.name));
            return None;
        }
        let left_out = if bgp.has_unknown_template {
            Some("its template is not in the input: left out; name all files")
        } else {
            bgp.has_lost_password.then_some("left out, as its password is not in the result")
        };
        if let Some(what) = left_out {
            self.lines.note(bgp.line, Outcome::NotCarried, what);
            return None;
        }
        match (&bgp.address, &bgp.range, &bgp.interface) {
            (Some(address), _, Some(interface)) if address.starts_with("fe80") && !address.contains('%') => {
                set(&mut keys, "address", format!("{address}%{interface}"));
            }
            (Some(address), ..) => set(&mut keys, "address", address.as_str()),
            (None, Some(range), Some(interface)) if range.starts_with("fe80") => {
                set(&mut keys, "interface", interface.as_str());
            }
            (None, Some(range), _) => set(&mut keys, "prefix", range.as_str()),
            (None, None, _) => {
                self.lines.note(bgp.line, Outcome::NotCarried, "the neighbor has no address: left out");
                return None;
            }
        }
        Some(keys)
    }

    fn keepalive(&mut self, bgp: &Bgp, keys: &Keys) {
        let Some((line, keepalive)) = bgp.keepalive else { return };
        let hold = keys.get("hold-time").and_then(Value::as_u64).unwrap_or(HOLD_TIME.into());
        let (outcome, what) = match keepalive.checked_mul(3) == Some(hold) {
            true => (Outcome::NotNeeded, "it is a third of the hold time"),
            false => (Outcome::Differs, "keepalives are sent each third of the hold time"),
        };
        self.lines.note(line, outcome, what);
    }

    fn channels(&mut self, bgp: &Bgp, is_internal: bool, local_as: Asn, keys: &mut Keys) {
        let active: Vec<Family> = Family::ALL.into_iter().filter(|f| bgp.channels[*f].is_some()).collect();
        if active.is_empty() {
            self.lines.differs(bgp.line, "no channel; routelet has at least one: nothing is exchanged in it");
        }
        let families = if active.is_empty() { vec![Family::Ipv4Unicast] } else { active };
        set(keys, "families", families.iter().map(|f| f.as_str()).collect::<Vec<_>>());
        let (mut import, mut export) = (Vec::new(), Vec::new());
        for family in families {
            let channel = bgp.channels[family].clone().unwrap_or_default();
            // RFC 8212: without filters external neighbors exchange nothing.
            let import_default =
                if is_internal && bgp.channels[family].is_some() { Filter::All } else { Filter::None };
            let filter = channel.import.unwrap_or(import_default);
            import.extend(self.policy(bgp, &filter, family, local_as, "import"));
            export.extend(self.own_policies(family));
            let filter = channel.export.unwrap_or(Filter::None);
            export.extend(self.policy(bgp, &filter, family, local_as, "export"));
        }
        for (key, names) in [("import", import), ("export", export)] {
            if !names.is_empty() {
                set(keys, key, names);
            }
        }
    }

    fn policy(
        &mut self,
        bgp: &Bgp,
        filter: &Filter,
        family: Family,
        local_as: Asn,
        direction: &str,
    ) -> Option<String> {
        let compiled = filter.compiled(self.names, local_as);
        let base = match filter {
            Filter::All => return None,
            Filter::None => "reject".to_owned(),
            Filter::Named { name, .. } => name.clone(),
            _ => format!("{}-{direction}", bgp.name),
        };
        let mut remark = None;
        if let Some((line, why)) = &compiled.unfit {
            self.lines.note(*line, Outcome::NotCarried, why.to_string());
            let what =
                "the filter cannot be expressed as a whole: what reaches the line that is listed is rejected";
            let applied = match filter {
                Filter::Named { line, .. } | Filter::Body { line, .. } | Filter::Where { line, .. } => *line,
                _ => bgp.line,
            };
            self.lines.differs(applied, what);
            remark =
                Some(format!("The rest of {base} cannot be expressed: what reaches its end is rejected."));
        }
        if !compiled.sources.is_empty() {
            self.lines.differs(bgp.line, "source addresses are for the kernel alone: fib.prefer-source");
        }
        if compiled.accepts_all() && compiled.unfit.is_none() {
            return None;
        }
        Some(self.named(&base, remark, compiled.statements(family), family))
    }

    /// The policies for routes of the host that come before the neighbor's filter: they make the
    /// changes of `route … { … }`, and reject subnets of the other family.
    fn own_policies(&mut self, family: Family) -> Vec<String> {
        let mut names = Vec::new();
        let of_family = self.local.changes.iter().filter(|(prefix, _)| prefix.family() == family);
        let statements: Vec<Keys> = of_family
            .map(|(prefix, changes)| {
                let mut keys = Keys::new();
                append(&mut keys, "prefixes", [prefix.to_string()]);
                append(&mut keys, "source", ["network"]);
                keys.extend(changes.clone());
                keys
            })
            .collect();
        if !statements.is_empty() {
            names.push(self.named("networks", None, statements, family));
        }
        let is_connected = self.local.connected[family];
        let has_further = self.local.has_further_interfaces(family);
        if is_connected && has_further {
            let what = format!(
                "the other family has other interfaces, which routelet does not distinguish: no connected subnet of \
                 {family} is advertised"
            );
            self.lines.differs(self.local.direct_line, what);
        }
        if self.local.connected.iter().any(|c| *c) && (!is_connected || has_further) {
            let mut keys = Keys::new();
            append(&mut keys, "families", [family.as_str()]);
            append(&mut keys, "source", ["interface"]);
            set(&mut keys, "action", "reject");
            names.push(self.named("no-interface", None, vec![keys], family));
        }
        names
    }

    /// The name of the policy with these statements, which is created unless it exists.
    fn named(&mut self, base: &str, remark: Option<String>, statements: Vec<Keys>, family: Family) -> String {
        let shape = format!("{base} {}", json!(statements));
        if let Some(name) = self.made.get(&shape) {
            return name.clone();
        }
        let short = if family == Family::Ipv4Unicast { "ipv4" } else { "ipv6" };
        let is_free = |name: &String| self.router.policies.iter().all(|p| p.name != *name);
        let numbered = (2_u32..).map(|n| format!("{base}-{n}"));
        let mut candidates = [base.to_owned(), format!("{base}-{short}")].into_iter().chain(numbered);
        let name = candidates.find(is_free).unwrap_or_else(|| base.to_owned());
        self.made.insert(shape, name.clone());
        self.router.policies.push(Policy { name: name.clone(), remark, statements });
        name
    }
}
