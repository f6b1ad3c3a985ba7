mod near;
mod official;
mod planted;
mod real;

use super::*;
use crate::kinds::import::{self, Import};
use crate::testing::{TestRun, TestSpace, problems};
use fs_err as fs;
use pipe_imaging::{Geometry, Image, LabelMap, nifti};
use serde_json::{Value, json};
use std::path::Path;

const SHAPE: [usize; 3] = [6, 7, 8];
const VOXELS: usize = 6 * 7 * 8;

/// A number from 0 to 4095 that follows from two others.
fn noise(seed: u64, at: u64) -> f32 {
    let mut state = (seed << 32 | at).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    state ^= state >> 29;
    state = state.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (state >> 52) as f32
}

/// Writes cases as (name, which image, place of the one label voxel) and imports them, two to a patient.
fn import(space: &TestSpace, cases: &[(&str, u8, usize)]) -> CaseTable {
    let root = space.path().join("data");
    for (name, which, place) in cases {
        let image = (0..VOXELS as u64).map(|at| noise(u64::from(*which), at)).collect();
        let mut label = vec![0; VOXELS];
        if let Some(voxel) = label.get_mut(*place) {
            *voxel = 1;
        }
        write(&root, name, SHAPE, image, label);
    }
    import_folder(space, &root)
}

fn write(root: &Path, name: &str, shape: [usize; 3], image: Vec<f32>, label: Vec<u8>) {
    for folder in ["imagesTr", "labelsTr"] {
        fs::create_dir_all(root.join(folder)).expect("temporary folder");
    }
    let geometry = Geometry::with_spacing(shape, [1.0; 3]);
    let image = Image::from_vec(image, 1, geometry).expect("one value a voxel");
    nifti::write_image(&root.join(format!("imagesTr/{name}.nii.gz")), &image).expect("an image is written");
    let label = LabelMap::from_vec(label, geometry).expect("one label a voxel");
    nifti::write_label(&root.join(format!("labelsTr/{name}.nii.gz")), &label).expect("a label is written");
}

fn import_folder(space: &TestSpace, root: &Path) -> CaseTable {
    let run = space
        .run::<Import>(json!({ "from": root, "patient": "id-pairs" }), &[])
        .expect("the import goes through");
    run.load(&import::CASES)
}

fn dedup(space: &TestSpace, table: &CaseTable, params: Value) -> Result<TestRun, StageError> {
    space.run::<Dedup>(params, &[("cases", &space.stored(table))])
}

fn ids(run: &TestRun) -> Vec<String> {
    run.load(&UNIQUE).cases.into_iter().map(|case| case.id).collect()
}

/// Kind, case and the other case of every row.
fn pairs(run: &TestRun) -> Vec<(DuplicateKind, String, String)> {
    run.load(&DUPLICATES).rows.into_iter().map(|row| (row.kind, row.case, row.same_as)).collect()
}

const NOWHERE: usize = usize::MAX;

#[test]
fn distinct_cases_pass_unchanged() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c2", 2, 80), ("c3", 3, 150)]);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(run.load(&UNIQUE), table);
    assert_eq!(run.load(&DUPLICATES).rows, []);
    assert_eq!(run.warnings, [""; 0]);
}

#[test]
fn the_same_image_under_another_name_compression_and_type_is_removed() {
    let space = TestSpace::new();
    import(&space, &[("c1", 1, 7), ("c3", 3, 90)]);
    let root = space.path().join("data");
    // The image of c1 as bytes, and again uncompressed, with the header of another tool.
    let voxels: Vec<u8> = (0..VOXELS as u64).map(|at| (noise(1, at) / 16.0) as u8).collect();
    write(&root, "c1", SHAPE, voxels.iter().map(|value| f32::from(*value)).collect(), vec![1; VOXELS]);
    let bytes =
        LabelMap::from_vec(voxels, Geometry::with_spacing(SHAPE, [1.0; 3])).expect("one value a voxel");
    let path = root.join("imagesTr/c5.nii");
    nifti::write_label(&path, &bytes).expect("bytes are written");
    let mut file = fs::read(&path).expect("an image was written");
    file[148..153].copy_from_slice(b"other");
    fs::write(&path, file).expect("an image is written");
    fs::copy(root.join("labelsTr/c1.nii.gz"), root.join("labelsTr/c5.nii.gz")).expect("a label is copied");

    let table = import_folder(&space, &root);
    assert_eq!(table.get("c5").expect("imported").dtype, "uint8");
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(ids(&run), ["c1", "c3"]);
    let rows = run.load(&DUPLICATES).rows;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!((row.case.as_str(), row.same_as.as_str(), row.kind), ("c5", "c1", DuplicateKind::ExactImage));
    assert_eq!((row.action, row.remark.as_str(), row.score), (DuplicateAction::Removed, "", 1.0));
    assert_eq!(run.warnings.len(), 1);
    assert!(run.warnings[0].starts_with("1 duplicate images: 1 cases removed"), "{:?}", run.warnings);
}

#[test]
fn patients_who_share_an_image_become_one() {
    let space = TestSpace::new();
    // c1, c2 are one patient; c5, c6 another, until c5 shows the image of c2.
    let table =
        import(&space, &[("c1", 1, 7), ("c2", 2, 60), ("c3", 3, 120), ("c5", 2, 180), ("c6", 6, 240)]);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(ids(&run), ["c1", "c2", "c3", "c6"]);
    let unique = run.load(&UNIQUE);
    assert_eq!(unique.get("c6").expect("kept").patient, "c1-2");
    assert_eq!(unique.get("c3").expect("kept").patient, "c3-4");
    assert!(
        run.warnings[0]
            .contains("1 cases removed, 1 given to another patient with whom theirs is one person"),
        "{:?}",
        run.warnings
    );
    assert_eq!(run.load(&DUPLICATES).rows[0].remark, "the label maps differ");
}

