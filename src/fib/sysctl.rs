//! The host's sysctls: which ones routelet sets and in which order, and which ones it only reports.
//! Pure.
//!
//! Four kinds are set, and only while this host forwards packets for containers: global
//! forwarding, forwarding on the interfaces concerned (uplinks and container bridges), the
//! multipath hash policy, and, before IPv6 forwarding is enabled, `accept_ra` from 1 to 2. An
//! interface that forwards ignores router advertisements unless its `accept_ra` is 2, and enabling
//! `all.forwarding` removes the default routes that were learned from advertisements. An interface
//! that would lose its default route or address is therefore set to 2 first. One on which
//! forwarding was already enabled ignores advertisements anyway and is left alone; 0 and 2 are the
//! operator's choice and are left alone too.
//!
//! Writing `all.forwarding` overwrites the value of every interface. Interfaces of no concern on
//! which forwarding was disabled are disabled again.
//!
//! A host with several uplinks balances over them by addresses and ports: the multipath hash policy
//! is set from 0, the kernel's default, which looks at addresses only, to 1. Any other value is the
//! operator's choice.
//!
//! Changes are kept in a [`Record`] for the duration of this boot, as a reboot restores the host's
//! own values. `cleanup` reverts them in reverse order where the value is still the one that
//! routelet wrote.
//!
//! rp_filter, br_netfilter and disable_ipv6 are deliberately not set. They may be somebody's
//! decision, so they are reported with a remedy.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::{Diagnostic, Family, Reason, Subject};

/// What forwarding requires of the host, by interface name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Families that are forwarded here, now or as soon as there is a container.
    pub families: BTreeSet<Family>,
    /// The families of them that already have prefixes.
    pub in_use: BTreeSet<Family>,
    /// Interfaces with a default route or a neighbor.
    pub uplinks: BTreeSet<String>,
    /// Container bridges: that of pods, and advertised ones.
    pub bridges: BTreeSet<String>,
    /// veth ports of bridges. They originate no packets, so their values have no effect.
    pub ports: BTreeSet<String>,
    /// The pods' bridge, if routelet's conflist creates it, whether it exists or not.
    pub pods_bridge: Option<String>,
    /// Bridges of containers that other programs run.
    pub container_bridges: BTreeSet<String>,
    /// Whether pods reach Services over a bridge.
    pub services: bool,
}

/// The values read, with keys as sysctl(8) writes them: a slash stands for a dot in an interface
/// name. Keys that the kernel does not have are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub values: BTreeMap<String, String>,
    /// Interfaces with IPv4 or IPv6 settings, as sysctl(8) writes them.
    pub interfaces: BTreeSet<String>,
    /// Whether kube-proxy listens on this host.
    pub kube_proxy: bool,
}

/// One value to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub old: String,
    pub new: &'static str,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Must succeed before IPv6 forwarding is enabled.
    KeepAdvertisements,
    Forward(Family),
    /// No router is behind the pods' bridge.
    IgnoreAdvertisements,
    /// Flows between the same hosts are spread over several uplinks.
    Balance,
    /// Disables forwarding again on an interface of no concern, after it was enabled on all.
    GiveBack(Family),
}

/// The values changed in this boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    boot: String,
    changes: Vec<Change>,
}

/// One value that was changed.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[schemars(rename = "SysctlChange")]
pub struct Change {
    /// Name of the sysctl.
    pub key: String,
    /// The value before routelet first wrote it.
    pub old: String,
    /// Its value now.
    pub new: String,
}

/// Limit of recorded changes, more than hosts have interfaces. Beyond it nothing more is changed.
const MAX_CHANGES: usize = 8192;

/// The key that enables forwarding of a family on all interfaces.
pub fn forwarding_key(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "net.ipv4.ip_forward",
        Family::Ipv6Unicast => "net.ipv6.conf.all.forwarding",
    }
}

/// The key that decides by what packets are spread over several next hops.
pub fn hash_policy_key(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "net.ipv4.fib_multipath_hash_policy",
        Family::Ipv6Unicast => "net.ipv6.fib_multipath_hash_policy",
    }
}

/// The key of one interface's setting.
pub fn interface_key(family: Family, interface: &str, name: &str) -> String {
    let family = match family {
        Family::Ipv4Unicast => "ipv4",
        Family::Ipv6Unicast => "ipv6",
    };
    format!("net.{family}.conf.{interface}.{name}")
}

