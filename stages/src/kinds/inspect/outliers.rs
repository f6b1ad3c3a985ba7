//! Cases that stand out, told by robust statistics. Judges numbers; opens no file.

use crate::artifacts::{Distribution, Outlier, table_file::seven_digits};
use pipe_metrics::summary::Summary;

/// Beyond this modified z-score a value stands out. Source: Iglewicz & Hoaglin, "How to Detect and Handle Outliers"
/// (1993).
const LIMIT: f64 = 3.5;
/// The factor that makes the median absolute deviation of normal data their standard deviation.
const MAD_TO_SD: f64 = 1.4826;
/// With fewer cases there is no telling what is usual.
const MIN_CASES: usize = 8;
/// Where most cases are equal, those that differ stand out up to this share.
const RARE: f64 = 0.05;
/// When more than this share stands out, there are two kinds of cases, and none of them is an outlier.
const MANY: f64 = 0.1;

/// One number for each case that has it.
pub(super) struct Quantity {
    /// With its unit, e.g. `volume of liver (ml)`.
    pub(super) name: String,
    pub(super) judged: Judged,
    /// Case and value; finite.
    pub(super) values: Vec<(String, f64)>,
}

/// How values of a quantity are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// By their difference.
    ByDifference,
    /// By their ratio: sizes and scales.
    ByFactor,
    /// Not at all: only the distribution is of interest.
    Never,
}

impl Quantity {
    /// `None` when no case has the quantity.
    pub(super) fn distribution(&self) -> Option<Distribution> {
        let values: Vec<f64> = self.values.iter().map(|(_, value)| *value).collect();
        let summary = Summary::of(&values);
        let [min, q1, median, q3, max] =
            [summary.min, summary.q1, summary.median, summary.q3, summary.max].map(seven_digits);
        (summary.count > 0).then_some(Distribution { count: summary.count, min, q1, median, q3, max })
    }

    /// Cases that stand out in this quantity; none when so many do that they are another kind of case.
    pub(super) fn outliers(&self) -> Vec<Outlier> {
        let judged = |value: f64| match self.judged {
            Judged::ByFactor => value.max(f64::MIN_POSITIVE).log10(),
            Judged::ByDifference | Judged::Never => value,
        };
        let values: Vec<f64> = self.values.iter().map(|(_, value)| judged(*value)).collect();
        let Some(distribution) =
            self.distribution().filter(|all| all.count >= MIN_CASES && self.judged != Judged::Never)
        else {
            return Vec::new();
        };
        let median = Summary::of(&values).median;
        let deviations: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        let spread = Summary::of(&deviations).median * MAD_TO_SD;
        // Rounding alone must not make a value differ.
        let differs = |deviation: f64| deviation > 1e-6 * median.abs().max(1e-6);
        let rare = deviations.iter().filter(|deviation| differs(**deviation)).count() as f64
            <= RARE * values.len() as f64;
        let mut outliers = Vec::new();
        for ((case, value), (judged, deviation)) in self.values.iter().zip(values.iter().zip(&deviations)) {
            let robust_z = differs(spread).then(|| (judged - median) / spread);
            let stands_out = match robust_z {
                Some(z) => z.abs() > LIMIT,
                None => rare && differs(*deviation),
            };
            if stands_out {
                outliers.push(Outlier {
                    case: case.clone(),
                    quantity: self.name.clone(),
                    reason: format!(
                        "{} is {}, usually {}",
                        self.name,
                        brief(*value),
                        brief(distribution.median)
                    ),
                    robust_z: robust_z.map(|z| (z * 100.0).round() / 100.0),
                });
            }
        }
        if outliers.len() as f64 > MANY * values.len() as f64 {
            outliers.clear();
        }
        outliers
    }
}

/// Four significant digits, for sentences.
pub(super) fn brief(value: f64) -> String {
    format!("{value:.3e}").parse::<f64>().map_or_else(|_| value.to_string(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(judged: Judged, values: &[f64], expected: &[usize]) {
        let values = values.iter().enumerate().map(|(index, value)| (index.to_string(), *value)).collect();
        let quantity = Quantity { name: "size (mm)".into(), judged, values };
        let found: Vec<usize> =
            quantity.outliers().iter().map(|outlier| outlier.case.parse().expect("an index")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_value_far_from_the_others_stands_out() {
        check(Judged::ByDifference, &[10.0, 11.0, 9.0, 10.5, 9.5, 10.2, 9.8, 10.0, 10.3, 30.0], &[9]);
        check(Judged::ByDifference, &[10.0, 11.0, 9.0, 10.5, 9.5, 10.2, 9.8, 10.1], &[]);
    }

    #[test]
    fn scales_are_compared_by_factor() {
        let spread = [100.0, 200.0, 400.0, 800.0, 100.0, 300.0, 600.0, 1600.0, 500.0];
        check(Judged::ByFactor, &spread, &[]);
        let mut one_more = spread.to_vec();
        one_more.push(1e6);
        check(Judged::ByFactor, &one_more, &[9]);
    }

    #[test]
    fn where_most_are_equal_the_rare_other_stands_out() {
        let mut values = vec![1.0; 39];
        values.push(1.5);
        check(Judged::ByDifference, &values, &[39]);
        values.extend([1.5; 10]);
        check(Judged::ByDifference, &values, &[]);
    }

    #[test]
    fn a_second_kind_of_case_is_no_outlier() {
        let mut values: Vec<f64> = (0..50).map(|index| 100.0 + f64::from(index)).collect();
        values.push(1e6);
        check(Judged::ByFactor, &values, &[50]);
        values.extend([1e6; 9]);
        check(Judged::ByFactor, &values, &[]);
    }

    #[test]
    fn rounding_does_not_stand_out() {
        let mut values = vec![0.1; 39];
        values.push(0.1 + 1e-9);
        check(Judged::ByDifference, &values, &[]);
    }

    #[test]
    fn few_cases_say_nothing() {
        check(Judged::ByDifference, &[1.0, 1.1, 0.9, 1.0, 50.0], &[]);
    }
}
