//! Classification from end to end: images with classes, networks, a table of probabilities, scores and a report.

use crate::space::TestSpace;
use serde_json::Value;

const PIPELINE: &str = r#"
name: classes
params: { resamples: 100 }
stages:
  cases:
    uses: import
    with:
      from: phantom
      archive: none.npz
      classes: [normal, pneumonia]
      phantom: { cases: 120, shape: [1, 16, 16], planted: { duplicates: 3 } }
  unique: { uses: dedup, in: { cases: cases }, with: { near: ignore } }
  split:
    uses: split
    in: { cases: unique, duplicates: unique }
    with: { official: { column: split, take: all } }
  volumes: { uses: crop, in: { cases: unique }, with: { normalize: zscore } }
  train:
    uses: train
    matrix: { seed: [1, 2] }
    in: { volumes: volumes, split: split, cases: unique }
    seed: "${matrix.seed}"
    with: { fold: 0, model: linear2d, epochs: 3, augment: none }
  onnx:
    uses: export
    matrix: { seed: [1, 2] }
    in: { model: "train[seed=${matrix.seed}]" }
  ensemble: { uses: ensemble, in: { models: "onnx[*]" } }
  single:
    uses: classify
    matrix: { seed: [1, 2] }
    in: { model: "onnx[seed=${matrix.seed}]", volumes: volumes, split: split, cases: unique }
  together: { uses: classify, in: { model: ensemble, volumes: volumes, split: split, cases: unique } }
  scores:
    uses: evaluate-classes
    in: { table: together, members: "single[*]", baseline: "single[seed=1]" }
    with: { resamples: "${resamples}" }
  report: { uses: report, in: { classes: scores, volumes: volumes, training: "train[*]" } }
"#;

#[test]
fn images_become_a_table_of_probabilities_with_scores_and_a_report() {
    let space = TestSpace::new(PIPELINE);
    // Each copy is in the training part, of an image of one of the three parts.
    space.run(&[]).code(0).says("14 ran").says("3 duplicate images").says("test cases 24");
    let result = |name: &str| space.read(&format!("results/classes/{name}"));
    let cases = result("unique/cases/cases.csv");
    let of_part = |part: &str| cases.lines().filter(|line| line.starts_with(part)).count();
    assert_eq!(of_part("test_"), 24, "what repeats a test image goes, not the test image: {cases}");
    // What repeats a validation image goes from the training part.
    assert_eq!((of_part("train_"), of_part("val_")), (84, 12));

    let table = result("together/table/probabilities.csv");
    assert!(table.starts_with("case,patient,truth,normal,pneumonia\n"), "{table}");
    assert_eq!(table.lines().filter(|line| line.starts_with("test_")).count(), 24);
    let summary: Value = serde_json::from_str(&result("scores/metrics/summary.json")).unwrap();
    assert_eq!(summary["cases"], 24);
    assert_eq!(summary["members"]["names"], serde_json::json!(["single[seed=1]", "single[seed=2]"]));
    assert_eq!(summary["comparison"].as_array().unwrap().len(), 8);
    let page = result("report/report/report.html");
    for part in ["Single networks", "Compared with the baseline", "ROC curve", "validation AUC"] {
        assert!(page.contains(part), "the report has no `{part}`");
    }

    space.run(&[]).code(0).says("nothing to do");
    // Another number of resamples predicts nothing again.
    space.run(&["--set", "resamples=200"]).code(0).says("running scores").says("2 ran");
}

#[test]
fn a_program_may_make_the_table() {
    let space = TestSpace::new(
        r"
name: own
stages:
  mine:
    uses: command
    with:
      run: printf 'case,truth,no,yes\na,yes,0.25,0.75\nb,no,0.5,0.5\nc,no,0.9,0.1\n' > out/table/probabilities.csv
      outputs: [table]
  scores: { uses: evaluate-classes, in: { table: mine } }
  report: { uses: report, in: { classes: scores } }
",
    );
    space.run(&[]).code(0).says("auc roc 1");
    assert!(space.read("results/own/report/report/report.html").contains("Every case was put in its class"));
}
