//! Numbers that look random and are the same for the same seed. PURE.

/// A generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of `seed` for one of its uses; those of two uses have nothing to do with each other.
    #[must_use]
    pub fn new(seed: u64, usage: u64) -> Dice {
        let mut dice = Dice(seed);
        let base = dice.roll();
        Dice(base ^ usage.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll().checked_rem(bound).unwrap_or_default()
    }

    /// An index of `length` things; 0 where there are none.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or_default()
    }

    /// Brings things into another order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_numbers_and_no_others() {
        let rolls = |seed, usage| {
            let mut dice = Dice::new(seed, usage);
            [dice.roll(), dice.roll(), dice.roll()]
        };
        assert_eq!(rolls(7, 1), rolls(7, 1));
        let all = [rolls(7, 1), rolls(7, 2), rolls(8, 1), rolls(0, 0)];
        let different: std::collections::BTreeSet<u64> = all.iter().flatten().copied().collect();
        assert_eq!(different.len(), 12);
        let mut things = [1, 2, 3, 4, 5, 6, 7, 8];
        Dice::new(1, 1).shuffle(&mut things);
        assert_ne!(things, [1, 2, 3, 4, 5, 6, 7, 8]);
        things.sort_unstable();
        assert_eq!(things, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
