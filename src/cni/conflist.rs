//! Generates the conflist from the pod CIDRs, and merges it with plugins that other programs
//! chained into the same file.
//!
//! The file is ours, but not all of its plugins are: service meshes and bandwidth tools append
//! their plugin to the first file in the folder. [`merge`] therefore rewrites our part and keeps
//! the rest. The file lists which plugins are ours ([`OWNED`]), to distinguish one that is no
//! longer wanted from one that another program added.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde_json::{Map, Value, json};

use crate::net::Prefix;

/// Our part of the file that the container runtime reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflist {
    pub bytes: Vec<u8>,
    pub pod_cidrs: Vec<Prefix>,
    /// Addresses of this node that pods use as their gateway.
    pub gateways: Vec<IpAddr>,
    /// Name of the bridge that the plugin creates.
    pub bridge: String,
}

/// Inputs of a conflist.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    pub pod_cidrs: &'a [Prefix],
    pub bridge: &'a str,
    pub mtu: Option<u32>,
    /// Plugins after `bridge`, in order, each an object with its `type`.
    pub chained: Vec<Map<String, Value>>,
}

/// The object of a plugin that is configured by name only.
pub fn plugin(name: &str) -> Map<String, Value> {
    let mut table = Map::from_iter([("type".to_owned(), json!(name))]);
    let capability = match name {
        "portmap" => Some("portMappings"),
        "bandwidth" => Some("bandwidth"),
        _ => None,
    };
    if let Some(capability) = capability {
        table.insert("capabilities".to_owned(), json!({ capability: true }));
    }
    table
}

/// The installed CNI plugins and the versions of CNI that they support.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plugins {
    /// Not scanned yet.
    pub pending: bool,
    /// Names of the programs in `cni.bin-dir`; `None` if the folder cannot be read.
    pub programs: Option<BTreeSet<String>>,
    /// Versions of CNI that each plugin supports, for those that could be queried.
    pub versions: BTreeMap<String, BTreeSet<String>>,
    /// Plugins that could not be queried, and why.
    pub unusable: BTreeMap<String, String>,
    /// Types of plugins that other programs chained into our file.
    pub chained: BTreeSet<String>,
}

/// Plugins without which no pod can start.
pub const REQUIRED: [&str; 2] = ["bridge", "host-local"];
/// Sufficient for everything in our file, and supported by all plugins in use today.
pub const FALLBACK: &str = "0.4.0";
/// Versions in which the file can be written, newest first. Later versions change nothing that we
/// use; plugin lists exist since 0.3.0.
const VERSIONS: [&str; 4] = ["1.0.0", "0.4.0", "0.3.1", "0.3.0"];

/// The newest version that all plugins support. A plugin whose versions are unknown (`None`) is
/// assumed to support [`FALLBACK`] and older versions.
pub fn common_version<'a>(
    plugins: impl IntoIterator<Item = Option<&'a BTreeSet<String>>>,
) -> Option<&'static str> {
    let mut left = VERSIONS.to_vec();
    for known in plugins {
        left.retain(|version| match known {
            Some(known) => known.contains(*version),
            None => *version != "1.0.0",
        });
    }
    left.first().copied()
}

/// The versions in a plugin's output for the command `VERSION` (CNI specification, "Operations").
///
/// # Errors
///
/// What is wrong with the output.
pub fn read_versions(output: &[u8]) -> Result<BTreeSet<String>, &'static str> {
    let output = parse(output).ok_or("its output is not a JSON object")?;
    let list =
        output.get("supportedVersions").and_then(Value::as_array).ok_or("its output lists no versions")?;
    let version = |v: &Value| {
        let text = v.as_str()?;
        let plain = text.len() <= 16 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        plain.then(|| text.to_owned())
    };
    let versions: BTreeSet<_> = list.iter().take(64).filter_map(version).collect();
    if versions.is_empty() { Err("its output lists no versions") } else { Ok(versions) }
}

impl Conflist {
    /// The conflist in the version [`FALLBACK`].
    pub fn new(spec: Spec<'_>) -> Self {
        Self::in_version(spec, FALLBACK)
    }

