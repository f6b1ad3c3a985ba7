//! Predicts cases that the networks were not trained on, and scores them in the space of the source images.

pub(crate) mod choice;
mod compare;
pub mod folders;
mod members;
mod params;
pub(in crate::kinds) mod score;
pub(in crate::kinds) mod scoring;
pub(in crate::kinds) mod summary;
pub mod words;

use self::choice::{Job, choose};
pub use self::params::{EvaluatedPart, Params};
use self::score::TargetScore;
pub use self::scoring::{Scoring, Target};
use self::summary::{Case, Origin};
use crate::artifact::{In, InOptional, Out, Ports, Resources};
use crate::artifacts::metrics::{MemberFact, Metrics, PredictionFacts, Rules};
use crate::artifacts::predictions::{PredictionRow, Predictions};
use crate::artifacts::predictor::{Member, Predictor, Task};
use crate::artifacts::{Combine, FileRef, FoldTable, VolumeRow, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::inference::{Inference, Method, load_runtime, runtime_fact, take};
use crate::kinds::listing::counted;
use crate::stage::{ParamProblem, Stage};
use fs_err as fs;
use pipe_cache::Digest;
use pipe_imaging::open::{self, Options};
use pipe_imaging::transform::Transform;
use pipe_imaging::{digest, nifti};
pub use pipe_metrics::bootstrap::Bootstrap;
use pipe_metrics::segmentation::Metric;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Evaluate;

pub const MODEL: In<Predictor> = In::new("model");
pub const VOLUMES: In<Volumes> = In::new("volumes");
pub const SPLIT: In<FoldTable> = In::new("split");
/// Another evaluation of the same cases, to compare with.
pub const BASELINE: InOptional<Metrics> = InOptional::new("baseline");
pub const METRICS: Out<Metrics> = Out::new("metrics");
pub const PREDICTIONS: Out<Predictions> = Out::new("predictions");

impl Stage for Evaluate {
    const KIND: &'static str = "evaluate";
    const VERSION: u32 = 5;
    const SUMMARY: &'static str = "Predicts held-out cases with ONNX Runtime and scores them against the source labels, in their space.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        params.check()
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&MODEL).reads(&VOLUMES).reads(&SPLIT).reads_optional(&BASELINE);
        ports.writes(&METRICS).writes(&PREDICTIONS).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let (predictor, volumes) = (context.read(&MODEL)?, context.read(&VOLUMES)?);
        let jobs = choose(params.part, params.fold, &context.read(&SPLIT)?, &predictor, &volumes)?;
        // Volumes without any reference know no labels, and can be predicted all the same.
        let labels = match volumes.info.dataset.foreground().next() {
            Some(_) => &volumes.info.dataset.labels,
            None => &predictor.task.labels,
        };
        check_task(&predictor.task, labels, &volumes, &jobs)?;
        let scoring = params.scoring();
        let targets = scoring.targets(&predictor.task.labels).map_err(StageError::Data)?;
        let runtime = runtime_fact(load_runtime(context)?);
        let method = params.method(take(params.device, context)?);
        // Cases run side by side; one that is left alone has all threads.
        let threads = rayon::current_num_threads() / jobs.len().max(1);
        let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
        let inference = Inference::new(&predictor, method, threads);
        let root = context.output_dir(&PREDICTIONS)?;
        let worker = Worker {
            method,
            predictor: &predictor,
            volumes: &volumes,
            runtime: &runtime.build,
            inference,
            root,
            context,
            scoring: &scoring,
            targets: &targets,
            members: params.members,
        };
        let results = worker.run_all(&jobs)?;

        let member = |member: &Member| MemberFact {
            name: member.card.name.clone(),
            weight: member.card.weight,
            digest: member.card.digest,
        };
        let facts = PredictionFacts {
            members: predictor.members.iter().map(member).collect(),
            mirror: method.mirror,
            overlap: method.overlap,
            blend: method.blend,
            tiling: method.tiling,
            combine: predictor.combine,
            device: method.provider,
            runtime,
        };
        let folds: BTreeSet<usize> = jobs.iter().filter_map(|job| job.fold).collect();
        let origin = Origin {
            part: params.part.name().into(),
            folds: folds.into_iter().collect(),
            prediction: Some(facts),
        };
        let case = |(job, scores): (&Job, &Option<Scores>)| Case {
            id: job.row.id.clone(),
            patient: job.row.patient.clone(),
            scores: scores.as_ref().map(|scores| scores.own.clone()),
        };
        let cases: Vec<Case> = jobs.iter().zip(&results).map(case).collect();
        let mut metrics = summary::metrics(&cases, &targets, &scoring, origin);
        if params.members {
            let alone = of_members(&predictor, &jobs, &results);
            metrics.summary.ensemble = members::ensemble(&cases, &alone, &targets, &scoring);
        }
        if let Some(baseline) = context.read_optional(&BASELINE)? {
            metrics.summary.comparison =
                compare::compare(&metrics, &baseline, &scoring).map_err(StageError::Data)?;
        }
        report(&metrics, context);
        context.write(&METRICS, &metrics)?;
        let rows = jobs.iter().map(|job| prediction_row(job, &predictor)).collect();
        context.write(&PREDICTIONS, &Predictions { root: root.to_owned(), rows })
    }
}