/// An interface name as sysctl(8) writes it.
pub fn escaped(interface: &str) -> String {
    interface.replace('.', "/")
}

impl Needs {
    /// Interfaces that must forward.
    fn concerned(&self) -> impl Iterator<Item = String> + '_ {
        self.uplinks.iter().chain(&self.bridges).map(|name| escaped(name))
    }

    fn is_bridge(&self, interface: &str) -> bool {
        self.bridges.iter().any(|b| escaped(b) == interface)
    }

    fn has_containers(&self, interface: &str) -> bool {
        self.pods_bridge.iter().chain(&self.container_bridges).any(|b| escaped(b) == interface)
    }

    fn is_port(&self, interface: &str) -> bool {
        self.ports.iter().any(|p| escaped(p) == interface)
    }
}

impl Seen {
    fn is(&self, key: &str, value: &str) -> bool {
        self.values.get(key).is_some_and(|v| v == value)
    }

    fn number(&self, key: &str) -> u32 {
        self.values.get(key).and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}

/// The values to write now, in this order. `off`: keys of interfaces on which forwarding was
/// disabled while it was enabled globally, from [`switched_off`].
pub fn writes(needs: &Needs, seen: &Seen, record: &Record, off: &BTreeSet<String>) -> Vec<Write> {
    let ignored = ignore_advertisements(needs, seen).into_iter();
    ignored
        .chain(needs.families.iter().flat_map(|family| writes_of(*family, needs, seen, record, off)))
        .chain(needs.families.iter().filter_map(|family| balance(*family, needs, seen)))
        .collect()
}

fn balance(family: Family, needs: &Needs, seen: &Seen) -> Option<Write> {
    let key = hash_policy_key(family);
    let is_default = needs.uplinks.len() > 1 && seen.is(key, "0");
    is_default.then(|| Write { key: key.to_owned(), old: "0".into(), new: "1", why: Why::Balance })
}

fn writes_of(
    family: Family,
    needs: &Needs,
    seen: &Seen,
    record: &Record,
    off: &BTreeSet<String>,
) -> Vec<Write> {
    let key = forwarding_key(family);
    let all_off = seen.is(key, "0");
    let forward = |key: String| Write { key, old: "0".into(), new: "1", why: Why::Forward(family) };
    let closed: Vec<_> = needs
        .concerned()
        .filter(|i| !all_off && seen.is(&interface_key(family, i, "forwarding"), "0"))
        .collect();
    let mut writes = Vec::new();
    if family == Family::Ipv6Unicast {
        let whole = all_off || record.has(key);
        writes.extend(keep_advertisements(needs, seen, |i| whole || closed.iter().any(|c| c == i)));
    }
    if all_off {
        writes.push(forward(key.to_owned()));
        let concerned: BTreeSet<_> = needs.concerned().collect();
        let keys = seen.interfaces.iter().filter(|i| !concerned.contains(*i));
        let keys = keys.map(|i| interface_key(family, i, "forwarding")).filter(|key| off.contains(key));
        writes.extend(keys.map(|key| Write { key, old: "1".into(), new: "0", why: Why::GiveBack(family) }));
    }
    writes.extend(closed.into_iter().map(|i| forward(interface_key(family, &i, "forwarding"))));
    writes
}

/// Sets `accept_ra` of the pods' bridge to 0, before anything else: a pod could make itself the
/// host's default gateway by an advertisement (CVE-2020-10749). A bridge that is created again
/// starts with the default of new interfaces.
fn ignore_advertisements(needs: &Needs, seen: &Seen) -> Option<Write> {
    let key = interface_key(Family::Ipv6Unicast, &escaped(needs.pods_bridge.as_ref()?), "accept_ra");
    let old = seen.values.get(&key).filter(|v| *v != "0")?.clone();
    Some(Write { key, old, new: "0", why: Why::IgnoreAdvertisements })
}

/// Sets `accept_ra` from 1 to 2, first for new interfaces, so that one that appears meanwhile has
/// it already.
///
/// Container bridges are left out: any container could make itself the host's default gateway by an
/// advertisement. The `bridge` CNI plugin and Docker disable it there themselves.
fn keep_advertisements(needs: &Needs, seen: &Seen, is_affected: impl Fn(&str) -> bool) -> Vec<Write> {
    let interfaces = seen.interfaces.iter().map(String::as_str);
    let interfaces =
        interfaces.filter(|i| !needs.is_bridge(i) && !needs.is_port(i) && !needs.has_containers(i));
    let affected = std::iter::once("default").chain(interfaces).filter(|i| is_affected(i));
    affected
        .map(|i| interface_key(Family::Ipv6Unicast, i, "accept_ra"))
        .filter(|key| seen.is(key, "1"))
        .map(|key| Write { key, old: "1".into(), new: "2", why: Why::KeepAdvertisements })
        .collect()
}

/// The keys of interfaces on which forwarding is disabled, if it is enabled globally for the
/// family. While it is globally disabled this cannot be determined (`None`), and the last result
/// remains valid.
pub fn switched_off(seen: &Seen, family: Family) -> Option<BTreeSet<String>> {
    let on = seen.values.get(forwarding_key(family)).is_some_and(|v| v != "0");
    let keys = seen.interfaces.iter().map(|i| interface_key(family, i, "forwarding"));
    on.then(|| keys.filter(|key| seen.is(key, "0")).collect())
}

impl Record {
    pub fn new(boot: &str) -> Self {
        Self { boot: boot.to_owned(), changes: Vec::new() }
    }

