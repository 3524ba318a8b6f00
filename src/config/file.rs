//! The file as a whole: text → [`Config`], or all its errors.
//!
//! `keys` defines the keys, `read` reads the tree, `values` has the types of values. Checks of
//! several keys together are here, and those for neighbors in `neighbor`. Without I/O: password
//! files are read by a function that is passed in.

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::{
    AsSetting, Config, Control, Fib, Kubernetes, Metrics, Peering, Problem,
    keys::is_shared,
    neighbor, policies,
    read::{ParseContext, Report, Section},
};
use crate::net::ServiceAddresses;

/// The configuration of a text, and warnings.
///
/// # Errors
///
/// All errors at once.
pub fn parse(text: &str, around: &ParseContext<'_>) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let (tree, syntax) = DeTable::parse_recoverable(text);
    let report = Report::new(text, around);
    // After the first error of a line the parser only guesses.
    let mut broken = BTreeSet::new();
    for error in syntax {
        let at = error.span().map_or(0, |s| s.start);
        if broken.insert(report.line(at)) {
            report.error(at, "", format!("not TOML: {}", error.message().replace('\n', " ")));
        }
    }
    let config = parse_root(Section::root(&report, tree.get_ref()), around.kubernetes);
    let (mut problems, warnings) = report.into_lists();
    if !broken.is_empty() {
        problems.retain(|p| p.key.is_empty() || !broken.contains(&p.line) && !p.what.starts_with("required"));
    }
    if problems.is_empty() { Ok((config, warnings)) } else { Err(problems) }
}

fn parse_root(root: Section<'_>, kubernetes: bool) -> Config {
    let mut config = Config::default();
    config.read(&root);
    if let Some(section) = root.section("policy") {
        config.policies = policies::read(&section);
    }
    table(&root, "kubernetes", |section| read_kubernetes(section, &mut config.kubernetes));
    let under_kubernetes = config.kubernetes.enabled.unwrap_or(kubernetes);
    match root.section("bgp") {
        Some(section) => read_bgp(section, &mut config, under_kubernetes),
        None if under_kubernetes => {}
        None if root.get("advertise").is_none() => config.set_bare_host(),
        None => root.missing("bgp", format!("`as` in it; {AS_REQUIRED}")),
    }
    table(&root, "advertise", |section| config.advertise.read(section));
    table(&root, "fib", |section| read_fib(section, &mut config.fib));
    table(&root, "cni", |section| config.cni.read(section));
    table(&root, "docker", |section| config.docker.read(section));
    // On a bare host, `docker.networks` replaces the bridges of all containers.
    config.advertise.containers &= !config.is_bare_host || config.docker.networks.is_empty();
    table(&root, "masquerade", |section| config.masquerade.read(section));
    table(&root, "guard", |section| config.guard.read(section));
    table(&root, "security", |section| config.security.read(section));
    table(&root, "metrics", |section| read_metrics(section, &mut config.metrics, under_kubernetes));
    table(&root, "control", |section| read_control(section, &mut config.control));
    table(&root, "log", |section| config.log.read(section));
    root.close();
    config
}

/// Reads a table if the file has it.
fn table<'a>(root: &Section<'a>, key: &'static str, read: impl FnOnce(&Section<'a>)) {
    if let Some(section) = root.section(key) {
        read(&section);
        section.close();
    }
}

const AS_REQUIRED: &str = "outside Kubernetes the own AS number must be given, 1 to 4294967294 without 23456 and 65535, or \"auto\"";

fn read_bgp(section: Section<'_>, config: &mut Config, under_kubernetes: bool) {
    let Config { bgp, kubernetes, policies, .. } = config;
    bgp.read(&section);
    match section.get("as") {
        Some(item) if bgp.asn == AsSetting::Auto && under_kubernetes && shares_the_as(kubernetes) => {
            item.error(
                "\"auto\" gives each node a number of its own, which a mesh, reflectors and peering \"auto\" cannot \
                 use; set kubernetes.peering = \"gateway\", or write a number",
            );
        }
        Some(_) => {}
        None if !under_kubernetes => section.missing("as", AS_REQUIRED),
        None => {}
    }
    bgp.defaults.read_where(&section, is_shared);
    neighbor::groups(&section, bgp, policies);
    neighbor::neighbors(&section, bgp, policies);
    neighbor::ranges(&section, bgp);
    section.close();
}

/// Whether nodes are neighbors of one another with the same AS number.
fn shares_the_as(kubernetes: &Kubernetes) -> bool {
    let shared = [Peering::Mesh, Peering::Reflectors, Peering::Auto];
    kubernetes.peering.iter().any(|p| shared.contains(p))
}

fn read_fib(section: &Section<'_>, fib: &mut Fib) {
    fib.read(section);
    if let Some(item) = section.get("resilient")
        && fib.resilient
        && !fib.nexthop_objects
    {
        item.error(
            "resilient groups are nexthop objects; remove nexthop-objects = false, or set this to false",
        );
    }
}

