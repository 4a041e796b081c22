//! Logs: `tracing`, as text or JSON lines on standard error.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Settings};

/// Starts logging. `log_env` is v1's `production` or `development`, or a filter such as
/// `info,p2pfaas=debug`; `RUST_LOG`, where set, wins.
///
/// # Errors
/// A filter that cannot be read.
pub fn start(settings: &Settings) -> Result<(), String> {
    let wanted = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let directives = match wanted.as_deref().unwrap_or(&settings.log_env) {
        "production" | "" => "info",
        "development" => "info,p2pfaas=debug",
        filter => filter,
    };
    let filter = EnvFilter::try_new(directives).map_err(|why| format!("log_env: {why}"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.log_format {
        LogFormat::Text => {
            lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|why| why.to_string())
}
