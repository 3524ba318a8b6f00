//! How values are read, printed and described: a [`Kind`] for each sort of value.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf};

use serde_json::{Value, json};

use super::Shape;
use crate::config::{
    read::Item,
    values::{absolute_path, listen, nonempty_text},
};

/// How the value of a key is read, printed and described. Whatever is printed is read as the same
/// value, except for passwords.
pub(in crate::config) trait Kind {
    type Value;

    /// The value; `None` after an error was reported.
    fn read(&self, item: &Item<'_>) -> Option<Self::Value>;

    /// As it is in the file; null if it is not set.
    fn show(&self, value: &Self::Value) -> Value;

    fn shape(&self) -> Shape;
}

/// A kind whose values are of type `T`.
pub(in crate::config) fn of<T, K: Kind<Value = T>>(kind: K) -> K {
    kind
}

/// True or false.
pub(in crate::config) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn read(&self, item: &Item<'_>) -> Option<bool> {
        item.flag()
    }

    fn show(&self, value: &bool) -> Value {
        (*value).into()
    }

    fn shape(&self) -> Shape {
        Shape::Flag
    }
}

/// An integer of a range.
pub(in crate::config) struct Integer<T> {
    range: RangeInclusive<u64>,
    /// What is allowed, and whether a number is.
    only: Option<(&'static str, fn(u64) -> bool)>,
    as_type: std::marker::PhantomData<T>,
}

/// An integer of a range.
pub(in crate::config) fn number<T>(range: RangeInclusive<u64>) -> Integer<T> {
    Integer { range, only: None, as_type: std::marker::PhantomData }
}

impl<T> Integer<T> {
    /// Of the range only those for which `valid` holds; `allowed` is the text of the error.
    pub(in crate::config) fn only(self, allowed: &'static str, valid: fn(u64) -> bool) -> Self {
        Self { only: Some((allowed, valid)), ..self }
    }
}

impl<T: TryFrom<u64> + Copy + Into<Value>> Kind for Integer<T> {
    type Value = T;

    fn read(&self, item: &Item<'_>) -> Option<T> {
        match self.only {
            None => item.number(self.range.clone()),
            Some((allowed, valid)) => item.number_where(allowed, |n| self.range.contains(&n) && valid(n)),
        }
    }

    fn show(&self, value: &T) -> Value {
        (*value).into()
    }

    fn shape(&self) -> Shape {
        Shape::Number { min: *self.range.start(), max: *self.range.end() }
    }
}

/// One of these texts.
pub(in crate::config) struct Choice<T: 'static>(pub(in crate::config) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn read(&self, item: &Item<'_>) -> Option<T> {
        item.choice(self.0)
    }

    fn show(&self, value: &T) -> Value {
        self.0.iter().find(|(_, known)| known == value).map(|(name, _)| *name).into()
    }

    fn shape(&self) -> Shape {
        Shape::Choice(self.0.iter().map(|(name, _)| *name).collect())
    }
}

/// Any other value, by functions.
pub(in crate::config) struct With<T> {
    pub(in crate::config) read: fn(&Item<'_>) -> Option<T>,
    pub(in crate::config) show: fn(&T) -> Value,
    pub(in crate::config) shape: fn() -> Shape,
}

impl<T> Kind for With<T> {
    type Value = T;

    fn read(&self, item: &Item<'_>) -> Option<T> {
        (self.read)(item)
    }

    fn show(&self, value: &T) -> Value {
        (self.show)(value)
    }

    fn shape(&self) -> Shape {
        (self.shape)()
    }
}

/// A text that `read` parses, and as which the value is printed.
pub(in crate::config) fn written<T: ToString>(read: fn(&Item<'_>) -> Option<T>) -> With<T> {
    With { read, show: |value| value.to_string().into(), shape: || Shape::Text }
}

/// Any text.
pub(in crate::config) fn any_text() -> With<String> {
    written(|item| item.text().map(str::to_owned))
}

/// A text that is not empty.
pub(in crate::config) fn some_text() -> With<String> {
    written(nonempty_text)
}

/// An absolute path.
pub(in crate::config) fn path() -> With<PathBuf> {
    With { read: absolute_path, show: |path| json!(path), shape: || Shape::Text }
}

/// `ADDRESS:PORT`, any number of them.
pub(in crate::config) fn sockets() -> Set<With<SocketAddr>> {
    Set(written(listen))
}

/// `"auto"` (`None`), true or false.
pub(in crate::config) fn auto_or_flag() -> With<Option<bool>> {
    With {
        read: |item| {
            let is_auto = item.is_text() && item.text() == Some("auto");
            if item.is_text() && !is_auto {
                item.error("must be \"auto\", or true or false without quotes");
                return None;
            }
            if is_auto { Some(None) } else { item.flag().map(Some) }
        },
        show: |flag| flag.map_or_else(|| "auto".into(), Value::Bool),
        shape: || Shape::Either(vec![Shape::Flag, Shape::Choice(vec!["auto"])]),
    }
}

/// A value that may be missing.
pub(in crate::config) struct Optional<K>(pub(in crate::config) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn read(&self, item: &Item<'_>) -> Option<Self::Value> {
        self.0.read(item).map(Some)
    }

    fn show(&self, value: &Self::Value) -> Value {
        value.as_ref().map_or(Value::Null, |value| self.0.show(value))
    }

    fn shape(&self) -> Shape {
        self.0.shape()
    }
}

/// A list.
pub(in crate::config) struct List<K>(pub(in crate::config) K);

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn read(&self, item: &Item<'_>) -> Option<Self::Value> {
        item.list(|item| self.0.read(item))
    }

    fn show(&self, value: &Self::Value) -> Value {
        value.iter().map(|value| self.0.show(value)).collect()
    }

    fn shape(&self) -> Shape {
        Shape::List(Box::new(self.0.shape()))
    }
}

/// A list without duplicates.
pub(in crate::config) struct Set<K>(pub(in crate::config) K);

impl<K: Kind<Value: PartialEq>> Kind for Set<K> {
    type Value = Vec<K::Value>;

    fn read(&self, item: &Item<'_>) -> Option<Self::Value> {
        item.set(|item| self.0.read(item))
    }

    fn show(&self, value: &Self::Value) -> Value {
        value.iter().map(|value| self.0.show(value)).collect()
    }

    fn shape(&self) -> Shape {
        Shape::List(Box::new(self.0.shape()))
    }
}

/// A list without duplicates that, where it is written, is not empty; not printed if it is.
pub(in crate::config) struct NotEmpty<K>(pub(in crate::config) K);

impl<K: Kind<Value: PartialEq>> Kind for NotEmpty<K> {
    type Value = Vec<K::Value>;

    fn read(&self, item: &Item<'_>) -> Option<Self::Value> {
        if item.value.get_ref().as_array().is_some_and(|a| a.is_empty()) {
            item.error("is empty; name something, or leave the key out");
        }
        item.set(|item| self.0.read(item))
    }

    fn show(&self, value: &Self::Value) -> Value {
        if value.is_empty() { Value::Null } else { value.iter().map(|value| self.0.show(value)).collect() }
    }

    fn shape(&self) -> Shape {
        Shape::List(Box::new(self.0.shape()))
    }
}
