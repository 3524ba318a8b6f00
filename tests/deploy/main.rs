//! What `deploy/` and the Dockerfile say fits the program: versions, paths, ports, keys.
#![allow(clippy::disallowed_methods, reason = "reads the tree")]

mod alerts;
#[path = "../common/blocks.rs"]
mod blocks;
mod documented;
#[path = "../common/guard.rs"]
mod guard;
#[path = "../kit/mod.rs"]
mod kit;
mod layout;
mod packages;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use guard::folder;
use routelet::config::{Config, io::load};
use serde_json::{Value, json};

#[test]
fn the_example_configuration_and_the_config_map_are_good() {
    let example = load(Some(&root().join("deploy/routelet.toml")), true).unwrap_or_else(|e| panic!("{e}"));
    assert!(example.warnings.is_none(), "{:?}", example.warnings);

    let map = object("ConfigMap");
    let dir = folder("files");
    let file = dir.path().join("routelet.toml");
    fs::write(&file, map["data"]["routelet.toml"].as_str().expect("data of the ConfigMap")).unwrap();
    let loaded = load(Some(&file), true).unwrap_or_else(|e| panic!("{e}"));
    assert!(loaded.warnings.is_none(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config, defaults(), "the manifest changes no default");
}

#[test]
fn every_object_of_the_manifest_is_named_routelet() {
    let kinds: Vec<_> = objects().iter().map(|o| o["kind"].as_str().unwrap().to_owned()).collect();
    let ours = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ConfigMap",
        "DaemonSet",
    ];
    let definition = "CustomResourceDefinition";
    assert_eq!(
        kinds.iter().filter(|k| *k != definition).collect::<Vec<_>>(),
        ours.iter().collect::<Vec<_>>()
    );
    for object in objects().into_iter().filter(|o| o["kind"] != definition) {
        let kind = object["kind"].as_str().unwrap();
        let of_kubelets =
            kind.starts_with("ValidatingAdmission") && object["metadata"]["name"] == "routelet-nodes";
        assert!(of_kubelets || object["metadata"]["name"] == "routelet", "{kind}");
        let cluster_wide = ["ClusterRole", "ValidatingAdmission"].iter().any(|k| kind.starts_with(k));
        let namespace = if cluster_wide { Value::Null } else { json!("kube-system") };
        assert_eq!(object["metadata"]["namespace"], namespace, "{}", object["kind"]);
    }
}

#[test]
fn the_role_reads_nodes_and_services_and_writes_conditions_and_events() {
    let rules = json!([
        { "apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"] },
        { "apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"] },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
        { "apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs"], "verbs": ["list", "watch"] },
        { "apiGroups": ["admissionregistration.k8s.io"], "resources": ["validatingadmissionpolicybindings"],
            "resourceNames": ["routelet-nodes"], "verbs": ["list", "watch"] },
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] },
        { "apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"] },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"] },
        { "apiGroups": ["routelet.io"], "resources": ["bgppeers", "bgppolicies"], "verbs": ["list", "watch"] },
        { "apiGroups": ["routelet.io"], "resources": ["bgpnodestatuses"], "verbs": ["create"] },
        { "apiGroups": ["routelet.io"], "resources": ["bgpnodestatuses/status"], "verbs": ["patch"] },
    ]);
    assert_eq!(object("ClusterRole")["rules"], rules);
    let secrets = json!([{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["routelet"], "verbs": ["get"] }]);
    assert_eq!(object("Role")["rules"], secrets);
}

/// What follows this line is made from the Rust types.
const MADE: &str = "# The rest is written by `ROUTELET_WRITE=1 cargo test --test deploy`.\n";

