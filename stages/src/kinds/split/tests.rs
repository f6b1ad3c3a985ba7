mod strata;

use super::*;
use crate::artifacts::{Case, DatasetInfo, Duplicate, DuplicateAction, DuplicateKind, FileRef};
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
                patient: format!("p{patient:04}"),
                class: None,
                annotations: Vec::new(),
                info: BTreeMap::new(),
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
    assert!(error.contains("leaks between the parts:\n  the same image: case `p0000_00` in "), "{error}");
    assert!(error.contains("let a `dedup` stage before the split remove or group"), "{error}");
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
    assert_eq!(told(json!({ "nested": { "folds": 5, "fold": 5 } })), ["nested"]);
    assert_eq!(told(json!({ "nested": { "folds": 5, "fold": 0 }, "official": {} })), ["official"]);
    assert!(serde_json::from_value::<Params>(json!({ "fold": 3 })).is_err());
}

fn row(one: &str, other: &str, kind: DuplicateKind, action: DuplicateAction) -> Duplicate {
    Duplicate {
        case: other.into(),
        patient: other[..5].into(),
        kind,
        same_as: one.into(),
        same_as_patient: one[..5].into(),
        score: 0.97,
        runner_up: None,
        content: None,
        action,
        remark: String::new(),
    }
}

fn split_with(table: &CaseTable, rows: Vec<Duplicate>) -> Result<FoldTable, StageError> {
    let space = TestSpace::new();
    let inputs = [("cases", space.stored(table)), ("duplicates", space.stored(&DuplicateTable { rows }))];
    let inputs: Vec<(&str, &std::path::Path)> =
        inputs.iter().map(|(port, dir)| (*port, dir.as_path())).collect();
    Ok(space.run::<Split>(json!({}), &inputs)?.load(&FOLDS))
}

#[test]
fn a_duplicate_or_relative_on_two_sides_stops_the_split_and_is_named() {
    let table = cohort(&[1; 40]);
    let parts = split(&table, json!({}), 1);
    let (test, trained) = (parts.test()[0], parts.validation(0).expect("fold 0")[0]);
    let (one, other) = (test.min(trained), test.max(trained));
    for (kind, verb) in [
        (DuplicateKind::NearImage, "holds nearly the image of"),
        (DuplicateKind::Related, "comes from the same scan as"),
    ] {
        let error = split_with(&table, vec![row(one, other, kind, DuplicateAction::Reported)]);
        let error = error.expect_err("a leak").to_string();
        let line = error.lines().nth(1).expect("a leak a line");
        assert!(line.contains(verb) && line.contains(one) && line.contains(other), "{error}");
        assert!(line.contains("in the test set") && line.contains("in fold 0"), "{error}");
    }
    // A label map used twice says nothing about the images, and what was removed is nowhere.
    let harmless = vec![
        row(one, other, DuplicateKind::ExactLabel, DuplicateAction::Reported),
        row(one, "p9999_00", DuplicateKind::NearImage, DuplicateAction::Removed),
    ];
    assert!(split_with(&table, harmless).is_ok());
}

#[test]
fn pairs_that_are_one_patient_pass_the_leak_check() {
    let mut table = cohort(&[1; 40]);
    table.cases[39].patient = "p0000".into();
    let rows = vec![row("p0000_00", "p0039_00", DuplicateKind::Related, DuplicateAction::Grouped)];
    let parts = split_with(&table, rows).expect("the pair is one patient");
    assert_eq!(parts.rows[0].part, parts.rows[39].part);
}

#[test]
fn repeats_share_the_test_set_and_have_other_folds() {
    let table = cohort(&[1; 60]);
    let (first, second) = (split(&table, json!({}), 1), split(&table, json!({ "repeat": 1 }), 1));
    assert_eq!(first.test(), second.test());
    assert_ne!(first.validation(0).expect("fold"), second.validation(0).expect("fold"));
}

#[test]
fn outer_folds_are_test_sets_that_hold_every_case_once() {
    let table = cohort(&[2; 41]);
    let mut tested = BTreeSet::new();
    for fold in 0..4 {
        let inner = split(&table, json!({ "nested": { "folds": 4, "fold": fold }, "folds": 3 }), 5);
        assert_eq!(inner.folds(), 3);
        for case in inner.test() {
            assert!(tested.insert(case.to_owned()), "case {case} is tested twice");
        }
        assert!((18..=24).contains(&inner.test().len()));
    }
    assert_eq!(tested.len(), table.cases.len());
}

/// The first `n` cases are official test cases, the next `n` validation cases.
fn with_official(table: &mut CaseTable, n: usize) {
    for (index, case) in table.cases.iter_mut().enumerate() {
        let part = ["Test", "val"].get(index / n).copied().unwrap_or("train");
        case.info.insert("split".into(), part.into());
    }
}

#[test]
fn official_parts_are_taken() {
    let mut table = cohort(&[1; 40]);
    with_official(&mut table, 8);
    let ids = |range: std::ops::Range<usize>| -> Vec<String> {
        table.cases[range].iter().map(|case| case.id.clone()).collect()
    };
    let all = split(&table, json!({ "official": { "take": "all" } }), 1);
    assert_eq!(all.test(), ids(0..8));
    assert_eq!(all.validation(0).expect("fold 0"), ids(8..16));
    assert_eq!(all.training(0).expect("fold 0"), ids(16..40));
    let dealt = split(&table, json!({ "official": {} }), 1);
    assert_eq!((dealt.test().len(), dealt.folds()), (8, 5));
    assert_eq!(dealt.test(), ids(0..8));
}

#[test]
fn official_parts_that_divide_a_patient_or_say_nothing_are_told() {
    let mut table = cohort(&[2; 20]);
    with_official(&mut table, 5);
    let error = try_split(&table, json!({ "official": {} }), 1).expect_err("p0002 is divided").to_string();
    assert!(
        error.contains("patient `p0002`: case `p0002_00` in the test set and case `p0002_01`"),
        "{error}"
    );
    table.cases[7].info.insert("split".into(), "maybe".into());
    let error = try_split(&table, json!({ "official": {} }), 1).expect_err("`maybe`").to_string();
    assert_eq!(error, "column `split` of case `p0003_01` holds `maybe`: expected `train`, `val` or `test`");
}
