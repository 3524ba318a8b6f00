//! Which `Host` headers the status page is served to.
//!
//! A web site can make its own name resolve to an address of this host, so that the browser of
//! somebody who can reach this host reads the page for it (DNS rebinding). The browser then sends
//! the name of that site. Neither an address nor a name that always means the loopback (RFC 6761
//! §6.3) can be the name of such a site.

use std::net::{IpAddr, Ipv6Addr};

/// Whether a `Host` header, with or without a port, is an address or a name of the loopback.
pub fn is_own_host(value: &str) -> bool {
    if let Some(bracketed) = value.strip_prefix('[') {
        let Some((address, port)) = bracketed.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port));
    }
    let (name, has_port) = match value.split_once(':') {
        Some((name, port)) => (name, port.bytes().all(|digit| digit.is_ascii_digit())),
        None => (value, true),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_loopback = name == "localhost" || name.ends_with(".localhost");
    has_port && (is_loopback || name.parse::<IpAddr>().is_ok())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_the_loopback_are_this_host_and_no_other_name_is() {
        for own in [
            "127.0.0.1",
            "127.0.0.1:9179",
            "192.0.2.1:9179",
            "[::1]",
            "[::1]:9179",
            "[2001:db8::1]:80",
            "localhost",
            "LocalHost:9179",
            "localhost.",
            "node.localhost:9179",
            "127.0.0.1.",
        ] {
            assert!(is_own_host(own), "{own}");
        }
        for other in [
            "",
            ":9179",
            "example.com",
            "example.com:9179",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
            "127.0.0.1:9179.example.com",
            "127.0.0.1@example.com",
            "[::1].example.com",
            "[::1]example.com:9179",
            "[::1",
            "[example.com]",
            "[127.0.0.1]",
            "::1",
            "2130706433",
            "0x7f.1",
            "x",
        ] {
            assert!(!is_own_host(other), "{other}");
        }
    }
}
