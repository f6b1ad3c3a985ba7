//! Intervals, empty masks and the comparison with a baseline.

use super::*;
use crate::artifacts::metrics::{ComparisonRow, Ensemble, LabelPresence, MemberScore};

#[test]
fn figures_stand_beside_their_intervals() {
    let html = page(json!({}), &metrics(&[("left", &[0.5, 0.75])]), None, &[]);
    let page = parsed(&html);
    let all_text = text(page.root_element());
    assert!(all_text.contains("90 % interval 0.250 to 0.750"), "of the mean foreground Dice");
    assert!(all_text.contains("0.500 to 0.688"), "of the mean 0.625");
    assert!(all_text.contains("from 300 bootstrap samples of 1 patient."), "{all_text}");
    assert!(!all_text.contains("Compared with the baseline") && !all_text.contains("Empty masks"));
}

#[test]
fn empty_masks_are_counted_for_people() {
    let mut metrics = metrics(&[("left", &[0.5, f64::NAN]), ("right", &[0.5, 0.5])]);
    let label = |label, name: &str, absent| LabelPresence {
        label,
        name: name.into(),
        in_both: 2 - absent,
        missed: 0,
        spurious: 0,
        absent,
    };
    metrics.summary.labels = vec![label(1, "left", 1), label(2, "right", 0)];
    let html = page(json!({}), &metrics, None, &[]);
    let page = parsed(&html);
    let all_text = text(page.root_element());
    assert!(all_text.contains("Empty masks") && all_text.contains("Dice 1"), "{all_text}");
    assert!(all_text.contains("distances are `worst`"));
}

#[test]
fn a_baseline_is_a_table_of_differences() {
    let mut metrics = metrics(&[("left", &[0.5, 0.75])]);
    metrics.summary.comparison = vec![ComparisonRow {
        label: 1,
        name: HOSTILE.into(),
        metric: "dice".into(),
        patients: 12,
        undefined: 0,
        better: 9,
        worse: 2,
        equal: 1,
        mean_difference: Some(-0.0125),
        interval: Some(Interval { low: -0.03, high: 0.005 }),
        median_difference: Some(0.0),
        p_wilcoxon: Some(0.0321),
        exact: true,
        p_bootstrap: None,
        rank_biserial: Some(0.5),
        cohens_dz: Some(0.25),
    }];
    let html = page(json!({}), &metrics, None, &[]);
    let page = parsed(&html);
    assert_eq!(all(&page, "script").len(), 0);
    let all_text = text(page.root_element());
    for wanted in ["Compared with the baseline", "12 patients at most", "0.0321", "0.25"] {
        assert!(all_text.contains(wanted), "{wanted}: {all_text}");
    }
}

#[test]
fn what_joining_networks_is_worth_is_a_sentence_with_its_interval() {
    #[track_caller]
    fn check(low: f64, high: f64, verdict: &str) {
        let mut metrics = metrics(&[("left", &[0.5, 0.75])]);
        let member =
            |name: &str, dice| MemberScore { name: name.into(), cases: 2, mean_foreground_dice: Some(dice) };
        metrics.summary.ensemble = Some(Ensemble {
            members: vec![member("onnx[fold=0]", 0.8), member("onnx[fold=1]", 0.84)],
            mean_of_members: Some(0.82),
            ensemble: Some(0.85),
            difference: Some(0.03),
            interval: Some(Interval { low, high }),
            p_bootstrap: Some(0.01),
        });
        let html = page(json!({}), &metrics, None, &[]);
        let page = parsed(&html);
        let all_text = text(page.root_element());
        assert!(all_text.contains(verdict), "{all_text}");
        assert!(all_text.contains("0.8500 against 0.8200, a difference of 0.0300"), "{all_text}");
    }
    check(0.01, 0.05, "The ensemble is better than its members are on average");
    check(-0.01, 0.05, "The ensemble and its members cannot be told apart");
    check(-0.05, -0.01, "The ensemble is worse than its members are on average");
}
