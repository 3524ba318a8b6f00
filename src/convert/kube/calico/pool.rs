//! IPPool: masquerading, and pools that are not exported. Pods get no addresses from pools.

use super::{Common, Object};
use crate::{
    convert::{
        kube::{
            cluster::Cluster,
            object::Book,
            values::{about, inside},
        },
        router::{Keys, append, set},
    },
    net::Prefix,
};

const ADDRESSES: &str = "pods get addresses of the pod CIDRs of their Nodes, not of pools";
const TUNNELS: &str = "routelet has no tunnels: peer with the routers between the subnets";

pub(super) fn convert(objects: &[&Object], cluster: &mut Cluster, common: &mut Common, book: &mut Book) {
    let mut masquerade = Keys::new();
    let mut natted: Vec<bool> = Vec::new();
    for object in objects {
        let spec = object.spec();
        let prefix = spec.text("cidr").and_then(|text| text.parse::<Prefix>().ok());
        match prefix {
            Some(prefix) => {
                append(&mut masquerade, "exclude", [prefix.to_string()]);
                book.differs_key(
                    spec,
                    "cidr",
                    "pods get addresses of the pod CIDRs of their Nodes; the pool is in masquerade.exclude",
                );
            }
            None => book.refuse_key(spec, "cidr", "no prefix"),
        }
        let is_disabled = spec.flag("disabled");
        if !is_disabled {
            natted.push(spec.flag("natOutgoing"));
        }
        if spec.flag("disableBGPExport")
            && let Some(prefix) = prefix
        {
            let mut statement = about(&[inside(prefix)]);
            set(&mut statement, "action", "reject");
            common.rest.insert(0, statement);
        }
        for (key, none) in [("ipipMode", "Never"), ("vxlanMode", "Never")] {
            match spec.text(key) {
                Some(mode) if mode == none => book.unneeded_key(spec, key, "routelet has no tunnels"),
                Some(_) => book.refuse_key(spec, key, TUNNELS),
                None => {}
            }
        }
        for key in ["blockSize", "nodeSelector", "namespaceSelector", "allowedUses", "assignmentMode"] {
            book.refuse_key(spec, key, ADDRESSES);
        }
        spec.text("natOutgoing");
        for key in ["ipip", "nat-outgoing"] {
            book.refuse_key(spec, key, "a field of an earlier API, which Calico ignores");
        }
    }
    match (natted.contains(&true), natted.contains(&false)) {
        (true, true) => {
            set(&mut masquerade, "enabled", false);
            for object in objects {
                book.differs_key(
                    object.spec(),
                    "natOutgoing",
                    "the pools differ, and masquerade.enabled is one for all: it is false",
                );
            }
        }
        (false, false) => {}
        (any, _) => set(&mut masquerade, "enabled", any),
    }
    if !masquerade.is_empty() {
        cluster.router.sections.push(("[masquerade]", masquerade));
    }
}