    /// The `bridge` plugin with `host-local` ranges for each pod CIDR, then the chained plugins.
    pub fn in_version(spec: Spec<'_>, version: &str) -> Self {
        let ranges: Vec<_> = spec.pod_cidrs.iter().map(|p| json!([{ "subnet": p }])).collect();
        let mut bridge = json!({
            "type": "bridge",
            "bridge": spec.bridge,
            "isGateway": true,
            "isDefaultGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": { "type": "host-local", "ranges": ranges },
        });
        if let (Some(mtu), Value::Object(table)) = (spec.mtu, &mut bridge) {
            table.insert("mtu".to_owned(), json!(mtu));
        }
        let plugins: Vec<Value> =
            std::iter::once(bridge).chain(spec.chained.into_iter().map(Value::Object)).collect();
        let owned: Vec<_> = plugins.iter().filter_map(|p| p.get("type")).collect();
        let file = json!({ "cniVersion": version, "name": NETWORK, OWNED: owned, "plugins": plugins });
        Self {
            bytes: to_bytes(&file),
            pod_cidrs: spec.pod_cidrs.to_vec(),
            gateways: spec.pod_cidrs.iter().filter_map(|p| gateway(*p)).collect(),
            bridge: spec.bridge.to_owned(),
        }
    }
}

/// The address that `host-local` reserves as gateway: the first of the range. `None` if the range
/// is too small.
pub fn gateway(pod_cidr: Prefix) -> Option<IpAddr> {
    (pod_cidr.len() + 2 <= pod_cidr.family().max_len()).then(|| match pod_cidr.addr() {
        IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() | 1).into(),
        IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() | 1).into(),
    })
}

/// The wanted content of the file: our part, and plugins that other programs chained. `None` if the
/// file already has it.
pub fn merge(ours: &[u8], existing: Option<&[u8]>) -> Option<Vec<u8>> {
    let there = existing.and_then(parse);
    let (Some(mut there), Some(ours_map)) = (there, parse(ours)) else { return Some(ours.to_vec()) };
    let foreign = foreign_plugins(&there, &types(&ours_map));
    let mut merged = if is_ours(&there) { std::mem::take(&mut there) } else { Map::new() };
    let before = merged.clone();
    merged.extend(ours_map);
    if let Some(Value::Array(plugins)) = merged.get_mut("plugins") {
        plugins.extend(foreign);
    }
    (merged != before).then(|| to_bytes(&Value::Object(merged)))
}

/// Whether a file defines our network, regardless of which program wrote it last.
pub fn is_of_our_network(file: &[u8]) -> bool {
    parse(file).is_some_and(|map| is_ours(&map))
}

/// Types of the plugins that other programs chained into our file.
pub fn chained_by_others(file: &[u8]) -> Vec<String> {
    let Some(map) = parse(file) else { return Vec::new() };
    let foreign = foreign_plugins(&map, &BTreeSet::new());
    foreign.iter().filter_map(|p| Some(p.get("type")?.as_str()?.to_owned())).collect()
}

/// The bridge and the pod CIDRs in a file of ours.
pub fn written_for(file: &[u8]) -> Option<(String, Vec<Prefix>)> {
    let map = parse(file).filter(is_ours)?;
    let bridge =
        map.get("plugins")?.as_array()?.iter().find(|p| p.get("type").is_some_and(|t| t == "bridge"))?;
    let ranges = bridge.pointer("/ipam/ranges")?.as_array()?;
    let subnets = ranges.iter().filter_map(|r| r.pointer("/0/subnet")?.as_str()?.parse().ok()).collect();
    Some((bridge.get("bridge")?.as_str()?.to_owned(), subnets))
}

/// A short description of a file's content, for logs.
pub fn describe(file: Option<&[u8]>) -> String {
    let Some(bytes) = file else { return "no file".into() };
    match parse(bytes) {
        None => "not a JSON object".into(),
        Some(map) => {
            let name = map.get("name").and_then(Value::as_str).unwrap_or("(none)");
            let types: Vec<_> = types(&map).into_iter().collect();
            format!("network {name} with plugins {types:?}")
        }
    }
}

/// The effect of a file that the runtime reads before ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InFront {
    /// It belongs to another network agent.
    Other,
    /// Multus, which delegates to our network, or names none: then it uses the first other file.
    Delegates,
    /// Multus, which delegates to another network, with this name.
    DelegatesElsewhere(String),
    /// Multus, with an outdated copy of our file.
    OldCopy,
}

