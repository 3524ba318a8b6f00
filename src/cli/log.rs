//! The daemon's log: one line per event on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{config::LogFormat, daemon::events::Remember};

/// Changes the level of a running daemon.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Takes another level into force; what is no level changes nothing.
    pub fn set(&self, level: &str) {
        if let Ok(filter) = filter(level) {
            let _ = self.0.reload(filter);
        }
    }
}

/// Starts logging. `level` was checked by [`crate::config::log_level`]. Once per process: a second call leaves
/// the first one's log in force.
pub fn init(level: &str, format: LogFormat) -> LogLevel {
    let (filter, handle) = reload::Layer::new(filter(level).unwrap_or_else(|_| EnvFilter::new("info")));
    let lines = match format {
        LogFormat::Text => {
            fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(stderr).boxed(),
    };
    let _ = tracing_subscriber::registry().with(filter).with(lines).with(Remember).try_init();
    LogLevel(handle)
}

fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(level)
}
