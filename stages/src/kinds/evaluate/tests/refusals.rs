//! What is refused, and what is said about it.

use super::*;
use crate::testing::problems;
use pipe_imaging::normalize::Normalization;

#[test]
fn a_part_without_cases_is_refused() {
    let space = TestSpace::new();
    let cohort = Cohort::plain(&space, &two_labels(), &[row_case("a", Part::Fold(0), &[1.0], Some(&[1]))]);
    let model = predictor(&space, &two_labels(), vec![above(&space, 0.0, 0)]);
    let text = refusal(&space, &cohort, &model, json!({}));
    assert!(text.starts_with("the split has no test cases: set `test` of the split above 0"), "{text}");
}

#[test]
fn volumes_made_for_another_network_are_refused() {
    #[track_caller]
    fn check(edit: impl FnOnce(&mut crate::artifacts::VolumesInfo), expected: &str) {
        let space = TestSpace::new();
        let cohort = Cohort::plain(&space, &two_labels(), &[row_case("a", Part::Test, &[1.0], Some(&[1]))]);
        cohort.edit_info(edit);
        let model = predictor(&space, &two_labels(), vec![above(&space, 0.0, 0)]);
        let text = refusal(&space, &cohort, &model, json!({}));
        assert_eq!(text, format!("the model was not made for these volumes: {expected}"));
    }
    check(
        |info| info.preparation.normalization = Normalization::Zscore,
        r#"normalisation is "zscore" in the volumes but "none" in the model"#,
    );
    check(
        |info| info.preparation.spacing_mm = Some([1.0; 3]),
        "spacing is 1 × 1 × 1 mm (z×y×x) in the volumes but each volume's own in the model",
    );
    check(
        |info| drop(info.dataset.labels.insert(1, "liver".into())),
        "labels are 0 background, 1 liver in the volumes but 0 background, 1 body in the model",
    );
}

#[test]
fn an_image_with_other_channels_is_refused_by_name() {
    let space = TestSpace::new();
    let grid = Geometry::with_spacing([1, 1, 2], [1.0; 3]);
    let image = Image::from_vec(vec![0.0; 4], 2, grid).expect("sizes agree");
    let cohort =
        Cohort::plain(&space, &two_labels(), &[TestCase { id: "a", image, label: None, part: Part::Test }]);
    let model = predictor(&space, &two_labels(), vec![above(&space, 0.0, 0)]);
    let text = refusal(&space, &cohort, &model, json!({}));
    assert_eq!(text, "case `a` has 2 image channels but the model takes 1");
}

#[test]
fn a_reference_that_cannot_be_compared_is_refused_by_name() {
    #[track_caller]
    fn check(label: LabelMap, expected: &str) {
        let space = TestSpace::new();
        let mut case = row_case("a", Part::Test, &[0.0, 1.0], None);
        case.label = Some(label);
        let cohort = Cohort::plain(&space, &two_labels(), &[case]);
        let model = predictor(&space, &two_labels(), vec![above(&space, 0.0, 0)]);
        let text = refusal(&space, &cohort, &model, json!({}));
        assert_eq!(text, format!("evaluating case `a`: `labelsTr/a.nii.gz` {expected}"));
    }
    let grid = |x: usize, spacing_mm: [f64; 3]| Geometry::with_spacing([1, 1, x], spacing_mm);
    let label = |values: &[u8], spacing_mm: [f64; 3]| {
        LabelMap::from_vec(values.to_vec(), grid(values.len(), spacing_mm)).expect("sizes agree")
    };
    check(label(&[0, 7], [1.0; 3]), "has the value 7 but the labels are 0 background, 1 body");
    check(
        label(&[0, 1, 0], [1.0; 3]),
        "cannot be compared with its prediction: it has 1×1×3 voxels but the prediction 1×1×2 (z×y×x)",
    );
}

#[test]
fn a_split_with_a_case_that_the_volumes_lack_is_refused() {
    let space = TestSpace::new();
    let one = Cohort::plain(&space, &two_labels(), &[row_case("a", Part::Test, &[1.0], Some(&[1]))]);
    let other = Cohort::plain(&space, &two_labels(), &[row_case("b", Part::Test, &[1.0], Some(&[1]))]);
    let mixed = Cohort { volumes: one.volumes, split: other.split };
    let model = predictor(&space, &two_labels(), vec![above(&space, 0.0, 0)]);
    let text = refusal(&space, &mixed, &model, json!({}));
    assert_eq!(text, "looking for case `b` of the split: the volumes hold no case `b`");
}

#[test]
fn a_network_that_is_not_the_one_of_its_card_is_refused() {
    let space = TestSpace::new();
    let cohort = Cohort::plain(&space, &two_labels(), &[row_case("a", Part::Test, &[1.0], Some(&[1]))]);
    let model = predictor(&space, &two_labels(), vec![above(&space, 0.0, 0)]);
    let other = above(&space, 1.0, 0).read().expect("stored");
    fs_err::write(model.join("members/00/model.onnx"), other).expect("temporary file");
    let text = refusal(&space, &cohort, &model, json!({}));
    assert!(text.contains("model.onnx") && text.contains("but the card says"), "{text}");
}

#[test]
fn a_stop_ends_the_evaluation() {
    let space = TestSpace::new();
    let cohort = Cohort::plain(&space, &two_labels(), &[row_case("a", Part::Test, &[1.0], Some(&[1]))]);
    let model = predictor(&space, &two_labels(), vec![above(&space, 0.0, 0)]);
    space.interrupt();
    let error = space.run::<Evaluate>(json!({}), &cohort.inputs(&model)).expect_err("the user asked to stop");
    assert!(matches!(error, StageError::Interrupted), "{error}");
}

#[test]
fn parameters_that_cannot_work_are_told_before_anything_runs() {
    let names = |params: Value| {
        problems::<Evaluate>(params).into_iter().map(|problem| problem.parameter).collect::<Vec<_>>()
    };
    assert!(names(json!({ "part": "validation", "fold": 0 })).is_empty());
    assert_eq!(names(json!({ "fold": 0 })), ["fold"]);
    assert_eq!(names(json!({ "part": "all", "fold": 0, "overlap": 1.0 })), ["fold", "overlap"]);
    assert_eq!(names(json!({ "metrics": [] })), ["metrics"]);
    assert_eq!(names(json!({ "metrics": ["dice", "dice"] })), ["metrics"]);
    assert_eq!(names(json!({ "definition": "medpy" })), ["metrics"], "it has no NSD");
    assert!(names(json!({ "definition": "medpy", "metrics": ["dice", "hd95_mm"] })).is_empty());
    let lengths = json!({ "tolerance_mm": -1.0, "tolerances_mm": { "body": -1.0 } });
    assert_eq!(names(lengths), ["tolerance_mm", "tolerances_mm"]);
    assert_eq!(names(json!({ "empty": "library", "absent": "perfect" })), ["absent"]);
    assert_eq!(names(json!({ "groups": { "all": [] } })), ["groups"]);
    let shares = json!({ "lesion_overlap": 1.5, "confidence": 1.0, "resamples": 10 });
    assert_eq!(names(shares), ["lesion_overlap", "confidence", "resamples"]);
}
