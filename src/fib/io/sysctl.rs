//! Forwarding and what belongs to it, in `/proc/sys`.
//!
//! What is missing is set where that is permitted, else reported with its remedy. Before IPv6 forwarding goes on,
//! interfaces whose default route came by router advertisement get `accept_ra=2`: the kernel would purge that
//! route else (kernel.md 18).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{fib::host::Host, net::Family};

/// The route protocol of router advertisements.
const RTPROT_RA: u8 = 9;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// As `sysctl` names it.
    pub key: String,
    pub state: State,
    /// In plain words, with the remedy where one is needed.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Good,
    /// It was not, and we have set it.
    Set,
    /// It works, but not at its best.
    Advice,
    /// It is not, and we may not set it.
    Bad,
}

/// Checks forwarding of the families in use and sets it.
pub fn forwarding(host: &Host, families: &[Family]) -> Vec<Finding> {
    forwarding_in(Path::new("/proc/sys"), host, families)
}

/// Whether packets of each family are forwarded now.
pub fn is_forwarding(family: Family) -> bool {
    let key = forwarding_key(family);
    read(Path::new("/proc/sys"), key).is_ok_and(|v| v != "0")
}

fn forwarding_key(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "net.ipv4.ip_forward",
        Family::Ipv6Unicast => "net.ipv6.conf.all.forwarding",
    }
}

fn forwarding_in(root: &Path, host: &Host, families: &[Family]) -> Vec<Finding> {
    let mut found = Vec::new();
    for family in families {
        let key = forwarding_key(*family);
        let off = read(root, key).is_ok_and(|v| v == "0");
        if off && *family == Family::Ipv6Unicast {
            let advertisements: Vec<_> = keep_default_routes(root, host).collect();
            let safe = advertisements.iter().all(|f| f.state != State::Bad);
            found.extend(advertisements);
            if !safe {
                found.push(Finding {
                    key: key.into(),
                    state: State::Bad,
                    text:
                        "off, and left so: the default route came by router advertisement and would be lost"
                            .into(),
                });
                continue;
            }
        }
        found.push(ensure(root, key, "1", "packets of pods are not forwarded"));
    }
    found
}

/// `accept_ra=2` on each interface whose default route came by router advertisement.
fn keep_default_routes<'a>(root: &'a Path, host: &'a Host) -> impl Iterator<Item = Finding> + 'a {
    let learned = host.routes.iter().filter(|r| {
        r.prefix.len() == 0 && r.prefix.family() == Family::Ipv6Unicast && r.protocol == RTPROT_RA
    });
    let mut links: Vec<u32> = learned.flat_map(|r| &r.hops).map(|h| h.ifindex).collect();
    links.sort_unstable();
    links.dedup();
    links.into_iter().filter_map(|index| host.links.get(&index)).map(|link| {
        let key = format!("net.ipv6.conf.{}.accept_ra", link.name.replace('.', "/"));
        ensure(root, &key, "2", "the default route goes when IPv6 forwarding is switched on")
    })
}

/// What is worth knowing besides; nothing of it is changed.
pub fn advice() -> Vec<Finding> {
    advice_in(Path::new("/proc/sys"))
}

fn advice_in(root: &Path) -> Vec<Finding> {
    #[rustfmt::skip]
    let checks: &[(&str, &[&str], &str)] = &[
        ("net.ipv4.conf.all.rp_filter", &["0", "2"],
         "strict reverse path filtering drops packets that come in another way than they would go out; set 2 (loose) where nodes have several links"),
        ("net.ipv4.nexthop_compat_mode", &["0"],
         "1 makes the kernel tell of every route when a nexthop group changes; 0 makes failover of many routes cheaper"),
        ("net.ipv4.fib_multipath_hash_policy", &["1", "2", "3"],
         "0 sends all connections between two hosts over one path; 1 spreads them by port"),
    ];
    let mut found = Vec::new();
    for (key, good, why) in checks {
        let Ok(value) = read(root, key) else { continue };
        let (state, text) = if good.contains(&value.as_str()) {
            (State::Good, format!("is {value}"))
        } else {
            (State::Advice, format!("is {value}: {why}"))
        };
        found.push(Finding { key: (*key).into(), state, text });
    }
    found
}

fn ensure(root: &Path, key: &str, wanted: &str, otherwise: &str) -> Finding {
    let finding = |state, text| Finding { key: key.into(), state, text };
    let value = match read(root, key) {
        Ok(value) => value,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return finding(State::Bad, "this kernel has no such setting: the family is switched off".into());
        }
        Err(e) => return finding(State::Bad, format!("cannot be read ({e}): {otherwise}")),
    };
    if value == wanted || value == "2" {
        return finding(State::Good, format!("is {value}"));
    }
    match fs::write(path(root, key), wanted) {
        Ok(()) => finding(State::Set, format!("was {value}, set to {wanted}")),
        Err(e) => finding(
            State::Bad,
            format!(
                "is {value} and may not be set here ({e}): {otherwise}; run `sysctl -w {key}={wanted}` on the host"
            ),
        ),
    }
}

fn read(root: &Path, key: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(root, key))?.trim().to_owned())
}

/// As sysctl(8): a slash in a name stands for a dot in an interface's name.
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
    use crate::fib::host::testing::{gateway, host, link};

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

    #[test]
    fn forwarding_goes_on_after_the_default_route_is_safe() {
        let dir = tree(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "0"),
            ("net.ipv6.conf.eth0/5.accept_ra", "1"),
        ]);
        let mut default = gateway("::/0", "fe80::1", 2);
        default.protocol = RTPROT_RA;
        let found = forwarding_in(dir.path(), &host([link(2, "eth0.5")], [default]), &Family::ALL);
        let states: Vec<_> = found.iter().map(|f| (f.key.as_str(), f.state)).collect();
        #[rustfmt::skip]
        assert_eq!(states, [
            ("net.ipv4.ip_forward", State::Good),
            ("net.ipv6.conf.eth0/5.accept_ra", State::Set),
            ("net.ipv6.conf.all.forwarding", State::Set),
        ]);
        assert_eq!(value(&dir, "net.ipv6.conf.eth0/5.accept_ra"), "2");
        assert_eq!(value(&dir, "net.ipv6.conf.all.forwarding"), "1");
    }

    #[test]
    fn a_default_route_that_would_be_lost_keeps_forwarding_off() {
        let dir = tree(&[("net.ipv6.conf.all.forwarding", "0")]);
        let mut default = gateway("::/0", "fe80::1", 2);
        default.protocol = RTPROT_RA;
        let found = forwarding_in(dir.path(), &host([link(2, "eth0")], [default]), &[Family::Ipv6Unicast]);
        assert!(found.iter().all(|f| f.state == State::Bad), "{found:?}");
        assert_eq!(value(&dir, "net.ipv6.conf.all.forwarding"), "0");
    }

    #[test]
    fn advice_names_the_value_and_the_reason() {
        let dir = tree(&[("net.ipv4.conf.all.rp_filter", "1"), ("net.ipv4.nexthop_compat_mode", "0")]);
        let found = advice_in(dir.path());
        assert_eq!(found.iter().map(|f| f.state).collect::<Vec<_>>(), [State::Advice, State::Good]);
        assert!(found[0].text.contains("set 2 (loose)"));
    }
}
