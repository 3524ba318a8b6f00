//! The formats of Kubernetes: objects of Calico, MetalLB and Cilium, as `kubectl get -o yaml`
//! prints them.
//!
//! The result is a stream for `kubectl apply`: the ConfigMap with the file, BGPPeer and BGPPolicy
//! objects. Only objects can express neighbors of some Nodes, and passwords in Secrets. If
//! something has no counterpart, a part is left out: a neighbor, an advertisement, or the routes
//! from a rule of a filter on.

mod calico;
mod cilium;
mod cluster;
mod metallb;
mod object;
mod selector;
#[cfg(test)]
mod tests;
mod unfit;
mod values;
mod yaml;

pub(super) use self::cluster::Cluster;
use super::{ConvertError, Format, Input, ledger::Ledger};

/// For the ledger.
const SECRET: &str = "copy the Secret into the namespace of routelet and name it in the Role; there is no session until it is there";

/// Reads all files and converts them.
pub(super) fn convert(inputs: &[Input], format: Format) -> Result<(Cluster, Ledger), ConvertError> {
    match format {
        Format::Calico => calico::convert(inputs),
        Format::Cilium => cilium::convert(inputs),
        _ => metallb::convert(inputs),
    }
}

/// The formats whose objects a text has.
pub(super) fn formats(text: &str) -> Vec<Format> {
    let has = |group: &str| text.contains("apiVersion") && text.contains(&format!("{group}/v"));
    let mut found = Vec::new();
    if has("projectcalico.org") {
        found.push(Format::Calico);
    }
    if has("metallb.io") || text.contains("apiVersion") && text.contains("address-pools:") {
        found.push(Format::Metallb);
    }
    if has("cilium.io") {
        found.push(Format::Cilium);
    }
    found
}
