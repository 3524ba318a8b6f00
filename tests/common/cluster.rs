//! A control plane, and Nodes made as a kubelet would make them.
#![allow(dead_code, reason = "tests/cluster has kubelets to make its Nodes")]

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::common::{
    Process,
    net::{Net, Ns},
    run, wait_for,
};

/// Where `tests/kit/build.sh` put its programs.
pub fn kit() -> PathBuf {
    let kit = std::env::var_os("ROUTELET_KIT").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join("routelet/kit"))
    });
    let kit = kit.expect("ROUTELET_KIT or HOME is set");
    assert!(
        kit.join(".stamp").exists(),
        "no test kit in {}: run tests/run once, it builds it",
        kit.display()
    );
    kit
}

/// The ranges of a cluster's pods, unless a test says otherwise.
const CLUSTER_CIDRS: &str = "10.244.0.0/16,fd00:244::/48";

/// Arguments of an API server that writes down each request of routelet's ServiceAccount, and the file to which it does.
pub fn audit(net: &Net) -> ([String; 2], PathBuf) {
    let (policy, log) = (net.dir().join("audit.yaml"), net.dir().join("audit.log"));
    let rules = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  \
                 users: [\"system:serviceaccount:kube-system:routelet\"]\n";
    fs::write(&policy, rules).unwrap();
    let args =
        [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
    (args, log)
}

/// What such a log says.
pub fn audited(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// etcd, API server and controller manager in one namespace.
pub struct ControlPlane {
    pub ns: Ns,
    pub dir: PathBuf,
    pub address: String,
    api_args: Vec<String>,
    api: Option<Process>,
    _etcd: Process,
    controllers_args: Vec<String>,
    controllers: Option<Process>,
}

impl ControlPlane {
    /// Starts it in `ns`, where the nodes reach it at `address`. The manifest of `deploy/` is applied, so that routelet has
    /// the rights that it gives, and no more.
    pub fn start(net: &Net, ns: &Ns, address: &str, api_extra: &[&str]) -> Self {
        Self::start_with(net, ns, address, CLUSTER_CIDRS, api_extra)
    }

    /// With ranges for the pods of its own.
    pub fn start_with(net: &Net, ns: &Ns, address: &str, cidrs: &str, api_extra: &[&str]) -> Self {
        let lean = ["--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount"];
        let cidrs = format!("--cluster-cidr={cidrs}");
        let controllers = ["--controllers=nodeipam", &cidrs];
        let plane = Self::boot(net, ns, address, &[&lean, api_extra].concat(), &controllers);
        plane.kubectl(&["apply", "-f", manifest().to_str().unwrap()]);
        let token = plane.kubectl(&["-n", "kube-system", "create", "token", "routelet"]);
        plane.write_kubeconfig(&plane.kubeconfig(), token.trim());
        plane
    }

    /// etcd, API server and controller manager, and nothing else.
    pub fn boot(net: &Net, ns: &Ns, address: &str, api: &[&str], controllers: &[&str]) -> Self {
        let dir = Self::folder(net, ns);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(&dir).unwrap();
        run(Command::new(root.join("tests/kit/mkpki.sh")).arg(dir.join("pki")).arg(address));

        let etcd = part(ns, &dir, "etcd", etcd_args(&dir));
        let mut api_args = api_args(&dir, address);
        api_args.extend(api.iter().map(|a| (*a).to_owned()));
        let api = Some(part(ns, &dir, "kube-apiserver", &api_args));
        let mut controllers_args = controllers_args(&dir);
        controllers_args.extend(controllers.iter().map(|a| (*a).to_owned()));
        let (ns, address, controllers) = (ns.clone(), address.to_owned(), None);
        let mut plane = Self { ns, dir, address, api_args, api, _etcd: etcd, controllers_args, controllers };
        plane.wait_ready();
        plane.start_controllers();
        plane
    }

    /// Where the one in `ns` keeps its files.
    pub fn folder(net: &Net, ns: &Ns) -> PathBuf {
        net.dir().join(format!("{}-plane", ns.name))
    }

    /// With a token of the ServiceAccount that names no node.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("routelet.kubeconfig")
    }

    /// With the token that the kubelet would mount into routelet's pod on this node.
    pub fn kubeconfig_of(&self, node: &str) -> PathBuf {
        let file = self.dir.join(format!("routelet-{node}.kubeconfig"));
        self.write_kubeconfig(&file, &self.token_of(node));
        file
    }

    /// A token that is bound to a pod on this node.
    pub fn token_of(&self, node: &str) -> String {
        let pod = format!("routelet-{node}");
        self.apply(&serde_json::json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": pod, "namespace": "kube-system" },
            "spec": { "nodeName": node, "serviceAccountName": "routelet", "hostNetwork": true,
                "containers": [{ "name": "routelet", "image": "routelet" }] } }));
        let bound = ["--bound-object-kind=Pod", &format!("--bound-object-name={pod}")];
        let token =
            self.kubectl(&[&["-n", "kube-system", "create", "token", "routelet"], &bound[..]].concat());
        token.trim().to_owned()
    }

    /// As `system:masters`.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("pki/admin.kubeconfig")
    }

    pub fn stop_api(&mut self) {
        self.api.take().expect("a running API server").kill();
    }

    pub fn start_api(&mut self) {
        self.api = Some(part(&self.ns, &self.dir, "kube-apiserver", &self.api_args));
        self.wait_ready();
    }

    /// Nobody gives pod CIDRs to Nodes any more.
    pub fn stop_controllers(&mut self) {
        self.controllers.take().expect("a controller manager").kill();
    }

    pub fn start_controllers(&mut self) {
        let args = &self.controllers_args;
        self.controllers = Some(part(&self.ns, &self.dir, "kube-controller-manager", args));
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        run(self.admin().args(args))
    }

    /// `kubectl apply` of one object.
    pub fn apply(&self, object: &Value) {
        let file = self.dir.join("object.json");
        fs::write(&file, object.to_string()).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }

    /// The same; what went wrong.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<(), String> {
        let out = self.admin().args(args).output().expect("kubectl");
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    }

    fn admin(&self) -> Command {
        let mut command = self.ns.command("kubectl");
        command.arg("--kubeconfig").arg(self.admin_kubeconfig());
        command
    }

    fn wait_ready(&mut self) {
        wait_for("API server is ready", 180.0, || {
            let api = self.api.as_mut().expect("an API server");
            assert!(api.alive(), "API server ended:\n{}", api.printed());
            self.admin()
                .args(["get", "--raw", "/readyz"])
                .output()
                .is_ok_and(|o| o.status.success())
                .then_some(())
        });
    }

    pub fn write_kubeconfig(&self, file: &Path, token: &str) {
        let (ca, address) = (self.dir.join("pki/ca.crt"), &self.address);
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"https://{address}:6443\", \
             certificate-authority: \"{}\"}}}}]\nusers: [{{name: u, user: {{token: \"{token}\"}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\ncurrent-context: c\n",
            ca.display()
        );
        fs::write(file, text).unwrap();
    }

    /// Registers a Node; the controller manager gives it its pod CIDRs.
    pub fn create_node(&self, name: &str) {
        let json = format!(r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{name}"}}}}"#);
        let file = self.dir.join(format!("{name}.json"));
        fs::write(&file, json).unwrap();
        self.kubectl(&["create", "-f", file.to_str().unwrap()]);
    }

    pub fn delete_node(&self, name: &str) {
        self.kubectl(&["delete", "node", name]);
    }

    pub fn set_addresses(&self, name: &str, addresses: &[&str]) {
        let list: Vec<_> =
            addresses.iter().map(|a| serde_json::json!({ "type": "InternalIP", "address": a })).collect();
        let patch = serde_json::json!({ "status": { "addresses": list } }).to_string();
        // As a whole: a strategic merge would mix addresses of one type.
        self.kubectl(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", &patch]);
    }

    /// The pod CIDRs, once there are some.
    pub fn pod_cidrs(&mut self, name: &str) -> Vec<String> {
        let controllers = self.controllers.as_mut().expect("a controller manager");
        assert!(controllers.alive(), "controller manager ended:\n{}", controllers.printed());
        wait_for(format!("{name} has pod CIDRs"), 20.0, || {
            let node: Value =
                serde_json::from_str(&self.kubectl(&["get", "node", name, "-o", "json"])).ok()?;
            let cidrs = node["spec"]["podCIDRs"].as_array()?;
            Some(cidrs.iter().filter_map(|c| Some(c.as_str()?.to_owned())).collect())
        })
    }
}

/// What `kubectl apply -f` is told to take.
pub fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/daemonset.yaml")
}

