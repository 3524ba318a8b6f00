//! The files of `tests/interop/convert/`, on which the other daemons start as well, and their
//! results; and input that has no counterpart.

use proptest::prelude::*;

use super::*;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../tests/interop/convert/", $name, ".conf")))),*]
    };
}

fn input(name: &str, text: &str) -> Vec<Input> {
    vec![Input { name: name.to_owned(), text: text.to_owned() }]
}

fn converted(text: &str) -> Report {
    convert(&input("frr.conf", text), None).unwrap()
}

/// A configuration with these lines in `router bgp` and after it.
fn frr(inside: &str, after: &str) -> String {
    format!(
        "frr version 10.0\nfrr defaults datacenter\nrouter bgp 65001\n neighbor 10.0.0.2 remote-as 65002\n{inside}exit\n{after}"
    )
}

/// Outcome and reason of the line that begins with this text.
fn outcome(report: &Report, begin: &str) -> (Outcome, String) {
    let line =
        report.lines.iter().find(|l| l.text.starts_with(begin)).unwrap_or_else(|| panic!("no {begin}"));
    (line.outcome, line.reason.clone().unwrap_or_default())
}

#[test]
fn the_files_of_the_round_trip_are_converted() {
    for (name, text) in files![
        "frr-1-host",
        "frr-2-connected",
        "frr-3-two-leaves",
        "frr-4-transit",
        "quagga-1",
        "bird-1-host",
        "bird-2-filters",
        "bird-3-two-leaves",
        "bird-4-transit"
    ] {
        let format = name.starts_with("quagga").then_some(Format::Quagga);
        let report = convert(&input(&format!("{name}.conf"), text), format).unwrap();
        insta::assert_snapshot!(name, report.output);
    }
}

#[test]
fn flags_of_kube_router_are_keys() {
    let text = include_str!("../../tests/interop/convert/kube-router.yaml");
    let report = convert(&input("kube-router.yaml", text), None).unwrap();
    assert_eq!(report.format, Format::KubeRouter);
    insta::assert_snapshot!("kube-router", report.output);
    assert_eq!(outcome(&report, "--run-firewall").0, Outcome::NotCarried);
    assert_eq!(outcome(&report, "kube-router.io/node.asn").0, Outcome::NotCarried);
}

/// As two items of a YAML list.
#[test]
fn a_list_of_kube_router_whose_value_stands_elsewhere_is_not_carried_over() {
    let report =
        converted("args:\n- --run-router=true\n- --cluster-asn=64512\n- --peer-router-ips\n- 10.0.0.1\n");
    let (outcome, why) = outcome(&report, "--peer-router-ips");
    assert!(outcome == Outcome::NotCarried && why.contains("behind `=`"), "{why}");
}

#[test]
fn neighbors_of_kube_router_are_left_out_where_their_lists_do_not_match() {
    let convert = |flags: &str| convert(&input("args", flags), Some(Format::KubeRouter)).unwrap();
    let report = convert("--peer-router-ips=10.0.0.1,10.0.0.2 --peer-router-asns=65001");
    assert!(!report.output.contains("[[bgp.neighbor]]") && !report.complete);
    let report =
        convert("--peer-router-ips=10.0.0.1 --peer-router-asns=65001 --peer-router-passwords=c2VzYW1l");
    assert!(
        !report.output.contains("[[bgp.neighbor]]") && !report.output.contains("c2VzYW1l"),
        "{}",
        report.output
    );
    let report = convert("kube-router.io/peer.passwords: c2VzYW1l");
    assert!(!report.output.contains("c2VzYW1l"), "{}", report.output);
    let report =
        convert("kube-router --peer-router-ips=10.0.0.1 --peer-router-asns=65001 --enable-ibgp=false");
    assert!(report.output.contains("[[bgp.neighbor]]") && report.output.contains("peering = \"none\""));
}

