//! Parses the addresses of DNS resolvers from resolv.conf(5).

use std::{collections::BTreeSet, net::IpAddr};

/// Limit of addresses; more than any resolver library queries.
const MAX_RESOLVERS: usize = 8;

/// The addresses of the `nameserver` lines. The interface of a link-local address is dropped.
pub fn resolvers(text: &str) -> BTreeSet<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        if fields.next()? != "nameserver" {
            return None;
        }
        fields.next()?.split('%').next()?.parse().ok()
    });
    named.take(MAX_RESOLVERS).collect()
}

/// Whether all of them are local stubs (systemd-resolved, dnsmasq), which forward to the actual
/// resolvers.
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
        assert_eq!(resolvers(&many).len(), MAX_RESOLVERS);
        assert!(resolvers("").is_empty());
    }

    #[test]
    fn a_stub_is_distinguished_from_remote_resolvers() {
        assert!(are_local(&resolvers("nameserver 127.0.0.53\nnameserver ::1\n")));
        assert!(!are_local(&resolvers("nameserver 127.0.0.53\nnameserver 10.0.0.53\n")));
        assert!(!are_local(&resolvers("")));
    }
}
