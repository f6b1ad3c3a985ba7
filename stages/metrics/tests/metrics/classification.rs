//! Figures of class probabilities against scikit-learn, against their definitions written the slow way, and by hand.

use pipe_metrics::classification::{Decisions, Probabilities, macro_mean};
use proptest::prelude::*;
use serde_json::Value;

use crate::{close, numbers, reference};

fn integers(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|value| value.as_u64().expect("a count")).collect()
}

fn close_all(what: &str, ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    ours.iter().zip(theirs).for_each(|(ours, theirs)| close(what, *ours, *theirs, 1e-12));
}

#[test]
fn figures_are_those_of_scikit_learn() {
    for (name, case) in reference("classification.json").as_object().expect("cases") {
        let classes = case["classes"].as_u64().expect("a count") as usize;
        let truth = integers(&case["truth"]).iter().map(|class| *class as usize).collect();
        let rows = case["probabilities"].as_array().expect("rows").iter().flat_map(numbers).collect();
        let found = Probabilities::new(classes, rows, truth).expect("sound probabilities");
        let once = found.once();
        let weights: Vec<u32> = integers(&case["weights"]).iter().map(|weight| *weight as u32).collect();
        let each = |of: &dyn Fn(usize) -> f64| (0..classes).map(of).collect::<Vec<f64>>();
        let same = |key: &str, ours: &[f64]| close_all(&format!("{name}: {key}"), ours, &numbers(&case[key]));
        same("auc_roc", &each(&|class| found.auc_roc(class, &once)));
        same("auc_pr", &each(&|class| found.auc_pr(class, &once)));
        same("auc_roc_weighted", &each(&|class| found.auc_roc(class, &weights)));
        same("auc_pr_weighted", &each(&|class| found.auc_pr(class, &weights)));
        let decisions = found.decisions(&once);
        same("precision", &each(&|class| decisions.precision(class)));
        same("recall", &each(&|class| decisions.recall(class)));
        same("f1", &each(&|class| decisions.f1(class)));
        let one = |key: &str, ours: f64| {
            close(&format!("{name}: {key}"), ours, case[key].as_f64().expect("a number"), 1e-12);
        };
        one("accuracy", decisions.accuracy());
        one("balanced_accuracy", decisions.balanced_accuracy());
        one("mcc", decisions.mcc());
        one("mcc_weighted", found.decisions(&weights).mcc());
        one("brier", found.brier(&once));
        one("ece", found.ece(10, &once));
        if classes > 2 {
            one("macro", macro_mean(classes, |class| found.auc_roc(class, &once)));
        }
        let rows = case["confusion"].as_array().expect("rows");
        assert_eq!(decisions.counts, rows.iter().map(integers).collect::<Vec<_>>(), "{name}");
        let bins = found.reliability(10, &once);
        assert_eq!(bins.iter().map(|bin| bin.cases).collect::<Vec<_>>(), integers(&case["bins"]), "{name}");
        let used: Vec<_> = bins.iter().filter(|bin| bin.cases > 0).collect();
        same("observed", &used.iter().map(|bin| bin.observed).collect::<Vec<f64>>());
        same("confidence", &used.iter().map(|bin| bin.confidence).collect::<Vec<f64>>());
    }
}

/// Two classes from the probability of the second.
fn binary(second: &[f64], truth: &[usize]) -> Probabilities {
    let rows = second.iter().flat_map(|p| [1.0 - p, *p]).collect();
    Probabilities::new(2, rows, truth.to_vec()).expect("sound probabilities")
}

#[test]
fn a_case_worked_by_hand() {
    let found = binary(&[0.9, 0.6, 0.6, 0.2], &[1, 0, 1, 0]);
    let once = found.once();
    // Of four pairs three are in order and one is equal; at recall 1/2 precision 1, then 2/3.
    assert_eq!(found.auc_roc(1, &once), 3.5 / 4.0);
    close("average precision", found.auc_pr(1, &once), 0.5 + 0.5 * 2.0 / 3.0, 1e-15);
    close("Brier", found.brier(&once), (0.01 + 0.36 + 0.16 + 0.04) / 4.0, 1e-15);
    // Bins of a half: 0.2 against 0 and 0.7 against 2/3.
    close("ECE", found.ece(2, &once), (0.2 + 3.0 * (0.7 - 2.0 / 3.0)) / 4.0, 1e-15);
    let roc: Vec<(f64, f64)> = found.roc_curve(1).iter().map(|point| (point.x, point.y)).collect();
    assert_eq!(roc, [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]);
    let pr: Vec<(f64, f64)> = found.pr_curve(1).iter().map(|point| (point.x, point.y)).collect();
    assert_eq!(pr, [(0.5, 1.0), (1.0, 2.0 / 3.0), (1.0, 0.5)]);
    let Decisions { counts } = found.decisions(&once);
    assert_eq!(counts, [[1, 1], [0, 2]]);
}

