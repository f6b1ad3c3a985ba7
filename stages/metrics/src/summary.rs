//! Figures of a set of values, with the undefined ones counted instead of hidden.

use serde::{Deserialize, Serialize};

/// The distribution of the defined values of a metric over cases. All figures are NaN when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Values that are defined, infinity among them.
    pub count: usize,
    /// Values that were NaN and enter nothing below.
    pub undefined: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (divided by count − 1); NaN for fewer than two values, or with infinity among them.
    pub sd: f64,
    /// Least value.
    pub min: f64,
    /// 25 % quantile; see [`quantile`].
    pub q1: f64,
    /// 50 % quantile.
    pub median: f64,
    /// 75 % quantile.
    pub q3: f64,
    /// Greatest value.
    pub max: f64,
}

impl Summary {
    /// Summarises values; NaN are left out and counted.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = sorted.len();
        let mean = if count == 0 { f64::NAN } else { sorted.iter().sum::<f64>() / count as f64 };
        let sd = if count < 2 {
            f64::NAN
        } else {
            (sorted.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1) as f64).sqrt()
        };
        Self {
            count,
            undefined: values.len() - count,
            mean,
            sd,
            min: sorted.first().copied().unwrap_or(f64::NAN),
            q1: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            q3: quantile(&sorted, 0.75),
            max: sorted.last().copied().unwrap_or(f64::NAN),
        }
    }
}

/// The quantile `q` (0 to 1) of ascending values without NaN, interpolated linearly between the two values around
/// position `q·(n − 1)`: numpy's default, type 7 of Hyndman & Fan (1996). NaN when there are none.
///
/// Panics when `q` is not in 0 to 1.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    assert!((0.0..=1.0).contains(&q), "quantile {q} is not in 0 to 1");
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = q * last as f64;
    let below = position.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    let fraction = position - below as f64;
    // Equal neighbours first: infinity minus infinity is NaN.
    if fraction == 0.0 || low == high { low } else { low + (high - low) * fraction }
}