#[test]
fn a_policy_rejects_from_the_entry_on_that_has_no_counterpart() {
    for unfit in [
        "match tag 7",
        "set weight 9",
        "call OTHER",
        "on-match next",
        "set community none",
        "match ip address ACL",
    ] {
        let report = converted(&frr(
            " neighbor 10.0.0.2 route-map M in\n",
            &format!(
                "access-list ACL permit 10.0.0.0 0.255.255.255\nip prefix-list P permit 10.0.0.0/8\n\
                 route-map M permit 10\n match ip address prefix-list P\nroute-map M permit 20\n {unfit}\n\
                 route-map M permit 30\n"
            ),
        ));
        let statements: Vec<&str> = report.output.split("[[policy.M]]").skip(1).collect();
        assert_eq!(statements.len(), 2, "{unfit}: {}", report.output);
        assert!(
            statements[0].contains("action = \"accept\"") && statements[1].contains("action = \"reject\"")
        );
        assert!(!report.complete);
        assert_eq!(outcome(&report, "route-map M permit 20").0, Outcome::Differs, "{unfit}");
        if !unfit.ends_with("ACL") {
            assert_eq!(outcome(&report, unfit).0, Outcome::NotCarried, "{unfit}");
        }
    }
}

#[test]
fn communities_of_own_routes_are_replaced_where_the_route_map_replaces_them() {
    let report = converted(&frr(
        " network 10.9.0.0/16 route-map OWN\n neighbor 10.0.0.2 route-map OUT out\n",
        "route-map OWN permit 10\n set community 65001:1 65001:2\nroute-map OUT permit 10\n set community 65001:2 65001:3\n",
    ));
    assert!(report.output.contains("remove-communities = [\"65001:1\"]"), "{}", report.output);
}

#[test]
fn what_is_not_in_the_input_rejects_as_on_the_router() {
    for line in ["route-map NONE in", "prefix-list NONE in", "filter-list NONE in", "distribute-list NONE in"]
    {
        let report = converted(&frr(&format!(" neighbor 10.0.0.2 {line}\n"), ""));
        assert!(
            report.output.contains("import = [\"") && report.output.contains("action = \"reject\""),
            "{line}"
        );
        assert!(!report.output.contains("action = \"accept\""), "{line}: {}", report.output);
    }
}

#[test]
fn a_policy_that_is_required_in_one_family_only_rejects_in_the_other() {
    let report = converted(
        "frr version 9.1\nrouter bgp 65001\n neighbor 10.0.0.2 remote-as 65002\n address-family ipv4\n  \
         neighbor 10.0.0.2 route-map ALL out\n address-family ipv6\n  neighbor 10.0.0.2 activate\n\
         route-map ALL permit 10\n",
    );
    assert!(report.output.contains("require-policy = true"));
    assert!(report.output.contains("export = [\"ALL\", \"reject\"]"), "{}", report.output);
    assert!(report.output.contains("[[policy.reject]]\nfamilies = [\"ipv6-unicast\"]\naction = \"reject\""));
}

#[test]
fn lines_end_with_their_outcome() {
    #[rustfmt::skip]
    let cases = [
        ("neighbor 10.0.0.2 ebgp-multihop 3",        Outcome::Carried,    ""),
        ("neighbor 10.0.0.2 password x",             Outcome::Carried,    ""),
        ("neighbor 10.0.0.2 timers 10 30",           Outcome::Carried,    ""),
        ("neighbor 10.0.0.2 timers 1 30",            Outcome::Differs,    "third of the hold time"),
        ("neighbor 10.0.0.2 timers 1 2",             Outcome::NotCarried, "0, or 3 to 65535"),
        ("neighbor 10.0.0.2 local-as 65010",         Outcome::Differs,    "alone in the path"),
        ("neighbor 10.0.0.2 default-originate",      Outcome::NotCarried, "no counterpart"),
        ("neighbor 10.0.0.2 advertise-map A exist-map B", Outcome::NotCarried, "nothing is advertised"),
        ("neighbor 10.0.0.2 update-source lo",       Outcome::NotCarried, "local-address"),
        ("neighbor 10.0.0.2 frobnicate",             Outcome::NotCarried, "not known"),
        ("network 10.9.0.0/16",                      Outcome::Differs,    "import-check"),
        ("network 0.0.0.0/0",                        Outcome::NotCarried, "not a prefix that a host originates"),
        ("redistribute ospf",                        Outcome::NotCarried, "not redistributed"),
        ("aggregate-address 10.0.0.0/8 summary-only", Outcome::NotCarried, "does not aggregate"),
        ("bgp log-neighbor-changes",                 Outcome::NotNeeded,  "logged"),
        ("maximum-paths 0",                          Outcome::NotCarried, "1 to 1024"),
        ("bgp default local-preference 200",         Outcome::NotCarried, "import policy"),
        ("bgp default ipv6-unicast",                 Outcome::NotCarried, "families"),
        ("no bgp default show-hostname",             Outcome::NotNeeded,  "do not depend"),
    ];
    for (line, expected, reason) in cases {
        let report = converted(&frr(&format!(" {line}\n"), ""));
        let begin = line.split(" x").next().unwrap();
        let (outcome, found) = outcome(&report, begin);
        assert_eq!(outcome, expected, "{line}: {found}");
        assert!(found.contains(reason), "{line}: {found}");
        assert_eq!(report.complete, !outcome.needs_review(), "{line}");
    }
}

