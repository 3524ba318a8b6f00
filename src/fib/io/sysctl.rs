//! Reads and writes `/proc/sys` for [`crate::fib::sysctl`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use nix::libc::{EMFILE, ENFILE, ENOMEM};

use crate::{
    fib::sysctl::{
        Change, Needs, Record, Seen, Why, Write, escaped, forwarding_key, hash_policy_key, interface_key,
        interface_of,
    },
    net::Family,
    netlink::io::{Notifications, Protocol},
};

const ROOT: &str = "/proc/sys";
/// `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF`.
const GROUPS: [u32; 2] = [24, 25];

/// Result of one write.
#[derive(Debug)]
pub struct Done {
    pub write: Write,
    /// `None` if it was not tried because `accept_ra` could not be set before.
    pub result: Option<io::Result<()>>,
}

/// Notifications of changed forwarding settings and of interfaces that get settings of their own.
pub fn changes() -> Notifications {
    Notifications::open(Protocol::ROUTE, &GROUPS, "sysctls")
}

/// Reads everything that [`Needs`] may depend on.
///
/// # Errors
///
/// If the process lacks descriptors or memory: nothing is known then.
pub fn look(needs: &Needs) -> io::Result<Seen> {
    let mut seen = look_in(Path::new(ROOT), needs)?;
    seen.kube_proxy = needs.services && kube_proxy_listens()?;
    Ok(seen)
}

/// Writes the values in order.
pub fn write(writes: Vec<Write>) -> Vec<Done> {
    write_in(Path::new(ROOT), writes)
}

/// The value of a key; `None` if it cannot be read.
pub fn value(key: &str) -> Option<String> {
    read(Path::new(ROOT), key).ok()
}

/// Whether a family is forwarded now.
///
/// # Errors
///
/// If the process lacks descriptors or memory.
pub fn is_forwarding(family: Family) -> io::Result<bool> {
    let value = unless_short(read(Path::new(ROOT), forwarding_key(family)))?;
    Ok(value.is_some_and(|v| v != "0"))
}

/// A former value cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{key} cannot be set back to {old}: {error}")]
pub struct UndoError {
    key: String,
    old: String,
    error: io::Error,
}

/// Restores the values in [`Record`] that are still the ones routelet wrote. Returns lines for the
/// operator.
///
/// # Errors
///
/// If a value cannot be written.
pub fn undo(record: &Record) -> Result<Vec<String>, UndoError> {
    undo_in(Path::new(ROOT), record)
}

/// The setting that disables IPv6 for pods of this host, if there is one: for all interfaces, for
/// new ones (as each pod's is), for `bridge`, or for every one of `uplinks`.
pub fn ipv6_off(uplinks: &[String], bridge: &str) -> Option<String> {
    ipv6_off_in(Path::new(ROOT), uplinks, bridge)
}

fn ipv6_off_in(root: &Path, uplinks: &[String], bridge: &str) -> Option<String> {
    let key = |name: &str| interface_key(Family::Ipv6Unicast, &escaped(name), "disable_ipv6");
    let off = |name: &str| read(root, &key(name)).is_ok_and(|v| v != "0");
    if !root.join("net/ipv6/conf").exists() {
        return Some("ipv6.disable of the kernel's command line".into());
    }
    if let Some(name) = ["all", "default", bridge].into_iter().find(|name| off(name)) {
        return Some(key(name));
    }
    let all = !uplinks.is_empty() && uplinks.iter().all(|name| off(name));
    uplinks.first().filter(|_| all).map(|name| key(name))
}

fn look_in(root: &Path, needs: &Needs) -> io::Result<Seen> {
    let interfaces = interfaces(root)?;
    let mut keys = vec![
        interface_key(Family::Ipv6Unicast, "default", "accept_ra"),
        interface_key(Family::Ipv4Unicast, "all", "rp_filter"),
        "net.bridge.bridge-nf-call-iptables".to_owned(),
        "net.bridge.bridge-nf-call-ip6tables".to_owned(),
    ];
    keys.extend(Family::ALL.map(|f| forwarding_key(f).to_owned()));
    keys.extend(Family::ALL.map(|f| hash_policy_key(f).to_owned()));
    let ports: BTreeSet<_> = needs.ports.iter().map(|p| escaped(p)).collect();
    for interface in interfaces.iter().filter(|i| !ports.contains(*i)) {
        keys.extend(Family::ALL.map(|f| interface_key(f, interface, "forwarding")));
        keys.push(interface_key(Family::Ipv6Unicast, interface, "accept_ra"));
    }
    let bridges = needs.bridges.iter().chain(&needs.container_bridges);
    for interface in needs.uplinks.iter().chain(bridges).map(|n| escaped(n)) {
        keys.push(interface_key(Family::Ipv4Unicast, &interface, "rp_filter"));
        keys.push(interface_key(Family::Ipv6Unicast, &interface, "disable_ipv6"));
    }
    let mut values = BTreeMap::new();
    for key in keys {
        if let Some(value) = unless_short(read(root, &key))? {
            values.insert(key, value);
        }
    }
    Ok(Seen { values, interfaces, kube_proxy: false })
}

