//! Logging to stderr, filtered by `HEARTH_LOG`; the metrics of relay and agent; process limits for
//! open files and core files; the format of the limits that no option sets.

pub mod agent;
pub mod cores;
pub mod files;
pub mod fixed;
pub mod metrics;
mod one_line;
mod short_fields;

use std::io;

use one_line::OneLine;
use short_fields::ShortFields;
use tracing::Dispatch;
use tracing_subscriber::{
    EnvFilter, filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The environment variable with the log filter, for example `info,hearth_relay=debug`.
pub const FILTER_VARIABLE: &str = "HEARTH_LOG";

/// The most detailed level that is logged, whatever the filter says: below it, libraries log what
/// they send and receive, and that is prompts and answers.
const MOST_DETAILED: LevelFilter = LevelFilter::DEBUG;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Plain text for a terminal.
    #[default]
    Human,
    /// One JSON object per line; control characters in values are escaped.
    Json,
}

/// Sends this process's log to stderr. `fallback` is the filter if [`FILTER_VARIABLE`] is not set.
///
/// # Errors
/// If the filter is not valid, or `init` was called before in this process.
pub fn init(format: Format, fallback: &str) -> anyhow::Result<()> {
    let directives = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| fallback.to_owned());
    let logger = logger(format, &directives, io::stderr)?.try_init();
    logger.map_err(|error| anyhow::anyhow!("logging is already set up: {error}"))
}

/// Returns what writes the log with `writer`.
fn logger<W: io::Write + 'static>(
    format: Format,
    directives: &str,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> anyhow::Result<Dispatch> {
    let one_line = move || OneLine {
        to: writer(),
        format,
    };
    let log = tracing_subscriber::fmt()
        .with_writer(one_line)
        .with_env_filter(filter(directives)?);
    Ok(match format {
        Format::Human => {
            let log = log.fmt_fields(ShortFields::default()).finish();
            log.with(MOST_DETAILED).into()
        }
        Format::Json => log.json().finish().with(MOST_DETAILED).into(),
    })
}

fn filter(directives: &str) -> anyhow::Result<EnvFilter> {
    // Only the message; its source repeats it.
    EnvFilter::try_new(directives).map_err(|why| {
        anyhow::anyhow!(
            "{FILTER_VARIABLE} `{directives}` is not a valid log filter; use for example \
             `info,hearth_relay=debug`: {why}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = format!("{:#}", filter("relay=loud").unwrap_err());
        assert_eq!(error.matches("parsing").count(), 1, "{error}");
        assert!(error.contains("relay=loud"), "{error}");
        assert!(error.contains("hearth_relay=debug"), "{error}");
    }

    #[test]
    fn logging_is_set_up_once() {
        init(Format::Json, "warn").unwrap();
        assert!(init(Format::Human, "warn").is_err());
    }
}
