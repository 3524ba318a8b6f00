//! resolv.conf(5) → the addresses of the host's resolvers.

use std::{collections::BTreeSet, net::IpAddr};

/// More than any resolver library asks.
const MOST: usize = 8;

/// The addresses of its `nameserver` lines. A link-local one is named with its interface, which is left out.
pub fn resolvers(text: &str) -> BTreeSet<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != "nameserver" {
            return None;
        }
        words.next()?.split('%').next()?.parse().ok()
    });
    named.take(MOST).collect()
}

/// Whether they only stand for others: a local stub (systemd-resolved, dnsmasq) asks the real ones.
pub fn are_local(resolvers: &BTreeSet<IpAddr>) -> bool {
    !resolvers.is_empty() && resolvers.iter().all(IpAddr::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_and_the_rest_is_passed_over() {
        let text = "# made by hand\nsearch example.com\nnameserver 10.0.0.53\n nameserver\t2001:db8::53 \n\
                    nameserver fe80::1%eth0\nnameserver\nnameserver ns.example.com\n;nameserver 10.0.0.54\n\
                    nameservers 10.0.0.55\noptions ndots:5\n";
        let found: Vec<_> = resolvers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.53", "2001:db8::53", "fe80::1"]);
        let many: String = (0..100).map(|n| format!("nameserver 10.0.0.{n}\n")).collect();
        assert_eq!(resolvers(&many).len(), MOST);
        assert!(resolvers("").is_empty());
    }

    #[test]
    fn a_stub_is_told_from_resolvers_elsewhere() {
        assert!(are_local(&resolvers("nameserver 127.0.0.53\nnameserver ::1\n")));
        assert!(!are_local(&resolvers("nameserver 127.0.0.53\nnameserver 10.0.0.53\n")));
        assert!(!are_local(&resolvers("")));
    }
}
