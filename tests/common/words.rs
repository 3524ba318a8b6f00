//! BGP in raw octets: what is said, good or bad, and what is heard.

use std::{collections::BTreeMap, net::Ipv4Addr};

pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;
pub(crate) const REFRESH: u8 = 5;

pub(crate) use crate::common::speaker::{end_of_rib, message};

/// Prefix of IPv4 and its length.
pub(crate) type Net4 = (Ipv4Addr, u8);

pub(crate) fn net(text: &str) -> Net4 {
    let (addr, len) = text.split_once('/').expect("a prefix");
    (addr.parse().expect("an address"), len.parse().expect("a length"))
}

pub(crate) fn nlri(list: &[Net4]) -> Vec<u8> {
    let mut out = Vec::new();
    for (addr, len) in list {
        out.push(*len);
        out.extend(&addr.octets()[..usize::from(len.div_ceil(8))]);
    }
    out
}

/// IPv6 prefix in its wire form.
pub(crate) fn nlri6(text: &str) -> Vec<u8> {
    let (addr, len) = text.split_once('/').expect("a prefix");
    let len: u8 = len.parse().expect("a length");
    let addr: std::net::Ipv6Addr = addr.parse().expect("an address");
    let mut out = vec![len];
    out.extend(&addr.octets()[..usize::from(len.div_ceil(8))]);
    out
}

/// One attribute; the extended length where the flags ask for it.
pub(crate) fn attr(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![flags, code];
    if flags & 0x10 == 0 {
        out.push(u8::try_from(value.len()).expect("short"));
    } else {
        out.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
    }
    out.extend(value);
    out
}

pub(crate) fn origin(value: u8) -> Vec<u8> {
    attr(0x40, 1, &[value])
}

/// AS_PATH of one sequence in four-octet numbers; of none when empty.
pub(crate) fn path(numbers: &[u32]) -> Vec<u8> {
    attr(0x50, 2, &segment(2, numbers))
}

/// A segment in four-octet numbers.
pub(crate) fn segment(kind: u8, numbers: &[u32]) -> Vec<u8> {
    if numbers.is_empty() {
        return Vec::new();
    }
    let mut out = vec![kind, u8::try_from(numbers.len()).expect("short")];
    numbers.iter().for_each(|n| out.extend(n.to_be_bytes()));
    out
}

/// A segment in two-octet numbers.
pub(crate) fn segment2(kind: u8, numbers: &[u16]) -> Vec<u8> {
    let mut out = vec![kind, u8::try_from(numbers.len()).expect("short")];
    numbers.iter().for_each(|n| out.extend(n.to_be_bytes()));
    out
}

pub(crate) fn next_hop(addr: Ipv4Addr) -> Vec<u8> {
    attr(0x40, 3, &addr.octets())
}

pub(crate) fn med(n: u32) -> Vec<u8> {
    attr(0x80, 4, &n.to_be_bytes())
}

pub(crate) fn local_pref(n: u32) -> Vec<u8> {
    attr(0x40, 5, &n.to_be_bytes())
}

pub(crate) fn communities(list: &[u32]) -> Vec<u8> {
    attr(0xc0, 8, &list.iter().flat_map(|c| c.to_be_bytes()).collect::<Vec<_>>())
}

/// MP_REACH_NLRI.
pub(crate) fn reach(afi: u16, hop: &[u8], prefixes: &[u8]) -> Vec<u8> {
    let mut value = afi.to_be_bytes().to_vec();
    value.push(1);
    value.push(u8::try_from(hop.len()).expect("short"));
    value.extend(hop);
    value.push(0);
    value.extend(prefixes);
    attr(0x90, 14, &value)
}

/// MP_UNREACH_NLRI.
pub(crate) fn unreach(afi: u16, prefixes: &[u8]) -> Vec<u8> {
    let mut value = afi.to_be_bytes().to_vec();
    value.push(1);
    value.extend(prefixes);
    attr(0x90, 15, &value)
}

/// UPDATE of its three parts.
pub(crate) fn update(withdrawn: &[u8], attributes: &[Vec<u8>], announced: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = u16::try_from(withdrawn.len()).expect("short").to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).expect("short").to_be_bytes());
    body.extend(attributes);
    body.extend(announced);
    message(UPDATE, &body)
}

/// What stands in an OPEN.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) version: u8,
    pub(crate) asn: u32,
    pub(crate) hold: u16,
    pub(crate) id: Ipv4Addr,
    /// Capabilities as code and value.
    pub(crate) caps: Vec<(u8, Vec<u8>)>,
}

pub(crate) const IPV4: (u8, [u8; 4]) = (1, [0, 1, 0, 1]);
pub(crate) const IPV6: (u8, [u8; 4]) = (1, [0, 2, 0, 1]);

