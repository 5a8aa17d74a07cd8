//! The wall clock, read in one place and handed on as a value.

use std::time::{SystemTime, UNIX_EPOCH};

use althing_proto::time::Timestamp;

/// The present moment; a clock before 1970 counts as 1970.
#[must_use]
pub fn now() -> Timestamp {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}
