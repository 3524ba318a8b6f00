//! `routelet convert`: the configuration of another daemon → one of routelet.
//!
//! One module per format makes a [`router::Router`], and `write` makes a file from it; `kube` makes
//! objects of a cluster as well. Each line of the input ends in the [`ledger`]: carried over,
//! carried over with a difference, not needed, or not carried over, with the reason. What cannot be
//! expressed exactly is never approximated in a policy: from that point on the policy rejects. No
//! files are read or written here.

mod bird;
mod frr;
mod kube;
mod kube_router;
mod ledger;
mod ranges;
mod router;
#[cfg(test)]
mod tests;
mod write;

use schemars::JsonSchema;
use serde::Serialize;

pub use ledger::{Line, Outcome};

use crate::config::{self, ParseContext};

/// Size of all input together, in octets.
pub const MAX_INPUT: usize = 4 << 20;

/// One file of the input.
#[derive(Clone, Debug)]
pub struct Input {
    /// For messages.
    pub name: String,
    pub text: String,
}

/// What the input was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    Frr,
    Quagga,
    Bird,
    KubeRouter,
    Calico,
    Metallb,
    Cilium,
}

impl Format {
    /// As `--from` takes it.
    fn name(self) -> &'static str {
        match self {
            Self::Frr => "frr",
            Self::Quagga => "quagga",
            Self::Bird => "bird",
            Self::KubeRouter => "kube-router",
            Self::Calico => "calico",
            Self::Metallb => "metallb",
            Self::Cilium => "cilium",
        }
    }
}

/// What was made of the input.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Report {
    /// The format of the input.
    pub format: Format,
    /// Whether nothing needs a review: each line was carried over or is not needed.
    pub complete: bool,
    /// Each line that has a meaning, in the order of the input.
    pub lines: Vec<Line>,
    /// The new file.
    pub output: String,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    #[error("the input is {0} octets; the limit is {MAX_INPUT}: convert the files one by one")]
    TooLarge(usize),
    #[error(
        "{0}: the format is not recognized; name it with --from, one of frr, quagga, bird, kube-router, calico, metallb \
         and cilium"
    )]
    UnknownFormat(String),
    #[error("the input has objects of {0}: convert one at a time, with --from; the others are listed")]
    SeveralFormats(String),
    #[error("{0}")]
    NothingToConvert(String),
    #[error("the result would not be valid: {0}; correct the input, or report this with the input")]
    Invalid(String),
}

/// Converts files that belong together, as `bgpd.conf` and `zebra.conf`.
///
/// # Errors
///
/// If nothing in the input can be converted.
pub fn convert(inputs: &[Input], format: Option<Format>) -> Result<Report, ConvertError> {
    let size = inputs.iter().map(|i| i.text.len()).sum();
    if size > MAX_INPUT {
        return Err(ConvertError::TooLarge(size));
    }
    let format = match format {
        Some(format) => format,
        None => detect(inputs)?,
    };
    let converted = match format {
        Format::Frr | Format::Quagga => frr::convert(inputs, format)?,
        Format::Bird => bird::convert(inputs)?,
        Format::KubeRouter => kube_router::convert(inputs)?,
        Format::Calico | Format::Metallb | Format::Cilium => return convert_objects(inputs, format),
    };
    let (router, ledger) = converted;
    let lines = ledger.into_lines();
    let output = write::file(&router, &lines);
    check(&output, format == Format::KubeRouter)?;
    Ok(report(format, lines, output))
}

fn convert_objects(inputs: &[Input], format: Format) -> Result<Report, ConvertError> {
    let (cluster, ledger) = kube::convert(inputs, format)?;
    let lines = ledger.into_lines();
    let output = cluster.write(&lines)?;
    Ok(report(format, lines, output))
}

fn report(format: Format, lines: Vec<Line>, output: String) -> Report {
    let complete = lines.iter().all(|l| !l.outcome.needs_review());
    Report { format, complete, lines, output }
}

fn detect(inputs: &[Input]) -> Result<Format, ConvertError> {
    let all = || inputs.iter().flat_map(|i| i.text.lines()).map(str::trim_start);
    if all().any(|l| l.starts_with("router bgp ")) {
        return Ok(Format::Frr);
    }
    let is_bird = |l: &str| l.starts_with("protocol bgp") || l.starts_with("template bgp");
    if all().any(is_bird) {
        return Ok(Format::Bird);
    }
    let mut of_objects: Vec<_> = inputs.iter().flat_map(|i| kube::formats(&i.text)).collect();
    of_objects.dedup();
    match of_objects.as_slice() {
        [] => {}
        [format] => return Ok(*format),
        several => {
            let names: Vec<_> = several.iter().map(|f| f.name()).collect();
            return Err(ConvertError::SeveralFormats(names.join(", ")));
        }
    }
    if inputs.iter().any(|i| kube_router::is_input(&i.text)) {
        return Ok(Format::KubeRouter);
    }
    let names: Vec<_> = inputs.iter().map(|i| i.name.as_str()).collect();
    Err(ConvertError::UnknownFormat(names.join(", ")))
}

/// The output is what `routelet check` accepts.
fn check(output: &str, kubernetes: bool) -> Result<(), ConvertError> {
    let context = ParseContext { kubernetes, read_password: &|_| Ok("not read".into()) };
    match config::parse(output, &context) {
        Ok(_) => Ok(()),
        Err(problems) => {
            let list: Vec<_> = problems.iter().map(|p| format!("{}: {}", p.key, p.what)).collect();
            Err(ConvertError::Invalid(list.join("; ")))
        }
    }
}
