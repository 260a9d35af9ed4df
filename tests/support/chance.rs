//! Chance from a seed: a test that failed is run again with the same draws.

/// A source of numbers; `SplitMix64`, which is good from any seed on.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The source that this seed stands for.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed in an environment variable, or this one. It is printed, since a failure is of no use without.
    pub fn from_env(variable: &str, otherwise: u64) -> Self {
        let seed = std::env::var(variable).map_or(otherwise, |seed| {
            let number = seed.parse();
            number.unwrap_or_else(|_| panic!("{variable}={seed} is no number"))
        });
        println!("{variable}={seed}");
        Self::new(seed)
    }

    /// Another source, whose draws do not depend on how often this one is drawn from later.
    #[must_use]
    pub fn branch(&mut self) -> Self {
        Self(self.next())
    }

    /// A number from 0 on, below this one.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number of a range.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Things that come in any order, but each once before any comes again.
///
/// Independent draws would leave out the one that a test is for, now and then.
#[derive(Clone, Debug)]
pub struct Deck<T> {
    cards: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    /// A deck of these; not of none.
    pub fn new(cards: impl Into<Vec<T>>) -> Self {
        let cards = cards.into();
        assert!(!cards.is_empty(), "a deck has cards");
        Self {
            cards,
            left: Vec::new(),
        }
    }

    /// The next one.
    pub fn draw(&mut self, chance: &mut Chance) -> T {
        if self.left.is_empty() {
            self.left.clone_from(&self.cards);
        }
        let at = chance.below(self.left.len() as u64);
        self.left
            .swap_remove(usize::try_from(at).expect("below a length"))
    }
}