/// Fails when the volumes, with these labels, are not what the networks were trained on.
pub(crate) fn check_task(
    task: &Task,
    labels: &BTreeMap<u8, String>,
    volumes: &Volumes,
    jobs: &[Job],
) -> Result<(), StageError> {
    let own = Task { labels: labels.clone(), channels: task.channels, preparation: volumes.info.preparation };
    if let Some(difference) = own.difference("the volumes", task, "the model") {
        return Err(StageError::Data(format!("the model was not made for these volumes: {difference}")));
    }
    match jobs.iter().find(|job| job.row.channels != task.channels) {
        None => Ok(()),
        Some(Job { row, .. }) => Err(StageError::Data(format!(
            "case `{}` has {} but the model takes {}",
            row.id,
            counted(row.channels, "image channel"),
            task.channels
        ))),
    }
}

/// Name of each member of the predictor, and its own scores of every case that it predicted.
fn of_members(
    predictor: &Predictor,
    jobs: &[Job],
    results: &[Option<Scores>],
) -> Vec<(String, Vec<Option<Vec<TargetScore>>>)> {
    let of = |(index, member): (usize, &Member)| {
        let one = |(job, scores): (&Job, &Option<Scores>)| {
            let at = job.members.iter().position(|member| *member == index)?;
            scores.as_ref()?.members.get(at).cloned()
        };
        (member.card.name.clone(), jobs.iter().zip(results).map(one).collect())
    };
    predictor.members.iter().enumerate().map(of).collect()
}

/// The scores of one case that has a reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Scores {
    own: Vec<TargetScore>,
    /// Of each member by itself, in the order of the job; empty unless they were asked for.
    members: Vec<Vec<TargetScore>>,
}

/// What every case needs.
struct Worker<'a> {
    method: Method,
    predictor: &'a Predictor,
    volumes: &'a Volumes,
    /// Which build of the runtime: it decides the last bits.
    runtime: &'a str,
    inference: Inference<'a>,
    /// Where predictions go.
    root: &'a Path,
    context: &'a StageContext,
    scoring: &'a Scoring,
    targets: &'a [Target],
    /// Members are scored by themselves, too.
    members: bool,
}

/// All that the prediction of one case depends on.
#[derive(Serialize)]
struct ItemKey<'a> {
    id: &'a str,
    /// Digest, weight and patch of each member that predicts the case.
    members: Vec<(Digest, f64, [usize; 3])>,
    labels: Vec<u8>,
    image: String,
    transform: &'a Transform,
    method: Method,
    combine: Combine,
    runtime: &'a str,
    /// Members leave their own predictions, too.
    alone: bool,
}

