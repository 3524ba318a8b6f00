//! `show policy`: the policies of the configuration, and how often their statements matched.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::QueryHandler;
use crate::{
    bgp::{io::rib::ToRib, policy::Policy, rib::view::PolicyUse},
    config,
    control::{
        Response,
        policy::{Matched, PolicyView, StatementView, UsedBy},
    },
};

impl QueryHandler {
    /// All policies, or the one with this name.
    pub(super) async fn policies(&self, name: Option<String>) -> Response {
        let mut uses = self.policy_uses().await;
        let plan = self.plan.borrow().clone();
        let in_force = plan.as_ref().as_ref().ok();
        let config = in_force.map_or_else(|| self.config.borrow().clone(), |plan| plan.config.clone());
        let is_meant = |policy: &Policy| name.as_ref().is_none_or(|name| *name == policy.name);
        let meant = config.policies.values().filter(|policy| is_meant(policy));
        let list: Vec<_> =
            meant.map(|policy| view(policy, uses.remove(&policy.name).unwrap_or_default())).collect();
        match name.filter(|_| list.is_empty()) {
            Some(name) => Response::Refused(format!(
                "there is no policy {name}; `routelet show policy` lists those that exist"
            )),
            None => Response::Policies(list),
        }
    }

    async fn policy_uses(&self) -> BTreeMap<String, PolicyUse> {
        let (reply, response) = oneshot::channel();
        if self.rib.send(ToRib::Policies { reply }).await.is_err() {
            return BTreeMap::new();
        }
        response.await.unwrap_or_default()
    }
}

fn view(policy: &Policy, used: PolicyUse) -> PolicyView {
    let PolicyUse { import, export, matched_on_import, matched_on_export } = used;
    let count = |list: &[u64], n: usize| list.get(n).copied().unwrap_or(0);
    let statement = |(n, keys)| StatementView {
        keys,
        matched: Matched {
            import: count(&matched_on_import.statements, n),
            export: count(&matched_on_export.statements, n),
        },
    };
    PolicyView {
        name: policy.name.clone(),
        used_by: UsedBy { import, export },
        statements: config::statements(policy).into_iter().enumerate().map(statement).collect(),
        otherwise: Matched { import: matched_on_import.otherwise, export: matched_on_export.otherwise },
    }
}
