//! The keys of the file: text → [`Config`], or all its errors.
//!
//! `read` reads the tree, `values` has the types of values, `neighbor` and `policies` their
//! sections. Without I/O: password files are read by a function that is passed in.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    Advertise, AsSetting, Cni, CniPlugin, Config, Control, Docker, Fib, Guard, GuardConnected, Kubernetes,
    Log, LogFormat, Masquerade, Metrics, OnExit, Peering, PreferSource, Problem,
    neighbor::{self, session_keys},
    policies,
    read::{Item, Report, Section},
    services::services,
    values::{
        self, absolute_path, asn, interface_glob, interface_name, listen, nonempty_text, own_prefix, prefix,
    },
};
use crate::{bgp::policy::Community, docker::NetworkSelector};

/// The context in which the file is read.
pub struct ParseContext<'a> {
    /// Under Kubernetes; `kubernetes.enabled` overrides it.
    pub kubernetes: bool,
    /// Reads a `password-file`.
    pub read_password: &'a dyn Fn(&Path) -> Result<String, String>,
}

/// The configuration of a text, and warnings.
///
/// # Errors
///
/// All errors at once.
pub fn parse(text: &str, around: &ParseContext<'_>) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let (tree, syntax) = DeTable::parse_recoverable(text);
    let report = Report::new(text);
    // After the first error of a line the parser only guesses.
    let mut broken = BTreeSet::new();
    for error in syntax {
        let at = error.span().map_or(0, |s| s.start);
        if broken.insert(report.line(at)) {
            report.error(at, "", format!("not TOML: {}", error.message().replace('\n', " ")));
        }
    }
    let config = parse_root(Section::root(&report, tree.get_ref()), around);
    let (mut problems, warnings) = report.into_lists();
    if !broken.is_empty() {
        problems.retain(|p| p.key.is_empty() || !broken.contains(&p.line) && !p.what.starts_with("required"));
    }
    if problems.is_empty() { Ok((config, warnings)) } else { Err(problems) }
}

fn parse_root(root: Section<'_>, around: &ParseContext<'_>) -> Config {
    let mut config = Config::default();
    if let Some(dir) = root.get("state-dir").and_then(|i| absolute_path(&i)) {
        config.state_dir = dir;
    }
    if let Some(section) = root.section("policy") {
        config.policies = policies::read(&section);
    }
    if let Some(section) = root.section("kubernetes") {
        kubernetes(section, &mut config.kubernetes);
    }
    let under_kubernetes = config.kubernetes.enabled.unwrap_or(around.kubernetes);
    match root.section("bgp") {
        Some(section) => bgp(section, &mut config, around),
        None if under_kubernetes => {}
        None if root.get("advertise").is_none() => config.set_bare_host(),
        None => root.missing("bgp", format!("`as` in it; {AS_REQUIRED}")),
    }
    if let Some(section) = root.section("advertise") {
        advertise(section, &mut config.advertise);
    }
    if let Some(section) = root.section("fib") {
        fib(section, &mut config.fib);
    }
    if let Some(section) = root.section("cni") {
        cni(section, &mut config.cni);
    }
    if let Some(section) = root.section("docker") {
        docker(section, &mut config.docker);
        // Whoever names networks means no others.
        config.advertise.containers &= !config.is_bare_host || config.docker.networks.is_empty();
    }
    if let Some(section) = root.section("masquerade") {
        masquerade(section, &mut config.masquerade);
    }
    if let Some(section) = root.section("guard") {
        guard(section, &mut config.guard);
    }
    if let Some(section) = root.section("security") {
        assign(&mut config.security.sandbox, section.get("sandbox").and_then(|i| i.flag()));
        section.close();
    }
    if let Some(section) = root.section("metrics") {
        metrics(section, &mut config.metrics, under_kubernetes);
    }
    if let Some(section) = root.section("control") {
        control(section, &mut config.control);
    }
    if let Some(section) = root.section("log") {
        log(section, &mut config.log);
    }
    root.close();
    config
}

const AS_REQUIRED: &str = "outside Kubernetes the own AS number must be given, 1 to 4294967294 without 23456 and 65535, or \"auto\"";

