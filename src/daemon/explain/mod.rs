//! Gathers the facts from which `explain` decides: the table, the plan, and what the kernel does
//! with packets.

use std::{net::IpAddr, sync::Arc};

use tokio::{sync::oneshot, task::spawn_blocking};

use super::queries::QueryHandler;
use crate::{
    bgp::{
        io::rib::ToRib,
        rib::{
            Explained,
            view::{PathExplained, PathState},
        },
    },
    control::Response,
    explain::{self, Drain, Facts, Kernel, Place, Question, Source},
    fib::host::{Host, Link, RouteType},
    net::{Family, Prefix, Reason, Refusal, Source as Origin},
    plan::{self, Plan},
};

mod kernel;

/// Maximum number of originated prefixes whose packets are followed if no source is given.
const MAX_SOURCES: usize = 8;

impl QueryHandler {
    /// Follows packets to an address.
    pub(super) async fn explain(self, question: Question) -> Response {
        let host = self.host.borrow().clone();
        let plan = self.plan.borrow().clone();
        let plan = match plan.as_ref() {
            Ok(plan) => plan,
            Err(missing) => return Response::Refused(format!("routelet has not started yet: {missing}")),
        };
        if let Some(why) = refused(&question, &host) {
            return Response::Misconfigured(why);
        }
        let Some(facts) = self.facts(question, plan, &host).await else {
            return Response::Refused("the daemon is stopping".into());
        };
        Response::Explanation(Box::new(explain::explain(&facts)))
    }

    async fn facts(&self, question: Question, plan: &Plan, host: &Arc<Host>) -> Option<Facts> {
        let views = self.neighbors().await;
        let neighbors: Vec<_> = views.iter().map(|v| kernel::neighbor(host, v)).collect();
        let place = |address| match place(plan, host, &neighbors, address) {
            Place::Remote => {
                self.cluster_ips(address).map_or(Place::Remote, |range| Place::ClusterIp { range })
            }
            known => known,
        };
        let (place, from) = (place(question.address), question.from.map(place));
        let own = originated(plan, host, question.address);
        let sources = sources(plan, host, &question);
        // A prefix that covers the one of the source may be advertised instead of it.
        let covering = question.from.map(|from| originated(plan, host, from)).unwrap_or_default();
        let originated = own.iter().chain(&sources).chain(&covering).map(|s| s.prefix);
        let rib = self.explained(question.address, originated.collect()).await?;
        let learned = rib.paths.iter().find(|p| p.state == PathState::Selected && p.route.neighbor.is_some());
        let fib = match learned.map(|p| p.route.prefix) {
            Some(prefix) => self.fib.find(prefix).await,
            None => None,
        };
        let masqueraded = self.is_masqueraded(plan, &sources, &rib.paths);
        let settings = &plan.config.fib;
        let facts = Facts {
            protected: protected(plan, question.address),
            not_originated: not_originated(plan, host, &place),
            drain: if plan.problems.iter().any(|d| d.reason == Reason::Drained) {
                Drain::Drained
            } else {
                Drain::No
            },
            table: settings.table,
            installs: settings.install,
            kernel: Kernel::Unknown(String::new()),
            rule: None,
            exit: None,
            reached: None,
            flows: Vec::new(),
            filters_unread: None,
            question,
            place,
            from,
            own,
            sources,
            masqueraded,
            rib,
            neighbors,
            fib,
        };
        let (protocol, host) = (settings.protocol, host.clone());
        spawn_blocking(move || kernel::look(facts, &host, protocol)).await.ok()
    }

    /// The range of cluster IPs that contains an address.
    fn cluster_ips(&self, address: IpAddr) -> Option<Prefix> {
        let nodes = self.kubernetes.as_ref()?.nodes.borrow().clone();
        nodes.service_cidrs.iter().find(|range| range.contains(address)).copied()
    }

    async fn explained(&self, address: IpAddr, mut own: Vec<Prefix>) -> Option<Explained> {
        own.sort_unstable();
        own.dedup();
        let (reply, response) = oneshot::channel();
        self.rib.send(ToRib::Explain { address, own, reply }).await.ok()?;
        response.await.ok()
    }

    /// Whether packets of these containers are masqueraded: by Docker, or by our table, which
    /// excludes learned prefixes.
    fn is_masqueraded(&self, plan: &Plan, sources: &[Source], paths: &[PathExplained]) -> bool {
        use crate::nft::masquerade::Mode;
        let by_docker = self.problems.of_host().into_iter().filter(|d| d.reason == Reason::Masqueraded);
        let by_docker: Vec<_> = by_docker.map(|d| d.subject.name).collect();
        let is_learned = paths.iter().any(|p| p.state == PathState::Selected && p.route.prefix.len() > 0);
        let by_us = |prefix: Prefix| {
            !is_learned && plan.masquerade.mode != Mode::Off && plan.masquerade.pods.contains(&prefix)
        };
        sources.iter().any(|s| by_docker.contains(&s.prefix.to_string()) || by_us(s.prefix))
    }
}