#[test]
fn input_of_which_nothing_can_be_made_is_refused() {
    let refused = |text: &str| convert(&input("x", text), None).unwrap_err().to_string();
    assert!(refused("hello").contains("--from"));
    assert!(refused("router bgp 0\n").contains("no `router bgp`"));
    assert!(refused(&"#".repeat(MAX_INPUT + 1)).contains("limit"));
}

#[test]
fn blocks_of_other_things_are_left_out_as_a_whole() {
    let report = converted(&frr(
        "",
        "router ospf\n network 10.0.0.0/8 area 0\nexit\nvrf blue\n ip route 10.0.0.0/8 10.1.1.1\n\
         router bgp 7 vrf blue\n neighbor 10.7.7.7 remote-as 8\n",
    ));
    for begin in ["network 10.0.0.0/8 area", "neighbor 10.7.7.7", "router bgp 7 vrf"] {
        assert_eq!(outcome(&report, begin).0, Outcome::NotCarried, "{begin}");
    }
    assert!(!report.output.contains("[[bgp.neighbor]]\naddress = \"10.7.7.7\""));
}

/// The policies of a BIRD neighbor with this import filter, and the report.
fn bird(filter: &str) -> (String, Report) {
    let text = format!(
        "router id 10.0.0.1;\nprotocol kernel {{ ipv4 {{ export all; }}; }}\nprotocol bgp a {{\n local as 65001;\n \
         neighbor 10.0.0.2 as 65002;\n ipv4 {{\n import filter {{\n{filter}\n }};\n export none;\n }};\n}}\n"
    );
    let report = convert(&input("bird.conf", &text), None).unwrap();
    let policies: Vec<&str> = report.output.split("[[policy.a-import]]\n").skip(1).collect();
    let policies = policies.iter().map(|p| p.split("\n\n").next().unwrap_or_default());
    (policies.map(|p| p.trim().replace('\n', "; ")).collect::<Vec<_>>().join(" | "), report)
}

#[test]
fn filters_of_bird_are_statements_in_order() {
    const REJECT: &str = "families = [\"ipv4-unicast\"]; action = \"reject\"";
    #[rustfmt::skip]
    let cases = [
        ("reject;", REJECT.to_owned()),
        ("if net ~ [ 10.0.0.0/8+ ] then accept;",
            format!("prefixes = [\"10.0.0.0/8{{8,32}}\"]; action = \"accept\" | {REJECT}")),
        ("if net !~ [ 0.0.0.0/0{0,8} ] then accept;",
            format!("prefixes = [\"0.0.0.0/0{{9,32}}\"]; action = \"accept\" | {REJECT}")),
        ("if ! (net = 10.0.0.0/8 || net.len > 8) then accept; else reject;",
            format!("prefixes = [\"0.0.0.0/0{{0,7}}\", \"128.0.0.0/1{{8,8}}\", \"64.0.0.0/2{{8,8}}\", \"32.0.0.0/3{{8,8}}\", \"16.0.0.0/4{{8,8}}\", \"0.0.0.0/5{{8,8}}\", \"12.0.0.0/6{{8,8}}\", \"8.0.0.0/7{{8,8}}\", \"11.0.0.0/8\"]; action = \"accept\" | {REJECT}")),
        ("bgp_med = 7; if bgp_path.last = 9 then { bgp_local_pref = 5; accept; } accept;",
            "families = [\"ipv4-unicast\"]; set-med = 7 | families = [\"ipv4-unicast\"]; origin-as = [9]; \
             set-local-pref = 5; action = \"accept\" | families = [\"ipv4-unicast\"]; action = \"accept\"".to_owned()),
        ("if (1,2) ~ bgp_community then { if source = RTS_BGP then accept; }",
            format!("communities = [\"1:2\"]; families = [\"ipv4-unicast\"]; source = [\"bgp\"]; action = \"accept\" | {REJECT}")),
    ];
    for (filter, expected) in cases {
        let (found, report) = bird(filter);
        // Nine ranges are on separate lines.
        let found = found.replace("[;     ", "[").replace(",;     ", ", ").replace(",; ]", "]");
        assert_eq!(found, expected, "{filter}: {:#?}", report.lines);
    }
}