/// `None` for what cannot be read, or does not exist.
///
/// # Errors
///
/// If the process lacks descriptors or memory: it may well exist.
fn unless_short<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if matches!(e.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM)) => Err(e),
        result => Ok(result.ok()),
    }
}

/// The interfaces as directories: they exist before any notification.
fn interfaces(root: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for family in ["ipv4", "ipv6"] {
        let entries = unless_short(fs::read_dir(root.join(format!("net/{family}/conf"))))?;
        let names = entries.into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter(|n| !["all", "default", "lo"].contains(&n.as_str()));
        found.extend(names.map(|n| escaped(&n)));
    }
    Ok(found)
}

fn write_in(root: &Path, writes: Vec<Write>) -> Vec<Done> {
    let mut kept = true;
    let mut done = Vec::new();
    for write in writes {
        let blocked = !kept && write.why == Why::Forward(Family::Ipv6Unicast);
        let result = (!blocked).then(|| match fs::write(path(root, &write.key), write.new) {
            // The interface is gone.
            Err(e) if e.kind() == io::ErrorKind::NotFound && interface_of(&write.key).is_some() => Ok(()),
            written => written,
        });
        kept &= write.why != Why::KeepAdvertisements || result.as_ref().is_none_or(Result::is_ok);
        done.push(Done { write, result });
    }
    done
}

fn undo_in(root: &Path, record: &Record) -> Result<Vec<String>, UndoError> {
    let mut lines = Vec::new();
    for Change { key, old, new } in record.undo() {
        if read(root, &key).ok().as_deref() != Some(new.as_str()) {
            continue;
        }
        let forwarding = key.replace(".accept_ra", ".forwarding");
        if forwarding != key && read(root, &forwarding).is_ok_and(|v| v != "0") {
            lines.push(format!("{key} stays {new}: packets are still forwarded there"));
            continue;
        }
        if let Err(error) = fs::write(path(root, &key), &old) {
            return Err(UndoError { key, old, error });
        }
        lines.push(format!("{key} is {old} again"));
    }
    Ok(lines)
}

/// Checks for kube-proxy's default ports for health checks and metrics, which the distributions k3s
/// and k0s use as well.
fn kube_proxy_listens() -> io::Result<bool> {
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = unless_short(fs::read_to_string(file))?;
        if text.is_some_and(|text| text.lines().any(is_kube_proxy)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_kube_proxy(line: &str) -> bool {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let (local, state) = (fields.nth(1), fields.nth(1));
    let port = local.and_then(|l| l.rsplit_once(':')).and_then(|(_, p)| u16::from_str_radix(p, 16).ok());
    state == Some(LISTEN) && matches!(port, Some(10249 | 10256))
}

fn read(root: &Path, key: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(root, key))?.trim().to_owned())
}

