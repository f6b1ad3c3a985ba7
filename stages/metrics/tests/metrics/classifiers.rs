//! Two classifiers on the same cases: against MLstatkit and statsmodels, against all pairs, and by hand.

use pipe_metrics::classification::{DeLong, McNemar, Probabilities};
use proptest::prelude::*;

use crate::{close, numbers, reference};

/// Two classes from the probability of the second.
fn binary(second: &[f64], truth: &[usize]) -> Probabilities {
    let rows = second.iter().flat_map(|p| [1.0 - p, *p]).collect();
    Probabilities::new(2, rows, truth.to_vec()).expect("sound probabilities")
}

#[test]
fn tests_are_those_of_the_libraries() {
    let cases = reference("classifiers.json");
    let cases = cases.as_object().expect("cases");
    assert_eq!(cases.len(), 4);
    for (name, case) in cases {
        let truth: Vec<usize> = numbers(&case["truth"]).iter().map(|class| *class as usize).collect();
        let [first, second] = ["first", "second"].map(|key| binary(&numbers(&case[key]), &truth));
        let value = |key: &str| case[key].as_f64().expect("a number");
        let found = DeLong::of(&first, &second, 1);
        close(&format!("{name}: difference"), found.difference, value("difference"), 1e-12);
        close(&format!("{name}: z"), found.z, value("z"), 1e-10);
        close(&format!("{name}: p"), found.p, value("p"), 1e-10);
        // Of two classes either may be the one that is ranked.
        let other = DeLong::of(&first, &second, 0);
        close(&format!("{name}: z of the other class"), other.z, found.z, 1e-10);
        let found = McNemar::of(&first, &second);
        assert_eq!(
            [found.only_first, found.only_second].map(|n| n as f64),
            [value("only_first"), value("only_second")]
        );
        close(&format!("{name}: McNemar"), found.p, value("mcnemar"), 1e-12);
    }
}

#[test]
fn a_case_worked_by_hand() {
    let truth = [1, 1, 0, 0];
    let (first, second) = (binary(&[0.9, 0.4, 0.6, 0.2], &truth), binary(&[0.9, 0.7, 0.6, 0.2], &truth));
    // Placements of the positives are 1 and 1/2, then 1 and 1; of the negatives 1/2 and 1, then 1 and 1.
    let found = DeLong::of(&first, &second, 1);
    assert_eq!(found.difference, 0.25);
    // Each differs by 0 and 1/2: variance 1/8, of a mean 1/16.
    close("standard error", found.standard_error, (2.0_f64 / 16.0).sqrt(), 1e-15);
    close("z", found.z, 0.5_f64.sqrt(), 1e-15);
    // 2·(1 − Φ(0.70711)).
    close("p", found.p, 0.479_500_122_186_953_5, 1e-12);
    let found = McNemar::of(&first, &second);
    assert_eq!((found.only_first, found.only_second, found.p), (0, 1, 1.0));
}

#[test]
fn what_does_not_differ_is_undefined_and_not_certain() {
    let same = binary(&[0.9, 0.4, 0.6, 0.2], &[1, 1, 0, 0]);
    let found = DeLong::of(&same, &same, 1);
    assert_eq!(found.difference, 0.0);
    assert!(found.z.is_nan() && found.p.is_nan(), "{found:?}");
    assert!(McNemar::of(&same, &same).p.is_nan());
    let one_kind = binary(&[0.9, 0.4], &[1, 1]);
    assert!(DeLong::of(&one_kind, &one_kind, 1).difference.is_nan());
    assert!(DeLong::of(&one_kind, &one_kind, 0).p.is_nan());
}

#[test]
fn many_cases_do_not_underflow() {
    let count = 6000;
    let truth = vec![1; count];
    let right = |of: &dyn Fn(usize) -> bool| -> Vec<f64> {
        (0..count).map(|case| if of(case) { 0.9 } else { 0.1 }).collect()
    };
    let (first, second) = (binary(&right(&|k| k % 2 == 0), &truth), binary(&right(&|k| k % 2 == 1), &truth));
    let found = McNemar::of(&first, &second);
    assert_eq!((found.only_first, found.only_second), (3000, 3000));
    close("p of halves", found.p, 1.0, 1e-9);
}

proptest! {
    #[test]
    fn the_difference_is_that_of_the_areas(cases in prop::collection::vec((0_u8..6, 0_u8..6, 0_usize..2), 4..25)) {
        let truth: Vec<usize> = cases.iter().map(|case| case.2).collect();
        let of = |value: &dyn Fn(&(u8, u8, usize)) -> u8| {
            binary(&cases.iter().map(|case| f64::from(value(case)) / 6.0).collect::<Vec<_>>(), &truth)
        };
        let (first, second) = (of(&|case| case.0), of(&|case| case.1));
        let once = first.once();
        let expected = second.auc_roc(1, &once) - first.auc_roc(1, &once);
        let found = DeLong::of(&first, &second, 1);
        prop_assert!((found.difference.is_nan() && expected.is_nan()) || (found.difference - expected).abs() < 1e-12);
        let turned = DeLong::of(&second, &first, 1);
        prop_assert!((turned.z.is_nan() && found.z.is_nan()) || (turned.z + found.z).abs() < 1e-9);
    }
}
