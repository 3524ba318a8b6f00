use std::net::IpAddr;

use clap::Args;

use super::{Failure, Socket, io};
use crate::{
    control::{Query, Question, Response, explain_refusal, render},
    net::Prefix,
};

/// Follow packets to an address, and show the step that stops them
///
/// Walks one address through this node and back: whether it is its own and to whom it is
/// advertised; the longest match and each path with the reason why it was selected or not; import
/// policy and route guard; the route that the kernel uses; interface and neighbor entry;
/// MTU, forwarding, rp_filter and packet filters; and the way of replies. Ends with `reachable`, or
/// with the step that stops the packets and its remedy. Without --from the packets of this host and
/// of its containers are followed or, to an address of this host, those of others. Exits with 0 if
/// the address is reachable and with 1 if it is not.
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// The address to reach
    #[arg(value_parser = address)]
    address: IpAddr,
    /// Source of the packets: an address of this host, of a container, or of another host
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    from: Option<IpAddr>,
    /// Interface on which the packets arrive [default: the one that leads to --from]
    #[arg(long, value_name = "NAME", requires = "from")]
    interface: Option<String>,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Why packets to a text cannot be followed.
#[derive(Debug, thiserror::Error)]
enum AddressError {
    #[error("{0}")]
    Refused(String),
    #[error("{0} is a prefix; give one address in it, or run `routelet show routes {0}`")]
    Prefix(String),
    #[error("write {0}, without the interface")]
    WithInterface(IpAddr),
    #[error("write an IP address: 10.1.2.3 or 2001:db8::1")]
    NoAddress,
}

fn address(text: &str) -> Result<IpAddr, AddressError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return explain_refusal(address).map_or(Ok(address), |why| Err(AddressError::Refused(why)));
    }
    if text.parse::<Prefix>().is_ok() || text.contains('/') {
        return Err(AddressError::Prefix(text.to_owned()));
    }
    Err(match text.split_once('%').map(|(a, _)| a.parse::<IpAddr>()) {
        Some(Ok(a)) => explain_refusal(a).map_or(AddressError::WithInterface(a), AddressError::Refused),
        _ => AddressError::NoAddress,
    })
}

impl Explain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { address, from, interface, json, socket } = self;
        let response = socket.request(Query::Explain(Question { address, from, interface }))?;
        let text =
            if json { render::json(&response) } else { render::text(&response, io::now(), io::layout()) };
        io::print(&text)?;
        match response {
            Response::Explanation(found) if found.stopped_by.is_some() => Err(Failure::Unreached),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_of_a_host_is_refused_with_what_to_write() {
        #[rustfmt::skip]
        let cases = [
            ("10.0.0.0/8",        "`routelet show routes 10.0.0.0/8`"),
            ("10.0.0.1/33",       "is a prefix"),
            ("eth0",              "write an IP address"),
            ("0.0.0.0",           "not an address of a host"),
            ("0.1.2.3",           "0.0.0.0/8"),
            ("255.255.255.255",   "broadcast"),
            ("224.0.0.5",         "multicast"),
            ("127.0.0.1",         "loopback"),
            ("::",                "not an address of a host"),
            ("::1",               "loopback"),
            ("ff02::1",           "multicast"),
            ("fe80::1",           "link-local"),
            ("fe80::1%eth0",      "link-local"),
            ("::ffff:10.0.0.1",   "write 10.0.0.1"),
            ("10.0.0.1%eth0",     "without the interface"),
        ];
        for (text, part) in cases {
            let error = address(text).expect_err(text).to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        }
        for text in ["10.0.0.1", "2001:DB8::1", "169.254.169.254", "240.0.0.1"] {
            assert!(address(text).is_ok(), "{text}");
        }
    }
}
