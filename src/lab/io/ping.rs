//! Echo requests over raw sockets (RFC 792, RFC 4443 §4), so that `ping` is not required.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Read},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

/// How long a reply may take; the first waits for address resolution.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends one request and waits for the reply, in the namespace of this thread. `None` if there was
/// none.
pub(super) fn ping(target: IpAddr, sequence: u16) -> io::Result<Option<Duration>> {
    let identifier = std::process::id() as u16;
    let (domain, protocol, request, reply) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.connect(&SocketAddr::new(target, 0).into())?;
    let began = Instant::now();
    match socket.send(&echo(request, identifier, sequence, target.is_ipv4())) {
        Err(why) if unreachable(&why) => return Ok(None),
        sent => sent?,
    };
    let wanted = echo(reply, identifier, sequence, target.is_ipv4());
    let mut buffer = [0; 256];
    while let Some(left) = REPLY_TIMEOUT.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(length) => {
                let packet = buffer.get(..length).unwrap_or_default();
                if body(packet, target.is_ipv4()).is_some_and(|body| is_reply(body, &wanted)) {
                    return Ok(Some(began.elapsed()));
                }
            }
            Err(why)
                if matches!(
                    why.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(why) if unreachable(&why) => return Ok(None),
            Err(why) => return Err(why),
        }
    }
    Ok(None)
}

/// A stream of requests.
pub(super) struct Probes {
    pub(super) sent: usize,
    pub(super) lost: usize,
}

/// Sends a request each `interval` until `over`, and at least [`LEAST`], in the namespace of this
/// thread, and counts those without a reply.
pub(super) fn probe(target: IpAddr, interval: Duration, over: &AtomicBool) -> io::Result<Probes> {
    let identifier = std::process::id() as u16;
    let v4 = target.is_ipv4();
    let (domain, protocol, request, reply) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.connect(&SocketAddr::new(target, 0).into())?;
    let (mut sent, mut replied) = (0u16, BTreeSet::new());
    let began = Instant::now();
    let mut ending = None;
    while ending.is_none_or(|at: Instant| at.elapsed() < LAST_REPLIES) {
        if ending.is_none() && began.elapsed() >= interval * u32::from(sent) && sent < u16::MAX {
            sent += 1;
            // A request that cannot be sent has no reply.
            let _ = socket.send(&echo(request, identifier, sent, v4));
        }
        if ending.is_none() && sent >= LEAST && over.load(Ordering::Relaxed) {
            ending = Some(Instant::now());
        }
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        let mut buffer = [0; 256];
        let Ok(length) = socket.read(&mut buffer) else { continue };
        let packet = buffer.get(..length).unwrap_or_default();
        let Some(body) = body(packet, v4) else { continue };
        if let Some(&[high, low]) = body.get(6..8) {
            let sequence = u16::from_be_bytes([high, low]);
            if is_reply(body, &echo(reply, identifier, sequence, v4)) {
                replied.insert(sequence);
            }
        }
    }
    Ok(Probes { sent: sent.into(), lost: usize::from(sent) - replied.len() })
}

/// Minimum number of requests: fewer show little about the share of lost packets. A busy machine
/// sends fewer in the same time.
const LEAST: u16 = 250;
/// How long to wait for the last replies.
const LAST_REPLIES: Duration = Duration::from_millis(300);

fn unreachable(why: &io::Error) -> bool {
    matches!(why.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable)
}

/// Type, code, checksum, identifier, sequence, payload. The kernel computes the ICMPv6 checksum
/// (RFC 3542 §3.1).
fn echo(kind: u8, identifier: u16, sequence: u16, checksummed: bool) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(b"routelet");
    if checksummed {
        let sum = checksum(&message);
        message.splice(2..4, sum.to_be_bytes());
    }
    message
}

/// RFC 1071, for an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let pairs = octets.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair)));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A raw IPv4 socket returns the IP header as well.
fn body(packet: &[u8], with_header: bool) -> Option<&[u8]> {
    let header = if with_header { usize::from(packet.first()? & 0x0f) * 4 } else { 0 };
    packet.get(header..)
}

/// Equal except for the checksum.
fn is_reply(body: &[u8], wanted: &[u8]) -> bool {
    body.get(..2) == wanted.get(..2) && body.get(4..) == wanted.get(4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_matched_by_type_identifier_and_sequence() {
        let wanted = echo(0, 7, 1, true);
        #[rustfmt::skip]
        let cases: &[(&str, Vec<u8>, bool)] = &[
            ("the reply",       echo(0, 7, 1, false), true),
            ("our own request",  echo(8, 7, 1, true),  false),
            ("another's reply", echo(0, 8, 1, true),  false),
            ("an older reply",  echo(0, 7, 0, true),  false),
            ("cut short",        wanted[..7].to_vec(), false),
        ];
        for (name, body, expected) in cases {
            assert_eq!(is_reply(body, &wanted), *expected, "{name}");
        }
    }

    #[test]
    fn a_message_with_its_checksum_sums_to_zero() {
        assert_eq!(checksum(&echo(8, 0x1234, 3, true)), 0);
    }
}
