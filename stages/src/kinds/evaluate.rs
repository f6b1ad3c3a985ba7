//! Predicts cases that the networks were not trained on, and scores them in the space of the source images.

mod choice;
mod score;

use self::choice::{Job, choose};
use self::score::LabelCounts;
use crate::artifact::{In, Out, Ports, Resources};
use crate::artifacts::metrics::{MemberFact, Metrics, PredictionFacts};
use crate::artifacts::predictions::{PredictionRow, Predictions};
use crate::artifacts::predictor::{Member, Predictor, Task};
use crate::artifacts::{FileRef, FoldTable, VolumeRow, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::inference::{Inference, load_runtime, runtime_fact};
use crate::stage::{ParamProblem, Stage};
use pipe_cache::Digest;
use pipe_imaging::transform::Transform;
use pipe_imaging::{LabelMap, digest, nifti};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Evaluate;

pub const MODEL: In<Predictor> = In::new("model");
pub const VOLUMES: In<Volumes> = In::new("volumes");
pub const SPLIT: In<FoldTable> = In::new("split");
pub const METRICS: Out<Metrics> = Out::new("metrics");
pub const PREDICTIONS: Out<Predictions> = Out::new("predictions");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Which cases are predicted.
    pub part: EvaluatedPart,
    /// Only the validation cases of this fold; with `part: validation`.
    pub fold: Option<usize>,
    /// Also predict every mirrored form of an image and average the logits: 4 (2D) or 8 (3D) times the work.
    pub mirror: bool,
    /// Share of a patch that its neighbour covers too, from 0 to below 1, where an image is larger than the patch.
    pub overlap: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { part: EvaluatedPart::Test, fold: None, mirror: false, overlap: 0.5 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EvaluatedPart {
    /// The test cases, by every member.
    Test,
    /// The validation cases of the folds that members left out in training, each only by members that left it out.
    Validation,
    /// Both.
    All,
}

impl EvaluatedPart {
    fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Validation => "validation",
            Self::All => "all",
        }
    }
}

impl Stage for Evaluate {
    const KIND: &'static str = "evaluate";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Predicts held-out cases with ONNX Runtime and scores them against the source labels, in their space.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        if let Some(fold) = params.fold.filter(|_| params.part != EvaluatedPart::Validation) {
            problems.push(ParamProblem {
                parameter: "fold",
                message: format!("fold {fold} has no meaning with `part: {}`", params.part.name()),
                help: "remove it, or use `part: validation`".into(),
            });
        }
        if !(0.0..1.0).contains(&params.overlap) {
            problems.push(ParamProblem {
                parameter: "overlap",
                message: format!("{} is no share of a patch", params.overlap),
                help: "use a number from 0 to below 1, such as 0.5".into(),
            });
        }
        problems
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&MODEL).reads(&VOLUMES).reads(&SPLIT);
        ports.writes(&METRICS).writes(&PREDICTIONS).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let (predictor, volumes) = (context.read(&MODEL)?, context.read(&VOLUMES)?);
        let jobs = choose(params, &context.read(&SPLIT)?, &predictor, &volumes)?;
        check_task(&predictor.task, &volumes, &jobs)?;
        let runtime = runtime_fact(load_runtime(context)?);
        let inference = Inference::new(&predictor, params.mirror, params.overlap);
        let root = context.output_dir(&PREDICTIONS)?;
        let worker = Worker {
            params,
            predictor: &predictor,
            volumes: &volumes,
            runtime: &runtime.build,
            inference,
            root,
            context,
        };
        let counts = worker.run_all(&jobs)?;

        let member = |member: &Member| MemberFact {
            name: member.card.name.clone(),
            weight: member.card.weight,
            digest: member.card.digest,
        };
        let facts = PredictionFacts {
            members: predictor.members.iter().map(member).collect(),
            mirror: params.mirror,
            overlap: params.overlap,
            runtime,
        };
        let metrics = score::metrics(params.part, &jobs, &counts, &predictor.task, facts);
        report(&metrics, context);
        context.write(&METRICS, &metrics)?;
        let rows = jobs.iter().map(|job| prediction_row(job, &predictor)).collect();
        context.write(&PREDICTIONS, &Predictions { root: root.to_owned(), rows })
    }
}

/// Fails when the volumes are not what the networks were trained on.
fn check_task(task: &Task, volumes: &Volumes, jobs: &[Job]) -> Result<(), StageError> {
    let own = Task {
        // Volumes without any reference know no labels, and can be predicted all the same.
        labels: match volumes.info.dataset.foreground().next() {
            Some(_) => volumes.info.dataset.labels.clone(),
            None => task.labels.clone(),
        },
        channels: task.channels,
        spacing_mm: volumes.info.spacing_mm,
        normalization: volumes.info.normalization,
    };
    if let Some(difference) = own.difference("the volumes", task, "the model") {
        return Err(StageError::Data(format!("the model was not made for these volumes: {difference}")));
    }
    match jobs.iter().find(|job| job.row.channels != task.channels) {
        None => Ok(()),
        Some(Job { row, .. }) => Err(StageError::Data(format!(
            "case `{}` has {} image channels but the model takes {}",
            row.id, row.channels, task.channels
        ))),
    }
}