#[test]
fn filters_of_bird_reject_from_what_has_no_counterpart() {
    for unfit in [
        "if ifname ~ \"docker*\" then accept;",
        "bgp_origin = ORIGIN_IGP; accept;",
        "bgp_path.prepend(7); accept;",
        "if ! (1,2) ~ bgp_community then accept;",
        "case net.len { 8: accept; }",
        "bgp_community.add((1,2)); if (1,2) ~ bgp_community then accept;",
        "if net = 10.0.0.0/8 || (1,2) ~ bgp_community then bgp_path.prepend(65001); accept;",
        "some_function(net); accept;",
        "if net = 10.1.0.0/16 || net = 10.2.0.0/16 && source = RTS_BGP then accept;",
    ] {
        let (found, report) = bird(&format!("if net = 10.9.0.0/16 then accept;\n{unfit}"));
        assert!(
            found.starts_with("prefixes = [\"10.9.0.0/16\"]; action = \"accept\" | "),
            "{unfit}: {found}"
        );
        assert!(found.ends_with("families = [\"ipv4-unicast\"]; action = \"reject\""), "{unfit}: {found}");
        assert_eq!(found.matches("accept").count(), 1, "{unfit}: {found}");
        assert!(!report.complete, "{unfit}");
        let begin = unfit.split(';').next().unwrap().split(" {").next().unwrap();
        assert_eq!(outcome(&report, begin).0, Outcome::NotCarried, "{unfit}: {:#?}", report.lines);
    }
}

/// The table with this heading up to the next empty line.
fn table<'a>(report: &'a Report, heading: &str) -> &'a str {
    let at = report.output.find(heading).unwrap_or_else(|| panic!("no {heading}: {}", report.output));
    report.output[at..].split("\n\n").next().unwrap()
}

#[test]
fn conditions_of_one_entry_hold_together() {
    for (both, kept) in [
        ("match community C\n match large-community L", false),
        ("match ip address prefix-list P\n match ipv6 address prefix-list Q", false),
        ("match ip next-hop address 10.0.0.7\n match ipv6 next-hop address 2001:db8::7", false),
        ("match ip address prefix-list NONE\n match ip address prefix-list P", true),
    ] {
        let report = converted(&frr(
            " neighbor 10.0.0.2 route-map M in\n",
            &format!(
                "bgp community-list standard C permit 65001:1\nbgp large-community-list standard L permit 65001:1:1\n\
                 ip prefix-list P permit 10.0.0.0/8\nipv6 prefix-list Q permit 2001:db8::/32\n\
                 route-map M permit 10\n {both}\n"
            ),
        ));
        assert_eq!(report.output.contains("action = \"accept\""), kept, "{both}: {}", report.output);
    }
}

#[test]
fn a_deny_entry_whose_list_is_not_in_the_input_rejects_from_there_on() {
    for condition in [
        "ip address prefix-list NONE",
        "ip address NONE",
        "as-path NONE",
        "community NONE",
        "large-community NONE",
    ] {
        let map = format!("route-map M deny 10\n match {condition}\nroute-map M permit 20\n");
        let report = converted(&frr(" neighbor 10.0.0.2 route-map M in\n", &map));
        assert!(!report.output.contains("action = \"accept\"") && !report.complete, "{}", report.output);
    }
}

