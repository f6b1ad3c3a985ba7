//! What is measured by which rules, its intervals, and the comparison with a baseline.

use super::*;
use crate::artifacts::metrics::{ComparisonRow, MetricSummary};

/// One row of twelve voxels for each of four cases, told apart at 0.5.
fn cases(images: [[f32; 4]; 4]) -> [TestCase; 4] {
    let names = ["a_1", "a_2", "b_1", "c_1"];
    let case = |k: usize| row_case(names[k], Part::Test, &images[k], Some(&[0, 1, 1, 0]));
    [0, 1, 2, 3].map(case)
}

const GOOD: [[f32; 4]; 4] =
    [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]];
const WORSE: [[f32; 4]; 4] =
    [[0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]];

fn summary<'a>(metrics: &'a Metrics, name: &str, metric: &str) -> &'a MetricSummary {
    let mut rows = metrics.summary.metrics.iter().filter(|row| row.name == name && row.metric == metric);
    rows.next().expect("the metric is there")
}

fn run(space: &TestSpace, images: [[f32; 4]; 4], params: Value) -> TestRun {
    let cohort = Cohort::plain(space, &two_labels(), &cases(images));
    evaluate(space, &cohort, &predictor(space, &two_labels(), vec![above(space, 0.5, 0)]), params)
}

#[test]
fn every_case_and_figure_is_in_the_tables_and_says_its_rules() {
    let space = TestSpace::new();
    let params = json!({
        "metrics": ["nsd", "dice", "lesions_missed"], "definition": "monai", "tolerance_mm": 0.0, "empty": "infinite",
    });
    let metrics = run(&space, WORSE, params).load(&METRICS);
    let names: Vec<&str> = metrics.rows.iter().take(3).map(|row| row.metric.as_str()).collect();
    assert_eq!(names, ["nsd", "dice", "lesions_missed"]);
    // Three voxels on both surfaces, of which two are on the other surface.
    assert_eq!(value(&metrics, "a_1", 1, "nsd"), Some(2.0 / 3.0));
    assert_eq!(value(&metrics, "c_1", 1, "nsd"), Some(0.0));
    assert_eq!(value(&metrics, "c_1", 1, "lesions_missed"), Some(1.0));
    let rules = &metrics.summary.rules;
    assert_eq!(
        (rules.definition.as_str(), rules.empty.as_str(), rules.tolerance_mm["body"]),
        ("monai", "infinite", 0.0)
    );
    let label = &metrics.summary.labels[0];
    assert_eq!((label.in_both, label.missed, label.spurious, label.absent), (3, 1, 0, 0));
    assert!(metrics.summary.definitions["nsd"].contains("MONAI"), "{:?}", metrics.summary.definitions);
    assert!(metrics.summary.definitions["empty_masks"].contains("distances are infinity"));
}

#[test]
fn an_infinite_distance_has_no_mean_but_a_median() {
    let space = TestSpace::new();
    let params = json!({ "metrics": ["hd95_mm"], "definition": "medpy", "empty": "infinite" });
    let found = run(&space, WORSE, params);
    let csv = fs_err::read_to_string(found.dir("metrics").join("metrics.csv")).expect("the table is there");
    assert!(csv.contains("c_1,patient of c_1,1,body,hd95_mm,inf,true\n"), "{csv}");
    let metrics = found.load(&METRICS);
    let row = summary(&metrics, "body", "hd95_mm");
    assert_eq!((row.n, row.by_rule, row.mean, row.interval), (4, 1, None, None));
    assert!(row.median.is_some_and(|median| median > 0.0 && median < 2.0), "{row:?}");
}

#[test]
fn the_worst_distance_keeps_the_mean() {
    let space = TestSpace::new();
    let metrics = run(&space, WORSE, json!({ "metrics": ["hd95_mm"] })).load(&METRICS);
    // Four voxels of 1 mm in a row, in one slice.
    let diagonal = value(&metrics, "c_1", 1, "hd95_mm").expect("a rule gives it");
    assert_eq!(diagonal, 4.0);
    assert!(summary(&metrics, "body", "hd95_mm").mean.is_some());
}

#[test]
fn intervals_hold_the_mean_and_are_over_patients() {
    let space = TestSpace::new();
    let metrics = run(&space, WORSE, json!({ "resamples": 500 })).load(&METRICS);
    let row = summary(&metrics, "body", "dice");
    let (mean, interval) = (row.mean.expect("defined"), row.interval.expect("four patients"));
    assert!(interval.low < mean && mean < interval.high, "{interval:?} {mean}");
    assert_eq!(metrics.summary.mean_foreground_dice_interval, Some(interval), "one label");
    assert_eq!((metrics.summary.patients, metrics.summary.rules.resamples), (4, 500));
}