/// Assigns a value that was read without error.
pub(super) fn assign<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn bgp(section: Section<'_>, config: &mut Config, around: &ParseContext<'_>) {
    let under_kubernetes = config.kubernetes.enabled.unwrap_or(around.kubernetes);
    let Config { bgp, kubernetes, policies, .. } = config;
    match section.get("as") {
        Some(item) => assign(&mut bgp.asn, own_as(&item, under_kubernetes, &kubernetes.peering)),
        None if !under_kubernetes => section.missing("as", AS_REQUIRED),
        None => {}
    }
    bgp.router_id = section.get("router-id").and_then(|i| values::router_id(&i));
    bgp.cluster_id = section.get("cluster-id").and_then(|i| values::router_id(&i));
    assign(&mut bgp.listen, section.get("listen").and_then(|i| i.set(listen)));
    assign(&mut bgp.max_paths, section.get("max-paths").and_then(|i| i.number(1..=1024)));
    assign(&mut bgp.multipath_relax, section.get("multipath-relax").and_then(|i| i.flag()));
    assign(&mut bgp.require_policy, section.get("require-policy").and_then(|i| i.flag()));
    session_keys(&section, &mut bgp.defaults);
    neighbor::groups(&section, bgp, policies, around);
    neighbor::neighbors(&section, bgp, policies, around);
    neighbor::ranges(&section, bgp);
    section.close();
}

fn own_as(item: &Item<'_>, under_kubernetes: bool, peering: &[Peering]) -> Option<AsSetting> {
    if !item.is_text() {
        return asn(item).map(AsSetting::Number);
    }
    let text = item.text()?;
    if text != "auto" {
        let hint = if text.parse::<u32>().is_ok() { ", the number without quotes" } else { "" };
        item.error(format!("must be {}, or \"auto\"{hint}", values::AS_ALLOWED));
        return None;
    }
    let shared = [Peering::Mesh, Peering::Reflectors, Peering::Auto];
    if under_kubernetes && peering.iter().any(|p| shared.contains(p)) {
        item.error(
            "\"auto\" gives each node a number of its own, which a mesh, reflectors and peering \"auto\" cannot \
             use; set kubernetes.peering = \"gateway\", or write a number",
        );
        return None;
    }
    Some(AsSetting::Auto)
}

fn advertise(section: Section<'_>, advertise: &mut Advertise) {
    assign(&mut advertise.networks, section.get("networks").and_then(|i| i.set(own_prefix)));
    assign(&mut advertise.interfaces, section.get("interfaces").and_then(|i| i.set(interface_glob)));
    assign(&mut advertise.containers, section.get("containers").and_then(|i| i.flag()));
    assign(&mut advertise.require_carrier, section.get("require-carrier").and_then(|i| i.flag()));
    for community in section.get("communities").and_then(|i| i.set(values::community)).unwrap_or_default() {
        match community {
            Community::Standard(c) => advertise.communities.push(c),
            Community::Large(c) => advertise.large_communities.push(c),
            Community::Ext(c) => advertise.ext_communities.push(c),
        }
    }
    advertise.med = section.get("med").and_then(|i| i.number(0..=u32::MAX.into()));
    section.close();
}

fn fib(section: Section<'_>, fib: &mut Fib) {
    assign(&mut fib.install, section.get("install").and_then(|i| i.flag()));
    let table = section.get("table");
    assign(
        &mut fib.table,
        table.and_then(|i| {
            i.number_where("1 to 4294967295 without 255, which is the kernel's own", |n| n != 0 && n != 255)
        }),
    );
    let protocol = section.get("protocol");
    assign(&mut fib.protocol, protocol.and_then(|i| i.number_where("5 to 255", |n| (5..=255).contains(&n))));
    assign(&mut fib.metric, section.get("metric").and_then(|i| i.number(1..=4_294_967_294)));
    let on_exit = section.get("on-exit");
    assign(
        &mut fib.on_exit,
        on_exit.and_then(|i| i.choice(&[("keep", OnExit::Keep), ("flush", OnExit::Flush)])),
    );
    assign(&mut fib.resolve_via_default, section.get("resolve-via-default").and_then(|i| i.flag()));
    assign(&mut fib.prefer_source, section.get("prefer-source").and_then(|i| prefer_source(&i)));
    let objects = section.get("nexthop-objects");
    assign(&mut fib.nexthop_objects, objects.and_then(|i| auto_or_flag(&i)).map(|o| o.unwrap_or(true)));
    if let Some(item) = section.get("resilient") {
        assign(&mut fib.resilient, item.flag());
        if fib.resilient && !fib.nexthop_objects {
            item.error(
                "resilient groups are nexthop objects; remove nexthop-objects = false, or set this to false",
            );
        }
    }
    section.close();
}