/// What every case needs.
struct Worker<'a> {
    params: &'a Params,
    predictor: &'a Predictor,
    volumes: &'a Volumes,
    /// Which build of the runtime: it decides the last bits.
    runtime: &'a str,
    inference: Inference<'a>,
    /// Where predictions go.
    root: &'a Path,
    context: &'a StageContext,
}

/// All that the prediction and the counts of one case depend on.
#[derive(Serialize)]
struct ItemKey<'a> {
    id: &'a str,
    /// Digest, weight and patch of each member that predicts the case.
    members: Vec<(Digest, f64, [usize; 3])>,
    labels: Vec<u8>,
    image: String,
    transform: &'a Transform,
    reference: Option<Digest>,
    mirror: bool,
    overlap: f64,
    runtime: &'a str,
}

impl Worker<'_> {
    /// The counts of every case in the order of `jobs`; `None` for those without a reference.
    fn run_all(&self, jobs: &[Job]) -> Result<Vec<Option<LabelCounts>>, StageError> {
        let done = AtomicUsize::new(0);
        let run = |job: &Job| {
            let id = &job.row.id;
            let counts = self.run(job).map_err(|error| match error {
                StageError::Interrupted => error,
                error => StageError::inner(format!("evaluating case `{id}`"))(error),
            })?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            self.context.progress(done, jobs.len(), "cases", id.as_str());
            Ok(counts)
        };
        // One by one: a case is long, and neighbours in the list may differ much in size.
        jobs.par_iter().with_max_len(1).map(run).collect()
    }

    /// Predicts and scores one case, unless that was done before.
    fn run(&self, job: &Job) -> Result<Option<LabelCounts>, StageError> {
        let row = job.row;
        let (image, transform) = (self.volumes.image(&row.id)?, self.volumes.transform(&row.id)?);
        let card = |&index: &usize| {
            let card = &self.predictor.members[index].card;
            (card.digest, card.weight, card.patch)
        };
        let key = ItemKey {
            id: &row.id,
            members: job.members.iter().map(card).collect(),
            labels: self.predictor.task.labels.keys().copied().collect(),
            image: digest::image_digest(&image).to_string(),
            transform: &transform,
            reference: row.label.as_ref().map(|file| file.digest),
            mirror: self.params.mirror,
            overlap: self.params.overlap,
            runtime: self.runtime,
        };
        self.context.memo(&key, self.root, |dir| {
            let prediction = self.inference.labels(&image, &transform, &job.members)?;
            let path = dir.join(Predictions::file_name(&row.id));
            nifti::write_label(&path, &prediction).map_err(StageError::inner("writing the prediction"))?;
            row.label.as_ref().map(|file| self.score(file, &prediction)).transpose()
        })
    }

    fn score(&self, file: &FileRef, prediction: &LabelMap) -> Result<LabelCounts, StageError> {
        let path = self.context.source(&file.digest)?;
        let reference =
            nifti::read_label(&path).map_err(StageError::inner(format!("reading `{}`", file.path)))?;
        score::count(&reference, prediction, &self.predictor.task.labels)
            .map_err(|problem| StageError::Data(format!("`{}` {problem}", file.path)))
    }
}

fn prediction_row(job: &Job, predictor: &Predictor) -> PredictionRow {
    let VolumeRow { id, patient, label, .. } = job.row;
    let names: Vec<&str> =
        job.members.iter().map(|&index| predictor.members[index].card.name.as_str()).collect();
    PredictionRow {
        id: id.clone(),
        patient: patient.clone(),
        part: if job.fold.is_some() { "validation" } else { "test" }.into(),
        fold: job.fold,
        members: names.join("; "),
        scored: label.is_some(),
        file: Predictions::file_name(id),
    }
}

fn report(metrics: &Metrics, context: &StageContext) {
    let summary = &metrics.summary;
    let unscored = summary.without_reference.len();
    context.fact("cases", summary.cases);
    context.fact("cases without reference", unscored);
    context.fact("mean_dice", summary.mean_foreground_dice);
    for metric in summary.metrics.iter().filter(|metric| metric.metric == "dice") {
        context.fact(&format!("mean_dice {}", metric.name), metric.mean);
    }
    if unscored > 0 {
        context
            .warn(format!("{unscored} of {} cases have no reference: predicted, not scored", summary.cases));
    }
}

#[cfg(test)]
mod tests;
