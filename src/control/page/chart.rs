//! Charts of the status page: sparklines, and the neighborhood of this node. A sparkline has its
//! content as text for users who cannot see it; the neighborhood is a tree of text with lines drawn
//! by the style sheet, so that it fits any width.

use std::collections::BTreeMap;

use super::html::Html;
use crate::bgp::view::{NeighborView, SessionState};

/// Columns and rows of a sparkline, in user units.
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 40.0;

/// Maximum number of neighbors in the tree. The table has more.
const MAX_NEIGHBORS: usize = 16;

/// Values over time, the latest last; `name` describes them with their unit.
pub(super) fn sparkline(html: &mut Html, name: &str, values: &[f64]) {
    let Some(latest) = values.last() else {
        html.element("p", format_args!("{name}: no samples yet; the first one comes within 15 s"));
        return;
    };
    let most = values.iter().copied().fold(0.0, f64::max);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let scale = if most > 0.0 { most } else { 1.0 };
    let step = WIDTH / values.len().saturating_sub(1).max(1) as f64;
    let points = values.iter().enumerate().map(|(n, value)| {
        let y = HEIGHT - 2.0 - value / scale * (HEIGHT - 4.0);
        format!("{:.1},{y:.1}", n as f64 * step)
    });
    let points = points.collect::<Vec<_>>().join(" ");
    let text = format!("{name}: now {}, mean {}, most {}", short(*latest), short(mean), short(most));
    html.raw("<figure><svg class=\"spark\" viewBox=\"0 0 240 40\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"").text(&text);
    html.raw("\"><polyline points=\"").text(points).raw("\"/></svg>").element("figcaption", &text);
    html.raw("</figure>\n");
}

/// At most three significant digits.
fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 || v == 0.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}"),
        v => format!("{v:.4}"),
    }
}

/// This node, its links, and the first neighbors on each, those that are down first as in the
/// table.
pub(super) fn topology(html: &mut Html, node: &str, neighbors: &[&NeighborView]) {
    let up = neighbors.iter().filter(|n| n.state == SessionState::Established).count();
    let mut links: BTreeMap<String, Vec<&NeighborView>> = BTreeMap::new();
    for neighbor in neighbors.iter().take(MAX_NEIGHBORS) {
        links.entry(link(neighbor)).or_default().push(neighbor);
    }
    html.raw("<figure><figcaption>This node and its neighbors, ");
    html.text(format_args!("{up} of {} established", neighbors.len()));
    html.raw("</figcaption>\n<ul class=\"tree\"><li><strong>").text(node).raw("</strong><ul>");
    for (link, neighbors) in links {
        html.raw("<li>").text(link).raw("<ul>");
        neighbors.into_iter().for_each(|neighbor| leaf(html, neighbor));
        html.raw("</ul></li>\n");
    }
    if let Some(others) = neighbors.len().checked_sub(MAX_NEIGHBORS).filter(|others| *others > 0) {
        html.classed("li", "soft", format_args!("{others} more"));
    }
    html.raw("</ul></li></ul></figure>\n");
}

/// The link of a neighbor: its interface, or else our address towards it.
fn link(neighbor: &NeighborView) -> String {
    match (&neighbor.interface, neighbor.local_address) {
        (Some(interface), _) => interface.clone(),
        (None, Some(address)) => format!("from {address}"),
        (None, None) => "without a connection".into(),
    }
}

fn leaf(html: &mut Html, neighbor: &NeighborView) {
    let class = if neighbor.state == SessionState::Established { "up" } else { "down" };
    html.raw("<li class=\"").raw(class).raw("\">").text(&neighbor.address);
    if let Some(asn) = neighbor.remote_as {
        html.text(format_args!(", AS {asn}"));
    }
    html.text(format_args!(", {}", neighbor.state.as_str()));
    if let Some(description) = &neighbor.description {
        html.text(format_args!(", {description}"));
    }
    html.raw("</li>");
}
