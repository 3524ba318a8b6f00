//! Kustomize and Helm install the objects of `deploy/daemonset.yaml`, and nothing drifts.

use std::{collections::BTreeMap, fs, process::Command};

use routelet::config::io::load;
use serde_json::{Value, json};

use crate::{defaults, guard::folder, kit, objects, read, root};

/// What is in `deploy/kustomize/overlays`.
const OVERLAYS: [&str; 5] = ["gateway", "mesh", "reflectors", "services", "standalone"];
/// What the chart says besides.
const OF_HELM: [&str; 2] = ["app.kubernetes.io/managed-by", "helm.sh/chart"];

#[test]
fn the_base_of_kustomize_is_the_manifest() {
    assert_same(&by_name(kustomize("base")), &by_name(objects()), "base");
}

#[test]
fn each_overlay_changes_the_configuration_and_no_right() {
    let listed = fs::read_dir(root().join("deploy/kustomize/overlays")).unwrap();
    let mut listed: Vec<_> = listed.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    listed.sort();
    assert_eq!(listed, OVERLAYS);
    let guide = read("docs/install.md");
    for overlay in OVERLAYS {
        assert!(guide.contains(&format!("overlays/{overlay}")), "docs/install.md does not list {overlay}");
        let (mut plain, mut made) = (by_name(objects()), by_name(kustomize(&format!("overlays/{overlay}"))));
        let map = made.remove("ConfigMap routelet").expect("a ConfigMap");
        let before = plain.remove("ConfigMap routelet").unwrap();
        assert_eq!(map["metadata"], before["metadata"], "{overlay}");
        let text = map["data"]["routelet.toml"].as_str().expect("the configuration");
        let file = format!("deploy/kustomize/overlays/{overlay}/routelet.toml");
        assert_eq!(text, read(&file), "{overlay}");
        passes_check(&file);
        let config = load(Some(&root().join(file)), true).unwrap_or_else(|e| panic!("{overlay}: {e}")).config;
        assert_ne!(config, defaults(), "{overlay} changes something");
        if overlay == "standalone" {
            let (was, is) =
                (plain.remove("DaemonSet routelet").unwrap(), made.remove("DaemonSet routelet").unwrap());
            assert_eq!(without_cni(was), is, "no folder of the container runtime");
        }
        assert_same(&made, &plain, overlay);
    }
}

#[test]
fn the_chart_makes_the_objects_of_the_manifest() {
    let mut made = by_name(helm(&[]).unwrap());
    for (name, object) in &mut made {
        if name.starts_with("CustomResourceDefinition") {
            continue;
        }
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        for label in OF_HELM {
            labels.remove(label).unwrap_or_else(|| panic!("{name} has no label {label}"));
        }
    }
    let template = &mut made.get_mut("DaemonSet routelet").unwrap()["spec"]["template"]["metadata"];
    let annotations = template.as_object_mut().unwrap().remove("annotations").unwrap();
    let keys: Vec<_> = annotations.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["checksum/config"]);
    assert_same(&made, &by_name(objects()), "chart");
}

#[test]
fn the_chart_is_of_this_version_and_lints_without_a_word() {
    let chart: Value = serde_saphyr::from_str(&read("deploy/helm/routelet/Chart.yaml")).unwrap();
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key}");
    }
    let run = |values: &[&str]| {
        let lint = ["lint", "--strict", "--kube-version", "1.36.0", "deploy/helm/routelet"];
        Command::new(kit::tool("helm")).current_dir(root()).args(lint).args(values).output().unwrap()
    };
    for values in [&[][..], &["--values", FULL]] {
        let lint = run(values);
        let said =
            String::from_utf8_lossy(&lint.stdout).into_owned() + &String::from_utf8_lossy(&lint.stderr);
        assert!(lint.status.success() && !said.contains("WARNING"), "{values:?}: {said}");
    }
}

