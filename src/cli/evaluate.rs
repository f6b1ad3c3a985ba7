//! `pipe evaluate`: how good the label maps of a folder are, outside of any pipeline.

use super::{CliError, OK};
use crate::console;
use clap::{Args, ValueEnum};
use pipe_stages::artifacts::metrics::{ComparisonRow, Interval, MetricSummary, MetricsSummary};
use pipe_stages::error::StageError;
use pipe_stages::kinds::evaluate::Scoring;
use pipe_stages::kinds::evaluate::folders::{self, Folders};
use pipe_stages::kinds::evaluate::words;
use pipe_stages::kinds::import::PatientRule;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Score a folder of predicted label maps against a folder of references
///
/// Files belong together by name. Prints the mean of every metric and label with an interval from a bootstrap over patients;
/// `-o` also writes every value of every case.
#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// Folder of predictions: NIfTI, NRRD, MetaImage, PNG or TIFF
    #[arg(value_name = "PREDICTIONS")]
    predictions: PathBuf,
    /// Folder of references
    #[arg(value_name = "REFERENCES")]
    references: PathBuf,
    /// Compare with these predictions of the same cases
    #[arg(long, value_name = "DIR")]
    baseline: Option<PathBuf>,
    /// Metrics, in the order of the tables [default: dice,iou,precision,recall,nsd,hd95_mm,assd_mm,volume_error_ml]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    metrics: Vec<String>,
    /// Labels that are scored, each `VALUE` or `VALUE=NAME` [default: all that occur]
    #[arg(long, value_name = "VALUE=NAME,…", value_delimiter = ',', value_parser = label)]
    labels: Vec<(u8, String)>,
    /// Whose surface distances
    #[arg(long, value_name = "NAME", default_value = "deepmind")]
    definition: String,
    /// Tolerance of NSD in mm, `MM` for all labels or `NAME=MM` for one
    #[arg(long = "tolerance", value_name = "MM", value_delimiter = ',')]
    tolerances: Vec<String>,
    /// Score labels as one, `NAME=LABEL+LABEL`
    #[arg(long = "group", value_name = "NAME=LABEL+…", value_parser = group)]
    groups: Vec<(String, Vec<String>)>,
    /// The distance where only one map has a label: worst (the diagonal), infinite, undefined, library
    #[arg(long, value_name = "RULE", default_value = "worst")]
    empty: String,
    /// The value where neither map has a label: undefined, perfect
    #[arg(long, value_name = "RULE", default_value = "undefined")]
    absent: String,
    /// How the name of a file tells the patient
    #[arg(long, value_enum, default_value_t = Patient::EachCase)]
    patient: Patient,
    /// Bootstrap samples of patients
    #[arg(long, value_name = "N", default_value_t = Scoring::default().bootstrap.resamples)]
    resamples: usize,
    /// Write metrics.csv and summary.json into this folder
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Overwrite what is in the output folder
    #[arg(long, requires = "output")]
    force: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Patient {
    /// Every case is a patient of its own
    EachCase,
    /// Numbers 2k-1 and 2k at the end of the name are one patient
    IdPairs,
    /// The patient is the text before the last `_`
    Prefix,
}

fn label(text: &str) -> Result<(u8, String), String> {
    let (value, name) = text.split_once('=').unwrap_or((text, text));
    match value.parse::<u8>() {
        Ok(value) if value > 0 && !name.is_empty() => Ok((value, name.to_owned())),
        _ => Err("write a value from 1 to 255, or VALUE=NAME, e.g. --labels 1=liver,2=tumour".into()),
    }
}

fn group(text: &str) -> Result<(String, Vec<String>), String> {
    match text.split_once('=') {
        Some((name, members)) if !name.is_empty() && !members.is_empty() => {
            Ok((name.to_owned(), members.split('+').map(str::to_owned).collect()))
        }
        _ => Err("write NAME=LABEL+LABEL, e.g. --group whole=1+2".into()),
    }
}

pub(crate) fn run(args: &EvaluateArgs) -> Result<u8, CliError> {
    let scoring = scoring(args)?;
    if let Some(problem) = scoring.check().into_iter().next() {
        return Err(CliError::usage(format!("`{}` {}", problem.parameter, problem.message), problem.help));
    }
    if let Some(output) = &args.output {
        let taken = output.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if taken && !args.force {
            let message = format!("`{}` is not empty", output.display());
            return Err(CliError::usage(message, "name another folder, or add --force to overwrite"));
        }
    }
    let labels: BTreeMap<u8, String> = args.labels.iter().cloned().collect();
    let folders = Folders {
        predictions: &args.predictions,
        references: &args.references,
        baseline: args.baseline.as_deref(),
        labels,
        patient: match args.patient {
            Patient::EachCase => PatientRule::EachCase,
            Patient::IdPairs => PatientRule::IdPairs,
            Patient::Prefix => PatientRule::Prefix,
        },
    };
    let failed = |error: StageError| match error {
        // What the folders hold is the user's to change.
        StageError::Data(message) => {
            CliError::usage(message, "`pipe evaluate --help` says what the folders must hold")
        }
        error => CliError::Failed(error.chain()),
    };
    let metrics = folders::evaluate(&folders, &scoring, &|line| console::hint(line)).map_err(failed)?;
    if let Some(output) = &args.output {
        folders::write(&metrics, output).map_err(failed)?;
    }
    if args.json {
        let value = serde_json::to_value(&metrics.summary).map_err(|error| CliError::failed(&error))?;
        console::data_line(format!("{value:#}"));
    } else {
        console::data(text(&metrics.summary));
        if let Some(output) = &args.output {
            console::hint(format!("every value is in `{}`", output.join("metrics.csv").display()));
        }
    }
    Ok(OK)
}