/// Classifies the content of a file that is read first; `file` is the name of ours, `ours` its
/// content.
///
/// Multus specifies its default network in one of three ways: `clusterNetwork` (a name, a file, or
/// a folder with one), `delegates` (complete configurations), or not at all if its own daemon has
/// the configuration.
pub fn in_front(first: &[u8], file: &str, ours: &[u8]) -> InFront {
    let Some(map) = parse(first) else { return InFront::Other };
    let plugins = map.get("plugins").and_then(Value::as_array);
    let first_plugin = plugins.and_then(|p| p.first()?.as_object());
    let multus = [Some(&map), first_plugin].into_iter().flatten().find(|m| is_multus(m));
    let Some(multus) = multus else { return InFront::Other };
    if let Some(network) = multus.get("clusterNetwork").and_then(Value::as_str).filter(|n| !n.is_empty()) {
        return if names_us(network, file) {
            InFront::Delegates
        } else {
            InFront::DelegatesElsewhere(network.to_owned())
        };
    }
    match multus.get("delegates").and_then(Value::as_array).and_then(|d| d.first()?.as_object()) {
        None => InFront::Delegates,
        Some(delegate) if !is_ours(delegate) => {
            let name = delegate.get("name").or_else(|| delegate.get("type")).and_then(Value::as_str);
            InFront::DelegatesElsewhere(name.unwrap_or("another network").to_owned())
        }
        Some(delegate) => {
            let copy = written_for(&to_bytes(&Value::Object(delegate.clone())));
            let old = copy.is_some_and(|copy| written_for(ours).is_some_and(|now| now != copy));
            if old { InFront::OldCopy } else { InFront::Delegates }
        }
    }
}

fn is_multus(map: &Map<String, Value>) -> bool {
    map.get("type").and_then(Value::as_str).is_some_and(|t| t == "multus" || t == "multus-shim")
}

/// Multus has the host's folder mounted at another path, so only the last component is compared.
fn names_us(network: &str, file: &str) -> bool {
    let last = network.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    // For a folder Multus uses the first file in it; files before ours are reported separately.
    [NETWORK, file, stem].contains(&last) || last == "net.d"
}

/// The file of a folder that a container runtime reads: the first in lexical order with one of
/// three extensions.
pub fn first_read<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names.into_iter().filter(|n| read_by_runtimes(n)).min()
}

/// Whether runtimes read a file of this name.
pub fn read_by_runtimes(name: &str) -> bool {
    [".conf", ".conflist", ".json"].iter().any(|ending| name.ends_with(ending))
}

/// Plugins of other programs in a file of ours. If the key [`OWNED`] is missing, [`USUAL`] plugins
/// are assumed to be ours.
fn foreign_plugins(file: &Map<String, Value>, wanted: &BTreeSet<String>) -> Vec<Value> {
    if !is_ours(file) {
        return Vec::new();
    }
    let mut owned: BTreeSet<String> = match file.get(OWNED).and_then(Value::as_array) {
        Some(list) => list.iter().filter_map(|t| Some(t.as_str()?.to_owned())).collect(),
        None => USUAL.iter().map(|s| (*s).to_owned()).collect(),
    };
    owned.insert("bridge".to_owned());
    // Otherwise a plugin of the same type would run twice.
    owned.extend(wanted.iter().cloned());
    let plugins = file.get("plugins").and_then(Value::as_array).into_iter().flatten();
    plugins
        .filter(|p| p.get("type").and_then(Value::as_str).is_some_and(|t| !owned.contains(t)))
        .cloned()
        .collect()
}

fn types(file: &Map<String, Value>) -> BTreeSet<String> {
    let plugins = file.get("plugins").and_then(Value::as_array).into_iter().flatten();
    plugins.filter_map(|p| Some(p.get("type")?.as_str()?.to_owned())).collect()
}

fn is_ours(file: &Map<String, Value>) -> bool {
    file.get("name").is_some_and(|n| n == NETWORK)
}

fn parse(bytes: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(bytes).ok()
}

fn to_bytes(file: &Value) -> Vec<u8> {
    let mut text = format!("{file:#}");
    text.push('\n');
    text.into_bytes()
}

