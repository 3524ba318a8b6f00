//! The daemon's log: one line per event on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{config::LogFormat, daemon::events::RecordLayer};

/// Changes the log level of a running daemon.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Applies another level; an invalid one changes nothing.
    pub fn set(&self, level: &str) {
        if let Ok(filter) = filter(level) {
            let _ = self.0.reload(filter);
        }
    }
}

/// Starts logging. `level` was checked by [`crate::config::log_level`]. Once per process: later
/// calls have no effect.
pub fn init(level: &str, format: LogFormat) -> LogLevel {
    let (filter, handle) = reload::Layer::new(filter(level).unwrap_or_else(|_| EnvFilter::new("info")));
    let lines = match format {
        LogFormat::Text => {
            fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(stderr).boxed(),
    };
    let _ = tracing_subscriber::registry().with(filter).with(lines).with(RecordLayer).try_init();
    LogLevel(handle)
}

fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let wanted = level.contains("kube") || matches!(level, "debug" | "trace");
    // The client logs each failed attempt as an error; `k8s` logs the problem once.
    let quiet = if wanted { String::new() } else { ",kube_client=off".to_owned() };
    EnvFilter::builder().parse(level.to_owned() + &quiet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_of_the_api_server_is_quiet_unless_enabled() {
        for (level, quiet) in [
            ("info", true),
            ("info,routelet::bgp=debug", true),
            ("debug", false),
            ("info,kube_client=warn", false),
        ] {
            let filter = filter(level).unwrap().to_string();
            assert_eq!(filter.contains("kube_client=off"), quiet, "{filter}");
        }
    }
}
