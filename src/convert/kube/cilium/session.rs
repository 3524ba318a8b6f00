//! A neighbor of Cilium: its address, and the keys of a CiliumBGPPeerConfig.

use std::net::IpAddr;

use super::{Book, Keys, Node, asn, set};
use crate::convert::kube::unfit::{Lack, NoCounterpart, Unfit, malformed};
use crate::convert::{kube::SECRET, ledger::Outcome};

/// The settings of one neighbor.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) keys: Keys,
    pub(super) secret: Option<(String, String)>,
    own: u32,
}

/// Cilium's defaults where they differ from routelet's.
const CONNECT_RETRY: u64 = 120;

impl Session {
    pub(super) fn new(own: u32) -> Self {
        Self { keys: Keys::new(), secret: None, own }
    }

    /// Address and AS number.
    pub(super) fn place(&mut self, peer: &Node) -> Result<(), Unfit> {
        let discovery = peer.get("autoDiscovery");
        match (peer.text("peerAddress"), discovery.and_then(|d| d.text("mode"))) {
            (Some(text), _) => {
                // Releases before 1.16 wrote the address as a prefix.
                let text = text.trim();
                let bare = text.split_once('/').map_or(text, |(address, _)| address);
                let address: IpAddr =
                    bare.parse().map_err(|_| Unfit::Value { value: text.to_owned(), expected: "address" })?;
                set(&mut self.keys, "address", address.to_string());
            }
            (None, Some("Unnumbered")) => {
                let interface = discovery.and_then(|d| d.at(&["unnumbered", "interface"])?.scalar());
                set(&mut self.keys, "interface", interface.ok_or(Lack::Interface)?);
            }
            (None, Some("DefaultGateway")) => {
                return Err(NoCounterpart::GatewayOfFamily.into());
            }
            _ => return Err(Lack::Address.into()),
        }
        match peer.text("peerASN") {
            None | Some("0") => set(&mut self.keys, "remote-as", "any"),
            Some(text) => {
                let number = asn(text).ok_or(malformed("peerASN", "no AS number that routelet takes"))?;
                set(&mut self.keys, "remote-as", number);
            }
        }
        Ok(())
    }

    /// Applies the CiliumBGPPeerConfig, or the defaults without one.
    pub(super) fn configure(&mut self, config: Option<&Node>) -> Result<(), Unfit> {
        let timers = config.and_then(|c| c.get("timers"));
        let transport = config.and_then(|c| c.get("transport"));
        let restart = config.and_then(|c| c.get("gracefulRestart"));
        self.timers(timers)?;
        self.restart(restart)?;
        self.hops(config.and_then(|c| c.text("ebgpMultihop")))?;
        if let Some(port) = transport.and_then(|t| t.text("peerPort")) {
            self.port(port)?;
        }
        if transport.is_some_and(|t| t.get("sourceInterface").is_some()) {
            return Err(NoCounterpart::SourceInterface.into());
        }
        if let Some(name) = config.and_then(|c| c.text("authSecretRef")) {
            self.secret = Some((name.to_owned(), "password".to_owned()));
        }
        self.families(config.map(|c| c.list("families")).unwrap_or_default())
    }

    pub(super) fn port(&mut self, text: &str) -> Result<(), Unfit> {
        let port: u16 = text.parse().map_err(|_| malformed("peerPort", "no port"))?;
        if port > 0 {
            set(&mut self.keys, "port", port);
        }
        Ok(())
    }

    pub(super) fn timers(&mut self, timers: Option<&Node>) -> Result<(), Unfit> {
        let number = |key: &'static str| match timers.and_then(|t| t.text(key)) {
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| malformed(key, "no number")),
            None => Ok(None),
        };
        if let Some(time) = number("holdTimeSeconds")?.filter(|t| *t > 0) {
            set(&mut self.keys, "hold-time", time);
        }
        let retry = number("connectRetryTimeSeconds")?.filter(|t| *t > 0).unwrap_or(CONNECT_RETRY);
        set(&mut self.keys, "connect-retry-time", retry.min(65535));
        number("keepAliveTimeSeconds")?;
        Ok(())
    }

    /// Graceful restart, which is off unless enabled.
    pub(super) fn restart(&mut self, restart: Option<&Node>) -> Result<(), Unfit> {
        let enabled = restart.is_some_and(|r| r.flag("enabled"));
        set(&mut self.keys, "graceful-restart", enabled);
        if let Some(text) = restart.and_then(|r| r.text("restartTimeSeconds"))
            && enabled
        {
            let time: u16 = text.parse().map_err(|_| malformed("restartTimeSeconds", "1 to 4095"))?;
            set(&mut self.keys, "restart-time", time);
        }
        Ok(())
    }

    pub(super) fn hops(&mut self, text: Option<&str>) -> Result<(), Unfit> {
        let Some(text) = text else { return Ok(()) };
        let hops: u8 = text.parse().map_err(|_| malformed("the TTL", "1 to 255"))?;
        // A neighbor on an interface is always directly connected.
        let is_on_link = self.keys.contains_key("interface");
        if hops > 1 && !is_on_link && self.keys.get("remote-as") != Some(&self.own.into()) {
            set(&mut self.keys, "multihop", hops);
        }
        Ok(())
    }

    pub(super) fn families(&mut self, list: &[Node]) -> Result<(), Unfit> {
        let mut families = Vec::new();
        for node in list {
            if let Some(family) = family(node) {
                families.push(family);
            }
        }
        if list.is_empty() {
            return Ok(());
        }
        if families.is_empty() {
            return Err(NoCounterpart::Families.into());
        }
        families.dedup();
        set(&mut self.keys, "families", families);
        Ok(())
    }
}

/// The family of an entry of `families`.
pub(super) fn family(node: &Node) -> Option<&'static str> {
    match (node.text("afi")?, node.text("safi")?) {
        ("ipv4", "unicast") => Some("ipv4-unicast"),
        ("ipv6", "unicast") => Some("ipv6-unicast"),
        _ => None,
    }
}

/// Lists the parts of a CiliumBGPPeerConfig that are not carried over exactly.
pub(super) fn close(spec: &Node, book: &mut Book) {
    if let Some(timers) = spec.get("timers") {
        keepalive(timers, book);
    }
    if let Some(secret) = spec.get("authSecretRef") {
        book.note(secret, Outcome::Differs, SECRET);
    }
    for node in spec.list("families") {
        if family(node).is_none() {
            book.refuse(node, "routelet only has IPv4 and IPv6 unicast");
        }
    }
}

/// Keepalives are sent after a third of the hold time.
pub(super) fn keepalive(timers: &Node, book: &mut Book) {
    let number = |key: &str| timers.text(key).and_then(|text| text.parse::<u64>().ok());
    let hold = number("holdTimeSeconds").unwrap_or(90);
    if number("keepAliveTimeSeconds").is_some_and(|time| time != hold / 3) {
        book.differs_key(
            timers,
            "keepAliveTimeSeconds",
            "keepalives are sent after a third of the hold time",
        );
    }
    if number("connectRetryTimeSeconds").is_some_and(|time| time > 65535) {
        book.differs_key(timers, "connectRetryTimeSeconds", "at most 65535 seconds");
    }
}
