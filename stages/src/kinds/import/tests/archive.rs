//! MedMNIST archives.

use super::*;
use crate::testing::real_data;

/// 3 + 2 + 1 images of 2×3 pixels that NumPy wrote.
fn import(extra: &Value) -> (TestSpace, Result<TestRun, StageError>) {
    import_of("medmnist.npz", extra)
}

/// An archive among the reference files.
fn import_of(archive: &str, extra: &Value) -> (TestSpace, Result<TestRun, StageError>) {
    let space = TestSpace::new();
    let root = space.path().join("data");
    fs::create_dir_all(&root).expect("temporary folder");
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("imaging/tests/imaging/formats");
    fs::copy(formats.join(archive), root.join("small.npz")).expect("reference");
    fs::write(root.join("notes.txt"), "not looked at").expect("a file is written");
    let mut params = json!({ "from": root, "archive": "small.npz" });
    params.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    let run = space.run::<Import>(params, &[]);
    (space, run)
}

#[test]
fn every_image_is_a_case_with_its_class_and_its_official_split() {
    let (_space, run) = import(&json!({ "classes": ["normal", "pneumonia", "other"] }));
    let run = run.expect("sound");
    assert_eq!(findings(&run, ""), [""; 0]);
    let table = run.load(&CASES);
    let told: Vec<_> = table
        .cases
        .iter()
        .map(|case| (case.id.as_str(), case.class.as_deref().unwrap_or(""), case.info["split"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("test_00000", "normal", "test"),
            ("train_00000", "normal", "train"),
            ("train_00001", "pneumonia", "train"),
            ("train_00002", "other", "train"),
            ("val_00000", "normal", "val"),
            ("val_00001", "pneumonia", "val"),
        ]
    );
    let case = table.get("train_00001").expect("the case is there");
    assert_eq!((case.shape, case.dtype.as_str()), ([1, 2, 3], "uint8"));
    let made = run.dir("dataset").join(&case.image().path);
    let image = pipe_imaging::open::image(&made, pipe_imaging::open::Options::default()).expect("a PNG file");
    assert_eq!(image.volume.as_slice(), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    // The same pixels in two splits.
    assert_eq!(
        table.get("test_00000").expect("there").voxels,
        table.get("train_00000").expect("there").voxels
    );
}

#[test]
fn images_in_colour_have_three_channels() {
    let (_space, run) = import_of("colour.npz", &json!({}));
    let run = run.expect("sound");
    let table = run.load(&CASES);
    let made = run.dir("dataset").join(&table.get("train_00001").expect("there").image().path);
    let image = pipe_imaging::open::image(&made, pipe_imaging::open::Options::default()).expect("a PNG file");
    assert_eq!(image.volume.channel(0), [12.0, 15.0, 18.0, 21.0]);
    assert_eq!(image.volume.channel(2), [14.0, 17.0, 20.0, 23.0]);
}

#[test]
fn classes_without_names_are_numbers_and_a_list_that_is_too_short_is_told() {
    let (_space, run) = import(&json!({}));
    let table = run.expect("sound").load(&CASES);
    assert_eq!(table.get("train_00002").expect("there").class.as_deref(), Some("2"));
    let (_space, run) = import(&json!({ "classes": ["normal", "pneumonia"] }));
    assert_eq!(
        run.expect_err("three classes").chain(),
        "`train` has class 2, but `classes` names 2 of them, from 0"
    );
    let (_space, run) = import(&json!({ "archive": "other.npz" }));
    let error = run.expect_err("no such archive").chain();
    assert!(error.ends_with("holds no archive `other.npz`"), "{error}");
}

#[test]
fn the_published_archive_has_5232_cases() {
    let Some(data) = real_data("PneumoniaMNIST") else { return };
    let space = TestSpace::new();
    let params = json!({ "from": data, "archive": "pneumoniamnist.npz", "classes": ["normal", "pneumonia"] });
    let run = space.run::<Import>(params, &[]).expect("the archive is sound");
    let table = run.load(&CASES);
    let count = |split: &str| table.cases.iter().filter(|case| case.info["split"] == split).count();
    assert_eq!([count("train"), count("val"), count("test")], [4708, 262, 262]);
    let mut seen = BTreeSet::new();
    let train = table.cases.iter().filter(|case| case.info["split"] == "train");
    // What the data set is known to hold: 18 images of the training set are there twice.
    assert_eq!(train.filter(|case| !seen.insert(case.voxels)).count(), 18);
}
