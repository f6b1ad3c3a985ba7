use super::*;
use crate::artifacts::predictor::{Combine, Member, MemberCard, Task};
use crate::artifacts::{Case, DatasetInfo, FileRef, Part, Preparation};
use crate::kinds::inference::testing::{Cohort, TestCase, above, labels, predictor, row_case};
use crate::testing::{TestRun, TestSpace, problems};
use pipe_cache::Digest;
use pipe_imaging::normalize::Normalization;
use pipe_imaging::{Geometry, Image};
use pipe_nn::Dims;
use pipe_onnx::{GraphBuilder, Weights, Window};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Pixels of the patch: images are padded with 0 to as many.
const PATCH: f32 = 64.0;

/// A network whose logits are 0 and `slope` times the sum of the pixels of a slice.
fn by_sum(space: &TestSpace, slope: f32, fold: usize) -> Member {
    let mut graph = GraphBuilder::new("mean", 1, pipe_onnx::Dims::Two).expect("one channel");
    let input = graph.input();
    let weight = Weights { shape: &[2, 1, 1, 1], values: &[0.0, slope * PATCH] };
    let logits = graph.conv("head", &input, weight, None, &Window::tight(&[1, 1])).expect("1×1");
    let pooled = graph.global_average_pool(&logits).expect("spatial axes");
    let bytes = graph.build(&pooled).expect("two layers");
    let digest = Digest::of_bytes(&bytes);
    let path = space.path().join(format!("{digest}.onnx"));
    fs::write(&path, bytes).expect("temporary file");
    let card = MemberCard { dims: Dims::Two, patch: [1, 8, 8], digest, ..above(space, 0.0, fold).card };
    Member { card, path }
}

fn two_classes() -> BTreeMap<u8, String> {
    labels(&[(0, "clear"), (1, "clouded")])
}

fn table(space: &TestSpace, classes: &[(&str, Option<&str>)]) -> PathBuf {
    let case = |(id, class): &(&str, Option<&str>)| Case {
        id: (*id).into(),
        patient: "not looked at".into(),
        class: class.map(str::to_owned),
        images: vec![FileRef { path: "x.png".into(), digest: Digest::of_bytes(b"x") }],
        label: None,
        annotations: Vec::new(),
        info: BTreeMap::new(),
        voxels: Digest::of_bytes(id.as_bytes()),
        label_voxels: None,
        label_foreground: None,
        shape: [1, 1, 2],
        spacing_mm: [1.0; 3],
        orientation: "RAS".into(),
        dtype: "uint8".into(),
        channels: 1,
    };
    let cases = classes.iter().map(case).collect();
    space.stored(&CaseTable { dataset: DatasetInfo::default(), cases })
}

/// Two test cases with pixel sums 0 and 2, and one case in each of two folds.
fn cohort(space: &TestSpace) -> Cohort {
    let cases = [
        row_case("a", Part::Test, &[1.0, -1.0], None),
        row_case("b", Part::Test, &[0.5, 1.5], None),
        row_case("c", Part::Fold(0), &[1.0, 0.0], None),
        row_case("d", Part::Fold(1), &[0.0, 1.0], None),
    ];
    Cohort::plain(space, &BTreeMap::new(), &cases)
}

const CLASSES: [(&str, Option<&str>); 4] =
    [("a", Some("clear")), ("b", Some("clouded")), ("c", Some("clear")), ("d", Some("clouded"))];

fn classify(
    space: &TestSpace,
    members: Vec<Member>,
    classes: &[(&str, Option<&str>)],
    params: Value,
) -> Result<TestRun, String> {
    classify_by(space, &predictor(space, &two_classes(), members), classes, params)
}

fn classify_by(
    space: &TestSpace,
    model: &Path,
    classes: &[(&str, Option<&str>)],
    params: Value,
) -> Result<TestRun, String> {
    let (cohort, cases) = (cohort(space), table(space, classes));
    let inputs = cohort.inputs(model).into_iter().chain([("cases", cases.as_path())]);
    space.run::<Classify>(params, &inputs.collect::<Vec<_>>()).map_err(|error| error.chain())
}

