//! The keys of the file, each defined once: name, type, default, documentation and scope.
//!
//! A definition is a line of [`section!`], which makes from it the field of the configuration, its
//! default, its reader and how `show config` prints it. [`Key`] describes it to whatever documents
//! it: the example file, the reference page, the JSON schema and the CustomResourceDefinitions.
//! What depends on several keys is checked in `file.rs` and `neighbor.rs`.

mod bgp;
pub(super) mod kinds;
mod kubernetes;
mod local;
mod neighbor;
mod policy;

use std::fmt::Write as _;

use serde_json::Value;

pub use bgp::Bgp;
pub(super) use bgp::RangeKeys;
pub use kubernetes::{Kubernetes, ServiceRules};
pub use local::{Advertise, Cni, Control, Docker, Fib, Guard, Log, Masquerade, Metrics, Security};
pub use neighbor::NeighborKeys;
pub(super) use neighbor::{BfdKeys, Place, is_shared, milliseconds, neighbor_defaults};
pub(super) use policy::StatementKeys;

/// A key as it is documented.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What it does; other keys in backticks.
    pub(crate) doc: String,
    /// As `show config` prints it; null if it has none.
    pub(crate) default: Value,
    pub(crate) shape: Shape,
    pub(crate) notes: &'static [Note],
}

/// The keys of one table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// As in a heading of the file: `[fib]`; empty for the top level.
    pub(crate) heading: &'static str,
    pub(crate) doc: String,
    pub(crate) keys: Vec<Key>,
}

/// What a definition has beyond name, type, default and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The default in words, where it is no constant.
    DefaultIs(&'static str),
    /// A value for the example file, in TOML.
    Example(&'static str),
    /// The example file has another key that excludes this one.
    Alternative,
    /// A key of a neighbor that `[bgp]` has too.
    Shared,
    /// Not a field of objects in a cluster.
    FileOnly,
    /// Takes effect at the next start.
    Restart,
}

/// Which values a key takes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Flag,
    Number {
        min: u64,
        max: u64,
    },
    Text,
    Choice(Vec<&'static str>),
    /// A list; in the file a single value counts as a list of one.
    List(Box<Shape>),
    Either(Vec<Shape>),
    Table(Vec<Key>),
    /// A table with any keys.
    AnyTable,
}

impl Key {
    pub(crate) fn has(&self, note: Note) -> bool {
        self.notes.contains(&note)
    }

    /// The default in words.
    pub(crate) fn default_text(&self) -> Option<&'static str> {
        self.notes.iter().find_map(|n| if let Note::DefaultIs(text) = n { Some(*text) } else { None })
    }

    /// What it does, and the numbers that it takes where that does not name them.
    pub(crate) fn described(&self) -> String {
        match self.shape {
            Shape::Number { min, max } if max < u32::MAX.into() && !self.doc.contains(&max.to_string()) => {
                format!("{} From {min} to {max}.", self.doc)
            }
            _ => self.doc.clone(),
        }
    }

    /// The same without links, and its default where that is no constant.
    pub(crate) fn explanation(&self) -> String {
        let doc = without_links(&self.described());
        match self.default_text().map(|text| (text, text.strip_prefix("required"))) {
            None => doc,
            Some((_, Some(when))) => format!("{doc} Required{when}."),
            Some((text, None)) => format!("{doc} Default: {text}."),
        }
    }

    /// A value in TOML.
    pub(crate) fn example(&self) -> Option<&'static str> {
        self.notes.iter().find_map(|n| if let Note::Example(text) = n { Some(*text) } else { None })
    }
}

/// Keys of a neighbor: where it is found, and its settings with their defaults.
pub(crate) fn of_neighbors() -> Vec<Key> {
    let mut keys = Place::table().keys;
    keys.extend(NeighborKeys::table_with_defaults().keys);
    keys
}

