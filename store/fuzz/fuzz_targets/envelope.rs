//! See `recount_store::fuzz::envelope`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| recount_store::fuzz::envelope(bytes));
