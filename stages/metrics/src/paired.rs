//! Whether one model is better than another on the same patients, and by how much.

use serde::{Deserialize, Serialize};

use crate::bootstrap::{Bootstrap, Interval, sum_and_count};
use crate::summary::Summary;

/// Two models compared by one metric. Differences are the second model minus the first, one a patient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Patients with a defined value of both.
    pub patients: usize,
    /// Patients left out: undefined for one of the models at least.
    pub undefined: usize,
    /// Patients with a higher, a lower and an equal value of the second model.
    pub higher: usize,
    pub lower: usize,
    pub equal: usize,
    pub mean_difference: f64,
    /// Of the mean difference.
    pub interval: Option<Interval>,
    pub median_difference: f64,
    /// Two-sided evidence of the bootstrap against a mean difference of 0.
    pub p_bootstrap: f64,
    pub wilcoxon: Wilcoxon,
    /// Matched-pairs rank-biserial correlation, −1 to 1: the share of rank sums for the second model minus that against.
    /// Source: Kerby, "The simple difference formula", Comprehensive Psychology 3 (2014).
    pub rank_biserial: f64,
    /// Mean difference in units of its standard deviation over patients (Cohen's d_z).
    pub cohens_dz: f64,
}

/// Wilcoxon's signed-rank test: pairs without a difference are dropped, equal differences share their mean rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Wilcoxon {
    /// Sum of the ranks of positive differences.
    pub positive_ranks: f64,
    /// Sum of the ranks of negative differences.
    pub negative_ranks: f64,
    /// Two-sided; NaN without any difference.
    pub p: f64,
    /// From all signs of these ranks, ties included; otherwise from the normal approximation corrected for ties.
    pub exact: bool,
}

/// As many differences as an exact distribution is made for.
const EXACT_UP_TO: usize = 100;

impl Comparison {
    /// Compares by patient. `first`, `second`: for each patient the values of its cases, in the same order in both; a
    /// case counts where both are defined, a patient by the mean over its cases.
    pub fn of(first: &[Vec<f64>], second: &[Vec<f64>], plan: &Bootstrap) -> Self {
        assert_eq!(first.len(), second.len(), "both models are measured on the same patients");
        let difference = |(first, second): (&Vec<f64>, &Vec<f64>)| {
            assert_eq!(first.len(), second.len(), "both models are measured on the same cases");
            let cases: Vec<f64> =
                first.iter().zip(second).map(|(first, second)| minus(*second, *first)).collect();
            let (sum, count) = sum_and_count(&cases);
            sum / count
        };
        let all: Vec<f64> = first.iter().zip(second).map(difference).collect();
        let differences: Vec<f64> = all.iter().copied().filter(|value| !value.is_nan()).collect();
        let patients = differences.len();
        let Summary { mean, sd, median, .. } = Summary::of(&differences);
        let distribution = plan.distribution(patients, |times| {
            let drawn = differences.iter().zip(times).filter(|(_, times)| **times > 0);
            drawn.map(|(value, times)| value * f64::from(*times)).sum::<f64>() / patients as f64
        });
        let wilcoxon = Wilcoxon::of(&differences);
        let ranks = wilcoxon.positive_ranks + wilcoxon.negative_ranks;
        let count = |wanted: fn(f64) -> bool| differences.iter().filter(|value| wanted(**value)).count();
        Self {
            patients,
            undefined: all.len() - patients,
            higher: count(|value| value > 0.0),
            lower: count(|value| value < 0.0),
            equal: count(|value| value == 0.0),
            mean_difference: mean,
            interval: if patients < 2 { None } else { distribution.interval(plan.level) },
            median_difference: median,
            p_bootstrap: if patients < 2 { f64::NAN } else { distribution.p_of_zero() },
            rank_biserial: (wilcoxon.positive_ranks - wilcoxon.negative_ranks) / ranks,
            cohens_dz: mean / sd,
            wilcoxon,
        }
    }
}

/// Two infinite distances do not differ.
fn minus(second: f64, first: f64) -> f64 {
    if second == first { 0.0 } else { second - first }
}

impl Wilcoxon {
    pub fn of(differences: &[f64]) -> Self {
        let mut differences: Vec<f64> = differences.iter().copied().filter(|value| *value != 0.0).collect();
        differences.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
        let count = differences.len();
        // Twice the mean rank is a whole number.
        let mut ranks = Vec::with_capacity(count);
        let mut ties = 0.0;
        for equal in differences.chunk_by(|a, b| a.abs() == b.abs()) {
            let first = ranks.len() + 1;
            ranks.extend(std::iter::repeat_n(2 * first + equal.len() - 1, equal.len()));
            ties += (equal.len() as f64).powi(3) - equal.len() as f64;
        }
        let all: usize = ranks.iter().sum();
        let positive: usize =
            ranks.iter().zip(&differences).filter(|(_, value)| **value > 0.0).map(|(rank, _)| rank).sum();
        let less = positive.min(all - positive);
        let exact = count <= EXACT_UP_TO;
        let p = match count {
            0 => f64::NAN,
            _ if exact => exact_p(&ranks, less),
            _ => {
                let n = count as f64;
                let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
                let deviation = (less as f64 / 2.0 - n * (n + 1.0) / 4.0) / variance.sqrt();
                erfc(deviation.abs() / 2.0_f64.sqrt())
            }
        };
        Self {
            positive_ranks: positive as f64 / 2.0,
            negative_ranks: (all - positive) as f64 / 2.0,
            p,
            exact,
        }
    }
}

/// Twice the share of all signs that give a rank sum of at most `less`, by counting them rank by rank.
fn exact_p(ranks: &[usize], less: usize) -> f64 {
    let all: usize = ranks.iter().sum();
    let mut share = vec![0.0; all + 1];
    share[0] = 1.0;
    for &rank in ranks {
        for sum in (0..=all).rev() {
            let with = if sum >= rank { share[sum - rank] } else { 0.0 };
            share[sum] = f64::midpoint(share[sum], with);
        }
    }
    (2.0 * share[..=less].iter().sum::<f64>()).min(1.0)
}

/// The complementary error function for `x ≥ 0`: the series of erf below 2, above it the continued fraction. Source:
/// Abramowitz and Stegun, 7.1.6 and 7.1.14.
pub(crate) fn erfc(x: f64) -> f64 {
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= 2.0 * x * x / (2.0 * f64::from(n) + 1.0);
            sum += term;
        }
        return 1.0 - 2.0 * scale * sum;
    }
    let fraction = (1..=100).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    scale / fraction
}
