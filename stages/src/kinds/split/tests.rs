use super::*;
use crate::artifacts::{Case, DatasetInfo, FileRef};
use crate::testing::{TestRun, TestSpace, problems};
use pipe_cache::Digest;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Cases of patients with these numbers of cases; patient and case names do not depend on the order.
fn cohort(sizes: &[usize]) -> CaseTable {
    let mut cases = Vec::new();
    for (patient, size) in sizes.iter().enumerate() {
        for number in 0..*size {
            let id = format!("p{patient:04}_{number:02}");
            let digest = Digest::of_bytes(id.as_bytes());
            cases.push(Case {
                annotations: Vec::new(),
                info: std::collections::BTreeMap::default(),
                patient: format!("p{patient:04}"),
                class: None,
                images: vec![FileRef { path: format!("imagesTr/{id}.nii.gz"), digest }],
                label: None,
                voxels: digest,
                label_voxels: None,
                label_foreground: None,
                shape: [1, 1, 1],
                spacing_mm: [1.0; 3],
                orientation: "RAS".into(),
                dtype: "uint8".into(),
                channels: 1,
                id,
            });
        }
    }
    CaseTable { dataset: DatasetInfo::default(), cases }
}

fn try_split(table: &CaseTable, params: Value, seed: u64) -> Result<TestRun, StageError> {
    let space = TestSpace::new().with_seed(seed);
    space.run::<Split>(params, &[("cases", &space.stored(table))])
}

fn split(table: &CaseTable, params: Value, seed: u64) -> FoldTable {
    let space = TestSpace::new().with_seed(seed);
    let run = space.run::<Split>(params, &[("cases", &space.stored(table))]).expect("the split goes through");
    run.load(&FOLDS)
}

/// A number below `end` that follows from two others.
fn number(a: usize, b: usize, end: usize) -> usize {
    let digest = Digest::of_bytes(format!("{a} {b}").as_bytes()).0;
    usize::from(u16::from_le_bytes([digest[0], digest[1]])) % end
}

#[test]
fn a_patient_never_spans_two_sides_and_every_case_has_one() {
    for trial in 0..60 {
        let sizes: Vec<usize> =
            (0..10 + number(trial, 0, 60)).map(|patient| 1 + number(trial, patient + 1, 5)).collect();
        let table = cohort(&sizes);
        let folds = 2 + number(trial, 999, 4);
        let share = [0.0, 0.1, 0.2, 0.4][trial % 4];
        let result = split(&table, json!({ "folds": folds, "test": share }), trial as u64);
        assert_eq!(result.rows.len(), table.cases.len());
        assert_eq!(result.folds(), folds);
        let mut sides: BTreeMap<&str, BTreeSet<Part>> = BTreeMap::new();
        for (case, row) in table.cases.iter().zip(&result.rows) {
            assert_eq!(case.id, row.id);
            sides.entry(&row.patient).or_default().insert(row.part);
        }
        assert!(sides.values().all(|parts| parts.len() == 1), "trial {trial}: a patient spans two sides");
        for fold in 0..folds {
            let (training, validation) =
                (result.training(fold).expect("fold"), result.validation(fold).expect("fold"));
            assert!(!validation.is_empty(), "trial {trial}: fold {fold} is empty");
            assert_eq!(training.len() + validation.len() + result.test().len(), table.cases.len());
        }
    }
}

#[test]
fn parts_have_the_size_that_was_asked_for() {
    let result = split(&cohort(&[2; 100]), json!({}), 3);
    assert_eq!(result.test().len(), 40);
    for fold in 0..5 {
        assert_eq!(result.validation(fold).expect("fold").len(), 32);
    }
    assert_eq!(split(&cohort(&[1; 10]), json!({ "test": 0 }), 3).test().len(), 0);
    // A share below one patient still gives a test set.
    assert_eq!(split(&cohort(&[1; 10]), json!({ "test": 0.01 }), 3).test().len(), 1);
}

