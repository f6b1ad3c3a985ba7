//! Folders in the layout of BIDS.

use super::*;

/// A folder of one image and one label, copied to many names.
fn import(names: &[&str], texts: &[(&str, &str)], bids: &Value) -> (TestSpace, Result<TestRun, StageError>) {
    let space = TestSpace::new();
    let root = space.path().join("data");
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("temporary folder");
        if name.contains("dseg") {
            nifti::write_label(&path, &label(SHAPE, 1)).expect("a label is written");
        } else {
            nifti::write_image(&path, &image(name, SHAPE)).expect("an image is written");
        }
    }
    for (name, text) in texts {
        fs::write(root.join(name), text).expect("a file is written");
    }
    let run = space.run::<Import>(json!({ "from": root, "bids": bids }), &[]);
    (space, run)
}

const PARTICIPANTS: &str = "participant_id\tage\tSite\nsub-01\t34\tBasel\nsub-02\tn/a\tBern\n";

#[test]
fn images_find_their_labels_and_participants() {
    let (_space, run) = import(
        &[
            "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
            "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
            "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
            "sub-02/anat/sub-02_T1w.nii",
            "derivatives/seg/sub-01/ses-1/anat/sub-01_ses-1_space-orig_dseg.nii.gz",
            "derivatives/seg/sub-01/ses-2/anat/sub-01_ses-2_dseg.nii.gz",
            "derivatives/seg/sub-02/anat/sub-02_dseg.nii.gz",
            "derivatives/prep/sub-02/anat/sub-02_T1w.nii.gz",
        ],
        &[("participants.tsv", PARTICIPANTS), ("dataset_description.json", r#"{"Name": "Two subjects"}"#)],
        &json!({ "image": "T1w", "label": "dseg" }),
    );
    let run = run.expect("sound");
    assert_eq!(findings(&run, ""), [""; 0]);
    let table = run.load(&CASES);
    assert_eq!(table.dataset.name, "Two subjects");
    let told: Vec<_> = table
        .cases
        .iter()
        .map(|case| {
            let label =
                case.label.as_ref().map_or("", |file| file.path.rsplit('/').next().unwrap_or_default());
            (case.id.as_str(), case.patient.as_str(), label, case.info["site"].as_str())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("sub-01_ses-1", "sub-01", "sub-01_ses-1_space-orig_dseg.nii.gz", "Basel"),
            ("sub-01_ses-2", "sub-01", "sub-01_ses-2_dseg.nii.gz", "Basel"),
            ("sub-02", "sub-02", "sub-02_dseg.nii.gz", "Bern"),
        ]
    );
    assert_eq!(table.cases[2].info.get("age"), None);
}

#[test]
fn several_label_maps_are_those_of_annotators() {
    let (_space, run) = import(
        &[
            "sub-01/anat/sub-01_T1w.nii.gz",
            "derivatives/a/sub-01_desc-ann_dseg.nii.gz",
            "derivatives/b/sub-01_desc-bob_dseg.nii.gz",
            "sub-02/anat/sub-02_T1w.nii.gz",
            "derivatives/a/sub-02_dseg.nii.gz",
            "derivatives/b/sub-02_dseg.nii.gz",
            "derivatives/b/sub-03_dseg.nii.gz",
        ],
        &[],
        &json!({ "image": "T1w", "label": "dseg" }),
    );
    let run = run.expect("one case is sound");
    let table = run.load(&CASES);
    let who: Vec<&str> = table.cases[0].annotations.iter().map(|one| one.annotator.as_str()).collect();
    assert_eq!((ids(&run), who), (vec!["sub-01".to_owned()], vec!["ann", "bob"]));
    assert_eq!(findings(&run, "").len(), 3);
    let problem = "is one of several label maps, and no `desc-NAME` of its own tells whose";
    check(&run, &format!("Error derivatives/a/sub-02_dseg.nii.gz {problem} Excluded"));
    check(
        &run,
        "Error derivatives/b/sub-03_dseg.nii.gz label without image: no `T1w` has a name that fits Excluded",
    );
}

#[test]
fn a_folder_without_such_images_and_a_broken_table_are_told() {
    let bids = || json!({ "image": "T2w", "label": "dseg" });
    let (_space, run) = import(&["sub-01/anat/sub-01_T1w.nii.gz"], &[], &bids());
    let error = run.expect_err("no T2w").chain();
    assert!(error.ends_with("holds no case"), "{error}");
    let (_space, error) = import(&["sub-01_T2w.nii.gz"], &[("participants.tsv", "name\nsub-01\n")], &bids());
    assert_eq!(
        error.expect_err("no participants").chain(),
        "the first column of `participants.tsv` is `name`, not `participant_id`"
    );
    let told = problems::<Import>(json!({ "from": "x", "bids": { "image": "T1w.nii" }, "task": "y" }));
    let told: Vec<&str> = told.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(told, ["both `bids` and `task` say what the cases are", "`T1w.nii` is no suffix"]);
}
