//! Logs: `tracing`, as text or JSON lines on standard error.
//!
//! What strangers send makes lines, so lines are bounded: of those that one place of the program
//! writes, a burst and then one a second (`log_burst`); how many were left out is told now and then,
//! and counted in a metric. A line of text is cut where it is far too long.

mod limit;

use std::io::{self, Stderr, Write};

use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use self::limit::Limit;
pub use self::limit::lines_dropped;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which lines are written, and how.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings<'a> {
    /// v1's `production` or `development`, or a filter such as `info,p2pfaas=debug`; `RUST_LOG`, where
    /// set, wins.
    pub filter: &'a str,
    /// The form of each line.
    pub format: LogFormat,
    /// Lines of one kind at once, before one a second.
    pub burst: u32,
}

/// Bytes of a line of text at most; what strings of others have in it is cut before.
const LINE_BYTES_MAX: usize = 16 << 10;

/// The filter that stands for what is configured.
fn directives(log_env: &str) -> String {
    match log_env {
        "production" | "" => quiet("info"),
        "development" => "info,p2pfaas=debug".to_owned(),
        filter => quiet(filter),
    }
}

/// Without actix' own lines, unless the filter speaks of them: each malformed request makes one.
fn quiet(filter: &str) -> String {
    if filter.contains("actix_http") {
        filter.to_owned()
    } else {
        format!("{filter},actix_http=off")
    }
}

/// Starts logging.
///
/// # Errors
/// A filter that cannot be read.
pub fn start(settings: &LogSettings<'_>) -> Result<(), String> {
    let given = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let directives = given.unwrap_or_else(|| directives(settings.filter));
    let filter = EnvFilter::try_new(directives).map_err(|why| format!("log_env: {why}"))?;
    // A line that cannot be written is lost: telling of it on the same standard error would panic when
    // its reader is gone.
    let lines = fmt::layer().log_internal_errors(false);
    let limited = tracing_subscriber::registry().with(filter).with(Limit::new(settings.burst));
    let started = match settings.format {
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            limited.with(lines.with_ansi(colours).with_writer(Cut)).try_init()
        }
        LogFormat::Json => limited.with(lines.json().with_writer(io::stderr)).try_init(),
    };
    started.map_err(|why| why.to_string())
}

/// Standard error, each line cut to [`LINE_BYTES_MAX`].
struct Cut;

impl<'a> MakeWriter<'a> for Cut {
    type Writer = CutLine<Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        CutLine(io::stderr())
    }
}

/// Takes a line in one piece, as `tracing-subscriber` writes it.
struct CutLine<W>(W);

impl<W: Write> Write for CutLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match line.get(..LINE_BYTES_MAX) {
            Some(start) if line.len() > LINE_BYTES_MAX => {
                self.0.write_all(&[start, "…\n".as_bytes()].concat())?;
            }
            _ => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_requests_make_no_lines_unless_they_are_asked_for() {
        for (log_env, filter) in [
            ("production", "info,actix_http=off"),
            ("", "info,actix_http=off"),
            ("warn", "warn,actix_http=off"),
            ("development", "info,p2pfaas=debug"),
            ("info,actix_http=trace", "info,actix_http=trace"),
        ] {
            assert_eq!(directives(log_env), filter);
            assert!(EnvFilter::try_new(filter).is_ok());
        }
    }

    #[test]
    fn a_line_that_is_far_too_long_is_cut() {
        let (mut short, mut long) = (CutLine(Vec::new()), CutLine(Vec::new()));
        short.write_all(b"line\n").expect("written");
        assert_eq!(short.0, b"line\n");
        long.write_all(&[b'a'; 1 << 20]).expect("written");
        assert!(long.0.len() < LINE_BYTES_MAX + 8 && long.0.ends_with(b"\n"));
    }
}
