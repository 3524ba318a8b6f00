//! The watch against a real API server: what it learns, what it asks for, and what an outage does to it.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use routelet::{
    k8s::{
        io::{self, Options, Watch},
        node::Nodes,
    },
    net::Prefix,
};
use tokio::{runtime::Builder, sync::watch, time::timeout};

use crate::{
    cluster::ControlPlane,
    common::{
        net::{Net, Ns},
        wait_for,
    },
};

const ADDRESS: &str = "10.99.0.1";

fn plane(net: &mut Net, api_extra: &[&str]) -> (Ns, ControlPlane) {
    let ns = net.ns("cp");
    ns.ip("link add br0 type bridge");
    ns.ip("addr add 10.99.0.1/24 dev br0");
    ns.ip("link set br0 up");
    let plane = ControlPlane::start(net, &ns, ADDRESS, api_extra);
    (ns, plane)
}

fn options(net: &Net, plane: &ControlPlane, node: &str) -> Options {
    Options {
        kubeconfig: Some(plane.kubeconfig()),
        service: None,
        node_name: node.into(),
        state_dir: net.dir().join("state"),
        service_cidrs: None,
    }
}

async fn until(watch: &Watch, what: &str, fits: impl Fn(&Nodes) -> bool) -> Arc<Nodes> {
    let mut nodes = watch.nodes.clone();
    if let Ok(nodes) = timeout(Duration::from_secs(60), nodes.wait_for(|n| fits(n))).await {
        return nodes.unwrap().clone();
    }
    panic!("{what}: {:?}, {:?}", watch.nodes.borrow(), watch.status.borrow());
}

fn in_runtime<T: Send>(ns: &Ns, body: impl AsyncFnOnce() -> T + Send) -> T {
    ns.enter(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(body()))
}

#[test]
fn the_own_node_is_followed_from_before_it_exists_through_an_outage() {
    let mut net = Net::new();
    let (ns, mut plane) = plane(&mut net, &[]);
    let opts = options(&net, &plane, "n1");
    in_runtime(&ns, async || {
        let (all, all_rx) = watch::channel(false);
        let mut watch = io::spawn(opts.clone(), all_rx);
        timeout(Duration::from_secs(20), watch.status.wait_for(|s| s.connected)).await.unwrap().unwrap();
        assert_eq!(watch.nodes.borrow().missing(), Some("the Node does not exist yet"));

        plane.create_node("n1");
        plane.create_node("n2");
        until(&watch, "pod CIDRs come", |n| n.own.as_ref().is_some_and(|o| o.pod_cidrs.len() == 2)).await;
        plane.set_addresses("n1", &["10.99.0.11", "fd00:99::11"]);
        let nodes = until(&watch, "addresses come", |n| n.missing().is_none()).await;
        let own = nodes.own.clone().unwrap();
        let cidrs: Vec<_> = own.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, plane.pod_cidrs("n1"));
        assert!(nodes.others.is_empty() && !nodes.complete, "one Node is watched");
        assert_eq!(nodes.api_servers, [ADDRESS.parse::<std::net::IpAddr>().unwrap()]);

        all.send_replace(true);
        until(&watch, "the others", |n| n.complete && n.others.contains_key("n2")).await;

        plane.stop_api();
        timeout(Duration::from_secs(20), watch.status.wait_for(|s| !s.connected)).await.unwrap().unwrap();
        assert_eq!(watch.nodes.borrow().own, Some(own.clone()), "what was known stays");

        // A start while the API server is away knows what the last run knew.
        let kept = opts.state_dir.join("cluster.json");
        wait_for("the state is kept", 5.0, || {
            std::fs::read_to_string(&kept).ok()?.contains("n2").then_some(())
        });
        let second = io::spawn(opts, watch::channel(true).1);
        assert_eq!(second.nodes.borrow().own, Some(own));
        assert!(second.status.borrow().from_state);
        second.task.abort();

        plane.start_api();
        plane.create_node("n3");
        until(&watch, "news after the outage", |n| n.others.contains_key("n3")).await;
        assert!(watch.status.borrow().connected);

        let old = watch.nodes.borrow().own.clone().unwrap();
        plane.delete_node("n1");
        plane.create_node("n1");
        let anew = |n: &Nodes| n.own.as_ref().is_some_and(|o| o.uid != old.uid);
        let new = until(&watch, "the Node is back", anew).await.own.clone().unwrap();
        assert_eq!(new.addresses, old.addresses, "retained until the new one has its own");
        assert_eq!(new.missing(), None);
        plane.set_addresses("n1", &["10.99.0.12"]);
        // The other family may follow; after half a minute it counts as gone.
        let moved = |n: &Nodes| n.own.as_ref().is_some_and(|o| o.addresses.len() == 1);
        let own = until(&watch, "its own address alone", moved).await.own.clone().unwrap();
        assert_eq!(own.addresses, ["10.99.0.12".parse::<std::net::IpAddr>().unwrap()]);
        watch.task.abort();
    });
}

