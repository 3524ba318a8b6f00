//! The preferred source of learned routes (RTA_PREFSRC, `fib.prefer-source`).
//!
//! Without it, packets that the host itself sends carry the address of the uplink they leave by,
//! and connections break with that uplink. A preferred source is an address that stays, usually one
//! on `lo`.
//!
//! When the address is removed, the kernel deletes IPv4 routes with that source and strips it from
//! IPv6 routes. A change of the address in force therefore means that all routes of the family are
//! written again.

use std::net::IpAddr;

use crate::{
    fib::{
        diff::Fib,
        route::{Content, Op},
        table::{Mark, State},
    },
    net::{Family, PerFamily, PreferredSources, Prefix},
};

/// The sources that learned routes of one family are known to have in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum InKernel {
    /// No route was written or adopted yet.
    #[default]
    NoRoute,
    All(Option<IpAddr>),
    Mixed,
}

/// Sources that are configured, and those in the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SourceState {
    wanted: PreferredSources,
    in_kernel: PerFamily<InKernel>,
}

impl SourceState {
    /// Whether the source of a route of this prefix is unknown, so that it has to be written again.
    fn is_unsure(&self, prefix: Prefix) -> bool {
        self.in_kernel[prefix.family()] == InKernel::Mixed
    }
}

impl Fib {
    pub fn sources(&self) -> PreferredSources {
        self.source.wanted
    }

    /// Records the source of an adopted route. Called beside [`Fib::adopt_route`].
    pub fn adopt_source(&mut self, prefix: Prefix, content: &Content, source: Option<IpAddr>) {
        if !matches!(content, Content::Hops(_)) {
            return;
        }
        let known = &mut self.source.in_kernel[prefix.family()];
        *known = match *known {
            InKernel::NoRoute => InKernel::All(source),
            InKernel::All(same) if same == source => InKernel::All(source),
            InKernel::All(_) | InKernel::Mixed => InKernel::Mixed,
        };
    }

    /// Sets the sources in force. Routes with another source are written again; stale routes keep
    /// theirs until they are claimed or swept.
    pub fn prefer(&mut self, sources: PreferredSources) {
        self.source.wanted = sources;
        for family in Family::ALL {
            let wanted = sources.of(family);
            let known = self.source.in_kernel[family];
            if matches!(known, InKernel::NoRoute) || known == InKernel::All(wanted) {
                self.source.in_kernel[family] = InKernel::All(wanted);
                continue;
            }
            let there = |p: &Prefix, s: &State| p.family() == family && s.have() != 0;
            let (stale, claimed): (Vec<_>, Vec<_>) =
                self.routes.iter().filter(|(p, s)| there(p, s)).partition(|(_, s)| s.is(Mark::Stale));
            self.source.in_kernel[family] =
                if stale.is_empty() { InKernel::All(wanted) } else { InKernel::Mixed };
            claimed.into_iter().for_each(|(prefix, state)| self.write_again(prefix, state));
        }
    }

    /// Compares the source of one route of ours in a dump. Called after [`Fib::audit`].
    pub fn audit_source(&mut self, prefix: Prefix, metric: u32, content: &Content, source: Option<IpAddr>) {
        let is_learned = metric == self.settings.metric && matches!(content, Content::Hops(_));
        if !is_learned || source == self.source.wanted.of(prefix.family()) {
            return;
        }
        if let Some(state) = self.routes.get(prefix).filter(|s| s.have() != 0 && s.want != 0)
            && !state.is(Mark::Stale)
        {
            self.repairs += 1;
            self.write_again(prefix, state);
        }
    }

    /// Whether an adopted route with the desired next hops may stay as it is.
    pub(super) fn has_right_source(&self, prefix: Prefix) -> bool {
        !self.source.is_unsure(prefix)
    }

    fn write_again(&mut self, prefix: Prefix, state: State) {
        if !self.settings.install {
            return;
        }
        self.routes.slot(prefix).set(Mark::Seen, true);
        let metric = self.settings.metric;
        self.push(Op::NewRoute { prefix, metric, entry: state.have(), replace: true });
    }
}