fn read_kubernetes(section: &Section<'_>, kubernetes: &mut Kubernetes) {
    kubernetes.read(section);
    kubernetes.service_rules.read(section);
    if !kubernetes.service_rules.external_ranges.is_empty() {
        return;
    }
    let chosen =
        [("services", &kubernetes.services), ("service-annotations", &kubernetes.service_rules.annotations)];
    for (key, addresses) in chosen {
        if addresses.contains(&ServiceAddresses::ExternalIp)
            && let Some(item) = section.get(key)
        {
            item.warn(
                "with \"external-ip\" whoever may write Services chooses the addresses; name those that they may \
                 choose in kubernetes.service-external-ranges",
            );
        }
    }
}

fn read_metrics(section: &Section<'_>, metrics: &mut Metrics, under_kubernetes: bool) {
    metrics.read(section);
    if let Some(item) = section.get("listen")
        && under_kubernetes
        && metrics.listen.is_empty()
    {
        item.warn(
            "turns /livez and /readyz off too; use `routelet show summary` as an exec probe, or leave it at \
             127.0.0.1:9179",
        );
    }
}

fn read_control(section: &Section<'_>, control: &mut Control) {
    control.read(section);
    // sockaddr_un holds 108 octets, one of which is the closing zero; room is left for a temporary
    // name.
    if let Some(item) = section.get("socket")
        && control.socket.as_os_str().len() > 95
    {
        item.error("is too long for a socket: 95 octets at most");
    }
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
            "6:11: bgp.neighbor[0].address: `10.1.1.300` is not an IP address",
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
            ("listen = [\"0.0.0.0\"]",            "bgp.listen[0]: `0.0.0.0` is not an address with a port"),
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
            ("[[bgp.neighbor]]\ninterface = \"eth 0\"", "is neither an interface name nor a pattern"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\nlimit = 2", "limit: is the number of neighbors on an `interface`"),
            ("[[bgp.neighbor]]\ninterface = \"eth0\"\nlimit = 65", "limit: must be"),
            ("[[bgp.neighbor]]\ninterface = \"eth0\"\nlocal-address = \"10.0.0.2\"", "remove it beside `interface`"),
            ("[[bgp.neighbor]]\ninterface = \"eth0\"\nmultihop = 2", "remove it beside `interface`"),
            ("[[bgp.neighbor]]\ninterface = \"eth0\"\n[[bgp.neighbor]]\ninterface = \"eth0\"", "already defined in line"),
            ("[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 1\n[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 2", "already defined in line 4"),
            ("[[bgp.listen-range]]\nprefix = \"10.0.0.1/24\"\nremote-as = 1", "has host bits set; write 10.0.0.0/24"),
            ("[advertise]\nnetworks = [\"10.1.2.3/8\"]", "advertise.networks[0]: `10.1.2.3/8` has host bits set; write 10.0.0.0/8"),
            ("[advertise]\nnetworks = [\"127.0.0.0/8\"]", "loopback"),
            ("[advertise]\ncommunities = [\"65536:1\"]", "is not a community"),
            ("[fib]\ntable = 255", "without 255"),
            ("[fib]\nprotocol = 2", "5 to 255"),
            ("[fib]\nmetric = 4294967295", "1 to 4294967294"),
            ("[fib]\nresilient = 1", "fib.resilient: must be true or false"),
            ("[fib]\nresilient = true\nnexthop-objects = false", "fib.resilient: resilient groups are nexthop objects"),
            ("[fib]\non-exit = \"drop\"", "\"keep\", \"flush\""),
            ("[kubernetes]\npeering = [\"none\", \"mesh\"]", "cannot be combined"),
            ("[kubernetes]\nnode-name = \"Node 1\"", "is not a node name"),
            ("[cni]\nfile = \"../x.conflist\"", "without a folder"),
            ("[cni]\nplugins = [\"portmapp\"]", "cni.plugins[0]: `portmapp` is not known"),
            ("[cni]\nplugins = [{ rate = 1 }]", "needs `type`"),
            ("[cni]\nbridge = \"a-name-that-is-too-long\"", "is not an interface name"),
            ("[docker]\nnetworks = [\"a b\"]", "docker.networks[0]: `a b` is not a name of a Docker network"),
            ("[docker]\nnetworks = [\"label:=x\"]", "write \"label:KEY=VALUE\""),
            ("[docker]\nsocket = \"docker.sock\"", "absolute path"),
            ("[metrics]\nlisten = \"9179\"", "not an address with a port"),
            ("[control]\nsocket = \"routelet.sock\"", "absolute path"),
            ("[security]\nsandbox = \"no\"",      "security.sandbox: "),
            ("[security]\nsandboxed = true",    "did you mean `sandbox`?"),
            ("[log]\nlevel = \"loud\"", "is not a log level"),
            ("[policies]\n", "did you mean `policy`?"),
            ("[policy.x]\naction = \"accept\"", "write [[policy.x]] in double brackets"),
            ("[[policy.x]]\nprefixes = [\"10.0.0.0/8\"]", "policy.x[0]: does nothing"),
            ("[[policy.x]]\nprefixes = [\"10.0.0.0/8{33,8}\"]\naction = \"accept\"", "is not a prefix range"),
            ("[[policy.x]]\nprefixes = [\"10.0.0.1/8{16,24}\"]\naction = \"accept\"", "write 10.0.0.0/8"),
            ("[[policy.x]]\nas-path = \"(\"\naction = \"accept\"", "is not a regular expression"),
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
