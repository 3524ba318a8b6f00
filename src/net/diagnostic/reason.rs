use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How urgent a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
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

/// Defines the enum: by section of `docs/problems.md` the name, the severity, what it means and
/// what helps. The page is written from it.
macro_rules! reasons {
    ($($section:literal: $($name:ident $severity:ident $meaning:literal $remedy:literal,)*)*) => {
        /// Why something is a problem: a stable name for scripts, alerts and Events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($($name,)*)*
        }

        impl Reason {
            pub const ALL: &[Self] = &[$($(Self::$name,)*)*];

            /// All reasons by what they are about.
            pub const SECTIONS: &[(&str, &[Self])] = &[$(($section, &[$(Self::$name,)*]),)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$name => stringify!($name),)*)*
                }
            }

            pub const fn severity(self) -> Severity {
                match self {
                    $($(Self::$name => Severity::$severity,)*)*
                }
            }

            /// What is wrong, in general; a problem has the case at hand.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $($(Self::$name => $meaning,)*)*
                }
            }

            /// What helps, likewise.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $($(Self::$name => $remedy,)*)*
                }
            }
        }
    };
}

reasons! {
    "The host":
    ForwardingOff Error
        "the kernel does not forward packets of containers, and routelet may not or must not switch it on"
        "run the `sysctl` command of the problem on the host",
    SysctlConflict Warning
        "another program keeps changing a sysctl that routelet sets back"
        "find the program or the file of `sysctl.d`, and let it set what routelet needs",
    SysctlNotRestored Warning
        "a sysctl that routelet had changed cannot be set back"
        "run the `sysctl` command of the problem on the host",
    StrictReversePathFilter Warning
        "`rp_filter` is 1 on a host with several uplinks: packets that arrive by another one than the reply would use are dropped"
        "`sysctl -w …rp_filter=2`",
    MultipathHashNotSet Warning
        "`fib_multipath_hash_policy` is 0 on a host with several uplinks and cannot be set to 1"
        "run the `sysctl` command of the problem on the host",
    BridgeNetfilterOff Error
        "bridged packets do not pass iptables: a pod cannot reach a Service whose endpoint is on the same node"
        "`modprobe br_netfilter`, `sysctl -w net.bridge.bridge-nf-call-iptables=1`",
    RouterAdvertisementsAccepted Warning
        "a container can make itself the IPv6 default gateway of this host"
        "`sysctl -w net.ipv6.conf.BRIDGE.accept_ra=0`",
    Ipv6Disabled Error
        "IPv6 is switched off on an interface that IPv6 prefixes need"
        "`sysctl -w net.ipv6.conf.INTERFACE.disable_ipv6=0`",
    ForwardDropped Error
        "the FORWARD policy is DROP in iptables-legacy, which routelet does not change, or with `docker.accept-forwarded = false`"
        "add the ACCEPT rules that the problem names, or let Docker use iptables-nft",
    ForwardFiltered Error
        "a rule or a policy of nftables or iptables drops all packets between an advertised subnet of containers and an uplink, in one direction or both"
        "the `nft list chain` command of the problem shows the rule: remove it, or accept packets to and from the subnet before it; for rules of firewalld the problem has the `firewall-cmd` lines that accept them",
    ForwardUnreadable Warning
        "the FORWARD chain cannot be read or written"
        "give routelet `NET_ADMIN`, or set `accept-forwarded = false` and accept the subnets there",
    DirectRoutingDropped Error
        "Docker drops packets that are routed to its containers, where routelet may not or cannot accept them before"
        "run the command of the problem, or make the network with the gateway mode `nat-unprotected`",
    UnpublishedPortsDropped Error
        "Docker drops packets to ports that are not published, and `docker.accept-forwarded` is false"
        "run the command of the problem, or set `docker.accept-forwarded = true`",
    Masqueraded Info
        "Docker masquerades what leaves an advertised subnet"
        "set `\"ip-masq\": false` if the containers' own addresses are wanted",
    PodBgpNotBlocked Warning
        "containers may open BGP sessions with neighbors in this host's name"
        "nf_tables in the kernel, and `NET_ADMIN`; or `guard.block-pod-bgp = false`",
    PodBgpDropped Info
        "containers tried to reach port 179 of neighbors"
        "find the container; the counters of the nftables table show the direction",
    RouteNotInstalled Error
        "another daemon's route holds the prefix with the same metric"
        "change `fib.metric`, or remove that route",
    RouteShadowed Warning
        "another daemon's route to the same prefix is preferred"
        "remove it, or set `fib.metric` below its metric",
    RouteBypassed Warning
        "a routing rule of the host keeps packets from routelet's table"
        "the `ip rule` command of the problem",
    OpenFilesExhausted Error
        "nearly all file descriptors are used"
        "raise the limit (`LimitNOFILE=`)",
    StateNotWritable Error
        "a file of the state folder cannot be written"
        "free space, or make `state-dir` writable",
    StateOutOfDate Warning
        "a file of the state folder is older than what the last run knew"
        "see that `state-dir` is writable; it is written again by itself",
    ConfigurationDiffers Warning
        "the configuration file differs from what is in force"
        "`routelet reload --dry-run` lists what would change, `routelet reload` applies it",
    ConfigurationInvalid Warning
        "the configuration file has mistakes, so that it is not in force, and a restart would fail"
        "`routelet check` lists them",
    ConfigurationNotConfirmed Warning
        "the file was tried by `reload --confirm` and not confirmed in time: the former configuration is in force"
        "correct the file and run `routelet reload`",
    ConfigurationOnTrial Info
        "the file is tried by `reload --confirm`, and the former configuration returns at the time of the text"
        "`routelet reload confirm` keeps it",
    RestartNeeded Warning
        "keys have new values that take effect at the next start"
        "restart routelet",
    PortTaken Error
        "another process listens on port 179 or on the metrics port"
        "stop the one that the problem names, or change `bgp.listen` or `metrics.listen`",
    OtherBgpDaemon Warning
        "another BGP daemon runs on this host"
        "stop it, or see that the two do not peer with the same neighbors and do not write the same routes",
    ForeignRoutesManaged Warning
        "systemd-networkd runs and removes routes of other programs whenever it starts"
        "`ManageForeignRoutes=no` in networkd.conf",
    BridgeManaged Warning
        "NetworkManager configures a bridge of containers or a port of it, and removes addresses and routes there that its profile does not have"
        "exclude the interfaces by `unmanaged-devices` in NetworkManager.conf",
    ConntrackNearlyFull Warning
        "the table of connections has 90 % of its entries or more"
        "raise `net.netfilter.nf_conntrack_max`",
    NeighborTableNearlyFull Warning
        "the table of ARP or ND entries has 90 % of its entries or more"
        "raise `gc_thresh3`",
    KernelUnreadable Error
        "`doctor` cannot read links and routes"
        "run it as root",
    DockerUnreachable Warning
        "the engine's socket gives no list of networks"
        "start Docker, or correct `docker.socket`",
    DockerNetworkMissing Warning
        "a name of `docker.networks` is not a network of the engine"
        "`docker network create`, or remove the name",
    DockerNetworkUnusable Warning
        "a network of `docker.networks` is internal, or has no bridge"
        "remove it from the list",
    InterfaceMissing Warning
        "a name of `advertise.interfaces` fits no interface"
        "correct the name; the problem lists those that there are",
    InterfaceWithoutCarrier Info
        "a named interface has no carrier, or a bridge no container: its subnet is not advertised"
        "attach something, or `advertise.require-carrier = false`",
    MtuTooLarge Warning
        "the MTU of an advertised bridge is larger than that of an uplink: large packets are lost where ICMP is filtered"
        "lower it, for Docker with `\"mtu\"` in `/etc/docker/daemon.json`",
    PreferredSourceMissing Warning
        "an address of `fib.prefer-source` is not on this host"
        "add it, for instance to `lo`",
    KeyWithoutEffect Info
        "a key of the configuration does nothing here"
        "remove it",
    Drained Info
        "`routelet drain` took this node out of traffic"
        "`routelet undrain`",
    StartIncomplete Error
        "the AS number or the router id is not known yet"
        "set what the problem names",
    TooManyProblems Warning
        "there are more problems than are listed"
        "mend the listed ones first",
    "Neighbors":
    MemoryLimitNear Warning
        "routes take more than 80 % of their memory"
        "more memory, or fewer routes",
    LargePacketsLost Error
        "full TCP segments to or from a neighbor are lost while small ones arrive, so that no UPDATE passes and a hold timer expires"
        "find the MTU of the way with `ping -M do -s SIZE`, and raise it or lower that of both ends; let ICMP errors through",
    PrefixLimitNear Warning
        "a neighbor has sent 75 % or more of `max-prefixes`"
        "let it send fewer, or raise `max-prefixes`",
    PrefixLimitExceeded Warning
        "a neighbor has sent more than `max-prefixes`, and `max-prefixes-action` is `warn`"
        "let it send fewer, or raise `max-prefixes`",
    PrefixesRefused Info
        "routes of a neighbor are refused by the guard, an import policy or a rule of the protocol; the text has the number by reason"
        "the import policy or the key that `show routes --received` names",
    NextHopUnresolved Warning
        "routes of a neighbor are not used because no route, only the default route, or a link that is down leads to their next hop"
        "`next-hop-self` at the neighbor, or a route to the next hop",
    PrefixesNotAdvertised Warning
        "own prefixes are not advertised to a neighbor: no own address as next hop, or the neighbor does not announce their family"
        "an address on the interface of the session, or the family at the neighbor",
    PrefixesFiltered Info
        "own prefixes are rejected by an export policy"
        "the policy that the problem names",
    GracefulShutdown Info
        "the neighbor marks its routes with GRACEFUL_SHUTDOWN (RFC 8326)"
        "none here",
    GracefulRestartOff Info
        "the neighbor does not announce graceful restart: a restart of routelet removes this host's routes there"
        "switch it on there, or `graceful-restart = false`",
    HoldTimeDiffers Info
        "the neighbor's hold time is in force instead of the one that was chosen here, or is 0"
        "set the same at both ends",
    ForeignPrefixes Warning
        "a node advertises prefixes that are not its own"
        "`kubernetes.mesh-accept`, or take the node out of the cluster",
    DuplicateSubnet Error
        "a subnet of this host is advertised by another host, too"
        "give each host a subnet of its own",
    AsNumberShared Warning
        "routes of hosts with this host's AS number are refused as loops"
        "`allow-own-as = 1`, or a number for each host",
    RouterIdShared Warning
        "several neighbors have the same router id and AS, or a neighbor or another router has that of this host"
        "keep one of its addresses, or give each a router id of its own",
    NeighborNotUsed Error
        "no connection to a neighbor, because another one is the same router"
        "remove one of the two",
    MultihopMissing Error
        "a neighbor is behind a router, and packets to it leave with TTL 1"
        "set `multihop`",
    BfdDown Warning
        "a neighbor has a session, but BFD is not up"
        "enable BFD there, let UDP 3784 or 4784 through, or remove `bfd`",
    BfdNotRunning Error
        "BFD cannot run at all"
        "raise the limit that the problem names",
    BfdPortTaken Error
        "a UDP port of BFD cannot be opened"
        "stop the program that has it, or remove `bfd`",
    BfdSessionLimit Warning
        "more neighbors have `bfd` than sessions are possible"
        "remove `bfd` from some",
    NeighborDown Error
        "a configured neighbor has had no session for four seconds; the text has the last error"
        "what the problem names for that error, at this end or the other",
    NothingReceived Info
        "a neighbor has had a session for four seconds and has sent no route, with or without End-of-RIB"
        "its export policy for this host",
    NothingAdvertised Warning
        "there are own prefixes, and none is advertised to the neighbor; the text has the reason"
        "what the problem names for that reason",
    NeighborIsThisHost Error
        "the address of a neighbor is one of this host"
        "correct it; for a second speaker here set its `port`, or `passive`",
    LocalAddressMissing Error
        "`local-address` is on no interface of this host"
        "correct it, or give the host the address",
    NeighborNotFound Warning
        "nobody is found on an interface of an unnumbered neighbor"
        "`show neighbor INTERFACE` has the cause",
    PolicyUnknown Error
        "a neighbor names a policy that does not exist"
        "define it, or correct the name",
    PolicyRequired Error
        "an external neighbor has no policy, and `bgp.require-policy` is set (RFC 8212)"
        "name one, or unset it",
    GatewayRefused Warning
        "a default route leads over an interface of containers: its next hop is no neighbor"
        "remove the route; a real router gets a `[[bgp.neighbor]]`",
    NoGateway Error
        "peering with the gateway, and no default route has a next hop"
        "add one, or set `kubernetes.peering`",
    Ipv4NotCarried Error
        "the only gateway is known by router advertisements, and carries IPv6 alone"
        "set `families` in `[bgp.group.gateway]` where it is to be trusted",
    "Pods of this node":
    PodBridgeBroken Error
        "the pods' bridge lacks something that cannot be put back"
        "the command of the problem",
    PodBridgeConflict Warning
        "another program keeps taking down the pods' bridge or its addresses"
        "find it, and stop it",
    PodAddressesExhausted Error
        "all addresses of a pod CIDR are leased"
        "lower `maxPods`, give the nodes larger pod CIDRs, or drain the node",
    LeasesNotCleared Warning
        "leases of pods that are gone cannot be removed"
        "mount the folder read-write",
    PodCidrUnusable Error
        "the pod CIDR holds the default gateway, the subnet of an uplink, or a node"
        "give the pods a range of their own (`--cluster-cidr`)",
    PodCidrInUse Warning
        "an interface has a subnet or an address of the pod CIDR"
        "remove it, or set `cni.bridge` to take over a bridge",
    PodCidrFamilyOff Warning
        "the host has switched off the family of a pod CIDR"
        "set the sysctl of the problem to 0",
    PodCidrTooSmall Error
        "a pod CIDR has no room for a gateway and a pod"
        "`--node-cidr-mask-size`",
    NodeInsidePodCidr Warning
        "another Node has an address of this node's pod CIDR"
        "correct its InternalIP, or delete the Node",
    FormerPodCidrInUse Info
        "pods still run in a former pod CIDR"
        "delete them to make the move quicker",
    FormerPodCidrTaken Error
        "pods still run in a former pod CIDR that another node has now"
        "delete them",
    CniPluginMissing Error
        "`bridge` or `host-local` is missing: no pod can start"
        "install the CNI plugins",
    CniPluginLeftOut Warning
        "a chained CNI plugin is missing"
        "install it, or remove it from `cni.plugins`",
    CniPluginBroken Warning
        "a CNI plugin does not report its versions"
        "reinstall it",
    CniPluginsUnknown Warning
        "`cni.bin-dir` cannot be read"
        "install the plugins, or mount the folder",
    CniVersionsDiffer Error
        "the CNI plugins have no CNI version in common"
        "install plugins of one release",
    ConflistNotWritten Error
        "the conflist cannot be written"
        "mount the folder read-write, or set `cni.conf-dir`",
    ConflistWaiting Info
        "the conflist is not written yet"
        "what it waits for is in the problem",
    ConflistChanged Warning
        "another program changed or removed the conflist"
        "find it, and stop it",
    ConflistNotUsed Error
        "the container runtime reads another agent's file first"
        "remove that file, or set `cni.file` to a name before it",
    "The cluster":
    ApiUnreachable Error
        "no connection to the API server; what was last known stays in force"
        "see that it runs, and that the credentials are valid",
    ApiForbidden Error
        "the ServiceAccount lacks a right"
        "apply the ClusterRole and its binding of `deploy/daemonset.yaml`",
    NodesBehindDefaultRoute Warning
        "nodes are reached over the default route only"
        "peer with the gateway, or give the nodes a common subnet",
    NoInternalIP Error
        "other nodes cannot reach this one: the Node has no InternalIP"
        "start the kubelet with `--node-ip`",
    InternalIPNotHere Error
        "the InternalIP is on no interface of this host"
        "start the kubelet with `--node-ip`, or give the host the address",
    InternalIPNotReported Warning
        "a Node lost its InternalIP; the last one stays in force"
        "see the kubelet and the cloud controller",
    AddressClaimed Warning
        "another Node has an address of this host"
        "start its kubelet with `--node-ip`, or delete the Node",
    SameInternalIP Warning
        "several Nodes have the same InternalIP"
        "start their kubelets with `--node-ip`",
    OverlappingPodCIDR Error
        "pod CIDRs of two Nodes overlap"
        "delete and re-create the younger Node",
    NodeAddressInvalid Warning
        "an InternalIP is no usable address"
        "start the kubelet with `--node-ip`",
    NodeMarkInvalid Warning
        "a label, an annotation or a pod CIDR of this Node is not understood"
        "correct or remove it",
    NodeMarkIgnored Warning
        "labels and annotations that a kubelet can set are ignored"
        "use the guarded labels, or the admission policy",
    NodeExcluded Error
        "this Node looks like one on which routelet cannot run"
        "correct its labels, annotations or taints",
    NodeDeleted Error
        "the own Node was deleted"
        "restart the kubelet, or stop routelet here",
    NodeIncomplete Warning
        "the own Node was made anew and is not whole"
        "see the kubelet and the cloud controller",
    NodeNotReady Warning
        "there is no Node of this name yet, or it has no address or pod CIDR"
        "`--node-name`, `--node-ip` of the kubelet, `--allocate-node-cidrs`",
    NoReflector Error
        "no Node reflects routes"
        "label two, or set `kubernetes.peering` or `kubernetes.mesh-limit`",
    ReflectorsUnreachable Warning
        "no route reflector can be reached"
        "check whether routelet runs there and TCP 179 is open",
    NoSession Error
        "this node has no BGP session"
        "see that TCP 179 is open between the nodes",
    ServiceLimit Warning
        "more Service addresses than the limits allow"
        "`kubernetes.service-limit`, `service-limit-per-namespace`, `service-aggregates`",
    TooManyServices Warning
        "there are more Services or EndpointSlices than are kept"
        "narrow `kubernetes.service-selector`",
    ServiceAddressRefused Warning
        "the address of a Service is one of a node, a pod or a protected host"
        "give the Service another address",
    ServicesNotAdvertised Error
        "every Node is excluded from load balancers"
        "`kubernetes.ignore-exclude-label = true`, or remove the label",
    ClaimsServiceAddress Warning
        "a Node reports the address of a Service as its own"
        "start its kubelet with `--node-ip`; see who changed it",
    EndpointsForbidden Warning
        "EndpointSlices may not be read"
        "allow the ServiceAccount to list and watch them",
    NotUnderstood Warning
        "an annotation of a Service is not understood or not allowed"
        "correct or remove it",
    Invalid Error
        "a BGPPeer or BGPPolicy cannot be used"
        "correct the object",
    MissingSecret Error
        "the Secret of a BGPPeer is missing"
        "make it, or correct `passwordSecretRef`",
    Duplicate Warning
        "two BGPPeers of this node have the same address"
        "delete one of them",
    "Other versions":
    Unknown Warning
        "the daemon or the state folder is of a newer version, whose reason this one does not know"
        "use the same `routelet` for both",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl JsonSchema for Reason {
    fn schema_name() -> Cow<'static, str> {
        "Reason".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A reason of the page on problems." })
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
