//! Logs: to standard error, for people or as JSON, with the fields of `deploy/reference/log-fields.md`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.filter` cannot be read.
    #[error("log.filter is no filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// This process logs already; it can be set up once.
    #[error("logging is set up already")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for this process. Called by the command line, never by a node: nodes that share a
/// process share its log.
///
/// # Errors
///
/// A filter that cannot be read; a second call.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Human => base.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => {
            base.json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish()
                .try_init()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_refused_before_anything_is_set() {
        let log = Log { filter: "a=b=c".to_owned(), ..Log::default() };
        assert!(matches!(init(&log), Err(TelemetryError::Filter(_))));
    }
}
