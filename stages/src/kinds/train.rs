//! Trains a network on the training cases of one fold and validates it on the others.

use crate::artifact::{In, InOptional, Out, Ports, Resources};
use crate::artifacts::{CaseTable, FoldTable, Model, ModelCard, TrainingFacts, TrainingLog, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use fs_err as fs;
use pipe_nn::{Device, Io, Network, NnError, Progress, Score, Task, TrainJob, Trained, Validation};
use pretrained::Start;
use std::collections::BTreeMap;

mod log;
mod params;
mod plots;
mod pretrained;
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
    const VERSION: u32 = 5;
    const SUMMARY: &'static str = "Trains a network on all folds but one, and validates it on that one.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        params.problems()
    }

    fn advise(params: &Params) -> Vec<ParamProblem> {
        params.advice()
    }

    fn declare(params: &Params, ports: &mut Ports) {
        ports.reads(&VOLUMES).reads(&SPLIT).reads_optional(&CASES).reads_optional(&PRETRAINED);
        // Two trainings on one device would share its memory: a stage that names one has it to itself.
        let on_gpu = match params.device {
            Device::Cpu => false,
            Device::Cuda(_) => true,
            Device::Auto => cfg!(feature = "cuda"),
        };
        let gpu = usize::from(on_gpu);
        ports.writes(&MODEL).writes(&LOG).seeded().needs(Resources { gpu, ..Resources::PARALLEL });
        if let Some(pretrained) = &params.pretrained {
            pretrained.declare(ports);
        }
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let volumes = context.read(&VOLUMES)?;
        let split = context.read(&SPLIT)?;
        let targets = match params.model.task() {
            Task::Segmentation => Targets::voxels(&volumes)?,
            Task::Classification => Targets::classes(context.read_optional(&CASES)?.as_ref())?,
        };
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
        let network = params.model.network(io).map_err(|error| failed(params, error))?;
        let start = pretrained::start(params.pretrained.as_ref(), &network, &volumes, context)?;
        if params.freezes() && start.values.is_none() {
            context.warn("parts of the network are frozen but nothing is `pretrained`: they keep values drawn at random");
        }
        warn_of_sizes(params, &training, largest, context);
        let trained = fit(params, &network, [&training, &validation], &targets, &start, context)?;
        let log = log::training_log(&trained, targets.names(), start.taken);
        context.write(&LOG, &log)?;
        let path = context.output_dir(&LOG)?.join("curves.svg");
        fs::write(&path, plots::draw(&log)).map_err(StageError::io("write", &path))?;
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

fn failed(params: &Params, error: NnError) -> StageError {
    match error {
        NnError::Interrupted { .. } => StageError::Interrupted,
        error => StageError::inner(format!("training on fold {}", params.fold))(error),
    }
}

/// The number by which this process knows a device that it was granted by name: CUDA counts those that
/// `CUDA_VISIBLE_DEVICES` names from 0, in its order.
fn ordinal(name: &str, visible: Option<&str>) -> usize {
    let place = visible.and_then(|visible| visible.split(',').position(|named| named.trim() == name));
    place.or_else(|| name.parse().ok()).unwrap_or(0)
}

fn fit(
    params: &Params,
    network: &Network,
    [training, validation]: [&FoldSource<'_>; 2],
    targets: &Targets,
    start: &Start,
    context: &StageContext,
) -> Result<Trained, StageError> {
    // The device that the stage has to itself, else the first.
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let usual = context.gpus.first().map_or(0, |name| ordinal(name, visible.as_deref()));
    let chosen = params.device.choose(usual).map_err(|error| failed(params, error))?;
    if let Some(reason) = &chosen.passed_over {
        context.warn(format!("the network trains on the processor: {reason}"));
    }
    if params.device != Device::Cpu {
        context.note(format!("the network trains on {}", chosen.processor));
        context.fact("device", chosen.processor.to_string());
    }
    let config = params.config(context.seed()?);
    // Of the epoch before: score and speed, which is told but is no part of any artifact.
    let mut score = String::new();
    let mut before: Option<(usize, f64)> = None;
    let mut observe = |progress: &Progress| match progress {
        Progress::Surveyed { absent, samples } => {
            let names: Vec<&String> = targets.names().values().collect();
            for class in absent {
                context.warn(format!(
                    "no training case of this fold has `{}`: it cannot be learnt",
                    names[*class]
                ));
            }
            if config.samples_per_step() > *samples {
                let (asked, samples) = (config.samples_per_step(), *samples);
                context.warn(format!(
                    "a step asks for {asked} samples but an epoch has {samples}: it takes those"
                ));
            }
        }
        Progress::Step { epoch, step, steps, loss, .. } => {
            let text = format!("epoch {epoch}, loss {loss:.3}{score}");
            context.progress(*step, *steps, "steps", text);
        }
        Progress::Epoch(row) => {
            score = row.validation.as_ref().map(told).unwrap_or_default();
            if let Some((samples, seconds)) = before.filter(|(_, seconds)| row.seconds > *seconds) {
                let speed = (row.samples - samples) as f64 / (row.seconds - seconds);
                score.push_str(&format!(", {speed:.1} samples/s"));
            }
            before = Some((row.samples, row.seconds));
        }
        Progress::Warning(text) => context.warn(text.clone()),
        Progress::StoppedEarly { epoch, best_epoch } => {
            context
                .note(format!("stopped after epoch {epoch}: nothing better than epoch {best_epoch} since"));
        }
    };
    let checkpoint_dir = Some(context.checkpoint()?);
    let start = start.values.as_ref();
    let job = TrainJob { network, training, validation, config: &config, start, checkpoint_dir };
    let trained = pipe_nn::train_with(chosen.processor, &job, &mut observe, &|| context.interrupted());
    trained.map_err(|error| match error {
        NnError::OneClass { class, cases } => StageError::Data(format!(
            "every label of the {cases} training cases of fold {} is `{}`: there is nothing to tell apart; look at the \
             labels (`inspect` counts them) and at the split",
            params.fold,
            targets.names().values().nth(usize::from(class)).map_or("?", String::as_str)
        )),
        error => failed(params, error),
    })
}

/// Tells what was asked for beyond what there is.
fn warn_of_sizes(params: &Params, training: &FoldSource<'_>, largest: [usize; 3], context: &StageContext) {
    if let Some(count) = params.overfit.filter(|count| *count > training.count()) {
        context
            .warn(format!("`overfit: {count}` asks for more cases than the {} there are", training.count()));
    }
    let [z, y, x] = largest;
    if let Some(params::Patch(patch)) = params.patch {
        let filled =
            (0..3).map(|axis| largest[axis].min(patch[axis]) as f64 / patch[axis] as f64).product::<f64>();
        if filled < 0.5 && params.model.dims() == pipe_nn::Dims::Three {
            context.warn(format!(
                "`patch: {patch:?}` is mostly padding: the largest case is {z}×{y}×{x} and fills {:.0} % of it",
                100.0 * filled
            ));
        }
    }
}

/// `, validation Dice 0.8123`, or nothing where there is no score.
fn told(found: &Validation) -> String {
    match (&found.score, found.key()) {
        (Score::Dice(_), Some(dice)) => format!(", validation Dice {dice:.4}"),
        (Score::Classes { auc: Some(auc), .. }, _) => format!(", validation AUC {auc:.4}"),
        (Score::Classes { accuracy, .. }, _) => format!(", validation accuracy {accuracy:.4}"),
        (Score::Dice(_), None) => String::new(),
    }
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
        return Err(StageError::Data(
            "the data set has no label besides the background: label maps that hold nothing else, or labels that are not \
             declared; `inspect` counts them"
                .into(),
        ));
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
