//! Metrics of messages that are kept, and of their way out of the store.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, Result};

use super::Maker;
use super::labels::{Counters, Keep};

/// What is counted of messages that are kept.
#[derive(Debug, Clone)]
pub struct KeepMetrics {
    duration: Histogram,
    kept: Counters<Keep>,
    settled: IntCounter,
}

impl KeepMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Result<Self> {
        Ok(KeepMetrics {
            duration: make.histogram("althing_keep_duration_seconds")?,
            kept: make.by_label("althing_keeps_total")?,
            settled: make.counter("althing_messages_settled_total")?,
        })
    }

    /// A message was kept, or not, so long after it came.
    pub fn kept(&self, what: Keep, after: Duration) {
        self.kept.inc(what);
        if what == Keep::Kept {
            self.duration.observe(after.as_secs_f64());
        }
    }

    /// So many have arrived, and the store knows.
    pub fn settled(&self, count: u64) {
        self.settled.inc_by(count);
    }

    /// How many were kept, or not so.
    #[cfg(test)]
    pub(crate) fn count(&self, what: Keep) -> (u64, u64) {
        (self.kept.get(what), self.duration.get_sample_count())
    }
}