#[test]
fn refusals_and_missing_credentials_are_said_and_mended_without_a_restart() {
    let mut net = Net::new();
    // An older server: no streaming lists.
    let (ns, plane) = plane(&mut net, &["--feature-gates=WatchList=false"]);
    let mut opts = options(&net, &plane, "n1");
    opts.kubeconfig = Some(net.dir().join("later.kubeconfig"));
    plane.create_node("n1");
    in_runtime(&ns, async || {
        let mut watch = io::spawn(opts.clone(), watch::channel(false).1);
        let mut said = async |what: &str| {
            let fits =
                |s: &routelet::k8s::view::ApiStatus| s.last_error.as_ref().is_some_and(|e| e.contains(what));
            let status = timeout(Duration::from_secs(30), watch.status.wait_for(fits)).await;
            assert!(!status.expect(what).unwrap().connected);
        };
        let file = opts.kubeconfig.clone().unwrap();
        said("later.kubeconfig").await;
        std::fs::copy(plane.dir.join("pki/nobody.kubeconfig"), &file).unwrap();
        said("allow our ServiceAccount").await;
        std::fs::copy(plane.kubeconfig(), &file).unwrap();
        until(&watch, "the Node", |n| n.own.is_some()).await;
        watch.task.abort();
    });
}

#[test]
fn service_ranges_are_those_of_the_objects_as_they_come_and_go() {
    let mut net = Net::new();
    let (ns, mut plane) = plane(&mut net, &[]);
    let opts = options(&net, &plane, "n1");
    plane.create_node("n1");
    let (usual, more) =
        (&["10.96.0.0/16", "fd00:96::/112"], &["10.96.0.0/16", "10.97.0.0/24", "fd00:96::/112"]);
    in_runtime(&ns, async || {
        let watch = io::spawn(opts.clone(), watch::channel(false).1);
        until(&watch, "the ranges of the API server", has(usual)).await;
        let given = Some(vec!["192.0.2.0/24".parse().unwrap()]);
        let told = Options { service_cidrs: given, state_dir: net.dir().join("told"), ..opts.clone() };
        let told = io::spawn(told, watch::channel(false).1);
        plane.apply(&serde_json::json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": { "name": "more" }, "spec": { "cidrs": ["10.97.0.0/24"] } }));
        until(&watch, "one more", has(more)).await;
        let nodes = until(&told, "the Node", |n| n.own.is_some()).await;
        assert!(has(&["192.0.2.0/24"])(&nodes), "the configuration has the last word: {nodes:?}");

        plane.stop_api();
        let kept = opts.state_dir.join("cluster.json");
        let is_kept = || std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("10.97.0.0/24"));
        wait_for("they are kept", 60.0, || is_kept().then_some(()));
        watch.task.abort();
        let second = io::spawn(opts.clone(), watch::channel(false).1);
        assert!(has(more)(&second.nodes.borrow()), "a start without the API server");
        plane.start_api();
        plane.kubectl(&["delete", "servicecidr", "more"]);
        until(&second, "it is gone", has(usual)).await;
        wait_for("that is kept", 60.0, || (!is_kept()).then_some(()));
        second.task.abort();

        // A role of before, and an API server that has no such objects.
        let rules = r#"[{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}]"#;
        let patch = format!(r#"[{{"op": "replace", "path": "/rules", "value": {rules}}}]"#);
        plane.kubectl(&["patch", "clusterrole", "routelet", "--type=json", "-p", &patch]);
        let refused = Options { state_dir: net.dir().join("refused"), ..opts.clone() };
        let refused = io::spawn(refused, watch::channel(false).1);
        until(&refused, "the Node", |n| n.own.is_some()).await;
        assert!(has(&[])(&refused.nodes.borrow()));
        let old = Options { kubeconfig: Some(an_old_server(&net)), ..opts };
        let old = io::spawn(old, watch::channel(false).1);
        assert!(has(usual)(&old.nodes.borrow()), "what was known");
        let mut nodes = old.nodes.clone();
        let none = timeout(Duration::from_secs(120), nodes.wait_for(|n| has(&[])(n))).await;
        assert!(none.expect("the second 404 is believed").unwrap().own.is_some());
    });
}

fn has(expected: &[&str]) -> impl Fn(&Nodes) -> bool {
    let mut expected: Vec<Prefix> = expected.iter().map(|p| p.parse().unwrap()).collect();
    expected.sort();
    move |n| n.service_cidrs == expected
}

/// The kubeconfig of an API server that knows nothing.
fn an_old_server(net: &Net) -> PathBuf {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let body = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}"#;
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = format!(
                "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            // Whoever asks has gone, at worst.
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(answer.as_bytes()));
        }
    });
    let file = net.dir().join("old.kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"http://{address}\"}}}}]\n\
         users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\ncurrent-context: c\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}
