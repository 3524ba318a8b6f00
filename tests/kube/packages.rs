//! The API server takes every object of every package.

use std::{fs, path::Path, process::Command};

use crate::{
    common::{net::Net, run},
    kit,
    world::Segment,
};

/// The names of `deploy/kustomize/overlays`.
pub fn overlays() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize/overlays");
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    names
}

#[test]
fn the_api_server_takes_every_object_of_every_package() {
    let mut net = Net::new();
    // The chart may have a privileged init container, as kubeadm's clusters allow.
    let plane = Segment::new(&mut net, &["--allow-privileged=true"]).plane;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let takes = |how: &str, path: &Path, kind: &str| {
        let said = plane.kubectl(&["apply", "--dry-run=server", how, path.to_str().unwrap()]);
        assert!(said.contains(&format!("{kind}/routelet")), "{}: {said}", path.display());
        assert!(said.lines().all(|l| l.ends_with("(server dry run)")), "{}: {said}", path.display());
        said.lines().count()
    };
    let count = takes("-f", &deploy.join("daemonset.yaml"), "daemonset.apps");
    for overlay in overlays() {
        let folder = deploy.join("kustomize/overlays").join(&overlay);
        assert_eq!(takes("-k", &folder, "daemonset.apps"), count, "{overlay}");
    }
    let file = net.dir().join("helm.yaml");
    let full = deploy.join("../tests/deploy/full-values.yaml");
    // The kinds of the Prometheus operator are not here.
    let without = "podMonitor.enabled=false,serviceMonitor.enabled=false,prometheusRule.enabled=false";
    // With the dashboard there is one more.
    for (values, objects) in
        [(vec![], count), (vec!["--values", full.to_str().unwrap(), "--set", without], count + 1)]
    {
        let mut helm = Command::new(kit::tool("helm"));
        helm.args([
            "template",
            "routelet",
            "--namespace",
            "kube-system",
            "--include-crds",
            "--kube-version",
            "1.36.0",
        ]);
        fs::write(&file, run(helm.arg(deploy.join("helm/routelet")).args(&values))).unwrap();
        assert_eq!(takes("-f", &file, "daemonset.apps"), objects, "{values:?}");
    }
}