/// `deploy/daemonset.yaml` is one file for who installs by hand; kustomize and Helm have the same in files of theirs.
#[test]
fn the_definitions_of_our_kinds_are_those_of_the_program_in_every_package() {
    let text = read("deploy/daemonset.yaml");
    let (ours, _) = text.split_once(MADE).expect("the line above the definitions");
    let definitions = routelet::k8s::crd::definitions();
    let yaml = |d: &Value| format!("---\n{}", serde_saphyr::to_string(d).unwrap());
    let made: String = definitions.iter().map(yaml).collect();
    let copies = [
        ("deploy/daemonset.yaml", format!("{ours}{MADE}{made}")),
        ("deploy/kustomize/base/routelet.yaml", ours.to_owned()),
        ("deploy/kustomize/base/crds.yaml", made.clone()),
        ("deploy/helm/routelet/crds/crds.yaml", made),
    ];
    for (path, wanted) in copies {
        if std::env::var_os("ROUTELET_WRITE").is_some() {
            fs::write(root().join(path), wanted).unwrap();
        } else {
            let as_wanted = read(path) == wanted;
            assert!(
                as_wanted,
                "{path} is older than src/k8s/crd.rs or deploy/daemonset.yaml: ROUTELET_WRITE=1 writes it anew"
            );
        }
    }
    for definition in definitions {
        let kind = &definition["spec"]["names"]["kind"];
        let version = &definition["spec"]["versions"][0];
        assert!(!version["additionalPrinterColumns"].as_array().unwrap().is_empty(), "{kind}");
        let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert!(kind == "BGPNodeStatus" || spec["x-kubernetes-validations"].is_array(), "{kind}: {spec}");
    }
}

