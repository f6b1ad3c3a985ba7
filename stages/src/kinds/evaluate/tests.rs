mod refusals;
mod scoring;

use super::*;
use crate::artifacts::Part;
use crate::kinds::inference::testing::{
    Cohort, TestCase, above, labels, predictor, row_case, two_labels, unet, voxelwise,
};
use crate::testing::{TestRun, TestSpace};
use pipe_imaging::{Affine, Geometry, Image, LabelMap, crop};
use pipe_metrics::confusion::Confusion;
use pipe_metrics::overlap;
use pipe_nn::Dims;
use serde_json::{Value, json};
use std::path::PathBuf;

#[track_caller]
fn evaluate(space: &TestSpace, cohort: &Cohort, predictor: &Path, params: Value) -> TestRun {
    space
        .run::<Evaluate>(params, &cohort.inputs(predictor))
        .unwrap_or_else(|error| panic!("{}", error.chain()))
}

#[track_caller]
fn refusal(space: &TestSpace, cohort: &Cohort, predictor: &Path, params: Value) -> String {
    space.run::<Evaluate>(params, &cohort.inputs(predictor)).expect_err("the evaluation is refused").chain()
}

#[track_caller]
fn value(metrics: &Metrics, case: &str, label: u8, metric: &str) -> Option<f64> {
    let mut rows = metrics
        .rows
        .iter()
        .filter(|row| (row.case.as_str(), row.label, row.metric.as_str()) == (case, label, metric));
    let value = rows.next().expect("the row is there").value;
    assert!(rows.next().is_none(), "the row is there once");
    value
}

fn voxels(run: &TestRun, id: &str) -> Vec<u8> {
    run.load(&PREDICTIONS).label(id).expect("the case is predicted").as_slice().to_vec()
}

/// Values that look like noise but follow from the position alone.
fn texture(count: usize, seed: u64) -> Vec<f32> {
    let scramble = |index: usize| (index as u64 ^ seed << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..count).map(|index| scramble(index) as f32 / (1_u32 << 23) as f32 - 1.0).collect()
}

/// A case on a grid that is neither RAS nor isotropic, with a body of random shape.
fn oblong_case(id: &'static str, part: Part, seed: u64) -> TestCase {
    // Voxel x points left, voxel y up and voxel z back; 0.9, 1.4 and 2 mm.
    let affine = Affine([
        [-0.9, 0.0, 0.0, 40.0],
        [0.0, 0.0, -2.0, 31.5],
        [0.0, 1.4, 0.0, -12.25],
        [0.0, 0.0, 0.0, 1.0],
    ]);
    let grid = Geometry::new([9, 12, 15], affine);
    let image = texture(9 * 12 * 15, seed);
    let label = texture(9 * 12 * 15, seed + 1).iter().map(|value| u8::from(*value > 0.2)).collect();
    TestCase {
        id,
        image: Image::from_vec(image, 1, grid).expect("sizes agree"),
        label: Some(LabelMap::from_vec(label, grid).expect("sizes agree")),
        part,
    }
}

/// Turned to RAS, cut on one side and padded on another, resampled to 1.2 mm.
fn prepared(source: &Geometry) -> Transform {
    let upright = Transform::new(source).canonical();
    let [z, y, x] = upright.target().shape.0;
    let window = crop::Window { start: [1, -1, 2], shape: [z - 1, y + 1, x - 3] };
    upright.crop(window).expect("a box").resample_to_spacing([1.2; 3]).expect("a spacing")
}

/// A predictor of random U-Nets, exported by the stage of that name.
fn exported(space: &TestSpace, models: &[(Dims, u64)]) -> PathBuf {
    let export = |(dims, seed): &(Dims, u64)| {
        let model = space.stored(&unet(*dims, &two_labels(), 0, *seed));
        let run = space
            .run::<crate::kinds::export::Export>(json!({}), &[("model", &model)])
            .expect("a sound model");
        run.dir("predictor").to_owned()
    };
    let members: Vec<PathBuf> = models.iter().map(export).collect();
    let dirs = members.iter().map(PathBuf::as_path).collect();
    let run = space.run_many::<crate::kinds::ensemble::Ensemble>(json!({}), &[("models", dirs)]);
    run.expect("the models agree").dir("predictor").to_owned()
}

