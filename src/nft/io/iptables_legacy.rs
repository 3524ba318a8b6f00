//! Reads the policy of FORWARD in iptables-legacy with the same socket options as
//! `iptables-legacy -S`. The kernel only replaces such a table as a whole, including the rules of
//! other programs, so we never write it.

use std::{fs, io, os::fd::AsRawFd, path::Path};

use socket2::{Domain, Socket, Type};

use crate::net::Family;

/// Whether the policy is DROP. A table that does not exist is not requested: that would create it.
pub(super) fn forward_drops(family: Family) -> bool {
    let (names, module) = match family {
        Family::Ipv4Unicast => ("/proc/thread-self/net/ip_tables_names", "/sys/module/iptable_filter"),
        Family::Ipv6Unicast => ("/proc/thread-self/net/ip6_tables_names", "/sys/module/ip6table_filter"),
    };
    let exists = match fs::read_to_string(names) {
        Ok(names) => names.lines().any(|name| name == TABLE),
        // Only root may read it. If the module is loaded, the table usually exists.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Path::new(module).exists(),
        Err(_) => false,
    };
    exists && policy_is_drop(family).unwrap_or(false)
}

fn policy_is_drop(family: Family) -> io::Result<bool> {
    let domain = if family == Family::Ipv4Unicast { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    let layout = Layout::of(family);
    // struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size.
    let info = option(&socket, layout.level, GET_INFO, named(84))?;
    let number = |at| number(&info, at).map(|n| n as usize);
    let (policy, size) = (number(32 + 4 + 20 + 4 * NF_INET_FORWARD), number(80));
    let (Some(policy), Some(size)) = (policy, size) else { return Ok(false) };
    // struct ipt_get_entries: name, size, and the rules, aligned.
    let mut entries = named(HEAD + size);
    entries[32..36].copy_from_slice(&(size as u32).to_ne_bytes());
    let entries = option(&socket, layout.level, GET_ENTRIES, entries)?;
    Ok(verdict(entries.get(HEAD + policy..).unwrap_or_default(), layout.target_offset) == Some(DROP))
}

/// The verdict of a rule without conditions, which is how a policy is stored.
fn verdict(rule: &[u8], target_offset: usize) -> Option<i32> {
    let target = u16::from_ne_bytes(*rule.get(target_offset..)?.first_chunk()?);
    // After the header of the target.
    let code = rule.get(usize::from(target) + 32..)?.first_chunk()?;
    Some(i32::from_ne_bytes(*code))
}

/// Offsets in the structures of a family.
struct Layout {
    level: i32,
    /// Offset of `target_offset` in ipt_entry and ip6t_entry.
    target_offset: usize,
}

impl Layout {
    fn of(family: Family) -> Self {
        match family {
            Family::Ipv4Unicast => Self { level: nix::libc::SOL_IP, target_offset: 88 },
            Family::Ipv6Unicast => Self { level: nix::libc::SOL_IPV6, target_offset: 140 },
        }
    }
}

const TABLE: &str = "filter";
const HEAD: usize = 40;
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
const NF_INET_FORWARD: usize = 2;
/// `-NF_DROP - 1`.
const DROP: i32 = -1;

fn named(len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    buf[..TABLE.len()].copy_from_slice(TABLE.as_bytes());
    buf
}

fn number(buf: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*buf.get(at..)?.first_chunk()?))
}

/// Reads an option whose value is also the request.
#[allow(unsafe_code, reason = "no crate in use supports an option whose value is both read and written")]
fn option(socket: &Socket, level: i32, name: i32, mut value: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut len = nix::libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `len` octets, which is how many `value` has.
    let result = unsafe {
        nix::libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_from_its_rule_and_a_truncated_one_is_ignored() {
        let mut rule = vec![0; 112 + 40];
        rule[88..90].copy_from_slice(&112_u16.to_ne_bytes());
        for (code, expected) in [(-1_i32, Some(DROP)), (-2, Some(-2))] {
            rule[144..148].copy_from_slice(&code.to_ne_bytes());
            assert_eq!(verdict(&rule, 88), expected);
        }
        for len in 0..148 {
            assert_eq!(verdict(&rule[..len], 88), None, "{len}");
        }
    }
}
