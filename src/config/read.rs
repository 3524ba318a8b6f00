//! Reads a TOML tree and collects all errors in it, each with its position.
//!
//! Each reader reports its error and returns `None`; the caller goes on with the next key, so that
//! one run finds all errors. The known keys of a table are those read before [`Section::close`].

use std::{
    cell::RefCell,
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Problem, nearest::nearest, password::PasswordError};

/// The context in which the file is read.
pub struct ParseContext<'a> {
    /// Under Kubernetes; `kubernetes.enabled` overrides it.
    pub kubernetes: bool,
    /// Reads a `password-file`.
    pub read_password: &'a dyn Fn(&Path) -> Result<String, PasswordFileError>,
}

/// Why there is no password from a `password-file`.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    #[error("{}: cannot be read: {error}; {remedy}", .path.display())]
    Unreadable { path: PathBuf, error: std::io::Error, remedy: &'static str },
    /// Objects of the cluster name a Secret instead.
    #[error("write passwordSecretRef")]
    InObject,
    #[error("the password in {} {error}", .path.display())]
    Password { path: PathBuf, error: PasswordError },
}

/// Collects problems and warnings.
pub(super) struct Report<'a> {
    text: &'a str,
    context: &'a ParseContext<'a>,
    problems: RefCell<Vec<(usize, Problem)>>,
    warnings: RefCell<Vec<(usize, Problem)>>,
}

/// A table with the path that leads to it.
pub(super) struct Section<'a> {
    report: &'a Report<'a>,
    path: String,
    at: usize,
    table: &'a DeTable<'a>,
    known: RefCell<Vec<&'static str>>,
    missing: RefCell<Vec<(&'static str, String)>>,
}

/// A value with the path that leads to it.
#[derive(Clone)]
pub(super) struct Item<'a> {
    report: &'a Report<'a>,
    path: String,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str, context: &'a ParseContext<'a>) -> Self {
        Self { text, context, problems: RefCell::default(), warnings: RefCell::default() }
    }

    pub(super) fn error(&self, at: usize, key: &str, what: impl Display) {
        self.problems.borrow_mut().push((at, self.problem(at, key, what.to_string())));
    }

    pub(super) fn warn(&self, at: usize, key: &str, what: impl Display) {
        self.warnings.borrow_mut().push((at, self.problem(at, key, what.to_string())));
    }

    /// Errors and warnings in the order of the file.
    pub(super) fn into_lists(self) -> (Vec<Problem>, Vec<Problem>) {
        let sorted = |list: RefCell<Vec<(usize, Problem)>>| {
            let mut list = list.into_inner();
            list.sort_by_key(|(at, _)| *at);
            list.into_iter().map(|(_, p)| p).collect()
        };
        (sorted(self.problems), sorted(self.warnings))
    }

    /// Line of an offset, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.before(at).matches('\n').count() + 1
    }

    fn problem(&self, at: usize, key: &str, what: String) -> Problem {
        let before = self.before(at);
        let start = before.rfind('\n').map_or(0, |n| n + 1);
        let column = before.get(start..).map_or(0, |s| s.chars().count()) + 1;
        Problem { line: self.line(at), column, key: key.to_owned(), what }
    }

    fn before(&self, at: usize) -> &str {
        self.text.get(..at).unwrap_or(self.text)
    }
}

impl<'a> Section<'a> {
    pub(super) fn root(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self::new(report, String::new(), 0, table)
    }

    fn new(report: &'a Report<'a>, path: String, at: usize, table: &'a DeTable<'a>) -> Self {
        Self { report, path, at, table, known: RefCell::default(), missing: RefCell::default() }
    }

    /// The value of a key, which becomes a known key.
    pub(super) fn get(&self, key: &'static str) -> Option<Item<'a>> {
        self.known.borrow_mut().push(key);
        let value = self.table.get(key)?;
        Some(Item { report: self.report, path: self.join(key), value })
    }

    /// A table below this one.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        self.get(key)?.section()
    }

    /// All entries of a table whose keys the operator chooses.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Item<'a>)> + '_ {
        self.table.iter().map(|(key, value)| {
            let name = key.get_ref().as_ref();
            (name, Item { report: self.report, path: self.join(name), value })
        })
    }

    /// Reports an error of the table as a whole.
    pub(super) fn error(&self, key: &str, what: impl Display) {
        self.report.error(self.at, &self.join(key), what);
    }

    /// Reports that a required key (or one below it) is missing.
    pub(super) fn missing(&self, key: &'static str, what: impl Display) {
        self.missing.borrow_mut().push((key, what.to_string()));
    }

    /// Reports unknown keys, and missing ones unless they are only misspelled.
    pub(super) fn close(self) {
        let known = self.known.borrow();
        let mut meant = Vec::new();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let what = match nearest(name, &known) {
                Some(known) => {
                    meant.push(known);
                    format!("unknown key; did you mean `{known}`?")
                }
                None => format!("unknown key; known here: {}", listed(known.iter())),
            };
            self.report.error(key.span().start, &self.join(name), what);
        }
        for (key, what) in self.missing.take() {
            if !meant.contains(&key) {
                self.error(key, format!("required: {what}"));
            }
        }
    }

    fn join(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }
}