#[test]
fn scores_equal_the_case_worked_by_hand() {
    let space = TestSpace::new();
    // Above 0.5:            0    1    1    1    0    0
    let image = [0.1, 0.9, 0.8, 0.7, 0.2, 0.3];
    let case = row_case("a", Part::Test, &image, Some(&[0, 1, 1, 0, 1, 0]));
    let cohort = Cohort::plain(&space, &two_labels(), &[case]);
    let run =
        evaluate(&space, &cohort, &predictor(&space, &two_labels(), vec![above(&space, 0.5, 0)]), json!({}));
    assert_eq!(voxels(&run, "a"), [0, 1, 1, 1, 0, 0]);
    let metrics = run.load(&METRICS);
    // TP 2, FP 1, FN 1.
    for (metric, expected) in
        [("dice", 4.0 / 6.0), ("iou", 2.0 / 4.0), ("precision", 2.0 / 3.0), ("recall", 2.0 / 3.0)]
    {
        assert_eq!(value(&metrics, "a", 1, metric), Some(expected), "{metric}");
    }
    assert_eq!(metrics.rows.len(), 8, "background is not scored");
    assert_eq!(metrics.summary.mean_foreground_dice, Some(4.0 / 6.0));
    assert_eq!(run.facts["mean_dice"], 4.0 / 6.0);
}

#[test]
fn undefined_values_enter_no_figure_and_are_counted() {
    let space = TestSpace::new();
    let cases = [
        // Missed: Dice 0. Absent in both: undefined. Found by half: 2·1 / (2·1 + 0 + 1).
        row_case("missed", Part::Test, &[0.0, 0.0], Some(&[1, 1])),
        row_case("absent", Part::Test, &[0.0, 0.0], Some(&[0, 0])),
        row_case("half", Part::Test, &[1.0, 0.0], Some(&[1, 1])),
        row_case("false", Part::Test, &[1.0, 0.0], Some(&[0, 0])),
    ];
    let cohort = Cohort::plain(&space, &two_labels(), &cases);
    let run =
        evaluate(&space, &cohort, &predictor(&space, &two_labels(), vec![above(&space, 0.5, 0)]), json!({}));
    let Metrics { rows, summary } = run.load(&METRICS);
    let dice: Vec<(&str, Option<f64>)> =
        rows.iter().filter(|row| row.metric == "dice").map(|row| (row.case.as_str(), row.value)).collect();
    assert_eq!(
        dice,
        [("absent", None), ("false", Some(0.0)), ("half", Some(2.0 / 3.0)), ("missed", Some(0.0))]
    );
    let figures = |metric: &str| {
        let found =
            summary.metrics.iter().find(|summary| summary.metric == metric).expect("the metric is there");
        (found.n, found.undefined, found.mean, found.median)
    };
    assert_eq!(figures("dice"), (3, 1, Some(2.0 / 9.0), Some(0.0)));
    assert_eq!(figures("precision"), (2, 2, Some(0.5), Some(0.5)));
    assert_eq!(figures("recall"), (2, 2, Some(0.25), Some(0.25)));
    assert!(summary.definitions["empty_masks"].contains("without a formula are undefined"));
    let csv = fs_err::read_to_string(run.dir("metrics").join("metrics.csv")).expect("the table is there");
    assert!(csv.contains("absent,patient of absent,1,body,dice,,true\n"), "{csv}");
}

#[test]
fn predictions_lie_on_the_grid_of_the_source_and_are_scored_there() {
    let space = TestSpace::new();
    let cases = [oblong_case("a", Part::Test, 1), oblong_case("b", Part::Test, 5)];
    let cohort = Cohort::new(&space, &two_labels(), &cases, prepared);
    let run = evaluate(&space, &cohort, &exported(&space, &[(Dims::Three, 1)]), json!({}));
    let (predictions, metrics) = (run.load(&PREDICTIONS), run.load(&METRICS));
    for case in &cases {
        let found = predictions.label(case.id).expect("the case is predicted");
        let source = case.image.geometry();
        assert_eq!(found.shape(), source.shape);
        // NIfTI keeps affines as f32.
        assert!(found.geometry().affine.max_difference(&source.affine) < 1e-5);
        let reference = case.label.as_ref().expect("the case has a label").as_slice();
        let counts = Confusion::of(reference, found.as_slice()).expect("equal sizes").counts(1);
        assert!(
            counts.true_positive > 0 && counts.false_negative > 0,
            "the case tells something: {counts:?}"
        );
        assert_eq!(value(&metrics, case.id, 1, "dice"), Some(overlap::dice(&counts)));
    }
}

