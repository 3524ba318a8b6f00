//! Why an object, or a part of it, has no counterpart.

use super::{
    cluster::{MAX_PEERS, MAX_STATEMENTS},
    selector::MAX_SETS,
};
use crate::config::objects::ObjectError;

/// The text of each is the end of the field's entry in the report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// A field whose value is not of its type.
    #[error("{field} is {expected}")]
    Malformed { field: &'static str, expected: &'static str },
    #[error("`{value}` is no {expected}")]
    Value { value: String, expected: &'static str },
    /// A field with a value whose meaning is unknown.
    #[error("{0} is not known")]
    UnknownField(&'static str),
    #[error("{what} `{value}` is not known")]
    Unknown { what: &'static str, value: String },
    #[error("addresses of kind `{0}` are not known")]
    AddressKind(String),
    #[error("its {kind} {name} is not in the input")]
    NotInInput { kind: &'static str, name: String },
    #[error("the community `{0}` is not known; routes without it might be passed on")]
    UnknownCommunity(String),

    #[error("localASN is missing, or no AS number that routelet takes")]
    NoLocalAs,
    #[error("{0}")]
    Lacks(Lack),
    #[error("its selectors may select the same Node twice; select by one label")]
    OverlappingSelectors,
    #[error("its selectors have more than {MAX_SETS} combinations of labels")]
    ManyLabels,
    #[error("its selector has none or more than {MAX_SETS} combinations of labels")]
    NoneOrManyLabels,
    #[error("its selector selects no Node")]
    SelectsNothing,
    #[error(
        "nodeSelector of a BGPPeer has labels with one value each: `{0}` has no counterpart; label the Nodes"
    )]
    NodeSelector(String),
    #[error("names and namespaces of Services are no labels to routelet: label the Services")]
    ServiceName,
    #[error("{0}")]
    Selector(String),
    #[error("its policy has more than {MAX_STATEMENTS} statements")]
    ManyStatements,
    #[error("there are more than {MAX_PEERS} BGPPeer objects; convert them in parts")]
    ManyPeers,
    #[error("a Node may have {0} with the same address; a node has one session with an address")]
    SameAddress(String),
    #[error("it expands to too many prefixes")]
    ManyPrefixes,
    #[error(transparent)]
    Object(#[from] ObjectError),

    #[error("{0}")]
    NoCounterpart(NoCounterpart),
    #[error("`{0}` has no counterpart")]
    Key(String),
    #[error("prefixLength.{0} is no length")]
    PrefixLength(&'static str),
}

/// Something that an object requires and does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lack {
    #[error("it has neither peerAddress nor interface")]
    AddressOrInterface,
    #[error("it has no peerAddress")]
    Address,
    #[error("it needs one of peerASN and dynamicASN")]
    RemoteAs,
    #[error("autoDiscovery has no interface")]
    Interface,
    #[error("its password has no secretKeyRef")]
    SecretReference,
    #[error("its Secret has no name")]
    SecretName,
    #[error("it has no service")]
    Service,
    #[error("it has no selector, and so selects no Service")]
    Selector,
    #[error("it has no addresses")]
    Addresses,
    #[error("communities does not have exactly one community")]
    Community,
    #[error("matchOperator without cidr")]
    Cidr,
    #[error("no rule")]
    Rule,
}

/// A feature that routelet does not have, and its replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoCounterpart {
    #[error("routelet has no VRFs")]
    Vrf,
    #[error("an advertisement applies to all Nodes of its neighbors: select the Nodes in the BGPPeer")]
    NodesOfAdvertisement,
    #[error("{}", super::calico::MESH_OF_NODES)]
    MeshOfNodes,
    #[error("routelet has no sessions with pods by selector")]
    SessionsWithPods,
    #[error("routelet advertises aggregates to all neighbors alike, see kubernetes.service-aggregates")]
    AggregateOfNeighbor,
    #[error("routelet knows no CiliumPodIPPool: pods have the pod CIDRs of Nodes")]
    PodPool,
    #[error(
        "name the interface in advertise.interfaces, and accept source interface in the export policies of the neighbors"
    )]
    AdvertisedInterface,
    #[error(
        "it selects other Services or addresses than the first one: routelet selects Services by \
         kubernetes.services and kubernetes.service-selector, once for all neighbors"
    )]
    OtherServices,
    #[error(
        "a BGPPeer with address gateway follows default routes of both families: write one if the Nodes have them in this \
         family only"
    )]
    GatewayOfFamily,
    #[error("its source would be an address of sourceInterface: write a BGPPeer with localAddress")]
    SourceInterface,
    #[error("routelet only has IPv4 and IPv6 unicast")]
    Families,
    #[error("an operation other than addCommunity has no counterpart")]
    Operation,
    #[error("prefixLength with Equal has no counterpart")]
    LengthBesideEqual,
}

impl From<Lack> for Unfit {
    fn from(lack: Lack) -> Self {
        Self::Lacks(lack)
    }
}

impl From<NoCounterpart> for Unfit {
    fn from(what: NoCounterpart) -> Self {
        Self::NoCounterpart(what)
    }
}

/// A field is no such value.
pub(super) const fn malformed(field: &'static str, expected: &'static str) -> Unfit {
    Unfit::Malformed { field, expected }
}
