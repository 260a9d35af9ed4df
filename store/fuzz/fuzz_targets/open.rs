//! See `recount_store::fuzz::open`.

#![no_main]

use std::panic;

/// The storage may panic on pages that make no sense: the store makes errors of that. Its own code may not
/// panic on anything, not even where that would be caught.
fn allow_the_storage_to_panic() {
    let end_the_process = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let in_the_storage = panic
            .location()
            .is_some_and(|at| at.file().contains("/redb-"));
        if !in_the_storage {
            end_the_process(panic);
        }
    }));
}

libfuzzer_sys::fuzz_target!(
    init: allow_the_storage_to_panic(),
    |bytes: &[u8]| recount_store::fuzz::open(bytes)
);
