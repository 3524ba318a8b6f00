//! `bfd` of a neighbor or group: `true`, or a table.

use std::time::Duration;

use serde_json::Value;

use super::{
    keys::{BfdKeys, Shape, kinds::With, milliseconds},
    password,
    read::{Item, Section},
};
use crate::{
    bgp::peer::{Bfd, Secret},
    net::{BfdAuth, BfdParams},
};

/// `None`: written as `false`.
pub(super) fn kind() -> With<Option<Bfd>> {
    With { read, show, shape: || Shape::Either(vec![Shape::Flag, Shape::Table(BfdKeys::table().keys)]) }
}

fn read(item: &Item<'_>) -> Option<Option<Bfd>> {
    if let Some(on) = item.value.get_ref().as_bool() {
        return Some(on.then(Bfd::default));
    }
    if !item.value.get_ref().is_table() {
        item.error("must be true, false, or a table as { min-tx = 300, min-rx = 300, multiplier = 3 }");
        return None;
    }
    let section = item.section()?;
    let mut keys = BfdKeys::default();
    keys.read(&section);
    password::load(&section, password::BFD, &mut keys.password, &mut keys.password_file);
    check_authentication(&section);
    section.close();
    Some(Some(keys.into()))
}

fn check_authentication(section: &Section<'_>) {
    let has_key = section.get("password").or_else(|| section.get("password-file")).is_some();
    let of_key = ["key-id", "authentication"].into_iter().filter_map(|key| section.get(key));
    for item in of_key.filter(|_| !has_key) {
        item.error("needs a `password` or `password-file` beside it");
    }
}

impl From<BfdKeys> for Bfd {
    fn from(mut keys: BfdKeys) -> Self {
        let auth = keys.password.take().map(|password| BfdAuth {
            key_id: keys.key_id.unwrap_or(1),
            key: password.0.clone().into_bytes(),
            meticulous: keys.meticulous.unwrap_or(true),
        });
        let params = BfdParams {
            min_tx: Duration::from_millis(keys.min_tx),
            min_rx: Duration::from_millis(keys.min_rx),
            multiplier: keys.multiplier,
            passive: keys.passive,
            auth,
        };
        Self { params, strict: keys.strict, password_file: keys.password_file }
    }
}

fn show(bfd: &Option<Bfd>) -> Value {
    let Some(Bfd { params, strict, password_file }) = bfd else { return false.into() };
    let auth = params.auth.as_ref();
    let keys = BfdKeys {
        min_tx: milliseconds(params.min_tx),
        min_rx: milliseconds(params.min_rx),
        multiplier: params.multiplier,
        strict: *strict,
        passive: params.passive,
        // It is not printed.
        password: auth.filter(|_| password_file.is_none()).map(|_| Secret(String::new())),
        password_file: password_file.clone(),
        key_id: auth.map(|a| a.key_id),
        meticulous: auth.map(|a| a.meticulous),
    };
    keys.show().into()
}
