//! Choosing a share of many by chance.

/// A stream of numbers that looks random (xorshift64*). What is chosen by it is no secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Returns how many are passed over until the next one is taken, when one in `mean` is.
    pub(crate) fn skip(&mut self, mean: f64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        // 53 bits make a number in (0, 1]; its logarithm has the distances of independent choices.
        let unit = ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        (unit.ln() / (1.0 - 1.0 / mean).ln()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_as_many_is_taken() {
        for mean in [1.0, 1.5, 10.0, 1000.0] {
            let mut chance = Chance::new(7);
            let steps: u64 = (0..10_000).map(|_| chance.skip(mean) + 1).sum();
            let found = steps as f64 / 10_000.0;
            assert!((mean * 0.95..=mean * 1.05).contains(&found), "{found} for {mean}");
        }
    }
}
