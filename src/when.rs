//! Times as people read them: of the local time zone, with its offset. Records hold UTC.

use jiff::tz::TimeZone;
use pipe_cache::Timestamp;

/// E.g. `2026-03-01 10:05:00+01:00`.
pub fn local(time: Timestamp) -> String {
    match i64::try_from(time.0).ok().and_then(|time| jiff::Timestamp::from_millisecond(time).ok()) {
        Some(instant) => instant.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string(),
        // Beyond the calendar: a damaged record.
        None => time.to_string(),
    }
}
