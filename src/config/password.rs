//! `password` and `password-file`.

use std::path::PathBuf;

use super::{file::ParseContext, read::Section};

/// The password, and the file that it was read from. Never reports what the password is.
/// `algorithm` takes `max` octets.
pub(super) fn read(
    section: &Section<'_>,
    around: &ParseContext<'_>,
    max: usize,
    algorithm: &str,
) -> (Option<String>, Option<PathBuf>) {
    let fits = |password: &str| match password.len() {
        0 => Err("must not be empty".to_owned()),
        n if n > max => Err(format!("has {n} octets; {algorithm} takes {max} at most")),
        _ => Ok(()),
    };
    let (written, file) = (section.get("password"), section.get("password-file"));
    if let (Some(_), Some(file)) = (&written, &file) {
        file.error("`password` and `password-file` exclude each other; keep one");
        return (None, None);
    }
    if let Some(item) = written {
        let password = item.text().filter(|text| fits(text).map_err(|what| item.error(what)).is_ok());
        return (password.map(str::to_owned), None);
    }
    let Some(item) = file else { return (None, None) };
    let Some(path) = item.text().map(PathBuf::from) else { return (None, None) };
    let read = (around.read_password)(&path).and_then(|password| {
        fits(&password).map_err(|what| format!("the password in {} {what}", path.display()))?;
        Ok(password)
    });
    (read.map_err(|what| item.error(what)).ok(), Some(path))
}
