use std::fmt::Write;

use jiff::Timestamp;

use super::{
    ago,
    layout::Layout,
    listed, or_dash,
    table::{Pairs, Table},
};
use crate::{cni::view::ConflistState, control::NodeStatus};

pub(super) fn text(node: Option<&NodeStatus>, now: Timestamp, layout: Layout) -> String {
    let Some(node) = node else {
        return "not under Kubernetes: give --kubeconfig, or set kubernetes.enabled\n".into();
    };
    let mut table = Pairs::new(layout);
    let seen = if node.uid.is_some() { "" } else { " (not seen yet)" };
    table.add("node", format!("{}{seen}", node.node));
    table.add("addresses", listed(&node.addresses));
    table.add("pod cidrs", listed(&node.pod_cidrs));
    table.add("service cidrs", listed(&node.service_cidrs));
    table.add("conflist", conflist(node));
    table.add("api server", api(node, now));
    table.add("mesh members", node.mesh_members.len().to_string());
    if !node.reflectors.is_empty() {
        table.add("reflectors", node.reflectors.join(", "));
    }
    let mut text = table.to_string();
    if !node.mesh_members.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{}", members(node, layout));
    }
    if !node.services.is_empty() {
        let _ = write!(text, "\n{}", services(node, layout));
    }
    for mark in node.marks() {
        text += &layout.mark(&mark);
    }
    text
}

fn members(node: &NodeStatus, layout: Layout) -> String {
    let mut table = Table::new(layout, ["NODE", "ADDRESS", "POD CIDRS"]);
    for member in &node.mesh_members {
        table.row([member.node.clone(), or_dash(member.address), listed(&member.pod_cidrs)]);
    }
    table.to_string()
}

fn services(node: &NodeStatus, layout: Layout) -> String {
    let mut table = Table::new(layout, ["ADDRESS", "SERVICE", "ADVERTISED", "REASON"]);
    for v in &node.services {
        table.row([v.address.to_string(), listed(&v.services), or_dash(v.announced), v.reason.clone()]);
    }
    table.to_string()
}

fn conflist(node: &NodeStatus) -> String {
    let state = match node.conflist.state {
        ConflistState::Disabled => "disabled",
        ConflistState::Waiting => "waiting",
        ConflistState::Written => "written",
        ConflistState::Failed => "failed",
    };
    let beside = match node.conflist.others.as_slice() {
        [] => String::new(),
        others => format!(", beside {}", others.join(", ")),
    };
    node.conflist.path.as_ref().map_or_else(|| state.to_owned(), |path| format!("{path}, {state}{beside}"))
}

fn api(node: &NodeStatus, now: Timestamp) -> String {
    let state = if node.api.connected { "connected" } else { "not connected" };
    let since = node.api.since.as_ref().map(|s| format!(" for {}", ago(s, now))).unwrap_or_default();
    let cached = if node.api.from_state { ", cluster as saved in the state folder" } else { "" };
    let error = node.api.last_error.as_ref().map(|e| format!(", last error: {e}")).unwrap_or_default();
    format!("{state}{since}{cached}{error}")
}
