//! What follows from a decided route for the groups of neighbors.

use super::{
    Rib,
    groups::{Group, PathOut},
    settle::Memo,
    table::{OWN, RouteNo},
};
use crate::net::Family;

impl Rib {
    /// Tells a group the new word on a route: the best path, or all of them where they were asked for.
    pub(super) fn tell(&mut self, group: &mut Group, family: Family, route: RouteNo, memo: &mut Memo) {
        let f = family.index();
        if group.takes_paths() {
            let paths = self.export_all(group, family, route, memo);
            group.set_paths(route, paths, &mut self.tables[f], &mut self.attrs, &mut self.path_ids[f]);
        } else {
            let best = self.tables[f].get(route).best().copied();
            let out =
                best.and_then(|path| Some((self.export(group, family, route, &path, memo)?, path.peer)));
            group.set(route, out, &mut self.tables[f], &mut self.attrs);
        }
    }

    /// Every path that may be used and that the group may hear (RFC 7911 §3): the rules of export hold for each.
    fn export_all(&mut self, group: &Group, family: Family, route: RouteNo, memo: &mut Memo) -> Vec<PathOut> {
        let f = family.index();
        let mut all = Vec::new();
        for n in 0..self.tables[f].get(route).paths().len() {
            let path = self.tables[f].get(route).paths()[n];
            if !path.is_usable() || !(path.peer == OWN || self.is_reached(path.effective)) {
                continue;
            }
            if let Some(attrs) = self.export(group, family, route, &path, memo) {
                let path_id = self.path_ids[f].acquire((path.peer, path.path_id));
                all.push(PathOut { path_id, attrs, source: path.peer });
            }
        }
        all
    }
}
