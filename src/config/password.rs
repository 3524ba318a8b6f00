//! `password` and `password-file`.

use std::path::PathBuf;

use serde_json::json;

use super::{
    keys::{Shape, kinds::With},
    read::{Item, PasswordFileError, Section},
};
use crate::bgp::peer::Secret;

/// What `show config` prints instead.
pub(super) const HIDDEN: &str = "(hidden)";

/// What a password is for.
#[derive(Clone, Copy)]
pub(super) struct Algorithm {
    name: &'static str,
    /// Longest password, in octets.
    max: usize,
}

/// TCP MD5; the kernel takes no longer key (TCP_MD5SIG_MAXKEYLEN).
pub(super) const MD5: Algorithm = Algorithm { name: "TCP MD5", max: 80 };
/// SHA1 of BFD (RFC 5880 §4.4).
pub(super) const BFD: Algorithm = Algorithm { name: "SHA1 of BFD", max: 20 };

/// Why a text cannot be a password. It never contains the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("must not be empty")]
    Empty,
    #[error("has {octets} octets; {algorithm} takes {max} at most")]
    TooLong { octets: usize, algorithm: &'static str, max: usize },
}

impl Algorithm {
    /// Never reports what the password is.
    fn check(self, password: &str) -> Result<(), PasswordError> {
        match password.len() {
            0 => Err(PasswordError::Empty),
            n if n > self.max => {
                Err(PasswordError::TooLong { octets: n, algorithm: self.name, max: self.max })
            }
            _ => Ok(()),
        }
    }
}

/// `password` of a session.
pub(super) fn of_tcp() -> With<Secret> {
    With { read: |item| written(item, MD5), show: |_| HIDDEN.into(), shape: || Shape::Text }
}

/// `password` of BFD.
pub(super) fn of_bfd() -> With<Secret> {
    With { read: |item| written(item, BFD), show: |_| HIDDEN.into(), shape: || Shape::Text }
}

/// `password-file`, which may be relative to the folder of the configuration.
pub(super) fn file() -> With<PathBuf> {
    With { read: |item| item.text().map(PathBuf::from), show: |path| json!(path), shape: || Shape::Text }
}

fn written(item: &Item<'_>, algorithm: Algorithm) -> Option<Secret> {
    let text = item.text()?;
    algorithm.check(text).map_err(|what| item.error(what)).ok()?;
    Some(Secret(text.to_owned()))
}

/// Reads the file of `password-file` into `password`, unless both are written.
pub(super) fn load(
    section: &Section<'_>,
    algorithm: Algorithm,
    password: &mut Option<Secret>,
    file: &mut Option<PathBuf>,
) {
    let Some(item) = section.get("password-file") else { return };
    if section.get("password").is_some() {
        item.error("`password` and `password-file` exclude each other; keep one");
        (*password, *file) = (None, None);
        return;
    }
    let Some(path) = file else { return };
    let read = item.read_password(path).and_then(|text| {
        let checked = algorithm.check(&text);
        checked.map_err(|error| PasswordFileError::Password { path: path.clone(), error })?;
        Ok(Secret(text))
    });
    *password = read.map_err(|what| item.error(what)).ok();
}