fn rows(run: &TestRun, file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(run.dir("table").join(file)).expect("the table is there");
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

#[track_caller]
fn close(found: &str, expected: f64) {
    let found: f64 = found.parse().expect("a number");
    // Logits are single precision.
    assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
}

#[test]
fn every_test_case_has_the_softmax_of_its_logits() {
    let space = TestSpace::new();
    let run = classify(&space, vec![by_sum(&space, 1.0, 0)], &CLASSES, json!({})).expect("sound");
    let rows = rows(&run, "probabilities.csv");
    assert_eq!(rows[0], ["case", "patient", "truth", "clear", "clouded"]);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1][..3], ["a", "patient of a", "clear"]);
    assert_eq!(rows[2][..3], ["b", "patient of b", "clouded"]);
    close(&rows[1][4], 0.5);
    close(&rows[2][4], sigmoid(2.0));
    close(&rows[2][3], sigmoid(-2.0));
    assert_eq!((&run.facts["cases"], &run.facts["members"]), (&json!(2), &json!(1)));
}

#[test]
fn members_count_by_their_weight() {
    let space = TestSpace::new();
    let mut heavy = by_sum(&space, 1.0, 0);
    heavy.card.weight = 3.0;
    let run = classify(&space, vec![heavy, by_sum(&space, -2.0, 0)], &CLASSES, json!({})).expect("sound");
    close(&rows(&run, "probabilities.csv")[2][4], 0.75 * sigmoid(2.0) + 0.25 * sigmoid(-4.0));
}

#[test]
fn a_validation_case_is_predicted_by_those_that_left_it_out() {
    let space = TestSpace::new();
    let members = vec![by_sum(&space, 1.0, 0), by_sum(&space, -3.0, 1)];
    let run = classify(&space, members, &CLASSES, json!({ "part": "validation" })).expect("sound");
    let rows = rows(&run, "probabilities.csv");
    assert_eq!(rows.len(), 3);
    close(&rows[1][4], sigmoid(1.0));
    close(&rows[2][4], sigmoid(-3.0));
}

#[test]
fn slices_of_a_volume_are_averaged() {
    let space = TestSpace::new();
    let image = Image::from_vec(vec![1.0, 0.0, -3.0, 0.0], 1, Geometry::with_spacing([2, 1, 2], [1.0; 3]));
    let case = TestCase { id: "a", image: image.expect("two slices"), label: None, part: Part::Test };
    let cohort = Cohort::plain(&space, &BTreeMap::new(), &[case]);
    let model = predictor(&space, &two_classes(), vec![by_sum(&space, 1.0, 0)]);
    let cases = table(&space, &CLASSES[..1]);
    let inputs = cohort.inputs(&model).into_iter().chain([("cases", cases.as_path())]);
    let run = space.run::<Classify>(json!({}), &inputs.collect::<Vec<_>>()).expect("sound");
    close(&rows(&run, "probabilities.csv")[1][4], f64::midpoint(sigmoid(1.0), sigmoid(-3.0)));
}

#[test]
fn cases_without_a_class_are_predicted_apart() {
    let space = TestSpace::new();
    let classes = [("a", None), CLASSES[1]];
    let run = classify(&space, vec![by_sum(&space, 1.0, 0)], &classes, json!({})).expect("sound");
    assert_eq!(rows(&run, "probabilities.csv").len(), 2);
    let unknown = rows(&run, "without_class.csv");
    assert_eq!(unknown[0], ["case", "patient", "clear", "clouded"]);
    assert_eq!(unknown[1][0], "a");
    assert_eq!(run.warnings, ["1 of 2 cases have no class: predicted, in `without_class.csv`"]);
}