#[test]
fn what_an_aggregate_suppresses_is_not_advertised() {
    for suppressing in
        ["10.0.0.0/8 summary-only", "10.0.0.0 255.0.0.0 as-set summary-only", "10.0.0.0/8 suppress-map M"]
    {
        let report =
            converted(&frr(&format!(" network 10.1.0.0/16\n aggregate-address {suppressing}\n"), ""));
        assert!(report.output.contains("export = [\"summary-only\"]"), "{suppressing}: {}", report.output);
        let policy = table(&report, "[[policy.summary-only]]");
        assert!(policy.contains("[\"10.0.0.0/8{9,32}\"]") && policy.contains("\"reject\""), "{policy}");
    }
    let report = converted(&frr(" aggregate-address 10.0.0.0/8\n", ""));
    assert!(!report.output.contains("[[policy."), "{}", report.output);
}

#[test]
fn interfaces_of_one_family_are_not_advertised_in_the_other() {
    let report = converted(&frr(
        " redistribute connected route-map ETH0\n address-family ipv6\n  redistribute connected\n  \
         neighbor 10.0.0.2 activate\n",
        "route-map ETH0 permit 10\n match interface eth0\n",
    ));
    assert!(report.output.contains("interfaces = [\"eth0\", \"*\", \"lo\"]"), "{}", report.output);
    let rejected = table(&report, "[[policy.no-interface]]");
    assert!(rejected.contains("ipv4-unicast") && rejected.contains("\"reject\""), "{rejected}");
    assert_eq!(report.output.matches("[[policy.").count(), 1, "{}", report.output);

    let report = bird_file(
        "protocol direct a { ipv4; interface \"eth0\"; }\nprotocol direct b { ipv6; interface \"*\"; }\n",
        "ipv4 { import none; export all; }; ipv6 { import none; export all; };",
    );
    let rejected = table(&report, "[[policy.no-interface]]");
    assert!(rejected.contains("ipv4-unicast") && rejected.contains("\"reject\""), "{rejected}");
    assert_eq!(report.output.matches("[[policy.no-interface").count(), 1, "{}", report.output);
    assert_eq!(outcome(&report, "protocol direct b").0, Outcome::Differs);
}

#[test]
fn neighbors_of_a_group_that_is_shut_down_are_left_out() {
    let report = converted(&frr(
        " neighbor G peer-group\n neighbor G remote-as 65009\n neighbor G shutdown\n \
         bgp listen range 10.9.0.0/16 peer-group G\n",
        "",
    ));
    assert!(!report.output.contains("[[bgp.listen-range]]") && !report.complete, "{}", report.output);
}

#[test]
fn static_routes_of_a_vrf_are_not_advertised() {
    let report =
        converted(&frr(" redistribute static\n", "vrf blue\n ip route 10.66.0.0/16 blackhole\nexit-vrf\n"));
    assert!(!report.output.contains("networks"), "{}", report.output);
}

/// A BIRD file with these protocols and one neighbor with these channels.
fn bird_file(protocols: &str, neighbor: &str) -> Report {
    let text =
        format!("{protocols}protocol bgp a {{ local as 65001; neighbor 10.0.0.2 as 65001; {neighbor} }}\n");
    convert(&input("bird.conf", &text), None).unwrap()
}

#[test]
fn what_bird_does_not_advertise_is_not_advertised() {
    let export = "ipv4 { import none; export where proto = \"ours\"; };";
    let ours = "protocol static ours { ipv4; route 10.1.0.0/16 unreachable; }\n";
    let report = bird_file(ours, export);
    assert!(table(&report, "[[policy.a-export]]").contains("accept"), "{}", report.output);
    // Policies do not distinguish the routes of two protocols of one family.
    let report =
        bird_file(&format!("{ours}protocol static {{ ipv4; route 10.2.0.0/16 blackhole; }}\n"), export);
    assert!(!report.output.contains("accept\""), "{}", report.output);
    for left_out in [
        "protocol static { ipv4 { table other; }; route 10.2.0.0/16 blackhole; }",
        "protocol static { ipv4 { import none; }; route 10.2.0.0/16 blackhole; }",
        "protocol static { ipv4; route 10.2.0.0/16 blackhole { reject; }; }",
        "protocol static { ipv4; route 10.2.0.0/16 blackhole { bgp_community = -empty-; }; }",
        "protocol direct { ipv4; interface \"-eth1\", \"*\"; }",
        "protocol direct { ipv4 { table other; }; }",
    ] {
        let report = bird_file(&format!("{left_out}\n"), "ipv4 { import none; export all; };");
        assert!(!report.output.contains("[advertise]") && !report.complete, "{left_out}: {}", report.output);
    }
}