#[test]
fn what_cannot_be_ranked_is_undefined() {
    let found = binary(&[0.9, 0.6], &[1, 1]);
    assert!(found.auc_roc(1, &found.once()).is_nan() && found.auc_pr(0, &found.once()).is_nan());
    assert!(found.roc_curve(1).is_empty() && found.roc_curve(0).is_empty() && found.pr_curve(0).is_empty());
    assert_eq!(found.pr_curve(1).len(), 2);
    assert_eq!(found.decisions(&found.once()).mcc(), 0.0);
    let none = [0, 0];
    let decisions = found.decisions(&none);
    let undefined = [found.brier(&none), found.ece(5, &none), decisions.mcc(), decisions.accuracy()];
    assert!(undefined.iter().all(|value| value.is_nan()), "{undefined:?}");
}

#[test]
fn probabilities_that_are_none_are_refused() {
    #[track_caller]
    fn check(classes: usize, values: &[f64], truth: &[usize], expected: &str) {
        let error = Probabilities::new(classes, values.to_vec(), truth.to_vec()).expect_err("refused");
        assert_eq!(error.to_string(), expected);
    }
    check(1, &[1.0], &[0], "1 classes: at least 2 are needed to tell apart");
    check(2, &[1.0], &[0], "1 probabilities of 1 cases: 2 classes need 2 each");
    check(2, &[1.0, 0.0], &[2], "case 0 is of class 2 but there are 2 classes, counted from 0");
    check(2, &[1.5, -0.5], &[0], "case 0 has the probability 1.5 for class 0: it must be from 0 to 1");
    check(2, &[0.5, f64::NAN], &[0], "case 0 has the probability NaN for class 1: it must be from 0 to 1");
    check(2, &[0.5, 0.25], &[0], "the probabilities of case 0 sum to 0.75, not to 1");
}

proptest! {
    #[test]
    fn the_area_is_the_share_of_pairs_in_order(cases in prop::collection::vec((0_u8..8, 0_usize..2, 0_u32..3), 1..25)) {
        let second: Vec<f64> = cases.iter().map(|case| f64::from(case.0) / 8.0).collect();
        let truth: Vec<usize> = cases.iter().map(|case| case.1).collect();
        let times: Vec<u32> = cases.iter().map(|case| case.2).collect();
        let (mut order, mut pairs) = (0.0, 0.0);
        for (p, yes, n) in &cases {
            for (q, no, m) in cases.iter().filter(|_| *yes == 1) {
                let weight = f64::from(n * m) * (1 - no) as f64;
                pairs += weight;
                order += weight * (f64::from(u8::from(p > q)) + f64::from(u8::from(p >= q))) / 2.0;
            }
        }
        let found = binary(&second, &truth);
        let area = found.auc_roc(1, &times);
        prop_assert!((area.is_nan() && pairs == 0.0) || (area - order / pairs).abs() < 1e-12);

        // A case that counts twice is a case that is there twice.
        let repeated: Vec<usize> = (0..cases.len()).flat_map(|k| std::iter::repeat_n(k, times[k] as usize)).collect();
        let copied = binary(
            &repeated.iter().map(|&k| second[k]).collect::<Vec<_>>(),
            &repeated.iter().map(|&k| truth[k]).collect::<Vec<_>>(),
        );
        let same = |a: f64, b: f64| (a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-12;
        let once = copied.once();
        prop_assert!(same(found.auc_pr(1, &times), copied.auc_pr(1, &once)));
        prop_assert!(same(found.brier(&times), copied.brier(&once)));
        prop_assert!(same(found.ece(4, &times), copied.ece(4, &once)));
        prop_assert_eq!(found.decisions(&times), copied.decisions(&once));
    }
}