/// `"router-id"`, an address, or one of each family.
fn prefer_source(item: &Item<'_>) -> Option<Vec<PreferSource>> {
    let list = item.set(|i| {
        if i.is_text() && i.text() == Some("router-id") {
            return Some(PreferSource::RouterId);
        }
        values::address(i).map(PreferSource::Address)
    })?;
    let is_v4 = |s: &PreferSource| !matches!(s, PreferSource::Address(IpAddr::V6(_)));
    if list.iter().filter(|s| is_v4(s)).count() > 1 || list.iter().filter(|s| !is_v4(s)).count() > 1 {
        item.error("takes at most one address of each family; \"router-id\" counts as one of IPv4");
        return None;
    }
    Some(list)
}

/// `"auto"` (`None`), true or false.
fn auto_or_flag(item: &Item<'_>) -> Option<Option<bool>> {
    match (item.is_text(), item.is_text() && item.text() == Some("auto")) {
        (true, true) => Some(None),
        (true, false) => {
            item.error("must be \"auto\", or true or false without quotes");
            None
        }
        (false, _) => item.flag().map(Some),
    }
}

fn kubernetes(section: Section<'_>, kubernetes: &mut Kubernetes) {
    kubernetes.enabled = section.get("enabled").and_then(|i| i.flag());
    if let Some(item) = section.get("peering") {
        assign(&mut kubernetes.peering, peering(&item));
    }
    assign(&mut kubernetes.mesh_limit, section.get("mesh-limit").and_then(|i| i.number(2..=10_000)));
    assign(&mut kubernetes.mesh_accept, section.get("mesh-accept").and_then(|i| i.set(prefix)));
    kubernetes.node_name = section.get("node-name").and_then(|i| node_name(&i));
    kubernetes.service_cidrs = section.get("service-cidrs").and_then(|i| i.set(prefix));
    assign(&mut kubernetes.advertise_pod_cidrs, section.get("advertise-pod-cidrs").and_then(|i| i.flag()));
    kubernetes.startup_taint = section.get("startup-taint").and_then(|i| nonempty_text(&i));
    assign(&mut kubernetes.accept_forwarded, section.get("accept-forwarded").and_then(|i| i.flag()));
    services(&section, kubernetes);
    section.close();
}

fn peering(item: &Item<'_>) -> Option<Vec<Peering>> {
    let list = item.set(|i| {
        i.choice(&[
            ("auto", Peering::Auto),
            ("mesh", Peering::Mesh),
            ("gateway", Peering::Gateway),
            ("reflectors", Peering::Reflectors),
            ("none", Peering::None),
        ])
    })?;
    if list.is_empty() {
        item.error("names nothing; write \"none\" for no neighbors");
    } else if list.len() > 1 && list.contains(&Peering::None) {
        item.error("\"none\" cannot be combined with others");
    }
    Some(list)
}

/// A Node's name: RFC 1123 subdomain.
fn node_name(item: &Item<'_>) -> Option<String> {
    let name = nonempty_text(item)?;
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        item.error(format!("`{name}` is no node name: lower-case letters, digits, `-` and `.`"));
        return None;
    }
    Some(name)
}

fn cni(section: Section<'_>, cni: &mut Cni) {
    cni.enabled = section.get("enabled").and_then(|i| i.flag());
    assign(&mut cni.conf_dir, section.get("conf-dir").and_then(|i| absolute_path(&i)));
    assign(&mut cni.file, section.get("file").and_then(|i| conflist_name(&i)));
    assign(&mut cni.bin_dir, section.get("bin-dir").and_then(|i| absolute_path(&i)));
    assign(&mut cni.bridge, section.get("bridge").and_then(|i| interface_name(&i)));
    // IPv6 needs 1280 (RFC 8200 §5).
    cni.mtu = section.get("mtu").and_then(|i| i.number(1280..=65535));
    assign(&mut cni.plugins, section.get("plugins").and_then(|i| i.list(plugin)));
    section.close();
}