#[test]
fn joining_patients_follows_chains() {
    let space = TestSpace::new();
    let table =
        import(&space, &[("c1", 1, 7), ("c3", 1, 60), ("c4", 4, 120), ("c5", 4, 180), ("c6", 6, 240)]);
    let run = dedup(&space, &table, json!({ "exact": "group" })).expect("the dedup goes through");
    let unique = run.load(&UNIQUE);
    assert_eq!(unique.patients().into_iter().collect::<Vec<_>>(), ["c1-2"]);
    assert_eq!(unique.cases.len(), 5);
}

#[test]
fn a_report_changes_nothing_and_is_told() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c3", 1, 60), ("c5", 5, 7)]);
    let run = dedup(&space, &table, json!({ "exact": "report" })).expect("the dedup goes through");
    assert_eq!(run.load(&UNIQUE), table);
    assert_eq!(
        pairs(&run),
        [
            (DuplicateKind::ExactImage, "c3".into(), "c1".into()),
            (DuplicateKind::ExactLabel, "c5".into(), "c1".into())
        ]
    );
    assert_eq!(run.warnings.len(), 1);
}

#[test]
fn what_is_ignored_is_not_looked_for() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c3", 1, 60), ("c5", 5, 7)]);
    let all = json!({ "exact": "ignore", "near": "ignore", "related": "ignore", "labels": "ignore" });
    let run = dedup(&space, &table, all).expect("the dedup goes through");
    assert_eq!((run.load(&UNIQUE), run.memo_misses), (table, 0));
    assert_eq!(pairs(&run), []);
}

#[test]
fn fail_names_the_cases() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c2", 1, 60), ("c3", 3, 7)]);
    let error =
        dedup(&space, &table, json!({ "exact": "fail" })).expect_err("there is a duplicate").to_string();
    assert_eq!(error, "1 duplicate:\n  case `c2` holds the image of case `c1`");
    let error =
        dedup(&space, &table, json!({ "labels": "fail" })).expect_err("there is a duplicate").to_string();
    assert_eq!(error, "1 duplicate:\n  case `c3` holds the label map of case `c1`");
}

#[test]
fn a_label_map_used_twice_is_reported_grouped_or_removed() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c3", 2, 7)]);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(ids(&run), ["c1", "c3"]);
    let row = &run.load(&DUPLICATES).rows[0];
    assert_eq!((row.kind, row.action), (DuplicateKind::ExactLabel, DuplicateAction::Reported));
    let run = dedup(&space, &table, json!({ "labels": "group" })).expect("the dedup goes through");
    assert_eq!(run.load(&UNIQUE).patients().len(), 1);
    let run = dedup(&space, &table, json!({ "labels": "remove" })).expect("the dedup goes through");
    assert_eq!(ids(&run), ["c1"]);
    // Whose the removed case was does not matter: the images differ.
    assert_eq!(run.load(&UNIQUE).get("c1").expect("kept").patient, "c1-2");
}

#[test]
fn empty_label_maps_are_no_duplicates() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, NOWHERE), ("c2", 2, NOWHERE)]);
    let run = dedup(&space, &table, json!({ "labels": "fail" })).expect("nothing is a duplicate");
    assert_eq!(ids(&run), ["c1", "c2"]);
}

#[test]
fn a_label_map_with_few_voxels_changed_is_found_and_a_moved_one_is_not() {
    let space = TestSpace::new();
    let root = space.path().join("data");
    let shape = [12, 14, 16];
    let block = |from: usize, to: usize| {
        let inside = |at: usize| {
            let (z, y, x) = (at / 224, at / 16 % 14, at % 16);
            (3..9).contains(&z) && (3..10).contains(&y) && (from..to).contains(&x)
        };
        (0..12 * 14 * 16).map(|at| u8::from(inside(at))).collect::<Vec<u8>>()
    };
    let image = |seed| (0..12 * 14 * 16).map(|at| noise(seed, at)).collect::<Vec<f32>>();
    let mut edited = block(3, 12);
    let first = edited.iter().position(|value| *value == 1).expect("a voxel");
    edited[first] = 0;
    edited[first + 1] = 0;
    write(&root, "c1", shape, image(1), block(3, 12));
    write(&root, "c2", shape, image(2), edited);
    write(&root, "c3", shape, image(3), block(4, 13));
    let table = import_folder(&space, &root);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(pairs(&run), [(DuplicateKind::NearLabel, "c2".into(), "c1".into())]);
    // 378 and 376 voxels, 376 of them in both.
    let score = run.load(&DUPLICATES).rows[0].score;
    assert!((score - 752.0 / 754.0).abs() < 1e-6, "{score}");
}

#[test]
fn adding_a_case_looks_at_one() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c2", 2, 80), ("c3", 3, 150)]);
    let fewer = table.filtered(|case| case.id != "c2");
    // An image and a label map each.
    assert_eq!(dedup(&space, &fewer, json!({})).expect("goes through").memo_misses, 4);
    assert_eq!(dedup(&space, &table, json!({})).expect("goes through").memo_misses, 2);
    assert_eq!(dedup(&space, &table, json!({ "similarity": 0.95 })).expect("goes through").memo_misses, 0);
}

#[test]
fn similarity_has_bounds() {
    assert_eq!(problems::<Dedup>(json!({})).len(), 0);
    for wrong in [0.5, 1.5, -1.0] {
        assert_eq!(problems::<Dedup>(json!({ "similarity": wrong }))[0].parameter, "similarity");
    }
}
