//! The best single model or ensemble by cross-validation: every candidate predicts the validation cases of every fold,
//! each case only by networks that were not trained on it. The test cases are never looked at.

use crate::artifacts::predictor::{Member, Predictor};
use crate::artifacts::{Choice, ChoiceRow, FoldTable, VolumeRow, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::evaluate::score::{TargetScore, score_case};
use crate::kinds::evaluate::scoring::{Scoring, Target};
use crate::kinds::evaluate::summary::{Case, Origin, metrics};
use crate::kinds::inference::{Inference, Method, load_runtime};
use pipe_imaging::digest;
use pipe_imaging::open::{self, Options};
use pipe_metrics::segmentation::Metric;
use rayon::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A model by its name without the fold, and its networks by the fold that each left out.
pub(super) type Configuration = (String, BTreeMap<usize, usize>);

/// Groups networks that differ in their fold alone: `onnx[fold=0,model=unet2d]` and `onnx[fold=1,model=unet2d]` are the
/// model `onnx[model=unet2d]`. All models must have a network for the same folds, or their scores would be of different
/// cases.
pub(super) fn configurations(members: &[Member]) -> Result<Vec<Configuration>, StageError> {
    let mut found: Vec<Configuration> = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let name = without_fold(&member.card.name);
        let Some(fold) = member.card.fold else {
            return Err(StageError::Data(format!(
                "`{}` does not say which fold it left out in training, so it cannot be compared on validation cases",
                member.card.name
            )));
        };
        let place = found.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            found.push((name.clone(), BTreeMap::new()));
            found.len() - 1
        });
        if let Some(first) = found[place].1.insert(fold, index) {
            return Err(StageError::Data(format!(
                "`{}` and `{}` both left fold {fold} out, so `{name}` is not one model: give the stages that made them \
                 different names, or tell them apart in `matrix`",
                members[first].card.name, member.card.name
            )));
        }
    }
    let listed =
        |folds: &BTreeMap<usize, usize>| folds.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (first_name, first) = &found[0];
    match found.iter().find(|(_, folds)| !folds.keys().eq(first.keys())) {
        None => Ok(found),
        Some((name, folds)) => Err(StageError::Data(format!(
            "`{first_name}` has networks of fold {} but `{name}` of fold {}: models are compared on the same validation \
             cases, so each needs a network of every fold",
            listed(first),
            listed(folds)
        ))),
    }
}

/// `onnx[fold=0,model=unet2d]` → `onnx[model=unet2d]`, `onnx[fold=0]` → `onnx`.
fn without_fold(name: &str) -> String {
    let Some((stage, values)) = name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) else {
        return name.to_owned();
    };
    let values: Vec<&str> = values.split(',').filter(|value| !value.trim().starts_with("fold=")).collect();
    if values.is_empty() { stage.to_owned() } else { format!("{stage}[{}]", values.join(",")) }
}

/// Every model by itself, every pair, and all together: positions among `models`.
pub(super) fn candidates(models: usize) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = (0..models).map(|one| vec![one]).collect();
    found.extend((0..models).flat_map(|one| (one + 1..models).map(move |other| vec![one, other])));
    if models > 2 {
        found.push((0..models).collect());
    }
    found
}

/// Scores every candidate, and returns the table and the positions of the networks of the best.
pub(super) fn best(
    predictor: &Predictor,
    method: Method,
    volumes: &Volumes,
    split: &FoldTable,
    context: &StageContext,
) -> Result<(Choice, Vec<usize>), StageError> {
    let models = configurations(&predictor.members)?;
    let candidates = candidates(models.len());
    let scoring = Scoring { metrics: vec![Metric::Dice], ..Scoring::default() };
    let targets = scoring.targets(&predictor.task.labels).map_err(StageError::Data)?;
    let mut jobs: Vec<(usize, &VolumeRow)> = Vec::new();
    for fold in models[0].1.keys() {
        for id in split.validation(*fold)? {
            let row = volumes
                .row(id)
                .map_err(StageError::inner(format!("looking for case `{id}` of the split")))?;
            // Without a reference it says nothing.
            if row.label.is_some() {
                jobs.push((*fold, row));
            }
        }
    }
    if jobs.is_empty() {
        return Err(StageError::Data(
            "no validation case has a reference, so nothing says which model is the best: leave `choose` out"
                .into(),
        ));
    }
    let runtime = load_runtime(context)?;
    let threads = NonZeroUsize::new(rayon::current_num_threads() / jobs.len()).unwrap_or(NonZeroUsize::MIN);
    let work = Work {
        predictor,
        inference: Inference::new(predictor, method, threads),
        method,
        models: &models,
        candidates: &candidates,
        volumes,
        scoring: &scoring,
        targets: &targets,
        runtime: runtime.build(),
        context,
    };
    let done = AtomicUsize::new(0);
    let one = |(fold, row): &(usize, &VolumeRow)| {
        let scores = work.scores(*fold, row)?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        context.progress(done, jobs.len(), "cases", row.id.as_str());
        Ok(scores)
    };
    let scores: Vec<Vec<Vec<TargetScore>>> =
        jobs.par_iter().with_max_len(1).map(one).collect::<Result<_, StageError>>()?;

    let row = |(at, candidate): (usize, &Vec<usize>)| {
        let case = |((_, row), scores): (&(usize, &VolumeRow), &Vec<Vec<TargetScore>>)| Case {
            id: row.id.clone(),
            patient: row.patient.clone(),
            scores: Some(scores[at].clone()),
        };
        let cases: Vec<Case> = jobs.iter().zip(&scores).map(case).collect();
        let origin = Origin { part: "validation".into(), folds: Vec::new(), prediction: None };
        let summary = metrics(&cases, &targets, &scoring, origin).summary;
        let interval = summary.mean_foreground_dice_interval;
        ChoiceRow {
            candidate: candidate
                .iter()
                .map(|&model| models[model].0.as_str())
                .collect::<Vec<_>>()
                .join(" + "),
            models: candidate.len(),
            networks: candidate.iter().map(|&model| models[model].1.len()).sum(),
            cases: cases.len(),
            mean_dice: summary.mean_foreground_dice,
            low: interval.map(|interval| interval.low),
            high: interval.map(|interval| interval.high),
            chosen: false,
            reason: String::new(),
        }
    };
    let rows: Vec<ChoiceRow> = candidates.iter().enumerate().map(row).collect();
    let (rows, winner) = ranked(&rows);
    let networks: BTreeSet<usize> =
        candidates[winner].iter().flat_map(|&model| models[model].1.values().copied()).collect();
    Ok((Choice { rows }, networks.into_iter().collect()))
}