/// As in sysctl(8), a slash stands for a dot in an interface name.
fn path(root: &Path, key: &str) -> PathBuf {
    let swapped = key.chars().map(|c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    });
    root.join(swapped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::sysctl::writes;

    const V6: &str = "net.ipv6.conf.all.forwarding";

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (key, value) in files {
            let file = path(dir.path(), key);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{value}\n")).unwrap();
        }
        dir
    }

    fn value(dir: &tempfile::TempDir, key: &str) -> String {
        read(dir.path(), key).unwrap()
    }

    fn needs() -> Needs {
        Needs { families: Family::ALL.into(), ..Needs::default() }
    }

    fn turn(dir: &tempfile::TempDir, record: &mut Record) -> Vec<Done> {
        let writes = writes(&needs(), &look_in(dir.path(), &needs()).unwrap(), record, &BTreeSet::new());
        writes.iter().for_each(|w| record.note(w));
        write_in(dir.path(), writes)
    }

    #[test]
    fn without_descriptors_nothing_counts_as_absent() {
        let error = |errno| Err::<(), _>(io::Error::from_raw_os_error(errno));
        for errno in [EMFILE, ENFILE, ENOMEM] {
            assert_eq!(unless_short(error(errno)).unwrap_err().raw_os_error(), Some(errno));
        }
        for errno in [nix::libc::ENOENT, nix::libc::EACCES] {
            assert_eq!(unless_short(error(errno)).unwrap(), None);
        }
        assert_eq!(unless_short(Ok(7)).unwrap(), Some(7));
    }

    #[test]
    fn forwarding_goes_on_after_advertisements_are_safe_and_off_before_they_are_given_up() {
        let dir = tree(&[
            ("net.ipv4.ip_forward", "0"),
            (V6, "0"),
            ("net.ipv6.conf.default.accept_ra", "1"),
            ("net.ipv6.conf.eth0/5.accept_ra", "1"),
            ("net.ipv6.conf.eth0/5.forwarding", "0"),
        ]);
        let mut record = Record::new("boot");
        let done = turn(&dir, &mut record);
        let keys: Vec<_> = done.iter().map(|d| d.write.key.as_str()).collect();
        assert_eq!(
            keys,
            ["net.ipv4.ip_forward", "net.ipv6.conf.default.accept_ra", "net.ipv6.conf.eth0/5.accept_ra", V6]
        );
        assert_eq!(value(&dir, "net.ipv6.conf.eth0/5.accept_ra"), "2");
        assert_eq!((value(&dir, V6), value(&dir, "net.ipv4.ip_forward")), ("1".into(), "1".into()));
        assert!(turn(&dir, &mut record).is_empty(), "running twice changes nothing");

        // Another program has disabled IPv4 forwarding meanwhile, and enabled forwarding on eth0.5.
        fs::write(path(dir.path(), "net.ipv4.ip_forward"), "0").unwrap();
        fs::write(path(dir.path(), "net.ipv6.conf.eth0/5.forwarding"), "1").unwrap();
        let lines = undo_in(dir.path(), &record).unwrap();
        assert_eq!(
            lines,
            [
                "net.ipv6.conf.all.forwarding is 0 again",
                "net.ipv6.conf.default.accept_ra is 1 again",
                "net.ipv6.conf.eth0/5.accept_ra stays 2: packets are still forwarded there",
            ]
        );
        assert_eq!(value(&dir, "net.ipv6.conf.eth0/5.accept_ra"), "2");
    }

    #[test]
    fn advertisements_that_cannot_be_kept_leave_forwarding_off() {
        let dir = tree(&[(V6, "0"), ("net.ipv6.conf.eth0.forwarding", "0")]);
        // A directory in place of the file cannot be written.
        let writes = vec![
            Write { key: "net.ipv6.conf".into(), old: "1".into(), new: "2", why: Why::KeepAdvertisements },
            Write { key: V6.into(), old: "0".into(), new: "1", why: Why::Forward(Family::Ipv6Unicast) },
        ];
        let done = write_in(dir.path(), writes);
        assert!(matches!(done[0].result, Some(Err(_))) && done[1].result.is_none(), "{done:?}");
        assert_eq!(value(&dir, V6), "0");
    }

    #[test]
    fn kube_proxy_is_known_by_its_port() {
        #[rustfmt::skip]
        let cases = [
            ("  3: 00000000000000000000000000000000:2810 00000000000000000000000000000000:0000 0A 0", true),
            ("  3: 0100007F:2809 00000000:0000 0A 00000000", true),
            ("  3: 0100007F:2810 00000000:0000 01 00000000", false),
            ("  3: 0100007F:00B3 00000000:0000 0A 00000000", false),
            ("  sl  local_address rem_address   st tx_queue", false),
        ];
        for (line, expected) in cases {
            assert_eq!(is_kube_proxy(line), expected, "{line}");
        }
    }

    #[test]
    fn kind_626_ipv6_is_off_by_any_of_the_settings_that_keep_pods_from_it() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        #[rustfmt::skip]
        let cases: &[(&str, &[&str], &[&str], Option<&str>)] = &[
            ("on",                   &[],                       &["eth0"],           None),
            ("all",                  &["all"],                  &["eth0"],           Some("net.ipv6.conf.all.disable_ipv6")),
            ("for what comes",       &["default"],              &["eth0"],           Some("net.ipv6.conf.default.disable_ipv6")),
            ("the bridge",           &["routelet0"],            &["eth0"],           Some("net.ipv6.conf.routelet0.disable_ipv6")),
            ("the uplink",           &["eth0/5"],               &["eth0.5"],         Some("net.ipv6.conf.eth0/5.disable_ipv6")),
            ("one uplink of two",    &["eth0"],                 &["eth0", "eth1"],   None),
            ("lo alone",             &["lo"],                   &["eth0"],           None),
            ("no uplink",            &["eth0"],                 &[],                 None),
        ];
        for (name, off, uplinks, want) in cases {
            let all = ["all", "default", "lo", "eth0", "eth1", "eth0/5", "routelet0"];
            let keys = all.map(|i| (format!("net.ipv6.conf.{i}.disable_ipv6"), off.contains(&i)));
            let files: Vec<_> =
                keys.iter().map(|(k, off)| (k.as_str(), if *off { "1" } else { "0" })).collect();
            let dir = tree(&files);
            assert_eq!(ipv6_off_in(dir.path(), &names(uplinks), "routelet0").as_deref(), *want, "{name}");
        }
        let none = ipv6_off_in(tree(&[("net.ipv4.ip_forward", "1")]).path(), &[], "routelet0");
        assert!(none.unwrap().contains("ipv6.disable"), "the kernel has no IPv6");
    }
}
