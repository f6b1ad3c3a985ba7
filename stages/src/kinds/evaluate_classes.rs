//! Scores a table of class probabilities: ranking, decisions, calibration, with intervals over patients.

mod table;

use self::table::{Table, read};
use crate::artifact::{External, In, Out, Ports};
use crate::artifacts::Files;
use crate::artifacts::class_metrics::{ClassFigure, ClassMetrics, ClassSummary, CurveRow, ReliabilityRow};
use crate::artifacts::metrics::Interval;
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use pipe_metrics::bootstrap::Bootstrap;
use pipe_metrics::classification::{CurvePoint, Probabilities, ReliabilityBin, macro_mean};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub struct EvaluateClasses;

/// Holds the table, unless `from` names it.
pub const TABLE: In<Files> = In::new("table");
pub const METRICS: Out<ClassMetrics> = Out::new("metrics");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The table, a CSV file with the columns `case`, `truth`, perhaps `patient`, and one column a class that holds its
    /// probability. Without it the table is a file of the input `table`.
    // Where the file lies is no part of what the result depends on; its content is, as an external input.
    #[serde(serialize_with = "without_place")]
    pub from: Option<String>,
    /// The name of the table within the input `table`.
    pub file: String,
    /// Bins of equal width for the reliability plot and the expected calibration error.
    pub bins: usize,
    /// The confidence of intervals.
    pub confidence: f64,
    /// Bootstrap samples of patients.
    pub resamples: usize,
}

impl Default for Params {
    fn default() -> Self {
        let Bootstrap { resamples, level, .. } = Bootstrap::default();
        Self { from: None, file: "probabilities.csv".into(), bins: 15, confidence: level, resamples }
    }
}

/// Writes any file as `file`.
#[expect(clippy::ref_option, reason = "serde hands out a reference to the field")]
fn without_place<S: serde::Serializer>(from: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    from.as_ref().map(|_| "file").serialize(serializer)
}

impl Stage for EvaluateClasses {
    const KIND: &'static str = "evaluate-classes";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Scores a table of class probabilities: AUC, accuracy, calibration, confusion, with intervals over patients.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let mut problem = |parameter, message: String, help: &str| {
            problems.push(ParamProblem { parameter, message, help: help.into() });
        };
        if params.from.as_ref().is_some_and(String::is_empty) {
            problem("from", "is empty".into(), "name a CSV file, or leave it out and wire the input `table`");
        }
        if params.bins == 0 || params.bins > 1000 {
            problem("bins", format!("{} bins make no plot", params.bins), "use a number such as 15");
        }
        if !(params.confidence > 0.0 && params.confidence < 1.0) {
            let message = format!("{} is no level of confidence", params.confidence);
            problem("confidence", message, "use a number between 0 and 1, such as 0.95");
        }
        if !(100..=1_000_000).contains(&params.resamples) {
            let message = format!("{} resamples are too few or too many", params.resamples);
            problem("resamples", message, "use a number from 100 to 1000000, such as 2000");
        }
        problems
    }

    fn declare(params: &Params, ports: &mut Ports) {
        match &params.from {
            Some(path) => ports.reads_files(External {
                name: "table".into(),
                parameter: "from",
                path: PathBuf::from(path),
                parts: Vec::new(),
            }),
            None => ports.reads(&TABLE),
        };
        ports.writes(&METRICS);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let path = if params.from.is_some() {
            let external = context.external("table")?;
            match external.files.as_slice() {
                [file] => context.source(&file.digest)?,
                files => {
                    let (root, count) = (external.root.display(), files.len());
                    let message = format!("`{root}` holds {count} files: `from` must name one CSV file");
                    return Err(StageError::Data(message));
                }
            }
        } else {
            context.read(&TABLE)?.0.join(&params.file)
        };
        let metrics = measure(&read(&path)?, params);
        for figure in metrics.summary.metrics.iter().filter(|figure| figure.class.is_none()) {
            context.fact(&figure.metric, figure.value);
        }
        context.fact("cases", metrics.summary.cases);
        context.write(&METRICS, &metrics)
    }
}

/// A figure by name, of one class or of all, from how often each case counts.
type Figure<'a> = (&'static str, Option<usize>, Box<dyn Fn(&[u32]) -> f64 + 'a>);