#[test]
fn what_does_not_fit_is_told() {
    #[track_caller]
    fn check(classes: &[(&str, Option<&str>)], member: impl Fn(&TestSpace) -> Member, expected: &str) {
        let space = TestSpace::new();
        let error = classify(&space, vec![member(&space)], classes, json!({})).expect_err("refused");
        assert!(error.contains(expected), "{error}");
    }
    let sound = |space: &TestSpace| by_sum(space, 1.0, 0);
    check(
        &[("a", Some("broken")), CLASSES[1]],
        sound,
        "1 case of a class that the networks do not know (they know clear, clouded):\n  case `a` is of class `broken`",
    );
    check(&CLASSES[..1], sound, "case `b` of the split is not in `cases`");
    check(&CLASSES, |space| above(space, 0.0, 0), "networks that segment are scored by `evaluate`");
    check(&CLASSES, |space| by_sum(space, f32::MAX / PATCH, 0), "gives a logit that is no number");
}

#[test]
fn volumes_that_were_prepared_otherwise_are_refused() {
    let space = TestSpace::new();
    let (cohort, cases) = (cohort(&space), table(&space, &CLASSES));
    cohort.edit_info(|info| info.preparation.normalization = Normalization::Zscore);
    let model = predictor(&space, &two_classes(), vec![by_sum(&space, 1.0, 0)]);
    let inputs = cohort.inputs(&model).into_iter().chain([("cases", cases.as_path())]);
    let error = space.run::<Classify>(json!({}), &inputs.collect::<Vec<_>>()).expect_err("refused").chain();
    assert!(error.contains("normalisation is"), "{error}");
}

#[test]
fn logits_are_averaged_where_the_ensemble_says_so_and_votes_are_refused() {
    let space = TestSpace::new();
    let by = |combine: Combine| {
        let members = vec![by_sum(&space, 1.0, 0), by_sum(&space, -3.0, 0)];
        let task = Task { labels: two_classes(), channels: 1, preparation: Preparation::NONE };
        let model = space.stored(&Predictor { task, combine, members });
        classify_by(&space, &model, &CLASSES, json!({}))
    };
    // The sum of case `b` is 2.
    let run = by(Combine::MeanLogits).expect("sound");
    close(&rows(&run, "probabilities.csv")[2][4], sigmoid(-2.0));
    for combine in [Combine::Majority, Combine::Staple] {
        let error = by(combine).expect_err("votes");
        assert!(error.contains("`combine: mean-probabilities` or `mean-logits`"), "{error}");
    }
}

#[test]
fn a_class_cannot_be_called_as_a_column() {
    let space = TestSpace::new();
    let cohort = cohort(&space);
    let model = predictor(&space, &labels(&[(0, "clear"), (1, "truth")]), vec![by_sum(&space, 1.0, 0)]);
    let cases = table(&space, &[("a", Some("clear")), ("b", Some("truth"))]);
    let inputs = cohort.inputs(&model).into_iter().chain([("cases", cases.as_path())]);
    let error = space.run::<Classify>(json!({}), &inputs.collect::<Vec<_>>()).expect_err("refused").chain();
    assert!(error.contains("a class is called `truth`"), "{error}");
}

#[test]
fn a_fold_belongs_to_validation() {
    assert_eq!(problems::<Classify>(json!({ "fold": 1 }))[0].parameter, "fold");
    assert!(problems::<Classify>(json!({ "part": "validation", "fold": 1 })).is_empty());
}

/// The library that pipe fetches has the CPU alone outside of macOS and Windows.
#[cfg(target_os = "linux")]
#[test]
fn networks_run_on_the_device_that_was_asked_for_or_not_at_all() {
    let space = TestSpace::new();
    let on =
        |device: &str| classify(&space, vec![by_sum(&space, 1.0, 0)], &CLASSES, json!({ "device": device }));
    assert_eq!(on("cpu").expect("there is one").facts["device"], json!("cpu"));
    let error = on("directml").map(|_| ()).expect_err("Windows only");
    assert!(error.contains("`device: directml` needs DmlExecutionProvider"), "{error}");
}
