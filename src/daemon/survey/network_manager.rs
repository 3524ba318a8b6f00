//! Which bridges of containers, and which of their ports, NetworkManager configures.
//!
//! NetworkManager keeps a file for each interface that it knows (`[device]`, named after the index
//! of the interface), and next to these the profiles that exist only in memory. An interface that
//! it merely observes has the profile `external`. Interfaces that it created are configured by its
//! user.

use std::{collections::BTreeSet, fs, path::Path};

use super::read_start;
use crate::net::{Diagnostic, Reason, Subject};

const DEVICES: &str = "run/NetworkManager/devices";
const PROFILES: &str = "run/NetworkManager/system-connections";
const INTERFACES: &str = "sys/class/net";
/// Maximum number of files of a folder that are read.
const MAX_FILES: usize = 4096;
/// Maximum number of interfaces that the problem lists.
const MAX_NAMED: usize = 8;

/// The problem of a host with NetworkManager, if any.
pub(super) fn problem(root: &Path) -> Option<Diagnostic> {
    let observed = observed(root);
    let managed: BTreeSet<u32> = files(&root.join(DEVICES))
        .filter_map(|(name, text)| {
            let index = name.parse().ok()?;
            let of = |key| value(&text, "device", key);
            let is_on = |key| of(key).is_some_and(is_true);
            let configures = is_on("managed") && !is_on("nm-owned");
            let profile = of("connection-uuid")?;
            (configures && !observed.contains(profile)).then_some(index)
        })
        .collect();
    let names = if managed.is_empty() { Vec::new() } else { of_containers(root, &managed) };
    let (first, more) = (names.first()?, names.len().saturating_sub(MAX_NAMED));
    let listed = names.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let and_more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let patterns: Vec<_> =
        names.iter().take(MAX_NAMED).map(|name| format!("interface-name:{name}")).collect();
    Some(Diagnostic::new(
        Reason::BridgeManaged,
        Subject::interface(first),
        format!(
            "NetworkManager configures {listed}{and_more}, a bridge of containers or a port of one, and removes \
             addresses and routes there that its profile does not have"
        ),
        format!(
            "write `[keyfile]` and `unmanaged-devices+={}` into /etc/NetworkManager/conf.d/routelet.conf, then run \
             `systemctl reload NetworkManager`",
            patterns.join(";")
        ),
    ))
}

/// The ids of profiles that only describe what another program configured.
fn observed(root: &Path) -> BTreeSet<String> {
    let external = |(_, text): (String, String)| {
        let is_on = |key| value(&text, ".nmmeta", key).is_some_and(is_true);
        let id = value(&text, "connection", "uuid")?;
        (is_on("external") || is_on("volatile")).then(|| id.to_owned())
    };
    files(&root.join(PROFILES)).filter_map(external).collect()
}

/// The names of these interfaces that are bridges, or virtual ports of a bridge.
fn of_containers(root: &Path, indices: &BTreeSet<u32>) -> Vec<String> {
    let entries = fs::read_dir(root.join(INTERFACES)).into_iter().flatten().filter_map(Result::ok);
    let is_one = |folder: &Path| {
        let index = read_start(&folder.join("ifindex")).and_then(|text| text.trim().parse().ok());
        let is_virtual_port = folder.join("brport").exists() && !folder.join("device").exists();
        index.is_some_and(|index: u32| indices.contains(&index))
            && (folder.join("bridge").exists() || is_virtual_port)
    };
    let found = entries.take(MAX_FILES).filter(|entry| is_one(&entry.path()));
    let mut names: Vec<_> = found.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// The files of a folder with their names.
fn files(folder: &Path) -> impl Iterator<Item = (String, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).take(MAX_FILES);
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, read_start(&entry.path())?)))
}

/// The value of a key in a section.
fn value<'t>(text: &'t str, section: &str, key: &str) -> Option<&'t str> {
    let mut inside = false;
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            inside = name.trim_end_matches(']') == section;
        } else if let Some((name, value)) = line.split_once('=')
            && inside
            && name.trim() == key
        {
            found = Some(value.trim());
        }
    }
    found
}

fn is_true(value: &str) -> bool {
    matches!(value, "true" | "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn interface(root: &Path, name: &str, index: u32, parts: &[&str]) {
        write(root, &format!("{INTERFACES}/{name}/ifindex"), &format!("{index}\n"));
        for part in parts {
            fs::create_dir_all(root.join(INTERFACES).join(name).join(part)).unwrap();
        }
    }

    #[test]
    fn an_interface_of_containers_that_it_configures_is_a_problem() {
        const MANAGED: &str = "[device]\nmanaged=true\nconnection-uuid=u1\nnm-owned=false\n";
        let observed = "[connection]\nuuid=u1\n[.nmmeta]\nnm-generated=true\nvolatile=true\nexternal=true\n";
        let by_itself = "[connection]\nuuid=u1\n[.nmmeta]\nnm-generated=true\n";
        #[rustfmt::skip]
        let cases: [(&str, &str, Option<&str>, &[&str], bool); 10] = [
            ("a bridge",                  MANAGED, None,                           &["bridge"],           true),
            ("a port of a bridge",        MANAGED, None,                           &["brport"],           true),
            ("as earlier releases write", "[device]\nmanaged=1\nconnection-uuid=u1\n", None, &["bridge"], true),
            ("by a profile of its own",   MANAGED, Some(by_itself),                &["bridge"],           true),
            ("only observed",             MANAGED, Some(observed),                 &["bridge"],           false),
            ("an uplink",                 MANAGED, None,                           &["device"],           false),
            ("an uplink in a bridge",     MANAGED, None,                           &["device", "brport"], false),
            ("not managed",               "[device]\nmanaged=false\n", None,       &["bridge"],           false),
            ("without a profile",         "[device]\nmanaged=true\n", None,        &["bridge"],           false),
            ("made by NetworkManager",    "[device]\nmanaged=true\nconnection-uuid=u1\nnm-owned=true\n", None, &["bridge"], false),
        ];
        for (name, device, profile, parts, is_problem) in cases {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), &format!("{DEVICES}/7"), device);
            write(root.path(), &format!("{DEVICES}/8"), "no section\n=\n[device\nmanaged");
            if let Some(profile) = profile {
                write(root.path(), &format!("{PROFILES}/docker0.nmconnection"), profile);
            }
            interface(root.path(), "docker0", 7, parts);
            interface(root.path(), "br-other", 9, &["bridge"]);
            let found = problem(root.path());
            assert_eq!(found.is_some(), is_problem, "{name}: {found:?}");
            if let Some(found) = found {
                assert!(found.contains("`unmanaged-devices+=interface-name:docker0`"), "{found:?}");
                assert!(!found.contains("br-other"), "{found:?}");
            }
        }
    }

    #[test]
    fn few_of_many_are_named() {
        let root = tempfile::tempdir().unwrap();
        for n in 1..=20 {
            write(root.path(), &format!("{DEVICES}/{n}"), "[device]\nmanaged=true\nconnection-uuid=u\n");
            interface(root.path(), &format!("br-{n:02}"), n, &["bridge"]);
        }
        let found = problem(root.path()).unwrap();
        assert!(found.contains("br-08 and 12 more") && !found.contains("br-09"), "{found:?}");
    }
}
