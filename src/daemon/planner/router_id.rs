//! The router ID that was derived from an address, saved in the state folder.

use std::path::Path;

use crate::net::RouterId;

pub(in crate::daemon) const ROUTER_ID_FILE: &str = "router-id";

pub(super) fn read(state_dir: &Path) -> Option<RouterId> {
    String::from_utf8(crate::state::io::read(&state_dir.join(ROUTER_ID_FILE))?).ok()?.trim().parse().ok()
}

/// Saves the router ID, so that a changed DHCP lease does not reset sessions.
pub(super) fn keep(state_dir: &Path, stored: &mut Option<RouterId>, id: RouterId) {
    if *stored == Some(id) {
        return;
    }
    *stored = Some(id);
    let path = state_dir.join(ROUTER_ID_FILE);
    crate::state::io::keep(&path, format!("{id}\n").into_bytes(), 0o644);
}
