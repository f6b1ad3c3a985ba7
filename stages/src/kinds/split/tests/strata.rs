//! Balance, and how much of it is paid for with cases that move.

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use std::path::Path;

/// A cohort with a class and a site for each patient.
fn classified(sizes: &[usize], class: impl Fn(usize) -> usize) -> CaseTable {
    let mut table = cohort(sizes);
    for case in &mut table.cases {
        let patient: usize = case.patient[1..].parse().expect("patients are numbers");
        case.class = Some(format!("class {}", class(patient)));
        case.info.insert("site".into(), ["A", "B"][patient % 2].into());
        case.label_foreground = Some(100 + (patient * 7919 % 1000) as u64);
    }
    table
}

fn imbalance_of(table: &CaseTable, params: Value, seed: u64) -> f64 {
    let run = try_split(table, params, seed).expect("the split goes through");
    run.facts["largest imbalance"].as_f64().expect("a number")
}

#[test]
fn every_part_has_its_share_of_a_rare_class() {
    // One patient in ten has class 1.
    let table = classified(&[1; 200], |patient| usize::from(patient % 10 == 0));
    for seed in 0..20 {
        let folds = split(&table, json!({ "stratify": ["class"] }), seed);
        let rare = |ids: Vec<&str>| {
            ids.iter().filter(|id| table.get(id).expect("a case").class.as_deref() == Some("class 1")).count()
        };
        assert!((3..=5).contains(&rare(folds.test())), "seed {seed}");
        for fold in 0..5 {
            assert!((2..=5).contains(&rare(folds.validation(fold).expect("a fold"))), "seed {seed}");
        }
    }
}

#[test]
fn stratifying_by_class_site_and_size_lowers_the_imbalance_of_each() {
    let table = classified(&[1; 300], |patient| patient * 31 % 7 % 3);
    for column in ["class", "site", "mask-size"] {
        let dealt: f64 = (0..8).map(|seed| imbalance_of(&table, json!({ "stratify": [column] }), seed)).sum();
        assert!(dealt / 8.0 < 0.04, "{column}: {}", dealt / 8.0);
    }
    let both = imbalance_of(&table, json!({ "stratify": ["class", "site"] }), 1);
    assert!(both < 0.06, "{both}");
}

#[test]
fn a_column_that_no_case_has_is_told_with_those_they_have() {
    let table = classified(&[1; 40], |_| 0);
    let error = try_split(&table, json!({ "stratify": ["scanner"] }), 1).expect_err("no such column");
    assert_eq!(
        error.to_string(),
        "cannot stratify by `scanner`: no case has it; the cases have `class`, `mask-size`, `site`"
    );
}

#[derive(Deserialize)]
struct Reference {
    cohorts: Vec<Cohort>,
}

#[derive(Deserialize)]
struct Cohort {
    /// Cases of each patient.
    sizes: Vec<usize>,
    /// Class of each patient.
    classes: Vec<usize>,
    folds: usize,
    /// Largest imbalance of `StratifiedGroupKFold`, mean over seeds.
    imbalance: f64,
}

#[test]
fn the_balance_is_near_that_of_scikit_learn() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kinds/split/reference/balance.json");
    let text = fs_err::read_to_string(path).expect("the reference is there");
    let reference: Reference = serde_json::from_str(&text).expect("the reference reads");
    for cohort in reference.cohorts {
        let table = classified(&cohort.sizes, |patient| cohort.classes[patient]);
        let params = json!({ "folds": cohort.folds, "test": 0.0, "stratify": ["class"] });
        let own = (0..10).map(|seed| imbalance_of(&table, params.clone(), seed)).sum::<f64>() / 10.0;
        println!(
            "{} patients, {} folds: {own:.4}, scikit-learn {:.4}",
            cohort.sizes.len(),
            cohort.folds,
            cohort.imbalance
        );
        // Ours gives up some balance so that a further case moves few others.
        assert!(own <= cohort.imbalance + 0.05, "{own}, scikit-learn {}", cohort.imbalance);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Two parts at one cut of the test set and `folds` of the folds, in each stratum that the patient is in: a cut
    /// moves a patient there and, where that changes who is dealt into folds, another at each of their cuts.
    #[test]
    fn adding_a_patient_moves_few_others(
        sizes in prop::collection::vec(1_usize..4, 40..120),
        classes in 1_usize..4,
        folds in 2_usize..6,
        added in 1_usize..4,
        seed in 0_u64..1000,
    ) {
        let class = |patient: usize| patient * 17 % 11 % classes;
        let params = json!({ "folds": folds, "stratify": ["class"] });
        let before = split(&classified(&sizes, class), params.clone(), seed);
        let mut larger = sizes.clone();
        larger.push(added);
        let after = split(&classified(&larger, class), params, seed);
        let parts: BTreeMap<&str, Part> = after.rows.iter().map(|row| (row.id.as_str(), row.part)).collect();
        let moved: BTreeSet<&str> = before
            .rows
            .iter()
            .filter(|row| parts[row.id.as_str()] != row.part)
            .map(|row| row.patient.as_str())
            .collect();
        // At most three cases come in and each cut shifts by less: one patient of three cases, or three of one.
        prop_assert!(moved.len() <= 3 * (folds + 2), "{} of {} patients moved", moved.len(), sizes.len());
    }
}
