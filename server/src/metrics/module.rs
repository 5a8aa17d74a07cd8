//! What each module has done.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::NodeMetrics;
use crate::modules::REGISTRY;

/// The modules' own time is read in one stage of so many: reading the clock twice (about 50 ns) takes longer than most of
/// them. A prime, so that it meets each of those that come in turns.
pub const SAMPLED: u32 = 61;

/// The series of all modules.
#[derive(Debug, Clone)]
pub(super) struct Modules {
    handled: IntCounterVec,
    duration: HistogramVec,
    computing: HistogramVec,
    queue: IntGaugeVec,
    dropped: IntCounterVec,
}

impl Modules {
    /// Those of [`REGISTRY`] are there from the start, with zero: a rate needs that before the first packet.
    pub(super) fn new(
        handled: IntCounterVec,
        (duration, computing): (HistogramVec, HistogramVec),
        queue: IntGaugeVec,
        dropped: IntCounterVec,
    ) -> Self {
        let modules = Modules { handled, duration, computing, queue, dropped };
        for module in REGISTRY {
            let _zero = modules.of(module.spec().name);
        }
        modules
    }

    /// Those of the module called `name`.
    pub(super) fn of(&self, name: &str) -> ModuleMetrics {
        ModuleMetrics(Some(Series {
            handled: self.handled.with_label_values(&[name]),
            duration: self.duration.with_label_values(&[name]),
            computing: self.computing.with_label_values(&[name]),
            queue: self.queue.with_label_values(&[name]),
            dropped: self.dropped.with_label_values(&[name]),
        }))
    }
}

impl NodeMetrics {
    /// The series of the module called `name`, which is one of [`REGISTRY`].
    #[must_use]
    pub fn module(&self, name: &str) -> ModuleMetrics {
        self.modules.of(name)
    }
}

/// The series of one module; by default none, for modules that tests make up.
#[derive(Debug, Clone, Default)]
pub struct ModuleMetrics(Option<Series>);

#[derive(Debug, Clone)]
struct Series {
    handled: IntCounter,
    duration: Histogram,
    computing: Histogram,
    queue: IntGauge,
    dropped: IntCounter,
}

/// What a module has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ModuleNumbers {
    /// Packets that it handled.
    pub handled: u64,
    /// Packets for which it had to wait, and has.
    pub waited: u64,
    /// Seconds that it waited for them, taken together.
    pub waited_seconds: f64,
    /// Calls that were timed: those for one stanza in [`SAMPLED`].
    pub timed: u64,
    /// Seconds that these calls took, taken together.
    pub timed_seconds: f64,
    /// Packets in its queue now.
    pub queue: u64,
    /// Packets that met a full queue.
    pub dropped: u64,
}

impl ModuleMetrics {
    /// It has handled a packet.
    pub fn handled(&self) {
        if let Some(series) = &self.0 {
            series.handled.inc();
        }
    }

    /// It had to wait so long for what follows from a packet.
    pub fn waited(&self, seconds: f64) {
        if let Some(series) = &self.0 {
            series.duration.observe(seconds);
        }
    }

    /// A call of it took so long, until it had decided.
    pub fn computed(&self, seconds: f64) {
        if let Some(series) = &self.0 {
            series.computing.observe(seconds);
        }
    }

    /// A packet came into its queue (1), or has left it (-1).
    pub fn queued(&self, change: i64) {
        if let Some(series) = &self.0 {
            series.queue.add(change);
        }
    }

    /// A packet met a full queue.
    pub fn dropped(&self) {
        if let Some(series) = &self.0 {
            series.dropped.inc();
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn numbers(&self) -> ModuleNumbers {
        self.0.as_ref().map_or_else(ModuleNumbers::default, |series| ModuleNumbers {
            handled: series.handled.get(),
            waited: series.duration.get_sample_count(),
            waited_seconds: series.duration.get_sample_sum(),
            timed: series.computing.get_sample_count(),
            timed_seconds: series.computing.get_sample_sum(),
            queue: u64::try_from(series.queue.get()).unwrap_or(0),
            dropped: series.dropped.get(),
        })
    }
}
