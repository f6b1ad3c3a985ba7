//! The published data set, clean and as a careless download. Needs `$PIPE_TEST_DATA`.

use super::*;
use crate::testing::real_data;

#[test]
fn the_real_data_set_has_195_cases_and_no_error() {
    let Some(data) = real_data("Task04_Hippocampus") else { return };
    let space = TestSpace::new();
    let run = space
        .run::<Import>(
            json!({ "from": data, "task": "Task04_Hippocampus", "patient": "id-pairs", "strict": true }),
            &[],
        )
        .expect("the real data set is sound");
    let table = run.load(&CASES);
    assert_eq!(table.cases.len(), 195);
    assert_eq!(run.load(&CHECKS).count(Severity::Error), 0);
    assert_eq!(findings(&run, ""), [""; 0]);
    let names: Vec<_> = table.dataset.foreground().collect();
    assert_eq!(names, [(1, "Anterior"), (2, "Posterior")]);
    let types: BTreeSet<&str> = table.cases.iter().map(|case| case.dtype.as_str()).collect();
    assert_eq!(types, BTreeSet::from(["float32", "uint8"]));
}

#[test]
fn a_dirty_download_is_reported_file_by_file() {
    let (Some(clean), Some(defects)) =
        (real_data("Task04_Hippocampus"), real_data("Task04_Hippocampus_defects"))
    else {
        return;
    };
    let space = TestSpace::new();
    let root = space.path().join("Task04_Hippocampus");
    for (from, to) in [("imagesTr", "imagesTr"), ("labelsTr", "labelsTr")] {
        copy_files(&clean.join(from), &root.join(to));
    }
    fs::copy(clean.join(Dataset::MANIFEST), root.join(Dataset::MANIFEST)).expect("the manifest is there");
    copy_files(&defects.join("images"), &root.join(Dataset::IMAGES));
    copy_files(&defects.join("labels"), &root.join(Dataset::LABELS));
    let at = |folder: &str, name: &str| root.join(folder).join(name);
    fs::write(at(Dataset::IMAGES, "._hippocampus_006.nii.gz"), b"\0\x05\x16\x07").expect("a file is written");
    let truncated = fs::read(at(Dataset::IMAGES, "hippocampus_011.nii.gz")).expect("the image is there");
    fs::write(at(Dataset::IMAGES, "hippocampus_011.nii.gz"), &truncated[..truncated.len() / 2])
        .expect("a file is written");
    fs::copy(at(Dataset::LABELS, "hippocampus_281.nii.gz"), at(Dataset::LABELS, "hippocampus_014.nii.gz"))
        .expect("a file is copied");

    let import = |strict: bool| {
        space.run::<Import>(
            json!({ "from": space.path(), "task": "Task04_Hippocampus", "strict": strict }),
            &[],
        )
    };
    let run = import(false).expect("the import goes through");
    assert_eq!(run.load(&CASES).cases.len(), 193);
    let told: Vec<String> =
        findings(&run, "").iter().map(|line| line.split(':').next().unwrap_or(line).to_owned()).collect();
    assert_eq!(
        told,
        [
            "Note imagesTr/.DS_Store hidden file Skipped",
            "Note imagesTr/._hippocampus_006.nii.gz AppleDouble file that macOS adds to `hippocampus_006.nii.gz` Skipped",
            "Error labelsTr/hippocampus_010.nii.gz label without image, voxel for voxel the label of case `hippocampus_011`",
            "Error imagesTr/hippocampus_011.nii.gz cannot be read",
            "Error labelsTr/hippocampus_014.nii.gz image is 40×50×39 but its mask is 94×512×512 (z×y×x) Excluded",
            "Error imagesTr/hippocampus_118.nii.gz image without label",
            "Error labelsTr/hippocampus_281.nii.gz label without image, voxel for voxel the label of case `hippocampus_014`",
        ]
    );
    check(
        &run,
        "Error labelsTr/hippocampus_010.nii.gz label without image, voxel for voxel the label of case `hippocampus_011`: 31×50×36 voxels of 1×1×1 mm (z×y×x) Excluded",
    );
    check(
        &run,
        "Error labelsTr/hippocampus_281.nii.gz label without image, voxel for voxel the label of case `hippocampus_014`: 94×512×512 voxels of 5×0.734375×0.734375 mm (z×y×x) Excluded",
    );
    assert_eq!(run.warnings.len(), 1);
    let error = import(true).expect_err("strict refuses").to_string();
    assert!(error.starts_with("5 errors:"), "{error}");
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("temporary folder");
    for entry in fs::read_dir(from).expect("the folder is there") {
        let path = entry.expect("the folder can be listed").path();
        fs::copy(&path, to.join(path.file_name().expect("a file has a name"))).expect("a file is copied");
    }
}
