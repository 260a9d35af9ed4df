//! How durations are written in a policy: `250ms`, `30s`, `5m`, `24h`, `1m30s`.

use std::fmt;
use std::time::Duration;

use jiff::fmt::friendly::{Designator, SpanParser, SpanPrinter};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserializer, Serializer};

static PARSER: SpanParser = SpanParser::new();
static PRINTER: SpanPrinter = SpanPrinter::new().designator(Designator::Compact);

/// The text of a duration.
pub(super) fn text(duration: Duration) -> String {
    PRINTER.unsigned_duration_to_string(&duration)
}

/// The duration of a text, where it is one.
pub(super) fn parse(text: &str) -> Option<Duration> {
    PARSER.parse_unsigned_duration(text).ok()
}

pub(crate) fn serialize<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*duration))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Text)
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"250ms\", \"30s\", \"5m\" or \"24h\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}
