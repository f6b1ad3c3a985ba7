//! Intervals and tests against SciPy, against lists of everything that can be drawn, and by hand.

use pipe_metrics::bootstrap::Bootstrap;
use pipe_metrics::paired::{Comparison, Wilcoxon};
use pipe_metrics::summary::quantile;

use crate::{close, numbers, reference};

fn single(values: &[f64]) -> Vec<Vec<f64>> {
    values.iter().map(|value| vec![*value]).collect()
}

#[test]
fn wilcoxon_and_effects_are_those_of_scipy() {
    for (name, case) in reference("paired.json").as_object().expect("cases") {
        let differences = numbers(&case["differences"]);
        let found = Wilcoxon::of(&differences);
        let theirs = |key: &str| case[key].as_f64().expect("a number");
        close(&format!("{name}: p"), found.p, theirs("p"), 1e-12);
        assert_eq!(found.positive_ranks, theirs("positive_ranks"), "{name}");
        assert_eq!(found.negative_ranks, theirs("negative_ranks"), "{name}");
        assert_eq!(found.exact, differences.len() <= 100, "{name}");
        let zeros = vec![0.0; differences.len()];
        let compared = Comparison::of(&single(&zeros), &single(&differences), &Bootstrap::default());
        close(&format!("{name}: d_z"), compared.cohens_dz, theirs("dz"), 1e-12);
        assert_eq!(compared.wilcoxon, found, "{name}");
    }
}

/// Every assignment of signs, one by one.
#[test]
fn the_exact_p_counts_all_signs() {
    let differences = [0.5, -0.5, 1.0, 2.0, -2.0, 2.0, 3.0, 0.0];
    // Ranks of 0.5, 0.5, 1, 2, 2, 2, 3.
    let ranks = [1.5, 1.5, 3.0, 5.0, 5.0, 5.0, 7.0];
    let all: f64 = ranks.iter().sum();
    let less = 1.5 + 5.0;
    let at_most = (0..1_u32 << 7).filter(|signs| {
        let sum: f64 = (0..7).filter(|bit| signs >> bit & 1 == 1).map(|bit| ranks[bit]).sum();
        sum <= less
    });
    let expected = 2.0 * at_most.count() as f64 / 128.0;
    let found = Wilcoxon::of(&differences);
    assert_eq!((found.p, found.negative_ranks, found.positive_ranks), (expected, less, all - less));
}

#[test]
fn without_a_difference_there_is_nothing_to_test() {
    let compared = Comparison::of(&single(&[0.5, 0.6]), &single(&[0.5, 0.6]), &Bootstrap::default());
    assert!(compared.wilcoxon.p.is_nan() && compared.rank_biserial.is_nan());
    assert_eq!((compared.equal, compared.mean_difference, compared.p_bootstrap), (2, 0.0, 1.0));
}

#[test]
fn patients_are_compared_by_the_mean_over_cases_that_both_models_have() {
    let nan = f64::NAN;
    let first = [vec![0.5, 0.7], vec![0.9, nan], vec![nan], vec![f64::INFINITY]];
    let second = [vec![0.7, 0.9], vec![0.8, 0.1], vec![0.5], vec![f64::INFINITY]];
    let compared = Comparison::of(&first, &second, &Bootstrap::default());
    // 0.2, −0.1, undefined, and two infinite distances that do not differ.
    let counts = [compared.patients, compared.undefined, compared.higher, compared.lower, compared.equal];
    assert_eq!(counts, [3, 1, 1, 1, 1]);
    close("mean", compared.mean_difference, 0.1 / 3.0, 1e-15);
    close("median", compared.median_difference, 0.0, 0.0);
    // Ranks 2 for and 1 against.
    close("rank-biserial", compared.rank_biserial, 1.0 / 3.0, 1e-15);
}

#[test]
fn a_clear_difference_is_told_from_none() {
    let first: Vec<f64> = (0..30).map(|at| 0.8 + 0.001 * f64::from(at)).collect();
    let better: Vec<f64> =
        first.iter().enumerate().map(|(at, value)| value + 0.02 + 0.001 * (at % 3) as f64).collect();
    let plan = Bootstrap::default();
    let clear = Comparison::of(&single(&first), &single(&better), &plan);
    let interval = clear.interval.expect("30 patients");
    assert!(interval.low > 0.02 && interval.high < 0.022, "{interval:?}");
    assert!(clear.p_bootstrap < 0.001 && clear.wilcoxon.p < 1e-6 && clear.rank_biserial == 1.0, "{clear:?}");
    let mixed: Vec<f64> =
        first.iter().enumerate().map(|(at, value)| value + if at % 2 == 0 { 0.01 } else { -0.01 }).collect();
    let none = Comparison::of(&single(&first), &single(&mixed), &plan);
    assert!(none.p_bootstrap > 0.5 && none.wilcoxon.p > 0.5, "{none:?}");
}

