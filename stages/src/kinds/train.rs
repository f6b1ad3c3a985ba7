//! Trains a network on the training cases of one fold and validates it on the others.

use crate::artifact::{In, InOptional, Out, Ports, Resources};
use crate::artifacts::{CaseTable, FoldTable, Model, ModelCard, TrainingFacts, TrainingLog, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use pipe_nn::{Io, NnError, Parameters, Progress, Score, Task, TrainJob, Trained};
use std::collections::BTreeMap;

mod log;
mod params;
mod source;

use params::Keep;
pub use params::Params;
use source::{FoldSource, Targets};

pub struct Train;

const VOLUMES: In<Volumes> = In::new("volumes");
const SPLIT: In<FoldTable> = In::new("split");
/// Needed for classes of whole images.
const CASES: InOptional<CaseTable> = InOptional::new("cases");
/// A network whose weights are the start values.
const PRETRAINED: InOptional<Model> = InOptional::new("pretrained");
const MODEL: Out<Model> = Out::new("model");
const LOG: Out<TrainingLog> = Out::new("log");

impl Stage for Train {
    const KIND: &'static str = "train";
    const VERSION: u32 = 4;
    const SUMMARY: &'static str = "Trains a network on all folds but one, and validates it on that one.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        params.problems()
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&VOLUMES).reads(&SPLIT).reads_optional(&CASES).reads_optional(&PRETRAINED);
        ports.writes(&MODEL).writes(&LOG).seeded().needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let volumes = context.read(&VOLUMES)?;
        let split = context.read(&SPLIT)?;
        let targets = match params.model.task() {
            Task::Segmentation => Targets::voxels(&volumes)?,
            Task::Classification => Targets::classes(context.read_optional(&CASES)?.as_ref())?,
        };
        let start = start_values(context, &volumes)?;
        let training = FoldSource::new(&volumes, &split.training(params.fold)?, &targets, context)?;
        let validation = FoldSource::new(&volumes, &split.validation(params.fold)?, &targets, context)?;
        if training.is_empty() {
            return Err(StageError::Data(format!(
                "fold {} leaves no labelled case to train on",
                params.fold
            )));
        }
        let largest = volumes.largest_shape(training.ids().chain(validation.ids()));
        let size = match (params.patch, params.model.dims()) {
            (Some(patch), _) => patch.0,
            (None, pipe_nn::Dims::Two) => [1, largest[1], largest[2]],
            (None, pipe_nn::Dims::Three) => largest,
        };
        let io = Io { channels: training.channels()?, classes: targets.names().len(), size };
        let trained = fit(params, io, [&training, &validation], start.as_ref(), context)?;
        context.write(&LOG, &log::training_log(&trained, targets.names()))?;
        let (epoch, weights) = match params.keep {
            Keep::Best => (trained.best_epoch, &trained.best),
            Keep::Last => (trained.log.len(), &trained.last),
        };
        let found = trained.log.iter().find(|row| row.epoch == epoch).and_then(|row| row.validation.clone());
        let validation_dice = found.as_ref().and_then(pipe_nn::Validation::mean_dice);
        let validation_auc = found.and_then(|found| match found.score {
            Score::Classes { auc, .. } => auc,
            Score::Dice(_) => None,
        });
        for (name, value) in [("validation_dice", validation_dice), ("validation_auc", validation_auc)] {
            if let Some(value) = value {
                context.fact(name, value);
            }
        }
        context.fact("epoch", epoch);
        let training_facts = TrainingFacts {
            fold: params.fold,
            training_cases: training.count().min(params.overfit.unwrap_or(usize::MAX)),
            validation_cases: params.overfit.map_or(validation.count(), |count| count.min(training.count())),
            epochs: trained.log.len(),
            epoch,
            validation_dice,
            validation_auc,
        };
        let card = ModelCard {
            architecture: params.model.clone(),
            io,
            patch: trained.patch,
            preparation: volumes.info.preparation,
            labels: targets.names().clone(),
            training: training_facts,
        };
        context.write(&MODEL, &Model { card, weights: weights.to_safetensors() })
    }
}

/// The weights of the wired network; an error where its images were brought to another scale than these.
fn start_values(context: &StageContext, volumes: &Volumes) -> Result<Option<Parameters>, StageError> {
    let Some(Model { card, weights }) = context.read_optional(&PRETRAINED)? else { return Ok(None) };
    let text = |value| serde_json::to_string(&value).unwrap_or_default();
    let (theirs, ours) = (card.preparation, volumes.info.preparation);
    let (their_scale, our_scale) = (text(theirs.normalization), text(ours.normalization));
    if their_scale != our_scale {
        return Err(StageError::Data(format!(
            "the pretrained network saw images normalised by {their_scale} but these volumes are normalised by \
             {our_scale}: give \
             the stage that made them the `normalize` of the other one"
        )));
    }
    if theirs.spacing_mm != ours.spacing_mm {
        let (theirs, ours) = (theirs.spacing_mm, ours.spacing_mm);
        context.warn(format!("the pretrained network saw voxels of {theirs:?} mm, these are of {ours:?}"));
    }
    Parameters::from_safetensors(&weights).map(Some).map_err(StageError::inner("reading pretrained weights"))
}

fn fit(
    params: &Params,
    io: Io,
    [training, validation]: [&FoldSource<'_>; 2],
    start: Option<&Parameters>,
    context: &StageContext,
) -> Result<Trained, StageError> {
    let failed = |error: NnError| match error {
        NnError::Interrupted { .. } => StageError::Interrupted,
        error => StageError::inner(format!("training on fold {}", params.fold))(error),
    };
    let network = params.model.network(io).map_err(failed)?;
    let mut score = String::new();
    let mut observe = |progress: &Progress| match progress {
        Progress::Step { epoch, step, steps, loss, .. } => {
            let text = format!("epoch {epoch}, loss {loss:.3}{score}");
            context.progress(*step, *steps, "steps", text);
        }
        Progress::Epoch(row) => {
            if let Some(found) = &row.validation {
                score = match (&found.score, found.key()) {
                    (Score::Dice(_), Some(dice)) => format!(", validation Dice {dice:.4}"),
                    (Score::Classes { auc: Some(auc), .. }, _) => format!(", validation AUC {auc:.4}"),
                    (Score::Classes { accuracy, .. }, _) => format!(", validation accuracy {accuracy:.4}"),
                    (Score::Dice(_), None) => String::new(),
                };
            }
        }
        Progress::Warning(text) => context.warn(text.clone()),
        Progress::StoppedEarly { epoch, best_epoch } => {
            context
                .note(format!("stopped after epoch {epoch}: nothing better than epoch {best_epoch} since"));
        }
    };
    let config = params.config(context.seed()?);
    let checkpoint_dir = Some(context.checkpoint()?);
    let job = TrainJob { network: &network, training, validation, config: &config, start, checkpoint_dir };
    pipe_nn::train(&job, &mut observe, &|| context.interrupted()).map_err(failed)
}

/// The labels as the network's classes: background and foreground in order of their values.
fn label_names(volumes: &Volumes) -> Result<BTreeMap<u8, String>, StageError> {
    let mut names = BTreeMap::new();
    for (&value, name) in &volumes.info.dataset.labels {
        // 255 marks voxels that do not count.
        if value == u8::MAX {
            let text = format!("label {value} ({name}) is too large; labels go up to {}", u8::MAX - 1);
            return Err(StageError::Data(text));
        }
        names.insert(value, name.clone());
    }
    names.entry(0).or_insert_with(|| "background".to_owned());
    if names.len() < 2 {
        return Err(StageError::Data("the data set has no label besides the background".into()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