/// Starts a part of `kube-lab` in `ns`, its log in `dir`.
pub fn part(ns: &Ns, dir: &Path, name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Process {
    let mut command = ns.command(kit().join("kube-lab").to_str().unwrap());
    Process::start(command.arg(name).args(args), &dir.join(format!("{name}.log")))
}

fn etcd_args(dir: &Path) -> Vec<String> {
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    [
        &format!("--data-dir={}", dir.join("etcd").display()),
        &format!("--listen-client-urls={client}"),
        &format!("--advertise-client-urls={client}"),
        &format!("--listen-peer-urls={peer}"),
        &format!("--initial-advertise-peer-urls={peer}"),
        &format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn api_args(dir: &Path, address: &str) -> Vec<String> {
    let pki = |name: &str| dir.join("pki").join(name).display().to_string();
    [
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=::",
        "--secure-port=6443",
        &format!("--advertise-address={address}"),
        &format!("--tls-cert-file={}", pki("apiserver.crt")),
        &format!("--tls-private-key-file={}", pki("apiserver.key")),
        &format!("--client-ca-file={}", pki("ca.crt")),
        &format!("--token-auth-file={}", pki("tokens.csv")),
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        &format!("--service-account-key-file={}", pki("sa.pub")),
        &format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn controllers_args(dir: &Path) -> Vec<String> {
    let kubeconfig = dir.join("pki/kcm.kubeconfig").display().to_string();
    [
        &format!("--kubeconfig={kubeconfig}"),
        &format!("--authentication-kubeconfig={kubeconfig}"),
        &format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=true",
        &format!("--cluster-cidr={CLUSTER_CIDRS}"),
        "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
        "--node-cidr-mask-size-ipv4=24",
        "--node-cidr-mask-size-ipv6=64",
    ]
    .map(str::to_owned)
    .to_vec()
}
