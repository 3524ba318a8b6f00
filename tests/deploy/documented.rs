//! The commands of Helm that the pages print: what they would install is made.

use std::process::Command;

use crate::{
    blocks::{Block, marked},
    kit, root,
};

#[test]
fn each_block_for_helm_runs() {
    for Block { place, text, .. } in marked("sh helm") {
        let helm = kit::tool("helm");
        // `install` without a cluster.
        let script = format!(
            "set -euo pipefail
            helm() {{ [ \"$1\" = install ]; shift; '{}' template --kube-version 1.36.0 \"$@\"; }}\n{text}",
            helm.display()
        );
        let done = Command::new("bash").args(["-c", &script]).current_dir(root()).output().unwrap();
        let [output, error] =
            [done.stdout, done.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned());
        assert!(done.status.success(), "{place}: {error}");
        assert!(output.contains("kind: DaemonSet"), "{place}: {output}");
    }
}