impl Open {
    /// IPv4 and IPv6 unicast, route refresh, four-octet numbers; no hold time.
    pub(crate) fn new(asn: u32, id: Ipv4Addr) -> Self {
        let caps = vec![
            (IPV4.0, IPV4.1.to_vec()),
            (IPV6.0, IPV6.1.to_vec()),
            (2, vec![]),
            (65, asn.to_be_bytes().to_vec()),
        ];
        Self { version: 4, asn, hold: 0, id, caps }
    }

    pub(crate) fn hold(mut self, seconds: u16) -> Self {
        self.hold = seconds;
        self
    }

    pub(crate) fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.caps.push((code, value.to_vec()));
        self
    }

    pub(crate) fn without(mut self, code: u8) -> Self {
        self.caps.retain(|c| c.0 != code);
        self
    }

    /// Graceful restart with IPv4 and IPv6; `flags` of the capability and of the families.
    pub(crate) fn graceful(self, flags: u8, seconds: u16, family: u8) -> Self {
        let head = (u16::from(flags) << 12) | seconds;
        let mut value = head.to_be_bytes().to_vec();
        value.extend([0, 1, 1, family, 0, 2, 1, family]);
        self.with(64, &value)
    }

    /// The fields before the optional parameters.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut body = vec![self.version];
        body.extend(u16::try_from(self.asn).unwrap_or(23456).to_be_bytes());
        body.extend(self.hold.to_be_bytes());
        body.extend(self.id.octets());
        body
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut caps = Vec::new();
        for (code, value) in &self.caps {
            caps.extend([*code, u8::try_from(value.len()).expect("short")]);
            caps.extend(value);
        }
        let mut body = self.head();
        if !caps.is_empty() {
            let len = u8::try_from(caps.len()).expect("short");
            body.extend([len + 2, 2, len]);
            body.extend(caps);
        } else {
            body.push(0);
        }
        message(OPEN, &body)
    }
}

/// Attributes by code: flags and value.
pub(crate) type Attributes = BTreeMap<u8, (u8, Vec<u8>)>;

/// What a neighbor has been told, by prefix.
#[derive(Default, Debug)]
pub(crate) struct Received {
    pub(crate) routes: BTreeMap<String, Attributes>,
    /// Prefixes in the order of arrival, withdrawn ones with `-`.
    pub(crate) events: Vec<String>,
    /// Families whose End-of-RIB came.
    pub(crate) ended: Vec<u16>,
    pub(crate) add_path: bool,
}

impl Received {
    /// Takes one UPDATE in.
    pub(crate) fn take(&mut self, body: &[u8]) {
        let gone_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let gone = &body[2..2 + gone_len];
        let rest = &body[2 + gone_len..];
        let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let attributes = attributes(&rest[2..2 + len]);
        let new = &rest[2 + len..];
        if body.len() == 4 {
            self.ended.push(1);
        }
        let mut gone = self.prefixes(1, gone);
        let mut came = self.prefixes(1, new);
        if let Some((_, value)) = attributes.get(&15) {
            let afi = u16::from_be_bytes([value[0], value[1]]);
            if value.len() == 3 && came.is_empty() && attributes.len() == 1 {
                self.ended.push(afi);
            }
            gone.extend(self.prefixes(afi, &value[3..]));
        }
        if let Some((_, value)) = attributes.get(&14) {
            let afi = u16::from_be_bytes([value[0], value[1]]);
            let at = 4 + usize::from(value[3]) + 1;
            came.extend(self.prefixes(afi, &value[at..]));
        }
        for prefix in gone {
            self.routes.remove(&prefix);
            self.events.push(format!("-{prefix}"));
        }
        for prefix in came {
            self.routes.insert(prefix.clone(), attributes.clone());
            self.events.push(prefix);
        }
    }

    fn prefixes(&self, afi: u16, mut octets: &[u8]) -> Vec<String> {
        let mut out = Vec::new();
        while !octets.is_empty() {
            let mut id = String::new();
            if self.add_path {
                id = format!("#{}", u32::from_be_bytes(octets[..4].try_into().expect("four")));
                octets = &octets[4..];
            }
            let len = octets[0];
            let n = usize::from(len.div_ceil(8));
            let mut addr = [0; 16];
            addr[..n].copy_from_slice(&octets[1..=n]);
            let addr = if afi == 1 {
                Ipv4Addr::from([addr[0], addr[1], addr[2], addr[3]]).to_string()
            } else {
                std::net::Ipv6Addr::from(addr).to_string()
            };
            out.push(format!("{addr}/{len}{id}"));
            octets = &octets[1 + n..];
        }
        out
    }
}

fn attributes(mut octets: &[u8]) -> Attributes {
    let mut out = Attributes::new();
    while !octets.is_empty() {
        let (flags, code) = (octets[0], octets[1]);
        let (head, len) = if flags & 0x10 == 0 {
            (3, usize::from(octets[2]))
        } else {
            (4, usize::from(u16::from_be_bytes([octets[2], octets[3]])))
        };
        out.insert(code, (flags, octets[head..head + len].to_vec()));
        octets = &octets[head + len..];
    }
    out
}
