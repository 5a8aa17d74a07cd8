//! Metrics of streams with XEP-0198.

use prometheus::{IntGauge, Result};

use super::labels::{Counters, Resumed};
use super::{Maker, Waiting};

/// What is counted of streams with XEP-0198.
#[derive(Debug, Clone)]
pub struct StreamMetrics {
    unacknowledged: IntGauge,
    detached: IntGauge,
    resumed: Counters<Resumed>,
}

impl StreamMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Result<Self> {
        Ok(StreamMetrics {
            unacknowledged: make.gauge("althing_stanzas_unacknowledged")?,
            detached: make.gauge("althing_sessions_detached")?,
            resumed: make.by_label("althing_streams_resumed_total")?,
        })
    }

    /// Counts the stanzas that clients have not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> Waiting {
        Waiting(self.unacknowledged.clone())
    }

    /// Counts the sessions that wait without a connection.
    #[must_use]
    pub fn detached(&self) -> Waiting {
        Waiting(self.detached.clone())
    }

    /// An attempt to resume a stream has ended.
    pub fn resumed(&self, how: Resumed) {
        self.resumed.inc(how);
    }
}