fn scoring(args: &EvaluateArgs) -> Result<Scoring, CliError> {
    let default = Scoring::default();
    let (mut tolerance_mm, mut tolerances_mm) = (default.tolerance_mm, BTreeMap::new());
    for text in &args.tolerances {
        let (name, length) =
            text.split_once('=').map_or((None, text.as_str()), |(name, mm)| (Some(name), mm));
        let length = length.parse::<f64>().map_err(|_| {
            CliError::usage(
                format!("`{length}` is no tolerance"),
                "write MM or NAME=MM, e.g. --tolerance 1,liver=2",
            )
        })?;
        match name {
            None => tolerance_mm = length,
            Some(name) => drop(tolerances_mm.insert(name.to_owned(), length)),
        }
    }
    Ok(Scoring {
        metrics: match args.metrics.as_slice() {
            [] => default.metrics,
            names => {
                names.iter().map(|name| choice("metric", name, &words::METRICS)).collect::<Result<_, _>>()?
            }
        },
        definition: choice("definition", &args.definition, &words::DEFINITIONS)?,
        tolerance_mm,
        tolerances_mm,
        groups: args.groups.iter().cloned().collect(),
        empty: choice("rule", &args.empty, &words::EMPTY)?,
        absent: choice("rule", &args.absent, &words::ABSENT)?,
        bootstrap: pipe_stages::kinds::evaluate::Bootstrap { resamples: args.resamples, ..default.bootstrap },
        lesions: default.lesions,
    })
}

/// The value that a word stands for.
fn choice<T: serde::de::DeserializeOwned>(what: &str, word: &str, words: &[&str]) -> Result<T, CliError> {
    serde_json::from_value(json!(word)).map_err(|_| {
        let help = crate::problem::suggest(word, words.iter().copied(), &format!("{what}s"));
        CliError::usage(format!("`{word}` is no {what}"), help)
    })
}

fn text(summary: &MetricsSummary) -> String {
    let mut text = String::new();
    let names = summary.metrics.iter().map(|row| row.name.chars().count());
    let width = names.max().unwrap_or(0).max(5);
    let level = format!("{} % interval", summary.rules.confidence * 100.0);
    let _ = writeln!(
        text,
        "{} cases of {} patients, definition {}, empty masks {}\n",
        summary.cases, summary.patients, summary.rules.definition, summary.rules.empty
    );
    let _ = writeln!(
        text,
        "{:<22}{:<width$}  {:>4}  {:>9}  {:>21}  {:>9}  {:>9}  {:>9}  undefined  by rule",
        "metric", "label", "n", "mean", level, "sd", "median", "worst"
    );
    for row in &summary.metrics {
        let MetricSummary { metric, name, n, mean, interval, sd, median, undefined, by_rule, .. } = row;
        let _ = writeln!(
            text,
            "{metric:<22}{name:<width$}  {n:>4}  {:>9}  {:>21}  {:>9}  {:>9}  {:>9}  {undefined:>9}  {by_rule:>7}",
            number(*mean),
            span(interval.as_ref()),
            number(*sd),
            number(*median),
            number(worst(row)),
        );
    }
    if let Some(dice) = summary.mean_foreground_dice {
        let interval = span(summary.mean_foreground_dice_interval.as_ref());
        let _ = writeln!(text, "\nmean foreground Dice {dice:.4} ({interval})");
    }
    for label in summary.labels.iter().filter(|label| label.missed + label.spurious + label.absent > 0) {
        let _ = writeln!(
            text,
            "{}: in both {}, missed {}, made up {}, in neither {}",
            label.name, label.in_both, label.missed, label.spurious, label.absent
        );
    }
    if !summary.comparison.is_empty() {
        let _ = writeln!(
            text,
            "\nagainst the baseline, by patient\n{:<22}{:<width$}  better  worse  equal  {:>10}  {:>21}  {:>10}  {:>6}  {:>6}",
            "metric", "label", "difference", level, "p", "r_rb", "d_z"
        );
    }
    for row in &summary.comparison {
        let ComparisonRow { metric, name, better, worse, equal, .. } = row;
        let _ = writeln!(
            text,
            "{metric:<22}{name:<width$}  {better:>6}  {worse:>5}  {equal:>5}  {:>10}  {:>21}  {:>10}  {:>6}  {:>6}",
            row.mean_difference.map_or_else(|| "–".into(), |value| format!("{value:+.4}")),
            span(row.interval.as_ref()),
            row.p_wilcoxon.map_or_else(|| "–".into(), |p| format!("{p:.2e}")),
            row.rank_biserial.map_or_else(|| "–".into(), |value| format!("{value:.2}")),
            row.cohens_dz.map_or_else(|| "–".into(), |value| format!("{value:.2}")),
        );
    }
    text
}

/// The worst case: the least share, the greatest distance, the greater error by size.
fn worst(row: &MetricSummary) -> Option<f64> {
    if row.metric.ends_with("_mm") {
        row.max
    } else if row.metric.starts_with("volume_error") || row.metric == "volume_difference" {
        if row.max.map(f64::abs) >= row.min.map(f64::abs) { row.max } else { row.min }
    } else if row.metric == "lesions_missed" || row.metric == "lesions_false" {
        row.max
    } else {
        row.min
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.4}"))
}

fn span(interval: Option<&Interval>) -> String {
    interval.map_or_else(|| "–".into(), |Interval { low, high }| format!("{low:.4} to {high:.4}"))
}
