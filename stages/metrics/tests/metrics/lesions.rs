//! Lesions against SciPy's components, and cases worked by hand.

use pipe_metrics::grid::Grid;
use pipe_metrics::lesions::{Connectivity, LesionRule, Lesions};

use crate::{close, numbers, reference};

#[test]
fn lesions_are_the_components_of_scipy() {
    let mut compared = 0;
    for case in reference("lesions.json").as_array().expect("cases") {
        let shape = numbers(&case["shape"]);
        let grid = Grid::new([0, 1, 2].map(|axis| shape[axis] as usize), [1.0; 3]).expect("a sound grid");
        let map = |key: &str| numbers(&case[key]).iter().map(|v| *v as u8).collect::<Vec<u8>>();
        let (reference, prediction) = (map("reference"), map("prediction"));
        for row in case["expected"].as_array().expect("rows") {
            let connectivity = match row["connectivity"].as_str() {
                Some("faces") => Connectivity::Faces,
                _ => Connectivity::Corners,
            };
            let rule = LesionRule { connectivity, overlap: row["overlap"].as_f64().expect("a share") };
            let found = Lesions::between(&reference, &prediction, 1, &grid, &rule).expect("both fit");
            let ours = [found.found, found.missed, found.true_predicted, found.false_predicted];
            assert_eq!(
                ours.map(|count| count as f64).to_vec(),
                numbers(&row["counts"]),
                "{shape:?} {rule:?}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 12);
}

#[track_caller]
fn check(reference: &[u8], prediction: &[u8], overlap: f64, expected: [u64; 4], f1: f64) {
    let grid = Grid::new([1, 1, reference.len()], [1.0; 3]).expect("a sound grid");
    let rule = LesionRule { overlap, ..LesionRule::default() };
    let found = Lesions::between(reference, prediction, 1, &grid, &rule).expect("both fit");
    assert_eq!([found.found, found.missed, found.true_predicted, found.false_predicted], expected);
    close("F1", found.f1(), f1, 1e-15);
}

#[test]
fn a_lesion_is_found_whole_or_in_pieces() {
    // One found by two pieces, one missed; one prediction false. Recall 1/2, precision 2/3.
    check(&[1, 1, 1, 0, 1, 0, 0], &[1, 0, 1, 0, 0, 0, 1], 0.0, [1, 1, 2, 1], 4.0 / 7.0);
    // A third of the first is covered: not enough for a half, though the prediction lies within.
    check(&[1, 1, 1, 0], &[0, 1, 0, 0], 0.5, [0, 1, 1, 0], 0.0);
    // Other labels are no lesions.
    check(&[1, 2, 1], &[2, 2, 2], 0.0, [0, 2, 0, 0], 0.0);
}

#[test]
fn without_lesions_there_is_no_score() {
    check(&[0, 0], &[0, 0], 0.0, [0; 4], f64::NAN);
    check(&[0, 0], &[1, 0], 0.0, [0, 0, 0, 1], 0.0);
}
