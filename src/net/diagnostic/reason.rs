use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How urgent a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Packets are lost, or soon will be.
    Error,
    /// Something works less well than it could, or is about to fail.
    Warning,
    /// Intended, but to be remembered.
    Info,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Defines the enum with its names and severities. `docs/problems.md` has the meaning and the
/// remedy of each.
macro_rules! reasons {
    ($($name:ident $severity:ident,)*) => {
        /// Why something is a problem: a stable name for scripts, alerts and Events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($name,)*
        }

        impl Reason {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }
        }
    };
}

reasons! {
    // The host.
    ForwardingOff Error,
    SysctlConflict Warning,
    SysctlNotRestored Warning,
    StrictReversePathFilter Warning,
    MultipathHashNotSet Warning,
    BridgeNetfilterOff Error,
    RouterAdvertisementsAccepted Warning,
    Ipv6Disabled Error,
    ForwardDropped Error,
    ForwardFiltered Error,
    ForwardUnreadable Warning,
    DirectRoutingDropped Error,
    UnpublishedPortsDropped Error,
    Masqueraded Info,
    PodBgpNotBlocked Warning,
    PodBgpDropped Info,
    RouteNotInstalled Error,
    RouteShadowed Warning,
    RouteBypassed Warning,
    OpenFilesExhausted Error,
    StateNotWritable Error,
    StateOutOfDate Warning,
    ConfigurationDiffers Warning,
    ConfigurationInvalid Warning,
    ConfigurationNotConfirmed Warning,
    ConfigurationOnTrial Info,
    RestartNeeded Warning,
    PortTaken Error,
    OtherBgpDaemon Warning,
    ForeignRoutesManaged Warning,
    ConntrackNearlyFull Warning,
    NeighborTableNearlyFull Warning,
    KernelUnreadable Error,
    DockerUnreachable Warning,
    DockerNetworkMissing Warning,
    DockerNetworkUnusable Warning,
    InterfaceMissing Warning,
    InterfaceWithoutCarrier Info,
    MtuTooLarge Warning,
    PreferredSourceMissing Warning,
    KeyWithoutEffect Info,
    Drained Info,
    StartIncomplete Error,
    TooManyProblems Warning,
    // Neighbors.
    MemoryLimitNear Warning,
    LargePacketsLost Error,
    PrefixLimitNear Warning,
    PrefixLimitExceeded Warning,
    PrefixesRefused Info,
    NextHopUnresolved Warning,
    PrefixesNotAdvertised Warning,
    PrefixesFiltered Info,
    GracefulShutdown Info,
    GracefulRestartOff Info,
    HoldTimeDiffers Info,
    ForeignPrefixes Warning,
    DuplicateSubnet Error,
    AsNumberShared Warning,
    RouterIdShared Warning,
    NeighborNotUsed Error,
    MultihopMissing Error,
    BfdDown Warning,
    BfdNotRunning Error,
    BfdPortTaken Error,
    BfdSessionLimit Warning,
    NeighborDown Error,
    NothingReceived Info,
    NothingAdvertised Warning,
    NeighborIsThisHost Error,
    LocalAddressMissing Error,
    NeighborNotFound Warning,
    PolicyUnknown Error,
    PolicyRequired Error,
    GatewayRefused Warning,
    NoGateway Error,
    Ipv4NotCarried Error,
    // Pods of this node.
    PodBridgeBroken Error,
    PodBridgeConflict Warning,
    PodAddressesExhausted Error,
    LeasesNotCleared Warning,
    PodCidrUnusable Error,
    PodCidrInUse Warning,
    PodCidrFamilyOff Warning,
    PodCidrTooSmall Error,
    NodeInsidePodCidr Warning,
    FormerPodCidrInUse Info,
    FormerPodCidrTaken Error,
    CniPluginMissing Error,
    CniPluginLeftOut Warning,
    CniPluginBroken Warning,
    CniPluginsUnknown Warning,
    CniVersionsDiffer Error,
    ConflistNotWritten Error,
    ConflistWaiting Info,
    ConflistChanged Warning,
    ConflistNotUsed Error,
    // The cluster.
    ApiUnreachable Error,
    ApiForbidden Error,
    NodesBehindDefaultRoute Warning,
    NoInternalIP Error,
    InternalIPNotHere Error,
    InternalIPNotReported Warning,
    AddressClaimed Warning,
    SameInternalIP Warning,
    OverlappingPodCIDR Error,
    NodeAddressInvalid Warning,
    NodeMarkInvalid Warning,
    NodeMarkIgnored Warning,
    NodeExcluded Error,
    NodeDeleted Error,
    NodeIncomplete Warning,
    NodeNotReady Warning,
    NoReflector Error,
    ReflectorsUnreachable Warning,
    NoSession Error,
    ServiceLimit Warning,
    TooManyServices Warning,
    ServiceAddressRefused Warning,
    ServicesNotAdvertised Error,
    ClaimsServiceAddress Warning,
    EndpointsForbidden Warning,
    NotUnderstood Warning,
    Invalid Error,
    MissingSecret Error,
    Duplicate Warning,
    // Of a newer version.
    Unknown Warning,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Self::ALL.iter().copied().find(|r| r.as_str() == name).unwrap_or(Self::Unknown))
    }
}
