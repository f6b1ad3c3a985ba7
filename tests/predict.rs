//! `pipe predict`: the models of a pipeline outside of it.

use crate::space::{Report, TestSpace};
use crate::volume::nifti;
use std::fs;
use std::sync::OnceLock;

/// Two folds, a region, a margin, a spacing and a scale: all that preprocessing may do.
const PIPELINE: &str = "
name: p
seed: 3
stages:
  cases: { uses: import, with: { from: phantom, phantom: { cases: 8, shape: [18, 20, 22] } } }
  split: { uses: split, in: { cases: cases }, with: { folds: 2, test: 0.25 } }
  volumes:
    uses: crop
    in: { cases: cases }
    with: { region: nonzero, margin_mm: 2, spacing_mm: [1.4, 1.3, 1.2], normalize: zscore }
  train:
    uses: train
    matrix: { fold: [0, 1] }
    in: { volumes: volumes, split: split }
    with:
      fold: \"${matrix.fold}\"
      model: { unet3d: { levels: 2, base_features: 4 } }
      epochs: 1
      augment: none
      patch: [8, 16, 8]
  onnx: { uses: export, matrix: { fold: [0, 1] }, in: { model: \"train[fold=${matrix.fold}]\" } }
  ensemble: { uses: ensemble, in: { models: \"onnx[*]\" }, with: { weights: [1, 3] } }
  evaluate: { uses: evaluate, in: { model: ensemble, volumes: volumes, split: split }, with: { metrics: [dice] } }
";

const IMAGES: &str = "results/p/cases/dataset/imagesTr";
const MODEL: &str = "results/p/ensemble";

fn space(pipeline: &str) -> TestSpace {
    let mut space = TestSpace::new(pipeline);
    // Where the runtime is: pipe's cache, or whatever the developer uses.
    for name in ["HOME", "XDG_CACHE_HOME", "PIPE_HOME", "ORT_DYLIB_PATH"] {
        if let Ok(value) = std::env::var(name) {
            space.set_env(name, &value);
        }
    }
    space
}

/// A pipeline that ran, shared by the tests: none of them changes it.
fn trained() -> &'static TestSpace {
    static SPACE: OnceLock<TestSpace> = OnceLock::new();
    SPACE.get_or_init(|| {
        let space = space(PIPELINE);
        space.run(&[]).code(0);
        space
    })
}

/// `pipe predict` with the model of the shared pipeline, from `other`.
#[track_caller]
fn predict(other: &TestSpace, arguments: &[&str]) -> Report {
    let model = trained().path(MODEL);
    other.pipe(&[&["predict", model.to_str().unwrap()], arguments].concat())
}

/// A space with `in/` of the images of the shared pipeline that `keep` names.
fn with_images(keep: impl Fn(&str) -> bool) -> TestSpace {
    let other = space("");
    for name in trained().files(IMAGES).iter().filter(|name| keep(name)) {
        other.write(&format!("in/{name}"), fs::read(trained().path(IMAGES).join(name)).unwrap());
    }
    other
}

fn predictions() -> Vec<String> {
    let files = trained().files("results/p/evaluate/predictions");
    files.into_iter().filter(|name| name.ends_with(".nii.gz")).collect()
}

#[test]
fn a_folder_is_predicted_bit_for_bit_as_in_the_pipeline() {
    let tested = predictions();
    let other = with_images(|name| tested.iter().any(|tested| tested == name));
    let report = predict(&other, &["in", "-o", "out"]);
    report.code(0).says("[2/2]").says("ONNX Runtime");
    assert_eq!(tested.len(), 2, "{tested:?}");
    assert_eq!(other.files("out"), tested);
    for name in &tested {
        let ours = fs::read(other.path("out").join(name)).unwrap();
        let theirs = fs::read(trained().path("results/p/evaluate/predictions").join(name)).unwrap();
        assert!(ours == theirs, "{name} differs");
    }
    // Any number of threads.
    predict(&other, &["in", "-o", "one", "-j", "1"]).code(0);
    for name in &tested {
        assert!(
            fs::read(other.path("one").join(name)).unwrap()
                == fs::read(other.path("out").join(name)).unwrap()
        );
    }
}

#[test]
fn one_file_may_be_named_and_its_probabilities_asked_for() {
    let name = predictions().remove(0);
    let other = with_images(|image| image == name);
    let input = format!("in/{name}");
    let report = predict(&other, &[&input, "-o", "there/mine.nii.gz", "--probabilities", "--json"]);
    report.code(0);
    assert_eq!(other.files("there"), ["mine.nii.gz", "mine_probabilities.nii.gz"]);
    let told: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(told["labels"], "there/mine.nii.gz");
    assert_eq!(told["case"], name.trim_end_matches(".nii.gz"));
    assert!(told["volumes_ml"].as_object().unwrap().len() == 2 && told["seconds"].as_f64().unwrap() > 0.0);
    predict(&other, &[&input, "-o", "constant.nii.gz", "--blend", "constant", "--mirror"]).code(0);
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let name = predictions().remove(0);
    let other = with_images(|image| image == name);
    let there = format!("out/{name}");
    other.write(&there, "mine");
    predict(&other, &["in", "-o", "out"]).code(2).says(&format!("`{there}` exists")).says("--force");
    assert_eq!(other.read(&there), "mine");
    predict(&other, &["in", "-o", "out", "--force"]).code(0);
    assert!(fs::read(other.path(&there)).unwrap().starts_with(b"\x1f\x8b"));
    predict(&other, &["in", "-o", "in", "--force"]).code(2).says("would overwrite its own image");
}

#[test]
fn an_image_that_cannot_be_read_is_told_and_the_others_go_on() {
    let name = predictions().remove(0);
    let other = with_images(|image| image == name);
    other.write("in/broken.nii.gz", "no image");
    let report = predict(&other, &["in", "-o", "out"]);
    report.code(1).says("broken: ").says("1 of 2 images could not be predicted");
    assert_eq!(other.files("out"), [name]);
    // Alone, it leaves nothing behind.
    predict(&other, &["in/broken.nii.gz", "-o", "nothing"]).code(1);
    assert!(!other.exists("nothing"));
}

#[test]
fn an_image_whose_header_makes_it_thousands_of_times_larger_is_refused() {
    let other = space("");
    other.write("metres.nii", nifti([3, 2, 1], [400.0; 3], &[0, 1, 2, 3, 4, 5]));
    let report = predict(&other, &["metres.nii", "-o", "out.nii"]);
    report.code(1).says("has voxels of [400.0, 400.0, 400.0] mm (z, y, x) and the model [1.4, 1.3, 1.2] mm");
    report.says("Set the voxel size in its header to millimetres");
    assert!(!other.exists("out.nii"));
}

#[test]
fn what_is_no_model_or_no_image_is_said() {
    let name = predictions().remove(0);
    let other = with_images(|image| image == name);
    other.pipe(&["predict", "in", "in", "-o", "out"]).code(2).says("`in` holds no model").says("ensemble");
    predict(&other, &["nowhere", "-o", "out"]).code(2).says("`nowhere` does not exist");
    fs::create_dir(other.path("empty")).unwrap();
    predict(&other, &["empty", "-o", "out"]).code(2).says("`empty` holds no image");
    predict(&other, &["in", "-o", "out", "--overlap", "1"]).code(2).says("`--overlap 1` is no share");
    other.write("in/second.mha", "");
    predict(&other, &["in", "-o", "out.nii.gz"]).code(2).says("is one file, but there are 2 images");
    let twice = format!("in/{}", name.replace(".nii.gz", ".mha"));
    other.write(&twice, "");
    predict(&other, &["in", "-o", "out"]).code(2).says("are both case");
    assert!(!other.exists("out"));
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_auto_says_what_it_took() {
    let name = predictions().remove(0);
    let other = with_images(|image| image == name);
    let report = predict(&other, &["in", "-o", "out", "--device", "directml"]);
    report.code(1).says("`device: directml` needs DmlExecutionProvider, but this ONNX Runtime has only");
    assert!(other.files("out").is_empty());
    predict(&other, &["in", "-o", "out", "--device", "auto"]).code(0).says(" on ");
}