/// Keys of a statement of a policy.
pub(crate) fn of_statements() -> Vec<Key> {
    StatementKeys::table().keys
}

/// `hold-time` as `holdTime`.
pub(crate) fn camel(key: &str) -> String {
    let mut camel = String::new();
    let mut starts_part = false;
    for c in key.chars() {
        match c {
            '-' => starts_part = true,
            c if starts_part => {
                camel.push(c.to_ascii_uppercase());
                starts_part = false;
            }
            c => camel.push(c),
        }
    }
    camel
}

/// Links to pages of the documentation as their paths in the repository.
pub(super) fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (Some((start, page)), Some((_, end))) = (before.rsplit_once('['), after.split_once(')')) else {
            break;
        };
        let _ = write!(plain, "{start}docs/{page}");
        rest = end;
    }
    plain + rest
}

/// Lines of a doc comment as one text.
pub(super) fn text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Defines a table of the file as a struct. Each line is a key: its documentation, its name in the
/// file, the field with its type, the default, the [`Kind`](kinds::Kind), and [`Note`]s. Fields
/// after `also` are no keys.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident at $heading:literal {
            $(
                $(#[doc = $doc:literal])*
                $key:literal $field:ident: $type:ty = $default:expr, $kind:expr $(, $note:expr)*;
            )*
            $(also $($(#[$meta:meta])* $extra:ident: $extra_type:ty = $extra_default:expr;)+)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $($(#[doc = $doc])* $vis $field: $type,)*
            $($($(#[$meta])* $vis $extra: $extra_type,)+)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* $($($extra: $extra_default,)+)? }
            }
        }

        impl $name {
            /// Reads the keys that the file has.
            #[allow(dead_code, reason = "not of every table")]
            pub(in crate::config) fn read(&mut self, section: &$crate::config::read::Section<'_>) {
                self.read_where(section, |_| true);
            }

            /// Reads those of the keys whose notes fit.
            pub(in crate::config) fn read_where(
                &mut self,
                section: &$crate::config::read::Section<'_>,
                takes: fn(&[$crate::config::keys::Note]) -> bool,
            ) {
                #[allow(unused_imports, reason = "not of every table")]
                use $crate::config::keys::{Note::*, kinds::*};
                $(
                    if takes(&[$($note),*])
                        && let Some(value) = section.get($key).and_then(|item| of::<$type, _>($kind).read(&item))
                    {
                        self.$field = value;
                    }
                )*
            }

            /// The keys as the file has them; null where one is not set.
            #[allow(dead_code, reason = "not of every table")]
            pub(in crate::config) fn show(&self) -> serde_json::Map<String, serde_json::Value> {
                self.show_where(|_| true)
            }

            /// Those of the keys whose notes fit.
            pub(in crate::config) fn show_where(
                &self,
                takes: fn(&[$crate::config::keys::Note]) -> bool,
            ) -> serde_json::Map<String, serde_json::Value> {
                #[allow(unused_imports, reason = "not of every table")]
                use $crate::config::keys::{Note::*, kinds::*};
                let mut shown = serde_json::Map::new();
                $(
                    if takes(&[$($note),*]) {
                        shown.insert($key.to_owned(), of::<$type, _>($kind).show(&self.$field));
                    }
                )*
                shown
            }

            /// The keys as they are documented.
            pub(in crate::config) fn table() -> $crate::config::keys::Table {
                #[allow(unused_imports, reason = "not of every table")]
                use $crate::config::keys::{Key, Note::*, Table, kinds::*, text};
                let default = Self::default();
                let keys = vec![$(
                    Key {
                        name: $key,
                        doc: text(&[$($doc),*]),
                        default: of::<$type, _>($kind).show(&default.$field),
                        shape: of::<$type, _>($kind).shape(),
                        notes: &[$($note),*],
                    },
                )*];
                Table { heading: $heading, doc: text(&[$($about),*]), keys }
            }
        }
    };
}
pub(super) use section;
