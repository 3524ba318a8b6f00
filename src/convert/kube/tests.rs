//! Objects with every field of their definitions, and the results.

use crate::{
    config::{ParseContext, objects},
    convert::{ConvertError, Format, Input, Line, MAX_INPUT, Outcome, Report, convert},
};

fn input(text: &str) -> Vec<Input> {
    vec![Input { name: "objects.yaml".to_owned(), text: text.to_owned() }]
}

fn converted(text: &str) -> Report {
    convert(&input(text), None).unwrap()
}

/// Outcome and reason of the line that contains this text.
fn outcome(report: &Report, part: &str) -> (Outcome, String) {
    let line = report.lines.iter().find(|l| l.text.contains(part));
    let line = line.unwrap_or_else(|| panic!("no {part} in {:#?}", report.lines));
    (line.outcome, line.reason.clone().unwrap_or_default())
}

/// The document of the output with this name.
fn document<'a>(report: &'a Report, name: &str) -> &'a str {
    let has = |d: &&str| d.contains(&format!("\n  name: {name}\n"));
    let found = report.output.split("\n---\n").find(has);
    let found = found.unwrap_or_else(|| panic!("no {name} in {}", report.output));
    let lists = ["\n# Not carried over:", "\n# Carried over with", "\n# Not needed:"];
    let end = lists.iter().filter_map(|heading| found.find(heading)).min();
    found.get(..end.unwrap_or(found.len())).unwrap_or(found)
}

const FILES: [(&str, Format, &str); 5] = [
    ("calico", Format::Calico, include_str!("../../../tests/interop/convert/calico.yaml")),
    ("metallb", Format::Metallb, include_str!("../../../tests/interop/convert/metallb.yaml")),
    (
        "metallb-configmap",
        Format::Metallb,
        include_str!("../../../tests/interop/convert/metallb-configmap.yaml"),
    ),
    ("cilium", Format::Cilium, include_str!("../../../tests/interop/convert/cilium.yaml")),
    ("cilium-policy", Format::Cilium, include_str!("../../../tests/interop/convert/cilium-policy.yaml")),
];

#[test]
fn files_with_every_known_field_are_converted() {
    for (name, format, text) in FILES {
        let report = converted(text);
        assert_eq!(report.format, format, "{name}");
        insta::assert_snapshot!(format!("objects-{name}"), report.output);
    }
}

#[test]
fn every_known_field_is_carried_over_or_listed_with_a_reason_of_its_own() {
    for (name, _, text) in FILES {
        let report = converted(text);
        for Line { text, outcome, reason, .. } in &report.lines {
            let reason = reason.as_deref();
            assert_ne!(reason, Some("not known to routelet"), "{name}: {text}");
            assert_eq!(reason.is_none(), *outcome == Outcome::Carried, "{name}: {text}");
        }
        let mut documents = Vec::new();
        for document in super::yaml::documents(text).unwrap() {
            super::object::flatten(document, &mut documents);
        }
        for document in &documents {
            let Some(spec) = document.get("spec") else { continue };
            let mut leaves = Vec::new();
            spec.leaves(String::new(), &mut leaves);
            for (path, leaf) in leaves {
                let begin = format!("spec.{path}:");
                let is_it = |l: &&Line| l.line == leaf.line && l.text.contains(&begin);
                assert!(report.lines.iter().any(|l| is_it(&l)), "{name}: {begin}");
            }
        }
    }
}

#[test]
fn unknown_fields_kinds_and_annotations_are_listed() {
    let peer = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata:\n  name: a\n  annotations: {other/key: x}\n\
                spec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, shiny: {new: [1, 2]}, unset: null}\n";
    let report = converted(&format!(
        "{peer}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{a: aHVzaA==}}\n"
    ));
    assert_eq!(
        outcome(&report, "spec.shiny.new: [1, 2]"),
        (Outcome::NotCarried, "not known to routelet".into())
    );
    assert_eq!(outcome(&report, "spec.unset").0, Outcome::NotNeeded);
    assert_eq!(outcome(&report, "other/key").0, Outcome::NotCarried);
    assert!(outcome(&report, "Secret s").1.contains("copy those"));
    assert!(!report.complete && !report.output.contains("aHVzaA"), "{}", report.output);
}

