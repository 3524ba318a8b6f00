//! `bfd` of a neighbor or group: `true`, or a table.

use std::{path::PathBuf, time::Duration};

use super::{
    file::ParseContext,
    password,
    read::{Item, Section},
};
use crate::{bgp::peer::Bfd, net::BfdAuth};

/// Longest SHA1 key (RFC 5880 §4.4).
const KEY: usize = 20;
/// Milliseconds: shorter ones are below what a general-purpose kernel keeps, longer ones slower
/// than the hold time.
const SHORTEST: u64 = 10;
const LONGEST: u64 = 60_000;

/// `Some(None)`: written as `false`.
pub(super) fn read(item: &Item<'_>, around: &ParseContext<'_>) -> Option<Option<Bfd>> {
    if let Some(on) = item.value.get_ref().as_bool() {
        return Some(on.then(Bfd::default));
    }
    if !item.value.get_ref().is_table() {
        item.error("must be true, false, or a table as { min-tx = 300, min-rx = 300, multiplier = 3 }");
        return None;
    }
    let section = item.section()?;
    let mut bfd = Bfd::default();
    let interval = |key| section.get(key)?.number(SHORTEST..=LONGEST).map(Duration::from_millis);
    let flag = |key| section.get(key).and_then(|i| i.flag()).unwrap_or(false);
    bfd.params.min_tx = interval("min-tx").unwrap_or(bfd.params.min_tx);
    bfd.params.min_rx = interval("min-rx").unwrap_or(bfd.params.min_rx);
    let multiplier = section.get("multiplier").and_then(|i| i.number(1..=255));
    bfd.params.multiplier = multiplier.unwrap_or(bfd.params.multiplier);
    bfd.params.passive = flag("passive");
    bfd.strict = flag("strict");
    (bfd.params.auth, bfd.password_file) = authentication(&section, around);
    section.close();
    Some(Some(bfd))
}

/// The key, and the file that it was read from.
fn authentication(section: &Section<'_>, around: &ParseContext<'_>) -> (Option<BfdAuth>, Option<PathBuf>) {
    let (password, file) = password::read(section, around, KEY, "SHA1 of BFD");
    let id = section.get("key-id");
    let kind = section.get("authentication");
    let has_key = section.get("password").or_else(|| section.get("password-file")).is_some();
    for item in [&id, &kind].into_iter().flatten().filter(|_| !has_key) {
        item.error("needs a `password` or `password-file` beside it");
    }
    let key_id = id.map_or(Some(1), |i| i.number(0..=255));
    let meticulous = kind.map_or(Some(true), |i| i.choice(&[("meticulous-sha1", true), ("sha1", false)]));
    let auth = || Some(BfdAuth { key_id: key_id?, key: password?.into_bytes(), meticulous: meticulous? });
    (auth(), file)
}