#[test]
fn groups_are_scored_as_one_label() {
    let space = TestSpace::new();
    let names = labels(&[(0, "background"), (2, "low"), (5, "high")]);
    let member = || voxelwise(&space, Dims::Three, &[0.0, 20.0, 40.0], &[0.0, -10.0, -40.0], 0);
    // Predicted 0, 2, 5, 5.
    let case = row_case("a", Part::Test, &[0.0, 1.0, 2.0, 2.0], Some(&[0, 5, 5, 0]));
    let cohort = Cohort::plain(&space, &names, &[case]);
    let model = predictor(&space, &names, vec![member()]);
    let params = json!({ "groups": { "any": ["high", "low"] }, "tolerances_mm": { "any": 3.0 } });
    let metrics = evaluate(&space, &cohort, &model, params).load(&METRICS);
    assert_eq!(value(&metrics, "a", 2, "dice"), Some(0.0));
    assert_eq!(value(&metrics, "a", 5, "dice"), Some(0.5));
    assert_eq!(value(&metrics, "a", 6, "dice"), Some(0.8), "two of two and three voxels");
    assert_eq!(value(&metrics, "a", 6, "nsd"), Some(1.0));
    assert_eq!(metrics.summary.mean_foreground_dice, Some(0.25), "groups do not count twice");

    let unknown = |params: Value| refusal(&space, &cohort, &model, params);
    let text = unknown(json!({ "groups": { "any": ["high", "lov"] } }));
    assert_eq!(text, "group `any` holds `lov`, which is no label: there are 2 low, 5 high");
    let text = unknown(json!({ "groups": { "low": ["high"] } }));
    assert_eq!(text, "`groups` names `low`, which is a label already: choose another name");
    let text = unknown(json!({ "tolerances_mm": { "lov": 1.0 } }));
    assert_eq!(
        text,
        "`tolerances_mm` names `lov`, which is neither a label nor a group: there are 2 low, 5 high"
    );
}

fn against(
    space: &TestSpace,
    images: [[f32; 4]; 4],
    baseline: &Path,
    params: Value,
) -> Result<TestRun, String> {
    let cohort = Cohort::plain(space, &two_labels(), &cases(images));
    let model = predictor(space, &two_labels(), vec![above(space, 0.5, 0)]);
    let mut inputs = Vec::from(cohort.inputs(&model));
    inputs.push(("baseline", baseline));
    space.run::<Evaluate>(params, &inputs).map_err(|error| error.chain())
}

#[test]
fn a_baseline_is_compared_patient_by_patient() {
    let space = TestSpace::new();
    let params = || json!({ "metrics": ["dice", "volume_error_ml"] });
    let worse = run(&space, WORSE, params());
    let metrics = against(&space, GOOD, worse.dir("metrics"), params()).expect("comparable").load(&METRICS);
    let ComparisonRow { patients, better, worse, equal, mean_difference, p_wilcoxon, exact, .. } =
        &metrics.summary.comparison[0];
    assert_eq!((*patients, *better, *worse, *equal), (4, 3, 0, 1));
    // 1 and 2/3, 1 and 1, 1 and 2/3, 4/5 and 0.
    let expected = (1.0 / 3.0 + 1.0 / 3.0 + 0.8) / 4.0;
    assert!((mean_difference.expect("defined") - expected).abs() < 1e-15);
    // Three of three signs one way: 2 of 8.
    assert_eq!((*p_wilcoxon, *exact), (Some(0.25), true));
    // A voxel missed, none, a voxel missed, two missed; then none, none, none, one too many: smaller in three.
    let volume = &metrics.summary.comparison[1];
    assert_eq!((volume.metric.as_str(), volume.better, volume.worse), ("volume_error_ml", 3, 0));
}

#[test]
fn what_cannot_be_paired_is_refused() {
    let space = TestSpace::new();
    let baseline = run(&space, WORSE, json!({ "metrics": ["dice"] }));
    let text =
        against(&space, GOOD, baseline.dir("metrics"), json!({ "metrics": ["dice"], "tolerance_mm": 2.0 }));
    let text = text.expect_err("other rules");
    assert!(text.starts_with("the baseline was measured by other rules: {"), "{text}");

    let cohort = Cohort::plain(&space, &two_labels(), &cases(GOOD)[..3]);
    let model = predictor(&space, &two_labels(), vec![above(&space, 0.5, 0)]);
    let fewer = evaluate(&space, &cohort, &model, json!({ "metrics": ["dice"] }));
    let text = against(&space, GOOD, fewer.dir("metrics"), json!({ "metrics": ["dice"] }));
    assert_eq!(
        text.expect_err("a case is missing"),
        "case `c_1` is scored in this evaluation but not in the baseline: a paired comparison needs the same cases in both"
    );
}
