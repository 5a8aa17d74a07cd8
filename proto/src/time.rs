//! Timestamps, handed in from outside, and their text form (XEP-0082).

use std::time::Duration;

use ::time::OffsetDateTime;
use ::time::format_description::BorrowedFormatItem;
use ::time::format_description::well_known::Rfc3339;
use ::time::macros::format_description;

/// XEP-0082 §3.2: date and time of day in UTC with milliseconds.
const DATE_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A moment of wall-clock time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Timestamp(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `delay` later; stays at the end of time rather than wrap.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Timestamp(self.0.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it is in the future.
    #[must_use]
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The text form of XEP-0082 §3.2, in UTC with milliseconds: `2026-11-22T16:52:00.000Z`.
    #[must_use]
    pub fn to_xep0082(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|moment| moment.format(DATE_TIME).ok())
            .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
    }

    /// Reads the text form of XEP-0082 §3.2, with or without a fraction, of any time zone; `None` if it is none, or
    /// before the epoch.
    #[must_use]
    pub fn from_xep0082(text: &str) -> Option<Self> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok().map(Timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_utc_with_milliseconds() {
        assert_eq!(Timestamp::from_millis(0).to_xep0082(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(1_795_366_320_042).to_xep0082(), "2026-11-22T16:52:00.042Z");
        assert_eq!(Timestamp::from_millis(u64::MAX).to_xep0082(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn text_of_any_zone_is_read() {
        let read = |text| Timestamp::from_xep0082(text).map(Timestamp::as_millis);
        assert_eq!(read("2026-11-22T16:52:00.042Z"), Some(1_795_366_320_042));
        assert_eq!(read("2026-11-22T17:52:00.042999+01:00"), Some(1_795_366_320_042));
        assert_eq!(read("1970-01-01T00:00:00Z"), Some(0));
        for none in ["", "2026-11-22", "2026-13-22T00:00:00Z", "1969-12-31T23:59:59Z", "16:52:00Z"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn time_saturates() {
        let end = Timestamp::from_millis(u64::MAX);
        assert_eq!(end.after(Duration::from_secs(1)), end);
        assert_eq!(Timestamp::from_millis(1).since(end), Duration::ZERO);
    }
}
