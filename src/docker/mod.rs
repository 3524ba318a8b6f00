//! Networks of a Docker engine: which of them `docker.networks` selects, and which bridge each has.
//!
//! Only names, labels and bridges are read from the engine. Whether a container is attached, and
//! which subnets a bridge has, is read from the kernel.

pub mod io;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::net::{Diagnostic, Reason, Subject};

/// An entry of `docker.networks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkSelector {
    Name(String),
    /// Every network with this label, and with this value where one is given.
    Label {
        key: String,
        value: Option<String>,
    },
}

/// Why a text selects no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkSelectorError {
    #[error("`{0}` is not a label; write \"label:KEY=VALUE\" or \"label:KEY\"")]
    Label(String),
    #[error(
        "`{0}` is not a name of a Docker network: letters, digits, `_`, `.` and `-`, or \"label:KEY=VALUE\""
    )]
    Name(String),
}

impl NetworkSelector {
    /// Reads `NAME`, `label:KEY` or `label:KEY=VALUE`.
    ///
    /// # Errors
    ///
    /// What is wrong with it and what is allowed.
    pub fn parse(text: &str) -> Result<Self, NetworkSelectorError> {
        let Some(label) = text.strip_prefix("label:") else { return name(text) };
        let (key, value) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (label, None),
        };
        if key.is_empty() || label.len() > MAX_TEXT || label.chars().any(char::is_control) {
            return Err(NetworkSelectorError::Label(text.to_owned()));
        }
        Ok(Self::Label { key: key.to_owned(), value })
    }

    fn selects(&self, network: &Network) -> bool {
        match self {
            Self::Name(name) => network.name == *name,
            Self::Label { key, value } => {
                network.labels.get(key).is_some_and(|v| value.as_ref().is_none_or(|wanted| v == wanted))
            }
        }
    }
}

/// Longest name or label.
const MAX_TEXT: usize = 255;

/// A name as the engine allows it.
fn name(text: &str) -> Result<NetworkSelector, NetworkSelectorError> {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let is_good = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !is_good || text.len() > MAX_TEXT || !text.bytes().all(is_inner) {
        return Err(NetworkSelectorError::Name(text.to_owned()));
    }
    Ok(NetworkSelector::Name(text.to_owned()))
}

impl fmt::Display for NetworkSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Label { key, value: None } => write!(f, "label:{key}"),
            Self::Label { key, value: Some(value) } => write!(f, "label:{key}={value}"),
        }
    }
}

/// The inputs from the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub socket: PathBuf,
    /// Without any, nothing is read from the engine.
    pub selectors: Vec<NetworkSelector>,
}

/// The fields of a network that matter here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub name: String,
    pub driver: String,
    /// Whether Docker drops packets from outside.
    pub internal: bool,
    /// The interface on this host; only networks of the driver `bridge` have one.
    pub bridge: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// The networks that are selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    pub bridges: BTreeSet<String>,
    /// Problems for the operator, each with its remedy.
    pub problems: Vec<Diagnostic>,
}

/// A network as the engine lists it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    name: String,
    id: String,
    #[serde(default)]
    driver: String,
    #[serde(default)]
    internal: bool,
    options: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

/// Option with the name of a network's interface, if it is not `br-` with the first 12 digits of
/// its id.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// Decodes the response to `GET /networks`.
///
/// # Errors
///
/// If it is not a list of networks.
pub fn networks(json: &[u8]) -> Result<Vec<Network>, serde_json::Error> {
    let listed: Vec<Listed> = serde_json::from_slice(json)?;
    Ok(listed.into_iter().map(network).collect())
}

fn network(listed: Listed) -> Network {
    let named = listed.options.unwrap_or_default().remove(BRIDGE_NAME);
    let by_id = || listed.id.get(..12).map(|id| format!("br-{id}"));
    let bridge = named.or_else(by_id).filter(|_| listed.driver == "bridge");
    Network {
        name: listed.name,
        driver: listed.driver,
        internal: listed.internal,
        bridge: bridge.filter(|name| is_interface_name(name)),
        labels: listed.labels.unwrap_or_default(),
    }
}

fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len()) && !name.contains('/') && !name.contains(char::is_whitespace)
}