#[test]
fn passwords_are_in_neither_list_nor_result_and_their_neighbors_wait_for_the_secret() {
    for text in [FILES[1].2, FILES[2].2] {
        let report = converted(text);
        assert!(!format!("{report:?}").contains("sesame"), "{}", report.output);
        assert!(report.output.contains("passwordSecretRef: {"), "{}", report.output);
    }
}

#[test]
fn neighbors_of_metallb_get_the_addresses_of_their_pools_and_learn_nothing() {
    let report = converted(FILES[1].2);
    let spine = document(&report, "spine-export");
    assert!(spine.contains("10.77.0.0/24{32,32}") && !spine.contains("198.51.100"), "{spine}");
    let leaf = document(&report, "leaf-export");
    assert!(leaf.contains("203.0.113.10/31{32,32}") && leaf.contains("64500:200"), "{leaf}");
    assert!(leaf.trim_end().ends_with("action: \"reject\""), "{leaf}");
    for peer in ["leaf-1", "leaf-2", "spine"] {
        assert!(document(&report, peer).contains("import: [\"reject-all\"]"), "{peer}");
    }
    assert!(!report.output.contains("172.31.0.3\""), "of a VRF: {}", report.output);
    let file = document(&report, "routelet");
    for key in ["peering = \"none\"", "advertise-pod-cidrs = false", "services = [\"load-balancer-ip\"]"] {
        assert!(file.contains(key), "{key}: {file}");
    }
}

#[test]
fn an_advertisement_of_metallb_without_counterpart_advertises_nothing() {
    let with = |advertisement: &str| {
        converted(&format!(
            "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {{name: p}}\nspec: {{myASN: 1, peerASN: 2, \
             peerAddress: 10.0.0.1}}\n---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: a}}\n\
             spec: {{addresses: [192.0.2.0/24]}}\n---\napiVersion: metallb.io/v1beta1\nkind: BGPAdvertisement\n\
             metadata: {{name: x}}\nspec: {advertisement}\n"
        ))
    };
    assert!(document(&with("{}"), "p-export").contains("192.0.2.0/24"));
    for (advertisement, part) in [
        ("{communities: [unknown]}", "is not known"),
        ("{communities: [no-export]}", "is not known"),
        ("{aggregationLength: 24}", "aggregates"),
        ("{nodeSelectors: [{matchLabels: {rack: a}}]}", "select the Nodes"),
        ("{ipAddressPools: [b]}", "not in the input"),
        ("{ipAddressPoolSelectors: [{matchLabels: {rack: a}}]}", ""),
        ("{ipAddressPoolSelectors: [{matchExpressions: [{key: rack, operator: Near}]}]}", "Near"),
        ("{peers: [q]}", ""),
        ("{localPref: high}", "no LOCAL_PREF"),
    ] {
        let report = with(advertisement);
        assert!(!report.output.contains("\"accept\""), "{advertisement}: {}", report.output);
        let reasons: String = report.lines.iter().filter_map(|l| l.reason.clone()).collect();
        assert!(reasons.contains(part), "{advertisement}: {reasons}");
    }
}

#[test]
fn a_filter_of_calico_rejects_from_the_rule_on_that_has_no_counterpart() {
    for unfit in [
        "interface: eth1",
        "priority: 100",
        "shiny: true",
        "operations: [{setPriority: {value: 7}}]",
        "operations: [{prependASPath: {prefix: [7]}}]",
        "peerType: cBGP",
        "source: Elsewhere",
        "cidr: 2001:db8::/32, matchOperator: In",
        "cidr: 10.0.0.0/8",
        "cidr: 10.0.0.0/8, matchOperator: Near",
        "matchOperator: In",
        "communities: {values: [a]}",
    ] {
        let report = converted(&calico(&format!(
            "spec:\n  exportV4:\n  - {{action: Reject, cidr: 10.9.0.0/16, matchOperator: Equal}}\n  - {{action: Accept, {unfit}}}\n  \
             - {{action: Accept}}\n"
        )));
        let policy = document(&report, "p-export");
        let statements: Vec<&str> = policy.split("  - ").skip(1).collect();
        assert!(statements[0].contains("10.9.0.0/16\""), "{unfit}: {policy}");
        assert!(
            statements[1].contains("reject") && statements[1].contains("families: [\"ipv4-unicast\"]"),
            "{unfit}: {policy}"
        );
        assert!(!policy.contains("accept"), "{unfit}: {policy}");
        assert!(!report.complete);
    }
}

