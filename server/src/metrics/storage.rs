//! What is measured of the store.

use super::labels::Label as _;
use super::{NodeMetrics, StoreOp};

impl NodeMetrics {
    /// How many writes wait for the store.
    pub fn storage_queue(&self, commands: usize) {
        self.storage_queue.set(i64::try_from(commands).unwrap_or(i64::MAX));
    }

    /// Bytes of the store on disk.
    pub fn storage_size(&self, bytes: u64) {
        self.storage_size.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Free bytes of the disk that has the store, and whether they are too few.
    pub fn storage_room(&self, free: u64, is_low: bool) {
        self.storage_free.set(i64::try_from(free).unwrap_or(i64::MAX));
        self.storage_full.set(i64::from(is_low));
    }

    /// The store could not do what it was asked.
    pub fn storage_error(&self) {
        self.storage_errors.inc();
    }

    /// The store did something in `seconds`.
    pub fn storage_did(&self, op: StoreOp, seconds: f64) {
        if let Some(histogram) = self.storage_duration.get(op.index()) {
            histogram.observe(seconds);
        }
    }
}
