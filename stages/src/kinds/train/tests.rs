use super::*;
use crate::artifacts::{Case, DatasetInfo, FileRef, Part};
use crate::kinds::inference::testing::{Cohort, TestCase, two_labels};
use crate::testing::{TestRun, TestSpace, problems};
use pipe_cache::Digest;
use pipe_imaging::normalize::Normalization;
use pipe_imaging::{Geometry, Image, LabelMap};
use pipe_nn::Parameters;
use serde_json::{Value, json};
use std::path::Path;

mod pretrained;

/// An image of 1×8×8 voxels, bright on the left half of every second case, which is also its label and its class.
fn image(index: usize) -> Vec<f32> {
    let noise = |voxel: usize| ((voxel * 7 + index * 13) % 11) as f32 / 11.0 - 0.5;
    (0..64).map(|voxel| noise(voxel) + if index % 2 == 1 && voxel % 8 < 4 { 2.0 } else { 0.0 }).collect()
}

const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Six cases to train on and two to validate on, one of each class.
fn cohort(space: &TestSpace) -> Cohort {
    let case = |(index, id): (usize, &&'static str)| {
        let grid = Geometry::with_spacing([1, 8, 8], [1.0; 3]);
        let image = Image::from_vec(image(index), 1, grid).expect("64 voxels");
        let bright = image.as_slice().iter().map(|value| u8::from(*value > 1.0)).collect();
        let label = Some(LabelMap::from_vec(bright, grid).expect("64 voxels"));
        TestCase { id, image, label, part: if index < 6 { Part::Fold(1) } else { Part::Fold(0) } }
    };
    Cohort::plain(space, &two_labels(), &IDS.iter().enumerate().map(case).collect::<Vec<_>>())
}

/// The case table of the cohort; the last case to train on has no class.
fn classes(space: &TestSpace) -> std::path::PathBuf {
    let case = |(index, id): (usize, &&str)| Case {
        id: (*id).into(),
        patient: (*id).into(),
        class: (index != 5).then(|| if index % 2 == 1 { "bright".into() } else { "dark".into() }),
        images: vec![FileRef { path: format!("{id}.nii.gz"), digest: Digest::of_bytes(id.as_bytes()) }],
        label: None,
        annotations: Vec::new(),
        info: std::collections::BTreeMap::new(),
        voxels: Digest::of_bytes(id.as_bytes()),
        label_voxels: None,
        label_foreground: None,
        shape: [1, 8, 8],
        spacing_mm: [1.0; 3],
        orientation: "RAS".into(),
        dtype: "float32".into(),
        channels: 1,
    };
    let cases = IDS.iter().enumerate().map(case).collect();
    space.stored(&CaseTable { dataset: DatasetInfo::default(), cases })
}

#[track_caller]
fn train(space: &TestSpace, cohort: &Cohort, params: Value, more: &[(&str, &Path)]) -> TestRun {
    let inputs = [&[("volumes", cohort.volumes.as_path()), ("split", cohort.split.as_path())], more].concat();
    space.run::<Train>(params, &inputs).unwrap_or_else(|error| panic!("{}", error.chain()))
}

fn small() -> Value {
    json!({ "fold": 0, "epochs": 3, "model": { "unet2d": { "levels": 2, "base_features": 4 } },
            "batch_size": 4, "augment": { "none": {} }, "learning_rate": 0.01 })
}

#[test]
fn a_training_tells_its_validation_loss_its_layers_and_its_curves_to_tensorboard() {
    let space = TestSpace::new();
    let run = train(&space, &cohort(&space), small(), &[]);
    let log = run.load(&LOG);
    assert_eq!(log.rows.len(), 3);
    for row in &log.rows {
        assert!(row.validation_loss.is_some_and(f64::is_finite) && row.validation_dice.is_some(), "{row:?}");
        assert_eq!((row.validation_auc, row.validation_accuracy), (None, None));
    }
    // Two norms a level down and two up, eight weights: 14 rows an epoch.
    assert_eq!(log.layers.len(), 3 * 14);
    let events = std::fs::read(run.dir("log").join("events.out.tfevents.0.pipe")).expect("an event file");
    let holds = |text: &str| events.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("brain.Event:2") && holds("loss/validation") && holds("dice/1 body"));
    let model = run.load(&MODEL);
    assert_eq!((model.card.io.channels, model.card.io.classes, model.card.patch), (1, 2, [1, 8, 8]));
    assert_eq!(model.card.training.validation_cases, 2);
}

