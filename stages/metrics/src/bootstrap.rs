//! Confidence intervals by resampling patients, not cases: cases of one patient are no independent evidence.

use serde::{Deserialize, Serialize};

use crate::summary::quantile;

/// How an interval is made. The same plan gives the same interval on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    pub resamples: usize,
    /// The share of the distribution within the interval, above 0 and below 1.
    pub level: f64,
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 2000, level: 0.95, seed: 0 }
    }
}

/// A range that holds the true value with about the probability of [`Bootstrap::level`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// The values of a statistic over resampled sets of patients, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    values: Vec<f64>,
    /// Resamples in which the statistic is NaN; they enter nothing.
    pub undefined: usize,
}

impl Bootstrap {
    /// Draws as many patients as there are, with replacement, and asks for the statistic, over and over.
    ///
    /// `statistic` gets how often each patient was drawn. Draws depend on the seed and the number of the resample alone.
    pub fn distribution(&self, patients: usize, mut statistic: impl FnMut(&[u32]) -> f64) -> Distribution {
        let mut values = Vec::with_capacity(self.resamples);
        let mut times = vec![0; patients];
        if patients > 0 {
            for resample in 0..self.resamples as u64 {
                let mut random = Random::new(self.seed, resample);
                times.fill(0);
                (0..patients).for_each(|_| times[random.below(patients)] += 1);
                values.push(statistic(&times));
            }
        }
        let drawn = values.len();
        values.retain(|value| !value.is_nan());
        values.sort_unstable_by(f64::total_cmp);
        Distribution { undefined: drawn - values.len(), values }
    }

    /// The percentile interval of a statistic. `None` for fewer than two patients, and where more than half of the
    /// resamples leave it undefined.
    pub fn interval(&self, patients: usize, statistic: impl FnMut(&[u32]) -> f64) -> Option<Interval> {
        if patients < 2 {
            return None;
        }
        self.distribution(patients, statistic).interval(self.level)
    }

    /// The interval of the mean over all cases. `patients`: the values of each patient's cases; NaN are left out.
    pub fn mean_interval(&self, patients: &[Vec<f64>]) -> Option<Interval> {
        let sums: Vec<(f64, f64)> = patients.iter().map(|values| sum_and_count(values)).collect();
        // A patient without a defined value is no evidence, and would only make resamples smaller.
        let sums: Vec<(f64, f64)> = sums.into_iter().filter(|(_, count)| *count > 0.0).collect();
        self.interval(sums.len(), |times| {
            let (mut sum, mut count) = (0.0, 0.0);
            // Not drawn is left out and not times 0: infinity times 0 is NaN.
            for ((own, cases), &times) in sums.iter().zip(times).filter(|(_, times)| **times > 0) {
                sum += own * f64::from(times);
                count += cases * f64::from(times);
            }
            sum / count
        })
    }
}

impl Distribution {
    /// The middle part of the distribution, by [`quantile`].
    pub fn interval(&self, level: f64) -> Option<Interval> {
        assert!(level > 0.0 && level < 1.0, "level {level} is not between 0 and 1");
        if self.values.len() <= self.undefined {
            return None;
        }
        let tail = (1.0 - level) / 2.0;
        Some(Interval { low: quantile(&self.values, tail), high: quantile(&self.values, 1.0 - tail) })
    }

    /// Two-sided evidence against 0: twice the smaller share of resamples on one side of it, 0 itself on both. One more
    /// resample on each side is assumed, so that it is never 0.
    pub fn p_of_zero(&self) -> f64 {
        let not_above = self.values.partition_point(|value| *value <= 0.0);
        let not_below = self.values.len() - self.values.partition_point(|value| *value < 0.0);
        let share = (not_above.min(not_below) + 1) as f64 / (self.values.len() + 1) as f64;
        (2.0 * share).min(1.0)
    }
}

/// The sum of the values that are defined, and how many they are.
pub(crate) fn sum_and_count(values: &[f64]) -> (f64, f64) {
    let defined = values.iter().filter(|value| !value.is_nan());
    defined.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0))
}

/// `SplitMix64`: one stream a resample. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014.
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        // Mixed, or neighbouring streams would be the same sequence shifted by one.
        Self(mix(mix(seed).wrapping_add(stream)))
    }

    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // The high half of the product: a bias of count / 2⁶⁴.
        ((u128::from(mix(self.0)) * count as u128) >> 64) as usize
    }
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
