use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a problem is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
pub struct Subject {
    /// What kind of thing it is.
    pub kind: SubjectKind,
    /// Empty for the host as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of a namespaced object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Of an object of the API server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What kind of thing it is; objects of the API server in their own spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubjectKind {
    /// This host as a whole.
    Host,
    Address,
    Container,
    File,
    Interface,
    /// Of the configuration.
    Key,
    Neighbor,
    Port,
    Prefix,
    Program,
    Rule,
    Sysctl,
    /// Label or annotation of this node.
    Mark,
    /// Of the cluster.
    Namespace,
    #[serde(rename = "Node")]
    Node,
    #[serde(rename = "Service")]
    Service,
    #[serde(rename = "BGPPeer")]
    BgpPeer,
    #[serde(rename = "BGPPolicy")]
    BgpPolicy,
}

impl SubjectKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Address => "address",
            Self::Container => "container",
            Self::File => "file",
            Self::Interface => "interface",
            Self::Key => "key",
            Self::Neighbor => "neighbor",
            Self::Port => "port",
            Self::Prefix => "prefix",
            Self::Program => "program",
            Self::Rule => "rule",
            Self::Sysctl => "sysctl",
            Self::Mark => "mark",
            Self::Namespace => "namespace",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::BgpPeer => "BGPPeer",
            Self::BgpPolicy => "BGPPolicy",
        }
    }
}

/// A constructor for each kind that is no object.
macro_rules! named {
    ($($function:ident $kind:ident,)*) => {
        impl Subject {
            $(pub fn $function(name: impl fmt::Display) -> Self {
                Self::new(SubjectKind::$kind, name)
            })*
        }
    };
}

named! {
    address Address,
    container Container,
    file File,
    interface Interface,
    key Key,
    mark Mark,
    namespace Namespace,
    neighbor Neighbor,
    port Port,
    prefix Prefix,
    program Program,
    rule Rule,
    sysctl Sysctl,
}

impl Subject {
    /// This host as a whole.
    pub fn host() -> Self {
        Self::new(SubjectKind::Host, "")
    }

    fn new(kind: SubjectKind, name: impl fmt::Display) -> Self {
        Self { kind, name: name.to_string(), namespace: None, uid: String::new() }
    }

    /// An object of the API server.
    pub fn object(kind: SubjectKind, namespace: Option<&str>, name: &str, uid: &str) -> Self {
        Self { namespace: namespace.map(str::to_owned), uid: uid.to_owned(), ..Self::new(kind, name) }
    }

    pub fn node(name: &str, uid: &str) -> Self {
        Self::object(SubjectKind::Node, None, name, uid)
    }

    /// Whether it is an object of the API server, whose texts others write.
    pub fn is_object(&self) -> bool {
        matches!(
            self.kind,
            SubjectKind::Node | SubjectKind::Service | SubjectKind::BgpPeer | SubjectKind::BgpPolicy
        )
    }
}

/// `neighbor 10.0.0.1`, `Service shop/web`, `host`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        match (&self.namespace, self.name.as_str()) {
            (_, "") => Ok(()),
            (Some(namespace), name) => write!(f, " {namespace}/{name}"),
            (None, name) => write!(f, " {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_named_with_its_kind() {
        let cases = [
            (Subject::host(), "host"),
            (Subject::neighbor("10.0.0.1"), "neighbor 10.0.0.1"),
            (Subject::object(SubjectKind::Service, Some("shop"), "web", "u"), "Service shop/web"),
            (Subject::object(SubjectKind::BgpPeer, None, "tor", "u"), "BGPPeer tor"),
        ];
        for (subject, text) in cases {
            assert_eq!(subject.to_string(), text);
            let kind = serde_json::to_value(subject.kind).unwrap();
            assert_eq!(kind, subject.kind.as_str());
        }
    }
}