#[test]
fn a_classifier_learns_the_classes_of_the_case_table() {
    let space = TestSpace::new();
    let cohort = cohort(&space);
    let params = json!({ "fold": 0, "epochs": 20, "batch_size": 4, "learning_rate": 0.01, "augment": { "none": {} },
        "model": { "classifier2d": { "levels": 2, "base_features": 4 } } });
    let run = train(&space, &cohort, params, &[("cases", &classes(&space))]);
    assert_eq!(run.facts["validation_auc"], json!(1.0));
    let model = run.load(&MODEL);
    let names: Vec<&str> = model.card.labels.values().map(String::as_str).collect();
    assert_eq!(names, ["bright", "dark"]);
    assert_eq!((model.card.training.training_cases, model.card.training.validation_dice), (5, None));
    assert!(run.warnings.iter().any(|text| text == "1 of 6 cases have no class and are left out"));
    let log = run.load(&LOG);
    assert!(log.rows.iter().all(|row| row.validation_auc.is_some() && row.validation_dice.is_none()));
    let error = space
        .run::<Train>(
            json!({ "fold": 0, "model": { "linear2d": {} } }),
            &[("volumes", &cohort.volumes), ("split", &cohort.split)],
        )
        .expect_err("there are no classes");
    assert!(error.chain().contains("wire `cases`"), "{}", error.chain());
}

#[test]
fn a_pretrained_network_gives_start_values_and_must_have_seen_the_same_scale() {
    let space = TestSpace::new();
    let cohort = cohort(&space);
    let first = train(&space, &cohort, small(), &[]);
    let mut params = small();
    params["freeze"] = json!(["encoder"]);
    params["epochs"] = json!(1);
    params["keep"] = json!("last");
    let pretrained = first.dir("model");
    let second = train(&space, &cohort, params.clone(), &[("pretrained", pretrained)]);
    let weights = |run: &TestRun| Parameters::from_safetensors(&run.load(&MODEL).weights).expect("readable");
    let (old, new) = (weights(&first), weights(&second));
    let same = |name: &str| old.get(name) == new.get(name);
    // The first stage kept its best epoch, from which the second one began.
    assert!(same("encoder.1.conv0.weight") && !same("head.weight"));

    cohort.edit_info(|info| info.preparation.normalization = Normalization::Zscore);
    let inputs = [
        ("volumes", cohort.volumes.as_path()),
        ("split", cohort.split.as_path()),
        ("pretrained", pretrained),
    ];
    let error = space.run::<Train>(params, &inputs).expect_err("another scale").chain();
    assert!(
        error.contains("normalised by \"none\" but these volumes are normalised by \"zscore\""),
        "{error}"
    );
}

#[track_caller]
fn check(name: &str, value: Value, expected: &str) {
    let mut params = small();
    params[name] = value;
    let found = problems::<Train>(params);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].parameter, found[0].message.as_str()), (name, expected));
}

#[test]
fn values_that_cannot_work_are_told_at_their_parameter() {
    check("epochs", json!(0), "epochs is 0, but it must be at least 1");
    check("learning_rate", json!(-1.0), "learning_rate is -1, but it must be positive");
    check("model", json!({ "unet3d": { "levels": 9 } }), "levels is 9, but it must lie in 1..=8");
    check("schedule", json!({ "step": { "every": 0 } }), "schedule.every is 0, but it must be at least 1");
    check(
        "optimizer",
        json!({ "sgd": { "momentum": 1 } }),
        "optimizer.momentum is 1, but it must be 0 or more and below 1",
    );
    check(
        "clip",
        json!({ "norm": 0.0 }),
        "clip.norm is 0, but it must be positive; leave it out for no bound",
    );
    check("loss", json!({ "focal": { "gamma": -1 } }), "loss.gamma is -1, but it must be 0 or more");
    check(
        "augment",
        json!({ "random": { "noise": { "probability": 2 } } }),
        "augment.noise is 2 likely, but a probability lies in 0..=1",
    );
    check(
        "freeze",
        json!(["enc"]),
        "freeze is `enc`, but no parameter lies below that name; the network has encoder, decoder, head",
    );
    let mut params = small();
    params["patch"] = json!([1, 7, 8]);
    assert_eq!(problems::<Train>(params.clone())[0].parameter, "patch");
    // The slice alone is the same, down to the key.
    let written = |patch: Value| -> Result<Value, String> {
        let mut params = params.clone();
        params["patch"] = patch;
        let params: Params = serde_json::from_value(params).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(params).expect("parameters are JSON")["patch"].clone())
    };
    assert_eq!(written(json!([16, 24])), Ok(json!([1, 16, 24])));
    assert_eq!(written(json!([1, 16, 24])), Ok(json!([1, 16, 24])));
    let error = written(json!([16])).expect_err("one size");
    assert_eq!(error, "expected three sizes (z, y, x), or two (y, x) in 2D, found 1");
}

#[test]
fn a_device_that_was_granted_is_counted_as_cuda_counts() {
    let check =
        |name, visible, expected| assert_eq!(ordinal(name, visible), expected, "{name} of {visible:?}");
    check("0", None, 0);
    check("2", None, 2);
    check("1", Some("1"), 0);
    check("3", Some("2, 3"), 1);
    check("0", Some("1,0"), 1);
    check("GPU-3f8a", Some("GPU-11aa,GPU-3f8a"), 1);
}