    /// Whether the record was written in this boot.
    pub fn is_of(&self, boot: &str) -> bool {
        self.boot == boot
    }

    pub fn has(&self, key: &str) -> bool {
        self.changes.iter().any(|c| c.key == key)
    }

    /// The values that differ from before.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether another change can be recorded.
    pub fn has_room(&self) -> bool {
        self.changes.len() < MAX_CHANGES
    }

    /// Records a value that is about to be written.
    pub fn note(&mut self, write: &Write) {
        if matches!(write.why, Why::GiveBack(_)) || self.has(&write.key) || !self.has_room() {
            return;
        }
        self.changes.push(Change {
            key: write.key.clone(),
            old: write.old.clone(),
            new: write.new.to_owned(),
        });
    }

    /// Drops settings of interfaces that are gone. A renamed interface keeps its values: `names`
    /// has its former and present name.
    pub fn follow(&mut self, interfaces: &BTreeSet<String>, names: &[(String, String)]) {
        for (old, new) in names {
            let (old, new) = (format!(".conf.{}.", escaped(old)), format!(".conf.{}.", escaped(new)));
            self.changes.iter_mut().for_each(|c| c.key = c.key.replace(&old, &new));
        }
        self.changes.retain(|c| interface_of(&c.key).is_none_or(|i| interfaces.contains(i)));
    }

    /// The changes to revert. Forwarding comes first, so that no default route is lost when
    /// `accept_ra` follows.
    pub fn undo(&self) -> Vec<Change> {
        let place = |c: &&Change| match () {
            () if !c.key.contains(".conf.") || c.key.contains(".conf.all.") => 0,
            () if c.key.ends_with(".forwarding") => 1,
            () => 2,
        };
        let mut changes: Vec<_> = self.changes.iter().collect();
        changes.sort_by_key(place);
        changes.into_iter().cloned().collect()
    }
}

/// The interface of a key; `None` for `all`, `default` and global keys.
pub fn interface_of(key: &str) -> Option<&str> {
    let rest = key.split_once(".conf.")?.1;
    let (interface, _) = rest.rsplit_once('.')?;
    (interface != "all" && interface != "default").then_some(interface)
}

/// Limits how often each setting is corrected, so that a setting that another program keeps
/// changing is not rewritten without end.
#[derive(Debug, Default)]
pub struct Mends {
    /// Settings that were correct before, and when they were corrected within the last minute.
    known: BTreeMap<String, Vec<Instant>>,
}

/// Number of corrections within [`CONFLICT_WINDOW`] that are attributed to a restart of another
/// program.
const CONFLICT_MIN: usize = 5;
const CONFLICT_WINDOW: Duration = Duration::from_secs(60);
/// Time between corrections while another program keeps changing the setting.
const CONFLICT_INTERVAL: Duration = Duration::from_secs(15);

impl Mends {
    /// Whether a wrong setting may be written now.
    pub fn may(&self, now: Instant, key: &str) -> bool {
        let Some(times) = self.known.get(key) else { return true };
        !is_conflict(now, times)
            || times.last().is_none_or(|last| now.duration_since(*last) >= CONFLICT_INTERVAL)
    }

