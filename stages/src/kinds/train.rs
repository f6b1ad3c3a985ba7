//! Trains a U-Net on the training cases of one fold and validates it on the others.

use crate::artifact::{In, Out, Ports, Resources};
use crate::artifacts::{Architecture, FoldTable, Model, ModelCard, TrainingFacts, TrainingLog, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use pipe_nn::{Augmentation, Dims, NnError, Parameters, Progress, TrainConfig, Trained, UNetConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod log;
mod source;

use source::FoldSource;

pub struct Train;

const VOLUMES: In<Volumes> = In::new("volumes");
const SPLIT: In<FoldTable> = In::new("split");
const MODEL: Out<Model> = Out::new("model");
const LOG: Out<TrainingLog> = Out::new("log");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The fold that is left out for validation, counted from 0.
    fold: usize,
    /// The network.
    model: Network,
    /// Passes over the training cases.
    #[serde(default = "default_epochs")]
    epochs: usize,
    /// Volumes (3D) or slices (2D) a step; 2 in 3D and 16 in 2D unless given.
    #[serde(default)]
    batch_size: Option<usize>,
    /// Rate of the first step; it then falls as (1 - step/steps)^0.9.
    #[serde(default = "default_learning_rate")]
    learning_rate: f64,
    /// Decoupled weight decay of AdamW, on weights only.
    #[serde(default = "default_weight_decay")]
    weight_decay: f64,
    /// Channels of the first level; each level has twice as many. 8 in 3D and 16 in 2D unless given.
    #[serde(default)]
    base_features: Option<usize>,
    /// Resolutions of the U-Net; each halves every axis.
    #[serde(default = "default_levels")]
    levels: usize,
    /// Voxels of a training sample along z, y, x (z is 1 in 2D). Unless given: the smallest that holds every training
    /// case.
    #[serde(default)]
    patch: Option<[usize; 3]>,
    /// Random changes to training samples.
    #[serde(default)]
    augment: Augment,
    /// Epochs between validations; the last is always validated.
    #[serde(default = "default_validate_every")]
    validate_every: usize,
    /// Which weights become the model.
    #[serde(default)]
    keep: Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Network {
    /// U-Net on slices along z.
    Unet2d,
    /// U-Net on volumes.
    Unet3d,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Augment {
    /// Mirror along z, y, x, each with probability 1/2.
    flips: [bool; 3],
    /// Change gain, offset and curvature of the intensities, and add noise.
    intensity: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Keep {
    /// Those of the epoch with the largest mean validation Dice.
    #[default]
    Best,
    /// Those of the last epoch.
    Last,
}

impl Default for Augment {
    fn default() -> Self {
        let Augmentation { flips, intensity } = Augmentation::default();
        Self { flips, intensity }
    }
}

fn default_epochs() -> usize {
    20
}

fn default_learning_rate() -> f64 {
    3e-3
}

fn default_weight_decay() -> f64 {
    1e-2
}

fn default_levels() -> usize {
    3
}

fn default_validate_every() -> usize {
    1
}

impl Params {
    fn dims(&self) -> Dims {
        match self.model {
            Network::Unet2d => Dims::Two,
            Network::Unet3d => Dims::Three,
        }
    }

    fn unet(&self, in_channels: usize, classes: usize) -> UNetConfig {
        let usual = if self.dims() == Dims::Two { 16 } else { 8 };
        let base_features = self.base_features.unwrap_or(usual);
        UNetConfig { dims: self.dims(), in_channels, classes, base_features, levels: self.levels }
    }

    fn config(&self, seed: u64) -> TrainConfig {
        let usual = TrainConfig::for_dims(self.dims());
        TrainConfig {
            epochs: self.epochs,
            batch_size: self.batch_size.unwrap_or(usual.batch_size),
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            patch: self.patch,
            seed,
            augmentation: Augmentation { flips: self.augment.flips, intensity: self.augment.intensity },
            validate_every: self.validate_every,
            ..usual
        }
    }
}

impl Stage for Train {
    const KIND: &'static str = "train";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Trains a 2D or 3D U-Net on all folds but one, and validates it on that one.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let mut at_least_one = |parameter, value: usize| {
            if value == 0 {
                let message = format!("`{parameter}` is 0");
                problems.push(ParamProblem {
                    parameter,
                    message,
                    help: "use a whole number, 1 or more".into(),
                });
            }
        };
        at_least_one("epochs", params.epochs);
        at_least_one("validate_every", params.validate_every);
        at_least_one("batch_size", params.batch_size.unwrap_or(1));
        if let Err(error) = params.unet(1, 2).network() {
            let parameter = if params.levels == 0 || params.levels > 8 { "levels" } else { "base_features" };
            problems.push(ParamProblem { parameter, message: error.to_string(), help: String::new() });
        }
        if params.learning_rate <= 0.0 {
            let message = format!("a learning rate of {} does not learn", params.learning_rate);
            problems.push(ParamProblem { parameter: "learning_rate", message, help: "try 0.003".into() });
        }
        if params.weight_decay < 0.0 {
            let message = format!("a weight decay of {} lets weights grow", params.weight_decay);
            problems.push(ParamProblem { parameter: "weight_decay", message, help: "use 0 or more".into() });
        }
        problems
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&VOLUMES).reads(&SPLIT).writes(&MODEL).writes(&LOG).seeded().needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let volumes = context.read(&VOLUMES)?;
        let split = context.read(&SPLIT)?;
        let labels = label_names(&volumes)?;
        let training = FoldSource::new(&volumes, &split.training(params.fold)?, &labels, context)?;
        let validation = FoldSource::new(&volumes, &split.validation(params.fold)?, &labels, context)?;
        if training.is_empty() {
            return Err(StageError::Data(format!(
                "fold {} leaves no labelled case to train on",
                params.fold
            )));
        }
        let unet = params.unet(training.channels()?, labels.len());
        let trained = fit(params, &unet, [&training, &validation], context)?;
        context.write(&LOG, &log::training_log(&trained.log, &labels))?;
        let (epoch, weights) = match params.keep {
            Keep::Best => (trained.best_epoch, &trained.best),
            Keep::Last => (params.epochs, &trained.last),
        };
        let validation_dice = trained.log.iter().find(|row| row.epoch == epoch).and_then(|row| row.mean_dice);
        if let Some(dice) = validation_dice {
            context.fact("validation_dice", dice);
        }
        context.fact("epoch", epoch);
        let training_facts = TrainingFacts {
            fold: params.fold,
            training_cases: training.count(),
            validation_cases: validation.count(),
            epochs: params.epochs,
            epoch,
            validation_dice,
        };
        context.write(&MODEL, &model(unet, weights, &trained, &volumes, labels, training_facts))
    }
}

fn fit(
    params: &Params,
    unet: &UNetConfig,
    [training, validation]: [&FoldSource<'_>; 2],
    context: &StageContext,
) -> Result<Trained, StageError> {
    let failed = |error: NnError| match error {
        NnError::Interrupted { .. } => StageError::Interrupted,
        error => StageError::inner(format!("training on fold {}", params.fold))(error),
    };
    let network = unet.network().map_err(failed)?;
    let mut dice = String::new();
    let mut observe = |progress: &Progress| match progress {
        Progress::Step { epoch, step, steps, loss, .. } => {
            let text = format!("epoch {epoch}, loss {loss:.3}{dice}");
            context.progress(*step, *steps, "steps", text);
        }
        Progress::Epoch(row) => {
            if let Some(mean) = row.mean_dice {
                dice = format!(", validation Dice {mean:.4}");
            }
        }
    };
    let config = params.config(context.seed()?);
    let stop = || context.interrupted();
    pipe_nn::train(&network, training, validation, &config, &mut observe, &stop, Some(context.checkpoint()?))
        .map_err(failed)
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

fn model(
    unet: UNetConfig,
    weights: &Parameters,
    trained: &Trained,
    volumes: &Volumes,
    labels: BTreeMap<u8, String>,
    training: TrainingFacts,
) -> Model {
    let card = ModelCard {
        architecture: Architecture::Unet(unet),
        patch: trained.patch,
        spacing_mm: volumes.info.spacing_mm,
        normalization: volumes.info.normalization,
        labels,
        training,
    };
    Model { card, weights: weights.to_safetensors() }
}