impl<'a> Item<'a> {
    pub(super) fn error(&self, what: impl Display) {
        self.report.error(self.at(), &self.path, what);
    }

    pub(super) fn warn(&self, what: impl Display) {
        self.report.warn(self.at(), &self.path, what);
    }

    pub(super) fn at(&self) -> usize {
        self.value.span().start
    }

    pub(super) fn line(&self) -> usize {
        self.report.line(self.at())
    }

    /// What is in the file of a `password-file`.
    pub(super) fn read_password(&self, path: &Path) -> Result<String, PasswordFileError> {
        (self.report.context.read_password)(path)
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            self.error(self.not("a table"));
            return None;
        };
        Some(Section::new(self.report, self.path.clone(), self.at(), table))
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        let DeValue::String(text) = self.value.get_ref() else {
            self.error(self.not("a string in quotes"));
            return None;
        };
        Some(text)
    }

    pub(super) fn flag(&self) -> Option<bool> {
        let DeValue::Boolean(flag) = self.value.get_ref() else {
            self.error(self.not("true or false"));
            return None;
        };
        Some(*flag)
    }

    /// An integer of a range.
    pub(super) fn number<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        let allowed = format!("{} to {}", range.start(), range.end());
        self.number_where(&allowed, |n| range.contains(&n))
    }

    /// An integer for which `valid` holds; `allowed` is the text of the error.
    pub(super) fn number_where<T: TryFrom<u64>>(
        &self,
        allowed: &str,
        valid: impl Fn(u64) -> bool,
    ) -> Option<T> {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            self.error(self.not(&format!("a number, {allowed}")));
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| valid(*n));
        let number = number.and_then(|n| T::try_from(n).ok());
        if number.is_none() {
            self.error(format!("must be {allowed}, not {integer}"));
        }
        number
    }

    /// One of these words.
    pub(super) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let DeValue::String(text) = self.value.get_ref() else {
            self.error(self.not(&format!("one of {}", quoted(words))));
            return None;
        };
        let found = words.iter().find(|(name, _)| name == text).map(|(_, value)| *value);
        if found.is_none() {
            self.error(format!("`{text}` is not known; write one of {}", quoted(words)));
        }
        found
    }

    /// A string that `T` is parsed from.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        self.text()?.parse().map_err(|e: T::Err| self.error(e.to_string())).ok()
    }

    /// A list of items that `read` accepts; a single value counts as a list of one.
    pub(super) fn list<T>(&self, read: impl Fn(&Item<'a>) -> Option<T>) -> Option<Vec<T>> {
        match self.items() {
            // All are read, so that all errors are found.
            Some(items) => items.map(|i| read(&i)).collect::<Vec<_>>().into_iter().collect(),
            None => read(self).map(|one| vec![one]),
        }
    }

    /// The items of a list.
    fn items(&self) -> Option<impl Iterator<Item = Item<'a>> + '_> {
        let array = self.value.get_ref().as_array()?;
        let item = |(n, value)| Item { report: self.report, path: format!("{}[{n}]", self.path), value };
        Some(array.iter().enumerate().map(item))
    }

    /// The texts of a list, or of a single one; other values are left out.
    pub(super) fn texts(&self) -> Vec<(Item<'a>, &'a str)> {
        let items = self.items().map_or_else(|| vec![self.clone()], Iterator::collect);
        let text = |item: Item<'a>| {
            let DeValue::String(text) = item.value.get_ref() else { return None };
            Some((item, text.as_ref()))
        };
        items.into_iter().filter_map(text).collect()
    }

    /// Like [`Item::list`]; duplicates are errors.
    pub(super) fn set<T: PartialEq>(&self, read: impl Fn(&Item<'a>) -> Option<T>) -> Option<Vec<T>> {
        let mut seen: Vec<T> = Vec::new();
        for (item, value) in self.list(|item| Some((item.clone(), read(item)?)))? {
            if seen.contains(&value) {
                item.error("is listed twice; remove one");
            } else {
                seen.push(value);
            }
        }
        Some(seen)
    }

    /// The tables of `[[name]]`.
    pub(super) fn tables(&self) -> Vec<Section<'a>> {
        let Some(items) = self.items() else {
            self.error(format!("must be a list of tables; write [[{}]] in double brackets", self.path));
            return Vec::new();
        };
        items.filter_map(|item| item.section()).collect()
    }

    fn not(&self, wanted: &str) -> String {
        let found = match self.value.get_ref() {
            DeValue::String(s) if wanted.starts_with("a number") && s.bytes().all(|b| b.is_ascii_digit()) => {
                return format!("must be {wanted}; write {s} without quotes");
            }
            DeValue::String(s) if wanted.starts_with("true") && matches!(s.as_ref(), "true" | "false") => {
                return format!("must be {wanted}; write {s} without quotes");
            }
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        format!("must be {wanted}, not {found}")
    }
}

fn quoted<T>(words: &[(&str, T)]) -> String {
    words.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn listed<'s>(words: impl Iterator<Item = &'s &'static str>) -> String {
    let mut words: Vec<&str> = words.copied().collect();
    words.sort_unstable();
    words.dedup();
    words.join(", ")
}
