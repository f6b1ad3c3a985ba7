use super::*;
use crate::kinds::import::{self, Import};
use crate::testing::{TestRun, TestSpace, real_data};
use fs_err as fs;
use pipe_imaging::{Geometry, Image, LabelMap, nifti};
use serde_json::{Value, json};
use std::path::Path;

const SHAPE: [usize; 3] = [3, 4, 5];

/// Writes cases as (name, first image value, place of the one label voxel) and imports them, two to a patient.
fn import(space: &TestSpace, cases: &[(&str, u8, usize)]) -> CaseTable {
    let root = space.path().join("data");
    for folder in ["imagesTr", "labelsTr"] {
        fs::create_dir_all(root.join(folder)).expect("temporary folder");
    }
    let geometry = Geometry::with_spacing(SHAPE, [1.0; 3]);
    for (name, first, place) in cases {
        let voxels = (0..60).map(|index| f32::from(*first) + index as f32).collect();
        let image = Image::from_vec(voxels, 1, geometry).expect("one value a voxel");
        nifti::write_image(&root.join(format!("imagesTr/{name}.nii.gz")), &image)
            .expect("an image is written");
        let mut voxels = vec![0; 60];
        if let Some(voxel) = voxels.get_mut(*place) {
            *voxel = 1;
        }
        let label = LabelMap::from_vec(voxels, geometry).expect("one label a voxel");
        nifti::write_label(&root.join(format!("labelsTr/{name}.nii.gz")), &label)
            .expect("a label is written");
    }
    import_folder(space, &root)
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

const NOWHERE: usize = usize::MAX;

#[test]
fn distinct_cases_pass_unchanged() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c2", 2, 8), ("c3", 3, 9)]);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(run.load(&UNIQUE), table);
    assert_eq!(run.load(&DUPLICATES).rows, []);
    assert_eq!(run.warnings, [""; 0]);
}

#[test]
fn the_same_image_under_another_name_compression_and_type_is_removed() {
    let space = TestSpace::new();
    import(&space, &[("c1", 1, 7), ("c3", 3, 9)]);
    let root = space.path().join("data");
    // The image of c1 as bytes, uncompressed, with the header of another tool.
    let image = nifti::read_image(&root.join("imagesTr/c1.nii.gz")).expect("the image is there");
    let voxels: Vec<u8> = image.as_slice().iter().map(|value| *value as u8).collect();
    let bytes = LabelMap::from_vec(voxels, *image.geometry()).expect("one value a voxel");
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
    assert_eq!((row.action, row.remark.as_str()), (DuplicateAction::Removed, ""));
    assert_eq!(run.warnings, ["1 duplicate images and 0 label maps used twice: 1 cases removed"]);
}

#[test]
fn patients_who_share_an_image_become_one() {
    let space = TestSpace::new();
    // c1, c2 are one patient; c5, c6 another, until c5 shows the image of c2.
    let table = import(&space, &[("c1", 1, 7), ("c2", 2, 8), ("c3", 3, 9), ("c5", 2, 10), ("c6", 6, 11)]);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(ids(&run), ["c1", "c2", "c3", "c6"]);
    let unique = run.load(&UNIQUE);
    assert_eq!(unique.get("c6").expect("kept").patient, "c1-2");
    assert_eq!(unique.get("c3").expect("kept").patient, "c3-4");
    assert!(
        run.warnings[0]
            .ends_with("1 cases removed, 1 given to another patient who shares an image with theirs"),
        "{:?}",
        run.warnings
    );
    assert_eq!(run.load(&DUPLICATES).rows[0].remark, "the label maps differ");
}

#[test]
fn joining_patients_follows_chains() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c3", 1, 8), ("c4", 4, 9), ("c5", 4, 10), ("c6", 6, 11)]);
    let run = dedup(&space, &table, json!({ "exact": "keep" })).expect("the dedup goes through");
    let unique = run.load(&UNIQUE);
    assert_eq!(unique.patients().into_iter().collect::<Vec<_>>(), ["c1-2"]);
    assert_eq!(unique.cases.len(), 5);
}

#[test]
fn fail_names_the_cases() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c2", 1, 8), ("c3", 3, 7)]);
    let error =
        dedup(&space, &table, json!({ "exact": "fail" })).expect_err("there is a duplicate").to_string();
    assert_eq!(error, "1 duplicates:\n  case `c2` holds the image of case `c1`");
    let error =
        dedup(&space, &table, json!({ "labels": "fail" })).expect_err("there is a duplicate").to_string();
    assert_eq!(error, "1 duplicates:\n  case `c3` holds the label map of case `c1`");
}

#[test]
fn a_label_map_used_twice_is_reported_or_removed() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c2", 2, 7)]);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(ids(&run), ["c1", "c2"]);
    let row = &run.load(&DUPLICATES).rows[0];
    assert_eq!((row.kind, row.action), (DuplicateKind::ExactLabel, DuplicateAction::Kept));
    let run = dedup(&space, &table, json!({ "labels": "remove" })).expect("the dedup goes through");
    assert_eq!(ids(&run), ["c1"]);
}

#[test]
fn empty_label_maps_are_no_duplicates() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, NOWHERE), ("c2", 2, NOWHERE)]);
    let run = dedup(&space, &table, json!({ "labels": "fail" })).expect("nothing is a duplicate");
    assert_eq!(ids(&run), ["c1", "c2"]);
}

#[test]
fn real_labels_010_and_011_are_the_same() {
    let (Some(clean), Some(defects)) =
        (real_data("Task04_Hippocampus"), real_data("Task04_Hippocampus_defects"))
    else {
        return;
    };
    let space = TestSpace::new();
    let root = space.path().join("data");
    for folder in ["imagesTr", "labelsTr"] {
        fs::create_dir_all(root.join(folder)).expect("temporary folder");
    }
    let copy = |from: &Path, to: &str| assert!(fs::copy(from, root.join(to)).is_ok());
    copy(&clean.join("imagesTr/hippocampus_011.nii.gz"), "imagesTr/hippocampus_011.nii.gz");
    copy(&clean.join("labelsTr/hippocampus_011.nii.gz"), "labelsTr/hippocampus_011.nii.gz");
    copy(&defects.join("labels/hippocampus_010.nii.gz"), "labelsTr/hippocampus_010.nii.gz");
    // The image that belongs to label 010 is lost: any other of this shape stands in.
    let mut image =
        nifti::read_image(&root.join("imagesTr/hippocampus_011.nii.gz")).expect("the image is there");
    image.as_mut_slice().iter_mut().for_each(|value| *value += 1.0);
    nifti::write_image(&root.join("imagesTr/hippocampus_010.nii.gz"), &image).expect("an image is written");

    let table = import_folder(&space, &root);
    let rows = dedup(&space, &table, json!({})).expect("the dedup goes through").load(&DUPLICATES).rows;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].case.as_str(), rows[0].same_as.as_str()), ("hippocampus_011", "hippocampus_010"));
    assert_eq!(rows[0].kind, DuplicateKind::ExactLabel);
}
