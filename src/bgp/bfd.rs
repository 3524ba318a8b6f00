//! Which path BFD watches for a neighbor, and what its reports mean for the session.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::peer::{Bfd, Hops, PeerConfig, PeerKey};
use crate::net::{BfdPath, BfdReport, BfdStatus, Links, bfd_diagnostic};

/// What the settings and the host's links call for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// No path: what is watched ends.
    Nothing,
    /// The path that is watched, with these settings.
    Same(BfdPath, &'a Bfd),
    /// Another path, whose reports begin anew.
    Other(BfdPath, &'a Bfd),
}

/// What is to be watched. A neighbor that is disabled is not.
pub fn wanted<'a>(
    config: &'a PeerConfig,
    links: &Links,
    disabled: bool,
    former: Option<BfdPath>,
) -> Wanted<'a> {
    let bfd = config.bfd.as_ref().filter(|_| !disabled);
    match bfd.zip(path(config, links, former)) {
        Some((bfd, path)) if former == Some(path) => Wanted::Same(path, bfd),
        Some((bfd, path)) => Wanted::Other(path, bfd),
        None => Wanted::Nothing,
    }
}

/// The reports of the path that is watched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reports {
    last: BfdReport,
    /// A report has come. What was lost before the first one concerns others that watch the path.
    has_begun: bool,
}

impl Reports {
    pub fn last(&self) -> BfdReport {
        self.last
    }

    /// Takes a report: what it means, compared with the one before.
    pub fn take(&mut self, report: BfdReport) -> News {
        let before = std::mem::replace(&mut self.last, report);
        let has_begun = std::mem::replace(&mut self.has_begun, true);
        let lost = has_begun && report.failures > before.failures;
        News {
            lost: lost.then(|| bfd_diagnostic(report.diagnostic)),
            back: report.status == BfdStatus::Up && before.status != BfdStatus::Up,
        }
    }
}

/// What a report means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// The neighbor was lost since the report before: the diagnostic.
    pub lost: Option<&'static str>,
    pub back: bool,
}

/// The path to a neighbor. A neighbor on a link is watched there, also while the link has lost its
/// address (`former`); one that is several hops away, from wherever packets to it leave.
fn path(config: &PeerConfig, links: &Links, former: Option<BfdPath>) -> Option<BfdPath> {
    let named = |name: &str| links.links.iter().find(|(_, link)| link.name == name).map(|(n, _)| *n);
    let (remote, interface): (IpAddr, _) = match &config.key {
        PeerKey::Address(addr) => (*addr, None),
        PeerKey::LinkLocal(addr, name) => ((*addr).into(), Some(name)),
        PeerKey::Interface(_) => return None,
    };
    let local = config.local_address;
    let at = |ifindex| BfdPath { remote, local, ifindex };
    if let Some(name) = interface {
        return named(name).map(at);
    }
    if is_multihop(config.hops) {
        return Some(at(0));
    }
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let former =
        former.filter(|f| f.remote == remote && !f.is_multihop() && links.links.contains_key(&f.ifindex));
    match links.towards(local.unwrap_or(any), remote).or(former.map(|f| f.ifindex)) {
        Some(ifindex) => Some(at(ifindex)),
        None => (config.hops == Hops::Direct && config.is_surely_internal()).then(|| at(0)),
    }
}

fn is_multihop(hops: Hops) -> bool {
    match hops {
        Hops::Direct | Hops::SecurityWhereOffered => false,
        Hops::Multihop(_) => true,
        Hops::Security(n) => n > 1,
    }
}

