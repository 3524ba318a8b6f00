//! `[[policy.NAME]]`.

use std::{collections::BTreeMap, sync::Arc};

use super::{keys::StatementKeys, read::Section};
use crate::bgp::policy::{Action, Policy, Set, Statement};

/// All policies by name.
pub(super) fn read(section: &Section<'_>) -> BTreeMap<String, Arc<Policy>> {
    section
        .entries()
        .map(|(name, item)| {
            let statements = item.tables().into_iter().map(statement).collect();
            (name.to_owned(), Arc::new(Policy::new(name, statements)))
        })
        .collect()
}

fn statement(section: Section<'_>) -> Statement {
    let mut keys = StatementKeys::default();
    keys.read(&section);
    let statement = Statement::from(keys);
    if statement.action == Some(Action::Reject) && statement.set != Set::default() {
        section.error("action", "a rejected route is not changed; remove the set keys, or accept it");
    }
    if section.get("action").is_none() && !SETS.iter().any(|key| section.get(key).is_some()) {
        section.error("", "does nothing: write `action`, or one of the set keys");
    }
    section.close();
    statement
}

/// The keys that change a route.
const SETS: [&str; 6] =
    ["set-local-pref", "set-med", "add-communities", "remove-communities", "prepend-as", "set-next-hop"];