fn figures(found: &Probabilities, bins: usize) -> Vec<Figure<'_>> {
    let classes = found.classes();
    let mut figures: Vec<Figure> = vec![
        ("accuracy", None, Box::new(|times| found.decisions(times).accuracy())),
        ("balanced_accuracy", None, Box::new(|times| found.decisions(times).balanced_accuracy())),
        ("mcc", None, Box::new(|times| found.decisions(times).mcc())),
        ("brier", None, Box::new(|times| found.brier(times))),
        ("ece", None, Box::new(move |times| found.ece(bins, times))),
    ];
    if classes == 2 {
        figures.push(("auc_roc", None, Box::new(|times| found.auc_roc(1, times))));
        figures.push(("auc_pr", None, Box::new(|times| found.auc_pr(1, times))));
        figures.push(("f1", None, Box::new(|times| found.decisions(times).f1(1))));
    } else {
        let all = move |of: &dyn Fn(usize) -> f64| macro_mean(classes, of);
        figures.push(("auc_roc", None, Box::new(move |times| all(&|class| found.auc_roc(class, times)))));
        figures.push(("auc_pr", None, Box::new(move |times| all(&|class| found.auc_pr(class, times)))));
        figures.push((
            "f1",
            None,
            Box::new(move |times| {
                let decisions = found.decisions(times);
                all(&|class| decisions.f1(class))
            }),
        ));
    }
    for class in 0..classes {
        let one = Some(class);
        figures.push(("auc_roc", one, Box::new(move |times| found.auc_roc(class, times))));
        figures.push(("auc_pr", one, Box::new(move |times| found.auc_pr(class, times))));
        figures.push(("precision", one, Box::new(move |times| found.decisions(times).precision(class))));
        figures.push(("recall", one, Box::new(move |times| found.decisions(times).recall(class))));
        figures.push(("specificity", one, Box::new(move |times| found.decisions(times).specificity(class))));
        figures.push(("f1", one, Box::new(move |times| found.decisions(times).f1(class))));
    }
    figures
}

fn measure(table: &Table, params: &Params) -> ClassMetrics {
    let found = &table.probabilities;
    let once = found.once();
    let bootstrap =
        Bootstrap { resamples: params.resamples, level: params.confidence, ..Bootstrap::default() };
    // The position of each case's patient.
    let patients: BTreeSet<&str> = table.cases.iter().map(|case| case.patient.as_str()).collect();
    let positions: BTreeMap<&str, usize> = patients.into_iter().zip(0..).collect();
    let patient_of: Vec<usize> = table.cases.iter().map(|case| positions[case.patient.as_str()]).collect();
    let figure = |(metric, class, of): Figure| {
        let interval = bootstrap.interval(positions.len(), |drawn| {
            let times: Vec<u32> = patient_of.iter().map(|&patient| drawn[patient]).collect();
            of(&times)
        });
        let value = of(&once);
        ClassFigure {
            metric: metric.into(),
            class: class.map(|class| table.classes[class].clone()),
            value: value.is_finite().then_some(value),
            interval: Interval::finite(interval),
        }
    };
    let metrics = figures(found, params.bins).into_iter().map(figure).collect();
    let curve = |of: &dyn Fn(usize) -> Vec<CurvePoint>| -> Vec<CurveRow> {
        let class = |(class, name): (usize, &String)| {
            let row = |CurvePoint { threshold, x, y }: CurvePoint| CurveRow {
                class: name.clone(),
                threshold: threshold.is_finite().then_some(threshold),
                x,
                y,
            };
            of(class).into_iter().map(row).collect::<Vec<_>>()
        };
        table.classes.iter().enumerate().flat_map(class).collect()
    };
    let bin = |ReliabilityBin { from, to, cases, confidence, observed }: ReliabilityBin| ReliabilityRow {
        from,
        to,
        cases,
        confidence,
        observed,
    };
    let reliability = found.reliability(params.bins, &once).into_iter().filter(|bin| bin.cases > 0).map(bin);
    ClassMetrics {
        cases: table.cases.clone(),
        reliability: reliability.collect(),
        roc: curve(&|class| found.roc_curve(class)),
        pr: curve(&|class| found.pr_curve(class)),
        summary: ClassSummary {
            cases: table.cases.len(),
            patients: positions.len(),
            classes: table.classes.clone(),
            metrics,
            confusion: found.decisions(&once).counts,
            confidence: params.confidence,
            resamples: params.resamples,
            bins: params.bins,
            definitions: definitions(&table.classes),
        },
    }
}

fn definitions(classes: &[String]) -> BTreeMap<String, String> {
    let last = classes.last().map_or("", String::as_str);
    let two = classes.len() == 2;
    let over = if two {
        format!("of class `{last}`")
    } else {
        "mean over the classes, each against the rest".into()
    };
    let texts = [
        ("auc_roc", format!("Area under the ROC curve, {over}; equal probabilities count half.")),
        ("auc_pr", format!("Average precision, the precision–recall curve as steps, {over}.")),
        ("accuracy", "Share of cases put in the right class; the most probable class is taken.".into()),
        ("balanced_accuracy", "Mean of the recalls of the classes that occur.".into()),
        ("f1", format!("2·TP / (2·TP + FP + FN), {over}.")),
        ("mcc", "Matthews correlation coefficient over all classes.".into()),
        (
            "brier",
            if two {
                "Mean squared error of the probability."
            } else {
                "Squared error of the probabilities, summed over classes."
            }
            .into(),
        ),
        (
            "ece",
            format!(
                "Mean distance of confidence and truth over bins of equal width, by cases. Confidence is the probability of {}.",
                if two { format!("class `{last}`") } else { "the most probable class".into() }
            ),
        ),
        ("intervals", "Percentile intervals from bootstrap samples of patients.".into()),
        ("undefined", "Figures are null where a class that they need does not occur.".into()),
    ];
    texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

#[cfg(test)]
mod tests;
