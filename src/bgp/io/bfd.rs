//! One neighbor's end of BFD: what is watched, and what was reported.

use crate::{
    bgp::{bfd, peer::PeerConfig},
    liveness::{Client, Subscription},
    net::{BfdReport, BfdStatus, Links, bfd_diagnostic},
};

#[derive(Debug)]
pub(super) struct Bfd {
    client: Client,
    subscription: Option<Subscription>,
    report: BfdReport,
    /// No report has come yet: a session that others watch, too, may have been lost before.
    fresh: bool,
}

impl Bfd {
    pub(super) fn new(client: Client) -> Self {
        Self { client, subscription: None, report: BfdReport::default(), fresh: true }
    }

    /// Watches what the settings and the host's links call for; nothing while the neighbor is
    /// disabled. Returns whether no session may begin for now, and why.
    pub(super) fn follow(&mut self, config: &PeerConfig, links: &Links, disabled: bool) -> Option<String> {
        let wanted = config.bfd.as_ref().filter(|_| !disabled);
        let former = self.subscription.as_ref().map(Subscription::path);
        let path = wanted.and_then(|_| bfd::path(config, links, former));
        match (wanted, path, &mut self.subscription) {
            (Some(bfd), Some(path), Some(subscription)) if subscription.path() == path => {
                subscription.change(path, bfd.params.clone());
            }
            (Some(bfd), Some(path), _) => {
                (self.report, self.fresh) = (BfdReport::default(), true);
                self.subscription = Some(self.client.watch(path, bfd.params.clone()));
            }
            _ => self.stop(),
        }
        self.hold(config, disabled)
    }

    /// The neighbor is informed that this is no failure: by BGP first, as some take it for one.
    fn stop(&mut self) {
        self.report = BfdReport::default();
        self.subscription = None;
    }

    fn hold(&self, config: &PeerConfig, disabled: bool) -> Option<String> {
        config.bfd.as_ref().filter(|_| !disabled).and_then(|_| bfd::hold(config, self.report))
    }

    /// The next report; none ever while nothing is watched. Cancel safe.
    pub(super) async fn next(&mut self) -> BfdReport {
        match &mut self.subscription {
            Some(subscription) => subscription.next().await,
            None => std::future::pending().await,
        }
    }

    /// Takes a report: whether the neighbor was lost since the last one, and whether it is back.
    pub(super) fn take(&mut self, report: BfdReport) -> News {
        let before = std::mem::replace(&mut self.report, report);
        let back = report.status == BfdStatus::Up && before.status != BfdStatus::Up;
        if let Some(subscription) = self.subscription.as_mut().filter(|_| back) {
            subscription.proceed(false);
        }
        let lost = !std::mem::take(&mut self.fresh) && report.failures > before.failures;
        News { lost: lost.then(|| bfd_diagnostic(report.diagnostic)), back }
    }

    /// A BGP session began: where BFD is down it goes on without.
    pub(super) fn session_began(&mut self) {
        if let Some(subscription) =
            self.subscription.as_mut().filter(|_| self.report.status == BfdStatus::Down)
        {
            subscription.proceed(true);
        }
    }

    /// Whether a restart of the neighbor's control plane leaves its BFD running (RFC 5882 §4.3.2).
    pub(super) fn is_independent(&self) -> bool {
        self.report.independent
    }

    /// For `show neighbor`; nothing where nothing is watched.
    pub(super) fn status(&self) -> Option<BfdStatus> {
        self.subscription.as_ref().map(|_| self.report.status)
    }
}

/// What a report means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News {
    /// The neighbor was lost: the diagnostic.
    pub(super) lost: Option<&'static str>,
    pub(super) back: bool,
}
