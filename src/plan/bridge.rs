//! The prefixes to advertise: subnets of Docker bridges and of other interfaces that have a
//! carrier.

use super::{
    Context,
    gateway::{self, is_container_bridge},
    neighbor::is_link_local,
};
use crate::{
    config::Advertise,
    fib::host::{Host, Link, LinkAddress, Scope},
    net::{Diagnostic, Prefix, Reason, Subject},
};

/// The connected subnets of the interfaces that `[advertise]` selects, while these are up and have
/// a carrier if that is required.
pub(super) fn subnets(advertise: &Advertise, host: &Host) -> Vec<Prefix> {
    let mut prefixes: Vec<_> = host
        .links
        .values()
        .filter(|l| is_advertised(advertise, host, l))
        .filter(|l| if advertise.require_carrier { host.has_carrier(l) } else { l.up })
        .flat_map(of_link)
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// The subnets of an interface, whatever its state.
pub(super) fn of_link(link: &Link) -> impl Iterator<Item = Prefix> + '_ {
    link.addresses.iter().filter(|a| is_advertisable(link, a)).filter_map(subnet)
}

/// Names that match no interface of this host. Patterns are left out: they may match an interface
/// that is created later.
pub(super) fn unmatched<'a>(advertise: &'a Advertise, host: &Host) -> Vec<&'a str> {
    let matches =
        |pattern: &&String| host.links.values().any(|l| is_named(std::slice::from_ref(*pattern), l));
    let named = advertise.interfaces.iter().filter(|p| !p.contains(['*', '?']));
    named.filter(|p| !matches(p)).map(String::as_str).collect()
}

/// Reports interfaces that are configured by name, but not advertised because they are down or have
/// no carrier.
pub(super) fn without_carrier(advertise: &Advertise, host: &Host) -> Vec<Diagnostic> {
    let is_dead = |l: &&Link| advertise.require_carrier && !host.has_carrier(l) || !l.up;
    let named = advertise.interfaces.iter().filter_map(|name| host.link(name));
    let dead = named.filter(is_dead).filter_map(|l| Some((l, of_link(l).next()?)));
    dead.map(|(link, subnet)| {
        let name = &link.name;
        let (why, remedy) = match (link.up, link.kind.as_str()) {
            (false, _) => ("it is down", format!("run `ip link set {name} up`")),
            (true, "bridge") => ("no container is attached to this bridge", "start a container there".into()),
            (true, _) => ("it has no carrier", "check its cable, and its other end".into()),
        };
        Diagnostic::new(
            Reason::InterfaceWithoutCarrier,
            Subject::interface(name),
            format!("{subnet} of {name} is not advertised: {why}"),
            format!("{remedy}; or set advertise.require-carrier = false"),
        )
    })
    .collect()
}

/// Reports advertised bridges whose MTU is larger than the uplink's. The MTU of the pods' bridge is
/// set by us.
pub(super) fn larger_than_uplink(ctx: &Context<'_>) -> Vec<Diagnostic> {
    let Some(uplink) = gateway::uplinks(ctx.host, ctx.config).into_iter().min_by_key(|l| l.mtu) else {
        return Vec::new();
    };
    let (advertise, pods) = (&ctx.config.advertise, &ctx.config.cni.bridge);
    let bridges = ctx.host.links.values().filter(|l| l.kind == "bridge" && l.name != *pods);
    let larger = bridges.filter(|l| l.mtu > uplink.mtu && is_advertised(advertise, ctx.host, l));
    larger
        .map(|link| {
            let text = format!(
                "{} has MTU {}, and the uplink {} only {}: large packets of containers are lost where ICMP is \
                 filtered",
                link.name, link.mtu, uplink.name, uplink.mtu
            );
            let remedy = format!(
                "lower it: for Docker set \"mtu\": {} in /etc/docker/daemon.json, and recreate the network",
                uplink.mtu
            );
            Diagnostic::new(Reason::MtuTooLarge, Subject::interface(&link.name), text, remedy)
        })
        .collect()
}

/// Names of the interfaces that the operator could have meant, for a message.
pub(super) fn candidates(host: &Host) -> String {
    // Ends of containers' veth pairs come and go, and are never what the operator meant.
    let meant = host.links.values().filter(|l| !l.loopback && l.master.is_none());
    let mut names: Vec<_> = meant.map(|l| l.name.as_str()).collect();
    names.sort_unstable();
    super::addresses::named(names)
}

/// Whether `[advertise]` selects this interface: by its name, as a bridge of containers, or as the
/// bridge of a selected Docker network.
pub(super) fn is_advertised(advertise: &Advertise, host: &Host, link: &Link) -> bool {
    is_named(&advertise.interfaces, link)
        || advertise.containers && is_container_bridge(host, link)
        || link.kind == "bridge" && advertise.docker_bridges.contains(&link.name)
}

/// `lo` matches only by its full name, not by a pattern.
pub(super) fn is_named(patterns: &[String], link: &Link) -> bool {
    patterns
        .iter()
        .any(|p| if link.loopback { *p == link.name } else { glob(p.as_bytes(), link.name.as_bytes()) })
}