/// A neighbor with the filter `f`.
fn calico(filter: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: p}}\nspec: {{peerIP: 10.0.0.1, asNumber: 65001, \
         filters: [f]}}\n---\napiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {{name: f}}\n{filter}"
    )
}

#[test]
fn conditions_of_calico_match_the_same_prefixes() {
    for (rule, expected) in [
        ("cidr: 10.0.0.0/8, matchOperator: In", "prefixes: [\"10.0.0.0/8{8,32}\"]"),
        ("cidr: 10.0.0.0/8, matchOperator: Equal", "prefixes: [\"10.0.0.0/8\"]"),
        (
            "cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 16, max: 24}",
            "prefixes: [\"10.0.0.0/8{16,24}\"]",
        ),
        ("cidr: 128.0.0.0/1, matchOperator: NotIn", "prefixes: [\"0.0.0.0/0{0,0}\",\"0.0.0.0/1{1,32}\"]"),
        ("asPathPrefix: [65001, 65002]", "asPath: \"^65001_65002_\""),
        ("source: RemotePeers", "source: [\"bgp\"]"),
        ("peerType: eBGP", "action: \"accept\""),
    ] {
        let report = converted(&calico(&format!("spec:\n  exportV4: [{{action: Accept, {rule}}}]\n")));
        let policy = document(&report, "p-export");
        let first = policy.split("  - ").nth(1).unwrap();
        let expected = expected.replace("0{0,0}", "0");
        assert!(first.contains(&expected) && first.contains("accept"), "{rule}: {policy}");
    }
    let internal = converted(&calico("spec:\n  exportV4: [{action: Accept, peerType: iBGP}]\n"));
    assert!(!document(&internal, "p-export").contains("accept"), "{}", internal.output);
}

#[test]
fn what_calico_keeps_back_is_kept_back() {
    let report = converted(FILES[0].2);
    // The filter's rules precede Calico's defaults; the rule for learned routes is last.
    let policy = document(&report, "rack-a-export");
    let at = |part: &str| policy.find(part).unwrap_or_else(|| panic!("no {part} in {policy}"));
    assert!(at("10.244.128.0/17") < at("65000:5") && at("10.245.0.0/16") < at("source: [\"bgp\"]"));
    let services = document(&report, "calico-services");
    assert!(services.contains("10.96.0.0/16{16,32}") && services.contains("198.51.100.0/24{24,32}"));
    assert!(
        document(&report, "rack-b").contains("\"calico-services\",\"calico-export\""),
        "{}",
        report.output
    );

    let missing = converted(&calico("spec: {}\n").replace("filters: [f]", "filters: [f, g]"));
    assert!(!missing.output.contains("kind: BGPPeer"), "{}", missing.output);
    let config = |spec: &str| {
        converted(&format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {spec}\n"
        ))
    };
    assert!(config("{}").output.contains("peering = \"mesh\""));
    let secret = "{nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}";
    for spec in ["{nodeToNodeMeshEnabled: false}", secret] {
        assert!(config(spec).output.contains("peering = \"none\""), "{spec}");
    }
    let mixed =
        config("{serviceClusterIPs: [{cidr: 10.96.0.0/24}], serviceLoadBalancerIPs: [{cidr: 10.96.0.0/16}]}");
    assert!(!mixed.output.contains("\"cluster-ip\"") && !mixed.output.contains("load-balancer-ip"));
    let unknown = config("{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [x]}]}");
    assert!(outcome(&unknown, "10.0.0.0/8").1.contains("not advertised"));
}

#[test]
fn neighbors_of_cilium_get_what_their_families_select_and_learn_nothing() {
    let report = converted(FILES[3].2);
    let leaf = document(&report, "racks-leaf-1-export");
    assert!(
        leaf.contains("65000:99") && leaf.contains("no-export") && leaf.contains("large:65000:1:2"),
        "{leaf}"
    );
    assert!(leaf.contains("\"ipv4-unicast\"") && !leaf.contains("ipv6-unicast"), "{leaf}");
    // Without a CiliumBGPPeerConfig there are no advertisements.
    let third = document(&report, "racks-leaf-3");
    assert!(third.contains("export: [\"reject-all\"]") && third.contains("localAs: 64700"), "{third}");
    assert!(!report.output.contains("name: racks-gateway\n"), "{}", report.output);
    let file = document(&report, "routelet");
    assert!(file.contains("service-selector = \"somekey notin (never-used-value)\""), "{file}");
    assert!(file.contains("services = [\"external-ip\", \"load-balancer-ip\"]"), "{file}");
    assert!(outcome(&report, "advertisements[2].service.addresses").1.contains("other Services"));
    let policy = converted(FILES[4].2);
    let export = document(&policy, "rack0-1-export");
    assert!(export.contains("pod-cidr") && !export.contains("service"), "{export}");
    let no_selector =
        FILES[3].2.replace("selector: {}", "x: {}").replace("somekey", "io.kubernetes.service.name");
    let report = converted(&no_selector);
    assert!(outcome(&report, "advertisements[1].service.addresses").1.contains("no labels to routelet"));
}