#[test]
fn what_was_cut_away_is_background_and_labels_keep_their_values() {
    let space = TestSpace::new();
    let names = labels(&[(0, "background"), (2, "low"), (5, "high")]);
    // Classes in order: background wins at 0, `low` at 1, `high` at 2 (logits -x², up to what all share: 2ax - a²).
    let member = voxelwise(&space, Dims::Three, &[0.0, 20.0, 40.0], &[0.0, -10.0, -40.0], 0);
    let case = row_case("a", Part::Test, &[2.0, 1.0, 0.0, 2.0], Some(&[5, 2, 0, 2]));
    let right_half = |source: &Geometry| {
        let window = crop::Window { start: [0, 0, 1], shape: [1, 1, 3] };
        Transform::new(source).crop(window).expect("a box")
    };
    let cohort = Cohort::new(&space, &names, &[case], right_half);
    let run = evaluate(&space, &cohort, &predictor(&space, &names, vec![member]), json!({}));
    assert_eq!(voxels(&run, "a"), [0, 2, 0, 5]);
    let metrics = run.load(&METRICS);
    assert_eq!(value(&metrics, "a", 2, "dice"), Some(2.0 / 3.0));
    assert_eq!(value(&metrics, "a", 5, "dice"), Some(0.0));
    assert_eq!(metrics.summary.mean_foreground_dice, Some(1.0 / 3.0), "mean over labels");
}

#[test]
fn an_ensemble_of_one_network_repeated_predicts_what_the_network_does() {
    let space = TestSpace::new();
    let cohort = Cohort::new(&space, &two_labels(), &[oblong_case("a", Part::Test, 1)], prepared);
    for dims in [Dims::Two, Dims::Three] {
        let alone = evaluate(&space, &cohort, &exported(&space, &[(dims, 1)]), json!({}));
        let twice = evaluate(&space, &cohort, &exported(&space, &[(dims, 1), (dims, 1)]), json!({}));
        let other = evaluate(&space, &cohort, &exported(&space, &[(dims, 7)]), json!({}));
        assert_eq!(voxels(&alone, "a"), voxels(&twice, "a"), "{dims:?}");
        assert_ne!(voxels(&alone, "a"), voxels(&other, "a"), "the network matters");
    }
}

#[test]
fn slices_and_volumes_vote_together() {
    let space = TestSpace::new();
    let cohort = Cohort::new(&space, &two_labels(), &[oblong_case("a", Part::Test, 1)], prepared);
    let run = evaluate(&space, &cohort, &exported(&space, &[(Dims::Two, 1), (Dims::Three, 2)]), json!({}));
    assert_eq!(run.load(&METRICS).summary.prediction.expect("networks did it").members.len(), 2);
    assert_eq!(run.load(&PREDICTIONS).rows[0].members, "models[0]; models[1]");
}

#[test]
fn the_heavier_network_decides() {
    let space = TestSpace::new();
    let cohort =
        Cohort::plain(&space, &two_labels(), &[row_case("a", Part::Test, &[-1.0, 1.0], Some(&[0, 1]))]);
    for (weights, expected) in [([3.0, 1.0], [0, 1]), ([1.0, 3.0], [1, 0])] {
        let mut members =
            vec![above(&space, 0.0, 0), voxelwise(&space, Dims::Three, &[8.0, -8.0], &[0.0, 0.0], 0)];
        members.iter_mut().zip(weights).for_each(|(member, weight)| member.card.weight = weight);
        let run = evaluate(&space, &cohort, &predictor(&space, &two_labels(), members), json!({}));
        assert_eq!(voxels(&run, "a"), expected);
    }
}

