//! Against SimpleITK and scikit-learn, and where nothing can be told.

use pipe_metrics::agreement::{disagreement, kappa, majority, staple};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    raters: Vec<Vec<u8>>,
    labels: Vec<Estimate>,
    kappa: Vec<(usize, usize, f64)>,
    voting: Vec<u8>,
    undecided: u8,
}

#[derive(Deserialize)]
struct Estimate {
    label: u8,
    probability: Vec<f64>,
    sensitivity: Vec<f64>,
    specificity: Vec<f64>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("agreement/reference.json")).expect("the reference reads")
}

#[track_caller]
fn near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found}, expected {expected}");
    }
}

#[test]
fn staple_is_simpleitks() {
    let reference = reference();
    let maps: Vec<&[u8]> = reference.raters.iter().map(Vec::as_slice).collect();
    for label in &reference.labels {
        let found = staple(&maps, label.label);
        // ITK stops when a round changes little; ours goes on to 1e-9.
        near(&found.probability, &label.probability, 1e-4);
        near(&found.sensitivity, &label.sensitivity, 1e-5);
        near(&found.specificity, &label.specificity, 1e-5);
        let differing = found
            .probability
            .iter()
            .zip(&label.probability)
            .filter(|(a, b)| (**a >= 0.5) != (**b >= 0.5))
            .count();
        assert_eq!(differing, 0, "the consensus masks are the same");
    }
}

#[test]
fn kappa_is_scikit_learns() {
    let reference = reference();
    for (one, other, expected) in reference.kappa {
        near(&[kappa(&reference.raters[one], &reference.raters[other])], &[expected], 1e-12);
    }
}

#[test]
fn the_majority_is_that_of_simpleitk_where_it_is_decided() {
    let reference = reference();
    let maps: Vec<&[u8]> = reference.raters.iter().map(Vec::as_slice).collect();
    let decided: Vec<(u8, u8)> = majority(&maps)
        .into_iter()
        .zip(reference.voting)
        .filter(|(_, voted)| *voted != reference.undecided)
        .collect();
    assert!(decided.len() > 300 && decided.iter().all(|(own, voted)| own == voted));
}

#[test]
fn agreement_of_equal_maps_is_whole() {
    let map: &[u8] = &[0, 1, 2, 2, 0];
    assert_eq!(kappa(map, map), 1.0);
    assert_eq!(majority(&[map, map, map]), map);
    assert_eq!(disagreement(&[map, map]), [0.0; 5]);
    let found = staple(&[map, map, map], 2);
    near(&found.probability, &[0.0, 0.0, 1.0, 1.0, 0.0], 1e-9);
    near(&found.sensitivity, &[1.0; 3], 1e-9);
}

#[test]
fn votes_are_counted_and_ties_go_to_the_smallest_value() {
    let maps: [&[u8]; 4] = [&[0, 1, 2, 3], &[0, 1, 2, 1], &[1, 1, 0, 2], &[1, 0, 0, 0]];
    assert_eq!(majority(&maps), [0, 1, 0, 0]);
    assert_eq!(disagreement(&maps), [0.5, 0.25, 0.5, 0.75]);
}

#[test]
fn kappa_by_hand_and_where_chance_explains_all() {
    // Observed 3/4, by chance 1/2.
    near(&[kappa(&[0, 0, 1, 1], &[0, 1, 1, 1])], &[0.5], 1e-12);
    assert!(kappa(&[1, 1, 1], &[1, 1, 1]).is_nan());
    assert!(kappa(&[0, 0, 1, 1], &[1, 1, 0, 0]) < 0.0);
}

#[test]
fn a_label_that_nobody_marked_is_nowhere() {
    let found = staple(&[&[0, 0, 1], &[0, 0, 1]], 7);
    assert_eq!(found.probability, [0.0; 3]);
    assert!(found.sensitivity.iter().all(|value| value.is_nan()));
    near(&found.specificity, &[1.0; 2], 1e-12);
}

#[test]
fn a_label_that_everybody_marked_everywhere_is_everywhere() {
    let found = staple(&[&[1, 1], &[1, 1]], 1);
    assert_eq!(found.probability, [1.0; 2]);
    assert!(found.specificity.iter().all(|value| value.is_nan()));
}