/// Each key of the file is one of the objects, and the other way round.
#[test]
fn objects_have_the_keys_of_the_file() {
    let known_here = |error: String| {
        let list = error.split("known here: ").nth(1).unwrap_or_else(|| panic!("{error}")).to_owned();
        let keys = list.split(';').next().unwrap().trim().split(", ").map(str::to_owned);
        keys.collect::<std::collections::BTreeSet<_>>()
    };
    let kebab = |key: &str| {
        key.chars().fold(String::new(), |k, c| match c.is_ascii_uppercase() {
            true => format!("{k}-{}", c.to_ascii_lowercase()),
            false => format!("{k}{c}"),
        })
    };
    let schema = |n: usize| {
        let spec = &routelet::k8s::crd::definitions()[n]["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        spec["properties"]["spec"]["properties"].clone()
    };
    let keys = |properties: &Value| {
        properties.as_object().unwrap().keys().map(|k| kebab(k)).collect::<std::collections::BTreeSet<_>>()
    };
    let odd = json!({ "address": "10.0.0.1", "remoteAs": 1, "qqqqqqqqqq": 1 });
    let config = Config::for_kubernetes();
    let mut file = known_here(
        routelet::config::objects::neighbor(odd.as_object().unwrap(), &config).unwrap_err().to_string(),
    );
    // Where a file names a password, an object names a Secret.
    // What the file refuses until it works, an object does not even have.
    file.retain(|k| !k.starts_with("password"));
    file.extend(["node-selector", "password-secret-ref"].map(str::to_owned));
    assert_eq!(keys(&schema(0)), file);

    let odd = json!({ "statements": [{ "action": "accept", "qqqqqqqqqq": 1 }] });
    let file =
        known_here(routelet::config::objects::policy("p", odd.as_object().unwrap()).unwrap_err().to_string());
    assert_eq!(keys(&schema(1)["statements"]["items"]["properties"]), file);
}

#[test]
fn the_image_has_the_version_of_the_package() {
    assert_eq!(container()["image"], format!("routelet:{}", env!("CARGO_PKG_VERSION")));
    assert!(read("Dockerfile").contains(&format!("routelet:{}", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_container_has_two_capabilities_and_no_privilege() {
    let context = &container()["securityContext"];
    assert_eq!(context["capabilities"], json!({ "drop": ["ALL"], "add": ["NET_ADMIN", "NET_BIND_SERVICE"] }));
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    let pod = &object("DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    assert!(pod.get("hostPID").is_none() && pod.get("hostIPC").is_none());
}

#[test]
fn what_the_program_writes_to_is_mounted() {
    let (container, config) = (container(), defaults());
    let mounted = |path: &Path, writable: bool| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|m| path.starts_with(m["mountPath"].as_str().unwrap()));
        let mount = mount.unwrap_or_else(|| panic!("{} is not mounted", path.display()));
        assert_eq!(mount.get("readOnly").is_none(), writable, "{}", path.display());
    };
    mounted(&config.state_dir, true);
    mounted(&config.control.socket, true);
    mounted(&config.cni.conf_dir, true);
    mounted(&config.cni.bin_dir, false);
    mounted(Path::new(routelet::config::io::DEFAULT_PATH), false);
    assert_eq!(container["env"][0]["name"], "NODE_NAME");
}

#[test]
fn probes_ask_where_the_program_listens() {
    let (container, listen) = (container(), defaults().metrics.listen[0]);
    for (probe, path) in
        [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        let expected = json!({ "host": listen.ip().to_string(), "port": listen.port(), "path": path });
        assert_eq!(container[probe]["httpGet"], expected, "{probe}");
    }
}

#[test]
fn a_node_without_a_network_gets_its_pod() {
    let pod = &object("DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    for effect in ["NoSchedule", "NoExecute"] {
        let toleration = json!({ "operator": "Exists", "effect": effect });
        assert!(pod["tolerations"].as_array().unwrap().contains(&toleration), "{effect}");
    }
}

#[test]
fn systemd_takes_the_unit_without_a_word() {
    let unit = read("deploy/routelet.service");
    let dir = folder("files");
    let file = dir.path().join("routelet.service");
    fs::write(&file, unit.replace("/usr/bin/routelet", "/bin/true")).unwrap();
    let mut score = Command::new("systemd-analyze");
    let score = score.args(["security", "--offline=true", "--threshold=22"]).arg(&file).output().unwrap();
    assert!(score.status.success(), "exposure above 2.2: {}", String::from_utf8_lossy(&score.stdout));
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output();
    let verify = verify.expect("no systemd-analyze: run tests/run once, it installs systemd");
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn the_unit_keeps_to_the_paths_of_the_program() {
    let (unit, config) = (read("deploy/routelet.service"), defaults());
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
        line.unwrap_or_else(|| panic!("no {key}= in the unit")).to_owned()
    };
    assert_eq!(value("Type"), "notify");
    assert_eq!(config.state_dir, Path::new("/var/lib").join(value("StateDirectory")));
    assert_eq!(config.control.socket.parent().unwrap(), Path::new("/run").join(value("RuntimeDirectory")));
    let beside_kubelet = read("deploy/routelet-kubernetes.conf");
    let written =
        format!("ReadWritePaths=-{} -/var/lib/cni", config.cni.conf_dir.parent().unwrap().display());
    assert!(beside_kubelet.contains(&written) && beside_kubelet.contains("User=root"), "{beside_kubelet}");
    assert_eq!((&*value("User"), &*value("DynamicUser"), &*value("UMask")), ("routelet", "yes", "0077"));
    for set in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(value(set), "CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW");
    }
    for needed in ["capset", "seccomp", "landlock_restrict_self"] {
        assert!(unit.contains(&format!(" {needed}")) || unit.contains(&format!("={needed}")), "{needed}");
    }
    assert!(value("WatchdogSec").parse::<u32>().is_ok());
    // Five quick crashes would otherwise leave the unit failed for ever, and a bad file would be tried each second.
    assert_eq!((&*value("StartLimitIntervalSec"), &*value("RestartPreventExitStatus")), ("0", "2"));
    assert_eq!(value("ExecReload"), "/usr/bin/routelet reload");
    assert_eq!(value("ExecStartPre"), "/usr/bin/routelet check");
    assert_eq!(value("LimitCORE"), "0");
}

#[test]
fn kube_router_the_kernel_prints_our_protocol_by_name() {
    let lines = read("deploy/rt_protos.d-routelet.conf");
    let line = lines.lines().find(|line| !line.starts_with('#')).unwrap();
    assert_eq!(line, format!("{}\troutelet", defaults().fib.protocol));
}

#[test]
fn the_image_is_built_by_our_toolchain_as_a_static_binary() {
    let (docker, toolchain) = (read("Dockerfile"), read("rust-toolchain.toml"));
    let toolchain: toml::Table = toolchain.parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(docker.contains(&format!("FROM rust:{channel}-")), "the toolchain is {channel}");

    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    assert!(manifest["profile"].get("dist").is_some());
    assert!(docker.contains("RUN scripts/release\n"));
    assert!(docker.contains("/src/target/x86_64-unknown-linux-gnu/dist/routelet /routelet"));
    assert!(docker.contains("FROM scratch") && docker.contains("ENTRYPOINT [\"/routelet\"]"));
}

/// What an empty file means under Kubernetes.
fn defaults() -> Config {
    let dir = folder("files");
    let file = dir.path().join("routelet.toml");
    fs::write(&file, "").unwrap();
    load(Some(&file), true).unwrap_or_else(|e| panic!("{e}")).config
}

fn container() -> Value {
    object("DaemonSet")["spec"]["template"]["spec"]["containers"][0].clone()
}

fn object(kind: &str) -> Value {
    objects().into_iter().find(|o| o["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in the manifest"))
}

fn objects() -> Vec<Value> {
    serde_saphyr::from_multiple(&read("deploy/daemonset.yaml")).unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
