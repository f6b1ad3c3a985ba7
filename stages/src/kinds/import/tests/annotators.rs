//! A synthetic cohort that several people drew.

use super::*;
use crate::artifacts::Agreement;
use crate::kinds::annotators::{AGREEMENT, Annotators, LABELLED};

/// Eight cases, three annotators.
fn cohort(space: &TestSpace) -> TestRun {
    let phantom = json!({ "cases": 8, "shape": [20, 24, 20], "annotators": 3, "planted": { "defects": 1 } });
    space.run::<Import>(json!({ "from": "phantom", "phantom": phantom }), &[]).expect("a phantom is made")
}

/// Mean Dice of an annotator with the label map that the cases came with.
fn dice(run: &TestRun, annotator: usize) -> f64 {
    let cases = run.load(&CASES).cases;
    let of = |case: &crate::artifacts::Case| {
        let read = |path: &str| nifti::read_label(&run.dir("dataset").join(path)).expect("a label map");
        let (truth, drawn) =
            (read(&case.label.as_ref().expect("sound").path), read(&case.annotations[annotator].file.path));
        let pairs = || truth.as_slice().iter().zip(drawn.as_slice());
        let both = pairs().filter(|(a, b)| **a != 0 && a == b).count();
        let sum: usize = pairs().map(|(a, b)| usize::from(*a != 0) + usize::from(*b != 0)).sum();
        2.0 * both as f64 / sum as f64
    };
    cases.iter().map(of).sum::<f64>() / cases.len() as f64
}

#[test]
fn each_annotator_of_a_phantom_is_less_exact_than_the_one_before() {
    let space = TestSpace::new();
    let run = cohort(&space);
    let cases = run.load(&CASES).cases;
    assert_eq!(cases.len(), 8, "the defect has no label and is left out");
    for case in &cases {
        let names: Vec<&str> = case.annotations.iter().map(|own| own.annotator.as_str()).collect();
        assert_eq!(names, ["annotator_1", "annotator_2", "annotator_3"]);
        assert_eq!(case.annotations[0].file.path, format!("annotator_1/{}.nii.gz", case.id));
    }
    let [first, second, third] = [0, 1, 2].map(|annotator| dice(&run, annotator));
    assert!(1.0 > first && first > second && second > third && third > 0.4, "{first}, {second}, {third}");
    assert_eq!(run.content("dataset"), cohort(&TestSpace::new()).content("dataset"));
}

#[test]
fn what_is_hard_to_draw_is_disputed_and_the_consensus_is_better_than_the_worst() {
    let space = TestSpace::new();
    let imported = cohort(&space);
    space.ingest(imported.dir("dataset"));
    let cases = space.stored(&imported.load(&CASES));
    let run =
        space.run::<Annotators>(json!({ "label": "staple" }), &[("cases", &cases)]).expect("goes through");
    let Agreement { ranking, annotators, .. } = run.load(&AGREEMENT);
    // Cases 4 and 8 are hard.
    let first: BTreeSet<&str> = ranking[..2].iter().map(|row| row.case.as_str()).collect();
    assert_eq!(first, BTreeSet::from(["phantom_004", "phantom_008"]), "{ranking:?}");
    let mean = |who: &str| {
        let own = annotators.iter().filter(|row| row.annotator == who).filter_map(|row| row.sensitivity);
        let values: Vec<f64> = own.collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let found = ["annotator_1", "annotator_2", "annotator_3"].map(mean);
    assert!(
        found[0] > found[1] && found[1] > found[2],
        "STAPLE takes them for as good as they are: {found:?}"
    );
    assert_eq!(run.load(&LABELLED).cases.len(), 8);
}

#[test]
fn a_phantom_has_no_annotators_unless_asked() {
    let told = |phantom: Value| problems::<Import>(json!({ "from": "phantom", "phantom": phantom })).len();
    assert_eq!((told(json!({ "annotators": 26 })), told(json!({ "annotators": 27 }))), (0, 1));
    let space = TestSpace::new();
    let run = space
        .run::<Import>(json!({ "from": "phantom", "phantom": { "cases": 2, "shape": [18, 20, 18] } }), &[])
        .expect("a phantom is made");
    assert!(run.load(&CASES).cases.iter().all(|case| case.annotations.is_empty()));
}
