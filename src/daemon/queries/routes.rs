//! Routes and kernel routes, page by page.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::{QueryHandler, names};
use crate::{
    bgp::{
        io::pages::{Pages, Stopped},
        rib::RouteFilter,
    },
    control::{Response, RouteView, io::server::Reply},
    fib::{host::Host, io::FibClient, walk::Walk},
    k8s::services::Eligibility,
    net::Prefix,
    plan::{NoPlan, Plan},
};

impl QueryHandler {
    pub(super) async fn routes(&self, mut filter: RouteFilter) -> Reply {
        if let Err(wrong) = filter.check() {
            return Response::Misconfigured(wrong.to_string()).into();
        }
        if filter.neighbors_mut().next().is_some() {
            let sessions = self.sessions().await;
            for name in filter.neighbors_mut() {
                match names::resolve(name, &sessions) {
                    Ok(view) => name.clone_from(&view.address),
                    Err(error) => return Response::Refused(error.to_string()).into(),
                }
            }
        }
        let large = filter.prefix.is_none() || filter.longer;
        let rows = self.route_pages(filter);
        let pages = stream::unfold(Some(rows), async |rows| {
            let mut rows = rows?;
            match rows.next().await {
                Ok(list) if list.is_empty() => None,
                Ok(list) => Some((Response::Routes(list), Some(rows))),
                Err(Stopped) => Some((Response::Refused("the daemon is stopping".into()), None)),
            }
        });
        // An empty first page, so that the table has its heading even without rows.
        let pages = stream::iter([Response::Routes(Vec::new())]).chain(pages);
        Reply::Pages { large, pages: pages.boxed() }
    }

    pub(super) fn fib_pages(&self) -> BoxStream<'static, Response> {
        let start = (self.fib.clone(), Some(Walk::default()));
        let pages = stream::unfold(start, async |(fib, mut walk)| {
            let rows = fib.page(&mut walk).await;
            (!rows.is_empty()).then_some((Response::Fib(rows), (fib, walk)))
        });
        stream::iter([Response::Fib(Vec::new())]).chain(pages).boxed()
    }

    pub(super) fn route_pages(&self, filter: RouteFilter) -> RoutePages {
        RoutePages {
            rib: Pages::new(self.rib.clone(), filter),
            fib: self.fib.clone(),
            plan: self.plan.borrow().clone(),
            host: self.host.borrow().clone(),
        }
    }

    /// All paths at once, for filters that match few.
    pub(in crate::daemon) async fn route_views(&self, filter: RouteFilter) -> Vec<RouteView> {
        let (mut pages, mut views) = (self.route_pages(filter), Vec::new());
        while let Ok(mut list) = pages.next().await
            && !list.is_empty()
        {
            views.append(&mut list);
        }
        views
    }
}

/// Pages of paths from the RIB, with their installation from the FIB and their Services from the
/// plan.
pub(super) struct RoutePages {
    rib: Pages,
    fib: FibClient,
    plan: Arc<Result<Plan, NoPlan>>,
    host: Arc<Host>,
}

impl RoutePages {
    /// The next page; empty after the last one.
    pub(super) async fn next(&mut self) -> Result<Vec<RouteView>, Stopped> {
        let mut views = self.rib.next().await?;
        let used = |view: &RouteView| view.best || view.multipath;
        let prefixes = views.iter().filter(|v| used(v)).map(|v| v.prefix).collect();
        let mut installed = self.fib.installed(prefixes).await.into_iter();
        for view in views.iter_mut().filter(|v| used(v)) {
            view.installed = installed.next().unwrap_or(false);
        }
        self.name_services(&mut views);
        for via in views.iter_mut().filter_map(|v| v.details.as_mut()).flat_map(|d| &mut d.via) {
            via.interface = self.interface(via.address, via.ifindex);
        }
        Ok(views)
    }

    /// The interface that leads to a gateway.
    fn interface(&self, gateway: IpAddr, ifindex: u32) -> Option<String> {
        let link = self.host.links.get(&ifindex).or_else(|| self.host.connected_link(gateway));
        link.map(|link| link.name.clone())
    }

    fn name_services(&self, views: &mut [RouteView]) {
        if views.iter().all(|v| v.source != "service") {
            return;
        }
        let mut served: BTreeMap<Prefix, Vec<&Eligibility>> = BTreeMap::new();
        for service in self.plan.as_ref().as_ref().map_or(&[][..], |plan| &plan.services) {
            service.announced.into_iter().for_each(|p| served.entry(p).or_default().push(service));
        }
        for view in views.iter_mut().filter(|v| v.source == "service") {
            if let Some([first, more @ ..]) = served.get(&view.prefix).map(Vec::as_slice) {
                let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
                view.reason = format!("{}; for {}{more}", view.reason, first.services.join(", "));
            }
        }
    }
}