#[test]
fn neighbors_that_would_differ_are_left_out() {
    let metallb = |spec: &str| {
        converted(&format!(
            "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {{name: p}}\nspec: {spec}\n"
        ))
    };
    for (spec, part) in [
        ("{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, vrf: red}", "no VRFs"),
        ("{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, bfdProfile: x}", "not in the input"),
        ("{myASN: 1, peerASN: 2, peerAddress: 10.0.0.300}", "no address"),
        ("{myASN: 1, peerASN: 0, peerAddress: 10.0.0.1}", "one of peerASN and dynamicASN"),
        ("{peerASN: 2, peerAddress: 10.0.0.1}", "myASN"),
        ("{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, sourceAddress: x}", "localAddress"),
        (
            "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, nodeSelectors: [{matchExpressions: [{key: a, operator: Exists}]}]}",
            "Exists",
        ),
    ] {
        let report = metallb(spec);
        assert!(!report.output.contains("kind: BGPPeer"), "{spec}: {}", report.output);
        let (outcome, why) = outcome(&report, "spec.peerASN");
        assert!(outcome == Outcome::NotCarried && why.contains(part), "{spec}: {why}");
    }
    let one = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: a}\nspec: {myASN: 1, peerASN: 2, \
               peerAddress: 10.0.0.1}\n";
    let two = converted(&format!("{one}---\n{}", one.replace("name: a", "name: b")));
    assert_eq!(two.output.matches("kind: BGPPeer").count(), 1);
    assert!(outcome(&two, "BGPPeer b: spec.peerAddress").1.contains("same address"));
}

#[test]
fn input_that_is_none_is_an_error_of_one_line() {
    let all = format!("{}---\n{}", FILES[1].2, FILES[3].2);
    let cases = [
        (all.as_str(), None, "metallb, cilium"),
        ("a: [1", Some(Format::Calico), "objects.yaml"),
        ("a: 1", Some(Format::Metallb), "kubectl get -o yaml"),
        ("", Some(Format::Cilium), "kubectl get -o yaml"),
    ];
    for (text, format, part) in cases {
        let error = convert(&input(text), format).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
    let huge = "#".repeat(MAX_INPUT + 1);
    assert!(matches!(convert(&input(&huge), Some(Format::Calico)), Err(ConvertError::TooLarge(_))));
}

#[test]
fn the_same_objects_as_json_give_the_same_result() {
    let read: Vec<serde_json::Value> = serde_saphyr::from_multiple(FILES[3].2).unwrap();
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": read });
    let (yaml, json) = (converted(FILES[3].2), converted(&serde_json::to_string_pretty(&list).unwrap()));
    let objects = |report: &Report| report.output.split("\n# Not carried over").next().unwrap().to_owned();
    assert_eq!(objects(&yaml), objects(&json));
}

#[test]
fn the_result_is_what_check_and_the_daemon_accept() {
    for (name, _, text) in FILES {
        let report = converted(text);
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&report.output).unwrap();
        let file = documents[0]["data"]["routelet.toml"].as_str().unwrap();
        let context = ParseContext { kubernetes: true, read_password: &|_| Ok("x".into()) };
        let (mut config, _) =
            crate::config::parse(file, &context).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let spec = |d: &serde_json::Value| d["spec"].as_object().unwrap().clone();
        for policy in documents.iter().filter(|d| d["kind"] == "BGPPolicy") {
            let of_it = policy["metadata"]["name"].as_str().unwrap();
            let read = objects::policy(of_it, &spec(policy)).unwrap();
            config.policies.insert(of_it.to_owned(), read);
        }
        for peer in documents.iter().filter(|d| d["kind"] == "BGPPeer") {
            let mut spec = spec(peer);
            spec.retain(|key, _| key != "nodeSelector" && key != "passwordSecretRef");
            objects::neighbor(&spec, &config).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}