#[test]
fn neighbors_of_bird_have_what_their_templates_begin_with() {
    let neighbor = |from: &str| {
        let text = format!(
            "template bgp base {{ local as 65001; password \"x\"; ipv4 {{ import none; }}; }}\n\
             template bgp leaf from base {{ hold time 9; }}\ntemplate bgp ring from ring {{ }}\n\
             template bgp torn from gone {{ }}\nprotocol bgp own {{ local as 65001; neighbor 10.0.0.9 as 65001; }}\n\
             protocol bgp a from {from} {{ neighbor 10.0.0.2 as 65001; ipv4 {{ export all; }}; }}\n"
        );
        convert(&input("bird.conf", &text), None).unwrap()
    };
    let report = neighbor("leaf");
    let keys = table(&report, "[[bgp.neighbor]]\naddress = \"10.0.0.2\"");
    assert!(
        keys.contains("password") && keys.contains("hold-time = 9") && keys.contains("import = [\"reject"),
        "{keys}"
    );
    for unknown in ["gone", "torn", "ring"] {
        let report = neighbor(unknown);
        assert!(!report.output.contains("10.0.0.2\""), "{unknown}: {}", report.output);
        assert_eq!(outcome(&report, "protocol bgp a").0, Outcome::NotCarried, "{unknown}");
    }
}

#[test]
fn a_neighbor_of_bird_whose_password_is_not_carried_over_is_left_out() {
    for lost in ["passwords { password \"x\"; };", "authentication ao;", "password \"\";"] {
        let report = bird_file("", &format!("{lost} ipv4 {{ import all; }};"));
        assert!(!report.output.contains("[[bgp.neighbor]]") && !report.complete, "{lost}: {}", report.output);
    }
}

#[test]
fn an_else_belongs_to_the_if_before_it() {
    let (found, report) = bird(
        "if net = 10.1.0.0/16 then { bgp_med = 1; } else if net = 10.2.0.0/16 then bgp_med = 2; else reject;\naccept;",
    );
    let decided: Vec<_> = found.split(" | ").filter(|s| s.contains("action")).collect();
    assert_eq!(decided.len(), 2, "{found}: {:#?}", report.lines);
    assert!(decided[0].contains("reject") && !decided[0].contains("10.1.0.0/16\""), "{found}");
}

#[test]
fn functions_of_bird_that_grow_without_bound_are_refused() {
    let functions: String =
        (1..40).map(|n| format!("function f{n}() {{ return f{}() || f{}(); }}\n", n - 1, n - 1)).collect();
    let report = bird_file(
        &format!("function f0() {{ return net ~ [ 10.0.0.0/8+ ]; }}\n{functions}"),
        "ipv4 { import none; export where f39(); };",
    );
    assert!(!report.output.contains("accept\""), "{}", report.output);
}

#[test]
fn external_neighbors_of_bird_exchange_nothing_without_filters() {
    let text = "protocol bgp a { local as 1; neighbor 10.0.0.2 as 2; ipv4 { import all; }; ipv6; }";
    let report = convert(&input("bird.conf", text), None).unwrap();
    assert!(
        report.output.contains("import = [\"reject-ipv6\"]") || report.output.contains("import = [\"reject")
    );
    assert!(report.output.contains("install = false"));
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(VOCABULARY).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
        1 => any::<u32>().prop_map(|n| n.to_string()),
    ]
}

