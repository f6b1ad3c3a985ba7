//! Puts scores, data and training curves on one page for people. Computes no score of its own.

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

use crate::artifact::{In, InMany, InOptional, Out, Ports};
use crate::artifacts::{Inspection, Metrics, Report as Html, TrainingLog};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub struct Report;

pub const METRICS: In<Metrics> = In::new("metrics");
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
    metrics: Metrics,
    inspection: Option<Inspection>,
    /// The name of each training and its log.
    training: Vec<(String, TrainingLog)>,
}

impl Stage for Report {
    const KIND: &'static str = "report";
    const VERSION: u32 = 2;
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
        ports.reads(&METRICS).reads_optional(&INSPECT).reads_any(&TRAINING).writes(&REPORT);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let content = Content {
            title: params.title.clone(),
            metrics: context.read(&METRICS)?,
            inspection: context.read_optional(&INSPECT)?,
            training: context.read_many(&TRAINING)?,
        };
        context.write(&REPORT, &Html { html: page::html(&content) })
    }
}

#[cfg(test)]
mod tests;
