//! Times and durations, for people and for machines.

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use recount_store::Timestamp;
use serde::{Serialize, Serializer};

use super::Look;

/// The time as machines want it: RFC 3339 with microseconds, UTC.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    moment(at).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A time as JSON has it: in RFC 3339, and written only where it is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said(pub(crate) Timestamp);

impl Serialize for Said {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// The time that a text in RFC 3339 names.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_microsecond()).ok().map(Timestamp)
}

/// The time that a person names: in RFC 3339, or as times are told in a zone: `2026-11-22 09:14:03`, `2026-11-22`; and
/// `09:14` of a day.
pub(crate) fn named(text: &str, day: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if let Some(at) = parse(text) {
        return Some(at);
    }
    let told = if let Ok(told) = text.parse::<DateTime>() {
        told
    } else {
        // An hour alone would be taken for a number, and a number for an hour.
        let time: Time = text.contains(':').then(|| text.parse().ok())??;
        moment(day).to_zoned(zone.clone()).date().to_datetime(time)
    };
    let then = told.to_zoned(zone.clone()).ok()?.timestamp();
    u64::try_from(then.as_microsecond()).ok().map(Timestamp)
}

/// The day and the time of day, in a zone: `2026-11-22 09:14:03`.
pub(crate) fn full(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone, "%Y-%m-%d %H:%M:%S")
}

/// The day and its zone: `2026-11-22 CET`.
pub(crate) fn day(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone, "%Y-%m-%d %Z")
}

/// Says the day where it changes.
#[derive(Debug, Default)]
pub(crate) struct Days {
    shown: Option<String>,
}

impl Days {
    /// The line that stands before what happened at this time; none where the day is that of the last.
    pub(crate) fn next(&mut self, at: Timestamp, look: &Look) -> Option<String> {
        let day = day(at, &look.zone);
        if self.shown.as_ref() == Some(&day) {
            return None;
        }
        let line = look.dim(&day);
        self.shown = Some(day);
        Some(line)
    }
}

/// The time of day, in a zone, with milliseconds: `09:14:03.120`.
pub(crate) fn clock(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone, "%H:%M:%S.%3f")
}

fn zoned(at: Timestamp, zone: &TimeZone, format: &str) -> String {
    let zoned = moment(at).to_zoned(zone.clone());
    zoned.strftime(format).to_string()
}

/// The moment, or the last one that can be told.
fn moment(at: Timestamp) -> jiff::Timestamp {
    let micros = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX)
}

/// How long something took or is ago, in the unit that fits: `350 ms`, `4.2 s`, `12 min`, `3 h`, `5 d`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..10 => format!("{seconds}.{} s", span.subsec_millis() / 100),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago a time is.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    match now.since(at) {
        age if age < Duration::from_secs(1) => "just now".to_owned(),
        age if age < Duration::from_secs(120) => format!("{} s ago", age.as_secs()),
        age => format!("{} ago", span(age)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back() {
        let at = Timestamp(1_795_338_843_120_456);
        assert_eq!(rfc3339(at), "2026-11-22T09:14:03.120456Z");
        assert_eq!(parse(&rfc3339(at)), Some(at));
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000000Z");
        // No clock says this, but a damaged one may: it is told, not panicked over.
        assert_eq!(rfc3339(Timestamp(u64::MAX)), "9999-12-30T22:00:00.999999Z");
        assert_eq!(parse("1969-01-01T00:00:00Z"), None);
    }

    #[test]
    fn a_time_can_be_named_as_it_is_told() {
        let at = Timestamp(1_795_338_843_120_456);
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(full(at, &east), "2026-11-22 11:14:03");
        let named = |text| named(text, at, &east).map(rfc3339);
        for (text, time) in [
            ("2026-11-22T09:14:03Z", "2026-11-22T09:14:03.000000Z"),
            ("2026-11-22 11:14:03", "2026-11-22T09:14:03.000000Z"),
            ("2026-11-02T11:14:03.5", "2026-11-02T09:14:03.500000Z"),
            ("2026-11-02 11:14", "2026-11-02T09:14:00.000000Z"),
            ("2026-11-02", "2026-11-01T22:00:00.000000Z"),
            ("11:14:59.5", "2026-11-22T09:14:59.500000Z"),
            ("23:00", "2026-11-22T21:00:00.000000Z"),
        ] {
            assert_eq!(named(text).as_deref(), Some(time), "{text}");
        }
        for bad in ["tea time", "", "13", "2026-13-01", "25:00", "1969-01-01"] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }

    #[test]
    fn spans_are_told_in_the_unit_that_fits() {
        let told = |millis| span(Duration::from_millis(millis));
        assert_eq!(told(0), "0 ms");
        assert_eq!(told(350), "350 ms");
        assert_eq!(told(4_290), "4.2 s");
        assert_eq!(told(42_000), "42 s");
        assert_eq!(told(12 * 60_000), "12 min");
        assert_eq!(told(3 * 3_600_000), "3 h");
        assert_eq!(told(5 * 86_400_000), "5 d");
    }
}
