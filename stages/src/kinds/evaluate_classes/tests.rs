use super::*;
use crate::testing::{TestRun, TestSpace, problems};
use serde_json::{Value, json};

const TWO: &str = "case,patient,truth,healthy,ill\n\
    a,p,ill,0.1,0.9\nb,p,healthy,0.4,0.6\nc,q,ill,0.4,0.6\nd,r,healthy,0.8,0.2\n";

fn evaluate(space: &TestSpace, table: &str, params: Value) -> Result<TestRun, String> {
    let folder = space.path().join("tables");
    fs_err::create_dir_all(&folder).expect("temporary folder");
    fs_err::write(folder.join("probabilities.csv"), table).expect("temporary file");
    let run = space.run::<EvaluateClasses>(params, &[("table", &folder)]);
    run.map_err(|error| error.chain().replace(&folder.display().to_string(), ""))
}

fn figure<'a>(metrics: &'a ClassMetrics, metric: &str, class: Option<&str>) -> &'a ClassFigure {
    let wanted = |figure: &&ClassFigure| figure.metric == metric && figure.class.as_deref() == class;
    metrics.summary.metrics.iter().find(wanted).expect("the figure is there")
}

#[test]
fn two_classes_equal_the_case_worked_by_hand() {
    let space = TestSpace::new();
    let run = evaluate(&space, TWO, json!({ "bins": 2 })).expect("a sound table");
    let metrics = run.load(&METRICS);
    // Of four pairs three are in order and one is equal.
    assert_eq!(figure(&metrics, "auc_roc", None).value, Some(3.5 / 4.0));
    assert_eq!(figure(&metrics, "auc_roc", Some("healthy")).value, Some(3.5 / 4.0));
    assert_eq!(figure(&metrics, "accuracy", None).value, Some(0.75));
    assert_eq!(figure(&metrics, "f1", None).value, Some(0.8), "of the last class");
    assert_eq!(figure(&metrics, "recall", Some("healthy")).value, Some(0.5));
    let ece = figure(&metrics, "ece", None).value.expect("defined");
    assert!((ece - (0.2 + 3.0 * (0.7 - 2.0 / 3.0)) / 4.0).abs() < 1e-15, "{ece}");
    assert_eq!(metrics.summary.confusion, [[1, 1], [0, 2]]);
    assert_eq!((metrics.summary.cases, metrics.summary.patients), (4, 3));
    assert_eq!(metrics.cases[1].predicted, "ill");
    assert_eq!(metrics.reliability.iter().map(|bin| bin.cases).collect::<Vec<_>>(), [1, 3]);
    let roc: Vec<_> = metrics.roc.iter().filter(|row| row.class == "ill").map(|row| (row.x, row.y)).collect();
    assert_eq!(roc, [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]);
    assert_eq!(metrics.pr.len(), 6);
    assert_eq!(run.facts["auc_roc"], 3.5 / 4.0);
    let interval = figure(&metrics, "accuracy", None).interval.expect("three patients");
    assert!(interval.low < 0.75 && interval.high == 1.0, "{interval:?}");
}

#[test]
fn cases_of_a_patient_are_drawn_together() {
    let space = TestSpace::new();
    // One patient has all wrong cases: the interval is as wide as two patients make it.
    let rows = |patient: &str, right: bool| {
        let truth = if right { "ill" } else { "healthy" };
        (0..10).map(|k| format!("{patient}{k},{patient},{truth},0.1,0.9\n")).collect::<String>()
    };
    let table = format!("case,patient,truth,healthy,ill\n{}{}", rows("p", true), rows("q", false));
    let metrics = evaluate(&space, &table, json!({})).expect("a sound table").load(&METRICS);
    assert_eq!(figure(&metrics, "accuracy", None).interval, Some(Interval { low: 0.0, high: 1.0 }));
    let alone = table.replace(",p,", ",").replace(",q,", ",").replace("case,patient,", "case,");
    let metrics = evaluate(&space, &alone, json!({})).expect("a sound table").load(&METRICS);
    assert_eq!(metrics.summary.patients, 20);
    assert!(figure(&metrics, "accuracy", None).interval.expect("patients").low > 0.2);
}

#[test]
fn more_classes_are_averaged_and_what_does_not_occur_is_undefined() {
    let space = TestSpace::new();
    let table = "case,truth,x,y,z\na,x,0.6,0.2,0.2\nb,y,0.1,0.8,0.1\nc,x,0.3,0.6,0.1\n";
    let metrics = evaluate(&space, table, json!({})).expect("a sound table").load(&METRICS);
    assert_eq!(figure(&metrics, "auc_roc", None).value, None, "no case is of class z");
    assert_eq!(figure(&metrics, "auc_roc", Some("y")).value, Some(1.0));
    assert_eq!(figure(&metrics, "balanced_accuracy", None).value, Some(0.75));
    assert!(metrics.roc.iter().all(|row| row.class != "z"));
    assert!(metrics.summary.definitions["auc_roc"].contains("mean over the classes"));
}

#[test]
fn a_table_may_lie_outside_of_the_pipeline() {
    let space = TestSpace::new();
    let path = space.path().join("mine.csv");
    fs_err::write(&path, TWO).expect("temporary file");
    let run = space.run::<EvaluateClasses>(json!({ "from": path }), &[]).expect("a sound table");
    assert_eq!(run.load(&METRICS), evaluate(&space, TWO, json!({})).expect("a sound table").load(&METRICS));
}

#[test]
fn tables_that_cannot_be_scored_are_refused_by_case() {
    #[track_caller]
    fn check(table: &str, expected: &str) {
        let error = evaluate(&TestSpace::new(), table, json!({})).expect_err("refused");
        assert_eq!(error, format!("`/probabilities.csv` {expected}"));
    }
    check("case,x,y\na,1,0\n", "has no column `truth`; its columns are case, x, y");
    check("case,truth,x,x\n", "has two columns `x`");
    check("case,truth,x,y\n", "has no cases");
    check(
        "case,truth,x\na,x,1\n",
        "has 1 columns of probabilities: every class needs one, and there must be two at least",
    );
    check("case,truth,x,y\na,x,1,0\na,y,0,1\n", "names case `a` twice");
    check("case,truth,x,y\na,z,1,0\n", "says that case `a` is of class `z`, but its classes are x, y");
    check("case,truth,x,y\na,x,high,0\n", "gives case `a` the probability `high` for `x`: no number");
    check(
        "case,truth,x,y\na,x,1.5,0\n",
        "gives case `a` the probability 1.5 for `x`: it must be from 0 to 1",
    );
    check("case,truth,x,y\na,x,0.5,0.25\n", "gives case `a` probabilities that sum to 0.75, not to 1");
}

#[test]
fn parameters_that_cannot_work_are_told_before_anything_runs() {
    let params = json!({ "from": "", "bins": 0, "confidence": 0.0, "resamples": 1 });
    let names: Vec<_> =
        problems::<EvaluateClasses>(params).into_iter().map(|problem| problem.parameter).collect();
    assert_eq!(names, ["from", "bins", "confidence", "resamples"]);
}