/// Why no session may begin as long as BFD reports this.
pub fn hold(config: &PeerConfig, disabled: bool, report: BfdReport) -> Option<String> {
    let strict = config.bfd.as_ref().filter(|_| !disabled)?.strict;
    match report.status {
        // RFC 5882 §3.2: BFD that an operator shut down shows nothing about the path.
        BfdStatus::Up | BfdStatus::AdminDown => None,
        BfdStatus::Dampened(time) => Some(format!(
            "the BFD session was lost {} times: it has to stay up for {} s first",
            report.failures,
            time.as_secs()
        )),
        BfdStatus::Starting | BfdStatus::Down if strict => Some(
            "waiting for BFD (bfd.strict): it is not up; enable BFD for this host at the neighbor".into(),
        ),
        BfdStatus::Starting | BfdStatus::Down => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        bgp::peer::{Bfd, RemoteAs},
        net::LinkState,
    };

    fn links() -> Links {
        let link = |name: &str, addr: &str, subnet: &str| LinkState {
            name: name.into(),
            up: true,
            carrier: true,
            generation: 0,
            addresses: vec![(addr.parse().unwrap(), subnet.parse().unwrap())],
        };
        let links = BTreeMap::from([
            (2, link("eth0", "10.0.0.1", "10.0.0.0/24")),
            (3, link("eth1", "10.1.0.1", "10.1.0.0/24")),
        ]);
        let on_link = vec![("10.0.0.0/24".parse().unwrap(), 2), ("10.1.0.0/24".parse().unwrap(), 3)];
        Links::new(links, on_link)
    }

    fn neighbor(address: &str, remote_as: u32, hops: Hops) -> PeerConfig {
        let Ok(key) = address.parse::<PeerKey>();
        PeerConfig { hops, ..PeerConfig::new(key, RemoteAs::Number(remote_as), 1) }
    }

    #[test]
    fn a_neighbor_on_a_link_is_watched_there_and_others_over_several_hops() {
        #[rustfmt::skip]
        let cases = [
            ("10.0.0.2",      2, Hops::Direct,      Some(2)),
            ("10.1.0.2",      2, Hops::Direct,      Some(3)),
            ("10.0.0.2",      2, Hops::Security(1), Some(2)),
            ("10.0.0.2",      2, Hops::Security(2), Some(0)),
            ("10.0.0.2",      2, Hops::Multihop(3), Some(0)),
            ("10.0.0.2",      1, Hops::Direct,      Some(2)),
            ("192.0.2.1",     1, Hops::Direct,      Some(0)),
            ("192.0.2.1",     2, Hops::Direct,      None),
            ("192.0.2.1",     2, Hops::SecurityWhereOffered, None),
            ("192.0.2.1",     2, Hops::Security(1), None),
            ("fe80::2%eth1",  2, Hops::Direct,      Some(3)),
            ("fe80::2%eth9",  2, Hops::Direct,      None),
        ];
        for (address, remote_as, hops, expected) in cases {
            let path = path(&neighbor(address, remote_as, hops), &links(), None);
            assert_eq!(path.map(|p| p.ifindex), expected, "{address} AS {remote_as} {hops:?}");
        }
    }

    #[test]
    fn the_link_stays_the_same_while_its_address_is_gone() {
        let config = neighbor("10.0.0.2", 1, Hops::Direct);
        let former = path(&config, &links(), None);
        let mut without = links().links;
        without.get_mut(&2).unwrap().addresses.clear();
        assert_eq!(path(&config, &Links::new(without.clone(), vec![]), former), former);
        without.remove(&2);
        assert_eq!(path(&config, &Links::new(without, vec![]), former).unwrap().ifindex, 0);
    }

    #[test]
    fn only_strict_sessions_and_dampened_ones_wait() {
        let with = |strict| PeerConfig {
            bfd: Some(Bfd { strict, ..Bfd::default() }),
            ..neighbor("10.0.0.2", 2, Hops::Direct)
        };
        let second = std::time::Duration::from_secs(1);
        #[rustfmt::skip]
        let cases = [
            (BfdStatus::Starting,         false, true),
            (BfdStatus::Down,             false, true),
            (BfdStatus::Up,               false, false),
            (BfdStatus::AdminDown,        false, false),
            (BfdStatus::Dampened(second), true,  true),
        ];
        for (status, loose, strict) in cases {
            let report = BfdReport { status, ..BfdReport::default() };
            assert_eq!(hold(&with(false), false, report).is_some(), loose, "{status:?}");
            assert_eq!(hold(&with(true), false, report).is_some(), strict, "{status:?}, strict");
            assert_eq!(hold(&with(true), true, report), None, "{status:?}, disabled");
            assert_eq!(
                hold(&neighbor("10.0.0.2", 2, Hops::Direct), false, report),
                None,
                "{status:?}, no BFD"
            );
        }
    }

    #[test]
    fn settings_change_on_the_same_path_and_another_path_begins_anew() {
        let mut config = PeerConfig { bfd: Some(Bfd::default()), ..neighbor("10.0.0.2", 2, Hops::Direct) };
        let bfd = Bfd::default();
        let path = BfdPath { remote: "10.0.0.2".parse().unwrap(), local: None, ifindex: 2 };
        let other = BfdPath { ifindex: 3, ..path };
        let now = |former| wanted(&config, &links(), false, former);
        assert_eq!(now(None), Wanted::Other(path, &bfd));
        assert_eq!(now(Some(path)), Wanted::Same(path, &bfd));
        assert_eq!(now(Some(other)), Wanted::Other(path, &bfd));
        assert_eq!(wanted(&config, &links(), true, Some(path)), Wanted::Nothing, "disabled");
        config.bfd = None;
        assert_eq!(wanted(&config, &links(), false, Some(path)), Wanted::Nothing, "no BFD");
    }

    #[test]
    fn a_loss_counts_from_the_first_report_on() {
        let report = |status, failures| BfdReport { status, failures, ..BfdReport::default() };
        let mut reports = Reports::default();
        #[rustfmt::skip]
        let cases = [
            // Another neighbor on the path lost the session before.
            (report(BfdStatus::Down, 3), false, false),
            (report(BfdStatus::Up,   3), false, true),
            (report(BfdStatus::Up,   3), false, false),
            (report(BfdStatus::Down, 4), true,  false),
            // Lost and back between two reports.
            (report(BfdStatus::Up,   4), false, true),
            (report(BfdStatus::Up,   5), true,  false),
        ];
        for (n, (report, is_lost, is_back)) in cases.into_iter().enumerate() {
            let news = reports.take(report);
            assert_eq!((news.lost.is_some(), news.back), (is_lost, is_back), "report {n}");
            assert_eq!(reports.last(), report);
        }
    }
}
