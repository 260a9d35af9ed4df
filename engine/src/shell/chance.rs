//! Chance, from the system: the one place that asks for it, beside the passwords of servers.

/// A random number for a new id.
///
/// # Panics
///
/// Where the system has no randomness to give: nothing that is safe could go on.
pub(super) fn number() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    u128::from_le_bytes(bytes)
}
