//! The commands and files for a Docker engine that the pages print.

use std::{fs, process::Command};

use crate::{
    blocks::{Block, marked},
    common::net::Net,
    engine::Docker,
};

#[test]
fn each_block_for_docker_runs() {
    let mut net = Net::new();
    let host = net.ns("host");
    let docker = Docker::start(&net, &host, "172.30.0.1/24");
    for Block { place, text, .. } in marked("sh docker") {
        let mut command = Command::new("bash");
        command.args(["-euc", &text]).env("DOCKER_HOST", format!("unix://{}", docker.socket().display()));
        let done = command.output().unwrap();
        assert!(done.status.success(), "{place}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// The engine refuses unknown keys before it refuses an option that the file has as well.
/// (`--validate` needs an engine of version 23.)
#[test]
fn each_file_of_the_engine_has_keys_that_it_knows() {
    let net = Net::new();
    let file = net.dir().join("daemon.json");
    for Block { place, text, .. } in marked("json docker") {
        fs::write(&file, text).unwrap();
        let done = Command::new("dockerd").arg("--config-file").arg(&file).arg("--ip-masq").output().unwrap();
        let error = String::from_utf8_lossy(&done.stderr);
        let expected = "specified both as a flag and in the configuration file: ip-masq";
        assert!(error.contains(expected), "{place}: {error}");
    }
}
