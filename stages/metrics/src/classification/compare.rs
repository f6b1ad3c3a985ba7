//! Whether one classifier is better than another on the same cases. Both tests take cases as independent: where patients
//! have several, a bootstrap over patients is what holds.

use serde::{Deserialize, Serialize};

use super::Probabilities;
use crate::paired::erfc;

/// The difference of two correlated areas under the ROC curve, the second minus the first. Source: DeLong, DeLong and
/// Clarke-Pearson, Biometrics 44 (1988); computed by midranks as of Sun and Xu, IEEE Signal Processing Letters 21 (2014).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLong {
    pub difference: f64,
    pub standard_error: f64,
    /// NaN where the difference has no variance: both rank every pair alike.
    pub z: f64,
    /// Two-sided; NaN where `z` is.
    pub p: f64,
}

/// McNemar's exact test of two error rates: of the cases that one of the two alone puts in the right class, half should be
/// the second's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Cases that only the first puts in the right class.
    pub only_first: u64,
    /// Cases that only the second puts in the right class.
    pub only_second: u64,
    /// Two-sided, from the binomial distribution; NaN without any such case.
    pub p: f64,
}

impl DeLong {
    /// Compares how two classifiers rank the cases of one class against the rest; NaN without two cases of both kinds.
    pub fn of(first: &Probabilities, second: &Probabilities, class: usize) -> Self {
        check(first, second);
        let [one, other] = [first, second].map(|found| Placements::of(found, class));
        let difference = other.area - one.area;
        let variance = variance_of_difference(&one.positives, &other.positives)
            + variance_of_difference(&one.negatives, &other.negatives);
        let standard_error = variance.sqrt();
        let z = if standard_error == 0.0 { f64::NAN } else { difference / standard_error };
        let p = if z.is_nan() { f64::NAN } else { erfc(z.abs() / 2.0_f64.sqrt()) };
        Self { difference, standard_error, z, p }
    }
}

impl McNemar {
    /// Compares the most probable classes of two classifiers.
    pub fn of(first: &Probabilities, second: &Probabilities) -> Self {
        check(first, second);
        let (mut only_first, mut only_second) = (0, 0);
        for (case, truth) in first.truth.iter().enumerate() {
            match (first.decision[case] == *truth, second.decision[case] == *truth) {
                (true, false) => only_first += 1,
                (false, true) => only_second += 1,
                _ => {}
            }
        }
        Self { only_first, only_second, p: sign_test(only_first, only_second) }
    }
}

fn check(first: &Probabilities, second: &Probabilities) {
    assert_eq!(first.truth, second.truth, "both classifiers are measured on the same cases");
    assert_eq!(first.classes, second.classes, "both classifiers tell the same classes apart");
}

/// For each case of a class the share of others that it is ranked above, equal ones counted half; for each other the share
/// of cases of the class that are ranked above it.
struct Placements {
    area: f64,
    positives: Vec<f64>,
    negatives: Vec<f64>,
}

impl Placements {
    fn of(found: &Probabilities, class: usize) -> Self {
        let positive = |case: usize| found.truth[case] == class;
        let all = found.order[class].len();
        let count = (0..all).filter(|&case| positive(case)).count();
        let (m, n) = (count as f64, (all - count) as f64);
        let mut place = vec![0.0; all];
        // From the highest down, a group of equal probabilities at a time.
        let (mut above_positive, mut above_negative) = (0.0, 0.0);
        let equal = |a: &usize, b: &usize| found.probability(*a, class) == found.probability(*b, class);
        for group in found.order[class].chunk_by(equal) {
            let positives = group.iter().filter(|&&case| positive(case)).count() as f64;
            let negatives = group.len() as f64 - positives;
            for &case in group {
                place[case] = if positive(case) {
                    (n - above_negative - negatives / 2.0) / n
                } else {
                    (above_positive + positives / 2.0) / m
                };
            }
            above_positive += positives;
            above_negative += negatives;
        }
        let of = |wanted: bool| -> Vec<f64> {
            (0..all).filter(|&case| positive(case) == wanted).map(|case| place[case]).collect()
        };
        let (positives, negatives) = (of(true), of(false));
        let area = if negatives.is_empty() { f64::NAN } else { positives.iter().sum::<f64>() / m };
        Self { area, positives, negatives }
    }
}

/// The variance of the difference of two means over the same cases.
fn variance_of_difference(first: &[f64], second: &[f64]) -> f64 {
    let count = first.len() as f64;
    let differences = || first.iter().zip(second).map(|(first, second)| second - first);
    let mean = differences().sum::<f64>() / count;
    differences().map(|difference| (difference - mean).powi(2)).sum::<f64>() / (count - 1.0) / count
}

/// Two-sided: twice the chance of at most the smaller of two counts where each is as likely.
fn sign_test(one: u64, other: u64) -> f64 {
    let all = one + other;
    if all == 0 {
        return f64::NAN;
    }
    // Of logarithms: 2⁻ⁿ alone is too small for many cases.
    let mut chance = -(all as f64) * 2.0_f64.ln();
    let mut sum = chance.exp();
    for k in 1..=one.min(other) {
        chance += ((all - k + 1) as f64 / k as f64).ln();
        sum += chance.exp();
    }
    (2.0 * sum).min(1.0)
}