const VOCABULARY: &[&str] = &[
    "router",
    "bgp",
    "65001",
    "neighbor",
    "10.0.0.2",
    "2001:db8::2",
    "eth0",
    "G",
    "remote-as",
    "external",
    "internal",
    "peer-group",
    "interface",
    "address-family",
    "ipv4",
    "ipv6",
    "unicast",
    "activate",
    "no",
    "route-map",
    "M",
    "permit",
    "deny",
    "10",
    "20",
    "match",
    "set",
    "ip",
    "address",
    "prefix-list",
    "P",
    "seq",
    "10.0.0.0/8",
    "::/0",
    "ge",
    "le",
    "24",
    "32",
    "in",
    "out",
    "network",
    "redistribute",
    "connected",
    "static",
    "metric",
    "community",
    "65001:7",
    "additive",
    "as-path",
    "access-list",
    "_7_",
    "prepend",
    "timers",
    "3",
    "9",
    "password",
    "shutdown",
    "local-as",
    "ebgp-multihop",
    "ttl-security",
    "hops",
    "1",
    "listen",
    "range",
    "exit",
    "!",
    "route",
    "Null0",
    "update-source",
    "lo",
    "allowas-in",
    "maximum-prefix",
    "filter-list",
    "distribute-list",
    "local-preference",
    "next-hop",
    "bfd",
];

const BIRD_VOCABULARY: &[&str] = &[
    "protocol",
    "bgp",
    "static",
    "direct",
    "kernel",
    "template",
    "from",
    "filter",
    "function",
    "define",
    "A",
    "{",
    "}",
    "{",
    "}",
    ";",
    ";",
    ";",
    "(",
    ")",
    "[",
    "]",
    "[=",
    "=]",
    "~",
    "!~",
    "=",
    "!=",
    "!",
    "&&",
    "||",
    ",",
    "if",
    "then",
    "else",
    "accept",
    "reject",
    "return",
    "net",
    "10.0.0.0/8",
    "10.0.0.0/8+",
    "::/0{0,64}",
    "net.len",
    ">",
    "24",
    "source",
    "RTS_BGP",
    "RTS_STATIC",
    "bgp_community",
    "bgp_path",
    "bgp_community.add",
    "bgp_path.prepend",
    "65001",
    "bgp_med",
    "7",
    "local",
    "as",
    "neighbor",
    "10.0.0.2",
    "ipv4",
    "ipv6",
    "import",
    "export",
    "all",
    "none",
    "where",
    "limit",
    "action",
    "multihop",
    "password",
    "\"x\"",
    "hold",
    "time",
    "9",
    "route",
    "unreachable",
    "interface",
    "\"eth*\"",
    "merge",
    "paths",
    "on",
    "ttl",
    "security",
    "next",
    "hop",
    "self",
    "true",
    "range",
    "rr",
    "client",
    "disabled",
    "true",
    "/*",
    "*/",
    "#",
];

proptest! {
    #[test]
    fn whatever_bird_reads_gives_a_valid_file_or_an_error(
        words in prop::collection::vec(prop_oneof![
            9 => prop::sample::select(BIRD_VOCABULARY).prop_map(str::to_owned),
            1 => "[ -~]{0,9}",
        ], 0..300),
    ) {
        let text = format!("protocol bgp a {{ local as 65001; neighbor 10.0.0.9 as 2; ipv4 {{ import all; }}; }}\n{}", words.join(" "));
        match convert(&input("x", &text), Some(Format::Bird)) {
            Ok(report) => prop_assert!(!report.lines.is_empty()),
            Err(ConvertError::Invalid(_) | ConvertError::NothingToConvert(_)) => {}
            Err(e) => prop_assert!(false, "{}", e),
        }
    }

    #[test]
    fn whatever_is_read_gives_a_valid_file_or_an_error(
        lines in prop::collection::vec((prop::collection::vec(word(), 1..7), any::<bool>()), 0..60),
        quagga: bool,
    ) {
        let text: String = lines
            .iter()
            .map(|(words, indented)| format!("{}{}\n", if *indented { " " } else { "" }, words.join(" ")))
            .collect();
        let text = format!("router bgp 65001\n neighbor 10.0.0.2 remote-as 65002\n{text}");
        let format = if quagga { Format::Quagga } else { Format::Frr };
        match convert(&input("x", &text), Some(format)) {
            Ok(report) => prop_assert!(!report.lines.is_empty()),
            Err(ConvertError::Invalid(_)) => {}
            Err(e) => prop_assert!(false, "{}", e),
        }
    }
}
