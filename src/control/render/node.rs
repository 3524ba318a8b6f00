use std::fmt::Write;

use jiff::Timestamp;

use super::{Table, ago, listed, or_dash};
use crate::{cni::view::ConflistState, control::NodeStatus};

pub(super) fn text(node: Option<&NodeStatus>, now: Timestamp) -> String {
    let Some(node) = node else {
        return "not under Kubernetes: give --kubeconfig, or set kubernetes.enabled\n".into();
    };
    let mut table = Table::plain();
    let seen = if node.uid.is_some() { "" } else { " (not seen yet)" };
    table.pair("node", format!("{}{seen}", node.node));
    table.pair("addresses", listed(&node.addresses));
    table.pair("pod cidrs", listed(&node.pod_cidrs));
    table.pair("service cidrs", listed(&node.service_cidrs));
    table.pair("conflist", conflist(node));
    table.pair("api server", api(node, now));
    table.pair("mesh members", node.mesh_members.len().to_string());
    if !node.reflectors.is_empty() {
        table.pair("reflectors", node.reflectors.join(", "));
    }
    let mut text = table.to_string();
    if !node.mesh_members.is_empty() {
        let _ = write!(text, "\n{}", members(node));
    }
    if !node.services.is_empty() {
        let _ = write!(text, "\n{}", services(node));
    }
    for mark in node.marks() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "! {mark}");
    }
    text
}

fn members(node: &NodeStatus) -> String {
    let mut table = Table::with_heading(["NODE", "ADDRESS", "POD CIDRS"]);
    for member in &node.mesh_members {
        table.row([member.node.clone(), or_dash(member.address), listed(&member.pod_cidrs)]);
    }
    table.to_string()
}

fn services(node: &NodeStatus) -> String {
    let mut table = Table::with_heading(["ADDRESS", "SERVICE", "ADVERTISED", "REASON"]);
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
