//! What the state folder keeps counts on the machine that made it.

use std::{fs, path::Path};

use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
    wait_for,
};

const CONFIG: &str = "[bgp]\nas = \"auto\"\n[advertise]\nnetworks = [\"10.50.0.0/24\"]\n";

fn host(net: &mut Net, name: &str, address: &str) -> Ns {
    let (host, lan) = (net.ns(name), net.ns(&format!("{name}-lan")));
    net.link((&lan, "eth0"), (&host, "eth0"));
    host.ip(&format!("addr add {address}/24 dev eth0"));
    host
}

/// Router id and AS number.
fn identity(routelet: &Routelet) -> (String, u64) {
    wait_for("a router id", 10.0, || {
        let summary = routelet.json(&["show", "summary"]);
        Some((summary["router_id"].as_str()?.to_owned(), summary["as"].as_u64().or(summary["asn"].as_u64())?))
    })
}

fn is_drained(routelet: &Routelet) -> bool {
    routelet.cli(&["show", "summary"]).contains("drain")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn hosts_made_from_one_image_have_router_ids_of_their_own() {
    let mut net = Net::new();
    let image = host(&mut net, "image", "10.0.7.9");
    let mut routelet = Routelet::start(&net, &image, CONFIG, &[]);
    assert_eq!(identity(&routelet).0, "10.0.7.9");
    routelet.cli(&["drain", "--now"]);
    routelet.process.stop();

    let mut numbers = Vec::new();
    for (name, address, whole) in
        [("one", "10.0.1.2", true), ("two", "10.0.2.2", true), ("three", "10.0.3.2", false)]
    {
        let ns = host(&mut net, name, address);
        let mut clone = Routelet::ready(&net, &ns, CONFIG, &[]);
        let state = clone.dir.join("state");
        if whole {
            copy(&routelet.dir.join("state"), &state);
        } else {
            // By hand, or by a version that made no mark.
            fs::create_dir_all(&state).unwrap();
            fs::write(state.join("router-id"), "10.0.7.9\n").unwrap();
        }
        clone.restart();
        let (id, asn) = identity(&clone);
        assert_eq!(id, address, "{name}");
        numbers.push(asn);
        assert!(!is_drained(&clone), "{name} is born drained");

        // Its own counts from now on: a changed lease resets no session, and a drain survives.
        clone.cli(&["drain"]);
        clone.process.stop();
        ns.ip("addr flush dev eth0 scope global");
        ns.ip("addr add 10.0.99.99/24 dev eth0");
        clone.restart();
        assert_eq!(identity(&clone).0, address, "{name}");
        assert!(is_drained(&clone), "{name}");
    }
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "{numbers:?}");
    routelet.restart();
    assert!(identity(&routelet).0 == "10.0.7.9" && is_drained(&routelet), "the first has lost nothing");
}

#[test]
fn a_router_id_that_was_configured_is_forgotten_with_its_key() {
    let mut net = Net::new();
    let ns = host(&mut net, "host", "10.0.1.2");
    let configured = CONFIG.replace("as = \"auto\"", "as = \"auto\"\nrouter-id = \"10.9.9.9\"");
    let mut routelet = Routelet::start(&net, &ns, &configured, &[]);
    assert_eq!(identity(&routelet).0, "10.9.9.9");
    routelet.configure(CONFIG);
    routelet.cli(&["reload"]);
    wait_for("its own router id by a reload", 10.0, || (identity(&routelet).0 == "10.0.1.2").then_some(()));
    routelet.configure(&configured);
    routelet.process.stop();
    routelet.restart();
    assert_eq!(identity(&routelet).0, "10.9.9.9");
    routelet.configure(CONFIG);
    routelet.process.stop();
    routelet.restart();
    assert_eq!(identity(&routelet).0, "10.0.1.2");
}