#[test]
fn validation_cases_are_predicted_only_by_networks_that_did_not_see_them() {
    let space = TestSpace::new();
    let image = [-1.0, 1.0, 3.0];
    let cases = [
        row_case("first", Part::Fold(0), &image, Some(&[0, 1, 1])),
        row_case("second", Part::Fold(1), &image, Some(&[0, 1, 1])),
        row_case("third", Part::Fold(2), &image, Some(&[0, 1, 1])),
        row_case("test", Part::Test, &image, Some(&[0, 1, 1])),
    ];
    let cohort = Cohort::plain(&space, &two_labels(), &cases);
    let members = vec![above(&space, 0.0, 0), above(&space, 2.0, 1)];
    let model = predictor(&space, &two_labels(), members);

    let run = evaluate(&space, &cohort, &model, json!({ "part": "validation" }));
    assert_eq!(voxels(&run, "first"), [0, 1, 1]);
    assert_eq!(voxels(&run, "second"), [0, 0, 1]);
    let rows = run.load(&PREDICTIONS).rows;
    let made: Vec<_> =
        rows.iter().map(|row| (row.id.as_str(), row.part.as_str(), row.fold, row.members.as_str())).collect();
    assert_eq!(
        made,
        [("first", "validation", Some(0), "voxelwise 0"), ("second", "validation", Some(1), "voxelwise 1")]
    );
    assert_eq!(run.load(&METRICS).summary.folds, [0, 1]);

    let run = evaluate(&space, &cohort, &model, json!({ "part": "validation", "fold": 1 }));
    assert_eq!(run.load(&PREDICTIONS).rows.len(), 1);
    let run = evaluate(&space, &cohort, &model, json!({ "part": "all" }));
    let ids: Vec<String> = run.load(&PREDICTIONS).rows.into_iter().map(|row| row.id).collect();
    assert_eq!(ids, ["first", "second", "test"]);

    let text = refusal(&space, &cohort, &model, json!({ "part": "validation", "fold": 2 }));
    assert!(text.starts_with("no network left fold 2 out in training, only fold 0, 1"), "{text}");
}

#[test]
fn a_case_without_reference_is_predicted_counted_and_not_scored() {
    let space = TestSpace::new();
    let cases = [
        row_case("blind", Part::Test, &[0.0, 1.0], None),
        row_case("seen", Part::Test, &[0.0, 1.0], Some(&[0, 1])),
    ];
    let cohort = Cohort::plain(&space, &two_labels(), &cases);
    let run =
        evaluate(&space, &cohort, &predictor(&space, &two_labels(), vec![above(&space, 0.5, 0)]), json!({}));
    assert_eq!(voxels(&run, "blind"), [0, 1]);
    let Metrics { rows, summary } = run.load(&METRICS);
    assert!(rows.iter().all(|row| row.case == "seen"));
    assert_eq!((summary.cases, summary.without_reference), (2, vec!["blind".to_owned()]));
    assert_eq!(run.facts["cases without reference"], 1);
    assert_eq!(run.warnings, ["1 of 2 cases have no reference: predicted, not scored"]);
}

#[test]
fn volumes_that_know_no_labels_can_be_predicted() {
    let space = TestSpace::new();
    let background = labels(&[(0, "background")]);
    let cohort = Cohort::plain(&space, &background, &[row_case("blind", Part::Test, &[0.0, 1.0], None)]);
    let run =
        evaluate(&space, &cohort, &predictor(&space, &two_labels(), vec![above(&space, 0.5, 0)]), json!({}));
    assert_eq!(voxels(&run, "blind"), [0, 1]);
    assert_eq!(run.load(&METRICS).summary.mean_foreground_dice, None);
}

#[test]
fn only_cases_that_changed_are_predicted_again() {
    let space = TestSpace::new();
    let names = two_labels();
    let cases = |changed: f32| {
        ["a", "b", "c"].map(|id| {
            let first = if id == "b" { changed } else { 0.0 };
            row_case(id, Part::Test, &[first, 1.0], Some(&[0, 1]))
        })
    };
    let model = predictor(&space, &names, vec![above(&space, 0.5, 0)]);
    let params = || json!({});
    let cohort = Cohort::plain(&space, &names, &cases(0.0));
    let first = evaluate(&space, &cohort, &model, params());
    // Each case is predicted and scored, both on their own.
    assert_eq!(first.memo_misses, 3 + 3);
    let again = evaluate(&space, &cohort, &model, params());
    assert_eq!(again.memo_misses, 0);
    for port in ["metrics", "predictions"] {
        assert_eq!(first.content(port), again.content(port), "{port}");
    }
    let changed = Cohort::plain(&space, &names, &cases(0.25));
    assert_eq!(evaluate(&space, &changed, &model, params()).memo_misses, 1 + 1);
    let monai = json!({ "definition": "monai" });
    assert_eq!(
        evaluate(&space, &changed, &model, monai).memo_misses,
        3,
        "only scores depend on the definition"
    );

    let mut more = Vec::from(cases(0.25));
    more.push(row_case("d", Part::Test, &[0.0, 1.0], Some(&[0, 1])));
    more[0].label = None;
    let more = Cohort::plain(&space, &names, &more);
    assert_eq!(
        evaluate(&space, &more, &model, params()).memo_misses,
        1 + 1,
        "one case is new, one lost its reference"
    );

    for params in [json!({ "mirror": true }), json!({ "overlap": 0.25 })] {
        assert_eq!(evaluate(&space, &more, &model, params).memo_misses, 4 + 3);
    }
    let other = predictor(&space, &names, vec![above(&space, 0.5, 0), above(&space, 0.625, 0)]);
    assert_eq!(evaluate(&space, &more, &other, json!({})).memo_misses, 4 + 3);
}

