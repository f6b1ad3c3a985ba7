//! Counter-based random numbers: every draw is a hash of (seed, stream, counters), so nothing has to be saved for
//! a resumed run to draw the same numbers, and no draw depends on how many were made elsewhere.

/// What a random number is used for; two streams never share numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Initialise = 1,
    Shuffle = 2,
    Augment = 3,
    Crop = 4,
    Dropout = 5,
    Noise = 6,
    Mix = 7,
}

/// A sequence of numbers that is fixed by its key.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    key: u64,
    counter: u64,
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijection on 64 bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    pub(crate) fn new(seed: u64, stream: Stream, counters: [u64; 2]) -> Self {
        let mut key = mix(seed.wrapping_add(GOLDEN));
        for word in [stream as u64, counters[0], counters[1]] {
            key = mix(key ^ mix(word.wrapping_add(GOLDEN)));
        }
        Self { key, counter: 0 }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }

    /// Uniform in [0, 1), 24 bits.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Uniform in [low, high).
    pub(crate) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..bound, unbiased to 2^-64·bound (multiply-shift); `bound` is at least 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Standard normal by the polar Box-Muller form in f64, rounded once.
    pub(crate) fn normal(&mut self) -> f32 {
        let unit = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let (radius, angle) = (unit(self.next_u64()), unit(self.next_u64()));
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
    }

    /// Fisher-Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_gives_the_same_numbers_and_another_key_others() {
        let draw = |seed, stream, counters| {
            let mut rng = Rng::new(seed, stream, counters);
            (0..4).map(|_| rng.next_u64()).collect::<Vec<_>>()
        };
        let base = draw(7, Stream::Shuffle, [1, 2]);
        assert_eq!(base, draw(7, Stream::Shuffle, [1, 2]));
        for other in [
            draw(8, Stream::Shuffle, [1, 2]),
            draw(7, Stream::Crop, [1, 2]),
            draw(7, Stream::Shuffle, [2, 1]),
            draw(7, Stream::Shuffle, [1, 3]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut rng = Rng::new(1, Stream::Initialise, [0, 0]);
        let draws: Vec<f64> = (0..100_000).map(|_| f64::from(rng.normal())).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 1e5;
        // Standard errors are 0.0032 and 0.0045; four of each.
        assert!(mean.abs() < 0.013 && (variance - 1.0).abs() < 0.018, "mean {mean}, variance {variance}");
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_reaches_every_place() {
        let mut counts = [[0_u32; 4]; 4];
        for key in 0..4_000 {
            let mut items = [0, 1, 2, 3];
            Rng::new(3, Stream::Shuffle, [key, 0]).shuffle(&mut items);
            let mut sorted = items;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            for (place, item) in items.into_iter().enumerate() {
                counts[place][item] += 1;
            }
        }
        // Expected 1000 each, standard deviation 27; five of them.
        assert!(counts.iter().flatten().all(|n| (863..=1137).contains(n)), "{counts:?}");
    }
}
