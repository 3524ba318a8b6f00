//! `show routes PREFIX`: a paragraph per path with every attribute.

use super::{layout::Layout, listed, or_dash, routes::as_path, span, table::Pairs};
use crate::control::RouteView;

pub(super) fn paragraph(r: &RouteView, layout: Layout) -> String {
    let mut pairs = Pairs::new(layout);
    pairs.add("  import", if r.refused { "refused".into() } else { format!("accepted from {}", from(r)) });
    pairs.add("  reason", &r.reason);
    pairs.add("  next hop", next_hop(r));
    let path = as_path(&r.as_path);
    pairs.add("  as path", format!("{} ({})", if path.is_empty() { "empty" } else { &path }, r.origin));
    pairs.add("  preference", format!("{}, med {}", or_dash(r.local_pref), or_dash(r.med)));
    let lists = [
        ("  communities", &r.communities),
        ("  large communities", &r.large_communities),
        ("  ext communities", &r.ext_communities),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        pairs.add(name, list.join(" "));
    }
    let aggregate = if r.atomic_aggregate { " (atomic aggregate)" } else { "" };
    if r.aggregator.is_some() || r.atomic_aggregate {
        pairs.add("  aggregator", format!("{}{aggregate}", or_dash(r.aggregator.as_ref())));
    }
    pairs.add_some("  originator id", r.originator_id);
    if !r.cluster_list.is_empty() {
        pairs.add(
            "  cluster list",
            r.cluster_list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        );
    }
    pairs.add_some("  only to customer", r.only_to_customer);
    pairs.add_some("  path id", r.path_id);
    if !r.unknown_attributes.is_empty() {
        pairs.add("  unknown attributes", listed(&r.unknown_attributes));
    }
    if let Some(details) = &r.details {
        let nobody = if r.best { "nobody" } else { "nobody (not the best path)" };
        let to = &details.advertised_to;
        pairs.add("  advertised to", if to.is_empty() { nobody.into() } else { listed(to) });
        for without in &details.not_advertised_to {
            pairs.add("  not advertised", format!("to {}: {}", without.neighbor, without.reason));
        }
    }
    layout.wrap(&heading(r), "", "  ") + &pairs.to_string()
}

/// `10.0.0.0/8 from 10.1.1.1: best, in the kernel, for 3h2m`.
fn heading(r: &RouteView) -> String {
    let states = [
        (r.best, "best"),
        (r.multipath && !r.best, "multipath"),
        (r.refused, "refused"),
        (r.stale, "stale"),
        (r.installed, "in the kernel"),
    ];
    let set = states.into_iter().filter(|(is, _)| *is);
    let mut words: Vec<_> = set.map(|(_, word)| word.to_owned()).collect();
    words.push(format!("for {}", span(r.age)));
    format!("{} from {}: {}", r.prefix, from(r), words.join(", "))
}

fn from(r: &RouteView) -> &str {
    r.neighbor.as_deref().unwrap_or(&r.source)
}

fn next_hop(r: &RouteView) -> String {
    let Some(address) = r.next_hop else { return "-".into() };
    let Some(details) = &r.details else { return address.to_string() };
    let via: Vec<_> = details
        .via
        .iter()
        .map(|via| match &via.interface {
            Some(interface) if via.address == address => interface.clone(),
            Some(interface) => format!("{} {interface}", via.address),
            None => via.address.to_string(),
        })
        .collect();
    match (via.as_slice(), details.metric) {
        ([], _) => format!("{address}, not resolved"),
        (via, Some(metric)) if metric > 0 => format!("{address} via {}, metric {metric}", via.join(", ")),
        (via, _) => format!("{address} via {}", via.join(", ")),
    }
}
