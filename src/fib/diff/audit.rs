//! What the kernel reports: notifications of other programs' changes, and the periodic audit that
//! finds what notifications missed.

use super::Fib;
use crate::{
    fib::{
        route::{Content, Held, OWN_METRIC, ObjectId, Target},
        table::Mark,
    },
    net::Prefix,
};

impl Fib {
    /// Takes a notification about one key of our table.
    pub fn observe(&mut self, prefix: Prefix, metric: u32, held: Held) {
        let key = (prefix, metric);
        let before = match held {
            Held::Other { protocol } => self.foreign.insert(key, protocol),
            Held::Ours { .. } | Held::Nobody => self.foreign.remove(&key),
        };
        let ours_there = match held {
            Held::Ours { object } => Some(object),
            Held::Other { .. } | Held::Nobody => None,
        };
        match metric {
            OWN_METRIC => self.observe_own(prefix, ours_there.is_some(), before.is_none()),
            m if m == self.settings.metric => self.observe_learned(prefix, ours_there, before.is_none()),
            _ => {}
        }
    }

    fn observe_own(&mut self, prefix: Prefix, there: bool, repair: bool) {
        let Some(own) = self.own.get_mut(&prefix) else { return };
        if there {
            return;
        }
        own.there = false;
        if own.wanted {
            self.repairs += u64::from(repair);
            self.put_own(prefix, repair);
        }
    }

    fn observe_learned(&mut self, prefix: Prefix, object: Option<ObjectId>, repair: bool) {
        let Some(state) = self.routes.get(prefix) else { return };
        let written = self.objects.target(state.have());
        let right = match (object, written) {
            (Some(id), Some(Target::Object(ours))) => id == ours,
            (Some(id), Some(_)) => id == 0,
            _ => false,
        };
        if right && state.have() != 0 {
            return;
        }
        self.mark_missing(prefix);
        if state.want != 0 && state.have() != 0 {
            self.repairs += 1;
        }
        self.settle(prefix, repair);
    }

    /// Starts an audit: a comparison with a dump of our routes.
    pub fn audit_begin(&mut self) {
        self.routes.change_all(|s| s.set(Mark::Seen, false));
        self.own.values_mut().for_each(|o| o.seen = false);
    }

    /// Takes one route of ours from the dump.
    pub fn audit(&mut self, prefix: Prefix, metric: u32, object: ObjectId, content: Content) {
        if metric == OWN_METRIC {
            let own = self.own.entry(prefix).or_default();
            (own.there, own.seen) = (true, true);
            return;
        }
        match self.routes.get(prefix).filter(|s| s.have() != 0 && metric == self.settings.metric) {
            // Written since the audit began: the dump may be older.
            Some(state) if state.is(Mark::Seen) => {}
            Some(state) if self.objects.looks_like(state.have(), object, &content) => {
                self.routes.slot(prefix).set(Mark::Seen, true);
            }
            Some(state) => {
                self.mark_missing(prefix);
                self.repairs += u64::from(state.want != 0);
                self.adopt_route(prefix, metric, object, content);
                self.routes.slot(prefix).set(Mark::Stale, false);
                self.sweep.stale -= 1;
                self.settle(prefix, true);
            }
            None => {
                self.adopt_route(prefix, metric, object, content);
                self.settle(prefix, true);
            }
        }
    }

    /// Ends the audit: routes that the dump lacks are installed again.
    pub fn audit_end(&mut self) {
        let missing: Vec<_> = self
            .routes
            .iter()
            .filter(|(_, s)| s.have() != 0 && !s.is(Mark::Seen))
            .map(|(p, s)| (p, s.want != 0))
            .collect();
        for (prefix, wanted) in missing {
            self.mark_missing(prefix);
            self.repairs += u64::from(wanted);
            self.settle(prefix, true);
        }
        let missing: Vec<_> = self.own.iter().filter(|(_, o)| o.there && !o.seen).map(|(p, _)| *p).collect();
        for prefix in missing {
            self.observe_own(prefix, false, true);
        }
        self.objects.release_unread();
    }
}
