//! The two exposition formats, and which one a client accepts.

/// An exposition format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text format version 0.0.4, which every collector reads.
    #[default]
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format for a request with this `Accept` header, by its weights (RFC 9110 §12.5.1).
    /// Wildcards select the text format: OpenMetrics is only sent to clients that name it.
    pub fn accepted(header: &str) -> Self {
        let weight_of = |wanted: &[&str]| {
            let accepted = header.split(',').filter_map(media_range);
            let fits = accepted.filter(|range| wanted.contains(&&*range.media));
            fits.map(|range| range.weight).max().unwrap_or(0)
        };
        let open_metrics = weight_of(&["application/openmetrics-text"]);
        match open_metrics > 0 && open_metrics >= weight_of(&["text/plain"]) {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    /// Value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    pub(super) fn of_open_metrics(self, text: String) -> String {
        match self {
            Self::Text => classic(&text),
            Self::OpenMetrics => text,
        }
    }
}

/// One element of an `Accept` header.
struct MediaRange {
    media: String,
    /// Thousandths.
    weight: u32,
}

/// `None` for an unsupported version of the format, or a weight that is no number.
fn media_range(element: &str) -> Option<MediaRange> {
    let mut parts = element.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let mut weight = 1000;
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => {
                let number = value.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q))?;
                weight = (number * 1000.0).round() as u32;
            }
            "version" if media == "application/openmetrics-text" => {
                ["1.0.0", "0.0.1"].contains(&value).then_some(())?;
            }
            "version" if media == "text/plain" => {
                (value == "0.0.4").then_some(())?;
            }
            _ => {}
        }
    }
    Some(MediaRange { media, weight })
}

/// Turns the OpenMetrics output of the crate into the older format: there a counter's family has
/// the name of its samples, and `info` is a gauge.
fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            let help = help.strip_prefix(name).unwrap_or_default();
            out += &format!("# HELP {name}{suffix}{help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            out += line;
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_clients_that_prefer_it() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/*", Format::Text),
            ("text/html, */*;q=0.8", Format::Text),
            ("text/plain;version=0.0.4;q=1, */*;q=0.1", Format::Text),
            (prometheus_3, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;q=0.5", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=two", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", Format::Text),
            (";;,=,;q=,\u{fffd}", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