#[test]
fn adding_a_case_moves_few_others() {
    let mut moved_most = 0;
    for trial in 0..40 {
        let sizes: Vec<usize> = (0..80).map(|patient| 1 + number(trial, patient, 3)).collect();
        let mut larger = sizes.clone();
        larger.push(1);
        let (before, after) = (
            split(&cohort(&sizes), json!({}), trial as u64),
            split(&cohort(&larger), json!({}), trial as u64),
        );
        let parts: BTreeMap<&str, Part> = after.rows.iter().map(|row| (row.id.as_str(), row.part)).collect();
        let moved: BTreeSet<&str> = before
            .rows
            .iter()
            .filter(|row| parts[row.id.as_str()] != row.part)
            .map(|row| row.patient.as_str())
            .collect();
        moved_most = moved_most.max(moved.len());
    }
    // There are five cuts, between six parts.
    assert!(moved_most <= 5, "{moved_most} patients moved");
}

#[test]
fn the_seed_decides() {
    let table = cohort(&[1; 50]);
    assert_eq!(split(&table, json!({}), 1), split(&table, json!({}), 1));
    assert_ne!(split(&table, json!({}), 1), split(&table, json!({}), 2));
}

#[test]
fn too_few_patients_are_told_with_both_numbers() {
    let error = try_split(&cohort(&[9, 9, 9, 9]), json!({}), 1).expect_err("3 patients for 5 folds");
    let text = error.to_string();
    assert!(
        text.starts_with("3 patients are too few for 5 folds: 1 of 4 patients are in the test set"),
        "{text}"
    );
    assert!(try_split(&cohort(&[]), json!({}), 1).is_err());
}

#[test]
fn one_large_patient_leaves_no_fold_empty() {
    let result = split(&cohort(&[50, 1, 1, 1, 1, 1]), json!({ "test": 0 }), 1);
    for fold in 0..5 {
        assert!(!result.validation(fold).expect("fold").is_empty());
    }
}

#[test]
fn the_same_image_on_two_sides_stops_the_split() {
    let mut table = cohort(&[1; 40]);
    let voxels = table.cases[0].voxels;
    table.cases.iter_mut().for_each(|case| case.voxels = voxels);
    let error = try_split(&table, json!({}), 1).expect_err("the image leaks").to_string();
    assert!(error.starts_with("the same image is on two sides: case `p0000_00` in "), "{error}");
    assert!(error.ends_with("put a `dedup` stage before the split"), "{error}");
}

#[test]
fn patients_may_span_sides_only_when_asked_and_then_it_is_told() {
    let run = try_split(&cohort(&[2; 40]), json!({ "group_by": "case" }), 1).expect("the user asked for it");
    assert_eq!(run.warnings.len(), 1);
    assert!(
        run.warnings[0].contains("patients are on more than one side because of `group_by: case`"),
        "{:?}",
        run.warnings
    );
    let run = try_split(&cohort(&[2; 40]), json!({}), 1).expect("the split goes through");
    assert_eq!(run.warnings, [""; 0]);
}

#[test]
fn a_fold_that_is_not_there_is_an_error() {
    let result = split(&cohort(&[1; 20]), json!({ "folds": 2 }), 1);
    let error = result.training(2).expect_err("there are two folds").to_string();
    assert_eq!(error, "there is no fold 2: the split has folds 0 to 1");
}

#[test]
fn parameters_that_cannot_be_used_are_told() {
    let told = |params: Value| {
        problems::<Split>(params).into_iter().map(|problem| problem.parameter).collect::<Vec<_>>()
    };
    assert_eq!(told(json!({})), [""; 0]);
    assert_eq!(told(json!({ "folds": 1, "test": 1.0 })), ["folds", "test"]);
    assert_eq!(told(json!({ "test": -0.1 })), ["test"]);
    assert!(serde_json::from_value::<Params>(json!({ "fold": 3 })).is_err());
}
