//! Values that several sections use: prefixes, addresses, names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use toml::de::DeValue;

use super::{NeighborId, read::Item};
use crate::{
    bgp::{peer::RemoteAs, policy::Community},
    net::{AS_TRANS, Asn, Family, Prefix, RouterId},
};

/// What an AS number may be (RFC 7607, RFC 6793 §9, RFC 7300).
pub(super) const AS_ALLOWED: &str = "1 to 4294967294 without 23456 and 65535";

/// The names of the families.
pub(super) const FAMILIES: [(&str, Family); 2] =
    [("ipv4-unicast", Family::Ipv4Unicast), ("ipv6-unicast", Family::Ipv6Unicast)];

/// Longest name of a Linux interface (IFNAMSIZ without the closing zero).
const IFNAME: usize = 15;

pub(super) fn asn(item: &Item<'_>) -> Option<Asn> {
    item.number_where(AS_ALLOWED, |n| {
        (1..=4_294_967_294).contains(&n) && n != u64::from(AS_TRANS) && n != 65535
    })
}

pub(super) fn remote_as(item: &Item<'_>) -> Option<RemoteAs> {
    if !item.is_text() {
        return asn(item).map(RemoteAs::Number);
    }
    if item.text().is_some_and(|t| t.parse::<u32>().is_ok()) {
        item.error("write the number without quotes");
        return None;
    }
    let found = match item.text()? {
        "external" => RemoteAs::External,
        "internal" => RemoteAs::Internal,
        "any" => RemoteAs::Any,
        other => {
            item.error(format!(
                "`{other}` is not known; write a number, or one of \"external\", \"internal\", \"any\""
            ));
            return None;
        }
    };
    Some(found)
}

/// A BGP identifier (RFC 6286): any but 0.0.0.0.
pub(super) fn router_id(item: &Item<'_>) -> Option<RouterId> {
    let id = item.text()?.parse::<RouterId>().ok().filter(|id| !id.is_unspecified());
    if id.is_none() {
        item.error("must be four numbers with dots, as 10.0.0.1, and not 0.0.0.0");
    }
    id
}

pub(super) fn prefix(item: &Item<'_>) -> Option<Prefix> {
    let text = item.text()?;
    let prefix = text.parse::<Prefix>().map_err(|e| item.error(e.to_string())).ok()?;
    unmasked(text, prefix).map_err(|what| item.error(what)).ok()?;
    Some(prefix)
}

/// A prefix that can be advertised.
pub(super) fn own_prefix(item: &Item<'_>) -> Option<Prefix> {
    let prefix = prefix(item)?;
    let odd = ["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8"];
    if odd.iter().any(|p| p.parse::<Prefix>().is_ok_and(|p| p.covers(prefix))) {
        item.error("is loopback, link-local or multicast, which no network routes");
        return None;
    }
    Some(prefix)
}

/// A prefix is written with bits beyond its length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` has host bits set; write {prefix}")]
pub(super) struct HostBits {
    text: String,
    prefix: Prefix,
}

/// Why a text is no address of a neighbor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error(
        "`{text}` is not an IP address; write 10.1.1.1, 2001:db8::1, fe80::1%eth0 or \"gateway\"{}",
        hint(.text)
    )]
    Syntax { text: String },
    #[error("write the IPv4 address {0} itself")]
    Ipv4Mapped(Ipv4Addr),
    #[error("{0} is the address of no host")]
    OfNoHost(IpAddr),
    #[error("only a link-local address takes an interface, as fe80::1%eth0")]
    NotLinkLocal,
    #[error("a link-local address needs its interface; write {0}%eth0")]
    WithoutInterface(Ipv6Addr),
    #[error(transparent)]
    Interface(#[from] InterfaceNameError),
}

/// A name that the kernel does not accept for an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not an interface name: 1 to {} letters without blanks, `/` and `:`", IFNAME)]
pub(super) struct InterfaceNameError {
    name: String,
}

/// The prefix to write instead if `text` has host bits set.
pub(super) fn unmasked(text: &str, prefix: Prefix) -> Result<(), HostBits> {
    let addr = text.split_once('/').and_then(|(addr, _)| addr.parse::<IpAddr>().ok());
    if addr.is_some_and(|addr| addr != prefix.addr()) {
        return Err(HostBits { text: text.to_owned(), prefix });
    }
    Ok(())
}

/// An address that can be a neighbor's.
pub(super) fn address(item: &Item<'_>) -> Option<IpAddr> {
    let text = item.text()?;
    match text.parse::<IpAddr>() {
        Ok(addr) => talkable(addr).map_err(|what| item.error(what)).ok().map(|()| addr),
        Err(_) => {
            item.error(format!(
                "`{text}` is not an IP address; write one as 10.1.1.1 or 2001:db8::1{}",
                hint(text)
            ));
            None
        }
    }
}