/// Whether the address's subnet may be advertised: not if the address is link-local, loopback or
/// still being checked for duplicates. Its scope must be global, except on `lo`.
fn is_advertisable(link: &Link, address: &LinkAddress) -> bool {
    let scope = link.loopback || address.scope == Scope::Global;
    scope && !address.tentative && !is_link_local(address.addr) && !address.addr.is_loopback()
}

fn subnet(address: &LinkAddress) -> Option<Prefix> {
    Prefix::new(address.peer.unwrap_or(address.addr), address.len)
}

/// `*` matches any characters, `?` one character.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            (0..=name.len()).any(|n| name.get(n..).is_some_and(|tail| glob(rest, tail)))
        }
        ([b'?', rest @ ..], [_, tail @ ..]) => glob(rest, tail),
        ([p, rest @ ..], [n, tail @ ..]) => p == n && glob(rest, tail),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::host::testing::{host, link};

    fn advertise(interfaces: &[&str]) -> Advertise {
        Advertise {
            interfaces: interfaces.iter().map(|s| (*s).to_owned()).collect(),
            require_carrier: true,
            ..Advertise::default()
        }
    }

    fn advertised(advertise: &Advertise, host: &Host) -> Vec<String> {
        subnets(advertise, host).iter().map(Prefix::to_string).collect()
    }

    fn bridge(index: u32, name: &str) -> Link {
        Link { kind: "bridge".into(), ..link(index, name) }
    }

    fn port(index: u32, master: u32) -> Link {
        Link { master: Some(master), ..link(index, &format!("veth{index}")) }
    }

    #[test]
    fn a_bridge_is_advertised_while_a_port_of_it_is_up() {
        let docker0 = bridge(4, "docker0").with("172.17.0.1/16");
        let advertise = advertise(&["docker0"]);
        assert!(
            advertised(&advertise, &host([docker0.clone()], [])).is_empty(),
            "a new bridge is LOWER_UP without ports"
        );
        assert_eq!(advertised(&advertise, &host([docker0.clone(), port(5, 4)], [])), ["172.17.0.0/16"]);
        assert!(advertised(&advertise, &host([docker0.clone(), port(5, 4).no_carrier()], [])).is_empty());
        assert!(advertised(&advertise, &host([docker0.clone().down(), port(5, 4)], [])).is_empty());

        let always = Advertise { require_carrier: false, ..advertise };
        assert_eq!(advertised(&always, &host([docker0.clone()], [])), ["172.17.0.0/16"]);
        assert!(advertised(&always, &host([docker0.down()], [])).is_empty());
    }

    #[test]
    fn the_bridge_of_a_selected_docker_network_is_advertised() {
        let advertise = Advertise { docker_bridges: ["br-1".into(), "eth0".into()].into(), ..advertise(&[]) };
        let br = |index, name: &str, address: &str| bridge(index, name).with(address);
        let links = [
            link(2, "eth0").with("10.0.0.2/30"),
            br(3, "br-1", "172.18.0.1/16"),
            br(4, "br-2", "172.19.0.1/16"),
            port(5, 3),
            port(6, 4),
        ];
        assert_eq!(advertised(&advertise, &host(links, [])), ["172.18.0.0/16"]);
    }

    #[test]
    fn addresses_of_local_meaning_are_not_advertised() {
        let mut eth0 = link(2, "eth0")
            .with("10.0.0.2/30")
            .with("fe80::2/64")
            .with("169.254.3.4/16")
            .with("2001:db8::2/64");
        eth0.addresses[3].tentative = true;
        let mut hidden = link(3, "eth3").with("192.0.2.1/32");
        hidden.addresses[0].scope = Scope::Host;
        assert_eq!(advertised(&advertise(&["eth*"]), &host([eth0, hidden], [])), ["10.0.0.0/30"]);
    }

    #[test]
    fn the_loopback_is_advertised_only_by_name() {
        let mut lo =
            link(1, "lo").with("127.0.0.1/8").with("::1/128").with("192.0.2.1/32").with("192.0.2.9/32");
        lo.addresses[3].scope = Scope::Host;
        let host = host([lo], []);
        assert_eq!(advertised(&advertise(&["lo"]), &host), ["192.0.2.1/32", "192.0.2.9/32"]);
        assert!(advertised(&advertise(&["*"]), &host).is_empty());
    }

    #[test]
    fn globs_and_names_that_fit_nothing() {
        for (pattern, name, fits) in [
            ("docker0", "docker0", true),
            ("docker0", "docker01", false),
            ("br-*", "br-0123abcd", true),
            ("br-*", "br0", false),
            ("*", "eth0", true),
            ("eth?", "eth0", true),
            ("eth?", "eth", false),
            ("e*h*0", "ens-h100", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
        let host = host([link(2, "eth0")], []);
        assert_eq!(unmatched(&advertise(&["eth*", "br-*", "docker0"]), &host), ["docker0"]);
    }
}
