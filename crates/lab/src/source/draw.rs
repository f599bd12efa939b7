//! Random numbers from a seed: each draw is XXH3 of the seed and an index, so that no library's generator can change a
//! sequence, and a draw does not depend on earlier ones.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Draws by index: the same for a seed, stream and index, on every machine.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    seed: u64,
}

impl Draw {
    /// The draws of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// 64 uniform bits. Draws of different streams are independent.
    pub fn bits(self, stream: u8, index: u64) -> u64 {
        let mut input = [0; 9];
        input[0] = stream;
        input[1..].copy_from_slice(&index.to_le_bytes());
        xxh3_64_with_seed(&input, self.seed)
    }

    /// Uniform over 0 to 1, excluding 1.
    pub fn share(self, stream: u8, index: u64) -> f64 {
        share_of(self.bits(stream, index))
    }

    /// A sequence of draws, independent for each index.
    pub fn sequence(self, stream: u8, index: u64) -> Sequence {
        Sequence { draw: Self::new(self.bits(stream, index)), count: 0 }
    }
}

fn share_of(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A sequence of draws.
#[derive(Debug, Clone)]
pub struct Sequence {
    draw: Draw,
    count: u64,
}

impl Sequence {
    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.count += 1;
        self.draw.bits(0, self.count)
    }

    /// Uniform over 0 to 1, excluding 1.
    pub fn share(&mut self) -> f64 {
        share_of(self.bits())
    }

    /// Uniform over 0 to `end`, excluding `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end.max(1)
    }

    /// Whether something with this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    /// Normal with mean 0 and deviation 1, within 6 of it: the sum of twelve uniform draws, which is the same
    /// everywhere.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.share()).sum::<f64>() - 6.0
    }

    /// The index of one of these weights, with a probability proportional to its weight.
    pub fn weighted(&mut self, weights: impl Iterator<Item = u32> + Clone) -> usize {
        let mut left = self.below(weights.clone().map(u64::from).sum());
        let found = weights.map(u64::from).position(|weight| {
            let is_here = left < weight;
            left = left.saturating_sub(weight);
            is_here
        });
        found.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_reproducible_and_uniform() {
        let draw = Draw::new(7);
        assert_eq!(draw.bits(1, 2), Draw::new(7).bits(1, 2));
        assert_ne!(draw.bits(1, 2), draw.bits(2, 1));
        let mut sequence = draw.sequence(0, 1);
        let drawn: Vec<_> = (0..10_000).map(|_| sequence.normal()).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let variance = drawn.iter().map(|at| (at - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        let mut counts = [0; 3];
        (0..10_000).for_each(|_| counts[sequence.weighted([1, 0, 3].into_iter())] += 1);
        assert!((2_300..2_700).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
    }
}
