use super::*;
use crate::artifacts::{Annotation, DatasetInfo};
use crate::testing::{TestRun, TestSpace, problems};
use pipe_cache::Digest;
use pipe_imaging::{Geometry, LabelMap, nifti};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SHAPE: [usize; 3] = [4, 5, 6];

/// Values of a map: label 1 in the first voxels up to `one`, label 2 in the next up to `two`.
fn map(one: usize, two: usize) -> Vec<u8> {
    (0..120).map(|at| if at < one { 1 } else { u8::from(at < two) * 2 }).collect()
}

/// Name of an annotator and what he or she drew.
type Map<'a> = (&'a str, Vec<u8>);

/// A table of cases, each with the maps of annotators by name.
fn table(space: &TestSpace, cases: &[(&str, &[Map<'_>])]) -> CaseTable {
    let labels =
        [(0, "background"), (1, "liver"), (2, "tumour")].map(|(value, name)| (value, name.to_owned()));
    let dataset = DatasetInfo { labels: BTreeMap::from(labels), ..DatasetInfo::default() };
    let cases = cases.iter().map(|(id, drawn)| {
        let annotations = drawn.iter().map(|(annotator, values)| {
            let path = space.path().join(format!("{id}-{annotator}.nii.gz"));
            let geometry = Geometry::with_spacing([values.len() / 30, 5, 6], [1.0; 3]);
            let map = LabelMap::from_vec(values.clone(), geometry).expect("one label a voxel");
            nifti::write_label(&path, &map).expect("a label is written");
            let digest = hash_file(&path).expect("the file is there");
            space.ingest(&path);
            let file = FileRef { path: format!("{id}-{annotator}.nii.gz"), digest };
            Annotation { annotator: (*annotator).into(), file, voxels: digest }
        });
        Case {
            id: (*id).into(),
            patient: (*id).into(),
            class: None,
            images: vec![FileRef { path: format!("{id}.nii.gz"), digest: Digest::of_bytes(id.as_bytes()) }],
            label: None,
            annotations: annotations.collect(),
            info: BTreeMap::new(),
            voxels: Digest::of_bytes(id.as_bytes()),
            label_voxels: None,
            label_foreground: None,
            shape: SHAPE,
            spacing_mm: [1.0; 3],
            orientation: "RAS".into(),
            dtype: "uint8".into(),
            channels: 1,
        }
    });
    CaseTable { dataset, cases: cases.collect() }
}

fn run(space: &TestSpace, table: &CaseTable, params: Value) -> Result<TestRun, StageError> {
    space.run::<Annotators>(params, &[("cases", &space.stored(table))])
}

fn three(space: &TestSpace) -> CaseTable {
    table(
        space,
        &[
            ("agreed", &[("anna", map(20, 40)), ("ben", map(20, 40)), ("carl", map(20, 40))]),
            ("disputed", &[("anna", map(20, 40)), ("ben", map(22, 40)), ("carl", map(60, 80))]),
        ],
    )
}

fn label(run: &TestRun, id: &str) -> Vec<u8> {
    let path = run.dir("dataset").join(format!("labelsTr/{id}.nii.gz"));
    nifti::read_label(&path).expect("a label map").as_slice().to_vec()
}

#[test]
fn the_consensus_is_the_label_of_the_cases_from_then_on() {
    let space = TestSpace::new();
    let table = three(&space);
    for consensus in ["majority", "staple"] {
        let run = run(&space, &table, json!({ "label": consensus })).expect("goes through");
        assert_eq!(label(&run, "agreed"), map(20, 40), "{consensus}");
        // Two of three say 1 in 20..22 or not: ben and carl.
        let expected = if consensus == "majority" { map(22, 40) } else { label(&run, "disputed") };
        assert_eq!(label(&run, "disputed"), expected);
        let cases = run.load(&LABELLED);
        let case = cases.get("agreed").expect("it is there");
        assert_eq!(case.label_foreground, Some(40));
        let file = case.label.as_ref().expect("a label");
        let written = run.dir("dataset").join(&file.path);
        assert_eq!(hash_file(&written).expect("the file is there"), file.digest);
    }
}

#[test]
fn agreement_by_pair_is_that_worked_by_hand_and_the_disputed_case_is_first() {
    let space = TestSpace::new();
    let agreement = run(&space, &three(&space), json!({})).expect("goes through").load(&AGREEMENT);
    let of = |one: &str, other: &str, label: u8| {
        let row = agreement
            .pairs
            .iter()
            .find(|row| row.case == "disputed" && row.one == one && row.other == other && row.label == label);
        row.expect("a row a pair and label").dice.expect("both marked it")
    };
    // 20 voxels and 22, 20 in both; 20 and 18, 18 in both; 20 and 60, 20 in both.
    assert!((of("anna", "ben", 1) - 40.0 / 42.0).abs() < 1e-6);
    assert!((of("anna", "ben", 2) - 36.0 / 38.0).abs() < 1e-6);
    assert!((of("anna", "carl", 1) - 40.0 / 80.0).abs() < 1e-6);
    let ranked: Vec<&str> = agreement.ranking.iter().map(|row| row.case.as_str()).collect();
    assert_eq!(ranked, ["disputed", "agreed"]);
    assert_eq!((agreement.ranking[1].mean_dice, agreement.ranking[1].mean_kappa), (Some(1.0), Some(1.0)));
    assert_eq!(agreement.ranking[1].disputed_share, Some(0.0));
    // Voxels 20 to 79 of 80 that anybody marked.
    assert_eq!(agreement.ranking[0].disputed_share, Some(0.75));
    let carl: Vec<_> = agreement
        .annotators
        .iter()
        .filter(|row| row.case == "disputed" && row.annotator == "carl" && row.label == 1)
        .collect();
    assert_eq!((carl.len(), carl[0].voxels), (1, 60));
    assert!(carl[0].specificity < Some(0.7) && carl[0].sensitivity > Some(0.9), "{carl:?}");
}

#[test]
fn the_disagreement_map_says_where_and_how_much() {
    let space = TestSpace::new();
    let run = run(&space, &three(&space), json!({})).expect("goes through");
    let path = run.dir("agreement").join("disagreement/disputed.nii.gz");
    let image = nifti::read_image(&path).expect("a map");
    let values = image.as_slice();
    assert_eq!(values[..20], [0.0; 20]);
    let third = 1.0 - 2.0 / 3.0;
    assert!(values[20..80].iter().all(|value| (value - third).abs() < 1e-6));
    assert_eq!(values[80..], [0.0; 40]);
}

#[test]
fn the_maps_of_one_annotator_are_taken_as_asked() {
    let space = TestSpace::new();
    let mut table = three(&space);
    table.cases[0].annotations.retain(|own| own.annotator != "carl");
    let run =
        run(&space, &table, json!({ "label": "annotator", "annotator": "carl" })).expect("goes through");
    assert_eq!(run.load(&LABELLED).cases.len(), 1);
    assert_eq!(label(&run, "disputed"), map(60, 80));
    assert_eq!(run.warnings, ["1 cases that `carl` did not draw are left out"]);
}

#[test]
fn a_name_that_nobody_has_is_told_with_those_there_are() {
    let space = TestSpace::new();
    let table = three(&space);
    let error =
        run(&space, &table, json!({ "label": "annotator", "annotator": "dora" })).expect_err("nobody");
    assert_eq!(error.to_string(), "there is no annotator `dora`; the annotators are `anna`, `ben`, `carl`");
    let error = run(&space, &self::table(&space, &[("a", &[])]), json!({})).expect_err("nobody at all");
    assert!(error.to_string().starts_with("no case has the label map of an annotator"), "{error}");
    assert_eq!(problems::<Annotators>(json!({ "label": "annotator" }))[0].parameter, "annotator");
    assert_eq!(problems::<Annotators>(json!({ "annotator": "anna" }))[0].parameter, "annotator");
}

#[test]
fn maps_of_another_grid_are_refused_with_both() {
    let space = TestSpace::new();
    let table = table(&space, &[("a", &[("anna", map(3, 5)), ("ben", vec![0; 90])])]);
    let error = run(&space, &table, json!({})).expect_err("two grids").to_string();
    assert!(
        error.starts_with("case `a`: the label maps of `anna` and `ben` are not on the same grid"),
        "{error}"
    );
    assert!(error.contains("4×5×6") && error.contains("3×5×6"), "{error}");
}

#[test]
fn empty_maps_and_single_annotators_are_no_dispute() {
    let space = TestSpace::new();
    let cases: &[(&str, &[Map<'_>])] = &[
        ("alone", &[("anna", map(3, 5))]),
        ("empty", &[("anna", map(0, 0)), ("ben", map(0, 0))]),
        ("nobody", &[]),
    ];
    let run = run(&space, &table(&space, cases), json!({})).expect("goes through");
    let agreement = run.load(&AGREEMENT);
    assert_eq!(agreement.ranking.len(), 1);
    let row = &agreement.ranking[0];
    assert_eq!((row.mean_dice, row.mean_kappa, row.disputed_share), (None, None, None));
    assert_eq!(label(&run, "alone"), map(3, 5));
    assert_eq!(label(&run, "empty"), map(0, 0));
    assert_eq!(run.load(&LABELLED).get("nobody").expect("kept").label, None);
    assert_eq!(run.warnings, ["2 of 3 cases have fewer than two annotators"]);
}

#[test]
fn another_consensus_of_one_case_is_made_of_one_case() {
    let space = TestSpace::new();
    let mut cases = three(&space);
    assert_eq!(run(&space, &cases, json!({})).expect("goes through").memo_misses, 2);
    let redrawn = table(&space, &[("new", &[("anna", map(9, 9)), ("ben", map(9, 12))])]);
    cases.cases.extend(redrawn.cases);
    assert_eq!(run(&space, &cases, json!({})).expect("goes through").memo_misses, 1);
}