    /// Records a write, and returns whether it corrected a setting that had been correct before.
    pub fn written(&mut self, now: Instant, key: &str) -> bool {
        let Some(times) = self.known.get_mut(key) else {
            self.known.insert(key.to_owned(), Vec::new());
            return false;
        };
        times.retain(|at| now.duration_since(*at) < CONFLICT_WINDOW);
        times.push(now);
        true
    }

    /// Drops settings of interfaces that are gone.
    pub fn retain(&mut self, interfaces: &BTreeSet<String>) {
        self.known.retain(|key, _| interface_of(key).is_none_or(|i| interfaces.contains(i)));
    }

    /// The settings that another program keeps changing.
    pub fn problems(&self, now: Instant) -> Vec<Diagnostic> {
        let conflicts = self.known.iter().filter(|(_, times)| is_conflict(now, times));
        conflicts
            .map(|(key, times)| {
                Diagnostic::new(
                    Reason::SysctlConflict,
                    Subject::sysctl(key),
                    format!(
                        "{key}: something on this host keeps changing it, and routelet has set it back {} \
                         times within a minute",
                        times.len()
                    ),
                    "look for a program or a file of sysctl.d that sets it, and let it set what routelet needs",
                )
            })
            .collect()
    }
}

fn is_conflict(now: Instant, times: &[Instant]) -> bool {
    times.iter().filter(|at| now.duration_since(**at) < CONFLICT_WINDOW).count() >= CONFLICT_MIN
}

/// Settings that cause packet loss, each with its remedy. None of them is changed.
pub fn problems(needs: &Needs, seen: &Seen) -> Vec<Diagnostic> {
    let strict = strict_filter(needs, seen);
    let bridged = bridged_services(needs, seen);
    let advertised = accepted_advertisements(needs, seen);
    strict.into_iter().chain(bridged).chain(switched_off_families(needs, seen)).chain(advertised).collect()
}

/// RFC 3704 §2.2: strict filtering suits hosts with one uplink. The kernel uses the larger value of
/// `all` and the interface.
fn strict_filter(needs: &Needs, seen: &Seen) -> Option<Diagnostic> {
    if needs.uplinks.len() < 2 || !needs.families.contains(&Family::Ipv4Unicast) {
        return None;
    }
    let of = |interface: &str| interface_key(Family::Ipv4Unicast, interface, "rp_filter");
    let all = seen.number(&of("all"));
    let keys = needs.uplinks.iter().map(|name| of(&escaped(name)));
    let strict: Vec<_> = keys.filter(|key| all.max(seen.number(key)) == 1).collect();
    let settings: Vec<_> = strict.iter().map(|key| format!("{key}=2")).collect();
    (!strict.is_empty()).then(|| {
        Diagnostic::new(
            Reason::StrictReversePathFilter,
            Subject::sysctl(strict.join(", ")),
            format!(
                "{}: reverse path filtering is strict (1) on a host with {} uplinks, which drops packets that \
                 come in by another one than the reply would use",
                strict.join(", "),
                needs.uplinks.len()
            ),
            format!("run `sysctl -w {}`", settings.join(" ")),
        )
    })
}

/// A reply from a Service endpoint on the same bridge returns over the bridge only: kube-proxy's
/// translation is reversed only if the bridge passes packets to iptables.
fn bridged_services(needs: &Needs, seen: &Seen) -> Vec<Diagnostic> {
    let check = |family: &Family| {
        let key = match family {
            Family::Ipv4Unicast => "net.bridge.bridge-nf-call-iptables",
            Family::Ipv6Unicast => "net.bridge.bridge-nf-call-ip6tables",
        };
        let why = "a pod cannot reach a Service whose endpoint is on the same node";
        let problem = |text, remedy: &str| {
            Some(Diagnostic::new(Reason::BridgeNetfilterOff, Subject::sysctl(key), text, remedy))
        };
        match seen.values.get(key) {
            Some(value) if value == "0" => {
                problem(format!("{key}: is 0, so {why}"), &format!("run `sysctl -w {key}=1`"))
            }
            None if seen.kube_proxy && *family == Family::Ipv4Unicast => problem(
                format!("{key}: the kernel module br_netfilter is not loaded, so {why}"),
                "run `modprobe br_netfilter`, and name it in /etc/modules-load.d",
            ),
            _ => None,
        }
    };
    needs.in_use.iter().filter(|_| needs.services).filter_map(check).collect()
}

/// Bridges of others on which the kernel takes router advertisements: with 2, or with 1 where it
/// does not forward.
fn accepted_advertisements(needs: &Needs, seen: &Seen) -> Vec<Diagnostic> {
    let of = |bridge: &str, name: &str| interface_key(Family::Ipv6Unicast, &escaped(bridge), name);
    let is_heeded = |bridge: &&String| match seen.number(&of(bridge, "accept_ra")) {
        0 => false,
        1 => seen.is(&of(bridge, "forwarding"), "0"),
        _ => true,
    };
    let is_on = |bridge: &&String| !seen.is(&of(bridge, "disable_ipv6"), "1");
    let bridges = needs.container_bridges.iter().filter(is_heeded).filter(is_on);
    bridges
        .map(|bridge| {
            let key = of(bridge, "accept_ra");
            Diagnostic::new(
                Reason::RouterAdvertisementsAccepted,
                Subject::sysctl(&key),
                format!(
                    "{key}: router advertisements are accepted on {bridge}, a bridge of containers: any \
                     container there can make itself the IPv6 default gateway of this host"
                ),
                format!("run `sysctl -w {key}=0`"),
            )
        })
        .collect()
}

fn switched_off_families(needs: &Needs, seen: &Seen) -> Vec<Diagnostic> {
    let used = needs.in_use.contains(&Family::Ipv6Unicast);
    let interfaces = needs.concerned().filter(|_| used).collect::<BTreeSet<_>>();
    let keys = interfaces.iter().map(|i| interface_key(Family::Ipv6Unicast, i, "disable_ipv6"));
    keys.filter(|key| seen.is(key, "1"))
        .map(|key| {
            Diagnostic::new(
                Reason::Ipv6Disabled,
                Subject::sysctl(&key),
                format!("{key}: IPv6 is switched off on an interface that IPv6 prefixes of this node need"),
                format!("run `sysctl -w {key}=0`, or use IPv4 alone"),
            )
        })
        .collect()
}

/// The problem to report for a value that could not be written. `why` is the kernel's error.
pub fn refusal(write: &Write, why: &str) -> Diagnostic {
    let Write { key, old, new, .. } = write;
    let (reason, effect) = match write.why {
        Why::KeepAdvertisements => (
            Reason::ForwardingOff,
            "IPv6 forwarding stays off, as it would take away the default route and the addresses that came \
             by router advertisement",
        ),
        Why::Forward(_) => (Reason::ForwardingOff, "packets of containers are not forwarded"),
        Why::IgnoreAdvertisements => (
            Reason::RouterAdvertisementsAccepted,
            "a pod can make itself the IPv6 default gateway of this host",
        ),
        Why::Balance => {
            (Reason::MultipathHashNotSet, "all flows between the same two hosts share one uplink")
        }
        Why::GiveBack(_) => (Reason::SysctlNotRestored, "forwarding stays on there, where it was off before"),
    };
    Diagnostic::new(
        reason,
        Subject::sysctl(key),
        format!("{key}: is {old} and may not be set here ({why}): {effect}"),
        format!("run `sysctl -w {key}={new}` on the host"),
    )
}

/// The problem to report for forwarding that stays disabled because `accept_ra` could not be set.
pub fn left_off(key: &str) -> Diagnostic {
    Diagnostic::new(
        Reason::ForwardingOff,
        Subject::sysctl(key),
        format!("{key}: left at 0, as the host would lose what it has by router advertisement"),
        format!("set accept_ra to 2 where it is 1, then run `sysctl -w {key}=1`"),
    )
}

/// The problem to report for a family that the kernel lacks.
pub fn missing(family: Family) -> Diagnostic {
    let key = forwarding_key(family);
    Diagnostic::new(
        Reason::ForwardingOff,
        Subject::sysctl(key),
        format!("{key}: this kernel has no such setting: {family} is switched off"),
        format!("use a kernel with {family}, or use the other family alone"),
    )
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    const V6: &str = "net.ipv6.conf.all.forwarding";

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn needs() -> Needs {
        Needs {
            families: Family::ALL.into(),
            in_use: Family::ALL.into(),
            uplinks: names(&["eth0.5"]),
            bridges: names(&["docker0"]),
            ports: names(&["veth1"]),
            services: false,
            ..Needs::default()
        }
    }

    fn seen(values: &[(&str, &str)]) -> Seen {
        let values: BTreeMap<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let interfaces = values.keys().filter_map(|k| interface_of(k)).map(str::to_owned).collect();
        Seen { values, interfaces, kube_proxy: false }
    }

    fn keys(writes: &[Write]) -> Vec<String> {
        writes.iter().map(|w| format!("{}={}", w.key, w.new)).collect()
    }

    #[test]
    fn several_uplinks_are_balanced_by_ports_unless_the_operator_chose_otherwise() {
        let record = Record::new("boot");
        let written = |uplinks: &[&str], policy: &str| {
            let needs = Needs { uplinks: names(uplinks), ..needs() };
            let seen = seen(&Family::ALL.map(|f| (hash_policy_key(f), policy)));
            keys(&writes(&needs, &seen, &record, &BTreeSet::new()))
        };
        let both = ["net.ipv4.fib_multipath_hash_policy=1", "net.ipv6.fib_multipath_hash_policy=1"];
        assert_eq!(written(&["eth0", "eth1"], "0"), both);
        for (uplinks, policy) in [(&["eth0"][..], "0"), (&["eth0", "eth1"], "2"), (&["eth0", "eth1"], "1")] {
            assert!(written(uplinks, policy).is_empty(), "{uplinks:?} {policy}");
        }
    }

    #[test]
    fn router_advertisements_on_bridges_of_containers_are_ignored_or_named() {
        let needs = |families: &[Family]| Needs {
            families: families.iter().copied().collect(),
            uplinks: names(&["eth0"]),
            pods_bridge: Some("routelet0".into()),
            container_bridges: names(&["docker0", "br-1.2"]),
            ..Needs::default()
        };
        let bridges = |ra: &str, forwarding: &str, off: &str| {
            let mut seen =
                Seen { interfaces: names(&["eth0", "routelet0", "docker0", "br-1/2"]), ..Seen::default() };
            let mut set = |key: String, value: &str| drop(seen.values.insert(key, value.into()));
            set(V6.into(), "0");
            set("net.ipv6.conf.eth0.accept_ra".into(), "1");
            for bridge in ["routelet0", "docker0", "br-1/2"] {
                set(format!("net.ipv6.conf.{bridge}.accept_ra"), ra);
                set(format!("net.ipv6.conf.{bridge}.forwarding"), forwarding);
                set(format!("net.ipv6.conf.{bridge}.disable_ipv6"), off);
            }
            seen
        };
        let record = Record::new("boot");
        for (families, ra) in
            [(&[][..], "1"), (&[Family::Ipv4Unicast], "2"), (&Family::ALL, "1"), (&Family::ALL, "2")]
        {
            let all = writes(&needs(families), &bridges(ra, "0", "0"), &record, &BTreeSet::new());
            let written: Vec<_> = all.iter().filter(|w| w.key.ends_with("accept_ra")).collect();
            let first = (written[0].key.as_str(), written[0].old.as_str(), written[0].new);
            assert_eq!(first, ("net.ipv6.conf.routelet0.accept_ra", ra, "0"), "{families:?}");
            let others: Vec<_> = written[1..].iter().map(|w| w.key.as_str()).collect();
            let v6 = families.contains(&Family::Ipv6Unicast);
            assert_eq!(
                others,
                if v6 { vec!["net.ipv6.conf.eth0.accept_ra"] } else { vec![] },
                "never 2 on a bridge"
            );
        }
        let none = writes(&needs(&[]), &bridges("0", "0", "0"), &record, &BTreeSet::new());
        assert!(none.is_empty(), "{none:?}");
        let not_ours = Needs { pods_bridge: None, ..needs(&[]) };
        assert!(writes(&not_ours, &bridges("1", "0", "0"), &record, &BTreeSet::new()).is_empty());

        let named = |ra, forwarding, off| problems(&needs(&[]), &bridges(ra, forwarding, off));
        let found = named("1", "0", "0");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`sysctl -w net.ipv6.conf.br-1/2.accept_ra=0`"), "{found:?}");
        assert_eq!(named("2", "1", "0").len(), 2, "2 is heeded by a host that forwards, too");
        for (ra, forwarding, off) in [("1", "1", "0"), ("0", "0", "0"), ("2", "0", "1")] {
            assert!(named(ra, forwarding, off).is_empty(), "{ra} {forwarding} {off}");
        }
    }

    #[test]
    fn advertisements_are_kept_on_every_interface_before_forwarding_goes_on() {
        let seen = seen(&[
            ("net.ipv4.ip_forward", "1"),
            (V6, "0"),
            ("net.ipv6.conf.default.accept_ra", "1"),
            ("net.ipv6.conf.eth0/5.accept_ra", "1"),
            ("net.ipv6.conf.eth1.accept_ra", "1"),
            ("net.ipv6.conf.eth2.accept_ra", "0"),
            ("net.ipv6.conf.eth3.accept_ra", "2"),
            ("net.ipv6.conf.docker0.accept_ra", "1"),
            ("net.ipv6.conf.veth1.accept_ra", "1"),
        ]);
        let writes = writes(&needs(), &seen, &Record::default(), &BTreeSet::new());
        assert_eq!(
            keys(&writes),
            [
                "net.ipv6.conf.default.accept_ra=2",
                "net.ipv6.conf.eth0/5.accept_ra=2",
                "net.ipv6.conf.eth1.accept_ra=2",
                "net.ipv6.conf.all.forwarding=1",
            ]
        );
    }

    #[test]
    fn an_interface_that_comes_later_gets_it_only_where_forwarding_is_our_doing() {
        let late = seen(&[
            ("net.ipv4.ip_forward", "1"),
            (V6, "1"),
            ("net.ipv6.conf.default.accept_ra", "2"),
            ("net.ipv6.conf.eth9.accept_ra", "1"),
        ]);
        assert_eq!(writes(&needs(), &late, &Record::default(), &BTreeSet::new()), []);
        let mut record = Record::new("boot");
        record.note(&Write {
            key: V6.into(),
            old: "0".into(),
            new: "1",
            why: Why::Forward(Family::Ipv6Unicast),
        });
        let again = writes(&needs(), &late, &record, &BTreeSet::new());
        assert_eq!(keys(&again), ["net.ipv6.conf.eth9.accept_ra=2"]);
    }

    #[test]
    fn an_interface_that_must_forward_is_mended_and_others_keep_what_others_set() {
        let on = [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.eth0/5.forwarding", "0"),
            ("net.ipv4.conf.mgmt.forwarding", "0"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv6.conf.eth0/5.forwarding", "0"),
            ("net.ipv6.conf.eth0/5.accept_ra", "1"),
        ];
        let found = seen(&on);
        let nothing = BTreeSet::new();
        assert_eq!(
            keys(&writes(&needs(), &found, &Record::default(), &nothing)),
            [
                "net.ipv4.conf.eth0/5.forwarding=1",
                "net.ipv6.conf.eth0/5.accept_ra=2",
                "net.ipv6.conf.eth0/5.forwarding=1",
            ]
        );
        let off = switched_off(&found, Family::Ipv4Unicast).unwrap();
        let mut later = on;
        later[0].1 = "0";
        let later = seen(&later);
        assert_eq!(switched_off(&later, Family::Ipv4Unicast), None, "undetermined while globally disabled");
        let v4 = Needs { families: [Family::Ipv4Unicast].into(), ..needs() };
        assert_eq!(
            keys(&writes(&v4, &later, &Record::default(), &off)),
            ["net.ipv4.ip_forward=1", "net.ipv4.conf.mgmt.forwarding=0"]
        );
    }

    #[test]
    fn a_family_that_nothing_needs_is_left_alone() {
        let none = Needs { families: BTreeSet::new(), ..needs() };
        let off = seen(&[("net.ipv4.ip_forward", "0"), (V6, "0"), ("net.ipv6.conf.eth1.accept_ra", "1")]);
        assert_eq!(writes(&none, &off, &Record::default(), &BTreeSet::new()), []);
    }

    #[test]
    fn the_record_keeps_the_first_value_and_undoes_in_reverse() {
        let mut record = Record::new("boot");
        let write = |key: &str, old: &str, new, why| Write { key: key.into(), old: old.into(), new, why };
        let forward = Why::Forward(Family::Ipv6Unicast);
        record.note(&write("net.ipv6.conf.eth1.accept_ra", "1", "2", Why::KeepAdvertisements));
        record.note(&write("net.ipv6.conf.eth1.forwarding", "0", "1", forward));
        record.note(&write(V6, "0", "1", forward));
        record.note(&write(V6, "0", "1", forward));
        record.note(&write("net.ipv6.conf.x.forwarding", "1", "0", Why::GiveBack(Family::Ipv6Unicast)));
        record.follow(&names(&["lan"]), &[("eth1".into(), "lan".into())]);
        let undo: Vec<_> = record.undo().into_iter().map(|c| (c.key, c.old)).collect();
        let expected =
            [(V6, "0"), ("net.ipv6.conf.lan.forwarding", "0"), ("net.ipv6.conf.lan.accept_ra", "1")];
        assert_eq!(undo, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        record.follow(&BTreeSet::new(), &[]);
        assert_eq!(record.changes().len(), 1, "settings of interfaces that are gone are forgotten");
        let read: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert!(read == record && read.is_of("boot") && !read.is_of("another"));
    }

    #[test]
    fn a_fight_is_a_problem_and_backs_off_until_a_minute_of_peace() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut mends = Mends::default();
        assert!(mends.may(at(0), V6) && !mends.written(at(0), V6), "the first time is no mend");
        for second in 1..=5 {
            assert!(mends.may(at(second), V6) && mends.problems(at(second)).is_empty(), "{second}");
            assert!(mends.written(at(second), V6));
        }
        assert_eq!(mends.problems(at(5))[0].subject.name, V6);
        assert!(!mends.may(at(6), V6) && !mends.may(at(19), V6) && mends.may(at(20), V6));
        assert!(mends.may(at(6), "net.ipv4.ip_forward"), "each setting for itself");
        assert!(mends.problems(at(66)).is_empty() && mends.may(at(66), V6));
    }

    #[test]
    fn what_others_have_set_is_named_with_its_remedy() {
        let rp = |all, one, two| {
            [
                ("net.ipv4.conf.all.rp_filter", all),
                ("net.ipv4.conf.eth0.rp_filter", one),
                ("net.ipv4.conf.eth1.rp_filter", two),
            ]
        };
        let two = Needs { uplinks: names(&["eth0", "eth1"]), ..needs() };
        let one = Needs { uplinks: names(&["eth0"]), ..needs() };
        let pods = Needs { services: true, ..needs() };
        let v4 = Needs { in_use: [Family::Ipv4Unicast].into(), ..pods.clone() };
        let nf = [("net.bridge.bridge-nf-call-iptables", "0"), ("net.bridge.bridge-nf-call-ip6tables", "1")];
        let v6_off = [("net.ipv6.conf.docker0.disable_ipv6", "1"), ("net.ipv6.conf.other.disable_ipv6", "1")];
        #[rustfmt::skip]
        let cases: &[(&str, &Needs, Seen, &[&str])] = &[
            ("two uplinks, strict by all",     &two,  seen(&rp("1", "0", "0")), &["`sysctl -w net.ipv4.conf.eth0.rp_filter=2 net.ipv4.conf.eth1.rp_filter=2`"]),
            ("two uplinks, one of them",       &two,  seen(&rp("0", "0", "1")), &["`sysctl -w net.ipv4.conf.eth1.rp_filter=2`"]),
            ("loose wins",                     &two,  seen(&rp("1", "2", "2")), &[]),
            ("one uplink",                     &one,  seen(&rp("1", "1", "1")), &[]),
            ("bridged packets pass iptables",  &pods, seen(&nf),                &["`sysctl -w net.bridge.bridge-nf-call-iptables=1`"]),
            ("no pods",                        &one,  seen(&nf),                &[]),
            ("no br_netfilter, no kube-proxy", &v4,   seen(&[]),                &[]),
            ("no br_netfilter",                &v4,   Seen { kube_proxy: true, ..seen(&[]) }, &["`modprobe br_netfilter`"]),
            ("IPv6 is off on the bridge",      &one,  seen(&v6_off),            &["`sysctl -w net.ipv6.conf.docker0.disable_ipv6=0`"]),
            ("nobody uses IPv6",               &v4,   seen(&v6_off),            &[]),
        ];
        for (name, needs, seen, expected) in cases {
            let found = problems(needs, seen);
            assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
            for (text, part) in found.iter().zip(*expected) {
                assert!(text.contains(part), "{name}: {text}");
            }
        }
    }

    #[test]
    fn refusals_name_the_command() {
        let write =
            Write { key: V6.into(), old: "0".into(), new: "1", why: Why::Forward(Family::Ipv6Unicast) };
        assert!(refusal(&write, "read-only").contains("`sysctl -w net.ipv6.conf.all.forwarding=1`"));
    }
}