fn conflist_name(item: &Item<'_>) -> Option<String> {
    let name = item.text()?;
    if name.contains('/') || name.starts_with('.') || !name.ends_with(".conflist") {
        item.error("must be a file name without a folder that ends in .conflist, as 10-routelet.conflist");
        return None;
    }
    Some(name.to_owned())
}

fn plugin(item: &Item<'_>) -> Option<CniPlugin> {
    if item.is_text() {
        let known = ["portmap", "bandwidth", "tuning", "firewall", "sbr"].map(|name| (name, name));
        return item.choice(&known).map(|name| CniPlugin::Name(name.to_owned()));
    }
    // Only to report that it is no table.
    item.section()?;
    let serde_json::Value::Object(table) = to_json(item.value.get_ref())? else { return None };
    if !table.get("type").is_some_and(serde_json::Value::is_string) {
        item.error("needs `type`, the name of the plugin's binary");
        return None;
    }
    Some(CniPlugin::Table(table))
}

fn to_json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(s) => s.as_ref().into(),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok()?.into(),
        DeValue::Float(f) => f.as_str().parse::<f64>().ok()?.into(),
        DeValue::Boolean(b) => (*b).into(),
        DeValue::Datetime(d) => d.to_string().into(),
        DeValue::Array(a) => a.iter().map(|v| to_json(v.get_ref())).collect::<Option<Vec<_>>>()?.into(),
        DeValue::Table(t) => {
            let entry = |(k, v): (&toml::Spanned<_>, &toml::Spanned<_>)| {
                let key: &std::borrow::Cow<'_, str> = k.get_ref();
                Some((key.to_string(), to_json(v.get_ref())?))
            };
            serde_json::Value::Object(t.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

fn docker(section: Section<'_>, docker: &mut Docker) {
    assign(&mut docker.networks, section.get("networks").and_then(|i| i.set(docker_network)));
    assign(&mut docker.socket, section.get("socket").and_then(|i| absolute_path(&i)));
    assign(&mut docker.accept_forwarded, section.get("accept-forwarded").and_then(|i| i.flag()));
    section.close();
}

fn docker_network(item: &Item<'_>) -> Option<NetworkSelector> {
    NetworkSelector::parse(item.text()?).map_err(|what| item.error(what)).ok()
}

fn masquerade(section: Section<'_>, masquerade: &mut Masquerade) {
    masquerade.enabled = section.get("enabled").and_then(|i| auto_or_flag(&i)).flatten();
    assign(&mut masquerade.exclude, section.get("exclude").and_then(|i| i.set(prefix)));
    section.close();
}

fn guard(section: Section<'_>, guard: &mut Guard) {
    let connected = section.get("connected");
    let words = [("equal", GuardConnected::Equal), ("inside", GuardConnected::Inside)];
    assign(&mut guard.connected, connected.and_then(|i| i.choice(&words)));
    assign(&mut guard.block_pod_bgp, section.get("block-pod-bgp").and_then(|i| i.flag()));
    section.close();
}

fn metrics(section: Section<'_>, metrics: &mut Metrics, under_kubernetes: bool) {
    if let Some(item) = section.get("listen") {
        let off = item.value.get_ref().as_str() == Some("");
        let addresses = if off { Some(Vec::new()) } else { item.set(listen) };
        if under_kubernetes && addresses.as_ref().is_some_and(Vec::is_empty) {
            item.warn(
                "turns /livez and /readyz off too; use `routelet show summary` as an exec probe, or leave it at \
                 127.0.0.1:9179",
            );
        }
        assign(&mut metrics.listen, addresses);
    }
    section.close();
}

fn control(section: Section<'_>, control: &mut Control) {
    if let Some(item) = section.get("socket")
        && let Some(path) = absolute_path(&item)
    {
        // sockaddr_un holds 108 octets, one of which is the closing zero; room is left for a
        // temporary name.
        if path.as_os_str().len() > 95 {
            item.error("is too long for a socket: 95 octets at most");
        }
        control.socket = path;
    }
    control.group = section.get("group").and_then(|i| nonempty_text(&i));
    section.close();
}

fn log(section: Section<'_>, log: &mut Log) {
    if let Some(item) = section.get("level")
        && let Some(level) = item.text()
    {
        match super::log_level(level) {
            Ok(()) => log.level = level.to_owned(),
            Err(what) => item.error(what),
        }
    }
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    assign(&mut log.format, section.get("format").and_then(|i| i.choice(&formats)));
    section.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bgp::peer::{Bfd, RemoteAs, Secret},
        config::NeighborId,
        net::{BfdAuth, BfdParams},
    };

    const EXAMPLE: &str = include_str!("../../deploy/routelet.toml");

    fn around(kubernetes: bool) -> ParseContext<'static> {
        ParseContext { kubernetes, read_password: &|path| Ok(format!("from {}", path.display())) }
    }

    /// Problems as `line:column: key: what`.
    fn problems(text: &str) -> Vec<String> {
        let list = parse(text, &around(false)).expect_err(text);
        list.iter().map(|p| format!("{}:{}: {}: {}", p.line, p.column, p.key, p.what)).collect()
    }

    fn good(text: &str) -> Config {
        parse(text, &around(false)).unwrap_or_else(|p| panic!("{text}: {p:#?}")).0
    }

    #[test]
    fn the_smallest_useful_file_is_understood() {
        let config = good(
            "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\n\
             [advertise]\ninterfaces = [\"docker0\"]\n",
        );
        assert_eq!(config.bgp.asn, AsSetting::Number(1000));
        assert_eq!(config.bgp.neighbors[0].at, NeighborId::Address("10.1.1.1".parse().unwrap()));
        assert_eq!(config.bgp.neighbors[0].keys.remote_as, Some(RemoteAs::Number(10000)));
        assert_eq!(config.advertise.interfaces, ["docker0"]);
        assert_eq!(config.bgp.defaults.hold_time, Some(90));
    }

    #[test]
    fn an_empty_file_is_the_defaults_under_kubernetes_and_those_of_a_bare_host_elsewhere() {
        assert_eq!(parse("", &around(true)).unwrap().0, Config::for_kubernetes());
        assert_eq!(good(""), Config::for_bare_host());
        let more = good("[log]\nlevel = \"debug\"\n");
        assert!(more.is_bare_host && more.log.level == "debug");
        assert!(problems("[advertise]\nnetworks = [\"10.0.0.0/24\"]\n")[0].contains("bgp: required"));
        assert!(problems("[bgp]\n")[0].starts_with("1:1: bgp.as: required: outside Kubernetes"));
        assert!(parse("[kubernetes]\nenabled = false\n", &around(true)).unwrap().0.is_bare_host);
        let named = good("[docker]\nnetworks = [\"web\"]\n");
        assert!(named.is_bare_host && !named.advertise.containers, "these networks and no others");
    }

    #[test]
    fn the_example_shows_every_key_at_its_default() {
        let mut default = Config::for_kubernetes();
        default.bgp.asn = AsSetting::Number(64512);
        assert_eq!(good(EXAMPLE), default);
    }

    /// The example with all its commented keys in force.
    #[test]
    fn the_commented_keys_of_the_example_are_right_too() {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with([' ', '#']) && !rest.is_empty() => rest.to_owned() + "\n",
            _ => line.to_owned() + "\n",
        };
        let config = good(&EXAMPLE.lines().map(uncomment).collect::<String>());
        assert_eq!((config.bgp.neighbors.len(), config.bgp.ranges.len()), (1, 1));
        assert_eq!(config.policies["from-leaf"].statements.len(), 1);
        assert_eq!(config.bgp.groups["tor"].password, Some(Secret("from /etc/routelet/tor.password".into())));
    }

    #[test]
    fn five_mistakes_are_five_problems_in_their_order() {
        let found = problems(
            "[bgp]\nas = 23456\nhold_time = 90\n\n[[bgp.neighbor]]\naddress = \"10.1.1.300\"\n\
             remote-as = \"externl\"\n[fib]\ntable = \"main\"\n",
        );
        let starts = [
            "2:6: bgp.as: must be 1 to 4294967294 without 23456 and 65535, not 23456",
            "3:1: bgp.hold_time: unknown key; did you mean `hold-time`?",
            "6:11: bgp.neighbor[0].address: `10.1.1.300` is no IP address",
            "7:13: bgp.neighbor[0].remote-as: `externl` is not known; write a number, or one of \"external\"",
            "9:9: fib.table: must be a number, 1 to 4294967295",
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (found, start) in found.iter().zip(starts) {
            assert!(found.starts_with(start), "{found}");
        }
    }

    /// One problem per line: the file behind `[bgp]\nas = 1000\n`, and how the problem reads.
    #[test]
    fn impossible_values_name_what_is_allowed() {
        #[rustfmt::skip]
        let cases: &[(&str, &str)] = &[
            ("hold-time = 2",                     "bgp.hold-time: must be 0, or 3 to 65535 seconds, not 2"),
            ("hold-time = \"90\"",                "write 90 without quotes"),
            ("hold-time = -1",                    "not -1"),
            ("restart-time = 4096",               "0 to 4095"),
            ("multipath-relax = \"true\"",        "write true without quotes"),
            ("require-policy = 1",                "require-policy: "),
            ("router-id = \"0.0.0.0\"",           "not 0.0.0.0"),
            ("listen = [\"0.0.0.0\"]",            "bgp.listen[0]: `0.0.0.0` is no address with a port"),
            ("listen = \"[::]:179\"\nas = 7",     "duplicate key"),
            ("[bgp.group.x]\naddress = \"10.0.0.1\"", "bgp.group.x.address: unknown key"),
            ("[bgp.neighbor]\naddress = \"10.0.0.1\"", "write [[bgp.neighbor]] in double brackets"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"", "bgp.neighbor[0].remote-as: required"),
            ("[[bgp.neighbor]]\nremote-as = 1", "bgp.neighbor[0].address: required"),
            ("[[bgp.neighbor]]\nadress = \"10.0.0.1\"\nremote-as = 1", "did you mean `address`?"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\ninterface = \"eth0\"\nremote-as = 1", "exclude each other"),
            ("[[bgp.neighbor]]\naddress = \"fe80::1\"\nremote-as = 1", "write fe80::1%eth0"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1/24\"\nremote-as = 1", "without a length"),
            ("[[bgp.neighbor]]\naddress = \"224.0.0.5\"\nremote-as = 1", "address of no host"),
            ("[[bgp.neighbor]]\naddress = \"::ffff:10.0.0.1\"\nremote-as = 1", "write the IPv4 address 10.0.0.1"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = \"7\"", "number without quotes"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\ngroup = \"x\"", "add [bgp.group.x]"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nimport = [\"x\"]", "import[0]: no policy `x`"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nfamilies = []", "at least one"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nfamilies = [\"ipv4\"]", "\"ipv4-unicast\""),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nmultihop = 2\nttl-security = 1", "ttl-security: `multihop`"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nmultihop = 2\nttl-security = \"where-offered\"", "ttl-security: `multihop`"),
            ("[bgp.group.gateway]\nttl-security = 255", "0 (off), 1 to 254 hops, or \"where-offered\""),
            ("[bgp.group.gateway]\nttl-security = \"on\"", "\"where-offered\""),
            ("[bgp.group.gateway]\nttl-security = true", "1 to 254"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nlocal-address = \"::1\"", "of the family"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\npassword = \"a\"\npassword-file = \"b\"", "exclude each other"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1000\nrole = \"peer\"", "RFC 9234"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nroute-reflector-client = true", "RFC 4456"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = 300", "must be true, false, or a table"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = \"on\"", "must be true, false, or a table"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { min-tx = 9 }", "bfd.min-tx: must be 10 to 60000"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { min-rx = 60001 }", "bfd.min-rx: must be 10 to 60000"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { multiplier = 0 }", "bfd.multiplier: must be 1 to 255"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { min_tx = 50 }", "did you mean `min-tx`?"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { strict = 1 }", "bfd.strict: must be true or false"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { password = \"\" }", "must not be empty"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { password = \"123456789012345678901\" }", "20 at most"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { key-id = 3 }", "needs a `password`"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { password = \"x\", authentication = \"md5\" }", "\"meticulous-sha1\", \"sha1\""),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nbfd = { password = \"x\", password-file = \"/x\" }", "exclude each other"),
            ("[[bgp.neighbor]]\ninterface = \"eth 0\"", "is no interface name and no pattern"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nlimit = 2", "limit: is the number of neighbors on an `interface`"),
            ("[[bgp.neighbor]]\ninterface = \"eth0\"\nlimit = 65", "limit: must be"),
            ("[[bgp.neighbor]]\ninterface = \"eth0\"\nlocal-address = \"10.0.0.2\"", "remove it beside `interface`"),
            ("[[bgp.neighbor]]\ninterface = \"eth0\"\nmultihop = 2", "remove it beside `interface`"),
            ("[[bgp.neighbor]]\ninterface = \"eth0\"\n[[bgp.neighbor]]\ninterface = \"eth0\"", "stands in line"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\n[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 2", "stands in line 4 already"),
            ("[[bgp.listen-range]]\nprefix = \"10.0.0.1/24\"\nremote-as = 1", "has host bits set; write 10.0.0.0/24"),
            ("[advertise]\nnetworks = [\"10.1.2.3/8\"]", "advertise.networks[0]: `10.1.2.3/8` has host bits set; write 10.0.0.0/8"),
            ("[advertise]\nnetworks = [\"127.0.0.0/8\"]", "loopback"),
            ("[advertise]\ncommunities = [\"65536:1\"]", "is no community"),
            ("[fib]\ntable = 255", "without 255"),
            ("[fib]\nprotocol = 2", "5 to 255"),
            ("[fib]\nmetric = 4294967295", "1 to 4294967294"),
            ("[fib]\nresilient = 1", "fib.resilient: must be true or false"),
            ("[fib]\nresilient = true\nnexthop-objects = false", "fib.resilient: resilient groups are nexthop objects"),
            ("[fib]\non-exit = \"drop\"", "\"keep\", \"flush\""),
            ("[kubernetes]\npeering = [\"none\", \"mesh\"]", "cannot be combined"),
            ("[kubernetes]\nnode-name = \"Node 1\"", "is no node name"),
            ("[cni]\nfile = \"../x.conflist\"", "without a folder"),
            ("[cni]\nplugins = [\"portmapp\"]", "cni.plugins[0]: `portmapp` is not known"),
            ("[cni]\nplugins = [{ rate = 1 }]", "needs `type`"),
            ("[cni]\nbridge = \"a-name-that-is-too-long\"", "is no interface name"),
            ("[docker]\nnetworks = [\"a b\"]", "docker.networks[0]: `a b` is no name of a Docker network"),
            ("[docker]\nnetworks = [\"label:=x\"]", "write \"label:KEY=VALUE\""),
            ("[docker]\nsocket = \"docker.sock\"", "absolute path"),
            ("[metrics]\nlisten = \"9179\"", "no address with a port"),
            ("[control]\nsocket = \"routelet.sock\"", "absolute path"),
            ("[security]\nsandbox = \"no\"",      "security.sandbox: "),
            ("[security]\nsandboxed = true",    "did you mean `sandbox`?"),
            ("[log]\nlevel = \"loud\"", "is no log level"),
            ("[policies]\n", "did you mean `policy`?"),
            ("[policy.x]\naction = \"accept\"", "write [[policy.x]] in double brackets"),
            ("[[policy.x]]\nprefixes = [\"10.0.0.0/8\"]", "policy.x[0]: does nothing"),
            ("[[policy.x]]\nprefixes = [\"10.0.0.0/8{33,8}\"]\naction = \"accept\"", "is no prefix range"),
            ("[[policy.x]]\nprefixes = [\"10.0.0.1/8{16,24}\"]\naction = \"accept\"", "write 10.0.0.0/8"),
            ("[[policy.x]]\nas-path = \"(\"\naction = \"accept\"", "is no regular expression"),
            ("[[policy.x]]\nfamilies = []\naction = \"accept\"", "is empty"),
            ("[[policy.x]]\nset-med = 1\naction = \"reject\"", "a rejected route is not changed"),
            ("[fib]\ninstall = yes", "not TOML"),
        ];
        for (text, expected) in cases {
            let found = problems(&format!("[bgp]\nas = 1000\n{text}\n"));
            assert_eq!(found.len(), 1, "{text}: {found:#?}");
            assert!(found[0].contains(expected), "{text}: {}", found[0]);
        }
    }

    #[test]
    fn an_own_number_is_no_choice_for_a_mesh() {
        let auto =
            |rest: &str, kubernetes| parse(&format!("[bgp]\nas = \"auto\"\n{rest}"), &around(kubernetes));
        assert!(auto("", false).is_ok());
        assert!(auto("", true).unwrap_err()[0].what.contains("gateway"));
        assert!(auto("[kubernetes]\npeering = \"gateway\"\n", true).is_ok());
        assert!(auto("[kubernetes]\npeering = [\"gateway\", \"mesh\"]\n", true).is_err());
    }

    #[test]
    fn a_group_sets_what_its_neighbor_does_not_set() {
        let config = good(
            "[bgp]\nas = 1\nhold-time = 30\n[bgp.group.tor]\nremote-as = \"external\"\nhold-time = 9\n\
             [[bgp.neighbor]]\naddress = \"gateway\"\ngroup = \"tor\"\n[bgp.group.gateway]\nhold-time = 12\n",
        );
        let group = &config.bgp.groups["tor"];
        let keys = config.bgp.neighbors[0].keys.clone().or(group.clone()).or(config.bgp.defaults.clone());
        assert_eq!((keys.remote_as, keys.hold_time), (Some(RemoteAs::External), Some(9)));
        let gateway = &config.bgp.groups["gateway"];
        assert_eq!((gateway.hold_time, gateway.allow_own_as), (Some(12), Some(1)), "built in, changed");
    }

    #[test]
    fn bfd_is_off_on_or_a_table() {
        let bfd = |text: &str| {
            let text = format!("[bgp]\nas = 1\n[bgp.group.x]\nbfd = {text}\n");
            good(&text).bgp.groups["x"].bfd.clone().unwrap()
        };
        assert_eq!(bfd("false"), None);
        assert_eq!(bfd("true"), Some(Bfd::default()));
        assert_eq!(bfd("{}"), Some(Bfd::default()));
        let all = "{ min-tx = 50, min-rx = 60, multiplier = 5, strict = true, passive = true, password = \"x\", \
                   key-id = 7, authentication = \"sha1\" }";
        let ms = std::time::Duration::from_millis;
        let auth = BfdAuth { key_id: 7, key: b"x".to_vec(), meticulous: false };
        let params =
            BfdParams { min_tx: ms(50), min_rx: ms(60), multiplier: 5, passive: true, auth: Some(auth) };
        assert_eq!(bfd(all), Some(Bfd { params, strict: true, password_file: None }));
    }

    #[test]
    fn probes_that_are_off_are_a_warning_under_kubernetes_only() {
        let text = "[bgp]\nas = 1\n[metrics]\nlisten = \"\"\n";
        assert_eq!(parse(text, &around(true)).unwrap().1.len(), 1);
        assert_eq!(parse(text, &around(false)).unwrap().1, []);
    }

    #[test]
    fn syntax_errors_do_not_hide_the_others() {
        let found = problems("[bgp]\nas = 10 0\n[fib]\ntable = 0\n");
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(
            found[0].starts_with("2:6: : not TOML") && found[1].starts_with("4:9: fib.table"),
            "{found:#?}"
        );
    }

    proptest::proptest! {
        /// Any file is accepted or has errors: here the full example with some octets changed.
        #[test]
        fn no_text_makes_the_reader_panic(
            cuts in proptest::collection::vec((0..EXAMPLE.len(), "[ -~\n]{0,6}"), 1..8),
            start in 0..EXAMPLE.len(),
        ) {
            let mut text: String = EXAMPLE.lines().map(|l| format!("{}\n", l.trim_start_matches('#'))).collect();
            for (at, new) in &cuts {
                let at = (at + start) % text.len();
                if text.is_char_boundary(at) && text.is_char_boundary((at + 3).min(text.len())) {
                    text.replace_range(at..(at + 3).min(text.len()), new);
                }
            }
            let _ = parse(&text, &around(false));
        }
    }
}