/// Sorts candidates, best first, says why one was taken, and returns its position before. Of equals, that with the fewest
/// networks, then the first.
pub(super) fn ranked(rows: &[ChoiceRow]) -> (Vec<ChoiceRow>, usize) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let score = |at: usize| rows[at].mean_dice.unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(rows[a].networks.cmp(&rows[b].networks)));
    let best = score(order[0]);
    let ranked = order.iter().enumerate().map(|(place, &at)| {
        let mut row = rows[at].clone();
        row.chosen = place == 0;
        row.reason = match (place, row.mean_dice) {
            (_, None) => "no label has a defined Dice".into(),
            (0, Some(_)) => format!("highest mean Dice over {} validation cases", row.cases),
            (_, Some(dice)) if dice == best => "as high, with no fewer networks".into(),
            (_, Some(dice)) => format!("{:.4} below the highest", best - dice),
        };
        row
    });
    (ranked.collect(), order[0])
}

struct Work<'a> {
    predictor: &'a Predictor,
    inference: Inference<'a>,
    method: Method,
    models: &'a [Configuration],
    candidates: &'a [Vec<usize>],
    volumes: &'a Volumes,
    scoring: &'a Scoring,
    targets: &'a [Target],
    runtime: &'a str,
    context: &'a StageContext,
}

impl Work<'_> {
    /// The scores of one case by every candidate.
    fn scores(&self, fold: usize, row: &VolumeRow) -> Result<Vec<Vec<TargetScore>>, StageError> {
        let Some(file) = &row.label else {
            return Err(StageError::Internal(format!("case `{}` has no reference to choose by", row.id)));
        };
        let members = |candidate: &Vec<usize>| -> Vec<usize> {
            candidate.iter().map(|&model| self.models[model].1[&fold]).collect()
        };
        let groups: Vec<Vec<usize>> = self.candidates.iter().map(members).collect();
        let (image, transform) = (self.volumes.image(&row.id)?, self.volumes.transform(&row.id)?);
        let card = |member: &usize| {
            let card = &self.predictor.members[*member].card;
            (card.digest, card.weight, card.patch)
        };
        let key = json!({
            "groups": groups.iter().map(|group| group.iter().map(card).collect()).collect::<Vec<Vec<_>>>(),
            "combine": self.predictor.combine,
            "method": self.method,
            "runtime": self.runtime,
            "image": digest::image_digest(&image).to_string(),
            "transform": transform,
            "reference": file.digest,
            "rules": self.scoring.rules(self.targets),
            "targets": self.targets,
        });
        self.context.memo(&key, &self.context.scratch, |_| {
            let groups: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
            let doing = || format!("choosing by case `{}`", row.id);
            let found = self
                .inference
                .predict(&image, &transform, &groups, false)
                .map_err(StageError::inner(doing()))?;
            let path = self.context.source(&file.digest)?;
            let reference = open::label(&path, Options::default())
                .map_err(StageError::inner(format!("reading `{}`", file.path)))?
                .volume;
            let labels = &self.predictor.task.labels;
            let score = |found: crate::kinds::inference::Predicted| {
                score_case(&reference, &found.labels, Some(labels), self.targets, self.scoring)
                    .map_err(|problem| StageError::Data(format!("`{}` {problem}", file.path)))
            };
            found.into_iter().map(score).collect()
        })
    }
}