/// The selected bridges. A label may match no network yet; a name without a network is a problem.
pub fn select(selectors: &[NetworkSelector], networks: &[Network]) -> Selected {
    let mut selected = Selected::default();
    for selector in selectors {
        let mut found = networks.iter().filter(|n| selector.selects(n)).peekable();
        if let (NetworkSelector::Name(name), None) = (selector, found.peek()) {
            selected.problems.push(Diagnostic::new(
                Reason::DockerNetworkMissing,
                Subject::key(format!("docker.networks {name}")),
                format!("docker.networks: the engine has no network `{name}`"),
                format!("run `docker network create {name}`, or remove it from the list"),
            ));
        }
        for network in found {
            match obstacle(network) {
                Ok(bridge) => drop(selected.bridges.insert(bridge.to_owned())),
                Err((why, remedy)) => selected.problems.push(Diagnostic::new(
                    Reason::DockerNetworkUnusable,
                    Subject::key(format!("docker.networks {selector}")),
                    format!("docker.networks: `{selector}` selects {why}"),
                    remedy,
                )),
            }
        }
    }
    selected.problems.dedup();
    selected
}

/// The bridge of a network if it can be advertised, or else the reason why it cannot.
fn obstacle(network: &Network) -> Result<&str, (String, &'static str)> {
    use crate::net::text::untrusted;
    let name = untrusted(&network.name);
    match &network.bridge {
        _ if network.internal => Err((
            format!("the network `{name}`, which is internal: Docker drops what comes from outside"),
            "create it without --internal, or remove it from the list",
        )),
        Some(bridge) => Ok(bridge),
        None => Err((
            format!("the network `{name}` of the driver `{}`", untrusted(&network.driver)),
            "remove it from the list: only networks of the driver `bridge` have a subnet of this host",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"[
        {"Name": "bridge", "Id": "0123456789abcdef", "Driver": "bridge", "Scope": "local", "Internal": false,
         "Options": {"com.docker.network.bridge.name": "docker0"}, "Labels": {}, "Containers": {}},
        {"Name": "web", "Id": "fedcba9876543210", "Driver": "bridge", "Options": null, "Labels": {"team": "a"}},
        {"Name": "db", "Id": "aaaabbbbccccdddd", "Driver": "bridge", "Internal": true, "Labels": {"team": "a"}},
        {"Name": "vlan7", "Id": "bbbbccccddddeeee", "Driver": "macvlan", "Options": {"parent": "eth0"}},
        {"Name": "odd", "Id": "ccccddddeeeeffff", "Driver": "bridge",
         "Options": {"com.docker.network.bridge.name": "../../etc/passwd"}},
        {"Name": "short", "Id": "é", "Driver": "bridge"},
        {"Name": "host", "Id": "ddddeeeeffff0000", "Driver": "host"}
    ]"#;

    fn selected(list: &[&str]) -> Selected {
        let selectors: Vec<_> = list.iter().map(|text| NetworkSelector::parse(text).unwrap()).collect();
        select(&selectors, &networks(LIST.as_bytes()).unwrap())
    }

    #[test]
    fn networks_are_selected_by_name_and_by_label() {
        let bridges = |list: &[&str]| selected(list).bridges.into_iter().collect::<Vec<_>>();
        assert_eq!(bridges(&["bridge", "web"]), ["br-fedcba987654", "docker0"]);
        assert_eq!(bridges(&["label:team=a"]), ["br-fedcba987654"]);
        assert_eq!(bridges(&["label:team"]), ["br-fedcba987654"]);
        assert_eq!(selected(&["label:team=b", "label:x"]), Selected::default(), "a label may wait");
        assert_eq!(bridges(&["we", "br-fedcba987654"]), [""; 0], "whole names only");
    }

    #[test]
    fn what_cannot_be_advertised_is_a_problem_with_its_remedy() {
        for (name, part) in [
            ("missing", "`docker network create missing`"),
            ("db", "--internal"),
            ("label:team", "--internal"),
            ("vlan7", "`macvlan`"),
            ("host", "`host`"),
            ("odd", "`bridge`"),
            ("short", "`bridge`"),
        ] {
            let problems = selected(&[name]).problems;
            assert!(problems.len() == 1 && problems[0].contains(part), "{name}: {problems:?}");
        }
    }

    #[test]
    fn selectors_read_back_and_impossible_ones_are_refused() {
        for text in ["web", "my_net.2-b", "label:a=b", "label:com.example/x", "label:a=", "label:a=b=c"] {
            assert_eq!(NetworkSelector::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "a b", "-x", "label:", "label:=x", "web/1", "label:a\n=b", "sha:1"] {
            assert!(NetworkSelector::parse(text).is_err(), "{text:?}");
        }
        assert!(NetworkSelector::parse(&"x".repeat(256)).is_err());
    }

    #[test]
    fn a_response_that_is_no_list_of_networks_is_an_error() {
        for text in ["", "{}", "[1]", r#"[{"Name": 7, "Id": "x"}]"#, r#"{"message": "no"}"#] {
            assert!(networks(text.as_bytes()).is_err(), "{text}");
        }
        for cut in 0..LIST.len() {
            let _ = networks(&LIST.as_bytes()[..cut]);
        }
    }
}