#[test]
fn intervals_are_those_of_scipy() {
    let plan = Bootstrap { resamples: 30_000, ..Bootstrap::default() };
    for (name, case) in reference("bootstrap.json").as_object().expect("cases") {
        let found = plan.mean_interval(&single(&numbers(&case["values"]))).expect("patients");
        let theirs = |key: &str| case[key].as_f64().expect("a number");
        // Both are drawn: a tail quantile of 30,000 is within a twentieth of the standard error in 999 of 1,000.
        let tolerance = theirs("error") / 20.0;
        close(&format!("{name}: low"), found.low, theirs("low"), tolerance);
        close(&format!("{name}: high"), found.high, theirs("high"), tolerance);
    }
}

#[test]
fn intervals_are_those_of_all_resamples() {
    let values = [0.1, 0.4, 0.5, 1.0];
    let mut all: Vec<f64> =
        (0..256).map(|draw| (0..4).map(|k| values[draw >> (2 * k) & 3]).sum::<f64>() / 4.0).collect();
    all.sort_by(f64::total_cmp);
    let plan = Bootstrap { resamples: 50_000, level: 0.5, seed: 3 };
    let found = plan.mean_interval(&single(&values)).expect("patients");
    // The distribution has 35 steps: quantiles between steps are exact.
    close("low", found.low, quantile(&all, 0.25), 1e-12);
    close("high", found.high, quantile(&all, 0.75), 1e-12);
}

#[test]
fn cases_of_one_patient_are_drawn_together() {
    // Twenty cases of two patients who differ: as wide as two values, however many cases there are.
    let patients = [vec![0.2; 10], vec![0.8; 10]];
    let found = Bootstrap::default().mean_interval(&patients).expect("two patients");
    close("low", found.low, 0.2, 1e-15);
    close("high", found.high, 0.8, 1e-15);
    let as_cases = Bootstrap::default().mean_interval(&single(&patients.concat())).expect("20 patients");
    assert!(as_cases.low > 0.3 && as_cases.high < 0.7, "{as_cases:?}");
}

#[test]
fn undefined_cases_are_left_out_and_infinite_ones_are_not() {
    let nan = f64::NAN;
    let plan = Bootstrap::default();
    let with = plan.mean_interval(&[vec![0.2, nan], vec![nan], vec![0.8], vec![0.5]]);
    assert_eq!(with, plan.mean_interval(&single(&[0.2, 0.8, 0.5])));
    assert_eq!(plan.mean_interval(&[vec![0.2], vec![nan]]), None, "one patient is no sample");
    assert_eq!(plan.mean_interval(&[]), None);
    let infinite = plan.mean_interval(&single(&[1.0, 2.0, f64::INFINITY])).expect("three patients");
    assert_eq!((infinite.low, infinite.high), (1.0, f64::INFINITY));
}

#[test]
fn a_statistic_that_most_resamples_leave_undefined_has_no_interval() {
    let plan = Bootstrap::default();
    let first_only = |times: &[u32]| if times[0] == 0 { f64::NAN } else { 1.0 };
    // The first of two is missing in a quarter of the resamples; the first of four is drawn twice in about as many.
    assert!(plan.interval(2, first_only).is_some());
    let missing = plan.distribution(2, first_only).undefined;
    assert!((440..560).contains(&missing), "{missing} of 2000: 500 with a standard deviation of 19");
    assert_eq!(plan.interval(4, |times: &[u32]| if times[0] < 2 { f64::NAN } else { 1.0 }), None);
}

#[test]
fn the_seed_decides_the_draws() {
    let values = single(&[0.1, 0.5, 0.7, 0.9, 0.3, 0.65]);
    let interval = |seed| Bootstrap { seed, ..Bootstrap::default() }.mean_interval(&values);
    assert_eq!(interval(1), interval(1));
    assert_ne!(interval(1), interval(2));
}

#[test]
fn every_patient_is_drawn_as_often_as_every_other() {
    let mut total = [0_u32; 7];
    let plan = Bootstrap { resamples: 10_000, ..Bootstrap::default() };
    plan.distribution(7, |times| {
        total.iter_mut().zip(times).for_each(|(total, times)| *total += times);
        0.0
    });
    // 10,000 each, with a standard deviation of 93.
    assert!(total.iter().all(|count| count.abs_diff(10_000) < 400), "{total:?}");
    assert_eq!(total.iter().sum::<u32>(), 70_000);
}
