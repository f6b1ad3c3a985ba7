//! Puts scores, data and training curves on one page for people. Computes no score of its own.

mod classes;
mod comparison;
mod curves;
mod data;
mod ensemble;
mod figures;
mod markup;
mod method;
mod page;
mod results;
mod scale;
mod strip;
mod training;

use self::classes::Mistake;
use crate::artifact::{InMany, InOptional, Out, Ports};
use crate::artifacts::class_metrics::ClassMetrics;
use crate::artifacts::{Inspection, Metrics, Report as Html, TrainingLog, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub struct Report;

/// Scores of label maps.
pub const METRICS: InOptional<Metrics> = InOptional::new("metrics");
/// Scores of class probabilities. One of the two is needed.
pub const CLASSES: InOptional<ClassMetrics> = InOptional::new("classes");
/// The images of `classes`, to show the strongest mistakes.
pub const VOLUMES: InOptional<Volumes> = InOptional::new("volumes");
pub const INSPECT: InOptional<Inspection> = InOptional::new("inspect");
pub const TRAINING: InMany<TrainingLog> = InMany::new("training");
pub const REPORT: Out<Html> = Out::new("report");

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Heading of the page; the name of the data set unless given.
    pub title: Option<String>,
}

/// All that the page tells.
struct Content {
    title: Option<String>,
    metrics: Option<Metrics>,
    classes: Option<(ClassMetrics, Vec<Mistake>)>,
    inspection: Option<Inspection>,
    /// The name of each training and its log.
    training: Vec<(String, TrainingLog)>,
}

impl Stage for Report {
    const KIND: &'static str = "report";
    const VERSION: u32 = 5;
    const SUMMARY: &'static str =
        "Writes one self-contained HTML page: scores, what the data are, and how training went.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let blank = params.title.iter().filter(|title| title.trim().is_empty());
        let problem = |title: &String| ParamProblem {
            parameter: "title",
            message: format!("`{title}` is no heading"),
            help: "write some words, or leave it out for the name of the data set".into(),
        };
        blank.map(problem).collect()
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads_optional(&METRICS).reads_optional(&CLASSES).reads_optional(&VOLUMES);
        ports.reads_optional(&INSPECT).reads_any(&TRAINING).writes(&REPORT);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let metrics = context.read_optional(&METRICS)?;
        let classes = context.read_optional(&CLASSES)?;
        if metrics.is_none() && classes.is_none() {
            let text = "there are no scores to report: wire `metrics` to an `evaluate` stage, or `classes` to an \
                        `evaluate-classes` stage";
            return Err(StageError::Data(text.into()));
        }
        let volumes = context.read_optional(&VOLUMES)?;
        let with_mistakes = |classes: ClassMetrics| {
            let mistakes = Mistake::strongest(&classes, volumes.as_ref())?;
            Ok::<_, StageError>((classes, mistakes))
        };
        let content = Content {
            title: params.title.clone(),
            metrics,
            classes: classes.map(with_mistakes).transpose()?,
            inspection: context.read_optional(&INSPECT)?,
            training: context.read_many(&TRAINING)?,
        };
        context.write(&REPORT, &Html { html: page::html(&content) })
    }
}

#[cfg(test)]
mod tests;
