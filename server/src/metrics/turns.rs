//! Metrics of what waits for its turn when clients come in storms.

use std::time::Duration;

use prometheus::{Histogram, IntGauge, Result};

use super::labels::{BindRefused, Counters};
use super::{Maker, Waiting};

/// What is counted of clients that come or leave, many at a time.
#[derive(Debug, Clone)]
pub struct TurnMetrics {
    waiting: IntGauge,
    wait: Histogram,
    binds_waiting: IntGauge,
    binds_refused: Counters<BindRefused>,
}

impl TurnMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Result<Self> {
        Ok(TurnMetrics {
            waiting: make.gauge("althing_turns_waiting")?,
            wait: make.histogram("althing_turn_wait_seconds")?,
            binds_waiting: make.gauge("althing_binds_waiting")?,
            binds_refused: make.by_label("althing_binds_refused_total")?,
        })
    }

    /// Somebody waits for a turn of an arbiter.
    pub fn waits(&self) {
        self.waiting.inc();
    }

    /// Somebody waits no more.
    pub fn waits_no_more(&self) {
        self.waiting.dec();
    }

    /// Somebody has got a turn after so long.
    pub fn granted(&self, after: Duration) {
        self.wait.observe(after.as_secs_f64());
    }

    /// Counts the binds that wait for their turn.
    #[must_use]
    pub fn binds_waiting(&self) -> Waiting {
        Waiting(self.binds_waiting.clone())
    }

    /// A resource was not bound.
    pub fn bind_refused(&self, reason: BindRefused) {
        self.binds_refused.inc(reason);
    }

    /// Some that nobody reads.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let registry = prometheus::Registry::new();
        super::NodeMetrics::register(&registry, "node-0").unwrap().turns
    }
}
