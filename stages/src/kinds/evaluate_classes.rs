//! Scores a table of class probabilities: ranking, decisions, calibration, with intervals over patients; alone, against a
//! baseline, and beside the members of an ensemble or the repeats of a training.

mod figures;
mod measure;
pub(crate) mod table;
mod words;

use self::measure::Measure;
use self::table::{FILE, Table, read};
use crate::artifact::{Absent, External, In, InMany, InOptional, Out, Ports, Resources};
use crate::artifacts::Files;
use crate::artifacts::class_metrics::ClassMetrics;
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use pipe_metrics::bootstrap::Bootstrap;
use pipe_metrics::classification::Probabilities;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub struct EvaluateClasses;

/// Holds the table, unless `from` names it.
pub const TABLE: In<Files> = In::new("table");
/// Another table of the same cases, to compare with.
pub const BASELINE: InOptional<Files> = InOptional::new("baseline");
/// Tables of the same cases by single networks: members of an ensemble, or the same training from other seeds.
pub const MEMBERS: InMany<Files> = InMany::new("members");
pub const METRICS: Out<ClassMetrics> = Out::new("metrics");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The table, a CSV file with the columns `case`, `truth`, perhaps `patient`, and one column a class that holds its
    /// probability. Without it the table is a file of the input `table`.
    // Where the file lies is no part of what the result depends on; its content is, as an external input.
    #[serde(serialize_with = "without_place")]
    pub from: Option<String>,
    /// The name of the table within the input `table`, and of those within `baseline` and `members`.
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
        Self { from: None, file: FILE.into(), bins: 15, confidence: level, resamples }
    }
}

/// Writes any file as `file`.
#[expect(clippy::ref_option, reason = "serde hands out a reference to the field")]
fn without_place<S: serde::Serializer>(from: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    from.as_ref().map(|_| "file").serialize(serializer)
}

impl Stage for EvaluateClasses {
    const KIND: &'static str = "evaluate-classes";
    const VERSION: u32 = 2;
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
                absent: Absent::LeftOut,
            }),
            None => ports.reads(&TABLE),
        };
        ports.reads_optional(&BASELINE).reads_any(&MEMBERS);
        ports.writes(&METRICS).needs(Resources::PARALLEL);
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
        let table = read(&path)?;
        let measure = Measure::of(&table, params);
        let mut metrics = measure.alone();
        if let Some(Files(root)) = context.read_optional(&BASELINE)? {
            let baseline = aligned(&table, &root.join(&params.file), "baseline")?;
            metrics.summary.comparison = measure.against(&baseline);
        }
        let members: Vec<(String, Probabilities)> = context
            .read_many(&MEMBERS)?
            .into_iter()
            .map(|(name, Files(root))| Ok((name.clone(), aligned(&table, &root.join(&params.file), &name)?)))
            .collect::<Result<_, StageError>>()?;
        if !members.is_empty() {
            metrics.summary.members = Some(measure.beside(&members));
        }
        tell(&metrics, context);
        context.write(&METRICS, &metrics)
    }
}

/// The probabilities of another table in the order of this one. `name` is the input, or the stage that made it.
fn aligned(table: &Table, path: &Path, name: &str) -> Result<Probabilities, StageError> {
    let other = read(path).map_err(StageError::inner(format!("reading the table of `{name}`")))?;
    table.aligned(&other).map_err(|problem| {
        StageError::Data(format!(
            "the table of `{name}` {problem}: only tables of the same cases and classes can be compared"
        ))
    })
}

fn tell(metrics: &ClassMetrics, context: &StageContext) {
    let summary = &metrics.summary;
    for figure in summary.metrics.iter().filter(|figure| figure.class.is_none()) {
        context.fact(&figure.metric, figure.value);
    }
    context.fact("cases", summary.cases);
    for row in summary.members.iter().flat_map(|members| &members.rows) {
        if row.metric == "auc_roc" || row.metric == "accuracy" {
            context.fact(&format!("mean {} of members", row.metric), row.mean);
        }
    }
}

#[cfg(test)]
mod tests;
