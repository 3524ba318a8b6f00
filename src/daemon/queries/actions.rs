//! Commands for one neighbor: reset, refresh, disable, enable.

use tokio::sync::oneshot;

use super::{QueryHandler, names};
use crate::{
    bgp::{
        io::{Act, ToPeers},
        peer::PeerKey,
    },
    control::{NeighborView, Response, Target},
    plan::Plan,
};

impl QueryHandler {
    pub(super) async fn act(&self, target: &Target, act: Act) -> Response {
        let neighbors = self.neighbors().await;
        if target.neighbor == "all" {
            return self.act_on_all(&neighbors, &act).await;
        }
        let Ok(key) = target.neighbor.parse::<PeerKey>();
        let PeerKey::Interface(name) = &key else { return self.act_on(key, act).await };
        let is_sought = self.plan.borrow().as_ref().as_ref().is_ok_and(|p| p.seeks_on(name));
        if is_sought || neighbors.iter().any(|v| v.interface.as_ref() == Some(name)) {
            return self.act_on_interface(name, &act).await;
        }
        match names::resolve(name, &neighbors) {
            Ok(view) => {
                let Ok(key) = view.address.parse();
                self.act_on(key, act).await
            }
            Err(error) => Response::Refused(error.to_string()),
        }
    }

    /// Acts on all present neighbors. Disabling also applies to unnumbered neighbors that are found
    /// later; enabling applies to all that were disabled. Refusals are reported at the end.
    async fn act_on_all(&self, neighbors: &[NeighborView], act: &Act) -> Response {
        let sought = self.plan.borrow().as_ref().as_ref().map(Plan::sought_on).unwrap_or_default();
        if neighbors.is_empty() && sought.is_empty() {
            return Response::Refused("there are no neighbors".into());
        }
        match act {
            Act::Disable { .. } => {
                self.disabled.send_modify(|d| d.extend(sought.into_iter().map(PeerKey::Interface)));
            }
            Act::Enable => self.disabled.send_modify(|d| d.retain(|k| !matches!(k, PeerKey::Interface(_)))),
            Act::Reset { .. } | Act::Refresh => {}
        }
        let mut refused = None;
        for view in neighbors {
            let Ok(key) = view.address.parse::<PeerKey>();
            // No neighbor was found on this interface, so there is no session.
            if matches!(key, PeerKey::Interface(_)) {
                continue;
            }
            let response = self.act_on(key, act.clone()).await;
            if !matches!(response, Response::Done(_)) {
                refused.get_or_insert(response);
            }
        }
        refused.unwrap_or(Response::Done(None))
    }

    /// Acts on all unnumbered neighbors of an interface. Disabling also applies to neighbors found
    /// later.
    async fn act_on_interface(&self, name: &str, act: &Act) -> Response {
        let found = self.sessions().await.into_iter().filter(|v| v.interface.as_deref() == Some(name));
        let keys: Vec<PeerKey> = found.filter_map(|v| v.address.parse().ok()).collect();
        let is_sought = self.plan.borrow().as_ref().as_ref().is_ok_and(|p| p.seeks_on(name));
        if keys.is_empty() && !is_sought {
            return Response::Refused(names::NameError::unknown(name).to_string());
        }
        let whole = PeerKey::Interface(name.to_owned());
        match act {
            Act::Disable { .. } if is_sought => self.disabled.send_modify(|d| {
                d.insert(whole);
            }),
            Act::Enable => self.disabled.send_modify(|d| {
                d.remove(&whole);
            }),
            _ if keys.is_empty() => {
                return Response::Refused(format!(
                    "no neighbor was found on {name} yet; `routelet show neighbor {name}` shows why"
                ));
            }
            _ => {}
        }
        for key in keys {
            match self.act_on(key, act.clone()).await {
                Response::Done(_) => {}
                other => return other,
            }
        }
        Response::Done(None)
    }

    async fn act_on(&self, key: PeerKey, act: Act) -> Response {
        let (reply, response) = oneshot::channel();
        let request = ToPeers::Act { neighbor: key.clone(), act: act.clone(), reply };
        if self.peers.send(request).await.is_err() {
            return Response::Refused("the daemon is stopping".into());
        }
        match response.await {
            Ok(Ok(())) => {
                // Recorded for the plan too, so that a new plan does not start the session again.
                match act {
                    Act::Disable { .. } => self.disabled.send_modify(|d| {
                        d.insert(key);
                    }),
                    Act::Enable => self.disabled.send_modify(|d| {
                        d.remove(&key);
                    }),
                    Act::Reset { .. } | Act::Refresh => {}
                }
                Response::Done(None)
            }
            Ok(Err(unknown)) => Response::Refused(unknown.to_string()),
            Err(_) => Response::Refused("the daemon is stopping".into()),
        }
    }
}
