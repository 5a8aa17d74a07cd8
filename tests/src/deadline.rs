//! Deadlines: nothing in these tests waits without one, and nothing sleeps in place of a condition.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};

/// How long one step (a stanza, a handshake, an answer) may take, unless a test says otherwise.
///
/// `ALTHING_TEST_DEADLINE_S` (seconds) stretches it for slow or crowded machines.
#[must_use]
pub fn step() -> Duration {
    let seconds = std::env::var("ALTHING_TEST_DEADLINE_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// Runs `future` for one [`step`] at most.
///
/// # Errors
/// The future's own error, or that `what` did not happen in time.
pub async fn within<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    within_time(step(), what, future).await
}

/// Runs `future` for `limit` at most.
///
/// # Errors
/// The future's own error, or that `what` did not happen in time.
pub async fn within_time<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(limit, future).await.with_context(|| format!("{what}: not within {limit:?}"))?
}

/// A number that an environment variable may change, for runs by hand that are longer than those of every day.
#[must_use]
pub fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