#[test]
fn every_value_of_the_chart_reaches_its_object() {
    let made = by_name(helm(&["--values", FULL]).unwrap());
    let set = &made["DaemonSet routelet"]["spec"];
    let (template, pod) = (&set["template"]["metadata"], &set["template"]["spec"]);
    let container = &pod["containers"][0];
    assert_eq!(container["image"], format!("registry.example/routelet@sha256:{}", "0a".repeat(32)));
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "registry" }]));
    assert_eq!(container["args"], json!(["run", "--log-format", "json"]));
    assert_eq!(container["env"][1], json!({ "name": "RUST_BACKTRACE", "value": "1" }));
    assert_eq!(
        set["updateStrategy"],
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "10%" } })
    );
    assert_eq!(template["annotations"], json!({ "example.com/note": "yes" }), "no checksum");
    assert_eq!(template["labels"]["team"], "net");
    assert_eq!(pod["nodeSelector"], json!({ "kubernetes.io/os": "linux", "rack": "a" }));
    assert_eq!(pod["initContainers"][0]["image"], "registry.example/busybox:1");
    assert_eq!(container["resources"]["limits"]["memory"], "128Mi");
    assert_eq!(container["ports"][0]["containerPort"], 9180);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], 9180, "{probe}");
    }
    let paths: Vec<_> =
        pod["volumes"].as_array().unwrap().iter().filter_map(|v| v["hostPath"]["path"].as_str()).collect();
    assert_eq!(paths, ["/srv/cni/net.d", "/srv/cni/bin", "/srv/cni/networks", "/srv/run", "/srv/state"]);
    let text = made["ConfigMap routelet"]["data"]["routelet.toml"].as_str().unwrap();
    let dir = folder("files");
    let file = dir.path().join("routelet.toml");
    fs::write(&file, text).unwrap();
    passes_check(file.to_str().unwrap());

    let rules = made["ClusterRole routelet"]["rules"].to_string();
    assert!(rules.contains(r#""resources":["nodes"],"verbs":["patch"]"#), "{rules}");
    assert_eq!(made["Role routelet"]["rules"][0]["resourceNames"], json!(["routelet", "rack-a"]));
    let who = json!([{ "kind": "ServiceAccount", "name": "router", "namespace": "kube-system" }]);
    assert_eq!(made["ClusterRoleBinding routelet"]["subjects"], who);
    assert_eq!(made["RoleBinding routelet"]["subjects"], who);
    assert_eq!(
        made["ServiceAccount router"]["metadata"]["annotations"],
        json!({ "example.com/owner": "net" })
    );
    assert_eq!(pod["serviceAccountName"], "router");
    let condition =
        made["ValidatingAdmissionPolicy routelet"]["spec"]["matchConditions"][0]["expression"].clone();
    assert_eq!(condition, "request.userInfo.username == 'system:serviceaccount:kube-system:router'");
    assert_eq!(made["PodMonitor routelet"]["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    assert_eq!(made["ServiceMonitor routelet"]["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(made["Service routelet"]["spec"]["clusterIP"], "None");
    monitoring(&made);

    let named = by_name(helm(&["--set", "rbac.startupTaint=example.com/wait"]).unwrap());
    assert_eq!(named["ClusterRole routelet"]["rules"], made["ClusterRole routelet"]["rules"]);
    let policy = named["ValidatingAdmissionPolicy routelet"]["spec"]["variables"].to_string();
    assert!(policy.contains(r#"{"expression":"'example.com/wait'","name":"startupTaint"}"#), "{policy}");

    let less = [
        "rbac.create=false",
        "admissionPolicy.create=false",
        "serviceAccount.create=false",
        "cni.mount=false",
    ];
    let less = by_name(helm(&["--set", &less.join(",")]).unwrap());
    let left: Vec<_> = less.keys().filter(|k| !k.starts_with("CustomResourceDefinition")).collect();
    assert_eq!(left, ["ConfigMap routelet", "DaemonSet routelet"]);
    let plain = objects().into_iter().find(|o| o["kind"] == "DaemonSet").unwrap();
    let mounts = |set: &Value| set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"].clone();
    assert_eq!(mounts(&less["DaemonSet routelet"]), mounts(&without_cni(plain)));
}

/// The rules and the dashboard of the chart are its plain files.
fn monitoring(made: &BTreeMap<String, Value>) {
    let rule = &made["PrometheusRule routelet"];
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    let rules: Value = serde_saphyr::from_str(&read("deploy/helm/routelet/files/rules.yaml")).unwrap();
    assert_eq!(rule["spec"], plain(rules));
    let map = &made["ConfigMap routelet-dashboard"];
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "yes");
    let text = map["data"]["routelet.json"].as_str().unwrap();
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parse(text), parse(&read("deploy/helm/routelet/files/dashboard.json")));
}

/// k3s#8807, #12583, #4113: the runtime of a distribution reads another folder than the one that is written to.
#[test]
fn k3s_8807_each_distribution_has_values_with_the_folders_that_its_page_names() {
    let page = read("docs/distributions.md");
    let plain = ["/etc/cni/net.d", "/opt/cni/bin"];
    let snap = ["/var/snap/microk8s/current/args/cni-network", "/var/snap/microk8s/current/opt/cni/bin"];
    let known = [
        ("k0s", "k0s", plain),
        ("k3s", "k3s", plain),
        ("kind", "kind", plain),
        ("microk8s", "MicroK8s", snap),
        ("rke2", "RKE2", plain),
        ("talos", "Talos", plain),
    ];
    let entries = fs::read_dir(root().join("deploy/values")).unwrap();
    let mut files: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.sort_unstable();
    assert_eq!(files, known.map(|(file, ..)| format!("{file}.yaml")), "each has its row");
    for (file, name, [conf, bin]) in known {
        let path = format!("deploy/values/{file}.yaml");
        let made = by_name(helm(&["--values", &path]).unwrap_or_else(|e| panic!("{path}: {e}")));
        let pod = &made["DaemonSet routelet"]["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().unwrap();
        let of_host = |name: &str| {
            let volume = volumes.iter().find(|v| v["name"] == name).unwrap();
            volume["hostPath"]["path"].as_str().unwrap().to_owned()
        };
        assert_eq!([of_host("cni-conf"), of_host("cni-bin")], [conf, bin], "{path}");
        // Inside of the container they are where the configuration has them by default.
        let mounts = pod["containers"][0]["volumeMounts"].to_string();
        assert!(mounts.contains("/etc/cni/net.d") && mounts.contains("/opt/cni/bin"), "{mounts}");
        let row =
            page.lines().find(|l| l.starts_with(&format!("| {name} |"))).unwrap_or_else(|| panic!("{name}"));
        assert!(row.contains(&format!("`{conf}`")) && row.contains(&format!("`{bin}`")), "{row}");
    }
}

#[test]
fn the_schema_of_the_chart_refuses_what_cannot_be() {
    let wrong = [
        ("imgae.tag=1", "imgae"),
        ("image.tag=latest", "tag"),
        ("image.digest=sha256:12", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("updateStrategy.type=Recreate", "type"),
        ("updateStrategy.rollingUpdate.maxSurge=1", "maxSurge"),
        ("extraArgs=--log-level", "extraArgs"),
        ("metrics.port=0", "port"),
        ("cni.confDir=etc", "confDir"),
        ("rbac.create=maybe", "create"),
        ("rbac.startupTaint=a'b", "startupTaint"),
        ("podMonitor.interval=often", "interval"),
        ("prometheusRule.enabled=perhaps", "enabled"),
        ("grafanaDashboard.folder=x", "folder"),
        ("config.kubernetes.peering=mesh", "config"),
    ];
    for (value, named) in wrong {
        let said = helm(&["--set", value]).expect_err(value);
        assert!(said.contains("values don't meet the specifications of the schema"), "{value}: {said}");
        assert!(said.contains(named), "{value}: {said}");
    }
}

const FULL: &str = "tests/deploy/full-values.yaml";

fn kustomize(folder: &str) -> Vec<Value> {
    let path = root().join("deploy/kustomize").join(folder);
    let out = Command::new(kit::tool("kubectl")).arg("kustomize").arg(&path).output().expect("kubectl");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{folder}: {said}");
    serde_saphyr::from_multiple(&String::from_utf8(out.stdout).unwrap()).unwrap()
}

/// What `helm template` makes of it, or what it says.
fn helm(values: &[&str]) -> Result<Vec<Value>, String> {
    let args =
        ["template", "routelet", "deploy/helm/routelet", "--namespace", "kube-system", "--include-crds"];
    let mut command = Command::new(kit::tool("helm"));
    let out = command
        .current_dir(root())
        .args(args)
        .args(["--kube-version", "1.36.0"])
        .args(values)
        .output()
        .unwrap();
    match out.status.success() {
        true => Ok(serde_saphyr::from_multiple(&String::from_utf8(out.stdout).unwrap()).unwrap()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let key =
        |o: &Value| format!("{} {}", o["kind"].as_str().unwrap(), o["metadata"]["name"].as_str().unwrap());
    let count = objects.len();
    let named: BTreeMap<_, _> = objects.into_iter().map(|o| (key(&o), plain(o))).collect();
    assert_eq!(named.len(), count, "each object once");
    named
}

/// 255.0 and 255 are the same number.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(n) if n.is_f64() => n.as_f64().map_or(Value::Null, |f| json!(f as i64)),
        Value::Array(list) => list.into_iter().map(plain).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, plain(v))).collect()),
        other => other,
    }
}

/// Names what differs, instead of printing all.
fn assert_same(left: &BTreeMap<String, Value>, right: &BTreeMap<String, Value>, what: &str) {
    assert!(left.keys().eq(right.keys()), "{what}: {:?} and {:?}", left.keys(), right.keys());
    for (name, object) in left {
        assert_eq!(*object, right[name], "{what}: {name}");
    }
}

fn without_cni(mut set: Value) -> Value {
    let pod = &mut set["spec"]["template"]["spec"];
    let other = |v: &Value| !v["name"].as_str().unwrap().starts_with("cni-");
    pod["volumes"].as_array_mut().unwrap().retain(other);
    pod["containers"][0]["volumeMounts"].as_array_mut().unwrap().retain(other);
    set
}

fn passes_check(file: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
    let out = command.current_dir(root()).args(["check", "--kubernetes", "--config", file]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.is_empty(), "{file}: {said}");
}
