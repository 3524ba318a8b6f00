//! Reads configuration files and password files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{Config, ParseContext, PasswordFileError, Problems, file::parse};
use crate::bgp::peer::Secret;

/// Path of the configuration without `--config`.
pub const DEFAULT_PATH: &str = "/etc/routelet/routelet.toml";

/// A configuration, with its warnings.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The text of the file, which may hold passwords; `None` without a file.
    pub text: Option<Secret>,
    /// The file it was read from; `None` where there is none and the defaults hold.
    pub path: Option<PathBuf>,
    /// Valid settings that are probably not intended.
    pub warnings: Option<Problems>,
}

/// Reads the file of `--config`, else [`DEFAULT_PATH`], which may be absent: then the defaults
/// hold, those of [`Config::for_bare_host`] outside Kubernetes. `kubernetes`: the daemon runs under
/// Kubernetes (a kubeconfig was given, or `KUBERNETES_SERVICE_HOST` is set), which the file may
/// override.
///
/// # Errors
///
/// All errors at once; a file that cannot be read, or an explicit one that is missing.
pub fn load(explicit: Option<&Path>, kubernetes: bool) -> Result<Loaded, Problems> {
    let path = explicit.unwrap_or(Path::new(DEFAULT_PATH));
    let text = match fs::read(path) {
        Ok(octets) => Secret(String::from_utf8(octets).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Problems::of_file(
                path.to_owned(),
                format!("not UTF-8 text: octet {at} is wrong; save it as UTF-8"),
            )
        })?),
        Err(e) if e.kind() == ErrorKind::NotFound && explicit.is_none() => {
            return Ok(without_file(kubernetes));
        }
        Err(e) => return Err(Problems::of_file(path.to_owned(), unreadable(&e))),
    };
    of_text(path, text, kubernetes)
}

/// The defaults, without a file.
pub fn without_file(kubernetes: bool) -> Loaded {
    let config = if kubernetes { Config::for_kubernetes() } else { Config::for_bare_host() };
    Loaded { config, text: None, path: None, warnings: None }
}

/// A configuration from a text that is, or was, the file at `path`.
///
/// # Errors
///
/// All errors of the text at once.
pub fn of_text(path: &Path, text: Secret, kubernetes: bool) -> Result<Loaded, Problems> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let around = ParseContext { kubernetes, read_password: &|file| read_password(&folder.join(file)) };
    let all = |list| Problems { file: path.to_owned(), list };
    let (config, warnings) = parse(&text.0, &around).map_err(all)?;
    let warnings = (!warnings.is_empty()).then(|| all(warnings));
    Ok(Loaded { config, text: Some(text), path: Some(path.to_owned()), warnings })
}

/// A password is the first line of its file.
fn read_password(path: &Path) -> Result<String, PasswordFileError> {
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        PasswordFileError::Unreadable { path: path.to_owned(), remedy: remedy(&error), error }
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn unreadable(error: &std::io::Error) -> String {
    format!("cannot be read: {error}; {}", remedy(error))
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "is the path right?",
        ErrorKind::PermissionDenied => "run as root, or make it readable",
        ErrorKind::IsADirectory => "name the file in this folder",
        _ => "is it a text file?",
    }
}
