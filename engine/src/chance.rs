//! Chance, for what is chosen once and recorded: ids, the marks and ports of servers. Passwords are the system's alone.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where random numbers come from. Clones of a seeded one draw from the same sequence.
#[derive(Debug, Clone, Default)]
pub struct Chance {
    /// The state of a generator; `None` asks the system.
    seeded: Option<Arc<AtomicU64>>,
}

impl Chance {
    /// The system's randomness, and ports that are free on this machine.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// The same numbers for the same seed, for tests; no secret, and its ports are ports of no machine.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            seeded: Some(Arc::new(AtomicU64::new(seed))),
        }
    }

    /// A random number for a new id.
    ///
    /// # Panics
    ///
    /// Where the system has no randomness to give: nothing that is safe could go on.
    #[must_use]
    pub fn number(&self) -> u128 {
        if let Some(state) = &self.seeded {
            return u128::from(next(state)) << 64 | u128::from(next(state));
        }
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system gives randomness");
        u128::from_le_bytes(bytes)
    }

    /// A port on loopback where nothing listens at this moment.
    ///
    /// # Errors
    ///
    /// Where the system has none.
    pub fn port(&self) -> io::Result<u16> {
        match &self.seeded {
            // The dynamic ports.
            Some(state) => Ok(0xC000 | (next(state) & 0x3FFF) as u16),
            None => Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port()),
        }
    }
}

/// The generator known as `SplitMix64`.
fn next(state: &AtomicU64) -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut z = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_gives_others() {
        let draw = |seed| {
            let chance = Chance::seeded(seed);
            let port = chance.clone().port().expect("a port");
            (chance.number(), port, chance.number())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let (first, _, second) = draw(7);
        assert_ne!(first, second);
    }
}
