//! Predicts what whole images show: a table with the probability of each class for every case.

mod networks;

use self::networks::Networks;
use super::evaluate::choice::{Job, choose};
use super::evaluate::{EvaluatedPart, check_task};
use super::evaluate_classes::table::{COLUMNS, FILE};
use crate::artifact::{In, Out, Ports, Resources};
use crate::artifacts::{CaseTable, Files, FoldTable, Predictor, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::inference::{DeviceName, load_runtime, take};
use crate::kinds::listing::listing;
use crate::stage::{ParamProblem, Stage};
use fs_err as fs;
use pipe_onnx::Provider;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Classify;

pub const MODEL: In<Predictor> = In::new("model");
pub const VOLUMES: In<Volumes> = In::new("volumes");
pub const SPLIT: In<FoldTable> = In::new("split");
/// Says of what class each case is.
pub const CASES: In<CaseTable> = In::new("cases");
/// `probabilities.csv`, and `without_class.csv` where the class of some cases is not known.
pub const TABLE: Out<Files> = Out::new("table");

/// The table of cases whose class is not known: the same without the column `truth`.
const UNKNOWN: &str = "without_class.csv";

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Which cases are predicted.
    pub part: EvaluatedPart,
    /// Only the validation cases of this fold; with `part: validation`.
    pub fold: Option<usize>,
    /// What networks run on.
    pub device: DeviceName,
}

impl Default for Params {
    fn default() -> Self {
        Self { part: EvaluatedPart::Test, fold: None, device: DeviceName::default() }
    }
}

impl Stage for Classify {
    const KIND: &'static str = "classify";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Predicts the class of whole images with ONNX Runtime: a table with the probability of each class.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        params.part.check_fold(params.fold).into_iter().collect()
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&MODEL).reads(&VOLUMES).reads(&SPLIT).reads(&CASES);
        ports.writes(&TABLE).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let (predictor, volumes) = (context.read(&MODEL)?, context.read(&VOLUMES)?);
        let jobs = choose(params.part, params.fold, &context.read(&SPLIT)?, &predictor, &volumes)?;
        // Classes are told by the case table; what label maps of the same images hold is another matter.
        check_task(&predictor.task, &predictor.task.labels, &volumes, &jobs)?;
        let classes: Vec<&str> = predictor.task.labels.values().map(String::as_str).collect();
        let truth = truth(&jobs, &context.read(&CASES)?, &classes)?;
        load_runtime(context)?;
        let provider = take(params.device, context)?;
        let found = predict(&jobs, &predictor, provider, &volumes, context)?;
        let unknown = truth.iter().filter(|class| class.is_none()).count();
        if unknown > 0 {
            context
                .warn(format!("{unknown} of {} cases have no class: predicted, in `{UNKNOWN}`", jobs.len()));
        }
        context.fact("cases", jobs.len());
        context.fact("cases without class", unknown);
        context.fact("members", predictor.members.len());
        write(context.output_dir(&TABLE)?, &classes, &jobs, &truth, &found)
    }
}

/// The class of each case, where it is known. An error for one that the networks do not know.
fn truth(jobs: &[Job], cases: &CaseTable, classes: &[&str]) -> Result<Vec<Option<String>>, StageError> {
    let mut foreign = Vec::new();
    let truth = jobs
        .iter()
        .map(|job| {
            let id = &job.row.id;
            let missing = || {
                StageError::Data(format!(
                    "case `{id}` of the split is not in `cases`: wire the table that was split"
                ))
            };
            let class = cases.get(id).ok_or_else(missing)?.class.clone();
            if let Some(class) = class.as_deref().filter(|class| !classes.contains(class)) {
                foreign.push(format!("case `{id}` is of class `{class}`"));
            }
            Ok(class)
        })
        .collect::<Result<_, StageError>>()?;
    if foreign.is_empty() {
        return Ok(truth);
    }
    let known = format!("of a class that the networks do not know (they know {})", classes.join(", "));
    let titles = ["case", "cases"].map(|thing| format!("{thing} {known}"));
    Err(StageError::Data(listing([&titles[0], &titles[1]], &foreign)))
}

/// The probabilities of every case, in the order of `jobs`.
fn predict(
    jobs: &[Job],
    predictor: &Predictor,
    provider: Provider,
    volumes: &Volumes,
    context: &StageContext,
) -> Result<Vec<Vec<f64>>, StageError> {
    let done = AtomicUsize::new(0);
    let one = |networks: &mut Networks, job: &Job| {
        if context.interrupted() {
            return Err(StageError::Interrupted);
        }
        let id = &job.row.id;
        let found = networks
            .probabilities(&volumes.image(id)?, &job.members)
            .map_err(StageError::inner(format!("predicting case `{id}`")))?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        context.progress(done, jobs.len(), "cases", id.as_str());
        Ok(found)
    };
    // A part for each thread, which loads the networks once; a graphics card takes one image after the other.
    let threads = if provider == Provider::Cpu { rayon::current_num_threads() } else { 1 };
    let part = jobs.len().div_ceil(threads).max(1);
    let parts: Result<Vec<Vec<Vec<f64>>>, StageError> = jobs
        .par_chunks(part)
        .map(|jobs| {
            let mut networks = Networks::of(predictor, provider);
            jobs.iter().map(|job| one(&mut networks, job)).collect()
        })
        .collect();
    Ok(parts?.concat())
}

fn write(
    root: &Path,
    classes: &[&str],
    jobs: &[Job],
    truth: &[Option<String>],
    found: &[Vec<f64>],
) -> Result<(), StageError> {
    if let Some(class) = classes.iter().find(|class| COLUMNS.contains(class)) {
        let columns = COLUMNS.join("`, `");
        return Err(StageError::Data(format!(
            "a class is called `{class}`, which a table of probabilities cannot tell from its columns `{columns}`: \
             rename the class"
        )));
    }
    for (file, known) in [(FILE, true), (UNKNOWN, false)] {
        let rows: Vec<usize> = (0..jobs.len()).filter(|&index| truth[index].is_some() == known).collect();
        if rows.is_empty() && !known {
            continue;
        }
        let path = root.join(file);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let doing = || format!("writing `{}`", path.display());
        let columns = COLUMNS.iter().filter(|column| known || **column != "truth");
        let header: Vec<&str> = columns.chain(classes).copied().collect();
        writer.write_record(header).map_err(StageError::inner(doing()))?;
        for index in rows {
            let row = jobs[index].row;
            let mut fields = vec![row.id.clone(), row.patient.clone()];
            fields.extend(truth[index].clone());
            fields.extend(found[index].iter().map(ToString::to_string));
            writer.write_record(fields).map_err(StageError::inner(doing()))?;
        }
        let bytes = writer.into_inner().map_err(|error| StageError::Internal(error.to_string()))?;
        fs::write(&path, bytes).map_err(StageError::io("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