/// Name of the network, which is also the name of `host-local`'s folder of leases.
const NETWORK: &str = "routelet";
/// Our own key in the file: types of the plugins that we wrote. Runtimes ignore unknown keys.
const OWNED: &str = "routelet.io/plugins";
const USUAL: [&str; 6] = ["bridge", "portmap", "bandwidth", "tuning", "firewall", "sbr"];

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    fn conflist(cidrs: &[&str], chained: &[&str]) -> Conflist {
        let pod_cidrs: Vec<_> = cidrs.iter().map(|c| p(c)).collect();
        let chained = chained.iter().map(|c| plugin(c)).collect();
        Conflist::new(Spec { pod_cidrs: &pod_cidrs, bridge: "routelet0", mtu: Some(9000), chained })
    }

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn a_dual_stack_file_has_everything_that_the_plugins_need() {
        let c = conflist(&["10.244.1.0/24", "fd00:10:244:1::/64"], &["portmap"]);
        assert_eq!(
            value(&c.bytes),
            json!({
                "cniVersion": "0.4.0", "name": "routelet", "routelet.io/plugins": ["bridge", "portmap"],
                "plugins": [
                    { "type": "bridge", "bridge": "routelet0", "isGateway": true, "isDefaultGateway": true,
                      "ipMasq": false, "hairpinMode": true, "mtu": 9000,
                      "ipam": { "type": "host-local", "ranges":
                          [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:10:244:1::/64" }]] } },
                    { "type": "portmap", "capabilities": { "portMappings": true } },
                ],
            })
        );
        assert_eq!(
            c.gateways,
            ["10.244.1.1".parse::<IpAddr>().unwrap(), "fd00:10:244:1::1".parse().unwrap()]
        );
        assert_eq!(written_for(&c.bytes), Some(("routelet0".to_owned(), c.pod_cidrs.clone())));
    }

    #[test]
    fn writing_twice_changes_nothing() {
        let c = conflist(&["10.244.1.0/24"], &["portmap"]);
        assert_eq!(merge(&c.bytes, None), Some(c.bytes.clone()));
        assert_eq!(merge(&c.bytes, Some(&c.bytes)), None);
        let spaced = value(&c.bytes).to_string();
        assert_eq!(merge(&c.bytes, Some(spaced.as_bytes())), None, "only white space differs");
    }

    #[test]
    fn istio_11037_plugins_chained_by_others_survive_our_rewrite() {
        let old = conflist(&["10.244.1.0/24"], &["portmap", "bandwidth"]);
        let mut there = value(&old.bytes);
        there["plugins"].as_array_mut().unwrap().push(json!({ "type": "istio-cni", "log_level": "info" }));
        there["disableCheck"] = json!(true);
        let there = there.to_string();
        assert_eq!(chained_by_others(there.as_bytes()), ["istio-cni"]);

        let new = conflist(&["10.244.7.0/24"], &["portmap"]);
        let merged = value(&merge(&new.bytes, Some(there.as_bytes())).unwrap());
        let types: Vec<_> = merged["plugins"].as_array().unwrap().iter().map(|p| &p["type"]).collect();
        assert_eq!(
            types,
            ["bridge", "portmap", "istio-cni"],
            "our removed plugin is gone, the chained one stays"
        );
        assert_eq!(merged["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.7.0/24");
        assert_eq!(
            (&merged["plugins"][2]["log_level"], &merged["disableCheck"]),
            (&json!("info"), &json!(true))
        );
        assert_eq!(merge(&new.bytes, Some(merged.to_string().as_bytes())), None, "and it is stable");
    }

    #[test]
    fn a_plugin_of_ours_that_is_not_listed_as_owned_is_written_once() {
        let c = conflist(&["10.244.1.0/24"], &["portmap"]);
        let mut there = value(&c.bytes);
        there["routelet.io/plugins"] = json!(["bridge", "portmup"]);
        let merged = merge(&c.bytes, Some(there.to_string().as_bytes())).unwrap();
        assert_eq!(merge(&c.bytes, Some(&merged)), None);
        let types: Vec<_> =
            value(&merged)["plugins"].as_array().unwrap().iter().map(|p| p["type"].clone()).collect();
        assert_eq!(types, ["bridge", "portmap"]);
    }

    #[test]
    fn a_damaged_file_or_one_of_another_network_is_replaced() {
        let c = conflist(&["10.244.1.0/24"], &["portmap"]);
        for there in ["", "{", "[]", r#"{"name": "cbr0", "plugins": [{"type": "flannel"}]}"#] {
            assert_eq!(
                merge(&c.bytes, Some(there.as_bytes())).map(|b| value(&b)),
                Some(value(&c.bytes)),
                "{there}"
            );
            assert!(written_for(there.as_bytes()).is_none(), "{there}");
        }
    }

    #[test]
    fn a_file_without_the_owned_key_keeps_only_unusual_plugins() {
        let there = r#"{"name": "routelet", "plugins": [{"type": "bridge"}, {"type": "portmap"}, {"type": "linkerd-cni"}]}"#;
        assert_eq!(chained_by_others(there.as_bytes()), ["linkerd-cni"]);
    }

    #[test]
    fn kube_router_2126_runtimes_read_the_first_file_and_never_our_temporary_one() {
        let names =
            ["99-loopback.conf", ".10-routelet.conflist.tmp", "10-routelet.conflist", "05-x.conflist.bak"];
        assert_eq!(first_read(names), Some("10-routelet.conflist"));
        assert_eq!(first_read(["10-routelet.conflist", "10-calico.conflist"]), Some("10-calico.conflist"));
        assert_eq!(first_read(["README"]), None);
    }

    #[test]
    fn multus_1162_that_delegates_to_our_network_is_in_order() {
        let file = "10-routelet.conflist";
        let ours = conflist(&["10.244.1.0/24"], &["portmap"]).bytes;
        let copy: Value = value(&ours);
        let old: Value = value(&conflist(&["10.244.7.0/24"], &["portmap"]).bytes);
        let elsewhere = |n: &str| InFront::DelegatesElsewhere(n.to_owned());
        #[rustfmt::skip]
        let cases: Vec<(&str, Value, InFront)> = vec![
            ("thin, a copy",        json!({"name": "multus-cni-network", "type": "multus", "delegates": [copy]}), InFront::Delegates),
            ("thin, an old copy",   json!({"type": "multus", "delegates": [old]}),                InFront::OldCopy),
            ("thin, flannel",       json!({"type": "multus", "delegates": [{"name": "cbr0", "plugins": []}]}), elsewhere("cbr0")),
            ("thin, a lone plugin", json!({"type": "multus", "delegates": [{"type": "weave-net"}]}), elsewhere("weave-net")),
            ("by name",             json!({"type": "multus", "clusterNetwork": "routelet"}),      InFront::Delegates),
            ("by file",             json!({"type": "multus", "clusterNetwork": file}),            InFront::Delegates),
            ("by path, shim",       json!({"type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-routelet.conflist"}), InFront::Delegates),
            ("by folder",           json!({"type": "multus", "clusterNetwork": "/host/etc/cni/net.d/"}), InFront::Delegates),
            ("another by path",     json!({"type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-flannel.conflist"}),
                elsewhere("/host/etc/cni/net.d/10-flannel.conflist")),
            ("thick, no network",   json!({"type": "multus-shim", "socketDir": "/host/run/multus/"}), InFront::Delegates),
            ("waits for a file",    json!({"type": "multus", "readinessindicatorfile": "/host/etc/cni/net.d/10-routelet.conflist"}), InFront::Delegates),
            ("a list",              json!({"name": "m", "plugins": [{"type": "multus", "clusterNetwork": "routelet"}]}), InFront::Delegates),
            ("flannel",             json!({"name": "cbr0", "plugins": [{"type": "flannel"}]}),   InFront::Other),
            ("no object",           json!([]),                                                    InFront::Other),
        ];
        for (name, first, want) in cases {
            assert_eq!(in_front(first.to_string().as_bytes(), file, &ours), want, "{name}");
        }
    }

    #[test]
    fn plugins_425_the_version_is_one_that_every_plugin_knows() {
        let known = |list: &[&str]| Some(list.iter().map(|v| (*v).to_owned()).collect::<BTreeSet<_>>());
        let of_0_9 = || known(&["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0"]);
        let of_1_9 = || known(&["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
        #[rustfmt::skip]
        let cases = [
            ("new plugins",            vec![of_1_9(), of_1_9()],                     Some("1.0.0")),
            ("Ubuntu 22.04, RHEL 8",   vec![of_0_9(), of_0_9()],                     Some("0.4.0")),
            ("one is old",             vec![of_1_9(), of_0_9()],                     Some("0.4.0")),
            ("versions unknown",       vec![of_1_9(), None],                         Some("0.4.0")),
            ("an old one of others",   vec![of_1_9(), known(&["0.3.0", "0.3.1"])],   Some("0.3.1")),
            ("nothing in common",      vec![known(&["1.0.0"]), of_0_9()],            None),
            ("newer than we know",     vec![known(&["1.1.0"])],                      None),
        ];
        for (name, plugins, want) in cases {
            assert_eq!(common_version(plugins.iter().map(Option::as_ref)), want, "{name}");
        }
        let output = br#"{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","beta",7]}"#;
        assert_eq!(read_versions(output), Ok(["0.4.0", "1.0.0"].map(str::to_owned).into()));
        for bad in ["", "[]", "{}", r#"{"supportedVersions": []}"#, r#"{"supportedVersions": ["beta"]}"#] {
            assert!(read_versions(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_that_is_too_small_has_no_gateway() {
        assert_eq!(gateway(p("10.0.0.0/30")), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(gateway(p("10.0.0.0/31")), None);
        assert_eq!(gateway(p("fd00::/127")), None);
    }
}
