//! What a node knows of its disk and of the others': a node whose disk is nearly full says so, and leads no group.

use std::sync::Arc;

use crate::disk::{Disk, LowNodes, Room};

/// This node's disk, and what is known of the others'.
#[derive(Clone)]
pub(crate) struct DiskWord {
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) low: Arc<LowNodes>,
}

impl DiskWord {
    /// Whether this node's has less room than is to stay free.
    pub(crate) fn is_low(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| *disk.watch().borrow() < Room::Enough)
    }
}
