//! A session as something else: pure, a file per format. `docs/export.md` says what each holds.

pub(crate) mod bundle;
pub(crate) mod jsonl;
pub(crate) mod markdown;
pub(crate) mod otlp;
pub(crate) mod redact;
pub(crate) mod spans;
pub(crate) mod trace;
