//! CiliumBGPAdvertisement: the routes that neighbors get, as export policies.

use super::{Book, Keys, Labels, Node, Object, append, session::family, set};
use crate::convert::kube::unfit::{Lack, NoCounterpart, Unfit};
use crate::convert::kube::{cluster::decide, selector, values::community};

/// All advertisements.
#[derive(Debug, Default)]
pub(super) struct Adverts {
    list: Vec<Advert>,
    /// The advertised Services: those of the first advertisement that selects Services.
    services: Option<Services>,
    pod_cidrs: bool,
}

/// The selected addresses of the selected Services.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Services {
    pub(super) kinds: Vec<&'static str>,
    pub(super) selector: String,
}

/// One entry of an object that has a counterpart.
#[derive(Debug)]
struct Advert {
    /// Labels of the object.
    labels: Labels,
    source: &'static str,
    /// Communities and LOCAL_PREF.
    attributes: Keys,
}

impl Adverts {
    pub(super) fn read(&mut self, object: &Object, book: &mut Book) {
        for node in object.spec().list("advertisements") {
            match self.entry(node, book) {
                Ok((source, attributes)) => {
                    self.list.push(Advert { labels: object.labels.clone(), source, attributes });
                }
                Err(why) => book.refuse(node, &format!("the advertisement is left out: {why}")),
            }
        }
    }

    fn entry(&mut self, node: &Node, book: &mut Book) -> Result<(&'static str, Keys), Unfit> {
        let attributes = match node.get("attributes") {
            Some(attributes) => attributes_of(attributes)?,
            None => Keys::new(),
        };
        match node.text("advertisementType") {
            Some("PodCIDR") => {
                self.pod_cidrs = true;
                book.unneeded_key(node, "selector", "the pod CIDRs of a Node are not selected by labels");
                Ok(("pod-cidr", attributes))
            }
            Some("Service") => {
                let service = node.get("service").ok_or(Lack::Service)?;
                if ["aggregationLengthIPv4", "aggregationLengthIPv6"].iter().any(|k| service.get(k).is_some())
                {
                    return Err(NoCounterpart::AggregateOfNeighbor.into());
                }
                let wanted = services(node.get("selector"), &service.texts("addresses"))?;
                self.take_services(wanted)?;
                Ok(("service", attributes))
            }
            Some("CiliumPodIPPool") => Err(NoCounterpart::PodPool.into()),
            Some("Interface") => Err(NoCounterpart::AdvertisedInterface.into()),
            _ => Err(Unfit::UnknownField("advertisementType")),
        }
    }

    /// Sets the Services, which are selected once for all neighbors.
    pub(super) fn take_services(&mut self, wanted: Services) -> Result<(), Unfit> {
        match &self.services {
            Some(known) if *known != wanted => Err(NoCounterpart::OtherServices.into()),
            _ => {
                self.services = Some(wanted);
                Ok(())
            }
        }
    }

    pub(super) fn take_pod_cidrs(&mut self) {
        self.pod_cidrs = true;
    }

    pub(super) fn has_pod_cidrs(&self) -> bool {
        self.pod_cidrs
    }

    /// The keys of `[kubernetes]`.
    pub(super) fn services(&self, kubernetes: &mut Keys) {
        match &self.services {
            Some(Services { kinds, selector }) => {
                append(kubernetes, "services", kinds.iter().copied());
                set(kubernetes, "service-selector", selector.as_str());
            }
            None => append(kubernetes, "services", [""; 0]),
        }
    }

    /// The export policy of a neighbor with this CiliumBGPPeerConfig.
    pub(super) fn exports(&self, config: Option<&Node>) -> Result<Vec<Keys>, Unfit> {
        let (mut attributes, mut accepts): (Vec<(u64, Keys)>, Vec<Keys>) = (Vec::new(), Vec::new());
        for node in config.map(|c| c.list("families")).unwrap_or_default() {
            let (Some(family), Some(selector)) = (family(node), node.get("advertisements")) else { continue };
            for advert in &self.list {
                if !selector::matches(selector, &advert.labels)? {
                    continue;
                }
                let mut of_it = Keys::new();
                append(&mut of_it, "families", [family]);
                append(&mut of_it, "source", [advert.source]);
                let mut accept = of_it.clone();
                set(&mut accept, "action", "accept");
                if !accepts.contains(&accept) {
                    accepts.push(accept);
                }
                if !advert.attributes.is_empty() {
                    of_it.extend(advert.attributes.clone());
                    let rank = advert.attributes.get("set-local-pref").and_then(serde_json::Value::as_u64);
                    attributes.push((rank.unwrap_or_default(), of_it));
                }
            }
        }
        // The last matching statement sets LOCAL_PREF: the highest one, as in Cilium.
        attributes.sort_by_key(|(rank, _)| *rank);
        let mut statements: Vec<Keys> = attributes.into_iter().map(|(_, keys)| keys).collect();
        statements.append(&mut accepts);
        statements.push(decide("reject"));
        Ok(statements)
    }
}

/// The Services of a `selector`; without one, no Service is selected.
pub(super) fn services(selector: Option<&Node>, addresses: &[&str]) -> Result<Services, Unfit> {
    let selector = selector.ok_or(Lack::Selector)?;
    let selector = selector::text(selector)?;
    let mut kinds = Vec::new();
    for address in addresses {
        kinds.push(match *address {
            "LoadBalancerIP" => "load-balancer-ip",
            "ClusterIP" => "cluster-ip",
            "ExternalIP" => "external-ip",
            other => return Err(Unfit::AddressKind((*other).to_owned())),
        });
    }
    if kinds.is_empty() {
        return Err(Lack::Addresses.into());
    }
    kinds.sort_unstable();
    kinds.dedup();
    Ok(Services { kinds, selector })
}

/// Communities and LOCAL_PREF. An unknown community excludes the advertisement: without it the
/// routes might be passed on.
pub(super) fn attributes_of(node: &Node) -> Result<Keys, Unfit> {
    let mut keys = Keys::new();
    if let Some(communities) = node.get("communities") {
        for key in ["standard", "wellKnown", "large"] {
            for text in communities.texts(key) {
                let value = match text {
                    "internet" => "0:0".to_owned(),
                    "route-filter-translated-v4" => "65535:2".to_owned(),
                    "route-filter-v4" => "65535:3".to_owned(),
                    "route-filter-translated-v6" => "65535:4".to_owned(),
                    "route-filter-v6" => "65535:5".to_owned(),
                    other => community(other)
                        .ok_or_else(|| Unfit::Unknown { what: "the community", value: other.to_owned() })?,
                };
                append(&mut keys, "add-communities", [value]);
            }
        }
    }
    if let Some(text) = node.text("localPreference") {
        let value: u32 =
            text.parse().map_err(|_| Unfit::Value { value: text.to_owned(), expected: "LOCAL_PREF" })?;
        set(&mut keys, "set-local-pref", value);
    }
    Ok(keys)
}
