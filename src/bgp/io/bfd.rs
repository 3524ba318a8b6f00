//! One neighbor's end of BFD: what is watched, and what was reported.

use crate::{
    bgp::{
        bfd::{News, Reports, Wanted, hold, wanted},
        peer::PeerConfig,
    },
    liveness::{Client, Subscription},
    net::{BfdReport, BfdStatus, Links},
};

#[derive(Debug)]
pub(super) struct Bfd {
    client: Client,
    subscription: Option<Subscription>,
    reports: Reports,
}

impl Bfd {
    pub(super) fn new(client: Client) -> Self {
        Self { client, subscription: None, reports: Reports::default() }
    }

    /// Watches what the settings and the host's links call for. Returns whether no session may
    /// begin for now, and why.
    pub(super) fn follow(&mut self, config: &PeerConfig, links: &Links, disabled: bool) -> Option<String> {
        let former = self.subscription.as_ref().map(Subscription::path);
        match (wanted(config, links, disabled, former), &mut self.subscription) {
            (Wanted::Same(path, bfd), Some(subscription)) => {
                subscription.change(path, bfd.params.clone());
            }
            (Wanted::Same(path, bfd) | Wanted::Other(path, bfd), _) => {
                self.reports = Reports::default();
                self.subscription = Some(self.client.watch(path, bfd.params.clone()));
            }
            // The neighbor is informed that this is not a failure: by BGP first, as some neighbors
            // take it for one.
            (Wanted::Nothing, _) => (self.reports, self.subscription) = (Reports::default(), None),
        }
        hold(config, disabled, self.reports.last())
    }

    /// The next report; none ever while nothing is watched. Cancel safe.
    pub(super) async fn next(&mut self) -> BfdReport {
        match &mut self.subscription {
            Some(subscription) => subscription.next().await,
            None => std::future::pending().await,
        }
    }

    /// Takes a report. BFD that is back is followed again.
    pub(super) fn take(&mut self, report: BfdReport) -> News {
        let news = self.reports.take(report);
        if let Some(subscription) = self.subscription.as_mut().filter(|_| news.back) {
            subscription.proceed(false);
        }
        news
    }

    /// A BGP session began: where BFD is down it goes on without.
    pub(super) fn session_began(&mut self) {
        let is_down = self.reports.last().status == BfdStatus::Down;
        if let Some(subscription) = self.subscription.as_mut().filter(|_| is_down) {
            subscription.proceed(true);
        }
    }

    /// Whether a restart of the neighbor's control plane leaves its BFD running (RFC 5882 §4.3.2).
    pub(super) fn is_independent(&self) -> bool {
        self.reports.last().independent
    }

    /// For `show neighbor`; nothing where nothing is watched.
    pub(super) fn status(&self) -> Option<BfdStatus> {
        self.subscription.as_ref().map(|_| self.reports.last().status)
    }
}
