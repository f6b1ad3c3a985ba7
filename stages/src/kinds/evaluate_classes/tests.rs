use super::*;
use crate::artifacts::class_metrics::ClassFigure;
use crate::artifacts::metrics::Interval;
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

/// Scores `table` against a baseline, beside members.
fn compared(table: &str, baseline: Option<&str>, members: &[&str]) -> Result<ClassMetrics, String> {
    let space = TestSpace::new();
    let folder = |name: String, table: &str| {
        let folder = space.path().join(name);
        fs_err::create_dir_all(&folder).expect("temporary folder");
        fs_err::write(folder.join("probabilities.csv"), table).expect("temporary file");
        folder
    };
    let own = folder("own".into(), table);
    let baseline: Vec<_> = baseline.iter().map(|table| folder("baseline".into(), table)).collect();
    let members: Vec<_> =
        members.iter().enumerate().map(|(k, table)| folder(format!("member{k}"), table)).collect();
    let inputs = [
        ("table", vec![own.as_path()]),
        ("baseline", baseline.iter().map(std::path::PathBuf::as_path).collect()),
        ("members", members.iter().map(std::path::PathBuf::as_path).collect()),
    ];
    let run = space.run_many::<EvaluateClasses>(json!({ "resamples": 500 }), &inputs);
    run.map(|run| run.load(&METRICS)).map_err(|error| error.chain())
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

/// Ten cases of as many patients; in `WORSE` two of the second class are ranked below the first, in another order of rows
/// and columns.
fn tables() -> (String, String) {
    let (mut own, mut worse) = ("case,truth,healthy,ill\n".to_owned(), "case,ill,truth,healthy\n".to_owned());
    for case in 0..10 {
        let truth = if case < 5 { "healthy" } else { "ill" };
        let p = f64::from(case) / 10.0 + 0.02;
        own += &format!("c{case},{truth},{},{p}\n", 1.0 - p);
    }
    for case in (0..10).rev() {
        let truth = if case < 5 { "healthy" } else { "ill" };
        let p = if case > 7 { 0.01 * f64::from(case) } else { f64::from(case) / 10.0 + 0.02 };
        worse += &format!("c{case},{p},{truth},{}\n", 1.0 - p);
    }
    (own, worse)
}

#[test]
fn a_baseline_is_compared_case_by_case_whatever_its_order() {
    let (own, worse) = tables();
    let metrics = compared(&own, Some(&worse), &[]).expect("the same cases");
    let row = |metric: &str| {
        let found = metrics.summary.comparison.iter().find(|row| row.metric == metric);
        found.expect("every figure of all classes is compared")
    };
    // 0.08 and 0.09 are above 0.02 alone: of 25 pairs 8 are out of order.
    let area = row("auc_roc");
    assert_eq!((area.value, area.baseline), (Some(1.0), Some(17.0 / 25.0)));
    assert!((area.difference.expect("defined") - 8.0 / 25.0).abs() < 1e-12);
    let test = area.test.as_ref().expect("cases are independent");
    // Placements of the positives differ by 4/5 twice, of the negatives by 2/5 four times.
    let variance = (2.0 * (0.8_f64 - 0.32).powi(2) + 3.0 * 0.32_f64.powi(2)) / 20.0
        + (4.0 * (0.4_f64 - 0.32).powi(2) + 0.32_f64.powi(2)) / 20.0;
    let z = 0.32 / variance.sqrt();
    assert!((1.51..1.52).contains(&z), "{z}");
    assert_eq!(test.name, "DeLong");
    // 2·(1 − Φ(1.512)).
    assert!((test.p.expect("defined") - 0.1306).abs() < 5e-4, "{test:?}");
    let accuracy = row("accuracy");
    assert_eq!((accuracy.value, accuracy.baseline), (Some(1.0), Some(0.8)));
    // Two cases, both better: p = 2 · 1/4.
    let test = accuracy.test.as_ref().expect("cases are independent");
    assert_eq!((test.name.as_str(), test.p), ("McNemar", Some(0.5)));
    let interval = accuracy.interval.expect("ten patients");
    assert!(interval.low == 0.0 && interval.high <= 0.6, "{interval:?}");
    assert!(row("brier").difference.expect("defined") < 0.0 && row("brier").test.is_none());
    assert_eq!(metrics.summary.members, None);
}

#[test]
fn tests_of_cases_are_left_out_where_a_patient_has_several() {
    let (own, worse) = tables();
    let of_patients = |table: &str| {
        let lines = table.lines().enumerate().map(|(line, text)| match line {
            0 => format!("{text},patient\n"),
            _ => format!("{text},p{}\n", text[1..2].parse::<usize>().expect("a digit") / 2),
        });
        lines.collect::<String>()
    };
    let metrics = compared(&of_patients(&own), Some(&of_patients(&worse)), &[]).expect("the same cases");
    assert_eq!(metrics.summary.patients, 5);
    assert!(metrics.summary.comparison.iter().all(|row| row.test.is_none()));
    assert!(metrics.summary.comparison.iter().all(|row| row.p_bootstrap.is_some()));
}

#[test]
fn members_have_a_mean_and_a_spread_and_the_table_is_told_from_them() {
    let (own, worse) = tables();
    let metrics = compared(&own, None, &[&worse, &own]).expect("the same cases");
    let members = metrics.summary.members.expect("two members");
    assert_eq!(members.names, ["members[0]", "members[1]"]);
    let row = members.rows.iter().find(|row| row.metric == "accuracy").expect("a figure of all classes");
    assert_eq!(row.values, [Some(0.8), Some(1.0)]);
    assert!((row.mean.expect("defined") - 0.9).abs() < 1e-12);
    assert!((row.sd.expect("defined") - 0.02_f64.sqrt()).abs() < 1e-12);
    assert_eq!((row.min, row.max), (Some(0.8), Some(1.0)));
    assert!((row.difference.expect("defined") - 0.1).abs() < 1e-12);
    let interval = row.interval.expect("ten patients");
    assert!(interval.low >= 0.0 && interval.high > 0.1, "{interval:?}");
    assert!(metrics.summary.comparison.is_empty());
}

#[test]
fn tables_of_other_cases_are_refused_by_name() {
    #[track_caller]
    fn check(change: impl Fn(&str) -> String, expected: &str) {
        let (own, worse) = tables();
        let error = compared(&own, Some(&change(&worse)), &[]).expect_err("refused");
        assert_eq!(
            error,
            format!(
                "the table of `baseline` {expected}: only tables of the same cases and classes can be compared"
            )
        );
    }
    check(|table| table.replace("c3,", "x3,"), "lacks case `c3`");
    check(|table| format!("{table}d0,0.5,ill,0.5\n"), "has a further case, `d0`");
    check(
        |table| table.replace("0.09,ill", "0.09,healthy"),
        "says that case `c9` is of class `healthy`, not `ill`",
    );
    check(
        |table| table.replace(",healthy\n", ",well\n").replace("healthy", "well"),
        "has the classes ill, well, not healthy, ill",
    );
}
