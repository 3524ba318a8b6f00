//! Resolves the name of a neighbor: an address, an interface, a description, or the name of a Node.

use crate::control::NeighborView;

/// The neighbor with this name.
///
/// # Errors
///
/// One line if no neighbor has the name, or several have it.
pub(super) fn resolve<'n>(name: &str, neighbors: &'n [NeighborView]) -> Result<&'n NeighborView, NameError> {
    let wanted = name.to_lowercase();
    let described = |n: &NeighborView| n.description.as_ref().map(|text| text.to_lowercase());
    // Whole words: "leaf 1" is not "leaf 10".
    let begins = |text: String| {
        let rest = text.strip_prefix(&wanted);
        rest.is_some_and(|rest| !wanted.is_empty() && !rest.starts_with(char::is_alphanumeric))
    };
    let stages: [&dyn Fn(&NeighborView) -> bool; 4] = [
        &|n| n.address == name,
        &|n| n.interface.as_deref() == Some(name),
        // Neighbors that are Nodes have such a description.
        &|n| described(n).is_some_and(|text| text == wanted || text.strip_prefix("node ") == Some(&wanted)),
        &|n| described(n).is_some_and(begins),
    ];
    for is_meant in stages {
        let found: Vec<_> = neighbors.iter().filter(|n| is_meant(n)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => return Err(NameError::ambiguous(name, several)),
        }
    }
    Err(NameError::unknown(name))
}

/// Why a name does not identify a neighbor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error("there is no neighbor {0}; `routelet show neighbors` lists them")]
    Unknown(String),
    #[error("`{name}` is ambiguous: {}; write an address", .found.join(", "))]
    Ambiguous { name: String, found: Vec<String> },
}

/// Maximum number of neighbors that an error lists.
const MAX_NAMED: usize = 8;

impl NameError {
    pub(super) fn unknown(name: &str) -> Self {
        Self::Unknown(name.to_owned())
    }

    fn ambiguous(name: &str, found: &[&NeighborView]) -> Self {
        let one = |n: &&NeighborView| match &n.description {
            Some(text) => format!("{} ({text})", n.address),
            None => n.address.clone(),
        };
        let mut list: Vec<_> = found.iter().take(MAX_NAMED).map(one).collect();
        let more = found.len().saturating_sub(MAX_NAMED);
        list.extend((more > 0).then(|| format!("{more} more")));
        Self::Ambiguous { name: name.to_owned(), found: list }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_interfaces_descriptions_and_nodes_are_names() {
        let with = |address: &str, interface: Option<&str>, description: &str| NeighborView {
            address: address.into(),
            interface: interface.map(str::to_owned),
            description: Some(description.into()),
            ..NeighborView::default()
        };
        let all = [
            with("10.1.1.1", None, "Leaf 1, rack A"),
            with("10.1.2.1", None, "Leaf 2, rack A"),
            with("10.0.0.2", None, "node n2"),
            with("fe80::1%eth0", Some("eth0"), "spine"),
            with("fe80::1%eth1", Some("eth1"), "spine"),
        ];
        for (name, expected) in [
            ("10.1.1.1", "10.1.1.1"),
            ("eth1", "fe80::1%eth1"),
            ("leaf 2", "10.1.2.1"),
            ("leaf 1, rack a", "10.1.1.1"),
            ("n2", "10.0.0.2"),
            ("node n2", "10.0.0.2"),
        ] {
            assert_eq!(resolve(name, &all).map(|n| n.address.as_str()), Ok(expected), "{name}");
        }
        assert_eq!(
            resolve("leaf", &all).unwrap_err().to_string(),
            "`leaf` is ambiguous: 10.1.1.1 (Leaf 1, rack A), 10.1.2.1 (Leaf 2, rack A); write an address"
        );
        assert!(resolve("spine", &all).unwrap_err().to_string().contains("fe80::1%eth1 (spine)"));
        for name in ["10.9.9.9", "", "rack", "lea"] {
            assert_eq!(resolve(name, &all).unwrap_err(), NameError::unknown(name));
        }
    }
}