/// Why a question cannot be followed on this host, if so.
fn refused(question: &Question, host: &Host) -> Option<String> {
    if let Some(why) =
        [Some(question.address), question.from].into_iter().flatten().find_map(explain::refusal)
    {
        return Some(why);
    }
    if question.from.is_some_and(|from| Family::of(from) != Family::of(question.address)) {
        return Some("--from has an address of the other family; give two of the same family".into());
    }
    if question.from == Some(question.address) {
        return Some("--from is the address itself; give the address of the sender".into());
    }
    let name = question.interface.as_ref()?;
    if host.link(name).is_none() {
        let names: Vec<_> = host.links.values().map(|l| l.name.as_str()).take(20).collect();
        return Some(format!("there is no interface {name}; there are {}", names.join(", ")));
    }
    let is_own = question.from.is_some_and(|from| own_link(host, from).is_some());
    is_own.then(|| {
        "--from is an address of this host, whose packets arrive on no interface; leave --interface out"
            .into()
    })
}

/// The interface with this address.
fn own_link(host: &Host, address: IpAddr) -> Option<&Link> {
    host.links.values().find(|l| l.addresses.iter().any(|a| a.addr == address))
}

fn place(plan: &Plan, host: &Host, neighbors: &[explain::Neighbor], address: IpAddr) -> Place {
    if let Some(link) = own_link(host, address) {
        return Place::Host { interface: link.name.clone() };
    }
    // `ip route add local`: delivered to this host without being one of its addresses.
    let is_local = |p: &Prefix| p.contains(address);
    if host.routes.iter().any(|r| r.kind == RouteType::Local && is_local(&r.prefix)) {
        return Place::Host { interface: "lo".into() };
    }
    let links = host.links.values().filter(|l| !l.loopback);
    let subnets = links.flat_map(|l| l.subnets().map(move |s| (s, l))).filter(|(s, _)| s.contains(address));
    if let Some((subnet, link)) = subnets.max_by_key(|(subnet, _)| subnet.len()) {
        let interface = link.name.clone();
        let has_neighbor = neighbors.iter().any(|n| n.link.as_ref().is_some_and(|l| l.name == link.name));
        let has_default_route =
            host.default_gateways(subnet.family()).iter().any(|(_, index)| *index == link.index);
        let of_containers = link.kind == "bridge"
            && !plan::host::leads_out(host, link)
            && !has_neighbor
            && !has_default_route;
        return match plan.originated.contains_key(&subnet) || of_containers {
            true => Place::Container { subnet, interface },
            false => Place::OnLink { subnet, interface },
        };
    }
    let own = plan.originated.iter().filter(|(p, _)| p.contains(address)).max_by_key(|(p, _)| p.len());
    match own {
        Some((prefix, o)) => Place::Originated { prefix: *prefix, is_service: o.source == Origin::Service },
        None => Place::Remote,
    }
}

/// Originated prefixes that contain an address, longest first.
fn originated(plan: &Plan, host: &Host, address: IpAddr) -> Vec<Source> {
    let mut own: Vec<_> = plan.originated.keys().filter(|p| p.contains(address)).copied().collect();
    own.sort_unstable_by_key(|p| std::cmp::Reverse(p.len()));
    own.into_iter().map(|p| source(plan, host, p)).collect()
}

/// The originated prefixes from which packets come: those with the source, or those of containers.
fn sources(plan: &Plan, host: &Host, question: &Question) -> Vec<Source> {
    let family = Family::of(question.address);
    match question.from {
        Some(from) => originated(plan, host, from).into_iter().take(1).collect(),
        None => {
            let all = plan.originated.iter().filter(|(_, o)| o.source != Origin::Service);
            let all = all.filter(|(p, _)| p.family() == family);
            all.map(|(p, _)| source(plan, host, *p)).collect()
        }
    }
}

fn source(plan: &Plan, host: &Host, prefix: Prefix) -> Source {
    let link = host.links.values().find(|l| !l.loopback && l.subnets().any(|s| s == prefix));
    let name = link.map_or("an interface", |l| l.name.as_str());
    let by = match plan.originated.get(&prefix).map(|o| o.source) {
        Some(Origin::PodCidr) => "pod CIDR of this node".into(),
        Some(Origin::Network) => "advertise.networks".into(),
        Some(Origin::Interface) => format!("subnet of {name}"),
        Some(Origin::Service) => {
            let named = plan.services.iter().filter(|s| s.announced == Some(prefix));
            let names: Vec<_> = named.flat_map(|s| s.services.iter().cloned()).collect();
            format!("Service {}", names.join(", "))
        }
        None => String::new(),
    };
    Source { prefix, by, link: link.map(|l| (l.name.clone(), l.mtu)) }
}

fn protected(plan: &Plan, address: IpAddr) -> Option<String> {
    match plan.guard.refuses(Prefix::host(address), true) {
        Some(Refusal::Protected(role)) => Some(role.as_str().to_owned()),
        _ => None,
    }
}

fn not_originated(plan: &Plan, host: &Host, place: &Place) -> Option<String> {
    let Place::Container { subnet, interface } = place else { return None };
    let views = plan::host::interfaces(plan, host);
    let view = views.iter().find(|v| v.name == *interface)?;
    view.subnets.iter().find(|(prefix, _)| prefix == subnet)?.1.clone()
}
