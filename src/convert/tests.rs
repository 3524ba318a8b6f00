//! The files of `tests/interop/convert/`, which the daemons start on as well, and what is made of
//! them; and input that has no counterpart.

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

/// Outcome and reason of the line that begins so.
fn outcome(report: &Report, begin: &str) -> (Outcome, String) {
    let line =
        report.lines.iter().find(|l| l.text.starts_with(begin)).unwrap_or_else(|| panic!("no {begin}"));
    (line.outcome, line.reason.clone().unwrap_or_default())
}

#[test]
fn the_files_of_the_round_trip_are_converted() {
    for (name, text) in
        files!["frr-1-host", "frr-2-connected", "frr-3-two-leaves", "frr-4-transit", "quagga-1"]
    {
        let format = name.starts_with("quagga").then_some(Format::Quagga);
        let report = convert(&input(&format!("{name}.conf"), text), format).unwrap();
        insta::assert_snapshot!(name, report.output);
    }
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
        ("network 0.0.0.0/0",                        Outcome::NotCarried, "no prefix that a host originates"),
        ("redistribute ospf",                        Outcome::NotCarried, "not redistributed"),
        ("aggregate-address 10.0.0.0/8 summary-only", Outcome::NotCarried, "does not aggregate"),
        ("bgp log-neighbor-changes",                 Outcome::NotNeeded,  "logged"),
        ("maximum-paths 0",                          Outcome::NotCarried, "1 to 1024"),
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

proptest! {
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