/// `address` of a neighbor.
pub(super) fn neighbor_address(item: &Item<'_>) -> Option<NeighborId> {
    let text = item.text()?;
    at(text).map_err(|what| item.error(what)).ok()
}

/// Where a neighbor is, or what is wrong with the text.
pub(super) fn at(text: &str) -> Result<NeighborId, AddressError> {
    if text == "gateway" {
        return Ok(NeighborId::Gateway);
    }
    if let Some((addr, interface)) = text.split_once('%') {
        let addr = addr.parse::<Ipv6Addr>().ok().filter(Ipv6Addr::is_unicast_link_local);
        let addr = addr.ok_or(AddressError::NotLinkLocal)?;
        interface_name_is_good(interface)?;
        return Ok(NeighborId::LinkLocal(addr, interface.to_owned()));
    }
    let addr = text.parse::<IpAddr>().map_err(|_| AddressError::Syntax { text: text.to_owned() })?;
    talkable(addr)?;
    if let IpAddr::V6(v6) = addr
        && v6.is_unicast_link_local()
    {
        return Err(AddressError::WithoutInterface(v6));
    }
    Ok(NeighborId::Address(addr))
}

fn hint(text: &str) -> &'static str {
    if text.contains('/') { ", without a length" } else { "" }
}

fn talkable(addr: IpAddr) -> Result<(), AddressError> {
    if let IpAddr::V6(v6) = addr
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(AddressError::Ipv4Mapped(v4));
    }
    let broadcast = matches!(addr, IpAddr::V4(a) if a.is_broadcast());
    if addr.is_unspecified() || addr.is_multicast() || broadcast {
        return Err(AddressError::OfNoHost(addr));
    }
    Ok(())
}

/// `ADDRESS:PORT`.
pub(super) fn listen(item: &Item<'_>) -> Option<SocketAddr> {
    let text = item.text()?;
    let socket = text.parse::<SocketAddr>().ok().filter(|s| s.port() != 0);
    if socket.is_none() {
        item.error(format!("`{text}` is not an address with a port; write 127.0.0.1:9179 or [::]:179"));
    }
    socket
}

pub(super) fn interface_name(item: &Item<'_>) -> Option<String> {
    let name = item.text()?;
    interface_name_is_good(name).map_err(|what| item.error(what)).ok().map(|()| name.to_owned())
}

pub(super) fn interface_name_is_good(name: &str) -> Result<(), InterfaceNameError> {
    if name.is_empty() || name.len() > IFNAME || odd_in_interface(name) || matches!(name, "." | "..") {
        return Err(InterfaceNameError { name: name.to_owned() });
    }
    Ok(())
}

/// A name, or a pattern with `*` and `?`.
pub(super) fn interface_glob(item: &Item<'_>) -> Option<String> {
    let name = item.text()?;
    if name.is_empty() || odd_in_interface(name) {
        item.error(format!("`{name}` is neither an interface name nor a pattern such as docker0 or br-*"));
        return None;
    }
    Some(name.to_owned())
}

fn odd_in_interface(name: &str) -> bool {
    name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/' || c == ':')
}

pub(super) fn community(item: &Item<'_>) -> Option<Community> {
    item.parsed()
}

pub(super) fn absolute_path(item: &Item<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(item.text()?);
    if !path.is_absolute() {
        item.error("must be an absolute path, one that begins with /");
        return None;
    }
    Some(path)
}

/// A text that is not empty.
pub(super) fn nonempty_text(item: &Item<'_>) -> Option<String> {
    let text = item.text()?.trim();
    if text.is_empty() {
        item.error("must not be empty; leave the key out instead");
        return None;
    }
    Some(text.to_owned())
}

/// A value of the file as JSON.
pub(super) fn to_json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(s) => s.as_ref().into(),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok()?.into(),
        DeValue::Float(f) => f.as_str().parse::<f64>().ok()?.into(),
        DeValue::Boolean(b) => (*b).into(),
        DeValue::Datetime(d) => d.to_string().into(),
        DeValue::Array(a) => a.iter().map(|v| to_json(v.get_ref())).collect::<Option<Vec<_>>>()?.into(),
        DeValue::Table(t) => {
            let entry = |(k, v): (&toml::Spanned<_>, &toml::Spanned<_>)| {
                let key: &std::borrow::Cow<'_, str> = k.get_ref();
                Some((key.to_string(), to_json(v.get_ref())?))
            };
            serde_json::Value::Object(t.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}