#[test]
fn mirroring_changes_a_network_that_sees_directions_and_not_one_that_sees_voxels() {
    let space = TestSpace::new();
    let cohort = Cohort::new(&space, &two_labels(), &[oblong_case("a", Part::Test, 1)], prepared);
    let both = |model: &Path| {
        [false, true]
            .map(|mirror| voxels(&evaluate(&space, &cohort, model, json!({ "mirror": mirror })), "a"))
    };
    let [plain, mirrored] = both(&predictor(&space, &two_labels(), vec![above(&space, 0.0, 0)]));
    assert_eq!(plain, mirrored);
    for dims in [Dims::Two, Dims::Three] {
        let [plain, mirrored] = both(&exported(&space, &[(dims, 1)]));
        assert_ne!(plain, mirrored, "{dims:?}");
    }
}

#[test]
fn an_ensemble_is_compared_with_the_mean_of_its_members() {
    let space = TestSpace::new();
    let row = [-1.0, 0.5, 1.5, 2.5, 3.5];
    let reference = row.map(|value| u8::from(value > 1.0));
    let case = |id| row_case(id, Part::Test, &row, Some(&reference));
    let cohort = Cohort::plain(&space, &two_labels(), &[case("a"), case("b")]);
    let members = vec![above(&space, 0.0, 0), above(&space, 2.0, 1)];
    let predictor = predictor(&space, &two_labels(), members);
    let run = evaluate(&space, &cohort, &predictor, json!({ "metrics": ["iou", "dice"], "members": true }));
    let ensemble = run.load(&METRICS).summary.ensemble.expect("asked for");
    // Thresholds 0 and 2 have the mean 1: all right together, 6/7 and 4/5 alone.
    let close = |found: Option<f64>, expected: f64| {
        assert!((found.expect("defined") - expected).abs() < 1e-12, "{found:?} {expected}");
    };
    close(ensemble.ensemble, 1.0);
    close(ensemble.mean_of_members, 29.0 / 35.0);
    close(ensemble.difference, 6.0 / 35.0);
    let interval = ensemble.interval.expect("two patients");
    close(Some(interval.low), 6.0 / 35.0);
    close(Some(interval.high), 6.0 / 35.0);
    let alone: Vec<(usize, Option<f64>)> =
        ensemble.members.iter().map(|member| (member.cases, member.mean_foreground_dice)).collect();
    assert_eq!(alone.len(), 2);
    close(alone[0].1, 6.0 / 7.0);
    close(alone[1].1, 0.8);
    assert!(alone.iter().all(|(cases, _)| *cases == 2));
    // Without it nothing is said, and the figures are the same.
    let plain = evaluate(&space, &cohort, &predictor, json!({ "metrics": ["iou", "dice"] }));
    assert_eq!(plain.load(&METRICS).rows, run.load(&METRICS).rows);
    assert_eq!(plain.load(&METRICS).summary.ensemble, None);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let cases =
        || ["a", "b", "c", "d", "e"].map(|id| oblong_case(id, Part::Test, u64::from(id.as_bytes()[0])));
    let run = |threads: usize| {
        let space = TestSpace::new();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let cohort = Cohort::new(&space, &two_labels(), &cases(), prepared);
            let model = exported(&space, &[(Dims::Two, 1), (Dims::Three, 2)]);
            let run = evaluate(&space, &cohort, &model, json!({}));
            (run.content("metrics"), run.content("predictions"))
        })
    };
    assert_eq!(run(1), run(4));
}