/// All that the scores of one case depend on: other metrics need no other prediction.
#[derive(Serialize)]
struct ScoreKey<'a> {
    prediction: &'a ItemKey<'a>,
    reference: Digest,
    metrics: &'a [Metric],
    rules: Rules,
    targets: &'a [Target],
}

impl Worker<'_> {
    /// The scores of every case in the order of `jobs`; `None` for those without a reference.
    fn run_all(&self, jobs: &[Job]) -> Result<Vec<Option<Scores>>, StageError> {
        let done = AtomicUsize::new(0);
        let run = |job: &Job| {
            let id = &job.row.id;
            let scores = self.run(job).map_err(|error| match error {
                StageError::Interrupted => error,
                error => StageError::inner(format!("evaluating case `{id}`"))(error),
            })?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            self.context.progress(done, jobs.len(), "cases", id.as_str());
            Ok(scores)
        };
        // One by one: a case is long, and neighbours in the list may differ much in size.
        jobs.par_iter().with_max_len(1).map(run).collect()
    }

    /// Predicts and scores one case, unless that was done before.
    fn run(&self, job: &Job) -> Result<Option<Scores>, StageError> {
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
            method: self.method,
            combine: self.predictor.combine,
            runtime: self.runtime,
            alone: self.members,
        };
        let alone: Vec<[usize; 1]> =
            if self.members { job.members.iter().map(|member| [*member]).collect() } else { Vec::new() };
        let () = self.context.memo(&key, self.root, |dir| {
            let groups: Vec<&[usize]> = std::iter::once(job.members.as_slice())
                .chain(alone.iter().map(<[usize; 1]>::as_slice))
                .collect();
            let found = self.inference.predict(&image, &transform, &groups, false)?;
            for (index, found) in found.iter().enumerate() {
                let path = dir.join(file_name(&row.id, index.checked_sub(1)));
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(StageError::io("create", folder))?;
                }
                nifti::write_label(&path, &found.labels)
                    .map_err(StageError::inner("writing the prediction"))?;
            }
            Ok(())
        })?;
        let Some(file) = &row.label else { return Ok(None) };
        let key = ScoreKey {
            prediction: &key,
            reference: file.digest,
            metrics: &self.scoring.metrics,
            rules: self.scoring.rules(self.targets),
            targets: self.targets,
        };
        self.context.memo(&key, self.root, |_| self.score(file, &row.id, alone.len())).map(Some)
    }

    fn score(&self, file: &FileRef, id: &str, members: usize) -> Result<Scores, StageError> {
        let path = self.context.source(&file.digest)?;
        let reference = open::label(&path, Options::default())
            .map_err(StageError::inner(format!("reading `{}`", file.path)))?
            .volume;
        let labels = &self.predictor.task.labels;
        let one = |member: Option<usize>| {
            // What others will read, not what is in memory.
            let prediction = nifti::read_label(&self.root.join(file_name(id, member)))
                .map_err(StageError::inner("reading the prediction"))?;
            score::score_case(&reference, &prediction, Some(labels), self.targets, self.scoring)
                .map_err(|problem| StageError::Data(format!("`{}` {problem}", file.path)))
        };
        let alone = (0..members).map(|member| one(Some(member)));
        Ok(Scores { own: one(None)?, members: alone.collect::<Result<_, _>>()? })
    }
}

/// The label map of a case below the output: the ensemble's, or that of one of its members.
fn file_name(id: &str, member: Option<usize>) -> String {
    match member {
        None => Predictions::file_name(id),
        Some(member) => format!("members/{member:02}/{}", Predictions::file_name(id)),
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
    if let Some(ensemble) = &summary.ensemble {
        context.fact("ensemble minus mean of members", ensemble.difference);
    }
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
